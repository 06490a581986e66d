package program

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// A function literal has no name, so the next program could not find the function that a saved
// value refers to. Literals whose value may be kept are therefore declared under a name: as a
// function, or, where they use variables of a function around them, as a type that points to
// those variables, with a method. A method value is a name and a receiver, which can be saved.

// A literal is one that gets a name.
type literal struct {
	node       *ast.FuncLit
	name       string
	start, end int
	captured   []capturedVar
}

type capturedVar struct {
	object *types.Var
	marked string // its type
}

// method is what a literal with variables is called with.
const (
	literalMethod   = "call"
	literalReceiver = prefix + "c"
)

// reference is the expression that stands for the literal. within: the literal whose own text it
// is in.
func (l *literal) reference(within *literal) string {
	if len(l.captured) == 0 {
		return l.name
	}
	var fields []string
	for _, v := range l.captured {
		if within != nil && within.captures(v.object) {
			fields = append(fields, literalReceiver+"."+fieldName(v.object))
		} else {
			fields = append(fields, "&"+v.object.Name())
		}
	}
	return "(&" + l.name + "{" + strings.Join(fields, ", ") + "})." + literalMethod
}

func fieldName(v *types.Var) string { return "v_" + v.Name() }

func (l *literal) captures(object *types.Var) bool {
	return slices.ContainsFunc(l.captured, func(v capturedVar) bool { return v.object == object })
}

// lifter finds the literals of a cell.
type lifter struct {
	c        *cell
	k        *checked
	literals []*literal
	escapes  map[*types.Var]bool
	parents  map[ast.Node]ast.Node
}

// lift gives names to literals and notes the edits for that.
func (b *Builder) lift(c *cell, k *checked) []*literal {
	l := &lifter{c: c, k: k, escapes: map[*types.Var]bool{}, parents: map[ast.Node]ast.Node{}}
	tree := k.files[currentFile]
	var stack []ast.Node
	ast.Inspect(tree, func(node ast.Node) bool {
		if node == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		if len(stack) > 0 {
			l.parents[node] = stack[len(stack)-1]
		}
		stack = append(stack, node)
		return true
	})
	l.findEscapes(tree)
	for _, decl := range tree.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && isGeneric(f) {
			continue
		}
		ast.Inspect(decl, func(node ast.Node) bool {
			if f, ok := node.(*ast.FuncLit); ok && l.mayBeKept(f) {
				l.add(f)
			}
			return true
		})
	}
	// Only now it is known which literals are inside which.
	for _, lit := range l.literals {
		c.edits = append(c.edits, edit{start: lit.start, end: lit.end, literal: lit})
		l.editCaptured(lit)
	}
	return l.literals
}

// isGeneric tells functions in which types depend on the caller.
func isGeneric(f *ast.FuncDecl) bool {
	if f.Type.TypeParams != nil {
		return true
	}
	if f.Recv != nil && len(f.Recv.List) > 0 {
		t := f.Recv.List[0].Type
		if star, ok := t.(*ast.StarExpr); ok {
			t = star.X
		}
		switch t.(type) {
		case *ast.IndexExpr, *ast.IndexListExpr:
			return true
		}
	}
	return false
}

func (l *lifter) parent(node ast.Node) ast.Node {
	for {
		up := l.parents[node]
		if paren, ok := up.(*ast.ParenExpr); ok {
			node = paren
			continue
		}
		return up
	}
}

// mayBeKept tells whether the value of an expression may be stored where it outlives the cell.
func (l *lifter) mayBeKept(expr ast.Expr) bool {
	switch up := l.parent(expr).(type) {
	case *ast.CallExpr:
		if ast.Unparen(up.Fun) == expr {
			return false
		}
		return l.calleeMayKeep(up)
	case *ast.AssignStmt:
		for i, right := range up.Rhs {
			if ast.Unparen(right) == expr && i < len(up.Lhs) {
				return l.targetIsKept(up.Lhs[i])
			}
		}
		return false
	case *ast.ValueSpec:
		for i, right := range up.Values {
			if ast.Unparen(right) == expr && i < len(up.Names) {
				return l.targetIsKept(up.Names[i])
			}
		}
		return false
	case *ast.ReturnStmt, *ast.CompositeLit, *ast.KeyValueExpr, *ast.SendStmt:
		return true
	}
	return false
}

// calleeMayKeep: functions of other packages keep what they are given in places that cannot be
// saved anyway.
func (l *lifter) calleeMayKeep(call *ast.CallExpr) bool {
	if tv := l.k.info.Types[call.Fun]; tv.IsType() {
		return l.mayBeKept(call)
	}
	fun := ast.Unparen(call.Fun)
	switch f := fun.(type) {
	case *ast.IndexExpr:
		fun = f.X
	case *ast.IndexListExpr:
		fun = f.X
	}
	var id *ast.Ident
	switch f := fun.(type) {
	case *ast.Ident:
		id = f
	case *ast.SelectorExpr:
		id = f.Sel
	default:
		return true
	}
	switch object := l.k.info.Uses[id].(type) {
	case *types.Builtin:
		return object.Name() == "append"
	case *types.Func:
		return object.Pkg() == l.k.pkg
	}
	return true
}

// targetIsKept tells whether what is assigned to goes beyond the function.
func (l *lifter) targetIsKept(left ast.Expr) bool {
	id, ok := ast.Unparen(left).(*ast.Ident)
	if !ok {
		return true
	}
	object := l.k.info.Defs[id]
	if object == nil {
		object = l.k.info.Uses[id]
	}
	v, ok := object.(*types.Var)
	if !ok {
		return false
	}
	return v.Parent() == l.k.pkg.Scope() || l.escapes[v]
}

// findEscapes notes local variables that are used otherwise than by calling them.
func (l *lifter) findEscapes(tree *ast.File) {
	for changed := true; changed; {
		changed = false
		ast.Inspect(tree, func(node ast.Node) bool {
			id, ok := node.(*ast.Ident)
			if !ok {
				return true
			}
			v, ok := l.k.info.Uses[id].(*types.Var)
			if !ok || v.IsField() || l.escapes[v] {
				return true
			}
			if _, isFunc := v.Type().Underlying().(*types.Signature); isFunc && l.mayBeKept(id) {
				l.escapes[v] = true
				changed = true
			}
			return true
		})
	}
}

// add names a literal if everything that it uses can be said outside of its function.
func (l *lifter) add(f *ast.FuncLit) {
	lit := &literal{node: f}
	lit.start, lit.end = l.c.span(l.k, f)
	if lit.start < 0 {
		return
	}
	possible := true
	ast.Inspect(f, func(node ast.Node) bool {
		id, ok := node.(*ast.Ident)
		if !ok {
			return true
		}
		object := l.k.info.Uses[id]
		if object == nil || object.Pkg() != l.k.pkg || object.Parent() == l.k.pkg.Scope() || l.inside(f, object) {
			return true
		}
		switch object := object.(type) {
		case *types.Var:
			if !object.IsField() && !lit.captures(object) {
				marked, ok := typeText(object.Type())
				possible = possible && ok
				lit.captured = append(lit.captured, capturedVar{object, marked})
			}
		case *types.TypeName, *types.Const:
			possible = false
		}
		return true
	})
	if possible {
		lit.name = fmt.Sprintf("%slit_%d_%d", prefix, l.c.number, len(l.literals)+1)
		l.literals = append(l.literals, lit)
	}
}

// inside tells whether an object is declared in a literal.
func (l *lifter) inside(f *ast.FuncLit, object types.Object) bool {
	return object.Pos() >= f.Pos() && object.Pos() < f.End()
}

// editCaptured replaces the variables that a literal has from around it, in its own text.
func (l *lifter) editCaptured(lit *literal) {
	ast.Inspect(lit.node, func(node ast.Node) bool {
		if inner, ok := node.(*ast.FuncLit); ok && inner != lit.node && l.isLifted(inner) {
			return false
		}
		id, ok := node.(*ast.Ident)
		if !ok {
			return true
		}
		if v, ok := l.k.info.Uses[id].(*types.Var); ok && lit.captures(v) {
			start, end := l.c.span(l.k, id)
			l.c.edit(start, end, "(*"+literalReceiver+"."+fieldName(v)+")")
		}
		return true
	})
}

func (l *lifter) isLifted(f *ast.FuncLit) bool {
	return slices.ContainsFunc(l.literals, func(lit *literal) bool { return lit.node == f })
}

// literalUnit declares a literal under its name.
func (c *cell) literalUnit(lit *literal) *Unit {
	line, _ := c.position(lit.start)
	after := lit.start + len(token.FUNC.String())
	text := c.here(after) + c.edited(after, lit.end, lit)
	u := &Unit{Cell: c.number, Kind: Literal, Names: []Name{{Name: lit.name}}, Line: line}
	if len(lit.captured) == 0 {
		u.Text = "func " + lit.name + text
		return u
	}
	var fields strings.Builder
	for _, v := range lit.captured {
		fields.WriteString(fieldName(v.object) + " *" + v.marked + "; ")
	}
	u.Text = "type " + lit.name + " struct { " + fields.String() + "}; func (" + literalReceiver + " *" + lit.name + ") " + literalMethod + text
	return u
}
