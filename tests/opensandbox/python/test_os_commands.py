"""Commands and sessions through `Commands` and `CommandsSync`."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from opensandbox.exceptions import InvalidArgumentException, SandboxException
from opensandbox.models.execd import RunCommandOpts

from sdk import lines

WAIT_SECONDS_MAX = 30


@pytest.fixture
def commands(shared):
    return shared.commands


def ended(commands, command: str):
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while (status := commands.get_command_status(command)).running:
        assert time.monotonic() < deadline, status
    return status


# -- run


def test_run(commands):
    run = commands.run("echo one; echo; printf 'two\\rthree'; echo err >&2; exit 3")
    assert [line.rstrip("\n") for line in lines(run)] == ["one", "", "two", "three"]
    assert lines(run, "stderr") == ["err"]
    assert run.exit_code == 3 and run.complete is None
    assert (run.error.name, run.error.value) == ("CommandExecError", "3")
    assert run.id
    good = commands.run("echo fine")
    assert (good.exit_code, good.error, good.text) == (0, None, "fine")
    assert good.complete.execution_time_in_millis >= 0 and good.id != run.id


def test_run_knows_the_shell(commands):
    run = commands.run("a=(1 2 3); echo ${#a[@]}; [[ x == x ]] && echo yes")
    assert lines(run) == ["3", "yes"], "it is bash"


# Of a command that was killed: it left no code of its own.
KILLED = (-1, "CommandExecError")


def test_run_of_arguments(commands):
    run = commands.run(["printf", "%s|", "a b", "$HOME", "*"])
    assert lines(run) == ["a b|$HOME|*|"], "no shell in between"
    assert commands.run(["false"]).exit_code == 1
    missing = commands.run(["/no/such/program"])
    assert missing.error.name == "CommandExecError" and missing.exit_code is None
    assert "/no/such/program" in missing.error.value, "in words, since no code is of it"


def test_options(commands):
    opts = RunCommandOpts(working_directory="/tmp", envs={"GREETING": "été 'x'"})
    assert lines(commands.run('pwd; echo "$GREETING"', opts=opts)) == ["/tmp", "été 'x'"]
    opts = RunCommandOpts(uid=1000, gid=1000)
    assert lines(commands.run("id -u; id -g", opts=opts)) == ["1000", "1000"]


def test_a_directory_that_is_not_there(commands, refused):
    opts = RunCommandOpts(working_directory="/no/such/directory")
    refused(400, lambda: commands.run("true", opts=opts))


def test_another_user(commands, refused):
    """Any that is nobody; there is no root."""
    assert lines(commands.run("id -u; id -g", opts=RunCommandOpts(uid=2000))) == ["2000", "2000"]
    refused(400, lambda: commands.run("id -u", opts=RunCommandOpts(uid=0)), "NOT_SUPPORTED")


def test_timeout(commands):
    began = time.monotonic()
    run = commands.run("echo begun; sleep 300", opts=RunCommandOpts(timeout=timedelta(seconds=1)))
    assert lines(run) == ["begun"] and (run.exit_code, run.error.name) == KILLED
    assert time.monotonic() - began < WAIT_SECONDS_MAX


def test_handlers(commands, sdk):
    heard: list[tuple[str, str]] = []
    handlers = sdk.handlers(
        on_init=lambda m: heard.append(("init", m.id)),
        on_stdout=lambda m: heard.append(("out", m.text)),
        on_stderr=lambda m: heard.append(("err", m.text)),
        on_execution_complete=lambda m: heard.append(("end", "")),
        on_error=lambda m: heard.append(("error", m.value)),
    )
    run = commands.run("echo a; sleep 0.2; echo b >&2; sleep 0.2; echo c", handlers=handlers)
    assert heard == [("init", run.id), ("out", "a"), ("err", "b"), ("out", "c"), ("end", "")]
    heard.clear()
    run = commands.run("exit 7", handlers=handlers)
    assert heard == [("init", run.id), ("error", "7")]


def test_nothing_is_no_command(commands):
    with pytest.raises(InvalidArgumentException):
        commands.run("  ")


def test_killed_by_a_signal(commands):
    run = commands.run("kill -9 $$")
    assert run.error is not None and run.exit_code not in (0, None)


# -- in the background


def test_background(commands):
    opts = RunCommandOpts(background=True)
    program = "echo a; echo b >&2; read -t 0.3 <> <(:); echo c; exit 5"
    began = time.monotonic()
    run = commands.run("sleep 300", opts=opts)
    assert time.monotonic() - began < 5 and run.exit_code is None
    assert commands.get_command_status(run.id).running is True
    commands.interrupt(run.id)
    status = ended(commands, run.id)
    assert status.exit_code != 0 and status.finished_at >= status.started_at

    run = commands.run(program, opts=opts)
    status = ended(commands, run.id)
    assert (status.id, status.content, status.exit_code) == (run.id, program, 5)
    assert status.started_at.tzinfo and status.finished_at >= status.started_at
    logs = commands.get_background_command_logs(run.id)
    assert sorted(logs.content.splitlines()) == ["a", "b", "c"]
    assert logs.cursor == len(logs.content.encode())
    rest = commands.get_background_command_logs(run.id, cursor=2)
    assert rest.content == logs.content[2:] and rest.cursor == logs.cursor
    end = commands.get_background_command_logs(run.id, cursor=logs.cursor)
    assert (end.content, end.cursor) == ("", logs.cursor) or end.content == ""


def test_status_of_a_foreground_command(commands):
    run = commands.run("exit 4")
    status = commands.get_command_status(run.id)
    assert (status.running, status.exit_code, status.content) == (False, 4, "exit 4")


def test_what_is_not_there(commands, refused):
    refused(404, lambda: commands.get_command_status("0" * 32))
    with pytest.raises(SandboxException):
        commands.interrupt("0" * 32)
    refused(400, lambda: commands.get_background_command_logs("0" * 32))
    foreground = commands.run("true").id
    refused(400, lambda: commands.get_background_command_logs(foreground))


def test_interrupt_of_a_foreground_command(commands, sdk):
    known: list[str] = []
    handlers = sdk.handlers(
        on_init=lambda m: known.append(m.id), on_stdout=lambda _: commands.interrupt(known[0])
    )
    began = time.monotonic()
    run = commands.run("echo on; sleep 300", handlers=handlers)
    assert lines(run) == ["on"] and (run.exit_code, run.error.name) == KILLED
    assert time.monotonic() - began < WAIT_SECONDS_MAX


def test_interrupt_of_what_does_not_want_to(commands, sdk):
    known: list[str] = []
    handlers = sdk.handlers(
        on_init=lambda m: known.append(m.id), on_stdout=lambda _: commands.interrupt(known[0])
    )
    program = "trap '' TERM INT; echo on; while :; do sleep 0.1; done"
    began = time.monotonic()
    assert commands.run(program, handlers=handlers).exit_code != 0
    assert time.monotonic() - began < WAIT_SECONDS_MAX


# -- variables for what comes


def test_set_env(create):
    sandbox = create()
    for key, value in (("PLAIN", "a b"), ("HARD", 'it\'s "$HOME" \\ `x` é'), ("PLAIN", "second")):
        sandbox.commands.set_env(key, value)
    seen = sandbox.commands.run('printf "%s\\n" "$PLAIN" "$HARD"')
    assert lines(seen) == ["second", 'it\'s "$HOME" \\ `x` é']
    session = sandbox.commands.create_session()
    assert lines(sandbox.commands.run_in_session(session, 'echo "$PLAIN"')) == ["second"]
    with pytest.raises((SandboxException, ValueError)):
        sandbox.commands.set_env("NOT A NAME", "x")


# -- sessions


def test_sessions(commands):
    session = commands.create_session(working_directory="/tmp")
    assert lines(commands.run_in_session(session, "pwd")) == ["/tmp"]
    run = commands.run_in_session(session, "cd /usr; export SEEN=1; f() { echo fun; }; plain=2")
    assert run.exit_code == 0
    run = commands.run_in_session(session, 'pwd; echo "$SEEN"')
    assert lines(run) == ["/usr", "1"]
    run = commands.run_in_session(session, "pwd; exit 9", working_directory="/var")
    assert lines(run) == ["/var"] and run.exit_code == 9
    assert commands.run_in_session(session, "echo $SEEN").exit_code == 0, "it outlives an exit"
    run = commands.run_in_session(session, "echo out; echo err >&2")
    assert sorted(lines(run) + lines(run, "stderr")) == ["err", "out"]
    other = commands.create_session()
    assert [line.strip() for line in lines(commands.run_in_session(other, 'echo "$SEEN"'))] == [""]
    commands.delete_session(other)


def test_the_end_of_a_session(commands, refused):
    session = commands.create_session()
    commands.delete_session(session)
    refused(404, lambda: commands.run_in_session(session, "true"))
    refused(404, lambda: commands.delete_session(session))


def test_timeout_in_a_session(commands):
    session = commands.create_session()
    began = time.monotonic()
    run = commands.run_in_session(session, "echo on; sleep 300", timeout=timedelta(seconds=1))
    assert (run.exit_code, run.error.name) == KILLED
    assert time.monotonic() - began < WAIT_SECONDS_MAX
    assert lines(commands.run_in_session(session, "echo alive")) == ["alive"]
    commands.delete_session(session)


def test_handlers_in_a_session(commands, sdk):
    heard: list[str] = []
    session = commands.create_session()
    handlers = sdk.handlers(on_stdout=lambda m: heard.append(m.text))
    commands.run_in_session(session, "echo a; echo b", handlers=handlers)
    assert heard == ["a", "b"]
    commands.delete_session(session)


def test_arguments_of_sessions_are_checked(commands):
    for call in (
        lambda: commands.run_in_session("", "true"),
        lambda: commands.run_in_session("x", " "),
        lambda: commands.delete_session(""),
    ):
        with pytest.raises(InvalidArgumentException):
            call()
