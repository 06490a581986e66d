"""What is left of uploads and artifacts when the server is killed in the middle of them."""

from __future__ import annotations

import http.client
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from machine import kill, wait_for
from server import Server

MIB = 1024 * 1024


def connect(server: Server) -> httpx.Client:
    headers = {"authorization": f"Bearer {server.api_key}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False)


def new_sandbox(client: httpx.Client) -> str:
    return client.post("/v1/sandboxes", json={}).json()["sandbox"]["id"]


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def hidden(client: httpx.Client, sandbox: str) -> list[str]:
    listed = client.get(f"/v1/sandboxes/{sandbox}/files").json()["data"]
    return [entry["name"] for entry in listed if entry["name"].startswith(".crownest")]


def objects(server: Server) -> list[Path]:
    return [path for path in (server.data_dir / "objects").rglob("*") if path.is_file()]


def rows(server: Server) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(server.data_dir / "crownest.db")) as database:
        return database.execute("SELECT object_key, state FROM artifacts").fetchall()


def unsettled(server: Server) -> bool:
    return any(state in ("pending", "removing") for _, state in rows(server))


def test_half_an_upload_is_nothing(start):
    server = start()
    with connect(server) as client:
        sandbox = new_sandbox(client)
        body = {"path": "file", "content": "before"}
        assert client.put(f"/v1/sandboxes/{sandbox}/files", json=body).status_code == 200
        address = urlsplit(server.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        connection.putrequest("PUT", f"/v1/sandboxes/{sandbox}/files/upload?path=file")
        connection.putheader("authorization", f"Bearer {server.api_key}")
        connection.putheader("content-length", str(100 * MIB))
        connection.endheaders()
        connection.send(bytes(9 * MIB))
        wait_for("the upload has begun", lambda: hidden(client, sandbox))
        kill(server.children()["server"])
        wait_for("the server is back", lambda: ready(client))
        wait_for("nothing is left of the upload", lambda: not hidden(client, sandbox))
        query = {"path": "file"}
        got = client.get(f"/v1/sandboxes/{sandbox}/files/download", params=query)
        assert got.content == b"before"
        connection.close()


def test_artifacts_are_whole_or_gone(start):
    """Killed again and again while artifacts are made: what was answered is there, and there is
    no object without a row that leads to it."""
    server = start()
    promised: list[str] = []
    with connect(server) as client:
        sandbox = new_sandbox(client)
        run = {"language": "python", "code": "open('f','wb').write(b'x' * (24 << 20))"}
        assert client.post(f"/v1/sandboxes/{sandbox}/code/runs", json=run).status_code == 200

        def make() -> None:
            try:
                made = client.post(f"/v1/sandboxes/{sandbox}/artifacts", json={"path": "f"})
            except httpx.HTTPError:
                return
            if made.status_code == 201:
                promised.append(made.json()["artifact"]["id"])

        for _ in range(4):
            before = len(objects(server))
            threads = [threading.Thread(target=make) for _ in range(3)]
            for thread in threads:
                thread.start()
            wait_for("an object is being written", lambda: len(objects(server)) > before)
            kill(server.children()["server"])
            for thread in threads:
                thread.join()
            wait_for("the server is back", lambda: ready(client))
        wait_for("what was left behind is taken away", lambda: not unsettled(server))
        for artifact in promised:
            got = client.get(f"/v1/artifacts/{artifact}/download")
            assert (got.status_code, len(got.content)) == (200, 24 * MIB)
        stored = {key for key, state in rows(server) if state == "stored"}
        root = server.data_dir / "objects"
        assert {str(path.relative_to(root)) for path in objects(server)} == stored


def test_artifacts_outlive_the_server_and_end_at_their_time(start):
    server = start()
    with connect(server) as client:
        sandbox = new_sandbox(client)
        body = {"path": "file", "content": "kept"}
        client.put(f"/v1/sandboxes/{sandbox}/files", json=body)
        made = [
            client.post(f"/v1/sandboxes/{sandbox}/artifacts", json={"path": "file"}).json()
            for _ in range(2)
        ]
    kept, over = (answer["artifact"]["id"] for answer in made)
    assert server.stop() == 0
    with closing(sqlite3.connect(server.data_dir / "crownest.db")) as database, database:
        database.execute("UPDATE artifacts SET retention_expires_at = 1 WHERE id = ?", (over,))
    server.start()
    with connect(server) as client:
        assert client.get(f"/v1/artifacts/{kept}/download").content == b"kept"
        assert client.get(f"/v1/artifacts/{over}").status_code == 404
        wait_for("its object is gone", lambda: len(objects(server)) == 1)
