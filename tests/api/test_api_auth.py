"""Who may do what: keys, scopes, organizations that see nothing of each other, projects."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from rest import Sandbox, connect, new_key, new_organization, refusal
from server import Server

LIFE = ("sandbox:create", "sandbox:read", "sandbox:kill", "sandbox:extend")


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx.Client]:
    """A key with every scope in another organization."""
    organization = new_organization(server, "Stranger")
    with connect(server, new_key(server, organization.id)) as client:
        yield client


# -- credentials


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "x-api-key"])
def test_both_headers_are_taken(server, scheme):
    header = (
        {"x-api-key": server.api_key}
        if scheme == "x-api-key"
        else {"authorization": f"{scheme} {server.api_key}"}
    )
    response = httpx.get(server.url + "/v1/sandboxes", headers=header, trust_env=False)
    assert response.status_code == 200
    assert set(response.json()) >= {"data", "hasMore"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "unauthorized"),
        ({"authorization": "Bearer cn_live_" + "0" * 52}, "invalid_api_key"),
        ({"authorization": "Bearer x"}, "invalid_api_key"),
        ({"authorization": "Bearer"}, "invalid_api_key"),
        ({"authorization": "Basic Y246Y24="}, "invalid_api_key"),
        ({"authorization": "Bearer cn_live_' or 1=1 --"}, "invalid_api_key"),
        ({"authorization": "Bearer cn_live_" + "a" * 7000}, "invalid_api_key"),
        ({"x-api-key": "cn_live_short"}, "invalid_api_key"),
    ],
)
def test_without_a_good_key_nothing_is_said(server, headers, code):
    response = httpx.get(server.url + "/v1/sandboxes", headers=headers, trust_env=False)
    refusal(response, 401, code)
    challenge = response.headers["www-authenticate"]
    assert (
        challenge == f'Bearer resource_metadata="{server.url}/.well-known/oauth-protected-resource"'
    )


def test_a_refusal_comes_before_any_look_at_the_resource(server, sandbox: Sandbox):
    url = f"{server.url}{sandbox.path}"
    known = httpx.get(url, trust_env=False).json()["error"]
    unknown = httpx.get(f"{server.url}/v1/sandboxes/sbx_nobody", trust_env=False).json()["error"]
    assert (known["code"], known["message"]) == (unknown["code"], unknown["message"])


# -- scopes


def test_a_key_without_a_scope_is_told_which_one_it_lacks(server, sandbox: Sandbox):
    path = sandbox.path
    calls = [
        ("sandbox:create", "POST", "/v1/sandboxes", {}),
        ("sandbox:read", "GET", "/v1/sandboxes", None),
        ("sandbox:read", "GET", path, None),
        ("sandbox:extend", "POST", f"{path}/extend", {"ttlMs": 1000}),
        ("sandbox:extend", "POST", f"{path}/ttl", {"ttlMs": 1000}),
        ("sandbox:kill", "DELETE", path, None),
        ("command:run", "POST", f"{path}/commands/run", {"command": "true"}),
        ("command:run", "POST", f"{path}/commands", {"command": "true"}),
        ("code:run", "POST", f"{path}/code/runs", {"code": "1", "language": "python"}),
        ("code:run", "POST", f"{path}/code/runs/stream", {"code": "1", "language": "python"}),
        ("code:run", "GET", f"{path}/code/contexts", None),
        ("code:run", "POST", f"{path}/code/contexts", {"language": "python"}),
        ("file:read", "GET", f"{path}/files", None),
        ("file:read", "GET", f"{path}/files/read?path=x", None),
        ("file:read", "GET", f"{path}/files/stat?path=x", None),
        ("file:write", "PUT", f"{path}/files", {"path": "x", "content": ""}),
        ("file:write", "DELETE", f"{path}/files?path=x", None),
        ("file:write", "POST", f"{path}/files/mkdir", {"path": "d"}),
        ("file:write", "POST", f"{path}/files/move", {"from": "x", "to": "y"}),
        ("project:create", "POST", "/v1/projects", {"name": "x"}),
        ("api_key:read", "GET", "/v1/api-keys", None),
        ("usage:read", "GET", "/v1/usage", None),
    ]
    scopes = {scope for scope, *_ in calls}
    for missing in sorted(scopes):
        key = new_key(server, server.credentials["orgId"], *sorted(scopes - {missing}))
        with connect(server, key) as client:
            for scope, method, url, body in calls:
                if scope == missing:
                    error = refusal(client.request(method, url, json=body), 403, "forbidden")
                    assert error["details"] == {"scope": missing} and missing in error["message"]
    assert sandbox.get()["status"] in {"ready", "idle"}, "no refused call took effect"


def test_a_key_does_what_its_scopes_allow(server):
    key = new_key(server, server.credentials["orgId"], *LIFE, "code:run")
    with connect(server, key) as client:
        sandbox = Sandbox.create(client)
        assert sandbox.value("6*7") == "42"
        refusal(sandbox.read("x"), 403, "forbidden")
        assert sandbox.kill()["status"] == "destroyed"


def test_a_revoked_key_ends_at_once(server, client):
    org = server.credentials["orgId"]
    key = new_key(server, org)
    with connect(server, key) as short:
        assert short.get("/v1/sandboxes").status_code == 200
        mine = [k for k in client.get("/v1/api-keys").json()["data"] if k["last4"] == key[-4:]]
        assert len(mine) == 1 and key not in str(mine)
        answer = client.delete(f"/v1/api-keys/{mine[0]['id']}")
        assert answer.status_code == 200 and answer.json()["apiKey"]["revokedAt"]
        refusal(short.get("/v1/sandboxes"), 401, "invalid_api_key")


def test_a_key_cannot_make_keys(client):
    response = client.post("/v1/api-keys", json={"name": "more", "scopes": ["code:run"]})
    refusal(response, 403, "forbidden")


# -- organizations


def test_another_organization_sees_nothing(stranger, sandbox: Sandbox):
    context = sandbox.context()
    assert sandbox.write("secret.txt", "mine").status_code == 200
    path = sandbox.path
    code = {"code": "open('/workspace/secret.txt').read()", "language": "python"}
    calls = [
        ("GET", path, None),
        ("DELETE", path, None),
        ("POST", f"{path}/extend", {"ttlMs": 1000}),
        ("POST", f"{path}/ttl", {"ttlMs": 1000}),
        ("POST", f"{path}/commands/run", {"command": "cat secret.txt"}),
        ("POST", f"{path}/commands", {"command": "cat secret.txt"}),
        ("POST", f"{path}/commands/start", {"command": "cat secret.txt"}),
        ("POST", f"{path}/code/runs", code),
        ("POST", f"{path}/code/runs", code | {"contextId": context}),
        ("POST", f"{path}/code/runs/stream", code),
        ("GET", f"{path}/code/contexts", None),
        ("POST", f"{path}/code/contexts", {"language": "python"}),
        ("GET", f"{path}/code/contexts/{context}", None),
        ("DELETE", f"{path}/code/contexts/{context}", None),
        ("POST", f"{path}/code/contexts/{context}/interrupt", None),
        ("GET", f"{path}/files", None),
        ("GET", f"{path}/files/read?path=secret.txt", None),
        ("GET", f"{path}/files/stat?path=secret.txt", None),
        ("PUT", f"{path}/files", {"path": "secret.txt", "content": "theirs"}),
        ("DELETE", f"{path}/files?path=secret.txt", None),
        ("POST", f"{path}/files/mkdir", {"path": "d"}),
        ("POST", f"{path}/files/move", {"from": "secret.txt", "to": "y"}),
    ]
    for method, url, body in calls:
        refusal(stranger.request(method, url, json=body), 404, "not_found")
    # Neither do their own resources open a door to ours.
    with_own = Sandbox.create(stranger)
    try:
        refusal(with_own.ask("1", contextId=context), 404, "not_found")
        assert [s["id"] for s in stranger.get("/v1/sandboxes").json()["data"]] == [with_own.id]
    finally:
        with_own.kill()
    assert sandbox.read("secret.txt").json()["content"] == "mine"
    assert sandbox.run("1", contextId=context)["outcome"] == "completed"


def test_another_organization_has_its_own_keys_projects_and_usage(stranger, client):
    def ids(who: httpx.Client, route: str) -> set[str]:
        return {row["id"] for row in who.get(route).json()["data"]}

    for route in ("/v1/api-keys", "/v1/projects"):
        assert ids(stranger, route) and not ids(stranger, route) & ids(client, route)
    ours = next(iter(ids(client, "/v1/api-keys")))
    refusal(stranger.get(f"/v1/api-keys/{ours}"), 404, "not_found")
    refusal(stranger.delete(f"/v1/api-keys/{ours}"), 404, "not_found")
    project = next(iter(ids(client, "/v1/projects")))
    refusal(stranger.post("/v1/sandboxes", json={"projectId": project}), 404, "not_found")


# -- projects


def test_a_key_of_one_project_sees_that_project_alone(server, client):
    def project(name: str) -> str:
        response = client.post("/v1/projects", json={"name": name})
        assert response.status_code == 201
        return response.json()["project"]["id"]

    mine, other = project("Mine"), project("Other")
    elsewhere = Sandbox.create(client, projectId=other)
    key = new_key(server, server.credentials["orgId"], projects=(mine,))
    try:
        with connect(server, key) as limited:
            here = Sandbox.create(limited)
            assert here.record["projectId"] == mine, "the key's only project is its default"
            assert here.value("1+1") == "2"
            assert [s["id"] for s in limited.get("/v1/sandboxes").json()["data"]] == [here.id]
            assert [p["id"] for p in limited.get("/v1/projects").json()["data"]] == [mine]
            refusal(limited.post("/v1/sandboxes", json={"projectId": other}), 403, "forbidden")
            denied = limited.get(elsewhere.path)
            assert denied.status_code in (403, 404), denied.text
            assert Sandbox(limited, elsewhere.record).ask("1").status_code == denied.status_code
            assert limited.delete(elsewhere.path).status_code == denied.status_code
            here.kill()
        assert elsewhere.value("2+2") == "4"
    finally:
        elsewhere.kill()
