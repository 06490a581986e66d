package cell

import (
	"io"
	"syscall"
	"unsafe"
)

const (
	// Longest line that Input returns.
	lineBytesMax = 1 << 20
	statModeFIFO = syscall.S_IFIFO
	pollIn       = 1
)

type pollFD struct {
	fd      int32
	events  int16
	revents int16
}

// The pipe on which the driver answers, as it was when the cell began.
var stdin struct{ device, inode uint64 }

// prepareStdin finds out whether somebody can answer: then standard input is a pipe.
func prepareStdin() {
	var stat syscall.Stat_t
	if syscall.Fstat(0, &stat) == nil && stat.Mode&syscall.S_IFMT == statModeFIFO {
		stdin.device, stdin.inode = stat.Dev, stat.Ino
		stdinHook = func() { ask("", false) }
	}
}

// ask asks the driver for a line unless there is something to read already, or descriptor 0 is
// no longer what it was. The line, or the end of the file, then comes through the pipe.
func ask(prompt string, password bool) {
	var stat syscall.Stat_t
	if stdin.inode == 0 || syscall.Fstat(0, &stat) != nil || stat.Dev != stdin.device || stat.Ino != stdin.inode {
		return
	}
	poll := pollFD{fd: 0, events: pollIn}
	var atOnce syscall.Timespec
	if n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&atOnce)), 0, 0, 0); n != 0 {
		return
	}
	b := AppendString(append([]byte(nil), `{"ev":"input","prompt":`...), cut(prompt, messageBytesMax))
	if password {
		send(append(b, `,"password":true}`...))
	} else {
		send(append(b, `,"password":false}`...))
	}
}

// Input asks for a line, without its end. It fails where nobody answers.
func Input(prompt string, password bool) (string, error) {
	ask(prompt, password)
	var line []byte
	for len(line) < lineBytesMax {
		var one [1]byte
		n, err := syscall.Read(0, one[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return string(line), err
		}
		if n == 0 {
			if len(line) > 0 {
				return string(line), nil
			}
			return "", io.EOF
		}
		if one[0] == '\n' {
			break
		}
		line = append(line, one[0])
	}
	return string(line), nil
}
