"""What files and directories are, and how they change: info, mv, delete, permissions, listing,
search."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from execd_files import Files, opened, refused
from server import Server


@pytest.fixture(scope="module")
def files(server: Server) -> Iterator[Files]:
    with opened(server, env={"PLACE": "/tmp/place"}) as files:
        yield files


def test_info_says_everything_about_files_anywhere(files: Files) -> None:
    files.write("/tmp/info/a.txt", b"hello", mode=640)
    paths = ["/tmp/info/a.txt", "/etc/hostname", "/home/user", "/tmp"]
    answer = files.client.get("/files/info", params={"path": paths})
    assert answer.status_code == 200 and list(answer.json()) == sorted(paths)
    info = answer.json()["/tmp/info/a.txt"]
    times = [datetime.fromisoformat(info.pop(name)) for name in ("created_at", "modified_at")]
    assert info == {
        "path": "/tmp/info/a.txt",
        "type": "file",
        "size": 5,
        "owner": "user",
        "group": "user",
        "mode": 640,
    }
    assert all(abs(datetime.now(timezone.utc) - time) < timedelta(minutes=2) for time in times)
    other = answer.json()
    assert (other["/etc/hostname"]["owner"], other["/etc/hostname"]["type"]) == (
        "root",
        "file",
    )
    assert (other["/home/user"]["owner"], other["/home/user"]["type"]) == (
        "user",
        "directory",
    )
    assert other["/tmp"]["mode"] == 1777


def test_info_of_what_is_not_there(files: Files) -> None:
    query = {"path": ["/tmp", "/tmp/nothing"]}
    answer = files.client.get("/files/info", params=query)
    assert "/tmp/nothing" in refused(answer, 404, "FILE_NOT_FOUND")
    refused(files.client.get("/files/info"), 400, "MISSING_QUERY")
    many = "&".join(["path=/tmp"] * 1_001)
    refused(files.client.get(f"/files/info?{many}"), 400, "INVALID_REQUEST_BODY")


def test_homes_and_variables_are_expanded(files: Files) -> None:
    files.write("~/in-home.txt", b"home")
    assert files.read("/home/user/in-home.txt") == b"home"
    files.write("$PLACE/x", b"place")
    assert files.read("/tmp/place/x") == b"place"
    assert files.info("${PLACE}/x")["path"] == "/tmp/place/x"
    assert files.info("$HOME")["path"] == "/home/user"
    assert files.info("~")["type"] == "directory"
    files.write("relative.txt", b"r")
    assert files.info("/workspace/relative.txt")["size"] == 1


def test_files_go_and_directories_do_not(files: Files) -> None:
    files.write("/tmp/gone/a")
    files.write("/tmp/gone/b")
    files.shell("ln -s /tmp/gone/b /tmp/gone/link")
    query = {"path": ["/tmp/gone/a", "/tmp/gone/link", "/tmp/gone/never"]}
    answer = files.client.delete("/files", params=query)
    assert (answer.status_code, answer.content) == (200, b"")
    assert [e["path"] for e in files.list("/tmp/gone")] == ["/tmp/gone/b"]
    answer = files.client.delete("/files", params={"path": "/tmp/gone"})
    refused(answer, 400, "INVALID_FILE")
    assert files.exists("/tmp/gone/b")


def test_directories_go_with_everything_in_them(files: Files) -> None:
    files.shell(
        "mkdir -p /tmp/tree/a/b/c /tmp/kept && touch /tmp/kept/x"
        " && ln -s /tmp/kept /tmp/tree/a/link && mkfifo /tmp/tree/pipe"
        " && cd /tmp/tree/a/b && for i in $(seq 2000); do echo > f$i; done"
    )
    query = {"path": ["/tmp/tree", "/tmp/never/there"]}
    answer = files.client.delete("/directories", params=query)
    assert (answer.status_code, answer.content) == (200, b""), answer.text
    assert not files.exists("/tmp/tree")
    assert files.exists("/tmp/kept/x"), "a link was followed"


def test_a_tree_that_is_deeper_than_a_path_can_say_goes(files: Files) -> None:
    deep = "import os\nos.makedirs('/tmp/deep')\nos.chdir('/tmp/deep')\n"
    deep += "for i in range(3000):\n os.mkdir('dddd'); os.chdir('dddd')\n"
    deep += "os.chdir('/')\nprint('made')"
    assert files.sandbox.out(deep) == "made\n"
    answer = files.client.delete("/directories", params={"path": "/tmp/deep"})
    assert answer.status_code == 200, answer.text
    assert not files.exists("/tmp/deep")


def test_moving_makes_parents_and_replaces(files: Files) -> None:
    files.write("/tmp/from/a", b"a")
    files.write("/tmp/from/b", b"b")
    moves = [("/tmp/from/a", "/tmp/to/deep/a"), ("/tmp/from/b", "/tmp/to/deep/a")]
    answer = files.move(*moves)
    assert (answer.status_code, answer.content) == (200, b""), answer.text
    assert files.read("/tmp/to/deep/a") == b"b" and files.list("/tmp/from") == []
    refused(files.move(("/tmp/from/a", "/tmp/new/a")), 404, "FILE_NOT_FOUND")
    assert not files.exists("/tmp/new"), "parents were made for nothing"
    assert files.move(("/tmp/to/deep", "/tmp/renamed")).status_code == 200
    assert files.read("/tmp/renamed/a") == b"b"
    answer = files.client.post("/files/mv", json={"src": "/a", "dest": "/b"})
    refused(answer, 400, "INVALID_REQUEST_BODY")


def test_files_move_between_file_systems(files: Files) -> None:
    content = bytes(range(256)) * 10_000
    files.write("/tmp/large", content, mode=600)
    answer = files.move(("/tmp/large", "/workspace/sub/large"))
    assert answer.status_code == 200, answer.text
    assert files.read("/workspace/sub/large") == content
    assert files.info("/workspace/sub/large")["mode"] == 600
    assert not files.exists("/tmp/large")
    files.shell("mkdir -p /tmp/dir/x && echo deep > /tmp/dir/x/f && ln -s x/f /tmp/dir/link")
    answer = files.move(("/tmp/dir", "/workspace/parents/dir"))
    assert answer.status_code == 200, answer.text
    assert files.read("/workspace/parents/dir/link") == b"deep\n"
    assert not files.exists("/tmp/dir")
    files.shell("mkdir -p /tmp/full && mkdir -p /workspace/parents/full/x")
    refused(files.move(("/tmp/full", "/workspace/parents/full")), 500, "RUNTIME_ERROR")
    assert files.exists("/tmp/full") and files.exists("/workspace/parents/full/x")


def test_permissions(files: Files) -> None:
    files.write("/tmp/p/x", mode=644)
    body = {
        "/tmp/p/x": {"mode": 4711},
        "/tmp/p": {"mode": 700, "owner": "user", "group": "1000"},
    }
    answer = files.client.post("/files/permissions", json=body)
    assert (answer.status_code, answer.content) == (200, b""), answer.text
    assert files.shell("stat -c %a /tmp/p/x /tmp/p").split() == ["4711", "700"]
    assert files.info("/tmp/p/x")["mode"] == 4711
    for permission, status, code in [
        ({"mode": 648}, 400, "INVALID_FILE_METADATA"),
        ({"mode": 77777}, 400, "INVALID_FILE_METADATA"),
        ({"mode": 755, "owner": "no-such-user"}, 400, "INVALID_FILE_METADATA"),
        ({"mode": 755, "owner": "root"}, 501, "NOT_SUPPORTED"),
        ({"mode": 755, "group": "root"}, 501, "NOT_SUPPORTED"),
    ]:
        answer = files.client.post("/files/permissions", json={"/tmp/p/x": permission})
        refused(answer, status, code)
        assert files.info("/tmp/p/x")["mode"] == 4711
    answer = files.client.post("/files/permissions", json={"/etc/passwd": {"mode": 777}})
    refused(answer, 403, "PERMISSION_DENIED")
    answer = files.client.post("/files/permissions", json={"/tmp/none": {"mode": 777}})
    refused(answer, 404, "FILE_NOT_FOUND")


def test_directories_are_made_with_their_parents_and_modes(files: Files) -> None:
    body = {
        "/tmp/made/a/b": {"mode": 750},
        "/tmp/made/c": {},
        "~/mine": {"owner": "user"},
    }
    answer = files.client.post("/directories", json=body)
    assert (answer.status_code, answer.content) == (200, b""), answer.text
    assert files.shell("stat -c %a /tmp/made/a/b /tmp/made/a /tmp/made/c").split() == [
        "750",
        "755",
        "755",
    ]
    assert files.info("/home/user/mine")["type"] == "directory"
    again = files.client.post("/directories", json={"/tmp/made/a/b": {"mode": 700}})
    assert again.status_code == 200 and files.info("/tmp/made/a/b")["mode"] == 700
    refused(
        files.client.post("/directories", json={"/tmp/made/d": {"mode": 755, "owner": "root"}}),
        501,
        "NOT_SUPPORTED",
    )
    assert not files.exists("/tmp/made/d")
    files.write("/tmp/made/file")
    answer = files.client.post("/directories", json={"/tmp/made/file/x": {"mode": 755}})
    refused(answer, 400, "INVALID_FILE")
    answer = files.client.post("/directories", json={"/etc/new": {"mode": 755}})
    refused(answer, 403, "PERMISSION_DENIED")


def test_listing_follows_the_order_of_names(files: Files) -> None:
    files.shell(
        "mkdir -p /tmp/ls/b/inner/deep /tmp/ls/a && cd /tmp/ls && touch c b/z b/inner/y"
        " && ln -s b link && mkfifo pipe"
    )
    names = lambda **query: [e["path"][8:] for e in files.list("/tmp/ls", **query)]  # noqa: E731
    assert names() == ["a", "b", "c", "link", "pipe"]
    kinds = [entry["type"] for entry in files.list("/tmp/ls")]
    assert kinds == ["directory", "directory", "file", "symlink", "other"]
    assert names(depth=0) == []
    assert names(depth=2) == ["a", "b", "b/inner", "b/z", "c", "link", "pipe"]
    assert names(depth=99)[:5] == ["a", "b", "b/inner", "b/inner/deep", "b/inner/y"]
    for path in ("/tmp/ls/link", "/tmp/ls/c"):
        answer = files.client.get("/directories/list", params={"path": path})
        refused(answer, 400, "INVALID_FILE")
    answer = files.client.get("/directories/list", params={"path": "/tmp/ls/none"})
    refused(answer, 404, "FILE_NOT_FOUND")
    for depth in ("-1", "x", "99999999999999999999999"):
        query = {"path": "/tmp/ls", "depth": depth}
        refused(
            files.client.get("/directories/list", params=query),
            400,
            "INVALID_REQUEST_BODY",
        )
    assert files.list("/tmp/ls/b/") == files.list("/tmp/ls/b")


def test_search_finds_files_by_their_names(files: Files) -> None:
    files.shell(
        "mkdir -p /tmp/s/sub/deep && cd /tmp/s && touch a.py b.txt .hidden sub/c.py sub/deep/d.PY"
        " && ln -s sub/c.py link.py && ln -s . loop && ln -s /tmp/s /tmp/s-link"
    )
    assert files.search("/tmp/s", "*.py") == [
        "/tmp/s/a.py",
        "/tmp/s/link.py",
        "/tmp/s/sub/c.py",
    ]
    everything = files.search("/tmp/s")
    assert everything == files.search("/tmp/s", "**") and len(everything) == 7
    assert "/tmp/s/.hidden" in everything and "/tmp/s/sub" not in everything
    assert files.search("/tmp/s", "**/*.py") == files.search("/tmp/s", "*.py")
    assert files.search("/tmp/s", "sub/*.py") == ["/tmp/s/sub/c.py"]
    assert files.search("/tmp/s", "{a,b}.*") == ["/tmp/s/a.py", "/tmp/s/b.txt"]
    assert files.search("/tmp/s", "[!a-z]*") == ["/tmp/s/.hidden"]
    assert files.search("/tmp/s-link", "c.py") == ["/tmp/s-link/sub/c.py"]
    assert files.search("/tmp/s/a.py", "*.py") == ["/tmp/s/a.py"]
    query = {"path": "/tmp/s", "pattern": "[a"}
    refused(files.client.get("/files/search", params=query), 400, "INVALID_REQUEST_BODY")
    answer = files.client.get("/files/search", params={"path": "/tmp/none"})
    refused(answer, 404, "FILE_NOT_FOUND")
    refused(files.client.get("/files/search"), 400, "MISSING_QUERY")


def test_an_identity_is_the_users_or_none(files: Files) -> None:
    files.write("/tmp/identity", b"x")
    own = files.client.get("/v1/filesystem/1000/1000/files/info", params={"path": "/tmp/identity"})
    assert own.status_code == 200 and own.json()["/tmp/identity"]["size"] == 1
    for identity in ("0/0", "1000/0", "0/1000", "998/998", "x/1000", "1000/-1"):
        path = f"/v1/filesystem/{identity}/files/info"
        refused(files.client.get(path, params={"path": "/tmp"}), 400, "NOT_SUPPORTED")


def test_without_a_key_and_without_scope(files: Files, server: Server) -> None:
    bare = files.client.get(
        "/files/info",
        params={"path": "/tmp"},
        headers={"OPEN-SANDBOX-API-KEY": "wrong"},
    )
    assert bare.status_code == 401
    token = {"X-EXECD-ACCESS-TOKEN": server.api_key, "OPEN-SANDBOX-API-KEY": ""}
    del files.client.headers["OPEN-SANDBOX-API-KEY"]
    try:
        token.pop("OPEN-SANDBOX-API-KEY")
        by_token = files.client.get("/files/info", params={"path": "/tmp"}, headers=token)
        assert by_token.status_code == 200
    finally:
        files.client.headers["OPEN-SANDBOX-API-KEY"] = server.api_key
