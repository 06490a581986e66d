"""The description against the server, by a program that reads descriptions: whatever it allows is
sent, valid and not, and every answer must be one that it promises."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import ignored_auth
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode

from rest import Sandbox, connect
from server import Server

# Of each route; derived from the route, so that a failure comes again.
EXAMPLES_MAX = 30
# What would take it from the others: they end it, or stop it.
VERBS = ("extend", "ttl", "pause")
DEADLY = {f"/v1/sandboxes/{{sandboxId}}/{verb}" for verb in VERBS}


@pytest.fixture(scope="module")
def real(server: Server) -> Iterator[dict[str, str]]:
    """Things that exist, for the parameters that name them."""
    with connect(server) as client:
        sandbox = Sandbox.create(client)
        sandbox.write("here.txt", "text")
        yield {"sandboxId": sandbox.id, "contextId": sandbox.context()}
        sandbox.kill()


MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@schemathesis.serializer("application/gzip")
def bytes_as_they_are(_context: Any, value: Any) -> bytes:
    return value.data if hasattr(value, "data") else str(value).encode()


@pytest.mark.parametrize("mode", MODES, ids=["valid", "invalid"])
def test_every_answer_is_one_that_is_described(
    server: Server, real: dict[str, str], mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    # What no schema can say (a cursor that no list gave, a port that is not open) is refused as
    # described; whatever else is refused is a description that promises too much.
    schema.config.checks.positive_data_acceptance.expected_statuses += ["400", "402", "410", "413"]
    found: dict[str, str] = {}
    for result in schema.get_all_operations():
        assert hasattr(result, "ok"), result.err()
        operation = result.ok()
        try:
            examined(operation, server, real, mode)
        except Unsatisfiable:
            continue  # nothing about it can be invalid
        except (schemathesis.errors.SchemathesisError, FailureGroup, Failure) as failure:
            found[operation.label] = str(failure)
    assert not found, "\n\n".join(f"{label}: {text}" for label, text in found.items())


def examined(
    operation: Any, server: Server, real: dict[str, str], mode: GenerationMode
) -> None:
    turn = itertools.count()

    @settings(
        max_examples=EXAMPLES_MAX,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def examine(case: schemathesis.Case) -> None:
        # Every second time about something that is there; never to end it.
        if next(turn) % 2 and case.method != "DELETE" and case.path not in DEADLY:
            for name in case.path_parameters or {}:
                if name in real:
                    case.path_parameters[name] = real[name]
        # Who may ask is the matter of test_api_scopes.py: here everybody may.
        case.call_and_validate(
            headers={"authorization": f"Bearer {server.api_key}"}, excluded_checks=[ignored_auth]
        )

    examine()
