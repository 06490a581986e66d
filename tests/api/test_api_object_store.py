"""The object store over S3: the same API against a server that checks every signature."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from gateway import BUCKET, ENVIRONMENT, Gateway, opened_gateway, options
from rest import Sandbox, connect, open_directory, refusal, until
from server import Server

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with opened_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def remote(gateway: Gateway) -> Iterator[Server]:
    """A server that keeps its objects there."""
    with open_directory() as directory:
        with Server(directory / "data", *options(gateway.url), env=ENVIRONMENT) as server:
            yield server


@pytest.fixture(scope="module")
def sandbox(remote: Server) -> Iterator[Sandbox]:
    with connect(remote) as client:
        sandbox = Sandbox.create(client)
        yield sandbox
        sandbox.kill()


def create(sandbox: Sandbox, path: str) -> httpx.Response:
    return sandbox.client.post(f"{sandbox.path}/artifacts", json={"path": path})


def put(sandbox: Sandbox, path: str, content: bytes) -> None:
    query = {"path": path}
    sent = sandbox.client.put(f"{sandbox.path}/files/upload", params=query, content=content)
    assert sent.status_code == 200, sent.text


@pytest.mark.parametrize("size", [0, 5, 8 * MIB, 30 * MIB + 7])
def test_artifacts_are_stored_read_in_parts_and_deleted(sandbox, remote, gateway, size):
    content = os.urandom(size)
    put(sandbox, f"file-{size}", content)
    made = create(sandbox, f"file-{size}")
    assert made.status_code == 201, made.text
    artifact = made.json()["artifact"]
    route = f"/v1/artifacts/{artifact['id']}"
    kept = gateway.directory / BUCKET / artifact["objectKey"]
    assert kept.stat().st_size == size == artifact["sizeBytes"]
    assert sandbox.client.get(f"{route}/download").content == content
    if size:
        part = sandbox.client.get(f"{route}/download", headers={"range": "bytes=1-4"})
        assert (part.status_code, part.content) == (206, content[1:5])
        assert part.headers["content-range"] == f"bytes 1-4/{size}"
    assert sandbox.client.delete(route).status_code == 200
    assert not kept.exists()
    refusal(sandbox.client.get(f"{route}/download"), 404, "not_found")
    assert not (remote.data_dir / "objects").exists(), "nothing is kept on this machine"


def test_what_runs_display_goes_there_too(sandbox, gateway):
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    run = sandbox.run(code, artifactPolicy="promote")
    (output,) = [o for o in run["outputs"] if o["format"] == "png"]
    assert output["kind"] == "artifact"
    assert any(path.name == output["artifactId"] for path in gateway.objects())


def test_an_object_that_is_lost_is_said(sandbox, gateway):
    put(sandbox, "lost", b"x")
    artifact = create(sandbox, "lost").json()["artifact"]
    (gateway.directory / BUCKET / artifact["objectKey"]).unlink()
    lost = sandbox.client.get(f"/v1/artifacts/{artifact['id']}/download")
    refusal(lost, 500, "download_export_failed")


def test_a_server_that_is_away_is_503_and_leaves_nothing(sandbox, gateway):
    put(sandbox, "file", b"content")
    kept = create(sandbox, "file").json()["artifact"]
    before = len(gateway.objects())
    gateway.stop()
    try:
        away = create(sandbox, "file")
        error = refusal(away, 503, "unavailable")
        assert "object store" in error["message"] and "retry-after" in away.headers
        refusal(
            sandbox.client.get(f"/v1/artifacts/{kept['id']}/download"),
            503,
            "unavailable",
        )
        assert sandbox.value("1+1") == "2", "runs do not need it"
        assert sandbox.client.delete(f"/v1/artifacts/{kept['id']}").status_code == 200
    finally:
        gateway.start()
    assert create(sandbox, "file").status_code == 201
    # What was deleted meanwhile is taken away by the next sweep.
    until(
        lambda: len(gateway.objects()) == before,
        "the object of the deleted one is gone",
        90,
    )


def test_a_wrong_secret_is_said_at_the_start_and_never_printed(gateway):
    wrong = "another secret that must not be seen"
    with open_directory() as directory:
        server = Server(
            directory / "data",
            *options(gateway.url),
            env={"CROWNEST_S3_SECRET_ACCESS_KEY": wrong},
        )
        with pytest.raises(RuntimeError) as failure:
            server.start()
        log = server.log.read_text()
        assert "object store refuses access" in log, log
        assert wrong not in log and wrong not in str(failure.value)


def test_half_a_configuration_is_refused(gateway):
    for arguments in (
        ["--s3-bucket", BUCKET],
        ["--s3-endpoint", gateway.url],
        ["--s3-bucket", BUCKET, "--s3-endpoint", "ftp://x", "--s3-access-key-id", "a"],
        ["--s3-bucket", BUCKET, "--objects-dir", "/tmp/x"],
    ):
        with open_directory() as directory:
            server = Server(directory / "data", *arguments)
            with pytest.raises(RuntimeError):
                server.start()
            assert "s3" in server.log.read_text()
