"""Artifacts: files that outlive their sandbox, made by hand and from what runs display."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rest import Sandbox, connect, new_key, new_organization, refusal, until, usage_of
from server import Server

MIB = 1024 * 1024
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


@pytest.fixture(scope="module")
def shared(client):
    """For tests that use names of their own and break nothing."""
    sandbox = Sandbox.create(client)
    yield sandbox
    sandbox.kill()


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


def create(sandbox: Sandbox, path: str, headers=None, **fields: str) -> httpx.Response:
    body = {"path": path, **fields}
    return sandbox.client.post(f"{sandbox.path}/artifacts", json=body, headers=headers)


def made(sandbox: Sandbox, path: str, **fields: str) -> dict:
    response = create(sandbox, path, **fields)
    assert response.status_code == 201, response.text
    return response.json()["artifact"]


def object_path(server: Server, artifact: dict) -> Path:
    return server.data_dir / "objects" / artifact["objectKey"]


def test_an_artifact_is_what_the_contract_says(shared, client, stranger, server):
    shared.write("out/report.html", "<h1>Grüße</h1>", createParents=True)
    artifact = made(shared, "out/report.html")
    content = "<h1>Grüße</h1>".encode()
    assert artifact["id"].startswith("art_")
    assert artifact["orgId"] == shared.record["orgId"]
    assert artifact["projectId"] == shared.record["projectId"]
    assert artifact["sandboxId"] == shared.id
    assert (artifact["name"], artifact["sizeBytes"]) == ("report.html", len(content))
    assert artifact["sourcePath"] == "/workspace/out/report.html"
    assert artifact["contentType"] == "text/html; charset=utf-8"
    assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
    key = f"orgs/{artifact['orgId']}/projects/{artifact['projectId']}/objects/{artifact['id']}"
    assert artifact["objectKey"] == key
    assert artifact["retentionExpiresAt"] > artifact["createdAt"] and "deletedAt" not in artifact
    assert object_path(server, artifact).read_bytes() == content

    route = f"/v1/artifacts/{artifact['id']}"
    assert client.get(route).json() == {"artifact": artifact}
    listed = client.get(f"{shared.path}/artifacts").json()
    assert artifact in listed["data"] and listed["hasMore"] is False

    url = client.post(f"{route}/download-url")
    assert url.status_code == 200, url.text
    assert (url.json()["authMode"], url.json()["method"]) == ("api_key", "GET")
    assert url.json()["headers"] == {} and url.json()["expiresAt"].endswith("Z")
    for got in (client.get(f"{route}/download"), stranger.get(url.json()["url"])):
        assert (got.status_code, got.content) == (200, content)
        # Saved and never run in the name of this server.
        assert got.headers["content-type"] == "text/html; charset=utf-8"
        assert got.headers["content-disposition"].startswith("attachment;")
        assert got.headers["content-security-policy"].startswith("sandbox")
        assert got.headers["x-content-type-options"] == "nosniff"
    part = client.get(f"{route}/download", headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, b"h1")
    assert part.headers["content-range"] == f"bytes 1-2/{len(content)}"
    far = client.get(f"{route}/download", headers={"range": "bytes=99-"})
    refusal(far, 416, "range_not_satisfiable")
    refusal(stranger.get(f"{route}/download"), 401, "unauthorized")


def test_large_and_empty_artifacts(shared, client):
    shared.out("import os; open('large', 'wb').write(os.urandom(1 << 20) * 25 + b'end')")
    shared.out("open('empty', 'w').close()")
    large, empty = made(shared, "large"), made(shared, "empty", name="Nichts.csv")
    got = client.get(f"/v1/artifacts/{large['id']}/download")
    assert len(got.content) == 25 * MIB + 3 == large["sizeBytes"]
    assert hashlib.sha256(got.content).hexdigest() == large["sha256"]
    tail = client.get(f"/v1/artifacts/{large['id']}/download", headers={"range": "bytes=-3"})
    assert tail.content == b"end"
    assert (empty["sizeBytes"], empty["name"]) == (0, "Nichts.csv")
    assert empty["contentType"] == "text/csv; charset=utf-8"
    assert client.get(f"/v1/artifacts/{empty['id']}/download").content == b""


def test_artifacts_outlive_their_sandbox(client):
    sandbox = Sandbox.create(client)
    sandbox.write("kept.txt", "kept")
    artifact = made(sandbox, "kept.txt")
    sandbox.kill()
    assert client.get(f"/v1/artifacts/{artifact['id']}").status_code == 200
    assert client.get(f"/v1/artifacts/{artifact['id']}/download").content == b"kept"
    assert client.get(f"{sandbox.path}/artifacts").json()["data"] == [artifact]
    refusal(create(sandbox, "kept.txt"), 410, "sandbox_destroyed")


def test_a_deleted_artifact_is_gone(shared, client, stranger, server):
    shared.write("gone.txt", "x")
    artifact = made(shared, "gone.txt")
    route = f"/v1/artifacts/{artifact['id']}"
    url = client.post(f"{route}/download-url").json()["url"]
    deleted = client.delete(route)
    assert deleted.status_code == 200, deleted.text
    assert deleted.json()["artifact"]["deletedAt"].endswith("Z")
    assert not object_path(server, artifact).exists()
    for response in (
        client.get(route),
        client.delete(route),
        client.get(f"{route}/download"),
        client.post(f"{route}/download-url"),
        stranger.get(url),
    ):
        refusal(response, 404, "not_found")
    assert artifact not in client.get(f"{shared.path}/artifacts").json()["data"]


def test_refusals(shared, client):
    shared.command("mkdir -p folder; ln -sfn /etc/passwd leak; mkfifo fifo 2>/dev/null; true")
    refusal(create(shared, "nothing"), 404, "file_not_found")
    refusal(create(shared, "folder"), 400, "path_is_directory")
    refusal(create(shared, "."), 400, "path_is_directory")
    refusal(create(shared, "leak"), 400, "path_outside_workspace")
    refusal(create(shared, "/etc/passwd"), 400, "path_outside_workspace")
    refusal(create(shared, "fifo"), 400, "invalid_request")
    shared.write("file", "x")
    for name in ("", "  ", "a\nb", "x" * 256):
        refusal(create(shared, "file", name=name), 400, "invalid_request")
    refusal(client.post(f"{shared.path}/artifacts", json={}), 400, "invalid_request")
    for unknown in ("art_nobody", "nonsense", "sbx_1"):
        refusal(client.get(f"/v1/artifacts/{unknown}"), 404, "not_found")
    refusal(client.get("/v1/sandboxes/sbx_nobody/artifacts"), 404, "not_found")
    refusal(client.get(f"{shared.path}/artifacts", params={"limit": 0}), 400, "invalid_request")


def test_scopes_and_tenants(shared, client, server):
    shared.write("mine", "x")
    artifact = made(shared, "mine")
    route = f"/v1/artifacts/{artifact['id']}"
    org = shared.record["orgId"]

    def key(*scopes: str, org: str = org) -> httpx.Client:
        return connect(server, new_key(server, org, *scopes))

    with key("artifact:read") as reader, key("artifact:create") as creator:
        body = {"path": "mine"}
        assert reader.get(route).status_code == 200
        refusal(reader.delete(route), 403, "forbidden")
        refusal(reader.post(f"{shared.path}/artifacts", json=body), 403, "forbidden")
        refusal(creator.get(route), 403, "forbidden")
        # What is kept can be read: that takes the right to read files as well.
        refusal(creator.post(f"{shared.path}/artifacts", json=body), 403, "forbidden")
    with key("artifact:create", "file:read") as creator:
        assert creator.post(f"{shared.path}/artifacts", json=body).status_code == 201
    other = new_organization(server, "artifact-strangers")
    with connect(server, new_key(server, other.id)) as stranger:
        for response in (
            stranger.get(route),
            stranger.delete(route),
            stranger.get(f"{route}/download"),
            stranger.post(f"{route}/download-url"),
            stranger.get(f"{shared.path}/artifacts"),
        ):
            refusal(response, 404, "not_found")
    project = client.post("/v1/projects", json={"name": "elsewhere"}).json()["project"]["id"]
    with connect(server, new_key(server, org, projects=(project,))) as elsewhere:
        refusal(elsewhere.get(route), 404, "not_found")
        refusal(elsewhere.get(f"{shared.path}/artifacts"), 404, "not_found")


def test_the_same_key_makes_one_artifact(shared):
    shared.write("once", "x")
    headers = {"idempotency-key": os.urandom(8).hex()}
    first, second = (create(shared, "once", headers) for _ in range(2))
    assert first.status_code == 201 and first.json() == second.json()
    refusal(create(shared, "other", headers), 409, "idempotency_key_reused")


def test_lists_are_paged(make, client):
    sandbox = make()
    sandbox.write("file", "x")
    ids = [made(sandbox, "file", name=f"n{n}")["id"] for n in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"{sandbox.path}/artifacts", params=query).json()
        seen += [artifact["id"] for artifact in page["data"]]
        if not page["hasMore"]:
            break
        cursor = page["nextCursor"]
    assert seen == ids[::-1]


def test_a_file_that_changes_meanwhile_is_whole_or_refused(sandbox: Sandbox, client):
    """Code truncates and writes the file as fast as it can."""
    sandbox.out("open('f', 'wb').write(b'a' * (8 << 20))")
    code = (
        "import os\nwhile not os.path.exists('halt'):\n"
        "    with open('f', 'wb') as f: f.write(b'b' * (8 << 20))\n"
    )
    import threading

    thread = threading.Thread(target=lambda: sandbox.run(code, timeoutMs=60_000))
    thread.start()
    try:
        for _ in range(15):
            response = create(sandbox, "f")
            if response.status_code == 201:
                artifact = response.json()["artifact"]
                got = client.get(f"/v1/artifacts/{artifact['id']}/download").content
                assert len(got) == artifact["sizeBytes"]
            else:
                refusal(response, 409, "upload_conflict")
    finally:
        sandbox.signal("halt")
        thread.join()


def test_stored_bytes_are_counted(make, server):
    sandbox = make()
    sandbox.write("file", "x" * 500)
    made(sandbox, "file")
    used = usage_of(server, sandbox.id, "artifact_bytes_stored")
    until(lambda: used() == 500, "the usage is written")


# -- what runs display


def of_format(run: dict, format: str) -> dict:
    (output,) = [output for output in run["outputs"] if output["format"] == format]
    return output


def test_a_plot_becomes_an_artifact(shared, client):
    run = shared.run(PLOT, artifactPolicy="promote")
    output = of_format(run, "png")
    assert (output["kind"], output["contentType"]) == ("artifact", "image/png")
    got = client.get(f"/v1/artifacts/{output['artifactId']}/download")
    assert got.content[:8] == b"\x89PNG\r\n\x1a\n" and len(got.content) == output["sizeBytes"]
    artifact = client.get(f"/v1/artifacts/{output['artifactId']}").json()["artifact"]
    assert artifact["name"].endswith(".png") and "sourcePath" not in artifact
    assert artifact["sandboxId"] == shared.id
    plain = of_format(shared.run(PLOT), "png")
    assert (plain["kind"], plain["reason"]) == ("rejected", "requires_artifact_promotion")


def test_active_content_and_large_data_are_promoted(shared, client):
    code = (
        "from IPython.display import HTML, SVG, JSON, display\n"
        "display(HTML('<script>1</script>'), SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\n"
        "display(JSON({'rows': list(range(400_000))}), JSON({'small': 1}))"
    )
    run = shared.run(code, artifactPolicy="promote")
    html, svg = of_format(run, "html"), of_format(run, "svg")
    assert html["kind"] == svg["kind"] == "artifact"
    got = client.get(f"/v1/artifacts/{html['artifactId']}/download")
    assert got.text == "<script>1</script>"
    assert got.headers["content-disposition"].startswith("attachment;")
    assert got.headers["content-security-policy"].startswith("sandbox")
    kinds = sorted(output["kind"] for output in run["outputs"] if output["format"] == "json")
    assert kinds == ["artifact", "inline"]
    (large,) = [o for o in run["outputs"] if o["format"] == "json" and o["kind"] == "artifact"]
    stored = client.get(f"/v1/artifacts/{large['artifactId']}/download").json()
    assert len(stored["rows"]) == 400_000


def test_a_stream_shows_the_same_artifact_as_its_end(shared, client):
    events = shared.stream(PLOT, artifactPolicy="promote")
    shown = [e["data"] for e in events if e["type"] == "output" and e["data"]["format"] == "png"]
    assert [output["kind"] for output in shown] == ["artifact"]
    complete = events[-1]
    assert complete["type"] == "complete"
    assert of_format(complete["data"], "png")["artifactId"] == shown[0]["artifactId"]
    assert client.get(f"/v1/artifacts/{shown[0]['artifactId']}").status_code == 200


def test_an_update_leaves_one_artifact_in_the_answer(shared, client):
    code = (
        "from IPython.display import HTML, display\n"
        "handle = display(HTML('<b>1</b>'), display_id='d')\n"
        "for n in range(2, 6): handle.update(HTML(f'<b>{n}</b>'))"
    )
    before = len(client.get(f"{shared.path}/artifacts", params={"limit": 500}).json()["data"])
    run = shared.run(code, artifactPolicy="promote")
    output = of_format(run, "html")
    assert client.get(f"/v1/artifacts/{output['artifactId']}/download").text == "<b>5</b>"
    after = len(client.get(f"{shared.path}/artifacts", params={"limit": 500}).json()["data"])
    assert after == before + 1, "what was replaced before the answer is not kept"


def test_promotion_takes_the_scope(shared, server):
    key = new_key(server, shared.record["orgId"], "code:run")
    with connect(server, key) as client:
        run = Sandbox(client, shared.record).run(PLOT, artifactPolicy="promote")
    output = of_format(run, "png")
    assert (output["kind"], output["reason"]) == ("rejected", "artifact_scope_required")


def test_every_deed_is_on_record(shared, server):
    shared.write("recorded", "x")
    artifact = made(shared, "recorded")
    shared.client.get(f"/v1/artifacts/{artifact['id']}/download")
    shared.client.delete(f"/v1/artifacts/{artifact['id']}")

    def actions() -> set[str]:
        database = sqlite3.connect(f"file:{server.data_dir}/crownest.db?mode=ro", uri=True)
        rows = database.execute(
            "SELECT action FROM audit_events WHERE resource_id = ?", (artifact["id"],)
        )
        return {action for (action,) in rows}

    wanted = {"artifact.create", "artifact.download", "artifact.delete"}
    until(lambda: actions() >= wanted, "the deeds are on record")
