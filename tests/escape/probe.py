"""Runs one snippet of Python in two places: in a sandbox, through the API, and on the host.

Owns: the client, the prelude that every snippet can use, decoding what a snippet found. A snippet
leaves its finding in `result`, as JSON can hold it. Does not own any assertion: a test compares
what the sandbox found with what the host did (its control), so that a probe that is simply wrong
is noticed.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from server import Server

RUN_TIMEOUT_MS = 60_000
HOST_TIMEOUT_SECONDS = 60
# Separates what the snippet printed from what it found.
MARK = "\x1efinding:"

PRELUDE = '''
import ctypes, errno, json, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def error_name(number):
    return errno.errorcode.get(number, str(number)) if number else "ok"

def call(number, *arguments):
    """A raw system call: "ok", or the name of its error."""
    ctypes.set_errno(0)
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    answer = libc.syscall(ctypes.c_long(number), *plain)
    return "ok" if answer >= 0 else error_name(ctypes.get_errno())

def outcome(function, *arguments, **options):
    """"ok", or the name of the error that a call into the library ended with."""
    try:
        function(*arguments, **options)
    except OSError as error:
        return error_name(error.errno) if error.errno else type(error).__name__
    return "ok"

def read(path, limit=65536):
    with open(path, "rb") as file:
        return file.read(limit).decode("utf-8", "replace")

def status(pid="self"):
    lines = read("/proc/%s/status" % pid).splitlines()
    return {k: v.strip() for k, _, v in (line.partition(":") for line in lines)}

def in_child(function):
    """Runs function() in a forked child; its value, or how the child ended."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        data = file.read()
    _, code = os.waitpid(pid, 0)
    if os.WIFSIGNALED(code):
        return "signal %d" % os.WTERMSIG(code)
    return json.loads(data) if data else "exit %d" % os.WEXITSTATUS(code)
'''


def data_directory() -> Path:
    """For a server of a test's own: its user must be able to enter what is above."""
    path = Path(tempfile.mkdtemp(prefix="crownest-test-"))
    path.chmod(0o711)
    return path / "data"


class ProbeFailed(AssertionError):
    """The snippet did not come to a finding."""


def _program(snippet: str) -> str:
    return f"{PRELUDE}\nresult = None\n{snippet}\nprint({MARK!r} + json.dumps(result))\n"


def _finding(output: str) -> Any:
    _, mark, found = output.rpartition(MARK)
    if not mark:
        raise ProbeFailed(f"no finding in: {output[-2000:]}")
    return json.loads(found)


def on_host(snippet: str) -> Any:
    """The finding of an ordinary process on the host, root and unconfined: the control."""
    done = subprocess.run(
        [sys.executable, "-c", _program(snippet)],
        capture_output=True,
        text=True,
        timeout=HOST_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise ProbeFailed(f"on the host: {done.stderr[-2000:]}")
    return _finding(done.stdout)


class Api:
    """A tenant's view of a server."""

    def __init__(self, server: Server):
        headers = {"authorization": f"Bearer {server.api_key}"}
        self.http = httpx.Client(base_url=server.url, headers=headers, timeout=120)
        self.server = server

    def create(self, **request: Any) -> "Sandbox":
        answer = self.http.post("/v1/sandboxes", json=request)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        return Sandbox(self, body.get("sandbox", body)["id"])


class Sandbox:
    """One sandbox, with the routes that the tests need."""

    def __init__(self, api: Api, sandbox_id: str):
        self.api = api
        self.id = sandbox_id
        self.path = f"/v1/sandboxes/{sandbox_id}"

    @property
    def key(self) -> str:
        """Its name below the server: of its socket and its control group."""
        return self.id.removeprefix("sbx_")

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.api.http.post(self.path + path, json=body)

    def context(self, isolation: str = "fork") -> str:
        request = {"language": "python", "isolation": isolation}
        answer = self.post("/code/contexts", request)
        assert answer.status_code == 201, answer.text
        return answer.json()["context"]["id"]

    def run(
        self, code: str, context: str | None = None, timeout_ms: int = RUN_TIMEOUT_MS
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"code": code, "language": "python", "timeoutMs": timeout_ms}
        if context:
            body["contextId"] = context
        answer = self.post("/code/runs", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["run"]

    def probe(self, snippet: str, context: str | None = None) -> Any:
        """The finding of tenant code in a context."""
        run = self.run(_program(snippet), context)
        if run["outcome"] != "completed" or run.get("error"):
            raise ProbeFailed(json.dumps(run)[:3000])
        return _finding("".join(run["stdout"]))

    def command(self, command: str, timeout_ms: int = RUN_TIMEOUT_MS) -> dict[str, Any]:
        answer = self.post("/commands/run", {"command": command, "timeoutMs": timeout_ms})
        assert answer.status_code == 200, answer.text
        return answer.json()["command"]

    def probe_command(self, snippet: str) -> Any:
        """The finding of the same code as a program that init starts."""
        encoded = base64.b64encode(_program(snippet).encode()).decode()
        done = self.command(f"echo {encoded} | base64 -d | python3 -")
        if done["exitCode"] != 0:
            raise ProbeFailed(json.dumps(done)[:3000])
        return _finding(done["stdout"])

    def start_named(self, name: str) -> None:
        """A process of that name that stays, seen to be there."""
        self.probe(
            f"""
import subprocess
p = subprocess.Popen(["bash", "-c", "exec -a {name} sleep 300"])
while not read("/proc/%d/cmdline" % p.pid).startswith({name!r}):
    os.sched_yield()
result = True
"""
        )

    def destroy(self) -> None:
        assert self.api.http.delete(self.path).status_code == 200
