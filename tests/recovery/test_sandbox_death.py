"""A sandbox ends in the middle of something: by the host's hand, or in a race."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
from machine import Client, Machine, key_of, kill, wait_for
from server import Server


def started(start: Callable[..., Server]) -> tuple[Client, Machine]:
    server = start("--pool", "0")
    return Client(server), Machine(server)


def test_an_init_killed_from_the_host_is_noticed_and_cleaned_up(
    start: Callable[..., Server],
) -> None:
    client, machine = started(start)
    victim, other = client.create(), client.create()
    client.run(other, "x = 1")
    client.run(victim, "import subprocess; subprocess.Popen(['sleep', '1000'])")
    ends: list[Any] = []

    def run() -> None:
        code = "open('/workspace/begun', 'w'); import time; time.sleep(20)"
        body = {"code": code, "language": "python", "timeoutMs": 30_000}
        try:
            answer = client.request("POST", f"/v1/sandboxes/{victim}/code/runs", body)
            ends.append((answer.status_code, answer.json()))
        except httpx.TransportError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    path = f"/v1/sandboxes/{victim}/files/stat?path=begun"
    wait_for("the run", lambda: client.request("GET", path).status_code == 200)
    kill(machine.init(key_of(victim)))
    thread.join(20)
    assert not thread.is_alive(), "the run hangs"
    assert ends[0][0] in (200, 410), ends
    if ends[0][0] == 200:
        assert ends[0][1]["run"]["outcome"] == "context_died"
    gone = wait_for(
        "410",
        lambda: client.request(
            "POST", f"/v1/sandboxes/{victim}/code/runs", {"code": "1", "language": "python"}
        ).status_code
        == 410,
    )
    assert gone
    wait_for("its groups to go", lambda: not [
        g for g in machine.groups() if g.name.startswith(key_of(victim))
    ])
    assert client.value(other, "x") == "1"


def test_destroying_in_the_middle_of_a_run(start: Callable[..., Server]) -> None:
    client, machine = started(start)
    sandbox = client.create()
    client.run(sandbox, "1")
    ends: list[httpx.Response] = []
    body = {"code": "while True: print('x' * 100)", "language": "python", "timeoutMs": 30_000}
    path = f"/v1/sandboxes/{sandbox}/code/runs"
    threads = [
        threading.Thread(target=lambda: ends.append(client.request("POST", path, body)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_for("cpu time of the run", lambda: machine.processes(key_of(sandbox)))
    client.destroy(sandbox)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a run hangs"
    for end in ends:
        assert end.status_code in (200, 410), end.text
        if end.status_code == 200:
            assert end.json()["run"]["outcome"] == "context_died"
    wait_for("no processes", lambda: not machine.processes())


def test_forks_into_sandboxes_that_are_being_destroyed(start: Callable[..., Server]) -> None:
    """Contexts are opened as fast as possible while their sandbox goes: each gets an answer, the
    zygote lives, nothing is left behind."""
    client, machine = started(start)
    codes: set[int] = set()
    for _ in range(6):
        sandbox = client.create()
        path = f"/v1/sandboxes/{sandbox}/code/contexts"
        stop = threading.Event()

        def fork() -> None:
            while not stop.is_set():
                try:
                    answer = client.request("POST", path, {"language": "python"}, timeout=20)
                except httpx.TransportError:
                    return
                codes.add(answer.status_code)
                if answer.status_code == 410:
                    return

        threads = [threading.Thread(target=fork) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for("a context", lambda key=key_of(sandbox): len(machine.processes(f"{key}.")) >= 3)
        client.destroy(sandbox)
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a request hangs"
    assert codes <= {201, 404, 409, 410, 429, 503}, codes
    wait_for("no groups", lambda: not machine.groups())
    assert client.value(client.create(), "1 + 1") == "2"


def test_destroyed_by_several_at_once(start: Callable[..., Server]) -> None:
    client, machine = started(start)
    for _ in range(5):
        sandbox = client.create()
        codes: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: codes.append(
                    client.request("DELETE", f"/v1/sandboxes/{sandbox}").status_code
                )
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(codes) == 4 and set(codes) <= {200, 404, 410}, codes
    wait_for("no groups", lambda: not machine.groups())


def test_a_sandbox_that_ends_itself_is_gone_with_a_reason(start: Callable[..., Server]) -> None:
    client, machine = started(start)
    sandbox = client.create(ttlMs=3_000)
    wait_for("410", lambda: client.request(
        "POST", f"/v1/sandboxes/{sandbox}/code/runs", {"code": "1", "language": "python"}
    ).status_code == 410)
    answer = client.request("GET", f"/v1/sandboxes/{sandbox}").json()
    body = answer.get("sandbox", answer)
    assert body["status"] == "destroyed" and body["destroyedReason"] == "ttl_expired", body
    wait_for("no groups", lambda: not machine.groups())
