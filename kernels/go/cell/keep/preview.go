package keep

import (
	"reflect"
	"strconv"

	"crownest/cell"
)

const (
	// Characters of a preview, as the protocol wants it.
	previewCharactersMax = 200
	// Values that are looked at for one preview.
	previewValuesMax = 400
	previewDepthMax  = 6
)

// appendPreview describes a variable to the driver.
func appendPreview(b []byte, v *variable) []byte {
	b = cell.AppendString(append(b, `{"name":`...), v.name)
	p := printer{left: previewValuesMax}
	value := reflect.NewAt(v.typ, v.addr).Elem()
	p.value(value, 0)
	b = cell.AppendString(append(b, `,"preview":`...), shorten(string(p.b), previewCharactersMax))
	for value.Kind() == reflect.Interface && !value.IsNil() {
		value = value.Elem()
	}
	if value.Kind() == reflect.Pointer && !value.IsNil() && value.Elem().Kind() == reflect.Array {
		value = value.Elem()
	}
	switch value.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map, reflect.String, reflect.Chan:
		b = cell.AppendInt(append(b, `,"size":`...), int64(value.Len()))
	}
	if value.Kind() == reflect.Slice || value.Kind() == reflect.Array {
		b = appendShape(append(b, `,"shape":[`...), value)
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendShape gives the dimensions of an array of arrays, or of slices of one length.
func appendShape(b []byte, value reflect.Value) []byte {
	b = cell.AppendInt(b, int64(value.Len()))
	if value.Len() == 0 {
		return b
	}
	first := value.Index(0)
	if first.Kind() != reflect.Slice && first.Kind() != reflect.Array {
		return b
	}
	for i := range min(value.Len(), previewValuesMax) {
		if value.Index(i).Len() != first.Len() {
			return b
		}
	}
	return appendShape(append(b, ','), first)
}

// printer writes a value in few words, without calling any method of it.
type printer struct {
	b    []byte
	left int
}

func (p *printer) add(text string) { p.b = append(p.b, text...) }

func (p *printer) full() bool {
	return p.left <= 0 || len(p.b) > 4*previewCharactersMax
}

func (p *printer) value(v reflect.Value, depth int) {
	p.left--
	if p.full() || depth > previewDepthMax {
		p.add("…")
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		p.add(strconv.FormatBool(v.Bool()))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		p.b = strconv.AppendInt(p.b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		p.b = strconv.AppendUint(p.b, v.Uint(), 10)
	case reflect.Float32:
		p.b = strconv.AppendFloat(p.b, v.Float(), 'g', -1, 32)
	case reflect.Float64:
		p.b = strconv.AppendFloat(p.b, v.Float(), 'g', -1, 64)
	case reflect.Complex64, reflect.Complex128:
		p.add(strconv.FormatComplex(v.Complex(), 'g', -1, 128))
	case reflect.String:
		text := v.String()
		if len(text) > 4*previewCharactersMax {
			text = text[:4*previewCharactersMax]
		}
		p.b = strconv.AppendQuote(p.b, text)
	case reflect.Slice, reflect.Array:
		p.list(v, depth)
	case reflect.Map:
		p.mapping(v, depth)
	case reflect.Struct:
		p.fields(v, depth)
	case reflect.Pointer:
		if v.IsNil() {
			p.add("nil")
		} else {
			p.add("&")
			p.value(v.Elem(), depth+1)
		}
	case reflect.Interface:
		if v.IsNil() {
			p.add("nil")
		} else {
			p.value(v.Elem(), depth)
		}
	default:
		if v.Kind() != reflect.UnsafePointer && v.IsNil() {
			p.add("nil")
		} else {
			p.add(v.Type().String())
		}
	}
}

func (p *printer) list(v reflect.Value, depth int) {
	if v.Kind() == reflect.Slice && v.IsNil() {
		p.add("nil")
		return
	}
	p.add("[")
	for i := range v.Len() {
		if i > 0 {
			p.add(" ")
		}
		p.value(v.Index(i), depth+1)
		if p.full() {
			break
		}
	}
	p.add("]")
}

func (p *printer) mapping(v reflect.Value, depth int) {
	if v.IsNil() {
		p.add("nil")
		return
	}
	p.add("map[")
	for i, iter := 0, v.MapRange(); iter.Next(); i++ {
		if i > 0 {
			p.add(" ")
		}
		p.value(iter.Key(), depth+1)
		p.add(":")
		p.value(iter.Value(), depth+1)
		if p.full() {
			break
		}
	}
	p.add("]")
}

func (p *printer) fields(v reflect.Value, depth int) {
	p.add("{")
	for i := range v.NumField() {
		if i > 0 {
			p.add(" ")
		}
		p.add(v.Type().Field(i).Name + ":")
		p.value(v.Field(i), depth+1)
		if p.full() {
			break
		}
	}
	p.add("}")
}
