"""execd's /pty with a real WebSocket client: terminals that behave like terminals."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from execd import Execd, refused
from rest import new_key, revoke_key, until
from server import Server
from terminal import Terminal, create, dial, status


@pytest.fixture(scope="module")
def execd(server: Server) -> Iterator[Execd]:
    execd = Execd(server)
    yield execd
    execd.close()


@pytest.fixture
def terminal(execd: Execd) -> Iterator[Terminal]:
    with Terminal(execd) as terminal:
        yield terminal.ready()
        execd.client.delete(f"/pty/{terminal.id}")


def out(execd: Execd, command: str) -> str:
    """What a command beside the terminal prints."""
    events = execd.command(command)
    return "\n".join(event["text"] for event in events if event["type"] == "stdout")


def test_a_shell_of_the_user_in_a_terminal_of_its_own(terminal: Terminal) -> None:
    assert (
        terminal.connected["mode"] == "pty"
        and terminal.connected["session_id"] == terminal.id
    )
    terminal.type(
        "tty; id -u; pwd; echo $TERM $((20 + 22)); python3 -c 'print(\"py\")'\n"
    )
    terminal.expect("/dev/pts/")
    terminal.expect("\r\n1000\r\n/workspace\r\nxterm-256color 42\r\npy\r\n")
    terminal.type("exec 3</dev/tty && echo has''one\n")
    terminal.expect("hasone")


def test_what_is_typed_is_echoed_and_lines_can_be_edited(terminal: Terminal) -> None:
    terminal.type("echo hellp\x7fo höhö\n")
    terminal.expect("echo hellp")
    terminal.expect("hello höhö\r\n")


def test_its_size_is_what_the_client_says(terminal: Terminal) -> None:
    terminal.type("stty size\n")
    terminal.expect("24 80\r\n")
    terminal.type("trap 'echo resized to $(stty size)' WINCH; echo s''et\n")
    terminal.expect("set\r\n")
    terminal.tell(type="resize", cols=132, rows=43)
    terminal.expect("resized to 43 132")
    for size in ({"cols": 0, "rows": 24}, {"cols": 80}, {"cols": 80, "rows": 5000}):
        terminal.tell(type="resize", **size)
        assert terminal.notice("error")["code"] == "INVALID_FRAME"
    terminal.type("stty size\n")
    terminal.expect("43 132\r\n")


def test_control_c_interrupts_what_is_in_the_foreground(terminal: Terminal) -> None:
    terminal.type("sh -c 'echo sle''eping; exec sleep 600'\n")
    terminal.expect("sleeping\r\n")
    terminal.type("\x03")
    terminal.expect("^C")
    terminal.type("echo co''de $?\n")
    terminal.expect("code 130\r\n")


@pytest.mark.parametrize(
    ("signal", "code"), [("SIGINT", 130), ("TERM", 143), ("SIGKILL", 137)]
)
def test_a_signal_reaches_the_foreground_and_not_the_shell(
    terminal: Terminal, signal: str, code: int
) -> None:
    terminal.type("sh -c 'echo sle''eping; exec sleep 600'\n")
    terminal.expect("sleeping\r\n")
    terminal.tell(type="signal", signal=signal)
    terminal.expect("$ ")
    terminal.type("echo co''de $?\n")
    terminal.expect(f"code {code}\r\n")


def test_jobs_are_stopped_and_come_back(terminal: Terminal) -> None:
    # What is typed while the shell still edits its line is echoed by nobody.
    terminal.type("echo re''ady; cat\n")
    terminal.expect("ready\r\n")
    terminal.type("one\n")
    terminal.expect("one\r\none\r\n")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("jobs; fg\n")
    terminal.expect("fg\r\n")
    terminal.expect("Stopped")
    terminal.expect("\r\ncat\r\n")
    terminal.type("two\n")
    terminal.expect("two\r\n")
    terminal.type("\x04")
    terminal.type("echo over $?\n")
    terminal.expect("over 0\r\n")


def test_a_program_may_take_every_key(terminal: Terminal) -> None:
    """As editors do: no echo, no lines, no signals."""
    program = (
        "import sys, termios, tty; old = termios.tcgetattr(0); tty.setraw(0);"
        "sys.stdout.write('ra' + 'w>'); sys.stdout.flush(); keys = sys.stdin.buffer.raw.read(1);"
        "keys += b''.join(sys.stdin.buffer.raw.read(1) for _ in range(5));"
        "termios.tcsetattr(0, termios.TCSADRAIN, old); print('keys', keys.hex())"
    )
    terminal.type(f'python3 -c "{program}"\n')
    terminal.expect("raw>")
    terminal.type("\x03\x1b[A\r\x04")
    terminal.expect("keys 031b5b410d04")
    terminal.type(
        "stty raw -echo; echo no''w; head -c 3 | od -An -tx1; stty sane; echo sa''ne\n"
    )
    terminal.expect("now")
    terminal.type("\x03\r\n")
    terminal.expect("03 0d 0a")
    terminal.expect("sane")


def test_eight_megabytes_arrive_whole(terminal: Terminal) -> None:
    terminal.type(
        "stty -onlcr; head -c 6291456 /dev/urandom | base64 -w 0 > big; wc -c < big\n"
    )
    terminal.expect("8388608\n")
    terminal.type("sha256sum < big; stty -echo; echo s''et\n")
    terminal.until(lambda: b"set\n" in terminal.stdout, "the sum")
    digest = terminal.stdout.split(b"  -\n")[0].rsplit(b"\n", 1)[-1].decode()
    terminal.stdout = b""
    began = time.monotonic()
    terminal.type("echo beg''in; cat big; echo; echo fi''n\n")
    terminal.until(lambda: terminal.stdout.endswith(b"\nfin\n$ "), "the end", 120)
    print(f"8 MiB through a terminal in {time.monotonic() - began:.2f} s")
    printed = terminal.stdout.split(b"begin\n", 1)[1].split(b"\nfin\n")[0]
    assert len(printed) == 8388608 and hashlib.sha256(printed).hexdigest() == digest


def test_a_paste_is_read_whole_by_a_program_that_is_slow(terminal: Terminal) -> None:
    pasted = b"".join(b"%07d\n" % n for n in range(100_000))
    terminal.type(
        "stty raw -echo; echo go''ing; sleep 1; head -c 800000 | sha256sum; stty sane\n"
    )
    terminal.expect("going")
    terminal.type(pasted)
    # What does not wait for input is done meanwhile.
    terminal.tell(type="ping")
    terminal.notice("pong")
    terminal.expect(hashlib.sha256(pasted).hexdigest())


def test_a_client_that_comes_back_gets_what_it_missed(execd: Execd) -> None:
    with Terminal(execd) as first:
        first.ready()
        first.type("echo fir''st\n")
        first.expect("first\r\n$ ")
    offset = status(execd, first.id)["output_offset"]
    assert status(execd, first.id)["running"]
    with Terminal(execd, first.id, since=offset) as second:
        assert second.replayed == [] and second.connected["offset"] == offset
        second.type("(sleep 0.3; echo la''ter) & read\n")
        second.expect("read\r\n")
    until(lambda: status(execd, first.id)["output_offset"] > offset + 35, "output")
    with Terminal(execd, first.id, since=offset) as third:
        assert third.replayed[0][0] == offset
        assert b"".join(data for _, data in third.replayed).startswith(b"(sleep 0.3")
        third.until(lambda: b"later" in third.seen, "what was missed")
    with Terminal(execd, first.id) as fourth:
        assert fourth.replayed[0][0] == 0 and b"first\r\n" in fourth.seen
        at = 0
        for begins, data in fourth.replayed:
            assert begins == at
            at += len(data)
        assert at == fourth.connected["offset"]
    with Terminal(execd, first.id, since=10**12) as fifth:
        assert fifth.replayed == []
    execd.client.delete(f"/pty/{first.id}")


def test_what_a_client_typed_last_is_read_although_it_has_gone(execd: Execd) -> None:
    with Terminal(execd) as first:
        first.ready()
        first.type("sleep 0.5\n")
        first.type("echo the la''st\n")
    with Terminal(execd, first.id) as second:
        second.until(lambda: b"the last\r\n" in second.seen, "the last line")
    execd.client.delete(f"/pty/{first.id}")


def test_one_client_at_a_time_and_another_takes_over(
    execd: Execd, terminal: Terminal
) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        dial(execd, terminal.id)
    assert refusal.value.response.status_code == 409
    assert b"ALREADY_CONNECTED" in refusal.value.response.body
    terminal.type("name=kept\n")
    with Terminal(execd, terminal.id, takeover=1) as taker:
        assert terminal.end() == (4001, "TAKEN_OVER")
        taker.type("echo $name by t''aker\n")
        taker.expect("kept by taker\r\n")
    with Terminal(execd, terminal.id) as again:
        again.type("echo $name ag''ain\n")
        again.expect("kept again")


def test_of_many_that_take_over_one_stays_and_all_were_let_in(
    execd: Execd, terminal: Terminal
) -> None:
    with ThreadPoolExecutor(8) as pool:
        takers = list(
            pool.map(lambda _: dial(execd, terminal.id, takeover=1), range(8))
        )
        ends = list(pool.map(last_words, takers))
    closed = [(4001, "TAKEN_OVER")] * 7
    assert sorted(ends, key=lambda end: end is None) == [*closed, None]
    with Terminal(execd, terminal.id, takeover=1) as again:
        again.type("echo st''ill\n")
        again.expect("still")


def last_words(socket: ClientConnection) -> tuple[int, str] | None:
    """How the server closed it, if it did."""
    try:
        while True:
            # Whoever waited for a place and got none would hear of it after five seconds.
            socket.recv(timeout=8)
    except TimeoutError:
        return None
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")


def test_one_that_does_not_read_is_taken_over_too(
    execd: Execd, terminal: Terminal
) -> None:
    terminal.type("yes | head -c 30000000\n")
    # Nothing reads it from here on, and it ends all the same.
    until(
        lambda: status(execd, terminal.id)["output_offset"] > 45_000_000,
        "the end of it",
    )
    with Terminal(execd, terminal.id, takeover=1, since=10**12) as taker:
        taker.type("echo al''ive\n")
        taker.expect("alive")


def test_the_end_of_the_shell_is_the_end_of_the_session(execd: Execd) -> None:
    with Terminal(execd) as terminal:
        terminal.ready().type("exit 7\n")
        assert terminal.notice("exit")["exit_code"] == 7
        assert terminal.end() == (1000, "process exited")
    assert status(execd, terminal.id) | {"output_offset": 0} == {
        "session_id": terminal.id,
        "running": False,
        "output_offset": 0,
        "launch_attempted": True,
        "launch_failed": False,
        "exit_code": 7,
    }
    # What it printed can be read for as long as its log is there.
    with Terminal(execd, terminal.id) as late:
        assert b"exit 7" in late.seen and late.notice("exit")["exit_code"] == 7
        assert late.end()[0] == 1000


def test_everything_printed_comes_before_the_exit(execd: Execd) -> None:
    for _ in range(5):
        id = create(execd, command="seq 1 20000; exit 3")
        with Terminal(execd, id) as terminal:
            terminal.end()
            assert terminal.notice("exit")["exit_code"] == 3
            assert terminal.seen.split() == [b"%d" % n for n in range(1, 20001)]


def test_a_session_may_be_one_command_somewhere(execd: Execd) -> None:
    id = create(
        execd,
        command="pwd; [ -t 0 ] && stty size; read line; echo got $line",
        cwd="/tmp",
    )
    assert status(execd, id) == {
        "session_id": id,
        "running": False,
        "output_offset": 0,
        "launch_attempted": False,
        "launch_failed": False,
    }
    with Terminal(execd, id) as terminal:
        # Some of it may have been printed before this client was there, and is a replay.
        begins = b"/tmp\r\n24 80\r\n"
        terminal.until(lambda: terminal.seen == begins, "the size of the terminal")
        terminal.type("it\n")
        terminal.expect("got it\r\n")
        assert terminal.notice("exit")["exit_code"] == 0
    made = execd.client.post("/pty", json={"cwd": "/no/such"})
    refused(made, 400, "INVALID_REQUEST_BODY")


def test_a_program_may_let_go_of_its_terminal_and_take_it_again(execd: Execd) -> None:
    id = create(
        execd,
        command="exec <&- >&- 2>&-; touch gone; until [ -e back ]; do sleep 0.05; done; "
        "exec <>/dev/tty >&0 2>&0; rm gone back; echo ba''ck; read line; echo got $line",
    )
    with Terminal(execd, id) as terminal:
        until(lambda: out(execd, "ls gone") == "gone", "a terminal that nobody has")
        terminal.type("it\n")
        execd.command("touch back")
        terminal.expect("back\r\n")
        terminal.expect("got it\r\n")
        assert terminal.notice("exit")["exit_code"] == 0


def test_pipes_keep_the_streams_apart(execd: Execd) -> None:
    with Terminal(execd, pty=0) as pipes:
        assert pipes.connected["mode"] == "pipe"
        pipes.type("echo out; echo err >&2; [ -t 0 ] || echo no terminal; pwd\n")
        pipes.expect("out\nno terminal\n/workspace\n")
        pipes.until(lambda: pipes.stderr == b"err\n", "stderr")
        pipes.tell(type="resize", cols=80, rows=24)
        assert pipes.notice("error")["code"] == "INVALID_FRAME"
        pipes.tell(type="stdin", data="cat | tr a-z A-Z\n")
        pipes.type("words\n" * 20_000)
        pipes.tell(type="signal", signal="SIGKILL")
        assert pipes.notice("exit")["exit_code"] == -1


def test_bad_frames_are_answered_and_change_nothing(terminal: Terminal) -> None:
    for bad in (
        b"\1out",
        b"\xff",
        "no json",
        "[]",
        '{"type":"dance"}',
        '{"type":"signal"}',
    ):
        terminal.socket.send(bad)
        error = terminal.notice("error")
        assert error["code"] == "INVALID_FRAME" and error["error"], error
    terminal.socket.send(b"")
    terminal.type("echo st''ill\n")
    terminal.expect("still\r\n")


@pytest.mark.parametrize("mebibytes", [2, 3])
def test_an_oversized_message_is_refused_by_name(
    execd: Execd, terminal: Terminal, mebibytes: int
) -> None:
    terminal.socket.send(b"\0" + b"x" * (mebibytes << 20))
    error = terminal.notice("error")
    assert error["code"] == "INVALID_FRAME" and "1048576" in error["error"]
    assert terminal.end()[0] == 1009
    with Terminal(execd, terminal.id) as again:
        again.type("echo al''ive\n")
        again.expect("alive")


def test_deletion_ends_everything_in_it(execd: Execd) -> None:
    with Terminal(execd) as terminal:
        terminal.ready()
        terminal.type(
            "trap '' HUP; sh -c 'trap \"\" HUP TERM; sleep 4242' & sleep 4243\n"
        )
        until(lambda: out(execd, "pgrep -fc '^sleep 424'") == "2", "two sleepers")
        assert execd.client.delete(f"/pty/{terminal.id}").status_code == 200
        assert terminal.notice("exit")["exit_code"] == -1
        assert terminal.end()[0] == 1000
    assert out(execd, "pgrep -fc '^sleep 424'") == "0"
    for answer in (
        execd.client.get(f"/pty/{terminal.id}"),
        execd.client.delete(f"/pty/{terminal.id}"),
    ):
        refused(answer, 404, "CONTEXT_NOT_FOUND")
    planned = create(execd)
    assert execd.client.delete(f"/pty/{planned}").status_code == 200
    refused(execd.client.get(f"/pty/{planned}"), 404, "CONTEXT_NOT_FOUND")


def test_the_number_of_sessions_is_bounded(server: Server) -> None:
    execd = Execd(server)
    made = [create(execd) for _ in range(16)]
    refused(execd.client.post("/pty"), 429, "quota_exceeded")
    for id in made:
        assert execd.client.delete(f"/pty/{id}").status_code == 200
    assert execd.client.delete(f"/pty/{create(execd)}").status_code == 200
    execd.close()


def test_the_number_of_clients_is_bounded(server: Server) -> None:
    execd = Execd(server)
    id = create(execd, command="stty -opost; head -c 40000000 /dev/zero | tr '\\0' y")
    with Terminal(execd, id) as first:
        first.end()
    # What has ended is not kept, so anybody may read it at once: here, begin to and not go on
    # (what the sockets hold by themselves is less than was printed).
    create(execd)
    clients = [dial(execd, id, since=0) for _ in range(32)]
    with pytest.raises(InvalidStatus) as refusal:
        dial(execd, id, since=0)
    assert refusal.value.response.status_code == 429
    for client in clients:
        client.socket.close()

    def has_place() -> bool:
        try:
            dial(execd, id, since=10**12).close()
        except InvalidStatus:
            return False
        return True

    until(has_place, "a place of those that have gone")
    execd.close()


def test_a_client_is_sent_away_when_its_key_is_revoked(
    server: Server, execd: Execd
) -> None:
    key = new_key(server, server.credentials["orgId"])
    id, owner = create(execd), execd.client.headers["OPEN-SANDBOX-API-KEY"]
    execd.client.headers["OPEN-SANDBOX-API-KEY"] = key
    try:
        client = Terminal(execd, id)
    finally:
        execd.client.headers["OPEN-SANDBOX-API-KEY"] = owner
    client.ready()
    revoke_key(execd.ours, key)
    client.until(lambda: client.closed is not None, "the end of the connection")
    assert client.closed == (1008, "UNAUTHORIZED")
    assert client.notices[-1]["code"] == "UNAUTHORIZED"
    with Terminal(execd, id) as other:
        other.type("echo still he''re\n")
        other.expect("still here")
    execd.client.delete(f"/pty/{id}")


def test_only_with_a_key_and_only_in_its_sandbox(
    server: Server, execd: Execd, terminal: Terminal
) -> None:
    other = Execd(server)
    try:
        refused(other.client.get(f"/pty/{terminal.id}"), 404, "CONTEXT_NOT_FOUND")
        refused(other.client.delete(f"/pty/{terminal.id}"), 404, "CONTEXT_NOT_FOUND")
        with pytest.raises(InvalidStatus) as refusal:
            dial(other, terminal.id, takeover=1)
        assert refusal.value.response.status_code == 404
    finally:
        other.close()
    key = execd.client.headers["OPEN-SANDBOX-API-KEY"]
    execd.client.headers["OPEN-SANDBOX-API-KEY"] = "cn_wrong"
    try:
        assert execd.client.get(f"/pty/{terminal.id}").status_code == 401
        with pytest.raises(InvalidStatus) as refusal:
            dial(execd, terminal.id, takeover=1)
        assert refusal.value.response.status_code == 401
    finally:
        execd.client.headers["OPEN-SANDBOX-API-KEY"] = key
    # A command is no session, and a request without a handshake is no client.
    command = execd.command("true")[0]["text"]
    refused(execd.client.get(f"/pty/{command}"), 404, "CONTEXT_NOT_FOUND")
    refused(execd.client.get(f"/pty/{terminal.id}/ws"), 400, "INVALID_REQUEST_BODY")
    terminal.type("echo un''touched\n")
    terminal.expect("untouched")


def test_nothing_types_into_a_terminal_from_inside(terminal: Terminal) -> None:
    # The kernel looks at the lower half of the number only, so whatever is in the upper one.
    program = (
        "import ctypes\n"
        "libc, byte = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(b'x')\n"
        "for call in (0x5412, 0x541c, 1 << 32 | 0x5412, 0xffffffff << 32 | 0x541c):\n"
        "    done = libc.syscall(16, 3, ctypes.c_ulong(call), byte)\n"
        "    print('ioc' + 'tl', hex(call), done, ctypes.get_errno())\n"
    )
    terminal.type(f"python3 - 3<&0 <<'END'\n{program}END\n")
    for call in ("0x5412", "0x541c", "0x100005412", "0xffffffff0000541c"):
        terminal.expect(f"ioctl {call} -1 1\r\n")


def test_a_terminal_is_metered_and_recorded_as_a_command(
    execd: Execd, terminal: Terminal
) -> None:
    record = execd.ours.get(f"/v1/commands/{terminal.id}").json()["command"]
    assert record["status"] == "running" and record["command"] == "bash -il"
    noted = {"terminal.create", "terminal.start", "terminal.attach"}

    def actions() -> bool:
        events = execd.ours.get("/v1/audit-events", params={"limit": 100}).json()[
            "data"
        ]
        return noted == {
            e["action"] for e in events if e["resource"]["id"] == terminal.id
        }

    until(actions, "audit events")
