"""A neighbour that answers `1+1` again and again while somebody else misbehaves.

Asked from a process of its own: the interpreter that runs the tests decodes answers of tens of
megabytes meanwhile, and a thread of it would measure that. Owns the asking and the clock; what is
late is decided in `arena.py`.

As a program: `neighbour.py HOST PORT KEY SANDBOX`, the key in the variable CROWNEST_API_KEY. Each
line on its input is a command: `watch` begins, `report` ends with one line of JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Between two questions. The machine must not be busy with asking.
PAUSE_SECONDS = 0.01
ANSWER_SECONDS_MAX = 30
REPORT_SECONDS_MAX = 60


class Neighbour:
    """The sandbox and the process that asks it."""

    def __init__(self, host: str, port: int, key: str, sandbox: str):
        self.answers = 0
        self.worst = 0.0
        self._process = subprocess.Popen(
            [sys.executable, __file__, host, str(port), sandbox],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "CROWNEST_API_KEY": key},
            text=True,
        )
        assert self._read_line() == "ready\n"

    @contextmanager
    def watch(self) -> Iterator[dict[str, Any]]:
        """While the block runs it is asked; afterwards the dict has the report."""
        report: dict[str, Any] = {}
        self._say("watch")
        assert self._read_line() == "watching\n"
        try:
            yield report
        finally:
            self._say("report")
            report.update(json.loads(self._read_line()))
            self.answers += report["answers"]
            self.worst = max(self.worst, report["worst"])

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(REPORT_SECONDS_MAX)
        self._process.stdout.close()

    def _say(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _read_line(self) -> str:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], REPORT_SECONDS_MAX)
        assert ready, "the process that asks the neighbour says nothing"
        return self._process.stdout.readline()


# === the process that asks ===


class Asker:
    """One connection, one question at a time."""

    def __init__(self, host: str, port: int, key: str, sandbox: str):
        self.connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS_MAX)
        self.path = f"/v1/sandboxes/{sandbox}/code/runs"
        self.headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def ask(self) -> str | None:
        """What was wrong with the answer, or None."""
        body = json.dumps({"code": "1+1", "language": "python"})
        self.connection.request("POST", self.path, body, self.headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            return f"{answer.status}: {text}"
        run = json.loads(text)["run"]
        values = [output.get("value") for output in run["outputs"]]
        if run["outcome"] != "completed" or values != ["2"] or run.get("contextReset"):
            return text
        return None

    def watch(self) -> dict[str, Any]:
        """Asks until there is a command on the input."""
        seconds: list[float] = []
        wrong: list[str] = []
        pauses: list[float] = [0.0]
        while True:
            before = time.monotonic()
            try:
                found = self.ask()
            except (OSError, http.client.HTTPException) as error:
                found = repr(error)
                self.connection.close()
            seconds.append(time.monotonic() - before)
            if found:
                wrong.append(found[:1000])
            before = time.monotonic()
            commanded, _, _ = select.select([sys.stdin], [], [], PAUSE_SECONDS)
            if commanded:
                break
            pauses.append(time.monotonic() - before - PAUSE_SECONDS)
        return {
            "answers": len(seconds),
            "worst": max(seconds),
            "wrong": wrong[:10],
            # How late this process itself woke up: what the machine, and not the server, did.
            "machine": max(pauses),
        }


def main() -> None:
    host, port, sandbox = sys.argv[1:]
    asker = Asker(host, int(port), os.environ["CROWNEST_API_KEY"], sandbox)
    wrong = asker.ask()
    if wrong:
        sys.exit(wrong)
    print("ready", flush=True)
    while sys.stdin.readline() == "watch\n":
        print("watching", flush=True)
        report = asker.watch()
        sys.stdin.readline()
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
