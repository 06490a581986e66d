"""Two sandboxes on one machine: nothing of one is seen, reached or guessed from the other."""

from __future__ import annotations

from collections.abc import Callable

from probe import Sandbox, on_host

MARK = "crownest-neighbour-mark"

LEAVE_MARKS = f"""
import threading, multiprocessing.shared_memory
keep = []
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0{MARK}"); abstract.listen()
tcp = socket.socket(); tcp.bind(("127.0.0.1", 45454)); tcp.listen()
named = socket.socket(socket.AF_UNIX); named.bind("/tmp/{MARK}"); named.listen()
memory = multiprocessing.shared_memory.SharedMemory("{MARK}", create=True, size=4096)
sysv = libc.shmget(0x43574e31, 4096, 0o1666)
semaphore = libc.semget(0x43574e31, 1, 0o1666)
queue = libc.msgget(0x43574e31, 0o1666)
posix = libc.mq_open(b"/{MARK}", os.O_CREAT | os.O_RDWR, 0o666, None)
keep += [abstract, tcp, named, memory]
result = sysv >= 0 and semaphore >= 0 and queue >= 0 and posix >= 0
"""

LOOK = f"""
def connect(family, address):
    s = socket.socket(family)
    s.settimeout(2)
    return outcome(s.connect, address)
result = {{
    "abstract": connect(socket.AF_UNIX, "\\0{MARK}"),
    "named": connect(socket.AF_UNIX, "/tmp/{MARK}"),
    "tcp": connect(socket.AF_INET, ("127.0.0.1", 45454)),
    "shm": os.path.exists("/dev/shm/{MARK}"),
    "sysv": libc.shmget(0x43574e31, 4096, 0) >= 0,
    "semaphore": libc.semget(0x43574e31, 1, 0) >= 0,
    "queue": libc.msgget(0x43574e31, 0) >= 0,
    "posix": libc.mq_open(b"/{MARK}", os.O_RDWR) >= 0,
    "unix": "{MARK}" in read("/proc/net/unix"),
}}
"""


def test_marks_of_one_are_not_seen_by_another(sandbox: Sandbox, neighbour: Sandbox) -> None:
    assert sandbox.probe(LEAVE_MARKS)
    own = sandbox.probe(LOOK)
    assert set(own.values()) <= {"ok", True}, own
    for place in (neighbour.probe(LOOK), neighbour.probe_command(LOOK), on_host(LOOK)):
        assert not [name for name, seen in place.items() if seen in ("ok", True)], place


def test_processes_are_not_seen(sandbox: Sandbox, neighbour: Sandbox) -> None:
    sandbox.start_named(MARK)
    look = """
found = []
for pid in (n for n in os.listdir("/proc") if n.isdigit()):
    try:
        found.append(read("/proc/%s/cmdline" % pid).split(chr(0))[0])
    except OSError:
        pass
result = found
"""
    assert MARK in sandbox.probe(look)
    assert MARK not in neighbour.probe(look)
    assert MARK in on_host(look), "the host sees everything"


def test_namespaces_are_their_own(sandbox: Sandbox, neighbour: Sandbox) -> None:
    probe = "result = {n: os.readlink('/proc/self/ns/' + n) for n in os.listdir('/proc/self/ns')}"
    one, two, host = sandbox.probe(probe), neighbour.probe(probe), on_host(probe)
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    for kind in kinds:
        assert len({one[kind], two[kind], host[kind]}) == 3, kind
    for kind in kinds:
        command = sandbox.probe_command(probe)
        assert command[kind] == one[kind], f"a command is in the same {kind} namespace"


def test_ids_on_the_host_differ(sandbox: Sandbox, neighbour: Sandbox) -> None:
    """A file or process that did get out would be nobody's that a neighbour is."""
    probe = "result = [int(x) for x in read('/proc/self/uid_map').split()]"
    one, two = sandbox.probe(probe), neighbour.probe(probe)
    assert one[0] == two[0] == 0 and one[2] == two[2] == 65536
    assert abs(one[1] - two[1]) >= 65536 and min(one[1], two[1]) >= 0x2000_0000


def test_hostname_is_the_same_and_not_the_host_s(sandbox: Sandbox, neighbour: Sandbox) -> None:
    probe = "result = os.uname().nodename"
    assert sandbox.probe(probe) == neighbour.probe(probe) != on_host(probe)


RANDOM = """
import random, uuid, ssl, secrets, tempfile
import numpy
result = {
    "random": random.random(),
    "numpy": float(numpy.random.random()),
    "generator": float(numpy.random.default_rng().random()),
    "uuid4": str(uuid.uuid4()),
    "uuid1": str(uuid.uuid1()),
    "ssl": ssl.RAND_bytes(16).hex(),
    "secrets": secrets.token_hex(16),
    "tempfile": next(tempfile._get_candidate_names()),
    "urandom": os.urandom(16).hex(),
}
"""


def test_no_two_contexts_draw_the_same_random_values(
    sandbox: Sandbox, neighbour: Sandbox, make: Callable[..., Sandbox]
) -> None:
    """All are forks of one process; OpenSSL tells forks apart by a pid that is equal in all."""
    drawn = [
        place.probe(RANDOM, context)
        for place in (sandbox, neighbour, make(), make())
        for context in (place.context(), place.context())
    ]
    for kind in drawn[0]:
        values = [draw[kind] for draw in drawn]
        assert len(set(values)) == len(values), (kind, values)


def test_a_fork_that_is_not_reseeded_draws_the_same() -> None:
    """The control: why the kernel has to do something about it."""
    probe = """
import random
random.seed(1)
state = random.getstate()
def draw():
    random.setstate(state)
    return random.random()
result = in_child(draw) == in_child(draw)
"""
    assert on_host(probe)


def test_a_fresh_context_shares_no_layout_with_forks(sandbox: Sandbox, neighbour: Sandbox) -> None:
    """What SECURITY.md says of zygotes, and the way out of it."""
    probe = "result = [id(os), hash('crownest')]"
    forks = [place.probe(probe, place.context()) for place in (sandbox, neighbour)]
    fresh = [place.probe(probe, place.context("fresh")) for place in (sandbox, neighbour)]
    assert forks[0] == forks[1], "forks of one zygote are alike"
    assert len({tuple(values) for values in (*forks, *fresh)}) == 3


def test_contexts_of_one_sandbox_share_it(sandbox: Sandbox) -> None:
    """Said in SECURITY.md: one sandbox is one tenant. They share uid, files and network."""
    first, second = sandbox.context(), sandbox.context()
    pid = sandbox.probe("result = os.getpid()", first)
    assert sandbox.probe(f"result = outcome(os.kill, {pid}, 0)", second) == "ok"


def test_nothing_of_a_used_sandbox_comes_back(make: Callable[..., Sandbox]) -> None:
    for _ in range(3):
        used = make()
        used.probe("open('/tmp/left', 'w').close(); open('/workspace/left', 'w').close(); result = 1")
        used.destroy()
        fresh = make()
        assert fresh.probe("result = [os.listdir('/tmp'), os.listdir('/workspace')]") == [[], []]


# What every sandbox is given by the same spawner: devices, masks over /proc, kernels.
SHARED = ["/dev/null", "/dev/urandom", "/proc/meminfo", "/proc/cpuinfo", "/opt/crownest/python",
          "/opt/crownest/python/zygote.py", "/etc/passwd"]

WATCH = f"""
import builtins, fcntl
libc.inotify_init1.restype = ctypes.c_int
builtins.watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
builtins.watched = {{libc.inotify_add_watch(watch, p.encode(), 0xfff): p for p in {SHARED!r}}}
result = len(watched)
"""

SEEN = """
seen = set()
try:
    while data := os.read(watch, 65536):
        while data:
            which, _, _, length = struct.unpack_from("iIII", data)
            data = data[16 + length:]
            seen.add(watched[which])
except BlockingIOError:
    pass
result = sorted(seen)
"""

OPEN_ALL = f"""
for path in {SHARED!r}:
    if not os.path.isdir(path):
        os.read(os.open(path, os.O_RDONLY), 16)
result = os.listdir("/opt/crownest/python") != []
"""


def test_what_one_opens_another_cannot_watch(sandbox: Sandbox, neighbour: Sandbox) -> None:
    assert sandbox.probe(WATCH) == len(SHARED)
    assert neighbour.probe(OPEN_ALL) and neighbour.probe_command(OPEN_ALL)
    neighbour.context("fresh")
    assert sandbox.probe(SEEN) == []
    # The control: the same, opened in the sandbox itself.
    assert sandbox.probe(OPEN_ALL)
    assert sandbox.probe(SEEN) == sorted(SHARED)


def test_locks_of_one_are_not_felt_by_another(sandbox: Sandbox, neighbour: Sandbox) -> None:
    files = [path for path in SHARED if path != "/opt/crownest/python"]
    take = f"""
import builtins, fcntl
builtins.locked = [open(p, "rb") for p in {files!r}] + [open("/dev/null", "r+b")]
for file in locked[:-1]:
    fcntl.flock(file, fcntl.LOCK_EX)
fcntl.lockf(locked[-1], fcntl.LOCK_EX)
result = True
"""
    feel = f"""
import fcntl
flags = fcntl.LOCK_EX | fcntl.LOCK_NB
result = {{p: outcome(fcntl.flock, open(p, "rb"), flags) for p in {files!r}}}
result["record"] = outcome(fcntl.lockf, open("/dev/null", "r+b"), flags)
"""
    assert sandbox.probe(take)
    assert set(sandbox.probe_command(feel).values()) == {"EAGAIN"}, "the control: felt inside"
    assert set(neighbour.probe(feel).values()) == {"ok"}


def test_the_view_of_shared_files_is_read_only(sandbox: Sandbox) -> None:
    probe = """
result = [
    outcome(open, "/opt/crownest/python/zygote.py", "r+"),
    outcome(open, "/opt/crownest/python/new", "w"),
    outcome(os.rename, "/opt/crownest/python", "/opt/crownest/other"),
    outcome(os.chmod, "/dev/null", 0o600),
    outcome(os.mknod, "/dev/new", 0o600),
    outcome(open, "/proc/meminfo", "r+"),
    os.write(os.open("/dev/null", os.O_WRONLY), b"x"),
    len(os.read(os.open("/dev/urandom", os.O_RDONLY), 16)),
]
"""
    found = sandbox.probe(probe)
    assert set(found[:6]) <= {"EROFS", "EACCES", "EPERM", "EBUSY", "EXDEV"}, found
    assert found[6:] == [1, 16]
