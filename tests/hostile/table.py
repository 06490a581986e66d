"""What a row of the tables of attacks says.

Owns the two kinds of rows. The rows are in `python_*.py` and `commands.py`; `document.py` makes
docs/hostile-runs.md of them, so every text here is written for its readers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from arena import Arena

Json = dict[str, Any]
Proof = Callable[[Arena, Json], None]


def plain(code: str) -> str:
    """Code as it stands in a table, without the table's indentation."""
    return textwrap.dedent(code).strip("\n")


@dataclass(frozen=True)
class Attack:
    """Python code that does harm, and exactly what comes of it."""

    name: str
    # What the code does, for the document.
    does: str
    code: str
    # The typed outcome: status 200 and `outcome`, and the name of `error`, None for no error.
    outcome: str = "completed"
    error: str | None = None
    # Part of the error's message.
    message: str = ""
    # What the caller sees beside that.
    sees: str = ""
    # Whether the variables of the context are still there; else it has a fresh interpreter. None:
    # the attack goes on in it, and it can be deleted.
    kept: bool | None = True
    # The same for another context of the sandbox; None: as the kernel's choice of a victim goes.
    others_kept: bool | None = True
    # Processes that the attack leaves behind; None: as many as the limit lets it.
    left: int | None = 0
    timeout_ms: int = 10_000
    fields: Json = field(default_factory=dict)
    # Shows that the attack did what it says, and that nothing was cut without a mark.
    proof: Proof | None = None
    # Before the context is asked for its variables.
    aftermath: Callable[[Arena], None] | None = None
    # How the same code ends a plain interpreter on the host: the control.
    on_host: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", plain(self.code))

    @property
    def survives(self) -> str:
        if self.others_kept is None:
            return "the sandbox and its files; other contexts too, or with fresh interpreters"
        if not self.others_kept:
            return "the sandbox and its files; contexts with fresh interpreters"
        if self.kept is None:
            return "everything but this context, which can be deleted"
        if not self.kept:
            return "everything but this context's variables: its next run says `contextReset`"
        return "everything, variables included"


@dataclass(frozen=True)
class Command:
    """A shell command that does harm, and exactly what comes of it."""

    name: str
    does: str
    command: str
    # The typed outcome: `status`, `exitCode`, `terminationSignal`, `killedReason`.
    status: str = "exited"
    exit_code: int | None = 0
    signal: str | None = None
    reason: str | None = None
    sees: str = ""
    # Of the contexts beside it.
    others_kept: bool = True
    left: int | None = 0
    timeout_ms: int = 10_000
    fields: Json = field(default_factory=dict)
    proof: Proof | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", plain(self.command))

    @property
    def survives(self) -> str:
        if not self.others_kept:
            return "the sandbox and its files; contexts with fresh interpreters"
        if self.left is None:
            return "everything; what it left behind ends with the sandbox"
        if self.left:
            return f"everything; {self.left} process it left behind, until the sandbox ends"
        return "everything"
