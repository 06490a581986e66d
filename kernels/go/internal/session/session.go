// Package session is one context: it runs cells one after the other and answers queries about what
// they left. It owns names, state, directory and environment, and talks to init.
package session

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"crownest/internal/process"
	"crownest/internal/program"
	"crownest/internal/protocol"
	"crownest/internal/source"
	"crownest/internal/store"
	"crownest/internal/toolchain"
)

// A Session is a context.
type Session struct {
	conn     *protocol.Conn
	tools    *toolchain.Toolchain
	packages *toolchain.Packages
	modules  *toolchain.Modules
	builder  program.Builder
	names    *program.Namespace
	state    store.Store
	cells    map[int]string // sources, for tracebacks
	count    int
	cwd      string
	env      []string
	dir      string // of our own files
	built    binaries

	mu     sync.Mutex
	active *run
}

// A run is what the session is busy with.
type run struct {
	id       uint64
	op       *protocol.Op
	session  *Session
	stop     chan struct{} // closed by an interrupt
	stopped  bool
	cell     *process.Cell
	signals  bool // the cell may handle an interrupt itself
	cpu      time.Duration
	status   string
	notices  int
	finished bool
}

// Notices that one run sends.
const noticesMax = 60

// New makes a session. Nothing is written and nothing is compiled before the first cell.
func New(conn *protocol.Conn, tools *toolchain.Toolchain) *Session {
	packages := tools.NewPackages()
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "/"
	}
	return &Session{
		conn: conn, tools: tools, packages: packages, names: program.NewNamespace(), cells: map[int]string{},
		builder: program.Builder{Importer: packages, GoVersion: tools.Language(), Arch: runtime.GOARCH},
		cwd:     cwd, env: os.Environ(),
	}
}

// Serve handles ops until init is gone.
func (s *Session) Serve() error {
	s.conn.Send(protocol.Ready{Ev: "ready", Language: "go", Version: strings.TrimPrefix(s.tools.Version, "go")})
	defer s.cleanUp()
	for {
		op, err := s.conn.Read()
		if err != nil {
			return err
		}
		switch op.Op {
		case "start":
			s.start(op)
		case "execute", "query":
			s.begin(op)
		case "input_reply":
			s.reply(op)
		case "interrupt":
			s.interrupt(op.Run)
		}
	}
}

func (s *Session) cleanUp() {
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func (s *Session) start(op *protocol.Op) {
	if op.Cwd != "" {
		s.cwd = op.Cwd
	}
	for name, value := range op.Env {
		s.env = setEnv(s.env, name, value)
	}
	sort.Strings(s.env)
}

func setEnv(env []string, name, value string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	return append(env, name+"="+value)
}

// begin starts a run beside the reading of frames, so that it can be interrupted.
func (s *Session) begin(op *protocol.Op) {
	r := &run{id: op.Run, op: op, session: s, stop: make(chan struct{}), status: "ok"}
	s.mu.Lock()
	busy := s.active != nil
	if !busy {
		s.active = r
	}
	s.mu.Unlock()
	if busy {
		// init never does that.
		return
	}
	go r.do()
}

// do performs a run; whatever happens, it ends with `done`.
func (r *run) do() {
	began := process.Self()
	func() {
		defer r.survive()
		if r.op.Op == "query" {
			r.query()
		} else {
			r.session.count++
			r.execute()
		}
	}()
	s := r.session
	s.mu.Lock()
	s.active = nil
	r.finished = true
	if r.stopped && r.status == "error" {
		r.status = "interrupted"
	}
	s.mu.Unlock()
	cpu := r.cpu + process.Self() - began
	s.conn.Send(protocol.Done{Ev: "done", Run: r.id, Status: r.status, Count: s.count, CPU: cpu.Microseconds()})
}

// survive turns a mistake of ours into an error of the run.
func (r *run) survive() {
	if problem := recover(); problem != nil {
		r.fail("InternalError", fmt.Sprint(problem), nil, 0)
	}
}

func (s *Session) interrupt(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.active
	if r == nil || r.id != id {
		return
	}
	if !r.stopped {
		r.stopped = true
		close(r.stop)
	}
	r.interruptCell()
}

func (s *Session) reply(op *protocol.Op) {
	s.mu.Lock()
	var cell *process.Cell
	if s.active != nil && s.active.id == op.Run {
		cell = s.active.cell
	}
	s.mu.Unlock()
	if cell != nil {
		// A cell that does not read must not keep us from reading frames.
		go cell.Answer(op.Value)
	}
}

func (r *run) fail(name, message string, traceback []string, line int) {
	r.status = "error"
	if traceback == nil {
		traceback = []string{name + ": " + message}
	}
	r.session.conn.Send(protocol.Error{
		Ev: "error", Run: r.id, Name: name, Message: message,
		Traceback: strings.Split(strings.Join(traceback, "\n"), "\n"), Line: line,
	})
}

// failCompile reports everything that is wrong with a cell.
func (r *run) failCompile(problems []source.Problem) {
	traceback := []string{"CompileError in cell " + fmt.Sprint(r.session.count)}
	line := 0
	for _, p := range problems {
		traceback = append(traceback, strings.Split(p.String(), "\n")...)
		if line == 0 && p.Cell == 0 {
			line = p.Line
		}
	}
	message, _, _ := strings.Cut(problems[0].Message, "\n")
	if n := len(problems) - 1; n > 0 {
		message += fmt.Sprintf(" (and %d more)", n)
	}
	r.fail("CompileError", message, traceback, line)
}

func (r *run) notice(code, message string) {
	message = ownTypes.ReplaceAllString(message, "$1")
	r.notices++
	if r.notices > noticesMax {
		return
	}
	if r.notices == noticesMax {
		message += " (further notices of this run are left out)"
	}
	r.session.conn.Send(protocol.Notice{Ev: "notice", Run: r.id, Code: code, Message: message})
}

// ownTypes finds types of cells, which have no package as far as cells are concerned.
var ownTypes = regexp.MustCompile(`\bmain\.(\pL)`)

// ownDir is where the session has its files. Cells can remove it; then it is made again.
func (s *Session) ownDir() (string, error) {
	if s.dir != "" {
		if _, err := os.Stat(filepath.Join(s.dir, "build")); err == nil {
			return s.dir, nil
		}
		s.built.forget()
		if s.modules != nil {
			// Their files are gone too: the next import fetches them again.
			s.modules = nil
			s.packages.SetModules(nil)
		}
	}
	dir, err := os.MkdirTemp("", ".crownest-go-")
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(dir, "build"), 0o700); err != nil {
		return "", err
	}
	s.dir = dir
	return dir, nil
}
