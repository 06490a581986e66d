"""Agents that register by themselves: from nobody to an access token, and everything that must not
work on the way. Tokens are checked by PyJWT with the published keys, which shares no code with the
server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sqlite3
import time
from typing import Any

import httpx
import jwt
import pytest

from rest import Json, admin, connect, new_organization, open_directory, refusal, until
from server import Server, missing

CLAIM = "urn:crownest:params:oauth:grant-type:claim"
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PREFIX = "cn_agent_"


@pytest.fixture(scope="module")
def nobody(server: Server):
    """A client without any credential."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def org(server: Server):
    """An organization for agents; its id and its project's."""
    return new_organization(server, "Agents")


class Agent:
    """What an agent has, and does."""

    def __init__(self, client: httpx.Client, server: Server, **fields: Any):
        self.client, self.server = client, server
        body = {"type": "anonymous", "agent_platform": "tests", **fields}
        response = client.post("/agent/identity", json=body)
        assert response.status_code == 200, response.text
        self.registered: Json = response.json()
        self.claim_token = self.registered["claim_token"]
        self.claim: Json | None = self.registered.get("claim")

    @property
    def id(self) -> str:
        return self.registered["registration_id"]

    def begin_claim(self, email: str = "ada@example.org") -> Json:
        body = {"claim_token": self.claim_token, "email": email}
        response = self.client.post("/agent/identity/claim", json=body)
        assert response.status_code == 201, response.text
        assert response.json()["status"] == "authorization_pending"
        self.claim = response.json()["claim"]
        return self.claim

    def confirm(self, org: str, *options: str) -> str:
        code = self.claim["user_code"]
        return admin(self.server, "agent-claim", "confirm", "--org", org, *options, code)

    def ask(self, **form: str) -> httpx.Response:
        return self.client.post("/oauth2/token", data=form)

    def redeem(self) -> httpx.Response:
        return self.ask(grant_type=CLAIM, claim_token=self.claim_token)

    def trade(self, assertion: str, **form: str) -> httpx.Response:
        return self.ask(grant_type=BEARER, assertion=assertion, **form)

    def let_in(self, org: str, *options: str) -> Json:
        """All of the way; the answer with the first token."""
        self.begin_claim()
        self.confirm(org, *options)
        answer = self.redeem()
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, token: str) -> httpx.Response:
        return self.client.get(path, headers={"authorization": f"Bearer {token}"})


def oauth_refusal(response: httpx.Response, error: str) -> Json:
    assert response.status_code == 400, response.text
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert body["error"] == error and body["error_description"], body
    return body


def believed(client: httpx.Client, token: str, kind: str) -> Json:
    """The claims of a token, by another implementation and the published keys alone."""
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "EdDSA", "typ": kind, "kid": header["kid"]}
    keys = client.get("/.well-known/jwks.json").json()["keys"]
    key = next(key for key in keys if key["kid"] == header["kid"])
    origin = str(client.base_url).rstrip("/")
    return jwt.decode(
        token, jwt.PyJWK(key).key, algorithms=["EdDSA"], audience=origin, issuer=origin
    )


# -- the whole way


def test_an_anonymous_agent_is_let_in_and_works_and_is_revoked(server, nobody, org):
    agent = Agent(nobody, server, requested_scopes=["sandbox:read", "usage:read"])
    got = agent.registered
    assert got["registration_type"] == "anonymous" and got["status"] == "anonymous_unclaimed"
    assert got["scope"] == "agent:bootstrap" and "claim" not in got
    assert re.fullmatch(r"areg_[A-Za-z0-9_-]+", agent.id)
    assert believed(nobody, got["identity_assertion"], "agent-identity+jwt")["sub"] == agent.id

    # Before the claim it may look around.
    early = agent.trade(got["identity_assertion"])
    assert early.status_code == 200 and early.json()["scope"] == "agent:bootstrap"
    early_token = early.json()["access_token"]
    around = agent.get("/agent/bootstrap", early_token)
    assert around.status_code == 200
    assert set(around.json()) == {
        "auth_md_uri",
        "capabilities",
        "pricing_uri",
        "scopes",
        "templates_uri",
    }
    assert around.json()["scopes"] == ["agent:bootstrap"]
    for path in ("/v1/sandboxes", "/v1/projects", "/v1/usage", "/v1/api-keys"):
        refusal(agent.get(path, early_token), 403, "forbidden")

    oauth_refusal(agent.redeem(), "authorization_pending")
    claim = agent.begin_claim()
    assert re.fullmatch(r"\d{6}", claim["user_code"])
    assert claim["registration_id"] == agent.id and claim["interval"] == 5
    assert nobody.get(claim["verification_uri"]).status_code == 200
    pending = oauth_refusal(agent.redeem(), "authorization_pending")
    assert pending["interval"] == 5
    oauth_refusal(agent.redeem(), "slow_down")
    listed = admin(server, "agent-claim", "ls")
    assert claim["user_code"] in listed and "ada@example.org" in listed and "usage:read" in listed

    assert agent.id in agent.confirm(org.id)
    answer = agent.redeem()
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    token = answer.json()
    assert token["token_type"] == "Bearer" and token["expires_in"] == 3600
    assert set(token["scope"].split()) == {"sandbox:read", "usage:read", "agent:bootstrap"}
    assert token["access_token"].startswith(PREFIX)
    claims = believed(nobody, token["access_token"].removeprefix(PREFIX), "at+jwt")
    assert claims["sub"] == agent.id and claims["org"] == org.id
    assert claims["exp"] - claims["iat"] == 3600

    access = token["access_token"]
    assert agent.get("/v1/sandboxes", access).json()["data"] == []
    assert agent.get("/v1/usage", access).status_code == 200
    assert [p["id"] for p in agent.get("/v1/projects", access).json()["data"]] == [org.project_id]
    headers = {"x-api-key": access}
    assert nobody.get("/v1/sandboxes", headers=headers).status_code == 200
    error = refusal(agent.get("/v1/api-keys", access), 403, "forbidden")
    assert error["details"] == {"scope": "api_key:read"}

    # The claim token works once; the assertion again and again, with fewer scopes when asked.
    oauth_refusal(agent.redeem(), "invalid_claim_token")
    oauth_refusal(agent.trade(got["identity_assertion"]), "invalid_identity_assertion")
    fewer = agent.trade(token["identity_assertion"], scope="sandbox:read")
    assert fewer.json()["scope"] == "sandbox:read"
    second = fewer.json()["access_token"]
    refusal(agent.get("/v1/usage", second), 403, "forbidden")
    more = agent.trade(token["identity_assertion"], scope="sandbox:read api_key:read")
    oauth_refusal(more, "invalid_scope")

    # One token goes, then all of the agent.
    assert nobody.post("/oauth2/revoke", data={"token": access}).json() == {"revoked": True}
    refusal(agent.get("/v1/sandboxes", access), 401, "invalid_api_key")
    assert agent.get("/v1/sandboxes", second).status_code == 200
    assert nobody.post("/oauth2/revoke", data={"token": access}).json() == {"revoked": False}
    form = {"token": token["identity_assertion"], "token_type_hint": "refresh_token"}
    assert nobody.post("/oauth2/revoke", data=form).json() == {"revoked": True}
    refusal(agent.get("/v1/sandboxes", second), 401, "invalid_api_key")
    oauth_refusal(agent.trade(token["identity_assertion"]), "invalid_identity_assertion")
    refusal(agent.get("/agent/bootstrap", early_token), 401, "invalid_api_key")


def test_an_agent_does_what_a_key_would(server, nobody, org):
    agent = Agent(nobody, server)
    token = agent.let_in(org.id, "--project", org.project_id)["access_token"]
    with connect(server, token) as client:
        made = client.post("/v1/sandboxes", json={})
        assert made.status_code == 201, made.text
        sandbox = made.json()["sandbox"]
        assert (sandbox["orgId"], sandbox["projectId"]) == (org.id, org.project_id)
        body = {"code": "1+1", "language": "python"}
        run = client.post(f"/v1/sandboxes/{sandbox['id']}/code/runs", json=body)
        assert run.status_code == 200 and "error" not in run.json()["run"]
        assert client.delete(f"/v1/sandboxes/{sandbox['id']}").status_code == 200
    with connect(server) as stranger:
        refusal(stranger.get(f"/v1/sandboxes/{sandbox['id']}"), 404, "not_found")

    def by_the_agent() -> bool:
        with sqlite3.connect(f"file:{server.data_dir}/crownest.db?mode=ro", uri=True) as db:
            query = "SELECT action FROM audit_events WHERE actor_kind = 'agent_credential'"
            query += " AND resource_id = ?"
            actions = {row[0] for row in db.execute(query, (sandbox["id"],))}
        return {"sandbox.create", "sandbox.kill"} <= actions

    until(by_the_agent, "its deeds on record under its name")


def test_an_agent_for_a_named_person(server, nobody, org):
    agent = Agent(nobody, server, type="service_auth", login_hint="ada@example.org")
    assert agent.registered["status"] == "authorization_pending"
    assert agent.registered["registration_type"] == "service_auth"
    assert "identity_assertion" not in agent.registered and agent.claim
    body = {"claim_token": agent.claim_token, "email": "eve@example.org"}
    refusal(nobody.post("/agent/identity/claim", json=body), 403, "claim_email_mismatch")
    agent.confirm(org.id, "--scope", "code:run")
    assert set(agent.redeem().json()["scope"].split()) == {"code:run", "agent:bootstrap"}


# -- what does not work


def test_nobody_is_trusted_to_vouch(server, nobody):
    body = {"type": "identity_assertion", "assertion": "a.b.c"}
    refusal(nobody.post("/agent/identity", json=body), 403, "agent_provider_untrusted")
    headers = {"content-type": "application/secevent+jwt"}
    for event in (b"", b"a.b.c", b"\xff" * 1000):
        response = nobody.post("/agent/event/notify", content=event, headers=headers)
        refusal(response, 403, "agent_provider_untrusted")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "type"),
        ({"type": "root"}, "type"),
        ({"type": "service_auth"}, "login_hint"),
        ({"type": "service_auth", "login_hint": "nobody"}, "login_hint"),
        ({"type": "anonymous", "agent_platform": "a\x1b[2J"}, "agent_platform"),
        ({"type": "anonymous", "agent_platform": "a" * 300}, "agent_platform"),
        ({"type": "anonymous", "requested_scopes": ["root"]}, "requested_scopes"),
        ({"type": "anonymous", "requested_scopes": "code:run"}, "requested_scopes"),
    ],
)
def test_a_bad_registration_is_refused(nobody, body, field):
    error = refusal(nobody.post("/agent/identity", json=body), 400, "invalid_request")
    assert error["details"]["field"] == field


def test_bad_forms_are_refused_in_the_words_of_oauth(nobody):
    def token(**form: str) -> httpx.Response:
        return nobody.post("/oauth2/token", data=form)

    oauth_refusal(nobody.post("/oauth2/token"), "invalid_request")
    oauth_refusal(token(grant_type="password"), "unsupported_grant_type")
    oauth_refusal(token(grant_type=CLAIM), "invalid_request")
    oauth_refusal(token(grant_type=BEARER), "invalid_request")
    oauth_refusal(token(grant_type=CLAIM, claim_token="cn_claim_x"), "invalid_claim_token")
    oauth_refusal(token(grant_type=BEARER, assertion="x"), "invalid_identity_assertion")
    twice = b"grant_type=a&grant_type=b"
    oauth_refusal(nobody.post("/oauth2/token", content=twice), "invalid_request")
    oauth_refusal(nobody.post("/oauth2/token", content=b"a" * 20_000), "invalid_request")
    oauth_refusal(nobody.post("/oauth2/revoke"), "invalid_request")
    for token in ("", "x", "cn_agent_x", "cn_claim_x", "a.b.c", "\x00"):
        answer = nobody.post("/oauth2/revoke", data={"token": token})
        assert answer.status_code == 200 and answer.json() == {"revoked": False}
    body = {"claim_token": "cn_claim_x", "email": "ada@example.org"}
    refusal(nobody.post("/agent/identity/claim", json=body), 400, "invalid_claim_token")


def test_a_denied_claim_is_over_and_another_can_be_begun(server, nobody, org):
    agent = Agent(nobody, server)
    agent.begin_claim()
    admin(server, "agent-claim", "deny", agent.claim["user_code"])
    oauth_refusal(agent.redeem(), "authorization_denied")
    assert agent.let_in(org.id)["access_token"]


def test_a_newer_claim_takes_the_place_of_the_one_before(server, nobody, org):
    agent = Agent(nobody, server)
    first = agent.begin_claim()["user_code"]
    second = agent.begin_claim("bob@example.org")["user_code"]
    listed = admin(server, "agent-claim", "ls")
    assert second in listed and (first == second or first not in listed)
    agent.confirm(org.id)
    assert agent.redeem().status_code == 200


def test_claims_of_one_registration_are_few(server, nobody):
    agent = Agent(nobody, server)
    for _ in range(10):
        agent.begin_claim()
    body = {"claim_token": agent.claim_token, "email": "ada@example.org"}
    error = refusal(nobody.post("/agent/identity/claim", json=body), 429, "quota_exceeded")
    assert error["details"] == {"limit": 10}


def test_what_is_over_is_said_to_be(server, nobody, org):
    """Time goes by in the rows, where the server reads it."""
    claimed, unclaimed, gone = (Agent(nobody, server) for _ in range(3))
    token = claimed.let_in(org.id)
    unclaimed.begin_claim()
    with sqlite3.connect(server.data_dir / "crownest.db", timeout=30) as db:
        db.execute(
            "UPDATE agent_credentials SET expires_at = 1 WHERE registration_id = ?", (claimed.id,)
        )
        db.execute(
            "UPDATE agent_claims SET expires_at = 1 WHERE registration_id = ?", (unclaimed.id,)
        )
        db.execute("UPDATE agent_registrations SET expires_at = 1 WHERE id = ?", (gone.id,))
    refusal(claimed.get("/v1/sandboxes", token["access_token"]), 401, "agent_token_expired")
    assert claimed.trade(token["identity_assertion"]).status_code == 200
    oauth_refusal(unclaimed.redeem(), "expired_token")
    unclaimed.begin_claim()
    oauth_refusal(gone.redeem(), "expired_token")
    body = {"claim_token": gone.claim_token, "email": "ada@example.org"}
    refusal(nobody.post("/agent/identity/claim", json=body), 400, "invalid_claim_token")


def test_an_operator_revokes_an_agent_at_once(server, nobody, org):
    agent = Agent(nobody, server)
    token = agent.let_in(org.id)
    assert agent.get("/v1/sandboxes", token["access_token"]).status_code == 200
    assert agent.id in admin(server, "agent", "ls", "--org", org.id)
    admin(server, "agent", "revoke", agent.id)
    refusal(agent.get("/v1/sandboxes", token["access_token"]), 401, "invalid_api_key")
    oauth_refusal(agent.trade(token["identity_assertion"]), "invalid_identity_assertion")


def test_urls_that_an_agent_signs_end_with_it(server, nobody, org):
    agent = Agent(nobody, server)
    token = agent.let_in(org.id)["access_token"]
    with connect(server, token) as client:
        sandbox = client.post("/v1/sandboxes", json={}).json()["sandbox"]["id"]
        path = f"/v1/sandboxes/{sandbox}/files"
        client.put(path, json={"path": "a.txt", "content": "for who has the link"})
        url = client.post(f"{path}/download-url", json={"path": "a.txt"}).json()["url"]
        assert httpx.get(url, trust_env=False).text == "for who has the link"
        client.delete(f"/v1/sandboxes/{sandbox}")
    admin(server, "agent", "revoke", agent.id)
    assert httpx.get(url, trust_env=False).status_code == 401


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def test_forged_tokens_open_nothing(server, nobody, org):
    agent = Agent(nobody, server)
    good = agent.let_in(org.id)
    header, body, signature = good["access_token"].removeprefix(PREFIX).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
    keys = nobody.get("/.well-known/jwks.json").json()["keys"]
    public = base64.urlsafe_b64decode(next(k["x"] for k in keys if k["kid"] == kid) + "=")

    def hs256(head: Json) -> str:
        signed = f"{part(head)}.{part(claims)}"
        mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{part(mac)}"

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    other = Ed25519PrivateKey.generate()
    mine = jwt.encode(claims, other, algorithm="EdDSA", headers={"kid": kid, "typ": "at+jwt"})
    at = {"typ": "at+jwt", "kid": kid}
    forged = [
        f"{part({'alg': 'none', **at})}.{body}.",
        f"{part({'alg': 'none', **at})}.{body}.{signature}",
        f"{part({'alg': 'NONE', **at})}.{body}.",
        hs256({"alg": "HS256", **at}),
        hs256({"alg": "EdDSA", **at}),
        mine,
        f"{header}.{part({**claims, 'exp': claims['exp'] + 10**6})}.{signature}",
        f"{header}.{body}.{part(bytes(64))}",
        f"{header}.{body}",
        f"{header}.{body}.{signature}.{signature}",
        f"..{signature}",
        good["identity_assertion"],
        agent.registered["identity_assertion"],
        "",
        ".",
        "..",
        "a" * 10_000,
    ]
    for token in forged:
        refusal(agent.get("/v1/sandboxes", PREFIX + token), 401, "invalid_api_key")
    # Nor is one kind of token the other.
    access = good["access_token"]
    for assertion in (access, access.removeprefix(PREFIX), *forged[:6]):
        oauth_refusal(agent.trade(assertion), "invalid_identity_assertion")
    assert agent.get("/v1/sandboxes", access).status_code == 200


def test_keys_change_and_tokens_of_the_one_before_live_on(server, nobody, org):
    agent = Agent(nobody, server)
    before = agent.let_in(org.id)
    old = jwt.get_unverified_header(before["identity_assertion"])["kid"]
    new = admin(server, "agent-key", "rotate").split()[-1]

    def signed_with() -> str:
        answer = agent.trade(before["identity_assertion"])
        assert answer.status_code == 200, answer.text
        time.sleep(0.2)
        return jwt.get_unverified_header(answer.json()["access_token"].removeprefix(PREFIX))["kid"]

    until(lambda: signed_with() == new, "the new key signs")
    published = [key["kid"] for key in nobody.get("/.well-known/jwks.json").json()["keys"]]
    assert published[0] == new and old in published
    assert agent.get("/v1/sandboxes", before["access_token"]).status_code == 200


def test_tokens_survive_a_restart(server):
    if reason := missing():
        pytest.skip(reason)
    with open_directory() as directory:
        with Server(directory / "data", "--pool", "0") as first:
            org = new_organization(first, "Agents")
            with httpx.Client(base_url=first.url, trust_env=False) as client:
                agent = Agent(client, first)
                token = agent.let_in(org.id)
                assert agent.get("/v1/sandboxes", token["access_token"]).status_code == 200
        with (
            Server(directory / "data", "--pool", "0") as second,
            connect(second, token["access_token"]) as client,
        ):
            assert client.get("/v1/sandboxes").status_code == 200


def test_registrations_of_one_address_are_counted(server):
    """On a server of its own: the count is of everybody on this machine."""
    if reason := missing():
        pytest.skip(reason)
    with (
        open_directory() as directory,
        Server(directory / "data", "--pool", "0") as fresh,
        httpx.Client(base_url=fresh.url, trust_env=False) as client,
    ):
        answers = [client.post("/agent/identity", json={"type": "anonymous"}) for _ in range(140)]
        assert [a.status_code for a in answers[:120]] == [200] * 120
        refusal(answers[-1], 429, "rate_limited")
        assert int(answers[-1].headers["retry-after"]) <= 60
        # Who has a key is not asked to wait for them.
        with connect(fresh) as owner:
            assert owner.get("/v1/sandboxes").status_code == 200
