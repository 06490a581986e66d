"""Control groups: not visible beyond the sandbox's own, not writable, and in force."""

from __future__ import annotations

from pathlib import Path

from probe import Sandbox, on_host


def groups_of(pid: int) -> list[str]:
    return [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]


def test_no_control_group_file_system(sandbox: Sandbox) -> None:
    probe = """
result = {
    "groups": sorted({line.split(":", 2)[2] for line in read("/proc/self/cgroup").splitlines()}),
    "types": sorted({line.split(" - ")[1].split()[0] for line in read("/proc/self/mountinfo").splitlines()}),
    "mount": [call(165, b"none", b"/workspace", t, 0, 0) for t in (b"cgroup", b"cgroup2")],
    "files": outcome(os.listdir, "/sys/fs/cgroup"),
}
"""
    for found in (sandbox.probe(probe), sandbox.probe_command(probe)):
        assert found["groups"] == ["/"], "the sandbox's group is its root"
        assert not {"cgroup", "cgroup2", "sysfs"} & set(found["types"])
        assert found["mount"] == ["EPERM", "EPERM"]
        assert found["files"] == "ENOENT"


def test_contexts_and_commands_are_in_the_sandbox_s_groups(sandbox: Sandbox) -> None:
    """Seen from the host: forked by a zygote or started by init, everything is accounted."""
    marker = "crownest-cgroup-marker"
    sandbox.start_named(marker)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes().split(b"\0")[0]:
                    found.append(int(entry.name))
            except OSError:
                continue
    assert found, "the sandbox's process is visible from the host"
    inside = [g for g in groups_of(found[0]) if sandbox.key in g]
    # memory, pids and cpu at least, or the one of version 2.
    assert len(inside) >= 3 or groups_of(found[0])[-1] in inside
    parent = int(Path(f"/proc/{found[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert [g for g in groups_of(parent) if sandbox.key in g] == inside, "so is its context"


def test_frozen_and_killed_from_outside_only(sandbox: Sandbox) -> None:
    probe = "result = [p for p in ('/sys/fs/cgroup', '/cgroup') if os.path.exists(p)]"
    assert sandbox.probe(probe) == []
    assert on_host(probe) != []
