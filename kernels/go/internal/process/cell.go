package process

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// Longest frame from a cell's program.
	frameBytesMax = 12 << 20
	// What the runtime prints when it gives up, as far as it is read.
	crashBytesMax = 256 << 10
)

// Bytes that wake the program's watching goroutine.
const (
	codeInterrupt = 'i'
	codeDeadlock  = 'd'
)

// An Event is what a cell's program says. It is not to be trusted: the cell's own code can say
// the same.
type Event struct {
	Ev         string          `json:"ev"`
	Data       json.RawMessage `json:"data"`
	Metadata   json.RawMessage `json:"metadata"`
	DisplayID  string          `json:"display_id"`
	Update     bool            `json:"update"`
	Wait       bool            `json:"wait"`
	Code       string          `json:"code"`
	Name       string          `json:"name"`
	Message    string          `json:"message"`
	Stack      string          `json:"stack"`
	Prompt     string          `json:"prompt"`
	Password   bool            `json:"password"`
	Cwd        string          `json:"cwd"`
	Env        []string        `json:"env"`
	Goroutines int             `json:"goroutines"`
	State      json.RawMessage `json:"state"`

	// The memory file that came with the last frame; nil if none did.
	File *os.File `json:"-"`
}

// What to start a cell with.
type Start struct {
	Binary, Dir string
	Env         []string
	Input       bool       // somebody can answer
	State       []*os.File // the table, then the files that it names; empty if nothing is kept
}

// A Cell is a cell's program while it runs.
type Cell struct {
	command *exec.Cmd
	control int
	crash   *os.File
	answers *os.File // write end of its standard input

	writing sync.Mutex
	closed  bool
}

// StartCell starts a cell's program. Its standard output and error are the driver's own.
func StartCell(s Start) (*Cell, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "cell")
	defer theirs.Close()
	c := &Cell{control: pair[0]}
	c.crash, err = MemoryFile("crash")
	if err != nil {
		c.Close()
		return nil, err
	}
	c.command = &exec.Cmd{
		Path: s.Binary, Args: []string{"cell"}, Dir: s.Dir, Env: s.Env, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles: append([]*os.File{theirs, c.crash}, s.State...),
	}
	if s.Input {
		read, write, err := os.Pipe()
		if err != nil {
			c.Close()
			return nil, err
		}
		defer read.Close()
		c.command.Stdin, c.answers = read, write
	}
	if err := start(c.command); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// MemoryFile makes a file without a name.
func MemoryFile(name string) (*os.File, error) {
	const closeOnExec = 1
	memfdCreate := uintptr(319)
	if runtime.GOARCH == "arm64" {
		memfdCreate = 279
	}
	bytes, err := syscall.BytePtrFromString(name)
	if err != nil {
		return nil, err
	}
	fd, err := memfd(memfdCreate, bytes, closeOnExec)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Events reads what the program says until it ends. handle is called for each event but `end`,
// which is returned; nil if there was none. After it only a deadlock matters: that of a program
// which has said `end` by itself.
func (c *Cell) Events(handle func(*Event)) *Event {
	stream := &stream{fd: c.control}
	defer stream.closeFiles()
	var end *Event
	for {
		body, err := stream.frame()
		if err != nil {
			// Nobody reads any more, so nobody shall wait for that.
			_ = syscall.Shutdown(c.control, syscall.SHUT_RD)
			return end
		}
		event := &Event{}
		if json.Unmarshal(bytes.ToValidUTF8(body, []byte("\uFFFD")), event) != nil {
			continue
		}
		switch {
		case end == nil && event.Ev == "end":
			end = event
			end.File = stream.takeFile()
		case end == nil || event.Ev == "deadlock":
			handle(event)
		}
	}
}

// stream reads frames and the files that come with them.
type stream struct {
	fd      int
	pending []byte
	files   []int
}

func (s *stream) frame() ([]byte, error) {
	var buffer [64 << 10]byte
	for {
		if len(s.pending) >= 4 {
			n := int(binary.BigEndian.Uint32(s.pending))
			if n > frameBytesMax {
				return nil, io.ErrUnexpectedEOF
			}
			if len(s.pending) >= 4+n {
				body := s.pending[4 : 4+n]
				s.pending = s.pending[4+n:]
				return body, nil
			}
		}
		rights := make([]byte, syscall.CmsgSpace(4*4))
		n, oobn, _, _, err := syscall.Recvmsg(s.fd, buffer[:], rights, syscall.MSG_CMSG_CLOEXEC)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return nil, io.EOF
		}
		s.keepFiles(rights[:oobn])
		s.pending = append(s.pending, buffer[:n]...)
	}
}

// keepFiles keeps the last file that came; a program sends one.
func (s *stream) keepFiles(rights []byte) {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		s.closeFiles()
		s.files = fds
	}
}

func (s *stream) closeFiles() {
	for _, fd := range s.files {
		syscall.Close(fd)
	}
	s.files = nil
}

// takeFile gives the file if it is one with contents of its own.
func (s *stream) takeFile() *os.File {
	if len(s.files) != 1 {
		return nil
	}
	var stat syscall.Stat_t
	if syscall.Fstat(s.files[0], &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil
	}
	file := os.NewFile(uintptr(s.files[0]), "state")
	s.files = nil
	return file
}

// Wait waits for the end of the process and lets Events come to its end. ended is called when the
// process has ended, but its number is nobody else's yet.
func (c *Cell) Wait(ended func()) *os.ProcessState {
	waitFor(c.command.Process.Pid)
	ended()
	// Standard output is no pipe of ours, so nothing else is waited for.
	_ = c.command.Wait()
	_ = syscall.Shutdown(c.control, syscall.SHUT_RD)
	return c.command.ProcessState
}

// Interrupt asks the program to save what it has and end.
func (c *Cell) Interrupt() { c.wake(codeInterrupt) }

// Deadlock lets a program that is stuck say so.
func (c *Cell) Deadlock() { c.wake(codeDeadlock) }

func (c *Cell) wake(code byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.closed {
		_ = syscall.Sendmsg(c.control, []byte{code}, nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
	}
}

// Signal sends a signal to the program alone.
func (c *Cell) Signal(signal syscall.Signal) { _ = c.command.Process.Signal(signal) }

// SignalGroup sends a signal to the program and what it started. Only to be called before Wait
// has come back: the number may become somebody else's. A program may have left its group.
func (c *Cell) SignalGroup(signal syscall.Signal) {
	_ = syscall.Kill(-c.command.Process.Pid, signal)
	_ = syscall.Kill(c.command.Process.Pid, signal)
}

// Answer gives the program the line that it asked for, or the end of the file.
func (c *Cell) Answer(line *string) {
	if c.answers == nil {
		return
	}
	if line == nil {
		c.answers.Close()
		return
	}
	_, _ = io.WriteString(c.answers, *line+"\n")
}

// Crash is what the runtime printed when it gave up.
func (c *Cell) Crash() string {
	text := make([]byte, crashBytesMax)
	n, _ := c.crash.ReadAt(text, 0)
	return string(text[:n])
}

// Close lets go of everything.
func (c *Cell) Close() {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	syscall.Close(c.control)
	for _, file := range []*os.File{c.crash, c.answers} {
		if file != nil {
			file.Close()
		}
	}
}

// Ended tells how a process ended: its exit code, or the signal that killed it.
func Ended(state *os.ProcessState) (code int, signal syscall.Signal) {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return -1, status.Signal()
	}
	return state.ExitCode(), 0
}

// Self is the processor time of this process.
func Self() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
