"""The way out of a sandbox and the credential vault, through `Sandbox` and its services."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opensandbox.models.sandboxes import (
    Credential,
    CredentialAuth,
    CredentialBinding,
    CredentialMatch,
    CredentialProxyConfig,
    InlineCredentialSource,
    NetworkPolicy,
    NetworkRule,
)

from sdk import Async, Sync, out
from rest import open_directory
from server import Server, missing

# A name of this machine. Rules are about names, and a sandbox's programs ask the proxy for it.
HOST = "localhost"


def rules(policy: NetworkPolicy) -> list[tuple[str, str]]:
    return [(rule.action, rule.target) for rule in policy.egress or []]


def rule(action: str, target: str) -> NetworkRule:
    return NetworkRule(action=action, target=target)


def test_policies(create):
    policy = NetworkPolicy(
        default_action="deny",
        egress=[rule("allow", "a.example.com"), rule("allow", "b.example.com")],
    )
    sandbox = create(network_policy=policy)
    seen = sandbox.get_egress_policy()
    assert seen.default_action == "deny"
    assert rules(seen) == [("allow", "a.example.com"), ("allow", "b.example.com")]

    sandbox.patch_egress_rules([rule("deny", "a.example.com"), rule("allow", "*.c.example.com")])
    seen = sandbox.get_egress_policy()
    assert seen.default_action == "deny", "a patch keeps it"
    assert dict((target, action) for action, target in rules(seen)) == {
        "a.example.com": "deny",
        "b.example.com": "allow",
        "*.c.example.com": "allow",
    }

    sandbox.delete_egress_rules(["a.example.com", "never.example.com"])
    assert {target for _, target in rules(sandbox.get_egress_policy())} == {
        "b.example.com",
        "*.c.example.com",
    }


def test_without_a_policy_everything_may_be_asked_for(create):
    assert create().get_egress_policy().default_action == "allow"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with ThreadingHTTPServer((HOST, 0), Page) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{served.server_address[1]}"
        served.shutdown()


@pytest.mark.parametrize("kind", [Sync, Async], ids=["sync", "async"])
def test_rules_hold(kind, page):
    """On a server whose operator lets sandboxes reach that address at all."""
    if reason := missing():
        pytest.skip(reason)
    with (
        open_directory() as directory,
        Server(directory / "data", "--pool", "0", "--egress-allow", HOST) as server,
    ):
        sdk = kind(server.url.removeprefix("http://") + "/opensandbox", server.api_key)
        allowed = NetworkPolicy(default_action="deny", egress=[rule("allow", HOST)])
        sandbox = sdk.Sandbox.create(
            "python:3.11", connection_config=sdk.config(), network_policy=allowed
        )
        direct = "no_proxy= NO_PROXY="
        ask = f"export {direct}; curl -s -m 20 {page}/ || python3 -c \"import requests; print(requests.get('{page}', timeout=20).text)\""
        assert "page" in out(sandbox.commands.run(ask))
        sandbox.patch_egress_rules([rule("deny", HOST)])
        assert "page" not in out(sandbox.commands.run(ask)), "at once, for what comes next"
        sandbox.patch_egress_rules([rule("allow", HOST)])
        assert "page" in out(sandbox.commands.run(ask))
        sandbox.delete_egress_rules([HOST])
        assert "page" not in out(sandbox.commands.run(ask))
        sandbox.destroy()
        sdk.close()


def test_the_credential_vault_is_not_built(create, sdk, refused):
    vault = create().credential_vault
    credential = Credential(name="token", source=InlineCredentialSource(value="secret"))
    binding = CredentialBinding(
        name="b",
        match=CredentialMatch(hosts=["api.example.com"]),
        auth=CredentialAuth(type="bearer", credential="token"),
    )
    for call in (
        lambda: vault.create(credentials=[credential], bindings=[binding]),
        lambda: vault.get(),
        lambda: vault.patch(expected_revision=1, credentials={"delete": ["token"]}),
        lambda: vault.delete(),
        lambda: vault.list_credentials(),
        lambda: vault.get_credential("token"),
        lambda: vault.list_bindings(),
        lambda: vault.get_binding("b"),
    ):
        error = refused(501, call)
        assert "secret" not in str(error)
    refused(501, lambda: create(credential_proxy=CredentialProxyConfig(enabled=True)))
