"""Idempotency-Key: carried out once, replayed after that, refused where it does not fit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from rest import Sandbox, connect, new_key, refusal, until, waiting_for

COUNT = "open('count', 'a').write('x')\n"


def count(sandbox: Sandbox) -> int:
    return len(sandbox.read("count").json()["content"])


def keyed(key: str) -> dict[str, str]:
    return {"idempotency-key": key}


def test_the_same_request_is_carried_out_once(sandbox: Sandbox):
    first = sandbox.ask(COUNT + "print('said')\n41 + 1", keyed("same"))
    again = sandbox.ask(COUNT + "print('said')\n41 + 1", keyed("same"))
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json() and again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert count(sandbox) == 1


def test_an_exception_is_replayed_too(sandbox: Sandbox):
    first = sandbox.ask(COUNT + "1 / 0", keyed("raises"))
    assert first.json()["run"]["error"]["name"] == "ZeroDivisionError"
    assert sandbox.ask(COUNT + "1 / 0", keyed("raises")).json() == first.json()
    assert count(sandbox) == 1


def test_another_request_with_the_same_key_is_refused(sandbox: Sandbox):
    sandbox.ask(COUNT, keyed("other"))
    refusal(sandbox.ask(COUNT + "1", keyed("other")), 409, "idempotency_key_reused")
    changed = sandbox.ask(COUNT, keyed("other"), timeoutMs=1000)
    refusal(changed, 409, "idempotency_key_reused")
    assert count(sandbox) == 1


def test_a_key_belongs_to_route_sandbox_and_credential(server, make):
    one, two = make(), make()
    assert one.ask(COUNT, keyed("mine")).status_code == 200
    # The same route of another sandbox is another request.
    refusal(two.ask(COUNT, keyed("mine")), 409, "idempotency_key_reused")
    context = one.client.post(
        f"{one.path}/code/contexts", json={"language": "python"}, headers=keyed("mine")
    )
    assert context.status_code == 201, "another route has its own keys"
    with connect(server, new_key(server, server.credentials["orgId"])) as other:
        assert Sandbox(other, one.record).ask(COUNT, keyed("mine")).status_code == 200
    assert count(one) == 2


def test_a_request_whose_first_is_still_running_is_told_so(sandbox: Sandbox):
    answers: list[httpx.Response] = []
    code = f"{COUNT}{waiting_for('go')}'end'"
    sandbox.value("'warm'")
    thread = threading.Thread(target=lambda: answers.append(sandbox.ask(code, keyed("slow"))))
    thread.start()
    until(lambda: sandbox.read("count").status_code == 200, "the start of the code")
    error = refusal(sandbox.ask(code, keyed("slow")), 409, "idempotency_request_in_progress")
    assert error["retryable"] is True and error["retryAfterMs"] > 0
    sandbox.signal("go")
    thread.join()
    assert answers[0].json()["run"]["outputs"][0]["value"] == "end"
    assert sandbox.ask(code, keyed("slow")).json() == answers[0].json()
    assert count(sandbox) == 1


def test_many_at_once_make_one_sandbox(client):
    def create(_: int) -> httpx.Response:
        return client.post(
            "/v1/sandboxes", json={"metadata": {"suite": "once"}}, headers=keyed("create-once")
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))
    made = {a.json()["sandbox"]["id"] for a in answers if a.status_code == 201}
    assert len(made) == 1
    for answer in answers:
        if answer.status_code != 201:
            refusal(answer, 409, "idempotency_request_in_progress")
    listed = client.get("/v1/sandboxes", params={"metadata.suite": "once"}).json()["data"]
    assert [s["id"] for s in listed] == list(made)
    client.delete(f"/v1/sandboxes/{made.pop()}")


def test_a_stream_is_replayed_as_its_last_event(sandbox: Sandbox):
    code = f"{COUNT}print('said')\n41 + 1"
    body = {"code": code, "language": "python"}
    first = sandbox.client.post(f"{sandbox.path}/code/runs/stream", json=body, headers=keyed("s"))
    again = sandbox.client.post(f"{sandbox.path}/code/runs/stream", json=body, headers=keyed("s"))
    assert first.status_code == again.status_code == 200
    frames = first.text.removesuffix("\n\n").split("\n\n")
    assert again.text == frames[-1] + "\n\n" and frames[-1].startswith("event: complete\n")
    assert again.headers["content-type"].startswith("text/event-stream")
    assert count(sandbox) == 1


def test_a_refusal_is_replayed_and_a_passing_one_is_not(sandbox: Sandbox):
    for _ in range(2):
        refusal(sandbox.ask("1", keyed("bad"), contextId="cctx_nobody"), 404, "not_found")
    command = {"command": "echo x >> commands; exit 3"}
    runs = [
        sandbox.client.post(f"{sandbox.path}/commands/run", json=command, headers=keyed("c"))
        for _ in range(2)
    ]
    assert runs[0].json() == runs[1].json() and runs[0].json()["command"]["exitCode"] == 3
    assert sandbox.read("commands").json()["content"] == "x\n"


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_keys_that_cannot_be_are_refused(sandbox: Sandbox, key):
    refusal(sandbox.ask("1", keyed(key)), 400, "invalid_request")


def test_a_large_result_is_replayed_in_part_and_says_so(sandbox: Sandbox):
    code = "print('x' * 20_000_000)"
    first = sandbox.ask(code, keyed("large")).json()["run"]
    assert len("".join(first["stdout"])) == 20_000_001 and "stdoutTruncated" not in first
    again = sandbox.ask(code, keyed("large")).json()["run"]
    kept = "".join(again["stdout"])
    if again["stdoutTruncated"]:
        assert len(kept) + again["stdoutOmittedBytes"] == 20_000_001
    assert first["contextId"] == again["contextId"] and kept.startswith("xxxx")
