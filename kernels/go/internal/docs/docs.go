// Package docs finds the documentation and source of the standard library.
package docs

import (
	"bytes"
	"go/ast"
	"go/build/constraint"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"strings"
)

// Longest source that is shown.
const sourceBytesMax = 64 << 10

// Find gives documentation and source of a name of a package: Func, Type or Type.Method; "" for the
// package itself.
func Find(goroot, path, name string) (text, source string) {
	dir := filepath.Join(goroot, "src", filepath.FromSlash(path))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", ""
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, entry := range entries {
		if !isSource(entry.Name()) {
			continue
		}
		tree, err := parser.ParseFile(set, filepath.Join(dir, entry.Name()), nil, parser.ParseComments)
		if err == nil && isForLinux(tree) {
			files = append(files, tree)
		}
	}
	if len(files) == 0 {
		return "", ""
	}
	mode := doc.PreserveAST
	if path == "builtin" {
		mode |= doc.AllDecls
	}
	pkg, err := doc.NewFromFiles(set, files, path, mode)
	if err != nil {
		return "", ""
	}
	if name == "" {
		return pkg.Synopsis(pkg.Doc), ""
	}
	text, node := find(pkg, name)
	if node == nil {
		return text, ""
	}
	var b bytes.Buffer
	if printer.Fprint(&b, set, node) != nil || b.Len() > sourceBytesMax {
		return text, ""
	}
	return text, b.String()
}

func isSource(name string) bool {
	if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
		return false
	}
	for _, other := range [...]string{"_windows", "_darwin", "_plan9", "_js", "_wasip1", "_wasm", "_aix", "_solaris", "_freebsd", "_netbsd", "_openbsd", "_arm64", "_386", "_arm"} {
		if strings.Contains(name, other+".") || strings.Contains(name, other+"_") {
			return false
		}
	}
	return true
}

func isForLinux(tree *ast.File) bool {
	for _, group := range tree.Comments {
		if group.Pos() > tree.Package {
			break
		}
		for _, comment := range group.List {
			if expr, err := constraint.Parse(comment.Text); err == nil {
				return expr.Eval(func(tag string) bool {
					return tag == "linux" || tag == "amd64" || tag == "unix" || tag == "gc" || strings.HasPrefix(tag, "go1.")
				})
			}
		}
	}
	return true
}

func find(pkg *doc.Package, name string) (string, ast.Node) {
	base, method, isMethod := strings.Cut(name, ".")
	for _, f := range pkg.Funcs {
		if f.Name == name {
			return f.Doc, f.Decl
		}
	}
	for _, t := range pkg.Types {
		if t.Name == base && isMethod {
			for _, m := range t.Methods {
				if m.Name == method {
					return m.Doc, m.Decl
				}
			}
		}
		if t.Name == name {
			return t.Doc, t.Decl
		}
		for _, f := range t.Funcs {
			if f.Name == name {
				return f.Doc, f.Decl
			}
		}
		if text, node := findValue(append(t.Consts, t.Vars...), name); node != nil {
			return text, node
		}
	}
	return findValue(append(pkg.Consts, pkg.Vars...), name)
}

func findValue(values []*doc.Value, name string) (string, ast.Node) {
	for _, v := range values {
		for _, n := range v.Names {
			if n == name {
				return v.Doc, v.Decl
			}
		}
	}
	return "", nil
}
