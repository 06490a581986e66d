"""A sandbox's own network policy: at creation, changed while it runs, after a restart; under the
operator's rules in any case."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from lifecycle_api import Sandbox, body, connect, refused, rest
from server import Server, missing

EGRESS = 18080
# A name that resolves to this machine, which the operator allows; another that nobody allows.
ALLOWED, REFUSED = "localhost", "127.0.0.3"


class Target(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    with ThreadingHTTPServer(("0.0.0.0", 0), Target) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield served.server_address[1]
        served.shutdown()


@pytest.fixture(scope="module")
def allowing() -> Iterator[Server]:
    """A server of its own that allows one name of this machine."""
    if reason := missing():
        pytest.skip(reason)
    options = ("--pool", "1", "--egress-allow", ALLOWED)
    with (
        rest.open_directory() as directory,
        Server(directory / "data", *options) as server,
    ):
        yield server


def status(server: Server, sandbox: Sandbox, port: int, host: str = ALLOWED) -> str:
    """What a request out of the sandbox is answered with."""
    url = f"http://{host}:{port}/"
    with rest.connect(server) as v1:
        python = (
            "import os, urllib.request as u, urllib.error as e\n"
            "o = u.build_opener(u.ProxyHandler({'http': os.environ['http_proxy']}))\n"
            f"r = u.Request({url!r})\n"
            "try: print(o.open(r, timeout=20).status)\n"
            "except e.HTTPError as x: print(x.code)\n"
        )
        return (
            sandbox.v1(v1)
            .out("import os\nos.environ['no_proxy'] = ''\n" + python)
            .strip()
        )


def made(client: httpx.Client, **fields: Any) -> Sandbox:
    answer = client.post("/sandboxes", json=body(**fields))
    assert answer.status_code == 202, answer.text
    return Sandbox(client, answer.json())


def test_a_policy_holds_from_the_start_and_is_changed_live(
    allowing: Server, target: int
) -> None:
    with connect(allowing) as client:
        sandbox = made(client, networkPolicy={"defaultAction": "deny"})
        assert status(allowing, sandbox, target) == "403"
        with sandbox.at(EGRESS) as egress:
            first = egress.get("/policy").json()
            assert first["status"] == "ok" and first["mode"] == "deny_all"
            assert first["policy"] == {"defaultAction": "deny", "egress": []}

            rules = [
                {"action": "allow", "target": ALLOWED},
                {"action": "deny", "target": ALLOWED},
                {"action": "allow", "target": "*.example.org"},
            ]
            changed = egress.patch("/policy", json=rules)
            assert changed.status_code == 200, changed.text
            assert changed.json()["policy"]["egress"] == [rules[0], rules[2]]
            assert status(allowing, sandbox, target) == "200"

            denied = egress.patch(
                "/policy", json=[{"action": "deny", "target": ALLOWED}]
            ).json()
            assert denied["policy"]["egress"][0] == {
                "action": "deny",
                "target": ALLOWED,
            }
            assert status(allowing, sandbox, target) == "403"

            left = egress.request(
                "DELETE", "/policy", json=[ALLOWED, "never.example"]
            ).json()
            assert left["policy"]["egress"] == [rules[2]]
            assert egress.get("/policy").json() == left
            # The lifecycle API has the same policy.
            assert client.get(f"{sandbox.path}/networkpolicy").json() == left
            everything = client.put(f"{sandbox.path}/networkpolicy", json={}).json()
            assert everything["mode"] == "allow_all"
            assert status(allowing, sandbox, target) == "200"

            bad_rules: list[Any] = [
                [{"action": "allow", "target": "10.0.0.0/33"}],
                [{"action": "allow", "target": "http://x"}],
                [{"action": "perhaps", "target": "a.example"}],
                [{"action": "allow", "target": f"{n}.example"} for n in range(257)],
                {"action": "allow"},
            ]
            for bad in bad_rules:
                answer = egress.patch("/policy", json=bad)
                refused(answer, 400, "SANDBOX::INVALID_PARAMETER")
            for method, path in (
                ("GET", "/credential-vault"),
                ("POST", "/credential-vault"),
                ("GET", "/credential-vault/bindings/x"),
            ):
                refused(egress.request(method, path), 501, "SANDBOX::API_NOT_SUPPORTED")
        sandbox.kill()


def test_rules_about_addresses_hold_for_names_too(allowing: Server, target: int) -> None:
    def rule(action: str, to: str) -> dict[str, str]:
        return {"action": action, "target": to}

    only_loopback = {"defaultAction": "deny", "egress": [rule("allow", "127.0.0.0/8")]}
    with connect(allowing) as client:
        sandbox = made(client, networkPolicy=only_loopback)
        assert status(allowing, sandbox, target) == "200"
        # What the operator refuses stays refused: an address of this machine.
        assert status(allowing, sandbox, target, REFUSED) == "403"
        with sandbox.at(EGRESS) as egress:
            assert egress.get("/policy").json()["policy"] == only_loopback
            first = [rule("deny", "127.0.0.0/8"), rule("deny", "::1"), rule("allow", ALLOWED)]
            changed = egress.post("/policy", json={"defaultAction": "allow", "egress": first})
            assert changed.status_code == 200, changed.text
            assert status(allowing, sandbox, target) == "403"
            last = {"defaultAction": "deny", "egress": [first[2], first[0]]}
            assert egress.post("/policy", json=last).status_code == 200
            assert status(allowing, sandbox, target) == "200"
        sandbox.kill()


def test_a_sandbox_allows_itself_nothing_that_the_operator_refuses(
    allowing: Server, target: int
) -> None:
    rules = [
        {"action": "allow", "target": "*"},
        {"action": "allow", "target": "localhost"},
    ]
    with connect(allowing) as client:
        sandbox = made(
            client, networkPolicy={"defaultAction": "allow", "egress": rules}
        )
        assert status(allowing, sandbox, target) == "200"
        assert status(allowing, sandbox, target, REFUSED) == "403"
        assert status(allowing, sandbox, allowing.port) == "403"
        sandbox.kill()


def test_a_policy_outlives_the_server_s_process(target: int) -> None:
    if reason := missing():
        pytest.skip(reason)
    options = ("--pool", "1", "--egress-allow", ALLOWED)
    with (
        rest.open_directory() as directory,
        Server(directory / "data", *options) as server,
    ):
        with connect(server) as client:
            closed = made(client, networkPolicy={"defaultAction": "deny"})
            opened = made(client)
            with closed.at(EGRESS) as egress:
                rule = [{"action": "allow", "target": "a.example"}]
                assert egress.patch("/policy", json=rule).status_code == 200
        server.stop()
        server.start()
        with connect(server) as client:
            again = Sandbox(client, {"id": closed.id})
            with again.at(EGRESS) as egress:
                policy = egress.get("/policy").json()["policy"]
            assert policy == {"defaultAction": "deny", "egress": rule}
            assert status(server, again, target) == "403"
            assert status(server, Sandbox(client, {"id": opened.id}), target) == "200"
