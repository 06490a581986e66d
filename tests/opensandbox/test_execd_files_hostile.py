"""Tenant code that prepares its files for whoever looks at them, and clients that ask for what is
not theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from execd_files import Files, multipart, opened, refused
from server import Server


@pytest.fixture
def files(server: Server) -> Iterator[Files]:
    with opened(server) as files:
        yield files


def alive(files: Files) -> None:
    assert files.sandbox.value("6*7") == "42"


def test_files_of_the_kernel_are_not_served(files: Files) -> None:
    for path in (
        "/proc/1/mem",
        "/proc/1/environ",
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
        "/proc/1/fd/0",
        "/proc",
        "/proc/1",
    ):
        for ask in (
            lambda p: files.download(p),
            lambda p: files.client.get("/files/info", params={"path": p}),
            lambda p: files.client.get("/directories/list", params={"path": p}),
            lambda p: files.client.delete("/directories", params={"path": p}),
            lambda p: files.client.post("/files/permissions", json={p: {"mode": 777}}),
            lambda p: files.upload((p, b"x")),
        ):
            answer = ask(path)
            assert answer.status_code in (400, 403, 404), (path, answer.text)
            assert b"PATH=" not in answer.content
    files.shell("ln -s /proc/1/environ /tmp/link && ln -s /proc /tmp/proc")
    assert files.download("/tmp/link").status_code in (400, 403)
    assert files.download("/tmp/proc/1/environ").status_code in (400, 403)
    answer = files.client.get("/files/search", params={"path": "/", "pattern": "environ"})
    assert answer.status_code == 200
    assert not [found for found in answer.json() if found["path"].startswith("/proc/")]
    assert int(answer.headers["crownest-directories-left-out"]) >= 1
    alive(files)


def test_what_the_tenant_may_not_do_is_not_done_for_them(files: Files) -> None:
    for path in (
        "/opt/crownest/python/driver.py",
        "/etc/passwd",
        "/usr/bin/env",
        "/new",
    ):
        refused(files.upload((path, b"x")), 403, "PERMISSION_DENIED")
        answer = files.client.post("/files/permissions", json={path: {"mode": 777}})
        assert answer.status_code in (403, 404), answer.text
        for mine in ("/tmp/mine", "/workspace/mine"):
            files.write(mine, b"x")
            assert files.move((mine, path)).status_code in (403, 500), path
            assert files.exists(mine)
    for path in ("/etc", "/usr/bin", "/opt/crownest", "/dev", "/"):
        answer = files.client.delete("/directories", params={"path": path})
        assert answer.status_code in (400, 403), (path, answer.text)
    refused(
        files.client.delete("/files", params={"path": "/etc/passwd"}),
        403,
        "PERMISSION_DENIED",
    )
    assert files.shell("head -c 4 /etc/passwd") == "root"
    alive(files)


def test_devices_pipes_and_sockets_are_not_opened(files: Files) -> None:
    files.shell("mkfifo /tmp/pipe")
    files.sandbox.out(
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/tmp/socket'); print()"
    )
    for path in (
        "/tmp/pipe",
        "/tmp/socket",
        "/dev/null",
        "/dev/zero",
        "/dev/random",
        "/dev/tty",
    ):
        info = files.client.get("/files/info", params={"path": path})
        assert info.status_code in (200, 404), info.text
        if info.status_code == 404:
            continue
        assert info.json()[path]["type"] == "other", path
        refused(files.download(path), 400, "INVALID_FILE")
        refused(files.upload((path, b"x")), 400, "INVALID_FILE")
        body = {path: {"old": "a", "new": "b"}}
        refused(files.client.post("/files/replace", json=body), 400, "INVALID_FILE")
    alive(files)


def test_sparse_files_do_not_cost_what_they_say(files: Files) -> None:
    files.shell("truncate -s 6E /tmp/sparse || truncate -s 1T /tmp/sparse")
    size = files.info("/tmp/sparse")["size"]
    assert size >= 1 << 40
    answer = files.download("/tmp/sparse", range=f"bytes={size - 5}-")
    assert (answer.status_code, answer.content) == (206, b"\0" * 5)
    body = {"/tmp/sparse": {"old": "a", "new": "b"}}
    refused(files.client.post("/files/replace", json=body), 400, "INVALID_FILE")
    request = files.client.stream("GET", "/files/download", params={"path": "/tmp/sparse"})
    with request as response:
        assert next(response.iter_raw())
    alive(files)


def test_names_that_nobody_would_choose(files: Files) -> None:
    long = "n" * 255
    names = ["a\nb", "é漢", " ", "-rf", "'\"", "\\", long, "a%2fb", "*", "[x", "#?&"]
    for name in names:
        files.write(f"/tmp/names/{name}", name.encode())
    listed = {entry["path"].removeprefix("/tmp/names/") for entry in files.list("/tmp/names")}
    assert listed == set(names)
    for name in names:
        assert files.read(f"/tmp/names/{name}") == name.encode()
    answer = files.client.delete("/files", params={"path": [f"/tmp/names/{n}" for n in names]})
    assert answer.status_code == 200 and files.list("/tmp/names") == []
    for path in (f"/tmp/{'n' * 256}", "/tmp/" + "d/" * 300 + "x", "/" + "x" * 5_000):
        assert files.client.get("/files/info", params={"path": path}).status_code == 400
        assert files.upload((path, b"")).status_code == 400
    files.sandbox.out("import os; open(b'/tmp/names/\\xff\\xfe', 'w').close(); print()")
    assert [entry["path"] for entry in files.list("/tmp/names")] == ["/tmp/names/\ufffd\ufffd"]
    assert files.client.delete("/directories", params={"path": "/tmp/names"}).status_code == 200
    assert not files.exists("/tmp/names")


def test_more_entries_than_a_listing_may_have(files: Files) -> None:
    files.shell("mkdir /tmp/many && cd /tmp/many && seq 6000 | xargs touch && mkdir d")
    files.shell("cd /tmp/many/d && seq 6000 | xargs touch")
    assert len(files.list("/tmp/many")) == 6_001
    query = {"path": "/tmp/many", "depth": 2}
    answer = files.client.get("/directories/list", params=query)
    assert "10000" in refused(answer, 400, "TOO_MANY_ENTRIES")
    answer = files.client.get("/files/search", params={"path": "/tmp/many"})
    refused(answer, 400, "TOO_MANY_ENTRIES")
    assert len(files.search("/tmp/many", "1*")) == 2 * 1_111
    assert files.client.delete("/directories", params={"path": "/tmp/many"}).status_code == 200
    alive(files)


def test_directories_that_cannot_be_read_are_counted(files: Files) -> None:
    files.shell("mkdir -p /tmp/closed/in/side && touch /tmp/closed/f && chmod 0 /tmp/closed/in")
    answer = files.client.get("/files/search", params={"path": "/tmp/closed"})
    assert [found["path"] for found in answer.json()] == ["/tmp/closed/f"]
    assert answer.headers["crownest-directories-left-out"] == "1"
    answer = files.client.get("/directories/list", params={"path": "/tmp/closed", "depth": 3})
    assert len(answer.json()) == 2 and answer.headers["crownest-directories-left-out"] == "1"
    refused(
        files.client.get("/directories/list", params={"path": "/tmp/closed/in"}),
        403,
        "PERMISSION_DENIED",
    )


RACE = """
import os, threading
os.makedirs('/tmp/race/real', exist_ok=True)
open('/tmp/race/real/x', 'w').write('mine')
os.makedirs('/tmp/victim/sub', exist_ok=True)
open('/tmp/victim/kept', 'w').write('kept')
stop = threading.Event()
def swap():
    while not stop.is_set():
        try:
            os.rename('/tmp/race/real', '/tmp/race/aside')
            os.symlink('/tmp/victim', '/tmp/race/real')
            os.unlink('/tmp/race/real')
            os.rename('/tmp/race/aside', '/tmp/race/real')
        except OSError:
            os.makedirs('/tmp/race/real', exist_ok=True)
thread = threading.Thread(target=swap)
thread.start()
"""


def test_links_that_come_and_go_are_never_followed_by_removal(files: Files) -> None:
    context = files.sandbox.context()
    files.sandbox.out(RACE, contextId=context)
    for _ in range(300):
        answer = files.client.delete("/directories", params={"path": "/tmp/race"})
        assert answer.status_code in (200, 400, 403, 404, 503), answer.text
        listed = files.client.get("/directories/list", params={"path": "/tmp/race", "depth": 3})
        assert listed.status_code in (200, 400, 404), listed.text
        if listed.status_code == 200:
            assert not [e for e in listed.json() if e["path"].endswith("passwd")]
    files.sandbox.out("stop.set(); thread.join()", contextId=context)
    assert files.read("/tmp/victim/kept") == b"kept", "a removal followed a link"
    alive(files)


def test_a_client_that_goes_leaves_nothing(files: Files) -> None:
    body = multipart(("/tmp/half", b"x" * 1_000_000))

    def half() -> Iterator[bytes]:
        yield body[:500_000]
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        files.send(half())
    alive(files)
    assert not files.exists("/tmp/half")
    gone = "until ! ls -A /tmp | grep -q crownest-write; do sleep 0.01; done"
    files.shell(f"timeout 20 bash -c '{gone}'")


def test_a_full_disk_is_told(files: Files) -> None:
    def pieces() -> Iterator[bytes]:
        before, after = multipart(("/tmp/huge", b"here")).split(b"here")
        yield before
        for _ in range(64 * 1024):
            yield bytes(1 << 20)
        yield after

    try:
        answer = files.send(pieces())
        assert answer.status_code in (413, 507), answer.text
    except OSError as gone:
        pytest.fail(f"no answer was read: {gone}")
    except Exception as error:
        # The server answers and closes while the body is still being sent.
        assert "write" in str(error).lower() or "broken" in str(error).lower(), error
    assert not files.exists("/tmp/huge")
    alive(files)


def test_many_at_a_time(files: Files) -> None:
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                path = f"/tmp/parallel/{number}/{turn}"
                files.write(path, path.encode() * 1_000)
                assert files.read(path) == path.encode() * 1_000
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[0]
    assert len(files.search("/tmp/parallel")) == 160
