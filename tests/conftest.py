"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from server import Server, missing  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that do not break it."""
    if reason := missing():
        print(f"SKIP: no server can run here: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(reason)
    with Server(tmp_path_factory.mktemp("crownest") / "data", "--pool", "2") as running:
        yield running
