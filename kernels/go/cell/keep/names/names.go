// Package names says which functions and types of one program the next one can refer to by name.
// A cell's program asks it when it saves values, the driver when it writes the program that
// restores them.
package names

import "strings"

// A Func is a function's symbol, taken apart.
type Func struct {
	Package  string // import path
	Receiver string // name of the type, "" for a function
	Pointer  bool   // the receiver is a pointer
	Name     string
	Bound    bool // a method value: it carries its receiver
}

// ParseFunc takes a symbol apart. ok is false for function literals and for instances of generic
// functions, which have no name of their own.
func ParseFunc(symbol string) (f Func, ok bool) {
	if strings.Contains(symbol, "[") {
		return f, false
	}
	slash := strings.LastIndexByte(symbol, '/')
	dot := strings.IndexByte(symbol[slash+1:], '.')
	if dot < 0 {
		return f, false
	}
	dot += slash + 1
	f.Package = unescape(symbol[:dot])
	rest := symbol[dot+1:]
	rest, f.Bound = strings.CutSuffix(rest, "-fm")
	receiver, name, isMethod := cutLast(rest)
	if isMethod {
		f.Receiver = receiver
		if inner, isPointer := strings.CutPrefix(receiver, "(*"); isPointer {
			f.Receiver, f.Pointer = strings.TrimSuffix(inner, ")"), true
		}
	}
	f.Name = name
	return f, isIdentifier(f.Name) && (f.Receiver == "" || isIdentifier(f.Receiver)) && !isLiteral(f) &&
		(!f.Bound || f.Receiver != "")
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// isLiteral recognises the names that the compiler makes up: f.func1, f.gowrap2, init.0.
func isLiteral(f Func) bool {
	if f.Receiver == "" {
		return false
	}
	for _, prefix := range [...]string{"func", "gowrap", "deferwrap"} {
		if number, ok := strings.CutPrefix(f.Name, prefix); ok && number != "" && strings.Trim(number, "0123456789") == "" {
			return true
		}
	}
	return false
}

func isIdentifier(s string) bool {
	for i, r := range s {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// unescape undoes what the compiler does to dots in the last element of a path.
func unescape(path string) string {
	return strings.ReplaceAll(path, "%2e", ".")
}

// Exported tells whether other packages may use the identifier.
func Exported(name string) bool {
	return name != "" && (name[0] >= 'A' && name[0] <= 'Z' || name[0] >= 0x80)
}

// A Sample is an expression whose value has a type that cannot be named.
type Sample struct {
	Expression string   // with %s for the package
	Imports    []string // its package
}

// Samples of unexported types that values often have.
var samples = map[string]Sample{
	"*reflect.rtype":               {`%s.TypeOf(0)`, []string{"reflect"}},
	"*errors.errorString":          {`%s.New("")`, []string{"errors"}},
	"*errors.joinError":            {`%[1]s.Join(%[1]s.New(""))`, []string{"errors"}},
	"*fmt.wrapError":               {`%[1]s.Errorf("%%w", %[1]s.Errorf(""))`, []string{"fmt"}},
	"*fmt.wrapErrors":              {`%[1]s.Errorf("%%w%%w", %[1]s.Errorf(""), %[1]s.Errorf(""))`, []string{"fmt"}},
	"context.backgroundCtx":        {`%s.Background()`, []string{"context"}},
	"context.todoCtx":              {`%s.TODO()`, []string{"context"}},
	"*context.valueCtx":            {`%[1]s.WithValue(%[1]s.Background(), 0, 0)`, []string{"context"}},
	"*math/rand.rngSource":         {`%s.NewSource(1)`, []string{"math/rand"}},
	"*io.multiWriter":              {`%s.MultiWriter()`, []string{"io"}},
	"*io.multiReader":              {`%s.MultiReader()`, []string{"io"}},
	"*io.teeReader":                {`%s.TeeReader(nil, nil)`, []string{"io"}},
	"io.nopCloser":                 {`%s.NopCloser(nil)`, []string{"io"}},
	"io.discard":                   {`%s.Discard`, []string{"io"}},
	"*sort.reverse":                {`%s.Reverse(nil)`, []string{"sort"}},
	"encoding/binary.littleEndian": {`%s.LittleEndian`, []string{"encoding/binary"}},
	"encoding/binary.bigEndian":    {`%s.BigEndian`, []string{"encoding/binary"}},
}

// SampleOf finds a sample by the canonical name of a type.
func SampleOf(name string) (Sample, bool) {
	s, ok := samples[name]
	return s, ok
}

// SplitType takes a named type's canonical name apart: path of the package, name, and what is in
// brackets. A basic type has no package.
func SplitType(name string) (path, base, arguments string) {
	base, arguments, _ = strings.Cut(name, "[")
	arguments = strings.TrimSuffix(arguments, "]")
	slash := strings.LastIndexByte(base, '/')
	if dot := strings.LastIndexByte(base[slash+1:], '.'); dot >= 0 {
		path, base = base[:slash+1+dot], base[slash+dot+2:]
	}
	return path, base, arguments
}

// Mentioned lists the named types that a type expression mentions, those in brackets included.
func Mentioned(expression string) []string {
	var list []string
	for _, word := range strings.FieldsFunc(expression, func(r rune) bool {
		return strings.ContainsRune("[]*(){},; <-", r)
	}) {
		if strings.Contains(word, ".") && word != "..." {
			list = append(list, word)
		}
	}
	return list
}
