"""Cells that a zygote runs before its first fork.

Whatever is touched for the first time in a child costs page faults there, for every context
again: so the paths that a first result takes are walked once here, and the traces removed.
"""

import gc
import os
import random
import sys

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
    cells = list(_CELLS)
    cells += [cell for name, cell in _LIBRARY_CELLS.items() if name in sys.modules]
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    saved = [os.dup(fd) for fd in (1, 2)]
    kernel.streams.flush()
    try:
        for fd in (1, 2):
            os.dup2(null, fd)
        kernel.channel.fd = null
        for _ in range(2):
            for number, cell in enumerate(cells):
                kernel.execute({"op": "execute", "run": number, "code": cell})
        kernel.streams.flush()
    finally:
        kernel.channel.fd = -1
        for fd, original in zip((1, 2), saved):
            os.dup2(original, fd)
            os.close(original)
        os.close(null)
    kernel.reset()


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
    gc.collect()
    gc.collect()
    gc.disable()
    gc.freeze()
