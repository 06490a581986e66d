"""npm's `@alibaba-group/opensandbox`, unmodified, against a real server: the tests in node/, run
by Node's own test runner."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server import TEMPLATES, Server

HERE = Path(__file__).parent / "node"
# Kept between runs, beside the packages of the Python tests.
INSTALLED = Path(sys.prefix) / "opensandbox-node"
INSTALL_SECONDS_MAX = 300
RUN_SECONDS_MAX = 600
MAJOR_MIN = 20


def tools() -> tuple[str, str] | None:
    """A Node that the package runs on, and its npm: the machine's, else that of a template."""
    places = [Path(path) for path in os.environ["PATH"].split(os.pathsep)]
    for template in ("code-interpreter", "node", "python-node"):
        roots = (TEMPLATES / template / "current" / "rootfs" / "opt" / "node").glob("*/bin")
        places += sorted(roots, key=lambda path: -int(path.parent.name))
    for place in places:
        node, npm = place / "node", place / "npm"
        if node.exists() and npm.exists():
            said = subprocess.run([node, "--version"], capture_output=True, text=True)
            if said.returncode == 0 and int(said.stdout[1:].split(".")[0]) >= MAJOR_MIN:
                return str(node), str(npm)
    return None


@pytest.fixture(scope="module")
def node() -> str:
    """The program, after the packages were installed as the lock file says."""
    if (found := tools()) is None:
        reason = f"no Node {MAJOR_MIN} or newer, neither here nor in a template"
        print(f"SKIP: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(reason)
    program, npm = found
    lock = (HERE / "package-lock.json").read_bytes() + (HERE / "package.json").read_bytes()
    wanted = hashlib.sha256(lock).hexdigest()
    stamp = INSTALLED / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(INSTALLED, ignore_errors=True)
        INSTALLED.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, INSTALLED)
        path = os.pathsep.join([str(Path(program).parent), os.environ["PATH"]])
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=INSTALLED,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS_MAX,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(wanted)
    return program


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_node(name: str, node: str, domain: str, server: Server):
    # Imports are looked for from where a file is, so it has to be beside the packages.
    for path in HERE.glob("*.mjs"):
        shutil.copy(path, INSTALLED)
    done = subprocess.run(
        [node, "--test", "--test-reporter=spec", name],
        cwd=INSTALLED,
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/root"),
            "TEST_DOMAIN": domain,
            "TEST_API_KEY": server.api_key,
        },
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ℹ pass 0" not in done.stdout, done.stdout
