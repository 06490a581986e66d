"""Closed segments of command logs in S3: moved, read, dropped, and never lost or doubled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import BUCKET, ENVIRONMENT, Gateway, Line, opened_gateway, options
from rest import Json, Sandbox, connect, events, open_directory, refusal, until
from server import Server

TERMINAL = {"exited", "failed", "canceled", "timed_out", "killed"}
# As in crates/server/src/command_log/writer.rs.
SEGMENT_BYTES = 8 << 20
LINE_BYTES = 16
MOVE_SECONDS_MAX = 90
DAY_SECONDS = 24 * 3600


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with opened_gateway() as gateway:
        yield gateway


class Place:
    """A server whose objects are in S3, one sandbox, and what is where."""

    def __init__(self, server: Server, gateway: Gateway):
        self.server, self.gateway = server, gateway
        self.connect()
        self.sandbox = Sandbox.create(self.client)

    def connect(self) -> None:
        self.client = connect(self.server)

    def kill(self) -> None:
        """kill -9 of the server alone."""
        os.kill(self.pid(), signal.SIGKILL)

    def pid(self) -> int:
        return until(lambda: self.server.children().get("server"), "a server")

    def restart(self) -> None:
        self.server.stop()
        self.server.start()
        self.connect()
        self.sandbox = Sandbox(self.client, self.sandbox.record)

    def print(self, segments: float, mark: str = "x") -> str:
        """A command that has printed numbered lines of one length, and ended."""
        lines = int(segments * SEGMENT_BYTES / LINE_BYTES)
        command = begin(self.sandbox, f"seq -f {mark}%0{LINE_BYTES - 2}.0f 1 {lines}")
        ended(self.client, command)
        return command

    def local(self, command: str, ending: str = "") -> list[str]:
        """Names of the log's files on this disk, without the command's own."""
        name = command.removeprefix("cmd_")
        shard = self.server.data_dir / "command-logs" / name[-2:]
        return sorted(
            path.name.removeprefix(f"{name}.") for path in shard.glob(f"{name}.*{ending}")
        )

    def remote(self, command: str) -> list[Path]:
        name = command.removeprefix("cmd_")
        root = self.gateway.directory / BUCKET / "command-logs"
        return sorted(root.glob(f"*/{name}/*"))

    def moved(self, command: str, segments: int) -> None:
        """Waits until the first ones are there and not here."""
        wanted = [f"{n:06}.away" for n in range(1, segments + 1)] + [f"{segments + 1:06}"]
        until(lambda: self.local(command) == wanted, f"{wanted}", MOVE_SECONDS_MAX)
        assert [path.name for path in self.remote(command)] == [w[:6] for w in wanted[:-1]]

    def age(self, command: str, seconds: float, ending: str) -> None:
        name = command.removeprefix("cmd_")
        shard = self.server.data_dir / "command-logs" / name[-2:]
        for file in self.local(command, ending):
            then = time.time() - seconds
            os.utime(shard / f"{name}.{file}", (then, then))


@pytest.fixture(scope="module")
def place(gateway: Gateway) -> Iterator[Place]:
    with (
        open_directory() as directory,
        Server(directory / "data", *options(gateway.url), env=ENVIRONMENT) as server,
    ):
        yield Place(server, gateway)


@pytest.fixture
def line(gateway: Gateway) -> Iterator[Line]:
    line = Line(gateway.port)
    yield line
    line.close()


@pytest.fixture
def cut(gateway: Gateway, line: Line) -> Iterator[Place]:
    """A server of the test's own, whose line to S3 can be cut."""
    with (
        open_directory() as directory,
        Server(directory / "data", *options(line.url), env=ENVIRONMENT) as server,
    ):
        yield Place(server, gateway)


def begin(sandbox: Sandbox, command: str) -> str:
    path = f"{sandbox.path}/commands/start"
    answer = sandbox.client.post(path, json={"command": command, "timeoutMs": 300_000})
    assert answer.status_code == 202, answer.text
    return answer.json()["command"]["id"]


def get(client: httpx.Client, command: str) -> Json:
    answer = client.get(f"/v1/commands/{command}")
    assert answer.status_code == 200, answer.text
    return answer.json()["command"]


def ended(client: httpx.Client, command: str) -> Json:
    def look() -> Json | None:
        try:
            record = get(client, command)
        except httpx.TransportError:
            return None
        return record if record["status"] in TERMINAL else None

    return until(look, "the end of a command", 120)


def page(client: httpx.Client, command: str, **query: Any) -> httpx.Response:
    return client.get(f"/v1/commands/{command}/logs", params={"limit": 500, **query})


def log(client: httpx.Client, command: str, after: int = 0) -> list[Json]:
    chunks: list[Json] = []
    while True:
        query = {"afterSeq": chunks[-1]["seq"] if chunks else after}
        answer = page(client, command, **query)
        assert answer.status_code == 200, answer.text
        chunks += answer.json()["data"]
        if not answer.json()["hasMore"]:
            return chunks


def lines(segments: float, mark: str = "x") -> str:
    count = int(segments * SEGMENT_BYTES / LINE_BYTES)
    return "".join(f"{mark}{n:0{LINE_BYTES - 2}}\n" for n in range(1, count + 1))


def is_whole(client: httpx.Client, command: str, text: str) -> list[Json]:
    chunks = log(client, command)
    assert [chunk["seq"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    # Not compared as they are: a report of megabytes helps nobody.
    assert "".join(chunk["data"] for chunk in chunks) == text or not "what was printed"
    return chunks


def last_step(request: bytes) -> bool:
    """The request with which a segment's object becomes visible."""
    verb = request.split(b" ", 1)[0]
    if f"/{BUCKET}/command-logs/".encode() not in request:
        return False
    return (verb == b"POST" and b"uploadId=" in request) or (
        verb == b"PUT" and b"partNumber=" not in request
    )


def test_closed_segments_are_moved_and_read_from_there(place: Place):
    command = place.print(3.4)
    place.moved(command, 3)
    text = lines(3.4)
    chunks = is_whole(place.client, command, text)
    for after in (1, len(chunks) // 3, len(chunks) // 2, len(chunks) - 1):
        assert log(place.client, command, after) == chunks[after:] or not "the same again"
    path = f"/v1/commands/{command}/stream"
    for after in (0, len(chunks) // 2):
        with place.client.stream("GET", path, params={"afterSeq": after}) as stream:
            seen = list(events(stream.iter_lines()))
        assert [e["seq"] for e in seen[:-1]] == [c["seq"] for c in chunks[after:]]
        assert "".join(e["data"] for e in seen[:-1]) == "".join(c["data"] for c in chunks[after:])
        record = seen[-1]["command"]
        assert record["stdoutTruncated"] and text.startswith(record["stdout"]) and record["stdout"]
        assert "logOmittedBytes" not in record
    url = place.client.post(f"/v1/commands/{command}/logs/download-url").json()["url"]
    assert place.client.get(url).text == text or not "the whole log"


def test_a_running_commands_log_is_moved_and_followed(place: Place):
    count = int(2.5 * SEGMENT_BYTES / LINE_BYTES)
    prints = f"seq -f x%0{LINE_BYTES - 2}.0f 1 {count}"
    command = begin(place.sandbox, f"{prints}; while [ ! -e go ]; do sleep 0.05; done; echo end")
    place.moved(command, 2)
    assert get(place.client, command)["status"] == "running"
    seen = ""
    with place.client.stream("GET", f"/v1/commands/{command}/stream") as stream:
        for event in events(stream.iter_lines()):
            seen += event.get("data", "")
            if event["type"] == "log" and seen.endswith(f"{count}\n"):
                body = {"path": "go", "content": ""}
                assert place.client.put(f"{place.sandbox.path}/files", json=body).is_success
            if event["type"] == "terminal":
                break
    assert seen == lines(2.5) + "end\n" or not "the whole log"


def test_the_last_segment_follows_when_it_has_been_quiet(place: Place):
    short = place.print(0.01, "s")
    long = place.print(1.2, "l")
    place.moved(long, 1)
    sleeper = begin(place.sandbox, "echo asleep; sleep 1000")
    until(lambda: log(place.client, sleeper), "its output")
    for command in (short, long, sleeper):
        place.age(command, 2 * 3600, "0000?")
    place.restart()
    until(lambda: place.local(short) == ["000001.away"], "the short one", MOVE_SECONDS_MAX)
    wanted = ["000001.away", "000002.away"]
    until(lambda: place.local(long) == wanted, "the long one", MOVE_SECONDS_MAX)
    is_whole(place.client, short, lines(0.01, "s"))
    is_whole(place.client, long, lines(1.2, "l"))
    record = get(place.client, short)
    assert record["stdout"] and lines(0.01, "s").startswith(record["stdout"])
    assert place.local(sleeper) == ["000001"], "it may go on writing"
    assert place.client.post(f"/v1/commands/{sleeper}/cancel").is_success
    assert get(place.client, sleeper)["stdout"] == "asleep\n"


def test_killed_between_the_upload_and_the_note_of_it(cut: Place, line: Line):
    line.keep(last_step, cut.kill)
    command = begin(cut.sandbox, f"seq -f x%0{LINE_BYTES - 2}.0f 1 {17 * SEGMENT_BYTES // 80}")
    assert line.kept.wait(MOVE_SECONDS_MAX), "an upload"
    assert "000001" in cut.local(command), "it is still here"
    assert [path.name for path in cut.remote(command)] == ["000001"], "and there"
    ended(cut.client, command)
    cut.moved(command, 3)
    is_whole(cut.client, command, lines(3.4))


def test_killed_between_the_note_and_the_removal(place: Place):
    command = place.print(1.5)
    place.moved(command, 1)
    # What a kill between the two steps leaves: the segment is here and there.
    name = command.removeprefix("cmd_")
    here = place.server.data_dir / "command-logs" / name[-2:] / f"{name}.000001"
    (there,) = place.remote(command)
    place.server.stop()
    here.write_bytes(there.read_bytes())
    owner = here.parent.stat()
    os.chown(here, owner.st_uid, owner.st_gid)
    place.server.start()
    place.connect()
    place.sandbox = Sandbox(place.client, place.sandbox.record)
    is_whole(place.client, command, lines(1.5))
    place.moved(command, 1)
    is_whole(place.client, command, lines(1.5))


def test_killed_at_any_moment(cut: Place):
    command = begin(cut.sandbox, f"seq -f x%0{LINE_BYTES - 2}.0f 1 {5 * SEGMENT_BYTES // 10}")
    for strike in range(4):
        until(
            lambda strike=strike: len(cut.local(command, "away")) > strike,
            "a segment moved",
            90,
        )
        old = cut.pid()
        cut.kill()
        until(
            lambda old=old: cut.server.children().get("server", old) != old,
            "another server",
        )
    ended(cut.client, command)
    cut.moved(command, 7)
    is_whole(cut.client, command, lines(8))


def test_a_store_that_is_away_for_a_while(place: Place, gateway: Gateway):
    before = place.print(1.5, "b")
    place.moved(before, 1)
    gateway.stop()
    try:
        during = place.print(2.5, "d")
        is_whole(place.client, during, lines(2.5, "d"))
        refusal(page(place.client, before), 503, "unavailable")
        record = get(place.client, before)
        assert record["exitCode"] == 0, "how it ended can be asked for"
        assert (record["stdout"], record["stdoutTruncated"]) == ("", True)
        assert record["stdoutOmittedBytes"] == len(lines(1.5, "b"))
        assert not place.remote(during) and "000001" in place.local(during)
        assert place.sandbox.value("1+1") == "2"
    finally:
        gateway.start()
    place.moved(during, 2)
    is_whole(place.client, during, lines(2.5, "d"))
    is_whole(place.client, before, lines(1.5, "b"))


def test_what_is_dropped_or_too_old_goes_there_too(gateway: Gateway):
    limit = ("--command-log-mib-max", "20", "--command-log-days", "1")
    with (
        open_directory() as directory,
        Server(directory / "data", *options(gateway.url), *limit, env=ENVIRONMENT) as server,
    ):
        place = Place(server, gateway)
        command = place.print(6.7)

        def settled() -> bool:
            there = [f"{path.name}.away" for path in place.remote(command)]
            return place.local(command) == [*there, "000007"]

        until(settled, "the objects of what is kept and no others", MOVE_SECONDS_MAX)
        kept = [path.name for path in place.remote(command)]
        assert kept and kept[-1] == "000006" and "000001" not in kept, kept
        record = get(place.client, command)
        first = refusal(page(place.client, command, afterSeq=1), 409, "stream_gap")
        chunks = log(place.client, command, first["details"]["firstSeq"] - 1)
        said = "".join(chunk["data"] for chunk in chunks)
        whole = lines(6.7)
        assert whole.endswith(said) or not "its end"
        assert len(said) + record["logOmittedBytes"] == len(whole)
        place.age(command, 2 * DAY_SECONDS, "away")
        place.restart()
        until(
            lambda: not place.remote(command),
            "the end of the old ones",
            MOVE_SECONDS_MAX,
        )
        until(lambda: place.local(command) == ["000007"], "the end of their notes")
        assert get(place.client, command)["logOmittedBytes"] > record["logOmittedBytes"]
