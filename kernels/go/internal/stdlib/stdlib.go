// Package stdlib compiles what cells link: the standard library with the hooks of _hooks/ in it,
// and the kernel's own packages. It is done once for each toolchain, when a template is built.
//
// Five places of the standard library are changed, by an overlay that is made of the toolchain's
// own source: a panic that nobody recovers, a fatal error, a deadlock and a read of standard input
// call the kernel first. If a place is not there as expected, the preparation fails.
package stdlib

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A change inserts lines into a file of the standard library.
type change struct {
	file    string
	inserts []insert
	hooks   string // file that is laid beside it
}

// An insert goes before or after a place that must be there exactly once.
type insert struct {
	anchor string
	before bool
	text   string
}

var changes = []change{
	{
		file: "runtime/panic.go",
		inserts: []insert{
			{anchor: "func preprintpanics(p *_panic) {\n", text: "\tif crownestPanic != nil {\n\t\tcrownestPanic(p.arg)\n\t}\n"},
			{anchor: "func throw(s string) {\n", text: "\tcrownestFatal(s)\n"},
			{anchor: "func fatal(s string) {\n", text: "\tcrownestFatal(s)\n"},
		},
		hooks: "runtime.go",
	},
	{
		file: "runtime/proc.go",
		inserts: []insert{{
			anchor: "\tunlock(&sched.lock) // unlock so that GODEBUG=scheddetail=1 doesn't hang\n\tfatal(\"all goroutines are asleep - deadlock!\")\n",
			before: true,
			text:   "\tif crownestDeadlock() {\n\t\treturn\n\t}\n",
		}},
	},
	{
		file: "os/file.go",
		inserts: []insert{{
			anchor: "func (f *File) Read(b []byte) (n int, err error) {\n",
			text:   "\tcrownestBeforeRead(f)\n",
		}},
		hooks: "os.go",
	},
}

// Packages of the kernel, each after those that it imports.
var cellPackages = []string{
	"crownest/cell", "crownest/cell/basic", "crownest/cell/keep/names", "crownest/cell/plain",
	"crownest/cell/keep", "crownest/cell/show", "crownest/cell/structured", "crownest/cell/picture",
}

// Flags with which everything that cells link is compiled: no debugging information, which the
// linker would read for nothing.
var Flags = []string{"-trimpath", "-gcflags=all=-dwarf=false"}

// Prepare compiles for a toolchain. source is the directory of the kernel, out what comes of it:
//
//	version      of the toolchain
//	importcfg    where the packages are, relative to out
//	overlay.json what is changed, for packages that are compiled later: file below src, and the
//	             one in overlay/ that takes its place
//	cache/       of the go command, with the standard library
//	pkg/         the kernel's own packages
func Prepare(goroot, source, out string) error {
	for _, path := range []*string{&goroot, &source, &out} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	for _, dir := range []string{"overlay", "cache", "pkg"} {
		if err := os.MkdirAll(filepath.Join(out, dir), 0o755); err != nil {
			return err
		}
	}
	version, err := Version(goroot)
	if err != nil {
		return err
	}
	if err := writeOverlay(goroot, source, out); err != nil {
		return err
	}
	list, err := compileStd(goroot, out)
	if err != nil {
		return err
	}
	config := filepath.Join(out, "importcfg")
	if err := os.WriteFile(config, []byte(strings.Join(list, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	for _, path := range cellPackages {
		line, err := compileOwn(goroot, source, out, path)
		if err != nil {
			return err
		}
		list = append(list, line)
		if err := os.WriteFile(config, []byte(strings.Join(list, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(out, "version"), []byte(version+"\n"), 0o644)
}

// Version reads which version a toolchain is.
func Version(goroot string) (string, error) {
	text, err := os.ReadFile(filepath.Join(goroot, "VERSION"))
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return first, nil
}

func writeOverlay(goroot, source, out string) error {
	laidOver := map[string]string{}
	for _, c := range changes {
		path := filepath.Join(goroot, "src", filepath.FromSlash(c.file))
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		with := string(text)
		for _, in := range c.inserts {
			if n := strings.Count(with, in.anchor); n != 1 {
				return fmt.Errorf("%s has the place for a hook %d times: %q", path, n, in.anchor)
			}
			lines := in.anchor + in.text
			if in.before {
				lines = in.text + in.anchor
			}
			with = strings.Replace(with, in.anchor, lines, 1)
		}
		changed := filepath.Join(out, "overlay", strings.ReplaceAll(c.file, "/", "_"))
		if err := os.WriteFile(changed, []byte(with), 0o644); err != nil {
			return err
		}
		laidOver[c.file] = filepath.Base(changed)
		if c.hooks == "" {
			continue
		}
		hooks, err := os.ReadFile(filepath.Join(source, "_hooks", c.hooks))
		if err != nil {
			return err
		}
		laid := filepath.Join(out, "overlay", "crownest_"+c.hooks)
		if err := os.WriteFile(laid, hooks, 0o644); err != nil {
			return err
		}
		laidOver[filepath.Dir(c.file)+"/crownest.go"] = filepath.Base(laid)
	}
	text, err := json.MarshalIndent(laidOver, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "overlay.json"), text, 0o644); err != nil {
		return err
	}
	return WriteOverlay(goroot, out, filepath.Join(out, overlayHere))
}

// The overlay as the go command reads it while everything is prepared.
const overlayHere = "overlay/here.json"

// WriteOverlay writes the overlay for the go command, which wants to know where everything is.
func WriteOverlay(goroot, out, name string) error {
	text, err := os.ReadFile(filepath.Join(out, "overlay.json"))
	if err != nil {
		return err
	}
	laidOver, replace := map[string]string{}, map[string]string{}
	if err := json.Unmarshal(text, &laidOver); err != nil {
		return err
	}
	for file, with := range laidOver {
		replace[filepath.Join(goroot, "src", filepath.FromSlash(file))] = filepath.Join(out, "overlay", with)
	}
	text, err = json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// compileStd compiles the standard library and says where its packages are.
func compileStd(goroot, out string) ([]string, error) {
	arguments := slices.Concat([]string{"list"}, Flags, []string{
		"-overlay", filepath.Join(out, overlayHere), "-export",
		"-f", "{{if .Export}}packagefile {{.ImportPath}}={{.Export}}{{end}}", "std",
	})
	command := exec.Command(filepath.Join(goroot, "bin", "go"), arguments...)
	command.Env = append(os.Environ(), Environment(goroot, filepath.Join(out, "cache"))...)
	command.Dir = out
	command.Stderr = os.Stderr
	text, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("compiling the standard library: %w", err)
	}
	text = bytes.ReplaceAll(bytes.TrimSpace(text), []byte("="+out+"/"), []byte("="))
	return strings.Split(string(text), "\n"), nil
}

// Environment is what the go command of a toolchain is told.
func Environment(goroot, cache string) []string {
	return []string{
		"GOROOT=" + goroot, "GOTOOLCHAIN=local", "GOCACHE=" + cache, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off",
		"GOENV=off", "GOEXPERIMENT=", "GOOS=", "GOARCH=",
	}
}

// Tool is the path of one of the toolchain's own programs.
func Tool(goroot, name string) string {
	return filepath.Join(goroot, "pkg", "tool", "linux_"+runtime.GOARCH, name)
}

// compileOwn compiles one of the kernel's packages.
func compileOwn(goroot, source, out, path string) (string, error) {
	dir := filepath.Join(source, filepath.FromSlash(strings.TrimPrefix(path, "crownest/")))
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	if len(files) == 0 {
		return "", fmt.Errorf("no source of %s in %s", path, dir)
	}
	archive := filepath.Join("pkg", strings.ReplaceAll(path, "/", "_")+".a")
	arguments := append([]string{
		"-p", path, "-o", archive, "-importcfg", "importcfg", "-pack", "-complete",
		"-dwarf=false", "-trimpath", dir + "=>/crownest",
	}, files...)
	command := exec.Command(Tool(goroot, "compile"), arguments...)
	command.Dir = out
	if text, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling %s: %w\n%s", path, err, text)
	}
	return "packagefile " + path + "=" + archive, nil
}
