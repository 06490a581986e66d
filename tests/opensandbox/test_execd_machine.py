"""What execd tells of a sandbox as a machine, and what it does not have."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from execd import Execd, Running, refused
from rest import new_key, revoke_key
from server import Server


@pytest.fixture(scope="module")
def execd(server: Server) -> Iterator[Execd]:
    execd = Execd(server)
    yield execd
    execd.close()


FIELDS = {"cpu_count", "cpu_used_pct", "mem_total_mib", "mem_used_mib", "timestamp"}


def check(sample: dict) -> None:
    assert set(sample) == FIELDS
    assert sample["cpu_count"] > 0 and 0 <= sample["cpu_used_pct"] <= 100
    assert 0 < sample["mem_used_mib"] < sample["mem_total_mib"]
    assert abs(sample["timestamp"] / 1000 - time.time()) < 60


def test_metrics_come_at_once_and_follow_the_load(execd: Execd) -> None:
    began = time.monotonic()
    first = execd.client.get("/metrics").json()
    assert time.monotonic() - began < 0.5
    check(first)
    # Seconds of processor time, which take as long as the machine lets them.
    spin = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass"
    execd.code(f"kept = bytearray(200 << 20)\n{spin}")
    seconds = time.monotonic() - began
    second = execd.client.get("/metrics").json()
    check(second)
    assert second["mem_used_mib"] > first["mem_used_mib"] + 150
    assert second["cpu_used_pct"] > 0.5 * 100 / (seconds * second["cpu_count"])


def test_each_second_brings_a_line(execd: Execd) -> None:
    with execd.client.stream("GET", "/metrics/watch") as response:
        assert response.status_code == 200
        chunks = response.iter_raw()
        held = b""
        while held.count(b"\n") < 3:
            held += next(chunks)
    lines = held.splitlines()[:3]
    samples = [json.loads(line) for line in lines]
    assert b"\n\n" not in held
    for sample in samples:
        check(sample)
    assert 1_500 < samples[2]["timestamp"] - samples[0]["timestamp"] < 3_500


def test_watching_ends_with_its_sandbox(server: Server) -> None:
    execd = Execd(server)
    with execd.client.stream("GET", "/metrics/watch") as response:
        chunks = response.iter_raw()
        next(chunks)
        execd.ours.delete(f"/v1/sandboxes/{execd.id}")
        began = time.monotonic()
        assert list(chunks) is not None
    assert time.monotonic() - began < 10
    execd.close()


def test_a_watch_ends_with_its_key(server: Server, execd: Execd) -> None:
    key = new_key(server, server.credentials["orgId"])
    headers = {"OPEN-SANDBOX-API-KEY": key}
    with execd.client.stream("GET", "/metrics/watch", headers=headers) as response:
        chunks = response.iter_raw()
        check(json.loads(next(chunks)))
        revoke_key(execd.ours, key)
        assert sum(map(len, chunks)) < 16 << 10, "ends"
    refused(execd.client.get("/metrics", headers=headers), 401, "invalid_api_key")


def test_streams_end_with_their_sandbox(server: Server) -> None:
    execd = Execd(server)
    bodies = [
        ("/command", {"command": "echo on; sleep 100"}),
        (
            "/code",
            {
                "code": "print('on', flush=True)\nimport time; time.sleep(100)",
                "context": {"language": "python"},
            },
        ),
    ]
    running = [Running(execd, path, body) for path, body in bodies]
    assert all(one.printed.wait(30) for one in running)
    execd.ours.delete(f"/v1/sandboxes/{execd.id}")
    for one in running:
        assert one.end(20)[-1].get("type") in ("error", None)
    execd.close()


def test_what_there_is_not_is_said(execd: Execd) -> None:
    for method, path in (
        ("GET", "sessions"),
        ("POST", "session"),
        ("GET", "session/x"),
        ("DELETE", "session/x"),
        ("POST", "session/x/run"),
        ("GET", "session/x/runs/y/logs"),
        ("POST", "session/x/files/upload"),
        ("GET", "session/x/diff"),
        ("POST", "session/x/commit"),
    ):
        answer = execd.client.request(method, f"/v1/isolated/{path}")
        refused(answer, 501, "NOT_SUPPORTED")
    # Clients ask this one in order to decide.
    able = execd.client.get("/v1/isolated/capabilities")
    assert able.status_code == 200 and able.json()["available"] is False


def test_a_key_is_needed(server: Server, execd: Execd) -> None:
    for path in ("/code", "/command", "/session"):
        answer = execd.client.post(path, json={}, headers={"OPEN-SANDBOX-API-KEY": "wrong"})
        assert answer.status_code == 401, path
