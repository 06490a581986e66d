"""Runs that go on when nobody waits: begun, followed, resumed, canceled, fetched later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from rest import (
    Json,
    Sandbox,
    connect,
    events,
    new_key,
    new_organization,
    refusal,
    text,
    until,
    usage_of,
    waiting_for,
)
from server import Server

MIB = 1024 * 1024
TERMINAL = {
    "completed",
    "interrupted",
    "canceled",
    "timed_out",
    "out_of_memory",
    "context_died",
    "failed",
}


def start(sandbox: Sandbox, code: str, key: str | None = None, **fields: Any) -> Json:
    headers = {"idempotency-key": key} if key else None
    response = sandbox.ask(code, detached=True, headers=headers, **fields)
    assert response.status_code == 202, response.text
    return response.json()["run"]


def get(sandbox: Sandbox, run: Json | str) -> Json:
    response = sandbox.client.get(address(sandbox, run))
    assert response.status_code == 200, response.text
    return response.json()["run"]


def address(sandbox: Sandbox, run: Json | str) -> str:
    return f"{sandbox.path}/code/runs/{run if isinstance(run, str) else run['id']}"


def ended(sandbox: Sandbox, run: Json | str) -> Json:
    def look() -> Json | None:
        record = get(sandbox, run)
        return record if record["status"] in TERMINAL else None

    return until(look, "the end of a run")


def status(sandbox: Sandbox, run: Json, wanted: str) -> Json:
    return until(
        lambda: (r := get(sandbox, run))["status"] == wanted and r,
        f"a run that is {wanted}",
    )


def cancel(sandbox: Sandbox, run: Json) -> Json:
    response = sandbox.client.post(f"{address(sandbox, run)}/cancel")
    assert response.status_code == 200, response.text
    return response.json()["run"]


def follow(sandbox: Sandbox, run: Json, **query: Any) -> list[Json]:
    with following(sandbox, run, **query) as response:
        assert response.status_code == 200, response.read()
        return list(events(response.iter_lines()))


def following(sandbox: Sandbox, run: Json, headers: Any = None, **query: Any) -> Any:
    return sandbox.client.stream(
        "GET", f"{address(sandbox, run)}/events", params=query, headers=headers
    )


def said(seen: list[Json], stream: str = "stdout") -> str:
    return "".join(e["data"] for e in seen if e["type"] == stream)


# -- begun, fetched


def test_a_run_goes_on_without_its_client_and_is_fetched_later(sandbox: Sandbox):
    run = start(
        sandbox,
        waiting_for("go") + "print('out')\nimport sys\nprint('err', file=sys.stderr)\n6 * 7",
    )
    assert run["id"].startswith("crun_") and run["status"] in {"queued", "running"}
    assert (run["sandboxId"], run["language"]) == (sandbox.id, "python")
    assert run["contextId"].startswith("cctx_") and "result" not in run
    assert status(sandbox, run, "running")["startedAt"] >= run["createdAt"]
    sandbox.signal("go")
    done = ended(sandbox, run)
    assert done["status"] == "completed" and "failure" not in done
    assert done["finishedAt"] >= done["startedAt"] and done["expiresAt"] > done["finishedAt"]
    result = done["result"]
    assert (result["stdout"], result["stderr"], text(result)) == (
        ["out\n"],
        ["err\n"],
        "42",
    )
    assert result["outcome"] == "completed" and result["durationMs"] > 0
    assert result["usage"]["stdoutBytes"] == 4 and result["usage"]["cpuMs"] > 0
    assert get(sandbox, run) == done


def test_the_result_is_that_of_a_run_that_was_waited_for(sandbox: Sandbox):
    code = (
        "from IPython.display import HTML, display, clear_output\nprint('a')\ndisplay('gone')\n"
        "clear_output()\nh = display('first', display_id='d')\ndisplay(HTML('<b>x</b>'))\n"
        "display('second', display_id='d', update=True)\nx = 1\n1 / 0"
    )
    changing = {"executionCount", "durationMs", "usage"}
    waited = sandbox.run(code, richOutputs="inline")
    detached = ended(sandbox, start(sandbox, code, richOutputs="inline"))["result"]
    for result in (waited, detached):
        # The cell's number is in its name.
        del result["error"]["traceback"][1]
    assert {k: v for k, v in detached.items() if k not in changing} == {
        k: v for k, v in waited.items() if k not in changing
    }
    assert detached["error"]["name"] == "ZeroDivisionError"


def test_runs_of_a_context_follow_each_other_in_order(sandbox: Sandbox):
    first = start(sandbox, "seen = []\n" + waiting_for("go"))
    later = [start(sandbox, f"seen.append({n})") for n in range(20)]
    status(sandbox, first, "running")
    assert {get(sandbox, run)["status"] for run in later} == {"queued"}
    sandbox.signal("go")
    assert ended(sandbox, later[-1])["status"] == "completed"
    assert sandbox.value("seen") == str(list(range(20)))


def test_a_run_that_waits_begins_after_its_interpreter_was_lost(sandbox: Sandbox):
    first = start(sandbox, "x = 1\n" + waiting_for("go") + "import os; os._exit(1)")
    second = start(sandbox, "'x' in globals()")
    sandbox.signal("go")
    assert ended(sandbox, first)["status"] == "context_died"
    done = ended(sandbox, second)
    assert (done["status"], text(done["result"])) == ("completed", "False")
    assert done["result"]["contextReset"] is True


def test_runs_are_listed_newest_first_without_results(sandbox: Sandbox):
    runs = [start(sandbox, f"print({n})") for n in range(3)]
    for run in runs:
        ended(sandbox, run)
    path = f"{sandbox.path}/code/runs"
    listed = sandbox.client.get(path).json()
    assert [r["id"] for r in listed["data"]] == [r["id"] for r in reversed(runs)]
    assert all("result" not in r and r["status"] == "completed" for r in listed["data"])
    page = sandbox.client.get(path, params={"limit": 2}).json()
    rest = sandbox.client.get(path, params={"limit": 2, "cursor": page["nextCursor"]}).json()
    assert page["hasMore"] and not rest["hasMore"]
    assert page["data"] + rest["data"] == listed["data"]
    sandbox.run("1")
    assert sandbox.client.get(path).json() == listed, "others are no resources"


def test_a_run_can_be_read_when_its_sandbox_is_gone(make: Callable[..., Sandbox]):
    sandbox = make()
    done = ended(sandbox, start(sandbox, "print('kept')"))
    running = start(sandbox, "print('begun', flush=True)\n" + waiting_for("never"))
    with following(sandbox, running) as response:
        assert next(events(response.iter_lines()))["data"] == "begun\n"
    waiting = start(sandbox, "1")
    sandbox.kill()
    assert get(sandbox, done) == done
    assert said(follow(sandbox, done)) == "kept\n"
    lost = ended(sandbox, running)
    assert (lost["status"], lost["result"]["stdout"]) == ("context_died", ["begun\n"])
    never = ended(sandbox, waiting)
    assert never["status"] == "failed" and "result" not in never
    assert never["failure"]["code"] == "sandbox_destroyed"
    refusal(sandbox.ask("1", detached=True), 410, "sandbox_destroyed")


# -- events


def test_events_say_everything_and_end_with_the_run(sandbox: Sandbox):
    code = (
        "import sys\nfrom IPython.display import HTML, display\nprint('one')\n"
        "display({'n': 1})\nprint('two', file=sys.stderr)\ndisplay(HTML('<b>\\u2028</b>'))\n"
        "print('three')\nraise ValueError('no')"
    )
    run = start(sandbox, code, richOutputs="inline")
    seen = follow(sandbox, run)
    numbered = [e["seq"] for e in seen if "seq" in e]
    assert numbered == sorted(set(numbered)) and all(e["createdAt"].endswith("Z") for e in seen)
    assert [e["type"] for e in seen[-2:]] == ["error", "complete"]
    assert seen[-1]["data"] == get(sandbox, run)
    result = seen[-1]["data"]["result"]
    assert seen[-2]["data"] == result["error"] and result["error"]["name"] == "ValueError"
    assert said(seen) == "one\nthree\n" and said(seen, "stderr") == "two\n"
    outputs = [e["data"] for e in seen if e["type"] == "output"]
    assert outputs == result["outputs"] and len(outputs) >= 3
    order = [e["type"] for e in seen if e["type"] in {"stdout", "output"}]
    assert order[0] == "stdout" and "output" in order
    assert follow(sandbox, run)[:-2] == seen[:-2], "the same again"
    with following(sandbox, run) as response:
        body = response.read()
    assert b"\r" not in body and "\u2028".encode() not in body
    for event in seen:
        if "seq" in event:
            assert f"id: {event['seq']}\nevent: {event['type']}\n".encode() in body


def test_a_follower_sees_output_while_the_code_runs(sandbox: Sandbox):
    run = start(sandbox, f"print('first')\n{waiting_for('go')}print('second')")
    with following(sandbox, run) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        arriving = events(response.iter_lines())
        assert next(arriving)["data"] == "first\n"
        sandbox.signal("go")
        rest = list(arriving)
    assert said(rest) == "second\n" and rest[-1]["type"] == "complete"


@pytest.mark.parametrize("by", ["afterSeq", "Last-Event-ID"])
def test_a_connection_is_lost_again_and_again_and_not_a_byte(sandbox: Sandbox, by: str):
    """Output, large outputs among it, read in pieces by connections that break in the middle."""
    lines = 60_000
    code = (
        "from IPython.display import HTML, display\n"
        f"for n in range({lines}):\n  print('line', n)\n"
        "  if n % 20_000 == 0: display(HTML(f'{n}' + 'h' * 300_000))"
    )
    run = start(sandbox, code, richOutputs="inline")
    seen: list[Json] = []
    connections = 0
    while not (seen and seen[-1]["type"] == "complete"):
        last = max((e["seq"] for e in seen if "seq" in e), default=0)
        headers = {"last-event-id": str(last)} if by == "Last-Event-ID" else None
        query = {"afterSeq": last} if by == "afterSeq" else {}
        connections += 1
        with following(sandbox, run, headers=headers, **query) as response:
            for number, event in enumerate(events(response.iter_lines())):
                seen.append(event)
                if number == 7:
                    break
    assert connections > 3
    numbers = [e["seq"] for e in seen if "seq" in e]
    assert numbers == sorted(set(numbers)), "nothing twice, nothing out of order"
    assert said(seen) == "".join(f"line {n}\n" for n in range(lines))
    html = [
        e["data"]["value"] for e in seen if e["type"] == "output" and e["data"]["format"] == "html"
    ]
    assert [len(v) for v in html] == [300_000 + len(str(n)) for n in (0, 20_000, 40_000)]


def test_places_that_are_none(sandbox: Sandbox):
    run = ended(sandbox, start(sandbox, "print('x')"))
    for query in ({"afterSeq": "-1"}, {"afterSeq": "x"}):
        with following(sandbox, run, **query) as response:
            response.read()
            refusal(response, 400, "invalid_request")
    # Behind the end there is only the end, and in the middle of an event the next one.
    assert [e["type"] for e in follow(sandbox, run, afterSeq=2**64 - 1)] == ["complete"]


def test_more_than_a_result_holds_is_in_the_events(sandbox: Sandbox):
    run = start(sandbox, f"for n in range(5): print(str(n) * ({MIB} - 1))")
    done = ended(sandbox, run)["result"]
    kept = sum(map(len, done["stdout"]))
    assert kept == MIB and done["stdoutTruncated"]
    assert done["stdoutOmittedBytes"] == 4 * MIB and done["usage"]["stdoutBytes"] == 5 * MIB
    assert said(follow(sandbox, run)) == "".join(str(n) * (MIB - 1) + "\n" for n in range(5))


def test_a_budget_holds_for_the_result_and_the_rest_is_kept(sandbox: Sandbox):
    code = "for n in range(100_000): print('line', n)"
    run = start(sandbox, code, outputBudget={"maxBytes": 1000}, keepFullOutput=True)
    result = ended(sandbox, run)["result"]
    assert len("".join(result["stdout"])) <= 1000
    full = result["outputBudget"]["fullOutput"]
    got = sandbox.client.get(f"/v1/artifacts/{full['artifactId']}/download")
    assert got.text == "".join(f"line {n}\n" for n in range(100_000)) == said(follow(sandbox, run))


def test_outputs_become_artifacts(sandbox: Sandbox):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    run = start(sandbox, code, artifactPolicy="promote")
    outputs = [o for o in ended(sandbox, run)["result"]["outputs"] if o["format"] == "png"]
    assert [o["kind"] for o in outputs] == ["artifact"]
    got = sandbox.client.get(f"/v1/artifacts/{outputs[0]['artifactId']}/download")
    assert got.content.startswith(b"\x89PNG")
    streamed = [e["data"] for e in follow(sandbox, run) if e["type"] == "output"]
    assert outputs[0] in streamed


def test_code_of_a_detached_run_may_ask(sandbox: Sandbox):
    run = start(sandbox, "print('hello', input('name? '))", allowInput=True)
    with following(sandbox, run) as response:
        arriving = events(response.iter_lines())
        asked = next(e for e in arriving if e["type"] == "input_request")
        assert asked["data"] == {"prompt": "name? ", "password": False} and asked["seq"] > 0
        path = f"{sandbox.path}/code/contexts/{run['contextId']}/input"
        assert sandbox.client.post(path, json={"value": "Ada"}).status_code == 200
        assert said(list(arriving)) == "hello Ada\n"


# -- ends


def test_cancel_interrupts_and_keeps_the_state(sandbox: Sandbox):
    run = start(sandbox, "x = 5\nopen('/workspace/in', 'w').close()\nwhile True: pass")
    until(lambda: sandbox.read("in").status_code == 200, "the code")
    done = cancel(sandbox, run)
    assert done["status"] == "canceled" and done["canceledAt"] <= done["finishedAt"]
    assert done["result"]["outcome"] == "interrupted"
    assert sandbox.value("x") == "5"
    assert cancel(sandbox, run) == done, "a second time changes nothing"


def test_a_run_that_waits_is_canceled_before_it_begins(sandbox: Sandbox):
    first = start(sandbox, waiting_for("go"))
    waiting = start(sandbox, "open('/workspace/never', 'w')")
    done = cancel(sandbox, waiting)
    assert done["status"] == "canceled" and "startedAt" not in done and "result" not in done
    assert [e["type"] for e in follow(sandbox, waiting)] == ["complete"]
    sandbox.signal("go")
    assert ended(sandbox, first)["status"] == "completed"
    sandbox.run("1")
    assert sandbox.read("never").status_code == 404


def test_every_end_has_its_word(sandbox: Sandbox):
    own = {"contextId": sandbox.context()}
    late = ended(sandbox, start(sandbox, "import time; time.sleep(60)", timeoutMs=200, **own))
    assert (late["status"], late["result"]["outcome"]) == ("timed_out", "timed_out")
    run = start(sandbox, "import time; time.sleep(60)", **own)
    status(sandbox, run, "running")
    until(lambda: sandbox.interrupt(own["contextId"]), "something to interrupt")
    assert ended(sandbox, run)["status"] in {"interrupted", "completed"}
    dead = ended(sandbox, start(sandbox, "import os; os.kill(os.getpid(), 11)", **own))
    assert (dead["status"], dead["result"]["error"]["name"]) == (
        "context_died",
        "ContextDied",
    )


def test_a_context_that_is_deleted_ends_its_runs(sandbox: Sandbox):
    context = sandbox.context()
    running = start(sandbox, waiting_for("never"), contextId=context)
    waiting = start(sandbox, "1", contextId=context)
    status(sandbox, running, "running")
    assert sandbox.client.delete(f"{sandbox.path}/code/contexts/{context}").status_code == 200
    assert ended(sandbox, running)["status"] == "context_died"
    done = ended(sandbox, waiting)
    assert (done["status"], done["failure"]["code"]) == ("failed", "not_found")


# -- who may, and how many


def test_a_key_begins_one_run(sandbox: Sandbox):
    code = "open('/workspace/begun', 'a').write('x')"
    first = start(sandbox, code, key="once")
    again = start(sandbox, code, key="once")
    assert again == first
    ended(sandbox, first)
    assert sandbox.read("begun").json()["content"] == "x"
    assert len(sandbox.client.get(f"{sandbox.path}/code/runs").json()["data"]) == 1


def test_streams_and_too_many_are_refused(sandbox: Sandbox):
    with sandbox.streaming("1", detached=True) as response:
        response.read()
        error = refusal(response, 400, "unsupported_runtime_option")
    assert error["details"] == {"field": "detached"}
    refusal(sandbox.ask("1", detached=True, timeoutMs=86_400_001), 400, "invalid_request")
    refusal(sandbox.ask("1", timeoutMs=600_001), 400, "invalid_request")
    runs = [start(sandbox, waiting_for("go")) for _ in range(64)]
    error = refusal(sandbox.ask("1", detached=True), 429, "quota_exceeded")
    assert error["details"] == {"limit": 64}
    sandbox.signal("go")
    for run in runs:
        assert ended(sandbox, run)["status"] == "completed"
    assert ended(sandbox, start(sandbox, "1"))["status"] == "completed"


@pytest.fixture
def stranger(server: Server) -> Iterator[httpx.Client]:
    """A client of another organization."""
    org = new_organization(server, "strangers")
    with connect(server, new_key(server, org.id)) as client:
        yield client


def test_of_strangers_there_is_nothing(sandbox: Sandbox, make, stranger: httpx.Client):
    run = ended(sandbox, start(sandbox, "print('secret')"))
    other = make()
    for client, path in [
        (stranger, address(sandbox, run)),
        (sandbox.client, address(other, run)),
        (sandbox.client, address(sandbox, "crun_nothing")),
        (sandbox.client, address(sandbox, "cmd_nothing")),
    ]:
        refusal(client.get(path), 404, "not_found")
        refusal(client.get(f"{path}/events"), 404, "not_found")
        refusal(client.post(f"{path}/cancel"), 404, "not_found")
    refusal(stranger.get(f"{sandbox.path}/code/runs"), 404, "not_found")


def test_a_run_is_on_record_and_counted_once(server: Server, sandbox: Sandbox):
    run = start(sandbox, "1")
    ended(sandbox, run)
    used = usage_of(server, run["id"], "code_run_invocations")
    until(lambda: used() == 1, "its usage")
    query = {"resourceId": run["id"]}
    ours = sandbox.client.get("/v1/audit-events", params=query).json()["data"]
    assert [(e["action"], e["resource"]["kind"], e["outcome"]) for e in ours] == [
        ("code.start", "code_run", "ok")
    ]


def test_many_followers_read_the_same(sandbox: Sandbox):
    run = start(sandbox, waiting_for("go") + "for n in range(30_000): print('line', n)")
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(said(follow(sandbox, run)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    sandbox.signal("go")
    for thread in threads:
        thread.join()
    assert texts == ["".join(f"line {n}\n" for n in range(30_000))] * 8
