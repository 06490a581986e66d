package cell

import "unsafe"

// The runtime and package os as cells have them (_hooks/) set or read these. In a program that
// was built with the plain standard library, such as a test, the functions are nil.

//go:linkname panicHook runtime.crownestPanic
var panicHook func(value any)

//go:linkname wokeHook runtime.crownestWoke
var wokeHook func(code byte)

//go:linkname controlFD runtime.crownestFD
var controlFD int32

//go:linkname watch runtime.crownestWatchFunc
var watch func()

//go:linkname stopWorld runtime.crownestStopFunc
var stopWorld func()

//go:linkname objectBounds runtime.crownestObjectFunc
var objectBounds func(p uintptr) (base, size uintptr)

//go:linkname chanContent runtime.crownestChanFunc
var chanContent func(p unsafe.Pointer) (buffer unsafe.Pointer, count, capacity, first uint, closed, timed bool)

//go:linkname typeName runtime.crownestTypeFunc
var typeName func(value any) (name, path string)

//go:linkname stdinHook os.crownestStdin
var stdinHook func()

//go:linkname atExit runtime.crownestExitFunc
var atExit func(f func())

//go:linkname setCrashFD runtime.crownestCrashFunc
var setCrashFD func(fd uintptr) uintptr

//go:linkname clock runtime.crownestClockFunc
var clock func() int64

//go:linkname panicOnFault runtime.crownestFaultFunc
var panicOnFault func(on bool) bool

//go:linkname gcPercent runtime.crownestGCFunc
var gcPercent func(percent int32) int32

//go:linkname setMaxStack runtime.crownestStackFunc
var setMaxStack func(bytes int) int

// PanicOnFault makes reading from nowhere a panic on this goroutine, and not the end of the process.
func PanicOnFault(on bool) {
	if panicOnFault != nil {
		panicOnFault(on)
	}
}

// WithoutGC runs a function while nothing is collected.
func WithoutGC(f func()) {
	if gcPercent == nil {
		f()
		return
	}
	percent := gcPercent(-1)
	defer gcPercent(percent)
	f()
}

// Clock reads the system's monotonic clock; 0 where nobody knows it.
func Clock() int64 {
	if clock == nil {
		return 0
	}
	return clock()
}

// ObjectBounds gives the bounds of the heap object that p points into. ok is false where nobody
// knows, and for memory outside the heap.
func ObjectBounds(p uintptr) (base, size uintptr, ok bool) {
	if objectBounds == nil {
		return 0, 0, false
	}
	base, size = objectBounds(p)
	return base, size, base != 0
}

// ChanContent tells what a channel holds; ok is false where the runtime does not say.
func ChanContent(p unsafe.Pointer) (content Channel, ok bool) {
	if chanContent == nil {
		return Channel{}, false
	}
	content.Buffer, content.Count, content.Capacity, content.First, content.Closed, content.Timed = chanContent(p)
	return content, true
}

// Channel is what a channel holds: Count values, the oldest at position First of a ring.
type Channel struct {
	Buffer                 unsafe.Pointer
	Count, Capacity, First uint
	Closed, Timed          bool
}
