package process

import (
	"syscall"
	"unsafe"
)

// memfd is a system call that package syscall does not have.
func memfd(call uintptr, name *byte, flags uintptr) (int, error) {
	fd, _, errno := syscall.Syscall(call, uintptr(unsafe.Pointer(name)), flags, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// waitFor waits until a child can be waited for.
func waitFor(pid int) {
	const isPid, exited, leave = 1, 4, 0x1000000
	var info [128]byte
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, isPid, uintptr(pid), uintptr(unsafe.Pointer(&info)), exited|leave, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}
