"""What a zygote does so that a context costs little: before its first fork, and right after each.

A page that a child writes to is copied for it, and counting a reference is writing. Whatever is
touched for the first time in a child costs that for every context again: so the paths that a first
result takes are walked here, the traces removed, and memory left so that few pages are written.
"""

import _signal  # without the enum conversions of `signal`
import ctypes
import gc
import json
import linecache
import os
import random
import socket
import struct
import sys

from . import frames

_MT19937_KEY_BYTES = 624 * 4
_numpy_key = None
_TO_NOBODY = os.O_WRONLY | os.O_CLOEXEC
_MADV_COLLAPSE = 25
_PAGE_BYTES, _HUGE_PAGE_BYTES, _PAGEMAP_BYTES = 4096, 2 * 1024 * 1024, 8
# Where fewer are there, filling the rest costs more than a fork gains.
_RESIDENT_PAGES_MIN = 496
# Of Python's allocator for small objects.
_SMALL_STEP_BYTES, _SMALL_BYTES_MAX = 16, 512
_POOL_BYTES, _POOL_HEAD_BYTES = 16 * 1024, 48
# Sizes of the gaps in malloc's heap that are filled, and how much of one size at most.
_CHUNK_BYTES = (*range(65528, 2040, -1024), *range(2040, 8, -16))
_FILLED_BYTES_MAX = 8 * 1024 * 1024
# Larger areas are room that some library has set aside and not used.
_HUGE_AREA_BYTES_MAX = 512 * 1024 * 1024

# The interpreter rewrites code that has run a few times, which is a copied page in a child: cheap
# cells run until it has settled, expensive ones only to bring their data in.
_ROUNDS = 40

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
# What a client asks while somebody types.
_QUERIES = (
    {"query": "complete", "code": "import sys\nsys.pa", "cursor": 17},
    {"query": "inspect", "code": "len(", "cursor": 4},
    {"query": "variables"},
)
_QUERY_ROUNDS = 3
# By library: how often a cell is run, and the cell. Last come those whose traces in the
# interpreter's caches are worth most.
_LIBRARY_CELLS = {
    "IPython": (3, "%timeit -n 1 -r 1 1\n!true"),
    "matplotlib.pyplot": (
        3,
        "import matplotlib.pyplot as plt\n"
        "fig, ax = plt.subplots()\nax.plot([1, 2, 3], label='a')\nax.bar([1, 2], [3, 4])\n"
        "ax.legend(); ax.set_title('Title 1'); ax.set_xlabel('x'); ax.grid(True)\nplt.show()",
    ),
    "pandas": (
        20,
        "import pandas as pd, numpy as np\n"
        "df = pd.DataFrame({'a': range(20), 'b': np.arange(20.0), 'c': ['x', 'y'] * 10})\n"
        "print(df.describe())\nprint(df.groupby('c').sum())\nprint(df.head())\ndf",
    ),
    "numpy": (
        20,
        "import numpy as np\nnp.linalg.inv(np.eye(8)).sum(), np.random.rand(3).mean()",
    ),
}


def run_cells(kernel):
    """Runs the cells on the real path, with output and events going to /dev/null."""
    plan = [
        ((cell,), rounds) for name, (rounds, cell) in _LIBRARY_CELLS.items() if name in sys.modules
    ]
    plan.append((_CELLS, _ROUNDS))
    null = os.open("/dev/null", _TO_NOBODY)
    saved = [os.dup(fd) for fd in (1, 2)]
    kernel.streams.flush()
    try:
        for fd in (1, 2):
            os.dup2(null, fd)
        kernel.channel.fd = null
        start = _frame(op="start", cwd="/", env={"HOME": "/nonexistent"})
        for cells, rounds in plan:
            runs = [_frame(op="execute", run=1, code=cell) for cell in cells]
            for _ in range(rounds):
                for frame in (start, *runs):
                    kernel.serve_frame(frame)
                reseed()
        for query in _QUERIES * _QUERY_ROUNDS:
            kernel.serve_frame(_frame(op="query", run=1, **query))
        _rehearse(kernel, start)
        kernel.streams.flush()
    finally:
        kernel.channel.fd = -1
        for fd, original in zip((1, 2), saved):
            os.dup2(original, fd)
            os.close(original)
        os.close(null)
    kernel.reset()


def _rehearse(kernel, start):
    """What a child does before its first frame, for code that no cell runs."""
    control, peer = socket.socketpair()
    with control, peer:
        kernel.channel.fd = control.fileno()
        for _ in range(_ROUNDS):
            kernel.streams.identify()
            kernel.say_ready()
            prime(kernel, start)


def _frame(**op):
    return frames.pack(json.dumps(op).encode())


# What a context is told while it waits, as init would tell it.
_PRIMING_START = _frame(op="start", cwd="/workspace", env={"HOME": "/nonexistent"})
_PRIMING_RUN = _frame(op="execute", run=0, code=_CELLS[0])


def prime(kernel, start=_PRIMING_START):
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
            kernel.serve_frame(start)
            kernel.serve_frame(_PRIMING_RUN)
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


# What random.seed() does without a value, but for its other half, see settle().
_seed_random = super(random.Random, random._inst).seed


def reseed():
    """In a child, before any user code: state that all children would share otherwise.

    Nothing of it happens by itself: Python's hooks do not run, and OpenSSL compares process ids to
    notice a fork, of which every child has the same in a pid namespace of its own.
    """
    _seed_random()
    if _numpy_key is not None:
        _numpy_key[:] = os.urandom(_MT19937_KEY_BYTES)
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)


def _find_numpy_key():
    """Where numpy's global generator keeps its state, at its beginning: each child fills it with
    random bytes, which is what seeding does, on 20 pages less."""
    global _numpy_key
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return
    numpy_random.seed(0)
    generator = numpy_random.mtrand._rand._bit_generator
    key = (ctypes.c_ubyte * _MT19937_KEY_BYTES).from_address(generator.ctypes.state_address)
    kind, words, position, has_gauss, _ = numpy_random.get_state()
    at_its_beginning = position == len(words) and not has_gauss
    if kind != "MT19937" or words.tobytes() != bytes(key) or not at_its_beginning:
        sys.exit("zygote: numpy's generator is not where it says")
    _numpy_key = memoryview(key).cast("B")


def settle():
    """Last step before serving: no garbage, and nothing for a child's collector to touch."""
    fonts = sys.modules.get("matplotlib.font_manager")
    if fonts is not None and hasattr(fonts, "_get_font"):
        # matplotlib empties this cache in every forked child; emptied once, it costs no copies.
        fonts._get_font.cache_clear()
    _find_numpy_key()
    # The other half of what random.seed() does.
    random._inst.gauss_next = None
    # Sources that tracebacks of the warm-up have shown.
    linecache.clearcache()
    gc.collect()
    gc.collect()
    _fill_holes()
    _use_huge_pages()
    gc.disable()
    gc.freeze()


def _settle_malloc(libc):
    """Free chunks wait in malloc's unsorted list, and the next allocation walks all of it: in a
    child that is a copied page per chunk, 600 of them. Sorted once here, by asking for more than
    any of them holds, with whole free pages given back first. The address of what is not yet
    used: the last of them is cut from there."""
    libc.malloc_trim(0)
    for size in (120 * 1024, 4096, 120 * 1024):
        unused = libc.malloc(size)
        libc.free(unused)
    return unused


def _fill_holes():
    """What a child allocates shall lie side by side. In the gaps that the imports have left, each
    object would copy another page: so the gaps are used up, for good (they are 2 MB)."""
    libc = ctypes.PyDLL(None)
    _declare(libc.malloc, libc.free)
    unused = _settle_malloc(libc)
    for size in _CHUNK_BYTES:
        _fill(libc.malloc, libc.free, size, lambda address: address >= unused)
    python = ctypes.pythonapi
    _declare(python.PyObject_Malloc, python.PyObject_Free)
    for size in range(_SMALL_STEP_BYTES, _SMALL_BYTES_MAX + 1, _SMALL_STEP_BYTES):
        _fill(
            python.PyObject_Malloc,
            python.PyObject_Free,
            size,
            # The first block of a pool that has just been begun.
            lambda address: address % _POOL_BYTES == _POOL_HEAD_BYTES,
        )


def _declare(allocate, free):
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]


def _fill(allocate, free, size, is_new):
    for _ in range(_FILLED_BYTES_MAX // size):
        address = allocate(size)
        if is_new(address):
            free(address)
            return


def _use_huge_pages():
    """A fork copies one entry for a huge page instead of 512: 0.8 ms of 2.7. A kernel that
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
        for page in range(start, end, _HUGE_PAGE_BYTES):
            if _resident_pages(page) >= _RESIDENT_PAGES_MIN:
                madvise(page, _HUGE_PAGE_BYTES, _MADV_COLLAPSE)


def _resident_pages(address):
    """How many of the 512 small pages of a huge page are there. The others would be filled."""
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(address // _PAGE_BYTES * _PAGEMAP_BYTES)
        entries = file.read(_HUGE_PAGE_BYTES // _PAGE_BYTES * _PAGEMAP_BYTES)
    return sum(entry >> 63 for (entry,) in struct.iter_unpack("<Q", entries))
