"""input(), getpass() and sys.stdin: with somebody who answers, and without."""

import pytest

ENDS = (
    "input('name? ')",
    "import getpass\ngetpass.getpass()",
    "from getpass import getpass\ngetpass()",
)


def answer(peer, value):
    peer.send({"op": "input_reply", "run": peer.run_number, "value": value})


def asked(peer):
    """The next event, which asks."""
    event = peer.event()
    assert event["ev"] == "input" and event["run"] == peer.run_number, event
    return event["prompt"], event["password"]


def test_a_line_is_asked_for(context):
    context.begin("name = input('name? ')\nprint('hello', name)\nname", input=True)
    assert asked(context) == ("name? ", False)
    answer(context, "Zoë 😀")
    run = context.finish()
    assert (run.text, run.out, run.status) == ("Zoë 😀", "hello Zoë 😀\n", "ok")


def test_what_was_printed_comes_before_the_question(context):
    context.begin("print('first', end='')\ninput()", input=True)
    assert asked(context) == ("", False)
    for fd in context.pipes:
        context.drain(fd)
    assert bytes(context.pipes[context.stdout]) == b"first"
    answer(context, "")
    assert context.finish().text == ""


def test_a_password(context):
    for code in ENDS[1:]:
        context.begin(code, input=True)
        assert asked(context) == ("Password: ", True)
        answer(context, "s3cret")
        assert context.finish().text == "s3cret"


def test_many_lines(context):
    context.begin(
        "[input(str(i)) for i in range(50)] == [str(i) * 1000 for i in range(50)]", input=True
    )
    for number in range(50):
        assert asked(context) == (str(number), False)
        answer(context, str(number) * 1000)
    assert context.finish().text == "True"


def test_a_large_answer_arrives_whole(context):
    context.begin("len(input())", input=True)
    asked(context)
    answer(context, "y" * 5_000_000)
    assert context.finish().text == "5000000"


def test_the_end_of_the_input(context):
    context.begin("input()", input=True)
    asked(context)
    answer(context, None)
    run = context.finish()
    assert run.error["name"] == "EOFError" and run.status == "error"


def test_lines_of_sys_stdin(context):
    context.begin(
        "import sys\n[sys.stdin.readline(), list(sys.stdin), sys.stdin.readline()]", input=True
    )
    for value in ("one", "two", "three", None, None):
        asked(context)
        answer(context, value)
    assert context.finish().text == "['one\\n', ['two\\n', 'three\\n'], '']"


@pytest.mark.parametrize("fields", [{}, {"input": False}, {"input": None}])
def test_nobody_answers(context, fields):
    for code in ENDS:
        run = context.run(code, **fields)
        assert run.error["name"] == "StdinNotAvailable" and "not available" in run.error["message"]
    assert (
        context.run("try:\n    input()\nexcept EOFError:\n    print('eof')", **fields).out
        == "eof\n"
    )
    assert (
        context.run(
            "import sys\nsys.stdin.readline(), sys.stdin.read(), list(sys.stdin)", **fields
        ).text
        == "('', '', [])"
    )


def test_the_next_run_is_not_answered(context):
    context.begin("input()", input=True)
    asked(context)
    answer(context, "x")
    context.finish()
    assert context.run("input()").error["name"] == "StdinNotAvailable"


def test_an_interrupt_ends_the_wait(context):
    for frame in (False, True):
        context.begin("kept = 1\ninput('? ')", input=True)
        asked(context)
        context.interrupt(frame=frame)
        run = context.finish()
        assert run.status == "interrupted" and run.error["name"] == "KeyboardInterrupt"
        assert context.run("kept").text == "1"


def test_an_answer_that_comes_too_late_is_dropped(context):
    context.begin("input('? ')", input=True)
    asked(context)
    context.interrupt(frame=True)
    context.finish()
    answer(context, "late")
    context.begin("input('again? ')", input=True)
    assert asked(context) == ("again? ", False)
    context.send({"op": "input_reply", "run": context.run_number - 1, "value": "late too"})
    context.send({"op": "unknown"})
    answer(context, "right")
    assert context.finish().text == "right"


def test_an_interrupt_that_is_handled(context):
    context.begin(
        "try:\n    input()\nexcept KeyboardInterrupt:\n    pass\ninput('second')", input=True
    )
    asked(context)
    context.interrupt(frame=True)
    assert asked(context) == ("second", False)
    answer(context, "fine")
    run = context.finish()
    assert (run.text, run.status) == ("fine", "ok")


def test_threads_and_children_are_not_answered(context):
    run = context.run(
        "import threading, os, sys\nsaid = []\n"
        "def ask():\n    try: input()\n    except EOFError: said.append('eof')\n"
        "t = threading.Thread(target=ask); t.start(); t.join()\n"
        "pid = os.fork()\nif pid == 0:\n    try: input()\n    except EOFError: os._exit(7)\n    os._exit(8)\n"
        "said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])",
        input=True,
    )
    assert run.text == "(['eof'], 7)" and not run.of("input")


def test_hostile_prompts(context):
    context.begin(
        "class P(str):\n    def __str__(self): return 'p' * 10 ** 7\ninput(P())", input=True
    )
    prompt, _ = asked(context)
    assert len(prompt) <= 4096
    answer(context, "x")
    assert context.finish().text == "x"
    context.begin("input('\\ud800')", input=True)
    asked(context)
    answer(context, "x")
    context.finish()
    run = context.run("class P:\n    def __str__(self): 1/0\ninput(P())", input=True)
    assert run.error["name"] == "ZeroDivisionError"


def test_input_while_awaiting(context):
    context.begin("import asyncio\nawait asyncio.sleep(0)\ninput('async? ')", input=True)
    assert asked(context) == ("async? ", False)
    answer(context, "yes")
    assert context.finish().text == "yes"


def test_what_a_cell_does_to_stdin_is_repaired(context):
    context.run("import sys, builtins\nsys.stdin.close()\nbuiltins.input = lambda p='': 'fake'")
    context.begin("input()", input=True)
    asked(context)
    answer(context, "real")
    assert context.finish().text == "real"
    assert (
        context.run("sys.stdin.fileno(), sys.stdin.isatty(), sys.stdin.read()").text
        == "(0, False, '')"
    )


def test_the_peer_goes_away_while_asked(context):
    context.begin("input()", input=True)
    asked(context)
    context.control.shutdown(2)
    context.wait_death()
