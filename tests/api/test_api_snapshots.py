"""Snapshots: what a sandbox has written is what another one begins with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rest import Json, Sandbox, refusal, until
from server import Server

MAKE_SECONDS_MAX = 60
# One of everything that a tenant can make, and what must not be followed.
FILL = r"""
set -e
cd /workspace
printf 'kept' > file; chmod 640 file
mkdir -p deep/er; echo inner > deep/er/file; chmod 1777 deep
ln -s /etc/shadow shadow; ln -s ../../../../../../etc outside; ln -s nowhere dangling
ln file hardlink; ln file deep/second
mkfifo pipe
python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('socket')"
printf '#!/bin/sh\nid -u\n' > setuid; chmod 6755 setuid
truncate -s 200M sparse; printf end >> sparse
touch -d '2001-02-03 04:05:06Z' old
printf 'a\nb' > "$(printf 'odd\nname')"
printf x > unreadable; chmod 000 unreadable
python3 -c "import os; os.setxattr('file', 'user.note', b'mine')" || echo no-xattr > no-xattr
echo home > ~/at-home
echo changed >> ~/.profile
rm ~/.bashrc
rm -r ~/.cache/matplotlib; mkdir ~/.cache/matplotlib; echo new > ~/.cache/matplotlib/only
echo elsewhere > /var/tmp/kept
echo gone > /tmp/not-kept
"""
LOOK = r"""
cd /workspace
find . -printf '%P|%y|%m|%U:%G|%s|%n|%l\n' | sort
cat file deep/er/file; stat -c %Y old; tail -c 3 sparse; du -k sparse | cut -f1
stat -c %i file hardlink deep/second | sort -u | wc -l
python3 -c "import os; print(os.getxattr('file', 'user.note'))" 2>/dev/null || true
cat ~/at-home ~/.profile /var/tmp/kept; ls -A ~ ~/.cache/matplotlib; ls /tmp/not-kept 2>&1
test -p pipe && test -S socket && echo nodes
"""


def command(sandbox: Sandbox, text: str) -> str:
    body = {"command": text}
    response = sandbox.client.post(f"{sandbox.path}/commands/run", json=body)
    assert response.status_code == 200, response.text
    record = response.json()["command"]
    assert record["exitCode"] == 0, record
    return record["stdout"]


def begin(sandbox: Sandbox, name: str | None = None) -> str:
    body = {} if name is None else {"name": name}
    response = sandbox.client.post(f"{sandbox.path}/snapshots", json=body)
    assert response.status_code == 202, response.text
    snapshot = response.json()["snapshot"]
    assert (snapshot["status"], snapshot["sandboxId"]) == ("creating", sandbox.id)
    return snapshot["id"]


def get(client: httpx.Client, snapshot: str) -> Json:
    response = client.get(f"/v1/snapshots/{snapshot}")
    assert response.status_code == 200, response.text
    return response.json()["snapshot"]


def finished(client: httpx.Client, snapshot: str) -> Json:
    def look() -> Json | None:
        row = get(client, snapshot)
        return row if row["status"] != "creating" else None

    return until(look, "the end of a snapshot", MAKE_SECONDS_MAX)


@pytest.fixture
def keep(client: httpx.Client) -> Iterator[Callable[..., Json]]:
    """Makes snapshots that go with the test."""
    made: list[str] = []

    def make(sandbox: Sandbox, name: str | None = None) -> Json:
        made.append(begin(sandbox, name))
        return finished(client, made[-1])

    yield make
    for snapshot in made:
        response = client.delete(f"/v1/snapshots/{snapshot}")
        assert response.status_code in (204, 404), response.text


def files(server: Server) -> list[Path]:
    return sorted((server.data_dir / "snapshots").iterdir())


def test_a_sandbox_begins_with_the_files_of_another(
    server: Server, make: Callable[..., Sandbox], keep: Callable[..., Json]
) -> None:
    first = make(template="python")
    command(first, FILL)
    want = command(first, LOOK)
    snapshot = keep(first, "of everything")
    assert snapshot["status"] == "ready", snapshot
    assert (snapshot["name"], snapshot["templateSlug"]) == ("of everything", "python")
    assert 0 < snapshot["sizeBytes"] < 10_000_000, "holes take no room"
    command(first, "echo later > /workspace/later")
    second = make(snapshotId=snapshot["id"])
    assert second.record["templateVersionId"] == first.record["templateVersionId"]
    missing = "ls: cannot access '/tmp/not-kept': No such file or directory"
    got = command(second, LOOK)
    assert got == want.replace("/tmp/not-kept\n", missing + "\n"), got
    assert "nodes" in got and "only" in got
    # It can change what it has, without anybody noticing; and be kept again.
    command(
        second,
        "cd /workspace && rm -r deep shadow && echo more >> file && echo b > ~/.bashrc",
    )
    third = make(snapshotId=keep(second)["id"])
    assert command(third, "cat /workspace/file ~/.bashrc") == "keptmore\nb\n"
    assert command(third, "ls -d /workspace/deep ~/.cache/* 2>&1 || true").endswith("matplotlib\n")
    assert command(make(snapshotId=snapshot["id"]), LOOK) == got
    assert third.value("1+1") == "2", "interpreters start in it"
    (directory,) = {path.parent for path in files(server)}
    assert directory.stat().st_mode & 0o777 == 0o700 and directory.stat().st_uid == 0


def test_a_program_that_writes_all_the_time_is_kept_at_one_moment(
    make: Callable[..., Sandbox], keep: Callable[..., Json]
) -> None:
    """Two files are written one after the other: never is the second ahead of the first."""
    sandbox = make()
    sandbox.out(
        "import threading, os\n"
        "def work():\n"
        "    n = 0\n"
        "    while True:\n"
        "        n += 1\n"
        "        for name in ('a', 'b'):\n"
        "            with open(f'/workspace/{name}.new', 'w') as f:\n"
        "                f.write(str(n))\n"
        "            os.rename(f'/workspace/{name}.new', f'/workspace/{name}')\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "import time; time.sleep(0.3)\n"
    )
    for _ in range(3):
        other = make(snapshotId=keep(sandbox)["id"])
        a, b = (int(command(other, f"cat /workspace/{name}")) for name in "ab")
        assert 0 <= a - b <= 1, (a, b)
        assert sandbox.value("1+1") == "2", "it goes on"


def test_runs_go_on_while_files_are_kept(
    make: Callable[..., Sandbox], keep: Callable[..., Json]
) -> None:
    sandbox = make()
    result: list[Json] = []
    run = threading.Thread(
        target=lambda: result.append(
            sandbox.run("import time\nfor n in range(300):\n    print(n)\n    time.sleep(0.005)")
        )
    )
    run.start()
    while run.is_alive():
        assert keep(sandbox)["status"] == "ready"
    run.join()
    assert "".join(result[0]["stdout"]).split() == [str(n) for n in range(300)]
    assert sandbox.get()["status"] in ("ready", "running")


def test_a_paused_sandbox_is_kept_and_stays_paused(
    make: Callable[..., Sandbox], keep: Callable[..., Json]
) -> None:
    sandbox = make()
    command(sandbox, "echo text > /workspace/file")
    assert sandbox.client.post(f"{sandbox.path}/pause").status_code == 200
    snapshot = keep(sandbox)
    assert (snapshot["status"], sandbox.get()["status"]) == ("ready", "paused")
    sandbox.kill()
    assert command(make(snapshotId=snapshot["id"]), "cat /workspace/file") == "text\n"


def test_snapshots_are_listed_and_deleted(
    server: Server,
    client: httpx.Client,
    make: Callable[..., Sandbox],
    keep: Callable[..., Json],
) -> None:
    sandbox = make()
    ids = [keep(sandbox, f"n{number}")["id"] for number in range(3)]

    def listed(**query: Any) -> tuple[list[str], int]:
        query = {"sandboxId": sandbox.id, **query}
        page = client.get("/v1/snapshots", params=query).json()
        return [row["id"] for row in page["data"]], page["total"]

    assert listed() == (ids[::-1], 3)
    assert listed(page=2, pageSize=2) == (ids[:1], 3)
    assert listed(name="n1") == ([ids[1]], 1)
    before = {path.name for path in files(server)}
    assert client.delete(f"/v1/snapshots/{ids[1]}").status_code == 204
    gone = before - {path.name for path in files(server)}
    assert gone == {ids[1].removeprefix("snap_")}
    refusal(client.get(f"/v1/snapshots/{ids[1]}"), 404, "not_found")
    refusal(client.delete(f"/v1/snapshots/{ids[1]}"), 404, "not_found")
    refusal(client.post("/v1/sandboxes", json={"snapshotId": ids[1]}), 404, "not_found")
    assert listed() == ([ids[2], ids[0]], 2)


def test_what_does_not_fit_is_refused_and_leaves_nothing(
    client: httpx.Client, make: Callable[..., Sandbox], keep: Callable[..., Json]
) -> None:
    sandbox = make(template="python")
    command(sandbox, "head -c 20000000 /dev/zero > /workspace/large")
    snapshot = keep(sandbox)
    small = {"snapshotId": snapshot["id"], "resources": {"diskBytes": 10_000_000}}
    refusal(client.post("/v1/sandboxes", json=small), 507, "storage_full")
    other = {"snapshotId": snapshot["id"], "template": "base"}
    refusal(client.post("/v1/sandboxes", json=other), 409, "backup_template_mismatch")
    refusal(
        client.post(f"{sandbox.path}/snapshots", json={"name": ""}),
        400,
        "invalid_request",
    )
    deep = "import os\nfor _ in range(300):\n    os.mkdir('d')\n    os.chdir('d')\n"
    sandbox.out(deep)
    failed = keep(sandbox)
    assert failed["status"] == "failed" and "more than a snapshot may hold" in failed["failure"]
    assert sandbox.value("1+1") == "2", "it goes on"
    refusal(
        client.post("/v1/sandboxes", json={"snapshotId": failed["id"]}),
        409,
        "snapshot_not_ready",
    )
