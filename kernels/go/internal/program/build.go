package program

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strconv"
	"strings"

	"crownest/internal/source"
)

// A Builder makes programs of cells.
type Builder struct {
	Importer  types.Importer
	GoVersion string // language version, such as go1.26
	Arch      string

	dots, blanks []string // of the cell that is being built
}

// A Part is saved state as the driver knows it: variables (their keys) that share memory, and what
// a program must declare that restores them.
type Part struct {
	Variables                 []string
	Types, Functions, Statics []string
}

// A Program is what comes of a cell.
type Program struct {
	Files []File
	// Names as they are when the cell has run.
	Next *Namespace
	// Parts of the state that the program needs, by index.
	Restores []int
	// Empty tells that there is nothing to run.
	Empty bool
	// Keeps tells whether the program has variables at all.
	Keeps bool
	// New lists the variables that the cell makes and the lines of the statement that does.
	New []NewVar
	// Unkept lists variables that exist in this cell only, and why.
	Unkept []Unkept
	// Broken lists earlier declarations that the cell's own made impossible.
	Broken []Broken
	// Imports are all packages that the program names.
	Imports []string
}

// A File is one of the program's.
type File struct{ Name, Text string }

// A NewVar is a variable that a statement makes.
type NewVar struct {
	Name          string
	Line, EndLine int
	Whole         bool
}

// An Unkept variable has a type that only its own statement can have.
type Unkept struct{ Name, Type string }

// A Broken declaration is one that no longer compiles.
type Broken struct {
	Name    string
	Problem source.Problem
}

// Build makes the program of a cell.
func (b *Builder) Build(number int, split *source.Split, before *Namespace, parts []Part) (*Program, []source.Problem) {
	c, problems := parse(number, split)
	if len(problems) > 0 {
		return nil, problems
	}
	ns := before.clone()
	if problems := b.addImports(c, ns); len(problems) > 0 {
		return nil, problems
	}
	c.editMainCalls(ns)
	for _, p := range c.parts {
		for _, name := range declaredNames(p.decl) {
			delete(ns.Imports, name)
		}
	}
	taken := func(name string) bool { return ns.has(name) || c.declares(name) }
	in := &inference{}
	if c.needsInference() {
		c.sortEdits()
		in = b.infer(c, ns, b.importNames(c, ns, taken))
		if len(in.problems) > 0 {
			return nil, in.problems
		}
		c.sortEdits()
	}
	return b.finish(c, ns, in, parts)
}

// finish checks the cell as it will be compiled.
func (b *Builder) finish(c *cell, ns *Namespace, in *inference, parts []Part) (*Program, []source.Problem) {
	c.sortEdits()
	program := &Program{}
	next := ns.clone()
	for _, p := range c.parts {
		for _, name := range declaredNames(p.decl) {
			next.forget(name)
		}
	}
	var olds []*Var
	for _, v := range in.vars {
		program.New = append(program.New, NewVar{v.name, v.line, v.endLine, c.whole})
		if v.marked == "" {
			program.Unkept = append(program.Unkept, Unkept{v.name, shown(v.typ)})
			continue
		}
		if v.old != nil {
			olds = append(olds, &Var{Name: oldName(v.name), Type: v.old.Type, Cell: v.old.Cell, ID: v.old.ID})
		}
		id := c.number
		if same := ns.Var(v.name); same != nil && v.old == nil {
			id = same.ID
		}
		next.declare(&Var{Name: v.name, Type: v.marked, Cell: c.number, Line: v.line, ID: id, Shown: shown(v.typ)})
	}
	next.dropMethods(c)
	taken := func(name string) bool {
		return next.has(name) || c.declares(name) || strings.HasPrefix(name, prefix+"old_")
	}
	k, problems := b.checkWhole(c, next, in, olds, taken, program)
	if len(problems) > 0 {
		return nil, problems
	}
	c.markQualifiers(k)
	c.wrapResult(k)
	entries := c.renameEntries(k)
	literals := b.lift(c, k)
	c.sortEdits()
	next.noteImports(c, k)
	g := &generator{b: b, c: c, k: k, next: next, in: in, olds: olds, parts: parts, program: program, taken: taken}
	g.addUnits(literals)
	g.generate(entries)
	program.Next = next
	return program, nil
}

// declare adds a variable; it takes the name, but keeps its place if it was a variable before.
func (ns *Namespace) declare(v *Var) {
	delete(ns.Imports, v.Name)
	if old := ns.Var(v.Name); old != nil {
		ns.Vars[slices.Index(ns.Vars, old)] = v
		return
	}
	ns.forget(v.Name)
	ns.Vars = append(ns.Vars, v)
}

// checkWhole checks until nothing of earlier cells is wrong: what the new declarations made
// impossible is set aside, and what needed that.
func (b *Builder) checkWhole(c *cell, next *Namespace, in *inference, olds []*Var, taken func(string) bool, program *Program) (*checked, []source.Problem) {
	for {
		n := b.importNames(c, next, taken)
		k := b.check(append(b.earlier(next, taken, olds), b.currentFile(c, n, in, entries{}, b.dots)))
		broken := map[string]source.Problem{}
		for _, p := range k.problems {
			if !p.counts() || p.Filename == currentFile {
				continue
			}
			if name := next.nameAt(p.Position); name != "" {
				if _, known := broken[name]; !known {
					broken[name] = asProblems([]problem{p})[0]
				}
			}
		}
		if len(broken) == 0 {
			return k, c.finalProblems(k, program)
		}
		for _, name := range slices.Sorted(maps.Keys(broken)) {
			program.Broken = append(program.Broken, Broken{name, broken[name]})
			next.forget(name)
		}
	}
}

// finalProblems gives what is wrong with the cell itself.
func (c *cell) finalProblems(k *checked, program *Program) []source.Problem {
	last := k.lastExpression(c)
	var list []problem
	for _, p := range k.in(currentFile) {
		if last != nil && p.Position == k.set.Position(last.Pos()) && strings.HasSuffix(p.message, "is not used") {
			continue
		}
		for _, gone := range program.Broken {
			if p.message == "undefined: "+gone.Name {
				p.message += fmt.Sprintf(" (it no longer compiles: %s)", gone.Problem)
			}
		}
		list = append(list, p)
	}
	if body := k.cellBody(); len(list) == 0 && body == nil {
		list = k.problems
	}
	return asProblems(list)
}

// nameAt finds what an earlier cell declared at a place.
func (ns *Namespace) nameAt(p token.Position) string {
	if p.Filename == varsFile {
		if i := p.Line - 1; i >= 0 && i < len(ns.Vars) {
			return ns.Vars[i].Name
		}
		return ""
	}
	number := cellOf(p.Filename)
	for _, u := range ns.Units {
		lines := strings.Count(u.Text, "\n")
		if u.Cell == number && p.Line >= u.Line && p.Line <= u.Line+lines && len(u.Names) > 0 {
			return u.Names[0].Name
		}
	}
	return ""
}

// importNames is what the cell can call packages: what it imports, what earlier cells did, and
// the standard library's own names.
func (b *Builder) importNames(c *cell, ns *Namespace, taken func(string) bool) *names {
	n := newNames(currentFile, taken)
	for name := range qualifiers(c.text) {
		if taken(name) {
			continue
		}
		if path, ok := ns.Imports[name]; ok {
			n.imports[name] = path
			n.byPath[path] = name
		} else if path, ok := autoImports[name]; ok {
			n.imports[name] = path
			n.byPath[path] = name
		}
	}
	return n
}

// addImports enters the cell's imports.
func (b *Builder) addImports(c *cell, ns *Namespace) []source.Problem {
	var problems []source.Problem
	for _, p := range c.parts {
		d, ok := p.decl.(*ast.GenDecl)
		if !ok || d.Tok != token.IMPORT {
			continue
		}
		for _, spec := range d.Specs {
			if message := b.addImport(spec.(*ast.ImportSpec), ns); message != "" {
				line, column := c.position(p.Start)
				problems = append(problems, source.Problem{Line: line + c.linesTo(p, spec), Column: column, Message: message})
			}
		}
	}
	b.dots, b.blanks = ns.Dots, ns.Blanks
	return problems
}

// linesTo counts the lines from the beginning of a part to one of its imports.
func (c *cell) linesTo(p part, spec ast.Spec) int {
	path := spec.(*ast.ImportSpec).Path.Value
	at := strings.Index(c.text[p.Start:p.End], path)
	return strings.Count(c.text[p.Start:p.Start+max(at, 0)], "\n")
}

func (b *Builder) addImport(spec *ast.ImportSpec, ns *Namespace) string {
	path, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return "invalid import path"
	}
	if why := forbidden(path); why != "" {
		return why
	}
	imported, err := b.Importer.Import(path)
	if err != nil {
		return fmt.Sprintf("could not import %s (%v)", path, err)
	}
	name := imported.Name()
	if spec.Name != nil {
		name = spec.Name.Name
	}
	add := func(list []string) []string {
		if slices.Contains(list, path) {
			return list
		}
		return append(list, path)
	}
	switch name {
	case "_":
		ns.Blanks = add(ns.Blanks)
	case ".":
		ns.Dots = add(ns.Dots)
	default:
		ns.forget(name)
		ns.Imports[name] = path
	}
	return ""
}

// forbidden says why a cell may not import a package.
func forbidden(path string) string {
	switch {
	case path == "C":
		return `import "C" needs cgo, which is not available`
	case path == "main" || path == "":
		return fmt.Sprintf("%q is not an importable package", path)
	case strings.HasPrefix(path, "."):
		return fmt.Sprintf("relative import %q: a cell has no directory of its own", path)
	case strings.HasPrefix(path, "crownest/") || strings.HasPrefix(path, "vendor/") || path == "internal" ||
		strings.HasPrefix(path, "internal/") || strings.Contains(path, "/internal/") || strings.HasSuffix(path, "/internal"):
		return fmt.Sprintf("use of internal package %s not allowed", path)
	}
	return ""
}

// Imports lists the packages that a cell imports, before anything is checked.
func Imports(number int, split *source.Split) []string {
	c, problems := parse(number, split)
	if len(problems) > 0 {
		return nil
	}
	var list []string
	for _, p := range c.parts {
		if d, ok := p.decl.(*ast.GenDecl); ok && d.Tok == token.IMPORT {
			for _, spec := range d.Specs {
				if path, err := strconv.Unquote(spec.(*ast.ImportSpec).Path.Value); err == nil && forbidden(path) == "" {
					list = append(list, path)
				}
			}
		}
	}
	return list
}

// noteImports keeps the names of packages that the cell used without importing them.
func (ns *Namespace) noteImports(c *cell, k *checked) {
	for id, object := range k.info.Uses {
		p, ok := object.(*types.PkgName)
		if !ok || k.set.Position(id.Pos()).Filename != currentFile {
			continue
		}
		name := p.Name()
		if autoImports[name] == p.Imported().Path() && ns.Imports[name] == "" && !ns.has(name) && !c.declares(name) {
			ns.Imports[name] = p.Imported().Path()
		}
	}
}
