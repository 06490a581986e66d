package program

import (
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"

	"crownest/internal/source"
)

// generator writes the program: what the cell needs of everything that is declared.
type generator struct {
	b       *Builder
	c       *cell
	k       *checked
	next    *Namespace
	in      *inference
	olds    []*Var
	parts   []Part
	program *Program
	taken   func(string) bool

	needs map[string]map[string]bool // what the declaration of a name needs
	has   map[string]bool            // names that are in the program
	todo  []string
	used  map[string]bool // dot imports that the current file uses
}

// addUnits enters what the cell declares.
func (g *generator) addUnits(literals []*literal) {
	c, k := g.c, g.k
	for _, decl := range k.files[currentFile].Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == cellFunc {
			continue // it has no place in the cell
		}
		start, _ := c.span(k, decl)
		p := c.partAt(start)
		if p == nil {
			continue
		}
		switch d := decl.(type) {
		case *ast.FuncDecl:
			g.addFunc(p, d)
		case *ast.GenDecl:
			switch d.Tok {
			case token.TYPE:
				for _, spec := range d.Specs {
					g.addType(p, d, spec.(*ast.TypeSpec))
				}
			case token.CONST:
				g.addConst(p, d)
			}
		}
	}
	for _, lit := range literals {
		g.next.add(c.literalUnit(lit))
	}
}

func (c *cell) partAt(offset int) *part {
	for i := range c.parts {
		if p := &c.parts[i]; offset >= p.Start && offset < p.End {
			return p
		}
	}
	return nil
}

// add enters a unit; its names are its own from now on.
func (ns *Namespace) add(u *Unit) {
	for _, n := range u.Names {
		ns.forget(n.Name)
		delete(ns.Imports, n.Name)
	}
	ns.Units = append(ns.Units, u)
}

func (g *generator) unit(kind Kind, p *part, span source.Span, head string, decl ast.Node, doc *ast.CommentGroup) *Unit {
	line, _ := g.c.position(span.Start)
	u := &Unit{
		Cell: g.c.number, Kind: kind, Line: line, Text: head + g.c.edited(span.Start, span.End, nil),
		Source: head + g.c.text[span.Start:span.End], Dots: g.dotsOf(decl),
	}
	if doc != nil {
		u.Doc = doc.Text()
	}
	return u
}

func (g *generator) addFunc(p *part, d *ast.FuncDecl) {
	if d.Recv == nil && (d.Name.Name == "init" || d.Name.Name == "_") {
		return
	}
	kind := Func
	if d.Recv != nil {
		kind = Method
	}
	u := g.unit(kind, p, p.Span, "", d, d.Doc)
	u.Names = []Name{{Name: declaredNames(d)[0]}}
	g.next.add(u)
}

func (g *generator) addType(p *part, d *ast.GenDecl, spec *ast.TypeSpec) {
	if spec.Name.Name == "_" {
		return
	}
	span, head, doc := p.Span, "", d.Doc
	if d.Lparen != token.NoPos {
		start, end := g.c.span(g.k, spec)
		span, head, doc = source.Span{Start: start, End: end}, "type ", spec.Doc
	}
	u := g.unit(Type, p, span, head, spec, doc)
	u.Names = []Name{{Name: spec.Name.Name}}
	g.next.add(u)
}

// addConst enters a group of constants as one unit: each may depend on its place.
func (g *generator) addConst(p *part, d *ast.GenDecl) {
	u := g.unit(Const, p, p.Span, "", d, d.Doc)
	for _, spec := range d.Specs {
		for _, id := range spec.(*ast.ValueSpec).Names {
			if id.Name == "_" {
				continue
			}
			start, _ := g.c.span(g.k, id)
			u.Names = append(u.Names, Name{id.Name, len(g.c.edited(p.Start, start, nil)), len(id.Name)})
		}
	}
	if len(u.Names) > 0 {
		g.next.add(u)
	}
}

// dotsOf lists the packages whose names a node uses without the package's.
func (g *generator) dotsOf(node ast.Node) []string {
	if len(g.b.dots) == 0 {
		return nil
	}
	found := map[string]bool{}
	qualified := map[*ast.Ident]bool{}
	ast.Inspect(node, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			qualified[s.Sel] = true
		}
		id, ok := n.(*ast.Ident)
		if !ok || qualified[id] {
			return true
		}
		if o := g.k.info.Uses[id]; o != nil && o.Pkg() != nil && o.Parent() == o.Pkg().Scope() && slices.Contains(g.b.dots, o.Pkg().Path()) {
			found[o.Pkg().Path()] = true
		}
		return true
	})
	return slices.Sorted(maps.Keys(found))
}

// generate writes the files.
func (g *generator) generate(calls entries) {
	g.findNeeds()
	g.has = map[string]bool{}
	if tree := g.k.files[currentFile]; tree != nil {
		// The whole cell is compiled, so that the compiler sees it once.
		for _, decl := range tree.Decls {
			g.needAll(g.needsOf(decl))
		}
	}
	body := g.k.cellBody()
	g.program.Empty = calls.before == "" && calls.after == "" && body != nil && len(body.Body.List) == 0
	restored := map[int]bool{}
	for len(g.todo) > 0 {
		name := g.todo[len(g.todo)-1]
		g.todo = g.todo[:len(g.todo)-1]
		for i, p := range g.parts {
			if key := g.keyOf(name); key != "" && !restored[i] && slices.Contains(p.Variables, key) {
				restored[i] = true
				g.needPart(p)
			}
		}
	}
	g.program.Restores = slices.Sorted(maps.Keys(restored))
	g.write(calls)
}

// keyOf is what a name's value is saved under; "" for what is no variable.
func (g *generator) keyOf(name string) string {
	for _, v := range g.olds {
		if v.Name == name {
			return strings.TrimPrefix(v.Key(), prefix+"old_")
		}
	}
	if v := g.next.Var(name); v != nil {
		return v.Key()
	}
	return ""
}

// needPart adds everything that saved state refers to.
func (g *generator) needPart(p Part) {
	for _, key := range p.Variables {
		if g.next.HasKey(key) {
			g.need(NameOf(key))
		}
	}
	for _, name := range p.Types {
		for _, own := range ownNames(name) {
			g.need(own)
		}
	}
	for _, name := range p.Functions {
		if f, ok := parseFunction(name); ok && f.Package == "main" {
			if f.Receiver != "" {
				g.need(f.Receiver)
			} else {
				g.need(f.Name)
			}
		}
	}
}

func (g *generator) needAll(names map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		g.need(name)
	}
}

func (g *generator) need(name string) {
	if g.has[name] {
		return
	}
	g.has[name] = true
	g.todo = append(g.todo, name)
	g.needAll(g.needs[name])
}

// findNeeds lists for every declared name what its declaration mentions. A type needs its methods.
func (g *generator) findNeeds() {
	g.needs = map[string]map[string]bool{}
	add := func(name string, needed map[string]bool) {
		if g.needs[name] == nil {
			g.needs[name] = map[string]bool{}
		}
		maps.Copy(g.needs[name], needed)
	}
	for _, tree := range g.k.files {
		for _, decl := range tree.Decls {
			needed := g.needsOf(decl)
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := declaredNames(d)[0]
				add(name, needed)
				if base, _, isMethod := strings.Cut(name, "."); isMethod {
					add(base, map[string]bool{name: true})
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						add(spec.Name.Name, g.needsOf(spec))
					case *ast.ValueSpec:
						// Constants of a group come together.
						for _, id := range spec.Names {
							add(id.Name, needed)
						}
					}
				}
			}
		}
	}
}

// needsOf lists the declarations of package main that a node mentions.
func (g *generator) needsOf(node ast.Node) map[string]bool {
	found := map[string]bool{}
	ast.Inspect(node, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			if o := g.k.info.Uses[id]; o != nil && o.Pkg() == g.k.pkg && o.Parent() == g.k.pkg.Scope() {
				found[o.Name()] = true
			}
		}
		return true
	})
	return found
}

// includes tells whether a unit is in the program.
func (g *generator) includes(u *Unit) bool {
	if u.Cell == g.c.number {
		return false // it is in the cell's own file
	}
	return slices.ContainsFunc(u.Names, func(n Name) bool {
		return g.has[n.Name] || n.Name == "main" && g.has[mainName]
	})
}

func (g *generator) write(calls entries) {
	for _, u := range g.next.Units {
		if u.Cell == g.c.number && u.Kind == Literal {
			calls.literals += "//line " + string(markFile) + ":" + itoa(u.Line) + "\n" + u.Text + "\n"
		}
	}
	dots := map[string]bool{}
	for _, path := range g.dotsOf(g.k.files[currentFile]) {
		dots[path] = true
	}
	var files []file
	current := newNames(currentFile, g.taken)
	files = append(files, g.b.currentFile(g.c, current, g.in, calls, slices.Sorted(maps.Keys(dots))))
	earlier := &Namespace{}
	for _, u := range g.next.Units {
		if g.includes(u) {
			earlier.Units = append(earlier.Units, u)
		}
	}
	for _, v := range g.next.Vars {
		if g.has[v.Name] {
			earlier.Vars = append(earlier.Vars, v)
		}
	}
	var olds []*Var
	for _, v := range g.olds {
		if g.has[v.Name] {
			olds = append(olds, v)
		}
	}
	for _, u := range g.next.Units {
		if u.Cell == g.c.number {
			storeFile(u)
		}
	}
	g.program.Keeps = len(earlier.Vars) > 0
	files = append(files, g.b.earlier(earlier, g.taken, olds)...)
	files = append(files, g.mainFile(earlier, olds))
	for _, f := range files {
		g.program.Files = append(g.program.Files, File{f.name, f.text})
	}
	g.program.Imports = importsOf(files)
}

// storeFile makes the text of a unit one of its own cell, which has a number from now on.
func storeFile(u *Unit) {
	u.Text = strings.ReplaceAll(u.Text, string(markFile), fileOf(u.Cell))
}

// importsOf lists what files import.
func importsOf(files []file) []string {
	found := map[string]bool{}
	for _, f := range files {
		for line := range strings.Lines(f.text) {
			rest, ok := strings.CutPrefix(line, "import ")
			if !ok {
				if !strings.HasPrefix(line, "package ") {
					break
				}
				continue
			}
			if _, path, ok := strings.Cut(rest, `"`); ok {
				found[strings.TrimSuffix(path, "\"\n")] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// typeOf finds the type of one of package main's declarations.
func (g *generator) typeOf(name string) types.Type {
	if o := g.k.pkg.Scope().Lookup(name); o != nil {
		return o.Type()
	}
	return nil
}
