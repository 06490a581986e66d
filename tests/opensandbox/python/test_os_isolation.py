"""Sessions isolated inside of one sandbox, which are not built: `capabilities` says so, everything
else fails with it."""

from __future__ import annotations

import pytest
from opensandbox.models.isolated import (
    CreateIsolatedSessionRequest,
    IsolatedSessionInfo,
    IsolatedWorkspaceSpec,
)

SESSION = "5c1f6b0e-6d1b-4b66-9c41-0d5f0f8f3f1e"


@pytest.fixture
def isolation(shared):
    return shared.isolation


def test_capabilities(isolation):
    seen = isolation.capabilities()
    assert seen.available is False and seen.message
    assert (seen.diff_supported, seen.commit_supported) == (False, False)


def test_sessions_are_not_built(isolation, refused):
    request = CreateIsolatedSessionRequest(workspace=IsolatedWorkspaceSpec(path="/workspace"))

    def within() -> None:
        with isolation.session(request):
            raise AssertionError("there is no session")

    for call in (
        lambda: isolation.create(request),
        lambda: isolation.list(),
        lambda: isolation.attach(SESSION),
        lambda: isolation.run_once("true", workspace="/workspace"),
        within,
    ):
        refused(501, call)


def test_what_a_session_could_do_is_not_built(isolation, sdk, refused):
    session = handle(isolation, sdk)
    assert session.session_id == SESSION == session.info.session_id
    for call in (
        lambda: session.run("true"),
        lambda: session.run_background("true"),
        lambda: session.run_status(SESSION),
        lambda: session.run_logs(SESSION),
        lambda: session.get(),
        lambda: session.delete(),
        lambda: session.files.read_file("/workspace/x"),
    ):
        refused(501, call)


def handle(isolation, sdk):
    """What `attach` would give, if there were a session."""
    if sdk.name == "sync":
        from opensandbox.sync.adapters.isolated_adapter import IsolationSessionHandleSync as Handle

        return Handle(IsolatedSessionInfo(session_id=SESSION), isolation)
    from opensandbox.adapters.isolated_adapter import IsolationSessionHandle as Handle

    from sdk import Blocking

    return Blocking(Handle(IsolatedSessionInfo(session_id=SESSION), isolation.target), sdk.runner)
