// Package structured gives package show JSON. Only programs that need it link it.
package structured

import (
	"encoding/json"

	"crownest/cell/show"
)

const (
	// Longest JSON of a result; its text is there as well.
	jsonBytesMax = 8 << 20
	// Deepest nesting that a bundle may have.
	jsonDepthMax = 64
)

func init() { show.JSON = encode }

func encode(value any, raw bool) ([]byte, bool) {
	data, isBytes := value.([]byte)
	if !raw || !isBytes {
		var err error
		if data, err = json.Marshal(value); err != nil {
			return nil, false
		}
	} else if !json.Valid(data) {
		return nil, false
	}
	return data, len(data) <= jsonBytesMax && depth(data) <= jsonDepthMax
}

// depth tells how deep valid JSON is nested.
func depth(data []byte) int {
	deepest, now, inText := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '[' || c == '{':
			now++
			deepest = max(deepest, now)
		case c == ']' || c == '}':
			now--
		}
	}
	return deepest
}

// Value hands over a result that JSON may show better than text.
func Value(value any) { show.Value(value) }

// Display shows a value as a MIME type.
func Display(id, mime string, data any, update bool) { show.Display(id, mime, data, update) }

// DisplayValue shows a value as a result is shown.
func DisplayValue(id string, value any, update bool) { show.DisplayValue(id, value, update) }
