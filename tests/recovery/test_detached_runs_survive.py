"""Detached runs go on while the server is killed: every byte of theirs is there once, every run is
begun once, every end is right."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest
from machine import Client, Machine, key_of, kill, wait_for
from server import Server

Json = dict[str, Any]

RUNS = 12
LINES = 150
KILLS = 3
END_SECONDS_MAX = 120
TERMINAL = {
    "completed",
    "interrupted",
    "canceled",
    "timed_out",
    "out_of_memory",
    "context_died",
    "failed",
}


def counting(number: int, lines: int = LINES, pause: float = 0.05) -> str:
    """Prints numbered lines on both streams, shows some of them, and has a value of its own."""
    return (
        "import sys, time\n"
        f"for i in range(1, {lines} + 1):\n"
        "  print(f'o{i}'); print(f'e{i}', file=sys.stderr)\n"
        "  if i % 50 == 0: display(f'shown {i}')\n"
        f"  time.sleep({pause})\n"
        f"{number} * 2"
    )


def begin(client: Client, sandbox: str, code: str, key: str | None = None, **fields: Any) -> Json:
    body = {"code": code, "language": "python", "detached": True, **fields}
    answer = client.request("POST", f"/v1/sandboxes/{sandbox}/code/runs", body, key=key)
    assert answer.status_code == 202, answer.text
    return answer.json()["run"]


def address(run: Json) -> str:
    return f"/v1/sandboxes/{run['sandboxId']}/code/runs/{run['id']}"


def get(client: Client, run: Json) -> Json:
    return client.insist("GET", address(run)).json()["run"]


def ended(client: Client, run: Json) -> Json:
    def look() -> Json | None:
        record = get(client, run)
        return record if record["status"] in TERMINAL else None

    return wait_for("the end of a run", look, END_SECONDS_MAX)


def follow(client: Client, run: Json, seen: list[Json], until: Callable[[], bool]) -> None:
    """Adds the events behind those that were seen, over as many connections as it takes."""
    while not (seen and seen[-1]["type"] == "complete") and not until():
        after = max((e["seq"] for e in seen if "seq" in e), default=0)
        url = f"{client.server.url}{address(run)}/events?afterSeq={after}"
        try:
            with httpx.stream("GET", url, headers=client.headers, timeout=60) as answer:
                if answer.status_code in (404, 502, 503):
                    continue
                assert answer.status_code == 200, answer.read()
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        event = json.loads(line.removeprefix("data: "))
                        if event["type"] != "heartbeat":
                            seen.append(event)
                        if until():
                            return
        except httpx.TransportError:
            time.sleep(0.05)


def followed(client: Client, run: Json) -> list[Json]:
    seen: list[Json] = []
    follow(client, run, seen, lambda: False)
    return seen


def said(seen: list[Json], stream: str = "stdout") -> str:
    return "".join(e["data"] for e in seen if e["type"] == stream)


def numbered(mark: str, lines: int = LINES) -> str:
    return "".join(f"{mark}{n}\n" for n in range(1, lines + 1))


def strike(server: Server, machine: Machine, victim: str) -> None:
    """Kills one of ours with -9 and waits for the next."""
    old = machine.pid(victim)
    kill(old)
    wait_for(f"another {victim}", lambda: server.children().get(victim, old) != old)


def check(client: Client, run: Json, number: int, seen: list[Json]) -> None:
    record = ended(client, run)
    assert record["status"] == "completed", record
    result = record["result"]
    assert "".join(result["stdout"]) == numbered("o"), f"run {number}"
    assert "".join(result["stderr"]) == numbered("e"), f"run {number}"
    values = [o["value"] for o in result["outputs"]]
    assert values == [*(f"shown {n}" for n in range(50, LINES + 1, 50)), str(number * 2)], values
    assert result["usage"]["stdoutBytes"] == len(numbered("o"))
    numbers = [e["seq"] for e in seen if "seq" in e]
    assert numbers == sorted(set(numbers)), "nothing twice, nothing out of order"
    assert said(seen) == numbered("o") and said(seen, "stderr") == numbered("e")
    assert [e["data"] for e in seen if e["type"] == "output"] == result["outputs"]
    assert seen[-1]["data"] == record


@pytest.mark.parametrize("victim", ["server", "spawner"])
def test_many_runs_and_a_kill(start: Callable[..., Server], victim: str) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandboxes = [client.create() for _ in range(4)]
    runs: list[Json] = []
    for number in range(RUNS):
        context = client.context(sandboxes[number % 4])
        runs.append(begin(client, sandboxes[number % 4], counting(number), contextId=context))
    watched: list[Json] = []
    for strikes in range(1, KILLS + 1):
        enough = 60 * strikes
        follow(client, runs[0], watched, lambda enough=enough: len(watched) >= enough)
        strike(server, machine, victim)
    follow(client, runs[0], watched, lambda: False)
    check(client, runs[0], 0, watched)
    for number, run in list(enumerate(runs))[1:]:
        check(client, run, number, followed(client, run))


def test_a_flood_loses_and_doubles_nothing(start: Callable[..., Server]) -> None:
    """Far more than init's window between two kills: the code waits, and goes on."""
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    lines = 1_500_000
    run = begin(client, sandbox, f"for n in range(1, {lines} + 1): print(f'o{{n}}')")
    seen: list[Json] = []
    for strikes in range(1, KILLS + 1):
        enough = 20 * strikes
        follow(client, run, seen, lambda enough=enough: len(seen) >= enough)
        strike(server, machine, "server")
    follow(client, run, seen, lambda: False)
    assert said(seen) == numbered("o", lines)
    numbers = [e["seq"] for e in seen if "seq" in e]
    assert numbers == sorted(set(numbers))
    result = ended(client, run)["result"]
    whole = numbered("o", lines)
    assert whole.startswith("".join(result["stdout"])) and result["stdoutTruncated"]
    kept = sum(map(len, result["stdout"]))
    assert kept + result["stdoutOmittedBytes"] == len(whole) == result["usage"]["stdoutBytes"]


def test_what_is_shown_becomes_one_artifact_each(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    code = (
        "import time\nfrom IPython.display import HTML, display\n"
        "for n in range(100):\n  display(HTML(f'<b>{n}</b>'))\n  time.sleep(0.02)"
    )
    run = begin(client, sandbox, code, artifactPolicy="promote")
    seen: list[Json] = []
    for strikes in range(1, KILLS + 1):
        enough = 20 * strikes
        follow(client, run, seen, lambda enough=enough: len(seen) >= enough)
        strike(server, machine, "server")
    record = ended(client, run)
    outputs = [o for o in record["result"]["outputs"] if o["format"] == "html"]
    assert [o for o in outputs if o["kind"] != "artifact"] == []
    ids = [o["artifactId"] for o in outputs]
    assert len(set(ids)) == 100
    for n in (0, 50, 99):
        got = client.insist("GET", f"/v1/artifacts/{ids[n]}/download")
        assert got.text == f"<b>{n}</b>"
    listed = client.insist("GET", f"/v1/sandboxes/{sandbox}/artifacts?limit=500").json()["data"]
    assert sorted(a["id"] for a in listed) == sorted(ids), "none that nobody names"


def test_runs_that_wait_begin_once_and_in_order_after_a_kill(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    gate = "import os, time\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)\n"
    mark = "open('/workspace/order', 'a').write('{}\\n')"
    runs = [begin(client, sandbox, gate + mark.format(0))]
    runs += [begin(client, sandbox, mark.format(n)) for n in range(1, 10)]
    wait_for("the first run", lambda: get(client, runs[0])["status"] == "running")
    for _ in range(KILLS):
        strike(server, machine, "server")
        assert [get(client, run)["status"] for run in runs[1:]] == ["queued"] * 9
    write = {"path": "go", "content": ""}
    assert client.insist("PUT", f"/v1/sandboxes/{sandbox}/files", write).status_code == 200
    for run in runs:
        assert ended(client, run)["status"] == "completed"
    read = f"/v1/sandboxes/{sandbox}/files/read?path=order"
    content = client.insist("GET", read).json()["content"]
    assert content == "".join(f"{n}\n" for n in range(10)), "each once, in its turn"
    with closing(sqlite3.connect(server.data_dir / "crownest.db")) as database:
        kept = database.execute("SELECT COUNT(*) FROM code_runs WHERE code IS NOT NULL")
        assert kept.fetchone()[0] == 0, "source is forgotten when it runs"


def test_an_ordinary_run_is_interrupted_and_a_detached_one_is_not(
    start: Callable[..., Server],
) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    gate = "import os, time\nopen('/workspace/in', 'w').close()\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)\n'done'"
    run = begin(client, sandbox, "x = 1\n" + gate)
    read = f"/v1/sandboxes/{sandbox}/files/read?path=in"
    wait_for("the code", lambda: client.insist("GET", read).status_code == 200)
    strike(server, machine, "server")
    assert get(client, run)["status"] == "running"
    # It still has the turn of its context, which others wait for.
    body = {"code": "x", "language": "python", "timeoutMs": 1_000}
    with pytest.raises(httpx.ReadTimeout):
        client.request("POST", f"/v1/sandboxes/{sandbox}/code/runs", body, timeout=0.5)
    write = {"path": "go", "content": ""}
    client.insist("PUT", f"/v1/sandboxes/{sandbox}/files", write)
    record = ended(client, run)
    assert record["status"] == "completed" and record["result"]["outputs"][0]["value"] == "done"
    assert client.value(sandbox, "x") == "1"


def test_a_run_that_ended_while_nobody_was_there(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    code = "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)\nprint('done')\nopen('/workspace/over', 'w').close()\n1 / 0"
    run = begin(client, sandbox, code)
    seen: list[Json] = []
    follow(client, run, seen, lambda: bool(seen))
    go = "sleep 1; touch go; while [ ! -e over ]; do sleep 0.01; done; sleep 0.3"
    client.insist("POST", f"/v1/sandboxes/{sandbox}/commands/start", {"command": go})
    processes = len(machine.processes(key_of(sandbox)))
    server.kill()
    wait_for("the end of both", lambda: len(machine.processes(key_of(sandbox))) < processes)
    server.start()
    client = Client(server)
    record = ended(client, run)
    assert (record["status"], record["result"]["stdout"]) == ("completed", ["begun\ndone\n"])
    assert record["result"]["error"]["name"] == "ZeroDivisionError"
    follow(client, run, seen, lambda: False)
    assert said(seen) == "begun\ndone\n" and seen[-1]["type"] == "complete"


def test_a_sandbox_that_died_with_the_server(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    code = "import time\nprint('last words', flush=True)\ndisplay('shown')\ntime.sleep(1000)"
    run = begin(client, sandbox, code)
    waiting = begin(client, sandbox, "1")
    seen: list[Json] = []
    follow(client, run, seen, lambda: len(seen) >= 2)
    init = machine.init(key_of(sandbox))
    server.kill()
    kill(init)
    server.start()
    client = Client(server)
    record = get(client, run)
    assert (record["status"], record["result"]["outcome"]) == ("context_died", "context_died")
    assert record["result"]["stdout"] == ["last words\n"]
    assert [o["value"] for o in record["result"]["outputs"]] == ["shown"]
    never = get(client, waiting)
    assert (never["status"], never["failure"]["code"]) == ("failed", "sandbox_destroyed")


def test_a_cancel_reaches_a_run_of_the_server_before(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    run = begin(client, sandbox, "x = 7\nprint('in', flush=True)\nwhile True: pass")
    waiting = begin(client, sandbox, "open('/workspace/never', 'w')")
    seen: list[Json] = []
    follow(client, run, seen, lambda: bool(seen))
    strike(server, machine, "server")
    for one in (waiting, run):
        record = client.insist("POST", f"{address(one)}/cancel").json()["run"]
        assert record["status"] == "canceled", record
    assert client.value(sandbox, "x") == "7"
    read = f"/v1/sandboxes/{sandbox}/files/read?path=never"
    assert client.insist("GET", read).status_code == 404


def test_a_keyed_start_after_a_restart_starts_nothing(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    code = "open('/workspace/begun', 'a').write('x')"
    first = begin(client, sandbox, code, key="once")
    strike(server, machine, "server")
    body = {"code": code, "language": "python", "detached": True}
    again = client.insist("POST", f"/v1/sandboxes/{sandbox}/code/runs", body, key="once")
    assert again.status_code == 202 and again.json()["run"] == first
    assert again.headers["idempotent-replayed"] == "true"
    ended(client, first)
    read = f"/v1/sandboxes/{sandbox}/files/read?path=begun"
    assert client.insist("GET", read).json()["content"] == "x"


def test_input_is_answered_through_the_next_server(start: Callable[..., Server]) -> None:
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    run = begin(client, sandbox, "print('hello', input('name? '))", allowInput=True)
    seen: list[Json] = []
    follow(client, run, seen, lambda: bool(seen))
    assert seen[0]["type"] == "input_request"
    strike(server, machine, "server")
    path = f"/v1/sandboxes/{sandbox}/code/contexts/{run['contextId']}/input"
    assert client.insist("POST", path, {"value": "Ada"}).json() == {"delivered": True}
    assert ended(client, run)["result"]["stdout"] == ["hello Ada\n"]


def test_a_run_goes_when_its_time_is_over_with_everything_it_said(
    start: Callable[..., Server],
) -> None:
    server = start("--pool", "0")
    client = Client(server)
    sandbox = client.create()
    run = begin(client, sandbox, "print('x' * 100)")
    kept = begin(client, sandbox, "print('kept')")
    ended(client, run), ended(client, kept)
    logs = server.data_dir / "run-logs"
    name = run["id"].removeprefix("crun_")
    assert list(logs.glob(f"*/{name}.*"))
    with closing(sqlite3.connect(server.data_dir / "crownest.db")) as database, database:
        database.execute(
            "UPDATE code_runs SET finished_at = finished_at - 86400000000 WHERE id = ?",
            (run["id"],),
        )
    assert client.insist("GET", address(run)).status_code == 404, "at once"
    # Taken away by the next start at the latest.
    server.stop()
    server.start()
    wait_for("its log to go", lambda: not list(logs.glob(f"*/{name}.*")))
    client = Client(server)
    assert client.insist("GET", address(run)).status_code == 404
    assert get(client, kept)["status"] == "completed"


def test_a_stop_ends_no_run_and_loses_none_that_waits(start: Callable[..., Server]) -> None:
    """As at an update: the server is asked to stop and started again."""
    server = start("--pool", "0")
    client = Client(server)
    sandbox = client.create()
    gate = "import os, time\nwhile not os.path.exists('/workspace/go'): time.sleep(0.01)\nprint('first')"
    first, second = begin(client, sandbox, gate), begin(client, sandbox, "print('second')")
    assert server.stop() == 0
    server.start()
    client = Client(server)
    assert {get(client, run)["status"] for run in (first, second)} == {"running", "queued"}
    client.insist("PUT", f"/v1/sandboxes/{sandbox}/files", {"path": "go", "content": ""})
    for run, word in ((first, "first"), (second, "second")):
        assert ended(client, run)["result"]["stdout"] == [f"{word}\n"]
