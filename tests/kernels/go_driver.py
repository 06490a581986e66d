"""Where the Go kernel's driver and its toolchains are on this machine, and contexts for its tests.

CROWNEST_TEST_GO names them: directory of the driver, then toolchains, with colons between
(`kernels/go/build.sh GOROOT DIRECTORY/1.27` makes such a directory). Otherwise they are those of
the template `code-interpreter`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import harness


def toolchains() -> list[tuple[Path, Path]]:
    """(driver, GOROOT) of every toolchain that something is prepared for."""
    if chosen := os.environ.get("CROWNEST_TEST_GO"):
        directory, *roots = (Path(part) for part in chosen.split(":"))
    else:
        root = harness.TEMPLATES / "code-interpreter" / "current" / "rootfs"
        directory = root / "opt/crownest-go"
        roots = sorted((root / "opt/go").glob("*"))
    found = [home for home in roots if (directory / home.name / "version").exists()]
    return [(directory / "driver", home) for home in found]


def argv(toolchain: tuple[Path, Path]) -> list[str]:
    driver, root = toolchain
    return [str(driver), str(root)]


def context(toolchain: tuple[Path, Path], cwd: Path, env: dict[str, str] | None = None) -> harness.Driver:
    """A context in a directory, with a home of its own."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    started = harness.Driver(argv=argv(toolchain), env={"HOME": str(home), "TMPDIR": str(home), **(env or {})}, cwd=cwd)
    return started.start(cwd)


MISSING = "no Go kernel: it is not in template code-interpreter, and CROWNEST_TEST_GO is not set"
TOOLCHAINS = toolchains()
if not TOOLCHAINS:
    print(f"SKIP: {MISSING}", file=sys.__stderr__)
