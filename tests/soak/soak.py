"""A long run of mixed load while everything is killed at random; ends as it began, or fails.

    make soak SOAK_MINUTES=60
    CROWNEST_BIN=target/release/crownest .venv/bin/python tests/soak/soak.py --minutes 60

Starts a server of its own (as root, with template python built), warms it up and counts what there
is: groups, processes, namespaces, mounts, sockets, descriptors, memory. Then clients create and
destroy, run code and check its value, count in interpreters that live all the while, stream
numbered lines, interrupt, write files and compare checksums, run commands, hang up, repeat keyed
requests, leave sandboxes to their time (work.py), and every few seconds something dies by
`kill -9`, is stopped for a while, or is restarted: server, spawner, zygote, init, interpreter,
supervisor (chaos.py). The last quarter spares server and spawner, so that they grow old. At the end
every long-lived sandbox is looked at once more, everything is destroyed and counted again.

Errors are allowed to clients only while a fault lasts, from the kill until a new sandbox has been
made and used, and must be typed, or errors of the connection (ledger.py). `--seed` repeats the
choices, not the timing. Exit status 1: a promise was broken, or something is left over. `--save`
writes everything as JSON, recovery times included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "recovery")]
sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos import Chaos  # noqa: E402
from ledger import Ledger  # noqa: E402
from machine import Census, Machine, data_directory, wait_for  # noqa: E402
from server import Server, missing  # noqa: E402
from tenant import Failed, Gone  # noqa: E402
from work import Worker  # noqa: E402

WARM_UP_SECONDS = 10
SETTLE_SECONDS_MAX = 60
STOP_SECONDS_MAX = 90
CALM_SHARE = 0.25
# By how much more memory the processes may hold at the end: caches, allocator, database pages.
MEMORY_GROWTH_KIB_MAX = {"server": 96 * 1024, "spawner": 4 * 1024, "zygote": 48 * 1024}
# What a request may leave in the database: a record, audit and usage events, a replay of a day.
DISK_BYTES_PER_REQUEST_MAX = 8 * 1024
DISK_BYTES_FREE = 64 * 1024 * 1024


class Soak:
    """One run, from the first server to the verdict."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.ledger = Ledger()
        self.server = Server(data_directory(), "--pool", str(options.pool), "--log", "warn")
        self.workers: list[Worker] = []
        self.began = time.monotonic()

    def run(self) -> dict[str, Any]:
        self.server.start()
        machine = Machine(self.server)
        self.load(WARM_UP_SECONDS, None)
        self.empty()
        before, memory, disk = machine.census(), machine.memory_kib(), self.disk()
        print(f"begin {asdict(before)} memory {memory} KiB disk {disk} B", flush=True)

        self.began = time.monotonic()
        chaos = Chaos(
            self.server, self.ledger, self.options.seed, tuple(self.options.pause_seconds)
        )
        self.load(self.options.minutes * 60, chaos)
        self.look_again()
        self.empty()
        after = self.settle(machine, before)
        result = {
            "minutes": self.options.minutes,
            "seed": self.options.seed,
            "threads": self.options.threads,
            "done": dict(self.ledger.done),
            "kills": dict(self.ledger.kills),
            "excused": dict(self.ledger.excused),
            "recovery_seconds": self.recoveries(),
            "before": asdict(before),
            "after": asdict(after),
            "memory_kib": {"before": memory, "after": machine.memory_kib()},
            "disk_bytes": {"before": disk, "after": self.disk()},
            "load_average": os.getloadavg(),
        }
        self.check(result, before, after)
        self.check_records()
        result["broken_count"], result["broken"] = self.ledger.broken_count, self.ledger.broken
        return result

    # -- load

    def load(self, seconds: float, chaos: Chaos | None) -> None:
        """Load for so long; with chaos, what lives at the end stays for [`look_again`]."""
        seed = self.options.seed * 1_000 + (500 if chaos else 0)
        self.workers = [
            Worker(self.server, self.ledger, seed + n) for n in range(self.options.threads)
        ]
        threads = [*self.workers, *([chaos] if chaos else [])]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        calm_at = end - seconds * CALM_SHARE
        said = time.monotonic()
        while time.monotonic() < end:
            time.sleep(0.2)
            if chaos and time.monotonic() > calm_at:
                chaos.calm = True
            if chaos and time.monotonic() - said >= 60:
                said = time.monotonic()
                self.say()
        if chaos:
            chaos.over.set()
            chaos.join(STOP_SECONDS_MAX)
        for worker in self.workers:
            worker.over.set()
        for worker in self.workers:
            worker.join(STOP_SECONDS_MAX)
            if worker.is_alive():
                self.ledger.breaks(f"{worker.name} hangs")

    def say(self) -> None:
        ledger = self.ledger
        with ledger.lock:
            requests, broken = ledger.done["requests"], ledger.broken_count
            kills, excused = dict(ledger.kills), sum(ledger.excused.values())
        minutes = (time.monotonic() - self.began) / 60
        try:
            memory: Any = Machine(self.server).memory_kib()
        except (AssertionError, OSError):
            memory = "-"
        print(
            f"{minutes:5.1f} min, {requests} requests, kills {kills}, {excused} excused errors, "
            f"{broken} broken, memory {memory} KiB, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )

    # -- the end

    def look_again(self) -> None:
        """Every home has what it had."""
        for worker in self.workers:
            worker.tenant.client = type(worker.tenant.client)(timeout=45, trust_env=False)
            for home in list(worker.homes):
                try:
                    if home.ready:
                        worker.state(home)
                    worker.check_files(home)
                except Gone:
                    worker.buried(home)
                except Failed as error:
                    self.ledger.breaks(f"at the end {home.sandbox} answers {error}")
            worker.tenant.client.close()

    def empty(self) -> None:
        """No sandbox but those of the pool, and the pool full."""
        self.server.destroy_sandboxes()
        machine = Machine(self.server)

        def pooled() -> bool:
            groups = {group.name for group in machine.groups()}
            return len(groups) == self.options.pool

        wait_for("a full pool and nothing else", pooled, SETTLE_SECONDS_MAX)

    def settle(self, machine: Machine, before: Census) -> Census:
        """The count as before, or the last one."""
        try:
            wait_for("before", lambda: machine.census() == before, SETTLE_SECONDS_MAX)
        except AssertionError:
            pass
        return machine.census()

    def disk(self) -> int:
        files = [p for p in self.server.data_dir.rglob("*") if p.is_file()]
        return sum(p.stat().st_size for p in files)

    def recoveries(self) -> dict[str, Any]:
        found = {}
        for victim, seconds in sorted(self.ledger.recoveries.items()):
            found[victim] = {
                "n": len(seconds),
                "p50": round(statistics.median(seconds), 3),
                "max": round(max(seconds), 3),
            }
        return found

    def check(self, result: dict[str, Any], before: Census, after: Census) -> None:
        counted = asdict(after)
        for name, was in asdict(before).items():
            if counted[name] != was:
                self.ledger.breaks(f"{name}: {was} at the beginning, {counted[name]} at the end")
        for name, most in MEMORY_GROWTH_KIB_MAX.items():
            was, now = (result["memory_kib"][when][name] for when in ("before", "after"))
            if now > was + most:
                self.ledger.breaks(f"memory of {name}: {was} KiB first, {now} KiB at the end")
        grown = result["disk_bytes"]["after"] - result["disk_bytes"]["before"]
        most = DISK_BYTES_FREE + DISK_BYTES_PER_REQUEST_MAX * self.ledger.done["requests"]
        if grown > most:
            self.ledger.breaks(f"the data directory has grown by {grown} bytes, more than {most}")

    def check_records(self) -> None:
        """Everything that was answered is in the database, and says that it is over."""
        self.server.stop()
        database = next(self.server.data_dir.glob("*.db"))
        with sqlite3.connect(database) as db:
            rows = dict(db.execute("SELECT id, destroyed_at FROM sandboxes"))
            audited = {
                row[0]
                for row in db.execute(
                    "SELECT resource_id FROM audit_events WHERE action = 'sandbox.create'"
                )
            }
        created = self.ledger.created
        if lost := created - rows.keys():
            some = sorted(lost)[:5]
            self.ledger.breaks(f"{len(lost)} of {len(created)} sandboxes have no row: {some}")
        if open_ := [id for id, at in rows.items() if at is None]:
            self.ledger.breaks(f"{len(open_)} rows of ended sandboxes are open: {open_[:5]}")
        if lost := created - audited:
            some = sorted(lost)[:5]
            self.ledger.breaks(f"{len(lost)} of {len(created)} creations are not audited: {some}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--pool", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause-seconds", type=float, nargs=2, default=[1.0, 5.0])
    parser.add_argument("--save", type=Path, help="write a JSON summary here")
    options = parser.parse_args()
    if reason := missing():
        print(f"SKIP: no soak can run here: {reason}")
        return 1
    soak = Soak(options)
    try:
        result = soak.run()
    finally:
        log = soak.server.log.read_text(errors="replace") if soak.server.log.exists() else ""
        if soak.server.process and soak.server.process.poll() is None:
            soak.server.stop()
    text = json.dumps(result, indent=2)
    if options.save:
        options.save.write_text(text + "\n")
        options.save.with_suffix(".log").write_text(log)
    print(text)
    verdict = "FAILED" if result["broken_count"] else "passed"
    print(f"soak {verdict}: {result['broken_count']} broken promises, seed {options.seed}")
    shutil.rmtree(soak.server.data_dir.parent, ignore_errors=True)
    return 1 if result["broken_count"] else 0


if __name__ == "__main__":
    sys.exit(main())
