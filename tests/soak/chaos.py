"""Kills what a soak runs on, one thing at a time, and waits until everything works again.

Owns: choosing victims, killing them by pid, measuring how long it takes until a sandbox can be
made and used. Does not own: judging what clients see meanwhile (ledger.py).
"""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import httpx
from ledger import Ledger
from machine import Machine, alive, key_of, kill
from server import Server

# How often each is chosen, in relation to the others.
WEIGHTS = {
    "server": 20,
    "spawner": 20,
    "zygote": 15,
    "init": 15,
    "kernel": 20,
    "spawner stopped": 5,
    "init stopped": 5,
    "supervisor": 3,
    "restart": 3,
}
# What may still be chosen in the calm part at the end, so that the others grow old.
CALM = ("zygote", "init", "kernel")
RECOVERY_SECONDS_MAX = 30
STOPPED_SECONDS = (0.2, 3.0)
PROBE_TIMEOUT_SECONDS = 40
LOOK_SECONDS = 0.01


class Chaos(threading.Thread):
    """One thread that kills, from the start until told to stop."""

    def __init__(self, server: Server, ledger: Ledger, seed: int, pause: tuple[float, float]):
        super().__init__(name="chaos")
        self.server = server
        self.ledger = ledger
        self.random = random.Random(seed)
        self.pause = pause
        self.machine = Machine(server)
        self.over = threading.Event()
        self.calm = False

    def run(self) -> None:
        try:
            while not self.over.wait(self.random.uniform(*self.pause)):
                names = [n for n in WEIGHTS if not self.calm or n in CALM]
                victim = self.random.choices(names, [WEIGHTS[n] for n in names])[0]
                self.strike(victim)
        except BaseException as error:
            self.ledger.breaks(f"the chaos thread ended: {error!r}")
            raise

    def strike(self, victim: str) -> None:
        act = getattr(self, f"kill_{victim}".replace(" ", "_"))
        window = self.ledger.open(victim)
        act()
        self.await_service(victim)
        self.ledger.close(window)

    def await_service(self, victim: str) -> None:
        """Until a sandbox can be made, used and ended again."""
        end = time.monotonic() + RECOVERY_SECONDS_MAX
        last = ""
        while time.monotonic() < end:
            try:
                last = self.probe()
            except httpx.TransportError as error:
                last = repr(error)
            if not last:
                return
            time.sleep(LOOK_SECONDS)
        self.ledger.breaks(f"{victim}: no service within {RECOVERY_SECONDS_MAX} s: {last}")

    def probe(self) -> str:
        """Empty when all is well."""
        headers = {"authorization": f"Bearer {self.server.api_key}"}
        with httpx.Client(
            base_url=self.server.url,
            headers=headers,
            timeout=PROBE_TIMEOUT_SECONDS,
            trust_env=False,
        ) as client:
            made = client.post("/v1/sandboxes", json={"ttlMs": 60_000})
            if made.status_code != 201:
                return made.text
            sandbox = made.json()["sandbox"]["id"]
            with self.ledger.lock:
                self.ledger.created.add(sandbox)
            run = client.post(
                f"/v1/sandboxes/{sandbox}/code/runs", json={"code": "6*7", "language": "python"}
            )
            gone = client.delete(f"/v1/sandboxes/{sandbox}")
            if run.status_code != 200 or gone.status_code != 200:
                return run.text + gone.text
            outputs = run.json()["run"]["outputs"]
            return "" if outputs and outputs[0]["value"] == "42" else run.text

    # -- victims

    def child(self, name: str) -> None:
        pid = self.server.children().get(name)
        if pid is None:
            return
        try:
            kill(pid)
        except ProcessLookupError:
            return
        while alive(pid):
            time.sleep(LOOK_SECONDS)

    def kill_restart(self) -> None:
        """As an operator does it, in order."""
        if code := self.server.stop():
            self.ledger.breaks(f"a stop by SIGTERM ended with {code}")
        self.server.start(self.address())

    def kill_supervisor(self) -> None:
        self.server.kill()
        self.server.start(self.address())

    def address(self) -> str:
        return self.server.url.removeprefix("http://")

    def kill_server(self) -> None:
        self.child("server")

    def kill_spawner(self) -> None:
        self.child("spawner")

    def kill_zygote(self) -> None:
        for pid in self.machine.zygotes()[:1]:
            try:
                kill(pid)
            except ProcessLookupError:
                pass

    def kill_spawner_stopped(self) -> None:
        self.stopped(self.server.children().get("spawner"))

    def stopped(self, pid: int | None) -> None:
        if pid is None:
            return
        try:
            kill(pid, signal.SIGSTOP)
            time.sleep(self.random.uniform(*STOPPED_SECONDS))
            kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def home(self) -> str | None:
        with self.ledger.lock:
            homes = sorted(self.ledger.homes)
        return self.random.choice(homes) if homes else None

    def init_of(self, home: str | None) -> int | None:
        try:
            return self.machine.init(key_of(home)) if home else None
        except (AssertionError, OSError):
            return None

    def kill_init(self) -> None:
        home = self.home()
        pid = self.init_of(home)
        if home and pid and self.ledger.doom(home):
            try:
                kill(pid)
            except ProcessLookupError:
                pass

    def kill_init_stopped(self) -> None:
        self.stopped(self.init_of(self.home()))

    def kill_kernel(self) -> None:
        home = self.home()
        inside = self.ledger.doom_context(home) if home else None
        if not home or inside is None:
            return
        for pid in self.machine.processes(f"{key_of(home)}."):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                if int(status.split("NSpid:")[1].splitlines()[0].split()[-1]) == inside:
                    kill(pid)
            except (OSError, IndexError):
                continue

