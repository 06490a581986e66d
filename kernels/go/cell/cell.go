// Package cell is the part of a cell's program that talks to the driver: it starts and ends the
// program, hands over events, reports panics, and asks for input.
//
// It owns the process's private descriptors and everything that needs the runtime's help
// (hooks.go). It does not own values: package keep saves and restores them, and tells this
// package how with OnSave. Nothing heavy is imported here, since every cell links it.
package cell

import (
	"runtime"
	"sync/atomic"
	"syscall"
)

// Descriptors as the driver passes them.
const (
	passedControl = 3 // socket: frames to the driver, bytes from it
	passedCrash   = 4 // memory file: what the runtime prints when it gives up
	passedState   = 5 // memory files: a table of values of earlier cells, and the files with them
)

// Bytes from the driver that wake the watching goroutine.
const (
	codeInterrupt = 'i'
	codeDeadlock  = 'd'
)

// A recursion without end fails at this size of its stack and not at Go's own limit of a gigabyte,
// which few sandboxes have.
const stackOfGoroutineBytesMax = 256 << 20

// What the program's exit status says when it ended itself after a panic or an interrupt.
const exitAfterReport = 2

// Private descriptors move up here, out of the way of programs that close what they did not open.
var privateFloors = [...]uintptr{900, 200, 64}

// A Saved state: a memory file and what the driver has to know about it, as JSON.
type Saved struct {
	FD    int
	Parts []byte
}

var (
	environment []string
	save        func(settled bool) Saved
	ending      atomic.Bool
)

// Start prepares the process. It is the first thing in main.
func Start() {
	controlFD = int32(private(passedControl))
	if crash := private(passedCrash); crash >= 0 && setCrashFD != nil {
		setCrashFD(uintptr(crash))
	}
	environment = append([]string(nil), syscall.Environ()...)
	if setMaxStack != nil {
		setMaxStack(stackOfGoroutineBytesMax)
	}
	if atExit != nil {
		atExit(exiting)
	}
	panicHook = panicked
	wokeHook = woke
	prepareStdin()
	if watch != nil {
		go watch()
	}
}

// StateTable gives the descriptor of the table of earlier values. Call it only if the driver
// passes one, and before anything else is opened.
func StateTable() int { return private(passedState) }

// StateFile gives the descriptor of a file that the table refers to by its number.
func StateFile(number int) int { return private(passedState + 1 + number) }

// OnSave says how values are saved. settled is false when another goroutine may have been
// stopped in the middle of an assignment.
func OnSave(how func(settled bool) Saved) { save = how }

// End ends the program as a cell that has come to its end.
func End() {
	finish(0, runtime.NumGoroutine()-1, true)
	exit(0)
}

// private moves a descriptor out of sight and closes it for programs that the cell starts.
func private(fd int) int {
	for _, floor := range privateFloors {
		moved, _, err := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, floor)
		if err == syscall.EBADF {
			return -1
		}
		if err == 0 {
			syscall.Close(fd)
			return int(moved)
		}
	}
	syscall.CloseOnExec(fd)
	return fd
}

// exiting runs in os.Exit, whose code the driver sees for itself.
func exiting() {
	finish(1, runtime.NumGoroutine()-1, true)
}

// panicked runs on a goroutine whose panic nobody recovers.
func panicked(value any) {
	if !ending.CompareAndSwap(false, true) {
		wait()
	}
	name, message := describe(value)
	reportPanic(name, message, stacks())
	conclude(runtime.NumGoroutine()-1, true)
	exit(exitAfterReport)
}

// woke runs on the watching goroutine.
func woke(code byte) {
	if code != codeInterrupt && code != codeDeadlock {
		return
	}
	if !ending.CompareAndSwap(false, true) {
		return
	}
	text := stacks()
	if code == codeDeadlock {
		reportPanic("fatal error", "all goroutines are asleep - deadlock!", text)
	} else {
		reportInterrupt(text)
	}
	// The main goroutine is among those that end here.
	conclude(runtime.NumGoroutine(), code == codeDeadlock)
	exit(exitAfterReport)
}

// finish saves what there is, once; whoever comes second waits for the end of the process.
func finish(kind, others int, settled bool) {
	if !ending.CompareAndSwap(false, true) {
		if kind == 0 {
			wait()
		}
		return
	}
	conclude(others, settled)
}

// conclude stops everybody else, saves and says so. others: goroutines that end with this.
func conclude(others int, settled bool) {
	directory, _ := syscall.Getwd()
	now := syscall.Environ()
	if others > 0 {
		settled = false
		if stopWorld != nil {
			stopWorld()
		}
	}
	saved := Saved{FD: -1}
	if save != nil {
		saved = save(settled)
	}
	sendEnd(saved, directory, changed(now), others)
}

// changed gives the environment if the cell changed it.
func changed(now []string) []string {
	if len(now) == len(environment) {
		same := true
		for i, entry := range now {
			same = same && entry == environment[i]
		}
		if same {
			return nil
		}
	}
	return now
}

func exit(code int) {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(code), 0, 0)
	}
}

// wait never returns: another goroutine is ending the process.
func wait() {
	select {}
}
