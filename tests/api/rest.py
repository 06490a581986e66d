"""The REST API as a test sees it: sandboxes, runs, streams of events, keys made on the machine.

Owns: talking HTTP and checking that an answer has the shape that every caller needs. Does not own
any assertion about what the product should do.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from server import Server, binary

Json = dict[str, Any]

CALL_SECONDS_MAX = 120
WAIT_SECONDS_MAX = 30
# How often a condition is looked at while a test waits for it.
LOOK_SECONDS = 0.02
NEIGHBOUR_SECONDS_MAX = 1.0


def connect(server: Server, key: str | None = None, **options: Any) -> httpx.Client:
    """A client of the server; without a key it has that of the first start."""
    headers = {"authorization": f"Bearer {key or server.api_key}"}
    return httpx.Client(
        base_url=server.url, headers=headers, timeout=CALL_SECONDS_MAX, trust_env=False, **options
    )


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that the server's user may enter, which pytest's own are not; gone after."""
    path = Path(tempfile.mkdtemp(prefix="crownest-test-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS_MAX) -> Any:
    """The first true value of `condition`; fails when there is none before the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(LOOK_SECONDS)
    return value


def refusal(response: httpx.Response, status: int, code: str) -> Json:
    """Checks that an answer is that refusal, in the envelope; gives its error."""
    assert response.headers["content-type"] == "application/json", response.text
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    assert error["message"] and error["requestId"] == response.headers["x-request-id"]
    return error


def usage_of(server: Server, resource: str, metric: str) -> Callable[[], int]:
    """Asks the store how much of a metric was written down for a resource."""

    def used() -> int:
        with closing(sqlite3.connect(server.data_dir / "crownest.db")) as database:
            query = "SELECT SUM(amount) FROM usage_events WHERE resource_id = ? AND metric = ?"
            return database.execute(query, (resource, metric)).fetchone()[0] or 0

    return used


def events(lines: Iterator[str]) -> Iterator[Json]:
    """The events of a stream as they arrive."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


class Sandbox:
    """One sandbox and what can be asked of it."""

    def __init__(self, client: httpx.Client, record: Json):
        self.client = client
        self.record = record
        self.id: str = record["id"]
        self.path = f"/v1/sandboxes/{self.id}"

    @classmethod
    def create(cls, client: httpx.Client, **fields: Any) -> Sandbox:
        response = client.post("/v1/sandboxes", json=fields)
        assert response.status_code == 201, response.text
        return cls(client, response.json()["sandbox"])

    def kill(self) -> Json:
        response = self.client.delete(self.path)
        assert response.status_code == 200, response.text
        return response.json()["sandbox"]

    def get(self) -> Json:
        response = self.client.get(self.path)
        assert response.status_code == 200, response.text
        return response.json()["sandbox"]

    # -- code

    def ask(
        self, code: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        """A run, whatever the answer is."""
        body = {"code": code, "language": "python", **fields}
        return self.client.post(f"{self.path}/code/runs", json=body, headers=headers)

    def run(self, code: str, **fields: Any) -> Json:
        """The result of a run that the server accepts."""
        response = self.ask(code, **fields)
        assert response.status_code == 200, response.text
        return response.json()["run"]

    def out(self, code: str, **fields: Any) -> str:
        """What code prints that must not fail."""
        run = self.run(code, **fields)
        assert run["outcome"] == "completed" and "error" not in run, run
        return "".join(run["stdout"])

    def value(self, code: str, **fields: Any) -> str:
        """Text of the last expression of code that must not fail."""
        run = self.run(code, **fields)
        assert run["outcome"] == "completed" and "error" not in run, run
        return text(run)

    @contextmanager
    def streaming(
        self, code: str, headers: dict[str, str] | None = None, **fields: Any
    ) -> Iterator[httpx.Response]:
        body = {"code": code, "language": "python", **fields}
        request = self.client.stream(
            "POST", f"{self.path}/code/runs/stream", json=body, headers=headers
        )
        with request as response:
            yield response

    def stream(self, code: str, **fields: Any) -> list[Json]:
        """All events of a streamed run."""
        with self.streaming(code, **fields) as response:
            assert response.status_code == 200, response.read()
            return list(events(response.iter_lines()))

    def context(self, **fields: Any) -> str:
        """Id of a new context."""
        body = {"language": "python", **fields}
        response = self.client.post(f"{self.path}/code/contexts", json=body)
        assert response.status_code == 201, response.text
        return response.json()["context"]["id"]

    def interrupt(self, context: str) -> bool:
        response = self.client.post(f"{self.path}/code/contexts/{context}/interrupt")
        assert response.status_code == 200, response.text
        return response.json()["interrupted"]

    # -- commands and files

    def command(self, command: str, **fields: Any) -> Json:
        body = {"command": command, **fields}
        response = self.client.post(f"{self.path}/commands/run", json=body)
        assert response.status_code == 200, response.text
        return response.json()["command"]

    def write(self, path: str, content: str, **fields: Any) -> httpx.Response:
        body = {"path": path, "content": content, **fields}
        return self.client.put(f"{self.path}/files", json=body)

    def read(self, path: str, **query: str) -> httpx.Response:
        return self.client.get(f"{self.path}/files/read", params={"path": path, **query})

    def signal(self, name: str) -> None:
        """Lets code go on that waits for that file; see [`waiting_for`]."""
        response = self.write(name, "")
        assert response.status_code == 200, response.text


def waiting_for(name: str) -> str:
    """Python that goes on when the test says so."""
    return (
        "import os as _os, time as _time\n"
        f"while not _os.path.exists('/workspace/{name}'): _time.sleep(0.005)\n"
    )


def text(run: Json) -> str:
    """Text of the value of a run's last expression."""
    values = [o["value"] for o in run["outputs"] if o.get("isResult") and o["format"] == "text"]
    assert len(values) == 1, run["outputs"]
    return values[0]


def inline(run: Json, format: str) -> list[Any]:
    """The run's inline outputs of one format."""
    found = [o for o in run["outputs"] if o["format"] == format]
    assert all(o["kind"] == "inline" for o in found), found
    return [o["value"] for o in found]


@contextmanager
def unbothered(neighbour: Sandbox) -> Iterator[None]:
    """While the block runs, another sandbox answers `1+1` again and again, each time in time."""
    assert neighbour.value("1+1") == "2"
    done = threading.Event()
    took: list[float] = []
    wrong: list[BaseException] = []

    def ask() -> None:
        with httpx.Client(
            base_url=neighbour.client.base_url,
            headers=neighbour.client.headers,
            timeout=CALL_SECONDS_MAX,
            trust_env=False,
        ) as client:
            other = Sandbox(client, neighbour.record)
            while not done.is_set() or not took:
                started = time.monotonic()
                try:
                    assert other.value("1+1") == "2"
                except BaseException as error:
                    wrong.append(error)
                    return
                took.append(time.monotonic() - started)
                done.wait(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not wrong, wrong
    assert max(took) < NEIGHBOUR_SECONDS_MAX, f"a neighbour waited {max(took):.2f} s"


@dataclass(frozen=True)
class Organization:
    id: str
    user_id: str
    project_id: str


def admin(server: Server, *arguments: str) -> str:
    """`crownest admin …` on the server's data directory; what it printed."""
    command = [str(binary()), "admin", "--data-dir", str(server.data_dir), *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CROWNEST_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=CALL_SECONDS_MAX, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def new_organization(server: Server, name: str) -> Organization:
    words = admin(server, "org", "create", name).split()
    found = dict(zip(words[::2], words[1::2], strict=True))
    return Organization(found["organization"], found["user"], found["project"])


def new_key(server: Server, org: str, *scopes: str, projects: tuple[str, ...] = ()) -> str:
    """A key of that organization; without scopes it has all."""
    options: list[str] = ["--org", org]
    if scopes:
        options += ["--scope", ",".join(scopes)]
    if projects:
        options += ["--project", ",".join(projects)]
    return admin(server, "key", "create", *options, "test").split()[-1]


def revoke_key(client: httpx.Client, secret: str) -> None:
    """Ends another key of the client's organization."""
    keys = client.get("/v1/api-keys").json()["data"]
    (id,) = [key["id"] for key in keys if key["last4"] == secret[-4:]]
    response = client.delete(f"/v1/api-keys/{id}")
    assert response.is_success, response.text
