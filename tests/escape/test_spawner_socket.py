"""What the spawner accepts, asked by somebody who holds the server's user and speaks the socket
himself: every command, every field at its limits and beyond, garbage, and the wrong caller.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import wire
from server import Server
from wire import Spawner, command, create_fields, key_field

KEY = b"auditedbyhand"
OTHER = b"auditedtoo"


@pytest.fixture(scope="module")
def instance(server: Server) -> Path:
    return wire.instance_of(server)


@pytest.fixture(scope="module")
def uid(server: Server) -> int:
    found = server.data_dir.stat().st_uid
    assert found != 0
    return found


@pytest.fixture
def spawner(instance: Path, uid: int) -> Iterator[Spawner]:
    with Spawner(instance, uid) as connection:
        yield connection
        for key in (KEY, OTHER):
            assert connection.ask(wire.DESTROY, key_field(key)).kind == wire.DONE


def groups_of(key: bytes) -> list[Path]:
    return [p for p in Path("/sys/fs/cgroup").glob(f"**/{key.decode()}.*") if p.is_dir()]


def test_every_command_does_what_it_says(spawner: Spawner) -> None:
    """The control of everything below: spoken like this, commands are obeyed."""
    digest = wire.template_digest()
    assert spawner.ask(wire.CREATE, create_fields(KEY)).kind == wire.DONE
    assert groups_of(KEY)
    assert spawner.ask(wire.CREATE, create_fields(KEY)).step == wire.EXISTS
    assert spawner.ask(wire.STATS, key_field(KEY)).kind == wire.ANSWER_STATS
    for frozen in (1, 0):
        assert spawner.ask(wire.FREEZE, key_field(KEY) + struct.pack("<I", frozen)).kind == wire.DONE
    assert spawner.ask(wire.SET_CPU, key_field(KEY) + struct.pack("<I", 1_000)).kind == wire.DONE
    assert KEY in spawner.ask(wire.LIST, key_field(KEY[:-1])).keys
    assert spawner.ask(wire.WARM, digest).kind == wire.DONE
    forked = spawner.ask(wire.FORK, key_field(KEY) + digest)
    assert forked.kind == wire.DONE and len(forked.fds) == 4
    assert spawner.ask(wire.DESTROY, key_field(KEY)).kind == wire.DONE
    assert not groups_of(KEY)
    assert KEY not in spawner.ask(wire.LIST, key_field(KEY[:-1])).keys


@pytest.mark.parametrize("name", wire.LIMITS)
def test_each_limit_ends_where_it_says(spawner: Spawner, name: str) -> None:
    for bound, beyond in ((wire.LIMITS_MIN, -1), (wire.LIMITS_MAX, 1)):
        outside = {**wire.LIMITS, name: bound[name] + beyond}
        assert spawner.ask(wire.CREATE, create_fields(KEY, outside)).step == wire.OUT_OF_RANGE
    for value in (0, (1 << (64 if name in ("memory", "disk", "tmp") else 32)) - 1):
        outside = {**wire.LIMITS, name: value}
        assert spawner.ask(wire.CREATE, create_fields(KEY, outside)).step == wire.OUT_OF_RANGE
    assert not groups_of(KEY)
    for bound in (wire.LIMITS_MIN, wire.LIMITS_MAX):
        at = {**wire.LIMITS, name: bound[name]}
        assert spawner.ask(wire.CREATE, create_fields(KEY, at)).kind == wire.DONE, (name, bound[name])
        assert spawner.ask(wire.DESTROY, key_field(KEY)).kind == wire.DONE


def test_processor_time_is_changed_within_its_limits(spawner: Spawner) -> None:
    def set_cpu(key: bytes, millis: int) -> wire.Answer:
        return spawner.ask(wire.SET_CPU, key_field(key) + struct.pack("<I", millis))

    assert set_cpu(KEY, 1_000).step == wire.UNKNOWN
    assert spawner.ask(wire.CREATE, create_fields(KEY)).kind == wire.DONE
    low, high = wire.LIMITS_MIN["cpu"], wire.LIMITS_MAX["cpu"]
    for millis in (0, low - 1, high + 1, (1 << 32) - 1):
        assert set_cpu(KEY, millis).step == wire.OUT_OF_RANGE, millis
    for millis in (low, high):
        assert set_cpu(KEY, millis).kind == wire.DONE, millis
    assert spawner.ask(wire.SET_CPU, key_field(KEY)).step == wire.OUT_OF_RANGE
    rubbish = key_field(KEY) + struct.pack("<II", 1_000, 1)
    assert spawner.ask(wire.SET_CPU, rubbish).step == wire.MALFORMED


BAD_KEYS = {
    "none": key_field(b""),
    "upper case": key_field(b"Abc"),
    "dots": key_field(b".."),
    "slash": key_field(b"a/b"),
    "dot": key_field(b"a.1"),
    "nul inside": key_field(b"a\0b"),
    "space": key_field(b"a b"),
    "new line": key_field(b"a\n"),
    "not ascii": key_field("é".encode()),
    "not utf-8": key_field(b"\xff\xfe"),
    "too long": key_field(b"a" * 32, 33),
    "much too long": key_field(b"a" * 32, 255),
    "rubbish after it": key_field(b"abc", 2),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_key_is_nothing_but_a_name(spawner: Spawner, name: str) -> None:
    create = create_fields(KEY)[33:]
    for operation, rest in (
        (wire.CREATE, create),
        (wire.FORK, wire.template_digest()),
        (wire.DESTROY, b""),
        (wire.FREEZE, struct.pack("<I", 1)),
        (wire.SET_CPU, struct.pack("<I", 1_000)),
        (wire.STATS, b""),
    ):
        assert spawner.ask(operation, BAD_KEYS[name] + rest).step == wire.MALFORMED, operation
    if name != "none":
        assert spawner.ask(wire.LIST, BAD_KEYS[name]).step == wire.MALFORMED


def test_the_longest_key_is_one(spawner: Spawner) -> None:
    longest = b"a" * 31 + b"0"
    try:
        assert spawner.ask(wire.CREATE, create_fields(longest)).kind == wire.DONE
    finally:
        assert spawner.ask(wire.DESTROY, key_field(longest)).kind == wire.DONE


def test_fields_have_no_other_values(spawner: Spawner) -> None:
    for network in (2, 3, 255, 1 << 31):
        answer = spawner.ask(wire.CREATE, create_fields(KEY, network=network))
        assert answer.step == wire.MALFORMED
    for frozen in (2, 1 << 31):
        answer = spawner.ask(wire.FREEZE, key_field(KEY) + struct.pack("<I", frozen))
        assert answer.step == wire.MALFORMED
    for digest in (bytes(32), b"\xff" * 32, b"../" * 10 + b"xx"):
        assert spawner.ask(wire.CREATE, create_fields(KEY, digest=digest)).step == wire.NO_TEMPLATE
        assert spawner.ask(wire.WARM, digest).step == wire.NO_TEMPLATE
    assert not groups_of(KEY)


def test_no_fork_into_what_is_not_there_or_of_another_template(spawner: Spawner) -> None:
    digest = wire.template_digest()
    for operation, rest in (
        (wire.FORK, digest), (wire.STATS, b""), (wire.FREEZE, struct.pack("<I", 1)),
    ):
        assert spawner.ask(operation, key_field(OTHER) + rest).step == wire.UNKNOWN
    assert spawner.ask(wire.CREATE, create_fields(KEY)).kind == wire.DONE
    assert spawner.ask(wire.FORK, key_field(KEY) + b"\x01" * 32).step == wire.NO_TEMPLATE


def test_garbage_is_malformed_and_nothing_more(spawner: Spawner) -> None:
    good = command(wire.STATS, 1, key_field(KEY))
    bad = [
        b"\0",
        good[:-1],
        good + b"\0",
        good + bytes(65536),
        good[:-1] + b"\x01",
        command(wire.STATS, 1, key_field(KEY), magic=0),
        command(wire.STATS, 1, key_field(KEY), magic=wire.MAGIC + 1),
        command(0, 1),
        command(8, 1),
        command(0xFFFFFFFF, 1),
        bytes(256),
        b"\xff" * 256,
    ]
    for datagram in bad:
        assert spawner.raw(datagram).step == wire.MALFORMED, datagram[:24]
    dice = random.Random(4)
    for _ in range(2000):
        mutant = bytearray(good)
        for _ in range(dice.randint(1, 6)):
            # Never the operation's own byte with the key's: no lucky create or destroy.
            mutant[dice.randrange(16, 256)] = dice.randrange(256)
        answer = spawner.raw(bytes(mutant))
        assert answer.step in (wire.MALFORMED, wire.UNKNOWN) or bytes(mutant) == good
    assert spawner.ask(wire.LIST, key_field(b"")).kind == wire.ANSWER_KEYS, "it lives on"


def test_descriptors_that_come_along_are_dropped(server: Server, spawner: Spawner) -> None:
    table = Path(f"/proc/{server.children()['spawner']}/fd")
    assert spawner.raw(command(wire.STATS, 1, key_field(KEY))).step == wire.UNKNOWN
    before = len(list(table.iterdir()))
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        for _ in range(50):
            answer = spawner.raw(command(wire.STATS, 1, key_field(KEY)), [fd] * 8)
            assert answer.step == wire.UNKNOWN
    finally:
        os.close(fd)
    assert len(list(table.iterdir())) <= before + 2


def test_nobody_else_may_speak(instance: Path, uid: int) -> None:
    with Spawner(instance, uid) as allowed:
        assert allowed.ask(wire.LIST, key_field(b"")).kind == wire.ANSWER_KEYS, "the control"
    mode = (instance / "spawner.sock").stat()
    assert (mode.st_mode & 0o777, mode.st_uid) == (0o600, uid)
    for other in (65534, 1000, uid + 1):
        with pytest.raises(PermissionError):
            Spawner(instance, other)
    # Handed a connection that the file's mode let through, the spawner asks who it is: one made
    # by another user while the mode was wrong is closed without an answer.
    path = instance / "spawner.sock"
    try:
        path.chmod(0o666)
        with Spawner(instance, 65534) as stranger:
            stranger.socket.settimeout(10)
            with pytest.raises((BrokenPipeError, ConnectionResetError, AssertionError)):
                stranger.ask(wire.LIST, key_field(b""))
    finally:
        path.chmod(0o600)


def test_connections_are_bounded_and_the_server_s_comes_back(
    server: Server, instance: Path, uid: int
) -> None:
    """Eight at most: more push the oldest out. The server connects again."""
    import httpx

    connections = [Spawner(instance, uid) for _ in range(20)]
    try:
        table = Path(f"/proc/{server.children()['spawner']}/fd")
        assert connections[-1].ask(wire.LIST, key_field(b"")).kind == wire.ANSWER_KEYS
        sockets = [os.readlink(fd) for fd in table.iterdir() if fd.exists() or fd.is_symlink()]
        assert len([s for s in sockets if s.startswith("socket:")]) <= 8 + 8
    finally:
        for connection in connections:
            connection.socket.close()
    headers = {"authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        made = client.post("/v1/sandboxes", json={})
        assert made.status_code == 201, made.text
        assert client.delete(f"/v1/sandboxes/{made.json()['sandbox']['id']}").status_code == 200


def test_commands_that_nobody_waits_for_do_no_harm(instance: Path, uid: int) -> None:
    """Answers that are not read, and a connection closed with commands in flight."""
    with Spawner(instance, uid) as rude:
        rude.socket.setblocking(False)
        try:
            for number in range(100_000):
                rude.socket.send(command(wire.LIST, number))
        except (BlockingIOError, BrokenPipeError):
            pass
    with Spawner(instance, uid) as polite:
        assert polite.ask(wire.LIST, key_field(b"")).kind == wire.ANSWER_KEYS
