#!/usr/bin/env python3
"""What CrowNest does, in fifteen seconds: a real server, a real sandbox, Python as a model writes it.

Starts a private server on a free port with a data directory of its own, shows each step with the
time it took, stops everything, and exits with 1 when anything is not as it should be. Only the
standard library.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 20
CALL_SECONDS_MAX = 30
PLOT = Path("demo-output/plot.png")
WIDTH = 78

Json = dict[str, Any]

COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ
# The server is on this machine: no proxy of the environment has a part in it.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

HELLO = """\
import platform, os
print("Hello from Python", platform.python_version())
print("I am", os.popen("id -un").read().strip(), "on", platform.node(), "and process", os.getpid())
print("Processes that I can see:", len([p for p in os.listdir("/proc") if p.isdigit()]))
"""

FRAME = """\
import numpy as np, pandas as pd
rng = np.random.default_rng(7)
days = pd.date_range("2026-01-01", periods=180)
sales = pd.DataFrame({
    "north": 100 + np.arange(180) * 0.4 + rng.normal(0, 6, 180),
    "south": 160 - np.arange(180) * 0.2 + rng.normal(0, 6, 180),
}, index=days)
sales.resample("MS").mean().round(1)
"""

FIGURE = """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
for region, colour in (("north", "#2a6fdb"), ("south", "#e4572e")):
    axes.plot(sales.index, sales[region], color=colour, alpha=0.25)
    axes.plot(sales.index, sales[region].rolling(14).mean(), color=colour, label=region, lw=2)
axes.set_title("Sales per day, and their mean over two weeks")
axes.set_ylabel("pieces"); axes.legend(); axes.grid(alpha=0.3)
plt.show()
"""

BROKEN = """\
def share(part, total):
    return part / total

share(len(sales), 0)
"""

STATE = """\
means = sales.rolling(14).mean()
f"the table of step 2 is still here: {len(sales)} rows, north overtakes on {(means.north > means.south).idxmax():%d %B}"
"""

ENDLESS = """\
rounds = 0
print("counting, and never stopping", flush=True)
while True: rounds += 1
"""


class Wrong(Exception):
    """Something is not as the demonstration says."""


def paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOURS and code else text


def bold(text: str) -> str:
    return paint("1", text)


def dim(text: str) -> str:
    return paint("2", text)


def check(true: object, what: str) -> None:
    if not true:
        raise Wrong(what)


class Server:
    """`crownest serve` on a free port, with a directory that is removed afterwards."""

    def __init__(self, program: Path):
        self.directory = Path(tempfile.mkdtemp(prefix="crownest-demo-"))
        # The server gives up root and must still be able to enter.
        self.directory.chmod(0o711)
        self.data = self.directory / "data"
        self.log = self.directory / "server.log"
        command = [
            str(program),
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            str(self.data),
            "--pool",
            "1",
        ]
        # Options in the caller's environment are meant for another server.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("CROWNEST_") or name == "CROWNEST_TEMPLATES_DIR"
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        try:
            self.url = self._address()
            self.key = self._key()
        except BaseException:
            self.stop()
            raise

    def _address(self) -> str:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS_MAX)
        line = self.process.stdout.readline().decode().strip() if ready else ""
        check(line.startswith("http://"), f"the server did not start:\n{self.tail()}")
        return line

    def _key(self) -> str:
        """The first start prints the key right after the address."""
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        check("API key" in line, f"no key was shown:\n{self.tail()}")
        return line.rsplit(" ", 1)[1].strip()

    def warm(self) -> None:
        """Until a sandbox stands ready with its interpreter: numpy, pandas and matplotlib are
        imported once per server, not once per sandbox."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while "\ncrownest_pool_ready 0\n" in self.metrics():
            check(time.monotonic() < deadline, f"no sandbox became ready:\n{self.tail()}")
            time.sleep(0.02)

    def metrics(self) -> str:
        with self.open("GET", "/metrics") as answer:
            text = answer.read().decode()
        check("\ncrownest_pool_ready " in text, "the metrics do not tell of the pool")
        return text

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        with self.open(method, path, body) as answer:
            return json.loads(answer.read())

    def open(self, method: str, path: str, body: Json | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.key}", "content-type": "application/json"},
        )
        try:
            return OPENER.open(request, timeout=CALL_SECONDS_MAX)
        except urllib.error.HTTPError as error:
            raise Wrong(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


class Sandbox:
    """One sandbox of that server."""

    def __init__(self, server: Server):
        self.server = server
        self.id = server.call("POST", "/v1/sandboxes", {"ttlMs": 120_000})["sandbox"]["id"]
        self.path = f"/v1/sandboxes/{self.id}"

    def run(self, code: str) -> Json:
        body = {"code": code, "language": "python", "richOutputs": "inline"}
        return self.server.call("POST", f"{self.path}/code/runs", body)["run"]

    def stream(self, code: str) -> Iterator[Json]:
        """Events of a run as they happen."""
        body = {"code": code, "language": "python"}
        with self.server.open("POST", f"{self.path}/code/runs/stream", body) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    def interrupt(self, context: str) -> None:
        self.server.call("POST", f"{self.path}/code/contexts/{context}/interrupt")

    def kill(self) -> str:
        return self.server.call("DELETE", self.path)["sandbox"]["status"]


class Show:
    """The terminal: numbered steps, code, output, times."""

    def __init__(self) -> None:
        self.number = 0
        self.times: list[tuple[str, float]] = []

    def step(self, title: str, code: str = "") -> None:
        self.number += 1
        line = f" {self.number}  {title} "
        print(f"\n{paint('1;36', line)}{dim('─' * max(0, WIDTH - len(line)))}")
        for part in code.splitlines():
            print(dim("  │ ") + paint("33", part))

    def said(self, text: str, colour: str = "") -> None:
        for line in text.rstrip("\n").splitlines():
            print("    " + paint(colour, line))

    def timed(self, label: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        self.times.append((label, (time.perf_counter() - started) * 1000))
        print(dim(f"  └ {label}: {self.times[-1][1]:.1f} ms"))
        return result

    def summary(self) -> None:
        longest = max(took for _, took in self.times)
        print(f"\n{bold(' Every step, measured at the client')}")
        for label, took in self.times:
            bar = "█" * max(1, round(took / longest * 30))
            print(f"  {label:<34}{took:>9.1f} ms  {paint('36', bar)}")


def result(run: Json, format: str) -> Any:
    found = [o["value"] for o in run["outputs"] if o["format"] == format and o["kind"] == "inline"]
    check(found, f"no {format} among the outputs: {[o['format'] for o in run['outputs']]}")
    return found[0]


def printed(run: Json) -> str:
    check("error" not in run, f"the code failed: {run.get('error')}")
    return "".join(run["stdout"])


def hello(show: Show, sandbox: Sandbox) -> None:
    show.step("Print, from inside an isolated sandbox", HELLO)
    run = show.timed("first run in it", lambda: sandbox.run(HELLO))
    show.said(printed(run))
    check("Hello from Python" in printed(run), "nothing was printed")
    check(" user on " in printed(run), "the code does not run as the sandbox's user")


def table(show: Show, sandbox: Sandbox) -> None:
    show.step("A DataFrame is a result, as text and as HTML", FRAME)
    run = show.timed("numpy and pandas", lambda: sandbox.run(FRAME))
    check("error" not in run, f"the code failed: {run.get('error')}")
    show.said(result(run, "text"))
    check("<table" in result(run, "html"), "the table is missing as HTML")
    check(len(result(run, "text").splitlines()) >= 7, "the table is too short")


def figure(show: Show, sandbox: Sandbox) -> None:
    show.step("A matplotlib figure comes back as a picture", FIGURE)
    run = show.timed("matplotlib", lambda: sandbox.run(FIGURE))
    check("error" not in run, f"the code failed: {run.get('error')}")
    png = base64.b64decode(result(run, "png"))
    check(png.startswith(b"\x89PNG\r\n\x1a\n") and png.endswith(b"IEND\xaeB`\x82"), "no whole PNG")
    PLOT.parent.mkdir(exist_ok=True)
    # What this makes is for looking at, not for keeping in a repository.
    (PLOT.parent / ".gitignore").write_text("*\n")
    PLOT.write_bytes(png)
    show.said(f"{len(png):,} bytes of PNG, saved to {bold(str(PLOT.resolve()))}")


def error(show: Show, sandbox: Sandbox) -> None:
    show.step("An error is an answer with a traceback", BROKEN)
    run = show.timed("an exception", lambda: sandbox.run(BROKEN))
    error = run.get("error", {})
    check(error.get("name") == "ZeroDivisionError", f"another error: {error}")
    check("return part / total" in "\n".join(error["traceback"]), "the traceback lacks the code")
    show.said("\n".join(run["error"]["traceback"]), "31")


def state(show: Show, sandbox: Sandbox) -> None:
    show.step("State is kept between runs, errors or not", STATE)
    run = show.timed("a warm run", lambda: sandbox.run(STATE))
    check("error" not in run, f"the code failed: {run.get('error')}")
    show.said(result(run, "text"), "32")
    check("180 rows" in result(run, "text"), "the table is gone")


def interrupt(show: Show, sandbox: Sandbox) -> None:
    show.step("An endless loop is streamed, interrupted, and costs nothing", ENDLESS)
    context = sandbox.run("None")["contextId"]
    arriving = sandbox.stream(ENDLESS)
    show.said(next(arriving)["data"])
    # It must really loop before it is stopped: half a second for people to see it.
    threading.Event().wait(0.5)

    def stop() -> Json:
        sandbox.interrupt(context)
        return list(arriving)[-1]["data"]

    run = show.timed("interrupt, until the run has ended", stop)
    check(run["outcome"] == "interrupted", f"it ended as {run['outcome']}")
    rounds = sandbox.run("f'{rounds:,}'")
    show.said(
        f"stopped: {run['error']['message']}; the loop had counted to {result(rounds, 'text')}",
        "32",
    )


def isolation(show: Show, sandbox: Sandbox, server: Server) -> None:
    code = (
        "import os, socket\n"
        "def attempt(what, call):\n"
        "    try: call(); print(what, '- possible?!')\n"
        "    except OSError as e: print(f'{what}: {e.strerror}')\n"
        "attempt('connect to the internet directly', lambda: socket.create_connection(('1.1.1.1', 443), 2))\n"
        "attempt('reach the server that runs me', lambda: socket.create_connection(('127.0.0.1', PORT), 2))\n"
        "attempt('signal process 1', lambda: os.kill(1, 9))\n"
        "attempt('write to /usr/bin', lambda: open('/usr/bin/evil', 'w'))\n"
    )
    show.step("What the code cannot do", code)
    code = code.replace("PORT", server.url.rsplit(":", 1)[1])
    run = show.timed("four attempts", lambda: sandbox.run(code))
    show.said(printed(run))
    check(
        "possible" not in printed(run) and printed(run).count("\n") == 4, "something was possible"
    )


def demonstrate(show: Show, program: Path) -> None:
    server = show.timed("server: start", lambda: Server(program))
    sandbox: Sandbox | None = None
    try:
        show.said(f"{bold(server.url)}  {dim('private, on a free port; gone when this ends')}")
        show.timed("interpreter: warm, once per server", server.warm)
        sandbox = show.timed("sandbox: create", lambda: Sandbox(server))
        show.said(dim(sandbox.id))
        hello(show, sandbox)
        table(show, sandbox)
        figure(show, sandbox)
        error(show, sandbox)
        state(show, sandbox)
        interrupt(show, sandbox)
        isolation(show, sandbox, server)
        show.step("And it is gone")
        status = show.timed("sandbox: destroy", sandbox.kill)
        sandbox = None
        check(status == "destroyed", f"the sandbox is {status}")
    except BaseException:
        print(dim(textwrap.indent(server.tail(), "  server: ")), file=sys.stderr)
        # Sandboxes outlive their server by design.
        with contextlib.suppress(Exception):
            if sandbox:
                sandbox.kill()
        raise
    finally:
        code = server.stop()
    check(code == 0, f"the server stopped with {code}")


def main(arguments: list[str]) -> int:
    program = Path(arguments[0] if arguments else os.environ.get("CROWNEST_BIN", "crownest"))
    if os.geteuid() != 0:
        print("The demonstration makes real sandboxes and needs root: try sudo.", file=sys.stderr)
        return 1
    if not program.is_file():
        print(f"There is no program {program}; make build makes it.", file=sys.stderr)
        return 1
    print(bold("CrowNest") + " runs model-written code in isolated sandboxes. Watch it:")
    started = time.perf_counter()
    show = Show()
    try:
        demonstrate(show, program)
    except (Wrong, OSError, KeyError, ValueError, StopIteration) as error:
        print(
            paint("1;31", f"\nNot as it should be: {error or type(error).__name__}"),
            file=sys.stderr,
        )
        return 1
    show.summary()
    print(
        f"\n{paint('1;32', '✓')} All of it in {time.perf_counter() - started:.1f} s; nothing is left running."
    )
    print(f"  Look at {bold(str(PLOT))}, or start your own server: {bold('make serve')}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
