"""execd as a client without a library sees it: bytes of streams, status codes, nothing hidden.

Owns: sending requests and taking streams apart by the rules of their framing. Does not own any
assertion about what a route should do.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parent.parent / "api"))

import httpx  # noqa: E402

from rest import connect  # noqa: E402
from server import Server  # noqa: E402

Json = dict[str, Any]

EVENT_BYTES_MAX = 1 << 20
CLOCK_SECONDS_MAX = 120
KINDS = {
    "init",
    "ping",
    "status",
    "stdout",
    "stderr",
    "result",
    "execution_count",
    "error",
    "execution_complete",
}


def parse(block: bytes) -> Json:
    """One event: a line of bare JSON, stamped with the time."""
    assert block.startswith(b"{") and b"\n" not in block and b"\r" not in block, block[:200]
    assert len(block) < EVENT_BYTES_MAX, len(block)
    event = json.loads(block)
    if "type" in event:
        assert event["type"] in KINDS
        assert isinstance(event["timestamp"], int), event
        assert abs(event["timestamp"] / 1000 - time.time()) < CLOCK_SECONDS_MAX
    else:
        assert set(event) == {"code", "message"}, event
    return event


def blocks(chunks: Iterator[bytes]) -> Iterator[Json]:
    """The events of a stream as they arrive; each ends with exactly one empty line."""
    held = b""
    for chunk in chunks:
        held += chunk
        *whole, held = held.split(b"\n\n")
        yield from map(parse, whole)
    assert held == b"", held[:200]


def text(events: list[Json], kind: str, joint: str = "") -> str:
    return joint.join(event["text"] for event in events if event.get("type") == kind)


def kinds(events: list[Json]) -> list[str]:
    """The types in their order, without signs of life."""
    return [event.get("type", "failure") for event in events if event.get("type") != "ping"]


def error(events: list[Json]) -> Json:
    """The error of a stream that failed: its last event, and nothing says that it completed."""
    assert events[-1].get("type") == "error", events[-1]
    assert "execution_complete" not in kinds(events)
    assert set(events[-1]["error"]) == {"ename", "evalue", "traceback"}
    assert all(isinstance(line, str) for line in events[-1]["error"]["traceback"])
    return events[-1]["error"]


class Execd:
    """execd of one sandbox, which /v1 has made."""

    def __init__(self, server: Server, **fields: Any):
        self.ours = connect(server)
        made = self.ours.post("/v1/sandboxes", json=fields)
        assert made.status_code == 201, made.text
        self.id: str = made.json()["sandbox"]["id"]
        self.client = httpx.Client(
            base_url=f"{server.url}/opensandbox/v1/sandboxes/{self.id}/proxy/44772",
            headers={"OPEN-SANDBOX-API-KEY": server.api_key},
            timeout=120,
            trust_env=False,
        )

    def close(self) -> None:
        self.ours.delete(f"/v1/sandboxes/{self.id}")
        self.ours.close()
        self.client.close()

    @contextmanager
    def stream(self, path: str, body: Json) -> Iterator[Iterator[Json]]:
        with self.client.stream("POST", path, json=body) as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield blocks(response.iter_raw())

    def events(self, path: str, body: Json) -> list[Json]:
        """A whole stream. It begins with an id and a sign of life."""
        with self.stream(path, body) as stream:
            events = list(stream)
        assert [event["type"] for event in events[:2]] == ["init", "ping"]
        assert events[0]["text"] and events[1]["text"] == "pong"
        return events

    def code(self, code: str, language: str | None = "python", id: str | None = None) -> list[Json]:
        context = {"id": id, "language": language}
        named = {key: value for key, value in context.items() if value}
        return self.events("/code", {"code": code, "context": named})

    def command(self, command: str, **fields: Any) -> list[Json]:
        return self.events("/command", {"command": command, **fields})

    def context(self, language: str = "python", **fields: Any) -> str:
        made = self.client.post("/code/context", json={"language": language, **fields})
        assert made.status_code == 200, made.text
        return made.json()["id"]

    def session(self, **fields: Any) -> str:
        made = self.client.post("/session", json=fields) if fields else self.client.post("/session")
        assert made.status_code == 200, made.text
        assert set(made.json()) == {"session_id"}
        return made.json()["session_id"]

    def in_session(self, id: str, command: str, **fields: Any) -> list[Json]:
        return self.events(f"/session/{id}/run", {"command": command, **fields})


class Running:
    """A stream that is read beside the test."""

    def __init__(self, execd: Execd, path: str, body: Json):
        self.events: list[Json] = []
        self.began = threading.Event()
        self.printed = threading.Event()
        self.failed: BaseException | None = None
        self.thread = threading.Thread(target=self.read, args=(execd, path, body))
        self.thread.start()

    def read(self, execd: Execd, path: str, body: Json) -> None:
        try:
            with execd.stream(path, body) as stream:
                for event in stream:
                    self.events.append(event)
                    self.began.set()
                    if event.get("type") == "stdout":
                        self.printed.set()
        except BaseException as failed:
            self.failed = failed

    def end(self, seconds: float = 30) -> list[Json]:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"the stream goes on: {self.events[-3:]}"
        if self.failed:
            raise self.failed
        return self.events


def refused(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"code", "message"}, response.text
    assert response.json()["code"] == code, response.text
    return response.json()["message"]
