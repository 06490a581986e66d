"""What goes through a preview: streams, WebSockets, large bodies; and programs and visitors that
mean harm."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from visitor import ECHO, Preview, echo, library, raw, received, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect as websocket

from rest import Sandbox, connect, events, open_directory, refusal, unbothered, until
from server import Server, missing

MIB = 1 << 20
LARGE_BYTES = 192 * MIB
# What the server may grow by while a large body passes through it.
GROWTH_BYTES_MAX = 48 * MIB
VISITS_PER_PREVIEW_MAX = 128

WEBSOCKETS = """
import sys
sys.path.insert(0, sys.argv[1])
from websockets.sync.server import serve
def answer(connection):
    connection.send(str(sorted(k.lower() for k in connection.request.headers)))
    for message in connection:
        connection.send(message)
serve(answer, "127.0.0.1", 8001, max_size=None).serve_forever()
"""

EVENTS = """
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Events(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(3):
            said = b'data: {"number": %d}\\n\\n' % number
            self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(said), said))
            while not os.path.exists(f"/workspace/heard_{number}"):
                time.sleep(0.005)
        self.wfile.write(b"0\\r\\n\\r\\n")
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", 8002), Events).serve_forever()
"""

LARGE = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Large(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        size = int(self.path.strip("/"))
        self.send_response(200)
        self.send_header("content-length", str(size))
        self.end_headers()
        block = b"0123456789abcdef" * 4096
        while size:
            size -= self.wfile.write(block[:size])
    def do_POST(self):
        left = size = int(self.headers["content-length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        said = str(size).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", 8003), Large).serve_forever()
"""

# Says to each request what its path names, and nothing that a server should say.
HOSTILE = """
import socket, sys, threading, time
SAY = {
    "garbage": b"\\x00\\x01\\xff\\xfe" * 100,
    "nine": b"hello\\n",
    "status": b"HTTP/1.1 abc OK\\r\\n\\r\\n",
    "two-lengths": b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n"
                   b"Content-Length: 5\\r\\n\\r\\nabcde",
    "both": b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\nContent-Length: 3\\r\\n\\r\\n"
            b"0\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\nContent-Length: 8\\r\\n\\r\\nsmuggled",
    "coding": b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: gzip, chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
    "identity": b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: identity\\r\\n\\r\\nabc",
    "switch": b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: h2c\\r\\n"
              b"Connection: upgrade\\r\\n\\r\\n",
    "huge-length": b"HTTP/1.1 200 OK\\r\\nContent-Length: 99999999999999999999999\\r\\n\\r\\n",
    "fold": b"HTTP/1.1 200 OK\\r\\nA: b\\r\\n c\\r\\nB : c\\r\\n\\r\\n",
    "hang-up": b"",
}
EXTRA = (b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"
         b"HTTP/1.1 200 OK\\r\\nContent-Length: 8\\r\\n\\r\\nsmuggled")
def serve(c):
    try:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            got = c.recv(65536)
            if not got: return
            head += got
        name = head.split(b" ")[1].decode().strip("/")
        if name == "headers":
            c.sendall(b"HTTP/1.1 200 OK\\r\\n")
            while True: c.sendall(b"X-Endless: " + b"x" * 1000 + b"\\r\\n")
        elif name == "line":
            c.sendall(b"HTTP/1.1 200 ")
            while True: c.sendall(b"x" * 65536)
        elif name == "many":
            c.sendall(b"HTTP/1.1 200 OK\\r\\n" + b"A: b\\r\\n" * 1000 + b"\\r\\n")
        elif name == "silent":
            time.sleep(600)
        elif name == "continue":
            while True:
                c.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n"); time.sleep(0.01)
        elif name == "extra":
            c.sendall(EXTRA)
        else:
            c.sendall(SAY[name])
    except OSError:
        pass
    finally:
        c.close()
s = socket.create_server(("127.0.0.1", 8004))
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"""


@pytest.fixture(scope="module")
def busy(client: httpx.Client) -> Iterator[Sandbox]:
    """A sandbox for one kind of program after the other."""
    sandbox = Sandbox.create(client)
    yield sandbox
    sandbox.kill()


@pytest.fixture
def preview_of(server: Server, busy: Sandbox) -> Iterator[object]:
    made: list[Preview] = []

    def create(port: int, **fields: str) -> Preview:
        made.append(Preview.create(server, busy, port, **fields))
        return made[-1]

    yield create
    for preview in made:
        busy.client.delete(f"/v1/previews/{preview.id}")


def started(sandbox: Sandbox, program: str, *arguments: str, port: int) -> None:
    """Starts a program once for all tests of this file."""
    log = sandbox.client.get(f"{sandbox.path}/files/stat", params={"path": f"server_{port}.log"})
    if log.status_code != 200:
        serve(sandbox, program, *arguments, port=port)


def echoing(sandbox: Sandbox, port: int) -> None:
    started(sandbox, ECHO, str(port), "127.0.0.1", port=port)


# -- streams


def speak(server: Server, preview: Preview, **options) -> ClientConnection:
    connection = socket.create_connection(("127.0.0.1", server.port))
    return websocket(f"ws://{preview.host}/chat?x=1", sock=connection, max_size=None, **options)


def test_a_websocket_carries_messages_both_ways(server, busy, preview_of):
    started(busy, WEBSOCKETS, library(busy, "websockets"), port=8001)
    preview = preview_of(8001)
    key = {"authorization": f"Bearer {server.api_key}", "x-crownest-role": "owner"}
    with speak(server, preview, additional_headers=key) as chat:
        seen = chat.recv()
        assert "sec-websocket-key" in seen
        assert "authorization" not in seen and "x-crownest" not in seen
        for message in ("hello", "ü" * 1000, b"\x00\xff" * 10, b"x" * (4 * MIB), "", b""):
            chat.send(message)
            assert chat.recv(timeout=30) == message
    with pytest.raises(InvalidStatus) as refused:
        speak(server, preview)
    assert refused.value.response.status_code == 401


def test_a_browsers_websocket_has_its_session_and_ends_with_the_preview(server, busy, preview_of):
    started(busy, WEBSOCKETS, library(busy, "websockets"), port=8001)
    preview = preview_of(8001, authMode="token")
    with preview.session() as browser:
        cookie = {"cookie": browser.headers["cookie"]}
    with pytest.raises(InvalidStatus) as refused:
        speak(server, preview, additional_headers=cookie, origin="http://other.localhost")
    assert refused.value.response.status_code == 403
    with speak(server, preview, additional_headers=cookie, origin=f"http://{preview.host}") as chat:
        assert "cookie" not in chat.recv()
        chat.send("still here")
        assert chat.recv(timeout=30) == "still here"
        busy.client.delete(f"/v1/previews/{preview.id}").raise_for_status()
        with pytest.raises(ConnectionClosed):
            chat.recv(timeout=30)


def test_events_come_as_they_are_said(server, busy, preview_of):
    started(busy, EVENTS, port=8002)
    with preview_of(8002).owner() as visitor, visitor.stream("GET", "/") as response:
        assert response.headers["content-type"] == "text/event-stream"
        # Each is only said after the one before was heard.
        for number, event in enumerate(events(response.iter_lines())):
            assert event == {"number": number}
            busy.signal(f"heard_{number}")
        assert number == 2


def test_a_stream_ends_when_its_preview_does(server, busy, preview_of):
    started(busy, EVENTS, port=8002)
    for number in range(3):
        busy.client.request("DELETE", f"{busy.path}/files", params={"path": f"heard_{number}"})
    preview = preview_of(8002)
    with preview.owner() as visitor, visitor.stream("GET", "/") as response:
        lines = response.iter_lines()
        assert next(events(lines)) == {"number": 0}
        busy.client.delete(f"/v1/previews/{preview.id}").raise_for_status()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def memory_peak(server: Server) -> int:
    status = Path(f"/proc/{server.children()['server']}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_large_bodies_pass_and_nothing_piles_up(server, busy, preview_of):
    started(busy, LARGE, port=8003)
    with preview_of(8003).owner() as visitor:
        assert visitor.get("/1000").status_code == 200
        before = memory_peak(server)
        got = 0
        with visitor.stream("GET", f"/{LARGE_BYTES}") as response:
            for piece in response.iter_raw(MIB):
                got += len(piece)
        assert got == LARGE_BYTES

        def body() -> Iterator[bytes]:
            for _ in range(LARGE_BYTES // MIB):
                yield bytes(MIB)

        length = {"content-length": str(LARGE_BYTES)}
        answer = visitor.post("/", content=body(), headers=length)
        assert answer.text == str(LARGE_BYTES)
        assert memory_peak(server) - before < GROWTH_BYTES_MAX


def test_a_body_without_a_length_passes(server, busy, preview_of):
    echoing(busy, 8005)
    with preview_of(8005).owner() as visitor:
        pieces = (b"x" * 1000 for _ in range(100))
        answer = visitor.post("/", content=pieces)
        assert answer.json()["size"] == 100_000
        # A GET with a body is rare, and a body all the same.
        answer = visitor.request("GET", "/", content=iter([b"abc"]))
        assert answer.json()["body"] == "abc"


def test_a_connection_is_kept_for_previews_and_the_api_alike(server, busy, preview_of):
    echoing(busy, 8006)
    preview = preview_of(8006)
    asked = (
        f"GET /first HTTP/1.1\r\nHost: {preview.host}\r\nx-api-key: {server.api_key}\r\n\r\n"
        f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        f"GET /second HTTP/1.1\r\nHost: {preview.host}\r\nx-api-key: {server.api_key}\r\n"
        "Connection: close\r\n\r\n"
    )
    with raw(server) as connection:
        connection.sendall(asked.encode())
        answers = received(connection)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b'"/first"') < answers.index(b'"/second"')


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::1", "::"])
def test_whatever_address_it_listens_on(server, make, address):
    sandbox = make()
    echo(sandbox, 8000, address)
    with Preview.create(server, sandbox).owner() as visitor:
        assert visitor.get("/x").json()["path"] == "/x"


# -- programs that answer nothing, or nonsense


def test_a_dead_port_is_a_502(server, busy, preview_of):
    preview = preview_of(9999)
    with preview.owner() as visitor:
        error = refusal(visitor.get("/"), 502, "preview_unavailable")
        assert error["details"] == {"port": 9999} and error["retryable"]
        page = visitor.get("/", headers={"accept": "text/html"})
        assert page.status_code == 502 and "does not answer" in page.text


def test_the_way_out_of_a_sandbox_is_no_way_in(server, busy, preview_of):
    with preview_of(3128).owner() as visitor:
        refusal(visitor.get("/"), 502, "preview_unavailable")


@pytest.fixture(scope="module")
def hostile(server: Server, busy: Sandbox) -> Preview:
    serve(busy, HOSTILE, port=8004)
    return Preview.create(server, busy, 8004)


@pytest.mark.parametrize(
    "name",
    [
        "garbage",
        "nine",
        "status",
        "two-lengths",
        "both",
        "coding",
        "identity",
        "switch",
        "huge-length",
        "fold",
        "hang-up",
        "headers",
        "line",
        "many",
    ],
)
def test_nonsense_is_a_502_and_bothers_nobody(hostile, neighbour, name):
    with unbothered(neighbour), hostile.owner() as visitor:
        answer = visitor.get(f"/{name}")
        error = refusal(answer, 502, "preview_unavailable")
        assert error["details"] == {"port": 8004} and "smuggled" not in answer.text


def test_what_is_said_beyond_an_answer_reaches_nobody(hostile, server):
    ask = f"GET /extra HTTP/1.1\r\nHost: {hostile.host}\r\nx-api-key: {server.api_key}\r\n"
    with raw(server) as connection:
        connection.sendall(f"{ask}\r\n{ask}Connection: close\r\n\r\n".encode())
        answers = received(connection)
    assert answers.count(b"HTTP/1.1 200") == 2 and answers.count(b"\r\n\r\nok") == 2
    assert b"smuggled" not in answers


def test_who_does_not_answer_in_time_is_named():
    if reason := missing():
        pytest.skip(reason)
    options = ("--pool", "0", "--preview-answer-seconds", "1")
    with (
        open_directory() as directory,
        Server(directory / "data", *options) as server,
        connect(server) as client,
    ):
        sandbox = Sandbox.create(client)
        serve(sandbox, HOSTILE, port=8004)
        with Preview.create(server, sandbox, 8004).owner() as visitor:
            error = refusal(visitor.get("/silent"), 502, "preview_unavailable")
            assert "1 second" in error["message"]


def test_visits_are_counted(server, make):
    """As many as may are waited for; the next one is told to come back."""
    sandbox = make()
    serve(sandbox, HOSTILE, port=8004)
    preview = Preview.create(server, sandbox, 8004)
    request = f"GET /silent HTTP/1.1\r\nHost: {preview.host}\r\nx-api-key: {server.api_key}\r\n\r\n"
    inside: list[socket.socket] = []
    try:
        for _ in range(VISITS_PER_PREVIEW_MAX):
            inside.append(socket.create_connection(("127.0.0.1", server.port)))
            inside[-1].sendall(request.encode())
        with preview.owner() as visitor:

            def refused() -> httpx.Response | None:
                try:
                    answer = visitor.get("/hang-up")
                except httpx.TransportError as error:
                    raise AssertionError(error) from error
                return answer if answer.status_code == 429 else None

            answer = until(refused, "a visit too many")
            refusal(answer, 429, "rate_limited")
            assert answer.headers["retry-after"] == "1"
            for connection in inside:
                connection.close()
            until(lambda: visitor.get("/hang-up").status_code == 502, "places are free again")
    finally:
        for connection in inside:
            connection.close()


# -- visitors


@pytest.mark.parametrize(
    "hosts",
    [
        "Host: {ours}\r\nHost: 127.0.0.1",
        "Host: 127.0.0.1\r\nHost: {ours}",
        "Host: {ours}:80",
        "Host: {ours}:",
        "Host: a@{ours}",
        "Host: x.{ours}",
        "Host: .preview.localhost",
        "Host: p-.preview.localhost",
        "Host: p-' or 1=1 --.preview.localhost",
        "Host: " + "p-" * 5000 + ".preview.localhost",
        "Host: p-\xe9\xe9.preview.localhost",
    ],
)
def test_hosts_that_are_almost_right_lead_nowhere(server, busy, preview_of, hosts):
    """Neither to the preview nor to the API, which the key would open."""
    echoing(busy, 8007)
    ours = preview_of(8007).host
    request = (
        f"GET /v1/sandboxes HTTP/1.1\r\n{hosts.format(ours=ours)}\r\n"
        f"x-api-key: {server.api_key}\r\nConnection: close\r\n\r\n"
    )
    with raw(server) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = received(connection)
    assert answer.split(b" ")[1] in (b"400", b"404"), answer[:200]
    assert busy.id.encode() not in answer


def test_an_address_in_the_request_line_counts(server, busy, preview_of):
    echoing(busy, 8007)
    preview = preview_of(8007)
    key = f"x-api-key: {server.api_key}\r\nConnection: close\r\n\r\n"
    for line, host, status in (
        (f"http://{preview.host}/x", preview.host, b"200"),
        (f"http://{preview.host}/x", "127.0.0.1", b"400"),
        ("http://127.0.0.1/healthz", preview.host, b"400"),
    ):
        with raw(server) as connection:
            connection.sendall(f"GET {line} HTTP/1.1\r\nHost: {host}\r\n{key}".encode())
            assert received(connection).split(b" ")[1] == status, (line, host)
    with raw(server) as connection:
        ask = f"CONNECT {preview.host} HTTP/1.1\r\nHost: {preview.host}\r\n{key}"
        connection.sendall(ask.encode())
        assert received(connection).split(b" ")[1] in (b"400", b"405")


def test_a_request_with_two_lengths_is_one_request(server, busy, preview_of):
    """Whatever it is read as, what follows in it is never a request of its own."""
    echoing(busy, 8008)
    preview = preview_of(8008)
    for lengths in (
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: xchunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 60",
    ):
        hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
        request = (
            f"POST /first HTTP/1.1\r\nHost: {preview.host}\r\nx-api-key: {server.api_key}\r\n"
            f"{lengths}\r\nConnection: close\r\n\r\n{len(hidden):x}\r\n{hidden}\r\n0\r\n\r\n"
        )
        with raw(server) as connection:
            connection.sendall(request.encode())
            answer = received(connection)
        assert answer.count(b"HTTP/1.1 ") <= 1 + answer.count(b'"body"'), (lengths, answer)
        assert b'"path": "/hidden"' not in answer, lengths
    log = busy.read("server_8008.log").json()["content"]
    assert "Traceback" not in log, log


def test_many_visitors_at_once(server, busy, preview_of):
    echoing(busy, 8009)
    preview = preview_of(8009)
    wrong: list[str] = []
    lock = threading.Lock()

    def visits(number: int) -> None:
        with preview.owner() as visitor:
            for turn in range(20):
                path = f"/{number}/{turn}"
                answer = visitor.post(path, content=b"x" * number * 100)
                if (answer.json()["path"], answer.json()["size"]) != (path, number * 100):
                    with lock:
                        wrong.append(json.dumps(answer.json()))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(visits, range(16)))
    assert not wrong
