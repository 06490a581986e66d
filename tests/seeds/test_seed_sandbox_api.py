"""The guide to the sandbox API: its program with the official client, and the same with curl, as
docs/tour.md has it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import crownest
import pytest

from server import Server

TOUR = Path(__file__).resolve().parents[2] / "docs/tour.md"


@pytest.fixture
def client(server: Server) -> crownest.CrowNest:
    with crownest.CrowNest(base_url=server.url, api_key=server.api_key) as client:
        yield client


def test_a_request_from_create_to_kill(client: crownest.CrowNest):
    sandbox = client.sandboxes.create(template="python")
    sandbox.files.write("main.py", "print('made')\nopen('report.html', 'w').write('<h1>1</h1>')\n")
    heard: list[str] = []
    result = sandbox.commands.run(
        "python3 main.py",
        collect=[{"path": "/workspace/report.html", "name": "report.html"}],
        on_stdout=heard.append,
    )
    assert result["exitCode"] == 0
    assert "made" in "".join(str(chunk) for chunk in heard)
    assert result["collectStatus"] == "succeeded"
    (artifact,) = sandbox.artifacts.list()
    sandbox.kill()
    assert client.artifacts.download(artifact["id"]) == b"<h1>1</h1>", "it outlives the sandbox"


def test_the_tour_works_as_it_is_written(server: Server):
    blocks = re.findall(r"```bash\n(.*?)```", TOUR.read_text(), re.S)
    assert len(blocks) >= 6
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "CN_URL": server.url, "CN_KEY": server.api_key},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert '"exitCode":0' in said and '"value":"42"' in said
    assert "line 1" in said and "line 3" in said and "terminal" in said
    assert said.count("<h1>42</h1>") == 2, "through the preview, and from the artifact"
    assert '"status":"destroyed"' in said and '"action":"sandbox.kill"' in said
