"""Previews through crownest 0.1.1 from PyPI, sync and async."""

from __future__ import annotations

import httpx
import pytest
from crownest import CrowNestApiError

PROGRAM = (
    "import threading\n"
    "from http.server import SimpleHTTPRequestHandler as Files, ThreadingHTTPServer\n"
    "s = ThreadingHTTPServer(('127.0.0.1', 8000), Files)\n"
    "threading.Thread(target=s.serve_forever, daemon=True).start()"
)


def refused(call, status: int, code: str) -> CrowNestApiError:
    with pytest.raises(CrowNestApiError) as caught:
        call()
    assert (caught.value.status, caught.value.code) == (status, code), str(caught.value)
    return caught.value


def visit(server, preview, **headers: str) -> httpx.Response:
    host = preview["url"].removeprefix("http://")
    return httpx.get(server.url + "/page.txt", headers={"host": host, **headers}, trust_env=False)


def test_a_port_is_seen_from_outside(crow, sandbox, server):
    sandbox.code.run(PROGRAM)
    sandbox.files.write("page.txt", "hello")
    created = sandbox.previews.create(port=8000)
    preview = created["preview"] if "preview" in created else created
    assert preview["authMode"] == "authenticated" and preview["sandboxId"] == sandbox.id
    answer = visit(server, preview, authorization=f"Bearer {server.api_key}")
    assert answer.status_code == 200 and answer.text == "hello"
    assert visit(server, preview).status_code == 401

    assert crow.previews.get(preview["id"])["url"] == preview["url"]
    assert [p["id"] for p in sandbox.previews.list()] == [preview["id"]]
    assert [p["id"] for p in crow.previews.list(sandbox.id)] == [preview["id"]]
    revoked = crow.previews.revoke(preview["id"])
    assert revoked["revokedAt"] and crow.previews.revoke(preview["id"]) == revoked
    answer = visit(server, preview, authorization=f"Bearer {server.api_key}")
    assert answer.status_code == 404


def test_token_mode_shows_its_token_once(crow, sandbox, server):
    created = crow.previews.create(sandbox.id, port=9000, auth_mode="token")
    assert created["previewToken"].startswith("pvt_")
    again = crow.previews.create(sandbox.id, port=9000, auth_mode="token")
    assert "previewToken" not in again
    assert again["preview"]["id"] == created["preview"]["id"]


def test_refusals(crow, sandbox):
    refused(lambda: sandbox.previews.create(port=0), 400, "invalid_request")
    refused(lambda: crow.previews.get("prv_none"), 404, "not_found")
    refused(lambda: crow.previews.revoke("prv_none"), 404, "not_found")
    mode = "unsupported_preview_auth_mode"
    refused(lambda: sandbox.previews.create(port=1, auth_mode="public"), 400, mode)
    for port in (1, 2, 3):
        sandbox.previews.create(port=port)
    error = refused(lambda: sandbox.previews.create(port=4), 429, "quota_exceeded")
    assert error.details == {"limit": 3}
    sandbox.kill()
    refused(lambda: sandbox.previews.create(port=1), 410, "sandbox_destroyed")
