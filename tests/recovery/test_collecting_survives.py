"""Files that commands and workspace runs leave, while the server is killed: each is kept once.

The moment between keeping a file and saying so is too short to hit with a signal. A trigger in the
store refuses what is written next, so the server stands exactly there when it is killed."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from machine import Client, Machine, key_of, kill, wait_for
from server import Server

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

from rest import connect  # noqa: E402
from workspace import Run, files  # noqa: E402

FILES = 3
WRITE = "for n in 1 2 3; do echo $n > f$n; done"
WANTED = [{"path": f"f{n}"} for n in range(1, FILES + 1)]
BUSY_SECONDS = 30


def store(server: Server) -> closing:
    return closing(sqlite3.connect(server.data_dir / "crownest.db", timeout=BUSY_SECONDS))


@contextmanager
def refused(server: Server, table: str, condition: str) -> Iterator[None]:
    """The store takes no such change of a row."""
    refusal = "SELECT RAISE(ABORT, 'refused by a test')"
    with store(server) as database, database:
        database.execute(
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {table} WHEN {condition} BEGIN {refusal}; END"
        )
    yield
    with store(server) as database, database:
        database.execute("DROP TRIGGER refuse")


def artifacts(server: Server, sandbox: str) -> list[tuple[str, str]]:
    """Names and ids of what is stored of a sandbox."""
    query = "SELECT name, id FROM artifacts WHERE sandbox_id = ? AND state = 'stored' ORDER BY name"
    with store(server) as database:
        return database.execute(query, (sandbox,)).fetchall()


def names(server: Server, sandbox: str) -> list[str]:
    return [name for name, _ in artifacts(server, sandbox)]


@pytest.mark.parametrize("kept", range(FILES))
def test_a_run_keeps_each_file_once(start: Callable[..., Server], kept: int) -> None:
    server = start("--pool", "0")
    client = connect(server)
    wait = "while [ ! -e go ]; do sleep 0.02; done"
    run = Run.create(client, f"{WRITE}; {wait}", artifacts=WANTED).begin(files(a="a"))
    sandbox = run.until("running")["sandboxId"]
    # One file is kept, and that it is cannot be written down.
    with refused(server, "workspace_runs", f"NEW.state LIKE '%\"collected\":{kept + 1},%'"):
        body = {"path": "go", "content": ""}
        assert client.put(f"/v1/sandboxes/{sandbox}/files", json=body).is_success
        wanted = [f"f{n}" for n in range(1, kept + 2)]
        wait_for("a kept file", lambda: names(server, sandbox) == wanted)
        server.kill()
    assert names(server, sandbox) == wanted
    server.start()
    client = connect(server)
    run = Run(client, run.record)
    record = run.end()
    assert record["status"] == "succeeded", record
    assert names(server, sandbox) == ["f1", "f2", "f3"], "each once"
    assert record["artifactIds"] == [id for _, id in artifacts(server, sandbox)]
    said = [event for event in run.events() if event["type"] == "artifact_collected"]
    assert [event["artifactId"] for event in said] == record["artifactIds"]


def test_a_command_collects_across_a_restart(start: Callable[..., Server]) -> None:
    """The server is away when the command ends: the next one collects."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    before = len(machine.processes(key_of(sandbox)))
    command = waited(
        client, sandbox, f"{WRITE}; (sleep 0.5; touch go) & {waiting('go')}; echo done"
    )
    server.kill()
    wait_for("its end", lambda: len(machine.processes(key_of(sandbox))) <= before)
    server.start()
    record = ended(Client(server), command)
    assert (record["status"], record["collectStatus"]) == ("exited", "succeeded"), record
    assert names(server, sandbox) == ["f1", "f2", "f3"]


def test_a_command_collects_each_file_once(start: Callable[..., Server]) -> None:
    """All files are kept, and the end of the command cannot be written down; twice."""
    server = start("--pool", "0")
    sandbox = Client(server).create()
    command = waited(Client(server), sandbox, f"{WRITE}; {waiting('go')}")
    with refused(server, "commands", "NEW.finished_at IS NOT NULL"):
        body = {"path": "go", "content": ""}
        put = Client(server).request("PUT", f"/v1/sandboxes/{sandbox}/files", body)
        assert put.status_code == 200, put.text
        wait_for("the files", lambda: len(names(server, sandbox)) >= FILES)
        first = artifacts(server, sandbox)
        server.kill()
        server.start()
        asked = Client(server)
        # The next one has collected when it tries to write the end; to a client it is ended.
        ended(asked, command)
        assert artifacts(server, sandbox) == first, "each once"
        server.kill()
    server.start()
    record = ended(Client(server), command)
    assert (record["status"], record["collectStatus"]) == ("exited", "succeeded"), record
    assert artifacts(server, sandbox) == first


def test_a_command_killed_for_memory_while_nobody_was_there(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    for name in ("while away", "after"):
        sandbox = client.create(resources={"memoryBytes": 256 << 20})
        before = len(machine.processes(key_of(sandbox)))
        hungry = "exec python3 -c 'x = bytearray(1 << 30); x[::4096] = b\"x\" * (1 << 18)'"
        command = begin(client, sandbox, f"echo begun; {waiting('go')}; {hungry}")
        wait_for("its output", lambda c=client, i=command: get(c, i) and log(c, i))
        if name == "while away":
            # It goes on by itself when the server is not there.
            go = begin(client, sandbox, f"{waiting('off')}; sleep 0.5; touch go")
            put = client.request(
                "PUT", f"/v1/sandboxes/{sandbox}/files", {"path": "off", "content": ""}
            )
            assert put.status_code == 200 and go
            server.kill()
            wait_for("its end", lambda b=before, s=sandbox: len(machine.processes(key_of(s))) <= b)
            server.start()
            client, machine = Client(server), Machine(server)
        else:
            old = machine.pid("server")
            kill(old)
            wait_for("another", lambda o=old: server.children().get("server", o) != o)
            put = client.insist(
                "PUT", f"/v1/sandboxes/{sandbox}/files", {"path": "go", "content": ""}
            )
            assert put.status_code == 200
        record = ended(client, command)
        assert (record["status"], record["killedReason"]) == ("killed", "out_of_memory"), name
        assert record["terminationSignal"] == "SIGKILL" and record["stdout"] == "begun\n"


def waiting(file: str) -> str:
    return f"while [ ! -e {file} ]; do sleep 0.02; done"


def begin(client: Client, sandbox: str, command: str) -> str:
    path = f"/v1/sandboxes/{sandbox}/commands/start"
    answer = client.request("POST", path, {"command": command})
    assert answer.status_code == 202, answer.text
    return answer.json()["command"]["id"]


def waited(client: Client, sandbox: str, command: str) -> str:
    """A command that somebody waits for who is cut off; its id."""
    path = f"/v1/sandboxes/{sandbox}/commands"

    def ask() -> None:
        try:
            client.request("POST", path, {"command": command, "collect": WANTED})
        except httpx.TransportError:
            pass

    threading.Thread(target=ask, daemon=True).start()
    (record,) = wait_for("its record", lambda: client.request("GET", path).json()["data"])
    return record["id"]


def get(client: Client, command: str) -> dict[str, Any]:
    return client.insist("GET", f"/v1/commands/{command}").json()["command"]


def log(client: Client, command: str) -> list[dict[str, Any]]:
    return client.insist("GET", f"/v1/commands/{command}/logs").json()["data"]


def ended(client: Client, command: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        record = get(client, command)
        return record if record["status"] not in ("starting", "running") else None

    return wait_for("the end of a command", look, 60)
