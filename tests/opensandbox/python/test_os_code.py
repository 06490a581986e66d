"""Code through `CodeInterpreter` and `CodeInterpreterSync`: contexts, runs, events, interrupts."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from code_interpreter import SupportedLanguage
from opensandbox.exceptions import InvalidArgumentException, SandboxApiException

from sdk import lines, out, texts

LANGUAGES = ["python", "java", "go", "typescript", "javascript", "bash"]
SECONDS_OF_INTERRUPT_MAX = 20


@pytest.fixture
def codes(interpreter):
    return interpreter.codes


# -- the interpreter


def test_an_interpreter_wraps_its_sandbox(interpreter):
    sandbox = interpreter.sandbox
    assert interpreter.id == sandbox.id
    assert interpreter.is_healthy() is True and interpreter.ping() is True
    interpreter.check_ready(timedelta(seconds=10), timedelta(milliseconds=20))
    interpreter.files.write_file("/workspace/one", "1")
    assert lines(interpreter.commands.run("cat /workspace/one")) == ["1"]
    assert interpreter.metrics.get_metrics(interpreter.id).cpu_count >= 1
    assert interpreter.codes.ping() is True


def test_closing_leaves_the_sandbox(sdk, interpreter):
    other = sdk.CodeInterpreter.create(sandbox=interpreter.sandbox)
    assert texts(other.codes.run("1+1")) == ["2"]
    other.aclose() if sdk.name == "async" else other.close()
    assert interpreter.is_healthy() and texts(interpreter.codes.run("1+1")) == ["2"]


def test_a_dead_sandbox_is_not_healthy(sdk, create):
    sandbox = create("opensandbox/code-interpreter:v1.0.1")
    interpreter = sdk.CodeInterpreter.create(sandbox=sandbox)
    sandbox.kill()
    assert interpreter.is_healthy() is False and interpreter.ping() is False
    assert interpreter.codes.ping() is False


# -- contexts


def test_create_get_list_and_delete_contexts(codes, refused):
    made = [codes.create_context(SupportedLanguage.PYTHON) for _ in range(2)]
    assert made[0].id != made[1].id and {c.language for c in made} == {"python"}
    got = codes.get_context(made[0].id)
    assert (got.id, got.language) == (made[0].id, "python")
    assert {c.id for c in made} <= {c.id for c in codes.list_contexts("python")}
    assert not {c.id for c in made} & {c.id for c in codes.list_contexts("bash")}
    codes.delete_context(made[0].id)
    refused(404, lambda: codes.get_context(made[0].id), "CONTEXT_NOT_FOUND")
    refused(404, lambda: codes.delete_context(made[0].id), "CONTEXT_NOT_FOUND")
    assert made[0].id not in {c.id for c in codes.list_contexts("python")}
    assert texts(codes.run("1+1", context=made[1])) == ["2"]
    codes.delete_contexts("python")
    assert codes.list_contexts("python") == []
    refused(404, lambda: codes.get_context(made[1].id))


def test_unknown_language(codes):
    with pytest.raises(SandboxApiException) as caught:
        codes.create_context("cobol")
    assert caught.value.status_code in (400, 500) and "cobol" in str(caught.value)


def test_a_run_in_a_deleted_context_fails(codes):
    context = codes.create_context("python")
    codes.delete_context(context.id)
    with pytest.raises(SandboxApiException) as caught:
        codes.run("1", context=context)
    assert caught.value.status_code in (404, 500), caught.value


def test_language_and_context_must_agree(codes):
    context = codes.create_context("python")
    with pytest.raises(InvalidArgumentException):
        codes.run("1", context=context, language="bash")
    with pytest.raises(InvalidArgumentException):
        codes.run("  ")


# -- runs


def test_a_run_and_everything_it_says(codes):
    context = codes.create_context("python")
    before = time.time() * 1000
    run = codes.run("import sys\nprint('a')\nprint('b', file=sys.stderr)\n6*7", context=context)
    assert run.id == context.id, "this is what interrupt takes"
    assert (out(run), "".join(lines(run, "stderr")), texts(run)) == ("a\n", "b\n", ["42"])
    assert run.error is None and run.exit_code is None and run.execution_count == 1
    assert run.complete is not None and run.complete.execution_time_in_millis >= 0
    for message in (*run.logs.stdout, *run.logs.stderr, *run.result, run.complete):
        assert abs(message.timestamp - before) < 60_000, "Unix milliseconds"
    assert run.text == "a\n42"
    assert codes.run("_", context=context).execution_count == 2


def test_handlers_hear_everything_in_order(codes, sdk):
    heard: list[tuple[str, object]] = []

    def hear(name):
        return lambda message: heard.append((name, getattr(message, "text", None)))

    names = ("on_init", "on_stdout", "on_stderr", "on_result", "on_error", "on_execution_complete")
    handlers = sdk.handlers(**{name: hear(name) for name in names})
    run = codes.run("print('x')\n2", language="python", handlers=handlers)
    assert heard[0][0] == "on_init" and heard[-1][0] == "on_execution_complete"
    assert ("on_stdout", "x\n") in heard and ("on_result", "2") in heard
    assert "on_error" not in dict(heard)
    heard.clear()
    codes.run("import sys; print('e', file=sys.stderr); 1/0", handlers=handlers)
    assert heard[-1][0] == "on_error" and ("on_stderr", "e\n") in heard
    assert "on_execution_complete" not in dict(heard), "an error is the end"
    handlers.skip_accumulation = True
    run = codes.run("print('only heard')", handlers=handlers)
    assert run.logs.stdout == [] and ("on_stdout", "only heard\n") in heard


def test_default_contexts(codes):
    codes.run("value = 42", language="python")
    assert texts(codes.run("value", language="python")) == ["42"]
    assert texts(codes.run("value")) == ["42"], "python is what is meant without a language"
    assert texts(codes.run("value", context=codes.create_context("python"))) == []


@pytest.mark.parametrize(
    ("language", "first", "second", "printed"),
    [
        ("python", "x = 20", "print(x + 1)", "21"),
        ("javascript", "let x = 20", "console.log(x + 1)", "21"),
        ("typescript", "let x: number = 20", "console.log(x + 1)", "21"),
        ("bash", "x=20", "echo $((x + 1))", "21"),
        ("java", "int x = 20;", "System.out.println(x + 1);", "21"),
        ("go", "x := 20", 'import "fmt"\nfmt.Println(x + 1)', "21"),
    ],
    ids=LANGUAGES[:1] + ["javascript", "typescript", "bash", "java", "go"],
)
def test_state_in_every_language(codes, language, first, second, printed):
    context = codes.create_context(language)
    assert context.language == language
    run = codes.run(first, context=context)
    assert run.error is None, run
    run = codes.run(second, context=context)
    assert run.error is None and out(run).strip() == printed, run


@pytest.mark.parametrize(
    ("language", "code", "name"),
    [
        ("python", "def f():\n    return {}['k']\nf()", "KeyError"),
        ("javascript", "null.x", "TypeError"),
        ("typescript", "const n: any = null; n.x", "TypeError"),
        ("java", "int[] a = {}; a[1] = 2;", "EvalException"),
        ("bash", "echo x; false", None),
        ("go", "var p *int\n_ = *p", None),
    ],
    ids=lambda value: value if value in LANGUAGES else "",
)
def test_errors(codes, language, code, name):
    context = codes.create_context(language)
    run = codes.run(code, context=context)
    assert run.error is not None and run.complete is None, run
    assert run.error.name and (name is None or run.error.name == name), run.error
    assert isinstance(run.error.traceback, list)
    if language == "java":
        assert run.error.value.startswith("java.lang.ArrayIndexOutOfBoundsException: ")
    if language == "python":
        assert "k" in run.error.value and any("f()" in line for line in run.error.traceback)
    again = codes.run(
        {"java": "1+1", "go": "println(2)"}.get(
            language, "echo 2" if language == "bash" else "1+1"
        ),
        context=context,
    )
    assert again.error is None, "the context goes on"


def test_a_syntax_error(codes):
    run = codes.run("for", language="python")
    assert run.error.name == "SyntaxError"


def test_rich_results_carry_text(codes):
    run = codes.run("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    assert "a" in run.result[0].text and run.error is None


def test_contexts_do_not_see_each_other(codes):
    first, second = (codes.create_context("python") for _ in range(2))
    codes.run("mine = 1", context=first)
    assert codes.run("mine", context=second).error.name == "NameError"


# -- interrupts


def test_interrupt(codes, sdk):
    context = codes.create_context("python")
    codes.run("kept = 41", context=context)
    began = time.monotonic()
    handlers = sdk.handlers(on_stdout=lambda _: codes.interrupt(context.id))
    run = codes.run(
        "print('on', flush=True)\nimport time\ntime.sleep(300)", context=context, handlers=handlers
    )
    assert run.error.name == "KeyboardInterrupt", run
    assert time.monotonic() - began < SECONDS_OF_INTERRUPT_MAX
    assert texts(codes.run("kept + 1", context=context)) == ["42"]


def test_interrupt_of_nothing(codes):
    with pytest.raises(SandboxApiException) as caught:
        codes.interrupt("no-such-context")
    assert caught.value.status_code == 500 and "RUNTIME_ERROR" in str(caught.value)
