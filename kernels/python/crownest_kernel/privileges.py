"""System calls of a zygote's child on its way into a sandbox.

Every argument buffer is built before the fork, by `Entry`: after it, each new object is a copied
page, and an allocation that fails half-way would be a wall that is missing. The functions below
say who runs them with which privileges. Any failure raises OSError; the caller ends the child.
"""

import ctypes
import os
import struct

# x86_64; the zygote refuses to start elsewhere.
_SYS_SECCOMP = 317
_SYS_SETNS = 308
_SYS_CLOSE_RANGE = 436
_SYS_CAPSET = 126

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

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_SET_MODE_FILTER = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_BPF_INSTRUCTION_BYTES = 8
_BPF_INSTRUCTIONS_MAX = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_get_errno = ctypes.get_errno
# PyDLL: the interpreter's lock stays held, since a child has nobody to take it back from.
_bare_fork = ctypes.PyDLL(None, use_errno=True)._Fork


class Entry:
    """Prepared arguments for entering a sandbox and giving up every privilege."""

    def __init__(self, seccomp_filter):
        """`seccomp_filter`: the instructions as bytes, or None for none at all (tests)."""
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            self._capabilities = range(int(file.read()) + 1)
        self._cap_header = ctypes.create_string_buffer(
            struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
        )
        self._cap_empty = ctypes.create_string_buffer(struct.pack("=6I", *([0] * 6)))
        self._filter = self._program = None
        if seccomp_filter is not None:
            count, rest = divmod(len(seccomp_filter), _BPF_INSTRUCTION_BYTES)
            if rest or not 0 < count <= _BPF_INSTRUCTIONS_MAX:
                raise ValueError("a seccomp filter of %d bytes" % len(seccomp_filter))
            self._filter = ctypes.create_string_buffer(seccomp_filter, len(seccomp_filter))
            # struct sock_fprog: u16 len, padding, pointer
            self._program = ctypes.create_string_buffer(
                struct.pack("=HxxxxxxQ", count, ctypes.addressof(self._filter))
            )

    def join_cgroups(self, fds):
        """Runs in the child as root of the host: "0" moves the writer itself. Before anything is
        charged and before user code, or the sandbox's limits would not hold for the context."""
        for fd in fds:
            os.write(fd, b"0")

    def join_namespaces(self, init_pidfd):
        """Runs in the child as root of the host; afterwards it is root of the sandbox's user
        namespace and nobody outside of it. Root and working directory are the sandbox's."""
        set_namespaces(init_pidfd, SANDBOX_NAMESPACES)

    def drop_privileges(self, uid, gid):
        """Runs in the child as root of the sandbox's user namespace; afterwards it is `uid` there,
        with nothing in any capability set and no way to get something back."""
        for capability in self._capabilities:
            _check(_prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "drop from the bounding set")
        _check(_prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear ambient set")
        os.setgroups(())
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        _check(_syscall(_SYS_CAPSET, self._cap_header, self._cap_empty), "empty capability sets")
        _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")

    def install_filter(self):
        """Runs in the child as the sandbox's user; afterwards the same filter holds as for
        everything else in the sandbox.

        Changing uid has made this process undumpable, so that no other context of the sandbox
        (it has the same uid) can open its memory. That ends only once the filter holds: a
        context that could write here before would turn the call below into one that does
        nothing and reports success.
        """
        if self._program is not None:
            answer = _syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, self._program)
            _check(answer, "seccomp filter")
        _check(_prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")


def set_namespaces(fd, kinds):
    """Runs in the zygote (pid namespace for its next child) and in the child, as root."""
    _check(_syscall(_SYS_SETNS, fd, kinds), "setns")


def fork_bare():
    """Runs in the zygote, as root. A fork without the handlers of libraries (glibc's _Fork), and
    without Python's hooks.

    All of them exist for other threads: they renew locks that one of those may have held. The
    zygote has none (it refuses to serve with more than one), so there is nothing to renew, and
    in every child they would copy 250 pages. What they do beyond locks, `warmup.reseed` does. A
    context's own os.fork() runs them all.
    """
    pid = _bare_fork()
    _check(pid, "fork")
    return pid


def close_from_to(first, last):
    """Closes every descriptor from `first` to `last`."""
    if first <= last:
        _check(_syscall(_SYS_CLOSE_RANGE, first, ctypes.c_uint(last), 0), "close_range")


def _check(answer, step):
    if answer == -1:
        number = _get_errno()
        raise OSError(number, "%s: %s" % (step, os.strerror(number)))
