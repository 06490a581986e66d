"""What one server has on this machine, counted from outside.

Owns: finding the processes, groups, descriptors and files that belong to one instance, waiting for
a condition. Does not own: starting servers (../server.py).
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from server import Server

CGROUP_ROOT = Path("/sys/fs/cgroup")
RUN_DIR = Path("/run/crownest")
WAIT_SECONDS_MAX = 30
LOOK_SECONDS = 0.02
LOOSE = ("supervisor_fds", "server_fds", "spawner_fds", "zygote_fds")
LOOSE_FDS_MAX = 6
# As in crates/runtime/src/layout.rs.
UID_BASE = 0x2000_0000
UIDS_PER_SANDBOX = 65_536
UIDS_PER_INSTANCE = 4_096 * UIDS_PER_SANDBOX
# Root of a sandbox, init, the user; other programs may use other numbers of the range.
UIDS_USED = (0, 998, 1000)
NAMESPACE = re.compile(r"(cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]")


def data_directory() -> Path:
    """For a server of a test's own: its user must be able to enter what is above."""
    path = Path(tempfile.mkdtemp(prefix="crownest-test-"))
    path.chmod(0o711)
    return path / "data"


def wait_for(what: str, condition: Callable[[], Any], seconds: float = WAIT_SECONDS_MAX) -> Any:
    """Looks again and again until the condition has a value; fails by name when it never has."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(LOOK_SECONDS)


def argument(pid: int, name: str) -> str | None:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return arguments[arguments.index(name) + 1] if name in arguments else None


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """By number and never by name; only processes of a server that the test started."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def fds(pid: int) -> int:
    """Open descriptors; 0 for a process that is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def mounts(pid: int | str) -> int:
    return len(Path(f"/proc/{pid}/mounts").read_text().splitlines())


def namespaces(pids: Iterable[int]) -> set[str]:
    """Every namespace that one of the processes is in or holds open."""
    found: set[str] = set()
    for pid in pids:
        for folder in ("ns", "fd"):
            try:
                names = os.listdir(f"/proc/{pid}/{folder}")
            except OSError:
                continue
            for name in names:
                try:
                    target = os.readlink(f"/proc/{pid}/{folder}/{name}")
                except OSError:
                    continue
                if NAMESPACE.fullmatch(target):
                    found.add(target)
    return found


def pss_kib(pid: int) -> int:
    """The process's share of memory; 0 for one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in text.splitlines() if x.startswith("Pss:")), 0)


@dataclass(frozen=True)
class Census:
    """Everything that must not grow."""

    groups: int
    processes: int
    strays: int
    namespaces: int
    sockets: int
    host_mounts: int
    spawner_mounts: int
    supervisor_fds: int
    server_fds: int
    spawner_fds: int
    zygotes: int
    zygote_fds: int


class Machine:
    """One running server's traces."""

    def __init__(self, server: Server):
        self.server = server
        self.instance = argument(self.pid("spawner"), "--instance")

    def pid(self, name: str) -> int:
        """Of the child of that name, once it is there."""
        return wait_for(f"a {name}", lambda: self.server.children().get(name))

    def groups(self) -> list[Path]:
        """Of sandboxes, in every hierarchy."""
        name = f"crownest-{self.instance}"
        return [
            group
            for parent in (*CGROUP_ROOT.glob(f"*/{name}"), *CGROUP_ROOT.glob(name))
            for group in parent.iterdir()
            if group.is_dir() and "." in group.name
        ]

    def processes(self, key: str = "") -> set[int]:
        """In the groups of all sandboxes, or of one."""
        found: set[int] = set()
        for group in self.groups():
            if group.name.startswith(key):
                try:
                    found |= {int(p) for p in (group / "cgroup.procs").read_text().split()}
                except OSError:
                    continue
        return found

    def init(self, key: str) -> int:
        """The process of a sandbox that is number 1 inside."""
        for pid in self.processes(f"{key}."):
            status = Path(f"/proc/{pid}/status").read_text()
            if status.split("NSpid:")[1].splitlines()[0].split()[-1] == "1":
                return pid
        raise AssertionError(f"sandbox {key} has no init")

    def inside(self, key: str, pid: int) -> int:
        """The process of a sandbox that has that number inside."""
        for found in self.processes(f"{key}."):
            status = Path(f"/proc/{found}/status").read_text()
            if status.split("NSpid:")[1].splitlines()[0].split()[-1] == str(pid):
                return found
        raise AssertionError(f"sandbox {key} has no process {pid}")

    def database(self) -> Path:
        return self.server.data_dir / "crownest.db"

    def audited(self, action: str) -> set[str]:
        """What the audit log names in events of that kind."""
        with sqlite3.connect(f"file:{self.database()}?mode=ro", uri=True) as db:
            query = "SELECT resource_id FROM audit_events WHERE action = ?"
            return {row[0] for row in db.execute(query, (action,))}

    def audit_requests(self, action: str) -> list[str]:
        """The requests that events of that kind came with."""
        with sqlite3.connect(f"file:{self.database()}?mode=ro", uri=True) as db:
            query = "SELECT request_id FROM audit_events WHERE action = ? ORDER BY at"
            return [row[0] for row in db.execute(query, (action,))]

    def zygotes(self) -> list[int]:
        """Children of the spawner that run Python; forks of theirs are children of a zygote."""
        spawner = self.pid("spawner")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if parent == spawner and b"zygote.py" in line and alive(int(entry.name)):
                    found.append(int(entry.name))
        return found

    def strays(self) -> set[int]:
        """Processes with a uid of this instance that are in no group of its sandboxes."""
        first = UID_BASE + int(self.instance or 0) * UIDS_PER_INSTANCE
        grouped, found = self.processes(), set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in grouped:
                continue
            try:
                uid = entry.stat().st_uid
            except OSError:
                continue
            place, inside = uid - first, (uid - UID_BASE) % UIDS_PER_SANDBOX
            ours = 0 <= place < UIDS_PER_INSTANCE and inside in UIDS_USED
            if ours and alive(int(entry.name)):
                found.add(int(entry.name))
        # One that has just been made was not in the list of groups yet.
        return found - self.processes()

    def memory_kib(self) -> dict[str, int]:
        """Proportional memory of our own processes."""
        return {
            "server": pss_kib(self.pid("server")),
            "spawner": pss_kib(self.pid("spawner")),
            "zygote": sum(pss_kib(pid) for pid in self.zygotes()),
        }

    @staticmethod
    def slowness() -> float:
        """How much longer things may take here than on a machine without other work."""
        return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

    def census(self) -> Census:
        spawner, server, zygotes = self.pid("spawner"), self.pid("server"), self.zygotes()
        assert self.server.process
        supervisor = self.server.process.pid
        processes = self.processes()
        root = RUN_DIR / str(self.instance)
        return Census(
            groups=len(self.groups()),
            processes=len(processes),
            strays=len(self.strays()),
            namespaces=len(namespaces({*processes, *zygotes, spawner, server, supervisor})),
            sockets=len(os.listdir(root / "init")),
            host_mounts=mounts("self"),
            spawner_mounts=mounts(spawner),
            supervisor_fds=fds(supervisor),
            server_fds=fds(server),
            spawner_fds=fds(spawner),
            zygotes=len(zygotes),
            zygote_fds=sum(fds(pid) for pid in zygotes),
        )


class Client:
    """A tenant who knows that servers restart: asks again when nobody answers."""

    def __init__(self, server: Server):
        self.server = server
        self.headers = {"authorization": f"Bearer {server.api_key}"}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        timeout: float = 60,
        key: str | None = None,
    ) -> httpx.Response:
        headers = self.headers | ({"idempotency-key": key} if key else {})
        return httpx.request(
            method, self.server.url + path, json=body, headers=headers, timeout=timeout
        )

    def insist(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> httpx.Response:
        """Until there is an answer other than "try again"."""

        def ask() -> httpx.Response | None:
            try:
                answer = self.request(method, path, body, key=key)
            except httpx.TransportError:
                return None
            retry = answer.status_code in (429, 502, 503)
            return None if retry else answer

        return wait_for(f"an answer to {method} {path}", ask)

    def create(self, **request: Any) -> str:
        answer = self.insist("POST", "/v1/sandboxes", request)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        return body.get("sandbox", body)["id"]

    def context(self, sandbox: str) -> str:
        path = f"/v1/sandboxes/{sandbox}/code/contexts"
        answer = self.insist("POST", path, {"language": "python"})
        assert answer.status_code == 201, answer.text
        return answer.json()["context"]["id"]

    def run(self, sandbox: str, code: str, context: str | None = None) -> dict[str, Any]:
        body = {"code": code, "language": "python", "timeoutMs": 30_000}
        if context:
            body["contextId"] = context
        answer = self.insist("POST", f"/v1/sandboxes/{sandbox}/code/runs", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["run"]

    def value(self, sandbox: str, code: str, context: str | None = None) -> str:
        run = self.run(sandbox, code, context)
        assert run["outputs"], run
        return run["outputs"][0]["value"]

    def destroy(self, sandbox: str) -> None:
        answer = self.insist("DELETE", f"/v1/sandboxes/{sandbox}")
        assert answer.status_code == 200, answer.text


def settle(machine: Machine, before: Census) -> None:
    """Waits until nothing is there that was not there before. Descriptors of connections and of
    SQLite come and go by a few; what leaks grows with the cycles."""

    def equal() -> bool:
        now = machine.census()
        exact = [name for name in asdict(before) if name not in LOOSE]
        return all(getattr(now, f) == getattr(before, f) for f in exact) and all(
            abs(getattr(now, f) - getattr(before, f)) <= LOOSE_FDS_MAX for f in LOOSE
        )

    try:
        wait_for("the machine as before", equal, WAIT_SECONDS_MAX)
    except AssertionError:
        now = asdict(machine.census())
        differences = {k: (v, now[k]) for k, v in asdict(before).items() if now[k] != v}
        raise AssertionError(f"left over (before, now): {differences}") from None


def key_of(sandbox: str) -> str:
    return sandbox.removeprefix("sbx_")
