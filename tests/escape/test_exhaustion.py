"""Taking everything there is: the sandbox hits its limits, and nobody else feels it.

While a bomb goes off, a neighbour answers `1+1` within a second; afterwards the bomber itself is
alive again or is gone with a reason. Objects that the kernel counts for a user or for the whole
machine are taken as far as they go, and then asked for by a neighbour and by host root.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from probe import Api, Sandbox, on_host

ANSWER_SECONDS_MAX = 1.0
LATE_SECONDS_MAX = 5.0
ASKED_MIN = 5


@contextmanager
def bomb(sandbox: Sandbox, code: str, timeout_ms: int = 2_500) -> Iterator[dict[str, Any]]:
    """The code runs while the body does; afterwards its answer is in the dict."""
    answer: dict[str, Any] = {}

    def run() -> None:
        body = {"code": code, "language": "python", "timeoutMs": timeout_ms}
        # A client of its own: the neighbour's requests must not wait for this connection.
        own = Api(sandbox.api.server)
        response = own.http.post(f"{sandbox.path}/code/runs", json=body)
        answer.update(status=response.status_code, **response.json().get("run", {}))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield {"running": thread.is_alive, "answer": answer}
    finally:
        thread.join()


def check_answers(neighbour: Sandbox, running: Callable[[], bool]) -> None:
    """`1+1` next door, again and again while the bomb goes off: within a second. The machine that
    tests run on has other work as well, so one answer in twenty may be later, none much."""
    seconds: list[float] = []
    while running() or len(seconds) < ASKED_MIN:
        before = time.monotonic()
        run = neighbour.run("1 + 1")
        seconds.append(time.monotonic() - before)
        assert run["outputs"][0]["value"] == "2"
    late = [s for s in seconds if s > ANSWER_SECONDS_MAX]
    assert len(late) <= 1 + len(seconds) // 20, (late, len(seconds))
    assert max(seconds) < LATE_SECONDS_MAX


BOMBS = {
    "forks": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "threads": "import threading, time\nwhile True:\n    try:\n"
    "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "    except RuntimeError:\n        pass",
    "memory": "import time\nx = []\nwhile True: x.append(bytearray(16 << 20))",
    "memory in children": "import os\nfor _ in range(50):\n    if os.fork() == 0:\n        x = []\n"
    "        while True: x.append(bytearray(16 << 20))\nimport time; time.sleep(60)",
    "cpu": "import os\nfor _ in range(30):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass",
    "output": "while True: print('x' * 10_000)",
    "output in drops": "import os\nwhile True: os.write(1, b'x'); os.write(2, b'y')",
    "events": "from IPython.display import display\nwhile True: display('x' * 1000)",
    "files in /tmp": "import os\ni = 0\nwhile True:\n    try:\n        os.close(os.open(f'/tmp/{i}', os.O_CREAT))\n"
    "    except OSError:\n        pass\n    i += 1",
    "bytes in /dev/shm": "b = bytes(1 << 20)\nf = open('/dev/shm/x', 'wb', buffering=0)\nwhile True:\n"
    "    try:\n        f.write(b)\n    except OSError:\n        f.seek(0); f.truncate()",
    "sockets": "import socket\nkeep = []\nwhile True:\n    try:\n        keep.append(socket.socketpair())\n"
    "        keep[-1][0].setblocking(False)\n        while True: keep[-1][0].send(bytes(65536))\n"
    "    except OSError:\n        pass",
    "signals": "import os, signal\nif os.fork() == 0:\n    while True: pass\n"
    "while True: os.kill(-1, signal.SIGURG)",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_not_felt_next_door(
    make: Callable[..., Sandbox], neighbour: Sandbox, name: str
) -> None:
    resources = {"memoryBytes": 512 << 20, "cpuMillis": 1000, "pids": 128}
    sandbox = make(resources=resources)
    sandbox.run("1")
    neighbour.run("1")
    with bomb(sandbox, BOMBS[name]) as state:
        check_answers(neighbour, state["running"])
    answer = state["answer"]
    assert answer["status"] in (200, 410), answer
    if answer["status"] == 200:
        assert answer["outcome"] in ("timed_out", "out_of_memory", "context_died"), answer["outcome"]
    # What is left of it can still be ended, quickly.
    before = time.monotonic()
    sandbox.destroy()
    assert time.monotonic() - before < 5


def test_an_abandoned_flood_stops(make: Callable[..., Sandbox], neighbour: Sandbox) -> None:
    """The client goes away in the middle; the code is interrupted and the context answers."""
    sandbox = make()
    sandbox.run("1")
    body = {"code": "while True: print('x' * 1000)", "language": "python", "timeoutMs": 60_000}
    with sandbox.api.http.stream("POST", f"{sandbox.path}/code/runs/stream", json=body) as answer:
        for taken, _ in enumerate(answer.iter_bytes(65536)):
            if taken > 10:
                break
    check_answers(neighbour, lambda: False)
    before = time.monotonic()
    assert sandbox.run("'back'")["outputs"][0]["value"] == "back"
    assert time.monotonic() - before < 10


LIMITS = """
import resource
def fill(path, chunk=1 << 20):
    total = 0
    try:
        with open(path, "wb", buffering=0) as f:
            while total < 4 << 30:
                total += f.write(bytes(chunk))
    except OSError as error:
        found = error_name(error.errno)
    else:
        found = "none"
    os.unlink(path)
    return [found, total]

def names(directory):
    os.makedirs(directory, exist_ok=True)
    count = 0
    try:
        while count < 300000:
            os.close(os.open("%s/%d" % (directory, count), os.O_CREAT)); count += 1
    except OSError as error:
        return [error_name(error.errno), count]
    finally:
        import shutil
        shutil.rmtree(directory)
    return ["none", count]
"""


def test_disk_limits(make: Callable[..., Sandbox]) -> None:
    sandbox = make(resources={"diskBytes": 32 << 20})
    found = sandbox.probe(
        LIMITS + 'result = {p: fill(p + "/fill") for p in ("/workspace", "/home/user", "/tmp", "/dev/shm")}'
    )
    for place, limit in (("/workspace", 32), ("/home/user", 32), ("/tmp", 512), ("/dev/shm", 512)):
        error, total = found[place]
        assert error == "ENOSPC" and total <= limit << 20, (place, error, total)
    assert found["/workspace"][1] > 24 << 20
    assert sandbox.probe('open("/workspace/after", "w").write("x"); result = True')


def test_name_limits(make: Callable[..., Sandbox]) -> None:
    sandbox = make()
    error, count = sandbox.probe(f"{LIMITS}\nresult = names('/tmp/n')")
    assert error == "ENOSPC" and count <= 100_000, (error, count)


def test_process_and_descriptor_limits(make: Callable[..., Sandbox]) -> None:
    sandbox = make(resources={"pids": 64})
    found = sandbox.probe(
        """
pids = []
try:
    while len(pids) < 1000:
        pid = os.fork()
        if pid == 0:
            time.sleep(60); os._exit(0)
        pids.append(pid)
    forked = "none"
except OSError as error:
    forked = error_name(error.errno)
for pid in pids:
    os.kill(pid, 9); os.waitpid(pid, 0)
fds = []
try:
    while len(fds) < 2_000_000:
        fds.append(os.open("/dev/null", 0))
    opened = "none"
except OSError as error:
    opened = error_name(error.errno)
for fd in fds:
    os.close(fd)
result = [forked, len(pids), opened]
"""
    )
    assert found[0] == "EAGAIN" and found[1] < 64
    assert found[2] in ("EMFILE", "ENFILE")


def test_cpu_limit(make: Callable[..., Sandbox]) -> None:
    sandbox = make(resources={"cpuMillis": 200})
    used, passed = sandbox.probe(
        """
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        end = time.monotonic() + 2
        while time.monotonic() < end: pass
        os._exit(0)
    pids.append(pid)
before = time.monotonic()
for pid in pids: os.waitpid(pid, 0)
t = os.times()
result = [t.children_user + t.children_system, time.monotonic() - before]
"""
    )
    assert used < 0.2 * passed + 0.3, (used, passed)


# What the kernel counts for a user or for the machine. Each takes until it is refused and says
# how many it got; held until the process ends.
KERNEL_OBJECTS = {
    "inotify instances": (
        "while libc.inotify_init1(0) >= 0: n += 1",
        "result = libc.inotify_init1(0) >= 0",
    ),
    "queued signals": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [40])\n"
        "while libc.sigqueue(os.getpid(), 40, 0) == 0: n += 1",
        "t = ctypes.c_void_p(); result = libc.timer_create(1, None, ctypes.byref(t)) == 0",
    ),
    "message queues": (
        "while libc.mq_open(b'/q%d' % n, os.O_CREAT | os.O_RDWR, 0o600, None) >= 0: n += 1",
        "result = libc.mq_open(b'/crownest-test', os.O_CREAT | os.O_RDWR, 0o600, None) >= 0\n"
        "libc.mq_unlink(b'/crownest-test')",
    ),
    "aio contexts": (
        "c = ctypes.c_ulong()\n"
        "while libc.syscall(206, 16384, ctypes.byref(ctypes.c_ulong())) == 0: n += 1",
        "c = ctypes.c_ulong(); result = libc.syscall(206, 16384, ctypes.byref(c)) == 0",
    ),
    "terminals": (
        "while n < 5000:\n    try:\n        os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY); n += 1\n"
        "    except OSError:\n        break",
        "result = outcome(os.open, '/dev/ptmx', os.O_RDWR | os.O_NOCTTY) == 'ok'",
    ),
    "shared memory segments": (
        "while libc.shmget(0, 4096, 0o1600) >= 0: n += 1",
        "s = libc.shmget(0, 4096, 0o1600); result = s >= 0; libc.shmctl(s, 0, None)",
    ),
    "locked memory": (
        "import mmap\nkeep = []\nlibc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n"
        "while n < 100_000:\n    m = mmap.mmap(-1, 65536); keep.append(m)\n"
        "    if libc.mlock(ctypes.addressof(ctypes.c_char.from_buffer(m)), 65536): break\n    n += 1",
        "import mmap\nlibc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\nm = mmap.mmap(-1, 65536)\n"
        "result = libc.mlock(ctypes.addressof(ctypes.c_char.from_buffer(m)), 65536) == 0",
    ),
    "pipe pages": (
        "import fcntl\nwhile n < 3000:\n    r, w = os.pipe()\n"
        "    try:\n        fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError:\n        break\n    n += 1",
        "import fcntl\nr, w = os.pipe(); result = outcome(fcntl.fcntl, w, 1031, 1 << 18) == 'ok'",
    ),
}


@pytest.mark.parametrize("name", KERNEL_OBJECTS)
def test_kernel_objects_are_counted_for_each_sandbox_alone(
    make: Callable[..., Sandbox], neighbour: Sandbox, name: str
) -> None:
    take, one = KERNEL_OBJECTS[name]
    sandbox = make()
    refused = name == "aio contexts"
    control = on_host(one)
    assert control, "the host can have one before"
    taken = sandbox.probe(f"n = 0\n{take}\nresult = n", sandbox.context())
    assert (taken == 0) if refused else (taken > 0), taken
    assert on_host(one), f"the host can have none after a sandbox took {taken}"
    assert neighbour.probe(one, neighbour.context()) is not refused, "nor a neighbour"


def test_socket_buffers_count_towards_memory(make: Callable[..., Sandbox]) -> None:
    """Unread bytes in loopback connections: kernel memory that no process seems to have."""
    sandbox = make(resources={"memoryBytes": 256 << 20})
    total = sandbox.probe(
        """
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen(100)
keep, total = [], 0
end = time.monotonic() + 10
for _ in range(120):
    a = socket.socket(); a.connect(listener.getsockname()); b, _ = listener.accept()
    a.setblocking(False)
    keep += [a, b]
    try:
        while time.monotonic() < end:
            total += a.send(bytes(65536))
    except OSError:
        pass
result = total
"""
    )
    assert total < 200 << 20, f"{total >> 20} MiB in socket buffers"


def test_any_number_of_sizes_can_be_asked_for(api: Api) -> None:
    """The files that mask /proc are made per size, 256 are kept; needing more must stop nobody."""
    base, sizes, threads = 64 << 20, 320, 4
    refused: list[str] = []

    def ask(first: int) -> None:
        own = Api(api.server)
        for step in range(first, sizes, threads):
            answer = own.http.post("/v1/sandboxes", json={"resources": {"memoryBytes": base + step}})
            if answer.status_code != 201:
                refused.append(answer.text)
                return
            body = answer.json()
            own.http.delete(f"/v1/sandboxes/{body.get('sandbox', body)['id']}")

    running = [threading.Thread(target=ask, args=(first,)) for first in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert refused == []


def test_contexts_of_one_sandbox_are_bounded(make: Callable[..., Sandbox]) -> None:
    sandbox = make()
    codes = []
    for _ in range(80):
        answer = sandbox.post("/code/contexts", {"language": "python"})
        codes.append(answer.status_code)
        if answer.status_code != 201:
            break
    assert 201 in codes and codes[-1] in (409, 429), codes[-3:]
    assert sandbox.api.http.get(f"{sandbox.path}/files").status_code == 200
