"""Attacks by shell commands: programs that init itself starts and that share its descriptors."""

from __future__ import annotations

from arena import Arena, until
from table import Command, Json

OUTPUT_BYTES_MAX = 32 * 1024 * 1024


def stdout_is(expected: str):
    def check(arena: Arena, record: Json) -> None:
        assert record["stdout"] == expected, record

    return check


def cut_at_the_limit(arena: Arena, record: Json) -> None:
    """What is left out is marked."""
    assert record["stdoutTruncated"] is True
    assert len(record["stdout"].encode()) == OUTPUT_BYTES_MAX


def forks_were_refused(arena: Arena, record: Json) -> None:
    until("a refused fork", arena.pids_refused)


def killed_for_memory(arena: Arena, record: Json) -> None:
    assert arena.memory_kills() > 0


def all_bytes(arena: Arena, record: Json) -> None:
    assert record["stdout"] == bytes(range(256)).decode("utf-8", "replace") + "\u2028\u0000end\n"


COMMANDS = [
    Command(
        name="prints 1 GB",
        does="`head -c 1000000000 /dev/zero | tr` and counts what it wrote",
        command=r"""
            head -c 1000000000 /dev/zero | tr '\0' x | tee >(wc -c >/tmp/count)
            while [ ! -s /tmp/count ]; do sleep 0.01; done
        """,
        sees="the first 32 MiB and `stdoutTruncated`",
        timeout_ms=60_000,
        proof=lambda arena, record: a_gigabyte(arena, record),
    ),
    Command(
        name="yes",
        does="`yes`, for ever",
        command="yes",
        status="timed_out",
        exit_code=None,
        signal="SIGTERM",
        timeout_ms=700,
        sees="the first 32 MiB and `stdoutTruncated`",
        proof=lambda arena, record: truncated_or_whole(record),
    ),
    Command(
        name="all bytes",
        does="writes every byte, U+2028 and NUL",
        command=r"""
            python3 -c "import os; os.write(1, bytes(range(256)) + '\u2028\0end\n'.encode())"
        """,
        sees="U+FFFD in place of what is no character",
        proof=all_bytes,
    ),
    Command(
        name="writes to every descriptor",
        does="writes to the descriptors 0 to 255 and to `/proc/self/fd/*`",
        command="""
            for n in $(seq 0 255); do eval "echo garbage >&$n" 2>/dev/null; done
            for f in /proc/self/fd/*; do echo garbage >$f; done 2>/dev/null
            ls /proc/self/fd | wc -l >/tmp/n; true
        """,
        sees="its own two streams: it has no other descriptor",
        proof=lambda arena, record: only_three(arena, record),
    ),
    Command(
        name="closes its streams",
        does="closes descriptors 0, 1 and 2, then works on",
        command="exec <&- >&- 2>&-; touch /workspace/worked; sleep 0.3",
        sees="the exit when it comes, not when the pipes close",
        proof=lambda arena, record: worked(arena),
    ),
    Command(
        name="ignores SIGTERM",
        does="ignores SIGTERM and every other signal it can",
        command="""
            trap '' TERM INT HUP QUIT USR1 USR2 PIPE; echo deaf; while :; do sleep 0.2; done
        """,
        status="timed_out",
        exit_code=None,
        signal="SIGKILL",
        timeout_ms=300,
        proof=stdout_is("deaf\n"),
    ),
    Command(
        name="stops itself",
        does="sends itself SIGSTOP",
        command="echo stops; kill -STOP $$; echo woken",
        status="timed_out",
        exit_code=None,
        signal="SIGTERM",
        timeout_ms=300,
        proof=stdout_is("stops\n"),
    ),
    Command(
        name="stops itself and ignores SIGTERM",
        does="ignores SIGTERM and stops itself in a loop",
        command="trap '' TERM; while :; do kill -STOP $$; done",
        status="timed_out",
        exit_code=None,
        signal="SIGKILL",
        timeout_ms=300,
    ),
    Command(
        name="kills itself",
        does="sends itself SIGKILL",
        command="kill -9 $$",
        status="killed",
        exit_code=137,
        signal="SIGKILL",
    ),
    Command(
        name="segmentation fault",
        does="reads address 0",
        command="exec python3 -c 'import ctypes; ctypes.string_at(0)'",
        status="killed",
        exit_code=139,
        signal="SIGSEGV",
    ),
    Command(
        name="kill -9 -1",
        does="kills every process it may",
        command="kill -9 -1; echo alone",
        proof=stdout_is("alone\n"),
        sees="itself alone; all contexts start anew",
        others_kept=False,
    ),
    Command(
        name="kill -9 1",
        does="kills pid 1",
        command="kill -9 1; kill -STOP 1; kill -TERM 1; echo $?",
        proof=stdout_is("1\n"),
        sees="`Operation not permitted`",
    ),
    Command(
        name="daemon",
        does="starts a daemon that holds its streams and ignores signals",
        command="""
            setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1000; done' & echo started
        """,
        proof=stdout_is("started\n"),
        sees="the exit at once; the daemon lives until the sandbox ends",
        left=2,
    ),
    Command(
        name="daemon that prints for ever",
        does="leaves a daemon that writes to its stdout as fast as it can",
        command="setsid yes & echo started",
        proof=lambda arena, record: started(record),
        sees="what was there at the exit; the rest is read and thrown away",
        left=1,
    ),
    Command(
        name="children of a timed-out command",
        does="starts children in its session and outlasts its timeout",
        command="for n in 1 2 3 4 5; do sleep 1000 & done; wait",
        status="timed_out",
        exit_code=None,
        signal="SIGTERM",
        timeout_ms=300,
    ),
    Command(
        name="fork bomb",
        does="`bomb() { bomb | bomb & }; bomb`",
        command="bomb() { bomb | bomb & }; bomb",
        proof=forks_were_refused,
        sees="the exit of the first shell; the bomb stays within the limit of processes",
        left=None,
    ),
    Command(
        name="memory",
        does="allocates until there is none",
        command="""
            exec python3 -c 'x = []
            while True: x.append(bytearray(16 << 20))'
        """,
        status="killed",
        exit_code=137,
        signal="SIGKILL",
        reason="out_of_memory",
        proof=killed_for_memory,
    ),
    Command(
        name="disk",
        does="fills /workspace with `dd`",
        command="""
            dd if=/dev/zero of=/workspace/big bs=1M 2>&1 | grep -o 'No space left on device'
            rm /workspace/big
        """,
        proof=stdout_is("No space left on device\n"),
    ),
    Command(
        name="/dev/full, /dev/zero, /dev/random",
        does="writes to /dev/full and reads the others without end",
        command="""
            echo x >/dev/full; echo $?; head -c 5000000 /dev/urandom | wc -c
            cat /dev/zero | head -c 5000000 | wc -c
        """,
        proof=stdout_is("1\n5000000\n5000000\n"),
    ),
    Command(
        name="descriptors",
        does="opens files until it is refused",
        command="""
            python3 -c 'import os
            n = []
            try:
                while True: n.append(os.open("/dev/null", 0))
            except OSError as e: print(e.strerror)'
        """,
        proof=stdout_is("Too many open files\n"),
    ),
]


def a_gigabyte(arena: Arena, record: Json) -> None:
    cut_at_the_limit(arena, record)
    assert arena.command("cat /tmp/count")["stdout"].strip() == "1000000000"


def truncated_or_whole(record: Json) -> None:
    """On a slow machine less than the limit comes in time."""
    length = len(record["stdout"])
    assert length <= OUTPUT_BYTES_MAX and length > 0
    assert record["stdoutTruncated"] is (length == OUTPUT_BYTES_MAX), length


def only_three(arena: Arena, record: Json) -> None:
    assert "garbage" in record["stdout"], record
    # 0, 1, 2 and the directory that ls itself reads.
    assert arena.command("cat /tmp/n")["stdout"].strip() == "4"


def worked(arena: Arena) -> None:
    assert arena.command("ls /workspace")["stdout"] == "worked\n"


def started(record: Json) -> None:
    assert "started" in record["stdout"], record["stdout"][:200]
