"""Code that attacks its surroundings: it is bounded, it is named, and nobody else notices."""

from __future__ import annotations

import socket

import pytest

from rest import Sandbox, unbothered, until

MIB = 1024 * 1024

BOMBS = {
    "bytearray": "x = bytearray(3 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1",
    "mapping": "import mmap\nm = mmap.mmap(-1, 3 << 30)\nfor i in range(0, len(m), 4096): m[i] = 1",
    "list": "l = []\nwhile True: l.append('x' * 10_000_000)",
    "child": "import subprocess\nsubprocess.run(['python3', '-c', 'x = bytearray(1 << 31)\\n"
    "for i in range(0, len(x), 4096): x[i] = 1'], check=True)",
    "tmpfs": "with open('/dev/shm/f', 'wb') as f:\n    while True: f.write(b'x' * (1 << 20))",
}


@pytest.mark.parametrize("bomb", ["bytearray", "mapping", "list"])
def test_a_memory_bomb_is_named_and_the_next_run_works(make, neighbour, bomb):
    sandbox: Sandbox = make(resources={"memoryBytes": 512 * MIB})
    sandbox.run("kept = 1")
    with unbothered(neighbour):
        run = sandbox.run(BOMBS[bomb])
    assert run["outcome"] == "out_of_memory", run
    assert run["error"]["name"] == "OutOfMemory" and "memory limit" in run["error"]["message"]
    after = sandbox.run("'kept' in dir()")
    assert after["contextReset"] is True and after["outputs"][0]["value"] == "False"


@pytest.mark.parametrize("bomb", ["child", "tmpfs"])
def test_memory_beside_the_interpreter_is_bounded_too(make, neighbour, bomb):
    """The kernel picks the largest process: the context lives or is replaced, and works after."""
    sandbox: Sandbox = make(resources={"memoryBytes": 512 * MIB})
    with unbothered(neighbour):
        run = sandbox.run(BOMBS[bomb])
    assert run["outcome"] == "out_of_memory" or "error" in run, run
    sandbox.command("rm -f /dev/shm/f")
    assert sandbox.value("1+1") == "2"


def test_a_fork_bomb_is_bounded_and_leaves_the_sandbox_usable(make, neighbour):
    sandbox: Sandbox = make(resources={"pids": 64})
    # They stay: the place of one that ended would be taken by another.
    bomb = (
        "import os, time\ntry:\n    while True: os.fork()\nexcept OSError: pass\n"
        "os.write(1, b'x'); time.sleep(60)"
    )
    with unbothered(neighbour):
        run = sandbox.run(bomb, timeoutMs=3_000)
        assert 1 <= len("".join(run["stdout"])) <= 64
    sandbox.kill()
    assert sandbox.get()["status"] == "destroyed"


def test_a_fork_bomb_of_a_shell_is_bounded(make, neighbour):
    sandbox: Sandbox = make(resources={"pids": 64})
    with unbothered(neighbour):
        shell = sandbox.command("bomb() { bomb | bomb & }; bomb", timeoutMs=3_000)
    assert shell["status"] in {"exited", "timed_out", "killed"}, shell
    sandbox.kill()
    assert sandbox.get()["status"] == "destroyed"


def test_children_of_a_bomb_end_with_the_sandbox(make, neighbour):
    sandbox: Sandbox = make()
    sandbox.run(
        "import os\nfor _ in range(10):\n    if os.fork() == 0:\n"
        "        os.setsid()\n        while True: pass\n"
    )
    with unbothered(neighbour):
        sandbox.kill()
    assert neighbour.value("1+1") == "2"


def test_a_busy_sandbox_leaves_its_neighbour_a_processor(make, neighbour):
    sandbox: Sandbox = make(resources={"cpuMillis": 500})
    burn = "import os\nfor _ in range(8):\n    if os.fork() == 0:\n        while True: pass\n"
    sandbox.run(burn)
    with unbothered(neighbour):
        run = sandbox.run("import time\nend = time.time() + 1\nwhile time.time() < end: pass")
        assert run["outcome"] == "completed"


def test_closed_descriptors_cost_one_run_at_most(sandbox: Sandbox):
    run = sandbox.run("import os\nos.close(1)\nos.close(2)\nprint('into the void', flush=True)")
    assert run["outcome"] in {"completed", "context_died"}
    assert "visible\n" in sandbox.out("print('visible')")
    run = sandbox.run("import os\nos.closerange(0, 1024)")
    assert run["outcome"] in {"completed", "context_died"}
    assert sandbox.value("1+1") == "2"


def test_garbage_in_every_descriptor_kills_no_more_than_the_context(sandbox: Sandbox, neighbour):
    """Among them is the interpreter's own line to its keeper."""
    code = (
        "import os\nfor fd in range(3, 1024):\n    try: os.write(fd, b'\\xff\\x00garbage' * 1000)\n"
        "    except OSError: pass\n"
    )
    with unbothered(neighbour):
        run = sandbox.run(code)
    assert run["outcome"] in {"completed", "context_died"}
    assert sandbox.value("1+1") == "2"


FORGED = (
    "import os, json, struct\n"
    "frame = json.dumps({frame}).encode()\n"
    "for fd in range(3, 1024):\n"
    "    try: os.write(fd, struct.pack('>I', len(frame)) + frame)\n"
    "    except OSError: pass\n"
)


@pytest.mark.parametrize(
    "frame",
    [
        "{'type': 'done', 'run': 1 << 62}",
        "{'type': 'ready', 'language': 'x' * 100000}",
        "{'type': 'stream', 'name': 'stdout', 'text': 'forged'}",
        "{'type': 'result', 'data': {'text/plain': 'x' * 20_000_000}}",
        "[[[[1]]]]",
    ],
    ids=["done", "ready", "stream", "huge", "list"],
)
def test_forged_frames_harm_nobody_else(sandbox: Sandbox, neighbour, frame):
    with unbothered(neighbour):
        run = sandbox.run(FORGED.replace("{frame}", frame), timeoutMs=5_000)
    assert run["outcome"] in {"completed", "context_died", "timed_out"}
    assert sandbox.value("1+1") == "2"


def test_a_daemon_that_holds_stdout_holds_no_run(sandbox: Sandbox):
    daemon = (
        "import os, sys, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
        "    while not os.path.exists('/workspace/stop'): time.sleep(0.01)\n"
        "    print('late', flush=True)\n    open('/workspace/stopped', 'w').close()\n    os._exit(0)\n"
        "print('parent')"
    )
    assert sandbox.out(daemon) == "parent\n"
    assert sandbox.out("print('next')") == "next\n"
    sandbox.signal("stop")
    until(lambda: sandbox.read("stopped").status_code == 200, "the end of the daemon")
    run = sandbox.run("print('after')")
    # What was printed between runs belongs to none of them.
    assert "".join(run["stdout"]) in {"after\n", "late\nafter\n"}


def test_threads_that_print_for_ever_do_not_hold_later_runs(sandbox: Sandbox):
    code = (
        "import threading\ndef noise():\n    while True: print('n' * 100)\n"
        "threading.Thread(target=noise, daemon=True).start()"
    )
    assert sandbox.run(code)["outcome"] == "completed"
    run = sandbox.run("6 * 7", timeoutMs=20_000)
    assert [o["value"] for o in run["outputs"]] == ["42"]


def test_a_full_disk_is_an_error_of_the_code(make, neighbour):
    sandbox: Sandbox = make(resources={"diskBytes": 32 * MIB})
    code = "with open('/workspace/big', 'wb') as f:\n    while True: f.write(b'x' * (1 << 20))"
    with unbothered(neighbour):
        run = sandbox.run(code)
    assert run["error"]["name"] == "OSError" and "No space left" in run["error"]["message"]
    full = sandbox.write("more", "x" * 200_000)
    assert (full.status_code, full.json()["error"]["code"]) == (507, "storage_full")
    assert sandbox.out("import os; os.remove('/workspace/big'); print('room')") == "room\n"
    assert sandbox.write("more", "x" * 200_000).status_code == 200


def test_a_million_files_are_bounded(make, neighbour):
    """Names cost memory of the kernel: they must be counted against somebody."""
    sandbox: Sandbox = make(resources={"memoryBytes": 512 * MIB, "diskBytes": 64 * MIB})
    code = (
        "import os\nn = 0\ntry:\n    while n < 1_000_000:\n"
        "        os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY)); n += 1\n"
        "except OSError as error: print(error.strerror)\n"
    )
    with unbothered(neighbour):
        run = sandbox.run(code, timeoutMs=30_000)
    assert run["outcome"] == "out_of_memory" or run["stdout"] == ["No space left on device\n"], run


def test_code_cannot_reach_its_keeper(sandbox: Sandbox):
    """Pid 1 of the sandbox is the service's: no signal, no memory, no descriptor of it."""
    code = (
        "import os, signal\n"
        "def tried(what):\n    try: what(); return 'done'\n    except OSError as e: return type(e).__name__\n"
        "print(tried(lambda: os.kill(1, signal.SIGKILL)), tried(lambda: os.kill(1, signal.SIGSTOP)))\n"
        "print(tried(lambda: open('/proc/1/mem', 'rb')), tried(lambda: os.listdir('/proc/1/fd')))\n"
        "print(tried(lambda: open('/proc/1/environ', 'rb').read()))"
    )
    assert set(sandbox.out(code).split()) == {"PermissionError"}
    assert sandbox.value("1+1") == "2"


def test_killing_every_process_costs_the_context_alone(sandbox: Sandbox, neighbour):
    with unbothered(neighbour):
        run = sandbox.run("import os\nos.kill(-1, 9)")
    assert run["outcome"] in {"completed", "context_died"}
    assert sandbox.value("1+1") == "2" and sandbox.command("echo on")["stdout"] == "on\n"


def test_the_hosts_name_is_not_known(sandbox: Sandbox):
    """Also not by what the interpreter remembers from before it was forked."""
    code = (
        "import os, platform, socket\n"
        "print({platform.node(), platform.uname().node, socket.gethostname(), os.uname().nodename})\n"
        f"name = {socket.gethostname()!r}\n"
        "print(name in (os.environ.get('HOSTNAME'), open('/etc/hostname').read().strip()))"
    )
    names, known = sandbox.out(code).splitlines()
    assert names == "{'sandbox'}" and known == "False", (names, known)
    assert sandbox.command("hostname")["stdout"] == "sandbox\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.modules.clear()",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
        "import shutil; shutil.rmtree('/workspace', ignore_errors=True)",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(0, 9)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
        "import sys; sys.stdout.close(); sys.stderr.close()",
        "import sys; sys.stdout = sys.stderr = None",
        "__builtins__.__dict__.clear() if hasattr(__builtins__, '__dict__') else 0",
        "import os; os.execv('/bin/echo', ['echo', 'replaced'])",
        "raise type('E', (BaseException,), {'__str__': lambda self: 'x' * 10**8})()",
        "def f():\n    try: f()\n    finally: f()\nf()",
        "import ctypes, os; ctypes.CDLL(None).prctl(4, 0)",
    ],
    ids=lambda code: code.split("\n")[0][:40],
)
def test_harm_that_code_does_to_itself_ends_with_its_context(sandbox: Sandbox, code: str):
    run = sandbox.run(code, timeoutMs=1_000)
    assert run["outcome"] in {"completed", "timed_out", "context_died", "out_of_memory"}
    assert len(str(run.get("error", ""))) < 2 * MIB
    assert sandbox.value("1+1", contextId=sandbox.context()) == "2"
    assert sandbox.write("still", "here").status_code == 200
