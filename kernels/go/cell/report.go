package cell

import "runtime"

const (
	// Text of all goroutines' stacks; the driver looks for lines of cells in it.
	stackBytesMax = 256 << 10
	// Longest text of a panic value.
	messageBytesMax = 64 << 10
)

// stacks is the text of all stacks, that of this goroutine first.
func stacks() []byte {
	text := make([]byte, stackBytesMax)
	return text[:runtime.Stack(text, true)]
}

func reportPanic(name, message string, text []byte) {
	b := append(make([]byte, 0, len(text)+len(message)+256), `{"ev":"panic","name":`...)
	b = AppendString(b, name)
	b = append(b, `,"message":`...)
	b = AppendString(b, cut(message, messageBytesMax))
	b = append(b, `,"stack":`...)
	b = AppendString(b, string(text))
	send(append(b, '}'))
}

func reportInterrupt(text []byte) {
	b := append(make([]byte, 0, len(text)+64), `{"ev":"stopped","stack":`...)
	b = AppendString(b, string(text))
	send(append(b, '}'))
}

// describe names a panic value: an error of a type that has a name of its own by that type,
// everything else `panic`. The value's own methods may panic in turn.
func describe(value any) (name, message string) {
	name = "panic"
	defer func() {
		if again := recover(); again != nil {
			message = "(the panic value's own method panicked)"
		}
	}()
	switch value := value.(type) {
	case runtime.Error:
		return name, value.Error()
	case error:
		if exported, ok := errorName(value); ok {
			name = exported
		}
		return name, value.Error()
	case interface{ String() string }:
		return name, value.String()
	case string:
		return name, value
	}
	return name, basicText(value)
}

// errorName is the name of an error's type where it says more than `some error`: one of the
// cells' own, or an exported one.
func errorName(value error) (string, bool) {
	if typeName == nil {
		return "", false
	}
	name, path := typeName(value)
	if len(name) > 0 && name[0] == '*' {
		// A pointer's own type is of no package; its element's name has the package before the dot.
		name, path = name[1:], ""
	}
	dot := -1
	for i := range len(name) {
		if name[i] == '.' {
			dot = i
		}
		if name[i] == '[' {
			break
		}
	}
	if dot < 0 || dot+1 == len(name) {
		return "", false
	}
	own := path == "main" || name[:dot] == "main"
	initial := name[dot+1]
	return name, own || initial >= 'A' && initial <= 'Z'
}

// basicText is what the runtime itself would print.
func basicText(value any) string {
	switch v := value.(type) {
	case nil:
		return "nil"
	case bool:
		if v {
			return "true"
		}
		return "false"
	case int:
		return decimal(int64(v))
	case int64:
		return decimal(v)
	case int32:
		return decimal(int64(v))
	case uint8:
		return decimal(int64(v))
	}
	if Describe != nil {
		return Describe(value)
	}
	name := "value"
	if typeName != nil {
		name, _ = typeName(value)
	}
	return "(" + name + ")"
}

// Describe prints a value of any type; set by packages that link a printer anyway.
var Describe func(value any) string

func decimal(n int64) string {
	return string(appendDecimal(nil, n))
}

func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[:limit] + " … (" + decimal(int64(len(text)-limit)) + " more bytes)"
}
