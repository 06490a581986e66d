"""Commands through crownest 0.1.1 from PyPI, unmodified, sync and async: every method, every option
of them, and what they raise."""

from __future__ import annotations

import time
from typing import Any

import pytest
from crownest import CrowNestApiError

WAIT_SECONDS_MAX = 30
LOOK_SECONDS = 0.02
TERMINAL = {"exited", "failed", "canceled", "timed_out", "killed"}


def refused(call: Any, status: int, code: str) -> None:
    with pytest.raises(CrowNestApiError) as caught:
        result = call()
        if hasattr(result, "__next__"):
            next(result)
    assert (caught.value.status, caught.value.code) == (status, code), str(caught.value)


def ended(crow: Any, command: str) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while (record := crow.commands.get(command))["status"] not in TERMINAL:
        assert time.monotonic() < deadline, record
        time.sleep(LOOK_SECONDS)
    return record


def text(chunks: Any, stream: str = "stdout") -> str:
    return "".join(c["data"] for c in chunks if c.get("stream") == stream)


def test_run(sandbox, crow):
    for commands, place in ((sandbox.commands, ()), (crow.commands, (sandbox.id,))):
        command = commands.run(
            *place, 'echo "$WORD"; pwd; exit 3', env={"WORD": "été"}, cwd="/workspace"
        )
        assert (command["status"], command["exitCode"]) == ("exited", 3)
        assert command["stdout"] == "été\n/workspace\n" and command["stderr"] == ""
        record = crow.commands.get(command["id"])
        assert record["stdout"] == command["stdout"] and record["exitCode"] == 3
        assert text(crow.commands.logs(command["id"])) == command["stdout"]
    assert sandbox.commands.run("sleep 60", timeout_ms=200)["status"] == "timed_out"


def test_start_get_and_logs(sandbox, crow):
    for commands, place in ((sandbox.commands, ()), (crow.commands, (sandbox.id,))):
        command = commands.start(*place, "echo a; echo b >&2; sleep 0.1; echo c")
        assert command["status"] == "running" and command["id"].startswith("cmd_")
        record = ended(crow, command["id"])
        assert (record["status"], record["exitCode"], record["stdout"]) == ("exited", 0, "a\nc\n")
        chunks = crow.commands.logs(command["id"])
        assert text(chunks) == "a\nc\n" and text(chunks, "stderr") == "b\n"
        assert crow.commands.logs(command["id"], limit=1) == chunks[:1]
        assert crow.commands.logs(command["id"], after_seq=chunks[0]["seq"]) == chunks[1:]


def test_stream_logs(sandbox, crow):
    command = sandbox.commands.start("for i in 1 2 3; do echo $i; sleep 0.05; done")
    seen = list(crow.commands.stream_logs(command["id"]))
    assert text(seen) == "1\n2\n3\n" and seen[-1]["type"] == "terminal"
    assert seen[-1]["command"]["exitCode"] == 0
    assert list(crow.commands.stream_logs(command["id"], reconnect=False))[:-1] == seen[:-1]
    rest = list(crow.commands.stream_logs(command["id"], after_seq=seen[0]["seq"]))
    assert rest[:-1] == seen[1:-1]


def test_cancel(sandbox, crow):
    for options, mode in (
        ({}, "graceful"),
        ({"mode": "graceful"}, "graceful"),
        ({"mode": "force"}, "force"),
    ):
        command = sandbox.commands.start("sleep 1000")
        record = crow.commands.cancel(command["id"], **options)
        assert (record["status"], record["cancelMode"]) == ("canceled", mode)
        assert crow.commands.cancel(command["id"]) == record


def test_callbacks(sandbox):
    out: list[str] = []
    err: list[str] = []
    wrong: list[BaseException] = []
    command = sandbox.commands.run(
        "echo out; echo err >&2; sleep 0.1; echo more; exit 6",
        on_stdout=out.append,
        on_stderr=err.append,
        on_stream_error=wrong.append,
    )
    assert (command["status"], command["exitCode"]) == ("exited", 6)
    assert ("".join(out), "".join(err), wrong) == ("out\nmore\n", "err\n", [])
    assert command["stdout"] == "out\nmore\n"


def test_much_output_through_callbacks(sandbox):
    out: list[str] = []
    command = sandbox.commands.run("seq 1 300000", on_stdout=out.append)
    assert command["status"] == "exited"
    assert "".join(out) == "".join(f"{n}\n" for n in range(1, 300_001))


def test_collect(sandbox, crow):
    out: list[str] = []
    command = sandbox.commands.run(
        "echo made > made.txt; echo done",
        collect=[{"path": "made.txt", "name": "result"}, {"path": "missing"}],
        collect_on="always",
        on_stdout=out.append,
    )
    assert command["collectStatus"] == "partial" and out == ["done\n"]
    assert [e["code"] for e in command["collectErrors"]] == ["file_not_found"]
    (artifact,) = crow.artifacts.list(sandbox.id)
    assert (artifact["name"], artifact["sizeBytes"]) == ("result", 5)
    assert crow.artifacts.download(artifact["id"]) == b"made\n"
    skipped = sandbox.commands.run("exit 1", collect=[{"path": "made.txt"}])
    assert skipped["collectStatus"] == "skipped" and "collectErrors" not in skipped


def test_records_outlive_the_sandbox(crow):
    sandbox = crow.sandboxes.create()
    command = sandbox.commands.start("echo kept; sleep 1000")
    stream = iter(crow.commands.stream_logs(command["id"]))
    assert next(stream)["data"] == "kept\n"
    sandbox.kill()
    assert list(stream)[-1]["type"] == "terminal"
    record = crow.commands.get(command["id"])
    assert (record["status"], record["killedReason"]) == ("killed", "sandbox_destroyed")
    assert text(crow.commands.logs(command["id"])) == "kept\n"
    refused(lambda: sandbox.commands.start("true"), 410, "sandbox_destroyed")


def test_refusals(sandbox, crow):
    refused(lambda: crow.commands.get("cmd_nobody"), 404, "not_found")
    refused(lambda: crow.commands.logs("cmd_nobody"), 404, "not_found")
    refused(lambda: crow.commands.stream_logs("cmd_nobody"), 404, "not_found")
    refused(lambda: crow.commands.cancel("cmd_nobody"), 404, "not_found")
    refused(lambda: sandbox.commands.start("x", env={"CROWNEST_X": "1"}), 400, "reserved_env_key")
    refused(lambda: sandbox.commands.start("x", cwd="/etc"), 400, "path_outside_workspace")
    refused(lambda: sandbox.commands.start("x", timeout_ms=-1), 400, "invalid_request")
