"""Files of the workspace: paths, encodings, caps, and every way out that must be closed."""

from __future__ import annotations

import base64
import threading

import pytest

from rest import Sandbox, refusal

CAP = 256 * 1024


def stat(sandbox: Sandbox, path: str):
    return sandbox.client.get(f"{sandbox.path}/files/stat", params={"path": path})


def names(sandbox: Sandbox, **query: str) -> list[str]:
    response = sandbox.client.get(f"{sandbox.path}/files", params=query)
    assert response.status_code == 200, response.text
    return sorted(entry["name"] for entry in response.json()["data"])


def post(sandbox: Sandbox, route: str, **body):
    return sandbox.client.post(f"{sandbox.path}/files/{route}", json=body)


def delete(sandbox: Sandbox, path: str):
    return sandbox.client.delete(f"{sandbox.path}/files", params={"path": path})


@pytest.fixture(scope="module")
def shared(client):
    """For tests that use names of their own and break nothing."""
    sandbox = Sandbox.create(client)
    yield sandbox
    sandbox.kill()


def test_what_is_written_can_be_read_by_api_and_code(shared):
    written = shared.write("notes.txt", "grüße\n\u2028")
    assert written.status_code == 200
    file = written.json()["file"]
    assert (file["path"], file["sizeBytes"], file["type"]) == ("/workspace/notes.txt", 11, "file")
    assert file["modifiedAt"].endswith("Z")
    for path in ("notes.txt", "/workspace/notes.txt", "./notes.txt", "/workspace/./notes.txt"):
        assert shared.read(path).json() == {
            "content": "grüße\n\u2028",
            "encoding": "utf8",
            "sizeBytes": 11,
            "path": "/workspace/notes.txt",
        }
    assert shared.value("open('notes.txt', encoding='utf8').read()") == "grüße\n\u2028"
    shared.out("open('/workspace/from_code.txt', 'w').write('made')")
    assert shared.read("from_code.txt").json()["content"] == "made"
    assert stat(shared, "notes.txt").json()["file"] == file
    # Written by the API, changed and removed by the code: they belong to the same user.
    shared.out("import os; open('notes.txt', 'a').write('!'); os.remove('from_code.txt')")
    refusal(shared.read("from_code.txt"), 404, "file_not_found")


def test_bytes_travel_as_base64(shared):
    raw = bytes(range(256))
    assert shared.write("raw", base64.b64encode(raw).decode(), encoding="base64").status_code == 200
    answer = shared.read("raw", encoding="base64").json()
    assert base64.b64decode(answer["content"]) == raw and answer["encoding"] == "base64"
    refusal(shared.read("raw"), 400, "invalid_file_encoding")
    refusal(shared.write("raw", "no base64!", encoding="base64"), 400, "invalid_file_encoding")
    refusal(shared.write("raw", "x", encoding="utf16"), 400, "invalid_file_encoding")
    refusal(shared.read("raw", encoding="hex"), 400, "invalid_file_encoding")
    assert base64.b64decode(shared.read("raw", encoding="base64").json()["content"]) == raw


def test_a_figure_saved_by_code_is_read_whole(shared):
    shared.out(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('plot.png')\nplt.close()"
    )
    png = base64.b64decode(shared.read("plot.png", encoding="base64").json()["content"])
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and png.endswith(b"IEND\xaeB`\x82")


def test_the_cap_is_exact_both_ways(shared):
    assert shared.write("cap", "x" * CAP).status_code == 200
    assert len(shared.read("cap").json()["content"]) == CAP
    assert refusal(shared.write("cap", "x" * (CAP + 1)), 413, "file_too_large")["details"] == {
        "limit": CAP
    }
    big = base64.b64encode(b"\xff" * (CAP + 1)).decode()
    refusal(shared.write("cap", big, encoding="base64"), 413, "file_too_large")
    assert stat(shared, "cap").json()["file"]["sizeBytes"] == CAP, "a refused write changes nothing"
    shared.out("open('cap', 'a').write('y')")
    refusal(shared.read("cap"), 413, "file_too_large")
    refusal(shared.read("cap", encoding="base64"), 413, "file_too_large")
    assert shared.write("escaped", "\0" * CAP).status_code == 200, "escapes do not count"


def test_parents_and_overwriting_are_asked_for(shared):
    refusal(shared.write("p/q/new", "1"), 404, "parent_directory_not_found")
    assert shared.write("p/q/new", "1", createParents=True).status_code == 200
    refusal(shared.write("p/q/new", "2", overwrite=False), 409, "file_already_exists")
    assert shared.read("p/q/new").json()["content"] == "1"
    assert shared.write("p/q/new", "2").status_code == 200
    assert shared.read("p/q/new").json()["content"] == "2"
    refusal(shared.write("p/q/new/deeper", "3", createParents=True), 400, "path_not_directory")
    refusal(shared.write("p/q", "4"), 400, "path_is_directory")


def test_directories(shared):
    made = post(shared, "mkdir", path="d")
    assert made.status_code == 200 and made.json()["file"]["type"] == "directory"
    refusal(post(shared, "mkdir", path="d"), 409, "file_already_exists")
    refusal(post(shared, "mkdir", path="e/f"), 404, "parent_directory_not_found")
    assert post(shared, "mkdir", path="e/f/g", parents=True).status_code == 200
    shared.write("e/one", "1")
    shared.write("e/two", "22")
    listed = shared.client.get(f"{shared.path}/files", params={"path": "e"}).json()["data"]
    found = {entry["name"]: (entry["type"], entry["path"]) for entry in listed}
    assert found == {
        "f": ("directory", "/workspace/e/f"),
        "one": ("file", "/workspace/e/one"),
        "two": ("file", "/workspace/e/two"),
    }
    assert {"d", "e"} <= set(names(shared)), "the workspace is the default"
    refusal(
        shared.client.get(f"{shared.path}/files", params={"path": "e/one"}),
        400,
        "path_not_directory",
    )
    refusal(
        shared.client.get(f"{shared.path}/files", params={"path": "none"}), 404, "file_not_found"
    )
    refusal(shared.read("e"), 400, "path_is_directory")


def test_deleting(shared):
    shared.write("del/file", "1", createParents=True)
    refusal(delete(shared, "del"), 409, "directory_not_empty")
    for path in ("del/file", "del"):
        assert delete(shared, path).json() == {"deleted": True}
        refusal(stat(shared, path), 404, "file_not_found")
        refusal(delete(shared, path), 404, "file_not_found")
    # Its owner wants to keep a workspace.
    assert delete(shared, "/workspace").status_code == 400
    assert shared.value("import os; os.path.isdir('/workspace')") == "True"


def test_moving(shared):
    shared.write("m1", "one")
    shared.write("m2", "two")
    moved = post(shared, "move", **{"from": "m1", "to": "m3"})
    assert moved.json()["file"]["path"] == "/workspace/m3"
    refusal(shared.read("m1"), 404, "file_not_found")
    refusal(post(shared, "move", **{"from": "m3", "to": "m2"}), 409, "file_already_exists")
    assert post(shared, "move", **{"from": "m3", "to": "m2", "overwrite": True}).status_code == 200
    assert shared.read("m2").json()["content"] == "one"
    refusal(post(shared, "move", **{"from": "m3", "to": "m4"}), 404, "file_not_found")
    refusal(
        post(shared, "move", **{"from": "m2", "to": "none/m"}), 404, "parent_directory_not_found"
    )
    post(shared, "mkdir", path="md")
    assert post(shared, "move", **{"from": "md", "to": "md2"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../etc/passwd",
        "../../../../etc/passwd",
        "/workspace/../etc/passwd",
        "/proc/self/environ",
        "/workspaces/x",
        "a/../../etc/passwd",
        "/opt/crownest/x",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_workspace_is_touched(shared, path):
    post(shared, "mkdir", path="a")
    calls = [
        shared.read(path),
        shared.write(path, "x"),
        shared.write(path, "x", createParents=True),
        stat(shared, path),
        delete(shared, path),
        post(shared, "mkdir", path=path, parents=True),
        post(shared, "move", **{"from": path, "to": "stolen"}),
        shared.client.get(f"{shared.path}/files", params={"path": path}),
    ]
    shared.write("mine", "x")
    calls.append(post(shared, "move", **{"from": "mine", "to": path, "overwrite": True}))
    for response in calls:
        refusal(response, 400, "path_outside_workspace")


def test_the_root_is_outside_and_a_directory(shared):
    """Both are true of it; either may be said."""
    shared.write("mine", "x")
    for response in (
        shared.read("/"),
        shared.write("/", "x"),
        delete(shared, "/"),
        post(shared, "move", **{"from": "mine", "to": "/", "overwrite": True}),
        shared.client.get(f"{shared.path}/files", params={"path": "/"}),
    ):
        assert response.status_code == 400, response.text
        assert response.json()["error"]["code"] in {"path_outside_workspace", "path_is_directory"}


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000])
def test_paths_that_cannot_be_are_refused(shared, path):
    refusal(shared.write(path, ""), 400, "invalid_request")
    assert shared.write("n" * 300, "").status_code == 400, "longer than a name may be"


def test_links_lead_nowhere_outside(sandbox: Sandbox):
    sandbox.command(
        "ln -s /etc/passwd file; ln -s /etc dir; ln -s / root; ln -s ../etc up; ln -s loop loop;"
        "ln -s /workspace/inside abs; mkdir real; echo in > real/inside; ln -s real rel; ln -s /proc/self self"
    )
    for path in ("file", "dir/passwd", "root/etc/passwd", "up/passwd"):
        refusal(sandbox.read(path), 400, "path_outside_workspace")
    for path in ("file", "dir/new", "root/tmp/new", "up/new"):
        refusal(sandbox.write(path, "x", createParents=True), 400, "path_outside_workspace")
    refusal(post(sandbox, "mkdir", path="dir/new"), 400, "path_outside_workspace")
    refusal(delete(sandbox, "dir/hostname"), 400, "path_outside_workspace")
    sandbox.write("mine", "x")
    refusal(
        post(sandbox, "move", **{"from": "mine", "to": "dir/mine"}), 400, "path_outside_workspace"
    )
    refusal(
        post(sandbox, "move", **{"from": "root/etc/hostname", "to": "x"}),
        400,
        "path_outside_workspace",
    )
    # Not followed at all: links to themselves, and the kernel's own links in /proc.
    for path in ("loop", "self/environ", "self/root/etc/passwd", "root/proc/1/root/etc/passwd"):
        response = sandbox.read(path)
        assert response.status_code == 400, response.text
    assert sandbox.read("rel/inside").json()["content"] == "in\n", "links inside are fine"
    # A link itself may be removed; what it points to stays.
    assert delete(sandbox, "file").status_code == 200
    assert "root:" in sandbox.command("cat /etc/passwd")["stdout"]


def test_a_race_of_links_never_leads_outside(sandbox: Sandbox):
    """Code swaps a directory for a link to /etc as fast as it can, while files are read through it."""
    sandbox.command("mkdir -p good; echo inside > good/hostname")
    swap = (
        "import os\nos.mkdir('d1') if not os.path.exists('d1') else None\n"
        "open('d1/hostname', 'w').write('inside\\n')\nos.symlink('/etc', 'd2')\n"
        "os.rename('d1', 'p')\n"
        "while not os.path.exists('halt'):\n"
        "    try:\n        os.rename('p', 'd1'); os.rename('d2', 'p'); os.rename('p', 'd2'); os.rename('d1', 'p')\n"
        "    except OSError: pass\n"
    )
    thread = threading.Thread(target=lambda: sandbox.run(swap, timeoutMs=30_000))
    thread.start()
    seen = set()
    for _ in range(300):
        response = sandbox.read("p/hostname")
        seen.add(
            response.json()["content"]
            if response.status_code == 200
            else response.json()["error"]["code"]
        )
        written = sandbox.write("p/crownest-escape", "x")
        assert written.status_code in (200, 400, 404), written.text
    sandbox.signal("halt")
    thread.join()
    assert seen <= {
        "inside\n",
        "path_outside_workspace",
        "file_not_found",
        "parent_directory_not_found",
    }
    assert sandbox.command("ls /etc/crownest-escape")["exitCode"] != 0


def test_special_files_are_not_waited_for(sandbox: Sandbox):
    """A pipe without a writer, an endless device: neither may hold a request or fill memory."""
    sandbox.command(
        "mkfifo pipe; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\""
    )
    for path in ("pipe", "sock"):
        response = sandbox.read(path)
        assert response.status_code == 400, response.text
        assert sandbox.write(path, "x").status_code in (200, 400)
    assert {"pipe"} <= set(names(sandbox))


def test_many_and_odd_names_are_listed(sandbox: Sandbox):
    sandbox.out(
        "import os\nfor n in range(2000): open(f'f{n}', 'w').close()\n"
        "for odd in (b'\\xff\\xfe', 'new\\nline'.encode(), 'ls\\u2028'.encode(), b'-rf', b'sp ace'):\n"
        "    open(b'/workspace/' + odd, 'w').close()"
    )
    listed = names(sandbox)
    assert len(listed) == 2005 and {"new\nline", "ls\u2028", "-rf", "sp ace"} <= set(listed)
    assert sandbox.read("new\nline").json()["content"] == ""


def test_big_directories_are_refused_or_whole(sandbox: Sandbox):
    sandbox.out("for n in range(30_000): open('/workspace/' + 'n' * 100 + str(n), 'w').close()")
    response = sandbox.client.get(f"{sandbox.path}/files")
    if response.status_code == 200:
        assert len(response.json()["data"]) == 30_000
    else:
        assert 400 <= response.status_code < 500, response.text
    assert sandbox.value("1+1") == "2"
