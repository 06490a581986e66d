"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from server import Server, missing  # noqa: E402


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.failed:
        report.sections.extend(Server.logs())
    return report


def open_directory() -> Path:
    """A new directory that the server's user may enter: pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="crownest-test-"))
    path.chmod(0o711)
    return path


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests that do not break it."""
    if reason := missing():
        print(f"SKIP: no server can run here: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(reason)
    directory = open_directory()
    with Server(directory / "data", "--pool", "2") as running:
        yield running
    shutil.rmtree(directory, ignore_errors=True)
