package session

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"crownest/internal/program"
	"crownest/internal/source"
)

const (
	// Lines of a traceback.
	tracebackFramesMax = 50
	// Equal lines in a row.
	repeatedFramesMax = 3
	// Characters of a quoted line.
	quoteCharactersMax = 200
)

// A frame is a place in a cell.
type frame struct {
	function string
	cell     int // 0: the cell that runs
	line     int
}

// A goroutine is one in the text that the runtime writes.
type goroutine struct {
	frames []frame // those in cells, the innermost first
	main   bool    // it runs the cell's statements
}

// goroutines reads the text of stacks: a line with the function, then one with the place.
func goroutines(text string) []goroutine {
	var list []goroutine
	function := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "goroutine "):
			list = append(list, goroutine{})
		case strings.HasPrefix(line, "\t"):
			f, ok := parsePlace(strings.TrimSpace(line))
			if ok && function != "" && len(list) > 0 {
				f.function = function
				last := &list[len(list)-1]
				last.frames = append(last.frames, f)
				last.main = last.main || function == cellFunction
			}
			function = ""
		case strings.HasPrefix(line, "created by "):
			function = ""
		default:
			function = line
			if at := strings.LastIndexByte(line, '('); at > 0 {
				function = line[:at]
			}
		}
	}
	return list
}

const cellFunction = "main." + source.Reserved + "cell"

// parsePlace reads /cells/cell3.go:4 +0x1d.
func parsePlace(text string) (frame, bool) {
	text, _, _ = strings.Cut(text, " ")
	file, number, ok := cutLast(text, ':')
	if !ok {
		return frame{}, false
	}
	line, err := strconv.Atoi(number)
	cell, inCell := program.CellOf(file)
	return frame{cell: cell, line: line}, err == nil && inCell
}

func cutLast(text string, separator byte) (before, after string, found bool) {
	at := strings.LastIndexByte(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+1:], true
}

// mainGoroutine is the one that runs the cell; nil if it is not among them.
func mainGoroutine(list []goroutine) *goroutine {
	for i := range list {
		if list[i].main {
			return &list[i]
		}
	}
	return nil
}

// lineOfCell is the line of the cell's own statement that was running; 0 if nobody knows.
func lineOfCell(stack string) int {
	g := mainGoroutine(goroutines(stack))
	if g == nil {
		return 0
	}
	for _, f := range g.frames {
		if f.function == cellFunction {
			return f.line
		}
	}
	return 0
}

// innermostLine is the line of the running cell where something went wrong.
func innermostLine(stack string) int {
	for _, g := range goroutines(stack) {
		for _, f := range g.frames {
			if f.cell == 0 {
				return f.line
			}
		}
	}
	return 0
}

// traceback shows where in cells a goroutine was: the first of the text, or the main one.
func (s *Session) traceback(stack string, main bool) []string {
	list := goroutines(stack)
	if len(list) == 0 {
		return nil
	}
	g := &list[0]
	if main {
		if g = mainGoroutine(list); g == nil {
			return nil
		}
	}
	var lines []string
	repeated := 0
	for i, f := range g.frames {
		if len(lines) >= 2*tracebackFramesMax {
			lines = append(lines, fmt.Sprintf("  … %d more", len(g.frames)-i))
			break
		}
		if i > 0 && f == g.frames[i-1] {
			repeated++
			if repeated >= repeatedFramesMax {
				if i+1 == len(g.frames) || f != g.frames[i+1] {
					lines = append(lines, fmt.Sprintf("  … the same %d more times", repeated-repeatedFramesMax+1))
				}
				continue
			}
		} else {
			repeated = 0
		}
		number := f.cell
		if number == 0 {
			number = s.count
		}
		lines = append(lines, fmt.Sprintf("  cell %d, line %d, in %s", number, f.line, plainFunction(f.function)))
		if quote := s.quote(number, f.line); quote != "" {
			lines = append(lines, "    "+quote)
		}
	}
	return lines
}

// quote gives a line of a cell.
func (s *Session) quote(cell, line int) string {
	lines := strings.Split(s.cells[cell], "\n")
	if line < 1 || line > len(lines) {
		return ""
	}
	text := []rune(strings.TrimSpace(lines[line-1]))
	if len(text) > quoteCharactersMax {
		text = append(text[:quoteCharactersMax], '…')
	}
	return string(text)
}

var (
	literalName = regexp.MustCompile(`^\(?\*?` + source.Reserved + `(lit_\d+_\d+\)?(\.call)?|cell)(\.func\d+(\.\d+)*)*$`)
	startName   = regexp.MustCompile(`^` + source.Reserved + `(main|init)\d*`)
)

// plainFunction names a function as the cell does.
func plainFunction(name string) string {
	name = strings.TrimPrefix(name, "main.")
	if name == source.Reserved+"cell" {
		return "the cell"
	}
	if literalName.MatchString(name) {
		return "a function literal"
	}
	return startName.ReplaceAllString(name, "$1")
}

// crashReason reads the first line that says why the runtime gave up.
func crashReason(text string) (name, message string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, kind := range [...]string{"fatal error", "panic"} {
			if rest, ok := strings.CutPrefix(line, kind+": "); ok {
				return kind, rest
			}
		}
	}
	if strings.Contains(text, "goroutine stack exceeds") {
		return "fatal error", "stack overflow"
	}
	first, _, _ := strings.Cut(text, "\n")
	return "fatal error", first
}

var compilerLine = regexp.MustCompile(`^(/cells/[a-z0-9]+\.go):(\d+)(?::(\d+))?: (.*)$`)

// compilerProblems reads what the compiler or the linker says. Most is found before, by the type
// checker.
func compilerProblems(messages string) []source.Problem {
	var problems []source.Problem
	for line := range strings.Lines(strings.TrimSpace(messages)) {
		line = strings.TrimRight(line, "\n")
		m := compilerLine.FindStringSubmatch(line)
		if m == nil {
			if len(problems) > 0 && strings.HasPrefix(line, "\t") {
				problems[len(problems)-1].Message += "\n" + line
			} else {
				problems = append(problems, source.Problem{Line: 1, Message: line})
			}
			continue
		}
		number, _ := program.CellOf(m[1])
		at, _ := strconv.Atoi(m[2])
		column, _ := strconv.Atoi(m[3])
		problems = append(problems, source.Problem{Cell: number, Line: at, Column: column, Message: m[4]})
	}
	return problems
}
