"""Output within a budget, and the whole of it as an artifact."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from rest import Json, Sandbox, connect, new_key, refusal
from server import Server

MARK = re.compile(r"\[\.\.\. (\d+) bytes(?: in (\d+) lines)? left out \.\.\.\]\n")
MIB = 1024 * 1024


def budgeted(sandbox: Sandbox, code: str, full: bool = False, **budget: Any) -> Json:
    fields = {"keepFullOutput": True} if full else {}
    return sandbox.run(code, outputBudget=budget, **fields)


def out(run: Json, stream: str = "stdout") -> str:
    return "".join(run[stream])


def download(client: httpx.Client, full: Json, **headers: str) -> httpx.Response:
    assert full["kind"] == "artifact", full
    return client.get(f"/v1/artifacts/{full['artifactId']}/download", headers=headers)


def test_what_fits_is_whole(sandbox: Sandbox):
    run = budgeted(sandbox, "print('x' * 999)", maxBytes=1000, full=True)
    assert out(run) == "x" * 999 + "\n" and "stdoutTruncated" not in run
    report = run["outputBudget"]
    assert report["stdout"] == {
        "totalBytes": 1000,
        "totalLines": 1,
        "omittedBytes": 0,
        "omittedLines": 0,
    }
    assert report["stderr"]["totalBytes"] == 0 and "fullOutput" not in report
    assert "outputBudget" not in sandbox.run("1")


def test_beginning_and_end_are_kept_and_the_rest_counted(sandbox: Sandbox):
    code = (
        "for n in range(100_000): print('line', n)\nimport sys\nprint('e' * 5000, file=sys.stderr)"
    )
    printed = "".join(f"line {n}\n" for n in range(100_000))
    run = budgeted(sandbox, code, maxBytes=2000)
    text, report = out(run), run["outputBudget"]["stdout"]
    assert len(text.encode()) <= 2000
    head, omitted, lines, tail = MARK.split(text)
    assert printed.startswith(head) and printed.endswith(tail) and head and tail
    assert head.endswith("\n") and tail.startswith("line "), "whole lines"
    assert int(omitted) == len(printed) - len(head) - len(tail) == report["omittedBytes"]
    assert int(lines) == 100_000 - head.count("\n") - tail.count("\n") == report["omittedLines"]
    assert (report["totalBytes"], report["totalLines"]) == (len(printed), 100_000)
    assert run["stdoutTruncated"] is True and run["stdoutOmittedBytes"] == int(omitted)
    # Each stream has a budget of its own.
    assert len(out(run, "stderr")) <= 2000 and run["outputBudget"]["stderr"]["omittedBytes"] > 3000
    assert run["usage"]["stdoutBytes"] == len(printed)


def test_shares_can_be_chosen(sandbox: Sandbox):
    code = "for n in range(1000): print(f'{n:09}')"
    tail_only = budgeted(sandbox, code, maxBytes=628, head=0, tail=500)
    assert MARK.match(out(tail_only)) and out(tail_only).endswith("000000999\n")
    head_only = budgeted(sandbox, code, maxBytes=628, tail=0)
    assert out(head_only).startswith("000000000\n") and MARK.search(out(head_only))
    assert not MARK.split(out(head_only))[-1]


def test_what_is_for_terminals_is_left_out_wherever_it_was_cut(sandbox: Sandbox):
    code = (
        "import sys, time\n"
        "for part in ['\\x1b', '[3', '1mred', '\\x1b[0', 'm\\n', '\\x1b]0;ti', 'tle\\x07ok\\n']:\n"
        "    sys.stdout.write(part); sys.stdout.flush(); time.sleep(0.01)\n"
        "for n in range(101): print(f'\\r{n}%', end='', flush=True)\n"
        "print()\n"
        "for _ in range(500): print('the same warning again and again')\n"
        "print('end')"
    )
    plain = budgeted(sandbox, code, maxBytes=1 * MIB, stripAnsi=True)
    assert out(plain).startswith("red\nok\n") and "\x1b" not in out(plain)
    assert "\r50%" in out(plain)
    tidy = budgeted(sandbox, code, maxBytes=1 * MIB, stripAnsi=True, collapseRepeats=True)
    assert out(tidy) == (
        "red\nok\n100%\nthe same warning again and again\n[the line above 499 more times]\nend\n"
    )
    report = tidy["outputBudget"]["stdout"]
    assert report["omittedBytes"] == 0 and report["collapsedLines"] == 499
    assert report["strippedBytes"] == plain["outputBudget"]["stdout"]["strippedBytes"] > 0
    mark = len("[the line above 499 more times]\n")
    kept = len(out(tidy)) - mark
    assert report["totalBytes"] == kept + report["strippedBytes"] + report["collapsedBytes"]
    assert "stdoutTruncated" not in tidy, "nothing was left out in the middle"


def test_the_whole_output_is_an_artifact_to_be_read_by_pages(sandbox: Sandbox):
    code = "import sys\nfor n in range(200_000):\n  print('line', n)\n  if n % 50_000 == 0: sys.stdout.flush(); print('err', n, file=sys.stderr)"
    run = budgeted(sandbox, code, maxBytes=1000, full=True)
    full = run["outputBudget"]["fullOutput"]
    got = download(sandbox.client, full)
    assert got.headers["content-type"] == "text/plain; charset=utf-8" == full["contentType"]
    assert (
        len(got.content)
        == full["sizeBytes"]
        == sum(run["usage"][f"{stream}Bytes"] for stream in ("stdout", "stderr"))
    )
    lines = got.text.splitlines()
    assert [line for line in lines if line.startswith("line")] == [
        f"line {n}" for n in range(200_000)
    ]
    assert [line for line in lines if line.startswith("err")] == [
        f"err {n}" for n in range(0, 200_000, 50_000)
    ]
    page = download(sandbox.client, full, range="bytes=1000-1999")
    assert (page.status_code, page.content) == (206, got.content[1000:2000])
    record = sandbox.client.get(f"/v1/artifacts/{full['artifactId']}").json()["artifact"]
    assert (record["name"], record["sandboxId"]) == ("output.txt", sandbox.id)


def test_what_was_only_tidied_is_kept_too(sandbox: Sandbox):
    code = "print('\\x1b[1mbold\\x1b[0m')"
    run = budgeted(sandbox, code, maxBytes=1000, stripAnsi=True, full=True)
    assert out(run) == "bold\n"
    got = download(sandbox.client, run["outputBudget"]["fullOutput"])
    assert got.text == "\x1b[1mbold\x1b[0m\n"


def test_more_than_memory_is_kept_while_the_code_runs(sandbox: Sandbox):
    """Sent on its way at once: a hundred MiB of equal lines leave a result of two."""
    code = f"line = 'x' * {MIB - 1}\nfor _ in range(100): print(line)"
    run = budgeted(sandbox, code, maxBytes=1000, full=True)
    assert len(out(run)) <= 1000
    full = run["outputBudget"]["fullOutput"]
    assert full["sizeBytes"] == 100 * MIB
    tail = download(sandbox.client, full, range="bytes=-4")
    assert tail.content == b"xxx\n"


def test_without_the_scope_there_is_no_artifact_and_a_reason(server: Server, sandbox: Sandbox):
    org = server.credentials["orgId"]
    with connect(server, new_key(server, org, "code:run")) as lesser:
        other = Sandbox(lesser, sandbox.record)
        run = budgeted(other, "print('x' * 5000)", maxBytes=300, full=True)
        assert run["outputBudget"]["fullOutput"] == {
            "kind": "rejected",
            "reason": "artifact_scope_required",
        }
        whole = budgeted(other, "print('x')", maxBytes=300, full=True)
        assert "fullOutput" not in whole["outputBudget"]


def test_streams_stay_complete(sandbox: Sandbox):
    code = "for n in range(50_000): print('line', n)"
    streamed = sandbox.stream(code, outputBudget={"maxBytes": 500}, keepFullOutput=True)
    said = "".join(e["data"] for e in streamed if e["type"] == "stdout")
    assert said == "".join(f"line {n}\n" for n in range(50_000))
    result = streamed[-1]["data"]
    assert len(out(result)) <= 500 and MARK.search(out(result))
    got = download(sandbox.client, result["outputBudget"]["fullOutput"])
    assert got.text == said


def test_a_replay_is_within_the_budget_too(sandbox: Sandbox):
    body = {
        "code": "for n in range(9_000): print('line', n)",
        "language": "python",
        "outputBudget": {"maxBytes": 400},
        "keepFullOutput": True,
    }
    path, headers = f"{sandbox.path}/code/runs", {"idempotency-key": "budget"}
    first = sandbox.client.post(path, json=body, headers=headers)
    again = sandbox.client.post(path, json=body, headers=headers)
    assert again.headers["idempotent-replayed"] == "true" and again.json() == first.json()


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        ({}, "outputBudget"),
        ({"maxBytes": 255}, "outputBudget.maxBytes"),
        ({"maxBytes": 32 * MIB + 1}, "outputBudget.maxBytes"),
        ({"maxBytes": 1000, "head": 873}, "outputBudget.head"),
        ({"maxBytes": 1000, "tail": 2**63}, "outputBudget.tail"),
        ({"maxBytes": 1000, "head": 500, "tail": 500}, "outputBudget.head"),
        ({"maxBytes": 1000, "head": -1}, "outputBudget.head"),
    ],
)
def test_budgets_that_cannot_be(sandbox: Sandbox, budget: Json, field: str):
    error = refusal(sandbox.ask("1", outputBudget=budget), 400, "invalid_request")
    assert error["details"]["field"].startswith(field.split(".")[0]), error
    if budget:
        assert error["details"]["field"] == field


def test_there_is_nothing_to_keep_without_a_budget(sandbox: Sandbox):
    error = refusal(sandbox.ask("1", keepFullOutput=True), 400, "invalid_request")
    assert error["details"] == {"field": "keepFullOutput"}
