"""Previews: how they are made, seen and ended; who may visit; what passes in and out."""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import datetime

import httpx
import pytest
from visitor import Preview, echo, headers_of, is_over

from rest import Sandbox, connect, new_key, new_organization, refusal, until
from server import Server


def create(sandbox: Sandbox, **fields) -> httpx.Response:
    return sandbox.client.post(f"{sandbox.path}/previews", json=fields)


@pytest.fixture(scope="module")
def echoing(client):
    """A sandbox with a program on port 8000 that answers with what it was asked."""
    sandbox = Sandbox.create(client)
    echo(sandbox)
    yield sandbox
    sandbox.kill()


# -- records


def test_the_command_of_a_preview_is_one_of_its_sandbox(make, server: Server, client):
    sandbox, other = make(), make()
    start = {"command": "sleep 600"}
    running = sandbox.client.post(f"{sandbox.path}/commands/start", json=start).json()["command"]
    foreign = other.command("true")["id"]
    elsewhere = new_organization(server, "elsewhere")
    with connect(server, new_key(server, elsewhere.id)) as stranger:
        there = Sandbox.create(stranger)
        strange = there.command("true")["id"]
        for id in (foreign, strange, "cmd_none"):
            error = refusal(create(sandbox, port=8000, sourceCommandId=id), 404, "not_found")
            assert error["details"] == {"field": "sourceCommandId"}, id
        there.kill()
    assert client.get(f"{sandbox.path}/previews").json()["data"] == [], "nothing was made"
    made = create(sandbox, port=8000, sourceCommandId=running["id"])
    assert made.status_code == 201, made.text
    assert made.json()["preview"]["sourceCommandId"] == running["id"]


def test_a_preview_is_made_found_listed_and_revoked(server: Server, sandbox: Sandbox):
    command = sandbox.command("true")["id"]
    response = create(sandbox, port=8000, sourceCommandId=command, unknown=1)
    assert response.status_code == 201 and "previewToken" not in response.json()
    preview = response.json()["preview"]
    assert re.fullmatch(r"prv_[A-Za-z0-9][A-Za-z0-9_-]*", preview["id"])
    assert re.fullmatch(r"p-[a-z0-9]+", preview["slug"])
    assert preview["url"] == f"http://{preview['slug']}.preview.localhost:{server.port}"
    said = {k: preview[k] for k in ("sandboxId", "port", "authMode", "sourceCommandId")}
    assert said == {
        "sandboxId": sandbox.id,
        "port": 8000,
        "authMode": "authenticated",
        "sourceCommandId": command,
    }
    assert preview["orgId"] == sandbox.record["orgId"]
    assert preview["projectId"] == sandbox.record["projectId"]
    assert preview["expiresAt"] == sandbox.record["expiresAt"] and "revokedAt" not in preview

    path = f"/v1/previews/{preview['id']}"
    assert sandbox.client.get(path).json() == {"preview": preview}
    listed = sandbox.client.get(f"{sandbox.path}/previews").json()
    assert listed == {"data": [preview], "hasMore": False}

    revoked = sandbox.client.delete(path)
    assert revoked.status_code == 200
    record = revoked.json()["preview"]
    assert record["revokedAt"] == record["expiresAt"]
    assert sandbox.client.delete(path).json() == revoked.json(), "again changes nothing"
    assert sandbox.client.get(path).json() == revoked.json()


def test_a_port_has_one_active_preview(sandbox: Sandbox):
    first = create(sandbox, port=8000, authMode="token").json()
    assert re.fullmatch(r"pvt_[a-z0-9]{52}", first["previewToken"])
    again = create(sandbox, port=8000, authMode="token")
    assert again.status_code == 201
    assert again.json() == {"preview": first["preview"]}, "its token is shown once"
    sandbox.client.delete(f"/v1/previews/{first['preview']['id']}")
    other = create(sandbox, port=8000).json()["preview"]
    assert other["id"] != first["preview"]["id"] and other["slug"] != first["preview"]["slug"]
    pages = [
        sandbox.client.get(f"{sandbox.path}/previews", params={"limit": 1}).json(),
    ]
    assert pages[0]["hasMore"]
    query = {"limit": 1, "cursor": pages[0]["nextCursor"]}
    pages.append(sandbox.client.get(f"{sandbox.path}/previews", params=query).json())
    ids = [page["data"][0]["id"] for page in pages]
    assert ids == [other["id"], first["preview"]["id"]] and not pages[1]["hasMore"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "invalid_request", "port"),
        ({"port": 0}, "invalid_request", "port"),
        ({"port": -1}, "invalid_request", "port"),
        ({"port": 65536}, "invalid_request", "port"),
        ({"port": "80"}, "invalid_request", "port"),
        ({"port": 80, "authMode": "public"}, "unsupported_preview_auth_mode", "authMode"),
        ({"port": 80, "authMode": 1}, "invalid_request", "authMode"),
        ({"port": 80, "sourceCommandId": "sbx_1"}, "invalid_request", "sourceCommandId"),
    ],
)
def test_a_bad_creation_is_refused(neighbour: Sandbox, body, code, field):
    assert refusal(create(neighbour, **body), 400, code)["details"]["field"] == field


def test_there_are_few_of_them(server: Server):
    organization = new_organization(server, "Many previews")
    with connect(server, new_key(server, organization.id)) as client:
        sandboxes = [Sandbox.create(client) for _ in range(4)]
        try:
            for sandbox in sandboxes[:3]:
                for port in (1, 2, 3):
                    assert create(sandbox, port=port).status_code == 201
            error = refusal(create(sandboxes[0], port=4), 429, "quota_exceeded")
            assert error["details"] == {"limit": 3}
            assert create(sandboxes[0], port=3).status_code == 201, "that one is there"
            assert create(sandboxes[3], port=1).status_code == 201
            error = refusal(create(sandboxes[3], port=2), 429, "quota_exceeded")
            assert error["details"] == {"limit": 10}
            sandboxes[0].kill()
            assert create(sandboxes[3], port=2).status_code == 201, "a sandbox's end makes room"
        finally:
            for sandbox in sandboxes:
                sandbox.kill()


def test_of_strangers_and_of_the_dead_there_are_none(server: Server, make, client):
    sandbox = make()
    preview = create(sandbox, port=8000).json()["preview"]
    organization = new_organization(server, "Preview stranger")
    other = client.post("/v1/projects", json={"name": "No previews"}).json()["project"]["id"]
    keys = (
        new_key(server, organization.id),
        new_key(server, sandbox.record["orgId"], projects=(other,)),
    )
    for key in keys:
        with connect(server, key) as stranger:
            for method, path in (
                ("GET", f"/v1/previews/{preview['id']}"),
                ("DELETE", f"/v1/previews/{preview['id']}"),
                ("GET", f"{sandbox.path}/previews"),
            ):
                refusal(stranger.request(method, path), 404, "not_found")
            response = stranger.post(f"{sandbox.path}/previews", json={"port": 1})
            refusal(response, 404, "not_found")
    for path in ("/v1/previews/prv_none", "/v1/previews/x", "/v1/previews/" + "a" * 500):
        refusal(client.get(path), 404, "not_found")
        refusal(client.delete(path), 404, "not_found")
    assert "revokedAt" not in client.get(f"/v1/previews/{preview['id']}").json()["preview"]
    sandbox.kill()
    refusal(create(sandbox, port=8000), 410, "sandbox_destroyed")


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        ("preview:create", "POST", "{sandbox}/previews"),
        ("preview:read", "GET", "{sandbox}/previews"),
        ("preview:read", "GET", "/v1/previews/prv_1"),
        ("preview:revoke", "DELETE", "/v1/previews/prv_1"),
    ],
)
def test_each_route_has_its_scope(server, client, neighbour, scope, method, path):
    org = neighbour.record["orgId"]
    others = {"preview:create", "preview:read", "preview:revoke", "sandbox:read"} - {scope}
    path = path.format(sandbox=neighbour.path)
    with connect(server, new_key(server, org, *others)) as without:
        error = refusal(without.request(method, path, json={"port": 99}), 403, "forbidden")
        assert error["details"] == {"scope": scope}
    with connect(server, new_key(server, org, scope)) as only:
        assert only.request(method, path, json={"port": 0}).status_code in (200, 400, 404)


# -- visits with a key


def test_a_visit_reaches_the_port_and_nothing_of_ours_goes_along(server, echoing):
    preview = Preview.create(server, echoing)
    ours = {
        "x-api-key": server.api_key,
        "x-crownest-org-id": "org_1",
        "cookie": "mine=1; crownest_preview_session=x; other=2",
        "x-forwarded-for": "10.9.8.7",
        "x-forwarded-proto": "https",
        "forwarded": "for=10.9.8.7",
        "connection": "keep-alive, x-mine",
        "x-mine": "secret",
        "x-theirs": "1",
        "te": "trailers",
    }
    with preview.owner(**ours) as visitor:
        answer = visitor.post("/a//b/%2e%2E/c?x=%20&&y&x=2", content=b"hello")
        assert answer.status_code == 200
        asked = answer.json()
        assert (asked["method"], asked["body"]) == ("POST", "hello")
        assert asked["path"] == "/a//b/%2e%2E/c?x=%20&&y&x=2", "as it was sent"
        got = headers_of(answer)
    assert server.api_key not in answer.text and "secret" not in answer.text
    gone = {"authorization", "x-api-key", "x-crownest-org-id", "forwarded", "x-mine", "te"}
    assert not gone & set(got)
    assert got["cookie"] == "mine=1; other=2"
    assert got["x-theirs"] == "1" and got["host"] == preview.host
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert (got["x-forwarded-proto"], got["x-forwarded-host"]) == ("http", preview.host)


def test_a_key_in_either_header_opens(server, echoing):
    preview = Preview.create(server, echoing)
    with preview.visitor() as visitor:
        for name, value in (
            ("authorization", f"bearer {server.api_key}"),
            ("x-api-key", server.api_key),
        ):
            answer = visitor.get("/", headers={name: value})
            assert answer.status_code == 200 and server.api_key not in answer.text


def test_paths_of_the_api_belong_to_the_program(server, echoing):
    preview = Preview.create(server, echoing)
    with preview.owner() as visitor:
        for path in ("/v1/sandboxes", "/healthz", "/openapi.json", "/metrics", "/auth.md"):
            assert visitor.get(path).json()["path"] == path


def test_all_methods_pass(server, echoing):
    preview = Preview.create(server, echoing)
    with preview.owner() as visitor:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            assert visitor.request(method, "/").json()["method"] == method
        head = visitor.head("/")
        assert head.status_code == 200 and int(head.headers["content-length"]) > 10
        assert head.content == b""


def test_a_program_sets_cookies_for_its_own_host_alone(server, echoing):
    preview = Preview.create(server, echoing)
    with preview.owner() as visitor:
        set_cookies = visitor.get("/").headers.get_list("set-cookie")
    assert set_cookies == ["theirs=1; Path=/", "second=2; HttpOnly"]


def test_without_a_good_key_nobody_comes_in(server, echoing):
    preview = Preview.create(server, echoing)
    organization = new_organization(server, "Preview visitor")
    stranger = new_key(server, organization.id)
    unscoped = new_key(server, echoing.record["orgId"], "sandbox:read", "preview:create")
    with preview.visitor() as visitor:
        refusal(visitor.get("/"), 401, "unauthorized")
        assert visitor.get("/").headers["www-authenticate"].startswith("Bearer")
        for value in ("Bearer cn_live_" + "0" * 52, "Basic eDp5", "Bearer"):
            headers = {"authorization": value}
            refusal(visitor.get("/", headers=headers), 401, "invalid_api_key")
        headers = {"authorization": f"Bearer {stranger}"}
        refusal(visitor.get("/", headers=headers), 404, "not_found")
        headers = {"authorization": f"Bearer {unscoped}"}
        refusal(visitor.get("/", headers=headers), 403, "forbidden")
        # A link of token mode is none for this one.
        answer = visitor.get("/", params={"crownest_preview_token": "pvt_" + "0" * 52})
        refusal(answer, 401, "unauthorized")


def test_a_key_of_another_project_does_not_open(server, client, echoing):
    project = client.post("/v1/projects", json={"name": "Elsewhere"}).json()["project"]["id"]
    preview = Preview.create(server, echoing)
    org = echoing.record["orgId"]
    for projects, status in (((project,), 404), ((echoing.record["projectId"],), 200)):
        key = new_key(server, org, "preview:read", projects=projects)
        with preview.visitor(**{"x-api-key": key}) as visitor:
            assert visitor.get("/").status_code == status


def test_what_was_never_there_is_told_to_nobody_without_a_key(server, echoing):
    preview = Preview.create(server, echoing)
    preview.host = f"p-0123456789ab.preview.localhost:{server.port}"
    with preview.visitor() as visitor:
        refusal(visitor.get("/"), 401, "unauthorized")
    with preview.owner() as owner:
        refusal(owner.get("/"), 404, "not_found")


def test_a_browser_gets_a_page(server, echoing):
    preview = Preview.create(server, echoing)
    accept = "text/html,application/xhtml+xml,*/*;q=0.8"
    with preview.visitor(accept=accept) as visitor:
        page = visitor.get("/")
    assert page.status_code == 401
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "API key" in page.text and page.headers["x-request-id"] in page.text


# -- token mode


def test_a_link_opens_one_session(server, echoing):
    with Fresh(server, echoing) as preview, preview.visitor() as browser:
        query = {"a": "1", "crownest_preview_token": preview.token, "b": "2"}
        assert browser.head("/", params=query).status_code == 401, "looking uses nothing up"
        opened = browser.get("/page", params=query)
        assert opened.status_code == 303 and opened.content == b""
        assert opened.headers["location"] == f"http://{preview.host}/page?a=1&b=2"
        assert opened.headers["referrer-policy"] == "no-referrer"
        assert opened.headers["cache-control"] == "no-store"
        cookie, *attributes = opened.headers["set-cookie"].split("; ")
        assert cookie.startswith("crownest_preview_session=")
        assert set(attributes) == {"Path=/", "Max-Age=86400", "HttpOnly", "SameSite=Lax"}

        session = {"cookie": f"a=1; {cookie}"}
        answer = browser.get("/page?a=1&b=2", headers=session)
        assert answer.status_code == 200 and cookie not in answer.text
        assert headers_of(answer)["cookie"] == "a=1"

        with preview.visitor() as other:
            refusal(other.get("/page", params=query), 401, "unauthorized")
        # Who has a session and loads the old link once more is sent on.
        again = browser.get("/page", params=query, headers=session)
        assert again.status_code == 303 and "set-cookie" not in again.headers
        # The key works in this mode, too, and the token of the query stays out.
        with preview.owner() as owner:
            assert owner.get("/x", params=query).json()["path"] == "/x?a=1&b=2"


class Fresh:
    """A preview in token mode that nobody has opened, on port 8000; revoked after."""

    def __init__(self, server: Server, sandbox: Sandbox):
        self.server, self.sandbox = server, sandbox

    def revoke(self) -> None:
        path = f"{self.sandbox.path}/previews"
        for preview in self.sandbox.client.get(path).json()["data"]:
            if "revokedAt" not in preview and preview["port"] == 8000:
                self.sandbox.client.delete(f"/v1/previews/{preview['id']}")

    def __enter__(self) -> Preview:
        self.revoke()
        return Preview.create(self.server, self.sandbox, authMode="token")

    def __exit__(self, *_: object) -> None:
        self.revoke()


def test_a_revoked_preview_and_its_sessions_are_over_at_once(server, echoing):
    with Fresh(server, echoing) as preview:
        with preview.session() as browser:
            assert browser.get("/").status_code == 200
            echoing.client.delete(f"/v1/previews/{preview.id}").raise_for_status()
            assert is_over(browser)
        with preview.owner() as owner:
            refusal(owner.get("/"), 404, "not_found")


def test_a_session_is_of_one_preview(server, make, echoing):
    other = make()
    echo(other)
    another = Preview.create(server, other, authMode="token")
    with Fresh(server, echoing) as preview, preview.session() as browser:
        assert browser.get("/").status_code == 200
        foreign = browser.get("/", headers={"host": another.host})
        refusal(foreign, 401, "unauthorized")
        forged = browser.headers["cookie"].replace(preview.id, another.id)
        headers = {"host": another.host, "cookie": forged}
        refusal(browser.get("/", headers=headers), 401, "unauthorized")


def test_other_pages_have_no_use_of_a_session(server, echoing):
    with Fresh(server, echoing) as preview, preview.session() as browser:
        own, other = f"http://{preview.host}", f"http://p-x.preview.localhost:{server.port}"
        assert browser.post("/", headers={"origin": own}).status_code == 200
        refusal(browser.post("/", headers={"origin": other}), 403, "forbidden")
        asked = {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}
        refusal(browser.get("/", headers=asked), 403, "forbidden")
        asked["sec-fetch-mode"] = "navigate"
        assert browser.get("/", headers=asked).status_code == 200


def test_over_https_the_cookie_says_so(echoing, tmp_path):
    from rest import open_directory

    origin = "https://api.sandboxes.test"
    options = ("--pool", "0", "--public-origin", origin, "--preview-domain", "sandboxes.test")
    with (
        open_directory() as directory,
        Server(directory / "data", *options) as server,
        connect(server) as client,
    ):
        sandbox = Sandbox.create(client)
        answer = create(sandbox, port=8000, authMode="token").json()
        slug = answer["preview"]["slug"]
        assert answer["preview"]["url"] == f"https://{slug}.preview.sandboxes.test"
        headers = {"host": f"{slug}.preview.sandboxes.test"}
        query = {"crownest_preview_token": answer["previewToken"]}
        opened = httpx.get(server.url + "//x/", params=query, headers=headers, trust_env=False)
        assert opened.status_code == 303
        assert opened.headers["location"] == f"https://{slug}.preview.sandboxes.test//x/"
        assert opened.headers["set-cookie"].endswith("; Secure")


# -- the end


def test_it_ends_with_its_sandbox_and_its_minutes_are_counted_once(server, make):
    sandbox = make()
    echo(sandbox)
    preview = Preview.create(server, sandbox)
    revoked = create(sandbox, port=9000).json()["preview"]
    sandbox.client.delete(f"/v1/previews/{revoked['id']}")
    with preview.owner() as owner:
        assert owner.get("/").status_code == 200
        ended = sandbox.kill()
        refusal(owner.get("/"), 404, "not_found")
    record = sandbox.client.get(f"/v1/previews/{preview.id}").json()["preview"]
    assert "revokedAt" not in record
    assert datetime.fromisoformat(record["expiresAt"]) <= datetime.fromisoformat(
        ended["destroyedAt"]
    )
    with sqlite3.connect(f"file:{server.data_dir}/crownest.db?mode=ro", uri=True) as db:
        query = (
            "SELECT amount FROM usage_events "
            "WHERE metric = 'preview_minutes' AND resource_id IN (?, ?)"
        )
        assert db.execute(query, (preview.id, revoked["id"])).fetchall() == [(1,), (1,)]


def test_everything_is_on_record(server, make):
    sandbox = make()
    preview = Preview.create(server, sandbox, authMode="token")
    preview.session().close()
    other = create(sandbox, port=9000).json()["preview"]["id"]
    sandbox.client.delete(f"/v1/previews/{preview.id}")
    sandbox.client.delete(f"/v1/previews/{preview.id}")
    sandbox.kill()

    def audited() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {preview.id: [], other: []}
        with sqlite3.connect(f"file:{server.data_dir}/crownest.db?mode=ro", uri=True) as db:
            query = "SELECT resource_id, action FROM audit_events WHERE resource_kind = 'preview'"
            for resource, action in db.execute(query):
                found.setdefault(resource, []).append(action)
        return {k: sorted(v) for k, v in found.items()}

    want = {
        preview.id: ["preview.create", "preview.open", "preview.revoke"],
        other: ["preview.create", "preview.end"],
    }
    until(lambda: {k: audited()[k] for k in want} == want, f"the audit log has {json.dumps(want)}")
