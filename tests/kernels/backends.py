"""What a conformance session is played against: a driver alone, or a real server.

Each back end is one context in an empty directory: `run`, `ask`, `renew` after its death, files in
its directory, `close`. They give an Outcome, None in it where they cannot tell.
"""

from __future__ import annotations

import json
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
        outcome.displays = self._displays()
        return outcome

    def _displays(self) -> list[dict[str, Any]]:
        found = []
        for event in self.peer.seen:
            if event["ev"] == "display":
                found.append(event)
            elif event["ev"] == "clear":
                found.append({"clear": True, "wait": event.get("wait", False)})
        return found

    def _died(self, outcome: Outcome) -> Outcome:
        self.peer.wait_death()
        code = self.peer.process.wait()
        outcome.death = {"signal": -code} if code < 0 else {"code": code}
        outcome.stdout = bytes(self.peer.pipes[self.peer.stdout])
        outcome.stderr = bytes(self.peer.pipes[self.peer.stderr])
        outcome.displays = self._displays()
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
        # Of the first run. One context may have cells of several languages, and keeps its id.
        self.context: str | None = None
        self._renewed = False

    def close(self) -> None:
        self.sandbox.kill()

    def renew(self) -> None:
        """The server does it by itself and says so in the next run."""
        self._renewed = True

    def run(self, step: dict[str, Any], seconds: float) -> Outcome:
        fields: dict[str, Any] = {"language": step.get("language", self.language)}
        if self.context is not None:
            fields["contextId"] = self.context
        if "cwd" in step:
            fields["cwd"] = step["cwd"]
        if "input" in step:
            fields["allowInput"] = True
        fields.update(timeoutMs=int(seconds * 1000), richOutputs="inline")
        outcome = Outcome(background=None)
        with self.sandbox.streaming(step["code"], **fields) as response:
            if response.status_code != 200:
                return self._refused(response, outcome)
            last = self._follow(step, response, outcome)
        assert last.get("type") == "complete", last
        self.context = last["data"]["contextId"]
        reset = last["data"].get("contextReset", False)
        assert reset == self._renewed, f"contextReset is {reset}"
        self._renewed = False
        return self._outcome(step, last["data"], outcome)

    def _follow(self, step: dict[str, Any], response: Any, outcome: Outcome) -> dict[str, Any]:
        """Reads a stream to its end, answers and interrupts on the way; its last event."""
        from rest import events

        interrupt_after = step.get("interrupt_after", "").encode()
        replies = iter(step.get("input", []))
        last: dict[str, Any] = {}
        for last in events(response.iter_lines()):
            kind, data = last["type"], last["data"]
            if kind in ("stdout", "stderr"):
                setattr(outcome, kind, getattr(outcome, kind) + data.encode())
            elif kind == "input_request":
                outcome.prompts.append((data["prompt"], data["password"]))
                self._post("input", value=next(replies, {}).get("value"))
            if interrupt_after and interrupt_after in outcome.stdout:
                interrupt_after = b""
                assert self.sandbox.interrupt(self._context()) is True
        return last

    def _refused(self, response: Any, outcome: Outcome) -> Outcome:
        """What the server does not even give to a context, such as a directory outside."""
        error = json.loads(response.read())["error"]
        outcome.status, outcome.server_words = "error", True
        outcome.error = {**error, "traceback": []}
        return outcome

    def _post(self, verb: str, **body: Any) -> dict[str, Any]:
        path = f"{self.sandbox.path}/code/contexts/{self._context()}/{verb}"
        response = self.sandbox.client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def _context(self) -> str:
        """The default context: the only one of this sandbox."""
        path = f"{self.sandbox.path}/code/contexts"
        found = self.sandbox.client.get(path).json()["data"]
        if not found:
            # A query may come before the first cell.
            return self.sandbox.run("", language=self.language)["contextId"]
        assert len(found) == 1, found
        return found[0]["id"]

    def _outcome(self, step: dict[str, Any], run: dict[str, Any], outcome: Outcome) -> Outcome:
        outcome.server_words = run["outcome"] != "completed"
        outcome.error = run.get("error")
        outcome.notices = [notice["code"] for notice in run.get("notices", [])]
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
        if query not in ("complete", "inspect", "variables"):
            # There is a route for each that there is.
            return Outcome(status="error")
        if query == "variables":
            path = f"{self.sandbox.path}/code/contexts/{self._context()}/variables"
            response = self.sandbox.client.get(path, params=fields)
            assert response.status_code == 200, response.text
            answer = response.json()
        else:
            answer = self._post(query, **fields)
        status = {"answered": "ok", "no_answer": "error"}[answer.pop("outcome")]
        return Outcome(status=status, answer=answer if status == "ok" else None)

    def make_file(self, name: str) -> None:
        self.sandbox.signal(name)

    def await_file(self, name: str, seconds: float) -> None:
        from rest import until

        until(lambda: self.sandbox.read(name).status_code == 200, f"file {name}", seconds)
