package program

import (
	"fmt"
	"go/ast"
	"go/scanner"
	"go/token"
	"go/types"
	"strings"
)

// currentFile gives the source of the cell itself: with edits, and in its function the statements
// or, for a whole file, what initialises its variables. Before the inference there are none.
func (b *Builder) currentFile(c *cell, n *names, in *inference, calls entries, dots []string) file {
	var body strings.Builder
	for _, p := range c.parts {
		if p.tok == token.IMPORT || p.tok == token.VAR && in != nil {
			continue
		}
		body.WriteString("\n" + c.lineAt(p.Start) + c.edited(p.Start, p.End, nil) + "\n")
	}
	body.WriteString("func " + cellFunc + "() {\n")
	if !c.whole {
		body.WriteString(calls.before)
	}
	if !c.whole {
		body.WriteString(c.lineAt(0) + c.statements())
	} else if in != nil {
		for _, item := range in.body {
			body.WriteString(item.before)
			if item.end > 0 {
				body.WriteString(c.here(item.start) + c.edited(item.start, item.end, nil))
			}
			body.WriteByte('\n')
		}
	}
	if c.whole {
		body.WriteString(calls.before)
	}
	body.WriteString("\n" + calls.after + "}\n" + calls.literals)
	text := n.render(body.String())
	return file{currentFile, n.header(dots, b.blanks) + text}
}

// entries is what is called besides the statements: init functions, and main at the end.
type entries struct {
	before, after string
	literals      string // declarations of function literals
}

// renameEntries gives init and main other names: the program has its own main.
func (c *cell) renameEntries(k *checked) entries {
	var calls entries
	inits := 0
	renamed := map[types.Object]string{}
	for _, decl := range k.files[currentFile].Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil {
			continue
		}
		start, end := c.span(k, f.Name)
		switch f.Name.Name {
		case "init":
			inits++
			name := fmt.Sprintf("%sinit%d", prefix, inits)
			c.edit(start, end, name)
			calls.before += name + "()\n"
		case "main":
			c.edit(start, end, mainName)
			calls.after = mainName + "()\n"
			renamed[k.info.Defs[f.Name]] = mainName
		}
	}
	for id, object := range k.info.Uses {
		if name := renamed[object]; name != "" && k.set.Position(id.Pos()).Filename == currentFile {
			start, end := c.span(k, id)
			c.edit(start, end, name)
		}
	}
	return calls
}

const mainName = prefix + "main"

// editMainCalls lets a cell call the main function of an earlier one.
func (c *cell) editMainCalls(ns *Namespace) {
	if ns.Unit("main") == nil || c.declares("main") || !strings.Contains(c.text, "main") {
		return
	}
	set := token.NewFileSet()
	f := set.AddFile("", -1, len(c.text))
	var s scanner.Scanner
	s.Init(f, []byte(c.text), func(token.Position, string) {}, 0)
	last, at := token.ILLEGAL, -1
	for {
		p, tok, literal := s.Scan()
		if tok == token.LPAREN && at >= 0 {
			c.edit(at, at+len("main"), mainName)
		}
		at = -1
		switch {
		case tok == token.EOF:
			return
		case tok == token.IDENT && literal == "main" && last != token.PERIOD && last != token.FUNC:
			at = f.Offset(p)
		}
		last = tok
	}
}

// qualifiers lists the identifiers before a dot: what may be the name of a package.
func qualifiers(text string) map[string]bool {
	set := token.NewFileSet()
	var s scanner.Scanner
	s.Init(set.AddFile("", -1, len(text)), []byte(text), func(token.Position, string) {}, 0)
	found := map[string]bool{}
	before, last, name := token.ILLEGAL, token.ILLEGAL, ""
	for {
		_, tok, literal := s.Scan()
		if tok == token.EOF {
			return found
		}
		if tok == token.PERIOD && last == token.IDENT && before != token.PERIOD {
			found[name] = true
		}
		before, last, name = last, tok, literal
	}
}

// editStatements makes assignments to package variables of definitions.
func (b *Builder) editStatements(c *cell, k *checked, in *inference) {
	c.markQualifiers(k)
	for _, statement := range k.cellBody().Body.List {
		for {
			labeled, ok := statement.(*ast.LabeledStmt)
			if !ok {
				break
			}
			statement = labeled.Stmt
		}
		switch s := statement.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE && in.kept(definedBy(s)) {
				at := c.offset(k.set.Position(s.TokPos))
				c.edit(at, at+len(":="), "= ")
			}
		case *ast.DeclStmt:
			if d, ok := s.Decl.(*ast.GenDecl); ok && d.Tok == token.VAR {
				c.editVars(k, d, in)
			}
		}
	}
	c.editOldUses(k, in)
}

// kept tells whether variables that are defined together all become package variables.
func (in *inference) kept(ids []*ast.Ident) bool {
	for _, id := range ids {
		if v := in.find(id.Name); v != nil && v.marked == "" {
			for _, other := range ids {
				if v := in.find(other.Name); v != nil {
					v.marked = ""
				}
			}
			return false
		}
	}
	return true
}

// editVars does that for a declaration with var.
func (c *cell) editVars(k *checked, d *ast.GenDecl, in *inference) {
	keyword := c.offset(k.set.Position(d.TokPos))
	if d.Lparen == token.NoPos {
		spec := d.Specs[0].(*ast.ValueSpec)
		if in.kept(spec.Names) && !allBlank(spec) {
			c.edit(keyword, keyword+len("var"), "   ")
			c.editSpec(k, spec)
		}
		return
	}
	c.edit(keyword, keyword+len("var"), "   ")
	for _, p := range []token.Pos{d.Lparen, d.Rparen} {
		at := c.offset(k.set.Position(p))
		c.edit(at, at+1, " ")
	}
	for _, spec := range d.Specs {
		spec := spec.(*ast.ValueSpec)
		if in.kept(spec.Names) && !allBlank(spec) {
			c.editSpec(k, spec)
		} else {
			at := c.offset(k.set.Position(spec.Pos()))
			c.edit(at, at, "var ")
		}
	}
}

func allBlank(spec *ast.ValueSpec) bool {
	for _, id := range spec.Names {
		if id.Name != "_" {
			return false
		}
	}
	return true
}

func (c *cell) editSpec(k *checked, spec *ast.ValueSpec) {
	if len(spec.Values) > 0 {
		if spec.Type != nil {
			start, end := c.span(k, spec.Type)
			c.edit(start, end, "")
		}
		return
	}
	start, end := c.span(k, spec)
	var zeros []string
	for _, id := range spec.Names {
		if id.Name != "_" {
			zeros = append(zeros, zeroOf(id.Name))
		}
	}
	c.edit(start, end, strings.Join(zeros, "; "))
}

// editOldUses lets what stands before the new definition of a variable of another type mean the
// variable that was.
func (c *cell) editOldUses(k *checked, in *inference) {
	ast.Inspect(k.cellBody(), func(node ast.Node) bool {
		id, ok := node.(*ast.Ident)
		if !ok {
			return true
		}
		used, ok := k.info.Uses[id].(*types.Var)
		if !ok || used.Parent() != k.pkg.Scope() {
			return true
		}
		if v := in.find(id.Name); v != nil && v.old != nil {
			start, end := c.span(k, id)
			c.edit(start, end, oldName(id.Name))
		}
		return true
	})
}

// oldName is what a variable is called that gets another type in the cell.
func oldName(name string) string { return prefix + "old_" + name }

// markQualifiers spells out which package every qualifier is.
func (c *cell) markQualifiers(k *checked) {
	edited := map[int]bool{}
	for _, e := range c.edits {
		edited[e.start] = true
	}
	ast.Inspect(k.files[currentFile], func(node ast.Node) bool {
		if id, ok := node.(*ast.Ident); ok {
			// What the kernel wrote is in no place of the cell.
			own := strings.HasPrefix(id.Name, prefix)
			if p, ok := k.info.Uses[id].(*types.PkgName); ok && p.Name() != "." && !own {
				start, end := c.span(k, id)
				if start >= 0 && !edited[start] {
					c.edit(start, end, markPackage(p.Imported().Path(), p.Name()))
				}
			}
		}
		return true
	})
}
