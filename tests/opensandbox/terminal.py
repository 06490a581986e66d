"""A client of execd's terminals: one WebSocket, and everything that came over it.

Owns: the channels of the messages, waiting for what is printed. Does not own any assertion about
what a terminal should do.
"""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from execd import Execd

Json = dict[str, Any]

SECONDS_MAX = 30
MESSAGE_BYTES_MAX = 16 << 20
STDIN, STDOUT, STDERR, REPLAY = range(4)


def create(execd: Execd, **fields: Any) -> str:
    """A session that nobody has been connected to."""
    made = (
        execd.client.post("/pty", json=fields) if fields else execd.client.post("/pty")
    )
    assert made.status_code == 201, made.text
    assert set(made.json()) == {"session_id"}
    return made.json()["session_id"]


def status(execd: Execd, id: str) -> Json:
    answer = execd.client.get(f"/pty/{id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def dial(execd: Execd, id: str, **query: Any) -> ClientConnection:
    url = httpx.URL(execd.client.base_url.join(f"pty/{id}/ws"), params=query)
    headers = {"OPEN-SANDBOX-API-KEY": execd.client.headers["OPEN-SANDBOX-API-KEY"]}
    address = str(url.copy_with(scheme="ws"))
    connection = connect(
        address, additional_headers=headers, proxy=None, max_size=MESSAGE_BYTES_MAX
    )
    # Whoever dials closes it.
    return connection.__enter__()


class Terminal:
    """A client that is connected. `replayed` is what came as a replay, by the byte it begins at."""

    def __init__(self, execd: Execd, id: str | None = None, **query: Any):
        self.execd = execd
        self.id = id or create(execd)
        self.replayed: list[tuple[int, bytes]] = []
        self.stdout = b""
        self.stderr = b""
        self.notices: list[Json] = []
        self.closed: tuple[int, str] | None = None
        self.socket = dial(execd, self.id, **query)
        self.until(lambda: bool(self.notices or self.closed), "connected")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def connected(self) -> Json:
        assert self.notices and self.notices[0]["type"] == "connected", self.notices
        return self.notices[0]

    @property
    def seen(self) -> bytes:
        """Everything, replays included."""
        return b"".join(data for _, data in self.replayed) + self.stdout

    def take(self, seconds: float) -> bool:
        """Takes one message; False when it was closed."""
        try:
            message = self.socket.recv(timeout=seconds)
        except ConnectionClosed as closed:
            received = closed.rcvd
            self.closed = (received.code, received.reason) if received else (1006, "")
            return False
        if isinstance(message, str):
            self.notices.append(json.loads(message))
            return True
        channel, data = message[0], message[1:]
        if channel == REPLAY:
            self.replayed.append((int.from_bytes(data[:8], "big"), data[8:]))
        elif channel == STDOUT:
            self.stdout += data
        else:
            assert channel == STDERR, channel
            self.stderr += data
        return True

    def until(self, condition: Any, what: str, seconds: float = SECONDS_MAX) -> None:
        end = time.monotonic() + seconds
        while not condition():
            left = end - time.monotonic()
            try:
                alive = left > 0 and self.take(left)
            except TimeoutError:
                alive = False
            if not alive and not condition():
                raise AssertionError(
                    f"{what}: never came; {self.stdout[-2000:]!r} {self.notices} {self.closed}"
                )

    def expect(self, text: str, seconds: float = SECONDS_MAX) -> None:
        """Waits until that is printed, and forgets everything up to it."""
        wanted = text.encode()
        self.until(lambda: wanted in self.stdout, repr(text), seconds)
        self.stdout = self.stdout.split(wanted, 1)[1]

    def notice(self, kind: str) -> Json:
        """Waits for a message of that type, and takes it out."""
        self.until(lambda: any(n["type"] == kind for n in self.notices), kind)
        found = next(n for n in self.notices if n["type"] == kind)
        self.notices.remove(found)
        return found

    def end(self) -> tuple[int, str]:
        """Everything up to the close."""
        self.until(lambda: self.closed is not None, "the close")
        assert self.closed
        return self.closed

    def type(self, text: str | bytes) -> None:
        self.socket.send(b"\0" + (text.encode() if isinstance(text, str) else text))

    def tell(self, **frame: Any) -> None:
        self.socket.send(json.dumps(frame))

    def ready(self) -> Terminal:
        """Waits for the first prompt, and makes a plain one."""
        # The quotes keep the echo of the line from looking like what it prints.
        self.type(
            "bind 'set enable-bracketed-paste off'; PS1='$ '; PS2=; echo rea''dy\n"
        )
        self.expect("ready\r\n$ ")
        return self
