"""Every attack of the tables, in a context of its own sandbox, with a neighbour that is asked
`1+1` all the while: the typed outcome, what survives, and that nothing is left when it is deleted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from arena import GRACE_SECONDS, SLACK_SECONDS, Arena, check_neighbour, until
from neighbour import Neighbour
from python_descriptors import DESCRIPTORS
from python_frames import FRAMES
from python_output import OUTPUT
from python_processes import PROCESSES
from python_resources import RESOURCE_ATTACKS
from python_state import STATE
from python_values import VALUES
from table import Attack

from server import Server

ATTACKS = [
    *DESCRIPTORS,
    *FRAMES,
    *OUTPUT,
    *VALUES,
    *STATE,
    *PROCESSES,
    *RESOURCE_ATTACKS,
]
HOST_SECONDS_MAX = 30
# The neighbour's, the pool's, and connections that clients keep.
DESCRIPTORS_MORE_MAX = 32
# What blocking runs may hold together (server/src/budget.rs), three times that while answers are
# written, and the server itself.
SERVER_BYTES_MAX = 1 << 30


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(enter: Callable[..., Arena], neighbour: Neighbour, attack: Attack) -> None:
    arena = enter(**attack.fields)
    with neighbour.watch() as report:
        began = time.monotonic()
        answer = arena.ask(attack.code, timeoutMs=attack.timeout_ms)
        took = time.monotonic() - began
        assert answer.status_code == 200, answer.text[:2000]
        run = answer.json()["run"]
        check_outcome(attack, run)
        assert took < attack.timeout_ms / 1000 + GRACE_SECONDS + SLACK_SECONDS
        if attack.proof:
            attack.proof(arena, run)
        if attack.aftermath:
            attack.aftermath(arena)
        check_survivors(attack, arena)
        if attack.left is not None:
            arena.settle(attack.left)
        arena.destroy()
    check_neighbour(report)


def check_outcome(attack: Attack, run: dict) -> None:
    error = run.get("error") or {}
    found = (run["outcome"], error.get("name"))
    assert found == (attack.outcome, attack.error), str(run)[:3000]
    assert attack.message in error.get("message", ""), error["message"][:1000]
    for stream in ("stdout", "stderr"):
        # Nothing is cut without a mark.
        assert bool(run.get(f"{stream}Truncated")) == bool(run.get(f"{stream}OmittedBytes"))


def check_survivors(attack: Attack, arena: Arena) -> None:
    """The context, another context, commands, files, and room for something new."""
    if attack.kept is None:
        gone = arena.http.delete(f"{arena.path}/code/contexts/{arena.context}")
        assert gone.status_code == 200, gone.text
        # Its interpreter, whatever had become of it, is gone with it.
        arena.peaceful -= 1
    elif attack.kept:
        assert arena.value("kept + 1") == "42"
    else:
        after = arena.run("'kept' in dir()")
        assert (after["outcome"], after.get("contextReset")) == ("completed", True), after
        assert after["outputs"][0]["value"] == "False", after
    if attack.others_kept:
        assert arena.value("kept * 7", arena.other) == "42"
    elif attack.others_kept is None:
        after = arena.run_anew("'kept' in dir()", arena.other)
        assert after["outcome"] == "completed", after
        reset = "False" if after.get("contextReset") else "True"
        assert after["outputs"][0]["value"] == reset, "lost and said so, or kept"
    else:
        after = arena.run_anew("'kept' in dir()", arena.other)
        assert (after["outcome"], after.get("contextReset")) == ("completed", True), after
    assert arena.new_context_answers()
    shell = arena.command("echo on")
    assert (shell["exitCode"], shell["stdout"]) == (0, "on\n"), shell


@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if a.on_host is not None], ids=lambda attack: attack.name
)
def test_control(attack: Attack) -> None:
    """The same code ends a plain interpreter, and in the way that it is there for."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n" + attack.code
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        timeout=HOST_SECONDS_MAX,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == attack.on_host, done


def test_the_server_has_kept_nothing(
    server: Server, neighbour: Neighbour, open_descriptors: Callable[[], int]
) -> None:
    """After everything above: no descriptor of all those sandboxes, and memory within bounds."""
    until("the server's descriptors back", lambda: open_descriptors() <= DESCRIPTORS_MORE_MAX)
    status = Path(f"/proc/{server.children()['server']}/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    assert peak_kib * 1024 < SERVER_BYTES_MAX, f"{peak_kib >> 10} MiB"
