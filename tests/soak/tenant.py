"""One client of a soak: what it asks for and what it believes must come back.

Owns: requests, and judging each answer by the ledger. Does not own: what is done in which order
(work.py), nor faults (chaos.py).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from ledger import Ledger
from server import Server

Json = dict[str, Any]
# Longer than every wait of the server: who hears nothing for so long was forgotten.
SILENCE_SECONDS_MAX = 45
RUN_TIMEOUT_MS = 30_000
RETRY_SECONDS_MAX = 40
RETRY_PAUSE_SECONDS = 0.1
# Typed answers that a fault may give instead of the expected one.
PASSING = {
    "unavailable",
    "request_interrupted",
    "idempotency_request_in_progress",
}


class Gone(Exception):
    """The sandbox was killed on purpose."""


class Failed(Exception):
    """An answer that a fault excuses, or a broken promise that was written down."""


class Tenant:
    """Talks to the server as one client does."""

    def __init__(self, server: Server, ledger: Ledger, seed: int):
        self.server = server
        self.ledger = ledger
        self.random = random.Random(seed)
        self.key = server.api_key
        self.client = httpx.Client(timeout=SILENCE_SECONDS_MAX, trust_env=False)

    def headers(self, key: str | None = None) -> dict[str, str]:
        headers = {"authorization": f"Bearer {self.key}"}
        return headers | ({"idempotency-key": key} if key else {})

    def send(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> httpx.Response:
        """Any answer in the shape that every answer has; no answer only with an excuse."""
        began = time.monotonic()
        try:
            answer = self.client.request(
                method, self.server.url + path, json=body, headers=self.headers(key)
            )
        except httpx.TimeoutException as error:
            self.ledger.breaks(f"{method} {path}: silence for {SILENCE_SECONDS_MAX} s: {error!r}")
            raise Failed from error
        except httpx.TransportError as error:
            self.ledger.excuse(began, f"{method} {path}: {error!r}")
            raise Failed from error
        self.ledger.count("requests")
        if answer.status_code >= 400:
            self.judge(began, f"{method} {path}", answer)
        return answer

    def judge(self, began: float, what: str, answer: httpx.Response) -> None:
        """Refusals have a code; some need an excuse, some have none."""
        try:
            code = answer.json()["error"]["code"]
        except (ValueError, KeyError):
            self.ledger.breaks(f"{what}: {answer.status_code} without a code: {answer.text[:300]}")
            raise Failed from None
        if code in PASSING:
            self.ledger.excuse(began, f"{what}: {answer.text[:300]}")
        elif answer.status_code >= 500 or answer.status_code == 429:
            self.ledger.breaks(f"{what}: {answer.status_code} {answer.text[:300]}")

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
        status: int = 200,
        sandbox: str = "",
    ) -> Json:
        """The body of an answer with that status."""
        answer = self.send(method, path, body, key)
        if answer.status_code == status:
            return answer.json()
        code = answer.json()["error"]["code"]
        if code == "sandbox_destroyed" and self.ledger.is_doomed(sandbox):
            raise Gone(sandbox)
        if code not in PASSING and answer.status_code < 500:
            self.ledger.breaks(f"{method} {path}: expected {status}, got {answer.text[:300]}")
        raise Failed(answer.text)

    def insist(self, method: str, path: str, body: Any = None, status: int = 200) -> Json:
        """As [`ask`], again and again while faults are in the way."""
        end = time.monotonic() + RETRY_SECONDS_MAX
        while True:
            try:
                return self.ask(method, path, body, status=status)
            except Failed:
                if time.monotonic() > end:
                    self.ledger.breaks(f"{method} {path}: no answer in {RETRY_SECONDS_MAX} s")
                    raise
                time.sleep(RETRY_PAUSE_SECONDS)

    # -- sandboxes

    def create(self, ttl_ms: int, key: str | None = None) -> str:
        made = self.ask("POST", "/v1/sandboxes", {"ttlMs": ttl_ms}, key, 201)["sandbox"]["id"]
        with self.ledger.lock:
            self.ledger.created.add(made)
        return made

    def destroy(self, sandbox: str) -> None:
        gone = self.ask("DELETE", f"/v1/sandboxes/{sandbox}", sandbox=sandbox)["sandbox"]
        if gone["status"] != "destroyed" or gone["destroyedReason"] != "user_killed":
            self.ledger.breaks(f"destroyed, but {json.dumps(gone)}")

    def record(self, sandbox: str) -> Json:
        return self.insist("GET", f"/v1/sandboxes/{sandbox}")["sandbox"]

    # -- runs

    def run(
        self, sandbox: str, code: str, context: str | None = None, key: str | None = None
    ) -> Json:
        """The result of a run that was answered; that of a killed interpreter included."""
        body: Json = {"code": code, "language": "python", "timeoutMs": RUN_TIMEOUT_MS}
        if context:
            body["contextId"] = context
        path = f"/v1/sandboxes/{sandbox}/code/runs"
        run = self.ask("POST", path, body, key, sandbox=sandbox)["run"]
        self.outcome(sandbox, run)
        return run

    def outcome(self, sandbox: str, run: Json) -> None:
        died = run["outcome"] in ("context_died", "out_of_memory") or run.get("contextReset")
        if not died:
            return
        ledger = self.ledger
        if ledger.is_doomed(sandbox):
            raise Gone(sandbox)
        if not ledger.is_doomed_context(run["contextId"]):
            ledger.breaks(f"an interpreter was lost: {json.dumps(run)[:400]}")

    def value(self, sandbox: str, code: str, context: str | None = None) -> str | None:
        """Text of the last expression; none when the interpreter was killed under it."""
        run = self.run(sandbox, code, context)
        if run["outcome"] != "completed" or run.get("error") or not run["outputs"]:
            if not self.ledger.is_doomed_context(run["contextId"]):
                self.ledger.breaks(f"a run without its value: {json.dumps(run)[:400]}")
            return None
        return run["outputs"][0]["value"]

    @contextmanager
    def streaming(self, sandbox: str, code: str, context: str) -> Iterator[httpx.Response]:
        """A stream; errors of transport inside need an excuse."""
        began = time.monotonic()
        path = f"/v1/sandboxes/{sandbox}/code/runs/stream"
        body = {
            "code": code,
            "language": "python",
            "contextId": context,
            "timeoutMs": RUN_TIMEOUT_MS,
        }
        try:
            with self.client.stream(
                "POST", self.server.url + path, json=body, headers=self.headers()
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    self.judge(began, f"POST {path}", answer)
                    if "sandbox_destroyed" in answer.text and self.ledger.is_doomed(sandbox):
                        raise Gone(sandbox)
                    raise Failed(answer.text)
                self.ledger.count("streams")
                yield answer
        except httpx.TimeoutException as error:
            self.ledger.breaks(f"a stream of {sandbox} was silent for {SILENCE_SECONDS_MAX} s")
            raise Failed from error
        except httpx.TransportError as error:
            self.ledger.excuse(began, f"a stream of {sandbox}: {error!r}")
            raise Failed from error

    def events(self, sandbox: str, answer: httpx.Response) -> Iterator[Json]:
        """Events of a stream, which ends with a result, a reason, or not at all."""
        began, last = time.monotonic(), None
        for line in answer.iter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
                yield last
        if last and last["type"] == "complete":
            self.outcome(sandbox, last["data"])
        elif last and last["type"] == "error" and last["data"].get("name") in PASSING:
            self.ledger.excuse(began, f"a stream of {sandbox} broke off: {last}")
            raise Failed(str(last))
        else:
            self.ledger.breaks(f"a stream of {sandbox} ended after {str(last)[:300]}")
            raise Failed(str(last))
