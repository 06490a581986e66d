"""The guides' snippets run over HTTP, as a client of any language would run them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

from rest import Sandbox, connect, open_directory
from server import Server, missing


@pytest.fixture(scope="session")
def seed_client(server: Server) -> Iterator[httpx.Client]:
    with connect(server) as client:
        yield client


@pytest.fixture
def sandbox(seed_client: httpx.Client) -> Iterator[Sandbox]:
    sandbox = Sandbox.create(seed_client)
    yield sandbox
    sandbox.kill()


@pytest.fixture(scope="session")
def reaching() -> Iterator[Sandbox]:
    """A sandbox of a server whose sandboxes may reach this machine's second loopback address."""
    if reason := missing():
        pytest.skip(reason)
    options = ("--pool", "0", "--egress-allow", "127.0.0.2")
    with (
        open_directory() as directory,
        Server(directory / "data", *options) as server,
        connect(server) as client,
    ):
        yield Sandbox.create(client)
