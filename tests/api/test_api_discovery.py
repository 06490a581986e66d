"""What a program finds that knows nothing but the address of the server."""

from __future__ import annotations

import httpx
import pytest

from server import Server


@pytest.fixture(scope="module")
def nobody(server: Server):
    """A client without any credential."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


def test_documents_for_readers(server, nobody):
    for path, words in (
        ("/auth.md", ("/agent/identity", "/oauth2/token", "agent-claim confirm", "sandbox:create")),
        ("/llms.txt", ("/v1/sandboxes", "/openapi.json", "/auth.md")),
    ):
        response = nobody.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/markdown; charset=utf-8"
        for word in words:
            assert word in response.text, word
        assert server.url in response.text


def test_the_catalog_leads_to_everything(server, nobody):
    response = nobody.get("/.well-known/api-catalog")
    assert response.headers["content-type"] == "application/linkset+json"
    (entry,) = response.json()["linkset"]
    assert entry["anchor"] == server.url
    assert set(entry) == {
        "anchor",
        "api-catalog",
        "authorization",
        "describedby",
        "service-desc",
        "service-doc",
    }
    for links in (v for k, v in entry.items() if k != "anchor"):
        for link in links:
            answer = nobody.get(link["href"])
            assert answer.status_code == 200
            assert answer.headers["content-type"].split(";")[0] == link["type"]


def test_a_refusal_leads_to_a_token(server, nobody):
    """From a 401 alone to the endpoint that gives tokens, as the standards say."""
    challenge = nobody.get("/v1/sandboxes").headers["www-authenticate"]
    scheme, parameter = challenge.split(" ", 1)
    assert scheme == "Bearer"
    metadata = parameter.removeprefix('resource_metadata="').removesuffix('"')
    resource = nobody.get(metadata).json()
    assert resource["resource"] == server.url
    assert resource["bearer_methods_supported"] == ["header"]
    assert {"sandbox:create", "agent:bootstrap"} <= set(resource["scopes_supported"])
    (issuer,) = resource["authorization_servers"]
    found = nobody.get(issuer + "/.well-known/oauth-authorization-server").json()
    assert found["issuer"] == issuer
    assert set(found) >= {
        "resource",
        "resource_name",
        "authorization_servers",
        "authorization_endpoint",
        "token_endpoint",
        "revocation_endpoint",
        "jwks_uri",
        "scopes_supported",
    }
    assert found["response_types_supported"] == ["none"]
    assert found["grant_types_supported"] == [
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:crownest:params:oauth:grant-type:claim",
    ]
    agent = found["agent_auth"]
    assert set(agent) >= {
        "auth_md_uri",
        "claim_endpoint",
        "claim_uri",
        "events_endpoint",
        "identity_endpoint",
        "register_uri",
        "revocation_uri",
        "service_documentation",
        "skill",
        "token_uri",
        "workos_posture",
    }
    assert agent["credential_types_supported"] == ["access_token"]
    assert set(agent["registration_types_supported"]) == {
        "anonymous",
        "service_auth",
        "identity_assertion",
    }
    assert len(agent["events_supported"]) == 1
    # Every address in it is one of this server's routes.
    urls = [v for v in (*found.values(), *agent.values()) if isinstance(v, str)]
    for url in (u for u in urls if u.startswith(server.url + "/")):
        assert nobody.get(url).status_code in (200, 405), url


def test_the_keys_are_public_alone(nobody):
    keys = nobody.get("/.well-known/jwks.json").json()["keys"]
    assert keys
    for key in keys:
        assert set(key) == {"kty", "crv", "alg", "use", "kid", "x"}
        assert (key["kty"], key["crv"], key["alg"]) == ("OKP", "Ed25519", "EdDSA")


def test_they_are_described(nobody):
    paths = nobody.get("/openapi.json").json()["paths"]
    for path in (
        "/auth.md",
        "/llms.txt",
        "/.well-known/api-catalog",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
        "/.well-known/jwks.json",
        "/agent/identity",
        "/agent/identity/claim",
        "/agent/bootstrap",
        "/agent/event/notify",
        "/oauth2/token",
        "/oauth2/revoke",
    ):
        assert path in paths, path
