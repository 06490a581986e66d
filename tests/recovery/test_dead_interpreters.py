"""An interpreter that died a moment before a run came: the run gets a fresh one, and is told.

The moment is made wide by holding init: it hears of the death and of the run at the same time."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from machine import Client, Machine, alive, key_of, kill, wait_for
from server import Server

TRIES = 8


@pytest.mark.parametrize("streamed", [False, True])
def test_a_run_that_never_began_begins_again(start: Callable[..., Server], streamed: bool) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    key = key_of(sandbox)
    context = client.context(sandbox)
    init = machine.init(key)
    for _ in range(TRIES):
        client.run(sandbox, "kept = 1", context)
        inside = int(client.value(sandbox, "import os; os.getpid()", context))
        interpreter = machine.inside(key, inside)
        # Written once for every time that it is begun.
        code = "open('begun', 'a').write('x'); 'kept' in dir()"
        runs: list[dict[str, Any]] = []

        def ask() -> None:
            runs.append((stream if streamed else client.run)(*asked))

        def stream(sandbox: str, code: str, context: str) -> dict[str, Any]:
            path = f"{server.url}/v1/sandboxes/{sandbox}/code/runs/stream"
            body = {"code": code, "language": "python", "contextId": context}
            with httpx.stream(
                "POST", path, json=body, headers=client.headers, timeout=60
            ) as answer:
                events = [
                    json.loads(line.removeprefix("data: "))
                    for line in answer.iter_lines()
                    if line.startswith("data: ")
                ]
            assert [event["type"] for event in events] == ["output", "complete"], events
            return events[-1]["data"]

        asked = (sandbox, code, context)
        wait_for("no run", lambda: sent(server) == 0)
        kill(init, signal.SIGSTOP)
        try:
            kill(interpreter)
            wait_for("the death", lambda pid=interpreter: not alive(pid))
            asking = threading.Thread(target=ask)
            asking.start()
            wait_for("the run is on its way", lambda: sent(server) == 1)
        finally:
            kill(init, signal.SIGCONT)
        asking.join(30)
        (run,) = runs
        assert run["outcome"] == "completed" and "error" not in run, run
        assert run["contextReset"] is True and run["outputs"][0]["value"] == "False"
        assert client.value(sandbox, "open('begun').read()", context) == "x", "once"
        client.run(sandbox, "os = __import__('os'); os.remove('begun')", context)


def sent(server: Server) -> int:
    """Runs that the server has given to inits and that are not over."""
    metrics = httpx.get(server.url + "/metrics").text
    (line,) = [
        line for line in metrics.splitlines() if line.startswith("crownest_host_runs_active ")
    ]
    return int(line.split()[1])
