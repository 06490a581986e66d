"""System calls of a zygote's child on its way into a sandbox.

The zygote writes them down before it forks, numbers and addresses only, and the child does nothing
but carry out the list: whatever else it did would be copied pages, and an allocation that fails
half-way would be a wall that is missing. `Entry.steps` says who runs each step with which
privileges. Any failure raises OSError; the caller ends the child.
"""

import ctypes
import os
import signal
import struct

# x86_64; the zygote refuses to start elsewhere.
_SYS_WRITE = 1
_SYS_CLOSE = 3
_SYS_RT_SIGACTION = 13
_SYS_DUP2 = 33
_SYS_CHDIR = 80
_SYS_SETSID = 112
_SYS_SETGROUPS = 116
_SYS_SETRESUID = 117
_SYS_SETRESGID = 119
_SYS_CAPSET = 126
_SYS_PRCTL = 157
_SYS_OPENAT = 257
_SYS_DUP3 = 292
_SYS_SETNS = 308
_SYS_SECCOMP = 317
_SYS_CLOSE_RANGE = 436

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
SANDBOX_NAMESPACES = (
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
)

_AT_FDCWD = -100
_FD_LAST = 0xFFFFFFFF
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_SET_MODE_FILTER = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_BPF_INSTRUCTION_BYTES = 8
_BPF_INSTRUCTIONS_MAX = 4096
_SIGSET_BYTES = 8
_ARGUMENTS = 5

# PyDLL: the interpreter's lock stays held, since a child has nobody to take it back from.
_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long] * (1 + _ARGUMENTS)
_bare_fork = _libc._Fork
_get_errno = ctypes.get_errno


class Entry:
    """The way into a sandbox and out of every privilege."""

    def __init__(self, seccomp_filter):
        """`seccomp_filter`: the instructions as bytes, or None for none at all (tests)."""
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            self._capabilities = range(int(file.read()) + 1)
        self._buffers = []
        self._zero = self._keep(b"0")
        self._workspace = self._keep(b"/workspace\0")
        self._null_device = self._keep(b"/dev/null\0")
        # struct sigaction begins with the handler; the rest is zero.
        self._actions = {
            handler: self._keep(struct.pack("=Q24x", handler))
            for handler in (signal.SIG_DFL, signal.SIG_IGN)
        }
        self._cap_header = self._keep(struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0))
        self._cap_empty = self._keep(struct.pack("=6I", *([0] * 6)))
        self._program = None
        if seccomp_filter is not None:
            count, rest = divmod(len(seccomp_filter), _BPF_INSTRUCTION_BYTES)
            if rest or not 0 < count <= _BPF_INSTRUCTIONS_MAX:
                raise ValueError("a seccomp filter of %d bytes" % len(seccomp_filter))
            # struct sock_fprog: u16 len, padding, pointer
            self._program = self._keep(
                struct.pack("=HxxxxxxQ", count, self._keep(seccomp_filter))
            )

    def _keep(self, data):
        """The address of `data`, which stays where it is."""
        self._buffers.append(ctypes.create_string_buffer(data, len(data)))
        return ctypes.addressof(self._buffers[-1])

    def steps(self, fds, private, uid, gid):
        """What the child of this fork does, in the order of PROTOCOL.md: (name, system call, five
        arguments) each. `fds` are those of the request, `private` is where the control socket and
        the originals of fds 0 to 2 go."""
        init_pidfd, control, stdout, stderr, *cgroups = fds
        return [
            *self._joining(init_pidfd, cgroups),
            *self._descriptors(control, stdout, stderr, private),
            _step("setsid", _SYS_SETSID),
            self.child_signal(signal.SIG_DFL),
            *self._dropping(uid, gid),
        ]

    def child_signal(self, handler):
        """Behind the back of Python, which in a child shall know of nothing but the default."""
        action = self._actions[handler]
        return _step(
            "SIGCHLD", _SYS_RT_SIGACTION, int(signal.SIGCHLD), action, 0, _SIGSET_BYTES
        )

    def _joining(self, init_pidfd, cgroups):
        """Run by the child as root of the host; after setns it is root of the sandbox's user
        namespace and nobody outside of it, and root and working directory are the sandbox's.
        "0" moves the writer itself into a control group: before anything is charged and before
        user code, or the sandbox's limits would not hold for the context."""
        for fd in cgroups:
            yield _step("cgroup", _SYS_WRITE, fd, self._zero, 1)
        yield _step("setns", _SYS_SETNS, init_pidfd, SANDBOX_NAMESPACES)
        yield _step("chdir", _SYS_CHDIR, self._workspace)

    def _descriptors(self, control, stdout, stderr, private):
        """Run by the child as root of the sandbox's user namespace: fds 0 to 2 and the kernel's
        own; nothing else of the zygote stays open."""
        yield _step("close", _SYS_CLOSE, 0)
        # The sandbox's own device, and the lowest number, which is 0.
        yield _step("/dev/null", _SYS_OPENAT, _AT_FDCWD, self._null_device, os.O_RDONLY)
        yield _step("stdout", _SYS_DUP2, stdout, 1)
        yield _step("stderr", _SYS_DUP2, stderr, 2)
        for number, fd in zip(private, (control, 0, 1, 2)):
            yield _step("dup3", _SYS_DUP3, fd, number, os.O_CLOEXEC)
        yield _step("close_range", _SYS_CLOSE_RANGE, 3, private[0] - 1)
        yield _step("close_range", _SYS_CLOSE_RANGE, private[-1] + 1, _FD_LAST)

    def _dropping(self, uid, gid):
        """Run by the child as root of the sandbox's user namespace; afterwards it is `uid` there,
        under the same filter as everything else in the sandbox, with nothing in any capability set
        and no way to get something back.

        The filter comes before the uid. Another context of the sandbox has the same uid: it may
        stop this process from then on, and where the host lets processes be dumped that have
        changed their uid (fs.suid_dumpable=1) write into it, and would turn a later filter's step
        into one that does nothing and reports success.
        """
        for capability in self._capabilities:
            yield _step("bounding set", _SYS_PRCTL, _PR_CAPBSET_DROP, capability)
        yield _step("ambient set", _SYS_PRCTL, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        yield _step("no_new_privs", _SYS_PRCTL, _PR_SET_NO_NEW_PRIVS, 1)
        if self._program is not None:
            yield _step(
                "seccomp filter", _SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, self._program
            )
        yield _step("setgroups", _SYS_SETGROUPS, 0, 0)
        yield _step("setresgid", _SYS_SETRESGID, gid, gid, gid)
        yield _step("setresuid", _SYS_SETRESUID, uid, uid, uid)
        yield _step("capset", _SYS_CAPSET, self._cap_header, self._cap_empty)
        yield _step("dumpable", _SYS_PRCTL, _PR_SET_DUMPABLE, 1)


def _step(name, *numbers):
    return (name, *numbers, *([0] * (1 + _ARGUMENTS - len(numbers))))


def enter(steps):
    """Takes the steps, in the child with the privileges that each of them names. None may be left
    out."""
    for name, number, a, b, c, d, e in steps:
        if _syscall(number, a, b, c, d, e) == -1:
            error = _get_errno()
            raise OSError(error, "%s: %s" % (name, os.strerror(error)))


def into_pid_namespace(fd):
    """The step that the zygote takes itself, as root: the pid namespace of its next child."""
    return _step("setns", _SYS_SETNS, fd, CLONE_NEWPID)


def fork_bare():
    """Runs in the zygote, as root. A fork without the handlers of libraries (glibc's _Fork), and
    without Python's hooks.

    All of them exist for other threads: they renew locks that one of those may have held. The
    zygote has none (it refuses to serve with more than one), so there is nothing to renew, and
    in every child they would copy 200 pages. What they do beyond locks, `warmup.reseed` does. A
    context's own os.fork() runs them all.
    """
    pid = _bare_fork()
    if pid == -1:
        error = _get_errno()
        raise OSError(error, "fork: %s" % os.strerror(error))
    return pid

