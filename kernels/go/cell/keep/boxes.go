package keep

import (
	"reflect"
	"unsafe"
)

func (d *restorer) static(addr unsafe.Pointer, name string, fits bool) {
	value, ok := d.registry.statics[name]
	if !ok || value.Kind() != reflect.Pointer {
		d.lose(name + " is not there")
		return
	}
	if fits {
		*(*unsafe.Pointer)(addr) = value.UnsafePointer()
	}
}

func (d *restorer) staticAny(addr unsafe.Pointer, s *slot, name string, fits bool) {
	value, ok := d.registry.statics[name]
	if !ok || value.Kind() != reflect.Interface || value.IsNil() {
		d.lose(name + " is not there")
		return
	}
	if fits && value.Elem().Type().Implements(s.typ) {
		reflect.NewAt(s.typ, addr).Elem().Set(value.Elem())
	}
}

// word gives the first word of an interface of a type that holds a value of another; nil if it
// cannot.
func (d *restorer) word(iface, t reflect.Type) unsafe.Pointer {
	key := [2]reflect.Type{iface, t}
	if word, ok := d.words[key]; ok {
		return word
	}
	var word unsafe.Pointer
	if t.Implements(iface) {
		value := reflect.New(iface)
		value.Elem().Set(reflect.Zero(t))
		word = *(*unsafe.Pointer)(value.UnsafePointer())
	} else {
		d.lose(t.String() + " no longer has the methods of " + iface.String())
	}
	d.words[key] = word
	return word
}

// direct puts a pointer into an interface.
func (d *restorer) direct(addr unsafe.Pointer, s *slot, r *reader, fits bool) {
	id := r.below(len(d.types.list))
	t := d.types.live(id)
	there := r.bool()
	if t == nil {
		d.lose("type " + d.types.list[id].name + " is no longer there")
	}
	if t == nil || !fits || !isDirect(t) {
		if there {
			d.ref(nil, nil, r)
		}
		return
	}
	word := d.word(s.typ, t)
	if word == nil {
		if there {
			d.ref(nil, nil, r)
		}
		return
	}
	holder := new(unsafe.Pointer)
	if there {
		plan := d.plans.of(t)
		var inner *slot
		if len(plan.slots) > 0 {
			inner = &plan.slots[0]
		}
		d.ref(unsafe.Pointer(holder), inner, r)
	}
	(*eface)(addr).typ = word
	(*eface)(addr).data = *holder
}

// boxed puts a value into an interface.
func (d *restorer) boxed(addr unsafe.Pointer, s *slot, r *reader, kind int, fits bool) {
	id := r.below(len(d.types.list))
	t := d.types.live(id)
	var g goal
	if kind == refBoxed {
		g = d.target(r, t)
	} else if t != nil {
		g = goal{addr: reflect.New(t).UnsafePointer()}
	}
	if t == nil {
		d.lose("type " + d.types.list[id].name + " is no longer there")
		return
	}
	if !fits || !g.holds(1, t.Size()) || isDirect(t) {
		return
	}
	if word := d.word(s.typ, t); word != nil {
		(*eface)(addr).typ = word
		(*eface)(addr).data = g.addr
	}
}

func (d *restorer) bound(addr unsafe.Pointer, name string, g goal, fits bool) {
	bind, ok := d.registry.bound[name]
	if !ok {
		d.lose("method " + name + " is no longer there")
		return
	}
	if fits && g.addr != nil {
		d.pending = append(d.pending, binding{addr, g.addr, bind})
	}
}

// readBoxes makes the maps and channels, still empty.
func (d *restorer) readBoxes(r *reader) {
	n := r.int()
	if n > len(r.b) {
		panic(damaged{"its table of maps is too short"})
	}
	d.boxes = make([]oldBox, n)
	for i := range d.boxes {
		b := &d.boxes[i]
		b.typ, b.count, b.isChan, b.isSync = r.below(len(d.types.list)), r.int(), r.bool(), r.bool()
		if b.isChan {
			b.capacity, b.closed = r.int(), r.bool()
		}
		b.values = d.readContents(r)
		if !b.isChan {
			b.keys = d.readContents(r)
		}
		d.makeBox(b)
	}
}

func (d *restorer) readContents(r *reader) contents {
	if !r.bool() {
		return contents{}
	}
	return contents{true, r.below(len(d.islands)), r.size()}
}

func (d *restorer) makeBox(b *oldBox) {
	b.live = d.types.live(b.typ)
	if b.live == nil {
		d.lose("type " + d.types.list[b.typ].name + " is no longer there")
		return
	}
	switch {
	case b.isSync:
		b.keyType, b.valType = reflect.TypeFor[any](), reflect.TypeFor[any]()
		return
	case b.isChan && b.live.Kind() == reflect.Chan && b.count <= b.capacity:
		b.valType = b.live.Elem()
		b.object = reflect.MakeChan(b.live, b.capacity)
	case !b.isChan && b.live.Kind() == reflect.Map:
		b.keyType, b.valType = b.live.Key(), b.live.Elem()
		b.object = reflect.MakeMapWithSize(b.live, min(b.count, addressSpace>>16))
	default:
		panic(damaged{"a map is none"})
	}
	b.pointer = b.object.UnsafePointer()
}

// slice gives the saved contents of a box as a slice; ok is false if they are of another type.
func (d *restorer) slice(c contents, elem reflect.Type, n int) (reflect.Value, bool) {
	if n == 0 || elem.Size() == 0 {
		return reflect.MakeSlice(reflect.SliceOf(elem), n, n), true
	}
	if !c.there || d.islands[c.island].live != elem {
		return reflect.Value{}, false
	}
	g := d.goal(&d.islands[c.island], c.offset, elem)
	if !g.holds(n, elem.Size()) {
		return reflect.Value{}, false
	}
	value := reflect.New(reflect.SliceOf(elem))
	h := (*sliceHeader)(value.UnsafePointer())
	h.data = g.addr
	h.length, h.capacity = n, n
	return value.Elem(), true
}

// fillBoxes comes last: a key must be complete before it is hashed.
func (d *restorer) fillBoxes() {
	for i := range d.boxes {
		b := &d.boxes[i]
		if b.live == nil || b.isSync {
			continue
		}
		values, ok := d.slice(b.values, b.valType, b.count)
		if !ok {
			d.lose("the values of a " + b.live.String() + " are of another type now")
			continue
		}
		if b.isChan {
			for n := range b.count {
				b.object.Send(values.Index(n))
			}
			if b.closed {
				b.object.Close()
			}
			continue
		}
		keys, ok := d.slice(b.keys, b.keyType, b.count)
		if !ok {
			d.lose("the keys of a " + b.live.String() + " are of another type now")
			continue
		}
		if !fillQuickly(b.object.Interface(), keys.Interface(), values.Interface()) {
			for n := range b.count {
				b.object.SetMapIndex(keys.Index(n), values.Index(n))
			}
		}
	}
	for _, f := range d.filled {
		b := &d.boxes[f.box]
		keys, ok := d.slice(b.keys, reflect.TypeFor[any](), b.count)
		values, ok2 := d.slice(b.values, reflect.TypeFor[any](), b.count)
		if ok && ok2 {
			fillSyncMap(f.addr, keys.Interface().([]any), values.Interface().([]any))
		}
	}
}

// fillQuickly knows the most common types of maps; the general way takes five times as long.
func fillQuickly(m, keys, values any) bool {
	switch m := m.(type) {
	case map[string]int:
		return fill(m, keys, values)
	case map[string]string:
		return fill(m, keys, values)
	case map[string]any:
		return fill(m, keys, values)
	case map[string]bool:
		return fill(m, keys, values)
	case map[string]float64:
		return fill(m, keys, values)
	case map[string][]string:
		return fill(m, keys, values)
	case map[int]int:
		return fill(m, keys, values)
	case map[int]string:
		return fill(m, keys, values)
	case map[int]bool:
		return fill(m, keys, values)
	}
	return false
}

func fill[K comparable, V any](m map[K]V, keys, values any) bool {
	k, ok := keys.([]K)
	v, ok2 := values.([]V)
	if !ok || !ok2 {
		return false
	}
	for i := range k {
		m[k[i]] = v[i]
	}
	return true
}
