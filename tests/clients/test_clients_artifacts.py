"""Artifacts and large files with the official Python client, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import crownest
import httpx
import pytest

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def refused(call: Callable[[], Any], status: int, code: str) -> None:
    with pytest.raises(crownest.CrowNestApiError) as refusal:
        call()
    assert (refusal.value.status, refusal.value.code) == (status, code), refusal.value


def test_artifacts_of_a_sandbox(crow, sandbox):
    sandbox.files.write("out/report.csv", "a,b\n1,2\n", create_parents=True)
    artifact = sandbox.artifacts.create(path="out/report.csv", name="Bericht.csv")
    assert (artifact["name"], artifact["sizeBytes"]) == ("Bericht.csv", 8)
    assert artifact["sourcePath"] == "/workspace/out/report.csv"
    assert [a["id"] for a in sandbox.artifacts.list()] == [artifact["id"]]
    assert crow.artifacts.get(artifact["id"])["objectKey"] == artifact["objectKey"]
    assert crow.artifacts.download(artifact["id"]) == b"a,b\n1,2\n"

    second = crow.artifacts.create(sandbox.id, path="/workspace/out/report.csv")
    assert second["name"] == "report.csv"
    assert {a["id"] for a in crow.artifacts.list(sandbox.id)} == {artifact["id"], second["id"]}
    once = [
        crow.artifacts.create(sandbox.id, path="out/report.csv", idempotency_key=f"k{sandbox.id}")
        for _ in range(2)
    ]
    assert once[0]["id"] == once[1]["id"]

    url = crow.artifacts.download_url(artifact["id"])
    assert (url["authMode"], url["method"], dict(url["headers"])) == ("api_key", "GET", {})
    got = httpx.get(url["url"], headers=dict(url["headers"]), trust_env=False)
    assert (got.status_code, got.content) == (200, b"a,b\n1,2\n")

    assert crow.artifacts.delete(artifact["id"])["deletedAt"]
    refused(lambda: crow.artifacts.get(artifact["id"]), 404, "not_found")
    refused(lambda: crow.artifacts.download(artifact["id"]), 404, "not_found")
    refused(lambda: crow.artifacts.download_url(artifact["id"]), 404, "not_found")
    refused(lambda: crow.artifacts.delete(artifact["id"]), 404, "not_found")
    assert artifact["id"] not in {a["id"] for a in sandbox.artifacts.list()}


def test_artifacts_outlive_the_sandbox(crow):
    sandbox = crow.sandboxes.create()
    sandbox.files.write_bytes("raw", bytes(range(256)))
    artifact = sandbox.artifacts.create(path="raw")
    sandbox.kill()
    assert crow.artifacts.download(artifact["id"]) == bytes(range(256))
    assert len(crow.artifacts.list(sandbox.id)) == 1
    refused(lambda: crow.artifacts.create(sandbox.id, path="raw"), 410, "sandbox_destroyed")


def test_refusals(crow, sandbox):
    sandbox.files.mkdir("d")
    refused(lambda: sandbox.artifacts.create(path="none"), 404, "file_not_found")
    refused(lambda: sandbox.artifacts.create(path="d"), 400, "path_is_directory")
    refused(lambda: sandbox.artifacts.create(path="/etc/passwd"), 400, "path_outside_workspace")
    refused(lambda: crow.artifacts.list("sbx_nobody"), 404, "not_found")
    refused(lambda: crow.artifacts.delete("art_nobody"), 404, "not_found")


def test_plots_are_promoted(crow, sandbox):
    run = sandbox.code.run(PLOT, artifact_policy="promote")
    (png,) = [output for output in run["outputs"] if output["format"] == "png"]
    assert (png["kind"], png["contentType"]) == ("artifact", "image/png")
    assert crow.artifacts.download(png["artifactId"])[:4] == b"\x89PNG"
    assert len(crow.artifacts.download(png["artifactId"])) == png["sizeBytes"]


def test_large_files_are_read_through_a_url(crow, sandbox):
    sandbox.code.run("open('big', 'wb').write(b'0123456789' * 1_000_000)")
    refused(lambda: sandbox.files.read("big"), 413, "file_too_large")
    url = sandbox.files.download_url("big")
    assert (url["authMode"], url["method"]) == ("api_key", "GET") and url["expiresAt"]
    got = httpx.get(url["url"], trust_env=False)
    assert got.content == b"0123456789" * 1_000_000
    assert crow.files.download_url(sandbox.id, "big")["url"].startswith("http://")
    refused(lambda: sandbox.files.download_url("none"), 404, "file_not_found")
    refused(lambda: sandbox.files.download_url("."), 400, "path_is_directory")
    refused(lambda: sandbox.files.download_url("../x"), 400, "path_outside_workspace")
