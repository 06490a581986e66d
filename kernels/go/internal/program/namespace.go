// Package program turns a cell and what earlier cells left into a Go program.
//
// A cell is statements and declarations in any order. Variables of its top level become package
// variables, so that functions see them and their values can be saved; statements become the body
// of one function; the rest stays what it is. Only what the cell needs is in the program, so a
// cell costs the same after a hundred others.
//
// The package owns names and types. It runs nothing and knows no files: it gets packages through
// an importer and gives back source.
package program

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Kind is the kind of a declaration.
type Kind int

// What a unit declares.
const (
	Func Kind = iota
	Method
	Type
	Const
	Literal // of a function: a name for what had none, so that a value can refer to it
)

// A Unit is a declaration that later cells see.
type Unit struct {
	Cell  int
	Kind  Kind
	Names []Name
	Text  string // marked
	Line  int    // of the text, in the cell
	// As it was written, with its comment.
	Source, Doc string
	// Packages whose names its cell uses without their own.
	Dots []string
}

// A Name is one that a unit declares, and where it is in the text. A method is T.M.
type Name struct {
	Name  string
	Start int
	Size  int
}

// A Var is a variable of the top level of a cell.
type Var struct {
	Name string
	Type string // marked
	Cell int
	Line int
	// ID tells it from others of its name, before and after: its value is not theirs.
	ID int
	// Shown is its type as people write it.
	Shown string
}

// Key is what the variable is called where its value is saved.
func (v *Var) Key() string { return v.Name + "#" + strconv.Itoa(v.ID) }

// NameOf takes the name out of a key.
func NameOf(key string) string {
	name, _, _ := strings.Cut(key, "#")
	return name
}

// A Namespace is what names mean after a number of cells.
type Namespace struct {
	Units   []*Unit
	Vars    []*Var
	Imports map[string]string // path by name
	Dots    []string          // imported without a name
	Blanks  []string          // imported for what they do
}

// NewNamespace is what a context begins with.
func NewNamespace() *Namespace {
	return &Namespace{Imports: map[string]string{}, Units: helperUnits()}
}

func (ns *Namespace) clone() *Namespace {
	return &Namespace{
		Units: slices.Clone(ns.Units), Vars: slices.Clone(ns.Vars), Imports: maps.Clone(ns.Imports),
		Dots: slices.Clone(ns.Dots), Blanks: slices.Clone(ns.Blanks),
	}
}

// Var finds a variable.
func (ns *Namespace) Var(name string) *Var {
	for _, v := range ns.Vars {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// HasKey tells whether a saved variable is still there.
func (ns *Namespace) HasKey(key string) bool {
	v := ns.Var(NameOf(key))
	return v != nil && v.Key() == key
}

// Unit finds what declares a name.
func (ns *Namespace) Unit(name string) *Unit {
	for _, u := range ns.Units {
		for _, n := range u.Names {
			if n.Name == name {
				return u
			}
		}
	}
	return nil
}

// has tells whether a name is declared in package main.
func (ns *Namespace) has(name string) bool {
	return ns.Var(name) != nil || ns.Unit(name) != nil
}

// forget takes a name away from whoever had it: later declarations win.
func (ns *Namespace) forget(name string) {
	ns.Vars = slices.DeleteFunc(ns.Vars, func(v *Var) bool { return v.Name == name })
	for i, u := range ns.Units {
		at := slices.IndexFunc(u.Names, func(n Name) bool { return n.Name == name })
		if at < 0 {
			continue
		}
		if left := u.without(at); left != nil {
			ns.Units[i] = left
		} else {
			ns.Units = slices.Delete(ns.Units, i, i+1)
		}
		return
	}
}

// dropMethods takes the methods away of what is no type any more.
func (ns *Namespace) dropMethods(c *cell) {
	ns.Units = slices.DeleteFunc(ns.Units, func(u *Unit) bool {
		if u.Kind != Method {
			return false
		}
		receiver, _, _ := strings.Cut(u.Names[0].Name, ".")
		owner := ns.Unit(receiver)
		return !c.declares(receiver) && (owner == nil || owner.Kind != Type)
	})
}

// without gives the unit without one of its names; nil if it has no other. The constants after
// one in a group depend on its place, so it stays there as a blank.
func (u *Unit) without(at int) *Unit {
	if len(u.Names) == 1 {
		return nil
	}
	left := *u
	n := u.Names[at]
	left.Text = u.Text[:n.Start] + "_" + strings.Repeat(" ", n.Size-1) + u.Text[n.Start+n.Size:]
	left.Names = slices.Delete(slices.Clone(u.Names), at, at+1)
	return &left
}

// Restore makes a variable what it was in an earlier namespace; gone if it was not.
func (ns *Namespace) Restore(name string, earlier *Namespace) {
	if v := earlier.Var(name); v != nil {
		ns.declare(v)
	} else {
		ns.forget(name)
	}
}

// Collect drops function literals that no saved value and no declaration refers to. used lists
// the functions that values refer to.
func (ns *Namespace) Collect(used map[string]bool) {
	ns.Units = slices.DeleteFunc(ns.Units, func(u *Unit) bool {
		if u.Kind != Literal {
			return false
		}
		name := u.Names[0].Name
		if used["main."+name] || used["main.(*"+name+")."+literalMethod+"-fm"] {
			return false
		}
		return !slices.ContainsFunc(ns.Units, func(other *Unit) bool {
			return other != u && strings.Contains(other.Text, name)
		})
	})
}
