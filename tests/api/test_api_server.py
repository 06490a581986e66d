"""The program itself: how it starts, where it looks for options, how it stops, what a
restart keeps. What a crash keeps: ../recovery."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from rest import (
    Sandbox,
    connect,
    events,
    new_key,
    open_directory,
    refusal,
    text,
    until,
    waiting_for,
)
from server import Server, binary, missing

EXIT_CONFIGURATION = 78
REFUSED_SECONDS_MAX = 20


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.fixture
def serve(directory: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test, sandboxes included."""
    if reason := missing():
        pytest.skip(reason)
    made: list[Server] = []

    def start(*options: str, data: str = "data", env: dict[str, str] | None = None) -> Server:
        made.append(Server(directory / data, "--pool", "0", *options, env=env))
        return made[-1].start()

    yield start
    # Sandboxes outlive a server that was killed: whoever serves its directory next ends them.
    last = {server.data_dir: server for server in made}
    for server in last.values():
        if not (server.data_dir / "credentials.json").exists():
            server.stop()
            continue
        if server.process and server.process.poll() is not None:
            server.start()
        server.destroy_sandboxes()
        server.stop()


def refuses(*arguments: str, env: dict[str, str] | None = None) -> str:
    """A start that must fail at once, with one plain sentence; gives what it said."""
    command = [str(binary()), "serve", *arguments]
    if "--listen" not in arguments:
        command += ["--listen", "127.0.0.1:0"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=REFUSED_SECONDS_MAX,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode not in (0, -signal.SIGKILL), done.stderr
    assert "panicked" not in done.stderr and "http://" not in done.stdout
    return done.stderr


# -- starting


def test_the_first_line_is_the_address_and_the_key_is_shown_once(serve, directory):
    server = serve()
    assert server.url == f"http://127.0.0.1:{server.port}" and server.port > 0
    assert server.process and server.process.stdout
    shown = server.process.stdout.readline().decode()
    assert server.api_key in shown and "once" in shown
    assert httpx.get(server.url + "/healthz", trust_env=False).status_code == 200
    with connect(server) as client:
        assert client.get("/v1/sandboxes").status_code == 200
    # A second start shows no secret: nobody could know it any more.
    server.stop()
    again = serve()
    again.stop()
    assert again.process and server.api_key not in again.tail()


def test_credentials_are_for_the_owner_alone(serve):
    server = serve()
    path = server.data_dir / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(server.credentials) >= {"apiKey", "apiUrl", "orgId", "projectId"}
    assert server.credentials["apiUrl"] == server.url
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    # The secret is nowhere else: not in the database, not in the log.
    for file in server.data_dir.rglob("*"):
        if file.is_file() and file != path:
            assert server.api_key.encode() not in file.read_bytes(), file
    assert server.api_key not in server.log.read_text()


def test_no_credentials_file_when_asked(serve):
    server = serve("--no-credentials-file")
    assert not (server.data_dir / "credentials.json").exists()
    assert server.process and server.process.stdout
    key = server.process.stdout.readline().decode().rsplit(" ", 1)[1].strip()
    with connect(server, key) as client:
        assert client.get("/v1/sandboxes").json()["data"] == []


def test_options_come_from_file_environment_and_flags_in_that_order(serve, directory):
    config = directory / "crownest.toml"
    config.write_text("metrics = false\ndefault_template = 'python'\nsandbox_env = ['FROM=file']\n")

    def metrics(server: Server) -> int:
        status = httpx.get(server.url + "/metrics", trust_env=False).status_code
        server.stop()
        return status

    assert metrics(serve("--config", str(config), data="a")) == 404
    by_variable = {"CROWNEST_CONFIG": str(config)}
    assert metrics(serve(data="b", env=by_variable)) == 404
    assert metrics(serve(data="c", env=by_variable | {"CROWNEST_METRICS": "true"})) == 200
    stronger = by_variable | {"CROWNEST_METRICS": "true"}
    assert metrics(serve("--metrics", "false", data="d", env=stronger)) == 404


def test_the_sandbox_environment_of_the_operator_is_under_that_of_the_request(serve):
    server = serve("--sandbox-env", "A=operator,B=operator")
    with connect(server) as client:
        sandbox = Sandbox.create(client, env={"B": "request"})
        printed = sandbox.command('printf %s "$A $B"')["stdout"]
        assert printed == "operator request"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "300.0.0.1:1"], "300.0.0.1"),
        (["--memory-mib", "0"], "limit"),
        (["--egress-allow", "not a host"], "egress"),
        (["--user", "nobody-of-that-name"], "nobody-of-that-name"),
        (["--user", "0:0"], "root"),
        (["--ca-certificates", "/nowhere.pem"], "/nowhere.pem"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
        (["--sandbox-env", "CROWNEST_X=1"], "CROWNEST_X"),
        (["--database-url", "mysql://x"], "database"),
        (["--poool", "1"], "--poool"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_work_is_said_at_the_start(directory, options, said):
    assert said in refuses("--data-dir", str(directory / "data"), *options)


def test_unknown_keys_of_the_file_are_said(directory):
    config = directory / "crownest.toml"
    config.write_text("poool = 1\n")
    assert "poool" in refuses("--data-dir", str(directory / "data"), "--config", str(config))


def test_a_directory_that_the_server_cannot_enter_is_named(directory):
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    assert str(closed) in refuses("--data-dir", str(closed / "data"))


def test_a_port_that_is_taken_is_named(serve, directory):
    server = serve()
    taken = server.url.removeprefix("http://")
    assert taken in refuses("--data-dir", str(directory / "other"), "--listen", taken)


def test_a_data_directory_has_one_server(serve):
    server = serve()
    said = refuses("--data-dir", str(server.data_dir))
    assert str(server.data_dir) in said and "in use" in said
    assert httpx.get(server.url + "/readyz", trust_env=False).status_code == 200


def test_servers_side_by_side_have_nothing_in_common(serve):
    one, two = serve(data="one"), serve(data="two")
    with connect(one) as first, connect(two) as second:
        a, b = Sandbox.create(first), Sandbox.create(second)
        for sandbox, word in ((a, "one"), (b, "two")):
            assert sandbox.command(f"echo {word} > mine; cat mine")["stdout"] == f"{word}\n"
        refusal(second.get(a.path), 404, "not_found")
        refusal(
            httpx.get(two.url + a.path, headers=first.headers, trust_env=False),
            401,
            "invalid_api_key",
        )
        one.destroy_sandboxes()
        one.stop()
        assert b.read("mine").json()["content"] == "two\n", "the end of one is nothing to the other"


# -- stopping


def test_it_stops_when_asked_and_leaves_no_process(serve):
    server = serve()
    with connect(server) as client:
        sandbox = Sandbox.create(client)
        sandbox.command("true")
        sandbox.kill()
    pids = [server.process.pid, *server.children().values()]
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 5, "there was nothing to wait for"
    until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of its processes"
    )


def test_stopping_under_load_leaves_no_half_answer(serve):
    """Every request is answered whole, refused in the envelope, or never accepted."""
    server = serve()
    wrong: list[str] = []
    counts = {"whole": 0, "refused": 0}
    stopping = threading.Event()

    def work(sandbox: Sandbox) -> None:
        with connect(server) as client:
            mine = Sandbox(client, sandbox.record)
            while True:
                try:
                    response = mine.ask("print('x' * 10_000)\n1 + 1")
                    body = response.json()
                except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as error:
                    # The connection ended between requests, or was never taken.
                    if not stopping.is_set() or "peer closed connection without" in str(error):
                        wrong.append(f"{error!r}")
                    return
                if response.status_code == 200:
                    if "".join(body["run"]["stdout"]) != "x" * 10_000 + "\n":
                        wrong.append("a result with a hole")
                    counts["whole"] += 1
                elif response.status_code == 503 and body["error"]["code"] == "unavailable":
                    counts["refused"] += 1
                    return
                else:
                    wrong.append(response.text[:200])
                    return

    with connect(server) as client:
        sandboxes = [Sandbox.create(client) for _ in range(4)]
        threads = [threading.Thread(target=work, args=(s,)) for s in sandboxes for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: counts["whole"] > 20, "some load")
        stopping.set()
        assert server.stop() == 0
        for thread in threads:
            thread.join()
    assert not wrong, wrong
    again = serve()
    again.destroy_sandboxes()


def test_stopping_ends_a_stream_with_a_reason_and_keeps_the_sandbox(serve):
    server = serve()
    with connect(server) as client:
        sandbox = Sandbox.create(client)
        sandbox.run("kept = 1")
        with sandbox.streaming(f"print('on')\n{waiting_for('never')}") as response:
            arriving = events(response.iter_lines())
            assert next(arriving)["data"] == "on\n"
            stopped = threading.Thread(target=server.stop)
            stopped.start()
            try:
                rest = list(arriving)
            except httpx.RemoteProtocolError:
                rest = None
            stopped.join()
    # A body that ends well without a last event would pass for a run that said nothing more.
    assert rest is None or (rest and rest[-1]["type"] == "error"), rest
    if rest:
        assert "stopping" in rest[-1]["data"]["message"]
    again = serve()
    with connect(again) as client:
        assert Sandbox(client, sandbox.record).value("kept", timeoutMs=20_000) == "1"


# -- restarting


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_restart_keeps_sandboxes_variables_files_and_keys(serve, how):
    server = serve()
    with connect(server) as client:
        key = new_key(server, server.credentials["orgId"], "code:run")
        sandbox = Sandbox.create(client, metadata={"n": "1"})
        context = sandbox.context()
        sandbox.run("x = ['kept']; import itertools; count = itertools.count(7); next(count)")
        sandbox.run("y = 'own'", contextId=context)
        sandbox.write("file", "kept")
        first = sandbox.ask("open('ran', 'a').write('x'); 'once'", {"idempotency-key": "k"})
    getattr(server, how)()
    again = serve()
    assert again.api_key == server.api_key
    with connect(again) as client:
        same = Sandbox(client, sandbox.record)
        assert same.get()["metadata"] == {"n": "1"} and same.get()["status"] != "destroyed"
        run = same.run("x.append(1); (x, next(count))")
        assert text(run) == "(['kept', 1], 8)" and "contextReset" not in run
        assert same.value("y", contextId=context) == "own"
        assert same.read("file").json()["content"] == "kept"
        replay = same.ask("open('ran', 'a').write('x'); 'once'", {"idempotency-key": "k"})
        assert replay.json() == first.json() and same.read("ran").json()["content"] == "x"
        fresh = Sandbox.create(client)
        assert fresh.value("1+1") == "2"
    with connect(again, key) as limited:
        assert Sandbox(limited, sandbox.record).value("len(x)") == "2"
