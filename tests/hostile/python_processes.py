"""Attacks with processes, threads and signals."""

from __future__ import annotations

from arena import RESOURCES, Arena, text
from table import Attack, Json

SIGSEGV, SIGABRT, SIGKILL = 11, 6, 9


def dies(name: str, does: str, code: str, message: str, on_host: int | None) -> Attack:
    return Attack(
        name=name,
        does=does,
        code=code,
        outcome="context_died",
        error="ContextDied",
        message=message,
        kept=False,
        on_host=on_host,
    )


def spins(name: str, does: str, code: str, kept: bool | None, **more) -> Attack:
    return Attack(
        name=name,
        does=does,
        code=code,
        outcome="timed_out",
        error="TimeoutError",
        message={True: "state is kept", False: "state is lost", None: "the context's state is"}[
            kept
        ],
        timeout_ms=more.pop("timeout_ms", 500),
        kept=kept,
        **more,
    )


def stdout_is(expected: str):
    def check(arena: Arena, run: Json) -> None:
        assert text(run) == expected, run

    return check


PROCESSES = [
    dies(
        "os._exit",
        "calls os._exit(7)",
        """
            import os
            os._exit(7)
        """,
        "exited with code 7",
        7,
    ),
    dies(
        "segmentation fault",
        "reads address 0 through ctypes",
        """
            import ctypes
            ctypes.string_at(0)
        """,
        "signal 11",
        -SIGSEGV,
    ),
    dies(
        "abort",
        "calls os.abort()",
        """
            import os
            os.abort()
        """,
        "signal 6",
        -SIGABRT,
    ),
    dies(
        "SIGKILL to itself",
        "sends itself SIGKILL",
        """
            import os
            os.kill(os.getpid(), 9)
        """,
        "signal 9",
        -SIGKILL,
    ),
    dies(
        "C stack used up",
        "recurses in C until the stack ends",
        """
            import sys
            sys.setrecursionlimit(1 << 30)
            class R:
                def __repr__(self): return repr([self])
            repr(R())
        """,
        "signal 11",
        -SIGSEGV,
    ),
    dies(
        "another program in its place",
        "replaces the interpreter by /bin/echo",
        """
            import os
            os.execv('/bin/echo', ['echo', 'replaced'])
        """,
        "exited with code 0",
        0,
    ),
    dies(
        "the group of the interpreter",
        "sends SIGKILL to its process group and to its parent, whose number is 0",
        """
            import os
            os.kill(0, 9)
        """,
        "signal 9",
        -SIGKILL,
    ),
    Attack(
        name="kill -9 -1",
        does="sends SIGKILL to every process it may",
        code="""
            import os
            os.kill(-1, 9)
            os.kill(os.getpid(), 9)
        """,
        outcome="context_died",
        error="ContextDied",
        message="signal 9",
        kept=False,
        others_kept=False,
    ),
    spins(
        "stops itself",
        "sends itself SIGSTOP",
        """
            import os
            try: os.kill(os.getpid(), 19)
            finally: os.write(1, b'woken')
            while True: pass
        """,
        True,
        sees="the timeout: it is woken to be interrupted",
        proof=stdout_is("woken"),
    ),
    spins(
        "stops itself under a false name",
        "calls itself `) S 1 1 1`, so that /proc reads as if it slept, and stops",
        """
            import ctypes, os
            ctypes.CDLL(None).prctl(15, b') S 1 1 1')
            os.kill(os.getpid(), 19)
            while True: pass
        """,
        True,
    ),
    spins(
        "stopped again and again",
        "has a child that stops it as often as it can",
        """
            import os, signal, time
            parent = os.getpid()
            if os.fork() == 0:
                os.setsid()
                while True: os.kill(parent, 19)
            while True: pass
        """,
        None,
        sees="the timeout; the context is of no use while the child lives, and can be deleted",
    ),
    spins("Python loop", "spins in Python", "while True: pass", True),
    spins(
        "Python loop that catches everything",
        "catches every interrupt and goes on",
        """
            while True:
                try:
                    for _ in iter(int, 1): pass
                except BaseException: pass
        """,
        False,
    ),
    spins(
        "regular expression",
        "backtracks in C for ever",
        """
            import re
            re.match('(a|aa)+$', 'a' * 60 + 'b')
        """,
        True,
    ),
    spins("C loop", "sums a range of 10^12 in C", "sum(range(10 ** 12))", False),
    spins(
        "C loop without the GIL",
        "sleeps in C, where no interrupt is looked at",
        """
            import ctypes
            libc = ctypes.CDLL(None)
            while True: libc.usleep(100_000_000)
        """,
        True,
        sees="the interrupt ends the sleep",
    ),
    spins(
        "SIGINT ignored",
        "ignores SIGINT, then spins",
        """
            import signal
            signal.signal(2, signal.SIG_IGN)
            while True: pass
        """,
        False,
    ),
    spins(
        "every signal masked",
        "masks all signals in all threads, then sleeps",
        """
            import signal, time
            signal.pthread_sigmask(0, range(1, 65))
            time.sleep(1000)
        """,
        False,
    ),
    spins(
        "GIL never given up",
        "sets a switch interval of eleven days and spins in a thread",
        """
            import sys, threading
            sys.setswitchinterval(1e6)
            def spin():
                while True: pass
            threading.Thread(target=spin, daemon=True).start()
            while True: pass
        """,
        False,
    ),
    Attack(
        name="daemon",
        does="leaves a daemon in a session of its own that ignores every signal it can",
        code="""
            import os, signal, time
            if os.fork() == 0:
                os.setsid()
                if os.fork(): os._exit(0)
                for n in range(1, 65):
                    try: signal.signal(n, signal.SIG_IGN)
                    except (OSError, ValueError): pass
                while True: time.sleep(1000)
            os.wait(); print('parent')
        """,
        sees="the end of its run at once; the daemon lives until the sandbox ends",
        proof=stdout_is("parent\n"),
        left=1,
    ),
    Attack(
        name="child that returns from the cell",
        does="forks and lets both go on, print and return a value",
        code="""
            import os
            pid = os.fork()
            print('child' if pid == 0 else 'parent', flush=True)
            if pid: os.waitpid(pid, 0)
            'value'
        """,
        sees="one value and one end; the child ends as a program does",
        proof=lambda arena, run: one_value(run),
    ),
    Attack(
        name="child that raises",
        does="forks, and the child raises SystemExit(4)",
        code="""
            import os
            pid = os.fork()
            if pid == 0: raise SystemExit(4)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        proof=stdout_is("4\n"),
    ),
    Attack(
        name="fork bomb",
        does="forks in an endless loop, in every child as well",
        code="""
            import os
            while True:
                try: os.fork()
                except OSError: pass
        """,
        outcome="timed_out",
        error="TimeoutError",
        timeout_ms=2000,
        fields={"resources": {**RESOURCES, "pids": 48}},
        kept=False,
        proof=lambda arena, run: forks_were_refused(arena),
        left=None,
    ),
    Attack(
        name="thread bomb",
        does="starts threads until it is refused, and waits",
        code="""
            import threading, time
            e = threading.Event()
            n = 0
            try:
                while True:
                    threading.Thread(target=e.wait, daemon=True).start(); n += 1
            except RuntimeError as error: print(error, n > 50)
            e.set(); None
        """,
        sees="`can't start new thread` in its own code",
        proof=lambda arena, run: threads_were_refused(arena, run),
    ),
    Attack(
        name="vfork storm",
        does="starts 150 programs, as many at once as it may",
        code="""
            import subprocess
            running, refused = [], 0
            for _ in range(150):
                try: running.append(subprocess.Popen(['sleep', '1000']))
                except OSError: refused += 1
            for p in running: p.kill()
            for p in running: p.wait()
            print(refused > 40)
        """,
        sees="`Resource temporarily unavailable` in its own code",
        proof=stdout_is("True\n"),
    ),
    Attack(
        name="zombies",
        does="leaves as many unreaped children as it may",
        code="""
            import os
            n = 0
            try:
                while True:
                    if os.fork() == 0: os._exit(0)
                    n += 1
            except OSError: print(n > 50)
            import time
            try:
                while True: os.wait()
            except ChildProcessError: pass
        """,
        proof=stdout_is("True\n"),
    ),
    Attack(
        name="orphans for init",
        does="makes 100 orphans that end at once, for pid 1 to reap",
        code="""
            import os
            for _ in range(100):
                pid = os.fork()
                if pid == 0:
                    if os.fork() == 0: os._exit(0)
                    os._exit(0)
                os.waitpid(pid, 0)
            print('made')
        """,
        timeout_ms=30_000,
        proof=stdout_is("made\n"),
    ),
    Attack(
        name="signals to everybody",
        does="sends all but deadly signals to every process 200 times",
        code="""
            import os
            for _ in range(200):
                for n in (18, 17, 23, 28): os.kill(-1, n)
            print('sent')
        """,
        proof=stdout_is("sent\n"),
    ),
]


def one_value(run: Json) -> None:
    assert sorted(text(run).split()) == ["child", "parent"], run
    assert [o["value"] for o in run["outputs"]] == ["value"], run


def forks_were_refused(arena: Arena) -> None:
    assert arena.pids_refused() > 0


def threads_were_refused(arena: Arena, run: Json) -> None:
    assert text(run) == "can't start new thread True\n", run
    assert arena.pids_refused() > 0
