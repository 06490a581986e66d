"""Sandboxes to break out of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from probe import Api, Sandbox  # noqa: E402
from server import Server  # noqa: E402


@pytest.fixture(scope="session")
def api(server: Server) -> Api:
    return Api(server)


@pytest.fixture(scope="module")
def sandbox(api: Api) -> Iterator[Sandbox]:
    """The one that the hostile code is in."""
    made = api.create()
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def neighbour(api: Api) -> Iterator[Sandbox]:
    """Somebody else's, on the same machine."""
    made = api.create()
    made.run("1")
    yield made
    made.destroy()


@pytest.fixture
def make(api: Api) -> Iterator[Callable[..., Sandbox]]:
    """Sandboxes that a test wears out."""
    made: list[Sandbox] = []

    def create(**request: object) -> Sandbox:
        made.append(api.create(**request))
        return made[-1]

    yield create
    for sandbox in made:
        # One that the test has ended itself is gone already.
        api.http.delete(sandbox.path)
