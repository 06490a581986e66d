"""After much coming and going the machine is as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict

import httpx
from machine import Census, Client, Machine, wait_for
from server import Server

CYCLES = 100
STREAMS = 50
THREADS = 4


def settle(machine: Machine, before: Census) -> None:
    """Waits until nothing is there that was not there before. Descriptors of connections and of
    SQLite come and go by a few; what leaks grows with the cycles."""

    def equal() -> bool:
        now = machine.census()
        loose = ("supervisor_fds", "server_fds", "spawner_fds", "zygote_fds")
        exact = [name for name in asdict(before) if name not in loose]
        return all(getattr(now, f) == getattr(before, f) for f in exact) and all(
            abs(getattr(now, f) - getattr(before, f)) <= 6 for f in loose
        )

    try:
        wait_for("the machine as before", equal, 20)
    except AssertionError:
        now = asdict(machine.census())
        differences = {k: (v, now[k]) for k, v in asdict(before).items() if now[k] != v}
        raise AssertionError(f"left over (before, now): {differences}") from None


def several(work: Callable[[], None], times: int) -> None:
    errors: list[BaseException] = []

    def some() -> None:
        try:
            for _ in range(times // THREADS):
                work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=some) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def ready(start: Callable[..., Server]) -> tuple[Client, Machine, Census]:
    """A server that has done everything once, so that what it keeps for good is there."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    for _ in range(2):
        sandbox = client.create()
        client.run(sandbox, "1")
        client.destroy(sandbox)
    wait_for("no process", lambda: not machine.processes())
    return client, machine, machine.census()


def test_creating_and_destroying_leaves_nothing(start: Callable[..., Server]) -> None:
    client, machine, before = ready(start)

    def cycle() -> None:
        sandbox = client.create()
        client.run(sandbox, "import subprocess; p = subprocess.Popen(['sleep', '100'])")
        client.destroy(sandbox)

    several(cycle, CYCLES)
    settle(machine, before)


def test_creations_that_are_not_waited_for_leave_nothing(start: Callable[..., Server]) -> None:
    """Clients that hang up in the middle of a creation; what was made is found and destroyed."""
    client, machine, before = ready(start)

    def cycle() -> None:
        try:
            client.request("POST", "/v1/sandboxes", {}, timeout=0.004)
        except httpx.TransportError:
            pass

    several(cycle, CYCLES)

    def destroy_all() -> bool:
        page = client.insist("GET", "/v1/sandboxes?limit=500").json()["data"]
        for sandbox in page:
            client.request("DELETE", f"/v1/sandboxes/{sandbox['id']}")
        return not page and not machine.groups()

    wait_for("all to be listed and destroyed", destroy_all)
    settle(machine, before)


def test_abandoned_streams_leave_nothing(start: Callable[..., Server]) -> None:
    client, machine, _ = ready(start)
    sandbox = client.create()
    client.run(sandbox, "1")
    before = machine.census()
    body = {"code": "import time\nwhile True: print('x' * 1000)", "language": "python"}

    def cycle() -> None:
        path = f"{client.server.url}/v1/sandboxes/{sandbox}/code/runs/stream"
        with httpx.stream("POST", path, json=body, headers=client.headers, timeout=60) as answer:
            if answer.status_code == 200:
                next(answer.iter_bytes(1024))

    several(cycle, STREAMS)
    assert client.value(sandbox, "'alive'") == "alive"
    settle(machine, before)


def test_contexts_leave_nothing(start: Callable[..., Server]) -> None:
    client, machine, _ = ready(start)
    sandbox = client.create()
    client.run(sandbox, "1")
    before = machine.census()

    def cycle() -> None:
        context = client.context(sandbox)
        client.run(sandbox, "import subprocess; p = subprocess.Popen(['sleep', '100'])", context)
        client.insist("DELETE", f"/v1/sandboxes/{sandbox}/code/contexts/{context}")

    several(cycle, 20)
    settle(machine, before)


def test_failed_creations_leave_nothing(start: Callable[..., Server]) -> None:
    client, machine, before = ready(start)
    for _ in range(20):
        for request in ({"template": "no-such"}, {"resources": {"pids": 1}}):
            answer = client.request("POST", "/v1/sandboxes", request)
            assert 400 <= answer.status_code < 500, answer.text
    settle(machine, before)
