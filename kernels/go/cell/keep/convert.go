package keep

import "reflect"

// A type that was declared anew may look different. Its values are carried over field by field:
// by name, where the field's type is still the same, or is itself a struct that can be carried.

// A move is a range of old bytes and where they belong now.
type move struct{ from, to, size uintptr }

// moves lists what of an old value is carried to a live type. whole: that is everything.
func (ts *oldTypes) moves(id int, live reflect.Type) (list []move, whole bool) {
	list = []move{}
	return list, ts.addMoves(id, live, 0, 0, &list)
}

func (ts *oldTypes) addMoves(id int, live reflect.Type, from, to uintptr, list *[]move) (whole bool) {
	t := &ts.list[id]
	if !t.layout {
		return false
	}
	if ts.live(id) == live && ts.isSame(id) {
		*list = append(*list, move{from, to, t.size})
		return true
	}
	if t.kind != live.Kind() || t.named != (live.Name() != "") || t.named && t.name != canon(live) {
		return false
	}
	whole = true
	switch t.kind {
	case reflect.Struct:
		for _, f := range t.fields {
			now, ok := live.FieldByName(f.name)
			carried := ok && len(now.Index) == 1 && ts.addMoves(f.typ, now.Type, from+f.offset, to+now.Offset, list)
			whole = whole && carried
		}
	case reflect.Array:
		size := ts.list[t.elem].size
		for i := range min(t.length, live.Len()) {
			carried := ts.addMoves(t.elem, live.Elem(), from+uintptr(i)*size, to+uintptr(i)*live.Elem().Size(), list)
			whole = whole && carried
		}
		whole = whole && t.length <= live.Len()
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128, reflect.String:
		*list = append(*list, move{from, to, t.size})
	default:
		return false
	}
	return whole
}

// moved tells where an old offset is now.
func moved(list []move, offset uintptr) (uintptr, bool) {
	for _, m := range list {
		if offset >= m.from && offset < m.from+m.size {
			return m.to + offset - m.from, true
		}
	}
	return 0, false
}

// placeOf tells where a value of type want, at an offset of an old value, is in the live one.
func (ts *oldTypes) placeOf(id int, live reflect.Type, offset uintptr, want reflect.Type) (uintptr, bool) {
	if offset == 0 && live == want {
		return 0, true
	}
	t := &ts.list[id]
	if !t.layout || t.kind != live.Kind() {
		return 0, false
	}
	switch t.kind {
	case reflect.Struct:
		for _, f := range t.fields {
			size := ts.list[f.typ].size
			if offset < f.offset || offset >= f.offset+size {
				continue
			}
			now, ok := live.FieldByName(f.name)
			if !ok || len(now.Index) != 1 {
				return 0, false
			}
			inside, ok := ts.placeOf(f.typ, now.Type, offset-f.offset, want)
			return now.Offset + inside, ok
		}
	case reflect.Array:
		size := ts.list[t.elem].size
		if size == 0 || offset/size >= uintptr(live.Len()) {
			return 0, false
		}
		inside, ok := ts.placeOf(t.elem, live.Elem(), offset%size, want)
		return offset/size*live.Elem().Size() + inside, ok
	}
	return 0, false
}
