package program

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"unicode/utf8"

	"crownest/internal/source"
)

// What can be asked about a namespace without running anything.

// A Match is a name that could stand where the cursor is.
type Match struct {
	Text string `json:"text"`
	Kind string `json:"kind,omitempty"`
}

// marker takes the place of the name that is being written.
const marker = "cursorꞏname"

// Longest expression before a dot that is looked at.
const chainBytesMax = 4096

// Complete lists the names that begin with what is before the cursor, a byte offset, and where
// that begins and ends.
func (b *Builder) Complete(ns *Namespace, code string, cursor int) (matches []Match, start, end int) {
	start, end = wordAt(code, cursor)
	end = max(end, cursor)
	typed := code[start:cursor]
	if dot := strings.LastIndexByte(strings.TrimRight(code[:start], " \t\n"), '.'); dot >= 0 && dot == len(strings.TrimRight(code[:start], " \t\n"))-1 {
		matches = b.members(ns, code, dot, start, typed)
	} else if before := strings.TrimRight(code[:start], " \t"); typed != "" || before == "" || strings.IndexByte(")]}\"`'", before[len(before)-1]) < 0 {
		matches = b.visible(ns, code, typed)
	}
	slices.SortFunc(matches, func(a, b Match) int { return strings.Compare(a.Text, b.Text) })
	return slices.CompactFunc(matches, func(a, b Match) bool { return a.Text == b.Text }), start, end
}

// wordAt gives the identifier that the cursor is in or right behind.
func wordAt(code string, cursor int) (start, end int) {
	inWord := func(r rune) bool {
		return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
	}
	start = cursor
	for start > 0 {
		last, size := utf8.DecodeLastRuneInString(code[:start])
		if !inWord(last) {
			break
		}
		start -= size
	}
	end = cursor
	for _, r := range code[cursor:] {
		if !inWord(r) {
			break
		}
		end += len(string(r))
	}
	return start, end
}

// visible lists the names that need no package before them.
func (b *Builder) visible(ns *Namespace, code, typed string) []Match {
	var list []Match
	add := func(name, kind string) {
		if strings.HasPrefix(name, typed) && name != typed && !strings.HasPrefix(name, prefix) {
			list = append(list, Match{name, kind})
		}
	}
	for _, v := range ns.Vars {
		add(v.Name, "variable")
	}
	for _, u := range ns.Units {
		for _, n := range u.Names {
			switch u.Kind {
			case Func:
				add(n.Name, "function")
			case Type:
				add(n.Name, "class")
			case Const:
				add(n.Name, "variable")
			}
		}
	}
	for name := range ns.Imports {
		add(name, "module")
	}
	if typed != "" {
		for name := range autoImports {
			add(name, "module")
		}
	}
	for _, name := range types.Universe.Names() {
		add(name, kindOf(types.Universe.Lookup(name)))
	}
	for tok := token.BREAK; tok <= token.VAR; tok++ {
		add(tok.String(), "keyword")
	}
	known := map[string]bool{}
	for _, m := range list {
		known[m.Text] = true
	}
	for name := range identifiers(code) {
		if !known[name] {
			add(name, "variable")
		}
	}
	return list
}

// identifiers lists the names that a cell mentions, other than behind a dot.
func identifiers(code string) map[string]bool {
	found := map[string]bool{}
	set := token.NewFileSet()
	var s scanner.Scanner
	s.Init(set.AddFile("", -1, len(code)), []byte(code), func(token.Position, string) {}, 0)
	last := token.ILLEGAL
	for {
		_, tok, literal := s.Scan()
		if tok == token.EOF {
			return found
		}
		if tok == token.IDENT && last != token.PERIOD {
			found[literal] = true
		}
		last = tok
	}
}

func kindOf(o types.Object) string {
	switch o := o.(type) {
	case *types.Func, *types.Builtin:
		return "function"
	case *types.TypeName:
		return "class"
	case *types.PkgName:
		return "module"
	case *types.Var:
		if o.IsField() {
			return "property"
		}
	}
	return "variable"
}

// members lists what can follow the dot.
func (b *Builder) members(ns *Namespace, code string, dot, start int, typed string) []Match {
	var list []Match
	add := func(o types.Object) {
		if strings.HasPrefix(o.Name(), typed) && (o.Exported() || o.Pkg() != nil && o.Pkg().Path() == "main") {
			list = append(list, Match{o.Name(), kindOf(o)})
		}
	}
	t, pkg := b.before(ns, code, dot, start)
	if pkg != nil {
		for _, name := range pkg.Scope().Names() {
			add(pkg.Scope().Lookup(name))
		}
		return list
	}
	if t == nil {
		return nil
	}
	fields(t, map[types.Type]bool{}, add)
	for _, methods := range []*types.MethodSet{types.NewMethodSet(t), types.NewMethodSet(types.NewPointer(t))} {
		for i := range methods.Len() {
			add(methods.At(i).Obj())
		}
	}
	return list
}

// fields visits the fields of a struct, those of embedded ones included.
func fields(t types.Type, seen map[types.Type]bool, visit func(types.Object)) {
	if p, ok := t.Underlying().(*types.Pointer); ok {
		t = p.Elem()
	}
	s, ok := t.Underlying().(*types.Struct)
	if !ok || seen[t] {
		return
	}
	seen[t] = true
	for i := range s.NumFields() {
		visit(s.Field(i))
		if s.Field(i).Embedded() {
			fields(s.Field(i).Type(), seen, visit)
		}
	}
}

// before gives the type of the expression before a dot, or the package.
func (b *Builder) before(ns *Namespace, code string, dot, start int) (types.Type, *types.Package) {
	// First as part of the cell, in which it may be a variable of the cell.
	text := closed(code[:start] + marker)
	if k, _ := b.look(ns, text); k != nil {
		var t types.Type
		var pkg *types.Package
		ast.Inspect(k.files[currentFile], func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != marker {
				return true
			}
			t, pkg = k.typeOf(s.X)
			return false
		})
		if t != nil || pkg != nil {
			return t, pkg
		}
	}
	// Then by itself.
	expr := chainBefore(code[:dot])
	k := b.lookExpression(ns, expr)
	if k == nil {
		return nil, nil
	}
	return k.typeOf(k.expression())
}

// typeOf gives the type of an expression, or the package that it names.
func (k *checked) typeOf(x ast.Expr) (types.Type, *types.Package) {
	if x == nil {
		return nil, nil
	}
	if id, ok := x.(*ast.Ident); ok {
		if p, ok := k.info.Uses[id].(*types.PkgName); ok {
			return nil, p.Imported()
		}
	}
	if tv, ok := k.info.Types[x]; ok && tv.Type != nil && tv.Type != types.Typ[types.Invalid] {
		return tv.Type, nil
	}
	return nil, nil
}

// look checks a cell that nobody runs. It may be wrong in many ways.
func (b *Builder) look(ns *Namespace, text string) (*checked, *cell) {
	split, _ := source.Take(text)
	c, problems := parse(0, split)
	if len(problems) > 0 {
		return nil, nil
	}
	next := ns.clone()
	b.addImports(c, next)
	taken := func(name string) bool { return next.has(name) || c.declares(name) }
	base := next.clone()
	for _, p := range c.parts {
		for _, name := range declaredNames(p.decl) {
			base.forget(name)
		}
	}
	n := b.importNames(c, next, taken)
	return b.check(append(b.earlier(base, taken, nil), b.currentFile(c, n, nil, entries{}, b.dots))), c
}

// lookExpression checks one expression.
func (b *Builder) lookExpression(ns *Namespace, expr string) *checked {
	if expr == "" || len(expr) > chainBytesMax {
		return nil
	}
	if _, err := parser.ParseExpr(expr); err != nil {
		return nil
	}
	k, _ := b.look(ns, "_ = "+expr)
	return k
}

// expression is what lookExpression checked.
func (k *checked) expression() ast.Expr {
	if body := k.cellBody(); body != nil && len(body.Body.List) == 1 {
		if s, ok := body.Body.List[0].(*ast.AssignStmt); ok {
			return s.Rhs[0]
		}
	}
	return nil
}

// closed adds the brackets that a text leaves open.
func closed(text string) string {
	set := token.NewFileSet()
	var s scanner.Scanner
	s.Init(set.AddFile("", -1, len(text)), []byte(text), func(token.Position, string) {}, 0)
	var open []byte
	for {
		_, tok, _ := s.Scan()
		switch tok {
		case token.LPAREN:
			open = append(open, ')')
		case token.LBRACK:
			open = append(open, ']')
		case token.LBRACE:
			open = append(open, '}')
		case token.RPAREN, token.RBRACK, token.RBRACE:
			open = open[:max(0, len(open)-1)]
		case token.EOF:
			slices.Reverse(open)
			return text + string(open)
		}
	}
}

// chainBefore gives the operand that a text ends with: names, calls and indexes with dots between.
func chainBefore(text string) string {
	text = strings.TrimRight(text, " \t\n")
	i, depth := len(text), 0
	for i > 0 {
		c := text[i-1]
		switch {
		case c == ')' || c == ']' || c == '}':
			depth++
		case c == '(' || c == '[' || c == '{':
			if depth == 0 {
				return text[i:]
			}
			depth--
		case depth > 0:
		case c == '.' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80:
		default:
			return text[i:]
		}
		i--
	}
	return text
}

// A Found is what is known of a name.
type Found struct {
	Signature string
	Doc       string
	Source    string
	// Where else its documentation is: a package, and a name in it such as Buffer.Write.
	Package, Name string
}

// Inspect finds out what the name at the cursor, a byte offset, is.
func (b *Builder) Inspect(ns *Namespace, code string, cursor int) *Found {
	start, end := wordAt(code, cursor)
	if start == end {
		return nil
	}
	word := code[start:end]
	var object types.Object
	if k, c := b.look(ns, closed(code)); k != nil {
		object = k.objectAt(c, start)
	}
	if object == nil {
		chain := chainBefore(code[:start]) + word
		if k := b.lookExpression(ns, chain); k != nil {
			object = k.lastObject()
		}
	}
	if object == nil {
		path := ns.Imports[word]
		if path == "" {
			path = autoImports[word]
		}
		if path != "" {
			return &Found{Signature: "package " + word + " (" + path + ")", Package: path}
		}
		if token.IsKeyword(word) {
			return &Found{Signature: "keyword " + word}
		}
		return nil
	}
	return b.found(ns, object)
}

// objectAt finds what an identifier of the cell means.
func (k *checked) objectAt(c *cell, offset int) types.Object {
	var object types.Object
	ast.Inspect(k.files[currentFile], func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && c.offset(k.set.Position(id.Pos())) == offset && object == nil {
			if object = k.info.Uses[id]; object == nil {
				object = k.info.Defs[id]
			}
		}
		return true
	})
	return object
}

// lastObject is what the last name of the checked expression means.
func (k *checked) lastObject() types.Object {
	switch x := ast.Unparen(k.expression()).(type) {
	case *ast.Ident:
		return k.info.Uses[x]
	case *ast.SelectorExpr:
		return k.info.Uses[x.Sel]
	}
	return nil
}

func (b *Builder) found(ns *Namespace, o types.Object) *Found {
	qualifier := func(p *types.Package) string {
		if p.Path() == "main" {
			return ""
		}
		return p.Name()
	}
	f := &Found{Signature: types.ObjectString(o, qualifier)}
	name := o.Name()
	if fn, ok := o.(*types.Func); ok && fn.Signature().Recv() != nil {
		name = receiverOf(fn) + "." + name
	}
	switch {
	case o.Pkg() == nil:
		f.Package, f.Name = "builtin", name
	case o.Pkg().Path() == "main":
		if u := ns.Unit(name); u != nil {
			f.Doc, f.Source = u.Doc, u.Source
		}
	default:
		f.Package, f.Name = o.Pkg().Path(), name
	}
	if p, ok := o.(*types.PkgName); ok {
		f.Package, f.Name = p.Imported().Path(), ""
		f.Signature = "package " + p.Imported().Name() + " (" + p.Imported().Path() + ")"
	}
	return f
}

// receiverOf is the name of a method's type.
func receiverOf(f *types.Func) string {
	t := f.Signature().Recv().Type()
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if named, ok := types.Unalias(t).(*types.Named); ok {
		return named.Obj().Name()
	}
	return ""
}
