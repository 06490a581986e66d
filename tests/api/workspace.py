"""Workspace runs as a client makes them, and archives: ordinary ones, and ones made by hand.

Owns: the requests, exactly as the contract has them. Does not own any assertion about what the
product should do with them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import httpx

from rest import Json, until

BASE = "/v1/workspace-runs"
TERMINAL = ("succeeded", "failed", "canceled")
RUN_SECONDS_MAX = 60


def member(
    name: str,
    content: bytes = b"",
    *,
    type: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), type, link, mode
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_gz(*members: tuple[tarfile.TarInfo, bytes], **options: Any) -> bytes:
    return gzip.compress(tar(*members, **options))


def files(**contents: str) -> bytes:
    """An archive of text files; `__` in a name is a slash, `_` a dot."""
    named = {name.replace("__", "/").replace("_", "."): text for name, text in contents.items()}
    return tar_gz(*(member(name, text.encode()) for name, text in named.items()))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive_headers(data: bytes) -> dict[str, str]:
    return {
        "content-type": "application/gzip",
        "content-length": str(len(data)),
        "x-crownest-archive-sha256": sha256(data),
        "x-crownest-archive-size": str(len(data)),
    }


class Run:
    """One workspace run."""

    def __init__(self, client: httpx.Client, record: Json):
        self.client = client
        self.record = record
        self.id: str = record["id"]
        self.path = f"{BASE}/{self.id}"

    @classmethod
    def create(cls, client: httpx.Client, command: str, **fields: Any) -> Run:
        response = client.post(BASE, json={"command": command, **fields})
        assert response.status_code == 201, response.text
        return cls(client, response.json()["workspaceRun"])

    def upload(self, data: bytes, **headers: str) -> httpx.Response:
        """One request with the whole archive."""
        wanted = {**archive_headers(data), **headers}
        return self.client.put(f"{self.path}/archive", content=data, headers=wanted)

    def transfer(self, data: bytes) -> Json:
        """Announces an archive."""
        body = {"sha256": sha256(data), "sizeBytes": len(data)}
        response = self.client.post(f"{self.path}/archive-transfer", json=body)
        assert response.status_code == 201, response.text
        return response.json()["transfer"]

    def finalize(self, data: bytes, upload: str, **changed: Any) -> httpx.Response:
        body = {"sha256": sha256(data), "sizeBytes": len(data), "uploadId": upload, **changed}
        return self.client.post(f"{self.path}/archive/finalize", json=body)

    def start(self) -> Json:
        # No body and no content type, as clients send it.
        response = self.client.post(f"{self.path}/start", headers={"content-length": "0"})
        assert response.status_code == 200, response.text
        return response.json()["workspaceRun"]

    def cancel(self) -> Json:
        response = self.client.post(f"{self.path}/cancel", headers={"content-length": "0"})
        assert response.status_code == 200, response.text
        return response.json()["workspaceRun"]

    def begin(self, data: bytes) -> Run:
        """Uploads directly and starts."""
        uploaded = self.upload(data)
        assert uploaded.status_code == 200, uploaded.text
        self.start()
        return self

    def get(self) -> Json:
        response = self.client.get(self.path)
        assert response.status_code == 200, response.text
        return response.json()["workspaceRun"]

    def until(self, *statuses: str) -> Json:
        """The run as soon as it has one of these statuses, or is over."""

        def reached() -> Json | None:
            run = self.get()
            return run if run["status"] in (*statuses, *TERMINAL) else None

        run = until(reached, f"{self.id} {statuses}", RUN_SECONDS_MAX)
        assert not statuses or run["status"] in statuses, run
        return run

    def end(self) -> Json:
        return self.until()

    def events(self, **query: Any) -> list[Json]:
        """All of them, page by page."""
        after, found = 0, []
        while True:
            wanted = {"afterSeq": after, "limit": 500, **query}
            page = self.client.get(f"{self.path}/events", params=wanted).json()
            found += page["data"]
            if not page["hasMore"]:
                return found
            after = page["nextSeq"]

    def stream(self, after: int = 0, headers: dict[str, str] | None = None) -> Iterator[Json]:
        query: dict[str, Any] = {"stream": "true"}
        if after:
            query["afterSeq"] = after
        request = self.client.stream("GET", f"{self.path}/events", params=query, headers=headers)
        with request as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            for event in read_events(response.iter_text()):
                yield event

    def evidence(self) -> Json:
        response = self.client.get(f"{self.path}/evidence")
        assert response.status_code == 200, response.text
        return response.json()["evidence"]

    def printed(self, stream: str = "stdout") -> str:
        return "".join(e["data"] for e in self.events() if e["type"] == stream)


def read_events(pieces: Iterator[str]) -> Iterator[Json]:
    """As the official clients read: blocks end with two line feeds, data lines are JSON."""
    rest = ""
    for piece in pieces:
        rest += piece
        while "\n\n" in rest:
            block, rest = rest.split("\n\n", 1)
            lines = block.splitlines()
            data = [line[5:].lstrip() for line in lines if line.startswith("data:")]
            if data:
                event = json.loads("\n".join(data))
                assert f"event: {event['type']}" in lines, block
                assert f"id: {event['seq']}" in lines, block
                yield event
