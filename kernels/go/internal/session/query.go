package session

import (
	"slices"
	"strings"
	"unicode/utf8"

	"crownest/internal/docs"
	"crownest/internal/program"
	"crownest/internal/protocol"
)

const (
	// Matches in one answer, as the protocol wants it.
	matchesMax = 200
	// Variables in one answer, whatever is asked for.
	variablesMax = 10_000
)

// query answers a question about the context.
func (r *run) query() {
	var answer any
	switch r.op.Query {
	case "complete":
		answer = r.complete()
	case "inspect":
		answer = r.inspect()
	case "variables":
		answer = r.variables()
	default:
		r.status = "error"
		return
	}
	r.session.conn.Send(protocol.Answer{Ev: "answer", Run: r.id, Answer: answer})
}

// offset is the place in bytes of a cursor in code points.
func offset(code string, cursor int) int {
	at := 0
	for range max(cursor, 0) {
		if at >= len(code) {
			break
		}
		_, size := utf8.DecodeRuneInString(code[at:])
		at += size
	}
	return at
}

type completion struct {
	Matches []program.Match `json:"matches"`
	Omitted int             `json:"omitted,omitempty"`
	Start   int             `json:"start"`
	End     int             `json:"end"`
}

func (r *run) complete() completion {
	code := r.op.Code
	matches, start, end := r.session.builder.Complete(r.session.names, code, offset(code, r.op.Cursor))
	c := completion{Matches: matches, Start: utf8.RuneCountInString(code[:start]), End: utf8.RuneCountInString(code[:end])}
	if n := len(matches); n > matchesMax {
		c.Matches, c.Omitted = matches[:matchesMax], n-matchesMax
	}
	if c.Matches == nil {
		c.Matches = []program.Match{}
	}
	return c
}

type inspection struct {
	Found bool              `json:"found"`
	Data  map[string]string `json:"data"`
}

func (r *run) inspect() inspection {
	s := r.session
	found := s.builder.Inspect(s.names, r.op.Code, offset(r.op.Code, r.op.Cursor))
	if found == nil {
		return inspection{Data: map[string]string{}}
	}
	if found.Package != "" {
		found.Doc, found.Source = docs.Find(s.tools.Goroot, found.Package, found.Name)
	}
	text := found.Signature
	if found.Doc != "" {
		text += "\n\n" + strings.TrimSpace(found.Doc)
	}
	if r.op.Detail > 0 && found.Source != "" {
		text += "\n\n" + found.Source
	}
	return inspection{true, map[string]string{"text/plain": text}}
}

type described struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Kind    string `json:"kind"`
	Shape   []int  `json:"shape,omitempty"`
	Size    *int   `json:"size,omitempty"`
	Preview string `json:"preview"`

	cell, line int
}

type listing struct {
	Variables []described `json:"variables"`
	Omitted   int         `json:"omitted,omitempty"`
}

// variables lists variables and functions in the order in which they were defined.
func (r *run) variables() listing {
	s := r.session
	list := []described{}
	for _, v := range s.names.Vars {
		d := described{Name: v.Name, Type: v.Shown, Kind: "variable", cell: v.Cell, line: v.Line}
		if strings.HasPrefix(v.Shown, "func(") {
			d.Kind = "function"
		}
		if saved, ok := s.state.Variable(v.Key()); ok {
			d.Preview, d.Size, d.Shape = saved.Preview, saved.Size, saved.Shape
		}
		list = append(list, d)
	}
	for _, u := range s.names.Units {
		if u.Kind == program.Func && u.Cell > 0 {
			signature, _, _ := strings.Cut(u.Source[max(0, strings.Index(u.Source, "\nfunc ")+1):], "{")
			list = append(list, described{
				Name: u.Names[0].Name, Type: "func", Kind: "function", Preview: shortened(signature), cell: u.Cell, line: u.Line,
			})
		}
	}
	slices.SortStableFunc(list, func(a, b described) int {
		if a.cell != b.cell {
			return a.cell - b.cell
		}
		return a.line - b.line
	})
	limit := min(max(r.op.Limit, 0), variablesMax)
	l := listing{Variables: list}
	if len(list) > limit {
		l.Variables, l.Omitted = list[:limit], len(list)-limit
	}
	return l
}

// shortened makes a preview of a text.
func shortened(text string) string {
	const previewCharactersMax = 200
	text = strings.TrimSpace(text)
	if utf8.RuneCountInString(text) > previewCharactersMax {
		return string([]rune(text)[:previewCharactersMax-1]) + "…"
	}
	return text
}
