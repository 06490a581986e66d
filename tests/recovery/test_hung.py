"""Something of ours stops without dying: others do not notice, whoever needs it is told in time,
and when it goes on, so does everything."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from machine import Client, Machine, alive, key_of, kill, settle, wait_for
from server import Server

# As CALL_TIMEOUT in crates/server/src/host/sandbox.rs and ANSWER_MS_MAX in
# crates/runtime/src/client.rs, and some.
ANSWER_SECONDS_MAX = 30
NEIGHBOUR_SECONDS_MAX = 1.0


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if alive(pid):
            kill(pid, signal.SIGCONT)


def test_whoever_needs_what_hangs_is_told_and_nobody_else_waits(
    start: Callable[..., Server],
) -> None:
    """The spawner and the init of one sandbox at the same time, since telling takes 30 s."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    warm = client.create()
    client.run(warm, "1")
    client.destroy(warm)
    wait_for("no process", lambda: not machine.processes())
    before = machine.census()
    neighbour, hung = client.create(), client.create()
    client.run(neighbour, "x = 'kept'")
    client.run(hung, "y = 'kept'")
    answers: dict[str, httpx.Response] = {}

    def ask(name: str, method: str, path: str, body: object = None) -> threading.Thread:
        def send() -> None:
            answers[name] = client.request(method, path, body)

        thread = threading.Thread(target=send)
        thread.start()
        return thread

    init = machine.init(key_of(hung))
    with stopped(machine.pid("spawner")), stopped(init):
        began = time.monotonic()
        contexts = f"/v1/sandboxes/{neighbour}/code/contexts"
        threads = [
            ask("create", "POST", "/v1/sandboxes", {}),
            ask("context", "POST", contexts, {"language": "python"}),
            ask("command", "POST", f"/v1/sandboxes/{hung}/commands/run", {"command": "true"}),
        ]
        longest = 0.0
        while any(thread.is_alive() for thread in threads):
            asked = time.monotonic()
            assert client.value(neighbour, "x") == "kept"
            longest = max(longest, time.monotonic() - asked)
            assert asked - began < ANSWER_SECONDS_MAX + 15, f"no answer: {answers.keys()}"
            time.sleep(0.1)
    for name, answer in answers.items():
        assert answer.status_code == 503, (name, answer.text)
        assert answer.json()["error"]["code"] == "unavailable", (name, answer.text)
    assert "in time" in answers["command"].json()["error"]["message"]
    assert longest < NEIGHBOUR_SECONDS_MAX * machine.slowness(), f"a neighbour: {longest:.1f} s"
    # It goes on: what it was told late is undone, what it knew is there.
    assert client.value(hung, "y") == "kept"
    assert client.value(client.create(), "1 + 1") == "2"
    server.destroy_sandboxes()
    settle(machine, before)


def test_init_ends_its_sandbox_when_the_spawner_cannot(start: Callable[..., Server]) -> None:
    """It is stopped, so that no successor takes its place either."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    # Long enough for a run on a busy machine, which a slower one has to be given.
    sandbox = client.create(ttlMs=int(10_000 * machine.slowness()))
    client.run(sandbox, "import subprocess; subprocess.Popen(['sleep', '1000'])")
    with stopped(machine.pid("spawner")):
        wait_for("its end", lambda: not machine.processes(key_of(sandbox)))
    record = client.insist("GET", f"/v1/sandboxes/{sandbox}").json()["sandbox"]
    assert (record["status"], record["destroyedReason"]) == ("destroyed", "ttl_expired"), record
    assert record["destroyedAt"] >= record["expiresAt"], record
    wait_for("its groups to go", lambda: not machine.groups())
    assert client.value(client.create(), "1 + 1") == "2"


def test_a_server_that_starts_does_not_wait_for_a_hung_init(start: Callable[..., Server]) -> None:
    """The one sandbox is given up after ten seconds; the others answer."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    well, hung = client.create(), client.create()
    client.run(well, "x = 'kept'")
    init = machine.init(key_of(hung))
    with stopped(init):
        old = machine.pid("server")
        kill(old)
        wait_for("another server", lambda: server.children().get("server", old) != old)
        assert client.value(well, "x") == "kept"
    record = client.insist("GET", f"/v1/sandboxes/{hung}").json()["sandbox"]
    assert record["destroyedReason"] == "platform_cleanup", record
    wait_for("its processes to go", lambda: not machine.processes(key_of(hung)))
