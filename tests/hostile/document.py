"""docs/hostile-runs.md from the tables: what is written there is what is tested.

`UPDATE_DOCS=1 pytest tests/hostile/test_hostile_document.py` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from commands import COMMANDS
from python_descriptors import DESCRIPTORS
from python_frames import FRAMES
from python_output import OUTPUT
from python_processes import PROCESSES
from python_resources import RESOURCE_ATTACKS
from python_state import STATE
from python_values import VALUES
from table import Attack, Command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hostile-runs.md"

HEAD = """# Hostile runs

What becomes of code that misbehaves: one row for each attack that `tests/hostile/` runs in a real
sandbox, with what its caller is told and what is still there afterwards. This page is generated
from the tables of those tests (`UPDATE_DOCS=1 pytest tests/hostile/test_hostile_document.py`), and
a test compares both.

Every answer is `200` with an `outcome`: that code fails, hangs or dies is a result and no error of
the service. For every row the tests hold as well that

- a sandbox next door answers `1+1` within one second, asked without a pause from before the attack
  until the attacked sandbox is deleted;
- the answer comes within the run's timeout and the grace of two seconds that follows it;
- another context of the same sandbox still has its variables (unless the row says otherwise), a new
  context can be made, a command runs;
- where an interpreter is killed between two runs, a run that comes after it was dead gets a fresh
  one; a run that comes in the moment of its death has not begun and is told `context_died`;
- nothing that was printed is cut without `stdoutTruncated`, and for code without the number of
  bytes left out (`stdoutOmittedBytes`);
- no process is left but those that the row names, none is outside the sandbox's control groups, and
  after the sandbox is deleted there is neither a process nor a group of it.

`error` is the name in the answer's `error`; – means that there is none. A timeout is `timed_out`
with the variables kept when the code gives in to the interrupt, and lost when it has to be killed.
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _seen(attack: Attack) -> str:
    """What the caller sees of an attack whose row does not say it."""
    if attack.sees:
        return attack.sees
    if attack.outcome == "context_died":
        why = f": `{attack.message}`" if attack.message else ""
        return f"why the interpreter ended{why}"
    if attack.outcome == "timed_out":
        return "that it took too long" + (f"; {attack.message}" if attack.message else "")
    if attack.outcome == "out_of_memory":
        return "that the sandbox reached its memory limit"
    return "its exception, with the traceback" if attack.error else "its value and output"


def _code_row(attack: Attack) -> str:
    error = f"`{attack.error}`" if attack.error else "–"
    left = "; as many processes as the limit allows" if attack.left is None else ""
    if attack.left:
        left = f"; {attack.left} process of its own, until the sandbox ends"
    cells = (
        attack.name,
        attack.does,
        f"`{attack.outcome}`",
        error,
        _seen(attack),
        attack.survives + left,
    )
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _command_row(command: Command) -> str:
    ends = [f"`{command.status}`"]
    if command.exit_code is not None:
        ends.append(f"exit {command.exit_code}")
    if command.signal:
        ends.append(command.signal)
    if command.reason:
        ends.append(f"`{command.reason}`")
    cells = (
        command.name,
        command.does,
        ", ".join(ends),
        command.sees or "its output",
        command.survives,
    )
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _section(title: str, attacks: Iterable[Attack]) -> str:
    lines = [
        f"\n## {title}",
        "| attack | what it does | outcome | error | what the caller sees | what survives |",
        "|---|---|---|---|---|---|",
        *(_code_row(attack) for attack in attacks),
    ]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole text."""
    commands = [
        "\n## Commands",
        "| attack | what it does | how it ends | what the caller sees | what survives |",
        "|---|---|---|---|---|",
        *(_command_row(command) for command in COMMANDS),
    ]
    return "".join(
        (
            HEAD,
            _section("Descriptors", DESCRIPTORS),
            _section("Frames", FRAMES),
            _section("Output", OUTPUT),
            _section("Values and exceptions", VALUES),
            _section("The interpreter itself", STATE),
            _section("Processes and signals", PROCESSES),
            _section("Resources", RESOURCE_ATTACKS),
            "\n".join(commands) + "\n",
        )
    )
