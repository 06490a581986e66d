"""Contexts for the tests of the Go kernel, one for each toolchain that is there."""

from __future__ import annotations

import pytest

from go_driver import TOOLCHAINS, context


def params():
    if not TOOLCHAINS:
        return [pytest.param(None, marks=pytest.mark.skip(reason="SKIP: no Go kernel on this machine"))]
    return [pytest.param(toolchain, id="go" + toolchain[1].name) for toolchain in TOOLCHAINS]


@pytest.fixture(scope="module", params=params())
def toolchain(request):
    return request.param


@pytest.fixture(scope="module")
def shared(toolchain, tmp_path_factory):
    """A context that several tests use, each with names of its own."""
    started = context(toolchain, tmp_path_factory.mktemp("go"))
    yield started
    started.close()


@pytest.fixture
def own(toolchain, tmp_path):
    """A context that a test may leave in any condition."""
    started = context(toolchain, tmp_path)
    yield started
    started.close()


def ok(run):
    """The run, which must have ended well."""
    assert run.status == "ok", (run.error, run.err)
    return run


def notices(run):
    return [(event["code"], event["message"]) for event in run.of("notice")]
