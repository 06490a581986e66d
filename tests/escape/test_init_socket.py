"""What init can be told: by whoever has the server's rights and speaks the socket himself.

The sandbox is made by hand as well (wire.py), so the server does not take the connection back.
What init answers to nonsense is an error or the end of that connection, never its own end; and
what it does is done with the tenant's rights.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wire
from server import Server
from wire import Init, Spawner, create_fields, key_field

KEY = "initbyhand"


@pytest.fixture(scope="module")
def instance(server: Server) -> Path:
    return wire.instance_of(server)


@pytest.fixture(scope="module")
def made(server: Server, instance: Path) -> Iterator[Spawner]:
    with Spawner(instance, server.data_dir.stat().st_uid) as spawner:
        answer = spawner.ask(wire.CREATE, create_fields(KEY.encode()))
        assert answer.kind == wire.DONE, answer
        yield spawner
        assert spawner.ask(wire.DESTROY, key_field(KEY.encode())).kind == wire.DONE


@pytest.fixture
def init(made: Spawner, instance: Path) -> Iterator[Init]:
    with Init(instance, KEY) as connection:
        yield connection
    # Whatever the test did: init is alive and takes the next connection.
    with Init(instance, KEY) as again:
        assert "ok" in again.ask(op="file_stat", path="/workspace", within="workspace")


def error_of(reply: dict[str, Any]) -> str:
    return reply["error"]["code"]


def run(init: Init, number: int, *argv: str) -> dict[str, Any]:
    reply = init.ask(op="exec", exec=number, argv=list(argv), cwd="/workspace", env={})
    if "ok" not in reply:
        return reply
    return init.until(lambda e: e.get("ev") == "exec_done" and e["target"] == number)


def test_it_is_spoken_to_like_this(init: Init) -> None:
    """The control of everything below."""
    assert init.hello["ev"] == "hello" and init.hello["version"] == 6
    done = run(init, 1, "/bin/true")
    assert done["outcome"] != {}, done
    assert "ok" in init.ask(op="deadline", after_ms=600_000)
    assert "ok" in init.ask(op="environment", env={"A": "b"})


def test_programs_start_as_the_user_whoever_asks(init: Init) -> None:
    init.ask(op="exec", exec=2, argv=["/usr/bin/id", "-u"], cwd="/workspace", env={})
    output = b""
    while True:
        event, body = init.event()
        if event.get("ev") == "output":
            output += body
        if event.get("ev") == "exec_done":
            break
    assert output == b"1000\n"


BAD_CALLS = {
    "unknown operation": {"op": "mount"},
    "no operation": {},
    "path is a number": {"op": "file_stat", "path": 1, "within": "root"},
    "within the host": {"op": "file_stat", "path": "/", "within": "host"},
    "negative exec": {"op": "exec", "exec": -1, "argv": ["a"], "cwd": "/", "env": {}},
    "huge number": {"op": "ack", "target": 1 << 64, "seq": 0},
    "port out of range": {"op": "dial", "port": 65_536},
    "negative deadline": {"op": "deadline", "after_ms": -1},
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_call_that_is_none_ends_the_connection(init: Init, name: str) -> None:
    init.send(json.dumps({"id": 1, **BAD_CALLS[name]}).encode())
    assert init.is_dropped()


REFUSED_CALLS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "empty path": ({"op": "file_stat", "path": "", "within": "root"}, {"invalid"}),
    "NUL": ({"op": "file_stat", "path": "a\0b", "within": "root"}, {"invalid"}),
    "long path": ({"op": "file_stat", "path": "x" * 5000, "within": "root"}, {"invalid"}),
    "deep path": ({"op": "file_stat", "path": "a/" * 300, "within": "root"}, {"invalid"}),
    "out of the workspace": (
        {"op": "file_stat", "path": "../etc", "within": "workspace"}, {"path_outside_workspace"}),
    "a file of proc": (
        {"op": "file_read", "path": "/proc/1/environ", "within": "root", "offset": 0, "length": 9},
        {"invalid", "permission_denied"}),
    "a link of proc": (
        {"op": "file_stat", "path": "/proc/self/root/etc", "within": "root"}, {"invalid"}),
    "a device": (
        {"op": "file_read", "path": "/dev/zero", "within": "root", "offset": 0, "length": 9},
        {"path_not_regular"}),
    "more than a file": (
        {"op": "file_read", "path": "/etc/passwd", "within": "root", "offset": 0, "length": 1 << 40},
        {"file_too_large", "invalid"}),
    "what the user may not read": (
        {"op": "file_read", "path": "/etc/shadow", "within": "root", "offset": 0, "length": 9},
        {"permission_denied"}),
    "what the user may not write": (
        {"op": "file_write", "path": "/etc/new", "within": "root", "overwrite": True,
         "parents": True, "mode": 0o777},
        {"permission_denied"}),
    "no program": (
        {"op": "exec", "exec": 50, "argv": [], "cwd": "/", "env": {}}, {"invalid", "spawn_failed"}),
    "NUL in an argument": (
        {"op": "exec", "exec": 51, "argv": ["/bin/true", "a\0"], "cwd": "/", "env": {}}, {"invalid"}),
    "= in a variable": (
        {"op": "exec", "exec": 52, "argv": ["/bin/true"], "cwd": "/", "env": {"A=B": "c"}},
        {"invalid"}),
    "adopt without descriptors": (
        {"op": "context_adopt", "language": "python"}, {"invalid"}),
    "a run of nobody": (
        {"op": "run", "context": "x", "run": 60, "timeout_ms": 1}, {"context_unknown"}),
    "the signal of nobody": (
        {"op": "signal", "exec": 61, "signal": 9, "escalate": False}, {"unknown_target", "invalid"}),
    "attach to nothing": ({"op": "attach", "target": 62, "seq": 0}, {"unknown_target"}),
    "a closed port": ({"op": "dial", "port": 9}, {"port_closed"}),
}


@pytest.mark.parametrize("name", REFUSED_CALLS)
def test_refusals(init: Init, name: str) -> None:
    request, codes = REFUSED_CALLS[name]
    reply = init.ask(**request)
    assert "error" in reply and error_of(reply) in codes, reply


def test_signals_are_real_ones_and_reach_processes_alone(init: Init) -> None:
    init.ask(op="exec", exec=70, argv=["/bin/sleep", "300"], cwd="/", env={})
    for number in (-1, 65, 1 << 30):
        assert "error" in init.ask(op="signal", exec=70, signal=number, escalate=False), number
    assert "ok" in init.ask(op="signal", exec=70, signal=9, escalate=False)
    init.until(lambda e: e.get("ev") == "exec_done" and e["target"] == 70)


def test_frames_that_lie_about_their_length(instance: Path, init: Init) -> None:
    for head, body in ((0, 0), (8 * wire.MIB + 1, 0), (2, 16 * wire.MIB + 1), (0xFFFFFFFF, 0xFFFFFFFF)):
        with Init(instance, KEY) as liar:
            liar.socket.sendall(struct.pack("<II", head, body))
            assert liar.is_dropped(), (head, body)
    # At the limit itself it waits for what was promised, and is not hurt when that never comes.
    with Init(instance, KEY) as slow:
        slow.socket.sendall(struct.pack("<II", 8 * wire.MIB, 16 * wire.MIB) + b"{")


def test_heads_that_are_no_call(instance: Path, init: Init) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for head in (b"x", b"[]", b"null", b"\xff\xfe", b'{"id":1}', b'{"id":"1","op":"dial"}', deep,
                 b'{"id":1,"op":"dial","port":' + b"1" * 100_000 + b"}"):
        with Init(instance, KEY) as speaker:
            speaker.try_send(head)
            assert speaker.is_dropped(), head[:40]
    dice = random.Random(4)
    good = json.dumps({"id": 1, "op": "file_stat", "path": "/workspace", "within": "root"}).encode()
    for _ in range(100):
        mutant = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            mutant[dice.randrange(len(mutant))] = dice.randrange(256)
        with Init(instance, KEY) as speaker:
            speaker.try_send(bytes(mutant))


def test_descriptors_are_counted(instance: Path, init: Init) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        # Of the wrong kind: not a socket, not pipes, not a pidfd.
        reply = init.ask(op="context_adopt", language="python", fds=[null] * 4)
        assert "error" in reply, reply
        # Announced and missing.
        with Init(instance, KEY) as short:
            short.try_send(b'{"id":1,"op":"context_adopt","language":"python","fds":4}', [null])
            assert short.is_dropped()
        # Far more than belong to anything.
        with Init(instance, KEY) as generous:
            for _ in range(64):
                generous.try_send(b'{"id":1,"op":"ack","target":1,"seq":0}', [null] * 8)
            assert generous.is_dropped()
    finally:
        os.close(null)


def test_numbers_of_processes_have_an_end(init: Init) -> None:
    replies = [
        init.ask(op="exec", exec=1000 + i, argv=["/bin/sleep", "300"], cwd="/", env={})
        for i in range(70)
    ]
    refused = [error_of(r) for r in replies if "error" in r]
    # The sandbox has 64 processes: the kernel says no before init's own 256 do.
    assert refused and set(refused) <= {"spawn_failed", "too_many"}, refused
    for i in range(70):
        init.ask(op="signal", exec=1000 + i, signal=9, escalate=False)


def test_the_newest_connection_is_the_only_one(instance: Path, init: Init) -> None:
    with Init(instance, KEY) as newer:
        assert init.is_dropped()
        assert "ok" in newer.ask(op="file_stat", path="/workspace", within="workspace")


def test_nobody_but_the_server_finds_the_door(server: Server, instance: Path, init: Init) -> None:
    door = (instance / "init" / KEY).stat()
    assert (door.st_mode & 0o777, door.st_uid) == (0o600, server.data_dir.stat().st_uid)
    with wire.as_user(65534), pytest.raises(PermissionError):
        Init(instance, KEY)
