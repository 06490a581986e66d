package program

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"sort"
	"strings"

	"crownest/internal/source"
)

const (
	cellFunc    = prefix + "cell"
	currentFile = "/cells/cell.go"
	varsFile    = "/cells/vars.go"
	mainFile    = "/cells/main.go"
)

// fileOf is the name of an earlier cell's file.
func fileOf(cell int) string { return fmt.Sprintf("/cells/cell%d.go", cell) }

// A cell is the source of one, parsed.
type cell struct {
	number int
	split  *source.Split
	text   string
	lines  []int // offsets of the lines
	// With a package clause it is a file of its own, whose variables are initialised in the order
	// that they need; else a list of statements.
	whole bool
	parts []part // what is outside of the statements' function

	edits []edit // of the text
}

// A part is a declaration outside of functions: a range of the text.
type part struct {
	source.Span
	tok  token.Token
	decl ast.Decl
}

// parse finds declarations and statements.
func parse(number int, split *source.Split) (*cell, []source.Problem) {
	c := &cell{number: number, split: split, text: split.Text}
	c.lines = append(c.lines, 0)
	for i := range len(c.text) {
		if c.text[i] == '\n' {
			c.lines = append(c.lines, i+1)
		}
	}
	if split.Package.End > 0 {
		problems := c.parseWhole()
		if len(problems) == 0 {
			c.whole = true
			return c, nil
		}
		// Not a file: statements after a package clause, or simply wrong.
		again := &cell{number: number, split: split, text: c.text, lines: c.lines}
		if len(again.parseParts()) > 0 || len(again.parseStatements()) > 0 {
			return nil, problems
		}
		return again, nil
	}
	if problems := c.parseParts(); len(problems) > 0 {
		return nil, problems
	}
	if problems := c.parseStatements(); len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

const fileHead = "package main\n//line " + currentFile + ":1:1\n"

func (c *cell) parseWhole() []source.Problem {
	set := token.NewFileSet()
	text := fileHead + c.split.WithoutPackage()
	file, err := parser.ParseFile(set, currentFile, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return c.problems(err)
	}
	for _, decl := range file.Decls {
		c.addPart(set, decl, len(fileHead), 0)
	}
	return nil
}

func (c *cell) parseParts() []source.Problem {
	for _, span := range c.split.Outside {
		set := token.NewFileSet()
		line, column := source.Position(c.text, span.Start)
		head := fmt.Sprintf("package main\n//line %s:%d:%d\n", currentFile, line, column)
		file, err := parser.ParseFile(set, currentFile, head+c.text[span.Start:span.End], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return c.problems(err)
		}
		for _, decl := range file.Decls {
			c.addPart(set, decl, len(head), span.Start)
		}
	}
	return nil
}

func (c *cell) parseStatements() []source.Problem {
	head := "package main\nfunc " + cellFunc + "() {\n//line " + currentFile + ":1:1\n"
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, currentFile, head+c.split.Inside()+"\n}", parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return c.problems(err)
	}
	for _, statement := range file.Decls[0].(*ast.FuncDecl).Body.List {
		declared, ok := statement.(*ast.DeclStmt)
		if !ok {
			continue
		}
		if d, ok := declared.Decl.(*ast.GenDecl); ok && (d.Tok == token.TYPE || d.Tok == token.CONST) {
			c.addPart(set, d, len(head), 0)
		}
	}
	sort.Slice(c.parts, func(i, j int) bool { return c.parts[i].Start < c.parts[j].Start })
	return nil
}

// Parses tells whether a cell is Go as far as its syntax goes.
func Parses(number int, split *source.Split) bool {
	_, problems := parse(number, split)
	return len(problems) == 0
}

// SyntaxFile is a file for the compiler to say what is wrong with the syntax of a cell: it knows
// better than the parser where something is missing.
func SyntaxFile(split *source.Split) File {
	if split.Package.End > 0 {
		return File{currentFile, fileHead + split.WithoutPackage()}
	}
	var imports, others strings.Builder
	for _, span := range split.Outside {
		text := split.Text[span.Start:span.End]
		line, column := source.Position(split.Text, span.Start)
		b := &others
		if firstToken(text) == token.IMPORT {
			b = &imports
		}
		fmt.Fprintf(b, "//line %s:%d:%d\n%s\n", currentFile, line, column, text)
	}
	statements := "func " + cellFunc + "() {\n//line " + currentFile + ":1:1\n" + split.Inside() + "\n}\n"
	return File{currentFile, "package main\n" + imports.String() + others.String() + statements}
}

// firstToken is the first of a text that is no comment.
func firstToken(text string) token.Token {
	var s scanner.Scanner
	s.Init(token.NewFileSet().AddFile("", -1, len(text)), []byte(text), nil, 0)
	_, tok, _ := s.Scan()
	return tok
}

// addPart notes a declaration of a file that begins, after its head, with the text at an offset.
// Its comment belongs to it.
func (c *cell) addPart(set *token.FileSet, decl ast.Decl, head, begin int) {
	start, tok := decl.Pos(), token.FUNC
	var doc *ast.CommentGroup
	switch d := decl.(type) {
	case *ast.GenDecl:
		tok, doc = d.Tok, d.Doc
	case *ast.FuncDecl:
		doc = d.Doc
	}
	offset := func(p token.Pos) int { return set.PositionFor(p, false).Offset - head + begin }
	if doc != nil {
		// Our own line directive, right before it, looks like a part of the comment.
		for i := len(doc.List) - 1; i >= 0 && offset(doc.List[i].Pos()) >= begin; i-- {
			start = doc.List[i].Pos()
		}
	}
	c.parts = append(c.parts, part{source.Span{Start: offset(start), End: offset(decl.End())}, tok, decl})
}

// problems gives what the parser found, in terms of the cell.
func (c *cell) problems(err error) []source.Problem {
	list, ok := err.(scanner.ErrorList)
	if !ok {
		return []source.Problem{{Line: 1, Message: err.Error()}}
	}
	var problems []source.Problem
	for _, e := range list {
		// What the parser misses at the end is missing in the last line.
		line := min(max(e.Pos.Line, 1), len(c.lines))
		problems = append(problems, source.Problem{Line: line, Column: e.Pos.Column, Message: e.Msg})
	}
	return problems
}

// offset gives the place in the text of a position of a checked file.
func (c *cell) offset(p token.Position) int {
	if p.Filename != currentFile || p.Line < 1 || p.Line > len(c.lines) {
		return -1
	}
	return min(c.lines[p.Line-1]+max(p.Column, 1)-1, len(c.text))
}

// An edit replaces a range of the text.
type edit struct {
	start, end int
	with       string
	// Of a function literal that gets a name; it may be inside another one.
	literal *literal
}

// edited gives a range of the text with edits, which may be nested: the outermost wins. without
// is not applied itself. Positions behind an edit stay what they were.
func (c *cell) edited(start, end int, without *literal) string {
	var b strings.Builder
	at := start
	for i := range c.edits {
		e := &c.edits[i]
		if e.start < at || e.end > end || e.literal != nil && e.literal == without {
			continue
		}
		b.WriteString(c.text[at:e.start])
		with := e.with
		if e.literal != nil {
			with = e.literal.reference(without)
		}
		b.WriteString(with)
		at = e.end
		if len(with) != e.end-e.start {
			b.WriteString(c.here(at))
		}
	}
	b.WriteString(c.text[at:end])
	return b.String()
}

// here tells the compiler where the text goes on.
func (c *cell) here(offset int) string {
	line, column := c.position(offset)
	return fmt.Sprintf("/*line %c:%d:%d*/", markFile, line, column)
}

// lineAt is the same for a line of its own.
func (c *cell) lineAt(offset int) string {
	line, column := c.position(offset)
	return fmt.Sprintf("//line %c:%d:%d\n", markFile, line, column)
}

// statements gives the text that is inside the cell's function. What is not leaves its lines.
func (c *cell) statements() string {
	gaps := append([]source.Span{c.split.Package}, c.split.Outside...)
	for _, p := range c.parts {
		gaps = append(gaps, p.Span)
	}
	sort.Slice(gaps, func(i, j int) bool { return gaps[i].Start < gaps[j].Start })
	var b strings.Builder
	at := 0
	for _, gap := range gaps {
		if gap.End <= at {
			continue
		}
		b.WriteString(c.edited(at, max(gap.Start, at), nil))
		b.WriteString(strings.Repeat("\n", strings.Count(c.text[max(gap.Start, at):gap.End], "\n")))
		b.WriteString(c.here(gap.End))
		at = gap.End
	}
	b.WriteString(c.edited(at, len(c.text), nil))
	return b.String()
}

func (c *cell) position(offset int) (line, column int) {
	line = sort.Search(len(c.lines), func(i int) bool { return c.lines[i] > offset })
	return line, offset - c.lines[line-1] + 1
}

// sortEdits brings insertions first, then the outermost of nested edits before those in it.
func (c *cell) sortEdits() {
	sort.SliceStable(c.edits, func(i, j int) bool {
		a, b := &c.edits[i], &c.edits[j]
		if a.start != b.start {
			return a.start < b.start
		}
		if (a.end == a.start) != (b.end == b.start) {
			return a.end == a.start
		}
		return a.end > b.end
	})
}

func (c *cell) edit(start, end int, with string) {
	c.edits = append(c.edits, edit{start: start, end: end, with: with})
}
