"""What is there without knowing anything: probes, metrics, the description, refusals."""

from __future__ import annotations

import json
import re
import select
import socket
from pathlib import Path

import httpx
import pytest

from rest import Sandbox, connect, refusal
from server import Server

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| ([A-Z]+) (/\S*) \| [^|]+ \| (tests/\S+\.py)::(\w+) \|$", re.M)
OPEN = {
    "/healthz",
    "/readyz",
    "/auth.md",
    "/llms.txt",
    "/.well-known/api-catalog",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-authorization-server",
    "/.well-known/jwks.json",
    "/agent/identity",
    "/agent/identity/claim",
    "/agent/event/notify",
    "/oauth2/token",
    "/oauth2/revoke",
}


@pytest.fixture
def anyone(server: Server) -> httpx.Client:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("probe", ["/healthz", "/readyz"])
def test_probes_need_no_key(anyone, probe):
    response = anyone.get(probe)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_metrics_are_prometheus_text_and_count_runs(anyone, sandbox: Sandbox):
    def runs() -> float:
        response = anyone.get("/metrics")
        assert response.status_code == 200
        assert "text" in response.headers["content-type"]
        samples = [line for line in response.text.splitlines() if line and line[0] != "#"]
        assert samples and all(re.fullmatch(r"[a-z_]+(\{.*\})? \S+", s) for s in samples)
        found = re.search(
            r'^crownest_\w*runs\w*\{outcome="completed"\} (\S+)$', response.text, re.M
        )
        return float(found[1]) if found else 0.0

    before = runs()
    sandbox.value("1+1")
    assert runs() >= before + 1
    # Nothing a tenant chose may become a label: ids would grow without bound.
    assert sandbox.id not in anyone.get("/metrics").text


def test_the_description_has_every_route(anyone):
    response = anyone.get("/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/vnd.oai.openapi+json; charset=utf-8"
    description = response.json()
    assert description["openapi"].startswith("3.")
    described = {
        (method.upper(), path)
        for path, item in description["paths"].items()
        for method in item
    }
    documented = ROW.findall((ROOT / "docs/routes.md").read_text())
    assert {(method, path) for method, path, *_ in documented} == described
    assert len(documented) == len(described), "each route once"
    for method, path, file, test in documented:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{method} {path} has no test {test}"


def test_the_description_is_whole(anyone):
    """References lead somewhere, operations have names and say who may call them."""
    text = anyone.get("/openapi.json").text
    description = json.loads(text)
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', text):
        place = description
        for step in reference.split("/"):
            place = place[step]
    names = []
    for path, item in description["paths"].items():
        for operation in item.values():
            names.append(operation["operationId"])
            security = operation.get("security", description.get("security"))
            assert (path in OPEN) == (security in ([], [{}], None)), (path, security)
    assert len(names) == len(set(names))
    properties = description["components"]["schemas"]["RunCode"]["properties"]
    assert {"code", "language", "contextId", "timeoutMs", "richOutputs"} <= set(properties)


def test_every_answer_names_its_request(anyone):
    generated = anyone.get("/healthz").headers["x-request-id"]
    assert re.fullmatch(r"req_[A-Za-z0-9_-]+", generated)
    assert (
        anyone.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"]
        == "mine-1"
    )
    evil = anyone.get("/healthz", headers={"x-request-id": 'a"b c'}).headers["x-request-id"]
    assert evil.startswith("req_")


def test_unknown_routes_and_methods_are_refused_in_the_envelope(client):
    refusal(client.get("/v1/nothing"), 404, "not_found")
    refusal(client.patch("/v1/sandboxes"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b'"x"', b'{"ttlMs":"soon"}', b"\xff\xfe", b'{"ttlMs":1e400}']
)
def test_bodies_that_are_no_request_are_refused(client, body):
    refusal(client.post("/v1/sandboxes", content=body), 400, "invalid_request")


def test_a_body_over_the_limit_is_refused_and_the_connection_lives(server):
    with connect(server) as client:
        huge = b'{"metadata":{"a":"' + b"x" * (3 * 1024 * 1024) + b'"}}'
        refusal(client.post("/v1/sandboxes", content=huge), 413, "request_too_large")
        assert client.get("/healthz").status_code == 200


def test_unknown_fields_are_tolerated(make):
    sandbox = make(later={"a": 1})
    assert sandbox.run("1", later=True)["outcome"] == "completed"


def test_times_are_utc_with_milliseconds(sandbox: Sandbox):
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(form, sandbox.record["createdAt"])
    assert re.fullmatch(form, sandbox.record["expiresAt"])
    assert "destroyedAt" not in sandbox.record, "absent values are left out"


@pytest.mark.parametrize("route", ["/v1/sandboxes", "/v1/nothing", "/healthz"])
def test_an_early_refusal_keeps_the_connection_or_says_that_it_closes(server, route):
    """Clients send head and body apart. A refusal that does not wait for the body must not end a
    connection that the client then uses for its next request."""
    head = f"POST {route} HTTP/1.1\r\nhost: {server.url[7:]}\r\ncontent-length: 30\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode())
        # A server that waits for the body before it refuses is just as right.
        if select.select([connection], [], [], 1)[0]:
            refused = answer(connection)
            connection.sendall(b"x" * 30)
        else:
            connection.sendall(b"x" * 30)
            refused = answer(connection)
        assert refused.split()[1] in {"401", "404", "405"}, refused
        if "connection: close" in refused:
            return
        connection.sendall(f"GET /healthz HTTP/1.1\r\nhost: {server.url[7:]}\r\n\r\n".encode())
        assert answer(connection).startswith("HTTP/1.1 200 OK"), "the second answer"


def answer(connection: socket.socket) -> str:
    """One whole answer with a content-length, in lower-case headers as the server sends them."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65_536)
        assert part, f"the connection ended after {received!r}"
        received += part
    head, body = received.split(b"\r\n\r\n", 1)
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    while len(body) < length:
        body += connection.recv(65_536)
    return head.decode()
