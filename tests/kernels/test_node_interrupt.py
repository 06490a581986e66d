"""Interrupts, deaths, background: with the frame and the signal, as init sends them."""

import os
import select
import signal
import time

import pytest

from harness import Died
from node_driver import NodeDriver

# What init does: crates/init/src/runs.rs.
INTERRUPT_GROUP_S = 1.0
INTERRUPTED = {"name": "Interrupted", "message": "the run was interrupted"}


def interrupted(context, code, **fields):
    """Runs `code`, which prints go, and interrupts it."""
    context.begin(code, **fields)
    context.wait_output(b"go\n")
    context.interrupt(frame=True)
    run = context.finish()
    assert run.status == "interrupted", run.events
    assert {key: run.error[key] for key in INTERRUPTED} == INTERRUPTED
    return run


@pytest.mark.parametrize(
    "code",
    [
        "console.log('go'); for (;;);",
        "console.log('go'); for (;;) try { for (;;); } catch {} finally { continue }",
        "console.log('go'); for (;;) await null",
        "console.log('go'); await new Promise(() => {})",
        "console.log('go'); await new Promise((r) => setTimeout(r, 600_000))",
        "console.log('go'); await require('timers/promises').setTimeout(600_000)",
        "console.log('go'); for await (const x of require('timers/promises').setInterval(600_000));",
        "console.log('go'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
        "console.log('go'); setInterval(() => { for (;;); }, 1); await new Promise(() => {})",
        "console.log('go'); (function loop() { Promise.resolve().then(loop) })(); await new Promise(() => {})",
        "console.log('go'); (function loop() { process.nextTick(loop) })(); await new Promise(() => {})",
        "console.log('go'); (function loop() { setImmediate(loop) })(); await new Promise(() => {})",
        "console.log('go'); /(a+)+$/.test('a'.repeat(64) + 'b')",
        "console.log('go'); ({ [Symbol.for('nodejs.util.inspect.custom')]() { for (;;); } })",
        "console.log('go'); ({ get [Symbol.for('Jupyter.display')]() { for (;;); } })",
        "console.log('go'); throw { get message() { for (;;); }, __proto__: Error.prototype }",
        "console.log('go'); await import('data:text/javascript,for(;;);')",
        "console.log('go'); await import('data:text/javascript,await new Promise(() => {})')",
        "console.log('go'); require('vm').runInNewContext('for (;;);')",
        "!echo go; exec sleep 600",
        "console.log('go'); JSON.stringify({ toJSON() { for (;;); } })",
        "console.log('go'); while (true) new Array(1e5).fill(0).sort(() => Math.random() - 0.5)",
    ],
)
def test_interrupt_keeps_state(js, code):
    js.run("let kept = 41")
    interrupted(js, code)
    assert js.run("kept + 1").text == "42"
    assert js.run("await new Promise((r) => setTimeout(() => r(5), 1))").text == "5"
    assert js.run("throw new Error('own')").error["message"] == "own"


def test_a_child_that_is_waited_for(js):
    """Node cannot be stopped there: init interrupts the whole process group a second later."""
    js.begin("require('child_process').execSync('echo go; exec sleep 600', { stdio: 'inherit' })")
    js.wait_output(b"go\n")
    js.interrupt(frame=True)
    time.sleep(INTERRUPT_GROUP_S)
    os.killpg(js.process.pid, signal.SIGINT)
    assert js.finish().status == "interrupted"
    assert js.run("1+1").text == "2"


def test_what_was_terminated_leaves_no_context_behind(js):
    """V8 unwinds through what Node does before and after a callback."""
    js.run("const { AsyncLocalStorage, executionAsyncId } = require('async_hooks'); const store = new AsyncLocalStorage(); undefined")
    interrupted(js, "store.run('stale', () => setInterval(() => { console.log('go'); for (;;); }, 1)); await new Promise(() => {})")
    assert js.run("store.getStore()").result is None
    assert js.run("await new Promise((r) => setTimeout(() => r(store.getStore() === undefined), 1))").text == "true"
    assert js.run("await store.run('own', async () => { await null; return store.getStore() })").text == "own"


def test_interrupts_while_idle_are_swallowed(js):
    for _ in range(20):
        js.interrupt()
        assert js.run("1+1").text == "2"


def test_interrupt_that_overtakes_its_run(js):
    for _ in range(100):
        js.begin("for (;;);")
        js.interrupt(frame=True)
        assert js.finish().status == "interrupted"
    js.run("await null; let state = 5")
    assert js.run("state").text == "5"


def test_interrupt_that_overtakes_typescript(node):
    """While the compiler is still being loaded."""
    fresh = NodeDriver(node)
    try:
        fresh.begin("for (;;); const n: number = 1", language="typescript")
        fresh.interrupt(frame=True)
        assert fresh.finish().status == "interrupted"
        assert fresh.run("const n: number = 1; n", language="typescript").text == "1"
    finally:
        fresh.close()


def test_frame_of_an_earlier_run_interrupts_nothing(js):
    for _ in range(50):
        js.run("1")
        js.interrupt(frame=True)
        run = js.run("let sum = 0; for (let i = 0; i < 1e5; i++) sum += i; await null; sum")
        assert (run.status, run.text) == ("ok", "4999950000")


def test_interrupt_at_any_moment(js):
    """Around the end of a run: either it has ended, or it is interrupted."""
    seen = set()
    for spin in range(0, 60_000_000, 1_000_000):
        js.begin(f"let x = 0; for (let i = 0; i < {spin}; i++) x += i; ({{ x }})")
        js.interrupt(frame=True)
        run = js.finish()
        seen.add(run.status)
        assert len(run.of("done")) == 1 and (run.status == "ok") == (run.text is not None)
    assert "ok" in seen and js.run("x >= 0").text == "true"


def test_many_interrupts_of_one_run(js):
    js.begin("console.log('go'); for (;;);")
    js.wait_output(b"go\n")
    for _ in range(20):
        js.interrupt(frame=True)
    assert js.finish().status == "interrupted"
    assert js.run("1").text == "1"


def test_interrupt_during_displays_never_breaks_a_frame(js):
    for _ in range(20):
        js.begin("console.log('go'); for (;;) display('x'.repeat(10_000))")
        js.wait_output(b"go\n")
        for _ in range(5):
            js.event()
        js.interrupt(frame=True)
        assert js.finish().status == "interrupted"
    assert js.run("1").text == "1"


def test_displays_wait_for_whoever_reads_them(js):
    """A cell that displays without end takes no memory without end, and can be interrupted."""
    js.begin("console.log('go'); for (;;) display('x'.repeat(1_000_000))")
    js.wait_output(b"go\n")
    js.interrupt(frame=True)
    run = js.finish()
    assert run.status == "interrupted" and len(run.of("display")) < 64
    assert int(js.run("process.memoryUsage().rss >> 20").text) < 400


def test_interrupt_of_a_prompt(js):
    js.begin("prompt('wait ')", input=True)
    assert js.event()["ev"] == "input"
    js.interrupt(frame=True)
    assert js.finish().status == "interrupted"
    # Its answer comes too late, and is not that of the next.
    js.begin("prompt('next ')", input=True)
    asked = js.event()
    js.send({"op": "input_reply", "run": asked["run"] - 1, "value": "late"})
    js.send({"op": "input_reply", "run": asked["run"], "value": "in time"})
    assert js.finish().text == "in time"


def test_what_is_left_of_an_interrupted_cell_does_not_go_on(js):
    js.run("const sleep = (ms) => new Promise((r) => setTimeout(r, ms)); let ticks = 0; let open; undefined")
    interrupted(js, "console.log('go'); await new Promise((r) => { open = r }); ticks += 1; console.log('later')")
    interrupted(js, "async function loop() { for (;;) { await sleep(1); ticks += 1; if (ticks === 3) console.log('go') } }\nawait loop()")
    interrupted(js, "console.log('go'); for await (const x of (async function* () { yield await new Promise((r) => { open = r }) })()) ticks = 1000")
    js.run("open(); const before = ticks")
    run = js.run("await sleep(30); ticks === before")
    assert (run.text, run.out) == ("true", "")


def test_collections_while_a_cell_waits(js):
    """V8 tells a session of a promise that it collects, in the middle of a collection."""
    js.run("require('v8').setFlagsFromString('--expose-gc'); const collect = require('vm').runInNewContext('gc'); undefined")
    for waiting in ("await new Promise(() => {})", "new Promise(() => {})", "(async () => { for (;;) await new Promise(() => {}) })()"):
        interrupted(js, f"let n = 0; const i = setInterval(() => {{ collect(); if (++n === 5) console.log('go') }}, 1); {waiting}")
        assert js.run("collect(); await null; collect(); 5").text == "5"


def test_exit_code(js):
    js.begin("display('shown'); process.stdout.write('last words'); process.exit(7)")
    with pytest.raises(Died):
        while js.event()["ev"] == "display":
            pass
    assert js.process.wait() == 7
    assert bytes(js.pipes[js.stdout]) == b"last words" and bytes(js.pipes[js.stderr]) == b""


def test_exit_brings_every_display(js):
    js.begin("for (let i = 0; i < 500; i++) display('x'.repeat(10_000)); process.exit(0)")
    events = []
    with pytest.raises(Died):
        while True:
            events.append(js.event())
    assert len(events) == 500
    assert js.process.wait() == 0


def test_end_of_the_control_socket_ends_the_driver(js):
    js.begin("console.log('go'); for (;;);")
    js.wait_output(b"go\n")
    js.control.shutdown(2)
    js.wait_death()


def test_children_inherit_nothing_private(js):
    run = js.run("require('child_process').execSync('ls /proc/self/fd').toString()")
    assert run.text.split() == ["0", "1", "2", "3"], "and the directory that is listed"
    run = js.run("require('child_process').execSync('cat /proc/self/environ').toString().includes('CROWNEST')")
    assert run.text == "false"
    # And their standard output blocks, as programs expect.
    run = js.run("!grep -H flags /proc/self/fdinfo/1")
    assert int(run.out.split()[-1], 8) & os.O_NONBLOCK == 0


def test_a_child_that_holds_the_pipes_does_not_hold_the_run(js):
    run = js.run("const child = require('child_process').spawn('sleep', ['600'], { stdio: 'inherit' }); 'done'")
    assert run.text == "done" and run.seconds < 10
    js.run("child.kill()")


def test_a_process_that_runs_out_of_memory_dies(node, tmp_path):
    peer = NodeDriver(node, env={"NODE_OPTIONS": "--max-old-space-size=64"}, cwd=tmp_path)
    try:
        peer.begin("const all = []; for (;;) all.push(new Array(1e5).fill(Math.random()))")
        with pytest.raises(Died):
            peer.finish()
        peer.wait_death()
    finally:
        peer.close()


def test_programs_of_a_shell_line_end_with_it(js, tmp_path):
    """All of them: the shell itself would wait for what it has started."""
    interrupted(js, "!sh -c 'echo $$ > pid; echo go; sleep 600; touch never'; touch never")
    pid = int((tmp_path / "pid").read_text())
    pidfd_gone(pid)
    assert not (tmp_path / "never").exists()


def pidfd_gone(pid):
    """Waits for the end of a process that is not ours."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([pidfd], (), (), 60)[0], "it lives on"
    os.close(pidfd)


def test_a_program_that_heeds_no_interrupt_is_killed(js, tmp_path):
    interrupted(js, "!sh -c 'trap \"\" INT; echo $$ > pid; echo go; while :; do sleep 600; done'")
    pidfd_gone(int((tmp_path / "pid").read_text()))
