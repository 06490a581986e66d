"""Keys made by a person at a dashboard of this machine: off unless asked for, and about keys
alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rest import connect, open_directory, refusal, until
from server import Server


@pytest.fixture(scope="module")
def local() -> Iterator[Server]:
    with open_directory() as directory:
        with Server(Path(directory) / "data", "--local-dashboard", "--pool", "0") as server:
            yield server


def person(server: Server, role: str = "owner", **changed: str) -> httpx.Client:
    headers = {
        "x-crownest-org-id": server.credentials["orgId"],
        "x-crownest-user-id": server.credentials["userId"],
        "x-crownest-role": role,
        **changed,
    }
    return httpx.Client(base_url=server.url, headers=headers, trust_env=False)


def test_without_the_option_the_headers_mean_nothing(server: Server):
    with person(server) as human:
        refusal(human.get("/v1/api-keys"), 401, "unauthorized")
        body = {"scopes": ["sandbox:read"]}
        refusal(human.post("/v1/api-keys", json=body), 401, "unauthorized")


def test_a_person_makes_lists_and_revokes_keys(local: Server):
    with person(local) as human:
        body = {"name": "CLI key", "scopes": ["project:create", "sandbox:read", "audit:read"]}
        made = human.post("/v1/api-keys", json=body)
        assert made.status_code == 201, made.text
        key, secret = made.json()["apiKey"], made.json()["secret"]
        assert secret.startswith(key["prefix"]) and secret.endswith(key["last4"])
        assert key["scopes"] == body["scopes"] and key["name"] == "CLI key"
        assert key["createdByUserId"] == local.credentials["userId"]
        assert key["id"] in {row["id"] for row in human.get("/v1/api-keys").json()["data"]}
        assert secret not in human.get("/v1/api-keys").text
        with connect(local, secret) as with_key:
            assert with_key.get("/v1/sandboxes").status_code == 200
            log = until(
                lambda: with_key.get(
                    "/v1/audit-events", params={"action": "api_key.create"}
                ).json()["data"],
                "the event",
            )
            user = local.credentials["userId"]
            assert [event["actor"] for event in log] == [{"kind": "human", "id": user}]
            assert human.delete(f"/v1/api-keys/{key['id']}").status_code == 200
            refusal(with_key.get("/v1/sandboxes"), 401, "invalid_api_key")


def test_a_key_of_one_project(local: Server):
    with person(local) as human:
        project = local.credentials["projectId"]
        body = {"scopes": ["sandbox:read"], "projectIds": [project]}
        made = human.post("/v1/api-keys", json=body).json()
        assert made["apiKey"]["projectIds"] == [project]
        body["projectIds"] = ["prj_0123456789abcdef"]
        refusal(human.post("/v1/api-keys", json=body), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [{}, {"scopes": []}, {"scopes": ["all"]}, {"scopes": ["sandbox:read"], "name": ""}],
)
def test_a_key_that_makes_no_sense_is_refused(local: Server, body: dict):
    with person(local) as human:
        refusal(human.post("/v1/api-keys", json=body), 400, "invalid_request")


def test_whoever_is_no_owner_is_refused(local: Server):
    body = {"scopes": ["sandbox:read"]}
    with person(local, role="member") as member:
        refusal(member.post("/v1/api-keys", json=body), 403, "forbidden")
    with person(local, **{"x-crownest-user-id": "usr_0123456789abcdef"}) as nobody:
        refusal(nobody.post("/v1/api-keys", json=body), 401, "unauthorized")
    with person(local) as human:
        refusal(human.get("/v1/sandboxes"), 401, "unauthorized")
        refusal(human.get("/v1/usage"), 401, "unauthorized")


def test_a_key_still_cannot_make_keys(local: Server):
    with connect(local) as client:
        body = {"scopes": ["sandbox:read"]}
        refusal(client.post("/v1/api-keys", json=body), 403, "forbidden")
        # The headers of a person do not help it.
        headers = {
            "x-crownest-org-id": local.credentials["orgId"],
            "x-crownest-user-id": local.credentials["userId"],
            "x-crownest-role": "owner",
        }
        refusal(client.post("/v1/api-keys", json=body, headers=headers), 403, "forbidden")
