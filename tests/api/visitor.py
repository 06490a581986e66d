"""Previews as a visitor sees them, and programs in a sandbox to be visited.

Owns: hosts of previews (sent as `Host`, since not every resolver knows `*.localhost`), starting
real servers inside a sandbox, raw connections. Does not own any assertion about previews.
"""

from __future__ import annotations

import base64
import io
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from rest import Json, Sandbox, until
from server import Server

VISIT_SECONDS_MAX = 60

# Answers with what it was asked, in JSON; each port on the addresses that it is told.
ECHO = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import socket

class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) if length else b""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        asked = {"method": self.command, "path": self.path, "size": len(body),
                 "body": body[:1000].decode("latin-1"),
                 "headers": [[k.lower(), v] for k, v in self.headers.items()]}
        said = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        for cookie in ("theirs=1; Path=/; Domain=preview.localhost", "crownest_preview_session=x",
                       "second=2; HttpOnly"):
            self.send_header("set-cookie", cookie)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_HEAD = answer

    def log_message(self, *_):
        pass

class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET

Server((sys.argv[2], int(sys.argv[1])), Echo).serve_forever()
"""


def serve(sandbox: Sandbox, program: str, *arguments: str | int, port: int) -> None:
    """Starts a Python program in a sandbox, and returns when its port takes connections."""
    words = [str(a) for a in arguments]
    code = (
        "import subprocess, sys, socket, time\n"
        f"with open('/workspace/server_{port}.py', 'w') as f: f.write({program!r})\n"
        f"p_{port} = subprocess.Popen(\n"
        f"    [sys.executable, '/workspace/server_{port}.py', *{words!r}],\n"
        f"    stdout=open('/workspace/server_{port}.log', 'w'), stderr=subprocess.STDOUT)\n"
        "def listening():\n"
        "    for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n"
        "        with socket.socket(family) as s:\n"
        f"            if s.connect_ex((host, {port})) == 0: return True\n"
        "end = time.monotonic() + 20\n"
        "while not listening():\n"
        f"    assert p_{port}.poll() is None and time.monotonic() < end, 'it does not listen'\n"
        "    time.sleep(0.02)\n"
    )
    sandbox.out(code)


def echo(sandbox: Sandbox, port: int = 8000, address: str = "127.0.0.1") -> None:
    serve(sandbox, ECHO, port, address, port=port)


def library(sandbox: Sandbox, name: str) -> str:
    """Puts a pure Python package of the tests into a sandbox; where it is, for `sys.path`."""
    root = Path(find_spec(name).origin).parent
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in root.rglob("*.py"):
            archive.write(path, path.relative_to(root.parent))
    path = f"/workspace/{name}.zip"
    content = base64.b64encode(zipped.getvalue()).decode()
    written = sandbox.write(path, content, encoding="base64")
    assert written.status_code == 200, written.text
    return path


class Preview:
    """One preview and how it is reached."""

    def __init__(self, server: Server, answer: Json):
        self.server = server
        self.record: Json = answer["preview"]
        self.token: str | None = answer.get("previewToken")
        self.id: str = self.record["id"]
        self.host = self.record["url"].removeprefix("http://")

    @classmethod
    def create(cls, server: Server, sandbox: Sandbox, port: int = 8000, **fields: Any) -> Preview:
        response = sandbox.client.post(f"{sandbox.path}/previews", json={"port": port, **fields})
        assert response.status_code == 201, response.text
        return cls(server, response.json())

    def visitor(self, **headers: str) -> httpx.Client:
        """A client that has no credential of its own."""
        return httpx.Client(
            base_url=self.server.url,
            headers={"host": self.host, **headers},
            timeout=VISIT_SECONDS_MAX,
            trust_env=False,
        )

    def owner(self, **headers: str) -> httpx.Client:
        """A client with the key of the first start."""
        return self.visitor(authorization=f"Bearer {self.server.api_key}", **headers)

    def session(self) -> httpx.Client:
        """A browser that has just used the link of this preview."""
        assert self.token
        with self.visitor() as opening:
            opened = opening.get("/", params={"crownest_preview_token": self.token})
        assert opened.status_code == 303, opened.text
        cookie = opened.headers["set-cookie"].split(";")[0]
        return self.visitor(cookie=cookie)


@contextmanager
def raw(server: Server) -> Iterator[socket.socket]:
    """A plain connection, for what no client would send."""
    with socket.create_connection(("127.0.0.1", server.port), VISIT_SECONDS_MAX) as connection:
        yield connection


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def headers_of(answer: httpx.Response) -> dict[str, str]:
    """Headers that reached the echoing program; fails when one of them came twice."""
    pairs = answer.json()["headers"]
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def is_over(visitor: httpx.Client) -> bool:
    return visitor.get("/").status_code in (401, 404)


def ends(visitor: httpx.Client) -> None:
    """Waits until the preview is not there any more."""
    until(lambda: is_over(visitor), "the end of a preview")
