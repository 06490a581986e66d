package toolchain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crownest/internal/process"
	"crownest/internal/stdlib"
)

// Modules is the module that a context's cells belong to: a go.mod in a directory of its own, and
// the packages that they have imported. It asks the go command, and only when something changes.
type Modules struct {
	t     *Toolchain
	dir   string
	paths []string // imported so far
	// Told to every command; what the context's environment says.
	Env []string
	CPU *time.Duration
}

// NewModules makes the module in a directory.
func (t *Toolchain) NewModules(dir string) (*Modules, error) {
	m := &Modules{t: t, dir: filepath.Join(dir, "module")}
	// What is left of one that a cell has damaged.
	if err := os.RemoveAll(m.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, err
	}
	text := "module cells\n\ngo " + strings.TrimPrefix(t.Language(), "go") + "\n"
	if err := os.WriteFile(filepath.Join(m.dir, "go.mod"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := stdlib.WriteOverlay(t.Goroot, t.Prepared, m.overlay()); err != nil {
		return nil, err
	}
	return m, m.linkCache()
}

func (m *Modules) overlay() string { return filepath.Join(m.dir, ".overlay.json") }

func (m *Modules) cache() string { return filepath.Join(m.dir, ".cache") }

// linkCache makes a cache of our own for the go command that begins with what was prepared: the
// standard library is not compiled again, and nothing is copied.
func (m *Modules) linkCache() error {
	from := filepath.Join(m.t.Prepared, "cache")
	groups, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, group := range groups {
		if !group.IsDir() || len(group.Name()) != 2 {
			continue
		}
		to := filepath.Join(m.cache(), group.Name())
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		entries, err := os.ReadDir(filepath.Join(from, group.Name()))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := os.Symlink(filepath.Join(from, group.Name(), entry.Name()), filepath.Join(to, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Run runs the go command in the module.
func (m *Modules) Run(arguments []string, stdout, stderr io.Writer, stop process.Stop) (stopped bool, err error) {
	command := exec.Command(filepath.Join(m.t.Goroot, "bin", "go"), arguments...)
	command.Dir = m.dir
	command.Env = append(slices.Clone(m.Env), stdlib.Environment(m.t.Goroot, m.cache())...)
	command.Env = append(command.Env, "GOFLAGS=-mod=mod", "PWD="+m.dir)
	command.Stdout, command.Stderr = stdout, stderr
	return process.Run(command, stop, m.CPU)
}

// ErrStopped says that a command was interrupted.
var ErrStopped = errors.New("interrupted")

// A Missing package is one that no module has.
type Missing struct{ Path, Message string }

func (m *Missing) Error() string { return fmt.Sprintf("could not import %s: %s", m.Path, m.Message) }

// Resolve finds packages, and fetches the modules that have them. It gives all packages that the
// context needs: file by path.
func (m *Modules) Resolve(paths []string, stop process.Stop) (map[string]string, error) {
	wanted := slices.Clone(m.paths)
	for _, path := range paths {
		if !slices.Contains(wanted, path) {
			wanted = append(wanted, path)
		}
	}
	files, missing, err := m.list(wanted, stop)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		for _, absent := range missing {
			var messages bytes.Buffer
			stopped, err := m.Run([]string{"get", absent.Path}, io.Discard, &messages, stop)
			if stopped {
				return nil, ErrStopped
			}
			if err != nil {
				return nil, &Missing{absent.Path, firstWords(messages.String(), absent.Message)}
			}
		}
		if files, missing, err = m.list(wanted, stop); err != nil {
			return nil, err
		}
		if len(missing) > 0 {
			return nil, &missing[0]
		}
	}
	m.paths = wanted
	return files, nil
}

// Refresh finds the packages again that were imported before.
func (m *Modules) Refresh(stop process.Stop) (map[string]string, error) {
	return m.Resolve(nil, stop)
}

// firstWords is what the go command says went wrong, without its progress.
func firstWords(text, otherwise string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "go: downloading") && !strings.HasPrefix(line, "go: finding") && !strings.HasPrefix(line, "go: added") {
			return strings.TrimPrefix(line, "go: ")
		}
	}
	return otherwise
}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Export     string
	Standard   bool
	Error      *struct{ Err string }
	DepsErrors []*struct{ Err string }
}

// list compiles packages and what they need, and says where they are.
func (m *Modules) list(paths []string, stop process.Stop) (files map[string]string, missing []Missing, err error) {
	files = map[string]string{}
	if len(paths) == 0 {
		return files, nil, nil
	}
	arguments := slices.Concat([]string{"list"}, stdlib.Flags, []string{
		"-overlay", m.overlay(), "-e", "-deps", "-export",
		"-json=ImportPath,Export,Standard,Error", "--",
	}, paths)
	var out, messages bytes.Buffer
	stopped, err := m.Run(arguments, &out, &messages, stop)
	if stopped {
		return nil, nil, ErrStopped
	}
	if err != nil && out.Len() == 0 {
		return nil, nil, errors.New(firstWords(messages.String(), err.Error()))
	}
	for decoder := json.NewDecoder(&out); ; {
		var p listed
		if err := decoder.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, nil, err
		}
		switch {
		case p.Error != nil:
			missing = append(missing, Missing{p.ImportPath, strings.TrimSpace(p.Error.Err)})
		case p.Export != "" && !p.Standard:
			files[p.ImportPath] = p.Export
		}
	}
	for _, path := range paths {
		if files[path] == "" && !slices.ContainsFunc(missing, func(a Missing) bool { return a.Path == path }) {
			missing = append(missing, Missing{path, firstWords(messages.String(), "it cannot be compiled")})
		}
	}
	return files, missing, nil
}
