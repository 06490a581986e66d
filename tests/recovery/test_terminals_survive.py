"""A terminal goes on while the server is killed: the next one finds it, and a client that comes back
has every byte once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
from machine import kill, wait_for
from server import Server

sys.path.append(str(Path(__file__).parent.parent / "opensandbox"))

from execd import Execd  # noqa: E402
from terminal import Terminal, status  # noqa: E402

LINES = 300
KILLS = 3


def killed(server: Server, execd: Execd, id: str) -> None:
    """Kills the server, and waits until the next one has found the session."""
    kill(server.children()["server"])

    def found() -> bool:
        try:
            return execd.client.get(f"/pty/{id}").status_code == 200
        except httpx.TransportError:
            return False

    wait_for("the session", found)


def test_a_terminal_survives_its_server(start: Callable[..., Server]) -> None:
    server = start()
    execd = Execd(server)
    first = Terminal(execd).ready()
    first.type("name=kept; stty -echo\n")
    first.type(
        f"for i in $(seq 1 {LINES}); do echo \"<$i>\"; sleep 0.02; done; echo al''l\n"
    )
    first.until(lambda: b"<20>" in first.stdout, "lines")
    at = first.connected["offset"]
    assert at == 0 and first.replayed == []
    for _ in range(KILLS):
        killed(server, execd, first.id)
    assert first.end()[0] in (1001, 1006)
    with Terminal(execd, first.id, since=0) as back:
        assert back.connected["mode"] == "pty" and status(execd, first.id)["running"]
        back.until(lambda: b"all\r\n" in back.seen, "the rest", 60)
        begins = 0
        for offset, data in back.replayed:
            assert offset == begins
            begins += len(data)
        numbers = [int(number) for number in re.findall(rb"<(\d+)>\r\n", back.seen)]
        assert numbers == list(range(1, LINES + 1))
        # It still listens, knows who it is, and takes orders.
        back.type("echo $name; stty size\n")
        back.expect("kept\r\n24 80\r\n")
        back.tell(type="resize", cols=90, rows=30)
        back.type("stty size; sh -c 'echo sle''eps; exec sleep 600'\n")
        back.expect("30 90\r\n")
        # Between two programs there is nobody to be interrupted.
        back.expect("sleeps\r\n")
        back.tell(type="signal", signal="SIGINT")
        back.type("exit 5\n")
        assert back.notice("exit")["exit_code"] == 5
    execd.close()
