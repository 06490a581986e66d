"""The official client from PyPI, unmodified, in both of its forms behind one way of calling."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import crownest
import httpx
import pytest

from server import Server


class Blocking:
    """The asynchronous client, called as if it were the synchronous one: awaits what it returns,
    turns asynchronous iterators into plain ones, and leaves everything else as it is."""

    def __init__(self, target: Any, runner: asyncio.Runner):
        self.__dict__.update(target=target, runner=runner)

    def __getattr__(self, name: str) -> Any:
        return self._settle(getattr(self.target, name))

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._settle(self.target(*arguments, **options))

    def __getitem__(self, key: str) -> Any:
        return self.target[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.target)

    def __contains__(self, key: str) -> bool:
        return key in self.target

    def _settle(self, value: Any) -> Any:
        if inspect.isawaitable(value):
            value = self.runner.run(_awaited(value))
        if inspect.isasyncgen(value):
            return self._pull(value)
        ours = type(value).__module__.startswith("crownest")
        return Blocking(value, self.runner) if ours or callable(value) else value

    def _pull(self, events: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self.runner.run(_awaited(anext(events)))
                except StopAsyncIteration:
                    return
        finally:
            self.runner.run(_awaited(events.aclose()))


async def _awaited(value: Any) -> Any:
    return await value


@pytest.fixture(params=["sync", "async"], scope="module")
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes clients of the kind under test; closes them at the end."""
    if request.param == "sync":
        made: list[crownest.CrowNest] = []

        def make_sync(**options: Any) -> crownest.CrowNest:
            made.append(crownest.CrowNest(**options))
            return made[-1]

        yield make_sync
        for client in made:
            client.close()
        return

    with asyncio.Runner() as runner:
        asynchronous: list[crownest.AsyncCrowNest] = []

        def make_async(**options: Any) -> Blocking:
            asynchronous.append(crownest.AsyncCrowNest(**options))
            return Blocking(asynchronous[-1], runner)

        yield make_async
        for client in asynchronous:
            runner.run(client.aclose())


@pytest.fixture(scope="module")
def crow(connect: Any, server: Server) -> Any:
    return connect(base_url=server.url, api_key=server.api_key)


@pytest.fixture
def sandbox(crow: Any) -> Iterator[Any]:
    handle = crow.sandboxes.create()
    yield handle
    handle.kill()


@pytest.fixture(scope="session")
def raw(server: Server) -> Iterator[httpx.Client]:
    """For what the client cannot do."""
    headers = {"authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client
