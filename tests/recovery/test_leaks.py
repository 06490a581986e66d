"""After much coming and going the machine is as it was."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import httpx
from machine import WAIT_SECONDS_MAX, Census, Client, Machine, settle, wait_for
from server import Server

CYCLES = 500
UNFINISHED = 100
STREAMS = 1_000
SANDBOXES = 4
THREADS = 16
# By how much more memory our processes may hold afterwards: caches, allocators, database pages.
MEMORY_GROWTH_KIB_MAX = {"server": 48 * 1024, "spawner": 2 * 1024, "zygote": 16 * 1024}


def check_memory(machine: Machine, before: dict[str, int]) -> None:
    now = machine.memory_kib()
    for name, most in MEMORY_GROWTH_KIB_MAX.items():
        assert now[name] <= before[name] + most, f"{name}: {before[name]} KiB, then {now[name]}"


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
    """Every fifth with an interpreter and a process of its own in it."""
    client, machine, before = ready(start)
    memory = machine.memory_kib()
    numbers = itertools.count()

    def cycle() -> None:
        sandbox = client.create()
        if next(numbers) % 5 == 0:
            client.run(sandbox, "import subprocess; p = subprocess.Popen(['sleep', '100'])")
        client.destroy(sandbox)

    several(cycle, CYCLES)
    assert next(numbers) >= CYCLES - THREADS
    settle(machine, before)
    check_memory(machine, memory)


def test_creations_that_are_not_waited_for_leave_nothing(start: Callable[..., Server]) -> None:
    """Clients that hang up in the middle of a creation; what was made is found and destroyed."""
    client, machine, before = ready(start)

    def cycle() -> None:
        try:
            client.request("POST", "/v1/sandboxes", {}, timeout=0.004)
        except httpx.TransportError:
            pass

    several(cycle, UNFINISHED)

    def destroy_all() -> bool:
        page = client.insist("GET", "/v1/sandboxes?limit=500").json()["data"]
        for sandbox in page:
            client.request("DELETE", f"/v1/sandboxes/{sandbox['id']}")
        return not page and not machine.groups()

    wait_for("all to be listed and destroyed", destroy_all, WAIT_SECONDS_MAX * machine.slowness())
    settle(machine, before)


def test_abandoned_streams_leave_nothing(start: Callable[..., Server]) -> None:
    """Clients that hang up in the middle: some in a flood of output, some in silence."""
    client, machine, _ = ready(start)
    contexts = []
    for _ in range(SANDBOXES):
        sandbox = client.create()
        contexts += [(sandbox, client.context(sandbox)) for _ in range(THREADS // SANDBOXES)]
    for sandbox, context in contexts:
        client.run(sandbox, "1", context)
    before, memory = machine.census(), machine.memory_kib()
    codes = ("import time\nwhile True: print('x' * 1000)", "print(1)\nimport time\ntime.sleep(60)")
    numbers = itertools.count()
    begun = itertools.count()

    def cycle() -> None:
        number = next(numbers)
        sandbox, context = contexts[number % len(contexts)]
        path = f"{client.server.url}/v1/sandboxes/{sandbox}/code/runs/stream"
        code = codes[number // len(contexts) % 2]
        body = {"code": code, "language": "python", "contextId": context}
        with httpx.stream("POST", path, json=body, headers=client.headers, timeout=60) as answer:
            if answer.status_code == 200:
                next(begun)
                next(answer.iter_bytes(16))

    several(cycle, STREAMS)
    assert next(begun) >= STREAMS - THREADS, "every one was begun"
    for sandbox, context in contexts:
        assert client.value(sandbox, "'alive'", context) == "alive"
    settle(machine, before)
    check_memory(machine, memory)


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
