"""A context on its way in: forked by root, and for a moment half undressed beside tenant code.

The processes of one sandbox share a uid, so a running context can signal a new one as soon as it
has that uid, and stop it between two steps. None of the steps may leave something to take then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from probe import Sandbox, on_host

CONTEXTS = 40

# Stops every new process as early as it can and looks at it while it stands.
WATCHER = """
SIGCONT, SIGSTOP = 18, 19

def reachable(pid):
    found = []
    try:
        os.close(os.open("/proc/%d/mem" % pid, os.O_RDWR))
        found.append("mem")
    except OSError:
        pass
    try:
        os.listdir("/proc/%d/fd" % pid)
        found.append("fd")
    except OSError:
        pass
    return found

def watch(wanted, seconds):
    end = time.monotonic() + seconds
    last = max(int(name) for name in os.listdir("/proc") if name.isdigit())
    met = stopped_bare = 0
    leaks = []
    while met < wanted and time.monotonic() < end:
        pid = next((p for p in range(last + 1, last + 6) if libc.kill(p, SIGSTOP) == 0), 0)
        if not pid:
            continue
        met += 1
        last = pid
        for _ in range(2000):
            try:
                before = status(pid)
                found = reachable(pid)
                after = status(pid)
            except OSError:
                break
            bare = before["Seccomp"] == after["Seccomp"] == "0" or before["NoNewPrivs"] == "0"
            if not bare:
                break
            stopped_bare += 1
            if found:
                leaks.append({"found": found, "status": {k: after[k] for k in ("Uid", "CapEff", "Seccomp")}})
                break
            libc.kill(pid, SIGCONT)
            pause = time.perf_counter() + 0.00002
            while time.perf_counter() < pause:
                os.sched_yield()
            libc.kill(pid, SIGSTOP)
        libc.kill(pid, SIGCONT)
    return {"met": met, "stopped_bare": stopped_bare, "leaks": leaks}
"""


def test_a_context_cannot_be_taken_over_before_its_filter_is_on(
    make: Callable[..., Sandbox],
) -> None:
    """With the memory of an unfiltered process one could overwrite the call that filters it."""
    sandbox = make()
    watcher = sandbox.context()
    found: dict[str, object] = {}

    def watch() -> None:
        found.update(sandbox.probe(f"{WATCHER}\nresult = watch({CONTEXTS}, 50)", watcher))

    thread = threading.Thread(target=watch)
    thread.start()
    filtered = []
    while thread.is_alive() and len(filtered) < 2 * CONTEXTS:
        context = sandbox.context()
        filtered.append(sandbox.probe('result = status()["Seccomp"]', context))
        sandbox.api.http.delete(f"{sandbox.path}/code/contexts/{context}")
    thread.join()
    assert found["met"], "the watcher never met a new context"
    assert found["leaks"] == []
    assert set(filtered) == {"2"}


def test_the_watcher_sees_a_process_that_undresses_in_the_wrong_order() -> None:
    """The control: the same watch, in a pid namespace of its own, over processes that are open
    before they are filtered."""
    probe = f"""
{WATCHER}
def undress():
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    libc.prctl(4, 1, 0, 0, 0)
    time.sleep(0.5)
    os._exit(0)

def fork_some():
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            undress()
        os.waitpid(pid, 0)
    os._exit(0)

def inside():
    libc.mount(b"none", b"/", None, 0x44000, None)
    libc.mount(b"proc", b"/proc", b"proc", 0, None)
    if os.fork() == 0:
        fork_some()
    return len(watch(3, 10)["leaks"])

libc.unshare(0x20020000)
result = in_child(inside)
"""
    assert on_host(probe) > 0


def test_modules_of_the_workspace_are_not_imported_on_the_way_in(
    make: Callable[..., Sandbox],
) -> None:
    """A name that the kernel imports late would be found in /workspace first, with rights that
    the tenant does not have."""
    sandbox = make()
    first = sandbox.context()
    sandbox.probe(
        """
names = ("encodings ctypes random ssl signal numpy gc json codecs traceback linecache socket "
         "tokenize token errno struct array time platform types faulthandler sitecustomize "
         "usercustomize zoneinfo _strptime locale stringprep").split()
body = 'open("/tmp/taken","a").write(__name__ + " " + open("/proc/self/status").read() + chr(10))'
for name in names:
    open("/workspace/%s.py" % name, "w").write(body)
    os.makedirs("/home/user/.local/lib/python3.11/site-packages", exist_ok=True)
    open("/home/user/.local/lib/python3.11/site-packages/%s.py" % name, "w").write(body)
result = True
""",
        first,
    )
    second = sandbox.context()
    found = sandbox.probe(
        """
taken = read("/tmp/taken") if os.path.exists("/tmp/taken") else ""
result = [taken, status()["Seccomp"], status()["CapEff"]]
""",
        second,
    )
    # What the tenant's own process imports later is the tenant's business.
    assert "CapEff:\t0000003fffffffff" not in found[0] and "Seccomp:\t0" not in found[0]
    assert found[1:] == ["2", "0000000000000000"]


def test_what_a_context_starts_with(sandbox: Sandbox) -> None:
    """No descriptor, variable or signal of the zygote but the ones of the protocol."""
    probe = """
fds = {}
for name in os.listdir("/proc/self/fd"):
    try:
        fds[int(name)] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
result = {
    "fds": fds,
    "environ": read("/proc/self/environ").split(chr(0)),
    "masked": status()["SigBlk"],
    "session": os.getsid(0) == os.getpid(),
}
"""
    found = sandbox.probe(probe)
    kinds = sorted(target.split(":")[0] for target in found["fds"].values())
    # 0, 1, 2, a copy of each for the restore after a cell, and the control socket.
    assert kinds == ["/dev/null"] * 2 + ["pipe"] * 4 + ["socket"]
    assert len(set(found["fds"].values())) == 4
    assert found["masked"] == "0000000000000000" and found["session"]
    assert not [e for e in found["environ"] if "run/crownest" in e or "/var/lib" in e]


def test_what_a_command_starts_with(sandbox: Sandbox) -> None:
    done = sandbox.command("for f in /proc/self/fd/*; do readlink $f; done; true")
    kinds = sorted(line.split(":")[0] for line in done["stdout"].split())
    assert kinds == ["/dev/null", "pipe", "pipe"]
