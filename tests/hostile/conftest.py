"""Sandboxes to misbehave in, and a neighbour that must not notice."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from arena import Arena, open_neighbour  # noqa: E402
from neighbour import Neighbour  # noqa: E402
from server import Server  # noqa: E402

_seen: list[Neighbour] = []


@pytest.fixture(scope="session", autouse=True)
def open_descriptors(request: pytest.FixtureRequest) -> Callable[[], int]:
    """How many descriptors the server has more than before all this."""
    if not any("neighbour" in item.fixturenames for item in request.session.items):
        return lambda: 0
    server: Server = request.getfixturevalue("server")

    def count() -> int:
        return len(os.listdir(f"/proc/{server.children()['server']}/fd"))

    before = count()
    return lambda: count() - before


@pytest.fixture(scope="session")
def neighbour(server: Server) -> Iterator[Neighbour]:
    asked, end = open_neighbour(server)
    _seen.append(asked)
    yield asked
    end()


@pytest.fixture
def enter(server: Server) -> Iterator[Callable[..., Arena]]:
    """Makes a sandbox that ends with the test."""
    made: list[Arena] = []

    def create(**fields: Any) -> Arena:
        made.append(Arena(server, **fields))
        return made[-1]

    yield create
    for arena in made:
        arena.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figure that the promise is about."""
    for asked in _seen:
        terminalreporter.write_line(
            f"neighbour: {asked.answers} answers, the slowest after {asked.worst * 1000:.0f} ms"
        )
