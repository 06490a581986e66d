"""Attacks that use up what a sandbox has: memory, disk, names, descriptors, processor time."""

from __future__ import annotations

import httpx
from arena import MIB, RESOURCES, Arena, text
from table import Attack, Json

MEMORY = "x = []\nwhile True: x.append(bytearray(16 << 20))"


def killed_for_memory(arena: Arena, run: Json) -> None:
    assert arena.memory_kills() > 0


def full_disk(arena: Arena, run: Json) -> None:
    """As much as the limit says; then a write through the API is refused with its reason."""
    error, written = text(run).rsplit(" ", 1)
    assert error == "No space left on device", run
    assert RESOURCES["diskBytes"] * 3 // 4 < int(written) <= RESOURCES["diskBytes"], written
    body = {"path": "more", "content": "x" * 200_000}
    refused = arena.http.put(f"{arena.path}/files", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
    assert delete(arena, "big").status_code == 200
    assert arena.http.put(f"{arena.path}/files", json=body).status_code == 200


def delete(arena: Arena, path: str) -> httpx.Response:
    return arena.http.delete(f"{arena.path}/files", params={"path": path})


def no_names_left(arena: Arena, run: Json) -> None:
    error, made = text(run).rsplit(" ", 1)
    assert error == "No space left on device" and int(made) > 1000, run
    shell = arena.command("rm /workspace/n/0 && touch /workspace/one && echo room")
    assert shell["stdout"] == "room\n", shell


def room_again(arena: Arena, run: Json) -> None:
    """Files in memory outlive the process that was killed: they can be removed from outside."""
    killed_for_memory(arena, run)
    shell = arena.command("rm -f /dev/shm/big && echo gone")
    assert shell["stdout"] == "gone\n", shell


def used_processor(arena: Arena, run: Json) -> None:
    assert float(text(run)) < 3.0 * 0.5 + 0.5, f"{text(run)} s of processor time in 3 s"


FILL = """
import os
total = 0
block = bytes(1 << 20)
f = os.open('{path}', os.O_CREAT | os.O_WRONLY)
try:
    while total < 4 << 30: total += os.write(f, block)
except OSError as error: print(error.strerror, total, end='')
os.close(f)
"""


RESOURCE_ATTACKS = [
    Attack(
        name="memory",
        does="allocates memory until there is none",
        code=MEMORY,
        outcome="out_of_memory",
        error="OutOfMemory",
        message="memory limit",
        kept=False,
        proof=killed_for_memory,
    ),
    Attack(
        name="memory in children",
        does="has 6 children allocate until there is none",
        code="""
            import os
            for _ in range(6):
                if os.fork() == 0:
                    x = []
                    while True: x.append(bytearray(16 << 20))
            try:
                while True: os.wait()
            except ChildProcessError: print('all gone')
        """,
        sees="its children killed, one after the other: the kernel takes the largest process",
        proof=lambda arena, run: children_killed(arena, run),
        timeout_ms=30_000,
    ),
    Attack(
        name="memory of a mapping",
        does="maps 3 GiB and touches every page",
        code="""
            import mmap
            m = mmap.mmap(-1, 3 << 30)
            for i in range(0, len(m), 4096): m[i] = 1
        """,
        outcome="out_of_memory",
        error="OutOfMemory",
        kept=False,
        proof=killed_for_memory,
    ),
    Attack(
        name="memory that nobody has",
        does="asks for 1 TiB at once",
        code="x = bytearray(1 << 40)",
        error="MemoryError",
    ),
    Attack(
        name="disk",
        does="writes to /workspace until it is full",
        code=FILL.format(path="/workspace/big"),
        sees="`No space left on device`; writes through the API: 507 `storage_full`",
        proof=full_disk,
    ),
    Attack(
        name="files in memory",
        does="writes to /dev/shm until the memory limit",
        code=FILL.format(path="/dev/shm/big"),
        outcome="out_of_memory",
        error="OutOfMemory",
        kept=False,
        others_kept=None,
        proof=room_again,
    ),
    Attack(
        name="inodes",
        does="makes empty files until it is refused",
        code="""
            import os
            os.mkdir('/workspace/n')
            n = 0
            try:
                while n < 2_000_000:
                    os.mknod('/workspace/n/%d' % n); n += 1
            except OSError as error: print(error.strerror, n, end='')
        """,
        sees="`No space left on device` in its own code",
        fields={"resources": {**RESOURCES, "diskBytes": 16 * MIB}},
        proof=no_names_left,
        timeout_ms=30_000,
    ),
    Attack(
        name="kernel memory in sockets",
        does="fills the buffers of as many sockets as it gets, and keeps them",
        code="""
            import socket
            largest = b'x' * (64 << 20)  # the kernel takes the process that has most
            keep = []
            while True:
                a, b = socket.socketpair(); keep += [a, b]
                a.setblocking(False)
                try:
                    while True: a.send(bytes(65536))
                except BlockingIOError: pass
        """,
        outcome="out_of_memory",
        error="OutOfMemory",
        kept=False,
        sees="the limit of memory: buffers count towards it",
        timeout_ms=20_000,
        proof=killed_for_memory,
    ),
    Attack(
        name="processor",
        does="spins in eight processes with half a processor to itself",
        code="""
            import os, time
            end = time.monotonic() + 3
            pids = []
            for _ in range(8):
                pid = os.fork()
                if pid == 0:
                    while time.monotonic() < end: pass
                    os._exit(0)
                pids.append(pid)
            for pid in pids: os.waitpid(pid, 0)
            t = os.times()
            print(t.children_user + t.children_system, end='')
        """,
        fields={"resources": {**RESOURCES, "cpuMillis": 500, "memoryBytes": 512 * MIB}},
        sees="half a processor",
        proof=used_processor,
    ),
]


def children_killed(arena: Arena, run: Json) -> None:
    assert text(run) == "all gone\n", run
    assert arena.memory_kills() == 6, arena.memory_kills()
