"""A sandbox with hostile code in it, watched from inside, from next door and from the host.

Owns: making it, what a case may ask of it, counting what is left of it. Which attacks there are is
in the tables (`python_*.py`, `command_*.py`), what must hold for all of them in the two tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from neighbour import Neighbour

from server import Server

Json = dict[str, Any]

CGROUP_ROOT = Path("/sys/fs/cgroup")
MIB = 1024 * 1024
# What init grants beyond a timeout before it kills (KILL_GRACE_MS), and a busy machine's delay.
GRACE_SECONDS = 2.0
SLACK_SECONDS = 6.0
CALL_SECONDS_MAX = 60
SETTLE_SECONDS_MAX = 10
LOOK_SECONDS = 0.01
NEIGHBOUR_SECONDS_MAX = 1.0
UIDS_PER_SANDBOX = 65536
# Small enough to be exhausted within a second; everything else is as configured by default.
RESOURCES = {"memoryBytes": 512 * MIB, "diskBytes": 64 * MIB, "pids": 96}


def until(what: str, condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SETTLE_SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {SETTLE_SECONDS_MAX} s"
        time.sleep(LOOK_SECONDS)


class Arena:
    """One sandbox under attack, with a second context that must not suffer."""

    def __init__(self, server: Server, **fields: Any):
        headers = {"authorization": f"Bearer {server.api_key}"}
        self.http = httpx.Client(
            base_url=server.url, headers=headers, timeout=CALL_SECONDS_MAX, trust_env=False
        )
        body = {"resources": RESOURCES, **fields}
        answer = self.http.post("/v1/sandboxes", json=body)
        assert answer.status_code == 201, answer.text
        self.id: str = answer.json()["sandbox"]["id"]
        self.path = f"/v1/sandboxes/{self.id}"
        self._groups = self._find_groups()
        self.context = self._open()
        self.other = self._open()
        assert self.run("kept = 41")["outcome"] == "completed"
        assert self.run("kept = 6", self.other)["outcome"] == "completed"
        self.peaceful = len(self.processes())

    # === through the API ===

    def _open(self) -> str:
        answer = self.http.post(f"{self.path}/code/contexts", json={"language": "python"})
        assert answer.status_code == 201, answer.text
        return answer.json()["context"]["id"]

    def ask(self, code: str, context: str | None = None, **fields: Any) -> httpx.Response:
        body = {"code": code, "language": "python", "contextId": context or self.context, **fields}
        return self.http.post(f"{self.path}/code/runs", json=body)

    def run(self, code: str, context: str | None = None, **fields: Any) -> Json:
        answer = self.ask(code, context, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["run"]

    def run_anew(self, code: str, context: str) -> Json:
        """A run in a context whose interpreter was killed between two runs. A run that comes in
        the moment of its death is told of it, and has not begun; the next one starts afresh."""
        run = self.run(code, context)
        if run["outcome"] == "context_died" and run["executionCount"] == 0:
            run = self.run(code, context)
        return run

    def value(self, code: str, context: str | None = None) -> str:
        """Text of the value of code that must work."""
        run = self.run(code, context)
        assert run["outcome"] == "completed" and "error" not in run, run
        return value(run)

    def new_context_answers(self) -> bool:
        context = self._open()
        found = self.value("6 * 7", context)
        assert self.http.delete(f"{self.path}/code/contexts/{context}").status_code == 200
        return found == "42"

    def ask_command(self, command: str, **fields: Any) -> httpx.Response:
        return self.http.post(f"{self.path}/commands/run", json={"command": command, **fields})

    def command(self, command: str, **fields: Any) -> Json:
        answer = self.ask_command(command, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["command"]

    def stream_bytes(self, code: str, **fields: Any) -> bytes:
        """The whole answer of the streaming route, as it is on the wire."""
        body = {"code": code, "language": "python", "contextId": self.context, **fields}
        answer = self.http.post(f"{self.path}/code/runs/stream", json=body)
        assert answer.status_code == 200, answer.text
        return answer.content

    # === from the host ===

    def _find_groups(self) -> list[Path]:
        key = self.id.removeprefix("sbx_")
        found = [
            *CGROUP_ROOT.glob(f"*/crownest-*/{key}.*"),
            *CGROUP_ROOT.glob(f"crownest-*/{key}.*"),
        ]
        assert found, "the sandbox has no control group"
        return found

    def processes(self) -> set[int]:
        """Host pids of everything in the sandbox that lives."""
        found: set[int] = set()
        for group in self._groups:
            try:
                found |= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
            except OSError:
                continue
        return {pid for pid in found if alive(pid)}

    def strays(self) -> set[int]:
        """Processes with a uid of this sandbox that are outside its control groups."""
        uids = {os.stat(f"/proc/{pid}").st_uid for pid in self.processes()} - {0}
        first = min(uids) // UIDS_PER_SANDBOX * UIDS_PER_SANDBOX
        owned = set()
        for entry in Path("/proc").iterdir():
            try:
                uid = entry.stat().st_uid if entry.name.isdigit() else 0
            except OSError:
                continue
            if first <= uid < first + UIDS_PER_SANDBOX and alive(int(entry.name)):
                owned.add(int(entry.name))
        return owned - self.processes()

    def counted(self, file: str, name: str) -> int:
        """A counter of the kernel for this sandbox, from whichever hierarchy has the file."""
        for group in self._groups:
            try:
                text = (group / file).read_text()
            except OSError:
                continue
            for line in text.splitlines():
                key, _, number = line.partition(" ")
                if key == name:
                    return int(number)
        raise AssertionError(f"no group of the sandbox has {name} in {file}")

    def pids_refused(self) -> int:
        """Forks that the limit of processes has refused."""
        return self.counted("pids.events", "max")

    def memory_kills(self) -> int:
        """Processes that the limit of memory has ended."""
        version_2 = any((group / "memory.events").exists() for group in self._groups)
        return self.counted("memory.events" if version_2 else "memory.oom_control", "oom_kill")

    # === the end ===

    def settle(self, left: int) -> None:
        """Processes are as many as before, and `left` that the attack is known to leave."""
        until(
            f"{left} processes more than before",
            lambda: len(self.processes()) == self.peaceful + left,
        )
        assert not self.strays()

    def destroy(self) -> None:
        """Deletes it and waits until nothing of it is left on the host."""
        before = self.processes()
        answer = self.http.delete(self.path)
        assert answer.status_code == 200, answer.text
        until("no control group", lambda: not any(group.exists() for group in self._groups))
        assert not {pid for pid in before if in_group_of(pid, self.id)}
        record = self.http.get(self.path)
        assert record.json()["sandbox"]["status"] == "destroyed", record.text

    def close(self) -> None:
        self.http.delete(self.path)
        self.http.close()


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


def in_group_of(pid: int, sandbox: str) -> bool:
    """Numbers are given again: only the group says whose process it is."""
    try:
        return sandbox.removeprefix("sbx_") in Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return False


def value(run: Json) -> str:
    """Text of the value of the last expression."""
    found = [o["value"] for o in run["outputs"] if o.get("isResult") and o["format"] == "text"]
    assert len(found) == 1, run
    return found[0]


def text(run: Json) -> str:
    return "".join(run["stdout"])


def open_neighbour(server: Server) -> tuple[Neighbour, Callable[[], None]]:
    """Somebody else's sandbox on the same server, and how to end it."""
    headers = {"authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        answer = client.post("/v1/sandboxes", json={})
        assert answer.status_code == 201, answer.text
        sandbox = answer.json()["sandbox"]["id"]
    neighbour = Neighbour("127.0.0.1", server.port, server.api_key, sandbox)

    def end() -> None:
        neighbour.close()
        httpx.delete(f"{server.url}/v1/sandboxes/{sandbox}", headers=headers)

    return neighbour, end


def check_neighbour(report: Json) -> None:
    """Every answer was right and came within a second."""
    assert not report["wrong"], report["wrong"]
    assert report["answers"] > 0
    load = os.getloadavg()[0]
    assert report["worst"] <= NEIGHBOUR_SECONDS_MAX, (
        f"the neighbour waited {report['worst']:.2f} s ({report['answers']} answers; the process "
        f"that asks was itself {report['machine']:.2f} s late, load average {load:.1f})"
    )
