"""A real S3 server for tests, which checks every signature, and a line to it that can be cut.

Owns: starting and stopping versitygw over a directory, looking at its objects, a proxy that holds
one answer back. Does not own any assertion about the product.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rest import until
from server import missing

ACCESS, SECRET, BUCKET = "crownest-test", "a secret of the tests", "objects"
START_SECONDS_MAX = 30
READ_BYTES = 65_536


class Gateway:
    """versitygw over a temporary directory, on a port that stays the same."""

    def __init__(self, directory: Path):
        self.directory = directory
        (directory / BUCKET).mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(program()), "--port", f"127.0.0.1:{self.port}"]
        command += ["--access", ACCESS, "--secret", SECRET, "--quiet", "posix"]
        command.append(str(self.directory))
        with open(self.directory.parent / "gateway.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self.answers, "the S3 server listens", START_SECONDS_MAX)

    def answers(self) -> bool:
        assert self.process and self.process.poll() is None, "the S3 server ended"
        try:
            # Without a signature it refuses, which is an answer.
            return httpx.get(self.url, trust_env=False).status_code == 403
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def objects(self) -> list[Path]:
        root = self.directory / BUCKET
        found = (path for path in root.rglob("*") if path.is_file())
        return [path for path in found if ".sgwtmp" not in path.parts]


def program() -> Path | None:
    beside = Path(sys.executable).parent / "versitygw"
    found = str(beside) if beside.exists() else shutil.which("versitygw")
    return Path(found) if found else None


@contextmanager
def opened_gateway() -> Iterator[Gateway]:
    """Skips where a gateway or a server cannot run."""
    if program() is None:
        print("SKIP: S3: versitygw is not installed", file=sys.__stderr__, flush=True)
        pytest.skip("versitygw is not installed (scripts/versitygw.sh)")
    if reason := missing():
        pytest.skip(reason)
    base = Path(tempfile.mkdtemp(prefix="crownest-s3-"))
    (base / "data").mkdir()
    gateway = Gateway(base / "data")
    gateway.start()
    yield gateway
    gateway.stop()
    shutil.rmtree(base, ignore_errors=True)


def options(url: str) -> list[str]:
    """Of a server that keeps its objects there; the secret is in ENVIRONMENT."""
    return [
        *("--pool", "0", "--s3-bucket", BUCKET, "--s3-endpoint", url),
        *("--s3-access-key-id", ACCESS),
    ]


ENVIRONMENT = {"CROWNEST_S3_SECRET_ACCESS_KEY": SECRET}


class Line:
    """A proxy in front of a gateway. When it is told to, it keeps the answer to one request: the
    gateway has done it, and nobody hears so."""

    def __init__(self, port: int):
        self.to = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.kept = threading.Event()
        self._keep: Callable[[bytes], bool] | None = None
        self._then: Callable[[], None] = lambda: None
        threading.Thread(target=self._accept, daemon=True).start()

    def keep(self, request: Callable[[bytes], bool], then: Callable[[], None]) -> None:
        """Keeps the answer to the next request whose first line is such a one, and calls `then`."""
        self.kept.clear()
        self._then, self._keep = then, request

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                gateway = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                client.close()
                continue
            state: dict[str, bool] = {}
            for ends in ((client, gateway, True), (gateway, client, False)):
                threading.Thread(target=self._pump, args=(*ends, state), daemon=True).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        asking: bool,
        state: dict[str, bool],
    ) -> None:
        try:
            while data := source.recv(READ_BYTES):
                if asking and self._keep and self._keep(data.split(b"\r\n", 1)[0]):
                    self._keep, state["kept"] = None, True
                if not asking and state.get("kept"):
                    self._then()
                    self.kept.set()
                    break
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
