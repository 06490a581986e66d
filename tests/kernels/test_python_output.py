"""stdout and stderr: complete, prompt, and repaired after each cell."""

import time

import pytest


def test_twenty_megabytes(context):
    run = context.run("for i in range(200_000): print('x' * 99)")
    assert len(run.stdout) == 20_000_000
    assert context.run("1").text == "1"


def test_lines_come_while_the_cell_runs(context):
    context.begin("import time\nprint('Step 1')\ntime.sleep(30)")
    began = time.perf_counter()
    context.wait_output(b"Step 1\n")
    assert time.perf_counter() - began < 5
    context.interrupt()
    assert context.finish().status == "interrupted"


def test_part_of_a_line_comes_before_a_sleep(context):
    context.begin("import time\nprint('.', end='')\ntime.sleep(30)")
    began = time.perf_counter()
    context.wait_output(b".")
    assert time.perf_counter() - began < 5
    context.interrupt()
    context.finish()


def test_part_of_a_line_comes_before_done(context):
    assert context.run("print('no newline', end='')").out == "no newline"
    assert context.run("import sys; sys.stderr.write('e')").err == "e"


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.system('echo hi')",
        "import subprocess; subprocess.run(['echo', 'hi'])",
        "import os; os.write(1, b'hi\\n')",
        "import ctypes; ctypes.CDLL(None).puts(b'hi')",
    ],
)
def test_output_that_python_does_not_see(context, code):
    assert context.run(code + "\nNone").out == "hi\n"


@pytest.mark.parametrize(
    "harm",
    [
        "import sys; sys.stdout.close()",
        "import sys; sys.stdout = None; sys.stderr = None",
        "import sys, io; sys.stdout = sys.stderr = io.StringIO()",
        "import sys; del sys.stdout, sys.stderr",
        "import sys, io; sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
        "import sys; sys.stdout.detach()",
        "import os; os.close(1); os.close(2); os.close(0)",
        "import os; f = os.open('/dev/null', os.O_WRONLY); os.dup2(f, 1); os.dup2(f, 2)",
        "import os; os.closerange(0, 256)",
        "import builtins; builtins.input = None; builtins.print = builtins.print",
        "import sys; sys.stdin.close()",
    ],
)
def test_streams_are_back_in_the_next_cell(context, harm):
    context.run("kept = 1")
    assert context.run(harm).status == "ok"
    run = context.run("import sys, os\nprint('out')\nprint('err', file=sys.stderr)\nos.system('echo sub')\nkept")
    assert (run.out, run.err, run.text) == ("out\nsub\n", "err\n", "1")
    assert context.run("input()").error["name"] == "StdinNotAvailable"


def test_what_a_replaced_stream_held_is_not_lost(context):
    run = context.run(
        "import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('held')"
    )
    assert run.out == "held\n"


def test_redirect_within_a_cell(context):
    run = context.run(
        "import contextlib, io\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n    print('in')\nprint('out')\nb.getvalue()"
    )
    assert (run.out, run.text) == ("out\n", "in\n")


def test_output_precedes_the_display_after_it(context):
    context.begin("print('before', end='')\ndisplay(1)\nimport time\ntime.sleep(30)")
    assert context.event()["ev"] == "display"
    context.drain(context.stdout)
    assert bytes(context.pipes[context.stdout]) == b"before"
    context.interrupt()
    context.finish()


def test_threads_print(context):
    run = context.run(
        "import threading\nts = [threading.Thread(target=print, args=('t%d' % i,)) for i in range(8)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]; None"
    )
    assert sorted(run.out.split()) == ["t%d" % i for i in range(8)]


def test_an_error_in_a_thread_is_on_stderr(context):
    run = context.run("import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start(); t.join()")
    assert run.status == "ok" and "ZeroDivisionError" in run.err
