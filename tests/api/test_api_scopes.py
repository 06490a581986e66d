"""The whole matrix: every route of the description, every scope, with and without."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from rest import Json, connect, new_key, refusal
from server import Server

# The contract's 27, the one of agents before a claim, and ours for the audit log.
SCOPES = 29


@pytest.fixture(scope="module")
def description(server: Server) -> Json:
    return httpx.get(f"{server.url}/openapi.json", trust_env=False).json()


def guarded(description: Json) -> Iterator[tuple[str, str, str]]:
    """Method, an address and the scope of every route that asks for one."""
    for path, item in description["paths"].items():
        for method, operation in item.items():
            for scheme in operation.get("security", []):
                for scope in scheme.get("bearer", []):
                    yield method.upper(), re.sub(r"\{\w+\}", "x", path), scope


def test_every_route_says_who_may_call_it(description: Json):
    routes = list(guarded(description))
    scopes = set(description["components"]["schemas"]["Scope"]["enum"])
    assert len(scopes) == SCOPES and {scope for *_, scope in routes} <= scopes
    for path, item in description["paths"].items():
        for method, operation in item.items():
            ways = [way for way in operation["security"] if way]
            scopes_asked = {tuple(scopes) for way in ways for scopes in way.values()}
            assert len(scopes_asked) == (1 if ways else 0), (method, path)
            assert not ways or {"bearer", "apiKey"} == {name for way in ways for name in way}


def test_each_scope_opens_its_routes_and_no_other(server: Server, description: Json):
    """Asked about things that do not exist: who may ask is told that, who may not learns only
    which scope is missing."""
    routes = list(guarded(description))
    scopes = sorted({scope for *_, scope in routes})
    # Some ask for a second scope: one alone does not open them.
    asked = Counter((method, path) for method, path, _ in routes)
    org = server.credentials["orgId"]
    for scope in scopes:
        others = [other for other in scopes if other != scope]
        with (
            connect(server, new_key(server, org, scope)) as holder,
            connect(server, new_key(server, org, *others)) as lacking,
        ):
            for method, path, needed in routes:
                # A body that no route accepts, so that nothing is made.
                body = {"content": b"[]"} if method in ("POST", "PUT") else {}
                if needed == scope:
                    error = refusal(lacking.request(method, path, **body), 403, "forbidden")
                    assert error["details"] == {"scope": scope} and scope in error["message"]
                    alone = holder.request(method, path, **body)
                    opened = alone.status_code not in (401, 403)
                    assert opened == (asked[method, path] == 1), (method, path, alone.text)
                else:
                    refused = holder.request(method, path, **body)
                    assert refused.status_code == 403, (method, path, scope, refused.text)


def test_without_a_key_no_guarded_route_says_anything(server: Server, description: Json):
    with httpx.Client(base_url=server.url, trust_env=False) as nobody:
        for method, path, _ in guarded(description):
            answer = nobody.request(method, path)
            refusal(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer resource_metadata=")
