package program

import (
	"go/ast"
	"go/types"
	"slices"
	"strings"
)

// Packages of the kernel that a cell's program may link.
const (
	plainPackage      = "crownest/cell/plain"
	showPackage       = "crownest/cell/show"
	structuredPackage = "crownest/cell/structured"
	picturePackage    = "crownest/cell/picture"
	keepPackage       = "crownest/cell/keep"
	cellPackage       = "crownest/cell"
)

// wrapResult hands the value of the last expression over. Which package does depends on its type,
// so that a number does not link a printer for everything.
func (c *cell) wrapResult(k *checked) {
	last := k.lastExpression(c)
	if last == nil {
		return
	}
	tv := k.info.Types[last]
	if tv.IsVoid() || tv.Type == nil {
		return
	}
	start, end := c.span(k, last)
	if tv.IsNil() {
		c.edit(start, end, "")
		return
	}
	if c.split.Quiet {
		if k.isUnused(last) {
			c.edit(start, start, "_ = ")
		}
		return
	}
	before, after := "", ")"
	switch t := types.Unalias(tv.Type).(type) {
	case *types.Tuple:
		if isOutput(last) {
			return
		}
		before = call(showPackage, "show", "Values")
	case *types.Basic:
		before, after = basicResult(t)
	default:
		switch {
		case isImage(t):
			before = call(picturePackage, "picture", "Value")
		case isTree(t):
			before = call(structuredPackage, "structured", "Value")
		default:
			before = call(showPackage, "show", "Value")
		}
	}
	c.edit(start, start, before)
	c.edit(end, end, after)
}

// isUnused tells expressions that are no statement by themselves.
func (k *checked) isUnused(x ast.Expr) bool {
	at := k.set.Position(x.Pos())
	return slices.ContainsFunc(k.problems, func(p problem) bool {
		return p.Position == at && strings.HasSuffix(p.message, "is not used")
	})
}

func call(path, name, function string) string {
	return markPackage(path, prefix+name) + "." + function + "("
}

func basicResult(t *types.Basic) (before, after string) {
	switch info := t.Info(); {
	case info&types.IsUnsigned != 0:
		return call(plainPackage, "plain", "Uint") + markBasic("uint64") + "(", "))"
	case info&types.IsInteger != 0:
		return call(plainPackage, "plain", "Int") + markBasic("int64") + "(", "))"
	case info&types.IsBoolean != 0:
		return call(plainPackage, "plain", "Bool"), ")"
	case info&types.IsString != 0:
		return call(plainPackage, "plain", "String"), ")"
	case t.Kind() == types.Float32:
		return call(plainPackage, "plain", "Float") + markBasic("float64") + "(", "), 32)"
	case info&types.IsFloat != 0:
		return call(plainPackage, "plain", "Float") + markBasic("float64") + "(", "), 64)"
	}
	return call(showPackage, "show", "Value"), ")"
}

// isOutput recognises calls that are made for what they do: how much was printed is no result.
func isOutput(expr ast.Expr) bool {
	call, ok := ast.Unparen(expr).(*ast.CallExpr)
	if !ok {
		return false
	}
	name := ""
	switch f := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		name = f.Sel.Name
	}
	for _, verb := range [...]string{"Print", "Fprint", "Write", "Scan", "Fscan", "Sscan", "Copy", "ReadFrom"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

// isImage recognises image.Image by its methods.
func isImage(t types.Type) bool {
	methods := types.NewMethodSet(t)
	for _, name := range [...]string{"At", "Bounds", "ColorModel"} {
		if methods.Lookup(nil, name) == nil {
			return false
		}
	}
	return true
}

// isTree recognises types whose values JSON shows better than text.
func isTree(t types.Type) bool {
	if pointer, ok := t.Underlying().(*types.Pointer); ok {
		t = pointer.Elem()
	}
	switch u := t.Underlying().(type) {
	case *types.Map, *types.Struct, *types.Array:
		return true
	case *types.Slice:
		elem, ok := u.Elem().Underlying().(*types.Basic)
		return !ok || elem.Kind() != types.Byte
	case *types.Interface:
		return types.NewMethodSet(t).Lookup(nil, "Error") == nil
	}
	return false
}
