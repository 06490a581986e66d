"""SECURITY.md and the tests keep each other honest: every test that it names exists, every file of
this folder is named there, every row of an attack has a test, and the count of lines that run as
root is the present one.
"""

from __future__ import annotations

import ast
import re
import subprocess

import pytest
from server import ROOT

DOCUMENT = ROOT / "SECURITY.md"
HERE = ROOT / "tests" / "escape"
HEADING = "## Attack → layer → test"


def rows() -> list[tuple[str, str]]:
    """Attack and test of each row of the table."""
    section = DOCUMENT.read_text().split(HEADING)[1].split("\n## ")[0]
    cells = [[c.strip() for c in line.strip("|\n").split("|")] for line in section.splitlines()
             if line.startswith("|")]
    return [(row[0], row[-1]) for row in cells[2:]]


def names_in(path: str) -> set[str]:
    tree = ast.parse((HERE / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def references() -> list[tuple[str, str | None]]:
    """File and test of every reference in the document; `::x` alone means the file before it."""
    found: list[tuple[str, str | None]] = []
    for _, tests in rows():
        file = ""
        for reference in re.findall(r"`([^`]+)`", tests):
            path, _, name = reference.partition("::")
            if path:
                file = path
            if file.endswith(".py") and file.rsplit("/", 1)[-1].startswith("test_"):
                found.append((file, name or None))
    return found


def test_the_table_is_read() -> None:
    """The control of this file: the table is there and has its references."""
    assert len(rows()) > 30 and len(references()) > 40


@pytest.mark.parametrize("file", sorted({file for file, _ in references()}))
def test_every_test_that_is_named_exists(file: str) -> None:
    assert (HERE / file).is_file(), file
    named = {name for path, name in references() if path == file and name}
    assert not named - names_in(file)


def test_every_file_of_tests_is_named() -> None:
    text = DOCUMENT.read_text()
    files = sorted(path.name for path in HERE.glob("test_*.py"))
    assert not [name for name in files if f"`{name}" not in text and f"escape/{name}" not in text]


def test_every_attack_has_its_test() -> None:
    assert not [attack for attack, tests in rows() if "test" not in tests and ".rs" not in tests]


def test_the_lines_that_run_as_root_are_counted() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "root-lines.sh", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
