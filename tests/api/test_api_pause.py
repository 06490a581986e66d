"""Pause and resume: what stands still, what goes on, what is refused meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from rest import Json, Sandbox, events, refusal, until

# A counter that a program in the sandbox raises as fast as it may.
COUNT = """
import threading
count = 0
def work():
    global count
    while True:
        count += 1
threading.Thread(target=work, daemon=True).start()
"""
# How long a pause lasts whose effect on time is looked at.
PAUSE_SECONDS = 2.0
REFUSED_SECONDS_MAX = 5.0
PAUSES = 20


def pause(sandbox: Sandbox) -> Json:
    response = sandbox.client.post(f"{sandbox.path}/pause")
    assert response.status_code == 200, response.text
    return response.json()["sandbox"]


def resume(sandbox: Sandbox) -> Json:
    response = sandbox.client.post(f"{sandbox.path}/resume")
    assert response.status_code == 200, response.text
    return response.json()["sandbox"]


def cpu_ticks(sandbox: Sandbox) -> int:
    """Processor time of everything in the sandbox, as the kernel of the host counts it."""
    ticks = 0
    key = sandbox.id.removeprefix("sbx_")
    (group,) = groups(key)
    for pid in group.read_text().split():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(stat[11]) + int(stat[12])
    return ticks


def groups(key: str) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    found = [
        *root.glob(f"memory/crownest-*/{key}.*"),
        *root.glob(f"crownest-*/{key}.*"),
    ]
    return [path / "cgroup.procs" for path in found]


def test_everything_stands_still_and_goes_on_where_it_was(
    make: Callable[..., Sandbox],
) -> None:
    sandbox = make()
    sandbox.out(COUNT)
    assert pause(sandbox)["status"] == "paused"
    assert sandbox.get()["status"] == "paused"
    listed = sandbox.client.get("/v1/sandboxes").json()["data"]
    assert [s["status"] for s in listed if s["id"] == sandbox.id] == ["paused"]
    before = cpu_ticks(sandbox)
    time.sleep(0.5)
    assert cpu_ticks(sandbox) == before, "it still computes"
    assert resume(sandbox)["status"] == "ready"
    first = int(sandbox.value("count"))
    until(lambda: int(sandbox.value("count")) > first, "the counter goes on")
    assert cpu_ticks(sandbox) > before


def test_a_run_goes_on_after_a_pause_that_was_longer_than_its_timeout(
    make: Callable[..., Sandbox],
) -> None:
    sandbox = make()
    code = "import time\nfor n in range(20):\n    print(n, flush=True)\n    time.sleep(0.05)\n'end'"
    with sandbox.streaming(code, timeoutMs=int(PAUSE_SECONDS * 1000)) as response:
        seen = events(response.iter_lines())
        begun = next(e for e in seen if e["type"] == "stdout")
        pause(sandbox)
        time.sleep(PAUSE_SECONDS)
        resume(sandbox)
        rest = list(seen)
    printed = begun["data"] + "".join(e["data"] for e in rest if e["type"] == "stdout")
    assert printed.split() == [str(n) for n in range(20)]
    assert rest[-1]["type"] == "complete", rest[-1]
    assert sandbox.value("1+1") == "2"


def test_a_command_goes_on_after_a_pause_that_was_longer_than_its_timeout(
    make: Callable[..., Sandbox],
) -> None:
    sandbox = make()
    body = {
        "command": "for i in $(seq 1 40); do echo $i; sleep 0.02; done",
        "timeoutMs": int(PAUSE_SECONDS * 1000),
    }
    started = sandbox.client.post(f"{sandbox.path}/commands/start", json=body)
    assert started.status_code == 202, started.text
    command = started.json()["command"]["id"]
    pause(sandbox)
    time.sleep(PAUSE_SECONDS)
    record = sandbox.client.get(f"/v1/commands/{command}").json()["command"]
    assert record["status"] == "running", record
    refusal(
        sandbox.client.post(f"/v1/commands/{command}/cancel", json={}),
        409,
        "sandbox_paused",
    )
    resume(sandbox)

    def ended() -> Json | None:
        record = sandbox.client.get(f"/v1/commands/{command}").json()["command"]
        return record if record["status"] not in ("queued", "starting", "running") else None

    record = until(ended, "the end of the command")
    assert (record["status"], record["exitCode"]) == ("exited", 0), record
    assert record["stdout"].split() == [str(n) for n in range(1, 41)]


REFUSED: list[tuple[str, str, Any]] = [
    ("POST", "code/runs", {"code": "1", "language": "python"}),
    ("POST", "code/runs/stream", {"code": "1", "language": "python"}),
    ("POST", "code/runs", {"code": "1", "language": "python", "detached": True}),
    ("POST", "code/contexts", {"language": "python"}),
    ("GET", "code/contexts", None),
    ("POST", "commands/run", {"command": "true"}),
    ("POST", "commands/start", {"command": "true"}),
    ("POST", "previews", {"port": 8000}),
    ("GET", "files/stat?path=x", None),
    ("GET", "files?path=.", None),
    ("POST", "pause", None),
]


def test_new_work_is_refused_at_once_and_by_name(make: Callable[..., Sandbox]) -> None:
    sandbox = make()
    sandbox.value("1")
    pause(sandbox)
    for method, path, body in REFUSED:
        began = time.monotonic()
        response = sandbox.client.request(method, f"{sandbox.path}/{path}", json=body)
        refusal(response, 409, "sandbox_paused")
        assert time.monotonic() - began < REFUSED_SECONDS_MAX, path
    resume(sandbox)
    refusal(sandbox.client.post(f"{sandbox.path}/resume"), 409, "sandbox_not_paused")
    assert sandbox.value("1+1") == "2"
    commands = sandbox.client.get(f"{sandbox.path}/commands").json()["data"]
    assert commands == [], "a refused command left a record"


def test_a_paused_sandbox_is_destroyed(make: Callable[..., Sandbox]) -> None:
    sandbox = make()
    sandbox.out(COUNT)
    pause(sandbox)
    assert sandbox.kill()["status"] == "destroyed"
    key = sandbox.id.removeprefix("sbx_")
    until(lambda: not groups(key), "its groups go")
    for deed in ("pause", "resume"):
        refusal(sandbox.client.post(f"{sandbox.path}/{deed}"), 410, "sandbox_destroyed")


def test_a_paused_sandbox_ends_at_its_time(make: Callable[..., Sandbox]) -> None:
    sandbox = make(ttlMs=1_500)
    pause(sandbox)
    ended = until(lambda: (s := sandbox.get())["status"] == "destroyed" and s, "its end")
    assert ended["destroyedReason"] == "ttl_expired"
    key = sandbox.id.removeprefix("sbx_")
    until(lambda: not groups(key), "its groups go")


def test_a_time_to_live_that_was_changed_while_paused_counts(
    make: Callable[..., Sandbox],
) -> None:
    sandbox = make(ttlMs=3_000)
    sandbox.out("x = 5")
    pause(sandbox)
    longer = sandbox.client.post(f"{sandbox.path}/ttl", json={"ttlMs": 60_000})
    assert longer.status_code == 200, longer.text
    assert longer.json()["sandbox"]["status"] == "paused"
    # Init's own deadline, of before, is over now: it must not act upon it when it goes on.
    time.sleep(6)
    resume(sandbox)
    assert sandbox.value("x") == "5"
    time.sleep(0.5)
    assert sandbox.value("x") == "5"
    sandbox.client.post(f"{sandbox.path}/ttl", json={"ttlMs": 500})
    until(lambda: sandbox.get()["status"] == "destroyed", "its end")


def test_many_pauses_during_a_run_lose_nothing(make: Callable[..., Sandbox]) -> None:
    sandbox = make()
    results: list[Json] = []
    lines = 20_000
    code = f"for n in range({lines}):\n    print(n)"
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            response = sandbox.ask(code)
            # Between a pause and its resume a new run is refused; one that has begun is not.
            if response.status_code == 200:
                results.append(response.json()["run"])
            else:
                refusal(response, 409, "sandbox_paused")

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(PAUSES):
        pause(sandbox)
        resume(sandbox)
    over.set()
    thread.join()
    assert len(results) > 1
    for result in results:
        assert "".join(result["stdout"]).split() == [str(n) for n in range(lines)]


def test_pauses_are_on_record(client: httpx.Client, make: Callable[..., Sandbox]) -> None:
    sandbox = make()
    pause(sandbox)
    resume(sandbox)

    def actions() -> list[str]:
        page = client.get("/v1/audit-events", params={"resourceId": sandbox.id}).json()
        return [e["action"] for e in page["data"] if e["resource"]["id"] == sandbox.id]

    until(
        lambda: {"sandbox.pause", "sandbox.resume"} <= set(actions()),
        "the audit events",
    )


def test_another_organization_does_not_see_it(
    make: Callable[..., Sandbox], client: httpx.Client
) -> None:
    make()
    for deed in ("pause", "resume"):
        refusal(
            client.post(f"/v1/sandboxes/sbx_00000000000000000000000000/{deed}"),
            404,
            "not_found",
        )
