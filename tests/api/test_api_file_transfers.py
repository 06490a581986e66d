"""Files of any size: signed URLs, ranges, uploads that appear whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from rest import Sandbox, connect, new_key, refusal, until, usage_of
from server import Server

MIB = 1024 * 1024
BIG = 40 * MIB


@pytest.fixture(scope="module")
def shared(client):
    """For tests that use names of their own and break nothing."""
    sandbox = Sandbox.create(client)
    yield sandbox
    sandbox.kill()


@pytest.fixture(scope="module")
def stranger(server: Server) -> Iterator[httpx.Client]:
    """A client without a key."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


def download_url(sandbox: Sandbox, path: str) -> str:
    answer = sandbox.client.post(f"{sandbox.path}/files/download-url", json={"path": path})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["authMode"], body["method"]) == ("api_key", "GET")
    assert body["expiresAt"].endswith("Z")
    return body["url"]


def upload_url(sandbox: Sandbox, path: str, **options: object) -> dict:
    body = {"path": path, **options}
    answer = sandbox.client.post(f"{sandbox.path}/files/upload-url", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def download(sandbox: Sandbox, path: str, **headers: str) -> httpx.Response:
    return sandbox.client.get(
        f"{sandbox.path}/files/download", params={"path": path}, headers=headers
    )


def upload(sandbox: Sandbox, path: str, content, headers=None, **query: str) -> httpx.Response:
    return sandbox.client.put(
        f"{sandbox.path}/files/upload",
        params={"path": path, **query},
        content=content,
        headers=headers,
    )


def leftovers(sandbox: Sandbox) -> list[str]:
    listed = sandbox.client.get(f"{sandbox.path}/files").json()["data"]
    return [e["name"] for e in listed if e["name"].startswith(".crownest")]


def noise(size: int) -> bytes:
    return os.urandom(MIB) * (size // MIB) + os.urandom(size % MIB)


def test_large_files_travel_whole_both_ways(shared, stranger):
    content = noise(BIG + 77)
    target = upload_url(shared, "big/er/file.bin", createParents=True)
    assert target["method"] == "PUT" and target["maxSizeBytes"] >= 1024 * MIB
    put = stranger.put(target["url"], content=content, headers=target["headers"])
    assert put.status_code == 200, put.text
    file = put.json()["file"]
    assert (file["path"], file["sizeBytes"]) == ("/workspace/big/er/file.bin", len(content))
    digest = hashlib.sha256(content).hexdigest()
    seen = "import hashlib; hashlib.sha256(open('big/er/file.bin','rb').read()).hexdigest()"
    assert shared.value(seen) == digest

    url = download_url(shared, "big/er/file.bin")
    assert stranger.head(url).headers["content-length"] == str(len(content))
    got = stranger.get(url)
    assert got.status_code == 200 and got.content == content
    assert got.headers["content-length"] == str(len(content))
    assert got.headers["content-disposition"].startswith('attachment; filename="file.bin"')
    assert got.headers["x-content-type-options"] == "nosniff"
    assert download(shared, "big/er/file.bin").content == content, "with a key, without a signature"
    assert leftovers(shared) == []


def test_an_upload_is_chunked_or_of_known_length_and_checked(shared):
    content = noise(3 * MIB + 5)
    digest = hashlib.sha256(content).hexdigest()
    pieces = (content[at : at + 70_001] for at in range(0, len(content), 70_001))
    made = upload(shared, "chunked", pieces, headers={"x-crownest-sha256": digest.upper()})
    assert made.status_code == 200, made.text
    assert download(shared, "chunked").content == content

    other = {"x-crownest-sha256": "0" * 64}
    error = refusal(
        upload(shared, "chunked", b"new", headers=other), 400, "upload_checksum_mismatch"
    )
    assert error["details"]["found"] == hashlib.sha256(b"new").hexdigest()
    assert download(shared, "chunked").content == content, "a refused upload changes nothing"
    refusal(
        upload(shared, "chunked", b"x", headers={"x-crownest-sha256": "xyz"}),
        400,
        "invalid_request",
    )
    assert upload(shared, "empty", b"").json()["file"]["sizeBytes"] == 0
    assert download(shared, "empty").content == b""
    assert leftovers(shared) == []


def test_what_an_upload_may_replace_is_asked_for(shared):
    refusal(upload(shared, "none/file", b"x"), 404, "parent_directory_not_found")
    assert upload(shared, "some/file", b"1", createParents="true").status_code == 200
    refusal(upload(shared, "some/file", b"2", overwrite="false"), 409, "file_already_exists")
    assert download(shared, "some/file").content == b"1"
    shared.command("chmod 750 some/file; ln -s file some/link")
    assert upload(shared, "some/link", b"33").status_code == 200
    assert download(shared, "some/file").content == b"33", "links inside are followed"
    assert shared.command("stat -c %a some/file")["stdout"] == "750\n", "its mode is kept"
    refusal(upload(shared, "some", b"x"), 400, "path_is_directory")
    refusal(upload(shared, "some/file/deeper", b"x"), 400, "path_not_directory")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/etc/passwd", "path_outside_workspace"),
        ("../etc/passwd", "path_outside_workspace"),
        ("out/passwd", "path_outside_workspace"),
        ("passwd-link", "path_outside_workspace"),
        ("/proc/self/environ", "path_outside_workspace"),
        ("", "invalid_request"),
        ("a\0b", "invalid_request"),
        ("x" * 5000, "invalid_request"),
    ],
)
def test_paths_are_judged_as_everywhere(shared, path, code):
    shared.command("ln -sfn /etc out; ln -sfn /etc/passwd passwd-link")
    refusal(download(shared, path), 400, code)
    refusal(upload(shared, path, b"x"), 400, code)
    body = {"path": path}
    refusal(shared.client.post(f"{shared.path}/files/download-url", json=body), 400, code)


def test_names_that_are_too_long_or_no_text_are_refused_before_a_byte(shared):
    refusal(upload(shared, "n" * 300, b"x"), 400, "invalid_request")
    for query in ("path=%ff%fe", "path=a%00b", "path=%ED%A0%80"):
        got = shared.client.get(f"{shared.path}/files/download?{query}")
        assert got.status_code in (400, 404), got.text
        put = shared.client.put(f"{shared.path}/files/upload?{query}%2Fx", content=b"x")
        assert put.status_code in (400, 404), put.text
    assert leftovers(shared) == []


def test_only_files_are_downloaded(shared):
    shared.command("mkdir -p folder; mkfifo -m 600 pipe 2>/dev/null; true")
    refusal(download(shared, "folder"), 400, "path_is_directory")
    refusal(download(shared, "/workspace"), 400, "path_is_directory")
    refusal(download(shared, "nothing"), 404, "file_not_found")
    refusal(download(shared, "pipe"), 400, "invalid_request")
    missing = {"path": "nothing"}
    refusal(
        shared.client.post(f"{shared.path}/files/download-url", json=missing),
        404,
        "file_not_found",
    )
    refusal(shared.client.get(f"{shared.path}/files/download"), 400, "invalid_request")


def test_ranges(shared):
    content = noise(2 * MIB)
    upload(shared, "ranges", content)
    for asked, part in {
        "bytes=0-9": content[:10],
        "bytes=1048570-": content[1048570:],
        "bytes=-7": content[-7:],
        "bytes=5-99999999": content[5:],
    }.items():
        got = download(shared, "ranges", Range=asked)
        assert got.status_code == 206 and got.content == part, asked
        first = len(content) - len(part) if asked != "bytes=0-9" else 0
        expected = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        assert got.headers["content-range"] == expected
    error = refusal(
        download(shared, "ranges", Range="bytes=9999999-"), 416, "range_not_satisfiable"
    )
    assert error["details"] == {"sizeBytes": len(content)}
    assert download(shared, "ranges", Range="bytes=5-2").status_code == 200
    tag = download(shared, "ranges").headers["etag"]
    same = {"Range": "bytes=0-0", "If-Range": tag}
    assert download(shared, "ranges", **same).status_code == 206
    upload(shared, "ranges", content + b"!")
    assert download(shared, "ranges", **same).status_code == 200, "it is another file now"
    head = shared.client.head(f"{shared.path}/files/download", params={"path": "ranges"})
    assert head.status_code == 200 and head.headers["content-length"] == str(len(content) + 1)


def test_a_download_goes_on_with_the_file_that_it_began_with(sandbox: Sandbox):
    content = noise(30 * MIB)
    upload(sandbox, "file", content)
    with sandbox.client.stream(
        "GET", f"{sandbox.path}/files/download", params={"path": "file"}
    ) as response:
        pieces = response.iter_bytes()
        got = next(pieces)
        upload(sandbox, "file", b"another")
        sandbox.command("rm file")
        got += b"".join(pieces)
    assert got == content


def test_odd_names_come_back_as_they_are(shared):
    name = "sp ace ü\"'%2F&?#.txt"
    upload(shared, name, b"odd")
    got = httpx.get(download_url(shared, name), trust_env=False)
    assert got.content == b"odd"
    assert (
        "filename*=UTF-8''sp%20ace%20%C3%BC%22%27%252F%26%3F%23.txt"
        in (got.headers["content-disposition"])
    )


def test_a_signature_is_for_one_thing_and_a_while(shared, stranger, server, make):
    upload(shared, "one", b"1")
    upload(shared, "two", b"2")
    url = download_url(shared, "one")
    assert stranger.get(url).content == b"1"
    changed = [
        url.replace("path=%2Fworkspace%2Fone", "path=%2Fworkspace%2Ftwo"),
        url.replace(shared.id, make().id),
        url[:-4] + ("AAAA" if not url.endswith("AAAA") else "BBBB"),
        url.split("signature=")[0] + "signature=x.y",
        url.split("signature=")[0] + "signature=",
        url.split("&signature=")[0],
    ]
    for other in changed:
        response = stranger.get(other)
        error = refusal(response, 401, "unauthorized")
        assert "www-authenticate" in response.headers and error["message"]
    refusal(stranger.put(url, content=b"x"), 405, "method_not_allowed")
    target = upload_url(shared, "one")["url"]
    refusal(
        stranger.put(target.replace("overwrite=true", "overwrite=false"), content=b""),
        401,
        "unauthorized",
    )
    signature = url.split("signature=")[1]
    refusal(
        stranger.put(target.split("signature=")[0] + f"signature={signature}", content=b"x"),
        401,
        "unauthorized",
    )
    wrong = {"authorization": "Bearer cn_live_wrong"}
    refusal(stranger.get(url, headers=wrong), 401, "invalid_api_key")


def test_a_url_ends_with_the_key_that_made_it(server: Server, client, stranger, shared):
    upload(shared, "mine", b"1")
    secret = new_key(server, shared.record["orgId"], "file:read")
    with connect(server, secret) as other:
        url = other.post(f"{shared.path}/files/download-url", json={"path": "mine"}).json()["url"]
    assert stranger.get(url).content == b"1"
    keys = client.get("/v1/api-keys", params={"limit": 500}).json()["data"]
    (key_id,) = [key["id"] for key in keys if key["last4"] == secret[-4:]]
    assert client.delete(f"/v1/api-keys/{key_id}").status_code == 200
    refusal(stranger.get(url), 401, "unauthorized")


def test_scopes(server: Server, shared):
    reader = new_key(server, shared.record["orgId"], "file:read")
    writer = new_key(server, shared.record["orgId"], "file:write")
    with connect(server, reader) as reads, connect(server, writer) as writes:
        upload(shared, "scoped", b"1")
        query = {"path": "scoped"}
        assert reads.get(f"{shared.path}/files/download", params=query).status_code == 200
        refusal(writes.get(f"{shared.path}/files/download", params=query), 403, "forbidden")
        refusal(writes.post(f"{shared.path}/files/download-url", json=query), 403, "forbidden")
        refusal(reads.post(f"{shared.path}/files/upload-url", json=query), 403, "forbidden")
        refusal(
            reads.put(f"{shared.path}/files/upload", params=query, content=b""), 403, "forbidden"
        )


def test_what_does_not_fit_leaves_nothing(make, server: Server):
    sandbox = make(resources={"diskBytes": 32 * MIB})
    # Refused before a byte of it was sent.
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest("PUT", f"{sandbox.path}/files/upload?path=big")
    connection.putheader("authorization", f"Bearer {server.api_key}")
    connection.putheader("content-length", str(33 * MIB))
    connection.endheaders()
    declared = connection.getresponse()
    assert (declared.status, json.load(declared)["error"]["code"]) == (413, "file_too_large")
    connection.close()
    sandbox.out("open('half', 'wb').write(bytes(20 << 20))")
    chunks = (bytes(MIB) for _ in range(25))
    refusal(upload(sandbox, "big", chunks), 507, "storage_full")
    assert leftovers(sandbox) == []
    assert upload(sandbox, "fits", noise(8 * MIB)).status_code == 200


def test_a_client_that_goes_away_leaves_nothing(sandbox: Sandbox, server: Server):
    upload(sandbox, "file", b"before")
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest("PUT", f"{sandbox.path}/files/upload?path=file")
    connection.putheader("authorization", f"Bearer {server.api_key}")
    connection.putheader("content-length", str(100 * MIB))
    connection.endheaders()
    connection.send(bytes(5 * MIB))
    until(lambda: leftovers(sandbox), "the upload has begun")
    connection.close()
    until(lambda: not leftovers(sandbox), "its file is gone")
    assert download(sandbox, "file").content == b"before"


def test_uploads_at_once_do_not_mix(sandbox: Sandbox):
    contents = {f"file-{n}": noise(4 * MIB + n) for n in range(8)}
    failed = []

    def send(name: str, content: bytes) -> None:
        response = upload(sandbox, name, content)
        if response.status_code != 200:
            failed.append(response.text)

    threads = [threading.Thread(target=send, args=item) for item in contents.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for name, content in contents.items():
        assert download(sandbox, name).content == content


def test_a_race_of_links_never_leads_outside(sandbox: Sandbox):
    """Code swaps a directory for a link to /etc as fast as it can, while files go through it."""
    sandbox.command("mkdir d1; echo inside > d1/hostname; ln -s /etc d2; mv d1 p")
    swap = (
        "import os\nwhile not os.path.exists('halt'):\n"
        "    try:\n        os.rename('p', 'd1'); os.rename('d2', 'p');"
        " os.rename('p', 'd2'); os.rename('d1', 'p')\n    except OSError: pass\n"
    )
    thread = threading.Thread(target=lambda: sandbox.run(swap, timeoutMs=60_000))
    thread.start()
    seen = set()
    for _ in range(150):
        response = download(sandbox, "p/hostname")
        ok = response.status_code == 200
        seen.add(response.text if ok else response.json()["error"]["code"])
        put = upload(sandbox, "p/crownest-escape", b"x")
        assert put.status_code in (200, 400, 404), put.text
    sandbox.signal("halt")
    thread.join()
    assert seen <= {"inside\n", "path_outside_workspace", "file_not_found"}
    assert sandbox.command("ls /etc/crownest-escape")["exitCode"] != 0


def test_a_destroyed_sandbox_says_so_and_ends_its_downloads(client, stranger):
    sandbox = Sandbox.create(client)
    upload(sandbox, "file", noise(60 * MIB))
    url = download_url(sandbox, "file")
    target = upload_url(sandbox, "file")["url"]
    with pytest.raises(httpx.HTTPError):
        with stranger.stream("GET", url) as response:
            pieces = response.iter_bytes(1024)
            next(pieces)
            sandbox.kill()
            for _ in pieces:
                pass
    refusal(stranger.get(url), 410, "sandbox_destroyed")
    refusal(stranger.put(target, content=b"x"), 410, "sandbox_destroyed")


def test_written_bytes_are_counted(sandbox: Sandbox, server: Server):
    upload(sandbox, "file", bytes(1000))
    sandbox.write("small", "x" * 24)
    used = usage_of(server, sandbox.id, "file_bytes_written")
    until(lambda: used() == 1024, "the usage is written")


def test_memory_stays_flat(sandbox: Sandbox, server: Server):
    """Neither way of a file through the server costs memory of its size."""
    size = 300 * MIB
    pid = server.children()["server"]

    def peak_kib() -> int:
        with open(f"/proc/{pid}/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        return int(lines["VmHWM"].split()[0])

    with open(f"/proc/{pid}/clear_refs", "w") as refs:
        refs.write("5")
    before = peak_kib()
    chunk = bytes(MIB)
    assert upload(sandbox, "big", (chunk for _ in range(size // MIB))).status_code == 200
    with sandbox.client.stream(
        "GET", f"{sandbox.path}/files/download", params={"path": "big"}
    ) as response:
        total = sum(len(piece) for piece in response.iter_raw())
    assert total == size
    assert peak_kib() - before < 64 * 1024


def test_a_url_has_the_origin_that_the_client_used(sandbox: Sandbox, server: Server):
    sandbox.write("file", "x")
    assert download_url(sandbox, "file").startswith(server.url + "/v1/")
    named = sandbox.client.post(
        f"{sandbox.path}/files/download-url",
        json={"path": "file"},
        headers={"host": "sandboxes.example:8080"},
    )
    assert named.json()["url"].startswith("http://sandboxes.example:8080/v1/")
    odd = sandbox.client.post(
        f"{sandbox.path}/files/download-url", json={"path": "file"}, headers={"host": "a/b@c"}
    )
    assert odd.status_code == 400 or json.loads(odd.text)["url"].startswith("/v1/")
