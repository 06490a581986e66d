"""A template goes away while its sandboxes live: they live on, new ones are refused with a word."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machine import Client, Machine, kill, wait_for
from server import TEMPLATES, Server, binary


@pytest.fixture
def templates() -> Iterator[Path]:
    """A copy of template python that may be broken: hard links, so that it costs nothing."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = TEMPLATES.parent / f"templates-test-{os.getpid()}"
    path.mkdir(mode=0o755)
    subprocess.run(["cp", "-al", TEMPLATES / "python", path / "python"], check=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def started(start: Callable[..., Server], templates: Path, *options: str) -> tuple:
    server = start("--templates-dir", str(templates), *options)
    return server, Client(server), Machine(server)


def test_a_template_in_use_is_not_removed(start: Callable[..., Server], templates: Path) -> None:
    _, client, _ = started(start, templates, "--pool", "1")
    sandbox = client.create()
    done = subprocess.run(
        [binary(), "template", "rm", "python", "--templates-dir", str(templates)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0 and "in use" in done.stderr, done.stderr
    assert client.value(sandbox, "1 + 1") == "2"
    assert client.value(client.create(), "1 + 1") == "2"


def test_a_template_that_is_gone_is_said_and_costs_no_sandbox(
    start: Callable[..., Server], templates: Path
) -> None:
    """Its directory is taken away by hand, under a pool, a zygote and live sandboxes. A running
    server holds what it has listed; the next one finds it gone."""
    server, client, machine = started(start, templates, "--pool", "1")
    sandbox = client.create()
    client.run(sandbox, "x = 'kept'")
    wait_for("a pool", lambda: len({g.name for g in machine.groups()}) == 2)
    away = templates / "away"
    (templates / "python").rename(away)

    listing = [binary(), "template", "list", "--templates-dir", str(templates)]
    listed = subprocess.run(listing, capture_output=True, text=True, timeout=60)
    assert str(templates / "python") not in listed.stdout, listed.stdout
    for _ in range(3):
        new = client.create(ttlMs=60_000)
        assert client.value(new, "1 + 1") == "2", "from the pool, then cold"
    assert client.value(sandbox, "x") == "kept"
    assert client.value(sandbox, "6 * 7", client.context(sandbox)) == "42", "the zygote has it"
    # A restart finds the sandbox all the same, and what languages it has.
    old = machine.pid("server")
    kill(old)
    wait_for("another server", lambda: server.children().get("server", old) != old)
    assert client.value(sandbox, "x") == "kept"
    assert client.value(sandbox, "6 * 7", client.context(sandbox)) == "42"
    refused = client.insist("POST", "/v1/sandboxes", {})
    assert refused.status_code in (404, 409), refused.text
    assert "python" in refused.json()["error"]["message"], refused.text

    away.rename(templates / "python")

    def made() -> str | None:
        """The inventory is read again when something is not found, but not each time."""
        answer = client.request("POST", "/v1/sandboxes", {})
        return answer.json()["sandbox"]["id"] if answer.status_code == 201 else None

    assert client.value(wait_for("a creation", made), "1 + 1") == "2"
