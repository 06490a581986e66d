"""Plans, quotas, rates and what is charged for."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from rest import (
    Json,
    Organization,
    Sandbox,
    admin,
    connect,
    new_key,
    new_organization,
    open_directory,
    refusal,
    until,
)
from server import Server

HOUR_MS = 3_600_000


@pytest.fixture
def organization(server: Server) -> Callable[[str], tuple[Organization, httpx.Client]]:
    """Makes organizations with a plan, and a client of each."""
    clients: list[httpx.Client] = []

    def make(plan: str) -> tuple[Organization, httpx.Client]:
        made = new_organization(server, plan)
        admin(server, "org", "plan", made.id, plan)
        clients.append(connect(server, new_key(server, made.id)))
        return made, clients[-1]

    yield make
    for client in clients:
        client.close()


def usage(client: httpx.Client, **query: str) -> Json:
    response = client.get("/v1/usage", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_self_hosted_server_has_no_limits_of_its_own(client: httpx.Client):
    got = usage(client)
    assert (got["plan"], got["pricingVersion"], got["currencyPerCredit"]) == (
        "self-hosted",
        "self-hosted-1",
        0,
    )
    assert "concurrent_sandboxes" not in got["quotas"]
    assert "remaining" not in got["credits"]
    assert "x-ratelimit-limit" not in client.get("/v1/usage").headers


def test_the_free_plan_is_the_table_of_the_contract(organization):
    _, client = organization("free")
    refusal(client.post("/v1/sandboxes", json={"ttlMs": HOUR_MS + 1}), 400, "sandbox_ttl_exceeded")
    first, second = Sandbox.create(client), Sandbox.create(client)
    refused = refusal(client.post("/v1/sandboxes", json={}), 429, "quota_exceeded")
    assert refused["details"] == {"limit": 2}
    got = usage(client)
    assert got["quotas"]["concurrent_sandboxes"] == {"limit": 2, "current": 2, "remaining": 0}
    assert got["quotas"]["artifact_retention_days"] == {"limit": 7}
    assert got["currencyPerCredit"] == 0.12 and got["computeUnitSecondsPerCredit"] == 3600
    left = got["credits"]["remaining"]
    assert 83.3 < left < 10 / 0.12
    longer = client.post(f"{first.path}/ttl", json={"ttlMs": HOUR_MS + 1})
    refusal(longer, 400, "sandbox_ttl_exceeded")
    first.kill()
    third = Sandbox.create(client)
    for sandbox in (second, third):
        sandbox.kill()


def test_a_builder_extends_for_a_day(organization):
    _, client = organization("builder")
    sandbox = Sandbox.create(client)
    extended = client.post(f"{sandbox.path}/ttl", json={"ttlMs": 23 * HOUR_MS})
    assert extended.status_code == 200, extended.text
    too_long = client.post(f"{sandbox.path}/ttl", json={"ttlMs": 25 * HOUR_MS})
    refusal(too_long, 400, "sandbox_ttl_exceeded")
    sandbox.kill()


def test_a_plan_that_does_not_exist_is_refused(server: Server):
    made = new_organization(server, "none")
    with pytest.raises(AssertionError, match="no such plan"):
        admin(server, "org", "plan", made.id, "gold")


def test_a_free_plan_ends_with_its_credit(server: Server, organization):
    tenant, client = organization("free")
    hours = 84  # of 83.3 that ten dollars buy
    with closing(sqlite3.connect(server.data_dir / "crownest.db", timeout=30)) as database:
        spent = (f"aud_{tenant.id}", tenant.id, hours * HOUR_MS, int(time.time() * 1e6))
        database.execute(
            "INSERT INTO usage_events (id, org_id, metric, amount, created_at) "
            "VALUES (?, ?, 'compute_unit_milliseconds', ?, ?)",
            spent,
        )
        database.commit()
    refused = refusal(client.post("/v1/sandboxes", json={}), 402, "credit_exhausted")
    assert refused["details"] == {"plan": "free"}
    assert usage(client)["credits"] == {"used": 84, "remaining": 0}
    # The other plans go on and pay.
    admin(server, "org", "plan", tenant.id, "scale")
    with connect(server, new_key(server, tenant.id)) as paying:
        Sandbox.create(paying).kill()
        assert usage(paying)["plan"] == "scale"


def test_time_is_charged_from_ready_to_the_end(organization):
    _, client = organization("builder")
    began = time.monotonic()
    sandbox = Sandbox.create(client)
    sandbox.value("1+1")
    until(lambda: usage(client)["computeUnitSeconds"]["used"] > 0.2, "time to pass")
    sandbox.kill()
    most = time.monotonic() - began
    used = usage(client)["computeUnitSeconds"]["used"]
    assert 0.2 < used <= most
    assert usage(client)["computeUnitSeconds"]["used"] == used, "the end is the end"

    events = until(
        lambda: [e for e in usage(client, include="events")["events"]],
        "usage events",
    )
    by_metric = {event["metric"]: event for event in events}
    assert by_metric["compute_unit_seconds"]["amount"] == pytest.approx(used, abs=0.002)
    assert by_metric["compute_unit_seconds"]["resourceId"] == sandbox.id
    assert by_metric["sandbox_creates"]["amount"] == 1

    def runs() -> list[Json]:
        found = usage(client, include="events")["events"]
        return [e for e in found if e["metric"] == "code_run_invocations"]

    (run,) = until(runs, "the run to be counted")
    assert run["amount"] == 1 and run["resourceId"] == sandbox.id
    refusal(client.get("/v1/usage", params={"include": "all"}), 400, "invalid_request")


@pytest.fixture(scope="module")
def counting() -> Iterator[Server]:
    """A server that counts requests."""
    with open_directory() as directory:
        limit = ("--requests-per-minute-max", "20", "--pool", "0")
        with Server(Path(directory) / "data", *limit) as server:
            yield server


def test_too_many_requests_are_told_when_to_come_back(counting: Server):
    key = new_key(counting, counting.credentials["orgId"])
    with connect(counting, key) as client:
        answers = [client.get("/v1/projects") for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
        assert left == list(range(19, -1, -1))
        assert answers[0].headers["x-ratelimit-limit"] == "20"
        assert 0 < int(answers[0].headers["x-ratelimit-reset"]) <= 60
        refused = client.get("/v1/projects")
        error = refusal(refused, 429, "rate_limited")
        assert 0 < error["details"]["retryAfterMs"] <= 60_000
        assert error["retryAfterMs"] == error["details"]["retryAfterMs"] and error["retryable"]
        assert 0 < int(refused.headers["retry-after"]) <= 60
        # Probes are nobody's requests, and another key has its own count.
        assert client.get("/healthz").status_code == 200
    with connect(counting) as other:
        assert other.get("/v1/projects").status_code == 200
