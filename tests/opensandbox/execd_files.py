"""execd's files as a client without a library sees them, on a sandbox that /v1 has made.

Owns: sending requests, and doing things in the sandbox the way its own code would. Does not own any
assertion about what a route should do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parent.parent / "api"))

import httpx  # noqa: E402

from rest import Sandbox, connect  # noqa: E402
from server import Server  # noqa: E402

Json = dict[str, Any]
BOUNDARY = "the-boundary"


class Files:
    def __init__(self, server: Server, ours: httpx.Client, **fields: Any):
        self.sandbox = Sandbox.create(ours, **fields)
        self.client = httpx.Client(
            base_url=f"{server.url}/opensandbox/v1/sandboxes/{self.sandbox.id}/proxy/44772",
            headers={"OPEN-SANDBOX-API-KEY": server.api_key},
            timeout=120,
            trust_env=False,
        )

    def shell(self, command: str) -> str:
        """What a command of the sandbox's own prints."""
        done = self.sandbox.command(command)
        assert done["exitCode"] == 0, done
        return done["stdout"]

    def info(self, path: str) -> Json:
        answer = self.client.get("/files/info", params={"path": path})
        assert answer.status_code == 200, answer.text
        return answer.json()[path]

    def exists(self, path: str) -> bool:
        answer = self.client.get("/files/info", params={"path": path})
        assert answer.status_code in (200, 404), answer.text
        return answer.status_code == 200

    def upload(self, *files: tuple[Any, bytes]) -> httpx.Response:
        """Metadata (a path, an object, or any bytes) and content of each, like the SDK sends them."""
        return self.send(multipart(*files))

    def send(self, body: Any, boundary: str = BOUNDARY) -> httpx.Response:
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        return self.client.post("/files/upload", content=body, headers=headers)

    def write(self, path: str, content: bytes = b"", **metadata: Any) -> None:
        answer = self.upload(({"path": path, **metadata}, content))
        assert (answer.status_code, answer.content) == (200, b""), answer.text
        assert answer.headers["content-length"] == "0"

    def download(self, path: str, range: str | None = None, **query: Any) -> httpx.Response:
        headers = {"range": range} if range else {}
        return self.client.get("/files/download", params={"path": path, **query}, headers=headers)

    def read(self, path: str) -> bytes:
        answer = self.download(path)
        assert answer.status_code == 200, answer.text
        return answer.content

    def list(self, path: str, **query: Any) -> list[Json]:
        answer = self.client.get("/directories/list", params={"path": path, **query})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def search(self, path: str, pattern: str | None = None) -> list[str]:
        query = {"path": path} if pattern is None else {"path": path, "pattern": pattern}
        answer = self.client.get("/files/search", params=query)
        assert answer.status_code == 200, answer.text
        return [found["path"] for found in answer.json()]

    def move(self, *moves: tuple[str, str]) -> httpx.Response:
        return self.client.post("/files/mv", json=[{"src": s, "dest": d} for s, d in moves])


@contextmanager
def opened(server: Server, **fields: Any) -> Iterator[Files]:
    with connect(server) as ours:
        files = Files(server, ours, **fields)
        try:
            yield files
        finally:
            files.client.close()
            files.sandbox.kill()


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    shown = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n'
    return head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"


def multipart(*files: tuple[Any, bytes]) -> bytes:
    body = b""
    for metadata, content in files:
        if isinstance(metadata, str):
            metadata = {"path": metadata, "owner": None, "group": None, "mode": 644}
        if not isinstance(metadata, bytes):
            metadata = json.dumps(metadata).encode()
        body += part("metadata", metadata, "metadata") + part("file", content, "f")
    return body + f"--{BOUNDARY}--\r\n".encode()


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "message"}, answer.text
    assert answer.json()["code"] == code, answer.text
    return answer.json()["message"]
