"""Files: the template, devices, and every file route with paths that try to lead elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from probe import Sandbox, on_host
from server import TEMPLATES

TEMPLATE_FILES = ["/usr/bin/env", "/etc/passwd", "/opt/crownest/python/zygote.py", "/usr/lib"]


def test_the_template_is_not_changed(sandbox: Sandbox) -> None:
    probe = f"""
result = {{}}
for path in {TEMPLATE_FILES!r}:
    target = path if not os.path.isdir(path) else path + "/x"
    result[path] = [
        outcome(os.open, target, os.O_WRONLY | os.O_CREAT),
        outcome(os.chmod, path, 0o777),
        outcome(os.rename, path, path + ".old"),
        outcome(os.unlink, path) if not os.path.isdir(path) else outcome(os.rmdir, path),
        outcome(os.link, path, "/workspace/link"),
        outcome(os.utime, path),
    ]
result["exe"] = outcome(os.open, "/proc/self/exe", os.O_WRONLY)
result["kernel bind"] = outcome(os.open, "/opt/crownest/seccomp.bpf", os.O_RDWR)
"""
    for found in (sandbox.probe(probe), sandbox.probe_command(probe)):
        for path in TEMPLATE_FILES:
            assert "ok" not in found[path], (path, found[path])
        assert found["exe"] != "ok" and found["kernel bind"] != "ok"


def test_what_is_written_stays_in_one_sandbox(
    make: Callable[..., Sandbox], neighbour: Sandbox
) -> None:
    """The paths that tenant code may write to, and the template under them, on the host."""
    sandbox = make()
    places = ["/workspace", "/tmp", "/dev/shm", "/home/user", "/var/tmp"]
    sandbox.probe(
        f"for p in {places!r}:\n    open(p + '/crownest-mark', 'w').write('x')\nresult = True"
    )
    look = f"result = [p for p in {places!r} if os.path.exists(p + '/crownest-mark')]"
    assert sandbox.probe(look) == places
    assert neighbour.probe(look) == []
    assert make().probe(look) == []
    assert on_host(look) == []
    root = TEMPLATES / "python" / "current" / "rootfs"
    assert not [p for p in places if (root / p.lstrip("/") / "crownest-mark").exists()]


DEVICES = """
import stat
result = {"mknod": {}, "dev": {}}
for name, major, minor in (("mem", 1, 1), ("kvm", 10, 232), ("sda", 8, 0), ("vda", 254, 0), ("null", 1, 3)):
    for place in ("/workspace", "/tmp", "/dev/shm"):
        path = "%s/%s" % (place, name)
        made = outcome(os.mknod, path, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        result["mknod"][path] = made if made != "ok" else "ok, open " + outcome(os.open, path, os.O_RDONLY)
        if made == "ok":
            os.unlink(path)
for base, _, names in os.walk("/dev"):
    for name in names:
        path = os.path.join(base, name)
        if not os.path.islink(path):
            s = os.stat(path)
            result["dev"][path] = "%d:%d" % (os.major(s.st_rdev), os.minor(s.st_rdev))
"""


def test_devices(sandbox: Sandbox) -> None:
    for found in (sandbox.probe(DEVICES), sandbox.probe_command(DEVICES)):
        assert set(found["mknod"].values()) == {"EPERM"}
        known = {
            "/dev/null": "1:3", "/dev/zero": "1:5", "/dev/full": "1:7", "/dev/random": "1:8",
            "/dev/urandom": "1:9", "/dev/tty": "5:0", "/dev/pts/ptmx": "5:2",
        }
        extra = {p: d for p, d in found["dev"].items() if known.get(p) != d}
        assert all(p.startswith(("/dev/pts/", "/dev/shm/")) for p in extra), extra
    assert on_host(DEVICES)["mknod"]["/tmp/null"].startswith("ok")


def test_fifos_still_work(sandbox: Sandbox) -> None:
    assert sandbox.probe("result = outcome(os.mkfifo, '/workspace/fifo')") == "ok"


OUTSIDE = [
    "/etc/passwd",
    "../etc/passwd",
    "/workspace/../etc/passwd",
    "a/../../etc/passwd",
    "/proc/self/environ",
    "/proc/1/environ",
    "/workspace/../proc/1/root/etc/passwd",
    "link-etc/passwd",
    "link-passwd",
    "link-proc/environ",
    "link-root/etc/passwd",
    "link-fd/3",
    "link-dev",
    "//etc/passwd",
    "/workspace/./.././etc/passwd",
]


@pytest.fixture(scope="module")
def linked(api: object, sandbox: Sandbox) -> Sandbox:
    sandbox.probe(
        """
os.makedirs("/workspace/a", exist_ok=True)
for name, target in (("etc", "/etc"), ("passwd", "/etc/passwd"), ("proc", "/proc/1"), ("root", "/proc/1/root"),
                     ("fd", "/proc/self/fd"), ("dev", "/dev/zero"), ("loop", "/workspace/link-loop"),
                     ("inside", "/workspace/a"), ("up", "..")):
    os.symlink(target, "/workspace/link-" + name)
open("/workspace/a/file", "w").write("inside")
result = True
"""
    )
    return sandbox


@pytest.mark.parametrize("path", OUTSIDE)
def test_file_routes_do_not_leave_the_workspace(linked: Sandbox, path: str) -> None:
    http, base = linked.api.http, linked.path + "/files"
    answers = {
        "read": http.get(base + "/read", params={"path": path}),
        "list": http.get(base, params={"path": path}),
        "stat": http.get(base + "/stat", params={"path": path}),
        "write": http.put(base, json={"path": path, "content": "x", "overwrite": True}),
        "mkdir": http.post(base + "/mkdir", json={"path": path + "/d", "parents": True}),
        "move out": http.post(
            base + "/move", json={"from": "a/file", "to": path, "overwrite": True}
        ),
        "move in": http.post(base + "/move", json={"from": path, "to": "stolen"}),
    }
    # A link may itself be moved or removed, as any name of the workspace.
    own_name = path in ("link-passwd", "link-dev")
    for name, answer in answers.items():
        if own_name and name.startswith("move"):
            continue
        assert 400 <= answer.status_code < 500, (name, answer.status_code, answer.text)
        assert "root:x:0" not in answer.text
    restore = "os.path.exists('/workspace/a/file') or open('/workspace/a/file','w').write('inside')"
    linked.run(f"import os; {restore}\nfor n in ('passwd',): \n  p='/workspace/link-passwd'\n"
               "  os.path.islink(p) or (os.path.exists(p) and os.unlink(p), os.symlink('/etc/passwd', p))")
    assert linked.probe("result = read('/etc/passwd').startswith('root:x:0')")


def test_links_inside_the_workspace_work(linked: Sandbox) -> None:
    """The control: the same routes follow a link that stays."""
    answer = linked.api.http.get(linked.path + "/files/read", params={"path": "link-inside/file"})
    assert answer.status_code == 200 and answer.json()["content"] == "inside"


STRANGE = ["a\0b", "x" * 300, "a/" * 200 + "f", "x" * 5000, "link-loop", "", ".", "a/..", "\ud800x"]


@pytest.mark.parametrize("path", STRANGE[:-1])
def test_strange_paths_are_refused_and_init_lives(linked: Sandbox, path: str) -> None:
    base = linked.path + "/files"
    answer = linked.api.http.put(base, json={"path": path, "content": "x", "createParents": False})
    assert 400 <= answer.status_code < 500, answer.text
    assert linked.api.http.get(base + "/stat", params={"path": "a/file"}).status_code == 200


def test_special_files_do_not_block_init(linked: Sandbox) -> None:
    """Opening a FIFO, or reading a socket, would stop the one thread that keeps the sandbox."""
    linked.probe(
        """
for name in ("pipe",):
    if not os.path.exists("/workspace/pipe"): os.mkfifo("/workspace/pipe")
s = socket.socket(socket.AF_UNIX)
if not os.path.exists("/workspace/sock"): s.bind("/workspace/sock")
result = True
"""
    )
    http, base = linked.api.http, linked.path + "/files"
    for path in ("pipe", "sock"):
        for answer in (
            http.get(base + "/read", params={"path": path}, timeout=5),
            http.get(base, params={"path": path}, timeout=5),
            http.put(base, json={"path": path, "content": "x"}, timeout=5),
        ):
            assert 400 <= answer.status_code < 500, answer.text
    assert http.get(base + "/stat", params={"path": "a/file"}).status_code == 200


def test_names_that_are_not_text_are_listed(linked: Sandbox) -> None:
    linked.probe(
        """
os.makedirs(b"/workspace/odd", exist_ok=True)
for name in (b"\\xff\\xfe", b"new\\nline", b"\\x1b[31mred", b"x" * 255, "\\u202eabc".encode()):
    open(b"/workspace/odd/" + name, "w").close()
result = True
"""
    )
    answer = linked.api.http.get(linked.path + "/files", params={"path": "odd"})
    assert answer.status_code == 200 and len(answer.json()["data"]) == 5


def test_a_link_swapped_while_routes_run_never_leads_out(linked: Sandbox) -> None:
    """A directory that turns into a link and back, as fast as tenant code can."""
    context = linked.context()
    linked.probe(
        """
import threading
os.makedirs("/workspace/race", exist_ok=True)
open("/workspace/race/passwd", "w").write("mine")
stop = threading.Event()
def swap():
    end = time.monotonic() + 8
    while not stop.is_set() and time.monotonic() < end:
        os.rename("/workspace/race", "/workspace/away")
        os.symlink("/etc", "/workspace/race")
        os.unlink("/workspace/race")
        os.rename("/workspace/away", "/workspace/race")
threading.Thread(target=swap).start()
result = True
""",
        context,
    )
    http, base = linked.api.http, linked.path + "/files"
    seen = set()
    for _ in range(300):
        read = http.get(base + "/read", params={"path": "race/passwd"})
        wrote = http.put(base, json={"path": "race/new", "content": "x", "overwrite": True})
        assert "root:x:0" not in read.text
        seen.add(read.status_code)
        assert wrote.status_code < 500
    linked.run("stop.set()", context)
    assert 200 in seen, "the race was never won by the directory"
    assert linked.probe("result = os.path.exists('/etc/new')") is False


def test_a_deep_or_huge_directory_does_not_end_init(make: Callable[..., Sandbox]) -> None:
    sandbox = make()
    sandbox.probe(
        """
os.makedirs("/workspace/many", exist_ok=True)
for i in range(11000):
    os.close(os.open("/workspace/many/%s%d" % ("n" * 240, i), os.O_CREAT))
os.chdir("/workspace")
for i in range(3000):
    os.mkdir("d"); os.chdir("d")
os.chdir("/workspace")
result = True
"""
    )
    http, base = sandbox.api.http, sandbox.path + "/files"
    assert 400 <= http.get(base, params={"path": "many"}).status_code < 500
    assert http.delete(base, params={"path": "d"}).status_code == 409
    assert http.get(base, params={"path": "/workspace"}).status_code == 200
