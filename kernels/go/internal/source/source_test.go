package source

import (
	"strings"
	"testing"
)

func take(t *testing.T, text string) *Split {
	t.Helper()
	split, problems := Take(text)
	if len(problems) > 0 {
		t.Fatalf("%q: %v", text, problems)
	}
	if len(split.Text) != len(text) {
		t.Fatalf("%q became %q", text, split.Text)
	}
	return split
}

func TestWhatIsOutsideOfFunctions(t *testing.T) {
	cell := `import "fmt"
// f is a function.
func f(a int) int { for i := 0; i < 3; i++ { a++ }; return a }
x := func(a int) int { return a }(3)
func (p *P[T]) Method(x T) (int, error) { return 0, nil }
func (P) m() {}
type P[T any] struct{ a, b T }
func() { fmt.Println("called at once") }()
for i := 0; i < 3; i++ { func() {}() }
func (a int) int { return a }
`
	split := take(t, cell)
	var found []string
	for _, span := range split.Outside {
		found = append(found, strings.TrimSpace(split.Text[span.Start:span.End]))
	}
	want := []string{`import "fmt"`, "// f is a function.\nfunc f(a int)", "func (p *P[T]) Method", "func (P) m()"}
	if len(found) != len(want) {
		t.Fatalf("%q", found)
	}
	for i := range want {
		if !strings.HasPrefix(found[i], want[i]) {
			t.Errorf("%q is not %q", found[i], want[i])
		}
	}
	inside := split.Inside()
	if strings.Count(inside, "\n") != strings.Count(cell, "\n") || strings.Contains(inside, "Method") || !strings.Contains(inside, "x := func") {
		t.Errorf("%q", inside)
	}
}

func TestCommands(t *testing.T) {
	split := take(t, "%go get example.com/it's@v1.2.3 \"x\nx := 10 % 3\n  %go version\ny := `\n%go no\n`")
	if len(split.Commands) != 2 || split.Commands[0].Text != `go get example.com/it's@v1.2.3 "x` || split.Commands[1].Line != 3 {
		t.Errorf("%+v", split.Commands)
	}
	if !strings.Contains(split.Text, "%go no") || strings.Contains(split.Text, "version") {
		t.Errorf("%q", split.Text)
	}
}

func TestQuiet(t *testing.T) {
	for text, quiet := range map[string]bool{"x": false, "x;": true, "x; // done": true, "x ;\n\n": true, "x;y": false, "f(';')": false, "": false} {
		if got := take(t, text).Quiet; got != quiet {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestPackageClause(t *testing.T) {
	if split := take(t, "// A program.\npackage main\n\nfunc main() {}"); split.Package.End == 0 || strings.Contains(split.WithoutPackage(), "package") {
		t.Errorf("%+v", split)
	}
	if split := take(t, "x := 1\n"); split.Package.End != 0 {
		t.Errorf("%+v", split)
	}
}

func TestLineDirectivesAreTakenAway(t *testing.T) {
	split := take(t, "//line /etc/passwd:7\nx := 1 /*line a:3:4*/ + 2 // lines of code")
	if strings.Contains(split.Text, "//line") || strings.Contains(split.Text, "/*line ") {
		t.Errorf("%q", split.Text)
	}
}

func TestProblems(t *testing.T) {
	for text, want := range map[string]struct {
		line int
		part string
	}{
		"x := 1\nfor {\n  if a {\n}":   {2, "'{' is never closed"},
		"f(1))":                        {1, "unexpected ')'"},
		"a[(1]":                        {1, "unexpected ']'"},
		"x := \"open\ny":               {1, "string literal not terminated"},
		"\n`open":                      {2, "raw string literal not terminated"},
		"/* open":                      {1, "comment not terminated"},
		"x := 1\n\x00":                 {2, "NUL"},
		"crownest_cell()":              {1, "the kernel's own"},
		"//go:embed x.txt\nvar s = ``": {1, "go:embed"},
		strings.Repeat("(", 3000):      {1, "nested"},
		"x := " + strings.Repeat("1+", 20_000) + "1": {1, "operators"},
		strings.Repeat("%go version\n", 200):         {101, "commands"},
	} {
		_, problems := Take(text)
		if len(problems) == 0 {
			t.Errorf("%.40q has no problem", text)
		} else if p := problems[0]; p.Line != want.line || !strings.Contains(p.Message, want.part) {
			t.Errorf("%.40q: %v", text, p)
		}
	}
}

func TestManyOperatorsApart(t *testing.T) {
	take(t, "x := []int{"+strings.Repeat("1+1,", 20_000)+"}")
	take(t, strings.Repeat("x = x + 1\n", 20_000))
}

func FuzzTake(f *testing.F) {
	for _, seed := range []string{"x := 1", "func f() {", "%go get x", "package main\nimport \"fmt\"", "/*line x:1*/`", "func (a", "\xff\xfe", "'"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		split, problems := Take(text)
		for _, span := range split.Outside {
			if span.Start < 0 || span.End > len(split.Text) || span.Start > span.End {
				t.Fatal(span)
			}
		}
		if len(problems) == 0 && strings.Count(split.Inside(), "\n") != strings.Count(split.Text, "\n") {
			t.Fatal("lines are lost")
		}
	})
}
