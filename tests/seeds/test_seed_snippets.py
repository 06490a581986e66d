"""The snippets of the guides give what the guides show."""

from __future__ import annotations

import base64
import json
import re
import struct
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

import snippets
from rest import Sandbox, events, inline, text
from server import TEMPLATES
from snippets import CLOUDFLARE, CLOUDFLARE_NODE, CROWNEST, OPENSANDBOX, PNG, Snippet

# The second loopback address: 127.0.0.1 itself means the sandbox, inside a sandbox.
HOST = "127.0.0.2"
PAGE = b"<html><head><title>Example Domain</title></head><body>x</body></html>"


def size(png: str) -> tuple[int, int]:
    """Pixels of a picture that must be whole."""
    raw = base64.b64decode(png, validate=True)
    assert raw.startswith(PNG) and raw.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", raw[16:24])


def check(sandbox: Sandbox, snippet: Snippet, context: str | None) -> None:
    named = {"contextId": context} if context else {}
    named["language"] = snippet.language
    runs = [sandbox.run(cell, richOutputs="inline", **named) for cell in snippet.cells]
    for run, stdout in zip(runs, snippet.stdout, strict=True):
        if stdout is not None:
            assert "".join(run["stdout"]) == stdout
    assert all("error" not in run for run in runs[:-1])
    last = runs[-1]
    printed = "".join(last["stdout"])
    for line in snippet.lines:
        assert any(have.startswith(line) for have in printed.splitlines()), printed
    if snippet.error:
        assert last["error"]["name"] == snippet.error and last["error"]["message"]
        assert snippet.cells[-1].strip().splitlines()[-1] in "\n".join(last["error"]["traceback"])
        assert last["outputs"] == []
        return
    assert "error" not in last and last["stderr"] == [], last
    if snippet.text is not None:
        assert text(last) == snippet.text
    elif snippet.number is not None:
        assert float(text(last)) == pytest.approx(snippet.number)
    elif snippet.html:
        table = inline(last, "html")[0]
        assert re.search(r"<table.*</table>", table, re.S)
        for cell in snippet.html:
            assert re.search(rf"<t[hd]>{re.escape(cell)}</t[hd]>", table), (cell, table)
        assert snippet.html[0] in text(last), "the same value as text"
    elif snippet.png:
        pictures = inline(last, "png")
        assert len(pictures) == 1, "one figure, shown once"
        assert size(pictures[0]) == pytest.approx(snippet.png, rel=0.35)
    else:
        assert last["outputs"] == []
    for path, start in snippet.files.items():
        saved = sandbox.read(path, encoding="base64").json()
        assert base64.b64decode(saved["content"]).startswith(start) and saved["sizeBytes"] > 1000


@pytest.mark.parametrize("snippet", CLOUDFLARE, ids=lambda s: s.name)
def test_cloudflare(sandbox: Sandbox, snippet: Snippet):
    check(sandbox, snippet, sandbox.context())


@pytest.fixture(scope="module")
def with_node(seed_client: httpx.Client) -> Iterator[Sandbox]:
    if not (TEMPLATES / "python-node" / "current").exists():
        reason = "template python-node is not built (crownest template build python-node)"
        print(f"SKIP: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(reason)
    sandbox = Sandbox.create(seed_client, template="python-node")
    yield sandbox
    sandbox.kill()


@pytest.mark.parametrize("snippet", CLOUDFLARE_NODE, ids=lambda s: s.name)
@pytest.mark.parametrize("named", [True, False], ids=["context", "default"])
def test_cloudflare_beside_python(with_node: Sandbox, snippet: Snippet, named: bool):
    check(with_node, snippet, with_node.context(language=snippet.language) if named else None)


@pytest.mark.parametrize("snippet", CROWNEST, ids=lambda s: s.name)
def test_crownest(sandbox: Sandbox, snippet: Snippet):
    check(sandbox, snippet, sandbox.context())


@pytest.mark.parametrize("snippet", OPENSANDBOX, ids=lambda s: s.name)
@pytest.mark.parametrize("named", [True, False], ids=["context", "default"])
def test_opensandbox(sandbox: Sandbox, snippet: Snippet, named: bool):
    check(sandbox, snippet, sandbox.context() if named else None)


def test_cloudflare_json_can_be_parsed(sandbox: Sandbox):
    assert json.loads(text(sandbox.run(snippets.JSON))) == {"name": "Alice", "age": 25}


def test_cloudflare_file_processing(sandbox: Sandbox):
    assert sandbox.write("/workspace/data.csv", snippets.CSV).status_code == 200
    run = sandbox.run(snippets.CSV_CODE, richOutputs="inline")
    assert run["stdout"] == ["Processed 3 records\n"] and "<table" in inline(run, "html")[0]
    output = json.loads(sandbox.read("/workspace/output.json").json()["content"])
    assert output == [
        {"name": "Alice", "age": 25, "city": "NYC", "age_group": "young"},
        {"name": "Bob", "age": 30, "city": "LA", "age_group": "adult"},
        {"name": "Charlie", "age": 35, "city": "Chicago", "age_group": "adult"},
    ]


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        (snippets.STEPS, [f"Step {n}\n" for n in range(5)]),
        (
            "import time\nfor i in range(5):\n    print(i)\n    time.sleep(0.5)",
            [f"{n}\n" for n in range(5)],
        ),
    ],
    ids=["cloudflare", "opensandbox"],
)
def test_streaming(sandbox: Sandbox, code: str, printed: list[str]):
    """Each line is an event of its own: it was there before the next one was printed."""
    with sandbox.streaming(code) as response:
        seen = list(events(response.iter_lines()))
    assert [e["data"] for e in seen if e["type"] == "stdout"] == printed
    assert seen[-1]["type"] == "complete"


def test_a_repl(sandbox: Sandbox):
    """The loop of the second guide: text of the value, then what was printed."""
    context = sandbox.context()
    lines = ["a = 2", "a ** 10", "print('hi')", "import math", "math.pi > 3", "1 / 0", "a"]
    seen = []
    for line in lines:
        run = sandbox.run(line, contextId=context)
        seen.append(
            run["error"]["name"]
            if "error" in run
            else [o["value"] for o in run["outputs"]] + run["stdout"]
        )
    assert seen == [[], ["1024"], ["hi\n"], [], ["True"], "ZeroDivisionError", ["2"]]


# -- the network


class Page(BaseHTTPRequestHandler):
    """A page with a title, for code in a sandbox."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with ThreadingHTTPServer((HOST, 0), Page) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://{HOST}:{served.server_address[1]}"
        served.shutdown()


def test_packages_can_be_installed_by_a_command(sandbox: Sandbox):
    command = sandbox.command("pip install requests beautifulsoup4", timeoutMs=60_000)
    assert command["exitCode"] == 0, command["stderr"]
    assert sandbox.out("import requests, bs4; print('there')") == "there\n"


def test_packages_can_be_installed_by_code(sandbox: Sandbox):
    code = "import subprocess\nsubprocess.run(['pip', 'install', 'requests'])"
    run = sandbox.run(code)
    assert "error" not in run and "returncode=0" in text(run), run
    # What the child printed belongs to the run.
    assert "requests" in "".join(run["stdout"])


def test_a_page_is_fetched_where_the_operator_allows_it(reaching: Sandbox, page: str):
    run = reaching.run(snippets.PAGE_TITLE.replace("https://example.com", page))
    assert "error" not in run, run["error"]
    assert run["stdout"] == ["Page title: Example Domain\n"] and text(run) == "Example Domain"
    status = reaching.run(snippets.STATUS.replace("https://api.github.com", page))
    assert status["stdout"] == ["Status: 200 \n"]


@pytest.mark.parametrize(
    ("code", "host"),
    [(snippets.PAGE_TITLE, "example.com"), (snippets.STATUS, "api.github.com")],
    ids=["cloudflare", "opensandbox"],
)
def test_the_internet_answers_or_the_reason_is_said(sandbox: Sandbox, code: str, host: str):
    """On a machine without a way out the code fails soon, and the error names host and cause."""
    run = sandbox.run(code, timeoutMs=40_000)
    assert run["outcome"] == "completed", run
    if "error" not in run:
        assert re.fullmatch(r"Page title: Example Domain\n|Status: \d+ \n", "".join(run["stdout"]))
        return
    message = run["error"]["message"]
    assert run["error"]["name"] in {"ProxyError", "ConnectionError", "SSLError"}, run["error"]
    assert host in message and re.search(
        "could not be resolved|connecting to|denied|not on the list", message
    ), message


def test_a_private_address_is_refused_with_the_reason(sandbox: Sandbox, page: str):
    run = sandbox.run(snippets.STATUS.replace("https://api.github.com", page))
    assert run["stdout"] == ["Status: 403 \n"]
    said = sandbox.out(f"print(requests.get('{page}').text)")
    assert HOST in said and "egress" in said and "loopback" in said
