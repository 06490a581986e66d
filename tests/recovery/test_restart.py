"""A process of ours is killed in the middle of everything: sandboxes live on, and so does what they
know."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from machine import Client, Machine, alive, key_of, kill, wait_for
from server import Server

SANDBOXES = 3
# Says that it has begun, and ends when it is told to.
RUN = """
import os, time
open("/workspace/begun", "w").close()
while not os.path.exists("/workspace/go"):
    time.sleep(0.05)
'finished'
"""


class Work:
    """Some sandboxes with state in them, and a run going on in each."""

    def __init__(self, client: Client):
        self.client = client
        self.sandboxes = [client.create() for _ in range(SANDBOXES)]
        self.contexts = [client.context(sandbox) for sandbox in self.sandboxes]
        self.ends: list[Any] = []
        for number, (sandbox, context) in enumerate(zip(self.sandboxes, self.contexts)):
            client.run(sandbox, f"x = {number}", context)
        self.threads = [
            threading.Thread(target=self._run, args=pair)
            for pair in zip(self.sandboxes, self.contexts)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, sandbox: str, context: str) -> None:
        body = {"code": RUN, "language": "python", "contextId": context, "timeoutMs": 30_000}
        path = f"/v1/sandboxes/{sandbox}/code/runs"
        try:
            answer = self.client.request("POST", path, body)
            self.ends.append((answer.status_code, answer.json()))
        except httpx.TransportError as error:
            self.ends.append(type(error).__name__)

    def await_begun(self) -> None:
        """Every run is in the middle."""
        for sandbox in self.sandboxes:
            path = f"/v1/sandboxes/{sandbox}/files/stat?path=begun"
            wait_for("a run", lambda path=path: self.client.request("GET", path).status_code == 200)

    def let_go(self) -> None:
        for sandbox in self.sandboxes:
            body = {"path": "go", "content": ""}
            path = f"/v1/sandboxes/{sandbox}/files"
            assert self.client.insist("PUT", path, body).status_code == 200

    def await_ends(self) -> list[Any]:
        """Every client has heard something: no request hangs for ever."""
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"
        return self.ends

    def check(self, client: Client) -> None:
        """State is there, new work can be done, old and new."""
        for number, (sandbox, context) in enumerate(zip(self.sandboxes, self.contexts)):
            assert client.value(sandbox, "x", context) == str(number)
            fresh = client.context(sandbox)
            assert client.value(sandbox, "6 * 7", fresh) == "42"
        new = client.create()
        assert client.value(new, "1 + 1") == "2"
        client.destroy(new)


def started(start: Callable[..., Server], *options: str) -> tuple[Server, Client, Machine]:
    server = start("--pool", "0", *options)
    return server, Client(server), Machine(server)


def test_the_server_is_killed(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    work = Work(client)
    work.await_begun()
    before = {s: machine.init(key_of(s)) for s in work.sandboxes}
    old = machine.pid("server")
    kill(old)
    wait_for("another server", lambda: server.children().get("server", old) != old)
    ends = work.await_ends()
    assert all(isinstance(end, str) for end in ends), "the connections were cut"
    # Nobody can hear the end of these runs any more; they must not keep their contexts.
    work.check(client)
    assert {s: machine.init(key_of(s)) for s in work.sandboxes} == before, "the same processes"


def test_the_spawner_is_killed(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    work = Work(client)
    work.await_begun()
    old = machine.pid("spawner")
    kill(old)
    wait_for("another spawner", lambda: server.children().get("spawner", old) != old)
    work.let_go()
    for end in work.await_ends():
        assert end[0] == 200 and end[1]["run"]["outputs"][0]["value"] == "finished", end
    work.check(client)
    for sandbox in work.sandboxes:
        client.destroy(sandbox)
    wait_for("the end of all processes", lambda: not machine.processes())


def test_server_and_spawner_are_killed_together(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    work = Work(client)
    work.await_begun()
    old = server.children()
    for pid in old.values():
        kill(pid)
    wait_for(
        "others", lambda: all(server.children().get(name, pid) != pid for name, pid in old.items())
    )
    work.await_ends()
    work.check(client)


def test_the_supervisor_is_killed(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    work = Work(client)
    work.await_begun()
    children = server.children()
    inits = {machine.init(key_of(s)) for s in work.sandboxes}
    server.kill()
    work.await_ends()
    wait_for("the end of both children", lambda: not any(alive(p) for p in children.values()))
    assert all(alive(pid) for pid in inits), "sandboxes live on with nobody there"
    again = start("--pool", "0", data_dir=server.data_dir)
    work.check(Client(again))
    assert Machine(again).instance == machine.instance
    assert {Machine(again).init(key_of(s)) for s in work.sandboxes} == inits


def test_a_stop_by_sigterm_is_orderly_and_loses_nothing(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    sandbox = client.create()
    client.run(sandbox, "x = 'kept'")
    children = server.children()
    assert server.stop() == 0
    wait_for("the end of both children", lambda: not any(alive(p) for p in children.values()), 2)
    assert alive(machine.init(key_of(sandbox)))
    again = Client(start("--pool", "0", data_dir=server.data_dir))
    assert again.value(sandbox, "x") == "kept"


def test_init_ends_its_sandbox_when_nobody_else_can(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    long = client.create()
    client.run(long, "x = 1")
    # After the zygote is warm, so that its start does not use up the time.
    short = client.create(ttlMs=6_000)
    expires = client.insist("GET", f"/v1/sandboxes/{short}").json()["sandbox"]["expiresAt"]
    client.run(short, "import subprocess; subprocess.Popen(['sleep', '1000'])")
    server.kill()
    assert machine.processes(key_of(short))
    wait_for("the end of the short one", lambda: not machine.processes(key_of(short)))
    assert machine.processes(key_of(long))
    again = start("--pool", "0", data_dir=server.data_dir)
    answer = Client(again).insist("POST", f"/v1/sandboxes/{short}/code/runs",
                                  {"code": "1", "language": "python"})
    assert answer.status_code == 410
    record = Client(again).insist("GET", f"/v1/sandboxes/{short}").json()["sandbox"]
    assert (record["status"], record["destroyedReason"]) == ("destroyed", "ttl_expired"), record
    assert record["expiresAt"] == expires and record["destroyedAt"] >= expires, record
    assert Client(again).value(long, "x") == "1"
    wait_for("its groups to go", lambda: not [
        g for g in Machine(again).groups() if g.name.startswith(key_of(short))
    ])


def test_sandboxes_that_nobody_knows_are_killed_at_the_start(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    known, forgotten = client.create(), client.create()
    client.run(forgotten, "import subprocess; subprocess.Popen(['sleep', '1000'])")
    client.run(known, "x = 5")
    server.kill()
    # As after a backup was put back: one row is missing.
    import sqlite3

    database = next(Path(server.data_dir).glob("*.db"))
    with sqlite3.connect(database) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("DELETE FROM sandboxes WHERE id = ?", (forgotten,))
        db.commit()
    again = start("--pool", "0", data_dir=server.data_dir)
    wait_for("the end of the unknown one", lambda: not machine.processes(key_of(forgotten)))
    assert Client(again).value(known, "x") == "5"


def test_groups_that_nobody_can_use_are_removed_at_the_start(start: Callable[..., Server]) -> None:
    """Left by a version that named them otherwise, or by a spawner that was killed while it removed
    a sandbox: in one hierarchy and not in the others. A process in one goes with it."""
    server, client, machine = started(start)
    kept = client.create()
    client.run(kept, "x = 7")
    used = {group.parent for group in machine.groups()}
    one = sorted(used)[-1]
    template = next(group.name for group in machine.groups()).split(".", 2)[2]
    left = [parent / "before.9" for parent in used] + [one / f"halfremoved.4000.{template}"]
    for group in left:
        group.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as stray:
        for parent in used:
            (parent / "before.9" / "cgroup.procs").write_text(str(stray.pid))
        old = machine.pid("spawner")
        kill(old)
        wait_for("another spawner", lambda: server.children().get("spawner", old) != old)
        wait_for("the old form to go", lambda: not any(g.exists() for g in left[:-1]))
        assert stray.wait(10) == -9
    # The other one has a name that may be a sandbox's: whoever knows the sandboxes decides.
    kill(machine.pid("server"))
    wait_for("what is half removed to go", lambda: not left[-1].exists())
    assert client.value(kept, "x") == "7"


@pytest.mark.parametrize("victim", ["server", "spawner"])
def test_killed_again_and_again(start: Callable[..., Server], victim: str) -> None:
    """A crash loop ends with everything there."""
    server, client, machine = started(start)
    sandbox = client.create()
    client.run(sandbox, "x = 'still here'")
    for _ in range(3):
        old = machine.pid(victim)
        kill(old)
        wait_for("another", lambda old=old: server.children().get(victim, old) != old)
    assert client.value(sandbox, "x") == "still here"
    assert client.value(client.create(), "1 + 1") == "2"


def test_a_command_in_the_middle_ends_somehow(start: Callable[..., Server]) -> None:
    server, client, machine = started(start)
    sandbox = client.create()
    client.run(sandbox, "1")
    ends: list[Any] = []

    def command() -> None:
        try:
            answer = client.request(
                "POST", f"/v1/sandboxes/{sandbox}/commands/run", {"command": "sleep 2; echo done"}
            )
            ends.append(answer.status_code)
        except httpx.TransportError as error:
            ends.append(type(error).__name__)

    before = len(machine.processes(key_of(sandbox)))
    thread = threading.Thread(target=command)
    thread.start()
    wait_for("the command", lambda: len(machine.processes(key_of(sandbox))) > before)
    began = time.monotonic()
    kill(machine.pid("server"))
    thread.join(30)
    assert ends and time.monotonic() - began < 30
    assert client.value(sandbox, "1 + 1") == "2"
