#!/usr/bin/env python3
"""Latencies of the Python kernel at init's end of the control socket: p10, p50 and p95.

    python3 benches/kernel_python.py [--runs 300] [--forks 50] [--fresh] [--label TEXT]

Forked contexts run in real namespaces and need root; `--fresh` measures a fresh interpreter only.
Set CROWNEST_TEST_PYTHON to the interpreter of a template.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "kernels"))

from harness import Driver, Sandbox, Zygote  # noqa: E402

LINES = 100_000
PNG_CELL = (
    "import pandas as pd, numpy as np, matplotlib.pyplot as plt\n"
    "df = pd.DataFrame({'a': np.arange(100.0), 'b': np.arange(100) ** 2})\n"
    "print(df.describe())\n"
    "plt.plot(df['a'], df['b'])\nplt.title('bench')\nplt.show()"
)
# The same without a kernel: what plain Python needs for the table and the picture.
PLAIN = (
    "import io, sys, time\nimport pandas as pd, numpy as np, matplotlib\nmatplotlib.use('Agg')\n"
    "import matplotlib.pyplot as plt\ntimes = []\n"
    "for _ in range(%d):\n"
    "    t = time.perf_counter()\n"
    "    df = pd.DataFrame({'a': np.arange(100.0), 'b': np.arange(100) ** 2})\n"
    "    print(df.describe(), file=io.StringIO())\n"
    "    plt.plot(df['a'], df['b']); plt.title('bench')\n"
    "    plt.savefig(io.BytesIO(), format='png', bbox_inches='tight'); plt.close('all')\n"
    "    times.append(time.perf_counter() - t)\n"
    "print(*times)"
)


def report(name, seconds, unit="us"):
    scale = {"us": 1e6, "ms": 1e3}[unit]
    values = sorted(value * scale for value in seconds)
    p95 = values[min(len(values) - 1, int(len(values) * 0.95))]
    p10 = values[len(values) // 10]
    numbers = (name, p10, statistics.median(values), p95, unit, len(values))
    print("%-36s p10 %8.1f  p50 %8.1f  p95 %8.1f %s   n=%d" % numbers)


def measure_runs(peer, runs):
    """A context that is warm: the hot path."""
    for _ in range(20):
        peer.run("1+1")
    report("1+1", [peer.run("1+1").seconds for _ in range(runs)])
    report("print('hi')", [peer.run("print('hi')").seconds for _ in range(runs)])
    report("[1, 2, 3] (pretty)", [peer.run("[1, 2, 3]").seconds for _ in range(runs)])
    report("1/0 (error)", [peer.run("1/0").seconds for _ in range(runs)])
    report("SIGINT to a busy loop -> done", [interrupt(peer) for _ in range(min(runs, 100))])
    rates = []
    for _ in range(5):
        run = peer.run("for i in range(%d): print('x' * 79)" % LINES)
        assert len(run.stdout) == LINES * 80
        rates.append(LINES / run.seconds)
    print("%-36s %s" % ("100k x 80-byte lines, lines/s", " ".join("%.0f" % rate for rate in rates)))


def interrupt(peer):
    peer.begin("print('go')\nwhile True: pass")
    peer.wait_output(b"go\n")
    time.sleep(0.001)
    began = time.perf_counter()
    peer.interrupt()
    assert peer.finish().status == "interrupted"
    return time.perf_counter() - began


def measure_plot(peer, runs):
    peer.run(PNG_CELL)
    report("describe + PNG, warm", [peer.run(PNG_CELL).seconds for _ in range(runs)], "ms")
    plain = peer.run(
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', %r], capture_output=True,"
        " text=True).stdout)" % (PLAIN % (runs + 3))
    )
    report("describe + PNG, plain Python", [float(t) for t in plain.out.split()[3:]], "ms")


def measure_forks(zygote, sandbox, forks):
    ready, first, faults_ready, faults_first, plot = [], [], [], [], []
    for number in range(forks):
        began = time.perf_counter()
        peer = zygote.fork(sandbox.pidfd)
        ready.append(time.perf_counter() - began)
        minor_ready = minor_faults(peer.pid)
        began_first = time.perf_counter()
        peer.start("/workspace", {"HOME": "/workspace", "USER": "user"})
        peer.run("1+1")
        first.append(ready[-1] + time.perf_counter() - began_first)
        faults_ready.append(minor_ready)
        faults_first.append(minor_faults(peer.pid))
        if number < 10:
            plot.append(peer.run(PNG_CELL).seconds)
        peer.close()
    report("fork -> ready", ready, "ms")
    report("fork -> first 1+1", first, "ms")
    report("first describe + PNG in a context", plot, "ms")
    print("minor faults: ready %d, after first 1+1 %d" % (statistics.median(faults_ready), statistics.median(faults_first)))


def library_path():
    """For subprocesses of a context, when the libraries are not the system's."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": path} if path else {}


def minor_faults(pid):
    with open("/proc/%d/stat" % pid) as file:
        return int(file.read().rpartition(")")[2].split()[7])


def memory(pid):
    with open("/proc/%d/smaps_rollup" % pid) as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line and "kB" in line)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss", "Private_Dirty")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--forks", type=int, default=50)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--forks-only", action="store_true")
    parser.add_argument("--label", default="")
    options = parser.parse_args()
    print("load %.1f  %s" % (os.getloadavg()[0], options.label))
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", tempfile.mkdtemp())}
    for name in ("GLIBC_TUNABLES", "PYTHONMALLOC"):
        if name in os.environ:
            environment[name] = os.environ[name]
    if options.fresh:
        began = time.perf_counter()
        peer = Driver(env=environment).start("/tmp", {"HOME": "/tmp"})
        print("fresh interpreter -> ready %.1f ms" % ((time.perf_counter() - began) * 1e3))
        measure_runs(peer, options.runs)
        peer.close()
        return
    sandbox = Sandbox()
    began = time.perf_counter()
    zygote = Zygote(env=environment)
    print("zygote warm after %.2f s, %r MB" % (time.perf_counter() - began, memory(zygote.process.pid)))
    measure_forks(zygote, sandbox, options.forks)
    peer = zygote.fork(sandbox.pidfd).start("/workspace", {"HOME": "/workspace", **library_path()})
    peer.run("1+1")
    print("context after 1+1: %r MB" % memory(peer.pid))
    if not options.forks_only:
        measure_runs(peer, options.runs)
        measure_plot(peer, max(10, options.runs // 10))
    peer.close()
    zygote.close()
    sandbox.close()


main()
