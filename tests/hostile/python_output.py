"""Attacks with what is printed: how much, when, and which bytes."""

from __future__ import annotations

import json
from ast import literal_eval

from arena import Arena, text
from table import Attack, Json

OUTPUT_BYTES_MAX = 32 * 1024 * 1024
GIGABYTE = 1_000_000_000

ODD_TEXT = (
    r"a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh\ri\x00j\x1b[31mk\ufeff"
    r"l\n\ndata: m\n\nevent: complete\n\n"
)


def total(expected: int):
    """Every byte that was printed is there or counted as left out."""

    def check(arena: Arena, run: Json) -> None:
        kept, omitted = len(text(run).encode()), run.get("stdoutOmittedBytes", 0)
        assert kept + omitted == expected, (kept, omitted)
        assert kept == min(expected, OUTPUT_BYTES_MAX)

    return check


def same_in_the_stream(code: str, expected: str):
    """In the answer and as events: the frames of the stream are cut where the server cuts them."""

    def check(arena: Arena, run: Json) -> None:
        assert text(run) == expected, ascii(text(run))
        frames = arena.stream_bytes(code).split(b"\n\n")
        events = [
            json.loads(frame.split(b"data: ", 1)[1]) for frame in frames if b"data: " in frame
        ]
        kinds = [event["type"] for event in events]
        assert kinds.count("complete") == 1 and kinds[-1] == "complete", kinds
        assert text(events[-1]["run"] if "run" in events[-1] else events[-1]["data"]) == expected

    return check


ODD = f"print('{ODD_TEXT}', end='')"
BYTES = r"""
import os
os.write(1, bytes(range(256)) + b'\xed\xa0\x80\xf5\xc0\x80' + b'\xf0\x9f'); None
"""

OUTPUT = [
    Attack(
        name="prints 1 GB",
        does="writes 1,000,000,000 bytes to stdout",
        code=r"""
            import os
            block = b'x' * 999_999 + b'\n'
            for _ in range(1000):
                rest = block
                while rest: rest = rest[os.write(1, rest):]
        """,
        sees="the first 32 MiB, `stdoutTruncated`, `stdoutOmittedBytes`; a stream has all of it",
        proof=total(GIGABYTE),
        timeout_ms=60_000,
    ),
    Attack(
        name="prints for ever",
        does="prints in an endless loop",
        code="while True: print('x' * 1000)",
        outcome="timed_out",
        error="TimeoutError",
        message="state is kept",
        sees="the first 32 MiB and how much more there was",
        timeout_ms=1000,
        proof=lambda arena, run: much(run),
    ),
    Attack(
        name="one byte at a time",
        does="writes single bytes to both streams in turn",
        code="""
            import os
            for _ in range(100_000): os.write(1, b'x'); os.write(2, b'y')
        """,
        sees="all of them",
        proof=lambda arena, run: both(run, 100_000),
    ),
    Attack(
        name="one line of 40 MB",
        does="prints a line without end",
        code="print('x' * 40_000_000, end='')",
        sees="the first 32 MiB and how much more there was",
        proof=total(40_000_000),
    ),
    Attack(
        name="NUL, U+2028, escapes",
        does="prints NUL, U+2028, U+2029, U+0085, escapes, and what ends an event of a stream",
        code=ODD,
        sees="exactly that, also in the stream, whose events it cannot end",
        proof=same_in_the_stream(ODD, literal_eval(f"'{ODD_TEXT}'")),
    ),
    Attack(
        name="invalid UTF-8",
        does="writes all 256 bytes, surrogates, overlong forms and half a character",
        code=BYTES,
        sees="U+FFFD in place of what is no character",
        proof=same_in_the_stream(
            BYTES,
            (bytes(range(256)) + b"\xed\xa0\x80\xf5\xc0\x80" + b"\xf0\x9f").decode(
                "utf-8", "replace"
            ),
        ),
    ),
    Attack(
        name="lone surrogates",
        does="prints, displays and raises text with a lone surrogate, and names a variable so",
        code=r"""
            globals()['\udc80'] = 1
            print('\ud800')
            display('\ud800')
            raise ValueError('\ud800')
        """,
        error="ValueError",
        message="\\ud800",
        sees="its escape",
        proof=lambda arena, run: surrogates(run),
    ),
    Attack(
        name="thread that prints for ever",
        does="leaves a thread that prints; the run ends, the thread does not",
        code="""
            import threading
            def noise():
                while True: print('n' * 100)
            threading.Thread(target=noise, daemon=True).start()
        """,
        sees="it in later runs; between runs 64 KiB are kept and the rest is counted",
        proof=lambda arena, run: noise_is_counted(arena),
    ),
    Attack(
        name="daemon that prints for ever",
        does="leaves a daemon with the same stdout that writes as fast as it can",
        code="""
            import os
            if os.fork() == 0:
                os.setsid()
                if os.fork(): os._exit(0)
                while True: os.write(1, b'd' * 100)
            os.wait(); None
        """,
        sees="as above",
        proof=lambda arena, run: noise_is_counted(arena),
        left=1,
    ),
    Attack(
        name="C library that keeps its output",
        does="prints through C's buffered stdout, without a flush",
        code="""
            import ctypes
            ctypes.CDLL(None).printf(b'kept in C'); None
        """,
        sees="it: C's stdout is flushed before the end of a run",
        proof=total(len("kept in C")),
    ),
    Attack(
        name="C's stdout locked",
        does="leaves a thread that holds the lock of C's stdout",
        code="""
            import ctypes, threading, time
            libc = ctypes.CDLL(None)
            stdout = ctypes.c_void_p.in_dll(libc, 'stdout')
            done = threading.Event()
            def hold():
                libc.flockfile(stdout); done.set(); time.sleep(1000)
            threading.Thread(target=hold, daemon=True).start(); done.wait(); None
        """,
        outcome="timed_out",
        error="TimeoutError",
        message="state is lost",
        timeout_ms=500,
        kept=False,
    ),
]


def much(run: Json) -> None:
    """On a slow machine less than the limit comes in time, and then nothing is left out."""
    kept, omitted = len(text(run)), run.get("stdoutOmittedBytes", 0)
    assert kept > 0 and (omitted == 0 or kept == OUTPUT_BYTES_MAX), (kept, omitted)


def both(run: Json, count: int) -> None:
    assert text(run) == "x" * count and "".join(run["stderr"]) == "y" * count, run.get("error")


def surrogates(run: Json) -> None:
    assert text(run) == "\\ud800\n", ascii(text(run))
    assert [o["value"] for o in run["outputs"]] == ["\\ud800"], run["outputs"]


def noise_is_counted(arena: Arena) -> None:
    """Runs go on beside it, each with some of it and the number of what belongs to none."""
    for _ in range(200):
        after = arena.run("6 * 7")
        assert after["outcome"] == "completed" and after["outputs"][0]["value"] == "42", after
        if after.get("backgroundDroppedBytes"):
            return
    raise AssertionError("what was printed between runs is nowhere counted")
