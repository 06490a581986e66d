// Package process starts programs: the toolchain's and the cells'. Each is a process group of its
// own and dies with the driver.
package process

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Time in which the pipes of a command that has ended are read.
const pipesMillisecondsMax = 2_000

// A starter starts processes from one thread that never ends: a child that dies with its parent
// dies with the thread that started it.
type starter struct{ requests chan func() }

var starting = newStarter()

func newStarter() *starter {
	s := &starter{requests: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for request := range s.requests {
			request()
		}
	}()
	return s
}

// start starts a command in a group of its own.
func start(command *exec.Cmd) error {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	result := make(chan error)
	starting.requests <- func() { result <- command.Start() }
	return <-result
}

// kill ends a whole group at once.
func kill(command *exec.Cmd) {
	if command.Process != nil {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	}
}

// A Stop is closed when what runs is to end.
type Stop <-chan struct{}

// Run runs a command to its end. It reports whether it was stopped, and adds to cpu what it took.
func Run(command *exec.Cmd, stop Stop, cpu *time.Duration) (stopped bool, err error) {
	// What a command leaves behind may hold its pipes.
	command.WaitDelay = pipesMillisecondsMax * time.Millisecond
	if err := start(command); err != nil {
		return false, err
	}
	done := make(chan error, 1)
	go func() { done <- command.Wait() }()
	select {
	case err = <-done:
	case <-stop:
		kill(command)
		err = <-done
		stopped = true
	}
	*cpu += Used(command.ProcessState)
	return stopped, err
}

// Used is the processor time of a process that has ended, and of its children.
func Used(state *os.ProcessState) time.Duration {
	if state == nil {
		return 0
	}
	return state.UserTime() + state.SystemTime()
}
