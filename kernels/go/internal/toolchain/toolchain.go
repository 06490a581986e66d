// Package toolchain compiles and links the programs of cells with the programs of a Go
// distribution, without the go command in between, and finds packages for the type checker. It
// uses what package stdlib has prepared. The go command is only asked about modules (modules.go).
package toolchain

import (
	"bytes"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"crownest/internal/process"
	"crownest/internal/program"
	"crownest/internal/stdlib"
)

const (
	// Output of the compiler or linker that is read.
	messagesBytesMax = 256 << 10
	// Threads of one compiler.
	compilerThreadsMax = 4
)

// A Toolchain is a Go distribution and what was prepared for it.
type Toolchain struct {
	Goroot   string
	Prepared string
	Version  string // go1.26.8

	packages map[string]string // file by path: std and the kernel's own
	config   string            // the same as the compiler reads it
}

// Open finds a toolchain.
func Open(goroot, prepared string) (*Toolchain, error) {
	version, err := os.ReadFile(filepath.Join(prepared, "version"))
	if err != nil {
		return nil, fmt.Errorf("nothing is prepared in %s: %w", prepared, err)
	}
	config, err := os.ReadFile(filepath.Join(prepared, "importcfg"))
	if err != nil {
		return nil, err
	}
	absolute := strings.ReplaceAll(string(config), "=", "="+prepared+"/")
	t := &Toolchain{Goroot: goroot, Prepared: prepared, Version: strings.TrimSpace(string(version)), config: absolute}
	t.packages = parseConfig(t.config)
	return t, nil
}

// Language is the version of the language, such as go1.26.
func (t *Toolchain) Language() string {
	parts := strings.SplitN(t.Version, ".", 3)
	if len(parts) < 2 {
		return t.Version
	}
	minor := parts[1]
	for i := range len(minor) {
		if minor[i] < '0' || minor[i] > '9' {
			minor = minor[:i]
			break
		}
	}
	return parts[0] + "." + minor
}

// parseConfig reads lines of packagefile path=file.
func parseConfig(config string) map[string]string {
	packages := map[string]string{}
	for line := range strings.Lines(config) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "packagefile "); ok {
			if path, file, ok := strings.Cut(rest, "="); ok {
				packages[path] = file
			}
		}
	}
	return packages
}

// IsStandard tells packages that are there without a module.
func (t *Toolchain) IsStandard(path string) bool { return t.packages[path] != "" }

// Packages is what a context can import: the standard library and its modules.
type Packages struct {
	t          *Toolchain
	modules    map[string]string
	importer   types.Importer
	generation int
}

// Generation changes whenever packages do.
func (p *Packages) Generation() int { return p.generation }

// NewPackages gives the standard library.
func (t *Toolchain) NewPackages() *Packages {
	p := &Packages{t: t}
	p.SetModules(nil)
	return p
}

// SetModules replaces the packages of modules: file by path. What was imported before is read
// anew, since it may depend on them.
func (p *Packages) SetModules(files map[string]string) {
	p.modules = files
	p.generation++
	p.importer = importer.ForCompiler(token.NewFileSet(), "gc", p.open)
}

func (p *Packages) open(path string) (io.ReadCloser, error) {
	file := p.file(path)
	if file == "" {
		return nil, fmt.Errorf("package %s is not in std and no module has it", path)
	}
	return os.Open(file)
}

func (p *Packages) file(path string) string {
	if file := p.t.packages[path]; file != "" {
		return file
	}
	return p.modules[path]
}

// Has tells whether a package can be imported.
func (p *Packages) Has(path string) bool { return p.file(path) != "" }

// Import reads what a package exports. A file that cannot be read is an error and no panic.
func (p *Packages) Import(path string) (imported *types.Package, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			imported, err = nil, fmt.Errorf("cannot read what %s exports: %v", path, problem)
		}
	}()
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	return p.importer.Import(path)
}

// Config is what compiler and linker read.
func (p *Packages) config() string {
	var b strings.Builder
	b.WriteString(p.t.config)
	for path, file := range p.modules {
		fmt.Fprintf(&b, "packagefile %s=%s\n", path, file)
	}
	return b.String()
}

// An Outcome is how a build ended.
type Outcome struct {
	Binary   string
	Messages string // of the compiler or linker, if it failed
	Stopped  bool
}

// What is in a directory in which programs are built.
const (
	configName  = "importcfg"
	archiveName = "cell.a"
)

// Compile compiles a program in a directory, without linking it.
func (p *Packages) Compile(files []program.File, dir string, stop process.Stop, cpu *time.Duration) (Outcome, error) {
	// Cells can reach the directory. Something that blocks whoever opens it may be in the way.
	if err := os.RemoveAll(dir); err != nil {
		return Outcome{}, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return Outcome{}, err
	}
	config := filepath.Join(dir, configName)
	if err := writeNew(config, p.config()); err != nil {
		return Outcome{}, err
	}
	arguments := []string{
		"-p", "main", "-o", filepath.Join(dir, archiveName), "-importcfg", config, "-pack", "-complete", "-dwarf=false",
		"-lang", p.t.Language(), "-trimpath", dir, "-c", strconv.Itoa(min(runtime.NumCPU(), compilerThreadsMax)),
	}
	for _, f := range files {
		name := filepath.Join(dir, filepath.Base(f.Name))
		if err := writeNew(name, f.Text); err != nil {
			return Outcome{}, err
		}
		arguments = append(arguments, name)
	}
	return p.t.run("compile", arguments, dir, stop, cpu)
}

// writeNew writes a file that is not there yet.
func writeNew(name, text string) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := file.WriteString(text); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// Build compiles and links a program in a directory.
func (p *Packages) Build(files []program.File, dir, binary string, stop process.Stop, cpu *time.Duration) (Outcome, error) {
	outcome, err := p.Compile(files, dir, stop, cpu)
	if err != nil || outcome.Stopped || outcome.Messages != "" {
		return outcome, err
	}
	outcome, err = p.t.run("link", []string{
		"-o", binary, "-importcfg", filepath.Join(dir, configName), "-s", "-w", "-buildmode=exe", "-checklinkname=0",
		filepath.Join(dir, archiveName),
	}, dir, stop, cpu)
	outcome.Binary = binary
	return outcome, err
}

// run runs one of the toolchain's programs. What it complains about is no error of ours.
func (t *Toolchain) run(tool string, arguments []string, dir string, stop process.Stop, cpu *time.Duration) (Outcome, error) {
	command := exec.Command(stdlib.Tool(t.Goroot, tool), arguments...)
	command.Dir = dir
	// They live for a tenth of a second: collecting garbage would take a fifth of it.
	command.Env = []string{"GOROOT=" + t.Goroot, "TMPDIR=" + dir, "HOME=" + dir, "PATH=", "GOGC=800"}
	messages := &limited{limit: messagesBytesMax}
	command.Stdout, command.Stderr = messages, messages
	stopped, err := process.Run(command, stop, cpu)
	if stopped {
		return Outcome{Stopped: true}, nil
	}
	if err == nil {
		return Outcome{}, nil
	}
	if _, ok := err.(*exec.ExitError); !ok {
		return Outcome{}, fmt.Errorf("%s: %w", tool, err)
	}
	text := messages.String()
	if text == "" {
		text = tool + ": " + err.Error()
	}
	return Outcome{Messages: text}, nil
}

// limited keeps the beginning of what is written to it.
type limited struct {
	bytes.Buffer
	limit int
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.limit - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
