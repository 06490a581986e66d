"""The guide to the code interpreter API: its program with the official client, and the same with
curl, as docs/tour-code.md has it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import crownest

from server import Server

TOUR = Path(__file__).resolve().parents[2] / "docs/tour-code.md"
TOUR_SECONDS_MAX = 120


def test_code_is_run_and_its_output_heard(server: Server):
    with crownest.CrowNest(base_url=server.url, api_key=server.api_key) as client:
        sandbox = client.sandboxes.create(template="python")
        code = "import pandas as pd; print(pd.__version__)"
        events = list(sandbox.code.run_stream(code, language="python"))
        result = sandbox.code.run(code, language="python")
        sandbox.kill()
    heard = "".join(event["data"] for event in events if event["type"] == "stdout")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", heard), heard
    assert events[-1]["type"] == "complete" and "error" not in events[-1]["data"]
    assert "".join(result["stdout"]) == heard and "error" not in result, result


def test_the_tour_works_as_it_is_written(server: Server, tmp_path: Path):
    blocks = re.findall(r"```bash\n(.*?)```", TOUR.read_text(), re.S)
    assert len(blocks) >= 7
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS_MAX,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "CN_URL": server.url, "CN_KEY": server.api_key},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert re.match(r'data: {"type":"stdout","data":"\d+\.\d+\.\d+\\n"', said[0]), said[0]
    assert said[1:] and said[1] == "ok", said
    assert said.count('"value":"42"') == 3 and said.count('"value":"False"') == 1
    assert '"name":"ZeroDivisionError"' in said and '"exitCode":0' in said
    assert done.stdout.count("a,b\n1,2\n") == 2, "through the preview, and from the artifact"
    assert "401" in said and '"status":"destroyed"' in said
