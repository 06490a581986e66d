"""Fixtures of the tests that speak HTTP themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from rest import Sandbox, connect
from server import Server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with connect(server) as client:
        yield client


@pytest.fixture
def make(client: httpx.Client) -> Iterator[Callable[..., Sandbox]]:
    """Makes sandboxes that end with the test."""
    made: list[Sandbox] = []

    def create(**fields: Any) -> Sandbox:
        made.append(Sandbox.create(client, **fields))
        return made[-1]

    yield create
    for sandbox in made:
        sandbox.kill()


@pytest.fixture
def sandbox(make: Callable[..., Sandbox]) -> Sandbox:
    """A sandbox that nobody else uses."""
    return make()


@pytest.fixture(scope="session")
def neighbour(client: httpx.Client) -> Iterator[Sandbox]:
    """A sandbox that must not notice what happens in others."""
    sandbox = Sandbox.create(client)
    sandbox.value("1+1")
    yield sandbox
    sandbox.kill()
