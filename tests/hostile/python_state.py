"""Attacks on the interpreter itself: what the kernel's code could rely on, replaced or broken."""

from __future__ import annotations

from arena import Arena, text
from table import Attack, Json


def prints(expected: str):
    def check(arena: Arena, run: Json) -> None:
        assert text(run) == expected, run
        after = arena.run("print('again'); 1 + 1")
        assert text(after) == "again\n" and after["outputs"][0]["value"] == "2", after

    return check


def alarm_is_told(arena: Arena) -> None:
    """It goes off between two runs; what its handler raised is on stderr of a later one."""
    for _ in range(400):
        after = arena.run("import time; time.sleep(0.005)")
        assert after["outcome"] == "completed" and not after.get("contextReset"), after
        if "late alarm" in "".join(after["stderr"]) + str(after.get("error")):
            return
    raise AssertionError("the alarm is nowhere told")


STREAM = "class S:\n    def write(self, text): return len(text)\n    def flush(self):\n        {}\n"


STATE = [
    Attack(
        name="exit()",
        does="calls exit(3)",
        code="""
            import sys
            sys.exit(3)
        """,
        error="SystemExit",
        message="3",
        on_host=3,
    ),
    Attack(
        name="exit with an evil code",
        does="raises SystemExit with a code whose `__str__` raises",
        code="""
            class C:
                def __str__(self): raise BaseException('no')
            raise SystemExit(C())
        """,
        error="SystemExit",
    ),
    Attack(
        name="exit hooks that hang",
        does="registers an exit hook that never returns, then exits",
        code="""
            import atexit, sys, time
            atexit.register(time.sleep, 10_000)
            sys.exit(0)
        """,
        error="SystemExit",
        sees="the exit of its run; ending the context waits for no hook",
    ),
    Attack(
        name="streams that raise",
        does="replaces stdout by an object whose `flush` raises SystemExit",
        code="""
            import sys
            class S:
                def write(self, text): return len(text)
                def flush(self):
                    raise SystemExit(9)
            sys.stdout = sys.stderr = S()
        """,
        error="SystemExit",
        message="9",
        aftermath=lambda arena: prints("")(arena, {"stdout": []}),
    ),
    Attack(
        name="streams that hang",
        does="replaces stdout by an object whose `flush` spins",
        code="""
            import sys
            class S:
                def write(self, text): return len(text)
                def flush(self):
                    while True: pass
            sys.stdout = sys.stderr = S()
        """,
        outcome="timed_out",
        error="TimeoutError",
        message="state is kept",
        timeout_ms=500,
    ),
    Attack(
        name="no streams",
        does="deletes sys.stdout, sys.stderr and sys.stdin",
        code="""
            import sys
            print('before')
            del sys.stdout, sys.stderr, sys.stdin, sys.__stdout__
        """,
        proof=prints("before\n"),
    ),
    Attack(
        name="functions of os, json, struct, time replaced",
        does="replaces functions of os, json, struct, time and select that a kernel needs",
        code="""
            import json, os, select, struct, time
            def no(*a, **k): raise SystemExit('replaced')
            for module, names in (
                (os, 'write read fstat dup2 close getpid chdir getcwd _exit'),
                (json, 'dumps loads'),
                (json.encoder, 'encode_basestring c_make_encoder'),
                (struct, 'pack unpack'),
                (time, 'sleep process_time_ns'),
                (select, 'select'),
            ):
                for name in names.split(): setattr(module, name, no)
            print('done')
        """,
        proof=prints("done\n"),
    ),
    Attack(
        name="builtins replaced",
        does="replaces print, compile, exec, eval, repr and `__import__`",
        code="""
            import builtins
            keep = print
            def no(*a, **k): raise SystemExit('replaced')
            for name in 'print compile exec eval repr input display'.split():
                setattr(builtins, name, no)
            keep('done')
        """,
        sees="its own context without them, as it wished",
    ),
    Attack(
        name="builtins emptied",
        does="empties the module of builtins",
        code="""
            import builtins
            builtins.__dict__.clear()
        """,
        outcome="context_died",
        error="ContextDied",
        kept=False,
    ),
    Attack(
        name="modules emptied",
        does="empties sys.modules, sys.path and linecache",
        code="""
            import linecache, sys
            linecache.cache = None
            sys.modules.clear(); sys.path.clear(); sys.meta_path.clear()
        """,
    ),
    Attack(
        name="trace and profile functions",
        does="leaves a trace and a profile function that raise SystemExit in every call",
        code="""
            import sys
            def no(*a): raise SystemExit('traced')
            sys.settrace(no); sys.setprofile(no)
        """,
        error="SystemExit",
    ),
    Attack(
        name="recursion",
        does="recurses without end",
        code="""
            def f(): return f()
            f()
        """,
        error="RecursionError",
        message="maximum recursion depth",
        on_host=1,
    ),
    Attack(
        name="recursion limit of 30",
        does="leaves a recursion limit too low for the kernel itself, and no way to set one",
        code="""
            import sys
            sys.setrecursionlimit(30)
            def no(*a): raise SystemExit
            sys.setrecursionlimit = no
        """,
    ),
    Attack(
        name="garbage collector abused",
        does="freezes, disables and hooks the garbage collector with a callback that raises",
        code="""
            import gc
            gc.freeze(); gc.disable()
            def no(*a): raise SystemExit
            gc.callbacks.append(no)
            gc.enable(); gc.set_threshold(1)
            x = [[] for _ in range(1000)]; None
        """,
        sees="its own callback's errors on stderr",
    ),
    Attack(
        name="alarm that goes off later",
        does="sets an alarm whose handler raises, and returns before it goes off",
        code="""
            import signal
            def late(*a): raise TimeoutError('late alarm')
            signal.signal(signal.SIGALRM, late)
            signal.setitimer(signal.ITIMER_REAL, 0.2); None
        """,
        sees="the handler's error on stderr of the next run, or in the run it goes off in",
        aftermath=alarm_is_told,
    ),
    Attack(
        name="working directory removed",
        does="removes the directory it is in",
        code="""
            import os
            os.mkdir('/tmp/gone'); os.chdir('/tmp/gone'); os.rmdir('/tmp/gone')
        """,
    ),
    Attack(
        name="workspace removed",
        does="removes all that it may from /workspace, /home and /tmp, and closes /workspace",
        code="""
            import os, shutil
            for d in ('/workspace', '/home/user', '/tmp'): shutil.rmtree(d, ignore_errors=True)
            os.path.exists('/workspace') and os.chmod('/workspace', 0)
        """,
        aftermath=lambda arena: arena.run("import os\nos.chmod('/workspace', 0o755)"),
    ),
    Attack(
        name="locale, time zone and hash of its own",
        does="changes locale, time zone, umask and nice value of its process",
        code="""
            import locale, os, time
            os.environ.clear(); os.environ['TZ'] = 'X' * 100_000; time.tzset()
            os.umask(0o777); os.nice(19)
        """,
        # Files that the context makes later are its own concern.
    ),
    Attack(
        name="address space of nothing",
        does="limits its own address space, file size and descriptors to nothing",
        code="""
            import resource
            for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS):
                resource.setrlimit(what, (0, 0))
        """,
        aftermath=lambda arena: None,
    ),
]
