package program

import (
	"fmt"
	"go/types"
	"slices"
	"strconv"
	"strings"

	keepnames "crownest/cell/keep/names"
)

// Package variables of one imported package that are told to the program by name.
const staticsMax = 300

func itoa(n int) string { return strconv.Itoa(n) }

func parseFunction(symbol string) (keepnames.Func, bool) { return keepnames.ParseFunc(symbol) }

// ownNames lists the declarations of package main that the name of a type mentions.
func ownNames(name string) []string {
	var list []string
	for _, word := range keepnames.Mentioned(name) {
		if path, base, _ := keepnames.SplitType(word); path == "main" {
			list = append(list, base)
		}
	}
	return list
}

// mainFile writes the function that the program begins with.
func (g *generator) mainFile(declared *Namespace, olds []*Var) file {
	n := newNames(mainFile, g.taken)
	var body strings.Builder
	line := func(format string, arguments ...any) {
		fmt.Fprintf(&body, "\t"+format+"\n", arguments...)
	}
	line("%s.Start()", markPackage(cellPackage, prefix+"rt"))
	if len(declared.Vars) > 0 {
		keep := markPackage(keepPackage, prefix+"keep")
		for _, v := range olds {
			line("%s.Old(%q, &%s)", keep, strings.TrimPrefix(v.Key(), prefix+"old_"), v.Name)
		}
		holds := contents{seen: map[types.Type]bool{}}
		for _, v := range declared.Vars {
			line("%s.Var(%q, &%s)", keep, v.Key(), v.Name)
			holds.look(g.typeOf(v.Name))
		}
		g.declareTypes(line, keep, holds)
		g.declareStatics(line, keep, holds)
		g.declareFunctions(line, keep)
		line("%s.Begin(%d)", keep, min(len(g.program.Restores), 1))
	}
	line("%s()", cellFunc)
	line("%s.End()", markPackage(cellPackage, prefix+"rt"))
	text := n.render("func main() {\n" + body.String() + "}\n")
	return file{mainFile, n.header(nil, nil) + text}
}

// contents is what the values of some variables may hold.
type contents struct {
	seen                 map[types.Type]bool
	pointers, interfaces bool
}

func (h *contents) look(t types.Type) {
	if t == nil || h.seen[t] {
		return
	}
	h.seen[t] = true
	switch u := t.Underlying().(type) {
	case *types.Pointer:
		h.pointers = true
		h.look(u.Elem())
	case *types.Interface:
		h.interfaces = true
	case *types.Slice:
		h.look(u.Elem())
	case *types.Array:
		h.look(u.Elem())
	case *types.Chan:
		h.look(u.Elem())
	case *types.Map:
		h.look(u.Key())
		h.look(u.Elem())
	case *types.Signature:
		// A method value has a receiver, which may be anything.
		h.pointers, h.interfaces = true, true
	case *types.Struct:
		for i := range u.NumFields() {
			h.look(u.Field(i).Type())
		}
	}
}

// declareTypes tells the types that only an interface may lead to.
func (g *generator) declareTypes(line func(string, ...any), keep string, holds contents) {
	if !holds.interfaces {
		return
	}
	for _, u := range g.next.Units {
		isType := u.Kind == Type || u.Kind == Literal && strings.HasPrefix(u.Text, "type ")
		if !isType || u.Cell != g.c.number && !g.includes(u) {
			continue
		}
		name := u.Names[0].Name
		if g.isPlainType(name) || u.Kind == Literal {
			line("%s.TypeFor[%s]()", keep, name)
		}
	}
	done := map[string]bool{}
	for _, i := range g.program.Restores {
		for _, name := range g.parts[i].Types {
			if !done[name] {
				done[name] = true
				g.declareType(line, keep, name)
			}
		}
	}
}

// isPlainType tells types that have values: no type parameters, no constraint.
func (g *generator) isPlainType(name string) bool {
	o, ok := g.k.pkg.Scope().Lookup(name).(*types.TypeName)
	if !ok || o.IsAlias() {
		return false
	}
	named, ok := o.Type().(*types.Named)
	if !ok || named.TypeParams().Len() > 0 {
		return false
	}
	iface, ok := named.Underlying().(*types.Interface)
	return !ok || iface.IsMethodSet()
}

// declareType tells a type by its canonical name.
func (g *generator) declareType(line func(string, ...any), keep, name string) {
	if sample, ok := keepnames.SampleOf(name); ok {
		path := sample.Imports[0]
		qualifier := markPackage(path, path[strings.LastIndexByte(path, '/')+1:])
		line("%s.TypeOf(%s)", keep, fmt.Sprintf(sample.Expression, qualifier))
		return
	}
	marked, ok := g.markType(strings.TrimPrefix(name, "*"))
	if ok {
		line("%s.TypeFor[%s]()", keep, marked)
	}
}

// markType makes source of a canonical name: path.Name, with arguments in brackets.
func (g *generator) markType(name string) (string, bool) {
	var b strings.Builder
	ok := true
	word := func(w string) {
		path, base, _ := keepnames.SplitType(w)
		switch {
		case !strings.Contains(w, ".") || w == "...":
			if types.Universe.Lookup(w) != nil {
				w = markBasic(w)
			}
			b.WriteString(w)
		case path == "main":
			_, isType := g.k.pkg.Scope().Lookup(base).(*types.TypeName)
			ok = ok && isType
			b.WriteString(base)
		default:
			imported, err := g.b.Importer.Import(path)
			if err != nil {
				ok = false
				return
			}
			_, isType := imported.Scope().Lookup(base).(*types.TypeName)
			ok = ok && isType
			b.WriteString(markPackage(path, imported.Name()) + "." + base)
		}
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i == len(name) || strings.IndexByte("[]*(){},; ", name[i]) >= 0 {
			if i > start {
				word(name[start:i])
			}
			if i < len(name) {
				b.WriteByte(name[i])
			}
			start = i + 1
		}
	}
	return b.String(), ok
}

// declareStatics tells the variables of packages whose value is known by its identity: errors,
// standard streams. Those that the state refers to, and those of packages that the program uses.
func (g *generator) declareStatics(line func(string, ...any), keep string, holds contents) {
	if !holds.pointers && !holds.interfaces {
		return
	}
	done := map[string]bool{}
	declare := func(path, name string) {
		imported, err := g.b.Importer.Import(path)
		if done[path+"."+name] || err != nil {
			return
		}
		v, ok := imported.Scope().Lookup(name).(*types.Var)
		if !ok || !v.Exported() {
			return
		}
		switch v.Type().Underlying().(type) {
		case *types.Pointer, *types.Interface:
			done[path+"."+name] = true
			line("%s.Static(%q, &%s.%s)", keep, path+"."+name, markPackage(path, imported.Name()), name)
		}
	}
	for _, i := range g.program.Restores {
		for _, static := range g.parts[i].Statics {
			if dot := strings.LastIndexByte(static, '.'); dot > 0 {
				declare(static[:dot], static[dot+1:])
			}
		}
	}
	for _, path := range g.usedPackages() {
		imported, err := g.b.Importer.Import(path)
		if err != nil {
			continue
		}
		exported := slices.DeleteFunc(imported.Scope().Names(), func(name string) bool { return !keepnames.Exported(name) })
		for i, name := range exported {
			if _, isVar := imported.Scope().Lookup(name).(*types.Var); isVar && i < staticsMax {
				declare(path, name)
			}
		}
	}
}

// usedPackages lists the packages that included code names.
func (g *generator) usedPackages() []string {
	found := map[string]bool{}
	for id, object := range g.k.info.Uses {
		if p, ok := object.(*types.PkgName); ok && g.k.set.Position(id.Pos()).Filename == currentFile {
			found[p.Imported().Path()] = true
		}
	}
	for _, u := range g.next.Units {
		if g.includes(u) {
			mentions(u.Text, func(path, _ string) { found[path] = true })
		}
	}
	var list []string
	for path := range found {
		if path != "unsafe" && !strings.HasPrefix(path, "crownest/") {
			list = append(list, path)
		}
	}
	slices.Sort(list)
	return list
}

// declareFunctions tells the functions that the state refers to.
func (g *generator) declareFunctions(line func(string, ...any), keep string) {
	done := map[string]bool{}
	for _, i := range g.program.Restores {
		for _, symbol := range g.parts[i].Functions {
			f, ok := parseFunction(symbol)
			if !ok || done[symbol] {
				continue
			}
			done[symbol] = true
			if expr, receiver, ok := g.functionExpr(f); ok && f.Bound {
				line("%s.Bound(%q, func(r %s) %s { return r.%s })", keep, symbol, receiver, markBasic("any"), f.Name)
			} else if ok {
				line("%s.Func(%q, %s)", keep, symbol, expr)
			}
		}
	}
}

// functionExpr writes a function, or a method of a type, if it is there.
func (g *generator) functionExpr(f keepnames.Func) (expr, receiver string, ok bool) {
	pkg, qualifier := g.k.pkg, ""
	if f.Package != "main" {
		imported, err := g.b.Importer.Import(f.Package)
		if err != nil {
			return "", "", false
		}
		pkg, qualifier = imported, markPackage(f.Package, imported.Name())+"."
	}
	if f.Receiver == "" {
		if g.isNewLiteral(f.Name) {
			return f.Name, "", true
		}
		object, ok := pkg.Scope().Lookup(f.Name).(*types.Func)
		if !ok || object.Signature().TypeParams().Len() > 0 {
			return "", "", false
		}
		return qualifier + f.Name, "", true
	}
	named, isType := pkg.Scope().Lookup(f.Receiver).(*types.TypeName)
	if !isType {
		return "", "", false
	}
	method, _, _ := types.LookupFieldOrMethod(named.Type(), true, pkg, f.Name)
	if _, ok := method.(*types.Func); !ok {
		return "", "", false
	}
	receiver = qualifier + f.Receiver
	if f.Pointer {
		receiver = "*" + receiver
	}
	return "(" + receiver + ")." + f.Name, receiver, true
}

// isNewLiteral recognises a function literal of this very cell.
func (g *generator) isNewLiteral(name string) bool {
	u := g.next.Unit(name)
	return u != nil && u.Kind == Literal && u.Cell == g.c.number
}
