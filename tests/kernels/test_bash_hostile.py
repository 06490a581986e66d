"""Cells that try to break the shell, by accident or not: the context goes on with its state."""

from __future__ import annotations

import sys

import pytest

import launch
from backends import DriverBackend
from harness import Died

# Longest time that any of these takes when nothing is wrong.
CELL_SECONDS_MAX = 30
# After that, a run of one that makes its shell useless is interrupted.
HANG_SECONDS = 3


@pytest.fixture
def context():
    try:
        started = launch.launch("bash")
    except launch.Missing as reason:
        print(f"SKIP: no driver of bash: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(str(reason))
    backend = DriverBackend(started, {})
    yield backend.peer
    backend.close()


def run(context, code, **fields):
    context.begin(code, **fields)
    return context.finish(timeout=CELL_SECONDS_MAX)


def run_to_its_end(context, code):
    """As init does with a timeout: a run that does not end is interrupted."""
    context.begin(code)
    try:
        return context.finish(timeout=HANG_SECONDS)
    except TimeoutError:
        context.interrupt(frame=True)
        return context.finish(timeout=CELL_SECONDS_MAX)


# What is in the shell before each of them, and must be there after.
KEPT = "kept=1; declare -A map=([a]='b c'); f() { echo called; }; alias hi='echo hello'; cd /usr"
ALIVE = 'echo "$kept" "${map[a]}" "$PWD"; f; hi; echo err >&2'
ALIVE_OUT = "1 b c /usr\ncalled\nhello\n"

# The shell lives on, or is replaced by one with its state: name, code.
SURVIVED = [
    ("stdout to nowhere", "exec >/dev/null; echo gone"),
    ("both streams closed", "exec 1>&- 2>&-"),
    ("stdin closed", "exec 0<&-"),
    ("every low descriptor in use", "for n in {3..30}; do eval \"exec $n>/dev/null\"; done"),
    ("every descriptor closed", "for n in {0..300}; do eval \"exec $n>&-\"; done"),
    ("every descriptor replaced", "for n in {3..300}; do eval \"exec $n</etc/passwd\"; done"),
    ("private numbers in use", "exec 60>/dev/null 61>&1 62</etc/passwd 63>/dev/null 64>&1 65<&0"),
    ("the number of the report", "exec 201>&- 255>&-"),
    ("reads all it can", "cat; read -r x; mapfile; cat <&0; echo ${#MAPFILE[@]}"),
    ("reads every descriptor", "for n in {3..100}; do timeout 0.1 cat <&$n; done 2>/dev/null"),
    ("interrupts ignored", "trap '' INT TERM HUP QUIT"),
    ("kill -9 of the shell", "kill -9 $$"),
    ("kill of the shell", "kill $$"),
    ("kill -9 of the group", "kill -9 0"),
    ("hangs up", "kill -HUP $$"),
    ("exit in a function", "g() { exit 3; }; g"),
    ("exit in a subshell", "(exit 3)"),
    ("logout", "logout"),
    ("exec of a program", "exec true"),
    ("exec of nothing", "exec /no/such/program"),
    ("return", "return 7; echo never"),
    ("break", "break 9; continue 9; true"),
    ("errexit and all", "set -euo pipefail; false | true; echo $missing"),
    ("errexit from outside", "set -e; g() { false; echo never; }; g"),
    ("unset in errexit", "set -eu; : ${kept:?} ${missing:?no}"),
    ("unfinished here-document", "cat <<END\nline"),
    ("unfinished quote", "echo 'open"),
    ("unfinished everything", "if while { ( [[ case"),
    ("only brackets", "}"),
    ("two groups", "echo a\n}\n{ echo b"),
    ("a line that goes on", "echo a \\"),
    ("comment at the end", "true # no line feed"),
    ("only a comment", "# nothing"),
    ("empty", ""),
    ("no line feed at the end", "printf x"),
    ("carriage returns", "echo a\r\necho b\r"),
    ("zero byte", "echo a\0b"),
    ("zero bytes printed", "head -c 100 /dev/zero"),
    ("bytes that are no text", "printf '\\xff\\xfe\\n'"),
    ("prompts", "PS1='$(echo prompt >&2)\\u' PS2=x PS3=y PS4='$(echo trace)'"),
    ("prompt command", "PROMPT_COMMAND='echo prompt; x=y'; PS0=z"),
    ("prompt command that fails", "PROMPT_COMMAND='false; exit_not'"),
    ("trace", "set -x; PS4='\\1+'"),
    ("verbose", "set -v"),
    ("debug trap", "trap 'echo debug; x=$BASH_COMMAND' DEBUG"),
    ("debug trap that fails", "shopt -s extdebug; trap false DEBUG"),
    ("error trap", "set -E; trap 'echo failed' ERR; false; true"),
    ("return trap", "set -T; trap 'echo returned' RETURN"),
    ("exit trap", "trap 'echo bye' EXIT"),
    ("exit trap and exit", "trap 'echo bye' EXIT; trap - ERR; exit 4"),
    ("exit trap that exits", "trap 'exit 9; echo' EXIT ERR; false; true"),
    ("no traps", "trap - EXIT ERR"),
    ("builtin is a function", "builtin() { :; }"),
    ("builtins are functions", "printf() { :; }; echo() { :; }; declare() { :; }; trap() { :; }"),
    ("the dot is a function", "function . { echo dot; }; source() { :; }"),
    ("builtin fails", "builtin() { return 1; }; set -e"),
    ("builtin ends the shell", "builtin() { exit 5; }"),
    ("builtin passes on", "builtin() { command builtin \"$@\"; }"),
    ("builtins are gone", "enable -n printf declare . trap builtin eval"),
    ("aliases of everything", "for n in builtin printf . if '[[' '{' declare exit; do alias \"$n=false\"; done"),
    ("start-up files", "export BASH_ENV=/no/such ENV=/no/such; bash -c true"),
    ("readonly everything", "readonly kept PATH IFS PWD OLDPWD HOME; readonly PS1=x PS2=y"),
    ("strange separators", "IFS=abcdeprint; set -f"),
    ("variables of bash", "unset PATH IFS PWD HOME BASH_VERSION PIPESTATUS BASH_LINENO; PATH=/usr/bin:/bin"),
    ("own variables readonly", "readonly __crownest_status=0 __crownest_line= __crownest_cell=1"),
    ("few open files", "ulimit -n 20"),
    ("no files", "ulimit -f 0"),
    ("no processes", "ulimit -u 1; (true); true"),
    ("no stack", "ulimit -s 200"),
    ("endless recursion", "g() { g; }; FUNCNEST=200; g"),
    ("deep recursion", "g() { ((n++ < 2000)) && g; }; n=0; g"),
    ("huge variable", "big=$(head -c 5000000 /dev/zero | tr '\\0' x)"),
    ("too much to keep", "big=$(head -c 20000000 /dev/zero | tr '\\0' x)"),
    ("many variables", "for ((i = 0; i < 20000; i++)); do printf -v v$i %s $i; done"),
    ("variables of any bytes", "x=$'\\1\\2\\xff\\n;\"'; declare -A y=([$'\\1]']=$'\\2')"),
    ("forged marks", "printf '\\1c;1;0;1;\\2\\1b;1;9\\2\\1a;1\\2'; printf '\\1c;99;0;1;\\2' >&2"),
    ("strange functions", "function a-b.c+d { cat <<E\n}\nx () \n{\nE\n}; function [x { :; }"),
    ("posix", "set -o posix; export POSIXLY_CORRECT=1"),
    ("restricted", "set -r"),
    ("no commands", "set -n; set -o noexec"),
    ("one command", "set -t"),
    ("everything exported", "set -a; x=1"),
    ("job control", "set -m; sleep 0.01 & wait; sleep 0.01"),
    ("logout when idle", "TMOUT=1"),
    ("history", "set -o history; set -H; history -s 'x'; echo !!; fc -l"),
    ("umask", "umask 777"),
    ("its files removed", "rm -rf /dev/shm/.crownest-bash-* /tmp/.crownest-bash-* \"$XDG_RUNTIME_DIR\"/.crownest*"),
    ("its files in the way", "for d in \"$XDG_RUNTIME_DIR\"/.crownest*; do chmod 0 $d/*; for n in {1..99}; do mkfifo $d/answer.$n; done; done"),
    ("a pipe where it leaves", "for d in \"$XDG_RUNTIME_DIR\"/.crownest*; do mkfifo $d/leaving; done; kill -9 $$"),
    ("directory removed", "mkdir -p \"$HOME/x\"; cd \"$HOME/x\"; rmdir ../x; exit 1"),
    ("many jobs", "for i in {1..200}; do sleep 0.2 & done; wait"),
    ("stopped", "(sleep 0.2; kill -CONT $$) & kill -STOP $$"),
    ("coprocess left behind", "coproc cat; true"),
    ("asynchronous output", "exec > >(cat)"),
    ("locale", "LC_ALL=C.UTF-8; LANG=de_DE.UTF-8; no-such-command; LC_ALL=no_such"),
]  # fmt: skip
# Bash takes no more commands: nobody can tell that from a cell that takes long.
HANGS = {"debug trap that fails"}
# What these change themselves of what is looked at.
CHANGES = {
    "exit trap": "bye",
    "directory removed": None,
    "variables of bash": None,
    "builtins are functions": None,
}


@pytest.mark.parametrize(("name", "code"), SURVIVED, ids=[name for name, _ in SURVIVED])
def test_the_context_survives(context, name, code):
    assert run(context, KEPT).status == "ok"
    if name in HANGS:
        run_to_its_end(context, code)
        run_to_its_end(context, "true")
    else:
        run(context, code)
    after = run(context, ALIVE)
    if name in CHANGES:
        assert after.status in ("ok", "error")
        after = run(context, "unalias -a; unset -f echo printf; command echo $kept")
        assert "1" in after.out.split(), after.events
    else:
        out = [line for line in after.out.splitlines(True) if line not in NOISE]
        assert "".join(out) == ALIVE_OUT, (after.out, after.err, after.events)
        assert "err\n" in after.err
    # It can be interrupted, and ended.
    context.begin("command printf 'go\\n'; while :; do :; done")
    context.wait_output(b"go\n")
    context.interrupt(frame=True)
    assert context.finish(timeout=CELL_SECONDS_MAX).status == "interrupted"
    again = run(context, "echo $kept")
    assert "1" in again.out.split(), (again.out, again.err, again.events)


# Of traps and traces that a cell has asked for itself.
NOISE = {"debug\n", "failed\n", "returned\n"}


def test_a_driver_that_is_killed_is_seen(context):
    context.begin("kill -9 $PPID; sleep 60")
    with pytest.raises(Died):
        context.finish()
    context.wait_death()


def test_programs_inherit_three_descriptors(context):
    code = "ls /proc/self/fd; python3 -c 'import os; print(os.listdir(\"/proc/self/fd\"))'"
    out = run(context, code).out
    assert sorted(out.splitlines()[:-1]) == ["0", "1", "2", "3"], out
    assert out.splitlines()[-1].count("'") == 8, out


def test_jobs_of_a_cell_hold_nothing_of_the_driver(context):
    """Neither the end of a run nor that of the driver waits for a job."""
    assert run(context, "(trap '' HUP INT; sleep 60) & disown; echo out").out == "out\n"
    context.control.shutdown(2)
    context.wait_death()


def test_a_flood_of_restarts_ends(context):
    """A job that kills every shell costs no more than the context has in use."""
    run(context, "kept=1")
    job = "(for i in {1..30}; do sleep 0.05; pkill -9 -x bash -s $(ps -o sid= $BASHPID); done) &"
    run(context, job.replace("pkill", ": pkill"))
    for _ in range(8):
        run(context, "kill -9 $$")
    assert run(context, "echo $kept").out == "1\n"


@pytest.mark.parametrize("signal", ["KILL", "SEGV", "ABRT"])
def test_a_sudden_end_loses_no_line(context, signal):
    result = run(context, f"for i in {{1..2000}}; do echo $i; done; kill -{signal} $$")
    assert result.out == "".join(f"{i}\n" for i in range(1, 2001))
    assert result.error["name"] == "ShellKilled"


def test_a_state_that_kills_every_shell_is_given_up(context):
    """Each new shell is given a trap that ends it."""
    run(context, "kept=1; trap 'kill -9 $$' DEBUG")
    for _ in range(3):
        run(context, "true")
    result = run(context, "echo alive")
    assert result.out == "alive\n", result.events
