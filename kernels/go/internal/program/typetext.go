package program

import (
	"go/types"
	"strconv"
	"strings"

	keepnames "crownest/cell/keep/names"
)

// typeText writes a type as marked source. ok is false for a type that cannot be written outside
// of where it is declared: one that is local to a function, private to another package, or a
// type parameter.
func typeText(t types.Type) (text string, ok bool) {
	w := typeWriter{ok: true}
	w.write(t)
	return w.b.String(), w.ok
}

type typeWriter struct {
	b  strings.Builder
	ok bool
}

func (w *typeWriter) add(s string) { w.b.WriteString(s) }

func (w *typeWriter) write(t types.Type) {
	switch t := t.(type) {
	case *types.Basic:
		w.basic(t)
	case *types.Alias:
		if w.reachable(t.Obj()) && t.TypeParams().Len() == 0 {
			w.named(t.Obj(), t.TypeArgs())
		} else {
			w.write(types.Unalias(t))
		}
	case *types.Named:
		if !w.reachable(t.Obj()) {
			w.ok = false
			return
		}
		w.named(t.Obj(), t.TypeArgs())
	case *types.Pointer:
		w.add("*")
		w.write(t.Elem())
	case *types.Slice:
		w.add("[]")
		w.write(t.Elem())
	case *types.Array:
		w.add("[" + strconv.FormatInt(t.Len(), 10) + "]")
		w.write(t.Elem())
	case *types.Map:
		w.add("map[")
		w.write(t.Key())
		w.add("]")
		w.write(t.Elem())
	case *types.Chan:
		w.add([...]string{types.SendRecv: "chan (", types.SendOnly: "chan<- (", types.RecvOnly: "<-chan ("}[t.Dir()])
		w.write(t.Elem())
		w.add(")")
	case *types.Signature:
		w.add("func")
		w.signature(t)
	case *types.Struct:
		w.structure(t)
	case *types.Interface:
		w.iface(t)
	default:
		w.ok = false
	}
}

func (w *typeWriter) basic(t *types.Basic) {
	switch {
	case t.Kind() == types.UnsafePointer:
		w.add(markPackage("unsafe", "unsafe") + ".Pointer")
	case t.Kind() == types.Invalid || t.Info()&types.IsUntyped != 0:
		w.ok = false
	default:
		w.add(markBasic(t.Name()))
	}
}

// reachable tells whether another file can say the name.
func (w *typeWriter) reachable(o *types.TypeName) bool {
	if o.Pkg() == nil {
		return true
	}
	if o.Parent() != o.Pkg().Scope() {
		return false
	}
	return o.Pkg().Path() == "main" || keepnames.Exported(o.Name())
}

func (w *typeWriter) named(o *types.TypeName, arguments *types.TypeList) {
	switch {
	case o.Pkg() == nil:
		w.add(markBasic(o.Name()))
	case o.Pkg().Path() == "main":
		w.add(o.Name())
	default:
		w.add(markPackage(o.Pkg().Path(), o.Pkg().Name()) + "." + o.Name())
	}
	if arguments.Len() > 0 {
		w.add("[")
		for i := range arguments.Len() {
			if i > 0 {
				w.add(",")
			}
			w.write(arguments.At(i))
		}
		w.add("]")
	}
}

func (w *typeWriter) signature(s *types.Signature) {
	w.add("(")
	w.tuple(s.Params(), s.Variadic())
	w.add(")(")
	w.tuple(s.Results(), false)
	w.add(")")
}

func (w *typeWriter) tuple(t *types.Tuple, variadic bool) {
	for i := range t.Len() {
		if i > 0 {
			w.add(",")
		}
		p := t.At(i).Type()
		if list, ok := p.(*types.Slice); ok && variadic && i == t.Len()-1 {
			w.add("...")
			p = list.Elem()
		}
		w.write(p)
	}
}

func (w *typeWriter) structure(t *types.Struct) {
	w.add("struct{")
	for i := range t.NumFields() {
		f := t.Field(i)
		if f.Pkg() != nil && f.Pkg().Path() != "main" && !f.Exported() {
			w.ok = false
		}
		if !f.Embedded() {
			w.add(f.Name() + " ")
		}
		w.write(f.Type())
		if tag := t.Tag(i); tag != "" {
			w.add(" " + strconv.Quote(tag))
		}
		w.add(";")
	}
	w.add("}")
}

func (w *typeWriter) iface(t *types.Interface) {
	w.add("interface{")
	for i := range t.NumExplicitMethods() {
		m := t.ExplicitMethod(i)
		if m.Pkg() != nil && m.Pkg().Path() != "main" && !m.Exported() {
			w.ok = false
		}
		w.add(m.Name())
		w.signature(m.Type().(*types.Signature))
		w.add(";")
	}
	for i := range t.NumEmbeddeds() {
		if union, ok := t.EmbeddedType(i).(*types.Union); ok {
			w.union(union)
		} else {
			w.write(t.EmbeddedType(i))
		}
		w.add(";")
	}
	w.add("}")
}

func (w *typeWriter) union(u *types.Union) {
	for i := range u.Len() {
		if i > 0 {
			w.add("|")
		}
		if u.Term(i).Tilde() {
			w.add("~")
		}
		w.write(u.Term(i).Type())
	}
}

// shown writes a type for people.
func shown(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if p.Path() == "main" {
			return ""
		}
		return p.Name()
	})
}
