"""Cells that try to break the Go kernel, by accident or not: the context goes on with its state, or
dies so that everybody sees it. Nothing hangs."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from go_fixtures import notices, ok, own, toolchain  # noqa: F401
from harness import Died

# Longest time that any of these cells takes when nothing is wrong.
CELL_SECONDS_MAX = 60

# What is there before each of them, and after.
KEPT = "kept := 40\ntable := map[string]int{`a`: 2}"
ALIVE, ALIVE_TEXT = "kept + table[`a`]", "42"

# Finds the cell's socket to the driver.
SOCKET = """
func socket() int {
	for fd := 3; fd < 1024; fd++ {
		if kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err == nil && kind == syscall.SOCK_STREAM {
			return fd
		}
	}
	return -1
}
func frame(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}
"""
IMPORT = 'import "encoding/binary"\n' + SOCKET
OWN_FILES = (
    "found, _ := filepath.Glob(filepath.Join(os.TempDir(), `.crownest-go-*`, `*`))\n"
)

# Whatever comes of them, the state is what it was: name, code.
SURVIVED = [
    ("exit", "os.Exit(7)"),
    ("exit in a goroutine", "go os.Exit(7)\nselect {}"),
    ("exit by system call", "syscall.Exit(9)"),
    ("panic in a goroutine", "go func() { panic(`there`) }()\nselect {}"),
    ("panic with nil", "panic(nil)"),
    ("panic in a deferred function", "defer func() { panic(2) }()\npanic(1)"),
    ("panic with itself", "type E struct{}\nfunc (e E) Error() string { panic(e) }\npanic(E{})"),
    ("panic in init", "func init() { panic(`early`) }"),
    ("many init functions", "func init() { println(1) }\nfunc init() { println(2) }\nfunc init() { os.Exit(3) }"),
    ("whole program that panics", "package main\nfunc main() { panic(`whole`) }"),
    ("main that calls itself", "package main\nfunc main() { main() }"),
    ("end of the main goroutine", "runtime.Goexit()"),
    ("nothing to wait for", "select {}"),
    ("lock twice", "var mu sync.Mutex\nmu.Lock()\nmu.Lock()"),
    ("unlock of nothing", "var mu sync.Mutex\nmu.Unlock()"),
    ("concurrent map writes", "m := map[int]int{}\nfor range 8 { go func() { for { m[1]++ } }() }\nfor { m[2]++ }"),
    ("deep recursion", "func deep(n int) int { return deep(n+1) + 1 }\ndeep(0)"),
    ("bad pointer", "import \"unsafe\"\n*(*int)(unsafe.Pointer(uintptr(1))) = 1"),
    ("wild pointer", "import \"unsafe\"\n*(*int)(unsafe.Pointer(uintptr(0xdeadbeef000))) = 1"),
    ("illegal instruction", "syscall.Kill(os.Getpid(), syscall.SIGILL)\nselect {}"),
    ("aborted", "syscall.Kill(os.Getpid(), syscall.SIGABRT)\nselect {}"),
    ("killed", "syscall.Kill(os.Getpid(), syscall.SIGKILL)\nselect {}"),
    ("its group killed", "syscall.Kill(0, syscall.SIGKILL)\nselect {}"),
    ("interrupts itself", "syscall.Kill(os.Getpid(), syscall.SIGINT)\nselect {}"),
    ("interrupts the driver", "syscall.Kill(os.Getppid(), syscall.SIGINT)"),
    ("descriptors closed", "for fd := range 2000 { syscall.Close(fd) }"),
    ("descriptors closed, then a panic", "for fd := range 2000 { syscall.Close(fd) }\npanic(`after`)"),
    ("descriptors replaced", "null, _ := os.Open(`/dev/null`)\nfor fd := range 2000 { if fd != int(null.Fd()) { syscall.Dup2(int(null.Fd()), fd) } }"),
    ("all descriptors in use", "syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1000, Max: 1000})\nfor { if _, err := os.Open(`/dev/null`); err != nil { break } }"),
    ("stdout gone", "os.Stdout.Close()\nfmt.Println(`nowhere`)\nos.Stdout = nil\nfmt.Println(`nowhere`)"),
    ("garbage on every descriptor", "for fd := 3; fd < 2000; fd++ { syscall.Write(fd, []byte(strings.Repeat(`garbage`, 1000))) }"),
    ("a frame that never comes", IMPORT + "syscall.Write(socket(), []byte{0, 0, 1, 0, 'x'})"),
    ("a frame that is too long", IMPORT + "syscall.Write(socket(), []byte{0xff, 0xff, 0xff, 0xff})"),
    ("frames that are no JSON", IMPORT + "for range 100 { syscall.Write(socket(), frame(`{\"ev\":`)) }"),
    ("frames of other kinds", IMPORT + "for _, ev := range []string{`done`, `ready`, `answer`, `input`, `stopped`, `panic`, `deadlock`, `exit`} { syscall.Write(socket(), frame(`{\"ev\":\"`+ev+`\",\"run\":1,\"status\":\"ok\"}`)) }"),
    ("frames with bytes that are no text", IMPORT + "syscall.Write(socket(), frame(\"{\\\"ev\\\":\\\"display\\\",\\\"data\\\":{\\\"text/plain\\\":\\\"\\xff\\xfe\\\"}}\"))"),
    ("an end with no state", IMPORT + "syscall.Write(socket(), frame(`{\"ev\":\"end\",\"cwd\":\"/no/such\",\"env\":[\"\",\"=\",\"A\"],\"goroutines\":-1}`))\nos.Exit(0)"),
    ("an end with a state of nothing", IMPORT + "syscall.Write(socket(), frame(`{\"ev\":\"end\",\"state\":{\"parts\":[{\"offset\":0,\"length\":1099511627776,\"variables\":[{\"name\":\"kept#1\"}]}]}}`))\nselect {}"),
    ("hundreds of notices", IMPORT + "for range 500 { syscall.Write(socket(), frame(`{\"ev\":\"notice\",\"code\":\"x\",\"message\":\"y\"}`)) }"),
    ("many children", "for range 100 { exec.Command(`sh`, `-c`, `sleep 0.2 & sleep 0.2 & sleep 0.2`).Start() }"),
    ("children that have children", "var c [30]*exec.Cmd\nfor i := range c { c[i] = exec.Command(`sh`, `-c`, `for i in 1 2 3 4 5 6 7 8; do (sleep 0.1; sleep 0.1) & done; wait`); c[i].Start() }\nfor i := range c { c[i].Wait() }"),
    ("forks without exec", "for range 20 { if pid, _, _ := syscall.RawSyscall(syscall.SYS_FORK, 0, 0, 0); pid == 0 { for { syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0) } } }"),
    ("a child that nobody can end", "exec.Command(`sh`, `-c`, `trap '' INT TERM HUP QUIT; sleep 30`).Start()"),
    ("ten thousand goroutines", "for range 10_000 { go func() { select {} }() }"),
    ("goroutines that write while it ends", "n := map[int]int{}\nvar mu sync.Mutex\nfor range 4 { go func() { for i := 0; ; i++ { mu.Lock(); n[i%100] = i; mu.Unlock() } }() }"),
    ("huge array", "var huge [1 << 50]byte\nhuge[0] = 1"),
    ("large array", "var large [1 << 36]byte\nlarge[0] = 1"),
    ("huge slice", "huge := make([]byte, 1<<46)\nhuge[0] = 1"),
    ("negative slice", "n := -1\nhuge := make([]byte, n)\nhuge[0] = 1"),
    ("huge constant", "const huge = 1 << 100000\nfmt.Println(huge)"),
    ("type in itself", "type Inside struct { inside Inside }"),
    ("type without end", "type Endless[T any] struct { next *Endless[[2]T] }\nvar endless Endless[int]"),
    ("interface in itself", "type Loop interface { Loop }"),
    ("initialisation cycle", "package main\nvar a = b\nvar b = a\nfunc main() {}"),
    ("import of itself", "import \"main\""),
    ("import of the kernel", "import \"crownest/cell/keep\""),
    ("import of internal packages", "import \"internal/poll\""),
    ("relative import", "import \"./x\""),
    ("cgo", "// int x;\nimport \"C\"\nC.x"),
    ("unfinished everything", "func f( { if for switch [[["),
    ("only a bracket", "}"),
    ("two functions' ends", "fmt.Println(1)\n}\nfunc g() {"),
    ("names of the kernel", "crownest_cell()"),
    ("names of the kernel in a dialect", "/*line main.go:1:1*/ //line /cells/main.go:7\npanic(`here`)"),
    ("zero bytes", "x := `\x00`\n\x00"),
    ("marks of the kernel", "x := \"\x01\x02\x03\""),
    ("deep brackets", "x := " + "(" * 1500 + "1" + ")" * 1500),
    ("too deep brackets", "x := " + "(" * 100_000 + "1" + ")" * 100_000),
    ("long sum", "x := " + "1+" * 9_000 + "1"),
    ("too long sum", "x := " + "1+" * 200_000 + "1"),
    ("many else", "if kept == 0 {} " + "else if kept == 1 {} " * 3_000),
    ("many pointers", "var p " + "*" * 5_000 + "int"),
    ("many functions of functions", "var f " + "func() " * 3_000),
    ("long text", "x := `" + "x" * 2_000_000 + "`"),
    ("many variables", "\n".join("v%d := %d" % (i, i) for i in range(1_000))),
    ("predeclared names taken", "type int string\ntype string bool\ntype error struct{}\nfunc len() {}\nfunc append() {}\nvar nil = true\nconst iota, true = 1, 2"),
    ("packages' names taken", "fmt := 1\nos := 2\nvar strings, exec, runtime int\nfunc cell() {}"),
    ("result that panics", "type P struct{}\nfunc (P) String() string { panic(`no`) }\nfunc (P) MIMEBundle() map[string]any { panic(`no`) }\nP{}"),
    ("result in itself", "m := map[string]any{}\nm[`m`] = m\nm"),
    ("list in itself", "l := []any{nil}\nl[0] = l\nl"),
    ("result that is too long", "strings.Repeat(`x`, 9<<20)"),
    ("bundle of anything", "type B struct{}\nfunc (B) MIMEBundle() map[string]any { return map[string]any{``: 1, `a/b`: make(chan int), `application/json`: math.NaN(), `image/png`: 7} }\nB{}"),
    ("files like the generated", "for _, n := range []string{`cell.go`, `main.go`, `vars.go`, `cell.a`, `importcfg`, `go.mod`, `go.work`} { os.WriteFile(n, []byte(`garbage`), 0o644) }"),
    ("its files removed", OWN_FILES + "for _, f := range found { os.RemoveAll(filepath.Dir(f)) }"),
    ("its files are pipes", OWN_FILES + "for _, f := range found { os.RemoveAll(f); syscall.Mkfifo(f, 0o600) }"),
    ("pipes in its directories", OWN_FILES + "for _, f := range found { for _, n := range []string{`cell.go`, `main.go`, `vars.go`, `cell.a`, `importcfg`} { os.Remove(filepath.Join(f, n)); syscall.Mkfifo(filepath.Join(f, n), 0o600) } }"),
    ("no environment", "os.Clearenv()"),
    ("strange environment", "for _, n := range []string{`GOROOT`, `GOFLAGS`, `GOOS`, `GOCACHE`, `GOEXPERIMENT`, `GODEBUG`, `GOGC`, `GOMEMLIMIT`, `GOMAXPROCS`, `GOTRACEBACK`, `TMPDIR`, `LD_PRELOAD`, `HOME`} { os.Setenv(n, `/no/such`) }"),
    ("huge environment", "os.Setenv(`HUGE`, strings.Repeat(`x`, 1<<20))\nfor i := range 2000 { os.Setenv(fmt.Sprint(`V`, i), strings.Repeat(`x`, 1000)) }"),
    ("directory removed", "os.MkdirAll(`gone/deep`, 0o755)\nos.Chdir(`gone/deep`)\nos.RemoveAll(`../../gone`)"),
    ("reads all it can", "io.ReadAll(os.Stdin)\nfor fd := 3; fd < 1024; fd++ { syscall.SetNonblock(fd, true); syscall.Read(fd, make([]byte, 100)) }"),
    ("small limits", "for n := range 16 { syscall.Setrlimit(n, &syscall.Rlimit{}) }"),
    ("nothing", ""),
    ("a semicolon", ";"),
    ("only a comment", "// nothing"),
    ("a byte order mark", "\ufeffx := 1"),
    ("only a package", "package main"),
    ("another package", "package other\nfunc F() {}"),
    ("unknown command", "%rm -rf"),
    ("a command that fails", "%go no-such-command"),
    ("a command without end", "%go tool compile -V=full"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "code"), SURVIVED, ids=[name for name, _ in SURVIVED])
def test_the_context_survives(own, name, code):  # noqa: F811
    ok(own.run(KEPT))
    own.begin(code)
    own.finish(timeout=CELL_SECONDS_MAX)
    own.begin(ALIVE)
    after = own.finish(timeout=CELL_SECONDS_MAX)
    assert (after.status, after.text) == ("ok", ALIVE_TEXT), after.events


def test_a_cell_that_tears_its_memory_down_can_be_ended(own):  # noqa: F811
    """Its program may hang in the middle of failing; an interrupt ends that as any loop."""
    ok(own.run(KEPT))
    own.begin('import "unsafe"\nfmt.Println(`go`)\np := unsafe.Pointer(new(int))\nfor i := 0; ; i++ { *(*byte)(unsafe.Add(p, i)) = 0xff }')
    own.wait_output(b"go\n")
    own.interrupt(frame=True)
    assert own.finish(timeout=CELL_SECONDS_MAX).status in ("error", "interrupted")
    assert ok(own.run("40 + 2")).text == "42"


# What must be said of some of them: code, part of the error's message.
SAID = [
    ('import "C"', "cgo"),
    ('import "internal/poll"', "internal package"),
    ('import "crownest/cell"', "internal package"),
    ("type Inside struct { inside Inside }", "invalid recursive type"),
    ("package main\nvar a = b\nvar b = a\nfunc main() {}", "initialization cycle"),
    ("var huge [1 << 50]byte\nhuge[0] = 1", "large"),
    ("crownest_x := 1", "the kernel's own"),
    ("x := " + "(" * 100_000 + "1" + ")" * 100_000, "nested more than"),
    ("x := " + "1+" * 200_000 + "1", "operators"),
    ("//go:embed x\nvar s string", "go:embed"),
    ("%rm -rf", "unknown command"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "part"), SAID)
def test_what_cannot_be_is_said(own, code, part):  # noqa: F811
    run = own.run(code)
    assert run.status == "error"
    assert part in "\n".join(run.error["traceback"]), run.error


def test_cells_have_nothing_of_the_driver(own):  # noqa: F811
    """Not its socket to init, nor its environment; what a cell starts has three descriptors."""
    listing = "exec.Command(`ls`, `/proc/self/fd`).Output()"
    assert ok(own.run(f"out, _ := {listing}\nstring(out)")).text.split() == [
        "0",
        "1",
        "2",
        "3",
    ]
    inherited = set()
    for link in Path(f"/proc/{own.process.pid}/fd").iterdir():
        inherited.add(os.readlink(link))
    sockets = sorted(name for name in inherited if name.startswith("socket:"))
    code = """
	list, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range list {
		name, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		fmt.Println(name)
	}"""
    seen = ok(own.run(code)).out.split()
    assert sockets and not set(sockets) & set(seen)
    assert "CROWNEST" not in ok(own.run("strings.Join(os.Environ(), ` `)")).text


def test_garbage_does_not_reach_init(own):  # noqa: F811
    """Forged events are those of the run that forged them, and nothing else."""
    code = (
        IMPORT
        + """
	syscall.Write(socket(), frame(`{"ev":"result","data":{"text/plain":"forged"},"run":77,"count":9}`))
	syscall.Write(socket(), frame(`{"ev":"done","run":77,"status":"ok"}`))
	1"""
    )
    run = ok(own.run(code))
    assert [event["ev"] for event in run.events] == ["result", "done"]
    assert run.events[0]["count"] == 1


def test_a_driver_that_is_killed_is_seen(own):  # noqa: F811
    own.begin("syscall.Kill(os.Getppid(), syscall.SIGKILL)\nselect {}")
    with pytest.raises(Died):
        own.finish()
    own.wait_death()


def test_a_program_dies_with_its_driver(own, tmp_path):  # noqa: F811
    own.begin("fmt.Println(os.Getpid())\nfor {}")
    own.wait_output(b"\n")
    pidfd = os.pidfd_open(int(bytes(own.pipes[own.stdout])))
    own.process.kill()
    own.wait_death()
    ended, _, _ = select.select([pidfd], (), (), CELL_SECONDS_MAX)
    os.close(pidfd)
    assert ended, "the cell's program lives on"


# Each prints a line first. What ends them is the interrupt alone.
STUCK = [
    ("loop", "for {}"),
    ("system call", "syscall.Read(func() int { var p [2]int; syscall.Pipe(p[:]); return p[0] }(), make([]byte, 1))"),
    ("child that nobody can end", "exec.Command(`sh`, `-c`, `trap '' INT TERM HUP; while :; do sleep 0.1; done`).Run()"),
    ("stopped", "syscall.Kill(os.Getpid(), syscall.SIGSTOP)\nselect {}"),
    ("thread that is locked", "runtime.LockOSThread()\nfor {}"),
    ("no collector", "go func() { for { runtime.GC() } }()\nfor {}"),
    ("flood of goroutines", "for range 100 { go func() { for {} }() }\nfor {}"),
    ("flood of output", "for { fmt.Println(`flood`) }"),
    ("deferred loop", "defer func() { for {} }()\npanic(1)"),
]  # fmt: skip
# Here the program cannot save any more: the state is that of before.
TORN = [
    ("socket closed", "for fd := 3; fd < 1024; fd++ { syscall.Close(fd) }\nfor {}"),
    ("other group", "syscall.Setpgid(0, os.Getppid())\nfor fd := 3; fd < 1024; fd++ { syscall.Close(fd) }\nfor {}"),
    ("signals blocked", "signal.Ignore()\nfor fd := 3; fd < 1024; fd++ { syscall.Close(fd) }\nfor {}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"), STUCK + TORN, ids=[name for name, _ in STUCK + TORN]
)
def test_what_is_stuck_is_interrupted(own, name, code):  # noqa: F811
    ok(own.run(KEPT))
    own.begin("fmt.Println(`go`)\n" + code)
    own.wait_output(b"go\n")
    own.interrupt(frame=True)
    if "signal." in code:
        # Whoever handles signals is asked first.
        own.interrupt(frame=True)
    run = own.finish(timeout=CELL_SECONDS_MAX)
    assert run.status == "interrupted", run.events
    own.begin(ALIVE)
    after = own.finish(timeout=CELL_SECONDS_MAX)
    assert (after.status, after.text) == ("ok", ALIVE_TEXT), after.events


def test_jobs_of_a_cell_hold_nothing_of_the_driver(own):  # noqa: F811
    """Neither the end of a run nor that of the driver waits for a job."""
    code = "c := exec.Command(`sh`, `-c`, `trap '' HUP INT; sleep 60`)\nc.Stdout = os.Stdout\nc.Start();"
    ok(own.run(code))
    own.control.shutdown(2)
    own.wait_death()


@pytest.mark.parametrize(
    "end",
    [
        "os.Exit(1)",
        "panic(1)",
        "syscall.Kill(os.Getpid(), syscall.SIGKILL); select {}",
        "",
    ],
)
def test_a_sudden_end_loses_no_line(own, end):  # noqa: F811
    run = own.run("for i := range 2000 { fmt.Println(i) }\n" + end)
    assert run.out == "".join(f"{i}\n" for i in range(2000))


def test_much_output_on_both_streams(own):  # noqa: F811
    code = "line := strings.Repeat(`x`, 999) + `\n`\nfor range 20_000 { fmt.Print(line); fmt.Fprint(os.Stderr, line) }\nfmt.Print(`end`)"
    run = ok(own.run(code.replace("`\n`", '"\\n"')))
    assert (len(run.out), len(run.err)) == (20_000_003, 20_000_000)
    assert run.out.endswith("x\nend")


def test_what_an_environment_cannot_hold_is_said(own):  # noqa: F811
    run = ok(
        own.run(
            "os.Setenv(`SMALL`, `1`)\nos.Setenv(`HUGE`, strings.Repeat(`x`, 1<<20))"
        )
    )
    assert [code for code, _ in notices(run)] == ["environment_not_kept"]
    assert ok(own.run("os.Getenv(`SMALL`) + os.Getenv(`HUGE`)")).text == "1"


def test_notices_are_bounded(own):  # noqa: F811
    code = (
        IMPORT
        + 'for range 5000 { syscall.Write(socket(), frame(`{"ev":"notice","code":"x","message":"y"}`)) }'
    )
    said = notices(ok(own.run(code)))
    assert 10 < len(said) < 100
    assert "left out" in said[-1][1]


def test_tracebacks_name_the_cells_own_lines(own):  # noqa: F811
    run = own.run("//line other.go:100\nx := 1\n/*line third.go:7:7*/ panic(x)")
    assert (run.error["name"], run.error["line"]) == ("panic", 3)
