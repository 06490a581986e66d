// Driver is the Go kernel of a context: it speaks kernels/PROTOCOL.md with init.
//
//	driver GOROOT [PREPARED]         serves a context
//	driver prepare GOROOT SOURCE OUT compiles what cells link, once for each toolchain
//
// What was prepared for the toolchain in /opt/go/1.27 is in 1.27 beside the driver.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"crownest/internal/protocol"
	"crownest/internal/session"
	"crownest/internal/stdlib"
	"crownest/internal/toolchain"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crownest go driver:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 4 && arguments[0] == "prepare":
		return stdlib.Prepare(arguments[1], arguments[2], arguments[3])
	case len(arguments) == 2:
		return serve(arguments[0], arguments[1])
	case len(arguments) == 1:
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return serve(arguments[0], filepath.Join(filepath.Dir(self), filepath.Base(arguments[0])))
	}
	return fmt.Errorf("usage: driver GOROOT [PREPARED], or driver prepare GOROOT SOURCE OUT")
}

func serve(goroot, prepared string) error {
	// Interrupts come as frames; the signal that follows is for drivers that need one. Ignoring it
	// would be inherited by every program that a cell starts.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	tools, err := toolchain.Open(goroot, prepared)
	if err != nil {
		return err
	}
	conn, err := protocol.Inherited()
	if err != nil {
		return err
	}
	return session.New(conn, tools).Serve()
}
