"""Pause, resume and snapshots, as clients of OpenSandbox ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from execd import Json, blocks, kinds, text
from lifecycle_api import Sandbox, body, connect, refused, rest
from server import Server

EXECD = 44772


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[httpx.Client]:
    with connect(server) as client:
        yield client


@pytest.fixture(scope="module")
def v1(server: Server) -> Iterator[httpx.Client]:
    with rest.connect(server) as client:
        yield client


@pytest.fixture
def sandbox(api: httpx.Client) -> Iterator[Sandbox]:
    made = Sandbox(api, api.post("/sandboxes", json=body()).json())
    yield made
    made.kill()


def ids(api: httpx.Client, **query: Any) -> list[str]:
    return [item["id"] for item in api.get("/sandboxes", params=query).json()["items"]]


def test_a_paused_sandbox_keeps_its_memory_and_answers_for_itself(
    api: httpx.Client, v1: httpx.Client, sandbox: Sandbox
) -> None:
    seen = sandbox.v1(v1)
    seen.run("kept = 41")
    execd = sandbox.at(EXECD)
    assert execd.get("/ping").status_code == 200
    refused(api.post(f"{sandbox.path}/resume"), 409, "sandbox_not_paused")

    paused = api.post(f"{sandbox.path}/pause")
    assert (paused.status_code, paused.content) == (202, b"")
    assert paused.headers["content-length"] == "0"
    assert sandbox.get()["status"]["state"] == "Paused"
    assert seen.get()["status"] == "paused"
    refused(api.post(f"{sandbox.path}/pause"), 409, "sandbox_paused")
    assert execd.get("/ping").status_code == 409
    assert sandbox.id in ids(api, state="Paused")
    assert sandbox.id not in ids(api, state="Running")
    # What does not need its programs works.
    assert api.patch(f"{sandbox.path}/metadata", json={"a": "b"}).json()[
        "metadata"
    ] == {"a": "b"}
    assert sandbox.endpoint(EXECD)["endpoint"]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    renewed = api.post(f"{sandbox.path}/renew-expiration", json={"expiresAt": later})
    assert renewed.status_code == 200, renewed.text

    resumed = api.post(f"{sandbox.path}/resume")
    assert (resumed.status_code, resumed.content) == (202, b"")
    assert sandbox.get()["status"]["state"] == "Running"
    assert execd.get("/ping").status_code == 200
    assert seen.value("kept + 1") == "42"
    execd.close()
    for verb in ("pause", "resume"):
        refused(
            api.post(f"/sandboxes/sbx_none/{verb}"), 404, "SANDBOX::SANDBOX_NOT_FOUND"
        )


def as_another(sandbox: Sandbox, command: str) -> list[Json]:
    """The events of a command that user 2000 runs."""
    with sandbox.at(EXECD) as execd:
        answer = execd.post("/command", json={"command": command, "uid": 2000})
    assert answer.status_code == 200, answer.text
    return list(blocks(iter([answer.content])))


def test_a_snapshot_begins_another_sandbox_with_the_same_files(
    api: httpx.Client, v1: httpx.Client, sandbox: Sandbox
) -> None:
    seen = sandbox.v1(v1)
    seen.command("mkdir -m 777 -p /workspace/d && echo kept > /workspace/d/file")
    # Nobody but another user of the sandbox may read it.
    private = "umask 077; mkdir /workspace/d/own; echo private > /workspace/d/own/file"
    assert "error" not in kinds(as_another(sandbox, private))
    made = api.post(f"{sandbox.path}/snapshots", json={"name": "before"})
    assert made.status_code == 202, made.text
    snapshot = made.json()
    path = f"/snapshots/{snapshot['id']}"
    assert made.headers["location"] == f"/opensandbox/v1{path}"
    assert (snapshot["sandboxId"], snapshot["name"]) == (sandbox.id, "before")
    assert snapshot["status"]["state"] in ("Creating", "Ready")

    def state() -> str:
        return api.get(path).json()["status"]["state"]

    rest.until(lambda: state() != "Creating", "the end of the snapshot")
    assert state() == "Ready", api.get(path).text
    listed = api.get(
        "/snapshots", params={"sandboxId": sandbox.id, "state": "Ready"}
    ).json()
    assert [item["id"] for item in listed["items"]] == [snapshot["id"]]
    assert listed["pagination"]["totalItems"] == 1
    other = api.get(
        "/snapshots", params={"sandboxId": sandbox.id, "state": "Failed"}
    ).json()
    assert other["items"] == []

    asked = {
        key: value
        for key, value in body().items()
        if key not in ("image", "entrypoint")
    }
    begun = api.post("/sandboxes", json={**asked, "snapshotId": snapshot["id"]})
    assert begun.status_code == 202, begun.text
    again = Sandbox(api, begun.json())
    try:
        found = again.get()
        assert found["snapshotId"] == snapshot["id"] and "image" not in found
        assert found["entrypoint"] == ["tail", "-f", "/dev/null"]
        assert again.v1(v1).command("cat /workspace/d/file")["stdout"] == "kept\n"
        refused_to_us = again.v1(v1).command("cat /workspace/d/own/file || echo refused")
        assert refused_to_us["stdout"] == "refused\n"
        events = as_another(again, "cat /workspace/d/own/file")
        assert text(events, "stdout") == "private", events
    finally:
        again.kill()
    gone = api.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.get(path).status_code == 404 or state() == "Deleting"
    missing = api.post("/sandboxes", json={**asked, "snapshotId": "snap_none"})
    refused(missing, 404, "SNAPSHOT::NOT_FOUND")
