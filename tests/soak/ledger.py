"""What must be true during a soak, and what was found not to be.

Owns: the windows in which a fault excuses an error, the sandboxes and interpreters that were killed
on purpose, the list of broken promises. Does not own: asking anything of a server.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

# A request that began this long after everything answered again has no excuse.
WINDOW_SLACK_SECONDS = 1.0
# Promises that are remembered word for word; the others are counted.
BROKEN_MAX = 200


@dataclass
class Window:
    """From just before a fault until the service was seen to work again."""

    victim: str
    began: float
    ended: float | None = None


@dataclass
class Ledger:
    lock: threading.Lock = field(default_factory=threading.Lock)
    windows: list[Window] = field(default_factory=list)
    # Sandboxes whose init, and contexts whose interpreter, was killed on purpose.
    doomed: set[str] = field(default_factory=set)
    doomed_contexts: set[str] = field(default_factory=set)
    # Homes that may be chosen: sandbox to (context, pid inside).
    homes: dict[str, tuple[str, int]] = field(default_factory=dict)
    # Every sandbox whose creation was answered.
    created: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    broken_count: int = 0
    done: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=dict)

    def count(self, what: str) -> None:
        with self.lock:
            self.done[what] += 1

    def breaks(self, promise: str) -> None:
        """Something was not so."""
        with self.lock:
            self.broken_count += 1
            if len(self.broken) < BROKEN_MAX:
                self.broken.append(f"{time.strftime('%H:%M:%S')} {promise}")
        print(f"BROKEN {time.strftime('%H:%M:%S')} {promise}", flush=True)

    def excuse(self, since: float, what: str) -> bool:
        """Whether a fault explains an error of a request that began then; breaks when not."""
        now = time.monotonic()
        with self.lock:
            for window in reversed(self.windows):
                over = window.ended is not None and window.ended + WINDOW_SLACK_SECONDS < since
                if not over and window.began <= now:
                    self.excused[window.victim] += 1
                    return True
        self.breaks(f"without a fault: {what}")
        return False

    def open(self, victim: str) -> Window:
        window = Window(victim, time.monotonic())
        with self.lock:
            self.kills[victim] += 1
            self.windows.append(window)
        return window

    def close(self, window: Window) -> None:
        window.ended = time.monotonic()
        with self.lock:
            self.recoveries.setdefault(window.victim, []).append(window.ended - window.began)

    def settle_in(self, sandbox: str, context: str, pid: int) -> None:
        with self.lock:
            self.homes[sandbox] = (context, pid)
            self.doomed_contexts.discard(context)

    def move_out(self, sandbox: str) -> None:
        with self.lock:
            self.homes.pop(sandbox, None)

    def doom(self, sandbox: str) -> bool:
        """Marks a sandbox whose init is about to be killed; False when it is nobody's home."""
        with self.lock:
            if self.homes.pop(sandbox, None) is None:
                return False
            self.doomed.add(sandbox)
            return True

    def doom_context(self, sandbox: str) -> int | None:
        """Marks the context of a home; the pid inside of its interpreter."""
        with self.lock:
            found = self.homes.pop(sandbox, None)
            if found is None:
                return None
            self.doomed_contexts.add(found[0])
            return found[1]

    def is_doomed(self, sandbox: str) -> bool:
        with self.lock:
            return sandbox in self.doomed

    def is_doomed_context(self, context: str) -> bool:
        with self.lock:
            return context in self.doomed_contexts
