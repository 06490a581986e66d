"""Runs and contexts: results, errors, state, timeouts, interrupts, contexts that are lost."""

from __future__ import annotations

import threading

import pytest

from rest import Sandbox, events, refusal, text, until, waiting_for

IGNORING = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


# -- results


def test_a_result_has_the_shape_of_the_contract(sandbox: Sandbox):
    run = sandbox.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n{'a': 1}")
    assert (run["stdout"], run["stderr"]) == (["out\n"], ["err\n"])
    assert text(run) == "{'a': 1}"
    assert (run["sandboxId"], run["language"], run["outcome"]) == (
        sandbox.id,
        "python",
        "completed",
    )
    assert run["contextId"].startswith("cctx_") and run["durationMs"] >= 0
    assert "error" not in run and "stdoutTruncated" not in run and "contextReset" not in run
    assert sandbox.run("1")["executionCount"] == run["executionCount"] + 1


@pytest.mark.parametrize("code", ["x = 1", "None", "1;", "", "# nothing", "import os"])
def test_code_without_a_value_has_no_output(sandbox: Sandbox, code):
    run = sandbox.run(code)
    assert run["outputs"] == [] and run["stdout"] == [] and "error" not in run


def test_an_exception_is_an_answer(sandbox: Sandbox):
    run = sandbox.run("def f(x):\n    return 1 / x\n\nprint('before')\nf(0)\nprint('after')")
    assert run["stdout"] == ["before\n"] and run["outcome"] == "completed"
    error = run["error"]
    assert (error["name"], error["message"], error["line"]) == (
        "ZeroDivisionError",
        "division by zero",
        2,
    )
    traceback = "\n".join(error["traceback"])
    assert "return 1 / x" in traceback and "f(0)" in traceback
    assert "/opt/crownest" not in traceback, "frames of the interpreter itself are noise"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("print('never')\n1 +", "SyntaxError"),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
        ("nobody", "NameError"),
        ("raise Exception()", "Exception"),
        ("raise SystemExit(3)", "SystemExit"),
        ("exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseExceptionGroup('many', [ValueError(1), SystemExit()])", "BaseExceptionGroup"),
        (
            "class E(Exception):\n    def __str__(self): raise E2\nclass E2(Exception): pass\nraise E",
            "E",
        ),
        ("class R:\n    def __repr__(self): raise ValueError('no repr')\nR()", "ValueError"),
        ("x = '\\ud800'; raise ValueError(x)", "ValueError"),
    ],
)
def test_errors_of_every_kind_leave_the_state(sandbox: Sandbox, code, name):
    sandbox.run("kept = 'here'")
    run = sandbox.run(code)
    assert run["error"]["name"] == name and run["outcome"] == "completed", run
    assert run["stdout"] == []
    assert sandbox.value("kept") == "here"


def test_deep_recursion_without_a_limit_costs_the_context_alone(make):
    sandbox: Sandbox = make(resources={"memoryBytes": 512 * 1024 * 1024})
    code = "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return str(f()) + 'x'\nf()"
    run = sandbox.run(code)
    assert (
        run["outcome"] in {"context_died", "out_of_memory"}
        or run["error"]["name"] == "RecursionError"
    )
    assert sandbox.value("1+1") == "2"


def test_source_up_to_the_limit_runs_and_beyond_is_refused(sandbox: Sandbox):
    limit = 256 * 1024
    exactly = "'" + "x" * (limit - 6) + "'[:3]"
    assert len(exactly) == limit and sandbox.value(exactly) == "xxx"
    error = refusal(sandbox.ask(exactly + " "), 413, "code_source_too_large")
    assert error["details"] == {"field": "code", "limit": limit}


@pytest.mark.parametrize("language", ["cobol", "Python", "", "../python", "java\n"])
def test_unknown_languages_are_refused(sandbox: Sandbox, language):
    error = refusal(sandbox.ask("1", language=language), 400, "unsupported_code_language")
    assert "python" in error["details"]["languages"]


@pytest.mark.parametrize("timeout", [0, -1, 600_001, "soon", 1.5])
def test_timeouts_that_cannot_be_are_refused(sandbox: Sandbox, timeout):
    refusal(sandbox.ask("1", timeoutMs=timeout), 400, "invalid_request")


def test_missing_fields_are_named(sandbox: Sandbox):
    for body, field in [({"language": "python"}, "code"), ({"code": "1"}, "language")]:
        response = sandbox.client.post(f"{sandbox.path}/code/runs", json=body)
        assert refusal(response, 400, "invalid_request")["details"] == {"field": field}


# -- output


def test_output_of_any_bytes_is_text(sandbox: Sandbox):
    code = (
        "import os, sys\nprint('nul\\0 ls\\u2028 ps\\u2029 nel\\x85 bell\\a')\nsys.stdout.flush()\n"
        "os.write(1, b'bad \\xff\\xfe\\xc3( end\\n')\nos.write(1, b'\\xf0\\x9f')\n"
        "os.write(1, b'\\x98\\x80\\n')\nos.write(2, b'\\xed\\xa0\\x80\\n')"
    )
    run = sandbox.run(code)
    whole = "".join(run["stdout"])
    assert whole == (
        "nul\0 ls\u2028 ps\u2029 nel\x85 bell\a\nbad \ufffd\ufffd\ufffd( end\n\U0001f600\n"
    )
    assert "".join(run["stderr"]).strip("\ufffd") == "\n"


def test_output_of_children_and_c_code_is_caught(sandbox: Sandbox):
    code = (
        "import ctypes, os, subprocess\nsubprocess.run(['echo', 'child'])\nos.system('echo shell 1>&2')\n"
        "libc = ctypes.CDLL(None)\nlibc.puts(b'from c')\nlibc.fflush(None)\n"
        "import threading\nt = threading.Thread(target=print, args=('thread',)); t.start(); t.join()"
    )
    run = sandbox.run(code)
    assert "".join(run["stdout"]) == "child\nfrom c\nthread\n"
    assert "".join(run["stderr"]) == "shell\n"


def test_a_hundred_megabytes_are_bounded_and_counted(sandbox: Sandbox, neighbour: Sandbox):
    mib, limit = 1 << 20, 32 << 20
    run = sandbox.run(f"for _ in range(100): print('x' * ({mib} - 1))")
    kept = sum(map(len, run["stdout"]))
    assert run["stdoutTruncated"] is True and kept <= limit
    assert kept + run["stdoutOmittedBytes"] == 100 * mib
    assert "stderrTruncated" not in run
    assert sandbox.value("1+1") == "2" and neighbour.value("1+1") == "2"


def test_outputs_in_great_number_are_bounded_and_counted(sandbox: Sandbox):
    run = sandbox.run("for n in range(1000): display(n)")
    assert len(run["outputs"]) + run["outputsOmitted"] == 1000
    assert [o["value"] for o in run["outputs"][:3]] == ["0", "1", "2"]


def test_a_huge_value_is_cut_and_marked(sandbox: Sandbox):
    output = sandbox.run("'y' * 1_000_000")["outputs"][0]
    assert output["truncated"] is True and len(output["value"]) == 256 * 1024
    beyond = sandbox.run("'y' * 100_000_000")["outputs"][0]
    assert (beyond["kind"], beyond["reason"]) == ("rejected", "output_too_large")


# -- rich output


def test_figures_are_refused_by_default_and_inline_when_asked(sandbox: Sandbox):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    by_default = sandbox.run(code)["outputs"]
    assert [
        (o["kind"], o["format"], o.get("reason")) for o in by_default if o["format"] == "png"
    ] == [("rejected", "png", "requires_artifact_promotion")]
    inline = [o for o in sandbox.run(code, richOutputs="inline")["outputs"] if o["format"] == "png"]
    assert inline[0]["kind"] == "inline" and inline[0]["value"].startswith("iVBORw0KGgo")
    assert inline[0]["mimeType"] == "image/png"


def test_representations_of_one_value_belong_together(sandbox: Sandbox):
    code = "import pandas as pd\npd.DataFrame({'a': [1]})"
    outputs = sandbox.run(code, richOutputs="inline")["outputs"]
    assert [o["format"] for o in outputs] == ["text", "data", "html"]
    assert {(o["valueIndex"], o["isResult"]) for o in outputs} == {(0, True)}


def test_a_figure_and_a_table_come_as_data_too(sandbox: Sandbox):
    code = "import matplotlib.pyplot as plt\nplt.bar(['a', 'b'], [5, 5])\nplt.show()"
    chart = next(o for o in sandbox.run(code)["outputs"] if o["format"] == "chart")
    assert (chart["kind"], chart["mimeType"]) == ("inline", "application/vnd.crownest.chart+json")
    (bars,) = chart["value"]["charts"][0]["series"]
    assert (bars["type"], bars["categories"], bars["values"]) == ("bar", ["a", "b"], [5, 5])
    code = "import pandas as pd\npd.DataFrame({'a': [1, 2 ** 60]})"
    table = next(o for o in sandbox.run(code)["outputs"] if o["format"] == "data")
    assert (table["kind"], table["mimeType"]) == ("inline", "application/vnd.crownest.table+json")
    assert table["value"]["rows"] == [["1"], [str(2**60)]]


# -- contexts


def test_the_default_context_keeps_its_state(sandbox: Sandbox):
    first = sandbox.run("x = [1]\ndef f(): return x")
    sandbox.run("x.append(2)")
    assert sandbox.value("f()") == "[1, 2]"
    contexts = sandbox.client.get(f"{sandbox.path}/code/contexts").json()["data"]
    assert [(c["id"], c["isDefault"]) for c in contexts] == [(first["contextId"], True)]


def test_two_contexts_share_files_and_nothing_else(sandbox: Sandbox):
    one, two = sandbox.context(), sandbox.context(cwd="/workspace")
    sandbox.run(
        "x = 'one'; import os; os.environ['E'] = 'one'; open('f', 'w').write(x)", contextId=one
    )
    assert sandbox.run("x", contextId=two)["error"]["name"] == "NameError"
    assert sandbox.value("import os; os.environ.get('E', 'none')", contextId=two) == "none"
    assert sandbox.value("open('f').read()", contextId=two) == "one"
    assert sandbox.value("x", contextId=one) == "one"
    assert sandbox.run("x")["error"]["name"] == "NameError", "nor does the default one know it"


def test_contexts_run_beside_each_other(sandbox: Sandbox):
    one, two = sandbox.context(), sandbox.context()
    with sandbox.streaming(f"print('on')\n{waiting_for('go')}", contextId=one) as response:
        arriving = events(response.iter_lines())
        assert next(arriving)["data"] == "on\n"
        assert sandbox.value("'beside'", contextId=two) == "beside"
        sandbox.signal("go")
        assert list(arriving)[-1]["data"]["outcome"] == "completed"


def test_runs_of_one_context_follow_each_other(sandbox: Sandbox):
    context = sandbox.context()
    sandbox.run("order = []", contextId=context)
    threads = [
        threading.Thread(
            target=sandbox.run,
            args=(f"order.append({n}); import time; time.sleep(0.02); order.append({n})",),
            kwargs={"contextId": context},
        )
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = eval(sandbox.value("order", contextId=context))
    assert order[::2] == order[1::2] and sorted(order[::2]) == list(range(5)), order


def test_contexts_are_listed_read_and_deleted(sandbox: Sandbox):
    made = sandbox.context(cwd="sub/dir") if sandbox.command("mkdir -p sub/dir") else ""
    url = f"{sandbox.path}/code/contexts/{made}"
    context = sandbox.client.get(url).json()["context"]
    assert (context["cwd"], context["language"]) == ("/workspace/sub/dir", "python")
    assert sandbox.value("import os; os.getcwd()", contextId=made) == "/workspace/sub/dir"
    sandbox.run("import subprocess; p = subprocess.Popen(['sleep', '77.7'])", contextId=made)
    assert sandbox.client.delete(url).json()["context"]["id"] == made
    refusal(sandbox.client.get(url), 404, "not_found")
    refusal(sandbox.ask("1", contextId=made), 404, "not_found")
    gone = "pgrep -f 'sleep 77[.]7' || echo none"
    until(lambda: sandbox.command(gone)["stdout"] == "none\n", "the end of the context's child")


def test_a_context_is_of_one_language_and_one_sandbox(make):
    one, two = make(), make()
    context = one.context()
    error = refusal(one.ask("1", contextId=context, language="bash"), 400, "invalid_request")
    assert error["details"]["contextLanguage"] == "python"
    refusal(two.ask("1", contextId=context), 404, "not_found")


def test_the_working_directory_of_one_run(sandbox: Sandbox):
    sandbox.command("mkdir -p a/b")
    assert sandbox.value("import os; os.getcwd()", cwd="a/b") == "/workspace/a/b"
    assert sandbox.value("import os; os.getcwd()") == "/workspace"
    for outside in ("/etc", "../..", "/workspace/../etc"):
        refusal(sandbox.ask("1", cwd=outside), 400, "path_outside_workspace")


def test_a_fresh_context_is_a_new_process_image(sandbox: Sandbox):
    """Forked contexts share memory layout and hash seed with their zygote; a fresh one does not."""
    seed = "hash('a string that is long enough')"
    forked = {sandbox.value(seed, contextId=sandbox.context()) for _ in range(2)}
    fresh = {sandbox.value(seed, contextId=sandbox.context(isolation="fresh")) for _ in range(2)}
    assert len(forked) == 1 and len(fresh) == 2 and not forked & fresh
    bad = {"language": "python", "isolation": "maximum"}
    response = sandbox.client.post(f"{sandbox.path}/code/contexts", json=bad)
    refusal(response, 400, "invalid_request")


def test_forked_contexts_do_not_share_randomness(make):
    code = "import os, random, uuid, numpy\n(random.random(), numpy.random.rand(), uuid.uuid4())"
    drawn = [make().value(code) for _ in range(3)]
    numbers = [number for row in drawn for number in row.strip("()").split(", ")]
    assert len(set(numbers)) == len(numbers), drawn


# -- time


def test_an_endless_loop_ends_at_its_timeout_and_keeps_the_state(sandbox: Sandbox):
    sandbox.run("kept = 1")
    run = sandbox.run("print('on')\nwhile True: kept += 1", timeoutMs=400)
    assert run["outcome"] == "timed_out" and run["stdout"] == ["on\n"]
    assert run["error"]["name"] == "TimeoutError" and "timeout" in run["error"]["message"]
    assert 400 <= run["durationMs"] < 2_000
    assert int(sandbox.value("kept")) > 1
    assert "contextReset" not in sandbox.run("1")


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(60)",
        "import threading\nthreading.Event().wait()",
        "import subprocess\nsubprocess.run(['sleep', '60'])",
        "import select\nselect.select([], [], [])",
        "sum(i for i in range(10**12))",
        "try:\n    while True: len('')\nexcept KeyboardInterrupt: pass\nwhile True: pass",
    ],
    ids=["sleep", "lock", "child", "select", "generator", "caught-once"],
)
def test_whatever_waits_is_ended_at_its_timeout(sandbox: Sandbox, code):
    run = sandbox.run(code, timeoutMs=400)
    assert run["outcome"] == "timed_out" and run["durationMs"] < 10_000
    assert sandbox.value("1+1") == "2"


def test_code_that_ignores_the_interrupt_loses_its_context(sandbox: Sandbox):
    context = sandbox.run("kept = 1")["contextId"]
    run = sandbox.run(IGNORING + "while True: pass", timeoutMs=400)
    assert run["outcome"] == "timed_out" and "lost" in run["error"]["message"]
    after = sandbox.run("'kept' in dir()")
    assert (text(after), after["contextReset"], after["contextId"]) == ("False", True, context)
    assert "contextReset" not in sandbox.run("1"), "it is said once"


def test_an_interpreter_that_ends_is_replaced(sandbox: Sandbox):
    context = sandbox.context()
    for end in (
        "import os; os._exit(7)",
        "import os; os.kill(os.getpid(), 9)",
        "import ctypes; ctypes.string_at(0)",
    ):
        sandbox.run("kept = 1", contextId=context)
        run = sandbox.run(f"print('last words', flush=True)\n{end}", contextId=context)
        assert run["outcome"] == "context_died" and run["stdout"] == ["last words\n"]
        assert run["error"]["name"] == "ContextDied" and "lost" in run["error"]["message"]
        after = sandbox.run("'kept' in dir()", contextId=context)
        assert (text(after), after["contextReset"]) == ("False", True)


def test_a_run_is_interrupted_by_request_and_keeps_its_state(sandbox: Sandbox):
    context = sandbox.context()
    sandbox.run("kept = 1", contextId=context)
    assert sandbox.interrupt(context) is False, "nothing runs"
    endless = "while True:\n    kept += 1\n    if kept == 9: print('on')"
    with sandbox.streaming(endless, contextId=context) as response:
        arriving = events(response.iter_lines())
        assert next(arriving)["data"] == "on\n"
        assert sandbox.interrupt(context) is True
        rest = list(arriving)
    assert [e["type"] for e in rest] == ["error", "complete"]
    run = rest[-1]["data"]
    assert run["outcome"] == "interrupted" and run["error"]["name"] == "Interrupted"
    assert rest[0]["data"] == run["error"], "the only error of the stream is that of the result"
    assert int(sandbox.value("kept", contextId=context)) >= 9
    refusal(
        sandbox.client.post(f"{sandbox.path}/code/contexts/cctx_nobody/interrupt"), 404, "not_found"
    )


def test_an_interrupt_may_be_handled_by_the_code(sandbox: Sandbox):
    context = sandbox.context()
    code = (
        "import time\ntry:\n    print('on')\n    while True: time.sleep(0.01)\n"
        "except KeyboardInterrupt:\n    print('tidied')\n'done'"
    )
    with sandbox.streaming(code, contextId=context) as response:
        arriving = events(response.iter_lines())
        assert next(arriving)["data"] == "on\n"
        assert sandbox.interrupt(context) is True
        last = list(arriving)[-1]["data"]
    assert "".join(last["stdout"]) == "on\ntidied\n" and text(last) == "done"
    assert sandbox.value("1+1", contextId=context) == "2", "no interrupt is left over"


def test_reading_input_fails_at_once_with_a_reason(sandbox: Sandbox):
    run = sandbox.run("input('name? ')", timeoutMs=5_000)
    assert run["outcome"] == "completed" and "input" in run["error"]["message"].lower(), run
    assert sandbox.value("1+1") == "2"
