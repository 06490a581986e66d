"""System calls that lead out of a sandbox, asked for by tenant code.

Each is called with arguments that the kernel itself would answer in another way (or would carry
out): the host's answer is the control. Where the host answers like the filter, as a kernel without
that feature does, nothing is shown and the case is skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from probe import Sandbox, on_host

# What the filter answers: EPERM for what a program should report, ENOSYS for "old kernel".
EPERM, ENOSYS = "EPERM", "ENOSYS"

NOWHERE = 'b"/nonexistent"'
CALLS = {
    # mounts and roots
    "mount": (165, "b'none', b'/nonexistent', b'tmpfs', 0, 0"),
    "umount2": (166, f"{NOWHERE}, 0"),
    "pivot_root": (155, f"{NOWHERE}, {NOWHERE}"),
    "chroot": (161, NOWHERE),
    "open_tree": (428, f"-100, {NOWHERE}, 0"),
    "open_tree_attr": (467, f"-100, {NOWHERE}, 0, 0, 0"),
    "move_mount": (429, f"-100, {NOWHERE}, -100, {NOWHERE}, 0"),
    "fsopen": (430, "b'tmpfs', 0"),
    "fsconfig": (431, "-1, 0, 0, 0, 0"),
    "fsmount": (432, "-1, 0, 0"),
    "fspick": (433, f"-100, {NOWHERE}, 0"),
    "mount_setattr": (442, f"-100, {NOWHERE}, 0, 0, 0"),
    "statmount": (457, "0, 0, 0, 0"),
    "listmount": (458, "0, 0, 0, 0"),
    "swapoff": (168, NOWHERE),
    "quotactl_fd": (443, "-1, 0, 0, 0"),
    # namespaces
    "unshare user": (272, "0x10000000"),
    "unshare mount": (272, "0x00020000"),
    "unshare net": (272, "0x40000000"),
    "unshare nothing": (272, "0"),
    "setns": (308, "-1, 0"),
    # other processes
    "ptrace": (101, "0, 0, 0, 0"),
    "process_vm_readv": (310, "os.getpid(), 0, 0, 0, 0, 0"),
    "process_vm_writev": (311, "os.getpid(), 0, 0, 0, 0, 0"),
    "process_madvise": (440, "-1, 0, 0, 0, 0"),
    "pidfd_getfd": (438, "-1, 0, 0"),
    "kcmp": (312, "os.getpid(), os.getpid(), 0, 0, 0"),
    # kernel surface
    "bpf": (321, "0, 0, 0"),
    "perf_event_open": (298, "0, 0, -1, -1, 0"),
    "userfaultfd": (323, "0"),
    "io_uring_setup": (425, "1, 0"),
    "io_uring_enter": (426, "-1, 0, 0, 0, 0, 0"),
    "io_uring_register": (427, "-1, 0, 0, 0"),
    "keyctl": (250, "0, -3, 0"),
    "add_key": (248, "0, 0, 0, 0, 0"),
    "request_key": (249, "0, 0, 0, 0"),
    "vmsplice": (278, "-1, 0, 0, 0"),
    "fanotify_init": (300, "0, 0"),
    "memfd_secret": (447, "0"),
    "mbind": (237, "0, 0, 0, 0, 0, 0"),
    "migrate_pages": (256, "os.getpid(), 0, 0, 0"),
    "move_pages": (279, "os.getpid(), 0, 0, 0, 0, 0"),
    "modify_ldt": (154, "0, 0, 0"),
    "iopl": (172, "0"),
    "ioperm": (173, "0, 1, 0"),
    "acct": (163, NOWHERE),
    # handles, clocks, machine
    "name_to_handle_at": (303, f"-100, {NOWHERE}, 0, 0, 0"),
    "open_by_handle_at": (304, "-1, 0, 0"),
    "clock_settime": (227, "0, 0"),
    "clock_adjtime": (305, "0, 0"),
    "settimeofday": (164, "0, 1"),
    "init_module": (175, "0, 0, 0"),
    "finit_module": (313, "-1, 0, 0"),
    "kexec_load": (246, "0, 1000, 0, 0"),
    "reboot": (169, "0, 0, 0, 0"),
    # arguments that a filter cannot see
    "clone3": (435, "0, 0"),
    # counted for the whole machine, not for a user
    "io_setup": (206, "0, 0"),
    "io_submit": (209, "0, 0, 0"),
    # the host's kernel log
    "syslog": (103, "10, 0, 0"),
    # flushes the host's file systems
    "sync": (162, ""),
}
NOSYS = {"clone3", "io_setup", "io_submit", "sync"}


def snippet(name: str) -> str:
    number, arguments = CALLS[name]
    # In a child: some of them would change the process that asks.
    return f"result = in_child(lambda: call({number}, {arguments}))"


@pytest.mark.parametrize("name", CALLS)
def test_call_is_refused(sandbox: Sandbox, name: str) -> None:
    expected = ENOSYS if name in NOSYS else EPERM
    control = on_host(snippet(name))
    if control == expected:
        pytest.skip(f"this host answers {control} as well")
    assert sandbox.probe(snippet(name)) == expected, f"the host's answer: {control}"


def test_syslog_is_refused_by_the_filter(sandbox: Sandbox) -> None:
    """With kernel.dmesg_restrict=1 the kernel refuses it as well, so the control is a process of
    the same uid with that setting off."""
    setting = Path("/proc/sys/kernel/dmesg_restrict")
    before = setting.read_text()
    probe = """
def as_user():
    os.setgid(1000), os.setuid(1000)
    return call(103, 10, 0, 0)
result = in_child(as_user)
"""
    try:
        setting.write_text("0")
        assert on_host(probe) == "ok"
        assert sandbox.probe("result = call(103, 10, 0, 0)") == EPERM
    finally:
        setting.write_text(before)


def test_calls_are_refused_to_commands_as_well(sandbox: Sandbox) -> None:
    source = "result = {}\n" + "".join(
        f"result[{name!r}] = in_child(lambda: call({number}, {arguments}))\n"
        for name, (number, arguments) in CALLS.items()
    )
    expected = {name: ENOSYS if name in NOSYS else EPERM for name in CALLS}
    assert sandbox.probe_command(source) == expected


NAMESPACES = {
    "time": 0x80,
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


@pytest.mark.parametrize("kind", [k for k in NAMESPACES if k != "time"])
def test_clone_makes_no_namespace(sandbox: Sandbox, kind: str) -> None:
    # A raw clone without a stack is a fork; the child leaves at once.
    probe = f"""
before = len(os.listdir("/proc/self/task"))
pid = libc.syscall(56, ctypes.c_long({NAMESPACES[kind]} | 17), 0, 0, 0, 0)
number = ctypes.get_errno()
if pid == 0:
    os._exit(0)
if pid > 0:
    os.waitpid(pid, 0)
result = "ok" if pid > 0 else error_name(number)
"""
    assert on_host(probe) == "ok"
    assert sandbox.probe(probe) == EPERM
    plain = probe.replace(str(NAMESPACES[kind]), "0")
    assert sandbox.probe(plain) == "ok", "an ordinary clone works"


# family, type, protocol, and whether programs may have it
SOCKETS = {
    "unix stream": (1, 1, 0, True),
    "unix seqpacket": (1, 5, 0, True),
    "inet stream": (2, 1, 0, True),
    "inet6 datagram": (10, 2, 0, True),
    "inet raw icmp": (2, 3, 1, False),
    "inet6 raw": (10, 3, 58, False),
    "inet sctp": (2, 1, 132, False),
    "inet mptcp": (2, 1, 262, False),
    "inet udplite": (2, 2, 136, False),
    "packet": (17, 3, 768, False),
    "vsock": (40, 1, 0, False),
    "alg": (38, 5, 0, False),
    "bluetooth": (31, 3, 1, False),
    "can": (29, 3, 1, False),
    "xdp": (44, 3, 0, False),
    "tipc": (30, 5, 0, False),
    "key": (15, 3, 2, False),
}


@pytest.mark.parametrize("name", SOCKETS)
def test_socket_families(sandbox: Sandbox, name: str) -> None:
    family, kind, protocol, allowed = SOCKETS[name]
    # The second form tries to hide the type behind the flags that share its word.
    probe = f"result = [call(41, {family}, {kind}, {protocol}), " \
            f"call(41, {family}, {kind} | 0x80800, {protocol})]"
    if allowed:
        assert sandbox.probe(probe) == ["ok", "ok"]
    else:
        # A kernel without the family says so; it never says EPERM to root.
        assert EPERM not in on_host(probe)
        assert sandbox.probe(probe) == [EPERM, EPERM]
        assert sandbox.probe_command(probe) == [EPERM, EPERM]


NETLINKS = {
    "route": 0, "diag": 4, "audit": 9, "netfilter": 12, "kobject": 15, "generic": 16, "crypto": 21,
}  # fmt: skip


@pytest.mark.parametrize("name", NETLINKS)
def test_there_is_no_netlink(sandbox: Sandbox, name: str) -> None:
    """Answers that wait in a netlink socket are in no memory limit: 500 sockets held 4 GiB."""
    protocol = NETLINKS[name]
    probe = f"result = [call(41, 16, 3, {protocol}), call(41, 16, 2 | 0x80800, {protocol})]"
    assert ENOSYS not in on_host(probe)
    assert sandbox.probe(probe) == [ENOSYS] * 2
    assert sandbox.probe_command(probe) == [ENOSYS] * 2


def test_names_are_resolved_without_netlink(sandbox: Sandbox) -> None:
    """What the C library asks netlink for, it can do without."""
    probe = "result = sorted({a[4][0] for a in socket.getaddrinfo('localhost', 80)})"
    assert "127.0.0.1" in sandbox.probe(probe)


PROGRAM = """
# One instruction: everything passes.
allow = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 1, ctypes.addressof(allow)))
"""


def test_no_program_is_given_to_the_kernel(sandbox: Sandbox) -> None:
    """Compiled programs are in no memory limit, and there is one limit of them for the machine:
    beyond it no sandbox and no context could be made, because theirs would be refused."""
    probe = f"""
{PROGRAM}
udp, tcp = socket.socket(2, 2), socket.socket(2, 1)
result = {{
    "socket filter": call(54, udp.fileno(), 1, 26, program, 16),
    "reuseport": call(54, udp.fileno(), 1, 51, program, 16),
    "seccomp": in_child(lambda: [call(157, 38, 1, 0, 0, 0), call(317, 1, 0, program)][1]),
    "prctl": in_child(lambda: [call(157, 38, 1, 0, 0, 0), call(157, 22, 2, program)][1]),
}}
udp.setsockopt(1, 2, 1), tcp.setsockopt(6, 1, 1)
"""
    control = on_host(probe.replace("udp.fileno(), 1, 51", "udp.fileno(), 1, 26"))
    assert set(control.values()) == {"ok"}, control
    assert set(sandbox.probe(probe).values()) == {EPERM}
    assert set(sandbox.probe_command(probe).values()) == {EPERM}


def test_sockets_have_no_protocols_inside_of_protocols(sandbox: Sandbox) -> None:
    """TLS in the kernel and packets in packets: surface that nobody needs here."""
    probe = """
udp, tcp = socket.socket(2, 2), socket.socket(2, 1)
kind = ctypes.create_string_buffer(struct.pack("i", 2))
result = [call(54, tcp.fileno(), 6, 31, b"tls", 3), call(54, udp.fileno(), 17, 100, kind, 4)]
"""
    assert EPERM not in on_host(probe)
    assert sandbox.probe(probe) == [EPERM] * 2


def test_no_lease_makes_others_wait(sandbox: Sandbox) -> None:
    """Who opens a leased file waits for its holder, for 45 seconds: init would."""
    probe = """
import fcntl, tempfile
file = open(tempfile.mktemp(), "w+")
result = [outcome(fcntl.fcntl, file, 1024, 1), outcome(fcntl.fcntl, file, 1026, 2)]
"""
    assert on_host(probe) == ["ok", "ENOTDIR"]
    assert sandbox.probe(probe) == [EPERM] * 2


HUGE = """
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
def huge(flags, fd):
    ctypes.set_errno(0)
    at = libc.mmap(None, 2 << 20, 3, flags, fd, 0)
    if at == ctypes.c_void_p(-1).value:
        return error_name(ctypes.get_errno())
    ctypes.memset(at, 1, 4096)
    return "ok"
ctypes.set_errno(0)
segment = libc.shmget(0, 2 << 20, 0o5600)
result = {
    "shmget": "ok" if segment >= 0 else error_name(ctypes.get_errno()),
    "mmap": huge(0x40022, -1),
    "memfd": call(319, b"huge", 4),
}
libc.shmctl(segment, 0, 0)
"""


def test_huge_pages_of_the_host_stay_there(sandbox: Sandbox) -> None:
    """They are reserved for somebody, and no memory limit counts them."""
    reserve = Path("/proc/sys/vm/nr_hugepages")
    before = reserve.read_text()
    try:
        reserve.write_text(str(int(before) + 4))
        if int(reserve.read_text()) <= int(before):
            pytest.skip("this host can reserve no huge pages")
        assert set(on_host(HUGE).values()) == {"ok"}
        assert set(sandbox.probe(HUGE).values()) == {EPERM}
        assert set(sandbox.probe_command(HUGE).values()) == {EPERM}
    finally:
        reserve.write_text(before)


def test_flushing_the_file_systems_of_the_host_is_not_theirs(sandbox: Sandbox) -> None:
    probe = "result = [call(162), outcome(os.fsync, os.open('/tmp', 0))]"
    assert on_host(probe) == ["ok", "ok"]
    assert sandbox.probe(probe) == [ENOSYS, "ok"]


def test_socketpair_is_unix_only(sandbox: Sandbox) -> None:
    probe = """
pair = (ctypes.c_int * 2)()
result = [call(53, family, 1, 0, ctypes.byref(pair)) for family in (1, 30, 2)]
"""
    assert sandbox.probe(probe) == ["ok", EPERM, EPERM]
    assert EPERM not in on_host(probe)


def test_other_instruction_sets_end_the_process(sandbox: Sandbox) -> None:
    """`int 0x80` asks for 32-bit calls, whose numbers mean other things to a filter."""
    probe = """
import mmap
def ask():
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return "ok" if function() == os.getpid() else "no such calls"
result = in_child(ask)
"""
    control = on_host(probe)
    found = sandbox.probe(probe)
    # SIGSYS by the filter; a kernel without 32-bit emulation ends it with SIGSEGV by itself.
    assert found == "signal 31" or (control == found == "signal 11"), (control, found)


def test_x32_numbers_lead_nowhere(sandbox: Sandbox) -> None:
    probe = "result = [call(0x40000000 | n, 0, 0, 0) for n in (39, 165, 272, 520, 521, 538)]"
    assert sandbox.probe(probe) == [ENOSYS] * 6


def test_high_halves_of_arguments_hide_nothing(sandbox: Sandbox) -> None:
    """The filter looks at 32 bits; the kernel must look at no more."""
    probe = """
high = 1 << 32
result = [call(41, high | 40, 1, 0), call(41, high | 17, 3, 768), call(56, high | 0x10000011, 0, 0, 0, 0)]
"""
    assert sandbox.probe(probe) == [EPERM] * 3


def test_personality_and_terminal_injection(sandbox: Sandbox) -> None:
    probe = """
import pty
master, slave = pty.openpty()
result = {
    "read implies exec": in_child(lambda: call(135, 0x0400000)),
    "32 bit addresses": in_child(lambda: call(135, 0x0800000)),
    "query": call(135, 0xffffffff),
    "TIOCSTI": call(16, slave, 0x5412, b"x"),
    "TIOCLINUX": call(16, slave, 0x541c, b"x"),
    "hidden TIOCSTI": call(16, slave, (1 << 32) | 0x5412, b"x"),
    "TIOCSETD": call(16, slave, 0x5423, ctypes.create_string_buffer(struct.pack("i", 0))),
    "TIOCGWINSZ": call(16, slave, 0x5413, ctypes.create_string_buffer(8)),
}
"""
    control = on_host(probe)
    assert control["read implies exec"] == control["32 bit addresses"] == "ok"
    assert control["TIOCLINUX"] != EPERM and control["TIOCSETD"] == "ok"
    assert sandbox.probe(probe) == {
        "read implies exec": EPERM,
        "32 bit addresses": EPERM,
        "query": "ok",
        "TIOCSTI": EPERM,
        "TIOCLINUX": EPERM,
        "hidden TIOCSTI": EPERM,
        "TIOCSETD": EPERM,
        "TIOCGWINSZ": "ok",
    }


def test_the_filter_cannot_be_loosened(sandbox: Sandbox) -> None:
    """Another filter is refused, on either way; the one that there is stays."""
    probe = f"""
{PROGRAM}
def loosen():
    ways = [call(317, 1, 0, program), call(317, 1, 1, program), call(157, 22, 2, program)]
    return [ways, call(272, 0x10000000), status()["Seccomp"], status().get("Seccomp_filters", "1")]
result = in_child(loosen)
"""
    assert sandbox.probe(probe) == [[EPERM] * 3, EPERM, "2", "1"]
