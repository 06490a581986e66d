package keep

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

func TestMain(m *testing.M) {
	ownPackage = "crownest/cell/keep"
	os.Exit(m.Run())
}

// kept saves variables and restores them into new ones of the same types.
func kept(t *testing.T, prepare func(r *registry), pointers ...any) (restored []any, lost []string) {
	t.Helper()
	from, to := newRegistry(), newRegistry()
	declareOwn(from)
	declareOwn(to)
	for i, pointer := range pointers {
		name := fmt.Sprintf("v%d", i)
		from.declare(variable{name: name}, pointer)
		fresh := reflect.New(reflect.TypeOf(pointer).Elem())
		to.declare(variable{name: name}, fresh.Interface())
		restored = append(restored, fresh.Interface())
	}
	if prepare != nil {
		prepare(from)
		prepare(to)
	}
	parts, lostValues := saved(t, from)
	for _, l := range lostValues {
		lost = append(lost, l.name+": "+l.what+": "+l.why)
	}
	for _, part := range parts {
		d := newRestorer(to)
		d.restore(part)
		for _, why := range sortedNames(d.lost) {
			lost = append(lost, listed(d.names)+": "+why)
		}
	}
	return restored, lost
}

// saved gives every part as the next program reads it.
func saved(t *testing.T, r *registry) (parts [][]byte, lost []lostValue) {
	t.Helper()
	c := newCollector(r, true)
	c.collect(r.variables)
	m := merge(c)
	m.settle()
	m.divide()
	byPart := make([][]*island, m.parts)
	for i := range m.islands {
		if at := &m.islands[i]; at.part >= 0 {
			byPart[at.part] = append(byPart[at.part], at)
		}
	}
	for _, islands := range byPart {
		var data []byte
		for _, piece := range m.newPart().write(islands, clockOrigin()) {
			data = append(data, piece.data...)
		}
		parts = append(parts, data)
	}
	return parts, m.lostValues()
}

// same saves a value and gives what comes back; nothing of it may be lost.
func sameValue[T any](t *testing.T, value T) T {
	t.Helper()
	restored, lost := kept(t, nil, &value)
	if len(lost) > 0 {
		t.Fatalf("lost: %q", lost)
	}
	return *restored[0].(*T)
}

type point struct {
	X, Y  int
	label string
}

type node struct {
	value    int
	next     *node
	children []*node
	parent   *node
}

type shape interface{ area() float64 }

type square struct{ side float64 }

func (s square) area() float64 { return s.side * s.side }

type circle struct{ r float64 }

func (c *circle) area() float64 { return 3 * c.r * c.r }

type pair[K comparable, V any] struct {
	Key   K
	Value V
}

func TestPlainValues(t *testing.T) {
	long := strings.Repeat("lang ", 1000)
	if got := sameValue(t, long); got != long {
		t.Error("a long text")
	}
	values := []any{
		true, -7, int8(-8), uint16(16), uint64(math.MaxUint64), 1.5, float32(2.5), complex(1, 2), "ein Text",
		[]int{1, 2, 3}, [3]string{"a", "b", "c"}, map[string]int{"a": 1}, map[int][]string{1: {"x"}},
		[]byte("bytes"), [][]float64{{1}, {2, 3}}, map[point]bool{{1, 2, "p"}: true}, []map[string]any{{"a": []any{1.0, "x", nil, true}}},
		math.Inf(1), uintptr(9), 'ä', [0]int{}, struct{}{}, []struct{}{{}, {}},
	}
	for _, value := range values {
		holder := reflect.New(reflect.TypeOf(value))
		holder.Elem().Set(reflect.ValueOf(value))
		restored, lost := kept(t, nil, holder.Interface())
		if got := reflect.ValueOf(restored[0]).Elem().Interface(); !reflect.DeepEqual(got, value) || len(lost) > 0 {
			t.Errorf("%T: %v became %v, lost %q", value, value, got, lost)
		}
	}
}

// declareOwn declares the types of this package, as a generated program does with its own.
func declareOwn(r *registry) {
	for _, t := range []reflect.Type{reflect.TypeFor[square](), reflect.TypeFor[circle](), reflect.TypeFor[point](), reflect.TypeFor[node]()} {
		r.types[canon(t)] = t
	}
}

func TestNilAndEmptyDiffer(t *testing.T) {
	if got := sameValue(t, []int(nil)); got != nil {
		t.Error("a nil slice")
	}
	if got := sameValue(t, []int{}); got == nil || len(got) != 0 {
		t.Error("an empty slice")
	}
	if got := sameValue(t, map[string]int(nil)); got != nil {
		t.Error("a nil map")
	}
	if got := sameValue(t, map[string]int{}); got == nil {
		t.Error("an empty map")
	}
	var p *point
	if got := sameValue(t, any(p)); got == nil || got.(*point) != nil {
		t.Error("a typed nil")
	}
}

func TestCapacityIsKept(t *testing.T) {
	s := make([]int, 2, 10)
	s[:5][4] = 7
	got := sameValue(t, s)
	if len(got) != 2 || cap(got) != 10 || got[:5][4] != 7 {
		t.Errorf("%d %d %v", len(got), cap(got), got[:5])
	}
}

func TestSharingAndCycles(t *testing.T) {
	ring := &node{value: 1}
	ring.next = &node{value: 2, next: ring}
	got := sameValue(t, ring)
	if got.next.next != got || got.next.value != 2 {
		t.Error("a ring")
	}
	tree := &node{value: 1}
	tree.children = []*node{{value: 2, parent: tree}, {value: 3, parent: tree}}
	if got := sameValue(t, tree); got.children[1].parent != got {
		t.Error("a tree")
	}
	var self any
	self = map[string]any{"x": &self}
	back := sameValue(t, self).(map[string]any)
	if inner := *back["x"].(*any); inner.(map[string]any)["x"].(*any) != back["x"].(*any) {
		t.Error("a map that leads to itself")
	}
}

func TestVariablesShareMemory(t *testing.T) {
	number := 5
	pointer := &number
	all := []int{1, 2, 3, 4, 5}
	some := all[1:3]
	element := &all[2]
	m := map[string]int{}
	same := m
	p := point{1, 2, "x"}
	field := &p.Y
	c := make(chan int, 3)
	c <- 1
	d := (<-chan int)(c)
	restored, lost := kept(t, nil, &number, &pointer, &all, &some, &element, &m, &same, &p, &field, &c, &d)
	if len(lost) > 0 {
		t.Fatal(lost)
	}
	if *restored[1].(**int) != restored[0].(*int) {
		t.Error("a pointer to a variable")
	}
	a, s := *restored[2].(*[]int), *restored[3].(*[]int)
	s[0] = 20
	if a[1] != 20 || *restored[4].(**int) != &a[2] || cap(s) != 4 {
		t.Error("slices of one array")
	}
	(*restored[5].(*map[string]int))["a"] = 1
	if (*restored[6].(*map[string]int))["a"] != 1 {
		t.Error("one map in two variables")
	}
	if *restored[8].(**int) != &restored[7].(*point).Y {
		t.Error("a pointer to a field")
	}
	if <-*restored[10].(*<-chan int) != 1 || len(*restored[9].(*chan int)) != 0 {
		t.Error("one channel in two variables")
	}
}

func TestUnrelatedVariablesAreApart(t *testing.T) {
	x, y, s := 1, "two", []int{3}
	p := &x
	r := newRegistry()
	r.declare(variable{name: "x"}, &x)
	r.declare(variable{name: "y"}, &y)
	r.declare(variable{name: "s"}, &s)
	r.declare(variable{name: "p"}, &p)
	if parts, _ := saved(t, r); len(parts) != 3 {
		t.Errorf("%d parts", len(parts))
	}
}

func TestInterfaces(t *testing.T) {
	shapes := []shape{square{2}, &circle{1}, nil}
	restored, lost := kept(t, nil, &shapes)
	if got := *restored[0].(*[]shape); got[0].area() != 4 || got[1].area() != 3 || got[2] != nil || len(lost) > 0 {
		t.Error(got, lost)
	}
	type local struct{ x int }
	hidden := any(local{1})
	restored, lost = kept(t, nil, &hidden)
	if *restored[0].(*any) != nil || len(lost) != 1 || !strings.Contains(lost[0], "local") {
		t.Error(restored, lost)
	}
}

func TestStandardLibrary(t *testing.T) {
	now := time.Now()
	if got := sameValue(t, now); !got.Equal(now) || got.Location() != time.Local {
		t.Error("time.Time", got)
	}
	zone, _ := time.LoadLocation("UTC")
	if got := sameValue(t, now.In(zone)); !got.Equal(now) {
		t.Error("time in UTC")
	}
	n := new(big.Int).Exp(big.NewInt(3), big.NewInt(200), nil)
	if got := sameValue(t, n); got.Cmp(n) != 0 {
		t.Error("big.Int")
	}
	if got := sameValue(t, big.NewRat(1, 3)); got.String() != "1/3" {
		t.Error("big.Rat")
	}
	var b strings.Builder
	b.WriteString("abc")
	holder := &b
	if got := sameValue(t, holder); got.String() != "abc" {
		t.Error("strings.Builder")
	} else {
		got.WriteString("d")
	}
	if got := sameValue(t, regexp.MustCompile("a+(b)?")); got.FindString("xaab") != "aab" {
		t.Error("regexp")
	}
	l := list.New()
	l.PushBack(1)
	l.PushBack("two")
	if got := sameValue(t, l); got.Len() != 2 || got.Back().Value != "two" || got.Back().Prev().Value != 1 {
		t.Error("list")
	}
	address := netip.MustParseAddr("192.0.2.1")
	if got := sameValue(t, address); got != address || !got.Is4() {
		t.Error("netip.Addr")
	}
	var m sync.Map
	m.Store("a", 1)
	keeper := &m
	if v, ok := sameValue(t, keeper).Load("a"); !ok || v != 1 {
		t.Error("sync.Map")
	}
	var p atomic.Pointer[point]
	p.Store(&point{1, 2, "z"})
	pp := &p
	if got := sameValue(t, pp); *got.Load() != (point{1, 2, "z"}) {
		t.Error("atomic.Pointer")
	}
	if got := sameValue(t, reflect.TypeFor[point]()); got != reflect.TypeFor[point]() {
		t.Error("reflect.Type")
	}
}

func TestErrorsKeepTheirIdentity(t *testing.T) {
	statics := func(r *registry) {
		r.static("io.EOF", reflect.ValueOf(&io.EOF).Elem())
		r.static("os.Stdout", reflect.ValueOf(&os.Stdout).Elem())
		for _, sample := range []any{errors.New(""), fmt.Errorf("%w", io.EOF), context.Background()} {
			ty := reflect.TypeOf(sample)
			r.types[canon(ty)] = ty
			if ty.Kind() == reflect.Pointer {
				r.types[canon(ty.Elem())] = ty.Elem()
			}
		}
	}
	err, wrapped, out, ctx := error(io.EOF), fmt.Errorf("read: %w", io.EOF), io.Writer(os.Stdout), context.Background()
	file := os.Stdout
	restored, lost := kept(t, statics, &err, &wrapped, &file, &ctx)
	_ = out
	if len(lost) > 0 {
		t.Fatal(lost)
	}
	if *restored[0].(*error) != io.EOF || !errors.Is(*restored[1].(*error), io.EOF) || *restored[2].(**os.File) != os.Stdout {
		t.Error("identity is lost")
	}
	if *restored[3].(*context.Context) != context.Background() {
		t.Error("context.Background")
	}
}

func TestWhatCannotBeKept(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	holder := struct {
		Name string
		File *os.File
	}{"null", file}
	literal := func() int { return len(holder.Name) }
	timer := time.NewTimer(time.Hour)
	pointer := unsafe.Pointer(file)
	restored, lost := kept(t, nil, &file, &holder, &literal, &timer, &pointer)
	if len(lost) != 5 {
		t.Errorf("%q", lost)
	}
	for i := range restored {
		v := reflect.ValueOf(restored[i]).Elem()
		if v.Kind() == reflect.Struct {
			if v.Field(0).String() != "null" || !v.Field(1).IsNil() {
				t.Error("the rest of a struct")
			}
		} else if !v.IsNil() {
			t.Error("v", i)
		}
	}
}

func TestForeignStructsAreWholeOrGone(t *testing.T) {
	c, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	restored, lost := kept(t, nil, &c)
	if *restored[0].(*context.Context) != nil || len(lost) != 1 {
		t.Error(restored[0], lost)
	}
}

func TestFunctions(t *testing.T) {
	f := strings.ToUpper
	counter := &node{value: 3}
	bound := counter.count
	prepare := func(r *registry) {
		up := strings.ToUpper
		r.functions["strings.ToUpper"] = *(*unsafe.Pointer)(unsafe.Pointer(&up))
	}
	restored, lost := kept(t, prepare, &f)
	if len(lost) > 0 || (*restored[0].(*func(string) string))("a") != "A" {
		t.Error(lost)
	}
	prepare = func(r *registry) {
		r.bound["crownest/cell/keep.(*node).count-fm"] = func(p unsafe.Pointer) any { return (*(**node)(p)).count }
	}
	restored, lost = kept(t, prepare, &bound, &counter)
	if len(lost) > 0 || (*restored[0].(*func() int))() != 4 || (*restored[1].(**node)).value != 4 {
		t.Error("a method value", lost)
	}
}

func (n *node) count() int { n.value++; return n.value }

func TestDamagedStateIsRefused(t *testing.T) {
	r := newRegistry()
	x := map[string][]string{"a": {"b", "c"}}
	p := &point{1, 2, "three"}
	r.declare(variable{name: "x"}, &x)
	r.declare(variable{name: "p"}, &p)
	parts, _ := saved(t, r)
	for _, part := range parts {
		for i := range part {
			for _, flip := range []byte{1, 0x80, 0xff} {
				broken := append([]byte(nil), part...)
				broken[i] ^= flip
				restoreBroken(broken)
			}
			restoreBroken(append([]byte(nil), part[:i]...))
		}
	}
}

func restoreBroken(data []byte) {
	var x map[string][]string
	var p *point
	r := newRegistry()
	r.declare(variable{name: "x"}, &x)
	r.declare(variable{name: "p"}, &p)
	r.restorePart(data)
}
