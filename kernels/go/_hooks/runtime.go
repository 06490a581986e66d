// What the cells' own build of the runtime tells package cell. This file is laid beside the
// runtime's own when the standard library of cells is compiled (internal/stdlib); everything
// that depends on the runtime's inside is here, so that a toolchain in which it looks different
// fails to build and not to run.

package runtime

import (
	"internal/runtime/exithook"
	"unsafe"
)

// Set by package cell, which sees them by linkname. Nil in every other program.
var (
	// On the goroutine that panics, after its deferred functions, before anything is printed.
	crownestPanic func(value any)
	// On the watching goroutine, with each byte that the driver sends.
	crownestWoke func(code byte)
	// Socket to the driver; 0 when there is none.
	crownestFD int32
)

// The other way round: what package cell calls.
var (
	crownestWatchFunc  = crownestWatch
	crownestStopFunc   = crownestStop
	crownestObjectFunc = crownestObject
	crownestChanFunc   = crownestChan
	crownestTypeFunc   = crownestType
	crownestExitFunc   = crownestExit
	crownestCrashFunc  = setCrashFD
	crownestClockFunc  = nanotime
	crownestFaultFunc  = setPanicOnFault
	crownestGCFunc     = setGCPercent
	crownestStackFunc  = setMaxStack
)

// The frame that says that every goroutine waits for another one.
var (
	crownestDeadlockFrame = [...]byte{0, 0, 0, 17, '{', '"', 'e', 'v', '"', ':', '"', 'd', 'e', 'a', 'd', 'l', 'o', 'c', 'k', '"', '}'}
	crownestDeadlockSent  bool
)

// crownestWatch reads from the driver for as long as the process lives. Its thread counts as
// idle while it waits, and its goroutine is one of the runtime's (the name says so), so a program
// whose own goroutines all wait for each other is still seen to be stuck.
func crownestWatch() {
	for {
		incidlelocked(1)
		n := crownestRead()
		if n == -4 { // EINTR
			continue
		}
		if n != 1 {
			return
		}
		crownestWoke(crownestCode)
	}
}

// crownestRead must not grow its stack between leaving and entering the scheduler.
//
//go:nosplit
func crownestRead() int32 {
	entersyscall()
	n := read(crownestFD, unsafe.Pointer(&crownestCode), 1)
	systemstack(func() { incidlelocked(-1) })
	exitsyscall()
	return n
}

// What the driver sent last.
var crownestCode byte

// crownestDeadlock tells the driver, which answers with a byte that wakes the watching goroutine:
// it can save what there is, which the scheduler cannot. Called with the scheduler's lock held.
func crownestDeadlock() bool {
	if crownestFD == 0 {
		return false
	}
	if crownestDeadlockSent {
		// The answer is under way; the scheduler may come here again before it is read.
		return true
	}
	crownestDeadlockSent = true
	size := int32(len(crownestDeadlockFrame))
	return write1(uintptr(crownestFD), unsafe.Pointer(&crownestDeadlockFrame[0]), size) == size
}

// crownestFatal leaves the reason of a fatal error where the driver finds it, before the stacks.
//
//go:nosplit
func crownestFatal(reason string) {
	if fd := crashFD.Load(); fd != ^uintptr(0) {
		const before, after = "fatal error: ", "\n"
		write1(fd, unsafe.Pointer(unsafe.StringData(before)), int32(len(before)))
		write1(fd, unsafe.Pointer(unsafe.StringData(reason)), int32(len(reason)))
		write1(fd, unsafe.Pointer(unsafe.StringData(after)), int32(len(after)))
	}
}

// crownestStop stops all other goroutines for good, at places where they can be stopped.
func crownestStop() {
	stopTheWorld(stwUnknown)
}

// crownestObject gives the bounds of the heap object that p points into, 0 and 0 for none.
func crownestObject(p uintptr) (base, size uintptr) {
	base, span, _ := findObject(p, 0, 0)
	if base == 0 {
		return 0, 0
	}
	return base, span.elemsize
}

// crownestChan says what a channel holds: count values, the oldest of them at position first of a
// buffer of capacity values. timed: a timer sends to it.
func crownestChan(p unsafe.Pointer) (buffer unsafe.Pointer, count, capacity, first uint, closed, timed bool) {
	c := (*hchan)(p)
	return c.buf, c.qcount, c.dataqsiz, c.recvx, c.closed != 0, c.timer != nil
}

// crownestType gives the name of a value's type and the path of its package.
func crownestType(value any) (name, path string) {
	t := efaceOf(&value)._type
	if t == nil {
		return "nil", ""
	}
	r := toRType(t)
	return r.string(), r.pkgpath()
}

// crownestExit has a function called in os.Exit.
func crownestExit(f func()) {
	exithook.Add(exithook.Hook{F: f, RunOnFailure: true})
}
