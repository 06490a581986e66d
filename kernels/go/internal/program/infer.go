package program

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"crownest/internal/source"
)

// newVar is a variable that the cell makes.
type newVar struct {
	name    string
	typ     types.Type
	marked  string // its type; "" if it cannot be written
	old     *Var   // the one of that name before, if it had another type
	line    int    // of the statement
	endLine int
}

// inference is what the first check tells: the types of new variables, which have none as long as
// they are variables of the function that they are written in.
type inference struct {
	vars     []*newVar
	body     []bodyItem // of the cell's function, for a whole file
	problems []source.Problem
}

// A bodyItem is generated text, then a range of the cell's.
type bodyItem struct {
	before     string
	start, end int
}

func (in *inference) find(name string) *newVar {
	for _, v := range in.vars {
		if v.name == name {
			return v
		}
	}
	return nil
}

// needsInference tells whether the cell may make variables.
func (c *cell) needsInference() bool {
	return c.whole || strings.Contains(c.text, ":=") || strings.Contains(c.text, "var")
}

// infer checks the cell as it is written, and notes the edits that make package variables of its
// variables.
func (b *Builder) infer(c *cell, ns *Namespace, names *names) *inference {
	taken := func(name string) bool { return ns.has(name) || c.declares(name) }
	base := ns.clone()
	for _, p := range c.parts {
		for _, name := range declaredNames(p.decl) {
			base.forget(name)
		}
	}
	k := b.check(append(b.earlier(base, taken, nil), b.currentFile(c, names, nil, entries{}, b.dots)))
	in := &inference{}
	if c.whole {
		b.inferWhole(c, k, in)
	} else {
		b.inferStatements(c, k, in)
	}
	if len(in.problems) > 0 {
		return in
	}
	for _, v := range in.vars {
		if v.typ == nil || v.typ == types.Typ[types.Invalid] {
			in.problems = asProblems(hard(k.in(currentFile)))
			return in
		}
		v.marked, _ = typeText(v.typ)
		if _, ok := typeText(v.typ); !ok {
			v.marked = ""
		}
		if old := ns.Var(v.name); old != nil && v.marked != "" {
			if was := k.pkg.Scope().Lookup(v.name); was == nil || !types.Identical(was.Type(), v.typ) {
				v.old = old
			}
		}
	}
	if !c.whole {
		b.editStatements(c, k, in)
	}
	return in
}

// hard leaves out what the compiler could live with.
func hard(list []problem) []problem {
	return slices.DeleteFunc(list, func(p problem) bool { return p.soft })
}

// declares tells whether the cell declares a name outside of its statements.
func (c *cell) declares(name string) bool {
	for _, p := range c.parts {
		if slices.Contains(declaredNames(p.decl), name) {
			return true
		}
	}
	return false
}

// declaredNames lists what a declaration other than of variables declares; a method is T.M.
func declaredNames(decl ast.Decl) []string {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return []string{d.Name.Name}
		}
		return []string{receiverName(d) + "." + d.Name.Name}
	case *ast.GenDecl:
		var list []string
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				list = append(list, spec.Name.Name)
			case *ast.ValueSpec:
				if d.Tok == token.CONST {
					for _, name := range spec.Names {
						list = append(list, name.Name)
					}
				}
			}
		}
		return list
	}
	return nil
}

// receiverName is the name of a method's type.
func receiverName(d *ast.FuncDecl) string {
	if len(d.Recv.List) == 0 {
		return ""
	}
	t := d.Recv.List[0].Type
	for {
		switch inner := t.(type) {
		case *ast.StarExpr:
			t = inner.X
		case *ast.ParenExpr:
			t = inner.X
		case *ast.IndexExpr:
			t = inner.X
		case *ast.IndexListExpr:
			t = inner.X
		case *ast.Ident:
			return inner.Name
		default:
			return ""
		}
	}
}

// cellBody finds the function with the cell's statements.
func (k *checked) cellBody() *ast.FuncDecl {
	if tree := k.files[currentFile]; tree != nil {
		for _, decl := range tree.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == cellFunc {
				return f
			}
		}
	}
	return nil
}

// span gives the offsets of a node in the cell.
func (c *cell) span(k *checked, node ast.Node) (start, end int) {
	return c.offset(k.set.Position(node.Pos())), c.offset(k.set.Position(node.End()))
}

// inferStatements lists the variables of the function's top level.
func (b *Builder) inferStatements(c *cell, k *checked, in *inference) {
	body := k.cellBody()
	if body == nil || body.Body == nil {
		in.problems = asProblems(k.problems)
		return
	}
	in.problems = asProblems(c.statementProblems(k))
	for _, statement := range body.Body.List {
		start, end := k.set.Position(statement.Pos()).Line, k.set.Position(statement.End()).Line
		for _, id := range definedBy(statement) {
			if v, ok := k.info.Defs[id].(*types.Var); ok && id.Name != "_" {
				in.vars = append(in.vars, &newVar{name: id.Name, typ: v.Type(), line: start, endLine: end})
			}
		}
	}
}

// statementProblems gives what is wrong with the statements as they are written. That a variable
// is not used, or the last expression, is no problem; jumps are allowed over what is no
// declaration any more.
func (c *cell) statementProblems(k *checked) []problem {
	last := k.lastExpression(c)
	var list []problem
	for _, p := range k.in(currentFile) {
		if p.soft && !strings.HasPrefix(p.message, "no new variables") {
			continue
		}
		inside := false
		at := c.offset(p.Position)
		for _, part := range c.parts {
			inside = inside || at >= part.Start && at < part.End
		}
		isLast := last != nil && p.Position == k.set.Position(last.Pos()) && strings.HasSuffix(p.message, "is not used")
		if !inside && !isLast && !strings.Contains(p.message, "jumps over variable declaration") {
			list = append(list, p)
		}
	}
	return list
}

// definedBy lists the identifiers on the left of a definition.
func definedBy(statement ast.Stmt) []*ast.Ident {
	for {
		labeled, ok := statement.(*ast.LabeledStmt)
		if !ok {
			break
		}
		statement = labeled.Stmt
	}
	var list []*ast.Ident
	switch s := statement.(type) {
	case *ast.AssignStmt:
		if s.Tok == token.DEFINE {
			for _, left := range s.Lhs {
				if id, ok := left.(*ast.Ident); ok {
					list = append(list, id)
				}
			}
		}
	case *ast.DeclStmt:
		if d, ok := s.Decl.(*ast.GenDecl); ok && d.Tok == token.VAR {
			for _, spec := range d.Specs {
				list = append(list, spec.(*ast.ValueSpec).Names...)
			}
		}
	}
	return list
}

// lastExpression is the expression that the cell's statements end with.
func (k *checked) lastExpression(c *cell) ast.Expr {
	body := k.cellBody()
	if body == nil || body.Body == nil || len(body.Body.List) == 0 || c.whole {
		return nil
	}
	last, ok := body.Body.List[len(body.Body.List)-1].(*ast.ExprStmt)
	if !ok {
		return nil
	}
	return last.X
}

// inferWhole lists the package variables of a whole file and what initialises them, in order.
func (b *Builder) inferWhole(c *cell, k *checked, in *inference) {
	in.problems = asProblems(k.in(currentFile))
	if len(in.problems) > 0 {
		return
	}
	blanks := map[token.Pos]*ast.ValueSpec{}
	for _, decl := range k.files[currentFile].Decls {
		d, ok := decl.(*ast.GenDecl)
		if !ok || d.Tok != token.VAR {
			continue
		}
		for _, spec := range d.Specs {
			spec := spec.(*ast.ValueSpec)
			for _, id := range spec.Names {
				if id.Name == "_" {
					blanks[id.Pos()] = spec
					continue
				}
				line := k.set.Position(spec.Pos()).Line
				in.vars = append(in.vars, &newVar{name: id.Name, typ: k.info.Defs[id].Type(), line: line, endLine: line})
				if len(spec.Values) == 0 {
					in.body = append(in.body, bodyItem{before: zeroOf(id.Name)})
				}
			}
		}
	}
	for _, init := range k.info.InitOrder {
		if k.set.Position(init.Rhs.Pos()).Filename == currentFile {
			in.body = append(in.body, c.initializer(k, init, blanks))
		}
	}
}

// zeroOf makes a variable what it was before anything was assigned.
func zeroOf(name string) string {
	return markPackage(basicPackage, prefix+"basic") + ".Zero(&" + name + ")"
}

// initializer gives the assignment of an initialised package variable.
func (c *cell) initializer(k *checked, init *types.Initializer, blanks map[token.Pos]*ast.ValueSpec) bodyItem {
	if spec := blanks[init.Lhs[0].Pos()]; spec != nil && len(init.Lhs) == 1 {
		// It is there for the compiler to check; its type matters.
		start, end := c.span(k, spec)
		return bodyItem{"var ", start, end}
	}
	var left []string
	for _, v := range init.Lhs {
		left = append(left, v.Name())
	}
	start, end := c.span(k, init.Rhs)
	return bodyItem{strings.Join(left, ", ") + " = ", start, end}
}
