"""Attacks with values and exceptions: what is shown of them is code of the attacker's."""

from __future__ import annotations

from arena import Arena, text
from table import Attack, Json

TEXT_INLINE_BYTES_MAX = 256 * 1024
ERROR_BYTES_MAX = 2 * 1024 * 1024


def outputs(*expected: tuple):
    """Kind, format and reason of every output."""

    def check(arena: Arena, run: Json) -> None:
        found = [(o["kind"], o["format"], o.get("reason")) for o in run["outputs"]]
        assert found == list(expected), str(run)[:2000]

    return check


def said(*parts: str):
    """On stderr."""

    def check(arena: Arena, run: Json) -> None:
        found = "".join(run["stderr"])
        assert all(part in found for part in parts), found[:2000]

    return check


def short_error(*lines: str):
    """The traceback has these lines, and is bounded."""

    def check(arena: Arena, run: Json) -> None:
        shown = "\n".join(run["error"]["traceback"])
        assert all(line in shown for line in lines), shown[-2000:]
        assert len(str(run["error"])) < ERROR_BYTES_MAX

    return check


def exception(body: str, base: str = "Exception") -> str:
    return f"import time\nclass E({base}):\n    def __str__(self):\n        {body}\nraise E()"


VALUES = [
    Attack(
        name="repr that never ends",
        does="returns a value whose `__repr__` spins",
        code="""
            class R:
                def __repr__(self):
                    while True: pass
            R()
        """,
        outcome="timed_out",
        error="TimeoutError",
        message="state is kept",
        timeout_ms=500,
    ),
    Attack(
        name="generator without end in a repr",
        does="returns a value whose `__repr__` joins an endless generator, to the memory limit",
        code="""
            import itertools
            class R:
                def __repr__(self): return ''.join('x' * 1_000_000 for _ in itertools.count())
            R()
        """,
        outcome="out_of_memory",
        error="OutOfMemory",
        kept=False,
        proof=lambda arena, run: killed_for_memory(arena),
    ),
    Attack(
        name="repr of 200 MB",
        does="returns a value whose `__repr__` is 200 MB long",
        code="""
            class R:
                def __repr__(self): return 'x' * 200_000_000
            R()
        """,
        sees="a rejected output: `output_too_large`",
        proof=outputs(("rejected", "text", "output_too_large")),
    ),
    Attack(
        name="repr that raises",
        does="returns a value whose `__repr__` raises a BaseException of its own",
        code="""
            class B(BaseException): pass
            class R:
                def __repr__(self): raise B('no')
            R()
        """,
        error="B",
        message="no",
    ),
    Attack(
        name="repr that exits",
        does="returns a value whose `__repr__` raises SystemExit",
        code="""
            class R:
                def __repr__(self): raise SystemExit(5)
            R()
        """,
        error="SystemExit",
        message="5",
    ),
    Attack(
        name="value that answers to every name",
        does="returns a value with a `__getattr__` that never ends, and `__class__` that raises",
        code="""
            class R:
                def __getattr__(self, name):
                    while True: pass
                @property
                def __class__(self): raise ValueError('no class')
                def __repr__(self): return 'shown'
            R()
        """,
        sees="its repr: methods are looked up on the type",
        proof=lambda arena, run: shown(run),
    ),
    Attack(
        name="metaclass in the way",
        does="raises an exception whose metaclass raises for `__name__` and `__mro__`",
        code="""
            class M(type):
                @property
                def __name__(self): raise SystemExit
                def __getattribute__(self, name): raise BaseException(name)
            class E(Exception, metaclass=M): pass
            raise E('x')
        """,
        error="E",
    ),
    Attack(
        name="HTML of 100 MB",
        does="returns a value whose `_repr_html_` is 100 MB long",
        code="""
            class R:
                def _repr_html_(self): return 'x' * 100_000_000
                def __repr__(self): return 'r'
            R()
        """,
        sees="its text, and a rejected output",
        proof=outputs(("inline", "text", None), ("rejected", "html", "output_too_large")),
    ),
    Attack(
        name="100,000 representations",
        does="returns a value with a MIME bundle of 100,000 types",
        code="""
            class R:
                def _repr_mimebundle_(self, **_):
                    return {'text/x-%d' % i: 'y' for i in range(100_000)}
            R()
        """,
        sees="the first 64",
        proof=lambda arena, run: at_most_64(run),
    ),
    Attack(
        name="JSON of a million levels",
        does="displays JSON nested 1,000,000 deep",
        code="""
            x = []
            for _ in range(1_000_000): x = [x]
            class R:
                def _repr_json_(self): return x
                def __repr__(self): return 'r'
            R()
        """,
        sees="its text; on stderr why the JSON was left out",
        proof=said("nested more than 64 levels"),
    ),
    Attack(
        name="integer of ten million digits",
        does="returns 10 ** 10,000,000, with Python's own limit of digits taken away",
        code="""
            import sys
            sys.set_int_max_str_digits(0)
            1 << 40_000_000
        """,
        outcome="timed_out",
        error="TimeoutError",
        timeout_ms=700,
    ),
    Attack(
        name="exception that cannot be told",
        does="raises an exception whose `__str__` raises SystemExit",
        code=exception("raise SystemExit"),
        error="E",
        message="failed",
    ),
    Attack(
        name="exception whose text never ends",
        does="raises an exception whose `__str__` spins",
        code=exception("while True: pass"),
        outcome="timed_out",
        error="TimeoutError",
        message="state is kept",
        timeout_ms=500,
    ),
    Attack(
        name="exception whose text resists",
        does="raises an exception whose `__str__` catches every interrupt and goes on",
        code=exception(
            "while True:\n            try: time.sleep(60)\n            except BaseException: pass"
        ),
        outcome="timed_out",
        error="TimeoutError",
        message="state is lost",
        timeout_ms=500,
        kept=False,
    ),
    Attack(
        name="exception of 100 MB",
        does="raises an exception with a text of 100 MB",
        code="raise ValueError('x' * 100_000_000)",
        error="ValueError",
        message="characters more",
        sees="the first 63 KiB, and how many characters more there were",
        proof=short_error("ValueError"),
    ),
    Attack(
        name="exception that is false",
        does="raises a KeyboardInterrupt that has no truth, no class and no traceback of its own",
        code="""
            class E(KeyboardInterrupt):
                def __bool__(self): raise SystemExit
                def __eq__(self, o): raise SystemExit
                @property
                def __class__(self): raise SystemExit
                def __setattr__(self, n, v): raise SystemExit
                @property
                def __traceback__(self): raise SystemExit
            raise E('x')
        """,
        error="E",
    ),
    Attack(
        name="chain of 10,000 exceptions",
        does="raises an exception that was caused by 9,999 others in a row",
        code="""
            error = None
            for i in range(10_000):
                new = ValueError(i); new.__cause__ = error; error = new
            raise error
        """,
        error="ValueError",
        message="9999",
        sees="the first and last 200 lines of the traceback, and how many were left out",
        proof=short_error("lines left out", "ValueError: 9999"),
    ),
    Attack(
        name="exception that caused itself",
        does="raises exceptions whose causes form a circle",
        code="""
            a, b = ValueError('a'), ValueError('b')
            a.__cause__, b.__cause__, a.__context__ = b, a, a
            raise a
        """,
        error="ValueError",
        message="a",
    ),
    Attack(
        name="groups of groups",
        does="raises an ExceptionGroup nested 5,000 deep",
        code="""
            error = ValueError('core')
            for _ in range(5_000): error = ExceptionGroup('g', [error])
            raise error
        """,
        error="ExceptionGroup",
    ),
    Attack(
        name="traceback of 5,000 frames",
        does="raises through 5,000 different frames",
        code="""
            import sys
            sys.setrecursionlimit(10_000)
            def f(n): return f(n - 1) + g(n) if n else 1 / 0
            def g(n): return n
            f(5_000)
        """,
        error="ZeroDivisionError",
        message="division by zero",
        sees="the traceback, with repeated lines counted",
        proof=short_error("Previous line repeated"),
    ),
    Attack(
        name="displays what raises, 1,000 times",
        does="displays 1,000 values whose representations raise",
        code="""
            class R:
                def _repr_html_(self): raise ValueError('no html')
                def __repr__(self): return 'r'
            for _ in range(1_000): display(R())
        """,
        sees="256 texts, the number of the others, and every failure on stderr",
        proof=said("no html"),
    ),
    Attack(
        name="values that close what they are shown on",
        does="returns a value whose `__repr__` closes the streams and descriptors 0 to 2",
        code="""
            import os, sys
            class R:
                def __repr__(self):
                    sys.stdout.close(); os.closerange(0, 3)
                    return 'r'
            R()
        """,
        proof=outputs(("inline", "text", None)),
    ),
]


def killed_for_memory(arena: Arena) -> None:
    assert arena.memory_kills() > 0


def shown(run: Json) -> None:
    assert [o["value"] for o in run["outputs"]] == ["shown"], run["outputs"]
    assert text(run) == ""


def at_most_64(run: Json) -> None:
    assert 0 < len(run["outputs"]) <= 65, len(run["outputs"])
