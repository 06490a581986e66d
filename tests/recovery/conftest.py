"""Servers that tests may break: one for each test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from machine import data_directory  # noqa: E402
from server import Server, missing  # noqa: E402


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers, and ends them and their sandboxes after the test."""
    if reason := missing():
        pytest.skip(reason)
    started: list[Server] = []

    def begin(*options: str, data_dir: Path | None = None) -> Server:
        started.append(Server(data_dir or data_directory(), *options).start())
        return started[-1]

    yield begin
    for server in started:
        if server.process and server.process.poll() is None:
            server.__exit__(None, None, None)
