"""What a conformance session is played against: a driver alone, or a real server.

Each back end is one context in an empty directory: `run`, `ask`, `renew` after its death, files in
its directory, `close`. They give an Outcome, None in it where they cannot tell.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
from launch import Launch
from session import Outcome

sys.path.append(str(Path(__file__).resolve().parents[1] / "api"))

# How often a file is looked for.
LOOK_SECONDS = 0.01


class Unsupported(Exception):
    """What this back end cannot do yet."""


class DriverBackend:
    """One driver, with the test in the place of init."""

    def __init__(self, launch: Launch, scenario: dict[str, Any]):
        self.root = Path(tempfile.mkdtemp(prefix="crownest-session-"))
        self.root.chmod(0o755)
        self.directory = str(self.root / "workspace")
        self.home = str(self.root / "home")
        os.mkdir(self.directory)
        os.mkdir(self.home)
        self.launch = launch
        self.env = scenario.get("env", {})
        self._start()

    def _start(self) -> None:
        self.peer = harness.Driver(
            argv=self.launch.argv,
            env={"HOME": self.home, "XDG_RUNTIME_DIR": str(self.root), **self.launch.env},
            cwd=self.directory,
        )
        self.peer.start(self.directory, {"HOME": self.home, **self.env})

    def close(self) -> None:
        self.peer.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def renew(self) -> None:
        self.peer.close()
        self._start()

    def run(self, step: dict[str, Any], seconds: float) -> Outcome:
        fields = {"language": step["language"]} if "language" in step else {}
        if "cwd" in step:
            fields["cwd"] = os.path.join(self.directory, step["cwd"])
        if "input" in step:
            fields["input"] = True
        outcome = Outcome()
        replies = iter(step.get("input", []))

        def reply(event: dict[str, Any]) -> str | None:
            outcome.prompts.append((event["prompt"], event["password"]))
            return next(replies, {}).get("value")

        self.peer.begin(step["code"], **fields)
        outcome.background = self.peer.background
        try:
            if text := step.get("interrupt_after"):
                self.peer.wait_output(text.encode())
                self.peer.interrupt(frame=True)
            run = self.peer.finish(reply=reply if "input" in step else None, timeout=seconds)
        except harness.Died:
            return self._died(outcome)
        outcome.status = run.status
        outcome.stdout, outcome.stderr = run.stdout, run.stderr
        outcome.result, outcome.error = run.result, run.error
        outcome.notices = [notice["code"] for notice in run.of("notice")]
        for event in run.events:
            if event["ev"] == "display":
                outcome.displays.append(event)
            elif event["ev"] == "clear":
                outcome.displays.append({"clear": True, "wait": event.get("wait", False)})
        return outcome

    def _died(self, outcome: Outcome) -> Outcome:
        self.peer.wait_death()
        code = self.peer.process.wait()
        outcome.death = {"signal": -code} if code < 0 else {"code": code}
        outcome.stdout = bytes(self.peer.pipes[self.peer.stdout])
        outcome.stderr = bytes(self.peer.pipes[self.peer.stderr])
        return outcome

    def ask(self, query: str, fields: dict[str, Any], seconds: float) -> Outcome:
        self.peer.begin_query(query, **fields)
        run = self.peer.finish(timeout=seconds)
        return Outcome(
            status=run.status, stdout=run.stdout, stderr=run.stderr, answer=run.answer
        )

    def make_file(self, name: str) -> None:
        Path(self.directory, name).touch()

    def await_file(self, name: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not Path(self.directory, name).exists():
            assert time.monotonic() < deadline, f"no file {name}"
            time.sleep(LOOK_SECONDS)


class ServerBackend:
    """The default context of a language in a sandbox of its own, over HTTP."""

    directory = "/workspace"

    def __init__(self, client: Any, template: str, language: str, scenario: dict[str, Any]):
        from rest import Sandbox

        self.sandbox = Sandbox.create(client, template=template, env=scenario.get("env", {}))
        self.language = language
        self._renewed = False

    def close(self) -> None:
        self.sandbox.kill()

    def renew(self) -> None:
        """The server does it by itself and says so in the next run."""
        self._renewed = True

    def run(self, step: dict[str, Any], seconds: float) -> Outcome:
        from rest import events

        if "input" in step:
            raise Unsupported("no route answers input yet")
        fields: dict[str, Any] = {"language": step.get("language", self.language)}
        if "cwd" in step:
            fields["cwd"] = step["cwd"]
        fields.update(timeoutMs=int(seconds * 1000), richOutputs="inline")
        interrupt_after = step.get("interrupt_after")
        printed: dict[str, list[str]] = {"stdout": [], "stderr": []}
        with self.sandbox.streaming(step["code"], **fields) as response:
            assert response.status_code == 200, response.read()
            last: dict[str, Any] = {}
            for last in events(response.iter_lines()):
                if last["type"] in printed:
                    printed[last["type"]].append(last["data"])
                if interrupt_after and interrupt_after in "".join(printed["stdout"]):
                    interrupt_after = None
                    assert self.sandbox.interrupt(self._context()) is True
        assert last.get("type") == "complete", last
        reset = last["data"].get("contextReset", False)
        assert reset == self._renewed, f"contextReset is {reset}"
        self._renewed = False
        return self._outcome(step, last["data"], printed)

    def _context(self) -> str:
        path = f"{self.sandbox.path}/code/contexts"
        contexts = self.sandbox.client.get(path).json()["data"]
        return next(
            c["id"] for c in contexts if c["language"] == self.language and c.get("isDefault")
        )

    def _outcome(
        self, step: dict[str, Any], run: dict[str, Any], printed: dict[str, list[str]]
    ) -> Outcome:
        outcome = Outcome(server_words=run["outcome"] != "completed", background=None)
        outcome.stdout = "".join(printed["stdout"]).encode()
        outcome.stderr = "".join(printed["stderr"]).encode()
        outcome.error = run.get("error")
        outcome.notices = None
        if run["outcome"] == "completed":
            outcome.status = "error" if outcome.error else "ok"
        elif run["outcome"] == "interrupted":
            outcome.status = "interrupted"
        elif run["outcome"] == "context_died":
            outcome.death = {}
        else:
            raise AssertionError(run)
        if outcome.error is not None:
            outcome.error.setdefault("traceback", [])
        values: dict[int, dict[str, Any]] = {}
        for output in run["outputs"]:
            assert output["kind"] == "inline", output
            value = values.setdefault(output["valueIndex"], {"data": {}})
            value["data"][output["mimeType"]] = output["value"]
            value["result"] = output.get("isResult", False)
        results = [value["data"] for value in values.values() if value["result"]]
        assert len(results) <= 1, results
        outcome.result = results[0] if results else None
        outcome.displays = [value for value in values.values() if not value["result"]]
        if any(isinstance(d, dict) and {"update", "clear"} & set(d) for d in step.get("displays", [])):
            outcome.displays = None
        return outcome

    def ask(self, query: str, fields: dict[str, Any], seconds: float) -> Outcome:
        raise Unsupported("no route asks a context yet")

    def make_file(self, name: str) -> None:
        self.sandbox.signal(name)

    def await_file(self, name: str, seconds: float) -> None:
        from rest import until

        until(lambda: self.sandbox.read(name).status_code == 200, f"file {name}", seconds)
