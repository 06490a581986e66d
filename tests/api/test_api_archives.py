"""Archives that nobody should unpack as they are: each is refused by its reason and by name, and
ordinary ones arrive as they were."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from rest import Sandbox
from workspace import Run, member, tar, tar_gz

LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
FILE = member("ok.txt", b"fine")


def raw(name: str, *, flag: bytes = b"0", size: bytes | None = None, content: bytes = b"") -> bytes:
    """A header by hand, with the checksum that its bytes have."""
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), flag
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if size is not None:
        block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)


def pax(**records: str) -> bytes:
    """An extended header with these records."""
    body = b""
    for key, value in records.items():
        record = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(record) + 1
        while len(str(length)) + len(record) != length:
            length += 1
        body += str(length).encode() + record
    return raw("x", flag=b"x", content=body)


END = bytes(1024)


def by_hand(*blocks: bytes) -> bytes:
    return gzip.compress(b"".join(blocks) + END)


def members_gz(data: bytes, size: int) -> bytes:
    return b"".join(gzip.compress(data[at : at + size]) for at in range(0, len(data), size))


def bomb(megabytes: int) -> bytes:
    """Zeros in a file that says its true size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = packer.compress(raw("zeros", size=b"%011o\0" % (megabytes << 20))[:512])
    for _ in range(megabytes):
        data += packer.compress(bytes(1 << 20))
    return data + packer.compress(END) + packer.flush()


def nested(levels: int) -> bytes:
    return tar_gz(member("/".join(["d"] * levels) + "/f"))


INVALID, LARGE = "archive_invalid", "archive_too_large"
GOOD = tar_gz(FILE)

HOSTILE: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "zip slip": (lambda: tar_gz(FILE, member("../evil")), INVALID, '"../evil"'),
    "zip slip deep": (lambda: tar_gz(member("a/b/../../../evil")), INVALID, "a/b/../../../evil"),
    "absolute": (lambda: tar_gz(member("/etc/cron.d/x")), INVALID, "absolute"),
    "backslash": (lambda: tar_gz(member("..\\evil")), INVALID, "backslash"),
    "long name": (lambda: tar_gz(member("n" * 300)), INVALID, "too long"),
    "long path": (lambda: tar_gz(member("d/" * 3_000 + "f")), INVALID, "deep"),
    "deep": (lambda: nested(200), INVALID, "deep"),
    "not utf-8": (lambda: by_hand(raw("\udcff")), INVALID, "UTF-8"),
    "nul in a pax name": (lambda: by_hand(pax(path="a\0b"), raw("x")), INVALID, "NUL"),
    "link out": (lambda: tar_gz(member("l", type=LINK, link="/etc/passwd")), INVALID, '"l"'),
    "link up": (lambda: tar_gz(member("d/l", type=LINK, link="../../x")), INVALID, '"d/l"'),
    "link through a link": (
        lambda: tar_gz(
            member("a/s", type=LINK, link=".."), member("l", type=LINK, link="a/s/../x")
        ),
        INVALID,
        '"l"',
    ),
    "file below a link": (
        lambda: tar_gz(member("l", type=LINK, link="."), member("l/x")),
        INVALID,
        "below a symbolic link",
    ),
    "hard link out": (lambda: tar_gz(member("h", type=HARD, link="/etc/passwd")), INVALID, '"h"'),
    "hard link up": (lambda: tar_gz(member("h", type=HARD, link="../x")), INVALID, '"h"'),
    "hard link to nothing": (lambda: tar_gz(member("h", type=HARD, link="x")), INVALID, '"h"'),
    "hard link to a link": (
        lambda: tar_gz(member("l", type=LINK, link="x"), member("h", type=HARD, link="l")),
        INVALID,
        '"h"',
    ),
    "character device": (lambda: tar_gz(member("dev", type=tarfile.CHRTYPE)), INVALID, "device"),
    "block device": (lambda: tar_gz(member("dev", type=tarfile.BLKTYPE)), INVALID, "device"),
    "pipe": (lambda: tar_gz(member("p", type=tarfile.FIFOTYPE)), INVALID, "pipe"),
    "gnu sparse": (lambda: by_hand(raw("s", flag=b"S")), INVALID, "sparse"),
    "pax sparse": (lambda: by_hand(pax(GNU__sparse__major="1"), raw("s")), INVALID, "sparse"),
    "unknown kind": (lambda: by_hand(raw("s", flag=b"M")), INVALID, "not supported"),
    "file and directory": (lambda: tar_gz(member("a"), member("a/b")), INVALID, "below a file"),
    "directory and file": (lambda: tar_gz(member("a/b"), member("a")), INVALID, '"a"'),
    "giant pax header": (
        lambda: by_hand(pax(comment="x" * 1_000_000), raw("x")),
        INVALID,
        "extended header",
    ),
    "giant gnu name": (
        lambda: by_hand(raw("L", flag=b"L", content=b"n" * 100_000), raw("x")),
        INVALID,
        "extended header",
    ),
    "endless pax headers": (lambda: by_hand(*[pax(a="b")] * 20), INVALID, "too many"),
    "malformed pax header": (
        lambda: by_hand(raw("x", flag=b"x", content=b"999 a=b\n"), raw("x")),
        INVALID,
        "malformed",
    ),
    "lying pax size": (lambda: by_hand(pax(size="99"), raw("x")), INVALID, "disagree"),
    "header without an entry": (lambda: by_hand(pax(path="a")), INVALID, "no entry"),
    "negative size": (lambda: by_hand(raw("x", size=b"\xff" * 12)), INVALID, "size"),
    "huge size": (lambda: by_hand(raw("x", size=b"77777777777\0")), LARGE, '"x"'),
    "binary size": (
        lambda: by_hand(raw("x", size=b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7)),
        LARGE,
        '"x"',
    ),
    "content in a directory": (
        lambda: by_hand(raw("d", flag=b"5", content=b"x")),
        INVALID,
        "content",
    ),
    "bomb": (lambda: bomb(200), LARGE, "times its size"),
    "many entries": (
        lambda: tar_gz(*(member(f"f{n}") for n in range(100_001)), format=tarfile.USTAR_FORMAT),
        LARGE,
        "entries",
    ),
    "many members": (lambda: gzip.compress(b"") * 70_000, LARGE, "members"),
    "truncated gzip": (lambda: GOOD[:-9], INVALID, "truncated"),
    "truncated tar": (lambda: gzip.compress(tar(FILE)[:700]), INVALID, "truncated"),
    "no end mark": (lambda: gzip.compress(tar(FILE)[:1024]), INVALID, "end mark"),
    "bytes after the tar": (lambda: gzip.compress(tar(FILE) + b"x"), INVALID, "after its end"),
    "bytes after the gzip": (lambda: GOOD + b"garbage", INVALID, "after its end"),
    "two archives": (lambda: GOOD + GOOD, INVALID, "after its end"),
    "wrong checksum": (lambda: GOOD[:-8] + b"\0" * 4 + GOOD[-4:], INVALID, "gzip"),
    "not gzip": (lambda: tar(FILE), INVALID, "gzip"),
    "a zip file": (lambda: b"PK\x03\x04" + bytes(100), INVALID, "gzip"),
    "gzip of text": (lambda: gzip.compress(b"hello " * 1_000), INVALID, "checksum"),
    "random bytes": (lambda: random.Random(7).randbytes(10_000), INVALID, "gzip"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(client: httpx.Client, name: str) -> None:
    build, reason, words = HOSTILE[name]
    made = Run.create(client, "echo never").begin(build())
    run = made.end()
    assert (run["status"], run["failureReason"]) == ("failed", reason), run
    assert run["failureClass"] == "user_input" and run["cleanupStatus"] == "succeeded"
    assert words in run["failureMessage"] and len(run["failureMessage"]) <= 1_000, run
    assert made.printed() == "" and "commandId" not in run
    assert made.evidence()["failureReason"] == reason


def test_an_archive_larger_than_the_disk(
    client: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    sandbox = make(resources={"diskBytes": 8 << 20})
    data = random.Random(1).randbytes(7 << 20)
    made = Run.create(client, "true", sandboxId=sandbox.id)
    run = made.begin(tar_gz(member("a", data), member("b", bytes(6 << 20)))).end()
    assert (run["status"], run["failureReason"]) == ("failed", "archive_too_large"), run
    assert '"b"' in run["failureMessage"]


def test_a_sandbox_that_does_not_take_the_files(
    client: httpx.Client, make: Callable[..., Sandbox]
) -> None:
    sandbox = make()
    sandbox.command("mkdir ok.txt; touch ok.txt/mine; ln -s /tmp out")
    for archive, name in [(GOOD, "ok.txt"), (tar_gz(member("out/x")), "out/x")]:
        run = Run.create(client, "true", sandboxId=sandbox.id).begin(archive).end()
        assert (run["status"], run["failureReason"]) == ("failed", "extraction_failed"), run
        assert name in run["failureMessage"]
    assert sandbox.command("ls /tmp/x; ls ok.txt")["stdout"] == "mine\n"


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_ordinary_archives_arrive_as_they_were(client: httpx.Client, format: int) -> None:
    long = "d" * 90 + "/" + "e" * 90 + ("" if format == tarfile.USTAR_FORMAT else "/" + "f" * 90)
    archive = tar(
        member("./", type=tarfile.DIRTYPE, mode=0o755),
        member("./bin/", type=tarfile.DIRTYPE, mode=0o711),
        member("./bin/run", b"#!/bin/sh\necho ran\n", mode=0o6755),
        member("secret", b"s", mode=0o600),
        member("bin/link", type=LINK, link="../secret"),
        member("all", type=LINK, link="/workspace/bin"),
        member("dangling", type=LINK, link="not/there"),
        member("hard", type=HARD, link="./secret"),
        member("twice", b"first"),
        member("twice", b"second"),
        member("ünï \n x", b"odd"),
        member(long, b"long"),
        member("empty"),
        format=format,
    )
    command = (
        "bin/run; stat -c '%a %U %n' bin bin/run secret; cat bin/link all/run | wc -l;"
        " readlink all dangling; stat -c %h hard; cat twice; echo; cat $'ünï \\n x'; echo;"
        f" cat {long}; echo; stat -c '%s' empty; find . -type f | wc -l"
    )
    for data in (gzip.compress(archive), members_gz(archive, 700)):
        made = Run.create(client, command)
        run = made.begin(data).end()
        assert run["status"] == "succeeded", (run, made.printed("stderr"))
        lines = made.printed().splitlines()
        assert lines[0] == "ran"
        # No bit beyond the nine.
        assert [line.split()[0] for line in lines[1:4]] == ["711", "755", "600"]
        assert len({line.split()[1] for line in lines[1:4]}) == 1
        assert lines[5:] == [
            "/workspace/bin",
            "not/there",
            "2",
            "second",
            "odd",
            "long",
            "0",
            "8",
        ], lines


def test_what_tar_and_git_write(client: httpx.Client, tmp_path: Path) -> None:
    def sh(command: str) -> bytes:
        return subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True,
                              check=True).stdout

    sh("mkdir -p p/src; echo 'print(6 * 7)' > p/src/main.py; ln -s src/main.py p/run.py;"
       " ln p/src/main.py p/same.py; touch -d 2001-01-01 p/src/main.py")
    tarred = sh("tar czf - -C p .")
    git = ("git -c init.defaultBranch=main init -q p; cd p; git add .;"
           " git -c user.name=t -c user.email=t@t commit -qm t; git archive --format=tar.gz HEAD")
    command = "python3 run.py; python3 same.py; stat -c %Y src/main.py"
    for archive, dated in ((tarred, True), (sh(git), False)):
        made = Run.create(client, command)
        run = made.begin(archive).end()
        assert run["status"] == "succeeded", run
        lines = made.printed().splitlines()
        assert lines[:2] == ["42", "42"]
        assert (int(lines[2]) < 1_000_000_000) is dated


def test_large_files_and_many_small_ones(client: httpx.Client) -> None:
    big = random.Random(3).randbytes(20 << 20)
    small = [member(f"d{n % 100}/f{n}", str(n).encode()) for n in range(20_000)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for info, content in [member("big", big), *small]:
            archive.addfile(info, io.BytesIO(content))
    data = buffer.getvalue()
    made = Run.create(client, "sha256sum big; find d* -type f | wc -l; cat d*/f* | wc -c")
    transfer = made.transfer(data)
    assert client.put(transfer["uploadUrl"], content=data).status_code == 204
    assert made.finalize(data, transfer["id"]).status_code == 200
    made.start()
    assert made.end()["status"] == "succeeded"
    lines = made.printed().splitlines()
    assert lines[0].split()[0] == hashlib.sha256(big).hexdigest()
    assert lines[1:] == ["20000", str(sum(len(str(n)) for n in range(20_000)))]
