"""How the driver of each language is started: one table, and where its toolchain is looked for.

Toolchains come from the template `code-interpreter` (or `python`) of this machine, or from what
the environment names: CROWNEST_TEST_PYTHON, _NODE, _JAVA, _GO, _BASH.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import harness
import node_driver

REPOSITORY = Path(__file__).resolve().parents[2]
KERNELS = REPOSITORY / "kernels"


@dataclass
class Launch:
    """A driver's argv, and what of its environment is not the same for all."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


class Missing(Exception):
    """Why a language's driver cannot be started on this machine."""


def template_root() -> Path | None:
    """Root of the template with all languages, if it is built here."""
    root = harness.TEMPLATES / "code-interpreter" / "current" / "rootfs"
    return root if root.is_dir() else None


def tool(variable: str, path: str) -> str:
    """The program that `variable` names, else `path` below the template's root."""
    if chosen := os.environ.get(variable):
        return chosen
    root = template_root()
    if root is None:
        raise Missing(f"template code-interpreter is not built, and {variable} is not set")
    if not (root / path).exists():
        raise Missing(f"/{path} is not in template code-interpreter, and {variable} is not set")
    return str(root / path)


def python() -> Launch:
    # What a cell installs goes below its HOME, as it does for the user of a sandbox.
    own = {"PIP_USER": "1", "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_NO_CACHE_DIR": "1"}
    path = os.environ.get("PYTHONPATH", "")
    return Launch([harness.PYTHON, str(harness.KERNEL / "driver.py")], {**own, "PYTHONPATH": path})


def bash() -> Launch:
    driver = os.environ.get("CROWNEST_TEST_BASH")
    if driver is None:
        # Built together with the server's binary, which carries it.
        target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
        found = target.glob("*/build/crownest-runtime-*/out/init/*/init/crownest-bash")
        driver = str(max(found, key=lambda path: path.stat().st_mtime, default=""))
    if not driver:
        raise Missing("the driver is not built (cargo build -p crownest-cli)")
    return Launch([driver])


def node(language: str) -> Launch:
    if reason := node_driver.missing():
        raise Missing(reason)
    path = os.pathsep.join([str(Path(node_driver.interpreters()[-1]).parent), os.environ["PATH"]])
    argv = [node_driver.interpreters()[-1], str(node_driver.driver()), language]
    # As init tells every process of a sandbox that has a network.
    certificates = {"NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt"}
    return Launch(argv, {"PATH": path, "npm_config_update_notifier": "false", **certificates})


# A language's peers add their line here. The function raises Missing where it cannot run.
LAUNCHES: dict[str, Callable[[], Launch]] = {
    "bash": bash,
    "javascript": functools.partial(node, "javascript"),
    "python": python,
    "typescript": functools.partial(node, "typescript"),
}


def launch(language: str) -> Launch:
    if language not in LAUNCHES:
        raise Missing(f"no driver of {language} is in the table of launch.py")
    return LAUNCHES[language]()
