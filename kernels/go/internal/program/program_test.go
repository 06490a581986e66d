package program

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"crownest/internal/source"
)

// exports asks the go command where the packages are that tests import.
var exports = sync.OnceValue(func() map[string]string {
	arguments := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", "crownest/cell/..."}
	arguments = append(arguments, "bufio", "bytes", "context", "errors", "fmt", "image", "io", "math", "math/rand", "net/http", "os", "os/exec", "os/signal", "slices", "sort", "strconv", "strings", "time", "net/url")
	command := exec.Command("go", arguments...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		panic(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if path, file, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			files[path] = file
		}
	}
	return files
})

type testImporter struct{ types.Importer }

func (i testImporter) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	return i.Importer.Import(path)
}

var stdImporter = sync.OnceValue(func() types.Importer {
	return testImporter{importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		if file := exports()[path]; file != "" {
			return os.Open(file)
		}
		return nil, fmt.Errorf("no package %s", path)
	})}
})

// A script is a context as far as it can go without running anything.
type script struct {
	t     *testing.T
	b     *Builder
	ns    *Namespace
	parts []Part
	count int
}

func newScript(t *testing.T) *script {
	version := runtime.Version()
	if dots := strings.Split(version, "."); len(dots) > 2 {
		version = dots[0] + "." + dots[1]
	}
	return &script{t: t, b: &Builder{Importer: stdImporter(), GoVersion: version, Arch: "amd64"}, ns: NewNamespace()}
}

// run builds a cell, checks what comes of it as the compiler would, and takes its names over. Every
// variable is a part of the state of its own.
func (s *script) run(code string) *Program {
	s.t.Helper()
	p, problems := s.try(code)
	if len(problems) > 0 {
		s.t.Fatalf("%s\n%v", code, problems)
	}
	s.check(p)
	s.ns = p.Next
	s.parts = nil
	for _, v := range s.ns.Vars {
		s.parts = append(s.parts, Part{Variables: []string{v.Key()}})
	}
	return p
}

func (s *script) try(code string) (*Program, []source.Problem) {
	s.t.Helper()
	s.count++
	split, problems := source.Take(code)
	if len(problems) > 0 {
		return nil, problems
	}
	return s.b.Build(s.count, split, s.ns, s.parts)
}

// check has the type checker look at the program without any of the tolerance for cells.
func (s *script) check(p *Program) {
	s.t.Helper()
	set := token.NewFileSet()
	var files []*ast.File
	for _, f := range p.Files {
		tree, err := parser.ParseFile(set, f.Name, f.Text, 0)
		if err != nil {
			s.t.Fatalf("%v\n%s", err, f.Text)
		}
		files = append(files, tree)
	}
	config := types.Config{Importer: s.b.Importer, GoVersion: s.b.GoVersion}
	if _, err := config.Check("main", set, files, nil); err != nil {
		for _, f := range p.Files {
			s.t.Logf("== %s\n%s", f.Name, f.Text)
		}
		s.t.Fatal(err)
	}
}

var comment = regexp.MustCompile(`/\*line [^*]*\*/`)

// text is a file of a program, without what it says about lines in between.
func text(p *Program, name string) string {
	for _, f := range p.Files {
		if strings.HasSuffix(f.Name, name) {
			return comment.ReplaceAllString(f.Text, "")
		}
	}
	return ""
}

func (s *script) fails(code string, line int, part string) {
	s.t.Helper()
	_, problems := s.try(code)
	if len(problems) == 0 {
		s.t.Errorf("%q compiles", code)
		return
	}
	if p := problems[0]; p.Line != line || !strings.Contains(p.Message, part) {
		s.t.Errorf("%q: %v, expected line %d: %s", code, problems, line, part)
	}
}

func (s *script) variables() string {
	var list []string
	for _, v := range s.ns.Vars {
		list = append(list, v.Name+" "+v.Shown)
	}
	return strings.Join(list, ", ")
}

func TestVariablesBecomePackageVariables(t *testing.T) {
	s := newScript(t)
	s.run("x := 10\na, b := 1.5, \"t\"\nvar c, d = x, a\nvar (\n\te []int\n\tf = map[string]*int{\"x\": &x}\n)\nif y := x; y > 3 { z := y; _ = z }\nfor i := range 3 { _ = i }")
	if got := s.variables(); got != "x int, a float64, b string, c int, d float64, e []int, f map[string]*int" {
		t.Error(got)
	}
	s.run("x, g := 5, x\ng++")
	s.run("h, err := strconv.Atoi(\"1\")\ni, err := strconv.Atoi(\"2\")\nfmt.Println(h, i, err)")
	if got := s.variables(); !strings.HasSuffix(got, "g int, h int, err error, i int") {
		t.Error(got)
	}
}

func TestFunctionsSeeVariablesOfTheirCell(t *testing.T) {
	s := newScript(t)
	s.run("x := 1\nfunc get() int { return x + y }\ny := 2\nget()")
	s.run("func set(n int) { x = n }\nset(4)\nget()")
}

func TestAnotherTypeForAName(t *testing.T) {
	s := newScript(t)
	s.run("x := 5")
	p := s.run("y := x + 1\nx := strconv.Itoa(x)\nz := len(x) + y")
	if !strings.Contains(text(p, "cell.go"), "Itoa(crownest_old_x") {
		t.Error(text(p, "cell.go"))
	}
	if len(p.Restores) != 1 || !strings.Contains(text(p, "main.go"), `Old("x#1"`) || !strings.Contains(text(p, "main.go"), `Var("x#2"`) {
		t.Error(p.Restores, text(p, "main.go"))
	}
	if got := s.variables(); got != "x string, y int, z int" {
		t.Error(got)
	}
	// The same type again is the same variable.
	p = s.run("x := x + \"!\"")
	if !strings.Contains(text(p, "main.go"), `Var("x#2"`) {
		t.Error(text(p, "main.go"))
	}
}

func TestVariablesThatHideImports(t *testing.T) {
	s := newScript(t)
	s.run("import \"net/url\"\nurl, err := url.Parse(\"http://a/\")\nurl.Host")
	s.run("url.Host + fmt.Sprint(err)")
	s.run("func host() string { return url.Host }\nstrings := strings.Split(\"a b\", \" \")\nlen(strings)")
	s.run("strings[0]")
}

func TestOnlyWhatIsNeededIsInTheProgram(t *testing.T) {
	s := newScript(t)
	s.run("type A struct{ b *B }\ntype B struct{ n int }\nfunc (a A) M() int { return helper(a.b) }\nfunc helper(b *B) int { return b.n }\nfunc other() { _ = http.Get }\nv, w := A{&B{1}}, 2")
	p := s.run("1 + 1")
	if len(p.Restores) != 0 || p.Keeps || text(p, "cell1.go") != "" || slices.Contains(p.Imports, "fmt") {
		t.Error(p.Restores, p.Imports)
	}
	p = s.run("v.M()")
	if len(p.Restores) != 1 || !strings.Contains(text(p, "cell1.go"), "func helper") || strings.Contains(text(p, "cell1.go"), "other") {
		t.Error(p.Restores, text(p, "cell1.go"))
	}
}

func TestPartsBringWhatTheyReferTo(t *testing.T) {
	s := newScript(t)
	s.run("type Shape interface{ Area() int }\ntype Square struct{ n int }\nfunc (s Square) Area() int { return s.n }\nfunc double(n int) int { return 2 * n }\nvar list []Shape\nf := double\nerr := io.EOF\nunrelated := 1")
	s.parts = []Part{
		{Variables: []string{"list#1", "f#1"}, Types: []string{"main.Square", "*errors.errorString", "main.Box[int]"}, Functions: []string{"main.double", "main.Square.Area-fm", "strings.(*Builder).WriteString-fm", "strings.ToUpper"}},
		{Variables: []string{"err#1"}, Statics: []string{"io.EOF"}},
		{Variables: []string{"unrelated#1"}},
	}
	p := s.run("len(list)")
	main := text(p, "main.go")
	for _, want := range []string{`Var("f#1"`, "TypeFor[Square]()", `TypeOf(errors.New(""))`, `Func("main.double", double)`, `Bound("main.Square.Area-fm", func(r Square)`, `func(r *strings.Builder)`, "strings.ToUpper)"} {
		if !strings.Contains(main, want) {
			t.Errorf("no %s in\n%s", want, main)
		}
	}
	if !slices.Equal(p.Restores, []int{0}) {
		t.Error(p.Restores)
	}
}

func TestWholePrograms(t *testing.T) {
	s := newScript(t)
	p := s.run("package main\n\nimport \"fmt\"\n\nvar a = b + 1\nvar b = f()\nvar c int\nvar _ fmt.Stringer = T(1)\n\ntype T int\n\nfunc (t T) String() string { return \"t\" }\nfunc f() int { return 2 }\nfunc init() { c = 3 }\nfunc main() { fmt.Println(a, b, c) }\n")
	cell := text(p, "cell.go")
	if strings.Index(cell, "b = ") > strings.Index(cell, "a = ") || !strings.Contains(cell, "T(1)\ncrownest_init1()\n\ncrownest_main()") {
		t.Error(cell)
	}
	if got := s.variables(); got != "a int, b int, c int" {
		t.Error(got)
	}
	s.run("main()\na + f()")
	s.run("func main() { a++ }")
	s.run("package main\nfmt.Println(\"statements after a package clause\")")
}

func TestResults(t *testing.T) {
	s := newScript(t)
	s.run("type P struct{ X int }\np, m, e, n, u := P{1}, map[string]int{}, io.EOF, int8(1), uint(2)\nimg := image.NewGray(image.Rect(0, 0, 1, 1))\nvar iface any = 1")
	for code, want := range map[string]string{
		"1 + 1": "plain.Int(", "n": "plain.Int(", "u": "plain.Uint(", "2.5": "plain.Float(", "\"x\"": "plain.String(", "true": "plain.Bool(",
		"p": "structured.Value(", "m": "structured.Value(", "e": "show.Value(", "img": "picture.Value(", "iface": "structured.Value(",
		"strconv.Atoi(\"1\")": "show.Values(", "(n)": "plain.Int(", "n\nfunc later() {}": "plain.Int(", "time.Second": "show.Value(", "append([]int{}, 1)": "structured.Value(",
	} {
		if p := s.run(code); !strings.Contains(text(p, "cell.go"), want) {
			t.Errorf("%s: %s", code, text(p, "cell.go"))
		}
	}
	for _, code := range []string{"fmt.Println(1)", "nil", "n;", "x := 1", "func() {}()", "fmt.Fprintln(os.Stderr, 1)", "for {}", "return"} {
		if p := s.run(code); strings.Contains(text(p, "cell.go"), "Value") || strings.Contains(text(p, "cell.go"), "plain") {
			t.Errorf("%s: %s", code, text(p, "cell.go"))
		}
	}
}

func TestFunctionLiteralsGetNames(t *testing.T) {
	s := newScript(t)
	p := s.run("n := 0\nadd := func(a, b int) int { return a + b + n }\nfs := []func() int{}\nfor i := range 3 { fs = append(fs, func() int { i += 1; return i }) }\nsort.Slice(fs, func(a, b int) bool { return a < b })\ngo func() { n++ }()")
	cell := text(p, "cell.go")
	for _, want := range []string{"add =  crownest_lit_1_1", "(&crownest_lit_1_2{&i}).call", "func crownest_lit_1_1", "v_i *int", "sort.Slice(fs, func(a"} {
		if !strings.Contains(cell, want) {
			t.Errorf("no %s in\n%s", want, cell)
		}
	}
	s.run("func mk(start int) (func() int, func() func() int) {\n\tk := start\n\tlocal := func() int { return k }\n\t_ = local()\n\tnested := func() func() int { m := k; return func() int { k++; m--; return k + m } }\n\treturn func() int { k++; return k }, nested\n}\na, b := mk(1)\na() + b()()")
	s.run("func generic[T any](x T) func() T { return func() T { return x } }\nfunc local() func() any { type L struct{}; return func() any { return L{} } }\ng := generic(1)\nl := local()\ng()")
	s.run("type T struct{ f func(*T) int }\nt := &T{func(t *T) int { return n }}\nfunc (t *T) bind() func() int { return func() int { return t.f(t) } }\nh := t.bind()")
	for _, u := range s.ns.Units {
		if u.Kind == Literal && strings.Contains(u.Text, "L{}") {
			t.Error("a literal with a local type was lifted")
		}
	}
	s.ns.Collect(map[string]bool{"main.crownest_lit_1_1": true})
	if s.ns.Unit("crownest_lit_1_1") == nil || s.ns.Unit("crownest_lit_1_2") != nil {
		t.Error("collected wrongly")
	}
}

func TestCompileErrorsAreThoseOfGo(t *testing.T) {
	s := newScript(t)
	s.run("x := 1\nfunc f(n int) int { return n }")
	s.fails("y := 1\nundefinedName", 2, "undefined: undefinedName")
	s.fails("y := z\nz := 1", 1, "undefined: z")
	s.fails("func g() int {\n\treturn \"x\"\n}", 2, "cannot use")
	s.fails("x + 1\nx", 1, "is not used")
	s.fails("if x == 1 {\n\tunused := 2\n}", 2, "declared and not used")
	s.fails("y := 1\ny := 2", 2, "no new variables")
	s.fails("for {\n  break outer\n}", 2, "outer")
	s.fails("f(1, 2)", 1, "too many arguments")
	s.fails("var a [3]int = f", 1, "cannot use")
	s.fails("import \"C\"", 1, "cgo")
	s.fails("import \"./local\"", 1, "relative")
	s.fails("import \"internal/abi\"", 1, "internal")
	s.fails("\nimport (\n\t\"fmt\"\n\t\"no/such\"\n)", 4, "could not import")
	s.fails("package main\nfunc main() { x := 1 }", 2, "declared and not used")
	s.fails("return 5", 1, "too many return values")
	s.fails("type T struct{ T }", 1, "invalid recursive type")
	s.fails("x = \"text\"", 1, "cannot use")
	s.fails("for i := 0; i < 3; i++ {", 1, "never closed")
}

func TestUnusedIsNoError(t *testing.T) {
	s := newScript(t)
	s.run("import (\"fmt\"; \"os\")\nx := 1")
	s.run("import _ \"image/png\"\nimport . \"strings\"")
	p := s.run("ToUpper(\"x\")")
	if !slices.Contains(p.Imports, "image/png") {
		t.Error(p.Imports)
	}
	if p = s.run("2"); slices.Contains(p.Imports, "strings") {
		t.Error(p.Imports)
	}
}

func TestLaterDeclarationsWin(t *testing.T) {
	s := newScript(t)
	s.run("type P struct{ X int }\nfunc (p P) Twice() int { return 2 * p.X }\nfunc use(p P) int { return p.X }\nfunc fine(p P) P { return p }\np := P{1}")
	p := s.run("type P struct{ Y string }")
	var broken []string
	for _, b := range p.Broken {
		broken = append(broken, fmt.Sprintf("%s %d:%d", b.Name, b.Problem.Cell, b.Problem.Line))
	}
	if fmt.Sprint(broken) != "[P.Twice 1:2 use 1:3]" {
		t.Error(broken)
	}
	s.run("fine(p).Y")
	if !p.Empty {
		t.Error("there is nothing to run")
	}
	s.run("const (\n\tA = iota\n\tB\n\tC\n)")
	s.run("const B = \"b\"")
	s.run("_ = A + C\nB + \"!\"")
	s.run("p := 1\nfunc fmt() int { return p }\nfmt()")
}

func TestShadowedPredeclaredNames(t *testing.T) {
	s := newScript(t)
	s.run("s, list := \"text\", []string{\"a\"}")
	s.run("type string int\nvar n string = 5")
	s.run("_ = s + \"!\"\nlen(list)")
	s.run("n + 1")
	s.run("func len(x any) int { return 7 }\nlen(n)")
	s.run("nil := 3\ntrue := false\nfunc new() int { return nil }\nfunc panic(x any) {}\nnew()")
	s.run("var x error\nvar y any = true\ny")
	s.run("func Display(x int) int { return x }\nDisplay(3)")
}

func TestVariablesWithoutANameForTheirType(t *testing.T) {
	s := newScript(t)
	p := s.run("h := http.NewServeMux()\nr := strings.NewReader(\"x\")\nfunc mk() any { type local struct{ a int }; return local{1} }\nv := mk()\nr.Len()")
	if len(p.Unkept) != 0 {
		t.Error(p.Unkept)
	}
	s.run("type T[K comparable, V any] map[K]V\nt := T[string, func(...int) <-chan struct{ A, b int `json:\"x\"` }]{}\nlen(t)")
	s.run("len(t)")
}

func TestEmptyCells(t *testing.T) {
	s := newScript(t)
	for _, code := range []string{"", "// only a comment\n", "import \"fmt\"", "type T int", "const C = 1\nfunc f() {}", "package main"} {
		if p := s.run(code); !p.Empty {
			t.Errorf("%q is to be run", code)
		}
	}
	if p := s.run("func init() {}"); p.Empty {
		t.Error("init is to be run")
	}
}

func TestQueries(t *testing.T) {
	s := newScript(t)
	s.run("// T is a type.\ntype T struct{ Field int; inner struct{ deep bool } }\n// M is a method.\nfunc (t *T) M() {}\nv := &T{}")
	complete := func(code string) string {
		matches, _, _ := s.b.Complete(s.ns, code, len(code))
		var list []string
		for _, m := range matches {
			list = append(list, m.Text+":"+m.Kind)
		}
		return strings.Join(list, " ")
	}
	for code, want := range map[string]string{
		"v.":                              "Field:property M:function inner:property",
		"v.inner.":                        "deep:property",
		"w := v\nif true {\n\tw.Fi":       "Field:property",
		"strings.ToUp":                    "ToUpper:function ToUpperSpecial:function",
		"for _, x := range []*T{v} { x.M": "M:function",
		"no_such_name":                    "",
		"v)":                              "",
	} {
		if got := complete(code); got != want {
			t.Errorf("%q: %s", code, got)
		}
	}
	if f := s.b.Inspect(s.ns, "v.M()", 3); f == nil || f.Doc != "M is a method.\n" || !strings.Contains(f.Source, "func (t *T) M") {
		t.Errorf("%+v", f)
	}
	if f := s.b.Inspect(s.ns, "strings.ToUpper", 12); f == nil || f.Package != "strings" || f.Name != "ToUpper" {
		t.Errorf("%+v", f)
	}
	if f := s.b.Inspect(s.ns, "unknown", 2); f != nil {
		t.Errorf("%+v", f)
	}
	for _, code := range []string{"v.", "", "(", "x := ", "}}}", "`", "v.inner.deep.", "func ("} {
		for cursor := range len(code) + 1 {
			s.b.Complete(s.ns, code, cursor)
			s.b.Inspect(s.ns, code, cursor)
		}
	}
}

// What the kernel writes is at no place of the cell, though it looks so to the compiler.
func TestGeneratedTextIsNoPartOfACell(t *testing.T) {
	s := newScript(t)
	s.run("var a, b int\nfmt.Sscan(\"1\", &a, &b)\nline := bufio.NewReader(os.Stdin)\n_ = line")
	s.run("count := 10\nfunc later() {}\nimport \"math\"")
	for _, u := range s.ns.Units {
		if u.Names[0].Name == cellFunc {
			t.Error(u)
		}
	}
}

func TestMethodsGoWithTheirType(t *testing.T) {
	s := newScript(t)
	s.run("type thing struct{ value int }\nfunc (t thing) Double() int { return 2 * t.value }")
	if p := s.run("thing := \"text\"\nfunc user() int { return len(thing) }"); len(p.Broken) > 0 {
		t.Error(p.Broken)
	}
	s.run("type thing int\nthing(1)")
}

func TestSyntaxFilesAreFiles(t *testing.T) {
	for _, code := range []string{"x := 1\nimport \"fmt\"\nfunc f() {}\nf()", "package main\nfunc main() {}", "// a\nfunc f() {}\n// b\nimport \"os\""} {
		split, _ := source.Take(code)
		f := SyntaxFile(split)
		if _, err := parser.ParseFile(token.NewFileSet(), f.Name, f.Text, parser.SkipObjectResolution); err != nil {
			t.Errorf("%q: %v\n%s", code, err, f.Text)
		}
	}
}
