"""A client of each kind, and sandboxes made with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from opensandbox.exceptions import SandboxApiException

from sdk import ENTRYPOINT, INTERPRETER, Async, Sync
from server import Server

Refused = Callable[..., SandboxApiException]


@pytest.fixture(params=[Sync, Async], ids=lambda kind: kind.name, scope="module")
def sdk(request: pytest.FixtureRequest, domain: str, server: Server) -> Iterator[Sync]:
    client = request.param(domain, server.api_key)
    yield client
    client.close()


@pytest.fixture
def create(sdk: Sync) -> Iterator[Callable[..., Any]]:
    """Makes sandboxes, and takes away what a test left."""
    made: list[Any] = []

    def create(image: str | None = "python:3.11", **options: Any) -> Any:
        given = {"connection_config": sdk.config(), "timeout": timedelta(minutes=10), **options}
        made.append(sdk.Sandbox.create(image, **given))
        return made[-1]

    yield create
    for sandbox in made:
        try:
            sandbox.kill()
        except SandboxApiException as error:
            assert error.status_code == 404, error
        finally:
            sandbox.close()


@pytest.fixture(scope="module")
def shared(sdk: Sync) -> Iterator[Any]:
    """A sandbox for tests that leave it as they found it."""
    sandbox = sdk.Sandbox.create("python:3.11", connection_config=sdk.config())
    yield sandbox
    sandbox.destroy()


@pytest.fixture(scope="module")
def interpreter(sdk: Sync) -> Iterator[Any]:
    """An interpreter for tests that make contexts of their own."""
    sandbox = sdk.Sandbox.create(INTERPRETER, connection_config=sdk.config(), entrypoint=ENTRYPOINT)
    yield sdk.CodeInterpreter.create(sandbox=sandbox)
    sandbox.destroy()


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Checks that a call fails with that status, a code and a request id."""

    def refused(status: int, call: Callable[[], Any], code: str | None = None) -> Any:
        with pytest.raises(SandboxApiException) as caught:
            call()
        error = caught.value
        assert error.status_code == status, f"{error.status_code}: {error}"
        assert error.request_id, "an answer names its request"
        assert error.error.code and str(error), error
        if code is not None:
            assert error.error.code == code, error.error
        return error

    return refused
