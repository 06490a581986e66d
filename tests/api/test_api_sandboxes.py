"""The life of a sandbox: made, listed, extended, ended; what it may be made with."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from rest import Sandbox, refusal, until

GIB = 1024 * 1024 * 1024


def at(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def test_an_empty_request_makes_a_sandbox_that_can_be_used_at_once(make, client):
    response = client.post("/v1/sandboxes")
    assert response.status_code == 201
    sandbox = Sandbox(client, response.json()["sandbox"])
    assert sandbox.value("1+1") == "2"
    record = sandbox.record
    assert re.fullmatch(r"sbx_[A-Za-z0-9][A-Za-z0-9_-]*", record["id"])
    assert record["templateSlug"] in ("python-node", "python") and record["ttlMs"] == 3_600_000
    assert at(record["expiresAt"]) - at(record["createdAt"]) == pytest.approx(3600, abs=1)
    assert sandbox.get()["id"] == sandbox.id
    ended = sandbox.kill()
    assert (ended["status"], ended["destroyedReason"]) == ("destroyed", "user_killed")


def test_a_destroyed_sandbox_can_be_read_and_nothing_else(make):
    sandbox: Sandbox = make()
    context = sandbox.context()
    sandbox.kill()
    assert sandbox.get()["destroyedAt"]
    assert sandbox.kill()["status"] == "destroyed", "ending it again changes nothing"
    refusal(sandbox.ask("1"), 410, "sandbox_destroyed")
    refusal(sandbox.ask("1", contextId=context), 410, "sandbox_destroyed")
    refusal(sandbox.write("x", ""), 410, "sandbox_destroyed")
    refusal(sandbox.read("x"), 410, "sandbox_destroyed")
    for path, body in [
        ("/code/contexts", {"language": "python"}),
        ("/code/runs/stream", {"code": "1", "language": "python"}),
        ("/commands/run", {"command": "true"}),
        ("/extend", {"ttlMs": 1000}),
    ]:
        refusal(sandbox.client.post(sandbox.path + path, json=body), 410, "sandbox_destroyed")


def test_lists_are_paged_newest_first_and_filtered(make, client):
    made = [make(metadata={"suite": "paging", "n": str(n), "agent.id": "x"}).id for n in range(5)]
    other = make(metadata={"suite": "other"}).id

    def ids(**query: str) -> list[str]:
        return [s["id"] for s in client.get("/v1/sandboxes", params=query).json()["data"]]

    assert ids(**{"metadata.suite": "paging"}) == made[::-1]
    assert ids(**{"metadata.suite": "paging", "metadata.n": "3"}) == [made[3]]
    assert ids(**{"metadata.agent.id": "x", "metadata.n": "0"}) == [made[0]]
    assert ids(**{"metadata.suite": "nothing"}) == []
    assert other in ids() and other not in ids(**{"metadata.suite": "paging"})

    pages, cursor = [], {}
    while True:
        query = {"metadata.suite": "paging", "limit": "2"} | cursor
        page = client.get("/v1/sandboxes", params=query).json()
        pages.append([s["id"] for s in page["data"]])
        assert page["hasMore"] == ("nextCursor" in page)
        if not page["hasMore"]:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert [len(page) for page in pages] == [2, 2, 1] and sum(pages, []) == made[::-1]

    client.delete(f"/v1/sandboxes/{made[1]}")
    assert made[1] not in ids(**{"metadata.suite": "paging"})
    assert made[1] in ids(**{"metadata.suite": "paging", "include": "historical"})


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=!!", "limit=-1"])
def test_pages_that_cannot_be_are_refused(client, query):
    refusal(client.get(f"/v1/sandboxes?{query}"), 400, "invalid_request")


def test_extending_counts_from_now(make):
    sandbox: Sandbox = make(ttlMs=60_000)
    for route in ("extend", "ttl"):
        response = sandbox.client.post(f"{sandbox.path}/{route}", json={"ttlMs": 600_000})
        assert response.status_code == 200
        after = response.json()["sandbox"]
        assert after["ttlMs"] == 600_000
        assert at(after["expiresAt"]) - at(sandbox.record["expiresAt"]) == pytest.approx(
            540, abs=10
        )
    shorter = sandbox.client.post(f"{sandbox.path}/extend", json={"ttlMs": 30_000}).json()
    assert at(shorter["sandbox"]["expiresAt"]) < at(sandbox.record["expiresAt"])


def test_a_sandbox_ends_at_its_time(make):
    sandbox: Sandbox = make(ttlMs=1_500)
    assert sandbox.value("1+1") == "2"
    ended = until(
        lambda: (s := sandbox.get())["status"] == "destroyed" and s, "the end of the sandbox", 10
    )
    assert ended["destroyedReason"] == "ttl_expired"
    assert 0 <= at(ended["destroyedAt"]) - at(ended["expiresAt"]) < 2
    refusal(sandbox.ask("1"), 410, "sandbox_destroyed")


def test_a_run_ends_with_its_sandbox(make):
    """Neither the time to live nor a deletion waits for code that is running."""
    sandbox: Sandbox = make(ttlMs=1_500)
    response = sandbox.ask("while True: pass", timeoutMs=60_000)
    assert response.status_code in (200, 410), response.text
    if response.status_code == 200:
        assert response.json()["run"]["outcome"] == "context_died"
    until(lambda: sandbox.get()["status"] == "destroyed", "the end of the sandbox", 10)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"ttlMs": 0}, "invalid_request"),
        ({"ttlMs": -1}, "invalid_request"),
        ({"ttlMs": 3_600_001}, "sandbox_ttl_exceeded"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata_too_many_keys"),
        ({"metadata": {"k" * 65: ""}}, "invalid_metadata_key"),
        ({"metadata": {"k": "v" * 513}}, "invalid_metadata_value"),
        ({"metadata": {str(n): "é" * 500 for n in range(9)}}, "metadata_too_large"),
        ({"metadata": {"k": 1}}, "invalid_request"),
        ({"env": {"CROWNEST_X": "1"}}, "reserved_env_key"),
        ({"env": {"A=B": "1"}}, "invalid_request"),
        ({"env": {"A": "\0"}}, "invalid_request"),
        ({"network": "full"}, "invalid_request"),
        ({"resources": {"memoryBytes": 1}}, "invalid_request"),
        ({"resources": {"memoryBytes": 1 << 60}}, "invalid_request"),
        ({"resources": {"pids": 10_000_000}}, "invalid_request"),
    ],
)
def test_impossible_sandboxes_are_refused(client, fields, code):
    refusal(client.post("/v1/sandboxes", json=fields), 400, code)


def test_unknown_templates_and_backups_are_refused(client):
    unknown = client.post("/v1/sandboxes", json={"template": "../../etc"})
    error = refusal(unknown, 400, "invalid_request")
    assert "python" in error["details"]["templates"], "it says what there is"
    version = client.post("/v1/sandboxes", json={"templateVersionId": "tplv_x"})
    assert refusal(version, 400, "invalid_request")["details"]["field"] == "templateVersionId"
    backup = client.post("/v1/sandboxes", json={"restoreFrom": "bkp_x"})
    refusal(backup, 403, "feature_not_enabled")


def test_the_environment_reaches_code_and_commands(make):
    sandbox: Sandbox = make(env={"GREETING": "grüß dich", "EMPTY": ""})
    assert sandbox.out("import os; print(os.environ['GREETING'], repr(os.environ['EMPTY']))") == (
        "grüß dich ''\n"
    )
    assert sandbox.command('printf %s "$GREETING"')["stdout"] == "grüß dich"
    both = sandbox.command('printf %s "$GREETING $MORE"', env={"GREETING": "hi", "MORE": "m"})
    assert both["stdout"] == "hi m", "a command's own environment is the stronger one"
    assert sandbox.command("env | grep -c ^CROWNEST")["stdout"].strip() == "0"


def test_pooled_sandboxes_have_no_environment_of_another(make):
    make(env={"SECRET": "of the first"})
    second: Sandbox = make()
    assert second.out("import os; print(os.environ.get('SECRET'))") == "None\n"


def test_memory_processes_and_disk_are_what_was_asked_for(make):
    sandbox: Sandbox = make(
        resources={"memoryBytes": GIB, "pids": 64, "diskBytes": 64 * 1024 * 1024}
    )
    run = sandbox.run("x = bytearray(1 << 31)\nfor i in range(0, len(x), 4096): x[i] = 1")
    assert run["outcome"] == "out_of_memory" or run["error"]["name"] == "MemoryError", run
    full = sandbox.command("head -c 100M /dev/zero > big; stat -c %s big; rm big")
    assert "No space left" in full["stderr"] and int(full["stdout"]) <= 64 * 1024 * 1024, full
    forks = sandbox.out(
        "import os, signal\nchildren = []\ntry:\n"
        "    while len(children) < 500:\n"
        "        pid = os.fork()\n"
        "        if pid == 0: signal.pause()\n"
        "        children.append(pid)\n"
        "except OSError as error: print(type(error).__name__)\n"
        "for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)\n"
        "print(len(children))"
    )
    name, count = forks.split()
    assert name == "BlockingIOError" and 30 < int(count) <= 64, forks


def test_twenty_sandboxes_at_once_do_not_mix(make):
    """Each keeps its own variable, file and printed word over several rounds."""

    def work(number: int) -> str:
        sandbox: Sandbox = make()
        word = f"w{number}"
        sandbox.out(f"mine = {word!r}; open('mine', 'w').write({word!r}); total = 0")
        for turn in range(1, 6):
            printed = sandbox.out(f"total += {number + 1}\nprint(mine, open('mine').read(), total)")
            assert printed == f"{word} {word} {turn * (number + 1)}\n"
            assert sandbox.command("cat mine")["stdout"] == word
        return sandbox.id

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(work, range(20)))) == 20
