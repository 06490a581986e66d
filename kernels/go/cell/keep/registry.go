// Package keep saves the variables of a cell's program and restores them in the next one.
//
// A value is what a walk from the package variables finds: memory that typed pointers lead to,
// with sharing, cycles and unexported fields. It is written as bytes of that memory plus a list of
// the places that are no plain bytes (plan.go), so it is as fast as copying. The next program has
// other addresses, other type descriptors and perhaps other layouts; types.go and convert.go see
// to that.
//
// The package owns which values can be kept, and says so of each that cannot. It does not own
// where the bytes are between two cells: the driver does. Unsafe code is in this package and in
// package cell, nowhere else.
package keep

import (
	"reflect"
	"slices"
	"strings"
	"time"
	"unsafe"

	"crownest/cell"
	"crownest/cell/keep/names"
)

type variable struct {
	name string
	addr unsafe.Pointer
	typ  reflect.Type
	// The variable ends in this cell: it is restored, but not saved.
	old bool
}

// unsafePair is an interface value that a package variable holds.
type unsafePair struct{ typ, data unsafe.Pointer }

// registry is what the generated program says about itself.
type registry struct {
	variables []variable
	types     map[string]reflect.Type
	walked    bool // types has what the variables' types lead to
	functions map[string]unsafe.Pointer
	bound     map[string]func(receiver unsafe.Pointer) any
	// Package variables of other packages that hold a pointer or an error that is known by
	// its identity, such as io.EOF: by value, and by name.
	pointers map[unsafe.Pointer]string
	values   map[unsafePair]string
	statics  map[string]reflect.Value
}

func newRegistry() *registry {
	r := &registry{
		types: map[string]reflect.Type{}, functions: map[string]unsafe.Pointer{},
		bound:    map[string]func(unsafe.Pointer) any{},
		pointers: map[unsafe.Pointer]string{}, values: map[unsafePair]string{},
		statics: map[string]reflect.Value{},
	}
	for _, t := range basicTypes {
		r.types[canon(t)] = t
	}
	for name, pointer := range ownStatics {
		r.static(name, reflect.ValueOf(pointer).Elem())
	}
	return r
}

var program = newRegistry()

// Var declares a variable: a pointer to it.
func Var(name string, pointer any) { program.declare(variable{name: name}, pointer) }

// Old declares a variable that ends in this cell.
func Old(name string, pointer any) { program.declare(variable{name: name, old: true}, pointer) }

func (r *registry) declare(v variable, pointer any) {
	value := reflect.ValueOf(pointer)
	v.addr, v.typ = value.UnsafePointer(), value.Type().Elem()
	r.variables = append(r.variables, v)
}

// TypeFor declares a type.
func TypeFor[T any]() {
	t := reflect.TypeFor[T]()
	program.types[canon(t)] = t
}

// TypeOf declares the type of a value.
func TypeOf(value any) {
	t := reflect.TypeOf(value)
	for ; t.Kind() == reflect.Pointer && t.Name() == ""; t = t.Elem() {
		program.types[canon(t)] = t
	}
	program.types[canon(t)] = t
}

// Static declares a variable of another package: a pointer to it.
func Static(name string, pointer any) { program.static(name, reflect.ValueOf(pointer).Elem()) }

func (r *registry) static(name string, value reflect.Value) {
	r.statics[name] = value
	switch value.Kind() {
	case reflect.Pointer:
		if !value.IsNil() {
			r.pointers[value.UnsafePointer()] = name
		}
	case reflect.Interface:
		if t, data, ok := dynamic(value.Addr().UnsafePointer(), value.Type()); ok {
			r.values[unsafePair{descriptorOf(t), data}] = name
		}
	}
}

// Func declares a function that values may refer to.
func Func(name string, function any) {
	program.functions[name] = (*eface)(unsafe.Pointer(&function)).data
}

// Bound declares how to make the method value of that name of a receiver.
func Bound[R any](name string, bind func(receiver R) any) {
	program.bound[name] = func(receiver unsafe.Pointer) any { return bind(*(*R)(receiver)) }
}

var basicTypes = []reflect.Type{
	reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[int8](), reflect.TypeFor[int16](),
	reflect.TypeFor[int32](), reflect.TypeFor[int64](), reflect.TypeFor[uint](), reflect.TypeFor[uint8](),
	reflect.TypeFor[uint16](), reflect.TypeFor[uint32](), reflect.TypeFor[uint64](), reflect.TypeFor[uintptr](),
	reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[complex64](), reflect.TypeFor[complex128](),
	reflect.TypeFor[string](), reflect.TypeFor[error](), reflect.TypeFor[any](), reflect.TypeFor[unsafe.Pointer](),
	reflect.TypeOf(reflect.TypeFor[int]()),
}

// What is there in every program.
var ownStatics = map[string]any{"time.Local": &time.Local, "time.UTC": &time.UTC}

// canon names a type so that the next program finds it: with full paths of packages.
func canon(t reflect.Type) string {
	if name := t.Name(); name != "" {
		if path := t.PkgPath(); path != "" {
			return path + "." + name
		}
		return name
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + canon(t.Elem())
	case reflect.Slice:
		return "[]" + canon(t.Elem())
	case reflect.Array:
		return "[" + string(cell.AppendInt(nil, int64(t.Len()))) + "]" + canon(t.Elem())
	case reflect.Map:
		return "map[" + canon(t.Key()) + "]" + canon(t.Elem())
	case reflect.Chan:
		return t.ChanDir().String() + " " + canon(t.Elem())
	}
	// Structs, functions and interfaces without a name; compared, never looked up.
	return t.String()
}

// find looks a type up by its canonical name.
func (r *registry) find(name string) (reflect.Type, bool) {
	if t, ok := r.types[name]; ok {
		return t, true
	}
	if !r.walked {
		r.walked = true
		seen := map[reflect.Type]bool{}
		for _, t := range r.types {
			r.walk(t, seen)
		}
		for i := range r.variables {
			r.walk(r.variables[i].typ, seen)
		}
	}
	t, ok := r.types[name]
	return t, ok
}

// walk notes every type that a type is made of.
func (r *registry) walk(t reflect.Type, seen map[reflect.Type]bool) {
	if seen[t] {
		return
	}
	seen[t] = true
	if name := canon(t); r.types[name] == nil {
		r.types[name] = t
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
		r.walk(t.Elem(), seen)
	case reflect.Map:
		r.walk(t.Key(), seen)
		r.walk(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			r.walk(t.Field(i).Type, seen)
		}
	}
}

// unnameable says why the next program could not find a type that only an interface tells.
func (r *registry) unnameable(t reflect.Type) string {
	if _, ok := names.SampleOf(canon(t)); ok {
		return ""
	}
	if t.Name() != "" {
		return r.unnameableNamed(t)
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
		return r.unnameable(t.Elem())
	case reflect.Map:
		if why := r.unnameable(t.Key()); why != "" {
			return why
		}
		return r.unnameable(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if why := r.unnameable(t.Field(i).Type); why != "" {
				return why
			}
		}
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return "an interface type without a name"
		}
	}
	return ""
}

func (r *registry) unnameableNamed(t reflect.Type) string {
	path, base, arguments := names.SplitType(canon(t))
	switch {
	case path == "":
		return ""
	case path == ownPackage && arguments == "":
		if r.types[canon(t)] != t {
			return "its type is local to a function"
		}
	case path != ownPackage && !names.Exported(base):
		return "its type is private to package " + path
	}
	for _, name := range names.Mentioned(arguments) {
		path, base, _ := names.SplitType(name)
		if path == ownPackage && r.types[name] == nil || path != ownPackage && !names.Exported(base) {
			return "its type has an argument that cannot be named"
		}
	}
	return ""
}

// function tells how a function can be kept: by its name, with a receiver if it is a method
// value. Otherwise why not.
func (r *registry) function(symbol string) (receiver reflect.Type, why string) {
	f, ok := names.ParseFunc(symbol)
	if !ok {
		return nil, "a function literal or an instance of a generic function"
	}
	if f.Package != ownPackage && (!names.Exported(f.Name) || f.Receiver != "" && !names.Exported(f.Receiver)) {
		return nil, "a private function of package " + f.Package
	}
	if !f.Bound {
		return nil, ""
	}
	t, ok := r.find(f.Package + "." + f.Receiver)
	if !ok {
		return nil, "a method value of a type that nothing else here has"
	}
	if f.Pointer {
		t = reflect.PointerTo(t)
	}
	return t, ""
}

// sortedNames gives the keys of a set in order, so that the same state is the same bytes.
func sortedNames(set map[string]bool) []string {
	list := make([]string, 0, len(set))
	for name := range set {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// shorten cuts a text to a number of characters.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return strings.TrimRight(string(runes[:limit-1]), " ") + "…"
}
