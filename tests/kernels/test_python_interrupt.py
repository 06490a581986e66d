"""SIGINT, death and processes."""


import pytest

BUSY = "print('go')\nwhile True: pass"


@pytest.mark.parametrize(
    "code",
    [
        BUSY,
        "import time\nprint('go')\ntime.sleep(60)",
        "import subprocess\nprint('go')\nsubprocess.run(['sleep', '60'])",
        "import asyncio\nprint('go')\nawait asyncio.sleep(60)",
        "import asyncio\nasync def f():\n    while True: pass\nprint('go')\nawait f()",
        "import asyncio\nprint('go')\nasyncio.run(asyncio.sleep(60))",
        "import threading\nprint('go')\nthreading.Event().wait()",
        "class A:\n    def __repr__(self):\n        while True: pass\nprint('go')\nA()",
    ],
)
def test_interrupt_keeps_state(context, code):
    context.run("x = 41")
    context.begin(code)
    context.wait_output(b"go\n")
    context.interrupt()
    run = context.finish()
    assert run.status == "interrupted"
    assert run.error["name"] == "KeyboardInterrupt"
    assert context.run("x + 1").text == "42"
    assert context.run("import asyncio\nawait asyncio.sleep(0)\n5").text == "5"


def test_interrupts_while_idle_are_swallowed(context):
    for _ in range(20):
        context.interrupt()
        run = context.run("1+1")
        assert (run.status, run.text) == ("ok", "2")


def test_interrupt_that_overtakes_its_run(context):
    """Sent right behind `execute`: with its frame it is never lost, however early it comes."""
    for _ in range(200):
        context.begin("while True: pass")
        context.interrupt(frame=True)
        assert context.finish().status == "interrupted"


def test_frame_of_an_earlier_run_interrupts_nothing(context):
    for _ in range(100):
        context.run("1")
        context.interrupt(frame=True)
        assert context.run("sum(range(1000))").status == "ok"


def test_code_may_catch_it(context):
    context.begin("try:\n    print('go')\n    while True: pass\nexcept KeyboardInterrupt:\n    print('caught')\n5")
    context.wait_output(b"go\n")
    context.interrupt()
    run = context.finish()
    assert (run.status, run.text) == ("ok", "5") and "caught" in run.out


def test_second_interrupt_reaches_code_that_caught_the_first(context):
    context.begin(
        "while True:\n    try:\n        print('go')\n        while True: pass\n    except KeyboardInterrupt:\n"
        "        print('caught')\n        break\nwhile True: pass"
    )
    context.wait_output(b"go\n")
    context.interrupt()
    context.wait_output(b"caught\n")
    context.interrupt()
    assert context.finish().status == "interrupted"


def test_handler_is_restored_after_a_cell_that_ignores_it(context):
    context.run("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)")
    context.begin(BUSY)
    context.wait_output(b"go\n")
    context.interrupt()
    assert context.finish().status == "interrupted"


def test_a_cell_that_ignores_it_runs_on(context):
    context.begin(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('go')\ntime.sleep(0.3)\n'through'"
    )
    context.wait_output(b"go\n")
    context.interrupt()
    assert context.finish().text == "through"


def test_interrupt_during_displays_never_breaks_a_frame(context):
    for _ in range(20):
        context.begin("print('go')\nwhile True: display('x' * 10_000)")
        context.wait_output(b"go\n")
        for _ in range(5):
            context.event()
        context.interrupt()
        assert context.finish().status == "interrupted"
    assert context.run("1").text == "1"


def test_raised_by_the_program_itself(context):
    run = context.run("raise KeyboardInterrupt")
    assert (run.status, run.error["name"]) == ("error", "KeyboardInterrupt")


def test_end_of_the_control_socket_ends_the_driver(context):
    context.run("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()")
    context.control.shutdown(2)
    context.wait_death()


def test_fork_in_a_cell_makes_no_second_driver(context):
    run = context.run("import os\nprint('once', flush=True)\npid = os.fork()\nprint('twice', flush=True)\nif pid: os.waitpid(pid, 0)\n'value'")
    assert run.out.count("twice") == 2
    assert len(run.of("result")) == len(run.of("done")) == 1
    assert context.run("1").text == "1"


@pytest.mark.parametrize("end, code", [("1/0", 1), ("raise SystemExit(7)", 7), ("pass", 0)])
def test_forked_child_ends_as_a_program(context, end, code):
    run = context.run(
        "import os\npid = os.fork()\nif pid == 0:\n    %s\nelse:\n    status = os.waitpid(pid, 0)[1]\nos.waitstatus_to_exitcode(status) if pid else None" % end
    )
    assert run.text == str(code)
    assert ("ZeroDivisionError" in run.err) == (code == 1)


def test_children_cannot_forge_frames(context):
    run = context.run(
        "import os\npid = os.fork()\nif pid == 0:\n    import socket, stat\n    n = 0\n"
        "    for fd in os.listdir('/proc/self/fd'):\n        try:\n            n += stat.S_ISSOCK(os.fstat(int(fd)).st_mode)\n"
        "        except OSError: pass\n    display('forged')\n    os._exit(n)\n"
        "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    assert run.text == "0" and not run.of("display")


def test_programs_do_not_inherit_private_fds(context):
    run = context.run("import subprocess\nprint(subprocess.run(['ls', '/proc/self/fd'], close_fds=False, capture_output=True, text=True).stdout)")
    assert max(map(int, run.out.split())) < 10


def test_multiprocessing(context):
    run = context.run("def sq(x): return x * x\nimport multiprocessing as mp\nwith mp.Pool(2) as p: r = p.map(sq, range(5))\nr")
    assert run.text == "[0, 1, 4, 9, 16]", run.err
    run = context.run("from concurrent.futures import ProcessPoolExecutor\nwith ProcessPoolExecutor(2) as e: r = list(e.map(sq, range(4)))\nr")
    assert run.text == "[0, 1, 4, 9]", run.err
    run = context.run("from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as e: r = list(e.map(sq, range(4)))\nr")
    assert run.text == "[0, 1, 4, 9]"


def test_exit_codes_of_programs(context):
    assert context.run("import subprocess, sys\nsubprocess.run(['sh', '-c', 'exit 5']).returncode").text == "5"
    assert context.run("subprocess.run([sys.executable, '-c', 'print(6)'], capture_output=True, text=True).stdout").text == "6\n"
    assert context.run("import os\nos.system('exit 3') >> 8").text == "3"


def test_daemon_that_holds_the_pipes_does_not_hold_the_run(context):
    run = context.run("import subprocess\np = subprocess.Popen(['sleep', '30'])\n'done'")
    assert run.text == "done" and run.seconds < 10
    context.run("p.kill()")


def test_crash_says_where(context):
    from harness import Died

    context.begin("import ctypes\nctypes.string_at(8)")
    with pytest.raises(Died) as died:
        context.finish()
    assert "Segmentation fault" in str(died.value)
    context.wait_death()


def test_os_exit_kills_the_context(context):
    from harness import Died

    context.begin("import os\nos._exit(9)")
    with pytest.raises(Died):
        context.finish()
    context.wait_death()


def test_recovers_from_broken_limits(context):
    context.run("import sys\nfor n in range(100):\n    try:\n        sys.setrecursionlimit(n)\n        break\n    except (RecursionError, ValueError): pass\n1/0")
    assert context.run("1+1").text == "2"
