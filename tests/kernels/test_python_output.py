"""stdout and stderr: complete, prompt, and repaired after each cell."""

import signal
import time

import pytest

from harness import Died

# Printed in a tight loop ahead of each of the tests about order and loss below.
BURST_LINES = 2_000
BURST = "for i in range(%d): print(i)\n" % BURST_LINES
BURST_OUT = "".join("%d\n" % i for i in range(BURST_LINES))
# Holds the interpreter lock in C, as a long sort or a group-by does: no other thread can act.
LOCKED_S = 8
LOCKED = "import ctypes\nctypes.PyDLL(None).sleep(%d)\n" % LOCKED_S


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


def test_a_burst_is_seen_while_c_code_holds_the_interpreter(context):
    """The last line of a burst must not wait in the process: nobody could bring it out."""
    context.begin(BURST + LOCKED)
    began = time.monotonic()
    context.wait_output(b"\n%d\n" % (BURST_LINES - 1))
    assert time.monotonic() - began < LOCKED_S, "seen only when the C code was done"
    run = context.finish()
    assert (run.out, run.status) == (BURST_OUT, "ok")


@pytest.mark.parametrize(
    ("end", "death"),
    [
        ("import os; os._exit(7)", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL),
        ("import ctypes; ctypes.string_at(8)", signal.SIGSEGV),
    ],
)
def test_a_sudden_end_loses_no_line(context, end, death):
    context.begin(BURST + end)
    with pytest.raises(Died):
        context.finish()
    context.wait_death()
    assert bytes(context.pipes[context.stdout]).decode() == BURST_OUT


def test_all_ways_to_write_keep_their_order(context):
    """print(), the system call, C stdio that is flushed, and children, in a tight loop."""
    rounds = 200
    run = context.run(
        "import ctypes, os, subprocess\nlibc = ctypes.CDLL(None)\n"
        "for i in range(%d):\n"
        "    print('a', i)\n"
        "    os.write(1, b'b\\n')\n"
        "    print('c')\n"
        "    libc.puts(b'd'); libc.fflush(None)\n"
        "    print('e')\n"
        "    if i %% 20 == 0:\n"
        "        subprocess.run(['echo', 'f'], check=True)\n" % rounds
    )
    expected = "".join(
        "a %d\nb\nc\nd\ne\n%s" % (i, "" if i % 20 else "f\n") for i in range(rounds)
    )
    assert run.out == expected


def test_a_fork_within_a_burst_doubles_nothing(context):
    run = context.run(
        "import os\n"
        "for i in range(%d):\n"
        "    print(i)\n"
        "    if i %% 500 == 250:\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n"
        "            print('child', i)\n"
        "            os._exit(0)\n"
        "        os.waitpid(pid, 0)\n" % BURST_LINES
    )
    lines = run.out.splitlines()
    assert [x for x in lines if x.isdigit()] == BURST_OUT.splitlines()
    assert [x for x in lines if not x.isdigit()] == [
        "child %d" % i for i in range(250, BURST_LINES, 500)
    ]
    for i in range(250, BURST_LINES, 500):
        assert lines[lines.index("child %d" % i) - 1] == str(i)


def test_an_interrupt_within_a_burst_loses_and_doubles_nothing(context):
    context.run("printed = -1")
    for _ in range(5):
        context.begin("i = 0\nwhile True:\n    print(i)\n    printed = i\n    i += 1")
        context.wait_output(b"\n500\n")
        context.interrupt()
        run = context.finish()
        assert run.status == "interrupted"
        lines = run.out.splitlines()
        assert lines == [str(i) for i in range(len(lines))]
        # The line that was interrupted may have come whole; those before it have.
        assert len(lines) - 1 - int(context.run("printed").text) in (0, 1)
