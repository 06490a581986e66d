"""The way out: through the proxy, judged by address, with reasons; and no other way."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from rest import Sandbox, connect, open_directory
from server import Server, missing

ALLOWED, OTHER = "127.0.0.2", "127.0.0.3"
FETCH = """
import json, urllib.error, urllib.request
def fetch(url, data=None):
    try:
        with urllib.request.urlopen(url, data, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return None, str(error)
"""


class Target(BaseHTTPRequestHandler):
    """Answers with what it was asked; /away redirects to an address that is not allowed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("location", f"http://{OTHER}:{self.server.server_address[1]}/secret")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        length = int(self.headers.get("content-length", 0))
        asked = {
            "method": self.command,
            "path": self.path,
            "body": self.rfile.read(length).decode(),
            "headers": {k.lower(): v for k, v in self.headers.items()},
        }
        answer = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    """Port of a server on every loopback address of this machine."""
    with ThreadingHTTPServer(("0.0.0.0", 0), Target) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield served.server_address[1]
        served.shutdown()


@pytest.fixture(scope="module")
def reaching() -> Iterator[Sandbox]:
    """A sandbox of a server that allows one address of this machine."""
    if reason := missing():
        pytest.skip(reason)
    options = ("--pool", "1", "--egress-allow", f"{ALLOWED},*.allowed.test")
    with (
        open_directory() as directory,
        Server(directory / "data", *options) as server,
        connect(server) as client,
    ):
        sandbox = Sandbox.create(client)
        sandbox.run(FETCH)
        yield sandbox


@pytest.fixture
def fetching(sandbox: Sandbox) -> Sandbox:
    sandbox.run(FETCH)
    return sandbox


def fetch(sandbox: Sandbox, url: str) -> tuple[int | None, str]:
    status, body = json.loads(sandbox.out(f"print(json.dumps(fetch({url!r})))"))
    return status, body


def test_every_program_is_told_of_the_proxy(sandbox: Sandbox):
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    code = f"import os\nprint({{os.environ.get(n) for n in {names}}})"
    in_code = eval(sandbox.out(code))
    assert len(in_code) == 1 and in_code != {None}
    proxy = in_code.pop()
    assert proxy.startswith("http://127.0.0.1:")
    printed = sandbox.command("printf '%s\\n' " + " ".join(f'"${n}"' for n in names))["stdout"]
    assert set(printed.split()) == {proxy}
    # The sandbox's own servers are not asked for through it.
    assert "127.0.0.1" in sandbox.command('echo "$NO_PROXY"')["stdout"]
    local = (
        "import http.server, threading, urllib.request\n"
        "s = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
        "threading.Thread(target=s.serve_forever, daemon=True).start()\n"
        "print(urllib.request.urlopen(f'http://127.0.0.1:{s.server_port}/').status)"
    )
    assert sandbox.run(local)["stdout"][-1].endswith("200\n")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.2", "loopback"),
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("169.254.169.254", "metadata"),
        ("100.64.0.1", "shared"),
        ("0.0.0.0", ""),
        ("[::1]", "loopback"),
        ("[fd00::1]", ""),
        ("[fe80::1]", ""),
        ("[::ffff:10.0.0.1]", ""),
        ("[64:ff9b::a00:1]", ""),
        ("2130706434", ""),
        ("0x7f000002", ""),
        ("0177.0.0.2", ""),
        ("127.2", ""),
    ],
)
def test_addresses_that_are_nobodys_business_are_refused(fetching, target, host, why):
    status, body = fetch(fetching, f"http://{host}:{target}/")
    if status == 403:
        error = json.loads(body)["error"]
        assert error["code"] == "egress_address_denied" and why in error["message"], error
        assert "egress" in error["message"].split("allow it with")[1], "it says what to change"
    else:
        # Spellings of an address that the proxy does not take for one.
        assert not why and status in (400, 502), (status, body)


def test_this_server_itself_is_refused(fetching, server):
    status, body = fetch(fetching, server.url.replace("127.0.0.1", "127.0.0.2") + "/healthz")
    assert status == 403 and "ok" not in json.loads(body)


def test_there_is_no_way_beside_the_proxy(fetching, target):
    code = (
        "import socket\n"
        "def tried(kind, address):\n"
        "    s = socket.socket(socket.AF_INET, kind); s.settimeout(2)\n"
        "    try:\n        s.connect(address); s.send(b'x'); return 'sent'\n"
        "    except OSError as error: return error.strerror or str(error)\n"
        "for address in (('1.1.1.1', 443), ('10.0.0.1', 80), ('169.254.169.254', 80)):\n"
        "    print(tried(socket.SOCK_STREAM, address), tried(socket.SOCK_DGRAM, address))\n"
        f"print(tried(socket.SOCK_STREAM, ('127.0.0.1', {target})))\n"
        "try: socket.getaddrinfo('example.com', 80); print('resolved')\n"
        "except OSError as error: print('not resolved')"
    )
    lines = fetching.out(code).splitlines()
    assert lines[:3] == ["Network is unreachable Network is unreachable"] * 3
    assert lines[3] == "Connection refused", "its loopback is its own"
    assert lines[4] == "not resolved"
    assert fetching.command("ip link 2>/dev/null | grep -c '^[0-9]' || ls /sys/class/net")[
        "stdout"
    ].split() in (
        ["1"],
        [],
        ["0"],
    )


def test_an_allowed_address_is_reached_and_sees_the_request(reaching, target):
    code = f"print(fetch('http://{ALLOWED}:{target}/a?b=c', b'hello')[1])"
    seen = json.loads(reaching.out(code))
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/a?b=c", "hello")
    assert seen["headers"]["host"] == f"{ALLOWED}:{target}"
    assert not [h for h in seen["headers"] if "proxy" in h or h.startswith("x-crownest")]


def test_what_is_not_named_stays_refused_also_behind_a_redirect(reaching, target):
    assert fetch(reaching, f"http://{OTHER}:{target}/")[0] == 403
    status, body = fetch(reaching, f"http://{ALLOWED}:{target}/away")
    assert status == 403 and OTHER in body and "secret" not in json.loads(body)


def test_a_large_body_comes_through_whole(reaching, target):
    code = f"b = b'x' * 5_000_000\nprint(len(json.loads(fetch('http://{ALLOWED}:{target}/', b)[1])['body']))"
    assert reaching.out(code) == "5000000\n"


def test_a_dead_port_is_named(reaching):
    status, body = fetch(reaching, f"http://{ALLOWED}:9/")
    assert status == 502 and f"{ALLOWED} port 9" in json.loads(body)["error"]["message"]


def test_without_a_network_there_is_no_proxy(make):
    sandbox: Sandbox = make(network="none")
    code = "import os\nprint([n for n in os.environ if 'proxy' in n.lower()])"
    assert sandbox.out(code) == "[]\n"
    listening = (
        "import socket\nfor port in (3128, 8080):\n"
        "    try: socket.create_connection(('127.0.0.1', port), 1); print('open')\n"
        "    except OSError as error: print(error.strerror)"
    )
    assert set(sandbox.out(listening).splitlines()) == {"Connection refused"}
    # Loopback is there all the same.
    assert (
        sandbox.out(
            "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()); print('up')"
        )
        == "up\n"
    )


def test_pip_installs_from_the_index(make):
    """A small package that no template has, if this machine itself reaches the index."""
    try:
        urllib.request.urlopen("https://pypi.org/simple/six/", timeout=10).close()
    except OSError as error:
        pytest.skip(f"this machine does not reach the package index: {error}")
    sandbox: Sandbox = make()
    run = sandbox.run("!pip install --quiet --no-cache-dir six==1.16.0", timeoutMs=60_000)
    assert "error" not in run, run
    printed = "".join(run["stdout"] + run["stderr"])
    assert sandbox.command("pip show six")["exitCode"] == 0, printed
    assert sandbox.out("import six; print('imported')") == "imported\n", printed
    magic = sandbox.run("%pip --version")
    assert "error" not in magic and "pip" in "".join(magic["stdout"]), magic


def test_certificates_of_the_host_are_known_to_every_library(sandbox: Sandbox):
    code = (
        "import os, ssl\n"
        "names = ('SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE')\n"
        "paths = {os.environ.get(n) for n in names}\nprint(paths)\n"
        "print(all(os.path.getsize(p) > 1000 for p in paths if p))\n"
        "print(len(ssl.create_default_context().get_ca_certs()) > 10)"
    )
    paths, there, loaded = sandbox.out(code).splitlines()
    assert "None" not in paths and there == loaded == "True", paths


def test_refusals_and_bytes_are_counted(fetching, server, target):
    def metric(name: str) -> float:
        lines = httpx.get(server.url + "/metrics", trust_env=False).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    before = metric("crownest_egress_")
    fetch(fetching, f"http://10.0.0.1:{target}/")
    assert metric("crownest_egress_") > before
