"""Makes a sandbox-like process for the zygote tests: seven namespaces, its own uid range, a root
that holds little more than the host's programs, /workspace. Prints the pid of its pid 1, then
waits for the end of its stdin. Needs root."""

import ctypes
import os
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
UID_BASE, UID_COUNT = 1_200_000_000, 65536
# Of the host's root; the rest is shared, so that the interpreter under test is there.
NOT_SHARED = ("mnt", "proc", "sys", "workspace")


def check(answer, what):
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))


def mount(source, target, kind, flags):
    check(
        libc.mount(source.encode(), target.encode(), kind.encode(), flags, None),
        "mount %s" % target,
    )


def build_root():
    """In the new mount namespace, as root of the new user namespace."""
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    root = "/mnt"
    mount("tmpfs", root, "tmpfs", 0)
    for name in sorted(set(os.listdir("/")) - set(NOT_SHARED)):
        if os.path.islink("/" + name):
            os.symlink(os.readlink("/" + name), "%s/%s" % (root, name))
        elif os.path.isdir("/" + name):
            os.mkdir("%s/%s" % (root, name))
            mount("/" + name, "%s/%s" % (root, name), "none", MS_BIND | MS_REC)
    os.mkdir(root + "/proc")
    mount("proc", root + "/proc", "proc", 0)
    os.mkdir(root + "/workspace")
    os.chown(root + "/workspace", 1000, 1000)
    os.chdir(root)
    check(libc.syscall(155, b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def main():
    go_read, go_write = os.pipe()
    told_read, told_write = os.pipe()
    child = os.fork()
    if child == 0:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        check(libc.unshare(NAMESPACES), "unshare")
        os.write(told_write, b"x")
        os.read(go_read, 1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        first = os.fork()
        if first == 0:
            build_root()
            libc.sethostname(b"sandbox", 7)
            # Like init, it becomes a program of the new user namespace; `told` closes with that.
            os.write(told_write, b"y")
            os.execv("/bin/sleep", ["sleep", "infinity"])
        os.close(told_write)
        os.waitpid(first, 0)
        os._exit(0)
    os.close(told_write)
    if os.read(told_read, 1) != b"x":
        sys.exit(1)
    for kind in ("uid", "gid"):
        with open("/proc/%d/%s_map" % (child, kind), "w") as file:
            file.write("0 %d %d" % (UID_BASE, UID_COUNT))
    os.write(go_write, b"g")
    if os.read(told_read, 1) != b"y" or os.read(told_read, 1):
        sys.exit(1)
    with open("/proc/%d/task/%d/children" % (child, child)) as file:
        first = int(file.read())
    print(first, flush=True)
    sys.stdin.read()
    try:
        os.kill(first, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(child, 0)


main()
