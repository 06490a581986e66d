"""Who tenant code is, what it may do, and what it can do to the process that keeps it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from probe import Sandbox, on_host

NOTHING = "0000000000000000"
# KILL, SETGID, SETUID: what is left of the bounding set of programs that init starts, which has
# no right to shorten it. Nothing can be gained from it: no_new_privs, and every mount is nosuid.
INIT_BOUNDING = "00000000000000e0"

STATUS = "s = status(); result = {k: s[k] for k in s if k[:3] in ('Cap', 'NoN', 'Sec', 'Uid', 'Gid', 'Gro')}"


WAYS = {
    "context": lambda sandbox, snippet: sandbox.probe(snippet),
    "fresh context": lambda sandbox, snippet: sandbox.probe(snippet, sandbox.context("fresh")),
    "command": lambda sandbox, snippet: sandbox.probe_command(snippet),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_capability_no_group_no_new_privileges(sandbox: Sandbox, way: str) -> None:
    found = WAYS[way](sandbox, STATUS)
    assert found["CapBnd"] == (NOTHING if way == "context" else INIT_BOUNDING)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert found[name] == NOTHING, name
    assert found["NoNewPrivs"] == "1" and found["Seccomp"] == "2"
    assert found["Uid"].split() == found["Gid"].split() == ["1000"] * 4
    assert found["Groups"] in ("", "1000")
    assert on_host(STATUS)["CapEff"] != NOTHING


CHANGES = """
result = {}
for name, number, args in (
    ("setuid", 105, (0,)), ("setgid", 106, (0,)), ("setresuid", 117, (0, 0, 0)),
    ("setreuid init", 113, (998, 998)), ("setgroups", 116, (0, 0)), ("sethostname", 170, (b"x", 1)),
):
    result[name] = in_child(lambda: call(number, *args))
"""


@pytest.mark.parametrize("way", WAYS)
def test_identity_cannot_be_changed(sandbox: Sandbox, way: str) -> None:
    found = WAYS[way](sandbox, CHANGES)
    assert set(found.values()) == {"EPERM"}, found
    control = on_host(CHANGES.replace('("sethostname", 170, (b"x", 1)),', ""))
    assert control["setuid"] == control["setresuid"] == "ok"


def test_no_program_raises_privileges(sandbox: Sandbox) -> None:
    """The template has programs with the bit; here it means nothing."""
    found = sandbox.probe(
        """
import subprocess, stat
bits = subprocess.run(
    "find / -xdev -perm /6000 -type f 2>/dev/null; getcap -r / 2>/dev/null", shell=True,
    capture_output=True, text=True).stdout.split()
own = "/workspace/own-suid"
import shutil
shutil.copy("/usr/bin/id", own); os.chmod(own, 0o6755)
ran = {}
for program in [own] + [p for p in bits if p.endswith(("/su", "/mount", "/newgrp"))][:3]:
    done = subprocess.run([program, "--version"] if program != own else [program, "-u"],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    ran[program] = done.stdout
mounts = [line.split() for line in read("/proc/self/mountinfo").splitlines()]
result = {
    "own": ran[own].strip(),
    "not nosuid": [m[4] for m in mounts if "nosuid" not in m[5].split(",")],
    "setgid kept": bool(os.stat(own).st_mode & stat.S_ISUID),
    "as root": subprocess.run(
        "for f in %s; do [ $(stat -c %%u $f) = 0 ] && echo $f; done" % " ".join(bits),
        shell=True, capture_output=True, text=True).stdout.split() if bits else [],
}
"""
    )
    assert found["own"] == "1000"
    assert found["not nosuid"] == []


PROCESS = """
result = {
    "status": {k: v for k, v in status(PID).items() if k in ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")},
    "open": {},
}
for name in ("mem", "environ", "fd", "maps", "root", "cwd", "exe", "ns/user", "auxv", "stack",
             "syscall", "pagemap", "io", "map_files", "fd/3"):
    path = "/proc/%d/%s" % (PID, name)
    if name in ("root", "cwd", "exe", "ns/user", "fd/3"):
        result["open"][name] = outcome(os.readlink, path)
    elif name in ("fd", "map_files"):
        result["open"][name] = outcome(os.listdir, path)
    else:
        # A file that opens and then says nothing has been refused as well.
        try:
            with open(path, "rb", buffering=0) as file:
                result["open"][name] = "ok" if file.read(64) else "empty"
        except OSError as error:
            result["open"][name] = error_name(error.errno)
"""


def test_init_shows_nothing(sandbox: Sandbox) -> None:
    found = sandbox.probe("PID = 1\n" + PROCESS)
    assert found["status"]["Uid"].split()[0] == "998"
    assert found["status"]["CapEff"] == INIT_BOUNDING
    assert found["status"]["NoNewPrivs"] == "1" and found["status"]["Seccomp"] == "2"
    allowed = [name for name, how in found["open"].items() if how in ("ok", "empty")]
    assert allowed == [], found["open"]
    # The same look at a process of the same user; what lets it is that uid.
    control = on_host("PID = os.getppid()\n" + PROCESS)
    assert {"environ", "fd", "maps", "root"} <= {n for n, how in control["open"].items() if how == "ok"}


@pytest.mark.parametrize("way", ["context", "command"])
def test_init_cannot_be_signalled(make: Callable[..., Sandbox], way: str) -> None:
    sandbox = make()
    sandbox.run("x = 41")
    probe = """
import signal
result = {n: outcome(os.kill, 1, n) for n in range(1, 65)}
result[0] = outcome(os.kill, -1, signal.SIGURG)
"""
    found = sandbox.probe(probe) if way == "context" else sandbox.probe_command(probe)
    assert {found[str(n)] for n in range(1, 65)} == {"EPERM"}
    assert sandbox.run("x + 1")["outputs"][0]["value"] == "42"
    control = on_host("pid = os.fork()\nif pid == 0: time.sleep(60)\n"
                      "result = outcome(os.kill, pid, 9); os.waitpid(pid, 0)")
    assert control == "ok"


def test_limits_cannot_be_raised(sandbox: Sandbox) -> None:
    probe = """
import resource
result = {
    "nofile": call(160, 7, struct.pack("QQ", 1 << 20, 1 << 20)),
    "nice": outcome(os.setpriority, os.PRIO_PROCESS, 0, -5),
    "realtime": outcome(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)),
    "oom": outcome(os.write, os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000"),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "oom now": int(read("/proc/self/oom_score_adj")),
}
"""
    found = sandbox.probe(probe)
    assert found["nofile"] != "ok" and found["nice"] != "ok" and found["realtime"] != "ok"
    assert found["oom"] != "ok" and found["oom now"] >= 500
    assert found["core"] == 0
