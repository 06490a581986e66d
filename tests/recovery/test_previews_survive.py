"""Previews outlive the server that made them: their address, their sessions, their minutes."""

from __future__ import annotations

import sqlite3

import httpx
from machine import Client, Machine, key_of, kill, wait_for
from server import Server

PROGRAM = (
    "import threading\n"
    "from http.server import SimpleHTTPRequestHandler as Files, ThreadingHTTPServer\n"
    "s = ThreadingHTTPServer(('127.0.0.1', 8000), Files)\n"
    "threading.Thread(target=s.serve_forever, daemon=True).start()\n"
    "open('/workspace/page.txt', 'w').write('hello')"
)


def make(client: Client, sandbox: str, port: int) -> dict[str, str]:
    body = {"port": port, "authMode": "token"}
    answer = client.insist("POST", f"/v1/sandboxes/{sandbox}/previews", body)
    assert answer.status_code == 201, answer.text
    return {**answer.json()["preview"], "token": answer.json()["previewToken"]}


def visit(server: Server, preview: dict[str, str], **headers: str) -> httpx.Response:
    host = preview["url"].removeprefix("http://")
    query = {"crownest_preview_token": preview["token"]} if not headers else {}
    return httpx.get(
        server.url + "/page.txt", params=query, headers={"host": host, **headers}, trust_env=False
    )


def minutes(server: Server) -> dict[str, int]:
    """Charged minutes of each preview; fails when one was charged twice."""
    with sqlite3.connect(f"file:{server.data_dir}/crownest.db?mode=ro", uri=True) as db:
        query = "SELECT resource_id, amount FROM usage_events WHERE metric = 'preview_minutes'"
        rows = db.execute(query).fetchall()
    assert len(dict(rows)) == len(rows), rows
    return dict(rows)


def test_a_killed_server_leaves_its_previews(start):
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, PROGRAM)
    opened, unopened = make(client, sandbox, 8000), make(client, sandbox, 8001)
    cookie = visit(server, opened).headers["set-cookie"].split(";")[0]
    assert visit(server, opened, cookie=cookie).text == "hello"

    kill(machine.pid("server"))
    client.insist("GET", "/v1/sandboxes")
    assert visit(server, opened, cookie=cookie).text == "hello", "the session is still good"
    assert visit(server, opened).status_code == 401, "the link is still used up"
    assert visit(server, unopened).status_code == 303, "the other one is not"
    path = f"/v1/sandboxes/{sandbox}/previews"
    listed = client.insist("GET", path).json()["data"]
    assert {p["id"] for p in listed} == {opened["id"], unopened["id"]}
    again = client.insist("POST", path, {"port": 8000}).json()["preview"]
    assert (again["id"], again["url"]) == (opened["id"], opened["url"])
    assert minutes(server) == {}
    client.destroy(sandbox)
    wait_for("charged minutes", lambda: minutes(server) == {opened["id"]: 1, unopened["id"]: 1})


def test_previews_of_a_sandbox_that_died_meanwhile_are_over_and_charged_once(start):
    server = start("--pool", "0")
    client, machine = Client(server), Machine(server)
    sandbox = client.create()
    client.run(sandbox, PROGRAM)
    preview = make(client, sandbox, 8000)
    cookie = visit(server, preview).headers["set-cookie"].split(";")[0]
    init = machine.init(key_of(sandbox))
    kill(machine.pid("server"))
    kill(init)
    client.insist("GET", "/v1/sandboxes")
    wait_for("the end", lambda: minutes(server) == {preview["id"]: 1})
    assert visit(server, preview, cookie=cookie).status_code == 401
    record = client.insist("GET", f"/v1/previews/{preview['id']}").json()["preview"]
    assert "expiresAt" in record and "revokedAt" not in record

    # Killed between the sandbox's end and the previews': as if it had been.
    with sqlite3.connect(server.data_dir / "crownest.db", timeout=30) as db:
        db.execute("UPDATE previews SET ended_at = NULL")
        db.execute("DELETE FROM usage_events WHERE metric = 'preview_minutes'")
    kill(machine.pid("server"))
    client.insist("GET", "/v1/sandboxes")
    wait_for("the end, again", lambda: minutes(server) == {preview["id"]: 1})
    assert client.insist("GET", f"/v1/previews/{preview['id']}").json()["preview"] == record
