package program

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"

	"crownest/internal/source"
)

// A file of the program, as it is checked and compiled.
type file struct {
	name string
	text string
}

// checked is what the type checker found.
type checked struct {
	set      *token.FileSet
	files    map[string]*ast.File
	pkg      *types.Package
	info     *types.Info
	problems []problem
}

type problem struct {
	token.Position
	message string
	soft    bool // the compiler could go on: something is declared and not used
}

// check parses and checks files. It always comes back with something, problems or not.
func (b *Builder) check(files []file) *checked {
	k := &checked{set: token.NewFileSet(), files: map[string]*ast.File{}, info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{},
		Uses: map[*ast.Ident]types.Object{}, Implicits: map[ast.Node]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{}, Scopes: map[ast.Node]*types.Scope{},
	}}
	var parsed []*ast.File
	for _, f := range files {
		tree, err := parser.ParseFile(k.set, f.name, f.text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			k.problems = append(k.problems, problem{token.Position{Filename: f.name}, err.Error(), false})
		}
		if tree != nil {
			parsed = append(parsed, tree)
			k.files[f.name] = tree
		}
	}
	config := types.Config{
		Importer: b.Importer, GoVersion: b.GoVersion, Sizes: types.SizesFor("gc", b.Arch),
		Error: func(err error) {
			if e, ok := err.(types.Error); ok {
				k.problems = append(k.problems, problem{e.Fset.Position(e.Pos), e.Msg, e.Soft})
			}
		},
	}
	k.pkg, _ = config.Check("main", k.set, parsed, k.info)
	return k
}

// counts tells the problems that matter: imports that nobody uses are left out of the program.
func (p *problem) counts() bool {
	return !p.soft || !strings.HasSuffix(p.message, "and not used") || !strings.Contains(p.message, " imported ")
}

// in gives the problems of a file.
func (k *checked) in(name string) []problem {
	var list []problem
	for _, p := range k.problems {
		if p.Filename == name && p.counts() {
			list = append(list, p)
		}
	}
	return list
}

// asProblems makes them presentable.
func asProblems(list []problem) []source.Problem {
	var out []source.Problem
	seen := map[string]bool{}
	for _, p := range list {
		if strings.HasPrefix(p.message, "\t") && len(out) > 0 {
			// More about the one before.
			out[len(out)-1].Message += fmt.Sprintf("\n%s (line %d:%d)", p.message, p.Line, p.Column)
			continue
		}
		message := strings.ReplaceAll(p.message, prefix+"old_", "")
		if key := fmt.Sprint(p.Line, p.Column, message); !seen[key] {
			seen[key] = true
			out = append(out, source.Problem{Cell: cellOf(p.Filename), Line: max(p.Line, 1), Column: p.Column, Message: message})
		}
	}
	slices.SortStableFunc(out, func(a, b source.Problem) int {
		return cmp.Or(cmp.Compare(a.Cell, b.Cell), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out
}

// cellOf reads the number of an earlier cell from its file's name; 0 for others.
func cellOf(name string) int {
	n := 0
	if _, err := fmt.Sscanf(name, "/cells/cell%d.go", &n); err != nil {
		return 0
	}
	return n
}

// CellOf tells which cell a file of the program is: its number, 0 for the one that runs.
func CellOf(name string) (number int, ok bool) {
	if name == currentFile {
		return 0, true
	}
	n := cellOf(name)
	return n, n > 0
}

// earlier gives the files of what earlier cells declared, and of all variables.
func (b *Builder) earlier(ns *Namespace, taken func(string) bool, extra []*Var) []file {
	byCell := map[int][]*Unit{}
	for _, u := range ns.Units {
		byCell[u.Cell] = append(byCell[u.Cell], u)
	}
	var files []file
	for _, number := range slices.Sorted(maps.Keys(byCell)) {
		files = append(files, unitsFile(number, byCell[number], taken))
	}
	return append(files, variablesFile(append(slices.Clone(ns.Vars), extra...), taken))
}

func unitsFile(number int, units []*Unit, taken func(string) bool) file {
	n := newNames(fileOf(number), taken)
	var body strings.Builder
	dots := map[string]bool{}
	for _, u := range units {
		fmt.Fprintf(&body, "//line %s:%d\n%s\n", n.file, u.Line, n.render(u.Text))
		for _, path := range u.Dots {
			dots[path] = true
		}
	}
	return file{n.file, n.header(slices.Sorted(maps.Keys(dots)), nil) + body.String()}
}

// variablesFile declares variables, each on the line of its number.
func variablesFile(vars []*Var, taken func(string) bool) file {
	n := newNames(varsFile, taken)
	var body strings.Builder
	for i, v := range vars {
		fmt.Fprintf(&body, "//line %s:%d\nvar %s %s\n", n.file, i+1, v.Name, n.render(v.Type))
	}
	return file{n.file, n.header(nil, nil) + body.String()}
}

// header is the beginning of a file, once it is known what it needs.
func (n *names) header(dots, blanks []string) string {
	var b strings.Builder
	b.WriteString("package main\n")
	for _, name := range slices.Sorted(maps.Keys(n.imports)) {
		fmt.Fprintf(&b, "import %s %q\n", name, n.imports[name])
	}
	for _, path := range dots {
		fmt.Fprintf(&b, "import . %q\n", path)
	}
	for _, path := range blanks {
		fmt.Fprintf(&b, "import _ %q\n", path)
	}
	return b.String()
}
