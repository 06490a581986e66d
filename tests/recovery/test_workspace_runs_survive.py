"""The server is killed at every stage of a workspace run: the next one goes on, or says truthfully
how it ended, and leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from machine import Machine, kill, wait_for
from server import Server

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

from rest import connect  # noqa: E402
from workspace import Run, files, member, tar_gz  # noqa: E402

PROJECT = files(main_py="print('hello')")
# Says that it has begun, and ends when it is told to.
WAITING = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo ended; echo kept > out"


class Place:
    """A server that is killed, and a client that finds the next one."""

    def __init__(self, server: Server):
        self.server = server
        self.machine = Machine(server)
        self.client = connect(server, transport=Insistent())

    def kill(self) -> None:
        old = self.machine.pid("server")
        kill(old)
        wait_for("another server", lambda: self.server.children().get("server", old) != old)


class Insistent(httpx.HTTPTransport):
    """Asks again where a connection was cut."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        def ask() -> httpx.Response | None:
            try:
                return super(Insistent, self).handle_request(request)
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                return None

        return wait_for("an answer", ask)


@pytest.fixture
def place(start: Callable[..., Server]) -> Iterator[Place]:
    place = Place(start("--pool", "0"))
    yield place
    place.client.close()


def well_ended(run: Run, status: str) -> dict[str, Any]:
    """Its events are numbered without a gap or a second time, and say what its record says."""
    record = run.end()
    assert record["status"] == status, record
    events = run.events()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), events
    assert events[-1]["type"] == "terminal" and events[-1]["workspaceRun"] == record
    said = [event["status"] for event in events if event["type"] == "status"]
    assert len(said) == len(set(said)) and said[-1] == status, said
    assert list(run.stream()) == events
    return record


def nothing_left(place: Place) -> None:
    wait_for("the end of all sandboxes", lambda: not place.machine.processes())


def test_before_the_archive_and_before_the_start(place: Place) -> None:
    run = Run.create(place.client, "python3 main.py")
    staged = Run.create(place.client, "python3 main.py")
    transfer = staged.transfer(PROJECT)
    place.kill()
    assert run.get()["status"] == "awaiting_archive"
    assert run.upload(PROJECT).status_code == 200
    # The URL of the server before is still good.
    assert place.client.put(transfer["uploadUrl"], content=PROJECT).status_code == 204
    place.kill()
    assert run.get()["status"] == "archive_uploaded"
    assert staged.finalize(PROJECT, transfer["id"]).status_code == 200
    for one in (run, staged):
        one.start()
        assert well_ended(one, "succeeded")["exitCode"] == 0
        assert one.printed() == "hello\n"
    nothing_left(place)


def test_while_it_is_starting_or_extracting(place: Place) -> None:
    many = tar_gz(*(member(f"d{n % 50}/f{n}", b"x" * 50) for n in range(40_000)))
    for delay in range(3):
        run = Run.create(place.client, "find d* -type f | wc -l; echo . >> once; cat once")
        assert run.upload(many).status_code == 200
        run.start()
        if delay:
            run.until("extracting")
        place.kill()
        record = well_ended(run, "succeeded")
        assert run.printed().split() == ["40000", "."]
        assert record["cleanupStatus"] == "succeeded"
    nothing_left(place)


def test_while_the_command_runs(place: Place) -> None:
    run = Run.create(place.client, WAITING, artifacts=[{"path": "out"}]).begin(PROJECT)
    sandbox = run.until("running")["sandboxId"]
    wait_for("output", lambda: run.printed() == "begun\n")
    for _ in range(2):
        place.kill()
        assert run.get()["status"] == "running"
    body = {"path": "go", "content": ""}
    assert place.client.put(f"/v1/sandboxes/{sandbox}/files", json=body).status_code == 200
    record = well_ended(run, "succeeded")
    assert run.printed() == "begun\nended\n" and record["exitCode"] == 0
    assert len(record["artifactIds"]) == 1
    content = place.client.get(f"/v1/artifacts/{record['artifactIds'][0]}/download").text
    assert content == "kept\n"
    nothing_left(place)


def test_a_stream_goes_on_where_it_was(place: Place) -> None:
    run = Run.create(place.client, WAITING).begin(PROJECT)
    sandbox = run.until("running")["sandboxId"]
    wait_for("output", lambda: run.printed() == "begun\n")
    seen: list[dict[str, Any]] = []
    try:
        for event in run.stream():
            seen.append(event)
            if event["type"] == "stdout":
                place.kill()
    except httpx.TransportError:
        pass
    body = {"path": "go", "content": ""}
    assert place.client.put(f"/v1/sandboxes/{sandbox}/files", json=body).status_code == 200
    seen += run.stream(seen[-1]["seq"])
    assert [e for e in seen if e["type"] != "heartbeat"] == run.events()
    assert seen[-1]["type"] == "terminal"


def test_while_files_are_collected(place: Place) -> None:
    wanted = [{"path": "big", "name": f"copy {n}"} for n in range(20)]
    made = "head -c 30000000 /dev/zero > big; echo . >> once; cat once"
    run = Run.create(place.client, made, artifacts=wanted).begin(PROJECT)
    run.until("collecting", "succeeded")
    place.kill()
    record = well_ended(run, "succeeded")
    assert len(record["artifactIds"]) == 20 and run.printed() == ".\n"
    nothing_left(place)


def test_while_it_is_canceled(place: Place) -> None:
    stubborn = "trap '' TERM; echo begun; while :; do sleep 1; done"
    run = Run.create(place.client, stubborn).begin(PROJECT)
    run.until("running")
    wait_for("output", lambda: run.printed() == "begun\n")
    with httpx.Client(
        base_url=place.server.url, headers=place.client.headers, trust_env=False
    ) as hasty:
        # Asked for, and not waited for: two seconds until the command is killed.
        with pytest.raises(httpx.ReadTimeout):
            hasty.post(f"{run.path}/cancel", timeout=0.3)
    place.kill()
    record = well_ended(run, "canceled")
    assert record["cleanupStatus"] == "succeeded" and record["failureClass"] == "canceled"
    nothing_left(place)


def test_a_client_s_sandbox_survives_with_its_run(place: Place) -> None:
    made = place.client.post("/v1/sandboxes", json={})
    sandbox = made.json()["sandbox"]["id"]
    run = Run.create(place.client, WAITING, sandboxId=sandbox).begin(PROJECT)
    run.until("running")
    place.kill()
    # The place is taken by the run that goes on.
    other = Run.create(place.client, "true", sandboxId=sandbox).begin(PROJECT).end()
    assert other["failureReason"] == "sandbox_conflict"
    body = {"path": "go", "content": ""}
    assert place.client.put(f"/v1/sandboxes/{sandbox}/files", json=body).status_code == 200
    assert well_ended(run, "succeeded")["cleanupStatus"] == "not_requested"
    assert place.client.get(f"/v1/sandboxes/{sandbox}").json()["sandbox"]["status"] == "ready"
    assert place.client.delete(f"/v1/sandboxes/{sandbox}").status_code == 200


def test_a_sandbox_that_died_with_the_server(place: Place) -> None:
    run = Run.create(place.client, WAITING).begin(PROJECT)
    sandbox = run.until("running")["sandboxId"]
    init = place.machine.init(sandbox.removeprefix("sbx_"))
    old = place.machine.pid("server")
    kill(old)
    kill(init)
    wait_for("another server", lambda: place.server.children().get("server", old) != old)
    record = well_ended(run, "failed")
    assert (record["failureReason"], record["failureClass"]) == ("sandbox_unavailable", "platform")
    assert record["cleanupStatus"] == "succeeded"
    nothing_left(place)
