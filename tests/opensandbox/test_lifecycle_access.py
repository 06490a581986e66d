"""Who may do what: keys, the tokens that endpoints come with, and what ends them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from lifecycle_api import PREFIX, Sandbox, body, connect, refused, rest
from server import Server

EXECD, EGRESS = 44772, 18080
TOKEN = "x-execd-access-token"


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[httpx.Client]:
    with connect(server) as client:
        yield client


@pytest.fixture(scope="module")
def sandbox(api: httpx.Client) -> Iterator[Sandbox]:
    made = Sandbox(api, api.post("/sandboxes", json=body()).json())
    yield made
    made.kill()


@pytest.fixture(scope="module")
def other(api: httpx.Client) -> Iterator[Sandbox]:
    made = Sandbox(api, api.post("/sandboxes", json=body()).json())
    yield made
    made.kill()


def ping(server: Server, sandbox: str, **headers: str) -> httpx.Response:
    url = f"{server.url}{PREFIX}/sandboxes/{sandbox}/proxy/{EXECD}/ping"
    with httpx.Client(trust_env=False) as client:
        return client.get(
            url, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


def test_an_endpoint_is_an_address_and_a_token(
    server: Server, sandbox: Sandbox
) -> None:
    for port in (EXECD, EGRESS, 8080):
        endpoint = sandbox.endpoint(port)
        assert "://" not in endpoint["endpoint"]
        place = f"127.0.0.1:{server.port}{PREFIX}/sandboxes/{sandbox.id}/proxy/{port}"
        assert endpoint["endpoint"] == place
        (token,) = endpoint["headers"].values()
        assert server.api_key not in token and len(token) > 100
    assert list(sandbox.endpoint(EXECD)["headers"]) == [TOKEN]
    for port in ("0", "65536", "x", "-1"):
        answer = sandbox.client.get(f"{sandbox.path}/endpoints/{port}")
        refused(answer, 400, "SANDBOX::INVALID_PARAMETER")
    both = {"use_server_proxy": "true", "expires": "9999999999"}
    answer = sandbox.client.get(f"{sandbox.path}/endpoints/80", params=both)
    refused(answer, 400, "SANDBOX::INVALID_PARAMETER")


def test_a_token_is_for_its_sandbox_alone(
    server: Server, api: httpx.Client, sandbox: Sandbox, other: Sandbox
) -> None:
    token = sandbox.endpoint(EXECD)["headers"][TOKEN]
    empty = ping(server, sandbox.id, X_EXECD_ACCESS_TOKEN=token)
    assert (empty.status_code, empty.content) == (200, b"")
    assert empty.headers["content-length"] == "0"
    # The key itself is good as well, in either header.
    assert (
        ping(server, sandbox.id, X_EXECD_ACCESS_TOKEN=server.api_key).status_code == 200
    )
    assert (
        ping(server, sandbox.id, OPEN_SANDBOX_API_KEY=server.api_key).status_code == 200
    )
    missing = refused(ping(server, sandbox.id), 401, "unauthorized")
    assert "OPEN-SANDBOX-API-KEY" in missing
    for wrong in (
        token[:-2] + "AA",
        "",
        "x",
        token + ".x",
        "A" * 9000,
    ):
        answer = ping(server, sandbox.id, X_EXECD_ACCESS_TOKEN=wrong)
        assert "access token" in refused(answer, 401, "invalid_api_key"), wrong
        url = f"{server.url}{PREFIX}{sandbox.path}/proxy/{EGRESS}/policy"
        headers = {"OPENSANDBOX-EGRESS-AUTH": wrong}
        answer = httpx.get(url, headers=headers, trust_env=False)
        assert "access token" in refused(answer, 401, "INVALID_API_KEY"), wrong
    assert ping(server, other.id, X_EXECD_ACCESS_TOKEN=token).status_code == 401
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for name in (
            TOKEN,
            "open-sandbox-api-key",
            "opensandbox-secure-access",
            "x-api-key",
        ):
            for path in (
                f"{PREFIX}{sandbox.path}",
                f"/v1{sandbox.path}",
                f"{PREFIX}/sandboxes",
            ):
                answer = client.get(path, headers={name: token})
                assert answer.status_code == 401, (name, path)
        bearer = {"authorization": f"Bearer {token}"}
        assert client.get(f"/v1{sandbox.path}", headers=bearer).status_code == 401
        signed = client.get(
            f"/v1{sandbox.path}/files/download",
            params={"path": "/workspace/a", "signature": token},
        )
        assert signed.status_code == 401, signed.text


def test_a_token_ends_with_its_sandbox(server: Server, api: httpx.Client) -> None:
    made = Sandbox(api, api.post("/sandboxes", json=body()).json())
    token = made.endpoint(EXECD)["headers"][TOKEN]
    assert ping(server, made.id, X_EXECD_ACCESS_TOKEN=token).status_code == 200
    made.kill()
    assert ping(server, made.id, X_EXECD_ACCESS_TOKEN=token).status_code in (404, 410)


def test_a_token_ends_with_its_key(server: Server, api: httpx.Client) -> None:
    org = rest.new_organization(server, "tokens")
    key = rest.new_key(server, org.id)
    with connect(server, key) as theirs, rest.connect(server, key) as v1:
        made = Sandbox(theirs, theirs.post("/sandboxes", json=body()).json())
        token = made.endpoint(EXECD)["headers"][TOKEN]
        assert ping(server, made.id, X_EXECD_ACCESS_TOKEN=token).status_code == 200
        # Another organization knows nothing of it.
        refused(api.get(made.path), 404, "SANDBOX::SANDBOX_NOT_FOUND")
        refused(api.delete(made.path), 404, "SANDBOX::SANDBOX_NOT_FOUND")
        key_id = v1.get("/v1/api-keys").json()["data"][0]["id"]
        revoked = v1.delete(f"/v1/api-keys/{key_id}")
        assert revoked.status_code == 200, revoked.text
        assert ping(server, made.id, X_EXECD_ACCESS_TOKEN=token).status_code == 401
        assert ping(server, made.id, X_EXECD_ACCESS_TOKEN=key).status_code == 401
    with connect(server, rest.new_key(server, org.id)) as successor:
        assert successor.delete(made.path).status_code == 204


def test_scopes_are_those_of_the_key(server: Server) -> None:
    org = rest.new_organization(server, "scopes")
    reader = rest.new_key(server, org.id, "sandbox:read")
    with (
        connect(server, rest.new_key(server, org.id)) as owner,
        connect(server, reader) as client,
    ):
        made = Sandbox(owner, owner.post("/sandboxes", json=body()).json())
        assert client.get(made.path).status_code == 200
        assert client.get(f"{made.path}/endpoints/{EXECD}").status_code == 200
        end = "2099-01-01T00:00:00Z"
        for answer in (
            client.post("/sandboxes", json=body()),
            client.delete(made.path),
            client.patch(f"{made.path}/metadata", json={}),
            client.post(f"{made.path}/renew-expiration", json={"expiresAt": end}),
            client.get(f"{made.path}/diagnostics/logs", params={"scope": "all"}),
            client.put(f"{made.path}/networkpolicy", json={}),
        ):
            assert "lacks the scope" in refused(answer, 403, "forbidden")
        # A token can do no more than its key: it reads the policy and does not change it.
        with Sandbox(client, {"id": made.id}).at(EGRESS) as egress:
            assert egress.get("/policy").status_code == 200
            changed = egress.patch(
                "/policy", json=[{"action": "allow", "target": "a.example"}]
            )
            assert changed.status_code == 403
        with Sandbox(client, {"id": made.id}).at(8080) as port:
            assert port.get("/").status_code == 403
        made.kill()


def test_a_signed_address_opens_one_port_until_its_time(
    server: Server, api: httpx.Client, sandbox: Sandbox
) -> None:
    soon = int(time.time()) + 600
    endpoint = sandbox.endpoint(8080, expires=str(soon))
    assert endpoint["endpoint"].endswith("/proxy/8080")
    assert "headers" not in endpoint
    with httpx.Client(trust_env=False) as client:
        base = f"http://{endpoint['endpoint']}"
        # Nothing listens there, and that is all that is wrong.
        assert client.get(f"{base}/").status_code == 502
        stem = base.removesuffix("/8080")
        for path in ("/8081/", f"/{EXECD}/ping", f"/{EGRESS}/policy"):
            assert client.get(stem + path).status_code in (401, 404), path
        changed = base.replace("~", "~A")
        assert client.get(f"{changed}/").status_code == 401
        token = endpoint["endpoint"].split("~")[1].split("/")[0]
        assert ping(server, sandbox.id, X_EXECD_ACCESS_TOKEN=token).status_code == 401
    past = str(int(time.time()) - 1)
    for bad in (past, "x", "99999999999999999999"):
        answer = api.get(f"{sandbox.path}/endpoints/8080", params={"expires": bad})
        refused(answer, 400, "SANDBOX::INVALID_PARAMETER")
