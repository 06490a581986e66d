"""Ports of a sandbox under the API's address: HTTP and WebSocket, and pages that mean harm."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from lifecycle_api import Sandbox, body, connect, rest, visitor
from server import Server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as websocket

MIB = 1 << 20
CREDENTIALS = (
    "open-sandbox-api-key",
    "x-execd-access-token",
    "opensandbox-egress-auth",
    "opensandbox-secure-access",
    "authorization",
    "x-api-key",
    "cookie",
    "open-sandbox-client-ip",
)

HOSTILE = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Hostile(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        for name, value in (
            ("set-cookie", "session=theirs; Path=/"), ("clear-site-data", '"*"'),
            ("strict-transport-security", "max-age=9"), ("service-worker-allowed", "/"),
            ("access-control-allow-origin", "*"), ("www-authenticate", "Basic realm=x"),
            ("content-type", "text/html"), ("content-security-policy", "img-src *"),
            ("x-own", "kept"), ("content-length", "4"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"page")
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", 8010), Hostile).serve_forever()
"""

ENDLESS = """
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Endless(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(b"1\\r\\n.\\r\\n")
            time.sleep(0.1)
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", 8011), Endless).serve_forever()
"""

WEBSOCKETS = """
import sys
sys.path.insert(0, sys.argv[1])
from websockets.sync.server import serve
def answer(connection):
    connection.send(str(sorted(k.lower() for k in connection.request.headers)))
    for message in connection:
        connection.send(message)
serve(answer, "127.0.0.1", int(sys.argv[2]), max_size=None).serve_forever()
"""


@pytest.fixture(scope="module")
def inside(server: Server) -> Iterator[Sandbox]:
    """A sandbox with an echo on port 8000."""
    with connect(server) as api, rest.connect(server) as v1:
        made = Sandbox(api, api.post("/sandboxes", json=body()).json())
        visitor.echo(made.v1(v1))
        visitor.serve(made.v1(v1), HOSTILE, port=8010)
        yield made
        made.kill()


def test_a_request_arrives_as_it_was_and_without_credentials(
    server: Server, inside: Sandbox
) -> None:
    endpoint = inside.endpoint(8000)
    url = f"http://{endpoint['endpoint']}"
    with httpx.Client(trust_env=False, headers=endpoint["headers"]) as port:
        asked = port.request(
            "PATCH",
            f"{url}/a//b?x=%20&y=/z",
            content=b"body",
            headers={
                "cookie": "a=b",
                "x-mine": "kept",
                "OPEN-SANDBOX-CLIENT-IP": "10.0.0.1",
            },
        ).json()
        assert (asked["method"], asked["path"], asked["body"]) == (
            "PATCH",
            "/a//b?x=%20&y=/z",
            "body",
        )
        headers = dict(asked["headers"])
        assert headers["x-mine"] == "kept"
        assert not set(CREDENTIALS) & set(headers), headers
        assert port.get(url).json()["path"] == "/"
        assert port.get(f"{url}/").json()["path"] == "/"
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
            assert port.request(method, f"{url}/m").json()["method"] == method
        assert port.head(f"{url}/m").status_code == 200
    # With the key in any of its places nothing of it goes in either.
    for name, value in (
        ("OPEN-SANDBOX-API-KEY", server.api_key),
        ("X-EXECD-ACCESS-TOKEN", server.api_key),
        ("authorization", f"Bearer {server.api_key}"),
    ):
        with httpx.Client(trust_env=False, headers={name: value}) as port:
            answer = port.get(f"{url}/key")
            assert answer.status_code == 200
            assert server.api_key not in answer.text
            assert not set(CREDENTIALS) & set(dict(answer.json()["headers"]))


def test_execd_passes_on_to_ports_too(server: Server, inside: Sandbox) -> None:
    with inside.at(44772) as execd:
        asked = execd.post("/proxy/8000/a//b?x=%20&y=/proxy/1", content=b"body").json()
        assert (asked["method"], asked["path"], asked["body"]) == (
            "POST",
            "/a//b?x=%20&y=/proxy/1",
            "body",
        )
        assert not set(CREDENTIALS) & set(dict(asked["headers"])), asked
        for root in ("/proxy/8000", "/proxy/8000/"):
            assert execd.get(root).json()["path"] == "/"
        page = execd.get("/proxy/8010/")
        assert (page.status_code, page.text) == (200, "page")
        assert "set-cookie" not in page.headers
        assert "nothing listens" in execd.get("/proxy/9/").json()["message"]
        # An address with a token is for its port at its own place.
        signed = inside.endpoint(8000, expires=str(int(time.time()) + 600))["endpoint"]
        through = signed.removesuffix("/8000") + "/44772/proxy/8000/"
        assert httpx.get(f"http://{through}", trust_env=False).status_code == 401
        url = f"{execd.base_url}proxy/8000/"
    assert httpx.get(url, trust_env=False).status_code == 401


def test_a_large_body_goes_both_ways(inside: Sandbox) -> None:
    with inside.at(8000) as port:
        sent = port.post("/large", content=b"x" * (8 * MIB)).json()
        assert sent["size"] == 8 * MIB

        def pieces() -> Iterator[bytes]:
            for _ in range(64):
                yield b"y" * 65536

        assert port.post("/chunks", content=pieces()).json()["size"] == 64 * 65536


def test_a_page_has_no_part_in_the_api_s_origin(inside: Sandbox) -> None:
    soon = str(int(time.time()) + 600)
    for endpoint in (inside.endpoint(8010), inside.endpoint(8010, expires=soon)):
        page = httpx.get(
            f"http://{endpoint['endpoint']}/",
            headers=endpoint.get("headers", {}),
            trust_env=False,
        )
        assert (page.status_code, page.text) == (200, "page")
        assert page.headers["x-own"] == "kept"
        for name in (
            "set-cookie",
            "clear-site-data",
            "strict-transport-security",
            "service-worker-allowed",
            "access-control-allow-origin",
            "www-authenticate",
        ):
            assert name not in page.headers, name
        policies = page.headers.get_list("content-security-policy")
        assert policies[0] == "img-src *"
        (sandboxed,) = [policy for policy in policies if policy.startswith("sandbox")]
        assert "allow-same-origin" not in sandboxed
        assert page.headers["referrer-policy"] == "no-referrer"


def test_ports_that_do_not_answer_say_so(inside: Sandbox) -> None:
    for port in (9, 8009):
        with inside.at(port) as client:
            answer = client.get("/")
            assert answer.status_code == 502, answer.text
            assert set(answer.json()) == {"code", "message"}
            assert "nothing listens" in answer.json()["message"]
    # The proxy to the world is no service of the sandbox.
    with inside.at(3128) as client:
        assert client.get("/").status_code >= 400
    with inside.at(44772) as client:
        assert client.get("/no-such-route").status_code == 404
        for port in (44772, 18080):
            assert client.get(f"/proxy/{port}/ping").status_code == 404
        assert client.get("/proxy/0/").status_code == 400
    with inside.at(18080) as client:
        assert client.get("/no-such-route").status_code == 404


def test_a_websocket_goes_through(server: Server, inside: Sandbox) -> None:
    with rest.connect(server) as v1:
        sandbox = inside.v1(v1)
        library = visitor.library(sandbox, "websockets")
        visitor.serve(sandbox, WEBSOCKETS, library, "8001", port=8001)
    endpoint = inside.endpoint(8001)
    address = f"ws://{endpoint['endpoint']}/socket"
    with websocket(
        address, additional_headers=endpoint["headers"], proxy=None
    ) as connection:
        names = json.loads(connection.recv(timeout=30).replace("'", '"'))
        assert not set(CREDENTIALS) & set(names), names
        for message in ("text", b"\x00\xff" * 70_000):
            connection.send(message)
            assert connection.recv(timeout=30) == message
    soon = str(int(time.time()) + 600)
    signed = inside.endpoint(8001, expires=soon)["endpoint"]
    with websocket(f"ws://{signed}/", proxy=None) as connection:
        connection.recv(timeout=30)
        connection.send("by address")
        assert connection.recv(timeout=30) == "by address"
    execd = inside.endpoint(44772)
    within = f"ws://{execd['endpoint']}/proxy/8001/socket"
    with websocket(within, additional_headers=execd["headers"], proxy=None) as connection:
        assert "x-execd-access-token" not in connection.recv(timeout=30)
        connection.send("by way of execd")
        assert connection.recv(timeout=30) == "by way of execd"
    with pytest.raises(InvalidStatus) as refusal, websocket(address, proxy=None):
        pass
    assert refusal.value.response.status_code == 401


def test_a_revoked_key_keeps_no_connection_to_a_port(
    server: Server, inside: Sandbox
) -> None:
    """A WebSocket and an answer without end; those of other keys stay."""
    key = rest.new_key(server, server.credentials["orgId"])
    mine, other = {"OPEN-SANDBOX-API-KEY": key}, {"x-api-key": server.api_key}
    with rest.connect(server) as v1:
        sandbox = inside.v1(v1)
        library = visitor.library(sandbox, "websockets")
        visitor.serve(sandbox, WEBSOCKETS, library, "8002", port=8002)
        visitor.serve(sandbox, ENDLESS, port=8011)
        page = inside.endpoint(8011)["endpoint"]
        address = f"ws://{inside.endpoint(8002)['endpoint']}/"
        with (
            websocket(address, additional_headers=mine, proxy=None) as ended,
            websocket(address, additional_headers=other, proxy=None) as stays,
            httpx.Client(trust_env=False, timeout=30) as client,
            client.stream("GET", f"http://{page}/", headers=mine) as answer,
        ):
            ended.recv(timeout=30)
            stays.recv(timeout=30)
            rest.revoke_key(v1, key)
            with pytest.raises(ConnectionClosed):
                ended.recv(timeout=30)
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in answer.iter_raw():
                    pass
            stays.send("still here")
            assert stays.recv(timeout=30) == "still here"
