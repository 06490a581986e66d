"""Every program of OpenSandbox's guide to its code interpreter, run with its own client as it is
written there; only `domain` and `api_key` are others.

CROWNEST_GUIDES names a directory with the guides' texts, where somebody has them: then the programs
are compared with what is printed there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from server import Server

HERE = Path(__file__).parent
INSTALLED = Path(sys.prefix) / "opensandbox"
GUIDE = "opensandbox-code-interpreter-sdk.txt"
# Of every program without white space, as they were when they were found to be those of the guide.
COMPARED = "0b02303d6cc286d968ea2453b795e0deb252d0ff1544c3beb3fc73d8ea6664b8"
RUN_SECONDS_MAX = 180
BLOCK = r"^## (.+?)\n\n```python\n(.*?)```"
PROGRAMS = dict(re.findall(BLOCK, (HERE / "opensandbox.md").read_text(), re.M | re.S))

# What a reader of the guide has done before: its quick start, up to the interpreter. Every run is
# noted, because many programs print nothing of it.
BEFORE = """
import asyncio, json
from datetime import timedelta
from code_interpreter import CodeInterpreter, SupportedLanguage
from opensandbox import Sandbox
from opensandbox.config import ConnectionConfig

async def main():
    config = ConnectionConfig(domain="api.opensandbox.io", api_key="your-api-key")
    sandbox = await Sandbox.create(
        "opensandbox/code-interpreter:v1.0.1",
        connection_config=config,
        entrypoint=["/opt/opensandbox/code-interpreter.sh"],
        env={"PYTHON_VERSION": "3.11", "JAVA_VERSION": "17", "NODE_VERSION": "20", "GO_VERSION": "1.24"},
    )
    first = sandbox
    interpreter = await CodeInterpreter.create(sandbox=sandbox)
    noted, run = [], interpreter.codes.run

    async def noting(code, **options):
        noted.append(await run(code, **options))
        return noted[-1]

    interpreter.codes.run = noting
    try:
"""
AFTER = """
    finally:
        for each in {first.id, sandbox.id}:
            try:
                await (await Sandbox.connect(each, connection_config=config)).destroy()
            except Exception:
                pass
    print("NOTED", json.dumps([run.model_dump(mode="json") for run in noted]))

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def client() -> None:
    if not INSTALLED.is_dir():
        reason = "OpenSandbox's Python clients are not installed (scripts/venv.sh)"
        print(f"SKIP: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(reason)


def ours(program: str, server: Server) -> str:
    """The two changes."""
    domain = server.url.removeprefix("http://") + "/opensandbox"
    for theirs, mine in (("api.opensandbox.io", domain), ("your-api-key", server.api_key)):
        assert program.count(theirs) == 1
        program = program.replace(theirs, mine)
    return program


def done(program: str, server: Server, typed: str = "") -> str:
    """What a program prints that must not fail."""
    ran = subprocess.run(
        [sys.executable, "-c", ours(program, server)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(INSTALLED)},
        input=typed,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def within(name: str, server: Server) -> tuple[list[str], list[dict]]:
    """The lines that a part of the guide prints, and the runs that it made."""
    body = textwrap.indent(PROGRAMS[name], " " * 8)
    said = done(BEFORE + unindented(body) + AFTER, server)
    printed, _, noted = said.rpartition("NOTED ")
    return [line for line in printed.splitlines() if line], json.loads(noted)


def unindented(body: str) -> str:
    """Texts in three quotes stay as they are written: indentation is a part of them."""
    parts = body.split('"""')
    parts[1::2] = [re.sub(r"^ {8}", "", part, flags=re.M) for part in parts[1::2]]
    return '"""'.join(parts)


def printed(run: dict, stream: str = "stdout") -> str:
    return "".join(message["text"] for message in run["logs"][stream])


def fine(*runs: dict) -> None:
    for run in runs:
        assert run["error"] is None and run["complete"] is not None, run


pytestmark = pytest.mark.usefixtures("client")


def test_quick_start(server: Server):
    assert done(PROGRAMS["quick start"], server) == "4\n"


def test_quick_start_synchronous(server: Server):
    assert done(PROGRAMS["quick start, synchronous"], server) == "4\n"


def test_versions(server: Server):
    checked = PROGRAMS["versions"] + (
        'seen = await sandbox.commands.run("python3 --version; java -version 2>&1; node --version;'
        ' go version")\nprint(seen.text)\n'
    )
    body = textwrap.indent(checked, " " * 8)
    lines, _, _ = done(BEFORE + body + AFTER, server).rpartition("NOTED ")
    for version in (r"Python 3\.11\.", r"openjdk version \"17\.", r"v20\.", r"go version go1\.24"):
        assert re.search(version, lines), lines


@pytest.mark.parametrize(("name", "value"), [("default context", "4"), ("state", "42")])
def test_default_contexts(server: Server, name: str, value: str):
    """The programs assert it themselves."""
    said, runs = within(name, server)
    fine(*runs)
    assert said == [] and runs[-1]["result"][0]["text"] == value


def test_java(server: Server):
    said, (run,) = within("java", server)
    fine(run)
    assert said == [run["id"], "Calculating sum...", "Sum: 30"]
    assert [result["text"] for result in run["result"]] == ["30"]


def test_variables_between_runs(server: Server):
    _, (first, second) = within("variables between runs", server)
    fine(first, second)
    users = "['Alice', 'Bob', 'Charlie', 'Dave']"
    assert (printed(first), printed(second)) == ("3\n", f"{users}\n")
    assert [result["text"] for result in second["result"]] == [users]


def test_streaming(server: Server):
    said, (run,) = within("streaming", server)
    fine(run)
    assert said == [f"STDOUT: {n}" for n in range(5)]
    times = [message["timestamp"] for message in run["logs"]["stdout"]]
    assert len(times) == 5 and times[-1] - times[0] >= 1_000, "each when it was printed"


def test_languages_beside_each_other(server: Server):
    _, (python, go) = within("languages beside each other", server)
    fine(python, go)
    assert printed(python) == "Running in Python\n"
    # println of Go writes to the standard error.
    assert printed(go, "stderr") == "Running in Go\n"


def test_go(server: Server):
    said, (run,) = within("go", server)
    fine(run)
    assert said == ["Sum: 30"]


def test_typescript(server: Server):
    said, (run,) = within("typescript", server)
    fine(run)
    assert said == ["Hello from TypeScript!", "Sum: 30"]


def test_reused_context(server: Server):
    _, runs = within("reused context", server)
    fine(*runs)
    assert [printed(run) for run in runs] == ["", "", "2.0\n"]


def test_one_off(server: Server):
    _, (run,) = within("one-off", server)
    fine(run)
    assert printed(run) == "Hello\n"


def test_errors(server: Server):
    said, (run,) = within("errors", server)
    assert said == [], "an error of the code is a result, and raises nothing"
    assert run["error"]["name"] == "NameError" and "undefined_variable" in run["error"]["value"]
    assert run["error"]["traceback"] and run["complete"] is None


def test_cleaning_up(server: Server):
    within("cleaning up", server)


def test_repl(server: Server):
    typed = ["a = 2", "a ** 10", "print('hi')", "import math", "1 / 0", "a", "exit"]
    program = PROGRAMS["repl"] + "\nimport asyncio\nasyncio.run(repl())\n"
    said = done(program, server, "\n".join(typed) + "\n")
    assert said.split() == [
        *"Python REPL (type 'exit' to quit)".split(),
        *(">>> >>> 1024 >>> hi >>> >>> >>> 2 >>>".split()),
    ]


def test_installing_packages(server: Server):
    """Without a way out to the internet, the second program fails with the host and the cause."""
    _, (installed, used) = within("installing packages", server)
    fine(installed)
    assert "returncode=0" in installed["result"][0]["text"] and "requests" in printed(installed)
    if used["error"] is None:
        assert re.fullmatch(r"Status: \d+ \n", printed(used))
        return
    assert used["error"]["name"] in {"ProxyError", "ConnectionError", "SSLError"}, used["error"]
    assert "api.github.com" in used["error"]["value"]


def test_the_programs_are_those_that_were_compared():
    """Nobody has made them prettier since: without the guide it would not be noticed."""
    texts = ["".join(program.split()) for program in PROGRAMS.values()]
    assert hashlib.sha256("\0".join(texts).encode()).hexdigest() == COMPARED


def test_the_programs_are_those_of_the_guide():
    """The page lost indentation, and put spaces where words have a colour: those do not count."""
    place = Path(os.environ.get("CROWNEST_GUIDES", "")) / GUIDE
    if not os.environ.get("CROWNEST_GUIDES") or not place.is_file():
        reason = "CROWNEST_GUIDES does not name a directory with the guides"
        print(f"SKIP: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(reason)
    guide = "".join(place.read_text().split())
    for name, program in PROGRAMS.items():
        assert "".join(program.split()) in guide, name
        guide = guide.replace("".join(program.split()), "", 1)
    assert "await" not in guide, "no program is left out"
