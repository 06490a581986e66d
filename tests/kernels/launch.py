"""How the driver of each language is started: one table, and where its toolchain is looked for.

Toolchains come from the template `code-interpreter` (or `python`) of this machine, or from what
the environment names: CROWNEST_TEST_PYTHON, _NODE, _JAVA, _GO, _BASH.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import go_driver
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


def node(language: str) -> Launch:
    if reason := node_driver.missing():
        raise Missing(reason)
    path = os.pathsep.join([str(Path(node_driver.interpreters()[-1]).parent), os.environ["PATH"]])
    argv = node_driver.argv(node_driver.interpreters()[-1], language)
    # As init tells every process of a sandbox that has a network.
    certificates = {"NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt"}
    return Launch(argv, {"PATH": path, "npm_config_update_notifier": "false", **certificates})


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


def java() -> Launch:
    """CROWNEST_TEST_JAVA: `version:java-home:kernel-home`, with what kernels/java/build.sh made.

    The one of a template is told where it is from outside. Its archive of classes holds for the
    paths inside, so it starts more slowly here.
    """
    driver = str(KERNELS / "java" / "driver.sh")
    if chosen := os.environ.get("CROWNEST_TEST_JAVA"):
        return Launch(["/bin/sh", driver, *chosen.split(":")])
    home, kernel = (tool("CROWNEST_TEST_JAVA", f"opt/{name}/17") for name in ("java", "crownest-java"))
    return Launch(["/bin/sh", driver, "17", home, _from_outside(kernel)])


@functools.cache
def _from_outside(kernel: str) -> str:
    """A directory with everything of a template's kernel, and options that name this directory."""
    built = Path(kernel)
    place = Path(tempfile.mkdtemp(prefix="crownest-java-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    place.chmod(0o755)
    for entry in built.iterdir():
        # JShell follows no link to a directory when it looks for packages.
        if entry.is_dir():
            shutil.copytree(entry, place / entry.name, copy_function=os.symlink)
        elif entry.name != "options":
            (place / entry.name).symlink_to(entry)
    options = (built / "options").read_text()
    (place / "options").write_text(options.replace(f"/opt/crownest-java/{built.name}", str(place)))
    return str(place)


def go() -> Launch:
    """The newest toolchain; tests/kernels/test_go_*.py take each that is there."""
    if not go_driver.TOOLCHAINS:
        raise Missing(go_driver.MISSING)
    return Launch(go_driver.argv(go_driver.TOOLCHAINS[-1]))


# A language's peers add their line here. The function raises Missing where it cannot run.
LAUNCHES: dict[str, Callable[[], Launch]] = {
    "bash": bash,
    "go": go,
    "javascript": functools.partial(node, "javascript"),
    "java": java,
    "python": python,
    "typescript": functools.partial(node, "typescript"),
}


def launch(language: str) -> Launch:
    if language not in LAUNCHES:
        raise Missing(f"no driver of {language} is in the table of launch.py")
    return LAUNCHES[language]()
