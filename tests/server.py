"""A real server for a test: the built binary, a free port, a data directory of its own.

Owns: starting, waiting for the address line, reading the credentials, stopping, and counting what
is left on the machine. Does not own any assertion about behaviour.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
import weakref
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = Path(os.environ.get("CROWNEST_TEMPLATES_DIR", "/var/lib/crownest/templates"))
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 40


def binary() -> Path:
    """The program under test: CROWNEST_BIN, else the newest build in target/."""
    if path := os.environ.get("CROWNEST_BIN"):
        return Path(path)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / profile / "crownest" for profile in ("debug", "release")]
    built = [path for path in built if path.exists()]
    if not built:
        raise RuntimeError("crownest is not built: cargo build -p crownest-cli")
    return max(built, key=lambda path: path.stat().st_mtime)


def missing() -> str | None:
    """Why no server can run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not (TEMPLATES / "python" / "current" / "rootfs").exists():
        return "template python is not built (crownest template build python)"
    return None


class Server:
    """One `crownest serve`. Use as a context manager, or start() and stop()."""

    # For the report of a test that fails: what they had to say.
    known: ClassVar[weakref.WeakSet[Server]] = weakref.WeakSet()

    def __init__(self, data_dir: Path, *options: str, env: dict[str, str] | None = None):
        self.data_dir = data_dir
        self.options = options
        self.env = env or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.known.add(self)

    def start(self, listen: str = "127.0.0.1:0") -> "Server":
        command = [str(binary()), "serve", "--listen", listen, "--data-dir", str(self.data_dir)]
        command += self.options
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **self.env}
            )
        self.url = self._first_line()
        self._await_ready()
        return self

    def _first_line(self) -> str:
        assert self.process and self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], START_SECONDS_MAX)
        line = self.process.stdout.readline().decode().strip() if ready else ""
        if not line.startswith("http://"):
            self.kill()
            raise RuntimeError(f"no address line but {line!r}; log:\n{self.tail()}")
        return line

    def _await_ready(self) -> None:
        """The socket listens before the server does: the first answer says that it is up."""
        import httpx

        httpx.get(self.url + "/healthz", timeout=START_SECONDS_MAX).raise_for_status()

    @property
    def credentials(self) -> dict[str, str]:
        return json.loads((self.data_dir / "credentials.json").read_text())

    @property
    def api_key(self) -> str:
        return self.credentials["apiKey"]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @classmethod
    def logs(cls) -> list[tuple[str, str]]:
        """The end of the log of each server that runs now."""
        running = [s for s in cls.known if s.process and s.process.poll() is None]
        return [(f"log of the server at {s.url}", s.tail()) for s in running if s.log.exists()]

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def children(self) -> dict[str, int]:
        """Pids of the supervisor's children by what they are: `spawner`, `server`."""
        assert self.process
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(stat[1]) == self.process.pid and len(arguments) > 1:
                found[arguments[1].decode()] = int(entry.name)
        return found

    def stop(self) -> int:
        """Asks it to stop; the exit status."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        finally:
            self.kill()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self.process
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        try:
            self.destroy_sandboxes()
        finally:
            self.stop()

    def destroy_sandboxes(self) -> None:
        """Sandboxes outlive the server by design; a test leaves none."""
        import httpx

        headers = {"authorization": f"Bearer {self.api_key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=30) as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                page = client.get("/v1/sandboxes", params={"limit": 500}).json()["data"]
                if not page:
                    return
                for sandbox in page:
                    client.delete(f"/v1/sandboxes/{sandbox['id']}")
