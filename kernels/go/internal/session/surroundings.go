package session

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"crownest/internal/process"
)

// directory is where the cell begins.
func (r *run) directory() (string, error) {
	dir := r.session.cwd
	if r.op.Cwd != "" {
		dir = r.op.Cwd
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(r.session.cwd, dir)
		}
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "chdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if err == nil {
		const mayEnter = 1
		if err = syscall.Access(dir, mayEnter); err != nil {
			err = &os.PathError{Op: "chdir", Path: dir, Err: err}
		}
	}
	if err != nil && r.op.Cwd == "" {
		r.notice("directory_gone", fmt.Sprintf("%s cannot be entered any more; this cell runs in /", dir))
		r.session.cwd = "/"
		return "/", nil
	}
	return dir, err
}

// takeSurroundings keeps where the code went and how it changed the environment.
func (r *run) takeSurroundings(end *process.Event, began string) {
	s := r.session
	if end.Cwd != "" && end.Cwd != resolved(began) {
		s.cwd = end.Cwd
	}
	if end.Env != nil {
		s.env = slices.DeleteFunc(end.Env, func(entry string) bool {
			return !strings.Contains(entry, "=") || strings.ContainsRune(entry, 0) || strings.HasPrefix(entry, "PWD=")
		})
		r.limitEnvironment()
	}
}

const (
	// Linux starts no program with a longer entry in its environment, or with more in all.
	entryBytesMax       = 128<<10 - 1
	environmentBytesMax = 1 << 20
)

// A memory limit that Go's runtime understands; with any other it gives up at once.
var memoryLimit = regexp.MustCompile(`^GOMEMLIMIT=(|off|[0-9]{1,18}([KMGT]iB|B)?)$`)

// limitEnvironment leaves out what no program could be started with.
func (r *run) limitEnvironment() {
	total := 0
	r.session.env = slices.DeleteFunc(r.session.env, func(entry string) bool {
		if strings.HasPrefix(entry, "GOMEMLIMIT=") && !memoryLimit.MatchString(entry) {
			r.notice("environment_not_kept", "GOMEMLIMIT: no program starts with that value")
			return true
		}
		if len(entry) <= entryBytesMax && total+len(entry) <= environmentBytesMax {
			total += len(entry)
			return false
		}
		name, _, _ := strings.Cut(entry, "=")
		r.notice("environment_not_kept", fmt.Sprintf("%s: no program starts with a value of %d bytes, or with so many variables", shortened(name), len(entry)-len(name)-1))
		return true
	})
}

// resolved is a directory as the system names it.
func resolved(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}
