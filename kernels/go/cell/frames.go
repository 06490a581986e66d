package cell

import (
	"sync"
	"syscall"
	"unsafe"
)

// Longest frame; the driver's own limit towards init, less what it adds.
const frameBytesMax = 12<<20 - 4096

var sending sync.Mutex

// send writes one frame: its length, big endian, and JSON. A socket that is gone is the
// driver's to notice.
func send(body []byte) {
	if controlFD == 0 || len(body) > frameBytesMax {
		return
	}
	sending.Lock()
	defer sending.Unlock()
	frame := append(header(len(body)), body...)
	for len(frame) > 0 {
		n, err := syscall.Write(int(controlFD), frame)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return
		}
		frame = frame[n:]
	}
}

func header(n int) []byte {
	return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// sendEnd writes the last frame, with the memory file that has the state. The world may have been
// stopped, so nothing here may wait for another goroutine.
func sendEnd(saved Saved, directory string, environment []string, others int) {
	b := append([]byte(nil), `{"ev":"end","cwd":`...)
	b = AppendString(b, directory)
	if environment != nil {
		b = append(b, `,"env":[`...)
		for i, entry := range environment {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendString(b, entry)
		}
		b = append(b, ']')
	}
	b = append(b, `,"goroutines":`...)
	b = appendDecimal(b, int64(others))
	if saved.Parts != nil {
		b = append(b, `,"state":`...)
		b = append(b, saved.Parts...)
	}
	b = append(b, '}')
	rawSend(b, saved.FD)
}

func rawSend(body []byte, fd int) {
	if controlFD == 0 || len(body) > frameBytesMax {
		return
	}
	frame := append(header(len(body)), body...)
	sent := 0
	if fd >= 0 {
		sent = sendWithFD(frame, fd)
	}
	for sent < len(frame) {
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(controlFD), uintptr(unsafe.Pointer(&frame[sent])), uintptr(len(frame)-sent))
		if err == syscall.EINTR {
			continue
		}
		if err != 0 {
			return
		}
		sent += int(n)
	}
}

// sendWithFD passes the descriptor along with the first byte of the frame.
func sendWithFD(frame []byte, fd int) int {
	rights := syscall.UnixRights(fd)
	piece := syscall.Iovec{Base: &frame[0], Len: 1}
	message := syscall.Msghdr{Iov: &piece, Iovlen: 1, Control: &rights[0], Controllen: uint64(len(rights))}
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(controlFD), uintptr(unsafe.Pointer(&message)), 0)
		if err == syscall.EINTR {
			continue
		}
		if err != 0 {
			return 0
		}
		return int(n)
	}
}

const hexDigits = "0123456789abcdef"

// AppendString appends a JSON string. What is not UTF-8 becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < 0x20 || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

func appendDecimal(b []byte, n int64) []byte {
	if n < 0 {
		b = append(b, '-')
	} else {
		n = -n
	}
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' - n%10)
		n /= 10
		if n == 0 {
			return append(b, digits[i:]...)
		}
	}
}

// AppendInt appends a number in decimal.
func AppendInt(b []byte, n int64) []byte { return appendDecimal(b, n) }
