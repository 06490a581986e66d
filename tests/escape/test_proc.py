"""/proc: what it says about the host, and what can be written."""

from __future__ import annotations

import pytest
from probe import Sandbox, on_host

WRITABLE = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ping_group_range",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/mtrr",
    "/proc/acpi/wakeup",
    "/proc/1/oom_score_adj",
    "/proc/1/comm",
    "/proc/meminfo",
    "/proc/config.gz",
]

# The kernel opens these for everybody and judges the write; a login uid says nothing here.
OPEN_TO_ALL = ["/proc/sys/kernel/ns_last_pid", "/proc/self/uid_map", "/proc/self/loginuid"]
# Opens, and takes a trigger, for everybody as well: a trigger tells how busy the machine is, which
# tenant code notices anyway, and changes nothing.
PRESSURE = ["/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory"]


def test_nothing_of_the_kernel_is_written(sandbox: Sandbox) -> None:
    probe = f"result = {{p: outcome(os.open, p, os.O_WRONLY) for p in {WRITABLE!r}}}"
    found = sandbox.probe(probe)
    assert [p for p, how in found.items() if how == "ok" and p not in OPEN_TO_ALL] == []
    assert found == sandbox.probe_command(probe)
    control = on_host(probe)
    assert control["/proc/sys/kernel/core_pattern"] == "ok"
    writes = """
def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
result = {
    "/proc/self/uid_map": outcome(write, "/proc/self/uid_map", b"0 0 1"),
    "/proc/self/setgroups": outcome(write, "/proc/self/setgroups", b"allow"),
    "/proc/sys/kernel/ns_last_pid": outcome(write, "/proc/sys/kernel/ns_last_pid", b"1"),
}
"""
    assert "ok" not in sandbox.probe(writes).values()


def test_every_writable_file_of_proc_is_the_process_own(sandbox: Sandbox) -> None:
    """Not the list above but all there is: whatever opens for writing belongs to the asker."""
    probe = """
opened = []
for base, directories, files in os.walk("/proc", onerror=lambda e: None):
    directories[:] = [d for d in directories if not d.isdigit() and d not in ("self", "thread-self", "task")]
    for name in files:
        path = os.path.join(base, name)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            opened.append(path)
        except OSError:
            pass
result = opened
"""
    assert set(sandbox.probe(probe)) <= {*OPEN_TO_ALL, *PRESSURE}
    assert len(on_host(probe)) > 100


def test_memory_and_processors_are_the_sandbox_s(sandbox: Sandbox) -> None:
    probe = """
memory = dict(line.split(":") for line in read("/proc/meminfo").splitlines())
result = [int(memory["MemTotal"].split()[0]), read("/proc/cpuinfo").count("processor\\t")]
"""
    found = sandbox.probe(probe)
    assert found == [2048 * 1024, min(2, on_host("result = os.cpu_count()"))]
    assert found[0] != on_host(probe)[0]


SECRETS = ["/proc/config.gz", "/proc/cmdline", "/proc/interrupts", "/proc/key-users"]


@pytest.mark.parametrize("path", SECRETS)
def test_masked_files_are_empty(sandbox: Sandbox, path: str) -> None:
    probe = f"result = os.path.exists({path!r}) and len(open({path!r}, 'rb').read(4096))"
    assert not sandbox.probe(probe)
    assert on_host(probe), "the host's says something"


def test_kernel_addresses_and_memory(sandbox: Sandbox) -> None:
    probe = """
def first(path):
    try:
        return read(path, 4096)
    except OSError as error:
        return error_name(error.errno)
kallsyms = first("/proc/kallsyms")
result = {
    "kallsyms": sorted({line.split()[0].strip("0") for line in kallsyms.splitlines()[:-1]}),
    "kcore": os.path.exists("/proc/kcore"),
    "iomem": sorted({c for line in first("/proc/iomem").splitlines() for c in line.split(":")[0].strip().replace("-", "")}),
    **{n: first("/proc/" + n) for n in ("kmsg", "slabinfo", "vmallocinfo", "pagetypeinfo", "timer_list", "kpageflags")},
    "keys": first("/proc/keys"),
    "sysrq": os.path.exists("/proc/sysrq-trigger"),
    "sys": os.listdir("/sys"),
}
"""
    found = sandbox.probe(probe)
    assert found["kallsyms"] in ([], [""])
    assert not found["kcore"] and not found["sysrq"]
    assert found["iomem"] in ([], ["0"])
    for name in ("kmsg", "slabinfo", "vmallocinfo", "pagetypeinfo", "timer_list", "kpageflags"):
        assert found[name] in ("EACCES", "EPERM", "ENOENT"), (name, found[name][:80])
    assert found["keys"] == "" and found["sys"] == []


def test_only_the_sandbox_s_processes_are_there(sandbox: Sandbox) -> None:
    probe = "result = sorted(int(n) for n in os.listdir('/proc') if n.isdigit())"
    assert sandbox.probe("import time\n" + probe)[0] == 1
    assert len(sandbox.probe(probe)) < 10 < len(on_host(probe))
    pid = on_host("result = os.getpid()")
    assert sandbox.probe(f"result = outcome(os.kill, {pid + 100_000}, 0)") == "ESRCH"


def test_mountinfo_names_no_path_of_the_host(sandbox: Sandbox) -> None:
    """What shows of the host is the source of each mount; none of it names a tenant or a place."""
    text = sandbox.probe("result = read('/proc/self/mountinfo')")
    for word in ("/var", "/run", "/home", "crownest-", sandbox.key, "/tmp/"):
        assert word not in text, word
    shown = {line.split()[3] for line in text.splitlines()}
    assert shown <= {
        "/", "/empty", "/dev", "/kernels", "/ca-certificates.crt",
        *(s for s in shown if s.startswith(("/proc/meminfo-", "/proc/cpuinfo-"))),
    }


def test_masks_cannot_be_lifted(sandbox: Sandbox) -> None:
    probe = """
result = {
    "unlink": outcome(os.unlink, "/proc/meminfo"),
    "through root": len(read("/proc/self/root/proc/cmdline")),
    "through cwd": (os.chdir("/proc"), len(read("/proc/self/cwd/cmdline")))[1],
    "through thread": len(read("/proc/thread-self/root/proc/interrupts")),
    "umount": call(166, b"/proc/cmdline", 2),
    "second proc": call(165, b"proc", b"/workspace", b"proc", 0, 0),
}
"""
    found = sandbox.probe(probe)
    assert found["unlink"] != "ok"
    assert found["umount"] == found["second proc"] == "EPERM"
    assert [found[n] for n in ("through root", "through cwd", "through thread")] == [0, 0, 0]
