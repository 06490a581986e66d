package keep

import (
	"reflect"
	"runtime"
	"slices"
	"unsafe"

	"crownest/cell"
)

// Strings up to this length are saved where they occur: nobody can tell shared ones apart, and
// longer ones would cost memory twice.
const inlineStringBytesMax = 64

// A region is memory that a typed pointer leads to: count values of one plan.
type region struct {
	addr  unsafe.Pointer
	size  uintptr
	plan  *plan
	count int
	root  int // index of the variable that begins here, or -1
	via   int // index of a variable that leads here
}

func (r *region) start() uintptr { return uintptr(r.addr) }
func (r *region) end() uintptr   { return uintptr(r.addr) + r.size }

// A box is a map or channel: its contents are copied to arrays, which are saved like others.
type box struct {
	typ            reflect.Type
	via            int
	keys, values   unsafe.Pointer // the arrays; a channel has only values
	count          int
	capacity       int
	closed         bool
	keyPlan, plan  *plan
	isChan, isSync bool
}

// A failure is a place whose value cannot be kept.
type failure struct {
	what string // the type
	why  string
}

// collector walks everything that the variables lead to and notes which memory that is.
type collector struct {
	plans    plans
	registry *registry
	regions  []region
	seen     map[target]bool
	ends     map[span]uintptr // lowest start of what was walked up to an end
	boxes    map[unsafe.Pointer]*box
	syncMaps map[unsafe.Pointer]*box
	failures map[unsafe.Pointer]failure // by address of the slot
	alive    []reflect.Value            // keeps the arrays of boxes
	queue    []region
	direct   map[reflect.Type]bool
	// Other goroutines were stopped somewhere, so words of a value may not belong together.
	settled bool
}

type target struct {
	addr unsafe.Pointer
	plan *plan
}

type span struct {
	end  uintptr
	plan *plan
}

func newCollector(r *registry, settled bool) *collector {
	return &collector{
		plans: plans{}, registry: r, settled: settled,
		seen: map[target]bool{}, ends: map[span]uintptr{},
		boxes: map[unsafe.Pointer]*box{}, syncMaps: map[unsafe.Pointer]*box{},
		failures: map[unsafe.Pointer]failure{}, direct: map[reflect.Type]bool{},
	}
}

// collect walks everything from the variables.
func (c *collector) collect(variables []variable) {
	for i := range variables {
		if variables[i].old {
			continue
		}
		p := c.plans.of(variables[i].typ)
		r := region{addr: variables[i].addr, size: p.size, plan: p, count: 1, root: i, via: i}
		c.regions = append(c.regions, r)
		c.seen[target{r.addr, p}] = true
		c.queue = append(c.queue, r)
	}
	for len(c.queue) > 0 {
		r := c.queue[len(c.queue)-1]
		c.queue = c.queue[:len(c.queue)-1]
		for i := range r.count {
			c.walk(unsafe.Add(r.addr, uintptr(i)*r.plan.size), r.plan, r.via)
		}
	}
}

func (c *collector) walk(base unsafe.Pointer, p *plan, via int) {
	for i := range p.slots {
		c.visit(base, &p.slots[i], via)
	}
}

func (c *collector) fail(addr unsafe.Pointer, t reflect.Type, why string) {
	c.failures[addr] = failure{what: t.String(), why: why}
}

// visit follows one slot of a value at base.
func (c *collector) visit(base unsafe.Pointer, s *slot, via int) {
	addr := unsafe.Add(base, s.offset)
	switch s.kind {
	case slotString:
		h := at[stringHeader](addr)
		if h.length > inlineStringBytesMax {
			c.reach(addr, s, h.data, c.plans.of(byteType), h.length, via)
		}
	case slotSlice:
		h := at[sliceHeader](addr)
		if h.data != nil && h.capacity > 0 {
			c.reach(addr, s, h.data, c.plans.of(s.typ.Elem()), h.capacity, via)
		}
	case slotPointer:
		c.visitPointer(addr, s, at[unsafe.Pointer](addr), s.typ.Elem(), via)
	case slotInterface:
		c.visitInterface(addr, s, via)
	case slotMap:
		c.visitMap(s.typ, at[unsafe.Pointer](addr), via)
	case slotChan:
		c.visitChan(addr, s.typ, at[unsafe.Pointer](addr), via)
	case slotFunc:
		c.visitFunc(addr, s.typ, at[unsafe.Pointer](addr), via)
	case slotArray:
		elem := c.plans.of(s.typ.Elem())
		for i := range s.count {
			c.walk(unsafe.Add(addr, uintptr(i)*elem.size), elem, via)
		}
	case slotSyncMap:
		c.visitSyncMap(addr, s.typ, via)
	case slotBusy:
		if !c.settled && !isZero(addr, s.size) {
			c.fail(addr, s.typ, "in use by a goroutine that has ended")
		}
	case slotResource:
		if !isZero(addr, s.size) {
			c.fail(addr, s.typ, s.why)
		}
	}
}

func (c *collector) visitPointer(addr unsafe.Pointer, s *slot, p unsafe.Pointer, elem reflect.Type, via int) {
	if p == nil {
		return
	}
	if _, ok := c.registry.pointers[p]; ok {
		return
	}
	pointed := c.plans.of(elem)
	if pointed.resource != "" {
		c.fail(addr, elem, pointed.resource)
		return
	}
	c.reach(addr, s, p, pointed, 1, via)
}

// reach adds memory that a slot leads to.
func (c *collector) reach(from unsafe.Pointer, s *slot, addr unsafe.Pointer, p *plan, count int, via int) {
	size := p.size * uintptr(count)
	if size == 0 {
		return
	}
	if count < 0 || uintptr(count) > addressSpace/p.size || !c.settled && !whole(addr, size) {
		c.fail(from, s.typ, "stopped in the middle of an assignment")
		return
	}
	key := target{addr, p}
	if count == 1 {
		if c.seen[key] {
			return
		}
		c.seen[key] = true
		c.add(region{addr: addr, size: size, plan: p, count: 1, root: -1, via: via})
		return
	}
	// Slices of one array mostly share its end: walk only what lies before the lowest start.
	last := span{uintptr(addr) + size, p}
	lowest, known := c.ends[last]
	if known && lowest <= uintptr(addr) {
		return
	}
	c.ends[last] = uintptr(addr)
	r := region{addr: addr, size: size, plan: p, count: count, root: -1, via: via}
	c.regions = append(c.regions, r)
	if known {
		r.count = int((lowest - uintptr(addr)) / p.size)
	}
	if !p.plain() {
		c.queue = append(c.queue, r)
	}
}

func (c *collector) add(r region) {
	c.regions = append(c.regions, r)
	if !r.plan.plain() {
		c.queue = append(c.queue, r)
	}
}

// whole tells whether memory lies within one object of the heap, or outside the heap.
func whole(addr unsafe.Pointer, size uintptr) bool {
	base, length, ok := cell.ObjectBounds(uintptr(addr))
	return !ok || size <= base+length-uintptr(addr)
}

func (c *collector) visitInterface(addr unsafe.Pointer, s *slot, via int) {
	t, data, ok := dynamic(addr, s.typ)
	if !ok {
		return
	}
	if _, ok := c.registry.values[unsafePair{descriptorOf(t), data}]; ok {
		return
	}
	if why := c.registry.unnameable(t); why != "" {
		c.fail(addr, t, why)
		return
	}
	if !c.isDirect(t) {
		p := c.plans.of(t)
		if p.resource != "" {
			c.fail(addr, t, p.resource)
			return
		}
		c.reach(addr, s, data, p, 1, via)
		return
	}
	// The data word is the value: a pointer, or a struct of just one.
	word := unsafe.Add(addr, wordSize)
	p := c.plans.of(t)
	c.walk(word, p, via)
	for i := range p.slots {
		if f, ok := c.failures[unsafe.Add(word, p.slots[i].offset)]; ok {
			delete(c.failures, unsafe.Add(word, p.slots[i].offset))
			c.failures[addr] = f
		}
	}
}

func (c *collector) isDirect(t reflect.Type) bool {
	is, known := c.direct[t]
	if !known {
		is = isDirect(t)
		c.direct[t] = is
	}
	return is
}

// dynamic gives type and data word of an interface.
func dynamic(addr unsafe.Pointer, t reflect.Type) (reflect.Type, unsafe.Pointer, bool) {
	words := at[eface](addr)
	if words.typ == nil {
		return nil, nil, false
	}
	if t.NumMethod() == 0 {
		return typeOfDescriptor(words.typ), words.data, true
	}
	value := reflect.NewAt(t, addr).Elem().Elem()
	return value.Type(), words.data, true
}

func (c *collector) visitMap(t reflect.Type, p unsafe.Pointer, via int) {
	if p == nil || c.boxes[p] != nil {
		return
	}
	m := reflect.NewAt(t, unsafe.Pointer(&p)).Elem()
	n := m.Len()
	keys := reflect.MakeSlice(reflect.SliceOf(t.Key()), n, n)
	values := reflect.MakeSlice(reflect.SliceOf(t.Elem()), n, n)
	i := 0
	for iter := m.MapRange(); i < n && iter.Next(); i++ {
		keys.Index(i).SetIterKey(iter)
		values.Index(i).SetIterValue(iter)
	}
	c.boxes[p] = c.box(t, keys, values, i, via)
}

// box adds the arrays with the contents of a map.
func (c *collector) box(t reflect.Type, keys, values reflect.Value, n, via int) *box {
	b := &box{typ: t, count: n, via: via, keys: keys.UnsafePointer(), values: values.UnsafePointer(),
		keyPlan: c.plans.of(keys.Type().Elem()), plan: c.plans.of(values.Type().Elem())}
	c.alive = append(c.alive, keys, values)
	if n > 0 {
		c.addArray(b.keys, b.keyPlan, n, via)
		c.addArray(b.values, b.plan, n, via)
	}
	return b
}

func (c *collector) addArray(addr unsafe.Pointer, p *plan, n, via int) {
	if p.size > 0 {
		c.add(region{addr: addr, size: p.size * uintptr(n), plan: p, count: n, root: -1, via: via})
	}
}

func (c *collector) visitSyncMap(addr unsafe.Pointer, t reflect.Type, via int) {
	if isZero(addr, t.Size()) || c.syncMaps[addr] != nil {
		return
	}
	anys := reflect.TypeFor[[]any]()
	keys, values := reflect.MakeSlice(anys, 0, 0), reflect.MakeSlice(anys, 0, 0)
	rangeSyncMap(addr, func(key, value any) bool {
		keys = reflect.Append(keys, reflect.ValueOf(&key).Elem())
		values = reflect.Append(values, reflect.ValueOf(&value).Elem())
		return true
	})
	b := c.box(t, keys, values, keys.Len(), via)
	b.isSync = true
	c.syncMaps[addr] = b
}

func (c *collector) visitChan(addr unsafe.Pointer, t reflect.Type, p unsafe.Pointer, via int) {
	if p == nil || c.boxes[p] != nil {
		return
	}
	content, ok := chanContent(p, t)
	if !ok || content.Timed {
		c.fail(addr, t, "a channel that a timer or another goroutine sends to")
		return
	}
	elem := t.Elem()
	n := int(content.Count)
	values := reflect.MakeSlice(reflect.SliceOf(elem), n, n)
	for i := range n {
		from := (content.First + uint(i)) % content.Capacity
		copyBytes(values.Index(i).Addr().UnsafePointer(), unsafe.Add(content.Buffer, from*uint(elem.Size())), elem)
	}
	c.alive = append(c.alive, values)
	b := &box{typ: reflect.ChanOf(reflect.BothDir, elem), isChan: true, count: n, via: via, closed: content.Closed,
		capacity: int(content.Capacity), values: values.UnsafePointer(), plan: c.plans.of(elem)}
	c.boxes[p] = b
	if n > 0 {
		c.addArray(b.values, b.plan, n, via)
	}
}

// copyBytes copies a value whose type the garbage collector knows at both places.
func copyBytes(to, from unsafe.Pointer, t reflect.Type) {
	reflect.NewAt(t, to).Elem().Set(reflect.NewAt(t, from).Elem())
}

// visitFunc keeps functions that have a name: the next program has them under the same.
func (c *collector) visitFunc(addr unsafe.Pointer, t reflect.Type, p unsafe.Pointer, via int) {
	if p == nil {
		return
	}
	name := functionName(p)
	receiver, why := c.registry.function(name)
	if why != "" {
		c.fail(addr, t, why)
		return
	}
	if receiver != nil {
		bound := c.plans.of(receiver)
		c.reach(addr, &slot{typ: t}, unsafe.Add(p, wordSize), bound, 1, via)
	}
}

func functionName(p unsafe.Pointer) string {
	if f := runtime.FuncForPC(*(*uintptr)(p)); f != nil {
		return f.Name()
	}
	return ""
}

func at[T any](addr unsafe.Pointer) T { return *(*T)(addr) }

func isZero(addr unsafe.Pointer, size uintptr) bool {
	memory := unsafe.Slice((*byte)(addr), size)
	return !slices.ContainsFunc(memory, func(b byte) bool { return b != 0 })
}

const (
	wordSize     = unsafe.Sizeof(uintptr(0))
	addressSpace = 1 << 47
)

var byteType = reflect.TypeFor[byte]()
