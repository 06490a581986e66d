"""execd's /code and its contexts, byte by byte."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from itertools import groupby

import pytest

from execd import Execd, Running, error, kinds, refused, text
from rest import until
from server import Server

BUSY = "import time\nprint('on', flush=True)\nwhile True: time.sleep(0.01)"


@pytest.fixture(scope="module")
def execd(server: Server) -> Iterator[Execd]:
    execd = Execd(server)
    yield execd
    execd.close()


def test_a_success_is_these_events_in_this_order(execd: Execd) -> None:
    id = execd.context()
    events = execd.code("print('a\\n\\nb')\n1+1", id=id)
    order = ["init", "stdout", "result", "execution_count", "execution_complete"]
    assert [kind for kind, _ in groupby(kinds(events))] == order
    assert events[0]["text"] == id
    assert text(events, "stdout") == "a\n\nb\n"
    found = {event["type"]: event for event in events}
    assert found["result"]["results"] == {"text": "2"}
    assert found["execution_count"]["execution_count"] == 1
    assert isinstance(found["execution_complete"]["execution_time"], int)


def test_the_bytes_are_these(execd: Execd) -> None:
    body = {"code": "print('é\\u2028\"', end='')", "context": {"language": "python"}}
    answer = execd.client.post("/code", json=body)
    first, second, third, *rest = answer.content.split(b"\n\n")
    stamp = b',"timestamp":'
    assert first.startswith(b'{"type":"init","text":"') and stamp in first
    assert second.startswith(b'{"type":"ping","text":"pong","timestamp":')
    assert third.startswith('{"type":"stdout","text":"é\\u2028\\"","timestamp":'.encode())
    assert rest[-2].startswith(b'{"type":"execution_complete","execution_time":') and not rest[-1]


def test_a_failure_is_an_error_and_no_end(execd: Execd) -> None:
    events = execd.code("print('before')\n1/0")
    assert text(events, "stdout") == "before\n"
    raised = error(events)
    assert (raised["ename"], raised["evalue"]) == (
        "ZeroDivisionError",
        "division by zero",
    )
    assert any("1/0" in line for line in raised["traceback"])


def test_each_language_has_one_default_context(execd: Execd) -> None:
    first = execd.code("kept = 7")
    second = execd.code("kept")
    assert first[0]["text"] == second[0]["text"]
    results = [event["results"] for event in second if event["type"] == "result"]
    assert results == [{"text": "7"}]
    shell = execd.code("echo hello", language="bash")
    assert shell[0]["text"] != first[0]["text"] and text(shell, "stdout") == "hello\n"


def test_without_a_language_it_is_the_shell(execd: Execd) -> None:
    for body in (
        {"code": "echo one; exit 3"},
        {"code": "echo one; exit 3", "context": {}},
    ):
        events = execd.events("/code", body)
        assert text(events, "stdout") == "one"
        assert error(events)["evalue"] == "3"


def test_contexts_are_made_listed_and_deleted(execd: Execd) -> None:
    client = execd.client
    before = client.get("/code/contexts", params={"language": "bash"}).json()
    made = client.post("/code/context", json={"language": "bash", "cwd": "/tmp"}).json()
    assert made["language"] == "bash" and made["cwd"] == "/tmp"
    assert text(execd.code("pwd", language="bash", id=made["id"]), "stdout") == "/tmp\n"
    shown = {"id": made["id"], "language": "bash"}
    assert client.get("/code/contexts", params={"language": "bash"}).json() == [
        *before,
        shown,
    ]
    assert shown in client.get("/code/contexts").json()
    assert client.get(f"/code/contexts/{made['id']}").json() == shown
    gone = client.delete(f"/code/contexts/{made['id']}")
    assert (gone.status_code, gone.content) == (200, b"")
    assert gone.headers["content-length"] == "0"
    refused(client.get(f"/code/contexts/{made['id']}"), 404, "CONTEXT_NOT_FOUND")
    refused(client.delete(f"/code/contexts/{made['id']}"), 404, "CONTEXT_NOT_FOUND")


def test_all_contexts_of_a_language_go_at_once(execd: Execd) -> None:
    client = execd.client
    python, shells = execd.context(), [execd.context("bash") for _ in range(2)]
    session = execd.session()
    assert client.delete("/code/contexts", params={"language": "bash"}).status_code == 200
    answer = client.get("/code/contexts", params={"language": "bash"})
    assert (answer.json(), answer.text) == ([], "[]")
    assert client.get(f"/code/contexts/{python}").status_code == 200
    assert all(client.get(f"/code/contexts/{id}").status_code == 404 for id in shells)
    assert text(execd.in_session(session, "echo there"), "stdout") == "there"
    refused(client.delete("/code/contexts"), 400, "MISSING_QUERY")
    assert client.get("/code/contexts", params={"language": "cobol"}).json() == []


def test_what_cannot_run_is_refused_before_any_event(execd: Execd) -> None:
    client = execd.client
    unknown = {"code": "1", "context": {"id": "nothing", "language": "python"}}
    refused(client.post("/code", json=unknown), 500, "RUNTIME_ERROR")
    language = {"code": "1", "context": {"language": "cobol"}}
    refused(client.post("/code", json=language), 500, "RUNTIME_ERROR")
    refused(client.post("/code/context", json={"language": "cobol"}), 500, "RUNTIME_ERROR")
    refused(client.post("/code", content=b"{"), 400, "INVALID_REQUEST_BODY")
    for named in ({}, {"language": ""}, {"language": None}):
        answer = client.post("/code/context", json=named)
        assert "language" in refused(answer, 400, "INVALID_REQUEST_BODY")
    refused(client.delete("/code"), 400, "MISSING_QUERY")
    refused(client.delete("/code", params={"id": "nothing"}), 500, "RUNTIME_ERROR")
    cwd = {"language": "python", "cwd": "/nowhere"}
    refused(client.post("/code/context", json=cwd), 400, "INVALID_REQUEST_BODY")


def test_a_plot_is_a_result(execd: Execd) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()\n40 + 2"
    events = execd.code(code)
    results = [event["results"] for event in events if event["type"] == "result"]
    pictures = [
        base64.b64decode(result["image/png"]) for result in results if "image/png" in result
    ]
    assert [picture[:8] for picture in pictures] == [b"\x89PNG\r\n\x1a\n"]
    assert results[-1] == {"text": "42"}
    assert "text" in results[0] and "text/plain" not in results[0]


def test_every_representation_of_a_value_arrives(execd: Execd) -> None:
    code = (
        "from IPython.display import display\n"
        "display({'text/plain': 'p', 'text/html': '<b>h</b>', 'application/json': {'a': [1]},\n"
        "  'application/x-own': 'raw'}, raw=True)"
    )
    results = [event["results"] for event in execd.code(code) if event["type"] == "result"]
    assert results == [
        {
            "text": "p",
            "text/html": "<b>h</b>",
            "application/json": {"a": [1]},
            "application/x-own": "raw",
        }
    ]


@pytest.mark.parametrize(
    "code",
    [
        "for i in range(100_000): print('x' * 79)",
        "import sys; sys.stdout.write(('x' * 79 + '\\n') * 100_000)",
    ],
)
def test_eight_megabytes_arrive_whole(execd: Execd, code: str) -> None:
    events = execd.code(code)
    assert events[-1]["type"] == "execution_complete"
    assert text(events, "stdout") == ("x" * 79 + "\n") * 100_000


def test_an_interrupt_ends_the_run_and_keeps_the_state(execd: Execd) -> None:
    id = execd.context()
    execd.code("kept = 1", id=id)
    running = Running(execd, "/code", {"code": BUSY, "context": {"id": id, "language": "python"}})
    assert running.printed.wait(30)
    answer = execd.client.delete("/code", params={"id": id})
    assert (answer.status_code, answer.content) == (200, b"")
    assert error(running.end())["ename"] == "KeyboardInterrupt"
    assert {"text": "1"} in [event.get("results") for event in execd.code("kept", id=id)]


def test_an_interrupt_that_comes_with_the_first_event_is_not_lost(execd: Execd) -> None:
    for _ in range(10):
        id = execd.context()
        code = "import time\nfor _ in range(3000): time.sleep(0.01)"
        running = Running(execd, "/code", {"code": code, "context": {"id": id}})
        assert running.began.wait(30)
        assert execd.client.delete("/code", params={"id": id}).status_code == 200
        assert error(running.end(10))["ename"] == "KeyboardInterrupt"


def test_a_context_that_is_busy_says_so_in_its_stream(execd: Execd) -> None:
    id = execd.context()
    running = Running(execd, "/code", {"code": BUSY, "context": {"id": id}})
    assert running.printed.wait(30)
    events = execd.code("1", id=id)
    assert kinds(events) == ["init", "failure"]
    assert events[-1]["code"] == "RUNTIME_ERROR" and "busy" in events[-1]["message"]
    execd.client.delete("/code", params={"id": id})
    running.end()
    assert execd.code("1", id=id)[-1]["type"] == "execution_complete"


def test_cells_for_a_default_context_wait_for_each_other(execd: Execd) -> None:
    execd.code("order = []")
    code = "import time\nprint('on', flush=True)\ntime.sleep(0.3)\norder.append(1)\nlen(order)"
    body = {"code": code, "context": {"language": "python"}}
    running = [Running(execd, "/code", body) for _ in range(3)]
    ended = [one.end() for one in running]
    assert len({events[0]["text"] for events in ended}) == 1, "the same context"
    texts = [event["results"]["text"] for events in ended for event in events if "results" in event]
    assert sorted(texts) == ["1", "2", "3"]


def test_a_context_is_free_when_its_stream_has_ended(execd: Execd) -> None:
    id = execd.context()
    for number in range(100):
        events = execd.code(f"{number}", id=id)
        assert events[-1]["type"] == "execution_complete", events


def test_a_client_that_goes_away_interrupts_its_run(execd: Execd) -> None:
    id = execd.context()
    code = "n = 0\nimport time\nwhile True:\n n += 1; n == 3 and print('on'); time.sleep(0.01)"
    with execd.stream("/code", {"code": code, "context": {"id": id}}) as stream:
        assert next(event for event in stream if event["type"] == "stdout")

    def count() -> list[str]:
        events = execd.code("n", id=id)
        return [event["results"]["text"] for event in events if event.get("type") == "result"]

    counted = until(count, "the next run")
    assert 3 <= int(counted[0]) < 1_000 and count() == counted


def test_a_silent_run_shows_that_it_lives(execd: Execd) -> None:
    events = execd.code("import time; time.sleep(7)")
    pings = [event["timestamp"] for event in events if event["type"] == "ping"]
    assert len(pings) == 3 and all(2_900 < b - a < 3_600 for a, b in zip(pings, pings[1:]))


def test_an_interpreter_that_dies_ends_its_stream(execd: Execd) -> None:
    id = execd.context()
    began = time.monotonic()
    assert error(execd.code("import os; os._exit(3)", id=id))["ename"] == "ContextDied"
    assert execd.code("import sys; sys.exit(3)", id=id)[-1]["type"] == "error"
    assert execd.code("1+1", id=id)[-1]["type"] == "execution_complete"
    assert time.monotonic() - began < 20


def test_contexts_are_those_of_our_own_api(execd: Execd) -> None:
    id = execd.context()
    execd.code("shared = 5", id=id)
    body = {"code": "shared", "language": "python", "contextId": id}
    answer = execd.ours.post(f"/v1/sandboxes/{execd.id}/code/runs", json=body).json()
    assert answer["run"]["outputs"][0]["value"] == "5"
