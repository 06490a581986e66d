"""Every language shows every scenario, alone and in a real sandbox: kernels/conformance/README.md."""

from __future__ import annotations

import functools
import os
import sys
import tomllib
from typing import Any

import pytest

import launch
import session
from backends import DriverBackend, ServerBackend
from harness import Died
from server import TEMPLATES

# A scenario that is known to fail is not waited for long.
PENDING_SECONDS = 5
PAIRS = [(language, name) for language in session.languages() for name in session.required()]


def skip(reason: str) -> None:
    print(f"SKIP: {reason}", file=sys.__stderr__, flush=True)
    pytest.skip(reason)


@functools.cache
def scenarios(language: str) -> dict[str, dict[str, Any]]:
    return session.read(language)


def scenario_of(language: str, name: str, backend: str) -> dict[str, Any]:
    scenario = scenarios(language)[name]
    if reason := scenario.get("not_applicable"):
        pytest.skip(f"{language} has no {name}: {reason}")
    if scenario.get("only", backend) != backend:
        pytest.skip(f"{name} of {language} is for the {scenario['only']}")
    if scenario.get("needs_network") and os.environ.get("CROWNEST_TEST_OFFLINE"):
        skip("package registries cannot be reached (CROWNEST_TEST_OFFLINE)")
    if "waits_for" in scenario:
        scenario = {**scenario, "seconds": PENDING_SECONDS}
    return scenario


def play(scenario: dict[str, Any], backend: Any) -> None:
    pending = scenario.get("waits_for")
    try:
        session.play(scenario, backend)
    except (AssertionError, TimeoutError, Died) as failure:
        if not pending:
            raise
        pytest.xfail(f"waits for {pending}: {failure}")
    else:
        assert not pending, f"it passes now: take out waits_for = {pending!r}"
    finally:
        backend.close()


@pytest.mark.parametrize("language", session.languages())
def test_a_language_has_every_scenario(language: str):
    assert set(scenarios(language)) == set(session.required())


@pytest.mark.parametrize(("language", "name"), PAIRS)
def test_driver(language: str, name: str):
    scenario = scenario_of(language, name, "driver")
    try:
        started = launch.launch(language)
    except launch.Missing as reason:
        skip(f"no driver of {language}: {reason}")
    play(scenario, DriverBackend(started, scenario))


@functools.cache
def template_for(language: str) -> str | None:
    """A template that is built here and has the language."""
    for slug in ("code-interpreter", "python"):
        definition = launch.REPOSITORY / "templates" / slug / "template.toml"
        if definition.exists() and (TEMPLATES / slug / "current" / "rootfs").is_dir():
            if language in tomllib.loads(definition.read_text())["languages"]:
                return slug
    return None


@pytest.mark.parametrize(("language", "name"), PAIRS)
def test_server(request: pytest.FixtureRequest, language: str, name: str):
    scenario = scenario_of(language, name, "server")
    template = template_for(language)
    if template is None:
        skip(f"no template that is built here serves {language}")
    client = request.getfixturevalue("client")
    play(scenario, ServerBackend(client, template, language, scenario))


@pytest.fixture(scope="session")
def client(server):
    from rest import connect

    with connect(server) as connected:
        yield connected
