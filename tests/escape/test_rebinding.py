"""Names that change their address, over real DNS: a small authority of our own, which the server's
resolver asks because the server runs in a mount namespace with another /etc/resolv.conf.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from probe import Api, Sandbox, data_directory
from server import Server, binary
from test_network import ASK, Canary

# Loopback has 16 million addresses; port 53 of this one is nobody's.
AUTHORITY = "127.53.53.53"
A, AAAA = 1, 28


class Authority:
    """Answers for `*.test`: what `answers` says about the n-th question for a name."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((AUTHORITY, 53))
        self.asked: Counter[str] = Counter()
        threading.Thread(target=self._serve, daemon=True).start()

    def answers(self, name: str, nth: int) -> list[str]:
        return {
            "loopback.test": ["127.0.0.1"],
            "private.test": ["10.0.0.1"],
            "metadata.test": ["169.254.169.254"],
            "unspecified.test": ["0.0.0.0"],
            # The classic: judged once, then another address.
            "rebind.test": ["127.0.0.1"] if nth > 1 else ["8.8.8.8"],
            "mixed.test": ["8.8.8.8", "127.0.0.1"],
            "allowed.test": ["127.0.0.1"],
        }.get(name, [])

    def _serve(self) -> None:
        while True:
            try:
                question, peer = self.socket.recvfrom(4096)
            except OSError:
                return
            self.socket.sendto(self._answer(question), peer)

    def _answer(self, question: bytes) -> bytes:
        number = question[:2]
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode())
            at += 1 + length
        (kind,) = struct.unpack_from(">H", question, at + 1)
        name = ".".join(labels).lower()
        addresses: list[str] = []
        if kind == A:
            self.asked[name] += 1
            addresses = self.answers(name, self.asked[name])
        # No time to live: whoever wants the address again has to ask again.
        records = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 0, 4) + socket.inet_aton(a) for a in addresses
        )
        known = bool(self.answers(name, 1))
        head = number + struct.pack(">HHHHH", 0x8580 | (0 if known else 3), 1, len(addresses), 0, 0)
        return head + question[12 : at + 5] + records


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    try:
        made = Authority()
    except OSError as error:
        pytest.skip(f"{AUTHORITY}:53 cannot be bound: {error}")
    yield made
    made.socket.close()


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.socket.close()


@pytest.fixture(scope="module")
def sandbox(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """In a server whose resolver asks the authority."""
    directory = tmp_path_factory.mktemp("rebinding")
    resolver = directory / "resolv.conf"
    resolver.write_text(f"nameserver {AUTHORITY}\noptions timeout:2 attempts:1\n")
    program = directory / "crownest"
    program.write_text(
        "#!/bin/sh\nexec unshare --mount sh -c '\n"
        f"mount --bind {resolver} /etc/resolv.conf && exec {binary()} \"$@\"' sh \"$@\"\n"
    )
    program.chmod(0o755)
    data = data_directory()
    server = NamedServer(program, data, "--pool", "0", "--egress-allow", "allowed.test")
    try:
        with server:
            yield Api(server).create()
    finally:
        shutil.rmtree(data.parent, ignore_errors=True)


class NamedServer(Server):
    """A server started through another program than the built one."""

    def __init__(self, program: Path, data_dir: Path, *options: str):
        super().__init__(data_dir, *options)
        self.program = program

    def start(self, listen: str = "127.0.0.1:0") -> Server:
        command = [self.program, "serve", "--listen", listen, "--data-dir", self.data_dir]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in [*command, *self.options]], stdout=subprocess.PIPE, stderr=log
            )
        self.url = self._first_line()
        self._await_ready()
        return self


def ask(sandbox: Sandbox, name: str, port: int) -> str:
    request = f"GET http://{name}:{port}/ HTTP/1.1\\r\\nhost: {name}\\r\\n\\r\\n"
    return sandbox.probe(ASK + f"result = ask('{request}')")


def test_the_resolver_asks_the_authority(
    sandbox: Sandbox, authority: Authority, canary: Canary
) -> None:
    """The control: a name that the operator allows leads to the canary through this DNS."""
    answer = ask(sandbox, "allowed.test", canary.port)
    assert authority.asked["allowed.test"] >= 1, "the server asked somebody else"
    assert Canary.WORD in answer or canary.visits > 0, answer


@pytest.mark.parametrize(
    "name", ["loopback.test", "private.test", "metadata.test", "unspecified.test"]
)
def test_a_name_of_the_host_is_refused(
    sandbox: Sandbox, authority: Authority, canary: Canary, name: str
) -> None:
    visits = canary.visits
    answer = ask(sandbox, name, canary.port)
    assert authority.asked[name] >= 1
    assert answer.startswith("HTTP/1.1 403"), answer
    assert canary.visits == visits


@pytest.mark.parametrize("name", ["rebind.test", "mixed.test"])
def test_the_address_that_was_judged_is_the_one_connected_to(
    sandbox: Sandbox, authority: Authority, canary: Canary, name: str
) -> None:
    visits, asked = canary.visits, authority.asked[name]
    answer = ask(sandbox, name, canary.port)
    assert Canary.WORD not in answer
    assert canary.visits == visits, "the second answer was used"
    assert authority.asked[name] == asked + 1, "one lookup: there is no second answer to use"


def test_a_name_that_has_changed_is_judged_again(
    sandbox: Sandbox, authority: Authority, canary: Canary
) -> None:
    """The next request asks again, and is refused for the new address."""
    visits = canary.visits
    if not authority.asked["rebind.test"]:
        ask(sandbox, "rebind.test", canary.port)
    answer = ask(sandbox, "rebind.test", canary.port)
    assert authority.asked["rebind.test"] >= 2
    assert answer.startswith("HTTP/1.1 403"), answer
    assert canary.visits == visits
