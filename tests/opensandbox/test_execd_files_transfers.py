"""Content of files: upload, download, ranges, lines, replacement."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from execd_files import BOUNDARY, Files, multipart, opened, part, refused
from server import Server

MIB = 1 << 20


@pytest.fixture(scope="module")
def files(server: Server) -> Iterator[Files]:
    with opened(server) as files:
        yield files


def test_many_files_come_in_one_chunked_body(files: Files) -> None:
    content = {f"/tmp/up/{i}/f": os.urandom(i * 1_111) for i in range(30)}
    body = multipart(*content.items())

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 777):
            yield body[start : start + 777]

    answer = files.send(pieces())
    assert (answer.status_code, answer.content) == (200, b""), answer.text
    assert all(files.read(path) == value for path, value in content.items())


def test_large_files_come_and_go_whole(files: Files) -> None:
    block = os.urandom(MIB)

    def pieces() -> Iterator[bytes]:
        whole = multipart(("/tmp/large", b"here"))
        before, after = whole.split(b"here")
        yield before
        for _ in range(64):
            yield block
        yield after

    assert files.send(pieces()).status_code == 200
    assert files.info("/tmp/large")["size"] == 64 * MIB
    assert files.read("/tmp/large") == block * 64
    files.shell("rm /tmp/large")


def test_what_looks_like_the_end_is_content(files: Files) -> None:
    tricky = b"\r\n--the-boundar\r\n--\r\n\r\r\n-" + b"\r\n--the-bounda" * 1_000
    for content in (tricky, b"", b"\r\n", b"-", b"\r\n--" + b"x" * 40_000):
        files.write("/tmp/tricky", content)
        assert files.read("/tmp/tricky") == content


def test_modes_of_uploads(files: Files) -> None:
    files.write("/tmp/modes/new", mode=600)
    assert files.info("/tmp/modes/new")["mode"] == 600
    files.write("/tmp/modes/new", b"2", mode=755)
    assert files.info("/tmp/modes/new")["mode"] == 755
    files.shell("chmod 640 /tmp/modes/new")
    files.write("/tmp/modes/new", b"3", owner="user", group=None)
    assert files.info("/tmp/modes/new")["mode"] == 640, "nothing was said about the mode"
    files.write("/tmp/modes/other")
    assert files.info("/tmp/modes/other")["mode"] == 755
    answer = files.upload(({"path": "/tmp/modes/no", "mode": 644, "owner": "root"}, b""))
    refused(answer, 501, "NOT_SUPPORTED")
    assert not files.exists("/tmp/modes/no")


def test_an_upload_through_a_link_changes_what_it_leads_to(files: Files) -> None:
    files.write("/tmp/link/target", b"old")
    files.shell("ln -s target /tmp/link/name")
    files.write("/tmp/link/name", b"new", mode=644)
    assert files.read("/tmp/link/target") == b"new"
    assert files.list("/tmp/link")[0]["type"] == "symlink"


def test_uploads_that_are_not_what_they_say(files: Files) -> None:
    end = f"--{BOUNDARY}--\r\n".encode()
    good = part("metadata", b'{"path":"/tmp/bad"}', "m")
    for body, code in [
        (b"", "INVALID_FILE_CONTENT"),
        (b"garbage", "INVALID_FILE_CONTENT"),
        (b"x" * MIB, "INVALID_FILE_CONTENT"),
        (end, "INVALID_FILE"),
        (good + end, "INVALID_FILE"),
        (good + good + end, "INVALID_FILE"),
        (part("file", b"x") + end, "INVALID_FILE"),
        (multipart((b"{", b"x")), "INVALID_FILE_METADATA"),
        (multipart((b"[]", b"x")), "INVALID_FILE_METADATA"),
        (multipart((b'{"path":""}', b"x")), "INVALID_REQUEST_BODY"),
        (multipart((b'{"path":"/tmp/a\\u0000b"}', b"x")), "INVALID_REQUEST_BODY"),
        (multipart((b'{"path":"/tmp/bad","mode":999}', b"x")), "INVALID_FILE_METADATA"),
        (multipart((b'{"path":"/tmp/bad","mode":-1}', b"x")), "INVALID_FILE_METADATA"),
        (multipart((b" " * 70_000 + b"{}", b"x")), "INVALID_FILE_METADATA"),
        (multipart(("/tmp/bad", b"x"))[:-30], "INVALID_FILE_CONTENT"),
        (part("metadata", b"{}", "m" * 20_000) + end, "INVALID_FILE_CONTENT"),
    ]:
        refused(files.send(body), 400, code)
        assert not files.exists("/tmp/bad"), body[:100]
    wrong = files.client.post("/files/upload", json={})
    refused(wrong, 400, "INVALID_FILE_CONTENT")
    assert files.shell("ls -A /tmp | grep crownest-write || true") == ""


def test_files_before_one_that_fails_stay(files: Files) -> None:
    answer = files.upload(("/tmp/first", b"1"), ("/etc/second", b"2"), ("/tmp/third", b"3"))
    refused(answer, 403, "PERMISSION_DENIED")
    assert files.read("/tmp/first") == b"1" and not files.exists("/tmp/third")


def test_ranges(files: Files) -> None:
    files.write("/tmp/digits", b"0123456789")
    whole = files.download("/tmp/digits")
    assert whole.headers["content-disposition"].startswith('attachment; filename="digits"')
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["content-length"] == "10"
    for range, expected, shown in [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=0-999", b"0123456789", "bytes 0-9/10"),
        ("bytes=1-1,5-6", b"1", "bytes 1-1/10"),
    ]:
        answer = files.download("/tmp/digits", range=range)
        assert (answer.status_code, answer.content) == (206, expected), range
        assert answer.headers["content-range"] == shown
    for range in (
        "bytes=10-",
        "bytes=5-4",
        "bytes=x-",
        "bytes",
        "lines=1-2",
        "bytes=-0",
    ):
        answer = files.download("/tmp/digits", range=range)
        refused(answer, 416, "INVALID_FILE_CONTENT")
        assert answer.headers["content-range"] == "bytes */10"


def test_lines(files: Files) -> None:
    files.write("/tmp/lines", b"one\ntwo\n\nfour\nfive\n")
    for query, expected in [
        ({"offset": 1}, b"one\ntwo\n\nfour\nfive"),
        ({"offset": 2, "limit": 1}, b"two"),
        ({"limit": 3}, b"one\ntwo\n"),
        ({"offset": 4, "limit": 9}, b"four\nfive"),
        ({"offset": 6}, b""),
        ({"offset": 99, "limit": 9}, b""),
    ]:
        answer = files.download("/tmp/lines", **query)
        assert (answer.status_code, answer.content) == (200, expected), query
        assert answer.headers["content-type"].startswith("text/plain")
    for query in ({"offset": 0}, {"limit": 0}, {"offset": -1}, {"limit": "x"}):
        refused(files.download("/tmp/lines", **query), 400, "INVALID_REQUEST_BODY")
    both = files.download("/tmp/lines", range="bytes=0-1", offset=1)
    refused(both, 400, "INVALID_REQUEST_BODY")
    long = b"".join(b"%d\n" % i for i in range(300_000))
    files.write("/tmp/long", long)
    assert files.download("/tmp/long", offset=299_999, limit=5).content == b"299998\n299999"
    assert files.download("/tmp/long", offset=1).content == long[:-1]


def test_downloads_that_are_none(files: Files) -> None:
    refused(files.download("/tmp/none"), 404, "FILE_NOT_FOUND")
    refused(files.download("/tmp"), 400, "INVALID_FILE")
    refused(files.client.get("/files/download"), 400, "MISSING_QUERY")
    refused(files.client.post("/files/download"), 405, "method_not_allowed")


def test_replacing_text(files: Files) -> None:
    files.write("/tmp/r/a", b"one two one", mode=640)
    files.write("/tmp/r/b", b"nothing")
    body = {
        "/tmp/r/a": {"old": "one", "new": "1"},
        "/tmp/r/b": {"old": "x", "new": "y"},
    }
    plain = files.client.post("/files/replace", json=body)
    assert (plain.status_code, plain.content) == (200, b"")
    assert plain.headers["content-length"] == "0"
    assert files.read("/tmp/r/a") == b"1 two 1" and files.read("/tmp/r/b") == b"nothing"
    assert files.info("/tmp/r/a")["mode"] == 640
    body = {
        "/tmp/r/a": {"old": "1", "new": "one\n"},
        "/tmp/r/b": {"old": "x", "new": "y"},
    }
    told = files.client.post("/files/replace", params={"verbose": "true"}, json=body)
    assert told.json() == {
        "/tmp/r/a": {"replacedCount": 2},
        "/tmp/r/b": {"replacedCount": 0},
    }
    for body, status, code in [
        ({"/tmp/r/a": {"old": "", "new": "x"}}, 400, "INVALID_REQUEST_BODY"),
        ({"/tmp/r/a": {"old": "x"}}, 400, "INVALID_REQUEST_BODY"),
        ({"/tmp/r/none": {"old": "x", "new": "y"}}, 404, "FILE_NOT_FOUND"),
        ({"/tmp/r": {"old": "x", "new": "y"}}, 400, "INVALID_FILE"),
        ({"/etc/passwd": {"old": "root", "new": "user"}}, 403, "PERMISSION_DENIED"),
        ({"/tmp/r/a": {"old": "x" * 70_000, "new": ""}}, 400, "INVALID_REQUEST_BODY"),
    ]:
        refused(files.client.post("/files/replace", json=body), status, code)


def test_replacing_in_a_large_file(files: Files) -> None:
    content = (b"x" * 99_990 + b"needle\n\n\n\n") * 200
    files.write("/tmp/hay", content)
    answer = files.client.post(
        "/files/replace?verbose=true",
        json={"/tmp/hay": {"old": "needle", "new": "pin"}},
    )
    assert answer.json() == {"/tmp/hay": {"replacedCount": 200}}
    assert files.read("/tmp/hay") == content.replace(b"needle", b"pin")
    files.shell("rm /tmp/hay")
