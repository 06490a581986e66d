"""Kills while snapshots are made and used: what is ready is whole, and nothing is left over."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from machine import Client, Machine, key_of, kill, wait_for
from server import Server

# Enough that the making takes a moment.
MEGABYTES = 200
ROUNDS = 4


def get(client: Client, snapshot: str) -> dict[str, Any]:
    answer = client.insist("GET", f"/v1/snapshots/{snapshot}")
    assert answer.status_code == 200, answer.text
    return answer.json()["snapshot"]


def finished(client: Client, snapshot: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        row = get(client, snapshot)
        return row if row["status"] != "creating" else None

    return wait_for("the end of a snapshot", look, 60)


def begin(client: Client, sandbox: str) -> str:
    answer = client.insist("POST", f"/v1/sandboxes/{sandbox}/snapshots", {})
    assert answer.status_code == 202, answer.text
    return answer.json()["snapshot"]["id"]


def run(client: Client, sandbox: str, command: str) -> str:
    path = f"/v1/sandboxes/{sandbox}/commands/run"
    answer = client.insist("POST", path, {"command": command})
    assert answer.status_code == 200, answer.text
    record = answer.json()["command"]
    assert record["exitCode"] == 0, record
    return record["stdout"]


def files(server: Server) -> set[str]:
    return {path.name for path in (server.data_dir / "snapshots").iterdir()}


def parts(server: Server) -> list[Path]:
    return list((server.data_dir / "snapshots").glob("*.part"))


def await_begun(client: Client, server: Server, snapshot: str) -> None:
    def begun() -> bool:
        return bool(parts(server)) or get(client, snapshot)["status"] != "creating"

    wait_for("the making begins", begun)


def restart(server: Server, machine: Machine, victims: tuple[str, ...]) -> None:
    old = {victim: machine.pid(victim) for victim in victims}
    for pid in old.values():
        kill(pid)

    def replaced() -> bool:
        now = server.children()
        return all(now.get(victim, pid) != pid for victim, pid in old.items())

    wait_for("others in their place", replaced)


@pytest.mark.parametrize(
    "victims", [("server",), ("spawner",), ("server", "spawner")], ids="+".join
)
def test_a_kill_while_files_are_kept(
    start: Callable[..., Server], victims: tuple[str, ...]
) -> None:
    server = start()
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    run(client, sandbox, f"head -c {MEGABYTES}M /dev/urandom > /workspace/large")
    digest = run(client, sandbox, "sha256sum < /workspace/large")
    ready: set[str] = set()
    for number in range(ROUNDS):
        snapshot = begin(client, sandbox)
        await_begun(client, server, snapshot)
        time.sleep(0.02 * number)
        restart(server, machine, victims)
        row = finished(client, snapshot)
        assert row["status"] in ("ready", "failed"), row
        # The sandbox goes on, whatever came of it.
        assert run(client, sandbox, "echo on") == "on\n"
        if row["status"] == "ready":
            ready.add(snapshot)
        else:
            assert row["failure"], row
    whole = begin(client, sandbox)
    assert finished(client, whole)["status"] == "ready"
    ready.add(whole)
    wait_for(
        "files and rows agree",
        lambda: files(server) == {s.removeprefix("snap_") for s in ready},
    )
    for snapshot in ready:
        other = client.create(snapshotId=snapshot)
        assert run(client, other, "sha256sum < /workspace/large") == digest
        client.destroy(other)


def test_a_kill_while_a_sandbox_begins_with_files(start: Callable[..., Server]) -> None:
    server = start()
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    run(client, sandbox, f"head -c {MEGABYTES}M /dev/zero > /workspace/large")
    snapshot = begin(client, sandbox)
    assert finished(client, snapshot)["status"] == "ready"
    before = machine.processes()
    for victims in (("server",), ("spawner",)):
        try:
            client.request("POST", "/v1/sandboxes", {"snapshotId": snapshot}, timeout=0.1)
        except httpx.TransportError:
            pass
        restart(server, machine, victims)
        other = client.create(snapshotId=snapshot)
        assert run(client, other, "stat -c %s /workspace/large") == f"{MEGABYTES << 20}\n"
        client.destroy(other)
    rows = client.insist("GET", "/v1/sandboxes").json()["data"]
    for row in rows:
        if row["id"] != sandbox:
            client.destroy(row["id"])
    assert machine.processes(key_of(sandbox)) <= before


def test_a_file_that_is_gone_or_cut_off_is_said(start: Callable[..., Server]) -> None:
    server = start()
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    snapshots = [begin(client, sandbox) for _ in range(2)]
    for snapshot in snapshots:
        assert finished(client, snapshot)["status"] == "ready"
    gone, cut = (server.data_dir / "snapshots" / s.removeprefix("snap_") for s in snapshots)
    gone.unlink()
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size - 1)
    stray = cut.with_name("stray")
    stray.write_bytes(b"")
    for snapshot in snapshots:
        answer = client.insist("POST", "/v1/sandboxes", {"snapshotId": snapshot})
        assert (answer.status_code, answer.json()["error"]["code"]) == (
            409,
            "backup_not_restorable",
        )
    restart(server, machine, ("server",))
    assert get(client, snapshots[0])["status"] == "failed"
    wait_for("what belongs to nobody goes", lambda: not stray.exists())
