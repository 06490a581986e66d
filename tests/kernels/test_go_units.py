"""The Go kernel's own tests, with a toolchain that it is for: go test, go vet, gofmt."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from go_fixtures import toolchain  # noqa: F401

SOURCE = Path(__file__).resolve().parents[2] / "kernels" / "go"
# The standard library is compiled first.
SECONDS_MAX = 1200


@pytest.fixture(scope="module")
def go(toolchain, tmp_path_factory):  # noqa: F811
    """Runs one of the toolchain's programs in the kernel's source, without a network."""
    bin_directory = toolchain[1] / "bin"
    cache = os.environ.get("CROWNEST_TEST_GOCACHE") or str(tmp_path_factory.mktemp("gocache"))
    env = {
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "GOROOT": str(toolchain[1]),
        "GOCACHE": cache,
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOENV": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }

    def run(program, *arguments):
        done = subprocess.run(
            [bin_directory / program, *arguments],
            cwd=SOURCE,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_units(go):
    code, text = go("go", "test", "./...")
    assert code == 0, text
    assert "ok" in text


def test_vet(go):
    assert go("go", "vet", "./...") == (0, "")


def test_format(go):
    assert go("gofmt", "-l", "cell", "cmd", "internal", "_hooks") == (0, "")
