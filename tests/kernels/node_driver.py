"""How the driver of JavaScript and TypeScript is started in tests.

Interpreters: what CROWNEST_TEST_NODE names (paths, separated by colons), else those of the template
`code-interpreter`. The driver's packages: what CROWNEST_TEST_NODE_MODULES names, else those of the
template. Missing ones are skipped aloud.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness

SOURCE = Path(__file__).resolve().parents[2] / "kernels" / "node"
ROOT = harness.TEMPLATES / "code-interpreter" / "current" / "rootfs"


def interpreters() -> list[str]:
    """Paths of the interpreters there are, oldest first."""
    if chosen := os.environ.get("CROWNEST_TEST_NODE"):
        return chosen.split(":")
    installed = sorted(ROOT.glob("opt/node/*/bin/node"), key=lambda path: int(path.parts[-3]))
    return [str(path) for path in installed]


def version_of(node: str | None) -> str:
    """The name of a test's parameter."""
    if node is None:
        return "none"
    asked = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def modules() -> Path | None:
    """The directory with the driver's packages."""
    chosen = os.environ.get("CROWNEST_TEST_NODE_MODULES")
    directory = Path(chosen) if chosen else ROOT / "opt" / "node_modules"
    return directory if (directory / "acorn").is_dir() else None


@functools.cache
def driver() -> Path:
    """The driver beside its packages, as in a sandbox: /opt/crownest/node and /opt/node_modules."""
    found = modules()
    assert found is not None
    root = Path(tempfile.mkdtemp(prefix="crownest-node-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    root.chmod(0o755)
    (root / "node_modules").symlink_to(found.resolve())
    shutil.copytree(SOURCE, root / "crownest" / "node")
    return root / "crownest" / "node" / "driver.cjs"


def argv(node: str, language: str | None = None) -> list[str]:
    """As kernels/node/README.md says."""
    return [node, "--no-force-async-hooks-checks", str(driver()), *([language] if language else [])]


def missing() -> str | None:
    """Why nothing can run here, said aloud."""
    reason = None
    if not interpreters():
        reason = "no Node: template code-interpreter is not built, and CROWNEST_TEST_NODE is not set"
    elif modules() is None:
        reason = "the driver's packages are not there, and CROWNEST_TEST_NODE_MODULES is not set"
    if reason is not None:
        print(f"SKIP: {reason}", file=sys.__stderr__, flush=True)
    return reason


class NodeDriver(harness.Driver):
    """A context of JavaScript, or with `language="typescript"` of that."""

    def __init__(self, node: str, env=None, cwd=None, language: str | None = None):
        super().__init__(argv=argv(node, language), env=env, cwd=cwd)

    def ts(self, code, **fields):
        """Runs a cell of TypeScript."""
        return self.run(code, language="typescript", **fields)
