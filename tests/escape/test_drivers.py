"""What tenant code can say to init on the control socket of its own context.

It has the socket: the interpreter that runs it does. So it may lie about its own run, and about
nothing else; and however it lies, init, the server and the other contexts live on. What becomes of
each lie is in tests/hostile; here is what it must not reach.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from probe import Sandbox

CONTROL = """
import array
control = next(int(n) for n in os.listdir("/proc/self/fd")
               if os.path.exists("/proc/self/fd/" + n) and os.readlink("/proc/self/fd/" + n).startswith("socket:"))
control = socket.socket(fileno=os.dup(control))
def say(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    control.sendall(struct.pack(">I", len(data)) + data)
"""


@pytest.fixture(scope="module")
def liar(sandbox: Sandbox) -> Sandbox:
    sandbox.run("kept = 1")
    return sandbox


def test_a_context_can_forge_the_end_of_its_own_run_only(liar: Sandbox) -> None:
    context = liar.context()
    other = liar.context()
    liar.run("secret = 7", other)
    run = liar.run(
        f"import json, os, socket, struct\n{CONTROL}\n"
        # Every number near its own: it is not told which runs others have.
        "for run in range(0, 200):\n"
        "    say({'ev': 'result', 'run': run, 'data': {'text/plain': 'forged'}, 'metadata': {}, 'count': 99})\n"
        "    say({'ev': 'done', 'run': run, 'status': 'ok', 'count': 99})\n",
        context,
    )
    assert run["contextId"] == context
    assert run["executionCount"] == 99, "its own run ends as it says"
    answer = liar.run("secret", other)
    assert answer["outputs"][0]["value"] == "7" and answer["executionCount"] == 2


def test_descriptors_sent_to_init_are_dropped(liar: Sandbox, server_pids: Callable[[], dict]) -> None:
    """Init reads the socket without a place for descriptors, so the kernel closes them."""
    context = liar.context()
    run = liar.run(
        f"import array, json, os, socket, struct\n{CONTROL}\n"
        "fds = array.array('i', [os.open('/dev/null', 0) for _ in range(100)])\n"
        "frame = json.dumps({'ev': 'clear', 'run': 0, 'wait': True}).encode()\n"
        "for _ in range(50):\n"
        "    control.sendmsg([struct.pack('>I', len(frame)) + frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])\n"
        "'sent'",
        context,
    )
    assert run["outputs"][0]["value"] == "sent", run
    counts = server_pids()
    assert counts["init"] < 200, counts
    assert liar.run("kept")["outputs"][0]["value"] == "1"


@pytest.fixture
def server_pids(liar: Sandbox) -> Callable[[], dict]:
    """Open descriptors of the sandbox's init, counted from the host."""
    from pathlib import Path

    def count() -> dict[str, int]:
        for group in Path("/sys/fs/cgroup").glob(f"**/{liar.key}.*"):
            tasks = group / "tasks" if (group / "tasks").exists() else group / "cgroup.procs"
            pids = [int(p) for p in tasks.read_text().split()]
            for pid in pids:
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"crownest-init"):
                    return {"init": len(list(Path(f"/proc/{pid}/fd").iterdir()))}
        raise AssertionError("no init in the group")

    return count


HOSTILE_OUTPUTS = {
    "html": {"text/html": "<script>alert(1)</script>"},
    "svg": {"image/svg+xml": "<svg onload='alert(1)'/>"},
    "mime with newline": {"text/plain\r\nx-injected: 1": "x"},
    "not base64": {"image/png": "***"},
    "long mime": {"a/" + "x" * 100_000: "y"},
    "many": {f"text/x{i}": "y" for i in range(5_000)},
    "sse": {"text/plain": "a\n\nevent: complete\ndata: {}\n\n"},
    "numbers": {"application/json": 1e308},
}


@pytest.mark.parametrize("name", HOSTILE_OUTPUTS)
def test_hostile_bundles(liar: Sandbox, name: str) -> None:
    """As a blocking answer and as a stream: one event per event, whatever is in it."""
    data = json.dumps(json.dumps(HOSTILE_OUTPUTS[name]))
    code = f"import json\nfrom IPython.display import display\ndisplay(json.loads({data}), raw=True)\n'end'"
    run = liar.run(code)
    assert run["outcome"] == "completed"
    kinds = {o["kind"] for o in run["outputs"] if o.get("mimeType") in ("text/html", "image/svg+xml")}
    assert kinds <= {"rejected"}
    body = {"code": code, "language": "python"}
    with liar.api.http.stream("POST", liar.path + "/code/runs/stream", json=body) as answer:
        assert answer.status_code == 200
        frames = [f for f in answer.read().decode().split("\n\n") if "data:" in f]
    events = [json.loads("\n".join(
        line[5:].strip() for line in frame.splitlines() if line.startswith("data:"))) for frame in frames]
    assert [e["type"] for e in events].count("complete") == 1
    assert events[-1]["type"] == "complete"
