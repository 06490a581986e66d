"""The zygote's own protocol, and what its children are."""

import errno
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from harness import KERNEL, PYTHON, Died, Sandbox, Zygote


@pytest.fixture
def forked(zygote, sandbox):
    peers = []

    def fork(**fields):
        peer = zygote.fork(sandbox.pidfd, **fields).start("/workspace", {"HOME": "/workspace"})
        peers.append(peer)
        return peer

    yield fork
    for peer in peers:
        peer.close()


def test_says_warm(zygote):
    assert zygote.warm == struct.pack("<ii", 0, 0)


def test_child_is_where_and_what_it_should_be(forked, sandbox):
    peer = forked(uid=1000, gid=1001)
    status = peer.run("print(open('/proc/self/status').read())").out
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1000"] * 4
    assert fields["Gid"].split() == ["1001"] * 4
    assert fields["Groups"].strip() == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert fields["NoNewPrivs"] == "1"
    assert fields["Threads"] == "1"
    for kind in ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid"):
        inside = os.readlink("/proc/%d/ns/%s" % (peer.pid, kind))
        assert inside == os.readlink("/proc/%d/ns/%s" % (sandbox.pid, kind)), kind
        assert inside != os.readlink("/proc/self/ns/%s" % kind), kind
    # The host sees the sandbox's own range of uids.
    assert os.stat("/proc/%d" % peer.pid).st_uid == 1_200_000_000 + 1000
    assert peer.run("import os; os.getcwd(), os.uname().nodename, os.getsid(0) == os.getpid()").text == (
        "('/workspace', 'sandbox', True)"
    )
    assert peer.run("oct(os.umask(0o22))").text == "0o22"


def test_child_has_no_descriptor_of_the_zygote(forked):
    peer = forked()
    run = peer.run("import os\nprint({int(f): os.readlink('/proc/self/fd/' + f) for f in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + f) or True and f.isdigit() and os.path.islink('/proc/self/fd/' + f)})")
    links = eval(run.out)
    kinds = sorted(target.split(":")[0] for number, target in links.items() if number != 3)
    assert kinds == sorted(["/dev/null"] * 2 + ["pipe"] * 4 + ["socket"]), links


def test_child_signals_are_those_of_a_program(forked):
    peer = forked()
    run = peer.run("import signal\n[signal.getsignal(s) == signal.SIG_DFL for s in (signal.SIGCHLD, signal.SIGTERM)]")
    assert run.text == "[True, True]"
    assert peer.run("import subprocess; subprocess.run(['false']).returncode").text == "1"


def test_children_share_no_randomness(forked):
    code = "import random, ssl, uuid, os\nimport numpy as np\nrandom.random(), np.random.rand(), np.random.default_rng().random(), ssl.RAND_bytes(8), uuid.uuid4()"
    seen = [eval(forked().run(code).text.replace("UUID", "str")) for _ in range(3)]
    for column in zip(*seen):
        assert len(set(column)) == 3, column


def test_children_share_no_randomness_even_with_one_pid(zygote):
    """Each is pid 2 of its own pid namespace: OpenSSL alone would not notice the fork."""
    seen = set()
    for _ in range(2):
        target = Sandbox()
        peer = zygote.fork(target.pidfd).start("/workspace", {"HOME": "/workspace"})
        seen.add(peer.run("import ssl, os\nos.getpid(), ssl.RAND_bytes(8)").text)
        peer.close()
        target.close()
    assert len(seen) == 2 and len({text.split(",")[0] for text in seen}) == 1


def test_libraries_are_there_already(forked):
    run = forked().run("import sys\n[m in sys.modules for m in ('numpy', 'pandas', 'matplotlib.pyplot', 'IPython')]")
    assert run.text == "[True, True, True, True]"


def test_warm_up_leaves_no_trace(forked):
    peer = forked()
    assert peer.run("sorted(n for n in globals() if not n.startswith('__'))").text == "[]"
    assert peer.run("import linecache\n[n for n in linecache.cache if n.startswith('Cell')]").text == "['Cell 1', 'Cell 2']"
    assert peer.run("import matplotlib.pyplot as plt\nplt.get_fignums()").text == "[]"
    assert peer.run("import sys\n[hasattr(sys, n) for n in ('last_value', 'last_traceback')]").text == "[False, False]"


# A first run in a context that has run a cell already; the cell itself copies 170.
FIRST_RUN_FAULTS_MAX = 100
WAITING_S_MAX = 30.0
SYS_READ = 0


def wait_until_waiting(peer):
    """Until the driver waits for its next frame."""
    end = time.monotonic() + WAITING_S_MAX
    while True:
        call = Path("/proc/%d/syscall" % peer.pid).read_text().split()
        if call[0] == str(SYS_READ) and int(call[1], 16) >= 900:
            return
        assert time.monotonic() < end, call
        time.sleep(0.005)


def minor_faults(pid):
    return int(Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[7])


def test_waiting_context_has_run_a_cell_already(zygote, sandbox):
    peer = zygote.fork(sandbox.pidfd)
    wait_until_waiting(peer)
    before = minor_faults(peer.pid)
    assert peer.start("/workspace", {"HOME": "/workspace"}).run("1+1").text == "2"
    assert minor_faults(peer.pid) - before < FIRST_RUN_FAULTS_MAX
    peer.close()


def test_cell_that_was_run_while_waiting_leaves_no_trace(zygote, sandbox):
    peer = zygote.fork(sandbox.pidfd)
    wait_until_waiting(peer)
    run = peer.run(
        "import gc, os, signal, sys, linecache\n"
        "[n for n in linecache.cache if n.startswith('Cell')], 'HOME' in os.environ,"
        " '_' in globals(), gc.isenabled(), signal.pthread_sigmask(signal.SIG_BLOCK, ()),"
        " sorted(n for n in os.listdir('/proc/self/fd') if len(n) > 1), os.getcwd(),"
        " [p for p in sys.path if 'nonexistent' in p]"
    )
    fds = ["900", "901", "902", "903"]
    assert eval(run.text) == (["Cell 1"], False, False, False, set(), fds, "/workspace", [])
    assert run.of("done")[0]["count"] == 1 and not run.stdout and not run.stderr
    with pytest.raises(BlockingIOError):
        peer.control.setblocking(False)
        peer.control.recv(1)
    peer.close()


def test_interrupt_right_after_the_fork_reaches_its_run(zygote, sandbox):
    """It may come while the context runs its first cell for nobody."""
    for _ in range(10):
        peer = zygote.fork(sandbox.pidfd).start("/workspace", {"HOME": "/workspace"})
        peer.begin("import time\ntime.sleep(%d)" % WAITING_S_MAX)
        peer.interrupt(frame=True)
        began = time.monotonic()
        assert peer.finish().status == "interrupted"
        assert time.monotonic() - began < WAITING_S_MAX / 2
        assert peer.run("1+1").text == "2"
        peer.close()


def test_a_contexts_own_fork_runs_the_hooks(forked):
    """The zygote forks without them."""
    run = forked().run(
        "import os, random, threading\n"
        "r, w = os.pipe()\nbusy = threading.Thread(target=threading.Event().wait, daemon=True)\nbusy.start()\n"
        "pid = os.fork()\nif pid == 0:\n"
        "    os.write(w, repr((random.random(), threading.active_count())).encode()); os._exit(0)\n"
        "os.waitpid(pid, 0)\nhere, (there, threads) = random.random(), eval(os.read(r, 99))\n"
        "here != there, threads, threading.active_count()"
    )
    assert run.text == "(True, 1, 2)", run.error


def test_libraries_that_renew_themselves_at_a_fork_work_without(forked):
    peer = forked()
    run = peer.run(
        "import pyarrow as pa, pyarrow.compute as pc\n"
        "table = pa.table({'a': list(range(100_000)), 'b': ['x'] * 100_000})\n"
        "frame = table.to_pandas(use_threads=True)\nint(frame['a'].sum()), pc.sum(table['a']).as_py()"
    )
    assert run.text == "(4999950000, 4999950000)", run.error
    run = peer.run(
        "import logging, concurrent.futures as cf\nlogging.warning('said')\n"
        "with cf.ThreadPoolExecutor(3) as pool: r = list(pool.map(abs, range(-3, 0)))\nr"
    )
    assert run.text == "[3, 2, 1]" and "said" in run.err
    run = peer.run("with cf.ProcessPoolExecutor(2) as pool: r = list(pool.map(abs, range(-3, 0)))\nr")
    assert run.text == "[3, 2, 1]", run.error


def test_environment_is_small(forked):
    run = forked().run("import os\nprint(*sorted(os.environ))")
    assert set(run.out.split()) <= {"HOME", "PATH", "LANG", "TZ", "LC_ALL", "LC_CTYPE"}


def test_garbage_collection_comes_back(forked):
    peer = forked()
    peer.run("1")
    assert peer.run("import gc; gc.isenabled()").text == "True"


def test_blas_and_parquet_work_after_the_fork(forked):
    peer = forked()
    assert peer.run("import numpy as np\nfloat(np.linalg.det(np.eye(300)))").text == "1.0"
    run = peer.run("import pandas as pd\npd.DataFrame({'a': ['x', 'y']}).to_parquet('t.parquet')\nlen(pd.read_parquet('t.parquet'))")
    assert run.text == "2", run.error


@pytest.mark.parametrize("fields", [{"uid": 0}, {"gid": 0}, {"uid": 70000}, {"op": 2}, {"fd_count": 3}])
def test_bad_requests_are_answered_and_survived(zygote, sandbox, fields):
    with pytest.raises(OSError) as refused:
        zygote.fork(sandbox.pidfd, **fields)
    assert refused.value.errno == errno.EINVAL
    zygote.fork(sandbox.pidfd).close()


def test_too_few_fds(zygote, sandbox):
    assert zygote.request([sandbox.pidfd])[0] == -errno.EINVAL


def test_sandbox_that_is_gone(zygote, sandbox):
    target = Sandbox()
    pidfd = os.dup(target.pidfd)
    target.close()
    with pytest.raises(OSError):
        zygote.fork(pidfd)
    os.close(pidfd)
    zygote.fork(sandbox.pidfd).close()


def test_child_that_cannot_join_a_cgroup_does_not_live(zygote, sandbox):
    read_only = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises((Died, OSError)):
        zygote.fork(sandbox.pidfd, cgroup_fds=[read_only])
    os.close(read_only)
    zygote.fork(sandbox.pidfd).close()


def test_cgroup_fds_get_a_zero(zygote, sandbox, tmp_path):
    files = [os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT) for name in "ab"]
    zygote.fork(sandbox.pidfd, cgroup_fds=files).close()
    assert [(tmp_path / name).read_text() for name in "ab"] == ["0", "0"]
    for fd in files:
        os.close(fd)


def test_child_that_is_not_in_a_sandbox_does_not_live(zygote):
    """setns to the zygote's own user namespace fails: no context on the host."""
    own = os.pidfd_open(os.getpid())
    with pytest.raises((Died, OSError)):
        zygote.fork(own)
    os.close(own)


def test_death_is_seen_by_pidfd(forked):
    peer = forked()
    signal.pidfd_send_signal(peer.pidfd, signal.SIGKILL)
    peer.wait_death(5)


def test_seccomp_filter_is_installed(sandbox, tmp_path):
    """Two instructions: getppid -> EPERM, everything else allowed."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0),
            (0x15, 0, 1, 110),
            (0x06, 0, 0, 0x00050001),
            (0x06, 0, 0, 0x7FFF0000),
        )
    )
    path = tmp_path / "filter.bpf"
    path.write_bytes(program)
    zygote = Zygote(preload="json", env={"CROWNEST_SECCOMP_FILE": str(path)})
    peer = zygote.fork(sandbox.pidfd).start("/workspace")
    assert peer.run("[l for l in open('/proc/self/status') if l.startswith('Seccomp:')]").text == "['Seccomp:\\t2\\n']"
    assert peer.run("import ctypes\nctypes.CDLL(None).getppid()").text == "-1"
    peer.close()
    zygote.close()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_five_capabilities_are_enough(sandbox):
    """The spawner leaves a zygote no more than these."""
    kept = "-all,+sys_admin,+sys_chroot,+setuid,+setgid,+setpcap"
    zygote = Zygote(preload="json", wrapper=["setpriv", "--bounding-set", kept, "--inh-caps=-all"])
    peer = zygote.fork(sandbox.pidfd).start("/workspace")
    run = peer.run("[l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapBnd'))]")
    assert run.text == "['0000000000000000', '0000000000000000']"
    peer.close()
    zygote.close()


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_works_from_a_read_only_view(sandbox, tmp_path):
    """With a font cache that is there but cannot be written."""
    environment = {"MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    subprocess.run([PYTHON, "-c", "import matplotlib.font_manager"], env=environment, check=True)
    script = (
        "mount --make-rprivate / && for m in / /tmp /var/tmp /dev/shm; do"
        " ! mountpoint -q $m || mount -o remount,bind,ro $m || exit 9; done; exec \"$@\""
    )
    wrapper = ["unshare", "-m", "sh", "-c", script, "sh"]
    zygote = Zygote(env={**environment, "HOME": "/nonexistent"}, wrapper=wrapper)
    peer = zygote.fork(sandbox.pidfd).start("/workspace", {"HOME": "/workspace"})
    run = peer.run("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.title('text')\nplt.show()")
    assert run.status == "ok" and len(run.of("display")) == 1 and run.err == ""
    peer.close()
    zygote.close()


def run_zygote(env, arguments=()):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        return subprocess.run(
            [PYTHON, str(KERNEL / "zygote.py"), *arguments],
            env={"PATH": os.environ["PATH"], "CROWNEST_ZYGOTE_FD": str(theirs.fileno()), **env},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
        )


def test_refuses_to_start_without_a_filter(zygote):
    done = run_zygote({})
    assert done.returncode == 1 and "CROWNEST_SECCOMP_FILE" in done.stderr


def test_refuses_to_serve_with_a_second_thread(zygote, tmp_path):
    (tmp_path / "spawns_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    done = run_zygote({"CROWNEST_SECCOMP_FILE": "none", "PYTHONPATH": str(tmp_path)}, ["spawns_thread"])
    assert done.returncode == 1 and "more than one thread" in done.stderr


def test_ends_with_its_spawner():
    zygote = Zygote(preload="json")
    zygote.close()
    assert zygote.process.returncode == 0
