"""Cells that break what the driver stands on: it survives, or its process ends. A run never hangs
that an interrupt cannot end, and no frame is malformed."""

import json
import os

import pytest

from harness import Died

EVERY_METHOD = "for (const k of Object.getOwnPropertyNames(%s)) try { %s[k] = () => { throw new Error('mine') } } catch {}; undefined"

# After these the context must go on as if nothing had happened.
SURVIVED = [
    "globalThis.JSON = null",
    "JSON.stringify = () => { throw 1 }; JSON.parse = () => { throw 2 }",
    "globalThis.Promise = function () { throw 1 }",
    "Promise.prototype.then = () => { throw 1 }",
    "Object.defineProperty(Promise.prototype, 'constructor', { get() { throw new Error('c') } })",
    "Object.defineProperty(Promise, Symbol.species, { get() { throw new Error('s') } })",
    "Array.prototype.push = Array.prototype.slice = Array.prototype.join = Array.prototype.map = () => { throw 1 }",
    "for (let k = 0; k < 20; k++) Object.defineProperty(Array.prototype, k, { set() { throw 1 }, get() { return 1 }, configurable: true })",
    "Object.prototype.toJSON = () => 'x'",
    "for (const o of [Object, Array, Function, Promise, Map, Set, String, RegExp, Error, JSON, Reflect, Buffer]) { Object.freeze(o); if (o.prototype) Object.freeze(o.prototype) }",
    "Object.freeze(globalThis); undefined",
    "Object.preventExtensions(globalThis); undefined",
    "Object.setPrototypeOf(globalThis, new Proxy({}, { get() { throw new Error('get') }, has() { throw new Error('has') } })); undefined",
    "process.stdout = process.stderr = null; delete process.stdout",
    "process.stdout.end(); process.stdout.destroy(); undefined",
    "function f(n) { return f(n + 1) + 1 } f(0)",
    "async function g(n) { await g(n + 1) } await g(0)",
    "const o = { toString() { return `${this}` } }; `${o}`",
    "({ [Symbol.for('nodejs.util.inspect.custom')](d, o, inspect) { return inspect(this, o) } })",
    "({ [Symbol.for('nodejs.util.inspect.custom')]() { throw new Error('custom') } })",
    "({ get [Symbol.for('Jupyter.display')]() { throw new Error('jd') } })",
    "({ [Symbol.for('Jupyter.display')]() { return { 'text/plain': 5, 'image/png': '!', '': 'x', ['m'.repeat(500)]: 'y', 'text/html': Symbol('x') } } })",
    "({ [Symbol.for('Jupyter.display')]() { return new Proxy({}, { ownKeys() { throw new Error('keys') } }) } })",
    "new Proxy({}, new Proxy({}, { get(t, k) { return () => { throw new Error('trap ' + String(k)) } } }))",
    "const r = Proxy.revocable({}, {}); r.revoke(); r.proxy",
    "const sparse = []; sparse[4294967290] = 1; sparse",
    "new Array(1e6).fill(7)",
    "throw null",
    "throw new Proxy(new Error('p'), { get() { throw new Error('trap') } })",
    "throw Object.create(new Proxy(Error.prototype, { get() { throw 1 }, getPrototypeOf() { throw 2 } }))",
    "throw { get message() { throw 1 }, get stack() { throw 2 }, get name() { throw 3 }, __proto__: Error.prototype }",
    "const e1 = new Error('n'); e1.stack = 5; e1.name = { toString() { throw 1 } }; throw e1",
    "Error.prepareStackTrace = () => { throw new Error('pst') }; throw new Error('x')",
    "Error.prepareStackTrace = (e) => e.stack; throw new Error('x')",
    "Error.stackTraceLimit = 'x'; null.x",
    "RegExp.prototype.exec = RegExp.prototype.test = RegExp.prototype[Symbol.replace] = () => { throw 1 }",
    EVERY_METHOD % (("String.prototype",) * 2),
    EVERY_METHOD % (("Map.prototype",) * 2) + "; " + EVERY_METHOD % (("Set.prototype",) * 2),
    EVERY_METHOD % (("WeakMap.prototype",) * 2) + "; " + EVERY_METHOD % (("WeakRef.prototype",) * 2),
    EVERY_METHOD % (("Object.getPrototypeOf(Uint8Array.prototype)",) * 2),
    EVERY_METHOD % (("MessagePort.prototype",) * 2),
    EVERY_METHOD % (("require('events').prototype",) * 2) + "; process.stdout.write('x')",
    "Function.prototype.toString = Object.prototype.toString = () => { throw 1 }",
    "globalThis.Atomics = globalThis.SharedArrayBuffer = globalThis.Uint8Array = globalThis.Int32Array = null",
    "process.removeAllListeners(); undefined",
    "for (const s of ['SIGINT', 'uncaughtException', 'unhandledRejection', 'exit', 'removeListener']) process.removeAllListeners(s); Promise.reject(1); undefined",
    "process.nextTick = () => { throw 1 }; globalThis.queueMicrotask = globalThis.setTimeout = null",
    "process.cwd = process.chdir = process.cpuUsage = process.kill = () => { throw 1 }",
    "require('fs').mkdirSync('gone'); process.chdir('gone'); require('fs').rmdirSync('../gone')",
    "require('inspector').Session.prototype.post = require('inspector').Session.prototype.connect = () => { throw 1 }",
    "const { Session } = require('inspector'); const own = new Session(); own.connect(); own.post('Runtime.terminateExecution'); for (let i = 0; i < 1e7; i++);",
    "require('util').inspect = () => { throw 1 }",
    "require('fs').writeSync = () => { throw 1 }",
    "__crownest.value(1, 5); __crownest.take(5); __crownest.guard(7, 5); Reflect.set(__crownest, 'value', 1)",
    "{ let __crownest = 1; __crownest }",
    "delete Object.prototype.__proto__; delete Object.prototype.hasOwnProperty; delete Object.prototype.constructor",
    "process.emitWarning = () => { throw 1 }",
    "for (let i = 0; i < 1000; i++) Promise.reject(new Error('r' + i)); await new Promise((r) => setTimeout(r, 5))",
    "process.on('exit', () => { throw new Error('exit') }); undefined",
    "require('domain').create().run(() => { setTimeout(() => { throw new Error('d') }, 1) }); await new Promise((r) => setTimeout(r, 20))",
    "new (require('worker_threads').Worker)('throw new Error(1)', { eval: true }); await new Promise((r) => setTimeout(r, 200))",
    "(" * 20_000 + "1" + ")" * 20_000,
    "[" * 100_000,
    "1" + "+1" * 100_000,
    "\n".join("let v%d = %d" % (n, n) for n in range(5_000)),
    "for (let i = 0; i < 5000; i++) display('x'.repeat(2000))",
    "throw new Error('x') //# sourceURL=evil.js",
    "'\\0'\0",
    "import 'data:text/javascript,throw new Error(1)'",
]

# These may cost the context, but then its process ends by itself.
ENDED = [
    "Object.defineProperty(Object.prototype, 'toJSON', { value: () => 'x' })",
    "for (const h of process._getActiveHandles()) { try { h.close?.() } catch {} try { h.terminate?.() } catch {} }",
    "Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => { throw new Error('f') }",
    "process.on('uncaughtException', () => { throw new Error('again') }); setTimeout(() => { throw new Error('first') }, 1); await new Promise(() => {})",
    "for (const k of ['get', 'set', 'op', 'run', 'serial', 'message']) Object.defineProperty(Object.prototype, k, { get() { throw new Error(k) }, configurable: true })",
    "Array.prototype[Symbol.iterator] = () => { throw new Error('it') }",
    EVERY_METHOD % (("Buffer.prototype",) * 2) + "; Buffer.from = () => { throw 1 }; globalThis.Buffer = null",
    "process.reallyExit(3)",
    "process.abort()",
    "process.kill(process.pid, 'SIGKILL'); await new Promise(() => {})",
]


def lives(js):
    """The context does what every other does."""
    assert js.run("1+1").text == "2"
    assert js.run("throw new (class Own extends Error {})('after')").error is not None
    assert js.ts("let n: number = 3; n").text == "3"
    js.begin("for (;;);")
    js.interrupt(frame=True)
    assert js.finish().status == "interrupted"
    js.begin("await { then() {} }")  # Waits even where Promise is something else.
    js.interrupt(frame=True)
    assert js.finish().status == "interrupted"
    assert js.run("1+1").text == "2"


def short(code):
    return code[:60]


@pytest.mark.parametrize("code", SURVIVED, ids=short)
def test_survived(js, code):
    run = js.run(code)
    assert len(run.of("done")) == 1
    lives(js)


@pytest.mark.parametrize("code", ENDED, ids=short)
def test_survived_or_ended(js, code):
    try:
        js.run(code)
        lives(js)
    except (Died, BrokenPipeError, ConnectionResetError):
        js.wait_death()
        assert js.process.wait() != 0


def control_fd(js):
    """Its number in the driver."""
    directory = f"/proc/{js.process.pid}/fd"
    sockets = [fd for fd in os.listdir(directory) if os.readlink(f"{directory}/{fd}").startswith("socket:")]
    assert len(sockets) == 1
    return sockets[0]


def test_a_closed_control_socket_ends_the_driver(js):
    with pytest.raises(Died):
        js.run(f"require('fs').closeSync({control_fd(js)})")
    js.wait_death()


def test_closed_standard_streams(js):
    js.run("require('fs').closeSync(1); require('fs').closeSync(2); console.log('x'); console.error('y')")
    lives(js)


def test_frames_that_a_cell_forges_stay_frames(js):
    """It can say what it likes in its own name; the driver's frames are not cut by it."""
    body = json.dumps({"ev": "notice", "run": 1, "code": "forged", "message": ""})
    frame = f"Buffer.concat([Buffer.from([0, 0, 0, {len(body)}]), Buffer.from('{body}')])"
    run = js.run(f"for (let i = 0; i < 100; i++) {{ require('fs').writeSync({control_fd(js)}, {frame}); display('y'.repeat(100)) }}")
    assert len(run.of("notice")) == 100 and len(run.of("display")) == 100
    lives(js)
