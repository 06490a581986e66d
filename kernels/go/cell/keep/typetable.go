package keep

import "reflect"

// typeTable lists the types of one part. A type with a layout is one whose values are saved; the
// others are only pointed to, and their name is enough.
type typeTable struct {
	list   []reflect.Type
	ids    map[reflect.Type]int
	layout map[reflect.Type]bool
	// Types that the next program can only find if it is told of them.
	dynamic map[string]bool
	noted   map[reflect.Type]bool
}

func newTypeTable() *typeTable {
	return &typeTable{ids: map[reflect.Type]int{}, layout: map[reflect.Type]bool{}, dynamic: map[string]bool{}, noted: map[reflect.Type]bool{}}
}

// id adds a type.
func (tt *typeTable) id(t reflect.Type, layout bool) int {
	id, known := tt.ids[t]
	if !known {
		id = len(tt.list)
		tt.ids[t] = id
		tt.list = append(tt.list, t)
	}
	if known && (!layout || tt.layout[t]) {
		return id
	}
	if layout {
		tt.layout[t] = true
	}
	if !layout && t.Name() != "" {
		return id
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Chan:
		tt.id(t.Elem(), false)
	case reflect.Array:
		tt.id(t.Elem(), layout)
	case reflect.Map:
		tt.id(t.Key(), false)
		tt.id(t.Elem(), false)
	case reflect.Struct:
		for i := range t.NumField() {
			tt.id(t.Field(i).Type, layout)
		}
	case reflect.Func:
		for i := range t.NumIn() {
			tt.id(t.In(i), false)
		}
		for i := range t.NumOut() {
			tt.id(t.Out(i), false)
		}
	}
	return id
}

// found adds a type that an interface holds.
func (tt *typeTable) found(t reflect.Type) int {
	if !tt.noted[t] {
		tt.noted[t] = true
		tt.mention(t)
	}
	return tt.id(t, false)
}

// mention notes the named types that a type is made of.
func (tt *typeTable) mention(t reflect.Type) {
	if t.Name() != "" {
		if t.PkgPath() != "" {
			tt.dynamic[canon(t)] = true
		}
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t.Elem().Name() != "" && t.Elem().PkgPath() != "" {
			// The pointer may be what a sample is needed for.
			tt.dynamic[canon(t)] = true
			return
		}
		tt.mention(t.Elem())
	case reflect.Slice, reflect.Array, reflect.Chan:
		tt.mention(t.Elem())
	case reflect.Map:
		tt.mention(t.Key())
		tt.mention(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			tt.mention(t.Field(i).Type)
		}
	case reflect.Func:
		for i := range t.NumIn() {
			tt.mention(t.In(i))
		}
		for i := range t.NumOut() {
			tt.mention(t.Out(i))
		}
	}
}

func (tt *typeTable) write(w *writer) {
	w.int(len(tt.list))
	for _, t := range tt.list {
		tt.writeType(w, t)
	}
}

func (tt *typeTable) writeType(w *writer, t reflect.Type) {
	name := canon(t)
	layout := tt.layout[t] || t.Name() == ""
	w.string(name)
	w.bool(t.Name() != "")
	w.bool(layout)
	if !layout {
		return
	}
	w.int(int(t.Kind()))
	w.size(t.Size())
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		w.int(tt.ids[t.Elem()])
	case reflect.Chan:
		w.int(int(t.ChanDir()))
		w.int(tt.ids[t.Elem()])
	case reflect.Array:
		w.int(t.Len())
		w.int(tt.ids[t.Elem()])
	case reflect.Map:
		w.int(tt.ids[t.Key()])
		w.int(tt.ids[t.Elem()])
	case reflect.Struct:
		w.int(t.NumField())
		for i := range t.NumField() {
			f := t.Field(i)
			w.string(f.Name)
			w.string(f.PkgPath)
			w.string(string(f.Tag))
			w.bool(f.Anonymous)
			w.size(f.Offset)
			w.int(tt.ids[f.Type])
		}
	case reflect.Func:
		w.bool(t.IsVariadic())
		w.int(t.NumIn())
		for i := range t.NumIn() {
			w.int(tt.ids[t.In(i)])
		}
		w.int(t.NumOut())
		for i := range t.NumOut() {
			w.int(tt.ids[t.Out(i)])
		}
	}
}
