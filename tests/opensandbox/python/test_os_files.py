"""Files and directories through `Filesystem` and `FilesystemSync`."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.filesystem import (
    ContentReplaceEntry,
    DirectoryListEntry,
    MoveEntry,
    SearchEntry,
    SetPermissionEntry,
    WriteEntry,
)

from sdk import lines

MIB = 1024 * 1024


@pytest.fixture
def files(shared):
    return shared.files


@pytest.fixture
def place(files) -> str:
    """A directory of a test's own."""
    path = f"/workspace/t{uuid4().hex}"
    files.create_directories([WriteEntry(path=path, mode=755)])
    return path


# -- write and read


def test_write_and_read(files, place, shared):
    path = f"{place}/new/deep/text.txt"
    files.write_file(path, "été\nzwei\n")
    assert files.read_file(path) == "été\nzwei\n"
    assert files.read_bytes(path) == "été\nzwei\n".encode()
    files.write_file(path, "shorter")
    assert files.read_file(path) == "shorter", "it replaces"
    assert lines(shared.commands.run(f"stat -c %a {path}")) == ["755"]


def test_what_can_be_written(files, place):
    raw = bytes(range(256))
    files.write_file(f"{place}/bytes", raw, mode=600)
    files.write_file(f"{place}/stream", io.BytesIO(raw * 2))
    files.write_file(f"{place}/latin", "été", encoding="latin-1")
    files.write_file(f"{place}/empty", b"")
    assert files.read_bytes(f"{place}/bytes") == raw
    assert files.read_bytes(f"{place}/stream") == raw * 2
    assert files.read_bytes(f"{place}/latin") == "été".encode("latin-1")
    assert files.read_file(f"{place}/latin", encoding="latin-1") == "été"
    assert files.read_bytes(f"{place}/empty") == b""
    assert files.get_file_info([f"{place}/bytes"])[f"{place}/bytes"].mode == 600


def test_write_files(files, place):
    names = ["a b.txt", "été.txt", "quote'\".txt", "x/y/z.txt"]
    entries = [WriteEntry(path=f"{place}/{name}", data=name, mode=644) for name in names]
    files.write_files(entries)
    assert [files.read_file(entry.path) for entry in entries] == names


def test_a_large_file(files, place):
    raw = bytes(range(256)) * (24 * MIB // 256)
    files.write_file(f"{place}/large", raw)
    assert files.read_bytes(f"{place}/large") == raw
    pieces = list(files.read_bytes_stream(f"{place}/large", chunk_size=MIB))
    assert b"".join(pieces) == raw and len(pieces) > 4, "it comes in pieces"


def test_ranges(files, place):
    path = f"{place}/digits"
    files.write_file(path, "0123456789")
    assert files.read_file(path, range_header="bytes=2-4") == "234"
    assert files.read_bytes(path, range_header="bytes=7-") == b"789"
    assert files.read_bytes(path, range_header="bytes=-3") == b"789"
    assert b"".join(files.read_bytes_stream(path, range_header="bytes=0-0")) == b"0"
    with pytest.raises(SandboxApiException) as caught:
        files.read_bytes(path, range_header="bytes=10-")
    assert caught.value.status_code == 416


def test_lines(files, place):
    path = f"{place}/lines"
    files.write_file(path, "".join(f"line {n}\n" for n in range(1, 11)))
    assert files.read_file(path, offset=2, limit=3) == "line 2\nline 3\nline 4"
    assert files.read_file(path, offset=10) == "line 10"
    assert files.read_bytes(path, limit=1) == b"line 1"
    assert b"".join(files.read_bytes_stream(path, offset=9, limit=9)) == b"line 9\nline 10"
    with pytest.raises(SandboxApiException) as caught:
        files.read_file(path, offset=1, range_header="bytes=0-1")
    assert caught.value.status_code == 400


def test_what_is_not_there(files, place, refused):
    missing = f"{place}/none"
    refused(404, lambda: files.read_file(missing), "FILE_NOT_FOUND")
    refused(404, lambda: files.read_bytes(missing))
    refused(404, lambda: list(files.read_bytes_stream(missing)))
    refused(404, lambda: files.get_file_info([missing]))
    refused(404, lambda: files.move_files([MoveEntry(src=missing, dest=f"{place}/x")]))


# -- what is there


def test_get_file_info(files, place):
    path = f"{place}/some.txt"
    files.write_file(path, "four", mode=640)
    seen = files.get_file_info([path, place])
    assert set(seen) == {path, place}
    info = seen[path]
    assert (info.path, info.entry_type, info.mode, info.size) == (path, "file", 640, 4)
    assert info.owner and info.group
    assert abs((info.modified_at - datetime.now(UTC)).total_seconds()) < 60
    assert info.created_at.tzinfo is not None
    assert (seen[place].entry_type, seen[place].mode) == ("directory", 755)


def test_list_directory(files, place, shared):
    files.write_files(
        [WriteEntry(path=f"{place}/{name}", data="x") for name in ("a", "d/b", "d/e/c")]
    )
    shared.commands.run(f"ln -s a {place}/link")

    def listed(depth):
        found = files.list_directory(DirectoryListEntry(path=place, depth=depth))
        return {entry.path.removeprefix(f"{place}/"): entry.entry_type for entry in found}

    first = {"a": "file", "d": "directory", "link": "symlink"}
    assert listed(None) == first == listed(1)
    assert listed(2) == {**first, "d/b": "file", "d/e": "directory"}
    assert listed(3) == {**first, "d/b": "file", "d/e": "directory", "d/e/c": "file"}
    assert listed(0) == {}
    with pytest.raises(SandboxApiException) as caught:
        files.list_directory(DirectoryListEntry(path=f"{place}/a"))
    assert caught.value.status_code == 400


def test_search(files, place):
    names = ("a.py", "b.txt", "d/c.py", "d/e/f.py")
    files.write_files([WriteEntry(path=f"{place}/{name}", data="x") for name in names])

    def found(pattern):
        entries = files.search(SearchEntry(path=place, pattern=pattern))
        return {entry.path.removeprefix(f"{place}/") for entry in entries}

    assert found("*.py") == {"a.py", "d/c.py", "d/e/f.py"}
    assert found("b.*") == {"b.txt"} and found("none*") == set()
    assert found("**") == set(names)


# -- changes


def test_create_and_delete_directories(files, place):
    files.create_directories(
        [WriteEntry(path=f"{place}/one/two", mode=700), WriteEntry(path=f"{place}/three", mode=755)]
    )
    made = files.get_file_info([f"{place}/one/two", f"{place}/three"])
    assert [info.mode for info in made.values()] == [700, 755]
    files.write_file(f"{place}/one/two/file", "x")
    files.delete_directories([f"{place}/one", f"{place}/three", f"{place}/never"])
    assert files.list_directory(DirectoryListEntry(path=place)) == []


def test_delete_files(files, place, refused):
    paths = [f"{place}/{name}" for name in ("a", "b", "c")]
    files.write_files([WriteEntry(path=path, data="x") for path in paths])
    files.delete_files(paths[:2])
    assert [e.path for e in files.search(SearchEntry(path=place, pattern="*"))] == paths[2:]
    refused(404, lambda: files.read_file(paths[0]))


def test_move_files(files, place, refused):
    files.write_file(f"{place}/a", "content")
    files.write_file(f"{place}/d/inside", "in")
    files.move_files(
        [
            MoveEntry(src=f"{place}/a", dest=f"{place}/new/deep/b"),
            MoveEntry(source=f"{place}/d", destination=f"{place}/e"),
        ]
    )
    assert files.read_file(f"{place}/new/deep/b") == "content"
    assert files.read_file(f"{place}/e/inside") == "in"
    refused(404, lambda: files.read_file(f"{place}/a"))


def test_set_permissions(files, place, shared):
    path = f"{place}/a"
    files.write_file(path, "x")
    files.set_permissions([SetPermissionEntry(path=path, mode=604)])
    assert lines(shared.commands.run(f"stat -c %a {path}")) == ["604"]
    own = files.get_file_info([path])[path]
    files.set_permissions(
        [SetPermissionEntry(path=path, mode=600, owner=own.owner, group=own.group)]
    )
    assert files.get_file_info([path])[path].mode == 600


def test_replace_contents(files, place, refused):
    path, other = f"{place}/a", f"{place}/b"
    files.write_file(path, "one two one", mode=640)
    files.write_file(other, "nothing")
    files.replace_contents([ContentReplaceEntry(path=path, old_content="one", new_content="été")])
    assert files.read_file(path) == "été two été"
    assert files.get_file_info([path])[path].mode == 640, "only the content changes"
    results = files.replace_contents_detailed(
        [
            ContentReplaceEntry(path=path, old_content="été", new_content=""),
            ContentReplaceEntry(path=other, old_content="été", new_content="x"),
        ]
    )
    assert {r.path: r.replaced_count for r in results} == {path: 2, other: 0}
    assert files.read_file(path) == " two " and files.read_file(other) == "nothing"
    with pytest.raises(SandboxApiException) as caught:
        files.replace_contents([ContentReplaceEntry(path=path, old_content="", new_content="x")])
    assert caught.value.status_code == 400


def test_home_and_variables_in_paths(files, shared):
    name = f"f{uuid4().hex}"
    files.write_file(f"~/{name}", "home")
    assert lines(shared.commands.run(f"cat ~/{name}")) == ["home"]
    assert files.read_file(f"$HOME/{name}") == "home"
    files.delete_files([f"~/{name}"])


def test_both_sides_see_the_same_files(files, place, shared):
    shared.commands.run(f"printf made > {place}/by-command")
    assert files.read_file(f"{place}/by-command") == "made"
    files.write_file(f"{place}/run.sh", "#!/bin/sh\necho ran\n", mode=755)
    assert lines(shared.commands.run(f"{place}/run.sh")) == ["ran"]


def test_files_with_identity(shared, place):
    mine = shared.files_with_identity(1000, 1000)
    path = f"{place}/mine"
    mine.write_file(path, "x")
    assert mine.read_file(path) == "x"
    assert lines(shared.commands.run(f"stat -c '%u %g' {path}")) == ["1000 1000"]
