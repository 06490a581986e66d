"""A server that is asked to stop: everybody who waits is told, soon, and nothing runs twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from machine import Client, Machine, alive, kill, wait_for
from server import Server, binary

# From SIGTERM to the end of the last process, with streams open and nothing else to wait for.
STOP_SECONDS_MAX = 2.0
# As SPAWNER_READY_MS_MAX in crates/cli/src/supervisor.rs, and some.
SPAWNER_READY_SECONDS_MAX = 10
STREAMS = 8
ENDLESS = """
import time
n = 0
while True:
    n += 1
    print(n, flush=True)
    time.sleep(0.01)
"""


def test_open_streams_are_told_and_do_not_hold_up_a_stop(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    contexts = [client.context(sandbox) for _ in range(STREAMS)]
    last: list[Any] = []
    begun = threading.Semaphore(0)

    def follow(context: str) -> None:
        body = {"code": ENDLESS, "language": "python", "contextId": context}
        path = f"{server.url}/v1/sandboxes/{sandbox}/code/runs/stream"
        events = []
        with httpx.stream("POST", path, json=body, headers=client.headers, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))
                    if len(events) == 1:
                        begun.release()
        last.append(events[-1])

    threads = [threading.Thread(target=follow, args=(context,)) for context in contexts]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=30)
    children = server.children().values()
    began = time.monotonic()
    assert server.stop() == 0
    took = time.monotonic() - began
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a stream hangs"
    wait_for("the end of both children", lambda: not any(alive(pid) for pid in children), 2)
    assert len(last) == STREAMS, "every body ended whole"
    for event in last:
        assert event["type"] == "error" and event["data"]["name"] == "unavailable", event
        assert "stopping" in event["data"]["message"], event
    assert took < STOP_SECONDS_MAX * machine.slowness(), f"{took:.1f} s"
    # The runs are ended by the next server; the contexts live on with what they know.
    again = Client(start("--pool", "0", data_dir=server.data_dir))
    assert int(again.value(sandbox, "n", contexts[0])) > 0


def test_a_keyed_run_that_a_stop_cut_off_is_not_run_twice(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client = Client(server)
    sandbox = client.create()
    client.run(sandbox, "1")
    code = "open('ran', 'a').write('x')\nimport time\nwhile True: time.sleep(0.01)"
    requests = {
        "code/runs": {"code": code, "language": "python"},
        "commands/run": {"command": "echo x >> /workspace/command; sleep 1000"},
    }
    first: dict[str, httpx.Response] = {}

    def ask(route: str) -> None:
        path = f"/v1/sandboxes/{sandbox}/{route}"
        first[route] = client.request("POST", path, requests[route], key="once")

    threads = [threading.Thread(target=ask, args=(route,)) for route in requests]
    for thread in threads:
        thread.start()
    for name in ("ran", "command"):
        stat = f"/v1/sandboxes/{sandbox}/files/stat?path={name}"
        wait_for("its start", lambda stat=stat: client.request("GET", stat).status_code == 200)
    assert server.stop() == 0
    for thread in threads:
        thread.join(20)
    again = Client(start("--pool", "0", data_dir=server.data_dir))
    for route, body in requests.items():
        assert first[route].status_code == 409, first[route].text
        assert first[route].json()["error"]["code"] == "request_interrupted"
        replay = again.insist("POST", f"/v1/sandboxes/{sandbox}/{route}", body, key="once")
        assert replay.status_code == 409, "not carried out a second time"
        assert replay.json()["error"]["code"] == "request_interrupted"
    for name, marks in (("ran", "x"), ("command", "x\n")):
        read = again.insist("GET", f"/v1/sandboxes/{sandbox}/files/read?path={name}")
        assert read.json()["content"] == marks


def test_a_keyed_run_that_a_crash_cut_off_is_not_run_twice(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, "1")
    code = "open('ran', 'a').write('x')\nimport time\nwhile True: time.sleep(0.01)"
    body = {"code": code, "language": "python"}
    path = f"/v1/sandboxes/{sandbox}/code/runs"

    def ask() -> None:
        try:
            client.request("POST", path, body, key="cut-off")
        except httpx.TransportError:
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    stat = f"/v1/sandboxes/{sandbox}/files/stat?path=ran"
    wait_for("its start", lambda: client.request("GET", stat).status_code == 200)
    old = machine.pid("server")
    kill(old)
    thread.join(30)
    wait_for("another server", lambda: server.children().get("server", old) != old)
    refused = client.insist("POST", path, body, key="cut-off")
    assert refused.status_code == 409, refused.text
    assert refused.json()["error"]["code"] == "request_interrupted"
    assert client.value(sandbox, "open('ran').read()") == "x"


def stop_next_spawner(supervisor: int, known: int) -> int:
    """SIGSTOPs a spawner between its start and its first word: milliseconds."""
    end = time.monotonic() + 30
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    while time.monotonic() < end:
        for pid in map(int, children.read_text().split()):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if pid != known and line[1:2] == [b"spawner"]:
                kill(pid, signal.SIGSTOP)
                return pid
    raise AssertionError("no other spawner")


def test_a_spawner_that_hangs_at_its_start_is_replaced(start: Callable[..., Server]) -> None:
    """The supervisor waits for its first word no longer than it says."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, "x = 'kept'")
    assert server.process
    old = machine.pid("spawner")
    kill(old)
    hung = stop_next_spawner(server.process.pid, old)
    if (machine.server.log.read_text().count("not ready within")) == 0:
        assert client.value(sandbox, "x") == "kept", "what needs no spawner goes on"
    wait_for("its end", lambda: not alive(hung), SPAWNER_READY_SECONDS_MAX + 20)
    assert client.value(client.create(), "1 + 1") == "2"
    assert client.value(sandbox, "x") == "kept"
    assert "the spawner was not ready within" in server.log.read_text()


def test_a_spawner_that_never_starts_is_said(tmp_path: Path) -> None:
    """At the first start there is nothing to keep alive: the supervisor ends and says why."""
    if os.geteuid() != 0:
        import pytest

        pytest.skip("needs root")
    from machine import data_directory

    data = data_directory()
    command = [str(binary()), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        hung = stop_next_spawner(process.pid, 0)
        _, said = process.communicate(timeout=SPAWNER_READY_SECONDS_MAX + 20)
    finally:
        process.kill()
    wait_for("its end", lambda: not alive(hung))
    assert process.returncode == 1, said
    assert "the spawner was not ready within 10000 ms" in said.decode()
