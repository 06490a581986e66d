"""Entry of a zygote: imports the libraries once, then forks a context into a sandbox per request.

Runs as root of the host, in its own mount namespace with a read-only view of one template, single
threaded, holding no tenant data. The spawner is its only peer; the wire format is in
`kernels/PROTOCOL.md`. It never runs tenant code: only its children do, after `privileges.enter`.
"""

import array
import errno
import os
import signal
import socket
import struct
import sys

# Before any library is loaded: a pool of threads would not survive the fork. The last one is for
# the allocator inside pyarrow, which pandas imports.
os.environ.update(
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    NUMEXPR_NUM_THREADS="1",
    JE_ARROW_MALLOC_CONF="background_thread:false",
)

PRELOAD_DEFAULT = "numpy,pandas,matplotlib.pyplot,IPython"
# Imported quietly whenever they can be: what most cells need.
PRELOAD_ALWAYS = (
    "asyncio,base64,collections,concurrent.futures,csv,datetime,functools,getpass,glob,inspect,"
    "itertools,json,math,multiprocessing.pool,pathlib,pprint,random,re,shutil,sqlite3,ssl,"
    "statistics,string,subprocess,tempfile,threading,time,typing,urllib.request,uuid,warnings,"
    "zoneinfo"
)
REQUEST = struct.Struct("<IIII")
ANSWER = struct.Struct("<ii")
OP_FORK = 1
FDS_BEFORE_CGROUPS = 4
FDS_MAX = 16
FD_BYTES = 4
# Plain numbers: the enumerations of `socket` compute with them in Python.
TRUNCATED = int(socket.MSG_CTRUNC | socket.MSG_TRUNC)
RIGHTS = (int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS))
# The control socket and the originals of fds 0 to 2.
PRIVATE_FDS = 4
UID_MAX = 65535
OOM_SCORE_ADJ = 500
SECCOMP_BYTES_MAX = 32 * 1024
# What a context inherits; everything else arrives with `start`.
ENVIRONMENT_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
CHILD_FAILED_EXIT_CODE = 71
# Arenas (of a mebibyte) that the imports fill at most; the largest small object, without its
# head; fewer of them than an arena holds.
RESERVED_ARENAS = 64
RESERVED_BLOCK_BYTES = 512 - 33
BLOCKS_PER_ARENA = 1900


def main():
    """Imports, warms up, checks, says `warm`, serves."""
    peer = socket.socket(fileno=int(os.environ.pop("CROWNEST_ZYGOTE_FD")))
    peer.set_inheritable(False)
    here = os.path.dirname(os.path.abspath(__file__))
    if here not in sys.path:
        sys.path.insert(0, here)
    preload = os.environ.get("CROWNEST_ZYGOTE_PRELOAD", PRELOAD_DEFAULT)
    if len(sys.argv) > 1:
        preload = ",".join(sys.argv[1:])
    seccomp_filter = _read_seccomp_filter()
    _limit_self()
    room = _reserve_small_objects()
    from crownest_kernel import names

    kept_names = names.gather()
    kernel = _build_kernel(here)
    from crownest_kernel import privileges, warmup

    _import_all(preload)
    entry = privileges.Entry(seccomp_filter)
    warmup.run_cells(kernel)
    warmup.warm_random_sources()
    _clean_environment()
    _refuse_threads()
    zygote = Zygote(peer, kernel, entry, kept_names)
    room.clear()
    warmup.settle()
    peer.send(ANSWER.pack(0, 0))
    zygote.serve()


def _read_seccomp_filter():
    """The filter's instructions. A zygote without one has to be asked for by name: a forgotten
    variable must not cost a wall."""
    path = os.environ.get("CROWNEST_SECCOMP_FILE")
    if not path:
        sys.exit("zygote: CROWNEST_SECCOMP_FILE is not set (`none` means no filter: tests only)")
    if path == "none":
        return None
    with open(path, "rb") as file:
        return file.read(SECCOMP_BYTES_MAX)


def _limit_self():
    """Runs as root: what the children inherit, and being the first to go when memory is short."""
    import resource

    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            score = int(file.read())
        # Its starter may have done it already, and left us a read-only /proc.
        if score < OOM_SCORE_ADJ:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write(str(OOM_SCORE_ADJ))
    except OSError as error:
        sys.stderr.write("zygote: oom_score_adj: %s\n" % error)


def _reserve_small_objects():
    """Room for the small objects of all imports, in one piece: arenas that Python asked for one by
    one would lie between the libraries, where no huge page fits. What is returned keeps them; once
    it is cleared, those that nothing has moved into are given back."""
    blocks = [None] * (RESERVED_ARENAS * BLOCKS_PER_ARENA)  # a list that grows leaves holes
    for index in range(len(blocks)):
        blocks[index] = bytes(RESERVED_BLOCK_BYTES)
    return blocks[::BLOCKS_PER_ARENA]


def _build_kernel(here):
    """The kernel that every child will be. Its writers are made while fds 1 and 2 are pipes, as
    they are in a child: io remembers whether a file can seek."""
    from crownest_kernel import entry

    read_end, write_end = os.pipe()
    saved = [os.dup(fd) for fd in (1, 2)]
    try:
        for fd in (1, 2):
            os.dup2(write_end, fd)
        return entry.prepare(here)
    finally:
        for fd, original in zip((1, 2), saved):
            os.dup2(original, fd)
            os.close(original)
        os.close(read_end)
        os.close(write_end)


def _import_all(preload):
    """A name that cannot be imported is reported and left out: a template may not have it."""
    import importlib

    read_only_cache = _ReadOnlyCache(os.environ.get("MPLCONFIGDIR"))
    for names, quiet in ((PRELOAD_ALWAYS, True), (preload, False)):
        for name in filter(None, (part.strip() for part in names.split(","))):
            try:
                with read_only_cache:
                    importlib.import_module(name)
            except ImportError as error:
                if not quiet:
                    sys.stderr.write("zygote: %s is not preloaded: %s\n" % (name, error))


class _ReadOnlyCache:
    """While matplotlib is imported, its cache directory counts as writable: the template holds a
    complete font cache, and matplotlib would otherwise look for another place to build one."""

    def __init__(self, directory):
        self._directory = os.path.realpath(directory) if directory else None
        self._access = os.access

    def __enter__(self):
        if self._directory is not None:
            os.access = self._pretend

    def __exit__(self, *_):
        os.access = self._access

    def _pretend(self, path, mode, **options):
        return path == self._directory or self._access(path, mode, **options)


def _clean_environment():
    """A context starts from a small environment. Done before the forks: each change of it is a
    copied page."""
    for name in list(os.environ):
        if name not in ENVIRONMENT_KEPT:
            del os.environ[name]
    os.environ.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    os.environ.setdefault("LANG", "C.UTF-8")


def _refuse_threads():
    """A fork copies the calling thread alone; another one's locks would stay locked for ever."""
    names = []
    for task in os.listdir("/proc/self/task"):
        with open("/proc/self/task/%s/comm" % task, encoding="utf-8", errors="replace") as file:
            names.append(file.read().strip())
    if len(names) > 1:
        sys.exit("zygote: more than one thread after the imports: %s" % ", ".join(sorted(names)))


class Zygote:
    """The serving loop. Runs as root of the host."""

    def __init__(self, peer, kernel, entry, kept_names):
        # Not before main() has found the package.
        from crownest_kernel import frames, privileges, warmup

        self._peer = peer
        self._kernel = kernel
        self._entry = entry
        self._kept_names = kept_names
        self._privileges = privileges
        self._warmup = warmup
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._fd_room = socket.CMSG_SPACE(FDS_MAX * FD_BYTES)
        self._back = (privileges.into_pid_namespace(self._own_pid_namespace),)
        first = frames.private_number()
        self._private = range(first, first + PRIVATE_FDS)
        kernel.expect(self._private)
        self._request, self._before, self._steps = None, (), ()
        # Children reap themselves; their pidfd tells the spawner about the end.
        privileges.enter((entry.child_signal(signal.SIG_IGN),))

    def serve(self):
        """Until the spawner closes its end. A request that fails is answered, and that is all."""
        while True:
            try:
                data, ancillary, flags, _ = self._peer.recvmsg(REQUEST.size + 1, self._fd_room)
            except ConnectionResetError:
                os._exit(0)
            fds = _received_fds(ancillary)
            if not data:
                os._exit(0)
            pidfd = None
            try:
                pid = self._fork_context(data, fds, flags)
                pidfd = os.pidfd_open(pid)
                answer = ANSWER.pack(0, pid)
            except OSError as error:
                answer = ANSWER.pack(-(error.errno or errno.EIO), 0)
            self._answer(answer, pidfd)
            for fd in fds:
                os.close(fd)
            if pidfd is not None:
                os.close(pidfd)

    def _answer(self, answer, pidfd):
        rights = []
        if pidfd is not None:
            rights.append((*RIGHTS, array.array("i", (pidfd,))))
        try:
            self._peer.sendmsg((answer,), rights)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def _fork_context(self, data, fds, flags):
        """Forks one context; the child's pid as the zygote sees it."""
        if len(data) != REQUEST.size or flags & TRUNCATED:
            raise OSError(errno.EINVAL, "request")
        op, uid, gid, fd_count = REQUEST.unpack(data)
        if op != OP_FORK or fd_count != len(fds) or fd_count < FDS_BEFORE_CGROUPS:
            raise OSError(errno.EINVAL, "request")
        # Never root inside: 0 would be the owner of the sandbox's namespaces.
        if not (0 < uid <= UID_MAX and 0 < gid <= UID_MAX):
            raise OSError(errno.EINVAL, "uid or gid")
        if max(fds) >= self._private[0]:
            raise OSError(errno.EMFILE, "request")
        if (fds, data) != self._request:
            # The numbers are the same for almost every fork: those that were free.
            self._steps = self._entry.steps(fds, self._private, uid, gid)
            self._before = (self._privileges.into_pid_namespace(fds[0]),)
            self._request = (fds, data)
        enter = self._privileges.enter
        enter(self._before)
        try:
            pid = self._privileges.fork_bare()
            if pid == 0:
                self._become_context()
        finally:
            # Not for a child's sake: the zygote must not keep a dead sandbox's namespace.
            enter(self._back)
        return pid

    def _become_context(self):
        """Runs in the child, first as root of the host, then with less and less, as the
        steps say. Does not return. Any failure ends the child: a context with a wall missing must
        not exist."""
        try:
            self._privileges.enter(self._steps)
            self._kernel.streams.identify()
            self._warmup.reseed()
            self._kernel.serve(self._warmup.prime)
        except BaseException as error:
            try:
                os.write(2, b"context: %s\n" % repr(error).encode("utf-8", "replace"))
            finally:
                os._exit(CHILD_FAILED_EXIT_CODE)
        os._exit(CHILD_FAILED_EXIT_CODE)


def _received_fds(ancillary):
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % FD_BYTES])
    return list(fds)


if __name__ == "__main__":
    main()
