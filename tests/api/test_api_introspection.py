"""Questions about a context, its restart, lines that its code asks for, notices, and what runs use."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from rest import Json, Sandbox, events, refusal, text, until, waiting_for

# Tenant code that speaks for its driver.
FORGING = (
    "import json as _json, os as _os, struct as _struct\n"
    "from crownest_kernel import display as _display\n"
    "_kernel = _display._kernel\n"
    "def say(**data):\n"
    "    data = _json.dumps(data).encode()\n"
    "    data = _struct.pack('>I', len(data)) + data\n"
    "    while data: data = data[_os.write(_kernel.channel.fd, data):]\n"
)
SLOW_S = 30


def post(sandbox: Sandbox, context: str, verb: str, **body: Any) -> httpx.Response:
    path = f"{sandbox.path}/code/contexts/{context}/{verb}"
    return sandbox.client.post(path, json=body)


def asked(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    return response.json()


def complete(sandbox: Sandbox, context: str, code: str, **fields: Any) -> Json:
    return asked(post(sandbox, context, "complete", code=code, **fields))


def inspect(sandbox: Sandbox, context: str, code: str, **fields: Any) -> Json:
    return asked(post(sandbox, context, "inspect", code=code, **fields))


def variables(sandbox: Sandbox, context: str, **query: Any) -> Json:
    path = f"{sandbox.path}/code/contexts/{context}/variables"
    return asked(sandbox.client.get(path, params=query))


@pytest.fixture
def context(sandbox: Sandbox) -> str:
    return sandbox.context()


# -- answers


def test_what_may_stand_in_a_place(sandbox: Sandbox, context: str):
    sandbox.run("import math\nstrasse_groß = 1", contextId=context)
    answer = complete(sandbox, context, "x = math.sqr")
    assert answer["outcome"] == "answered" and "omitted" not in answer
    found = [m for m in answer["matches"] if m["text"] == "sqrt"]
    assert found and found[0]["kind"] == "function", answer
    # Code points, and only up to the cursor.
    code = "'ü'; strasse_gr + 1"
    answer = complete(sandbox, context, code, cursor=code.index(" + 1"))
    assert [m["text"] for m in answer["matches"]] == ["strasse_groß"]
    assert code[answer["start"] : answer["end"]] == "strasse_gr"
    assert complete(sandbox, context, "no_such_thing_anywhere")["matches"] == []


def test_what_stands_in_a_place(sandbox: Sandbox, context: str):
    code = (
        'def area(width: int, height=2):\n    """How much there is."""\n    return width * height'
    )
    sandbox.run(code, contextId=context)
    brief = inspect(sandbox, context, "print(area)", cursor=8)
    assert brief["found"] and brief["outcome"] == "answered"
    assert "area(width: int, height=2)" in brief["data"]["text/plain"]
    assert "How much there is." in brief["data"]["text/plain"]
    assert "return width" not in brief["data"]["text/plain"]
    full = inspect(sandbox, context, "area", detail=1)
    assert "return width * height" in full["data"]["text/plain"]
    nothing = inspect(sandbox, context, "no_such_thing")
    assert (nothing["found"], nothing["data"]) == (False, {})


def test_what_is_defined(sandbox: Sandbox, context: str):
    assert variables(sandbox, context)["variables"] == []
    code = (
        "import math, pandas as pd\nn = 7\ntable = pd.DataFrame({'a': range(5), 'b': 0})\n"
        "def f(): pass\nclass C: pass\nword = 'w' * 1_000_000"
    )
    sandbox.run(code, contextId=context)
    answer = variables(sandbox, context)
    found = {v["name"]: v for v in answer["variables"]}
    assert list(found)[-5:] == ["n", "table", "f", "C", "word"] and "omitted" not in answer
    assert (found["n"]["type"], found["n"]["kind"], found["n"]["preview"]) == (
        "int",
        "variable",
        "7",
    )
    assert (found["table"]["type"], found["table"]["shape"]) == ("DataFrame", [5, 2])
    assert (found["f"]["kind"], found["C"]["kind"], found["math"]["kind"]) == (
        "function",
        "class",
        "module",
    )
    assert found["word"]["size"] == 1_000_000 and len(found["word"]["preview"]) <= 200
    cut = variables(sandbox, context, limit=2)
    assert len(cut["variables"]) == 2 and cut["omitted"] == len(found) - 2


def test_a_question_changes_nothing(sandbox: Sandbox, context: str):
    before = sandbox.run(
        "noise = 1\nclass Loud:\n  def __dir__(self): print('loud'); return ['a']\nl = Loud()",
        contextId=context,
    )
    for _ in range(3):
        complete(sandbox, context, "l.")
        inspect(sandbox, context, "l")
        variables(sandbox, context)
    after = sandbox.run("sorted(n for n in globals() if not n.startswith('_'))", contextId=context)
    assert after["executionCount"] == before["executionCount"] + 1
    assert after["stdout"] == [] and len(after["outputs"]) == 1
    assert "noise" in text(after) and "contextReset" not in after


# -- turns, timeouts, interrupts, death


def test_a_question_that_takes_too_long_is_interrupted_and_the_state_kept(
    sandbox: Sandbox, context: str
):
    code = (
        "import time\nkept = 1\nclass Slow:\n  def __dir__(self):\n    time.sleep(60)\ns = Slow()"
    )
    sandbox.run(code, contextId=context)
    began = time.monotonic()
    answer = complete(sandbox, context, "s.", timeoutMs=200)
    assert answer["outcome"] == "timed_out" and answer["matches"] == []
    assert (answer["start"], answer["end"]) == (
        2,
        2,
    ) and time.monotonic() - began < SLOW_S
    assert sandbox.value("kept", contextId=context) == "1"


def test_a_question_can_be_interrupted(sandbox: Sandbox, context: str):
    code = (
        "import time\nclass Slow:\n  def __dir__(self):\n    open('/workspace/asked', 'w').close()\n"
        "    time.sleep(60)\ns = Slow()"
    )
    sandbox.run(code, contextId=context)
    answers: list[Json] = []
    thread = threading.Thread(
        target=lambda: answers.append(complete(sandbox, context, "s.", timeoutMs=20_000))
    )
    thread.start()
    until(lambda: sandbox.read("asked").status_code == 200, "the question")
    assert sandbox.interrupt(context) is True
    thread.join(SLOW_S)
    assert answers and answers[0]["outcome"] in {"interrupted", "answered"}, answers
    assert sandbox.value("1 + 1", contextId=context) == "2"


def test_a_question_waits_for_its_turn_and_not_for_ever(sandbox: Sandbox, context: str):
    run = threading.Thread(
        target=lambda: sandbox.run("x = 5\n" + waiting_for("go"), contextId=context)
    )
    run.start()
    until(
        lambda: post(sandbox, context, "complete", code="x", timeoutMs=50).status_code == 429,
        "a busy context",
    )
    error = refusal(post(sandbox, context, "complete", code="x", timeoutMs=50), 429, "rate_limited")
    assert error["retryable"]
    answers: list[Json] = []
    waiting = threading.Thread(
        target=lambda: answers.append(variables(sandbox, context, timeoutMs=20_000))
    )
    waiting.start()
    sandbox.signal("go")
    for thread in (run, waiting):
        thread.join(SLOW_S)
    assert "x" in [v["name"] for v in answers[0]["variables"]]


def test_nothing_is_known_of_a_dead_interpreter_and_none_is_started(sandbox: Sandbox, context: str):
    code = "import os\nclass Deadly:\n  def __dir__(self): os._exit(3)\nd = Deadly()"
    sandbox.run(code, contextId=context)
    assert complete(sandbox, context, "d.")["outcome"] == "context_died"
    answer = variables(sandbox, context)
    assert (answer["outcome"], answer["variables"]) == ("context_died", [])
    assert inspect(sandbox, context, "len") == {
        "outcome": "context_died",
        "found": False,
        "data": {},
    }
    assert sandbox.run("1", contextId=context)["contextReset"] is True


def test_a_forged_answer_is_bounded_and_shaped(sandbox: Sandbox, context: str):
    forge = (
        FORGING
        + "class Forger:\n  def __dir__(self):\n"
        # It is not told which run a question is: the next one.
        + "    say(ev='answer', run=last + 1, answer=json_of())\n    return []\n"
        + "f = Forger()\nlast = _kernel.run\n"
    )
    huge = "{'matches': [{'text': 'x' * 9_000_000}] + [{'text': 'm%d' % n} for n in range(1_000)], 'start': 0, 'end': 10**9}"
    wrong = "['no', 'object']"
    deep = "{'matches': [], 'start': 0, 'end': 0, 'more': __import__('functools').reduce(lambda d, _: [d], range(90), 0)}"
    html = "{'found': True, 'data': {'text/html': '<script>', 'text/plain': 'p' * 400_000}}"
    for made, check in [
        (
            huge,
            lambda a: len(a["matches"]) == 199 and a["omitted"] == 802 and a["end"] == 2,
        ),
        (wrong, lambda a: a["outcome"] == "no_answer" and a["matches"] == []),
        (deep, lambda a: a["outcome"] == "answered" and a["matches"] == []),
    ]:
        sandbox.run(forge + f"json_of = lambda: {made}", contextId=context)
        answer = complete(sandbox, context, "f.")
        assert check(answer), answer
    sandbox.run(
        forge + f"json_of = lambda: {html}\n"
        "class R:\n  def __repr__(self): f.__dir__(); return ''\nr = R()",
        contextId=context,
    )
    answer = inspect(sandbox, context, "r")
    assert set(answer["data"]) == {"text/plain"} and answer["truncated"] is True
    assert len(answer["data"]["text/plain"]) == 256 * 1024
    assert sandbox.value("1 + 1", contextId=context) == "2"


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("complete", {}, "code"),
        ("complete", {"code": "abc", "cursor": 4}, "cursor"),
        ("complete", {"code": "abc", "cursor": -1}, "cursor"),
        ("complete", {"code": "abc", "timeoutMs": 30_001}, "timeoutMs"),
        ("inspect", {"code": "abc", "detail": 2}, "detail"),
        ("inspect", {"code": "abc", "timeoutMs": 0}, "timeoutMs"),
    ],
)
def test_questions_that_cannot_be(sandbox: Sandbox, verb: str, body: Json, field: str):
    error = refusal(post(sandbox, sandbox.context(), verb, **body), 400, "invalid_request")
    assert error["details"]["field"] == field


def test_contexts_that_are_not_there(sandbox: Sandbox):
    for verb, body in [
        ("complete", {"code": "x"}),
        ("inspect", {"code": "x"}),
        ("restart", {}),
    ]:
        refusal(post(sandbox, "cctx_nothing", verb, **body), 404, "not_found")
    refusal(post(sandbox, "cctx_nothing", "input", value="x"), 404, "not_found")
    path = f"{sandbox.path}/code/contexts/cctx_nothing/variables"
    refusal(sandbox.client.get(path), 404, "not_found")
    long = post(sandbox, sandbox.context(), "complete", code="x" * (256 * 1024 + 1))
    refusal(long, 413, "code_source_too_large")
    for query in ({"limit": 0}, {"limit": 1_001}, {"limit": "x"}, {"timeoutMs": 0}):
        path = f"{sandbox.path}/code/contexts/{sandbox.context()}/variables"
        refusal(sandbox.client.get(path, params=query), 400, "invalid_request")


# -- restart


def test_a_restart_keeps_the_id_and_nothing_else(sandbox: Sandbox, context: str):
    other = sandbox.context()
    for id in (context, other):
        sandbox.run("x = 1\nopen('/workspace/file', 'w').write('f')", contextId=id)
    answer = asked(post(sandbox, context, "restart"))
    assert answer["context"]["id"] == context and answer["context"]["language"] == "python"
    assert (answer["stateLost"], answer["interrupted"]) == (True, False)
    run = sandbox.run("x", contextId=context)
    assert run["error"]["name"] == "NameError" and run["executionCount"] == 1
    assert "contextReset" not in run, "it was asked for"
    assert sandbox.value("x", contextId=other) == "1"
    assert sandbox.value("open('/workspace/file').read()", contextId=context) == "f"
    listed = sandbox.client.get(f"{sandbox.path}/code/contexts").json()["data"]
    assert [c["id"] for c in listed].count(context) == 1


def test_a_restart_ends_what_runs_and_serves_what_waits(sandbox: Sandbox, context: str):
    runs: dict[str, Json] = {}

    def run(name: str, code: str) -> threading.Thread:
        def work() -> None:
            runs[name] = sandbox.run(code, contextId=context)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    busy = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nopen('/workspace/in', 'w')\nwhile True: pass"
    first = run("first", busy)
    until(lambda: sandbox.read("in").status_code == 200, "the first run")
    second = run("second", "40 + 2")
    answer = asked(post(sandbox, context, "restart"))
    assert answer["interrupted"] is True
    for thread in (first, second):
        thread.join(SLOW_S)
    assert runs["first"]["outcome"] == "context_died"
    assert text(runs["second"]) == "42"


# -- input


def test_code_asks_and_a_client_answers(sandbox: Sandbox, context: str):
    code = "print('before')\nname = input('name? ')\nimport getpass\nword = getpass.getpass('word: ')\nprint(name, len(word))"
    with sandbox.streaming(code, contextId=context, allowInput=True) as response:
        arriving = events(response.iter_lines())
        assert next(arriving) == {"type": "stdout", "data": "before\n"}
        first = next(e for e in arriving if e["type"] == "input_request")
        assert first["data"] == {"prompt": "name? ", "password": False}
        assert asked(post(sandbox, context, "input", value="Zoë")) == {"delivered": True}
        second = next(e for e in arriving if e["type"] == "input_request")
        assert second["data"] == {"prompt": "word: ", "password": True}
        asked(post(sandbox, context, "input", value="hush"))
        rest = list(arriving)
    assert rest[-1]["data"]["stdout"] == ["before\nZoë 4\n"], rest
    refusal(post(sandbox, context, "input", value="late"), 409, "input_not_awaited")


def test_null_is_the_end_of_the_input(sandbox: Sandbox, context: str):
    for body in ({"value": None}, {}):
        with sandbox.streaming("input()", contextId=context, allowInput=True) as response:
            arriving = events(response.iter_lines())
            next(e for e in arriving if e["type"] == "input_request")
            asked(post(sandbox, context, "input", **body))
            rest = list(arriving)
        assert rest[-1]["data"]["error"]["name"] == "EOFError"


def test_without_anybody_who_answers_there_is_no_input(sandbox: Sandbox, context: str):
    code = "try: input()\nexcept EOFError: print('end')"
    assert sandbox.out(code, contextId=context) == "end\n"
    streamed = sandbox.stream(code, contextId=context)
    assert streamed[-1]["data"]["stdout"] == ["end\n"]
    assert "input_request" not in [e["type"] for e in streamed]
    error = refusal(
        sandbox.ask("input()", contextId=context, allowInput=True),
        400,
        "unsupported_runtime_option",
    )
    assert error["details"] == {"field": "allowInput"}


def test_a_timeout_counts_while_code_waits_for_a_line(sandbox: Sandbox, context: str):
    streamed = sandbox.stream("input()", contextId=context, allowInput=True, timeoutMs=300)
    assert [e["type"] for e in streamed] == ["input_request", "error", "complete"]
    assert streamed[-1]["data"]["outcome"] == "timed_out"
    assert sandbox.value("1 + 1", contextId=context) == "2"


def test_an_interrupt_ends_the_wait_for_a_line(sandbox: Sandbox, context: str):
    with sandbox.streaming("x = 1\ninput()", contextId=context, allowInput=True) as response:
        arriving = events(response.iter_lines())
        next(e for e in arriving if e["type"] == "input_request")
        assert sandbox.interrupt(context) is True
        assert list(arriving)[-1]["data"]["outcome"] == "interrupted"
    assert sandbox.value("x", contextId=context) == "1"


@pytest.mark.parametrize("value", ["two\nlines", "x\r", "x" * (64 * 1024 + 1)])
def test_lines_that_are_none(sandbox: Sandbox, context: str, value: str):
    error = refusal(post(sandbox, context, "input", value=value), 400, "invalid_request")
    assert error["details"] == {"field": "value"}


# -- notices and use


def test_notices_are_in_the_result_and_in_the_stream(sandbox: Sandbox, context: str):
    sandbox.run(FORGING, contextId=context)
    said = "say(ev='notice', run=_kernel.run, code='state_not_kept', message='m' * 9_000)"
    run = sandbox.run(said, contextId=context)
    assert [n["code"] for n in run["notices"]] == ["state_not_kept"]
    cut = "m" * 4096 + "… [4904 bytes left out]"
    assert run["notices"][0]["message"] == cut and run["outcome"] == "completed"
    streamed = sandbox.stream(said, contextId=context)
    assert [e["type"] for e in streamed] == ["notice", "complete"]
    assert streamed[0]["data"] == run["notices"][0]
    many = sandbox.run(f"for n in range(100):\n {said}", contextId=context)
    assert len(many["notices"]) == 64
    assert "notices" not in sandbox.run("1", contextId=context)
    bad = "say(ev='notice', run=_kernel.run, code='Not A Word', message='x')"
    assert "notices" not in sandbox.run(bad, contextId=context)


def test_what_a_run_used_is_measured_and_not_believed(sandbox: Sandbox, context: str):
    sandbox.run(FORGING + "import time, subprocess, sys", contextId=context)
    lie = "say(ev='done', run=_kernel.run, status='ok', count=1, cpu_us=10**12)"
    used = sandbox.run(lie, contextId=context)["usage"]
    assert used["cpuMs"] < 60_000, used
    sandbox.run("pass", contextId=context)
    busy = (
        "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
        "block = bytearray(64 << 20)\nblock[::4096] = b'x' * len(block[::4096])\ndel block\n"
        "print('out')\nprint('error', file=sys.stderr)\n'value'"
    )
    used = sandbox.run(busy, contextId=context)["usage"]
    assert 300 <= used["cpuMs"] < 30_000, used
    assert used["peakMemoryGrowthBytes"] >= 48 << 20 < used["peakMemoryBytes"]
    assert used["memoryBytes"] <= used["peakMemoryBytes"]
    assert (used["stdoutBytes"], used["stderrBytes"]) == (4, 6)
    assert used["codeBytes"] == len(busy) and used["outputBytes"] == len("value")
    idle = sandbox.run("time.sleep(0.3)", contextId=context)["usage"]
    assert idle["cpuMs"] < 250 and idle["peakMemoryGrowthBytes"] == 0, idle
    assert idle["outputBytes"] == 0
    child = "subprocess.run([sys.executable, '-S', '-c', 'import time\\nwhile time.process_time() < 0.3: pass'])"
    used = sandbox.run(child, contextId=context)["usage"]
    assert used["cpuMs"] >= 280, "children that were waited for count"
    dead = sandbox.run("import os; print('x', flush=True); os._exit(1)", contextId=context)["usage"]
    assert "cpuMs" not in dead and dead["stdoutBytes"] == 2


def test_use_counts_what_a_result_leaves_out(sandbox: Sandbox):
    run = sandbox.run("for _ in range(40): print('x' * (1024 * 1024 - 1))")
    assert run["stdoutTruncated"] and run["usage"]["stdoutBytes"] == 40 << 20


def test_every_way_is_on_record(sandbox: Sandbox, context: str):
    complete(sandbox, context, "x")
    asked(post(sandbox, context, "restart"))
    with sandbox.streaming("input()", contextId=context, allowInput=True) as response:
        arriving = events(response.iter_lines())
        next(e for e in arriving if e["type"] == "input_request")
        asked(post(sandbox, context, "input", value="secret line"))
        list(arriving)
    wanted = {"code_context.query", "code_context.restart", "code_context.input"}

    def recorded() -> list[Json] | None:
        query = {"limit": 100, "resourceId": context}
        page = sandbox.client.get("/v1/audit-events", params=query).json()["data"]
        ours = [e for e in page if e["action"] in wanted]
        return ours if {e["action"] for e in ours} == wanted else None

    assert "secret line" not in str(until(recorded, "audit events"))
