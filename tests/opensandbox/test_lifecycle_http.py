"""The lifecycle API: sandboxes come, change and go, and are the same sandboxes as those of /v1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from lifecycle_api import ARCH, Sandbox, body, connect, refused, rest
from server import Server

EXECD = 44772


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[httpx.Client]:
    with connect(server) as client:
        yield client


@pytest.fixture(scope="module")
def v1(server: Server) -> Iterator[httpx.Client]:
    with rest.connect(server) as client:
        yield client


@pytest.fixture
def make(api: httpx.Client) -> Iterator[Callable[..., Sandbox]]:
    made: list[Sandbox] = []

    def create(**fields: Any) -> Sandbox:
        response = api.post("/sandboxes", json=body(**fields))
        assert response.status_code == 202, response.text
        made.append(Sandbox(api, response.json()))
        return made[-1]

    yield create
    for sandbox in made:
        sandbox.kill()


def when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def shell(v1: httpx.Client, sandbox: Sandbox, command: str) -> str:
    """What a command of /v1 prints in a sandbox."""
    return sandbox.v1(v1).command(command)["stdout"]


def test_what_is_made_is_accepted_found_and_ended(api: httpx.Client) -> None:
    asked = body(
        metadata={"team": "t1"},
        platform={"os": "linux", "arch": ARCH},
        extensions={"mine.example/x": "1"},
        timeout=120,
    )
    before = datetime.now(UTC)
    made = api.post("/sandboxes", json=asked, headers={"X-Request-ID": "mine-1"})
    assert made.status_code == 202, made.text
    assert made.headers["x-request-id"] == "mine-1"
    answer = made.json()
    path = f"/sandboxes/{answer['id']}"
    assert made.headers["location"] == f"/opensandbox/v1{path}"
    assert answer["status"]["state"] in ("Pending", "Running")
    assert answer["metadata"] == {"team": "t1"}
    assert answer["entrypoint"] == asked["entrypoint"]
    assert answer["platform"] == asked["platform"]
    assert answer["extensions"] == asked["extensions"]
    assert "image" not in answer
    lives = when(answer["expiresAt"]) - before
    assert timedelta(seconds=119) < lives < timedelta(seconds=150)

    found = api.get(path).json()
    assert found["image"] == asked["image"]
    assert found["status"]["state"] == "Running"
    assert {key: found[key] for key in ("id", "entrypoint", "createdAt")} == {
        key: answer[key] for key in ("id", "entrypoint", "createdAt")
    }

    ended = api.delete(path)
    assert (ended.status_code, ended.content) == (204, b"")
    over = api.get(path).json()["status"]
    assert (over["state"], over["reason"]) == ("Terminated", "user_delete")
    assert api.delete(path).status_code == 204
    refused(api.get(f"{path}/endpoints/{EXECD}"), 404, "SANDBOX::SANDBOX_NOT_FOUND")
    refused(api.get("/sandboxes/sbx_none"), 404, "SANDBOX::SANDBOX_NOT_FOUND")


def test_both_dialects_have_the_same_sandboxes(
    api: httpx.Client, v1: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    ours = make(metadata={"from": "opensandbox"})
    seen = v1.get(f"/v1/sandboxes/{ours.id}").json()["sandbox"]
    assert seen["templateSlug"] == "python"
    assert seen["metadata"] == {"from": "opensandbox"}

    theirs = rest.Sandbox.create(v1, metadata={"from": "v1", "odd key": "any text"})
    try:
        found = api.get(f"/sandboxes/{theirs.id}").json()
        assert found["image"] == {"uri": f"crownest/{theirs.record['templateSlug']}"}
        assert found["entrypoint"] == []
        assert found["status"]["state"] == "Running"
        listed = {item["id"] for item in api.get("/sandboxes").json()["items"]}
        assert {ours.id, theirs.id} <= listed
        with Sandbox(api, found).at(EXECD) as execd:
            assert execd.get("/ping").status_code == 200
        assert api.delete(f"/sandboxes/{theirs.id}").status_code == 204
        assert (
            v1.get(f"/v1/sandboxes/{theirs.id}").json()["sandbox"]["status"]
            == "destroyed"
        )
    finally:
        theirs.kill()


def test_lists_are_filtered_and_paged(
    api: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    one = make(metadata={"set": "pages", "team": "a"})
    two = make(metadata={"set": "pages", "team": "b"})
    three = make(metadata={"set": "pages", "team": "a"})
    make(metadata={"set": "others"})

    def ids(**query: Any) -> list[str]:
        response = api.get("/sandboxes", params=query)
        assert response.status_code == 200, response.text
        return [item["id"] for item in response.json()["items"]]

    assert ids(metadata="set=pages") == [three.id, two.id, one.id]
    assert ids(metadata="set=pages&team=a") == [three.id, one.id]
    assert ids(metadata="set=p%61ges&team=b") == [two.id]
    assert ids(metadata="set=none") == []
    assert ids(metadata="set=pages", state="Paused") == []
    assert ids(metadata="set=pages", state=["Paused", "Running"]) == [
        three.id,
        two.id,
        one.id,
    ]

    first = api.get(
        "/sandboxes", params={"metadata": "set=pages", "pageSize": 2}
    ).json()
    assert [item["id"] for item in first["items"]] == [three.id, two.id]
    assert first["pagination"] == {
        "page": 1,
        "pageSize": 2,
        "totalItems": 3,
        "totalPages": 2,
        "hasNextPage": True,
    }
    last = api.get(
        "/sandboxes", params={"metadata": "set=pages", "pageSize": 2, "page": 2}
    ).json()
    assert [item["id"] for item in last["items"]] == [one.id]
    assert last["pagination"]["hasNextPage"] is False

    two.kill()
    assert ids(metadata="set=pages") == [three.id, one.id]
    assert ids(metadata="set=pages", state="Terminated") == [two.id]
    for bad in ({"page": 0}, {"pageSize": 201}, {"page": "x"}):
        refused(api.get("/sandboxes", params=bad), 400, "SANDBOX::INVALID_PARAMETER")


def test_metadata_is_patched(api: httpx.Client, make: Callable[..., Sandbox]) -> None:
    sandbox = make(metadata={"keep": "1", "old": "1", "gone": "1"})
    path = f"{sandbox.path}/metadata"
    patched = api.patch(
        path, json={"old": "2", "new": "x", "gone": None, "never": None}
    )
    assert patched.status_code == 200, patched.text
    after = {"keep": "1", "old": "2", "new": "x"}
    assert patched.json()["metadata"] == after
    assert patched.json()["image"]
    assert api.patch(path, json={}).json()["metadata"] == after
    for bad in (
        {"opensandbox.io/x": "1"},
        {"a b": "1"},
        {"a": "b c"},
        {"-a": "1"},
        {"a": "x" * 64},
    ):
        refused(api.patch(path, json=bad), 400, "SANDBOX::INVALID_METADATA_LABEL")
        refused(
            api.post("/sandboxes", json=body(metadata=bad)),
            400,
            "SANDBOX::INVALID_METADATA_LABEL",
        )
    many = {f"k{n}": "v" for n in range(17)}
    refused(api.patch(path, json=many), 400, "SANDBOX::INVALID_METADATA_LABEL")
    assert sandbox.get()["metadata"] == after


def test_an_end_can_be_moved_and_is_told(
    api: httpx.Client, v1: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    sandbox = make(timeout=60)
    path = f"{sandbox.path}/renew-expiration"
    # As the clients write it: with an offset, and microseconds.
    end = datetime.now(UTC) + timedelta(hours=2)
    renewed = api.post(path, json={"expiresAt": end.isoformat()})
    assert renewed.status_code == 200, renewed.text
    assert list(renewed.json()) == ["expiresAt"]
    assert abs(when(renewed.json()["expiresAt"]) - end) < timedelta(seconds=5)
    assert sandbox.get()["expiresAt"] == renewed.json()["expiresAt"]
    seen = v1.get(f"/v1/sandboxes/{sandbox.id}").json()["sandbox"]["expiresAt"]
    assert seen == renewed.json()["expiresAt"]

    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    refused(
        api.post(path, json={"expiresAt": past}), 400, "SANDBOX::INVALID_EXPIRATION"
    )
    far = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    refused(api.post(path, json={"expiresAt": far}), 400, "sandbox_ttl_exceeded")
    refused(
        api.post(path, json={"expiresAt": "soon"}), 400, "SANDBOX::INVALID_PARAMETER"
    )

    # Without a timeout it lives as long as it may, which the answer says.
    for timeout in ({}, {"timeout": None}):
        asked = {
            key: value for key, value in body().items() if key != "timeout"
        } | timeout
        made = api.post("/sandboxes", json=asked)
        assert made.status_code == 202, made.text
        lives = when(made.json()["expiresAt"]) - datetime.now(UTC)
        assert timedelta(hours=23) < lives <= timedelta(hours=24)
        api.delete(f"/sandboxes/{made.json()['id']}")
    refused(
        api.post("/sandboxes", json=body(timeout=59)), 400, "SANDBOX::INVALID_PARAMETER"
    )
    refused(
        api.post("/sandboxes", json=body(timeout=90_000)), 400, "sandbox_ttl_exceeded"
    )


@pytest.mark.parametrize(
    ("uri", "slug"),
    [
        ("python:3.12", "python"),
        ("registry.example:5000/library/python@sha256:00", "python"),
        ("ubuntu:22.04", "base"),
        ("debian", "base"),
        ("node:22-slim", "node"),
        ("opensandbox/code-interpreter:v1.0.1", "code-interpreter"),
        ("mirror.example/opensandbox/code-interpreter:latest", "code-interpreter"),
        ("crownest/base", "base"),
    ],
)
def test_images_mean_templates(
    api: httpx.Client, v1: httpx.Client, uri: str, slug: str
) -> None:
    entrypoint = ["/opt/opensandbox/code-interpreter.sh"]
    made = api.post("/sandboxes", json=body(image={"uri": uri}, entrypoint=entrypoint))
    if made.status_code == 409 and made.json()["code"] == "template_not_built":
        pytest.skip(f"template {slug} is not built")
    assert made.status_code == 202, made.text
    sandbox = made.json()["id"]
    try:
        assert (
            v1.get(f"/v1/sandboxes/{sandbox}").json()["sandbox"]["templateSlug"] == slug
        )
        assert api.get(f"/sandboxes/{sandbox}").json()["image"] == {"uri": uri}
    finally:
        api.delete(f"/sandboxes/{sandbox}")


def test_what_there_is_not_is_refused_and_not_left_out(api: httpx.Client) -> None:
    def asked(**fields: Any) -> httpx.Response:
        return api.post("/sandboxes", json=body(**fields))

    for uri in ("nginx:latest", "me/python:3", "", "python 3"):
        message = refused(
            asked(image={"uri": uri}), 400, "SANDBOX::IMAGE_NOT_SUPPORTED"
        )
        assert "opensandbox/code-interpreter" in message
    unsupported = [
        {"templateId": "t", "image": None},
        {"extensions": {"poolRef": "p"}},
        {"extensions": {"access.renew.extend.seconds": "600"}},
        {"volumes": [{"name": "v", "mountPath": "/v", "host": {"path": "/"}}]},
        {"lifecycle": {"preStart": {"command": ["true"]}}},
        {"credentialProxy": {"enabled": True}},
    ]
    for fields in unsupported:
        refused(asked(**fields), 501, "SANDBOX::API_NOT_SUPPORTED")
    invalid = [
        {"image": None},
        {"entrypoint": None},
        {"entrypoint": []},
        {"entrypoint": ["", "x"]},
        {"snapshotId": "s"},
        {"resourceLimits": {"cpu": "many"}},
        {"resourceLimits": {"memory": "1000Gi"}},
        {"resourceLimits": {"gpu": "1"}},
        {"resourceLimits": {"cpu": "0"}},
        {"timeout": "600"},
        {"env": {"A=B": "x"}},
        {"networkPolicy": []},
        {"networkPolicy": {"egress": [{"action": "allow", "target": "10.0.0.0/33"}]}},
        {"networkPolicy": {"defaultAction": "maybe"}},
    ]
    for fields in invalid:
        refused(asked(**fields), 400, "SANDBOX::INVALID_PARAMETER")
    message = refused(asked(timeout=10**6), 400, "sandbox_ttl_exceeded")
    assert message == "timeout is at most 86400 seconds", "in the words of this API"
    other = {"os": "linux", "arch": "arm64" if ARCH == "amd64" else "amd64"}
    for platform in (other, {"os": "windows", "arch": ARCH}):
        refused(asked(platform=platform), 400, "SANDBOX::PLATFORM_NOT_SUPPORTED")
    for path in ("/templates", "/templates/x", "/pools", "/pools/x"):
        refused(api.get(path), 501, "SANDBOX::API_NOT_SUPPORTED")


def test_sizes_and_environment_are_the_sandbox_s_own(
    v1: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    sandbox = make(
        resourceLimits={"cpu": "500m", "memory": "256Mi"},
        env={"MINE": "a b", "EMPTY": ""},
    )
    printed = shell(
        v1,
        sandbox,
        'echo "$OPENSANDBOX_ID|$MINE|${EMPTY-unset}|$EXECD_ENVS|$JUPYTER_PORT"',
    )
    own, mine, empty, envs, port = printed.strip().split("|")
    assert (own, mine, empty) == (sandbox.id, "a b", "")
    assert envs.startswith("/")
    # What clients look for before they use a code interpreter.
    probe = "exec 3<>/dev/tcp/127.0.0.1/${JUPYTER_PORT:-44771}"
    assert shell(v1, sandbox, f"bash -c '{probe}' && echo listens") == "listens\n"
    assert int(port) > 0
    # 256 MiB are there and 512 are not.
    take = "python3 -c 'x = bytearray({} << 20); print(len(x) >> 20)' || echo killed"
    assert shell(v1, sandbox, take.format(100)) == "100\n"
    assert "killed" in shell(v1, sandbox, take.format(512))


def test_versions_that_are_not_there_are_named(api: httpx.Client) -> None:
    image = {"uri": "opensandbox/code-interpreter:latest"}
    for name in ("PYTHON_VERSION", "NODE_VERSION", "JAVA_VERSION", "GO_VERSION"):
        made = api.post("/sandboxes", json=body(image=image, env={name: "1.0"}))
        if made.status_code == 409 and made.json()["code"] == "template_not_built":
            pytest.skip("template code-interpreter is not built")
        message = refused(made, 400, "unsupported_runtime_option")
        assert name in message and "code-interpreter has" in message


def test_an_entrypoint_runs_as_a_command_with_a_log(
    api: httpx.Client, v1: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    program = (
        "import sys, time; print('it''s up', sys.argv[1], flush=True); time.sleep(600)"
    )
    sandbox = make(entrypoint=["python3", "-c", program, "a b'c"])

    def logs(scope: str) -> dict[str, Any]:
        response = api.get(f"{sandbox.path}/diagnostics/logs", params={"scope": scope})
        assert response.status_code == 200, response.text
        return response.json()

    rest.until(
        lambda: logs("container")["content"] == "its up a b'c\n",
        "the entrypoint's output",
    )
    found = logs("all")
    assert found["delivery"] == "inline" and found["truncated"] is False
    assert found["sandboxId"] == sandbox.id and found["kind"] == "logs"
    assert logs("network")["content"] == "" and logs("network")["warnings"]
    refused(
        api.get(f"{sandbox.path}/diagnostics/logs"), 400, "SANDBOX::INVALID_PARAMETER"
    )
    commands = v1.get(f"/v1/sandboxes/{sandbox.id}/commands").json()["data"]
    assert [command["status"] for command in commands] == ["running"]

    events = api.get(
        f"{sandbox.path}/diagnostics/events", params={"scope": "lifecycle"}
    ).json()
    assert "ready" in events["content"]
    # Of a long one the end is shown, and the rest is counted.
    long = "import time\nfor n in range(100_000): print(n)\nprint('end', flush=True)\ntime.sleep(600)"
    talker = make(entrypoint=["python3", "-c", long])
    printed = sum(len(f"{n}\n") for n in range(100_000)) + len("end\n")

    def whole() -> dict[str, Any] | None:
        path = f"{talker.path}/diagnostics/logs"
        found = api.get(path, params={"scope": "container"}).json()
        return found if found["content"].endswith("\nend\n") else None

    tail = rest.until(whole, "the last line")
    assert tail["truncated"] is True and len(tail["content"]) == 256 * 1024
    assert tail["warnings"] == [f"{printed - 256 * 1024} bytes before this were left out"]
    # One that only waits needs no process.
    idle = make()
    assert v1.get(f"/v1/sandboxes/{idle.id}/commands").json()["data"] == []
    assert idle.endpoint(8080)["endpoint"].endswith("/8080")


def test_asking_twice_with_one_key_makes_one(api: httpx.Client) -> None:
    key = {"Idempotency-Key": f"twice-{datetime.now(UTC).timestamp()}"}
    one = api.post("/sandboxes", json=body(), headers=key)
    two = api.post("/sandboxes", json=body(), headers=key)
    try:
        assert (one.status_code, two.status_code) == (202, 202)
        assert one.json() == two.json()
        assert one.headers["location"] == two.headers["location"]
        assert two.headers["idempotent-replayed"] == "true"
    finally:
        api.delete(f"/sandboxes/{one.json()['id']}")


def test_the_service_answers_for_itself(server: Server, api: httpx.Client) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as nobody:
        for path in ("/opensandbox/health", "/opensandbox/v1/health"):
            assert nobody.get(path).json() == {"status": "healthy"}
        assert nobody.get("/opensandbox/version").json()["version"]
        missing = nobody.get("/opensandbox/v1/sandboxes")
        assert "OPEN-SANDBOX-API-KEY" in refused(missing, 401, "MISSING_API_KEY")
        wrong = nobody.get("/opensandbox/v1/sandboxes", headers={"OPEN-SANDBOX-API-KEY": "x"})
        refused(wrong, 401, "INVALID_API_KEY")
        # The API is also there without its version, as the original's.
        found = nobody.get(
            "/opensandbox/sandboxes", headers={"OPEN-SANDBOX-API-KEY": server.api_key}
        )
        assert found.status_code == 200
    told = api.post(
        "/metrics/events", json={"eventType": "sandbox.create", "success": True}
    )
    assert told.status_code == 204
    refused(api.get("/nothing"), 404, "NOT_FOUND")
