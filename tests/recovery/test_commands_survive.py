"""Commands go on while the server is killed: every line of theirs is there once, every end is
right."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from machine import Client, Machine, key_of, kill, wait_for
from server import Server

TERMINAL = {"exited", "failed", "canceled", "timed_out", "killed"}
COMMANDS = 50
LINES = 200
KILLS = 3
END_SECONDS_MAX = 120


def counting(number: int, lines: int = LINES, pause: str = "0.1") -> str:
    """Prints numbered lines on both streams and ends with a code of its own."""
    return (
        f"for i in $(seq 1 {lines}); do echo o$i; echo e$i >&2; sleep {pause}; done; "
        f"exit {number % 200}"
    )


def begin(client: Client, sandbox: str, command: str, **fields: Any) -> str:
    path = f"/v1/sandboxes/{sandbox}/commands/start"
    answer = client.request("POST", path, {"command": command, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()["command"]["id"]


def get(client: Client, command: str) -> dict[str, Any]:
    return client.insist("GET", f"/v1/commands/{command}").json()["command"]


def ended(client: Client, command: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        record = get(client, command)
        return record if record["status"] in TERMINAL else None

    return wait_for("the end of a command", look, END_SECONDS_MAX)


def log(client: Client, command: str) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = []
    while True:
        after = chunks[-1]["seq"] if chunks else 0
        path = f"/v1/commands/{command}/logs?limit=500&afterSeq={after}"
        page = client.insist("GET", path).json()
        chunks += page["data"]
        if not page["hasMore"]:
            return chunks


def text(chunks: list[dict[str, Any]], stream: str = "stdout") -> str:
    return "".join(c["data"] for c in chunks if c.get("stream") == stream)


def numbered(mark: str, lines: int = LINES) -> str:
    return "".join(f"{mark}{n}\n" for n in range(1, lines + 1))


def strike(server: Server, machine: Machine, victim: str) -> None:
    """Kills one of ours with -9 and waits for the next."""
    old = machine.pid(victim)
    kill(old)
    wait_for(f"another {victim}", lambda: server.children().get(victim, old) != old)


def check(client: Client, command: str, number: int) -> None:
    record = ended(client, command)
    assert (record["status"], record["exitCode"]) == ("exited", number % 200), record
    chunks = log(client, command)
    assert [c["seq"] for c in chunks] == list(range(1, len(chunks) + 1))
    assert text(chunks) == numbered("o"), f"command {number}"
    assert text(chunks, "stderr") == numbered("e"), f"command {number}"
    assert record["stdout"] == numbered("o") and "logOmittedBytes" not in record


@pytest.mark.parametrize("victim", ["server", "spawner"])
def test_fifty_commands_and_a_kill(start: Callable[..., Server], victim: str) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandboxes = [client.create() for _ in range(5)]
    commands = [
        begin(client, sandboxes[number % 5], counting(number)) for number in range(COMMANDS)
    ]
    for _ in range(KILLS):
        seen = len(log(client, commands[-1]))
        wait_for("more output", lambda seen=seen: len(log(client, commands[-1])) > seen)
        strike(server, machine, victim)
    for number, command in enumerate(commands):
        check(client, command, number)


def test_a_flood_loses_and_doubles_nothing(start: Callable[..., Server]) -> None:
    """Far more than init's window between two kills: the program waits, and goes on."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    lines = 3_000_000
    command = begin(client, sandbox, f"seq -f o%.0f 1 {lines}")
    for number in range(KILLS):
        wait_for(
            "output",
            lambda number=number: client.insist(
                "GET", f"/v1/commands/{command}/logs?limit=1&afterSeq={number * 20}"
            ).json()["data"],
        )
        strike(server, machine, "server")
    assert ended(client, command)["exitCode"] == 0
    chunks = log(client, command)
    assert [c["seq"] for c in chunks] == list(range(1, len(chunks) + 1))
    assert text(chunks) == numbered("o", lines)


def test_a_command_that_ended_while_nobody_was_there(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    before = len(machine.processes(key_of(sandbox)))
    wait = "while [ ! -e go ]; do sleep 0.01; done; echo done; exit 9"
    command = begin(client, sandbox, f"(sleep 1; touch go) & {wait}")
    canceled = begin(client, sandbox, "trap '' TERM; echo ready; while :; do sleep 0.02; done")
    wait_for("its trap", lambda: log(client, canceled))
    # Nobody waits for its answer, and init sends the second signal by itself.
    threading.Thread(target=hang_up_after_cancel, args=(client, canceled)).start()
    wait_for("the cancel", lambda: get(client, canceled).get("cancelMode"))
    server.kill()
    wait_for("the end of both", lambda: len(machine.processes(key_of(sandbox))) <= before)
    server.start()
    client = Client(server)
    record = ended(client, command)
    assert (record["status"], record["exitCode"], record["stdout"]) == ("exited", 9, "done\n")
    assert record["durationMs"] < 3_000, "of the process, not of what was noticed"
    record = ended(client, canceled)
    assert (record["status"], record["terminationSignal"]) == ("canceled", "SIGKILL")


def hang_up_after_cancel(client: Client, command: str) -> None:
    try:
        client.request("POST", f"/v1/commands/{command}/cancel")
    except httpx.TransportError:
        pass


def test_a_sandbox_that_died_with_the_server(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    command = begin(client, sandbox, "echo last words; sleep 1000")
    wait_for("its output", lambda: log(client, command))
    init = machine.init(key_of(sandbox))
    server.kill()
    kill(init)
    server.start()
    client = Client(server)
    record = get(client, command)
    assert (record["status"], record["killedReason"]) == ("killed", "sandbox_destroyed")
    assert record["stdout"] == text(log(client, command)) == "last words\n"


def test_a_waited_for_command_has_its_record_after_a_kill(
    start: Callable[..., Server],
) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    path = f"/v1/sandboxes/{sandbox}/commands"
    body = {"command": counting(7, 100, "0.02")}
    cut_off: list[str] = []

    def ask() -> None:
        try:
            client.request("POST", path, body, key="waited")
        except httpx.TransportError as error:
            cut_off.append(type(error).__name__)

    thread = threading.Thread(target=ask)
    thread.start()
    listed = wait_for("its record", lambda: client.request("GET", path).json()["data"])
    command = listed[0]["id"]
    wait_for("its output", lambda: log(client, command))
    strike(server, machine, "server")
    thread.join(30)
    assert cut_off
    record = ended(client, command)
    assert record["exitCode"] == 7 and record["stdout"] == numbered("o", 100)
    again = client.insist("POST", path, body, key="waited")
    assert again.status_code == 409, again.text
    assert again.json()["error"]["code"] == "request_interrupted"
    assert len(client.insist("GET", path).json()["data"]) == 1, "not a second time"


def test_a_keyed_start_after_a_restart_starts_nothing(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    path = f"/v1/sandboxes/{sandbox}/commands/start"
    body = {"command": "echo x >> started; sleep 1000"}
    first = client.request("POST", path, body, key="once")
    assert first.status_code == 202, first.text
    strike(server, machine, "server")
    again = client.insist("POST", path, body, key="once")
    assert again.status_code == 202 and again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    read = f"/v1/sandboxes/{sandbox}/files/read?path=started"
    assert client.insist("GET", read).json()["content"] == "x\n"
    command = first.json()["command"]["id"]
    canceled = client.insist("POST", f"/v1/commands/{command}/cancel").json()["command"]
    assert canceled["status"] == "canceled", "the next server can end it"


def test_a_stream_goes_on_with_the_next_server(start: Callable[..., Server]) -> None:
    """As clients do it: connect again, behind the last number that was seen."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    command = begin(client, sandbox, counting(3))
    seen: list[dict[str, Any]] = []

    def follow(strike_at: int | None) -> bool:
        after = seen[-1]["seq"] if seen else 0
        path = f"{server.url}/v1/commands/{command}/stream?afterSeq={after}"
        try:
            with httpx.stream("GET", path, headers=client.headers, timeout=60) as answer:
                for line in answer.iter_lines():
                    if not line.startswith("data: "):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if event["type"] == "terminal":
                        return True
                    assert event["type"] == "log", event
                    seen.append(event)
                    if len(seen) == strike_at:
                        strike(server, machine, "server")
        except httpx.TransportError:
            pass
        return False

    for strike_at in (50, 150, None):
        over = follow(strike_at)
    while not over:
        over = follow(None)
    assert [e["seq"] for e in seen] == list(range(1, len(seen) + 1))
    assert text(seen) == numbered("o") and text(seen, "stderr") == numbered("e")
