"""The mixed load of a soak: threads that do a random thing after the other and check each.

Owns: what is done, and what each client remembers: counters in interpreters, checksums of files,
answers to keyed requests. Does not own: transport and excuses (tenant.py).
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ledger import Ledger
from server import Server
from tenant import Failed, Gone, Json, Tenant

HOMES = 2
HOME_TTL_MS = 3_600_000
# What is done how often, in relation to the others.
MIX = {
    "churn": 10,
    "warm": 25,
    "state": 25,
    "stream": 8,
    "interrupt": 5,
    "file": 15,
    "command": 8,
    "refused": 5,
    "abandon": 4,
    "keyed_run": 8,
    "keyed_create": 3,
    "replay": 5,
    "expire": 3,
    "extend": 2,
}
LINES_MAX = 5_000
FILE_BYTES_MAX = 100_000
FILES_PER_HOME = 20
ANSWERS_KEPT = 200
# A sandbox may outlive its time by this, when no server is there to end it.
TTL_LATE_SECONDS = 15
SETUP = "import os, time\nn = 0\nos.getpid()"


@dataclass
class Home:
    """A sandbox that lives as long as the soak, unless it is killed."""

    sandbox: str
    context: str
    # What the counter may be: more than one value after a run without an answer.
    counter: set[int] = field(default_factory=lambda: {0})
    # None: the interpreter was lost and has no counter yet.
    ready: bool = True
    # Checksums that a file may have; an empty one for no file.
    files: dict[str, set[str]] = field(default_factory=dict)


class Worker(threading.Thread):
    """One client."""

    def __init__(self, server: Server, ledger: Ledger, seed: int):
        super().__init__(name=f"worker-{seed}")
        self.tenant = Tenant(server, ledger, seed)
        self.ledger = ledger
        self.random = self.tenant.random
        self.over = threading.Event()
        self.homes: list[Home] = []
        self.answers: deque[tuple[str, Any, str, Json]] = deque(maxlen=ANSWERS_KEPT)
        self.expiring: deque[tuple[str, float]] = deque()

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self.step()
        except BaseException as error:
            self.ledger.breaks(f"{self.name} ended: {error!r}")
            raise
        finally:
            self.tenant.client.close()

    def step(self) -> None:
        name = self.random.choices(list(MIX), list(MIX.values()))[0]
        home = None
        try:
            if len(self.homes) < HOMES:
                return self.settle()
            home = self.random.choice(self.homes)
            if not home.ready:
                return self.refurnish(home)
            getattr(self, name)(home)
            self.ledger.count(name)
        except Failed:
            # Whoever is refused waits a little, as clients do.
            time.sleep(self.random.uniform(0.01, 0.1))
        except Gone:
            self.buried(home)

    # -- homes

    def settle(self) -> None:
        sandbox = self.tenant.create(HOME_TTL_MS)
        path = f"/v1/sandboxes/{sandbox}/code/contexts"
        context = self.tenant.insist("POST", path, {"language": "python"}, 201)["context"]["id"]
        home = Home(sandbox, context)
        self.homes.append(home)
        self.furnish(home)

    def furnish(self, home: Home) -> None:
        home.ready = False
        pid = self.tenant.value(home.sandbox, SETUP, home.context)
        if pid is not None:
            home.counter, home.ready = {0}, True
            self.ledger.settle_in(home.sandbox, home.context, int(pid))

    def refurnish(self, home: Home) -> None:
        """After the interpreter was killed, or a first attempt failed."""
        self.furnish(home)
        self.check_files(home)

    def buried(self, home: Home | None) -> None:
        """It was killed on purpose: then its record must say so."""
        assert home
        self.homes.remove(home)
        self.ledger.move_out(home.sandbox)
        try:
            record = self.tenant.record(home.sandbox)
        except Failed:
            return
        if (record["status"], record.get("destroyedReason")) != ("failed", "platform_cleanup"):
            self.ledger.breaks(f"a killed sandbox is recorded as {record}")

    def check_files(self, home: Home) -> None:
        for path in list(home.files):
            self.check_file(home, path)

    # -- work

    def churn(self, _: Home) -> None:
        sandbox = self.tenant.create(self.random.randrange(20_000, 60_000))
        a, b = self.random.randrange(10**6), self.random.randrange(10**6)
        try:
            if self.tenant.value(sandbox, f"{a} * {b}") != str(a * b):
                self.ledger.breaks(f"{a} * {b} in a new sandbox")
        finally:
            self.tenant.destroy(sandbox)
        record = self.tenant.record(sandbox)
        if record["status"] != "destroyed" or record["destroyedReason"] != "user_killed":
            self.ledger.breaks(f"destroyed, then {record}")

    def warm(self, home: Home) -> None:
        a, b = self.random.randrange(10**9), self.random.randrange(10**9)
        got = self.tenant.value(home.sandbox, f"{a} + {b}", home.context)
        if got is None:
            home.ready = False
        elif got != str(a + b):
            self.ledger.breaks(f"{a} + {b} = {got}")

    def state(self, home: Home) -> None:
        """Counts; without an answer it may have counted or not."""
        try:
            run = self.tenant.run(home.sandbox, "n += 1\nn", home.context)
        except Failed:
            home.counter |= {n + 1 for n in home.counter}
            raise
        # That it was reset is said once, perhaps in an answer that was never read.
        lost = run.get("error") and self.ledger.is_doomed_context(home.context)
        if run["outcome"] != "completed" or run.get("contextReset") or lost:
            home.ready = False
            return
        got = int(run["outputs"][0]["value"]) if run["outputs"] else None
        if got is None or got - 1 not in home.counter:
            self.ledger.breaks(f"a counter of {home.counter} became {got}: {str(run)[:300]}")
        home.counter = {got or 0}

    def stream(self, home: Home) -> None:
        lines = self.random.randrange(1, LINES_MAX)
        code = f"for i in range({lines}): print(i)"
        with self.tenant.streaming(home.sandbox, code, home.context) as answer:
            events = list(self.tenant.events(home.sandbox, answer))
        run = events[-1]["data"]
        if run["outcome"] != "completed" or run.get("contextReset"):
            home.ready = False
            return
        said = "".join(e["data"] for e in events if e["type"] == "stdout")
        whole = "".join(f"{i}\n" for i in range(lines))
        if said != whole or "".join(run["stdout"]) != whole:
            self.ledger.breaks(f"{lines} lines became {said.count(chr(10))}")

    def interrupt(self, home: Home) -> None:
        path = f"/v1/sandboxes/{home.sandbox}/code/contexts/{home.context}/interrupt"
        code = "print('on', flush=True)\nwhile True: pass"
        outcome = None
        with self.tenant.streaming(home.sandbox, code, home.context) as answer:
            for event in self.tenant.events(home.sandbox, answer):
                if event["type"] == "stdout":
                    self.tenant.ask("POST", path, sandbox=home.sandbox)
                elif event["type"] == "complete":
                    outcome = event["data"]["outcome"]
                    home.ready = outcome != "context_died"
                    home.ready &= not event["data"].get("contextReset")
        if home.ready and outcome != "interrupted":
            self.ledger.breaks(f"an interrupted run: {outcome}")

    def file(self, home: Home) -> None:
        path = f"f{self.random.randrange(FILES_PER_HOME)}"
        content = self.random.randbytes(self.random.randrange(FILE_BYTES_MAX))
        known = home.files.setdefault(path, {""})
        new = hashlib.sha256(content).hexdigest()
        body = {
            "path": path,
            "content": base64.b64encode(content).decode(),
            "encoding": "base64",
        }
        # Until the answer is there, either may be true.
        known.add(new)
        self.tenant.ask("PUT", f"/v1/sandboxes/{home.sandbox}/files", body, sandbox=home.sandbox)
        home.files[path] = {new}
        self.check_file(home, self.random.choice(list(home.files)))

    def check_file(self, home: Home, path: str) -> None:
        url = f"/v1/sandboxes/{home.sandbox}/files/read?path={path}&encoding=base64"
        answer = self.tenant.send("GET", url)
        if answer.status_code == 200:
            found = hashlib.sha256(base64.b64decode(answer.json()["content"])).hexdigest()
        elif answer.json()["error"]["code"] == "file_not_found":
            found = ""
        elif answer.status_code == 410 and self.ledger.is_doomed(home.sandbox):
            raise Gone(home.sandbox)
        else:
            if answer.status_code < 500:
                self.ledger.breaks(f"reading {path} of {home.sandbox}: {answer.text[:200]}")
            raise Failed(answer.text)
        if found not in home.files[path]:
            self.ledger.breaks(f"{path} of {home.sandbox} has {found}, not {home.files[path]}")

    def command(self, home: Home) -> None:
        number = self.random.randrange(200)
        body = {"command": f"echo out-{number}; echo err-{number} >&2; exit {number}"}
        path = f"/v1/sandboxes/{home.sandbox}/commands/run"
        done = self.tenant.ask("POST", path, body, sandbox=home.sandbox)["command"]
        if done["status"] == "killed" and self.ledger.is_doomed(home.sandbox):
            raise Gone(home.sandbox)
        said = (done.get("exitCode"), done["stdout"], done["stderr"])
        if said != (number, f"out-{number}\n", f"err-{number}\n"):
            self.ledger.breaks(f"a command that exits with {number}: {done}")

    def refused(self, home: Home) -> None:
        """Errors are answers: of the code, and of the API."""
        run = self.tenant.run(home.sandbox, "raise ValueError('x')", home.context)
        if run["outcome"] != "completed" or run.get("contextReset"):
            home.ready = False
        elif run["error"]["name"] != "ValueError":
            self.ledger.breaks(f"raise ValueError: {run['error']}")
        wrong = self.tenant.send("POST", "/v1/sandboxes", {"ttlMs": -1})
        unknown = self.tenant.send("GET", "/v1/sandboxes/sbx_nobody")
        for answer, status in ((wrong, 400), (unknown, 404)):
            if answer.status_code not in (status, 503):
                self.ledger.breaks(f"expected {status}, got {answer.text[:200]}")

    def abandon(self, home: Home) -> None:
        """Hangs up in the middle; the context is free again."""
        code = "while True: print('x' * 1000)"
        with self.tenant.streaming(home.sandbox, code, home.context) as answer:
            next(answer.iter_raw(1_024), b"")
        self.warm(home)

    # -- keys

    def keyed_run(self, home: Home) -> None:
        """Sent until it is answered for good; the code ran once at most."""
        key = uuid.UUID(int=self.random.getrandbits(128)).hex
        code = f"with open('k_{key}', 'a') as f: _ = f.write('x')\n'{key}'"
        path = f"/v1/sandboxes/{home.sandbox}/code/runs"
        body = {"code": code, "language": "python", "contextId": home.context}
        answer = self.until_final("POST", path, body, key)
        status = answer.status_code
        if status == 410 and self.ledger.is_doomed(home.sandbox):
            raise Gone(home.sandbox)
        if status == 200:
            run = answer.json()["run"]
            self.tenant.outcome(home.sandbox, run)
            self.answers.append((path, body, key, answer.json()))
            home.ready = run["outcome"] == "completed" and not run.get("contextReset")
        elif status != 409:
            self.ledger.breaks(f"a keyed run: {answer.text[:300]}")
        url = f"/v1/sandboxes/{home.sandbox}/files/read?path=k_{key}"
        marks = self.tenant.send("GET", url)
        written = marks.json()["content"] if marks.status_code == 200 else ""
        if len(written) > 1 or (status == 200 and home.ready and written != "x"):
            if marks.status_code in (200, 404):
                self.ledger.breaks(f"a keyed run ({status}) left {written!r}: {marks.text[:200]}")

    def until_final(self, method: str, path: str, body: Any, key: str) -> Any:
        """Asks again as long as the answer may pass, as official clients do."""
        end = time.monotonic() + 30
        while True:
            try:
                answer = self.tenant.send(method, path, body, key)
            except Failed:
                answer = None
            code = "" if answer is None else answer.json().get("error", {}).get("code", "")
            passing = answer is None or code in ("unavailable", "idempotency_request_in_progress")
            if not passing:
                return answer
            if time.monotonic() > end:
                self.ledger.breaks(f"{method} {path} with a key has no final answer: {code}")
                raise Failed(code)
            time.sleep(0.05)

    def keyed_create(self, _: Home) -> None:
        key = uuid.UUID(int=self.random.getrandbits(128)).hex
        body = {"ttlMs": 60_000}
        answer = self.until_final("POST", "/v1/sandboxes", body, key)
        if answer.status_code != 201:
            self.ledger.breaks(f"a keyed creation: {answer.text[:300]}")
            return
        sandbox = answer.json()["sandbox"]["id"]
        with self.ledger.lock:
            self.ledger.created.add(sandbox)
        again = self.until_final("POST", "/v1/sandboxes", body, key)
        if again.json() != answer.json():
            self.ledger.breaks(f"a creation replayed as another: {again.text[:300]}")
        self.tenant.destroy(sandbox)

    def replay(self, _: Home) -> None:
        """An old key has the old answer, whatever was killed meanwhile."""
        if not self.answers:
            return
        path, body, key, first = self.random.choice(list(self.answers))
        again = self.until_final("POST", path, body, key)
        if again.status_code != 200 or again.json() != first:
            self.ledger.breaks(f"a key of {path} has another answer now: {again.text[:300]}")

    # -- time

    def expire(self, _: Home) -> None:
        """Leaves one to its time, and looks at one that was left before."""
        while self.expiring and self.expiring[0][1] + TTL_LATE_SECONDS < time.monotonic():
            sandbox, _at = self.expiring.popleft()
            record = self.tenant.record(sandbox)
            if (record["status"], record.get("destroyedReason")) != ("destroyed", "ttl_expired"):
                self.ledger.breaks(f"a sandbox left to its time: {record}")
        ttl_ms = self.random.randrange(2_000, 8_000)
        sandbox = self.tenant.create(ttl_ms)
        self.expiring.append((sandbox, time.monotonic() + ttl_ms / 1_000))
        body = {"code": "__import__('os').system('sleep 1000 &')", "language": "python"}
        answer = self.tenant.send("POST", f"/v1/sandboxes/{sandbox}/code/runs", body)
        if answer.status_code not in (200, 410, 503):
            self.ledger.breaks(f"a run in a sandbox near its end: {answer.text[:300]}")

    def extend(self, home: Home) -> None:
        """Or a home would end within the hour."""
        path = f"/v1/sandboxes/{home.sandbox}/ttl"
        self.tenant.ask("POST", path, {"ttlMs": HOME_TTL_MS}, sandbox=home.sandbox)
