// Package show turns values into MIME bundles: results of cells and what Display is given.
package show

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"

	"crownest/cell"
)

const (
	// Elements of a list or map that are printed; the rest is counted.
	elementsMax = 10_000
	// Nesting that is printed. A map that contains itself has no end.
	depthMax = 100
	// Values that are looked at to find out how deep it goes.
	valuesMax = 100_000
)

// JSON encodes a value; set by package structured where a program needs it. raw: the value is
// JSON already and only checked.
var JSON func(value any, raw bool) ([]byte, bool)

// A bundler shows itself.
type bundler interface{ MIMEBundle() map[string]any }

func init() { cell.Describe = text }

// Value hands over the value of the last expression. Nothing is no result.
func Value(value any) {
	if value != nil {
		cell.Result(bundle(value)...)
	}
}

// Values hands over the values of the last call, if it gives several.
func Values(values ...any) {
	parts := make([]string, len(values))
	for i, value := range values {
		parts[i] = text(value)
	}
	cell.Result(cell.Entry{MIME: "text/plain", Text: strings.Join(parts, ", ")})
}

// Display shows a value as a MIME type.
func Display(id, mime string, data any, update bool) {
	if e, ok := entry(mime, data); ok {
		cell.Show(id, update, e)
	} else {
		cell.Notice("display_failed", "a "+fmt.Sprintf("%T", data)+" cannot be shown as "+mime)
	}
}

// DisplayValue shows a value as a result would be shown.
func DisplayValue(id string, value any, update bool) {
	cell.Show(id, update, bundle(value)...)
}

func bundle(value any) []cell.Entry {
	var entries []cell.Entry
	if b, ok := value.(bundler); ok {
		for mime, data := range b.MIMEBundle() {
			if e, ok := entry(mime, data); ok {
				entries = append(entries, e)
			}
		}
		if len(entries) > 0 {
			return entries
		}
	}
	entries = append(entries, cell.Entry{MIME: "text/plain", Text: text(value)})
	if JSON != nil && isTree(value) {
		if data, ok := JSON(value, false); ok {
			entries = append(entries, cell.Entry{MIME: "application/json", JSON: data})
		}
	}
	return entries
}

// isTree tells what JSON shows better than text: maps, structs and lists.
func isTree(value any) bool {
	if _, isError := value.(error); isError || tooMuch(value) {
		return false
	}
	v := reflect.ValueOf(value)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Map, reflect.Struct, reflect.Array:
		return true
	case reflect.Slice:
		return v.Type().Elem().Kind() != reflect.Uint8
	}
	return false
}

// text prints a value: a text as itself, a struct with the names of its fields.
func text(value any) string {
	switch value := value.(type) {
	case nil:
		return "<nil>"
	case string:
		return value
	case fmt.Formatter, error, fmt.Stringer:
		return fmt.Sprintf("%v", value)
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		if !v.IsNil() {
			return v.Type().String()
		}
	case reflect.Slice:
		if rest := v.Len() - elementsMax; rest > 0 && !isDeep(v.Slice(0, elementsMax)) {
			return fmt.Sprintf("%+v … (%d more)", v.Slice(0, elementsMax).Interface(), rest)
		}
	}
	if isDeep(v) {
		return "(" + v.Type().String() + ", nested without end or very deep)"
	}
	return fmt.Sprintf("%+v", value)
}

// tooMuch tells values that are printed in part only.
func tooMuch(value any) bool {
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		if v.Len() > elementsMax {
			return true
		}
	}
	return isDeep(v)
}

func isDeep(v reflect.Value) bool {
	left := valuesMax
	return deeper(v, 0, &left)
}

func deeper(v reflect.Value, depth int, left *int) bool {
	*left--
	if depth > depthMax {
		return true
	}
	if *left < 0 {
		return false
	}
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		// Printing follows a pointer at the top only.
		return !v.IsNil() && (v.Kind() == reflect.Interface || depth == 0) && deeper(v.Elem(), depth+1, left)
	case reflect.Map:
		for iter := v.MapRange(); iter.Next() && *left > 0; {
			if deeper(iter.Value(), depth+1, left) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		switch v.Type().Elem().Kind() {
		case reflect.Interface, reflect.Map, reflect.Slice, reflect.Array, reflect.Struct, reflect.Pointer:
			for i := 0; i < v.Len() && *left > 0; i++ {
				if deeper(v.Index(i), depth+1, left) {
					return true
				}
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if deeper(v.Field(i), depth+1, left) {
				return true
			}
		}
	}
	return false
}

// entry makes one entry of a bundle. Bytes of a binary type are encoded, a text is taken to be so
// already; bytes of a JSON type are JSON, everything else is encoded as JSON.
func entry(mime string, data any) (cell.Entry, bool) {
	bytes, isBytes := data.([]byte)
	if strings.HasSuffix(mime, "json") {
		if JSON == nil {
			return cell.Entry{}, false
		}
		raw := any(data)
		if isBytes {
			raw = bytes
		}
		encoded, ok := JSON(raw, isBytes)
		return cell.Entry{MIME: mime, JSON: encoded}, ok
	}
	if isBytes && isBinary(mime) {
		return cell.Entry{MIME: mime, Text: base64.StdEncoding.EncodeToString(bytes)}, true
	}
	if isBytes {
		return cell.Entry{MIME: mime, Text: string(bytes)}, true
	}
	return cell.Entry{MIME: mime, Text: text(data)}, true
}

func isBinary(mime string) bool {
	if mime == "image/svg+xml" {
		return false
	}
	for _, family := range [...]string{"image/", "audio/", "video/", "application/pdf", "application/octet-stream"} {
		if strings.HasPrefix(mime, family) {
			return true
		}
	}
	return false
}
