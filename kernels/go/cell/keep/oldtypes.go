package keep

import (
	"reflect"
)

// An oldType is a type as the program had it that saved the state.
type oldType struct {
	name     string
	named    bool
	layout   bool
	kind     reflect.Kind
	size     uintptr
	elem     int
	key      int
	length   int
	dir      reflect.ChanDir
	fields   []oldField
	in, out  []int
	variadic bool

	resolved bool
	live     reflect.Type // nil if the program has none
	same     sameness
}

type oldField struct {
	name, path, tag string
	embedded        bool
	offset          uintptr
	typ             int
}

// Whether the bytes of an old value are those of a value of the live type.
type sameness uint8

const (
	unknown sameness = iota
	same
	different
)

type oldTypes struct {
	list     []oldType
	registry *registry
}

// The largest type table that is believed.
const typesMax = 1 << 20

func readTypes(r *reader, registry *registry) *oldTypes {
	n := r.below(typesMax)
	ts := &oldTypes{list: make([]oldType, n), registry: registry}
	for i := range ts.list {
		ts.read(r, &ts.list[i])
	}
	return ts
}

func (ts *oldTypes) read(r *reader, t *oldType) {
	n := len(ts.list)
	t.name, t.named, t.layout = r.string(), r.bool(), r.bool()
	if !t.layout {
		return
	}
	t.kind, t.size = reflect.Kind(r.int()), r.size()
	switch t.kind {
	case reflect.Pointer, reflect.Slice:
		t.elem = r.below(n)
	case reflect.Chan:
		t.dir = reflect.ChanDir(r.int())
		t.elem = r.below(n)
	case reflect.Array:
		t.length = r.int()
		t.elem = r.below(n)
	case reflect.Map:
		t.key, t.elem = r.below(n), r.below(n)
	case reflect.Struct:
		t.fields = make([]oldField, r.below(typesMax))
		for i := range t.fields {
			t.fields[i] = oldField{name: r.string(), path: r.string(), tag: r.string(), embedded: r.bool(), offset: r.size(), typ: r.below(n)}
		}
	case reflect.Func:
		t.variadic = r.bool()
		t.in = readIDs(r, n)
		t.out = readIDs(r, n)
	}
}

func readIDs(r *reader, n int) []int {
	ids := make([]int, r.below(typesMax))
	for i := range ids {
		ids[i] = r.below(n)
	}
	return ids
}

// live gives the program's type for an old one; nil if it has none.
func (ts *oldTypes) live(id int) reflect.Type {
	t := &ts.list[id]
	if t.resolved {
		return t.live
	}
	t.resolved = true
	if found, ok := ts.registry.find(t.name); ok {
		t.live = found
	} else if !t.named && t.layout {
		t.live = ts.construct(t)
	}
	return t.live
}

// construct makes a type without a name; the program itself may not have it.
func (ts *oldTypes) construct(t *oldType) reflect.Type {
	switch t.kind {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
		elem := ts.live(t.elem)
		switch {
		case elem == nil:
			return nil
		case t.kind == reflect.Pointer:
			return reflect.PointerTo(elem)
		case t.kind == reflect.Slice:
			return reflect.SliceOf(elem)
		case t.kind == reflect.Array:
			return reflect.ArrayOf(t.length, elem)
		}
		return reflect.ChanOf(t.dir, elem)
	case reflect.Map:
		key, elem := ts.live(t.key), ts.live(t.elem)
		if key == nil || elem == nil {
			return nil
		}
		return reflect.MapOf(key, elem)
	case reflect.Func:
		in, ok := ts.lives(t.in)
		out, ok2 := ts.lives(t.out)
		if !ok || !ok2 {
			return nil
		}
		return reflect.FuncOf(in, out, t.variadic)
	case reflect.Struct:
		return ts.constructStruct(t)
	}
	return nil
}

func (ts *oldTypes) lives(ids []int) ([]reflect.Type, bool) {
	list := make([]reflect.Type, len(ids))
	for i, id := range ids {
		if list[i] = ts.live(id); list[i] == nil {
			return nil, false
		}
	}
	return list, true
}

func (ts *oldTypes) constructStruct(t *oldType) reflect.Type {
	fields := make([]reflect.StructField, len(t.fields))
	for i, f := range t.fields {
		typ := ts.live(f.typ)
		if typ == nil {
			return nil
		}
		fields[i] = reflect.StructField{Name: f.name, PkgPath: f.path, Type: typ, Tag: reflect.StructTag(f.tag), Anonymous: f.embedded}
	}
	return reflect.StructOf(fields)
}

// isSame tells whether old bytes can be copied as they are. What pointers lead to is another
// question, asked for each island.
func (ts *oldTypes) isSame(id int) bool {
	t := &ts.list[id]
	live := ts.live(id)
	if live == nil || !t.layout {
		return false
	}
	if t.same == unknown {
		t.same = different
		if ts.compare(t, live) {
			t.same = same
		}
	}
	return t.same != different
}

func (ts *oldTypes) compare(t *oldType, live reflect.Type) bool {
	if t.kind != live.Kind() || t.size != live.Size() {
		return false
	}
	switch t.kind {
	case reflect.Pointer, reflect.Slice, reflect.Chan:
		return ts.sameName(t.elem, live.Elem())
	case reflect.Map:
		return ts.sameName(t.key, live.Key()) && ts.sameName(t.elem, live.Elem())
	case reflect.Array:
		return t.length == live.Len() && ts.live(t.elem) == live.Elem() && ts.isSame(t.elem)
	case reflect.Struct:
		if len(t.fields) != live.NumField() {
			return false
		}
		for i, f := range t.fields {
			now := live.Field(i)
			if f.name != now.Name || f.offset != now.Offset || ts.live(f.typ) != now.Type || !ts.isSame(f.typ) {
				return false
			}
		}
	}
	return true
}

func (ts *oldTypes) sameName(id int, live reflect.Type) bool {
	return ts.list[id].name == canon(live)
}
