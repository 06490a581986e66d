"""Workspace runs: an archive, one command, what it leaves."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rest import Sandbox, connect, new_key, new_organization, refusal, until
from server import Server
from workspace import BASE, Run, archive_headers, files, member, sha256, tar_gz

PROJECT = files(main_py="print('hello'); open('out.txt', 'w').write('result')")
FOREVER = "echo begun; sleep 600"


def statuses(run: Run) -> list[str]:
    return [event["status"] for event in run.events() if event["type"] == "status"]


def well_numbered(events: list[dict[str, Any]]) -> None:
    seqs = [event["seq"] for event in events]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), seqs
    assert all(event["createdAt"].endswith("Z") for event in events)


def gone(client: httpx.Client, sandbox_id: str) -> bool:
    return client.get(f"/v1/sandboxes/{sandbox_id}").json()["sandbox"]["status"] == "destroyed"


# -- the whole flow


def test_directly_from_archive_to_evidence(client: httpx.Client) -> None:
    made = Run.create(
        client,
        "python3 main.py; echo oops >&2",
        artifacts=[{"path": "out.txt"}, {"path": "/workspace/main.py", "name": "source"}],
        metadata={"ticket": "7"},
        sourceMetadata={"commit": "abc"},
        timeoutMs=30_000,
    )
    record = made.record
    assert record["status"] == "awaiting_archive" and record["keepSandbox"] is False
    assert record["metadata"] == {"ticket": "7"} and record["evidenceAvailable"] is False
    assert record["templateSlug"] and record["templateVersionId"].startswith("tplv_")
    refusal(client.get(f"{made.path}/evidence"), 404, "not_found")

    uploaded = made.upload(PROJECT)
    assert uploaded.status_code == 200, uploaded.text
    archive = uploaded.json()["archive"]
    assert (archive["sha256"], archive["sizeBytes"]) == (sha256(PROJECT), len(PROJECT))
    assert uploaded.json()["workspaceRun"]["status"] == "archive_uploaded"

    assert made.start()["status"] not in ("awaiting_archive", "archive_uploaded")
    run = made.end()
    assert (run["status"], run["exitCode"]) == ("succeeded", 0), run
    assert run["cleanupStatus"] == "succeeded" and run["orchestrationSucceeded"] is True
    assert run["archive"]["sha256"] == sha256(PROJECT) and run["durationMs"] >= 0
    assert "failureReason" not in run and "failureClass" not in run
    assert gone(client, run["sandboxId"])

    events = made.events()
    well_numbered(events)
    assert events[0]["seq"] == 1 and events[-1]["type"] == "terminal"
    assert events[-1]["workspaceRun"] == run
    assert statuses(made) == [
        "awaiting_archive",
        "archive_uploaded",
        "starting",
        "extracting",
        "running",
        "collecting",
        "succeeded",
    ]
    assert made.printed() == "hello\n" and made.printed("stderr") == "oops\n"
    collected = [event for event in events if event["type"] == "artifact_collected"]
    assert [event["path"] for event in collected] == ["out.txt", "/workspace/main.py"]
    assert [event["artifactId"] for event in collected] == run["artifactIds"]
    content = [client.get(f"/v1/artifacts/{id}/download").content for id in run["artifactIds"]]
    assert content[0] == b"result" and content[1].startswith(b"print(")
    assert client.get(f"/v1/artifacts/{run['artifactIds'][1]}").json()["artifact"]["name"] == (
        "source"
    )

    evidence = made.evidence()
    assert evidence["workspaceRunId"] == made.id and evidence["command"] == record["command"]
    for key in ("status", "artifactIds", "exitCode", "sourceMetadata", "sandboxId", "archive"):
        assert evidence[key] == run[key], key
    assert evidence["artifactErrors"] == [] and evidence["envKeys"] == []
    command = client.get(f"/v1/commands/{run['commandId']}").json()["command"]
    assert command["stdout"] == "hello\n" and command["exitCode"] == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("bearer", [False, True])
def test_staged(client: httpx.Client, server: Server, chunked: bool, bearer: bool) -> None:
    made = Run.create(client, "sha256sum data | cut -c1-64")
    data = bytes(range(256)) * 40_000
    archive = tar_gz(member("data", data))
    transfer = made.transfer(archive)
    assert transfer["id"].startswith("upl_") and transfer["workspaceRunId"] == made.id
    assert (transfer["method"], transfer["checksumAlgorithm"]) == ("PUT", "sha256")
    assert transfer["status"] == "pending" and transfer["maxSizeBytes"] >= 512 << 20
    refusal(made.finalize(archive, transfer["id"]), 409, "upload_incomplete")

    url = transfer["uploadUrl"]
    assert url.startswith("/v1/")
    pieces = (archive[at : at + 65_536] for at in range(0, len(archive), 65_536))
    anonymous = httpx.Client(base_url=server.url, trust_env=False, timeout=60)
    sent = (client if bearer else anonymous).put(
        url,
        content=pieces if chunked else archive,
        headers=transfer["headers"] | ({} if chunked else {"content-length": str(len(archive))}),
    )
    assert (sent.status_code, sent.content) == (204, b""), sent.text

    finalized = made.finalize(archive, transfer["id"])
    assert finalized.status_code == 200, finalized.text
    assert finalized.json()["archive"]["sha256"] == sha256(archive)
    # Again: the same answer, whether or not the first was heard.
    assert made.finalize(archive, transfer["id"]).json()["archive"] == finalized.json()["archive"]
    refusal(anonymous.put(url, content=archive), 409, "upload_conflict")
    made.start()
    assert made.end()["status"] == "succeeded"
    assert made.printed().strip() == sha256(data)


def test_a_warm_sandbox_is_used_and_stays(
    client: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    sandbox = make()
    sandbox.command("echo old > kept; echo old > main.py")
    made = Run.create(client, "cat kept main.py; echo new > left", sandboxId=sandbox.id)
    run = made.begin(files(main_py="archived\n")).end()
    assert run["status"] == "succeeded" and run["cleanupStatus"] == "not_requested"
    assert run["sandboxId"] == sandbox.id
    assert made.printed() == "old\narchived\n"
    assert sandbox.read("left").json()["content"] == "new\n"


def test_a_refused_archive_leaves_a_warm_sandbox_as_it_was(
    client: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    sandbox = make()
    bad = tar_gz(*(member(f"f{n}", b"x" * 100_000) for n in range(50)), member("../x"))
    run = Run.create(client, "true", sandboxId=sandbox.id).begin(bad).end()
    assert (run["status"], run["failureReason"]) == ("failed", "archive_invalid")
    assert sandbox.command("ls -A")["stdout"] == ""


def test_one_run_at_a_time_in_a_warm_sandbox(
    client: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    sandbox = make()
    first = Run.create(client, FOREVER, sandboxId=sandbox.id).begin(PROJECT)
    first.until("running")
    second = Run.create(client, "true", sandboxId=sandbox.id).begin(PROJECT).end()
    assert (second["status"], second["failureReason"]) == ("failed", "sandbox_conflict")
    assert second["failureClass"] == "user_input"
    assert first.cancel()["status"] == "canceled"
    third = Run.create(client, "true", sandboxId=sandbox.id).begin(PROJECT).end()
    assert third["status"] == "succeeded", third


def test_a_sandbox_is_kept_when_asked(client: httpx.Client) -> None:
    run = Run.create(client, "echo 1 > left", keepSandbox=True).begin(PROJECT).end()
    assert run["status"] == "succeeded" and run["cleanupStatus"] == "not_requested"
    path = f"/v1/sandboxes/{run['sandboxId']}"
    assert client.get(f"{path}/files/read", params={"path": "left"}).json()["content"] == "1\n"
    assert client.delete(path).status_code == 200


# -- how runs end


def test_a_failing_command(client: httpx.Client) -> None:
    wanted = [{"path": "none"}, {"path": "out.txt"}, {"path": "/etc/passwd"}, {"path": "/workspace"}]
    made = Run.create(client, "python3 main.py; exit 3", artifacts=wanted)
    run = made.begin(PROJECT).end()
    assert (run["status"], run["exitCode"]) == ("failed", 3)
    assert (run["failureReason"], run["failureClass"]) == ("command_exit", "user_command")
    assert run["orchestrationSucceeded"] is True and run["cleanupStatus"] == "succeeded"
    # What a failed command left is worth keeping, and what is missing is said.
    assert len(run["artifactIds"]) == 1
    assert [(error["path"], error["code"]) for error in run["artifactErrors"]] == [
        ("none", "file_not_found"),
        ("/etc/passwd", "path_outside_workspace"),
        ("/workspace", "artifact_collect_failed"),
    ]
    errors = [event["error"] for event in made.events() if event["type"] == "artifact_error"]
    assert errors == run["artifactErrors"] == made.evidence()["artifactErrors"]


def test_a_timeout(client: httpx.Client) -> None:
    made = Run.create(client, FOREVER, timeoutMs=500)
    run = made.begin(PROJECT).end()
    assert (run["status"], run["failureReason"]) == ("failed", "timeout")
    assert run["failureClass"] == "user_command" and run["timeoutMs"] == 500
    assert made.printed() == "begun\n" and gone(client, run["sandboxId"])


def test_a_sandbox_that_ends_under_its_run(client: httpx.Client) -> None:
    made = Run.create(client, FOREVER, artifacts=[{"path": "main.py"}]).begin(PROJECT)
    sandbox = made.until("running")["sandboxId"]
    assert client.delete(f"/v1/sandboxes/{sandbox}").status_code == 200
    run = made.end()
    assert (run["status"], run["failureReason"]) == ("failed", "sandbox_unavailable")
    assert run["failureClass"] == "platform" and run["orchestrationSucceeded"] is False


def test_a_run_ends_without_any_client(client: httpx.Client) -> None:
    made = Run.create(client, "sleep 0.5; echo done").begin(PROJECT)
    with connect_like(client) as other, other.stream(
        "GET", f"{made.path}/events", params={"stream": "true"}
    ) as response:
        next(response.iter_text())
    assert made.end()["status"] == "succeeded" and made.printed() == "done\n"


def connect_like(client: httpx.Client) -> httpx.Client:
    return httpx.Client(
        base_url=client.base_url, headers=client.headers, timeout=60, trust_env=False
    )


# -- cancel


def test_cancel_before_the_archive(client: httpx.Client) -> None:
    made = Run.create(client, "true")
    run = made.cancel()
    assert (run["status"], run["failureClass"]) == ("canceled", "canceled")
    assert run["evidenceAvailable"] is True and made.evidence()["status"] == "canceled"
    refusal(made.upload(PROJECT), 409, "upload_conflict")
    assert made.cancel() == run and made.start() == run
    assert statuses(made) == ["awaiting_archive", "canceled"]


def test_cancel_before_the_start(client: httpx.Client) -> None:
    made = Run.create(client, "true")
    assert made.upload(PROJECT).status_code == 200
    assert made.cancel()["status"] == "canceled"
    assert made.start()["status"] == "canceled"


def test_cancel_while_it_is_unpacked(client: httpx.Client) -> None:
    many = tar_gz(*(member(f"d{n % 50}/f{n}", b"x" * 100) for n in range(60_000)))
    made = Run.create(client, "echo never")
    assert made.upload(many).status_code == 200
    made.start()
    run = made.cancel()
    assert run["status"] == "canceled", run
    assert made.printed() == "" and "exitCode" not in run
    if "sandboxId" in run:
        assert gone(client, run["sandboxId"])


def test_cancel_while_the_command_runs(client: httpx.Client) -> None:
    made = Run.create(client, FOREVER, artifacts=[{"path": "main.py"}]).begin(PROJECT)
    made.until("running")
    until(lambda: made.printed() == "begun\n", "output")
    run = made.cancel()
    assert (run["status"], run["failureClass"]) == ("canceled", "canceled")
    assert run["cleanupStatus"] == "succeeded" and gone(client, run["sandboxId"])
    assert "artifactIds" not in run and "failureReason" not in run
    command = client.get(f"/v1/commands/{run['commandId']}").json()["command"]
    assert command["status"] == "canceled"
    assert made.printed() == "begun\n" and made.events()[-1]["type"] == "terminal"


def test_cancel_while_files_are_collected(client: httpx.Client) -> None:
    wanted = [{"path": "big", "name": f"copy {n}"} for n in range(32)]
    made = Run.create(client, "head -c 50000000 /dev/zero > big", artifacts=wanted).begin(PROJECT)
    made.until("collecting")
    run = made.cancel()
    # It may have come to its end just before.
    assert run["status"] in ("canceled", "succeeded"), run
    assert run["cleanupStatus"] == "succeeded" and run["exitCode"] == 0
    for id in run.get("artifactIds", []):
        client.delete(f"/v1/artifacts/{id}")


def test_cancel_is_heard_once_by_many(client: httpx.Client) -> None:
    made = Run.create(client, FOREVER).begin(PROJECT)
    made.until("running")
    ends: list[str] = []
    threads = [
        threading.Thread(target=lambda: ends.append(made.cancel()["status"])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ends == ["canceled"] * 8
    assert statuses(made).count("canceled") == 1


# -- uploads


def test_an_archive_has_to_be_what_its_headers_say(client: httpx.Client) -> None:
    made = Run.create(client, "true")
    path = f"{made.path}/archive"
    good = archive_headers(PROJECT)

    def put(content: Any = PROJECT, **headers: str | None) -> httpx.Response:
        wanted = {k: v for k, v in {**good, **headers}.items() if v is not None}
        return client.put(path, content=content, headers=wanted)

    size, sum_ = "x-crownest-archive-size", "x-crownest-archive-sha256"
    refusal(put(**{sum_: "0" * 64}), 400, "upload_checksum_mismatch")
    refusal(put(**{size: str(len(PROJECT) + 1)}), 400, "upload_size_mismatch")
    refusal(put(**{sum_: None}), 400, "invalid_request")
    refusal(put(**{size: None}), 400, "invalid_request")
    refusal(put(**{sum_: "xyz"}), 400, "invalid_request")
    refusal(put(**{size: "-1"}), 400, "invalid_request")
    refusal(put(**{size: str(9 << 20), "content-length": None}), 413, "file_too_large")
    # Of a body without a length the bytes are counted.
    chunked = {"content-length": None}
    refusal(put(iter([PROJECT[:-1]]), **chunked), 400, "upload_size_mismatch")
    refusal(put(iter([PROJECT, b"x"]), **chunked), 400, "upload_size_mismatch")
    assert made.get()["status"] == "awaiting_archive"
    assert put(iter([PROJECT[:9], PROJECT[9:]]), **chunked).status_code == 200
    # The same once more is the same; another one is not.
    assert made.upload(PROJECT).status_code == 200
    refusal(made.upload(files(other="x")), 409, "upload_conflict")


def test_the_size_cap_of_one_request(client: httpx.Client) -> None:
    made = Run.create(client, "true")
    large = b"x" * ((8 << 20) + 1)
    refusal(made.upload(large), 413, "file_too_large")
    assert made.upload(large[:-1]).status_code == 200
    run = (made.start(), made.end())[1]
    assert (run["status"], run["failureReason"]) == ("failed", "archive_invalid")


def test_staged_uploads_are_checked(client: httpx.Client, server: Server) -> None:
    made = Run.create(client, "true")
    path = f"{made.path}/archive-transfer"
    for body in (
        {"sha256": "x" * 64, "sizeBytes": 5},
        {"sha256": "0" * 63, "sizeBytes": 5},
        {"sha256": "0" * 64, "sizeBytes": 0},
        {"sha256": "0" * 64, "sizeBytes": "5"},
        {"sha256": "0" * 64},
    ):
        refusal(client.post(path, json=body), 400, "invalid_request")
    huge = {"sha256": "0" * 64, "sizeBytes": 1 << 40}
    refusal(client.post(path, json=huge), 413, "file_too_large")

    transfer = made.transfer(PROJECT)
    url = transfer["uploadUrl"]
    refusal(client.put(url, content=PROJECT[:-1]), 400, "upload_size_mismatch")
    refusal(client.put(url, content=iter([PROJECT, b"x"])), 400, "upload_size_mismatch")
    wrong = PROJECT[:-1] + b"x"
    refusal(client.put(url, content=wrong), 400, "upload_checksum_mismatch")
    refusal(made.finalize(PROJECT, transfer["id"]), 409, "upload_incomplete")
    assert client.put(url, content=PROJECT).status_code == 204
    refusal(made.finalize(PROJECT, "upl_none"), 404, "upload_not_found")
    refusal(made.finalize(PROJECT, transfer["id"], sizeBytes=1), 400, "upload_size_mismatch")
    refusal(made.finalize(wrong, transfer["id"]), 400, "upload_checksum_mismatch")

    # The URL is good for nothing else.
    anonymous = httpx.Client(base_url=server.url, trust_env=False, timeout=60)
    other = Run.create(client, "true")
    signature = url.split("?", 1)[1]
    elsewhere = f"{other.path}/archive-transfer/{transfer['id']}?{signature}"
    refusal(anonymous.put(elsewhere, content=PROJECT), 401, "unauthorized")
    refusal(anonymous.put(url.split("?")[0], content=PROJECT), 401, "unauthorized")
    refusal(anonymous.put(url[:-3] + "abc", content=PROJECT), 401, "unauthorized")
    nothing = f"{made.path}/archive-transfer/upl_none"
    refusal(client.put(nothing, content=PROJECT), 404, "upload_not_found")
    assert made.finalize(PROJECT, transfer["id"]).status_code == 200


def test_uploads_of_one_run_are_limited(client: httpx.Client) -> None:
    made = Run.create(client, "true")
    for _ in range(16):
        made.transfer(PROJECT)
    body = {"sha256": "0" * 64, "sizeBytes": 5}
    refusal(client.post(f"{made.path}/archive-transfer", json=body), 409, "upload_conflict")


def test_archives_go_with_their_runs(client: httpx.Client, server: Server) -> None:
    made = Run.create(client, "true")
    staged = made.transfer(PROJECT)
    assert client.put(staged["uploadUrl"], content=PROJECT).status_code == 204
    made.begin(PROJECT).end()

    def left() -> list[str]:
        found = server.data_dir.glob(f"objects/workspace-archives/{staged['id']}*")
        return [path.name for path in found]

    until(lambda: not left(), "the end of an archive that was never chosen")


# -- requests


def test_bad_requests(client: httpx.Client, make: Callable[..., Sandbox]) -> None:
    def create(**body: Any) -> httpx.Response:
        return client.post(BASE, json=body)

    for body, code in [
        ({}, "invalid_request"),
        ({"command": " "}, "invalid_request"),
        ({"command": "a\0"}, "invalid_request"),
        ({"command": "a", "timeoutMs": 0}, "invalid_request"),
        ({"command": "a", "timeoutMs": 3_000_001}, "invalid_request"),
        ({"command": "a", "artifacts": [{"path": ""}]}, "invalid_request"),
        ({"command": "a", "artifacts": [{"path": "x", "name": "a\nb"}]}, "invalid_request"),
        ({"command": "a", "artifacts": [{"path": "x"}] * 33}, "invalid_request"),
        ({"command": "a", "metadata": {"": "x"}}, "invalid_metadata_key"),
        ({"command": "a", "metadata": {"k": "x" * 513}}, "invalid_metadata_value"),
        ({"command": "a", "sourceMetadata": {str(n): "" for n in range(17)}},
         "metadata_too_many_keys"),
        ({"command": "a", "sourceMetadata": {str(n): "x" * 500 for n in range(9)}},
         "metadata_too_large"),
    ]:
        refusal(create(**body), 400, code)
    refusal(create(command="a", sandboxId="sbx_none"), 404, "not_found")
    refusal(create(command="a", projectId="prj_none"), 404, "not_found")
    sandbox = make()
    refusal(create(command="a", sandboxId=sandbox.id, template="base"), 400, "invalid_request")
    ended = Sandbox.create(client)
    ended.kill()
    refusal(create(command="a", sandboxId=ended.id), 410, "sandbox_destroyed")
    for path in ("", "/events", "/evidence"):
        refusal(client.get(f"{BASE}/wsr_none{path}"), 404, "not_found")
    refusal(client.post(f"{BASE}/wsr_none/start"), 404, "not_found")
    refusal(client.post(f"{BASE}/wsr_none/cancel"), 404, "not_found")
    made = Run.create(client, "true")
    refusal(client.post(f"{made.path}/start"), 409, "upload_incomplete")
    made.cancel()


def test_repeated_requests_are_done_once(client: httpx.Client) -> None:
    def keyed(method: str, path: str, key: str, **options: Any) -> httpx.Response:
        headers = {"idempotency-key": f"{key} {made_key}", **options.pop("headers", {})}
        return client.request(method, path, headers=headers, **options)

    made_key = uuid.uuid4().hex
    body = {"command": "echo once >> log; cat log"}
    first = keyed("POST", BASE, "create", json=body)
    assert first.status_code == 201
    assert keyed("POST", BASE, "create", json=body).content == first.content
    refusal(keyed("POST", BASE, "create", json={"command": "x"}), 409, "idempotency_key_reused")
    made = Run(client, first.json()["workspaceRun"])
    put = {"headers": archive_headers(PROJECT), "content": PROJECT}
    uploaded = keyed("PUT", f"{made.path}/archive", "put", **put)
    assert uploaded.status_code == 200
    again = keyed("PUT", f"{made.path}/archive", "put", **put)
    assert again.content == uploaded.content and again.headers["idempotent-replayed"] == "true"
    other = files(other="x")
    put = {"headers": archive_headers(other), "content": other}
    refusal(keyed("PUT", f"{made.path}/archive", "put", **put), 409, "idempotency_key_reused")
    begun = keyed("POST", f"{made.path}/start", "start")
    assert begun.json()["workspaceRun"]["status"] == "starting"
    assert keyed("POST", f"{made.path}/start", "start").content == begun.content
    made.end()
    assert made.start()["status"] == "succeeded"
    assert made.printed() == "once\n"
    assert keyed("POST", f"{made.path}/start", "start").content == begun.content
    over = keyed("POST", f"{made.path}/cancel", "cancel")
    assert over.json()["workspaceRun"]["status"] == "succeeded"
    assert keyed("POST", f"{made.path}/cancel", "cancel").content == over.content


def test_starts_at_the_same_time_are_one(client: httpx.Client) -> None:
    made = Run.create(client, "echo once")
    assert made.upload(PROJECT).status_code == 200
    threads = [threading.Thread(target=made.start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    made.end()
    assert made.printed() == "once\n" and statuses(made).count("starting") == 1


def test_lists_come_in_pages_newest_first(client: httpx.Client) -> None:
    made = [Run.create(client, "true").id for _ in range(5)]
    first = client.get(BASE, params={"limit": 3}).json()
    assert [run["id"] for run in first["data"]] == made[:1:-1] and first["hasMore"]
    rest = client.get(BASE, params={"limit": 2, "cursor": first["nextCursor"]}).json()
    assert [run["id"] for run in rest["data"]] == made[1::-1]
    for id in made:
        client.post(f"{BASE}/{id}/cancel")


def test_keys_see_what_they_may(client: httpx.Client, server: Server) -> None:
    made = Run.create(client, "true")
    organization = made.record["orgId"]
    elsewhere = new_organization(server, "other")
    paths = [
        ("GET", "", "workspace_run:read"),
        ("GET", "/events", "workspace_run:read"),
        ("GET", "/evidence", "workspace_run:read"),
        ("POST", "/start", "workspace_run:create"),
        ("POST", "/cancel", "workspace_run:cancel"),
        ("POST", "/archive-transfer", "workspace_run:create"),
        ("POST", "/archive/finalize", "workspace_run:create"),
        ("PUT", "/archive", "workspace_run:create"),
        ("PUT", "/archive-transfer/upl_x", "workspace_run:create"),
    ]
    with connect(server, new_key(server, organization, "sandbox:read")) as weak:
        for method, path, scope in paths:
            error = refusal(weak.request(method, made.path + path), 403, "forbidden")
            assert error["details"]["scope"] == scope
        refusal(weak.post(BASE, json={"command": "x"}), 403, "forbidden")
        refusal(weak.get(BASE), 403, "forbidden")
    bodies = {
        "/archive-transfer": {"sha256": "0" * 64, "sizeBytes": 1},
        "/archive/finalize": {"sha256": "0" * 64, "sizeBytes": 1, "uploadId": "upl_x"},
    }
    project = client.post("/v1/projects", json={"name": "elsewhere"}).json()["project"]["id"]
    for key in (
        new_key(server, elsewhere.id),
        new_key(server, organization, projects=(project,)),
    ):
        with connect(server, key) as foreign:
            for method, path, _ in paths:
                options: dict[str, Any] = {"json": bodies[path]} if path in bodies else {}
                if method == "PUT":
                    options = {"content": PROJECT, "headers": archive_headers(PROJECT)}
                refusal(foreign.request(method, made.path + path, **options), 404, "not_found")
            assert foreign.get(BASE).json()["data"] == []
    made.cancel()


# -- events


def test_pages_and_streams_have_the_same_events(client: httpx.Client) -> None:
    made = Run.create(client, "for n in 1 2 3; do echo $n; sleep 0.2; done")
    assert made.upload(PROJECT).status_code == 200
    made.start()
    followed = [event for event in made.stream() if event["type"] != "heartbeat"]
    well_numbered(followed)
    assert followed[-1]["type"] == "terminal" and followed[-1]["workspaceRun"] == made.get()
    assert followed == made.events() == list(made.stream())
    assert "".join(e["data"] for e in followed if e["type"] == "stdout") == "1\n2\n3\n"
    # From every place on, by both ways of saying it.
    for after in range(len(followed)):
        rest = followed[after:]
        assert list(made.stream(after)) == rest
        assert list(made.stream(headers={"last-event-id": str(after)})) == rest
        page = client.get(f"{made.path}/events", params={"afterSeq": after, "limit": 2}).json()
        assert page["data"] == rest[:2] and page["hasMore"] is (len(rest) > 2)
        assert page.get("nextSeq") == rest[:2][-1]["seq"]
    beyond = client.get(f"{made.path}/events", params={"afterSeq": 10_000}).json()
    assert beyond == {"data": [], "hasMore": False}


def test_a_stream_follows_from_before_the_archive(client: httpx.Client) -> None:
    made = Run.create(client, "echo here")
    seen: list[dict[str, Any]] = []
    follower = threading.Thread(target=lambda: seen.extend(made.stream()))
    follower.start()
    until(lambda: seen, "the first event")
    made.begin(PROJECT)
    follower.join(60)
    assert not follower.is_alive() and seen[-1]["type"] == "terminal"
    assert [event for event in seen if event["type"] != "heartbeat"] == made.events()


def test_much_output_is_whole(client: httpx.Client) -> None:
    made = Run.create(client, "seq 1 200000").begin(PROJECT)
    followed = "".join(e["data"] for e in made.stream() if e["type"] == "stdout")
    assert followed == "".join(f"{n}\n" for n in range(1, 200_001))
    assert made.printed() == followed


def test_event_queries_are_checked(client: httpx.Client) -> None:
    made = Run.create(client, "true")
    for query in ({"afterSeq": "-1"}, {"afterSeq": "x"}, {"limit": "0"}, {"limit": "501"},
                  {"stream": "maybe"}, {"afterSeq": str(1 << 63)}):
        refusal(client.get(f"{made.path}/events", params=query), 400, "invalid_request")
    headers = {"last-event-id": "x"}
    refusal(client.get(f"{made.path}/events", headers=headers), 400, "invalid_request")
    made.cancel()


def test_deeds_are_audited(client: httpx.Client) -> None:
    made = Run.create(client, "true").begin(PROJECT)
    made.end()
    made.evidence()

    def actions() -> set[str]:
        query = {"resourceId": made.id, "limit": 100}
        return {e["action"] for e in client.get("/v1/audit-events", params=query).json()["data"]}

    wanted = {f"workspace_run.{verb}" for verb in
              ("create", "archive", "start", "end", "read_evidence")}
    until(lambda: wanted <= actions(), "the audit events")
