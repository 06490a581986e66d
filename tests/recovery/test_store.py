"""The database is locked, full, gone or damaged: callers hear so, nothing half-made stays, and
everything works again without a restart as soon as it can."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from machine import Client, Machine, data_directory, settle, wait_for
from server import Server, binary

# As BUSY_TIMEOUT_MS in crates/store/src/db.rs.
BUSY_SECONDS = 5
# Room for the database, its log and not much more.
DISK_MIB = 4
EXIT_CONFIGURATION = 78


def refused(answer: httpx.Response, said: str) -> None:
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert error["code"] == "unavailable" and error["retryable"] is True, error
    assert said in error["message"], error


def recorded(client: Client, sandbox: str) -> dict:
    return client.insist("GET", f"/v1/sandboxes/{sandbox}").json()["sandbox"]


@contextmanager
def locked(machine: Machine) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    with sqlite3.connect(machine.database(), isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def test_a_short_lock_is_waited_for(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    client.destroy(client.create())
    made: list[httpx.Response] = []
    thread = threading.Thread(
        target=lambda: made.append(client.request("POST", "/v1/sandboxes", {}))
    )
    with locked(machine):
        thread.start()
        wait_for("a sandbox that waits for its row", machine.groups)
        assert not made
    thread.join(BUSY_SECONDS * 4)
    assert made and made[0].status_code == 201, made


def test_a_long_lock_is_said_and_leaves_nothing(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox, victim = client.create(), client.create()
    client.run(sandbox, "x = 'kept'")
    before = machine.census()
    run = f"/v1/sandboxes/{sandbox}/code/runs"
    body = {"code": "open('ran', 'a').write('x')", "language": "python"}
    answers: dict[str, httpx.Response] = {}

    def ask(name: str, *request: object, key: str | None = None) -> threading.Thread:
        def send() -> None:
            answers[name] = client.request(*request, key=key)  # type: ignore[arg-type]

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    with locked(machine):
        threads = [
            ask("create", "POST", "/v1/sandboxes", {}),
            ask("destroy", "DELETE", f"/v1/sandboxes/{victim}"),
            ask("keyed", "POST", run, body, key="locked"),
        ]
        # What needs no row goes on.
        assert client.value(sandbox, "x") == "kept"
        assert client.request("GET", f"/v1/sandboxes/{sandbox}").status_code == 200
        for thread in threads:
            # The writers wait for each other too.
            thread.join(BUSY_SECONDS * (len(threads) + 1) + 10)
            assert not thread.is_alive(), f"no answer: {answers.keys()}"
        for answer in answers.values():
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] == "unavailable"
    assert client.value(sandbox, "__import__('os').path.exists('ran')") == "False"
    wait_for("its tombstone", lambda: recorded(client, victim).get("destroyedAt"))
    assert recorded(client, victim)["destroyedReason"] == "user_killed"
    # The end is told before it is written; ending it again waits for that and changes nothing.
    again = client.insist("DELETE", f"/v1/sandboxes/{victim}")
    assert again.status_code == 200, again.text
    new = client.create()
    client.destroy(new)
    wait_for("fewer groups", lambda: machine.census().groups < before.groups)
    # The victim is gone, the creation left nothing, the keyed run can be done now.
    assert client.insist("POST", run, body, key="locked").status_code == 200
    assert client.value(sandbox, "open('ran').read()") == "x"
    rows = client.insist("GET", "/v1/sandboxes").json()["data"]
    assert [row["id"] for row in rows] == [sandbox]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A data directory on a file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = data_directory()
    path.mkdir()
    options = f"size={DISK_MIB}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "crownest-test", path], check=True)
    yield path
    # After the server: fixtures end in the reverse order of their beginning.
    subprocess.run(["umount", "--lazy", path], check=True)
    shutil.rmtree(path.parent, ignore_errors=True)


def fill(directory: Path) -> Path:
    """Takes all room that is left."""
    filler = directory / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_is_said_and_room_is_enough(
    small_disk: Path, start: Callable[..., Server]
) -> None:
    server = start("--pool", "0", data_dir=small_disk)
    client, machine = Client(server), Machine(server)
    sandbox, victim = client.create(), client.create()
    client.run(sandbox, "x = 'kept'")
    run = f"/v1/sandboxes/{sandbox}/code/runs"
    waiting = {
        "code": "open('ran', 'a').write('x')\nimport os, time\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n'done'",
        "language": "python",
    }
    begun: list[httpx.Response] = []
    thread = threading.Thread(
        target=lambda: begun.append(client.request("POST", run, waiting, key="begun"))
    )
    thread.start()
    stat = f"/v1/sandboxes/{sandbox}/files/stat?path=ran"
    wait_for("its start", lambda: client.request("GET", stat).status_code == 200)
    before = machine.census()

    filler = fill(small_disk)
    refused(client.request("POST", "/v1/sandboxes", {}), "storage of the server is full")
    wait_for("nothing half-made", lambda: machine.census().groups == before.groups)
    again = {"code": "open('second', 'a').write('x')", "language": "python"}
    refused(client.request("POST", run, again, key="second"), "full")
    context = client.request(
        "POST", f"/v1/sandboxes/{sandbox}/code/contexts", {"language": "python"}
    )
    refused(context, "full")
    # What needs no row goes on; a keyed run that had begun says that its answer is not stored.
    put = client.request("PUT", f"/v1/sandboxes/{sandbox}/files", {"path": "go", "content": ""})
    assert put.status_code == 200, put.text
    thread.join(30)
    assert begun and begun[0].status_code == 200, begun
    assert begun[0].headers["idempotent-stored"] == "false"
    assert client.value(sandbox, "x") == "kept"
    in_flight = client.request("POST", run, waiting, key="begun")
    assert in_flight.status_code == 409, in_flight.text
    assert in_flight.json()["error"]["code"] == "idempotency_request_in_progress"
    refused(client.request("DELETE", f"/v1/sandboxes/{victim}"), "could not be recorded yet")

    filler.unlink()
    wait_for("its tombstone", lambda: recorded(client, victim).get("destroyedAt"))
    assert recorded(client, victim)["destroyedReason"] == "user_killed"

    def replayed() -> httpx.Response | None:
        answer = client.request("POST", run, waiting, key="begun")
        return answer if answer.status_code == 200 else None

    replay = wait_for("the stored answer", replayed)
    assert replay.json() == begun[0].json() and replay.headers["idempotent-replayed"] == "true"
    assert client.insist("POST", run, again, key="second").status_code == 200
    new = client.create()
    assert client.value(new, "1 + 1") == "2"
    assert client.value(sandbox, "open('ran').read() + open('second').read()") == "xx"


def serve_once(data_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("damage", ["directory", "no database", "header", "missing"])
def test_a_database_that_cannot_be_used_is_named_and_costs_no_sandbox(
    start: Callable[..., Server], damage: str
) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, "x = 'kept'")
    assert server.stop() == 0
    database, aside = machine.database(), machine.database().with_suffix(".aside")
    shutil.move(database, aside)
    if damage == "directory":
        database.mkdir()
    elif damage == "no database":
        database.write_bytes(b"not a database, but as long as the head of one " * 100)
    elif damage == "header":
        content = aside.read_bytes()
        database.write_bytes(b"\0" * 100 + content[100:])
    done = serve_once(server.data_dir)
    assert done.returncode == EXIT_CONFIGURATION, done.stderr
    assert str(database) in done.stderr and "panicked" not in done.stderr, done.stderr
    # Put back what was there: nothing was ended meanwhile.
    if database.is_dir():
        database.rmdir()
    database.unlink(missing_ok=True)
    for leftover in (f"{database}-wal", f"{database}-shm"):
        Path(leftover).unlink(missing_ok=True)
    shutil.move(aside, database)
    again = Client(start("--pool", "0", data_dir=server.data_dir))
    assert again.value(sandbox, "x") == "kept"


def test_time_that_runs_out_while_the_store_is_away_is_recorded(
    start: Callable[..., Server],
) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create(ttlMs=2_000)
    ends = time.time() + 2
    with locked(machine):
        wait_for("its end", lambda: not machine.groups())
        assert recorded(client, sandbox)["status"] == "destroyed", "known before it is written"
    found = wait_for("its tombstone", lambda: tombstone(machine, sandbox))
    assert found[0] == "ttl_expired" and abs(found[1] / 1e6 - ends) < 5, found


def tombstone(machine: Machine, sandbox: str) -> tuple[str, int] | None:
    with sqlite3.connect(f"file:{machine.database()}?mode=ro", uri=True) as db:
        query = "SELECT destroyed_reason, destroyed_at FROM sandboxes WHERE id = ?"
        row = db.execute(query, (sandbox,)).fetchone()
    return row if row and row[1] else None


def test_nothing_is_left_after_faults_of_the_store(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    warm = client.create()
    client.run(warm, "1")
    client.destroy(warm)
    wait_for("no process", lambda: not machine.processes())
    before = machine.census()
    with locked(machine):
        refused(client.request("POST", "/v1/sandboxes", {}), "busy")
    settle(machine, before)
