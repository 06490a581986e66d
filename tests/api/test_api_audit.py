"""The audit log over HTTP: enough to tell what happened, to those who may know, for ever."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from rest import Json, Organization, Sandbox, connect, new_key, new_organization, refusal, until
from server import Server


@pytest.fixture(scope="module")
def tenant(server: Server) -> Organization:
    """An organization of its own: its log has nothing else in it."""
    return new_organization(server, "audited")


@pytest.fixture(scope="module")
def client(server: Server, tenant: Organization) -> Iterator[httpx.Client]:
    with connect(server, new_key(server, tenant.id)) as client:
        yield client


def listed(client: httpx.Client, **query: str) -> list[Json]:
    response = client.get("/v1/audit-events", params=query)
    assert response.status_code == 200, response.text
    return response.json()["data"]


def recorded(client: httpx.Client, count: int, **query: str) -> list[Json]:
    """So many events; they are written beside the requests that they are of."""
    found = until(
        lambda: (data := listed(client, **query)) and len(data) >= count and data,
        f"{count} events of {query}",
    )
    assert len(found) == count, found
    return found


def test_a_run_can_be_reconstructed(client: httpx.Client, tenant: Organization):
    sandbox = Sandbox.create(client, metadata={"job": "7"})
    context = sandbox.context()
    asked = sandbox.ask("1/0", contextId=context)
    sandbox.interrupt(context)
    extended = client.post(f"{sandbox.path}/ttl", json={"ttlMs": 600_000})
    sandbox.kill()

    log = recorded(client, 4, resourceId=sandbox.id)
    assert [event["action"] for event in log] == [
        "sandbox.kill",
        "sandbox.extend",
        "code.run",
        "sandbox.create",
    ]
    key = client.get("/v1/api-keys").json()["data"][0]["id"]
    for event in log:
        assert event["actor"] == {"kind": "api_key", "id": key}
        assert event["resource"] == {"kind": "sandbox", "id": sandbox.id}
        assert (event["orgId"], event["projectId"]) == (tenant.id, tenant.project_id)
        assert event["requestId"].startswith("req_")
    kill, extend, run, _ = log
    assert run["requestId"] == asked.headers["x-request-id"]
    assert (run["outcome"], run["details"]["contextId"]) == ("completed", context)
    assert extend["requestId"] == extended.headers["x-request-id"]
    assert extend["details"] == {"ttlMs": 600_000}
    assert kill["createdAt"] >= log[-1]["createdAt"]
    contexts = recorded(client, 2, resourceId=context)
    assert [e["action"] for e in contexts] == ["code_context.interrupt", "code_context.create"]


def test_what_the_server_does_by_itself_is_its_own(client: httpx.Client):
    sandbox = Sandbox.create(client, ttlMs=300)
    until(lambda: sandbox.get()["status"] == "destroyed", "the end of a short life")
    (end,) = recorded(client, 1, resourceId=sandbox.id, action="sandbox.end")
    assert end["actor"] == {"kind": "system", "id": "system"}
    assert (end["outcome"], end["details"]) == ("destroyed", {"reason": "ttl_expired"})
    assert "requestId" not in end


def test_refusals_are_on_record(server: Server, client: httpx.Client, tenant: Organization):
    with connect(server, new_key(server, tenant.id, "sandbox:read")) as weak:
        refused = weak.post("/v1/sandboxes", json={})
        refusal(refused, 403, "forbidden")
        refusal(weak.get("/v1/audit-events"), 403, "forbidden")
    events = recorded(client, 2, action="request.refuse")
    assert {event["resource"]["id"] for event in events} == {"/v1/sandboxes", "/v1/audit-events"}
    assert refused.headers["x-request-id"] in {event["requestId"] for event in events}
    assert {event["outcome"] for event in events} == {"forbidden"}


def test_pages_and_filters(client: httpx.Client):
    sandbox = Sandbox.create(client)
    context = sandbox.context()
    for number in range(5):
        sandbox.run(str(number), contextId=context)
    sandbox.kill()
    whole = recorded(client, 7, resourceId=sandbox.id)

    paged: list[Json] = []
    query: dict[str, str] = {"resourceId": sandbox.id, "limit": "3"}
    while True:
        page = client.get("/v1/audit-events", params=query).json()
        paged += page["data"]
        if not page["hasMore"]:
            assert "nextCursor" not in page
            break
        query["cursor"] = page["nextCursor"]
    assert paged == whole
    assert len(listed(client, resourceId=sandbox.id, action="code.run")) == 5
    assert listed(client, resourceId=sandbox.id, actorId="key_other") == []
    assert listed(client, resourceId=sandbox.id, resourceKind="project") == []
    newest = whole[0]["createdAt"]
    older = listed(client, resourceId=sandbox.id, to=newest)
    assert len(older) < 7 and all(event["createdAt"] < newest for event in older)
    assert listed(client, resourceId=sandbox.id, **{"from": "2999-01-01T00:00:00.000Z"}) == []


@pytest.mark.parametrize(
    "query", [{"from": "yesterday"}, {"limit": "0"}, {"cursor": "x"}, {"action": "a" * 200}]
)
def test_a_filter_that_is_none_is_refused(client: httpx.Client, query: dict[str, str]):
    refusal(client.get("/v1/audit-events", params=query), 400, "invalid_request")


def test_the_log_of_others_is_not_there(
    server: Server, client: httpx.Client, tenant: Organization
):
    mine = listed(client)
    assert mine and {event["orgId"] for event in mine} == {tenant.id}
    project = client.post("/v1/projects", json={"name": "apart"}).json()["project"]["id"]
    (created,) = recorded(client, 1, action="project.create", resourceId=project)
    assert created["details"] == {"name": "apart"}
    with connect(server, new_key(server, tenant.id, projects=(project,))) as narrow:
        assert {event["projectId"] for event in listed(narrow)} == {project}
        other = narrow.get("/v1/audit-events", params={"projectId": tenant.project_id})
        refusal(other, 404, "not_found")
