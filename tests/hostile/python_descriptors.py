"""Attacks on the descriptors that an interpreter has: its streams and its line to init."""

from __future__ import annotations

from arena import Arena, text
from table import Attack, Json, plain

# The interpreter's own end of the control socket, as the kernel's code knows it.
CONTROL = """
import fcntl, json, os, socket, struct, sys, time
from crownest_kernel import display as _display
kernel = _display._kernel
control = kernel.channel.fd
def say(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(control, data):]
"""


def prints_again(arena: Arena, run: Json) -> None:
    """What a run closed or replaced is back in the next one."""
    after = arena.run(
        "import os, sys\nprint('out')\nprint('err', file=sys.stderr)\nos.system('echo sub')"
    )
    assert (text(after), after["stderr"]) == ("out\nsub\n", ["err\n"]), after


def control(code: str) -> str:
    """Code that knows its control socket."""
    return f"{CONTROL}\n{plain(code)}"


def cannot_be_opened(arena: Arena, run: Json) -> None:
    """Not even its own pipes: they are another user's. Only /dev/null can."""
    refused = text(run).splitlines()
    assert {"1 EACCES", "2 EACCES"} <= set(refused) and "0" in refused, refused
    assert not any("garbage" in line for line in refused)


def stdout_is(expected: str):
    def check(arena: Arena, run: Json) -> None:
        assert text(run) == expected, run
        prints_again(arena, run)

    return check


DESCRIPTORS = [
    Attack(
        name="garbage to every descriptor",
        does="writes 9 kB of garbage to each descriptor it has, the control socket among them",
        code=r"""
            import os
            for fd in range(3, 1024):
                try: os.write(fd, b'\xff\x00garbage' * 1000)
                except OSError: pass
        """,
        outcome="context_died",
        error="ContextDied",
        message="bad_frame",
        kept=False,
    ),
    Attack(
        name="garbage through /proc/self/fd",
        does="opens every `/proc/self/fd/*` anew and writes to it",
        code="""
            import errno, os
            for name in os.listdir('/proc/self/fd'):
                try:
                    with open('/proc/self/fd/' + name, 'wb', buffering=0) as f: f.write(b'garbage')
                    print(name)
                except OSError as error: print(name, errno.errorcode[error.errno])
        """,
        sees="that it may not: pipes are init's, and sockets cannot be opened",
        proof=cannot_be_opened,
    ),
    Attack(
        name="closes fds 1 and 2",
        does="closes stdout and stderr, then prints",
        code="""
            import os
            os.close(1); os.close(2)
            print('into the void', flush=True)
        """,
        error="OSError",
        message="Bad file descriptor",
        sees="the error of its own print, and what it printed once stdout is back",
        proof=stdout_is("into the void\n"),
    ),
    Attack(
        name="closes everything",
        does="closes descriptors 0 to 65,535",
        code="""
            import os
            os.closerange(0, 65536)
        """,
        outcome="context_died",
        error="ContextDied",
        kept=False,
    ),
    Attack(
        name="files in place of fds 1 and 2",
        does="puts a file under stdout and stderr and leaves it there",
        code="""
            import os
            f = os.open('/tmp/f', os.O_CREAT | os.O_WRONLY)
            os.dup2(f, 1); os.dup2(f, 2)
            print('to the file')
        """,
        sees="nothing: it went to the file; the next run prints again",
        proof=stdout_is(""),
    ),
    Attack(
        name="stdout does not block",
        does="sets O_NONBLOCK on stdout, as careless programs do, and prints 4 MB",
        code="""
            import os
            os.set_blocking(1, False)
            try: print('x' * 4_000_000)
            except BlockingIOError: pass
        """,
        sees="what the pipe took; the next run prints everything again",
        aftermath=lambda arena: four_megabytes(arena),
    ),
    Attack(
        name="closes its control socket",
        does="closes the socket to init and goes on",
        code=control("""
            os.close(control)
            time.sleep(30)
        """),
        outcome="context_died",
        error="ContextDied",
        kept=False,
    ),
    Attack(
        name="file over its control socket",
        does="puts /dev/null over the socket to init, so that `done` is never heard",
        code=control("""
            os.dup2(os.open('/dev/null', os.O_RDWR), control)
        """),
        outcome="context_died",
        error="ContextDied",
        kept=False,
    ),
    Attack(
        name="control socket held by a child",
        does="puts another socket over it, while a daemon keeps the real one open",
        code=control("""
            keep = os.dup(control)
            if os.fork() == 0:
                os.setsid(); os.set_inheritable(keep, True)
                os.execv('/bin/sleep', ['sleep', '60'])
            os.close(keep)
            ends = socket.socketpair(); os.dup2(ends[0].fileno(), control)
        """),
        outcome="timed_out",
        error="TimeoutError",
        message="state is lost",
        timeout_ms=700,
        kept=False,
        left=1,
    ),
    Attack(
        name="stdout over the control socket",
        does="exchanges stdout and the control socket, so that prints are read as frames",
        code=control("""
            os.dup2(control, 1)
            os.write(1, b'x' * 4096)
            time.sleep(30)
        """),
        outcome="context_died",
        error="ContextDied",
        message="bad_frame",
        kept=False,
    ),
    Attack(
        name="control socket shut down",
        does="shuts the socket down in both directions",
        code=control("""
            socket.socket(fileno=os.dup(control)).shutdown(2)
            time.sleep(30)
        """),
        outcome="context_died",
        error="ContextDied",
        kept=False,
    ),
    Attack(
        name="control socket does not block",
        does="sets O_NONBLOCK on the control socket and displays 30 MB",
        code=control("""
            os.set_blocking(control, False)
            for _ in range(10): display('x' * 3_000_000)
        """),
        sees="every output, whole",
        proof=lambda arena, run: ten_outputs(run),
    ),
    Attack(
        name="closes what its streams are mended with",
        does="closes the interpreter's own copies of fds 0 to 2",
        code=control("""
            for fd in kernel.streams._saved.values(): os.close(fd)
        """),
        proof=stdout_is(""),
    ),
    Attack(
        name="all descriptors used up",
        does="opens /dev/null until EMFILE and keeps them",
        code="""
            import os, resource
            n = []
            try:
                while True: n.append(os.open('/dev/null', 0))
            except OSError as error: print(error.strerror, len(n) > 500)
        """,
        sees="`Too many open files` in its own code; the next run has the same shortage",
        proof=stdout_is("Too many open files True\n"),
    ),
]


def four_megabytes(arena: Arena) -> None:
    after = arena.run("print('x' * 4_000_000)")
    assert "error" not in after and len(text(after)) == 4_000_001, (
        after.get("error"),
        len(text(after)),
    )


def ten_outputs(run: Json) -> None:
    assert len(run["outputs"]) == 10, len(run["outputs"])
