"""Runs as streams of events: framing to the byte, order, promptness, what a leaving client does."""

from __future__ import annotations

import json
import re
import time

import pytest

from rest import Sandbox, events, refusal, until, waiting_for

# Everything that some client takes for the end of a line.
LINE_ENDS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# How long C code keeps the interpreter lock below; far more than output takes to arrive.
LOCKED_S = 8


def test_frames_are_what_the_strictest_client_reads(sandbox: Sandbox):
    printed = "a" + LINE_ENDS + '\0\x1b[31m"\\é😀z'
    code = f"import sys\nprint({printed!r})\nprint({printed!r}, file=sys.stderr)\n{printed!r}\n"
    with sandbox.streaming(code + "raise ValueError('gone\\u2028wrong')") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        body = b"".join(response.iter_bytes())
    assert b"\r" not in body and body.endswith(b"\n\n") and b"\n\n\n" not in body
    for end in LINE_ENDS[1:]:
        assert end.encode() not in body, f"{end!r} stands raw in the stream"
    kinds = []
    for frame in body.decode().removesuffix("\n\n").split("\n\n"):
        # Clients split frames at whatever str.splitlines calls a line.
        name, data = frame.splitlines()
        event = json.loads(data.removeprefix("data: "))
        assert data.startswith("data: ") and name == f"event: {event['type']}"
        kinds.append(event)
    said = {kind: "" for kind in ("stdout", "stderr")}
    for event in kinds:
        if event["type"] in said:
            said[event["type"]] += event["data"]
    assert said == {"stdout": printed + "\n", "stderr": printed + "\n"}
    assert [e["type"] for e in kinds].count("complete") == 1
    assert kinds[-1]["type"] == "complete" and kinds[-2]["type"] == "error"
    assert kinds[-1]["data"]["error"] == kinds[-2]["data"]
    assert kinds[-2]["data"]["message"] == "gone\u2028wrong"


def test_a_stream_says_what_the_blocking_answer_says(sandbox: Sandbox):
    code = (
        "import sys\nprint('one')\ndisplay({'n': 1})\nprint('two', file=sys.stderr)\n"
        "from IPython.display import HTML\ndisplay(HTML('<b>x</b>'))\n6 * 7"
    )
    streamed = sandbox.stream(code, richOutputs="inline")
    whole = sandbox.run(code, richOutputs="inline")
    last = streamed[-1]["data"]
    changing = {"executionCount", "durationMs", "usage"}
    assert {k: v for k, v in last.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }
    outputs = [e["data"] for e in streamed if e["type"] == "output"]
    assert outputs == last["outputs"] and len(outputs) >= 3
    assert "".join(e["data"] for e in streamed if e["type"] == "stdout") == "one\n"
    assert "".join(e["data"] for e in streamed if e["type"] == "stderr") == "two\n"


@pytest.mark.parametrize("print_it", ["print('first', flush=True)", "print('first')"])
def test_output_arrives_while_the_code_still_runs(sandbox: Sandbox, print_it):
    """The code goes on only after the test has seen the first line."""
    code = f"{print_it}\n{waiting_for('go')}print('second')"
    with sandbox.streaming(code) as response:
        arriving = events(response.iter_lines())
        first = next(arriving)
        assert first == {"type": "stdout", "data": "first\n"}
        sandbox.signal("go")
        rest = list(arriving)
    assert rest[0] == {"type": "stdout", "data": "second\n"}
    assert rest[-1]["type"] == "complete" and rest[-1]["data"]["stdout"] == ["first\nsecond\n"]


def test_displays_arrive_while_the_code_still_runs(sandbox: Sandbox):
    code = f"display('shown')\n{waiting_for('go2')}"
    with sandbox.streaming(code) as response:
        arriving = events(response.iter_lines())
        first = next(arriving)
        assert first["type"] == "output" and first["data"]["value"] == "shown"
        sandbox.signal("go2")
        assert list(arriving)[-1]["type"] == "complete"


def test_output_of_a_child_arrives_while_it_still_runs(sandbox: Sandbox):
    child = "echo child; while [ ! -e /workspace/go3 ]; do sleep 0.01; done; echo done"
    code = f"import subprocess; subprocess.run({child!r}, shell=True, check=True)"
    with sandbox.streaming(code) as response:
        arriving = events(response.iter_lines())
        assert next(arriving)["data"] == "child\n"
        sandbox.signal("go3")
        assert "".join(e["data"] for e in arriving if e["type"] == "stdout") == "done\n"


def test_a_burst_arrives_while_c_code_holds_the_interpreter(sandbox: Sandbox):
    """What a busy program prints is read in larger pieces, and still without its help."""
    burst = "for n in range(2_000): print(n)\n"
    code = burst + f"import ctypes\nleft = ctypes.PyDLL(None).sleep({LOCKED_S})"
    began = time.monotonic()
    with sandbox.streaming(code) as response:
        printed = ""
        arriving = events(response.iter_lines())
        while not printed.endswith("\n1999\n"):
            printed += next(arriving)["data"]
        assert time.monotonic() - began < LOCKED_S, "seen only when the C code was done"
        assert [e["type"] for e in arriving] == ["complete"]
    assert printed == "".join(f"{n}\n" for n in range(2_000))


@pytest.mark.parametrize(
    ("mark", "kind"),
    [("display('mark')", "output"), ("import sys; print('mark', file=sys.stderr)", "stderr")],
)
def test_what_follows_a_burst_comes_after_it(sandbox: Sandbox, mark: str, kind: str):
    for _ in range(10):
        streamed = sandbox.stream(f"for n in range(2_000): print(n)\n{mark}\nprint('end')")
        kinds = [e["type"] for e in streamed]
        at = kinds.index(kind)
        before = "".join(e["data"] for e in streamed[:at])
        assert before.startswith("".join(f"{n}\n" for n in range(2_000)))
        after = "".join(e["data"] for e in streamed[at + 1 : -1])
        assert before + after == "".join(f"{n}\n" for n in range(2_000)) + "end\n"


def test_twenty_megabytes_come_whole(sandbox: Sandbox):
    """As lines of one burst, and as a single text that no pipe holds."""
    streamed = sandbox.stream("for n in range(200_000): print(f'{n:099d}')")
    printed = "".join(e["data"] for e in streamed if e["type"] == "stdout")
    assert printed == "".join(f"{n:099d}\n" for n in range(200_000))
    assert "".join(streamed[-1]["data"]["stdout"]) == printed
    streamed = sandbox.stream("print('é' * 10_000_000)")
    printed = "".join(e["data"] for e in streamed if e["type"] == "stdout")
    assert printed == "é" * 10_000_000 + "\n"


def test_characters_are_never_cut_between_chunks(sandbox: Sandbox):
    code = "import os\nfor byte in 'ä€😀\\n'.encode() * 200: os.write(1, bytes([byte]))"
    chunks = [e["data"] for e in sandbox.stream(code) if e["type"] == "stdout"]
    assert "".join(chunks) == "ä€😀\n" * 200


def test_two_megabytes_of_lines_come_whole_and_in_order(sandbox: Sandbox):
    streamed = sandbox.stream("for n in range(100_000): print(f'line {n:>15}')")
    printed = "".join(e["data"] for e in streamed if e["type"] == "stdout")
    assert printed == "".join(f"line {n:>15}\n" for n in range(100_000))
    assert "".join(streamed[-1]["data"]["stdout"]) == printed


def test_a_client_that_leaves_interrupts_its_run(sandbox: Sandbox):
    """Nobody waits for the result: the context must be free again, with its state."""
    context = sandbox.context()
    sandbox.run("kept = 1", contextId=context)
    endless = "kept += 1\nprint('on', flush=True)\nwhile True: pass"
    with sandbox.streaming(endless, contextId=context) as response:
        assert next(events(response.iter_lines()))["data"] == "on\n"
    assert sandbox.value("kept", contextId=context, timeoutMs=20_000) == "2"


def test_a_keyed_stream_outlives_its_client_and_is_replayed(sandbox: Sandbox):
    headers = {"idempotency-key": "leaving"}
    code = f"print('on', flush=True)\n{waiting_for('go4')}open('ran', 'a').write('x')\n'the end'"
    with sandbox.streaming(code, headers) as response:
        assert next(events(response.iter_lines()))["data"] == "on\n"
    with sandbox.streaming(code, headers) as response:
        response.read()
        refusal(response, 409, "idempotency_request_in_progress")
    sandbox.signal("go4")

    def replay() -> list | None:
        with sandbox.streaming(code, headers) as response:
            found = list(events(response.iter_lines()))
            return found if response.status_code == 200 else None

    replayed = until(replay, "the end of the run")
    assert [e["type"] for e in replayed] == ["complete"]
    assert replayed[0]["data"]["outputs"][0]["value"] == "the end"
    assert sandbox.read("ran").json()["content"] == "x", "it ran once"


def test_what_is_refused_before_the_stream_is_no_stream(sandbox: Sandbox):
    with sandbox.streaming("1", language="cobol") as response:
        response.read()
        refusal(response, 400, "unsupported_code_language")
    with sandbox.streaming("1", contextId="cctx_nobody") as response:
        response.read()
        refusal(response, 404, "not_found")


def test_a_silent_stream_is_not_cut_and_ends_with_complete(sandbox: Sandbox):
    streamed = sandbox.stream("import time; time.sleep(0.3)")
    assert [e["type"] for e in streamed] == ["complete"]
    assert re.fullmatch(r"cctx_\w+", streamed[0]["data"]["contextId"])
