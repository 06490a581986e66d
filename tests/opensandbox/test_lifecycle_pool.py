"""A sandbox with less processor time than those of the pool comes from the pool, and has that much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from lifecycle_api import Sandbox, body, connect, rest
from server import Server, missing

PERIOD_US = 100_000


@pytest.fixture(scope="module")
def pooling() -> Iterator[Server]:
    if reason := missing():
        pytest.skip(reason)
    with (
        rest.open_directory() as directory,
        Server(directory / "data", "--pool", "1", "--default-template", "python") as server,
    ):
        yield server


def metric(server: Server, name: str) -> float:
    lines = httpx.get(server.url + "/metrics", trust_env=False).text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def quota_us(sandbox: Sandbox) -> int:
    """What the kernel holds it to, of each period."""
    name = f"{sandbox.id.removeprefix('sbx_')}.*"
    (group,) = [*Path("/sys/fs/cgroup").glob(f"cpu/crownest-*/{name}")] or [
        *Path("/sys/fs/cgroup").glob(f"crownest-*/{name}")
    ]
    quota = group / "cpu.cfs_quota_us"
    return int(quota.read_text() if quota.exists() else (group / "cpu.max").read_text().split()[0])


@pytest.mark.parametrize(
    ("limits", "pooled", "quota"),
    [
        # What the clients ask for when nobody tells them otherwise.
        ({"cpu": "1", "memory": "2Gi"}, True, PERIOD_US),
        ({"cpu": "250m", "memory": "2Gi"}, True, PERIOD_US // 4),
        ({"cpu": "2"}, True, 2 * PERIOD_US),
        ({"cpu": "1", "memory": "1Gi"}, False, PERIOD_US),
        ({"cpu": "1", "pids": "200"}, False, PERIOD_US),
    ],
)
def test_less_processor_time_comes_from_the_pool(
    pooling: Server, limits: dict[str, str], pooled: bool, quota: int
) -> None:
    rest.until(lambda: metric(pooling, "crownest_pool_complete") >= 1, "an entry of the pool")
    hits = metric(pooling, "crownest_pool_hits_total")
    with connect(pooling) as client:
        made = client.post("/sandboxes", json=body(resourceLimits=limits))
        assert made.status_code == 202, made.text
        sandbox = Sandbox(client, made.json())
        assert metric(pooling, "crownest_pool_hits_total") - hits == pooled
        assert quota_us(sandbox) == quota
        with sandbox.at(44772) as execd:
            run = execd.post("/code", json={"code": "1 + 1", "context": {"language": "python"}})
            assert '"text":"2"' in run.text
        sandbox.kill()
