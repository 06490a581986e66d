"""Plays init for a driver of any language: a real socket pair, real pipes, real signals."""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ANSWER_TIMEOUT_S = 60.0
TEMPLATES = Path(os.environ.get("CROWNEST_TEMPLATES_DIR", "/var/lib/crownest/templates"))


def reachable(path):
    """Whether any user may go there: a forked interpreter imports late, and not as root."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def kernel():
    """The kernel's source; a copy where this checkout is closed to other users."""
    source = Path(__file__).resolve().parents[2] / "kernels" / "python"
    if reachable(source):
        return source
    directory = tempfile.mkdtemp(prefix="crownest-kernel-")
    os.chmod(directory, 0o755)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(shutil.copytree(source, Path(directory) / "python"))


def interpreter():
    """The interpreter under test: Debian's with the packages of the template, as in a sandbox;
    where there is none, the one that runs the tests."""
    if chosen := os.environ.get("CROWNEST_TEST_PYTHON"):
        return chosen
    lib = TEMPLATES / "python/current/rootfs/usr/local/lib"
    packages = lib / ("python%d.%d" % sys.version_info[:2]) / "dist-packages"
    debian = Path("/usr/bin/python%d.%d" % sys.version_info[:2])
    if debian.exists() and packages.is_dir() and reachable(packages):
        os.environ["PYTHONPATH"] = str(packages)
        return str(debian)
    print("SKIP: no Debian Python with template packages: forked tests may lack modules", file=sys.__stderr__)
    return sys.executable


KERNEL = kernel()
PYTHON = interpreter()


class Died(Exception):
    """The driver closed its control socket."""


class Run:
    """Everything one run said."""

    def __init__(self, events, stdout, stderr, seconds):
        self.events = events
        self.stdout = stdout
        self.stderr = stderr
        self.seconds = seconds

    @property
    def out(self):
        return self.stdout.decode()

    @property
    def err(self):
        return self.stderr.decode()

    def of(self, kind):
        return [event for event in self.events if event["ev"] == kind]

    @property
    def result(self):
        results = self.of("result")
        assert len(results) <= 1
        return results[0]["data"] if results else None

    @property
    def text(self):
        return self.result["text/plain"] if self.result else None

    @property
    def error(self):
        errors = self.of("error")
        return errors[0] if errors else None

    @property
    def answer(self):
        answers = self.of("answer")
        assert len(answers) <= 1
        return answers[0]["answer"] if answers else None

    @property
    def status(self):
        return self.events[-1]["status"]


class Peer:
    """Init's side of one context, however the driver came to be."""

    def __init__(self, control, stdout, stderr, pidfd):
        self.control = control
        self.pipes = {stdout: bytearray(), stderr: bytearray()}
        self.stdout, self.stderr = stdout, stderr
        self.pidfd = pidfd
        self.run_number = 0
        self.seen = []
        self.background = {}
        self._unread = b""
        for fd in self.pipes:
            os.set_blocking(fd, False)
        self.ready = self.event()

    def start(self, cwd="/tmp", env=None):
        self.send({"op": "start", "cwd": str(cwd), "env": env or {}})
        return self

    def send(self, op):
        body = json.dumps(op).encode()
        self.control.sendall(struct.pack(">I", len(body)) + body)

    def drain(self, fd):
        while True:
            try:
                piece = os.read(fd, 1 << 20)
            except BlockingIOError:
                return
            if not piece:
                return
            self.pipes[fd] += piece

    def event(self, timeout=ANSWER_TIMEOUT_S):
        """The next event; reads the pipes meanwhile, as init does."""
        end = time.monotonic() + timeout
        while True:
            if len(self._unread) >= 4:
                length = struct.unpack(">I", self._unread[:4])[0]
                assert length <= 12 * 1024 * 1024, "frame above the protocol's limit"
                if len(self._unread) >= 4 + length:
                    body = self._unread[4 : 4 + length]
                    self._unread = self._unread[4 + length :]
                    return json.loads(body.decode("utf-8"), parse_constant=_refuse)
            watched = [self.control, *self.pipes]
            ready, _, _ = select.select(watched, (), (), max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("no event: %r" % self.pipes)
            for fd in ready:
                if fd is self.control:
                    data = self.control.recv(1 << 20)
                    if not data:
                        for pipe in self.pipes:
                            self.drain(pipe)
                        raise Died(bytes(self.pipes[self.stderr]).decode(errors="replace"))
                    self._unread += data
                else:
                    self.drain(fd)

    def begin(self, code, **fields):
        self._begin({"op": "execute", "code": code, **fields})

    def begin_query(self, query, **fields):
        self._begin({"op": "query", "query": query, **fields})

    def _begin(self, op):
        """What came since the last run ended is kept as `background`, by stream."""
        self.run_number += 1
        names = {self.stdout: "stdout", self.stderr: "stderr"}
        for fd in self.pipes:
            self.drain(fd)
        self.background = {names[fd]: bytes(buffer) for fd, buffer in self.pipes.items()}
        for buffer in self.pipes.values():
            buffer.clear()
        self.send({**op, "run": self.run_number})

    def finish(self, began=None, reply=None, timeout=ANSWER_TIMEOUT_S):
        """Everything up to `done`. `reply`: called with an `input` event, gives the value."""
        # Kept where a driver that dies in between leaves them.
        events = self.seen = []
        end = time.monotonic() + timeout
        while not events or events[-1]["ev"] != "done":
            event = self.event(max(0.0, end - time.monotonic()))
            events.append(event)
            if event["ev"] == "input":
                assert reply is not None, "asked for input that nobody can give: %r" % event
                value = reply(event)
                self.send({"op": "input_reply", "run": event["run"], "value": value})
        for fd in self.pipes:
            self.drain(fd)
        seconds = time.perf_counter() - began if began else 0.0
        for event in events:
            assert event["run"] == self.run_number, event
        stdout, stderr = bytes(self.pipes[self.stdout]), bytes(self.pipes[self.stderr])
        for buffer in self.pipes.values():
            buffer.clear()
        return Run(events, stdout, stderr, seconds)

    def run(self, code, **fields):
        began = time.perf_counter()
        self.begin(code, **fields)
        return self.finish(began)

    def ask(self, query, **fields):
        """A query; the run's `answer` has what came of it."""
        began = time.perf_counter()
        self.begin_query(query, **fields)
        return self.finish(began)

    def wait_output(self, text, fd=None):
        """Until `text` has arrived on stdout, while the run goes on."""
        fd = self.stdout if fd is None else fd
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while text not in bytes(self.pipes[fd]):
            ready, _, _ = select.select([fd], (), (), end - time.monotonic())
            assert ready, "never printed: %r" % text
            self.drain(fd)

    def interrupt(self, frame=False):
        if frame:
            self.send({"op": "interrupt", "run": self.run_number})
        signal.pidfd_send_signal(self.pidfd, signal.SIGINT)

    def wait_death(self, timeout=ANSWER_TIMEOUT_S):
        ready, _, _ = select.select([self.pidfd], (), (), timeout)
        assert ready, "the driver lives on"

    def close(self):
        self.control.close()
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for fd in (self.stdout, self.stderr, self.pidfd):
            os.close(fd)


def _refuse(constant):
    raise AssertionError("%s is not JSON" % constant)


# The number that init gives it: what a runtime does with what it inherits depends on the number.
CONTROL_FD = 3
try:
    os.fstat(CONTROL_FD)
except OSError:
    # Popen passes on only what is open here as well.
    os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), CONTROL_FD, inheritable=False)


class Driver(Peer):
    """A driver of its own, started as init starts it: by default a fresh Python interpreter."""

    def __init__(self, python=PYTHON, env=None, argv=None, cwd=None):
        ours, theirs = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "CROWNEST_KERNEL_FD": str(CONTROL_FD),
            **(env or {}),
        }
        self.process = subprocess.Popen(
            argv or [python, str(KERNEL / "driver.py")],
            stdin=subprocess.DEVNULL,
            stdout=out_write,
            stderr=err_write,
            pass_fds=[CONTROL_FD],
            preexec_fn=lambda: os.dup2(theirs.fileno(), CONTROL_FD),
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
        theirs.close()
        os.close(out_write)
        os.close(err_write)
        super().__init__(ours, out_read, err_read, os.pidfd_open(self.process.pid))

    def close(self):
        """Ends the driver and, as init does, what it left behind in its session."""
        session = self.process.pid
        super().close()
        # Its number is nobody else's until it has been waited for.
        kill_session(session)
        self.process.wait()


def kill_session(session):
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.getsid(int(entry)) == session:
                    os.kill(int(entry), signal.SIGKILL)
            except OSError:
                pass


class Zygote:
    """A zygote, spoken to as the spawner does. `wrapper`: a command that starts it."""

    def __init__(self, python=PYTHON, preload=None, env=None, wrapper=()):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "CROWNEST_ZYGOTE_FD": str(theirs.fileno()),
            "CROWNEST_SECCOMP_FILE": "none",
            **({"CROWNEST_ZYGOTE_PRELOAD": preload} if preload is not None else {}),
            **(env or {}),
        }
        self.process = subprocess.Popen(
            [*wrapper, python, str(KERNEL / "zygote.py")],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment,
        )
        theirs.close()
        self.socket = ours
        self.socket.settimeout(ANSWER_TIMEOUT_S)
        self.warm = self.socket.recv(64)

    def request(self, fds, op=1, uid=1000, gid=1000, fd_count=None):
        """(status, pid, pidfd or None)"""
        count = len(fds) if fd_count is None else fd_count
        socket.send_fds(self.socket, [struct.pack("<IIII", op, uid, gid, count)], fds)
        data, received, _, _ = socket.recv_fds(self.socket, 64, 4)
        status, pid = struct.unpack("<ii", data)
        assert len(received) == (1 if status == 0 else 0)
        return status, pid, received[0] if received else None

    def fork(self, init_pidfd, cgroup_fds=(), **fields):
        """A context in the sandbox of `init_pidfd`."""
        ours, theirs = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        fds = [init_pidfd, theirs.fileno(), out_write, err_write, *cgroup_fds]
        status, pid, pidfd = self.request(fds, **fields)
        theirs.close()
        os.close(out_write)
        os.close(err_write)
        if status != 0:
            ours.close()
            raise OSError(-status, os.strerror(-status))
        peer = Peer(ours, out_read, err_read, pidfd)
        peer.pid = pid
        return peer

    def close(self):
        self.socket.close()
        self.process.wait(10)


class Sandbox:
    """Namespaces like the spawner's, with a pid 1 that only waits."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("target.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        line = self.process.stdout.readline()
        if not line:
            raise OSError("no namespaces here")
        self.pid = int(line)
        self.pidfd = os.pidfd_open(self.pid)

    def close(self):
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(self.pidfd)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)
