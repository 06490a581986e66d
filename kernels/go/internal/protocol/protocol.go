// Package protocol speaks kernels/PROTOCOL.md with init: frames of a length and JSON on one socket.
package protocol

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// FrameBytesMax is the longest frame that the protocol allows.
const FrameBytesMax = 12 << 20

// An Op is what init asks for. Fields that an op does not have are zero.
type Op struct {
	Op     string            `json:"op"`
	Run    uint64            `json:"run"`
	Code   string            `json:"code"`
	Cwd    string            `json:"cwd"`
	Env    map[string]string `json:"env"`
	Input  bool              `json:"input"`
	Value  *string           `json:"value"`
	Query  string            `json:"query"`
	Cursor int               `json:"cursor"`
	Detail int               `json:"detail"`
	Limit  int               `json:"limit"`
}

// Conn is the socket.
type Conn struct {
	file    *os.File
	sending sync.Mutex
}

// Inherited takes the socket that the environment names, and the name out of the environment.
func Inherited() (*Conn, error) {
	const variable = "CROWNEST_KERNEL_FD"
	fd, err := strconv.Atoi(os.Getenv(variable))
	if err != nil {
		return nil, fmt.Errorf("%s names no descriptor: %w", variable, err)
	}
	os.Unsetenv(variable)
	syscall.CloseOnExec(fd)
	return &Conn{file: os.NewFile(uintptr(fd), "init")}, nil
}

// Read waits for the next op.
func (c *Conn) Read() (*Op, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.file, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > FrameBytesMax {
		return nil, errors.New("a frame above the protocol's limit")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.file, body); err != nil {
		return nil, err
	}
	op := &Op{}
	if err := json.Unmarshal(body, op); err != nil {
		return nil, err
	}
	return op, nil
}

// Send writes one event of a run; the fields must make an object.
func (c *Conn) Send(event any) {
	body, err := json.Marshal(event)
	if err != nil {
		return
	}
	c.SendRaw(body)
}

// SendRaw writes one event that is JSON already. One that is too long is left out.
func (c *Conn) SendRaw(body []byte) {
	if len(body) > FrameBytesMax {
		return
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	// When init is gone, so is the driver: the read fails.
	_, _ = c.file.Write(append(frame, body...))
}

// Ready is the first event.
type Ready struct {
	Ev       string `json:"ev"`
	Language string `json:"language"`
	Version  string `json:"version"`
}

// Error says why a run failed.
type Error struct {
	Ev        string   `json:"ev"`
	Run       uint64   `json:"run"`
	Name      string   `json:"name"`
	Message   string   `json:"message"`
	Traceback []string `json:"traceback"`
	Line      int      `json:"line,omitempty"`
}

// Notice says something about a run that is no error.
type Notice struct {
	Ev      string `json:"ev"`
	Run     uint64 `json:"run"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Input asks for a line.
type Input struct {
	Ev       string `json:"ev"`
	Run      uint64 `json:"run"`
	Prompt   string `json:"prompt"`
	Password bool   `json:"password"`
}

// Clear takes away what was shown.
type Clear struct {
	Ev   string `json:"ev"`
	Run  uint64 `json:"run"`
	Wait bool   `json:"wait"`
}

// Answer answers a query.
type Answer struct {
	Ev     string `json:"ev"`
	Run    uint64 `json:"run"`
	Answer any    `json:"answer"`
}

// Done ends a run.
type Done struct {
	Ev     string `json:"ev"`
	Run    uint64 `json:"run"`
	Status string `json:"status"`
	Count  int    `json:"count"`
	CPU    int64  `json:"cpu_us"`
}

// Bundle is a result or display whose data a cell's program made.
type Bundle struct {
	Ev        string
	Run       uint64
	Data      json.RawMessage
	Metadata  json.RawMessage
	DisplayID string
	Update    bool
	Count     int
}

// SendBundle writes it without encoding the data again.
func (c *Conn) SendBundle(b *Bundle) {
	body := fmt.Appendf(nil, `{"ev":%q,"run":%d,"data":%s,"metadata":%s`, b.Ev, b.Run, orEmpty(b.Data), orEmpty(b.Metadata))
	if b.Ev == "result" {
		body = fmt.Appendf(body, `,"count":%d`, b.Count)
	}
	if b.DisplayID != "" {
		id, _ := json.Marshal(b.DisplayID)
		body = fmt.Appendf(body, `,"display_id":%s`, id)
	}
	if b.Update {
		body = append(body, `,"update":true`...)
	}
	c.SendRaw(append(body, '}'))
}

// orEmpty makes sure that it is an object.
func orEmpty(data json.RawMessage) json.RawMessage {
	if len(data) == 0 || data[0] != '{' {
		return json.RawMessage("{}")
	}
	return data
}
