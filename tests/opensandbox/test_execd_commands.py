"""execd's /command and /session, byte by byte."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from execd import Execd, Running, error, kinds, refused, text
from rest import until
from server import Server


@pytest.fixture(scope="module")
def execd(server: Server) -> Iterator[Execd]:
    execd = Execd(server)
    yield execd
    execd.close()


def lines(events: list[dict], kind: str = "stdout") -> list[str]:
    return [event["text"] for event in events if event["type"] == kind]


def finished(execd: Execd, id: str) -> dict:
    """The status of a command, once it has ended."""

    def ended() -> dict | None:
        answer = execd.client.get(f"/command/status/{id}")
        assert answer.status_code == 200, answer.text
        return None if answer.json()["running"] else answer.json()

    return until(ended, "the end of the command")


# -- commands


def test_each_line_is_an_event_without_its_end(execd: Execd) -> None:
    events = execd.command("printf 'a\\n\\nb\\r\\nc\\rd'")
    assert lines(events) == ["a", "\n", "b", "c", "d"]
    assert kinds(events) == ["init", *["stdout"] * 5, "execution_complete"]


def test_the_bytes_are_these(execd: Execd) -> None:
    answer = execd.client.post("/command", json={"command": "echo 'é\"'"})
    first, second, third, last, rest = answer.content.split(b"\n\n")
    assert first.startswith(b'{"type":"init","text":"') and b',"timestamp":' in first
    assert second.startswith(b'{"type":"ping","text":"pong","timestamp":')
    assert third.startswith('{"type":"stdout","text":"é\\"","timestamp":'.encode())
    assert last.startswith(b'{"type":"execution_complete","execution_time":') and rest == b""


def test_stderr_and_an_exit_code(execd: Execd) -> None:
    events = execd.command("echo out; echo bad >&2; exit 7")
    assert lines(events) == ["out"] and lines(events, "stderr") == ["bad"]
    raised = error(events)
    assert (raised["ename"], raised["evalue"]) == ("CommandExecError", "7")
    killed = error(execd.command("kill -9 $$"))
    assert (killed["ename"], killed["evalue"]) == ("CommandExecError", "-1")


def test_a_stream_ends_when_its_command_does(execd: Execd) -> None:
    execd.command("true")
    times = []
    for _ in range(10):
        began = time.monotonic()
        assert kinds(execd.command("true")) == ["init", "execution_complete"]
        times.append(time.monotonic() - began)
    assert sorted(times)[5] < 0.25


def test_a_program_is_started_without_a_shell(execd: Execd) -> None:
    argv = ["printf", "%s|", "$HOME", "it's", "*"]
    events = execd.events("/command", {"argv": argv})
    assert lines(events) == ["$HOME|it's|*|"]
    status = execd.client.get(f"/command/status/{events[0]['text']}").json()
    assert status["content"] == "printf '%s|' '$HOME' 'it'\\''s' '*'"
    missing = error(execd.events("/command", {"argv": ["no-such-program"]}))
    assert missing["ename"] == "CommandExecError" and "no-such-program" in str(missing)


def test_directory_environment_and_user(execd: Execd) -> None:
    fields = {"cwd": "/tmp", "envs": {"A": "1 2"}, "uid": 1000, "gid": 1000}
    assert lines(execd.command('pwd; echo "$A"; id -u; id -g', **fields)) == [
        "/tmp",
        "1 2",
        "1000",
        "1000",
    ]
    assert lines(execd.command("pwd")) == ["/workspace"]


@pytest.mark.parametrize(
    ("cwd", "place"),
    [
        ("~", "/home/user"),
        ("~/own", "/home/user/own"),
        ("$HOME/own", "/home/user/own"),
        ("${HOME}", "/home/user"),
        ("own", "/workspace/own"),
    ],
)
def test_directories_are_named_as_paths_of_files_are(execd: Execd, cwd: str, place: str) -> None:
    execd.command("mkdir -p ~/own /workspace/own")
    assert lines(execd.command("pwd", cwd=cwd)) == [place]
    session = execd.session(cwd=cwd)
    assert lines(execd.in_session(session, "pwd")) == [place]
    assert lines(execd.in_session(session, "cd /; pwd", cwd=cwd)) == ["/"]
    assert lines(execd.in_session(session, "pwd", cwd=cwd)) == [place]
    made = execd.client.post("/code/context", json={"language": "python", "cwd": cwd}).json()
    assert made["cwd"] == place
    events = execd.code("import os; print(os.getcwd())", id=made["id"])
    assert text(events, "stdout") == f"{place}\n"
    gone = {"command": "true", "cwd": "$HOME/none"}
    answer = execd.client.post("/command", json=gone)
    assert "/home/user/none" in refused(answer, 400, "INVALID_REQUEST_BODY")


def test_what_cannot_be_started_is_refused(execd: Execd) -> None:
    post = execd.client.post
    bad = "INVALID_REQUEST_BODY"
    assert "/nowhere" in refused(
        post("/command", json={"command": "true", "cwd": "/nowhere"}), 400, bad
    )
    refused(post("/command", json={"command": "true", "cwd": "/etc/hostname"}), 400, bad)
    refused(post("/command", json={"command": ""}), 400, bad)
    refused(post("/command", json={}), 400, bad)
    refused(post("/command", json={"command": "true", "argv": ["true"]}), 400, bad)
    refused(post("/command", json={"command": "true", "gid": 1000}), 400, bad)
    refused(post("/command", json={"command": "true", "timeout": -1}), 400, bad)
    # Root, init, an account of the template, none in 16 bits.
    for uid in (0, 998, 33, 65_535):
        asked = {"command": "true", "uid": uid}
        message = refused(post("/command", json=asked), 400, "NOT_SUPPORTED")
        assert "1000" in message and "65534" in message
    asked = {"command": "true", "uid": 1000, "gid": 0}
    refused(post("/command", json=asked), 400, "NOT_SUPPORTED")


def test_a_command_of_another_user(execd: Execd) -> None:
    """It is kept from what is not its own, and everything else about it is as with any command."""
    own = f"/tmp/t{uuid4().hex}"
    ours = f"/workspace/t{uuid4().hex}"
    execd.command(f"umask 077; echo ours > {ours}")
    script = f"id -u; id -g; id -G; cat {ours} || echo refused; umask 077; echo x > {own}; ls -n {own}"
    said = execd.command(f"({script}) 2>/dev/null", uid=2000, gid=3000)
    assert lines(said)[:4] == ["2000", "3000", "3000", "refused"]
    assert lines(said)[4].split()[2:4] == ["2000", "3000"]
    assert lines(execd.command(f"cat {own} 2>&1 || true"))[0].endswith("Permission denied")
    # It is ended like any other, by who may not signal it.
    running = Running(execd, "/command", {"command": "echo on; exec sleep 60", "uid": 2000})
    assert running.printed.wait(30)
    began = time.monotonic()
    assert execd.client.delete("/command", params={"id": running.events[0]["text"]}).is_success
    assert error(running.end(10))["evalue"] == "-1" and time.monotonic() - began < 1.5


def test_a_timeout_kills(execd: Execd) -> None:
    began = time.monotonic()
    raised = error(execd.command("echo on; sleep 60", timeout=300))
    assert (raised["ename"], raised["evalue"]) == ("CommandExecError", "-1")
    assert "timeout" in raised["traceback"][0] and time.monotonic() - began < 10


def test_the_file_of_environment_is_read_for_what_comes_later(execd: Execd) -> None:
    old = execd.session()
    # What the Python client sends for set_env.
    for entry in ("""A1='x $HOME "y"'""", '''B1="it's\\n2"'''):
        quoted = entry.replace("'", "'\\''")
        execd.command(
            f'mkdir -p "$(dirname "$EXECD_ENVS")"\nprintf \'%s\\n\' \'{quoted}\' >> "$EXECD_ENVS"'
        )
    expected = ['x $HOME "y"', "it's", "2"]
    show = 'echo "$A1"; echo "$B1"'
    assert lines(execd.command(show)) == expected
    assert lines(execd.command("echo $A1", envs={"A1": "mine"})) == ["mine"]
    assert lines(execd.in_session(execd.session(), show)) == expected
    assert lines(execd.in_session(old, show)) == expected
    execd.command('rm "$EXECD_ENVS"')
    assert lines(execd.command("echo [$A1]")) == ["[]"]


def test_a_command_in_the_background_is_followed_by_its_log(execd: Execd) -> None:
    command = "echo first; echo second >&2; read line < go; echo third; exit 4"
    execd.command("rm -f go; mkfifo go")
    began = time.monotonic()
    events = execd.command(command, background=True)
    assert kinds(events) == ["init", "execution_complete"] and time.monotonic() - began < 5
    id = events[0]["text"]
    logs = f"/command/{id}/logs"
    first = until(
        lambda: (answer := execd.client.get(logs)).text == "first\nsecond\n" and answer,
        "output",
    )
    assert first.headers["content-type"].startswith("text/plain")
    assert first.headers["execd-commands-tail-cursor"] == "13"
    running = execd.client.get(f"/command/status/{id}").json()
    assert (running["id"], running["content"]) == (id, command)
    assert running["running"] is True
    assert not {"exit_code", "finished_at", "error"} & set(running)
    execd.command("echo > go")
    ended = finished(execd, id)
    assert ended["exit_code"] == 4 and ended["error"] and ended["finished_at"]
    rest = execd.client.get(logs, params={"cursor": 6})
    assert rest.text == "second\nthird\n"
    assert rest.headers["execd-commands-tail-cursor"] == "19"
    nothing = execd.client.get(logs, params={"cursor": 19})
    assert nothing.text == "" and nothing.headers["execd-commands-tail-cursor"] == "19"


def test_logs_are_those_of_the_background_alone(execd: Execd) -> None:
    id = execd.command("echo x")[0]["text"]
    refused(execd.client.get(f"/command/{id}/logs"), 400, "INVALID_REQUEST_BODY")
    refused(execd.client.get("/command/nothing/logs"), 400, "INVALID_REQUEST_BODY")
    refused(execd.client.get(f"/command/{id}/logs?cursor=x"), 400, "INVALID_REQUEST_BODY")
    assert execd.client.get("/command/status/nothing").status_code == 404
    done = execd.client.get(f"/command/status/{id}").json()
    assert done["exit_code"] == 0 and done["running"] is False and "error" not in done


def test_a_log_of_many_megabytes_is_whole(execd: Execd) -> None:
    id = execd.command("seq 1 1000000", background=True)[0]["text"]
    finished(execd, id)
    expected = "".join(f"{i}\n" for i in range(1, 1_000_001))
    answer = execd.client.get(f"/command/{id}/logs")
    assert answer.text == expected
    assert answer.headers["execd-commands-tail-cursor"] == str(len(expected))
    tail = execd.client.get(f"/command/{id}/logs", params={"cursor": len(expected) - 8})
    assert tail.text == "1000000\n"


def test_an_interrupt_ends_everything_that_a_command_has_started(execd: Execd) -> None:
    command = "trap 'echo term; exit 9' TERM; echo on; while :; do sleep 0.05; done"
    running = Running(execd, "/command", {"command": command})
    assert running.printed.wait(30)
    id = running.events[0]["text"]
    answer = execd.client.delete("/command", params={"id": id})
    assert (answer.status_code, answer.content) == (200, b"")
    events = running.end()
    assert lines(events) == ["on", "term"] and error(events)["evalue"] == "9"
    refused(execd.client.delete("/command", params={"id": id}), 500, "RUNTIME_ERROR")
    refused(execd.client.delete("/command", params={"id": "nothing"}), 500, "RUNTIME_ERROR")
    refused(execd.client.delete("/command"), 400, "MISSING_QUERY")


def test_what_ignores_the_first_signal_is_killed(execd: Execd) -> None:
    command = "trap '' TERM; echo on; while :; do sleep 0.05; done"
    running = Running(execd, "/command", {"command": command})
    assert running.printed.wait(30)
    began = time.monotonic()
    execd.client.delete("/command", params={"id": running.events[0]["text"]})
    assert error(running.end(10))["evalue"] == "-1"
    assert 1 < time.monotonic() - began < 8


def test_a_client_that_goes_away_ends_its_command(execd: Execd) -> None:
    body = {"command": "echo on; echo $$; sleep 300"}
    with execd.stream("/command", body) as stream:
        events = [next(stream) for _ in range(4)]
    assert finished(execd, events[0]["text"])["exit_code"] == -1


def test_eight_megabytes_arrive_whole(execd: Execd) -> None:
    events = execd.command("yes $(printf 'x%.0s' $(seq 79)) | head -100000")
    assert lines(events) == ["x" * 79] * 100_000
    assert events[-1]["type"] == "execution_complete"
    one = execd.command("head -c 8000000 /dev/zero | tr '\\0' y; echo; echo end")
    assert text(one, "stdout") == "y" * 8_000_000 + "end"


def test_commands_are_those_of_our_own_api(execd: Execd) -> None:
    id = execd.command("echo shared")[0]["text"]
    record = execd.ours.get(f"/v1/commands/{id}").json()["command"]
    assert (record["command"], record["stdout"], record["exitCode"]) == (
        "echo shared",
        "shared\n",
        0,
    )
    made = {"command": "echo ours", "background": True}
    ours = execd.ours.post(f"/v1/sandboxes/{execd.id}/commands", json=made).json()["command"]
    assert finished(execd, ours["id"])["exit_code"] == 0
    assert execd.client.get(f"/command/{ours['id']}/logs").text == "ours\n"


def test_a_command_of_another_sandbox_is_unknown(server: Server, execd: Execd) -> None:
    id = execd.command("sleep 60", background=True)[0]["text"]
    other = Execd(server)
    try:
        assert other.client.get(f"/command/status/{id}").status_code == 404
        refused(other.client.delete("/command", params={"id": id}), 500, "RUNTIME_ERROR")
        refused(other.client.get(f"/command/{id}/logs"), 400, "INVALID_REQUEST_BODY")
    finally:
        other.close()
    assert execd.client.get(f"/command/status/{id}").json()["running"] is True
    assert execd.client.delete("/command", params={"id": id}).status_code == 200


def test_a_silent_command_shows_that_it_lives(execd: Execd) -> None:
    events = execd.command("sleep 6.5")
    assert [event["type"] for event in events].count("ping") == 3


# -- sessions


def test_a_session_keeps_what_its_commands_have_made(execd: Execd) -> None:
    id = execd.session(cwd="/tmp")
    begun = execd.in_session(id, "pwd; export A=1; B=2; f() { echo f$1; }; alias g='echo g'; cd /")
    assert begun[0]["text"] == id and lines(begun) == ["/tmp"]
    assert kinds(begun) == ["init", "stdout", "execution_complete"]
    assert lines(execd.in_session(id, "pwd; echo $A$B; f 3; g")) == [
        "/",
        "12",
        "f3",
        "g",
    ]
    assert lines(execd.in_session(id, "pwd", cwd="/workspace")) == ["/workspace"]


def test_both_streams_of_a_session_are_one_in_their_order(execd: Execd) -> None:
    id = execd.session()
    command = "for i in 1 2 3 4 5; do echo $i; echo e$i >&2; done; sh -c 'echo x >&2'; ls /nowhere"
    events = execd.in_session(id, command)
    expected = [word for i in range(1, 6) for word in (f"{i}", f"e{i}")]
    assert lines(events)[:11] == [*expected, "x"] and "/nowhere" in lines(events)[11]
    assert not lines(events, "stderr") and error(events)["evalue"] == "2"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("false", "1"),
        ("exit 5", "5"),
        ("(exit 77)", "77"),
        ("no-such-command", "127"),
        ("set -e; false; echo not", "1"),
        ("echo 'open", "2"),
        ("sh -c 'kill -9 $$'", "137"),
    ],
)
def test_exit_codes_of_a_session_are_exact(execd: Execd, command: str, code: str) -> None:
    id = execd.session()
    execd.in_session(id, "kept=1")
    raised = error(execd.in_session(id, command))
    assert (raised["ename"], raised["evalue"]) == ("CommandExecError", code)
    assert lines(execd.in_session(id, "set +e; echo $kept")) == ["1"]


def test_a_session_has_timeouts(execd: Execd) -> None:
    id = execd.session()
    execd.in_session(id, "kept=1")
    began = time.monotonic()
    events = execd.in_session(id, "echo on; sleep 60", timeout=300)
    assert lines(events) == ["on"] and error(events)["ename"] == "CommandExecError"
    assert time.monotonic() - began < 10
    assert lines(execd.in_session(id, "echo $kept")) == ["1"]


def test_sessions_end(execd: Execd) -> None:
    id = execd.session()
    assert id not in execd.client.get("/code/contexts").text
    answer = execd.client.delete(f"/session/{id}")
    assert (answer.status_code, answer.content) == (200, b"")
    refused(execd.client.delete(f"/session/{id}"), 404, "CONTEXT_NOT_FOUND")
    run = execd.client.post(f"/session/{id}/run", json={"command": "true"})
    refused(run, 404, "CONTEXT_NOT_FOUND")
    cwd = execd.client.post("/session", json={"cwd": "/nowhere"})
    refused(cwd, 400, "INVALID_REQUEST_BODY")
    python = execd.context()
    refused(execd.client.delete(f"/session/{python}"), 404, "CONTEXT_NOT_FOUND")
