"""The same attacks as shell commands, which init starts itself: the typed outcome, what survives,
a neighbour that answers `1+1` all the while, and nothing left after the sandbox is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from arena import GRACE_SECONDS, SLACK_SECONDS, Arena, check_neighbour
from commands import COMMANDS
from neighbour import Neighbour
from table import Command


@pytest.mark.parametrize("attack", COMMANDS, ids=lambda attack: attack.name)
def test_command(enter: Callable[..., Arena], neighbour: Neighbour, attack: Command) -> None:
    arena = enter(**attack.fields)
    with neighbour.watch() as report:
        began = time.monotonic()
        answer = arena.ask_command(attack.command, timeoutMs=attack.timeout_ms)
        took = time.monotonic() - began
        assert answer.status_code == 200, answer.text[:2000]
        record = answer.json()["command"]
        check_outcome(attack, record)
        assert took < attack.timeout_ms / 1000 + GRACE_SECONDS + SLACK_SECONDS
        if attack.proof:
            attack.proof(arena, record)
        check_survivors(attack, arena)
        if attack.left is not None:
            arena.settle(attack.left)
        arena.destroy()
    check_neighbour(report)


def check_outcome(attack: Command, record: dict) -> None:
    found = tuple(
        record.get(key) for key in ("status", "exitCode", "terminationSignal", "killedReason")
    )
    expected = (attack.status, attack.exit_code, attack.signal, attack.reason)
    assert found == expected, str(record)[:3000]


def check_survivors(attack: Command, arena: Arena) -> None:
    """Both contexts, room for another, and the next command."""
    for context, code in ((arena.context, "kept + 1"), (arena.other, "kept * 7")):
        if attack.others_kept:
            assert arena.value(code, context) == "42"
        else:
            after = arena.run_anew("'kept' in dir()", context)
            assert (after["outcome"], after.get("contextReset")) == ("completed", True), after
    if attack.left is None:
        # It may hold every place that there is for a process, in its own sandbox.
        answer = arena.http.post(f"{arena.path}/code/contexts", json={"language": "python"})
        assert answer.status_code == 201 or answer.json()["error"]["code"] == "unavailable", (
            answer.text
        )
        return
    assert arena.new_context_answers()
    shell = arena.command("echo on")
    assert (shell["exitCode"], shell["stdout"]) == (0, "on\n"), shell
