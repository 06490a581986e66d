package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"crownest/internal/process"
	"crownest/internal/program"
	"crownest/internal/protocol"
	"crownest/internal/source"
	"crownest/internal/store"
	"crownest/internal/toolchain"
)

// Time that an interrupted program has to save its variables. Whoever interrupts because of a
// timeout kills the whole context after two seconds.
const saveMillisecondsMax = 1_500

// execute runs a cell.
func (r *run) execute() {
	s := r.session
	split, problems := source.Take(r.op.Code)
	if len(problems) > 0 {
		r.failCompile(problems)
		return
	}
	s.keepSource(split.Text)
	dir, err := r.directory()
	if err != nil {
		r.fail("fs.PathError", err.Error(), nil, 0)
		return
	}
	for _, c := range split.Commands {
		if !r.command(c) {
			return
		}
	}
	if !r.importModules(split) {
		return
	}
	p, problems := s.builder.Build(s.count, split, s.names, s.state.Parts())
	if len(problems) > 0 {
		r.failCompile(r.betterSyntax(split, problems))
		return
	}
	for _, b := range p.Broken {
		r.notice("declaration_broken", fmt.Sprintf("%s no longer compiles and is gone: %s", b.Name, b.Problem))
	}
	if p.Empty {
		s.commit(p.Next)
		return
	}
	binary, ok := r.build(p)
	if !ok {
		return
	}
	r.runProgram(p, binary, dir)
}

// betterSyntax has the compiler say what is wrong with a cell that cannot be parsed. If it sees
// nothing wrong, or something else, the parser's own words stay.
func (r *run) betterSyntax(split *source.Split, problems []source.Problem) []source.Problem {
	s := r.session
	if program.Parses(s.count, split) {
		return problems
	}
	dir, err := s.ownDir()
	if err != nil {
		return problems
	}
	outcome, err := s.packages.Compile([]program.File{program.SyntaxFile(split)}, filepath.Join(dir, "build"), r.stop, &r.cpu)
	if err != nil || outcome.Messages == "" {
		return problems
	}
	lines := strings.Count(split.Text, "\n") + 1
	var better []source.Problem
	for _, p := range compilerProblems(outcome.Messages) {
		if message, ok := strings.CutPrefix(p.Message, "syntax error: "); ok {
			p.Message = message
			p.Line = min(p.Line, lines)
			better = append(better, p)
		}
	}
	if len(better) == 0 {
		return problems
	}
	return better
}

// keepSource keeps what a cell says, so that tracebacks can quote it.
func (s *Session) keepSource(text string) {
	const sourcesBytesMax = 4 << 20
	s.cells[s.count] = text
	total := 0
	for n := s.count; n > 0; n-- {
		if total += len(s.cells[n]); total > sourcesBytesMax {
			delete(s.cells, n)
		}
	}
}

// open makes sure that there is a module.
func (s *Session) openModules() error {
	dir, err := s.ownDir()
	if err != nil {
		return err
	}
	if s.modules != nil {
		if _, err := os.Stat(filepath.Join(dir, "module", "go.mod")); err == nil {
			return nil
		}
	}
	s.modules, err = s.tools.NewModules(dir)
	return err
}

// command runs a line that begins with a percent sign.
func (r *run) command(c source.Command) bool {
	words := strings.Fields(c.Text)
	if len(words) < 2 || words[0] != "go" {
		r.failCompile([]source.Problem{{Line: c.Line, Column: 1, Message: "unknown command %" + c.Text + "; there is %go get MODULE@VERSION and other commands of go"}})
		return false
	}
	s := r.session
	if err := s.openModules(); err != nil {
		r.fail("ModuleError", err.Error(), nil, c.Line)
		return false
	}
	s.modules.Env, s.modules.CPU = s.env, &r.cpu
	stopped, err := s.modules.Run(words[1:], os.Stdout, os.Stderr, r.stop)
	if stopped {
		r.interrupted("")
		return false
	}
	if err != nil {
		r.fail("ModuleError", fmt.Sprintf("go %s: %v", words[1], err), nil, c.Line)
		return false
	}
	return r.setModules(s.modules.Refresh(r.stop))
}

// setModules makes packages known that were found.
func (r *run) setModules(files map[string]string, err error) bool {
	var missing *toolchain.Missing
	switch {
	case errors.Is(err, toolchain.ErrStopped):
		r.interrupted("")
		return false
	case errors.As(err, &missing):
		line := 1
		if at := strings.Index(r.op.Code, `"`+missing.Path+`"`); at >= 0 {
			line, _ = source.Position(r.op.Code, at)
		}
		r.failCompile([]source.Problem{{Line: line, Message: missing.Error()}})
		return false
	case err != nil:
		r.fail("ModuleError", err.Error(), nil, 0)
		return false
	}
	r.session.packages.SetModules(files)
	return true
}

// importModules fetches the modules of packages that the cell imports.
func (r *run) importModules(split *source.Split) bool {
	s := r.session
	if !strings.Contains(split.Text, "import") {
		return true
	}
	var missing []string
	for _, path := range program.Imports(s.count, split) {
		first, _, _ := strings.Cut(path, "/")
		if !s.packages.Has(path) && path != "unsafe" && strings.Contains(first, ".") {
			missing = append(missing, path)
		}
	}
	if len(missing) == 0 {
		return true
	}
	if err := s.openModules(); err != nil {
		r.fail("ModuleError", err.Error(), nil, 0)
		return false
	}
	s.modules.Env, s.modules.CPU = s.env, &r.cpu
	return r.setModules(s.modules.Resolve(missing, r.stop))
}

// build compiles; false if the run has ended with that.
func (r *run) build(p *program.Program) (string, bool) {
	outcome, err := r.session.build(p, r.stop, &r.cpu)
	switch {
	case err != nil:
		r.fail("BuildError", err.Error(), nil, 0)
	case outcome.Stopped:
		r.interrupted("")
	case outcome.Messages != "":
		r.failCompile(compilerProblems(outcome.Messages))
	default:
		return outcome.Binary, true
	}
	return "", false
}

// runProgram runs a cell's program to its end and takes over what it leaves.
func (r *run) runProgram(p *program.Program, binary, dir string) {
	s := r.session
	var files []*os.File
	if len(p.Restores) > 0 {
		var err error
		if files, err = s.state.Files(p.Restores); err != nil {
			r.fail("StateError", err.Error(), nil, 0)
			return
		}
	}
	cell, err := process.StartCell(process.Start{
		Binary: binary, Dir: dir, Env: setEnv(s.env, "PWD", dir), Input: r.op.Input, State: files,
	})
	if len(files) > 0 {
		files[0].Close() // the table; the others are the store's
	}
	if err != nil {
		r.fail("ExecError", err.Error(), nil, 0)
		return
	}
	defer cell.Close()
	r.began(cell, slices.Contains(p.Imports, "os/signal"))
	f := &follower{run: r, cell: cell}
	last := make(chan *process.Event, 1)
	go func() { last <- cell.Events(f.handle) }()
	state := cell.Wait(func() { r.cellEnded(cell) })
	f.end = <-last
	r.cpu += process.Used(state)
	r.finish(p, f, dir, state)
}

// began makes the running program known to interrupts; one may have come already.
func (r *run) began(cell *process.Cell, signals bool) {
	s := r.session
	s.mu.Lock()
	defer s.mu.Unlock()
	r.cell, r.signals = cell, signals
	if r.stopped {
		r.interruptCell()
	}
}

// interruptCell interrupts the program, if it runs. A program that may handle the signal gets it
// first; the second time nobody is asked. Called with the lock held.
func (r *run) interruptCell() {
	if r.cell == nil {
		return
	}
	cell := r.cell
	if r.signals {
		r.signals = false
		cell.Signal(syscall.SIGINT)
		return
	}
	cell.Interrupt()
	time.AfterFunc(saveMillisecondsMax*time.Millisecond, func() {
		r.session.mu.Lock()
		defer r.session.mu.Unlock()
		if r.cell == cell {
			cell.SignalGroup(syscall.SIGKILL)
		}
	})
}

// cellEnded is called while the process still has its number. What an interrupted program had
// started is interrupted with it.
func (r *run) cellEnded(cell *process.Cell) {
	s := r.session
	s.mu.Lock()
	defer s.mu.Unlock()
	r.cell = nil
	if r.stopped {
		cell.SignalGroup(syscall.SIGINT)
	}
}

// follower handles what a program says while it runs.
type follower struct {
	run      *run
	cell     *process.Cell
	end      *process.Event // nil if it did not come to that
	panicked *process.Event
	stopped  *process.Event
	shown    bool // the result
}

func (f *follower) handle(e *process.Event) {
	r := f.run
	conn := r.session.conn
	switch e.Ev {
	case "result":
		if !f.shown {
			f.shown = true
			conn.SendBundle(&protocol.Bundle{Ev: "result", Run: r.id, Data: e.Data, Metadata: e.Metadata, Count: r.session.count})
		}
	case "display":
		conn.SendBundle(&protocol.Bundle{Ev: "display", Run: r.id, Data: e.Data, Metadata: e.Metadata, DisplayID: e.DisplayID, Update: e.Update})
	case "clear":
		conn.Send(protocol.Clear{Ev: "clear", Run: r.id, Wait: e.Wait})
	case "notice":
		r.notice(e.Code, e.Message)
	case "input":
		if r.op.Input {
			conn.Send(protocol.Input{Ev: "input", Run: r.id, Prompt: e.Prompt, Password: e.Password})
		}
	case "deadlock":
		f.cell.Deadlock()
	case "panic":
		if f.panicked == nil {
			f.panicked = e
		}
	case "stopped":
		f.stopped = e
	}
}

// finish says how the program ended.
func (r *run) finish(p *program.Program, f *follower, dir string, state *os.ProcessState) {
	s := r.session
	stack := ""
	if f.panicked != nil {
		stack = f.panicked.Stack
	} else if f.stopped != nil {
		stack = f.stopped.Stack
	}
	crash := ""
	if f.end == nil {
		crash = f.cell.Crash()
	}
	s.takeState(r, p, f.end, stack)
	if f.end != nil {
		r.takeSurroundings(f.end, dir)
	}
	code, signal := process.Ended(state)
	switch {
	case f.stopped != nil || r.wasStopped() && (code != 0 || signal != 0):
		r.interrupted(stack)
	case f.panicked != nil:
		r.panicked(f.panicked)
	case crash != "":
		r.crashed(crash)
	case signal != 0:
		r.fail("Killed", fmt.Sprintf("the cell's program was ended by signal %d (%v)", int(signal), signal), nil, 0)
	case code != 0:
		r.fail("ExitStatus", fmt.Sprintf("exit status %d", code), nil, 0)
	case f.end != nil && f.end.Goroutines > 0:
		r.notice("goroutines_ended", fmt.Sprintf("%d goroutines were still running and have ended with the cell", f.end.Goroutines))
	}
}

func (r *run) wasStopped() bool {
	r.session.mu.Lock()
	defer r.session.mu.Unlock()
	return r.stopped
}

// takeState keeps what the program saved, or what there was if it did not come to that.
func (s *Session) takeState(r *run, p *program.Program, end *process.Event, stack string) {
	next := p.Next
	for _, v := range p.Unkept {
		r.notice("state_not_kept", fmt.Sprintf("%s (%s): its type cannot be named outside of its cell", v.Name, v.Type))
	}
	var saved *store.Saved
	why := "it ended without saving its variables"
	if end != nil && p.Keeps {
		var err error
		saved, err = store.Parse(end.State, end.File)
		if err != nil {
			why = "what it saved is damaged"
		} else if saved.Failed != "" {
			why = "saving its variables failed: " + saved.Failed
			saved = nil
		}
	}
	switch {
	case !p.Keeps:
	case saved == nil:
		if end != nil && end.File != nil {
			end.File.Close()
		}
		next = withVars(next, s.names)
		r.notice("state_not_kept", "variables are as they were before the cell: "+why)
	default:
		r.noticeLost(saved)
		s.dropUnreached(p, saved, next, stack)
		s.state.Replace(p.Restores, saved, end.File)
	}
	s.commit(next)
}

// withVars gives a namespace with the variables of an earlier one, as far as their names are free.
func withVars(next, before *program.Namespace) *program.Namespace {
	var vars []*program.Var
	for _, v := range before.Vars {
		if next.Unit(v.Name) == nil && next.Imports[v.Name] == "" {
			vars = append(vars, v)
		}
	}
	next.Vars = vars
	return next
}

// dropUnreached takes variables back that were to be made by statements which the cell did not
// come to.
func (s *Session) dropUnreached(p *program.Program, saved *store.Saved, next *program.Namespace, stack string) {
	line := lineOfCell(stack)
	if line == 0 {
		return
	}
	for _, v := range p.New {
		if v.Whole || v.EndLine < line {
			continue
		}
		declared := next.Var(v.Name)
		if declared == nil {
			continue
		}
		if before := s.names.Var(v.Name); before != nil && before.ID == declared.ID {
			continue
		}
		saved.Drop(declared.Key())
		next.Restore(v.Name, s.names)
	}
}

func (r *run) noticeLost(saved *store.Saved) {
	for _, l := range saved.Lost {
		r.notice("state_not_kept", fmt.Sprintf("%s (%s): %s", program.NameOf(l.Name), l.What, l.Why))
	}
	if saved.LostMore > 0 {
		r.notice("state_not_kept", fmt.Sprintf("and %d other values", saved.LostMore))
	}
}

// commit makes a namespace the session's own.
func (s *Session) commit(next *program.Namespace) {
	s.state.Forget(next.HasKey)
	next.Collect(s.state.Functions())
	s.names = next
}

// interrupted reports an interrupt.
func (r *run) interrupted(stack string) {
	traceback := append([]string{"Interrupted"}, r.session.traceback(stack, true)...)
	r.fail("Interrupted", "the cell was interrupted", traceback, lineOfCell(stack))
}

// panicked reports a panic.
func (r *run) panicked(e *process.Event) {
	name := strings.TrimPrefix(e.Name, "main.")
	if name == "" {
		name = "panic"
	}
	// In a deadlock it is the kernel's own goroutine that says so.
	frames := r.session.traceback(e.Stack, name == "fatal error")
	r.fail(name, e.Message, append([]string{name + ": " + e.Message}, frames...), innermostLine(e.Stack))
}

// crashed reports what the runtime itself gave up for.
func (r *run) crashed(text string) {
	name, message := crashReason(text)
	traceback := append([]string{name + ": " + message}, r.session.traceback(text, false)...)
	r.fail(name, message, traceback, innermostLine(text))
}
