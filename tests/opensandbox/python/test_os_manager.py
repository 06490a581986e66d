"""`SandboxManager`: lists with filters and pages, and everything by id. Snapshots too."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.sandboxes import SandboxFilter, SnapshotFilter
from opensandbox.models.templates import CreateTemplateRequest, TemplateFilter

from sdk import lines

SNAPSHOT_SECONDS_MAX = 60


@pytest.fixture
def manager(sdk):
    with sdk.Manager.create(sdk.config()) as manager:
        yield manager


def ids(page) -> set[str]:
    return {info.id for info in page.sandbox_infos}


def test_list_sandbox_infos(create, manager):
    mark = f"m{uuid4().hex}"
    made = [
        create(metadata={"mark": mark, "n": str(n), "example.org/some_key": "a.b-c_D"})
        for n in range(3)
    ]
    found = manager.list_sandbox_infos(SandboxFilter(metadata={"mark": mark}))
    assert ids(found) == {sandbox.id for sandbox in made}
    assert found.pagination.total_items == 3 and found.pagination.has_next_page is False
    one = manager.list_sandbox_infos(SandboxFilter(metadata={"mark": mark, "n": "1"}))
    assert ids(one) == {made[1].id}, "all of them must hold"
    none = manager.list_sandbox_infos(SandboxFilter(metadata={"mark": mark, "n": "7"}))
    assert none.sandbox_infos == [] and none.pagination.total_items == 0


def test_pages(create, manager):
    mark = f"m{uuid4().hex}"
    made = {create(metadata={"mark": mark}).id for _ in range(3)}
    pages = [
        manager.list_sandbox_infos(SandboxFilter(metadata={"mark": mark}, page=n, page_size=2))
        for n in (1, 2)
    ]
    assert [len(page.sandbox_infos) for page in pages] == [2, 1]
    assert ids(pages[0]) | ids(pages[1]) == made
    assert [page.pagination.has_next_page for page in pages] == [True, False]
    assert {page.pagination.total_pages for page in pages} == {2}
    assert [page.pagination.page for page in pages] == [1, 2]


def test_states(create, manager):
    mark = f"m{uuid4().hex}"
    running, paused = (create(metadata={"mark": mark}) for _ in range(2))
    manager.pause_sandbox(paused.id)
    deadline = time.monotonic() + 20
    while manager.get_sandbox_info(paused.id).status.state != "Paused":
        assert time.monotonic() < deadline
    for states, wanted in (
        (["Paused"], {paused.id}),
        (["Running"], {running.id}),
        (["Running", "Paused"], {running.id, paused.id}),
    ):
        found = manager.list_sandbox_infos(SandboxFilter(states=states, metadata={"mark": mark}))
        assert ids(found) == wanted, states
    manager.resume_sandbox(paused.id)
    while manager.get_sandbox_info(paused.id).status.state != "Running":
        assert time.monotonic() < deadline
    assert lines(paused.commands.run("echo on")) == ["on"]


def test_by_id(create, manager, refused):
    sandbox = create(metadata={"a": "1"})
    assert manager.get_sandbox_info(sandbox.id).metadata == {"a": "1"}
    assert manager.patch_sandbox_metadata(sandbox.id, {"a": "2"}).metadata == {"a": "2"}
    renewed = manager.renew_sandbox(sandbox.id, timedelta(minutes=30))
    assert abs(renewed.expires_at - datetime.now(UTC) - timedelta(minutes=30)).seconds < 30
    assert manager.get_diagnostic_logs(sandbox.id, "container").kind == "logs"
    assert manager.get_diagnostic_events(sandbox.id, "all").kind == "events"
    assert manager.connection_config.get_domain()
    manager.kill_sandbox(sandbox.id)
    assert not sandbox.is_healthy()


def test_what_is_not_there(manager, refused):
    for call in (
        manager.get_sandbox_info,
        manager.pause_sandbox,
        manager.resume_sandbox,
        manager.kill_sandbox,
        manager.create_snapshot,
        lambda sandbox: manager.patch_sandbox_metadata(sandbox, {"a": "2"}),
        lambda sandbox: manager.renew_sandbox(sandbox, timedelta(minutes=5)),
    ):
        refused(404, lambda call=call: call("no-such-sandbox"))


def test_what_has_ended(create, manager):
    """It is looked at and ended again; nothing else."""
    sandbox = create().id
    manager.kill_sandbox(sandbox)
    manager.kill_sandbox(sandbox)
    assert manager.get_sandbox_info(sandbox).status.state == "Terminated"
    for call in (
        manager.pause_sandbox,
        manager.resume_sandbox,
        manager.create_snapshot,
        lambda sandbox: manager.patch_sandbox_metadata(sandbox, {"a": "2"}),
        lambda sandbox: manager.renew_sandbox(sandbox, timedelta(minutes=5)),
    ):
        with pytest.raises(SandboxApiException) as caught:
            call(sandbox)
        assert caught.value.status_code in (404, 409, 410), caught.value


# -- snapshots


def ready(manager, snapshot: str):
    deadline = time.monotonic() + SNAPSHOT_SECONDS_MAX
    while (info := manager.get_snapshot(snapshot)).status.state == "Creating":
        assert time.monotonic() < deadline, info
    assert info.status.state == "Ready", info
    return info


def test_snapshots(create, manager, refused):
    sandbox = create()
    sandbox.files.write_file("/workspace/kept.txt", "before")
    sandbox.commands.run("echo home > ~/kept; mkdir -p /workspace/d; chmod 700 /workspace/d")
    taken = sandbox.create_snapshot("first")
    assert (taken.sandbox_id, taken.name) == (sandbox.id, "first")
    info = ready(manager, taken.id)
    assert info.id == taken.id and info.created_at
    sandbox.files.write_file("/workspace/kept.txt", "after")

    other = manager.create_snapshot(sandbox.id, "second")
    ready(manager, other.id)
    found = manager.list_snapshots(SnapshotFilter(sandbox_id=sandbox.id))
    assert {s.id for s in found.snapshot_infos} == {taken.id, other.id}
    paged = manager.list_snapshots(SnapshotFilter(sandbox_id=sandbox.id, page=1, page_size=1))
    assert len(paged.snapshot_infos) == 1 and paged.pagination.has_next_page is True
    states = manager.list_snapshots(SnapshotFilter(sandbox_id=sandbox.id, states=["Failed"]))
    assert states.snapshot_infos == []

    made = create(None, snapshot_id=taken.id)
    assert made.files.read_file("/workspace/kept.txt") == "before"
    assert lines(made.commands.run("cat ~/kept; stat -c %a /workspace/d")) == ["home", "700"]
    assert made.get_info().snapshot_id == taken.id

    manager.delete_snapshot(taken.id)
    refused(404, lambda: manager.get_snapshot(taken.id), "SNAPSHOT::NOT_FOUND")
    refused(404, lambda: manager.delete_snapshot(taken.id), "SNAPSHOT::NOT_FOUND")
    assert made.files.read_file("/workspace/kept.txt") == "before", "it does not need it any more"
    with pytest.raises(SandboxApiException) as caught:
        create(None, snapshot_id=taken.id)
    assert caught.value.status_code in (400, 404)
    manager.delete_snapshot(other.id)


def test_snapshots_outlive_their_sandbox(create, manager):
    sandbox = create()
    sandbox.files.write_file("/workspace/kept.txt", "kept")
    snapshot = ready(manager, sandbox.create_snapshot().id)
    sandbox.kill()
    made = create(None, snapshot_id=snapshot.id)
    assert made.files.read_file("/workspace/kept.txt") == "kept"
    manager.delete_snapshot(snapshot.id)


# -- not built


def test_templates_are_not_built(manager, refused):
    request = CreateTemplateRequest(image="python:3.11", publish="s3://somewhere/publish")
    refused(501, lambda: manager.create_template(request))
    refused(501, lambda: manager.get_template("tpl"))
    refused(501, lambda: manager.list_templates(TemplateFilter()))
    refused(501, lambda: manager.delete_template("tpl"))
