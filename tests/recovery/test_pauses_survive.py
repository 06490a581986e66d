"""A sandbox that is paused is paused after any kill, and one that is not goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from machine import Client, Machine, key_of, kill, wait_for
from server import Server

CGROUP_ROOT = Path("/sys/fs/cgroup")
ROUNDS = 6
TERMINAL = {"exited", "failed", "canceled", "timed_out", "killed"}


def status(client: Client, sandbox: str) -> str:
    return client.insist("GET", f"/v1/sandboxes/{sandbox}").json()["sandbox"]["status"]


def change(client: Client, sandbox: str, deed: str) -> None:
    answer = client.request("POST", f"/v1/sandboxes/{sandbox}/{deed}")
    assert answer.status_code == 200, answer.text


def stands_still(sandbox: str) -> bool:
    """As the kernel says it, whichever version the groups are of."""
    key = key_of(sandbox)
    for state in CGROUP_ROOT.glob(f"freezer/crownest-*/{key}.*/freezer.state"):
        return state.read_text().strip() == "FROZEN"
    for events in CGROUP_ROOT.glob(f"**/crownest-*/{key}.*/cgroup.events"):
        return "frozen 1" in events.read_text()
    raise AssertionError("no group")


def restart(server: Server, machine: Machine, victims: tuple[str, ...]) -> None:
    if "supervisor" in victims:
        server.kill()
        server.start()
        return
    old = {victim: machine.pid(victim) for victim in victims}
    for pid in old.values():
        kill(pid)

    def replaced() -> bool:
        now = server.children()
        return all(now.get(victim, pid) != pid for victim, pid in old.items())

    wait_for("others in their place", replaced)


def begin(client: Client, sandbox: str, command: str, **fields: Any) -> str:
    path = f"/v1/sandboxes/{sandbox}/commands/start"
    answer = client.request("POST", path, {"command": command, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()["command"]["id"]


@pytest.mark.parametrize(
    "victims",
    [("server",), ("spawner",), ("server", "spawner"), ("supervisor",)],
    ids="+".join,
)
def test_a_paused_sandbox_stays_paused_and_can_be_resumed(
    start: Callable[..., Server], victims: tuple[str, ...]
) -> None:
    server = start()
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    context = client.context(sandbox)
    client.run(sandbox, "x = 41", context)
    # Longer than its timeout allows, if time ran while it is paused.
    command = begin(client, sandbox, "for i in $(seq 1 50); do echo $i; sleep 0.05; done")
    timed = begin(client, sandbox, "sleep 1; echo out", timeoutMs=3_000)
    change(client, sandbox, "pause")
    restart(server, machine, victims)
    client = Client(server)
    assert status(client, sandbox) == "paused"
    wait_for("it stands still again", lambda: stands_still(sandbox))
    answer = client.insist("POST", f"/v1/sandboxes/{sandbox}/commands/run", {"command": "true"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (
        409,
        "sandbox_paused",
    )
    time.sleep(3)
    change(client, sandbox, "resume")
    assert client.value(sandbox, "x + 1", context) == "42"

    def ended(command: str) -> dict[str, Any] | None:
        record = client.insist("GET", f"/v1/commands/{command}").json()["command"]
        return record if record["status"] in TERMINAL else None

    record = wait_for("the end of the command", lambda: ended(command))
    assert (record["status"], record["exitCode"]) == ("exited", 0), record
    assert record["stdout"].split() == [str(n) for n in range(1, 51)]
    record = wait_for("the end of the command", lambda: ended(timed))
    assert (record["status"], record["stdout"]) == ("exited", "out\n"), record


def test_a_paused_sandbox_ends_at_its_time_after_a_restart(
    start: Callable[..., Server],
) -> None:
    server = start()
    client, machine = Client(server), Machine(server)
    sandbox = client.create(ttlMs=6_000)
    change(client, sandbox, "pause")
    restart(server, machine, ("server", "spawner"))
    wait_for("its end", lambda: status(client, sandbox) == "destroyed")
    wait_for("nothing of it is left", lambda: not machine.processes(key_of(sandbox)))


def test_kills_in_the_middle_of_pauses_leave_what_was_answered(
    start: Callable[..., Server],
) -> None:
    server = start()
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, "x = 7")
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            for deed in ("pause", "resume"):
                try:
                    client.request("POST", f"/v1/sandboxes/{sandbox}/{deed}")
                except httpx.TransportError:
                    pass

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        for number in range(ROUNDS):
            time.sleep(0.05 + 0.03 * number)
            victims = ("server", "spawner") if number % 2 else ("server",)
            restart(server, machine, victims)
            client.insist("GET", f"/v1/sandboxes/{sandbox}")
    finally:
        over.set()
        thread.join()
    now = status(client, sandbox)
    assert now in ("ready", "paused"), now
    wait_for("record and kernel agree", lambda: stands_still(sandbox) == (now == "paused"))
    if now == "paused":
        change(client, sandbox, "resume")
    assert client.value(sandbox, "1 + 1") == "2"
    # A context of the server that was killed may be another one; the sandbox is the same.
    client.destroy(sandbox)
    wait_for("nothing of it is left", lambda: not machine.processes(key_of(sandbox)))
