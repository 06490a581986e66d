"""The two local protocols as bytes, written down a second time: commands to the spawner and frames
to init.

Owns: encoding, sending, receiving, becoming the server's user to do so. Does not own any assertion.
Nothing here shares code with the product: a mistake in its encoder cannot hide one in its decoder.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server import TEMPLATES, Server

MAGIC = 0x43574E31
COMMAND_BYTES = 256
CREATE, FORK, DESTROY, FREEZE, STATS, LIST, WARM = range(1, 8)
SET_CPU = 11
DONE, ANSWER_STATS, ANSWER_KEYS, REFUSED = range(100, 104)
# Steps that a refusal names.
MALFORMED, OUT_OF_RANGE, EXISTS, UNKNOWN, NO_TEMPLATE = 1, 2, 3, 4, 6
ANSWER_SECONDS_MAX = 60

MIB = 1 << 20
LIMITS_MIN = {
    "memory": 64 * MIB, "disk": MIB, "tmp": MIB,
    "pids": 16, "cpu": 50, "disk_inodes": 256, "tmp_inodes": 64,
}
LIMITS_MAX = {
    "memory": 1 << 40, "disk": 1 << 40, "tmp": 1 << 40,
    "pids": 32_768, "cpu": 1_024_000, "disk_inodes": 10**8, "tmp_inodes": 10**8,
}
LIMITS = {
    "memory": 256 * MIB, "disk": 64 * MIB, "tmp": 16 * MIB,
    "pids": 64, "cpu": 1000, "disk_inodes": 10_000, "tmp_inodes": 1_000,
}


def instance_of(server: Server) -> Path:
    """Its directory below /run/crownest."""
    arguments = Path(f"/proc/{server.children()['spawner']}/cmdline").read_bytes().split(b"\0")
    return Path("/run/crownest") / arguments[arguments.index(b"--instance") + 1].decode()


def template_digest(slug: str = "python") -> bytes:
    return bytes.fromhex((TEMPLATES / slug / "current").resolve().name)


def key_field(key: bytes, length: int | None = None) -> bytes:
    return bytes([len(key) if length is None else length]) + key.ljust(32, b"\0")


def command(operation: int, number: int, fields: bytes = b"", magic: int = MAGIC) -> bytes:
    return (struct.pack("<IIQ", magic, operation, number) + fields).ljust(COMMAND_BYTES, b"\0")


def create_fields(
    key: bytes, limits: dict[str, int] | None = None, digest: bytes = b"", network: int = 0
) -> bytes:
    v = limits or LIMITS
    numbers = (v["memory"], v["disk"], v["tmp"], v["pids"], v["cpu"], v["disk_inodes"], v["tmp_inodes"])
    digest = digest or template_digest()
    return key_field(key) + digest + struct.pack("<QQQIIIII", *numbers, network)


@dataclass
class Answer:
    kind: int
    number: int
    rest: bytes
    fds: list[int] = field(default_factory=list)

    @property
    def step(self) -> int:
        """What a refusal names; 0 when it is none."""
        return struct.unpack_from("<I", self.rest)[0] if self.kind == REFUSED else 0

    @property
    def keys(self) -> list[bytes]:
        (count,) = struct.unpack_from("<I", self.rest)
        fields = [self.rest[4 + 33 * i : 37 + 33 * i] for i in range(count)]
        return [f[1 : 1 + f[0]] for f in fields]


@contextlib.contextmanager
def as_user(uid: int) -> Any:
    """The effective user, which is what a socket's peer sees."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


class Spawner:
    """A connection to the command socket, made as `uid`."""

    def __init__(self, instance: Path, uid: int):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Waits for a place in the queue; with a timeout it would be refused one at once.
        with as_user(uid):
            self.socket.connect(str(instance / "spawner.sock"))
        self.socket.settimeout(ANSWER_SECONDS_MAX)
        self.number = 1000

    def __enter__(self) -> Spawner:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def raw(self, datagram: bytes, fds: list[int] | None = None) -> Answer:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([datagram], rights)
        data, got, _, _ = socket.recv_fds(self.socket, COMMAND_BYTES + 1, 8)
        assert len(data) == COMMAND_BYTES, len(data)
        magic, kind, number = struct.unpack_from("<IIQ", data)
        assert magic == MAGIC
        for fd in got:
            os.close(fd)
        return Answer(kind, number, data[16:], list(got))

    def ask(self, operation: int, fields: bytes = b"") -> Answer:
        self.number += 1
        answer = self.raw(command(operation, self.number, fields))
        assert answer.step == MALFORMED or answer.number == self.number
        return answer


class Init:
    """A connection to the init of one sandbox."""

    def __init__(self, instance: Path, key: str):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(ANSWER_SECONDS_MAX)
        self.socket.connect(str(instance / "init" / key))
        self.last = 0
        self.buffer = b""
        self.hello = self.event()[0]

    def __enter__(self) -> Init:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, head: bytes, body: bytes = b"", fds: list[int] | None = None) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = struct.pack("<II", len(head), len(body)) + head + body
        sent = self.socket.sendmsg([data], rights)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def try_send(self, head: bytes, fds: list[int] | None = None) -> None:
        """For what init may answer by hanging up before it has come whole."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(head, b"", fds)

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data, fds, _, _ = socket.recv_fds(self.socket, 65536, 8)
            for fd in fds:
                os.close(fd)
            if not data:
                raise EOFError
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def event(self) -> tuple[dict[str, Any], bytes]:
        head, body = struct.unpack("<II", self._take(8))
        return json.loads(self._take(head)), self._take(body)

    def ask(self, body: bytes = b"", fds: list[int] | None = None, **request: Any) -> dict[str, Any]:
        """The reply to one call; events that come before it are passed over."""
        self.last += 1
        if fds:
            request["fds"] = len(fds)
        self.send(json.dumps({"id": self.last, **request}).encode(), body, fds)
        while True:
            event, _ = self.event()
            if event.get("ev") == "reply" and event["id"] == self.last:
                return event

    def until(self, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        while time.monotonic() < deadline:
            event, _ = self.event()
            if matches(event):
                return event
        raise AssertionError("the event did not come")

    def is_dropped(self) -> bool:
        """Whether init has closed this connection, after whatever it still had to say."""
        try:
            while True:
                self.event()
        except (EOFError, ConnectionResetError):
            return True
        except TimeoutError:
            return False
