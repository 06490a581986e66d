package program

import (
	"strconv"
	"strings"
)

// Marked text is source in which every name of a package, and every predeclared type that was
// written by the kernel, is spelled out: what a name means depends on the cell that it was in.
//
//	\x00 path \x01 name \x02        the package, which its cell calls name
//	\x00 \x01 name \x02             a predeclared type
//
//	\x03                           the file that the text is in
//
// None of these characters can be in Go source.
const (
	markOpen  = '\x00'
	markName  = '\x01'
	markClose = '\x02'
	markFile  = '\x03'
)

func markPackage(path, name string) string {
	return string(markOpen) + path + string(markName) + name + string(markClose)
}

func markBasic(name string) string { return markPackage("", name) }

// A names renders marked text for one file and remembers what it has to import.
type names struct {
	file    string
	taken   func(name string) bool // by a declaration of package main
	imports map[string]string      // path by name, in this file
	byPath  map[string]string      // name by path
	counter int
}

func newNames(file string, taken func(string) bool) *names {
	return &names{file: file, taken: taken, imports: map[string]string{}, byPath: map[string]string{}}
}

// nameOf is the name under which the file has a package; preferred if it is free.
func (n *names) nameOf(path, preferred string) string {
	if n.imports[preferred] == path {
		return preferred
	}
	if name, ok := n.byPath[path]; ok {
		return name
	}
	name := preferred
	for name == "" || n.taken(name) || n.imports[name] != "" {
		n.counter++
		name = prefix + "p" + strconv.Itoa(n.counter)
	}
	n.imports[name] = path
	n.byPath[path] = name
	return name
}

// render gives plain source.
func (n *names) render(marked string) string {
	marked = strings.ReplaceAll(marked, string(markFile), n.file)
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(marked, string(markOpen))
		b.WriteString(before)
		if !found {
			return b.String()
		}
		path, rest, _ := strings.Cut(rest, string(markName))
		name, rest, _ := strings.Cut(rest, string(markClose))
		marked = rest
		switch {
		case path != "":
			b.WriteString(n.nameOf(path, name))
		case n.taken(name):
			b.WriteString(n.nameOf(basicPackage, prefix+"basic"))
			b.WriteByte('.')
			b.WriteString(strings.ToUpper(name[:1]) + name[1:])
		default:
			b.WriteString(name)
		}
	}
}

// mentions lists the packages of marked text.
func mentions(marked string, visit func(path, name string)) {
	for {
		_, rest, found := strings.Cut(marked, string(markOpen))
		if !found {
			return
		}
		path, rest, _ := strings.Cut(rest, string(markName))
		name, rest, _ := strings.Cut(rest, string(markClose))
		marked = rest
		if path != "" {
			visit(path, name)
		}
	}
}

const (
	prefix       = "crownest_"
	basicPackage = "crownest/cell/basic"
)
