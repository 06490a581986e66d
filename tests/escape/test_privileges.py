"""Who holds what: the table of SECURITY.md, read from the processes that run.

Every row of that table is a test here, so that the table cannot go stale. What a process holds is
what the kernel says in /proc, asked as root from outside.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import wire
from probe import Sandbox
from server import TEMPLATES, Server

CAPABILITIES = {
    "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "SYS_CHROOT": 18, "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
}  # fmt: skip
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
INIT_UID, USER_UID = 998, 1000


def mask(*names: str) -> int:
    return sum(1 << CAPABILITIES[name] for name in names)


class Process:
    """One process as /proc shows it to root."""

    def __init__(self, pid: int):
        self.pid = pid
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        self.status = {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}

    def sets(self) -> dict[str, int]:
        return {name: int(self.status[name], 16) for name in SETS}

    def ids(self, kind: str) -> set[int]:
        return {int(n) for n in self.status[kind].split()}

    def own_namespaces(self) -> set[str]:
        """Those that are not the ones this test runs in, which are the host's."""
        return {
            name
            for name in NAMESPACES
            if os.readlink(f"/proc/{self.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
        }

    def descriptors(self) -> list[str]:
        found = []
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(os.readlink(fd))
            except FileNotFoundError:
                pass
        return found

    @property
    def confined(self) -> tuple[str, str]:
        return self.status["NoNewPrivs"], self.status["Seccomp"]


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


@pytest.fixture(scope="module")
def running(server: Server, sandbox: Sandbox) -> dict[str, Process]:
    """One of each kind."""
    assert server.process
    sandbox.run("1")
    ours = server.children()
    found = {"supervisor": server.process.pid, **ours}
    for pid in children(ours["spawner"]):
        if b"zygote.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found["zygote"] = pid
    memory = next(Path("/sys/fs/cgroup").glob(f"**/{sandbox.key}.*/cgroup.procs"))
    for pid in map(int, memory.read_text().split()):
        inside = {uid % 65536 for uid in Process(pid).ids("Uid")}
        if inside == {INIT_UID}:
            found["init"] = pid
        elif inside == {USER_UID} and b"zygote.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found["context"] = pid
    assert set(found) == {"supervisor", "spawner", "server", "zygote", "init", "context"}, found
    return {name: Process(pid) for name, pid in found.items()}


def test_the_supervisor_is_root_and_has_one_socket(
    server: Server, running: dict[str, Process]
) -> None:
    process = running["supervisor"]
    assert process.ids("Uid") == {0} and not process.own_namespaces()
    assert process.sets()["CapEff"] == Process(os.getpid()).sets()["CapEff"], "what it began with"
    assert process.status["Threads"] == "1"
    # Nothing that a client or a sandbox could write into: the listening socket is never accepted
    # from here, and its queue is the server's.
    sockets = [d for d in process.descriptors() if d.startswith("socket:")]
    listening = f"socket:[{listening_inode(server.port)}]"
    assert listening in sockets
    assert len(set(sockets)) <= 3, "besides it, the two ends that carry signals"


def listening_inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
            return fields[9]
    raise AssertionError("nothing listens there")


def test_the_spawner_is_root_in_its_own_mounts(running: dict[str, Process]) -> None:
    process = running["spawner"]
    assert process.ids("Uid") == {0}
    assert process.own_namespaces() == {"mnt"}
    assert process.status["Threads"] == "1"
    sets = process.sets()
    assert sets["CapAmb"] == 0 and sets["CapInh"] == 0
    kinds = {d.split(":")[0] for d in process.descriptors() if d.startswith("socket:")}
    assert kinds == {"socket"}
    inodes = {d[8:-1] for d in process.descriptors() if d.startswith("socket:")}
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "packet", "netlink"):
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        assert not inodes & {f for line in lines for f in line.split()}, f"a {table} socket"


def test_a_zygote_has_six_capabilities_and_no_network(running: dict[str, Process]) -> None:
    process = running["zygote"]
    expected = mask("SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE", "SETUID", "SETGID", "SETPCAP")
    assert process.sets() == {
        "CapInh": 0, "CapPrm": expected, "CapEff": expected, "CapBnd": expected, "CapAmb": 0,
    }  # fmt: skip
    assert process.ids("Uid") == {0}
    assert process.own_namespaces() == {"mnt", "net", "ipc", "uts"}
    assert process.status["Threads"] == "1"
    sockets = [d for d in process.descriptors() if d.startswith("socket:")]
    assert len(sockets) == 1, sockets
    interfaces = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]


def test_a_zygote_sees_its_template_read_only(running: dict[str, Process]) -> None:
    writable = set()
    for line in Path(f"/proc/{running['zygote'].pid}/mountinfo").read_text().splitlines():
        fields, _, options = line.partition(" - ")
        _, _, _, _, target, flags = fields.split()[:6]
        if "rw" in flags.split(",") and "rw" in options.split()[2].split(","):
            writable.add(target)
    assert writable <= {"/tmp", "/dev"}, writable
    with pytest.raises(OSError):
        Path(f"/proc/{running['zygote'].pid}/root/usr/new").touch()
    with pytest.raises(OSError):
        Path(f"/proc/{running['zygote'].pid}/root/dev/new").touch()


def test_the_server_holds_nothing(server: Server, running: dict[str, Process]) -> None:
    process = running["server"]
    uid = server.data_dir.stat().st_uid
    assert uid != 0
    assert process.ids("Uid") == {uid} and 0 not in process.ids("Gid")
    assert process.status["Groups"] == ""
    assert set(process.sets().values()) == {0}, process.sets()
    assert process.confined == ("1", "2")
    assert process.own_namespaces() == set()
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        status = (task / "status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status, "every thread"
    files = [d for d in process.descriptors() if d.startswith("/")]
    allowed = (str(server.data_dir), "/dev/null", "/dev/urandom", str(server.log), "/proc/", "/sys/")
    others = [f for f in files if not f.startswith(allowed)]
    # A lock that says that a template is in use, and nothing else of a template.
    assert all(f.startswith(str(TEMPLATES)) and f.endswith("/in-use") for f in others), others


def test_init_has_three_capabilities_in_a_namespace_of_no_worth(running: dict[str, Process]) -> None:
    process = running["init"]
    three = mask("KILL", "SETUID", "SETGID")
    assert process.sets() == {
        "CapInh": 0, "CapPrm": three, "CapEff": three, "CapBnd": three, "CapAmb": 0,
    }  # fmt: skip
    assert process.own_namespaces() == set(NAMESPACES)
    assert process.confined == ("1", "2")
    (uid,) = process.ids("Uid")
    assert uid >= 0x2000_0000 and uid % 65536 == INIT_UID
    assert process.status["NSpid"].split()[-1] == "1"
    files = [d for d in process.descriptors() if d.startswith("/")]
    # What its interpreters use is read from /proc, by files that it opens once.
    others = {f for f in files if not re.fullmatch(r"/proc/\d+/(stat|status)", f)}
    # And the name of the layer under the root, for snapshots: an O_PATH descriptor of its own.
    assert others == {"/dev/null", "/u"}, files
    flags = Path(f"/proc/{process.pid}/fdinfo/4").read_text().split("flags:")[1].split()[0]
    assert int(flags, 8) & os.O_PATH and int(flags, 8) & os.O_CLOEXEC, flags


def test_contexts_and_commands_have_none(
    sandbox: Sandbox, running: dict[str, Process]
) -> None:
    context = running["context"]
    assert set(context.sets().values()) == {0}
    assert context.confined == ("1", "2")
    assert context.own_namespaces() == set(NAMESPACES)
    init = running["init"].pid
    for name in NAMESPACES:
        mine, its = (os.readlink(f"/proc/{p}/ns/{name}") for p in (context.pid, init))
        assert mine == its, name
    (uid,) = context.ids("Uid")
    assert uid % 65536 == USER_UID and uid - USER_UID == next(iter(running["init"].ids("Uid"))) - INIT_UID
    # A command, by what it says itself: test_identity.py has all ways.
    status = sandbox.probe_command("result = status()")
    assert {name: int(status[name], 16) for name in SETS} == {
        "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": mask("KILL", "SETUID", "SETGID"),
        "CapAmb": 0,
    }  # fmt: skip


def test_the_namespace_of_a_sandbox_belongs_to_itself(running: dict[str, Process]) -> None:
    """NS_GET_OWNER_UID: what is counted for that owner is counted for this sandbox alone."""
    import fcntl
    import struct

    fd = os.open(f"/proc/{running['init'].pid}/ns/user", os.O_RDONLY)
    try:
        answer = fcntl.ioctl(fd, 0xB704, struct.pack("I", 0))
    finally:
        os.close(fd)
    (uid,) = running["init"].ids("Uid")
    assert struct.unpack("I", answer)[0] == uid - INIT_UID


def test_doors_on_the_host(server: Server, sandbox: Sandbox) -> None:
    """What of an instance others on the machine can name and open: nothing."""
    instance = wire.instance_of(server)
    uid = server.data_dir.stat().st_uid
    assert server.data_dir.stat().st_mode & 0o777 == 0o700
    for directory in (instance, instance / "init"):
        found = directory.stat()
        assert (found.st_uid, found.st_mode & 0o777) == (0, 0o711), directory
    for door in (instance / "spawner.sock", instance / "init" / sandbox.key):
        found = door.stat()
        assert (found.st_uid, found.st_mode & 0o777) == (uid, 0o600), door


def test_the_lock_is_not_followed(server: Server, tmp_path: Path) -> None:
    """The data directory is the server's, and root opens a file there at the start: a server that
    was taken over puts a link in its place, and root must neither follow nor empty it."""
    import subprocess

    from probe import data_directory
    from server import binary

    data = data_directory()
    data.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("of root")
    (data / "lock").symlink_to(victim)
    command = [str(binary()), "serve", "--listen", "127.0.0.1:0", "--pool", "0"]
    command += ["--data-dir", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78, done.stderr
    assert victim.read_text() == "of root"
    (data / "lock").unlink()
    data.rmdir()
    data.parent.rmdir()


def test_templates_are_not_the_server_s(server: Server) -> None:
    """Root runs what is in the directory of templates: it must not be inside the server's own."""
    import shutil
    import subprocess

    from probe import data_directory
    from server import binary

    data = data_directory()
    (data / "templates").mkdir(parents=True)
    command = [str(binary()), "serve", "--listen", "127.0.0.1:0", "--pool", "0"]
    command += ["--data-dir", str(data)]
    command += ["--templates-dir", str(data / "templates")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78 and "--templates-dir" in done.stderr, done.stderr
    shutil.rmtree(data.parent)
