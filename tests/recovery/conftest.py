"""Servers that tests may break: one for each test."""

from __future__ import annotations

import os
import shutil
import signal
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
    children: list[int] = []

    def begin(*options: str, data_dir: Path | None = None) -> Server:
        server = Server(data_dir or data_directory(), *options)
        started.append(server.start())
        children.extend(os.pidfd_open(pid) for pid in server.children().values())
        return server

    yield begin
    # A test may have failed with its server down and its sandboxes up: the last server of a data
    # directory ends what is left of all of them.
    for server in {s.data_dir: s for s in started}.values():
        if server.process and server.process.poll() is not None:
            server.start()
        server.__exit__(None, None, None)
        shutil.rmtree(server.data_dir.parent, ignore_errors=True)
    for handle in children:
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(handle)
