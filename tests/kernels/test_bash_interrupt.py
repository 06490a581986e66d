"""SIGINT and the shell: at any moment, to anything that a cell runs."""

from __future__ import annotations

import random

import pytest

from test_bash_hostile import context, run  # noqa: F401


@pytest.mark.parametrize(
    "code",
    [
        "while :; do :; done",
        "sleep 60",
        "sleep 60 | cat",
        "cat <(sleep 60)",
        "x=$(sleep 60)",
        "(sleep 60; echo never)",
        "f() { g; echo never; }; g() { sleep 60; echo never; }; f",
        "for i in 1 2 3; do sleep 60; echo never; done",
        "while :; do /bin/true; done",
        "timeout 60 sleep 60",
        "timeout 60 bash -c 'sleep 60; echo never'",
        "setsid -w sleep 60",
        "set -m; sleep 60",
        "sleep 60 & wait",
        "python3 -c 'import time; time.sleep(60)' 2>/dev/null",
        "exec 3< <(sleep 60); read -ru3 x",
        "mkfifo pipe; read -r x < pipe",
        "bash -c 'bash -c \"sleep 60\"'",
        "yes > /dev/null",
        "trap 'true' USR1; sleep 60",
    ],
)
def test_interrupt_keeps_state(context, code):  # noqa: F811
    assert run(context, "kept=1").status == "ok"
    context.begin(f"kept=2; echo go; {code}\necho never")
    context.wait_output(b"go\n")
    context.interrupt(frame=True)
    result = context.finish(timeout=20)
    assert (result.status, result.error["name"]) == ("interrupted", "Interrupted")
    assert result.out == "go\n"
    after = run(context, "echo $kept $?; set +m")
    # A session of its own cannot be reached: the shell is replaced, with what was kept before.
    known = ["1 130\n", "2 130\n"] if "setsid" in code or "set -m" in code else ["2 130\n"]
    assert after.out in known


def test_an_interrupt_while_a_program_starts_keeps_the_shell(context):  # noqa: F811
    """With a trap of its own a shell takes long from fork to exec: many of these hit that moment."""
    assert run(context, "trap 'true' USR1").status == "ok"
    for number in range(60):
        context.begin(f"kept={number}; echo go; sleep 60\necho never")
        context.wait_output(b"go\n")
        context.interrupt(frame=True)
        result = context.finish(timeout=20)
        assert (result.status, result.of("notice")) == ("interrupted", [])
        assert run(context, "echo $kept $?").out == f"{number} 130\n"


def test_an_interrupt_at_any_moment_ends_its_run_and_no_other(context):  # noqa: F811
    lost = 0
    for number in range(300):
        context.begin(f"kept={number}; while :; do :; done")
        for _ in range(random.randrange(2000)):
            pass
        context.interrupt(frame=True)
        result = context.finish(timeout=20)
        assert result.status == "interrupted"
        lost += bool(result.of("notice"))
        after = run(context, "echo ok")
        assert (after.out, after.err, after.status) == ("ok\n", "", "ok")
    assert lost == 0, "every one was ended by SIGINT alone"


def test_an_interrupt_around_the_end_of_a_run_harms_nothing(context):  # noqa: F811
    for number in range(300):
        context.begin(f"kept={number}")
        for _ in range(random.randrange(4000)):
            pass
        context.interrupt(frame=True)
        assert context.finish(timeout=20).status in ("ok", "interrupted")
        after = run(context, "echo $((1 + 1))")
        assert (after.out, after.err, after.status) == ("2\n", "", "ok")


def test_an_interrupt_of_another_run_is_nobodys(context):  # noqa: F811
    for _ in range(50):
        run(context, "true")
        context.interrupt(frame=True)
        context.send({"op": "interrupt", "run": 10**9})
        assert run(context, "sleep 0.01; echo ok").out == "ok\n"


def test_code_may_handle_it(context):  # noqa: F811
    context.begin("trap 'echo caught; stop=1' INT; echo go; until [[ $stop ]]; do sleep 0.01; done; trap - INT")
    context.wait_output(b"go\n")
    context.interrupt(frame=True)
    result = context.finish(timeout=20)
    assert (result.status, result.out) == ("ok", "go\ncaught\n")


def test_a_program_may_handle_it(context):  # noqa: F811
    handler = "import time\ntry:\n  print(\"go\", flush=True); time.sleep(60)\nexcept KeyboardInterrupt: print(\"caught\")"
    context.begin(f"python3 -c '{handler}'; echo goes on")
    context.wait_output(b"go\n")
    context.interrupt(frame=True)
    result = context.finish(timeout=20)
    assert (result.status, result.out) == ("ok", "go\ncaught\ngoes on\n")


def test_what_ignores_it_is_killed_and_its_state_comes_from_before(context):  # noqa: F811
    run(context, "kept=1")
    context.begin("kept=2; trap '' INT; sleep 60 & echo go; while :; do :; done")
    context.wait_output(b"go\n")
    context.interrupt(frame=True)
    result = context.finish(timeout=20)
    assert result.status == "interrupted" and result.of("notice")[0]["code"] == "state_not_kept"
    assert run(context, "echo $kept; jobs").out == "1\n"


def test_jobs_of_earlier_cells_are_left_alone(context):  # noqa: F811
    run(context, "sleep 60 & timeout 60 sleep 60 & bash -c 'sleep 60' & sleep 0.1")
    context.begin("echo go; timeout 60 sleep 60")
    context.wait_output(b"go\n")
    context.interrupt(frame=True)
    assert context.finish(timeout=20).status == "interrupted"
    assert run(context, "jobs -r | wc -l; kill %1 %2 %3").out.strip() == "3"


def test_a_cell_that_waits_for_input_is_interrupted(context):  # noqa: F811
    context.begin("read -rp 'who? ' name; echo never", input=True)
    event = context.event()
    assert (event["ev"], event["prompt"]) == ("input", "who? ")
    context.interrupt(frame=True)
    assert context.finish(timeout=20).status == "interrupted"
    context.send({"op": "input_reply", "run": context.run_number, "value": "late"})
    assert run(context, "echo \"<$name>\"; read -r x; echo \"<$x>\"").out == "<>\n<>\n"
