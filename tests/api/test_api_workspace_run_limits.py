"""Workspace runs at their limits: logs that are too long, uploads and runs whose time is over,
sandboxes that are slow to come."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from rest import connect, open_directory, refusal, until
from server import Server, missing
from workspace import Run, files

PROJECT = files(main_py="print('hello')")
MIB = 1 << 20
# As in crates/server/src/command_log/writer.rs: what a log keeps at least.
SEGMENT_BYTES = 8 * MIB
HOUR_MICROS = 3_600_000_000


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server with short logs, which tests may stop."""
    if reason := missing():
        pytest.skip(reason)
    with (
        open_directory() as directory,
        Server(directory / "data", "--pool", "0", "--command-log-mib-max", "10") as server,
    ):
        yield server


@pytest.fixture
def asking(own: Server) -> Iterator[httpx.Client]:
    with connect(own) as client:
        yield client


def change(server: Server, sql: str, *values: Any) -> None:
    """Moves time: in the store, not on the clock."""
    database = sqlite3.connect(server.data_dir / "crownest.db", timeout=30)
    with closing(database), database:
        assert database.execute(sql, values).rowcount == 1


def test_events_that_are_not_kept_any_more(asking: httpx.Client) -> None:
    size = 4 * SEGMENT_BYTES
    made = Run.create(asking, f"seq -f %015.0f 1 {size // 16}").begin(PROJECT)
    run = made.end()
    assert run["status"] == "succeeded", run
    events = made.events()
    begins = next(e["seq"] for e in events if e["type"] == "status" and e["status"] == "running")
    printed = [event for event in events if event["type"] == "stdout"]
    first = printed[0]["seq"]
    assert first > begins + 1, "its oldest output is gone"
    said = "".join(event["data"] for event in printed)
    whole = "".join(f"{n:015}\n" for n in range(1, size // 16 + 1))
    assert whole.endswith(said) and len(said) < len(whole) or not "its end"
    # Whoever has seen a part of what is gone cannot go on as if nothing were missing.
    path = f"{made.path}/events"
    for after in (begins + 1, first - 2):
        for query in ({"afterSeq": after}, {"afterSeq": after, "stream": "true"}):
            error = refusal(asking.get(path, params=query), 409, "stream_gap")
            assert error["details"] == {"firstSeq": first}, "in the numbers of the run"
    page = asking.get(path, params={"afterSeq": first - 1, "limit": 1}).json()
    assert page["data"] == printed[:1]
    assert [event["seq"] for event in made.stream(first - 1)][0] == first
    assert list(made.stream())[-1]["type"] == "terminal", "from the start it begins where it can"


def test_an_upload_whose_time_is_over(own: Server, asking: httpx.Client) -> None:
    made = Run.create(asking, "true")
    over, sent = made.transfer(PROJECT), made.transfer(PROJECT)
    assert asking.put(sent["uploadUrl"], content=PROJECT).status_code == 204
    for transfer in (over, sent):
        sql = "UPDATE workspace_run_uploads SET expires_at = 1 WHERE id = ?"
        change(own, sql, transfer["id"])
    refusal(asking.put(over["uploadUrl"], content=PROJECT), 410, "upload_expired")
    refusal(made.finalize(PROJECT, over["id"]), 410, "upload_expired")
    refusal(asking.put(sent["uploadUrl"], content=PROJECT), 410, "upload_expired")
    assert made.get()["status"] == "awaiting_archive"
    # What came in time is good; and so is another upload.
    assert made.finalize(PROJECT, sent["id"]).status_code == 200
    made.start()
    assert made.end()["status"] == "succeeded"


def test_a_run_that_nobody_goes_on_with(own: Server, asking: httpx.Client) -> None:
    """Swept at the start of a server, and every minute; here the start."""
    empty, unstarted, young = (Run.create(asking, "true") for _ in range(3))
    assert unstarted.upload(PROJECT).status_code == 200
    for run, hours in ((empty, 25), (unstarted, 25), (young, 23)):
        sql = "UPDATE workspace_runs SET created_at = created_at - ? WHERE id = ?"
        change(own, sql, hours * HOUR_MICROS, run.id)
    own.stop()
    own.start()
    with connect(own) as client:
        for old in (empty, unstarted):
            made = Run(client, old.record)
            record = made.end()
            assert (record["status"], record["failureReason"]) == ("failed", "upload_missing")
            assert record["failureClass"] == "user_input" and record["cleanupStatus"]
            assert made.events()[-1]["workspaceRun"] == record
            assert made.evidence()["failureReason"] == "upload_missing"
            refusal(made.upload(files(other="x")), 409, "upload_conflict")
            assert made.start()["status"] == "failed"
        assert Run(client, young.record).get()["status"] == "awaiting_archive"
        archives = own.data_dir / "objects" / "workspace-archives"
        until(lambda: not list(archives.glob("upl_*")), "the end of its archive")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def actions(client: httpx.Client, resource: str) -> set[str]:
    page = client.get("/v1/audit-events", params={"resourceId": resource, "limit": 100})
    return {event["action"] for event in page.json()["data"]}


def test_cancel_while_its_sandbox_is_made(own: Server) -> None:
    with connect(own) as client:
        made = Run.create(client, "echo never")
        assert made.upload(PROJECT).status_code == 200
        ends: list[Any] = []
        spawner = until(lambda: own.children().get("spawner"), "a spawner")
        with stopped(spawner):
            assert made.start()["status"] == "starting"
            waiting = threading.Thread(target=lambda: ends.append(made.cancel()))
            waiting.start()
            heard = lambda: "workspace_run.cancel" in actions(client, made.id)  # noqa: E731
            until(heard, "the cancel has been heard")
            assert made.get()["status"] == "starting"
        waiting.join(60)
        run = made.end()
        assert ends == [run] and run["status"] == "canceled", (ends, run)
        assert run["failureClass"] == "canceled" and "commandId" not in run
        assert made.printed() == "" and made.events()[-1]["type"] == "terminal"
        # The sandbox came after all, and went.
        assert run["cleanupStatus"] == "succeeded"
        assert client.get("/v1/sandboxes").json()["data"] == []
        gone = client.get("/v1/sandboxes", params={"include": "historical"}).json()["data"]
        labels = [sandbox["metadata"].get("crownest.workspaceRunId") for sandbox in gone]
        assert labels.count(made.id) == 1
