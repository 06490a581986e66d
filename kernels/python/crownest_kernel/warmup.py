"""Cells that a zygote runs before its first fork.

Whatever is touched for the first time in a child costs page faults there, for every context
again: so the paths that a first result takes are walked once here, and the traces removed.
"""

import _signal  # without the enum conversions of `signal`
import ctypes
import gc
import json
import os
import random
import sys

from . import frames

_TO_NOBODY = os.O_WRONLY | os.O_CLOEXEC
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_HUGE_PAGE_BYTES = 2 * 1024 * 1024
# Larger areas are room that some library has set aside and not used.
_HUGE_AREA_BYTES_MAX = 512 * 1024 * 1024

# The interpreter rewrites code that has run a few times, which is a copied page in a child: cheap
# cells run until it has settled, expensive ones only to bring their data in.
_ROUNDS = 40
_LIBRARY_ROUNDS = 3

# One cell per path of a first result. Optional libraries are allowed to be missing.
_CELLS = (
    "1+1",
    "print('warm')\nx = [1, 2, 3]\nx",
    "import sys, os, json, math, time, subprocess, threading\ntime.sleep(0)",
    "'text'",
    "def f(n):\n    return 1 / n\nf(0)",
    "x = = 1",
    "import asyncio\nawait asyncio.sleep(0)",
    "display({'a': 1})",
    "import tempfile, re, datetime, collections, itertools, functools, random\nrandom.random()",
    "raise SystemExit",
)
# What a context is told while it waits, as init would tell it.
_PRIMING = tuple(
    frames.pack(json.dumps(op).encode())
    for op in (
        {"op": "start", "cwd": "/workspace", "env": {"HOME": "/nonexistent"}},
        {"op": "execute", "run": 0, "code": _CELLS[0]},
    )
)
_LIBRARY_CELLS = {
    "numpy": "import numpy as np\nnp.linalg.inv(np.eye(8)).sum(), np.random.rand(3).mean()",
    "pandas": (
        "import pandas as pd, numpy as np\n"
        "df = pd.DataFrame({'a': range(20), 'b': np.arange(20.0), 'c': ['x', 'y'] * 10})\n"
        "print(df.describe())\nprint(df.groupby('c').sum())\nprint(df.head())\ndf"
    ),
    "matplotlib.pyplot": (
        "import matplotlib.pyplot as plt\n"
        "fig, ax = plt.subplots()\nax.plot([1, 2, 3], label='a')\nax.bar([1, 2], [3, 4])\n"
        "ax.legend(); ax.set_title('Title 1'); ax.set_xlabel('x'); ax.grid(True)\nplt.show()"
    ),
    "IPython": "%timeit -n 1 -r 1 1\n!true",
}


def run_cells(kernel):
    """Runs the cells on the real path, with output and events going to /dev/null."""
    library_cells = [cell for name, cell in _LIBRARY_CELLS.items() if name in sys.modules]
    null = os.open("/dev/null", _TO_NOBODY)
    saved = [os.dup(fd) for fd in (1, 2)]
    kernel.streams.flush()
    try:
        for fd in (1, 2):
            os.dup2(null, fd)
        kernel.channel.fd = null
        for cells, rounds in ((library_cells, _LIBRARY_ROUNDS), (_CELLS, _ROUNDS)):
            for number in range(rounds):
                kernel.start({"op": "start", "cwd": "/", "env": {"HOME": "/nonexistent"}})
                for cell in cells:
                    kernel.execute({"op": "execute", "run": number, "code": cell})
                reseed()
        kernel.streams.flush()
    finally:
        kernel.channel.fd = -1
        for fd, original in zip((1, 2), saved):
            os.dup2(original, fd)
            os.close(original)
        os.close(null)
    kernel.reset()


def prime(kernel):
    """Runs one cell in a context that nobody has asked anything yet, in the sandbox, as its user.
    The pages that every first cell copies are then copied while the context waits in a pool; who
    asks meanwhile waits for a cell that is as short as one can be. It leaves no trace: no event,
    no count, no source, no name, and a signal that comes meanwhile is kept for the run it is for.
    """
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))
    try:
        # Looked at with the signal held back: before `execute`, nobody sends one.
        if not kernel.channel.is_idle():
            return
        control, kernel.channel.fd = kernel.channel.fd, os.open("/dev/null", _TO_NOBODY)
        collects, kernel.collects_after_run = kernel.collects_after_run, False
        try:
            for frame in _PRIMING:
                kernel.serve_frame(frame)
        finally:
            os.close(kernel.channel.fd)
            kernel.channel.fd = control
            os.environ.pop("HOME", None)
            kernel.collects_after_run = collects
            kernel.forget_runs()
    finally:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))


def warm_random_sources():
    """OpenSSL sets itself up at its first random byte: 600 page faults, once."""
    try:
        import ssl
    except ImportError:
        return
    ssl.RAND_bytes(1)
    ssl.RAND_add(os.urandom(32), 32.0)


def reseed():
    """In a child, before any user code: state that all children would share otherwise.

    `random` reseeds itself at fork. OpenSSL compares process ids to notice a fork, and in a pid
    namespace of its own every child has the same ones.
    """
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(16), "little") % (1 << 32))
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)


def settle():
    """Last step before serving: no garbage, and nothing for a child's collector to touch."""
    fonts = sys.modules.get("matplotlib.font_manager")
    if fonts is not None and hasattr(fonts, "_get_font"):
        # matplotlib empties this cache in every forked child; emptied once, it costs no copies.
        fonts._get_font.cache_clear()
    gc.collect()
    gc.collect()
    _settle_malloc()
    _use_huge_pages()
    gc.disable()
    gc.freeze()


def _settle_malloc():
    """Free chunks wait in malloc's unsorted list, and the next allocation walks all of it: in a
    child that is a copied page per chunk, 600 of them. Sorted once here, by asking for more than
    any of them holds, with whole free pages given back first."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.malloc_trim(0)
    for size in (120 * 1024, 4096, 120 * 1024):
        libc.free(libc.malloc(size))


def _use_huge_pages():
    """A fork copies one entry for a huge page instead of 512: 0.6 ms of 4.7. A kernel that
    cannot do it (before 6.1, or for an area with holes) says no, and nothing is lost."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        areas = [line.split() for line in file]
    for area in areas:
        if area[1] != "rw-p" or (len(area) > 5 and area[5] != "[heap]"):
            continue
        start, end = (int(address, 16) for address in area[0].split("-"))
        start = -(-start // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        end = end // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        if not 0 < end - start <= _HUGE_AREA_BYTES_MAX:
            continue
        madvise(start, end - start, _MADV_HUGEPAGE)
        for page in range(start, end, _HUGE_PAGE_BYTES):
            madvise(page, _HUGE_PAGE_BYTES, _MADV_COLLAPSE)
