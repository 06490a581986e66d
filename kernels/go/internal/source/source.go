// Package source takes the text of a cell apart, before anything is parsed: which lines are
// commands, where declarations of functions and imports are that Go allows only outside of
// functions, and what could never be parsed. It knows tokens, no syntax.
package source

import (
	"fmt"
	"go/scanner"
	"go/token"
	"strings"
	"unicode/utf8"
)

const (
	// Nesting of brackets; the parser and the type checker call themselves once for each level.
	nestingMax = 2_000
	// Operators in a row within one pair of brackets, for the same reason.
	operatorsMax = 10_000
	// Problems of one cell that are listed.
	problemsMax = 50
	// Lines of one cell that are commands.
	commandsMax = 100
	// Reserved is how names begin that the kernel makes up.
	Reserved = "crownest_"
)

// A Problem is why a cell cannot be compiled. Cell is the number of an earlier cell, 0 for this.
type Problem struct {
	Cell, Line, Column int
	Message            string
}

func (p Problem) String() string {
	where := "line"
	if p.Cell != 0 {
		where = fmt.Sprintf("cell %d, line", p.Cell)
	}
	if p.Column == 0 {
		return fmt.Sprintf("%s %d: %s", where, p.Line, p.Message)
	}
	return fmt.Sprintf("%s %d:%d: %s", where, p.Line, p.Column, p.Message)
}

// A Command is a line that begins with a percent sign.
type Command struct {
	Line int
	Text string // without the sign
}

// A Span is a range of bytes.
type Span struct{ Start, End int }

// A Split is a cell taken apart. The spans are in order and do not overlap.
type Split struct {
	Text     string // what the cell says, without commands and line directives
	Package  Span   // the package clause; empty without one
	Outside  []Span // imports and declarations of functions and methods, with their comments
	Commands []Command
	Quiet    bool // the last statement ends with a semicolon that somebody wrote
}

// Inside gives the text with everything blank that must be outside of functions.
func (s *Split) Inside() string {
	return blank(s.Text, append([]Span{s.Package}, s.Outside...))
}

// WithoutPackage gives the text with the package clause blank.
func (s *Split) WithoutPackage() string { return blank(s.Text, []Span{s.Package}) }

// blank overwrites spans with spaces, but keeps the lines.
func blank(text string, spans []Span) string {
	b := []byte(text)
	for _, span := range spans {
		for i := span.Start; i < span.End; i++ {
			if b[i] != '\n' {
				b[i] = ' '
			}
		}
	}
	return string(b)
}

// splitter reads tokens.
type splitter struct {
	text     []byte
	base     int // of the scanner's text
	scanner  scanner.Scanner
	file     *token.File
	split    Split
	problems []Problem

	nesting   []opened
	operators []int // in a row, by nesting
	start     int   // of the statement, with its comments
	first     []item
	last      token.Token
}

type opened struct {
	token token.Token
	at    int
}

type item struct {
	token token.Token
	at    int
}

// Tokens from the beginning of a statement that tell what it is.
const firstItemsMax = 4096

// Take takes a cell apart.
func Take(text string) (*Split, []Problem) {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	s := &splitter{text: []byte(text), operators: []int{0}}
	s.from(0)
	for len(s.problems) < problemsMax {
		position, tok, literal := s.scanner.Scan()
		if tok == token.EOF {
			break
		}
		s.token(s.base+s.file.Offset(position), tok, literal)
	}
	if len(s.first) > 0 {
		s.end(len(s.text))
	}
	for i := len(s.nesting) - 1; i >= 0 && len(s.problems) == 0; i-- {
		s.problem(s.nesting[i].at, fmt.Sprintf("'%s' is never closed", s.nesting[i].token))
	}
	s.split.Text = string(s.text)
	return &s.split, s.problems
}

// from begins to scan at an offset.
func (s *splitter) from(offset int) {
	s.base = offset
	set := token.NewFileSet()
	s.file = set.AddFile("", -1, len(s.text)-offset)
	s.scanner.Init(s.file, s.text[offset:], func(position token.Position, message string) {
		s.problem(offset+position.Offset, message)
	}, scanner.ScanComments)
}

// Position gives line and column, both from 1, of an offset.
func Position(text string, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	return strings.Count(before, "\n") + 1, len(before) - strings.LastIndexByte(before, '\n')
}

func (s *splitter) problem(offset int, message string) {
	line, column := Position(string(s.text), offset)
	s.problems = append(s.problems, Problem{Line: line, Column: column, Message: message})
}

func (s *splitter) token(at int, tok token.Token, literal string) {
	switch tok {
	case token.COMMENT:
		s.comment(at, literal)
		return
	case token.IDENT:
		if strings.HasPrefix(literal, Reserved) {
			s.problem(at, "names that begin with "+Reserved+" are the kernel's own")
		}
	case token.REM:
		if len(s.first) == 0 && len(s.nesting) == 0 {
			s.command(at)
			return
		}
	case token.SEMICOLON:
		if len(s.nesting) == 0 {
			s.split.Quiet = literal == ";"
			s.end(at)
			return
		}
	}
	if len(s.first) < firstItemsMax {
		s.first = append(s.first, item{tok, at})
	}
	s.nest(at, tok)
	s.count(at, tok)
}

// comment takes directives for the compiler's positions away: they are the kernel's.
func (s *splitter) comment(at int, literal string) {
	if len(literal) > 6 && literal[2:6] == "line" && (literal[1] == '/' || literal[1] == '*') {
		s.text[at+2] = 'L'
	}
	if strings.HasPrefix(literal, "//go:embed") {
		s.problem(at, "go:embed has no directory to look in: read the file with os.ReadFile")
	}
	if strings.HasPrefix(literal, "//go:cgo_") {
		s.problem(at, "cgo is not available")
	}
}

// command takes the rest of the line.
func (s *splitter) command(at int) {
	end := len(s.text)
	for i := at; i < len(s.text); i++ {
		if s.text[i] == '\n' {
			end = i
			break
		}
	}
	if len(s.split.Commands) == commandsMax {
		s.problem(at, fmt.Sprintf("a cell has at most %d commands", commandsMax))
		s.problems = s.problems[:1]
		s.from(len(s.text))
		return
	}
	line, _ := Position(string(s.text), at)
	s.split.Commands = append(s.split.Commands, Command{Line: line, Text: strings.TrimSpace(string(s.text[at+1 : end]))})
	for i := at; i < end; i++ {
		s.text[i] = ' '
	}
	// The scanner may have complained about the rest of the line already only if it went on.
	s.start = end
	s.from(end)
}

// nest follows brackets.
func (s *splitter) nest(at int, tok token.Token) {
	switch tok {
	case token.LPAREN, token.LBRACK, token.LBRACE:
		s.nesting = append(s.nesting, opened{tok, at})
		s.operators = append(s.operators, 0)
		if len(s.nesting) == nestingMax {
			s.problem(at, fmt.Sprintf("brackets are nested more than %d deep", nestingMax))
		}
	case token.RPAREN, token.RBRACK, token.RBRACE:
		if len(s.nesting) == 0 || closing[s.nesting[len(s.nesting)-1].token] != tok {
			s.problem(at, fmt.Sprintf("unexpected '%s'", tok))
			return
		}
		s.nesting = s.nesting[:len(s.nesting)-1]
		s.operators = s.operators[:len(s.operators)-1]
	}
}

var closing = map[token.Token]token.Token{
	token.LPAREN: token.RPAREN, token.LBRACK: token.RBRACK, token.LBRACE: token.RBRACE,
}

// count counts operators in a row.
func (s *splitter) count(at int, tok token.Token) {
	top := &s.operators[len(s.operators)-1]
	switch {
	case tok == token.COMMA || tok == token.SEMICOLON || tok == token.COLON:
		*top = 0
	case tok.IsOperator() && (tok.Precedence() > token.LowestPrec || tok == token.PERIOD || tok == token.NOT || tok == token.ARROW):
		*top++
		if *top == operatorsMax {
			s.problem(at, fmt.Sprintf("an expression has more than %d operators", operatorsMax))
		}
	}
}

// end ends a statement at its semicolon.
func (s *splitter) end(at int) {
	span := Span{s.start, min(at+1, len(s.text))}
	if len(s.first) == 0 {
		s.start = span.End
		return
	}
	switch s.first[0].token {
	case token.PACKAGE:
		if s.split.Package.End == 0 && len(s.split.Outside) == 0 {
			s.split.Package = Span{s.first[0].at, span.End}
		}
	case token.IMPORT:
		s.split.Outside = append(s.split.Outside, span)
	case token.FUNC:
		if declares(s.first) {
			s.split.Outside = append(s.split.Outside, span)
		}
	}
	s.start = span.End
	s.first = s.first[:0]
	s.operators[len(s.operators)-1] = 0
}

// declares tells a declaration from a function literal: func name, or func (receiver) name(.
func declares(items []item) bool {
	if len(items) > 1 && items[1].token == token.IDENT {
		return true
	}
	depth := 0
	for i, it := range items[1:] {
		switch it.token {
		case token.LPAREN, token.LBRACK, token.LBRACE:
			depth++
		case token.RPAREN, token.RBRACK, token.RBRACE:
			depth--
			if depth == 0 {
				rest := items[1:][i+1:]
				return len(rest) > 1 && rest[0].token == token.IDENT && (rest[1].token == token.LPAREN || rest[1].token == token.LBRACK)
			}
		}
	}
	return false
}
