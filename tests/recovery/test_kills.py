"""Everything of ours is killed in the middle of everything: whoever waits hears something, the rest
lives on, nothing is left over, and what was answered before is there afterwards."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from machine import Client, Machine, data_directory, key_of, kill, settle, wait_for
from server import Server, missing

VICTIMS = ("server", "spawner", "supervisor", "zygote", "init", "kernel")
# Whoever has a request or a stream open when something dies has heard its end by then.
END_SECONDS_MAX = 40
CLIENTS = 3
# Kills right after an answer, at most.
ROUNDS_MAX = 8
# Codes that may be answered because of a fault.
PASSING = {"unavailable", "request_interrupted", "sandbox_destroyed", "not_found"}
WAITING = """
import os, time
open('/workspace/begun', 'w').close()
for number in range(1_000_000):
    print(number, flush=True)
    if os.path.exists('/workspace/go'):
        break
    time.sleep(0.01)
'finished'
"""


class Busy:
    """Some sandboxes, one of which is to be the victim, and clients in the middle of something."""

    def __init__(self, client: Client):
        self.client = client
        self.sandboxes = [client.create() for _ in range(CLIENTS)]
        self.contexts = [client.context(sandbox) for sandbox in self.sandboxes]
        self.pids = [
            int(client.value(s, f"x = {n}; import os; os.getpid()", c))
            for n, (s, c) in enumerate(zip(self.sandboxes, self.contexts))
        ]
        self.over = threading.Event()
        self.begun = threading.Semaphore(0)
        self.wrong: list[str] = []
        self.heard: list[str] = []
        self.threads: list[threading.Thread] = []

    def start(self, activity: str) -> None:
        """Returns when every client is in the middle."""
        work = getattr(self, activity)
        for number in range(CLIENTS):
            thread = threading.Thread(target=self.guard, args=(work, number))
            thread.start()
            self.threads.append(thread)
        for _ in range(CLIENTS):
            assert self.begun.acquire(timeout=END_SECONDS_MAX), "nothing has begun"

    def guard(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except httpx.TimeoutException as error:
            self.wrong.append(f"silence: {error!r}")
        except httpx.TransportError as error:
            self.heard.append(type(error).__name__)
        except Exception as error:
            self.wrong.append(repr(error))

    def judge(self, answer: httpx.Response, good: int) -> None:
        code = "" if answer.status_code == good else answer.json()["error"]["code"]
        if code and code not in PASSING:
            self.wrong.append(answer.text)
        self.heard.append(code or "answered")

    def body(self, number: int) -> Any:
        return {
            "code": WAITING,
            "language": "python",
            "contextId": self.contexts[number],
            "timeoutMs": 60_000,
        }

    def runs(self, number: int) -> None:
        threading.Thread(target=self.await_begun, args=(number,)).start()
        path = f"/v1/sandboxes/{self.sandboxes[number]}/code/runs"
        self.judge(self.client.request("POST", path, self.body(number)), 200)

    def await_begun(self, number: int) -> None:
        path = f"/v1/sandboxes/{self.sandboxes[number]}/files/stat?path=begun"
        wait_for("a run", lambda: self.client.request("GET", path).status_code == 200)
        self.begun.release()

    def streams(self, number: int) -> None:
        """Ends with a result, a reason, or a broken connection; never as if it were whole."""
        path = f"{self.client.server.url}/v1/sandboxes/{self.sandboxes[number]}/code/runs/stream"
        kinds: list[str] = []
        with httpx.stream(
            "POST", path, json=self.body(number), headers=self.client.headers, timeout=60
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    kinds.append(json.loads(line.removeprefix("data: "))["type"])
                    if len(kinds) == 3:
                        self.begun.release()
        self.heard.append(kinds[-1])
        if kinds[-1] not in ("complete", "error"):
            self.wrong.append(f"a stream ended with {kinds[-3:]}")

    def creates(self, _: int) -> None:
        """Again and again, until told to stop; only what was answered counts."""
        first = True
        while not self.over.is_set():
            try:
                answer = self.client.request("POST", "/v1/sandboxes", {"ttlMs": 120_000})
                self.judge(answer, 201)
            except httpx.TransportError as error:
                if isinstance(error, httpx.TimeoutException):
                    raise
                self.heard.append(type(error).__name__)
            if first:
                self.begun.release()
                first = False

    def destroys(self, _: int) -> None:
        """What it makes it ends; what it was told has ended stays so."""
        first = True
        while not self.over.is_set():
            try:
                made = self.client.request("POST", "/v1/sandboxes", {"ttlMs": 120_000})
                if made.status_code == 201:
                    sandbox = made.json()["sandbox"]["id"]
                    gone = self.client.request("DELETE", f"/v1/sandboxes/{sandbox}")
                    self.judge(gone, 200)
                    if gone.status_code == 200:
                        self.client.server.ended.append(sandbox)  # type: ignore[attr-defined]
            except httpx.TransportError as error:
                if isinstance(error, httpx.TimeoutException):
                    raise
                self.heard.append(type(error).__name__)
            if first:
                self.begun.release()
                first = False

    def stop(self) -> None:
        """Lets everybody go on who still can; all threads end in time."""
        self.over.set()
        for sandbox in self.sandboxes:
            path = f"/v1/sandboxes/{sandbox}/files"
            self.client.insist("PUT", path, {"path": "go", "content": ""})
        for thread in self.threads:
            thread.join(END_SECONDS_MAX)
            assert not thread.is_alive(), "a request hangs"
        assert not self.wrong, self.wrong


@pytest.fixture(scope="module", params=VICTIMS)
def victim(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def server(victim: str) -> Iterator[Server]:
    """One for all tests that kill the same."""
    if reason := missing():
        pytest.skip(reason)
    server = Server(data_directory(), "--pool", "0")
    server.ended = []  # type: ignore[attr-defined]
    server.start()
    client, machine = Client(server), Machine(server)
    for _ in range(2):
        sandbox = client.create()
        client.run(sandbox, "1")
        client.destroy(sandbox)
    wait_for("no process", lambda: not machine.processes())
    server.before = machine.census()  # type: ignore[attr-defined]
    yield server
    if server.process and server.process.poll() is not None:
        server.start()
    server.__exit__(None, None, None)
    shutil.rmtree(server.data_dir.parent, ignore_errors=True)


def strike(server: Server, machine: Machine, busy: Busy, victim: str) -> None:
    if victim in ("server", "spawner"):
        old = machine.pid(victim)
        kill(old)
        wait_for(f"another {victim}", lambda: server.children().get(victim, old) != old)
    elif victim == "supervisor":
        listen = server.url.removeprefix("http://")
        server.kill()
        server.start(listen)
    elif victim == "zygote":
        for pid in machine.zygotes():
            kill(pid)
    elif victim == "init":
        kill(machine.init(key_of(busy.sandboxes[0])))
    else:
        kill(machine.inside(key_of(busy.sandboxes[0]), busy.pids[0]))


@pytest.mark.parametrize("activity", ["runs", "streams", "creates", "destroys"])
def test_killed_in_the_middle(server: Server, victim: str, activity: str) -> None:
    client, machine = Client(server), Machine(server)
    keeper = client.create()
    client.run(keeper, "x = 'kept'")
    run = f"/v1/sandboxes/{keeper}/code/runs"
    keyed = {"code": "open('ran', 'a').write('x')", "language": "python"}
    first = client.request("POST", run, keyed, key=f"{victim}-{activity}")
    assert first.status_code == 200, first.text
    busy = Busy(client)
    busy.start(activity)

    strike(server, machine, busy, victim)

    new = client.create()
    assert client.value(new, "1 + 1", client.context(new)) == "2", "work can be done again"
    busy.stop()
    # What lives on, with what it knows.
    assert client.value(keeper, "x") == "kept"
    again = client.insist("POST", run, keyed, key=f"{victim}-{activity}")
    assert again.json() == first.json() and again.headers["idempotent-replayed"] == "true"
    assert client.value(keeper, "open('ran').read()") == "x"
    for number, (sandbox, context) in enumerate(zip(busy.sandboxes, busy.contexts)):
        if number == 0 and victim == "init":
            refused = client.insist("POST", f"/v1/sandboxes/{sandbox}/code/runs", busy.body(0))
            assert refused.status_code == 410, refused.text
            assert refused.json()["error"]["code"] == "sandbox_destroyed"
            record = client.insist("GET", f"/v1/sandboxes/{sandbox}").json()["sandbox"]
            assert record["status"] == "failed" and record["destroyedAt"], record
            assert record["destroyedReason"] == "platform_cleanup", record
        elif number == 0 and victim == "kernel":
            fresh = client.run(sandbox, "'x' in globals()", context)
            assert fresh["contextReset"] is True or "context_died" in str(busy.heard), fresh
            assert fresh["outputs"][0]["value"] == "False", "its state is lost, the sandbox lives"
        else:
            assert client.value(sandbox, "x", context) == str(number)
    for sandbox in server.ended:  # type: ignore[attr-defined]
        record = client.insist("GET", f"/v1/sandboxes/{sandbox}").json()["sandbox"]
        assert record["destroyedReason"] == "user_killed", record
    server.destroy_sandboxes()
    settle(machine, server.before)  # type: ignore[attr-defined]
    audited = machine.audited("sandbox.create")
    assert {keeper, new, *busy.sandboxes} <= audited, "on record, whoever was killed"


def test_no_audit_event_is_lost(start: Callable[..., Server]) -> None:
    """Events are written in batches; the server dies right after an answer, before the batch."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, "1")
    answered: list[str] = []
    on_their_way = 0
    for _ in range(ROUNDS_MAX):
        client.insist("GET", f"/v1/sandboxes/{sandbox}")
        victim = machine.pid("server")
        for _ in range(20):
            body = {"code": "1", "language": "python"}
            answer = client.request("POST", f"/v1/sandboxes/{sandbox}/code/runs", body)
            assert answer.status_code == 200, answer.text
            answered.append(answer.headers["x-request-id"])
        kill(victim)
        on_their_way += len(set(answered) - set(machine.audit_requests("code.run")))
        if on_their_way > 20:
            break
    assert on_their_way, "every batch was written in time: nothing was tried"
    client.insist("GET", f"/v1/sandboxes/{sandbox}")
    recorded = machine.audit_requests("code.run")
    assert [request for request in recorded if request in answered] == answered
    assert len(recorded) == len(set(recorded)), "none is there twice"
