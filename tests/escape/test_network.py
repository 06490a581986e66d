"""The network: nothing but the sandbox's own loopback, and a proxy that judges addresses.

A listener on the host's loopback stands for everything that trusts its neighbours: databases,
the server itself, a metadata service. It counts who came.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
from probe import Api, Sandbox, data_directory
from server import Server


class Canary:
    """Answers every connection with a word, and counts them."""

    WORD = "canary-of-the-host"

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(("::", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        self.visits = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.visits += 1
            body = self.WORD.encode()
            head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            with connection:
                connection.settimeout(2)
                try:
                    connection.recv(65536)
                    connection.sendall(head + body)
                except OSError:
                    pass


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.socket.close()


# Sends bytes to the proxy, and for a tunnel a request through it.
ASK = """
def ask(raw, inner=b""):
    s = socket.create_connection(("127.0.0.1", 3128), timeout=30)
    s.settimeout(30)
    s.sendall(raw.encode("utf-8") if isinstance(raw, str) else raw)
    answer = b""
    try:
        while True:
            piece = s.recv(65536)
            answer += piece
            if not piece or (b"\\r\\n\\r\\n" in answer and not inner):
                break
            if inner and b"\\r\\n\\r\\n" in answer:
                s.sendall(inner)
                inner = b""
    except OSError:
        pass
    s.close()
    return answer.decode("latin-1")
"""


def own_addresses() -> list[str]:
    """Addresses of this machine that are not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]


HOSTS = [
    "127.0.0.1",
    "127.0.0.1.",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "localhost.localdomain",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "0177.1",
    "0",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[fe80::1%25lo]",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "user@127.0.0.1",
    "example.com@127.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1\t",
    socket.gethostname(),
    *own_addresses(),
]


@pytest.mark.parametrize("host", HOSTS)
def test_no_spelling_reaches_the_host(sandbox: Sandbox, canary: Canary, host: str) -> None:
    before = canary.visits
    port = canary.port
    found = sandbox.probe(
        f"""
{ASK}
host, port = {host!r}, {port}
plain = "GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n"
result = {{
    "connect": ask("CONNECT %s:%d HTTP/1.1\\r\\nHost: example.com\\r\\n\\r\\n" % (host, port), plain.encode()),
    "absolute": ask("GET http://%s:%d/ HTTP/1.1\\r\\nHost: example.com\\r\\nConnection: close\\r\\n\\r\\n" % (host, port)),
}}
"""
    )
    for way, answer in found.items():
        assert canary.WORD not in answer, way
        # Refused with a reason, or not even a request.
        assert answer == "" or answer.split()[1][0] in "45", (way, answer)
    assert canary.visits == before


REQUESTS = {
    "origin form": "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    "no host": "GET / HTTP/1.0\r\n\r\n",
    "two targets": "GET http://example.invalid/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    "port in userinfo": "GET http://example.invalid:80@127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": "GET http://127.0.0.1:{port}#@example.invalid/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "backslash": "GET http://example.invalid\\@127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "other scheme": "GET ftp://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "https plain": "GET https://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "smuggled": "POST http://example.invalid/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "upgrade": "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "asterisk": "OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    "connect without port": "CONNECT 127.0.0.1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect port 0": "CONNECT 127.0.0.1:0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect big port": "CONNECT 127.0.0.1:{big} HTTP/1.1\r\nHost: x\r\n\r\n",
    "garbage": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "http2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", REQUESTS)
def test_odd_requests_reach_nobody(sandbox: Sandbox, canary: Canary, name: str) -> None:
    before = canary.visits
    raw = REQUESTS[name].format(port=canary.port, big=canary.port + 65536)
    answer = sandbox.probe(f"{ASK}\nresult = ask({raw!r} + '\\r\\n\\r\\n')")
    assert canary.WORD not in answer
    assert answer == "" or answer.split()[1][0] in "45", answer
    assert canary.visits == before


FORBIDDEN = [
    "169.254.169.254:80",
    "100.100.100.200:80",
    "[fd00:ec2::254]:80",
    "[::ffff:169.254.169.254]:80",
    "2852039166:80",
    "169.254.1.1:80",
    "10.0.0.1:443",
    "172.16.0.1:443",
    "192.168.0.1:443",
    "100.64.0.1:443",
    "[fc00::1]:443",
    "[fe80::1]:443",
    "224.0.0.1:443",
    "255.255.255.255:443",
]


@pytest.mark.parametrize("target", FORBIDDEN)
def test_metadata_and_private_ranges_are_refused_by_name(sandbox: Sandbox, target: str) -> None:
    raw = f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = sandbox.probe(f"{ASK}\nresult = ask({raw!r})")
    assert answer.split()[1] == "403", answer
    assert "x-crownest-egress: denied" in answer.lower()


def test_an_exempted_address_is_reached(canary: Canary) -> None:
    """The control: the same request through the same proxy, where the operator allows it."""
    directory = data_directory()
    with Server(directory, "--pool", "0", "--egress-allow", "127.0.0.1") as server:
        sandbox = Api(server).create()
        raw = f"GET http://127.0.0.1:{canary.port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        before = canary.visits
        answer = sandbox.probe(f"{ASK}\nresult = ask({raw!r})")
        assert " 200 " in answer and canary.visits == before + 1
        # But never the server's own port: that would be the API, from inside.
        own = f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: x\r\n\r\n"
        assert sandbox.probe(f"{ASK}\nresult = ask({own!r})").split()[1] == "403"
    shutil.rmtree(directory.parent)


DIRECT = """
def connect(family, kind, address):
    s = socket.socket(family, kind)
    s.settimeout(5)
    return outcome(s.connect, address)
I4, I6, TCP, UDP = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
result = {
    "loopback": connect(I4, TCP, ("127.0.0.1", PORT)),
    "loopback 6": connect(I6, TCP, ("::1", PORT)),
    "own address": connect(I4, TCP, (ADDRESS, PORT)),
    "public": connect(I4, TCP, ("1.1.1.1", 443)),
    "dns": connect(I4, UDP, ("1.1.1.1", 53)),
    "metadata": connect(I4, TCP, ("169.254.169.254", 80)),
    "interfaces": [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]],
    "routes": len(read("/proc/net/route").splitlines()),
}
"""


def test_there_is_no_way_but_the_proxy(sandbox: Sandbox, canary: Canary) -> None:
    address = (own_addresses() or ["192.0.2.7"])[0]
    probe = f"PORT, ADDRESS = {canary.port}, {address!r}\n{DIRECT}"
    before = canary.visits
    for found in (sandbox.probe(probe), sandbox.probe_command(probe)):
        assert found["loopback"] == found["loopback 6"] == "ECONNREFUSED"
        for name in ("own address", "public", "dns", "metadata"):
            assert found[name] == "ENETUNREACH", (name, found[name])
        assert found["interfaces"] == ["lo"] and found["routes"] <= 1
    assert canary.visits == before
    with socket.create_connection(("127.0.0.1", canary.port), 5) as control:
        control.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert canary.WORD.encode() in control.recv(65536)
    assert canary.visits == before + 1


def test_mode_none_has_no_proxy(api: Api) -> None:
    sandbox = api.create(network="none")
    try:
        found = sandbox.probe(
            "result = outcome(socket.create_connection, ('127.0.0.1', 3128), timeout=5)"
        )
    finally:
        sandbox.destroy()
    assert found == "ECONNREFUSED"


def test_sockets_of_the_server_and_the_spawner_are_not_there(sandbox: Sandbox) -> None:
    """Neither by path nor by abstract name; and no descriptor of theirs is inherited."""
    found = sandbox.probe(
        """
result = {
    "run": os.path.exists("/run/crownest"),
    "unix": [line for line in read("/proc/net/unix").splitlines()[1:] if "crownest" in line],
}
"""
    )
    assert found == {"run": False, "unix": []}


def test_the_proxy_of_one_sandbox_cannot_be_used_up_for_another(
    sandbox: Sandbox, neighbour: Sandbox
) -> None:
    """Every place of one sandbox is held by a connection that says nothing."""
    context = sandbox.context()
    held = sandbox.probe(
        """
keep = []
for _ in range(400):
    s = socket.socket(); s.settimeout(1)
    try:
        s.connect(("127.0.0.1", 3128)); s.sendall(b"CONNECT 10.0.0.1:1 HT")
    except OSError:
        break
    keep.append(s)
result = len(keep)
""",
        context,
    )
    assert held > 200
    raw = "CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n"
    assert neighbour.probe(f"{ASK}\nresult = ask({raw!r})").split()[1] == "403"
    sandbox.run("for s in keep: s.close()", context)
