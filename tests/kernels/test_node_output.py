"""What cells of JavaScript show: streams, displays, their limits; input; questions about a context."""

import base64
import hashlib
import http.server
import threading

import pytest

from node_driver import NodeDriver

MIB = 1024 * 1024


def test_every_way_to_print_is_in_order(js):
    run = js.run(
        "console.log('a'); process.stdout.write('b\\n'); require('fs').writeSync(1, 'c\\n');"
        "require('child_process').execSync('echo d', { stdio: 'inherit' }); console.info('e');"
        "process.stdout.write(Buffer.from('f\\n')); process.stdout.write('Zw==\\n', 'base64'); process.stdout.write(new Uint8Array([10]));"
        "await new Promise((r) => process.stdout.write('h\\n', r)); await new Promise((r) => process.stdout.write('i\\n', 'utf8', r)); undefined"
    )
    assert run.out == "a\nb\nc\nd\ne\nf\ng\nh\ni\n"


LINE = "String(i).padStart(6, '0') + 'x'.repeat(93)"
DIGEST = "4d10ba4c4717bf6acef694d9e7e7bef70cf3c0591af4d09d9aaa7bd9dc6cf5b1"


@pytest.mark.parametrize(
    "code",
    [
        f"for (let i = 0; i < 200_000; i++) console.log({LINE})",
        f"process.stdout.write(Array.from({{ length: 200_000 }}, (_, i) => {LINE} + '\\n').join('')); undefined",
        f"const lines = require('stream').Readable.from((function* () {{ for (let i = 0; i < 200_000; i++) yield {LINE} + '\\n' }})());"
        "lines.pipe(process.stdout, { end: false }); await require('events').once(lines, 'end'); undefined",
    ],
)
def test_large_output_is_complete(js, code):
    run = js.run(code)
    assert len(run.stdout) == 20_000_000 and hashlib.sha256(run.stdout).hexdigest() == DIGEST


def test_output_through_a_pipe_that_does_not_block(js):
    """As programs leave it that share the pipe."""
    run = js.run(
        "require('child_process').execFileSync('python3', ['-c', 'import os; os.set_blocking(1, False)'], { stdio: 'inherit' });"
        "process.stdout.write('x'.repeat(5_000_000)); undefined"
    )
    assert len(run.stdout) == 5_000_000


def test_workers_and_streams_of_the_tenant(js):
    run = js.run(
        "const { Worker } = require('worker_threads');"
        "await new Promise((r) => new Worker(`console.log('from a worker'); console.error('bad')`, { eval: true }).on('exit', r)); undefined"
    )
    assert (run.out, run.err) == ("from a worker\n", "bad\n")
    run = js.run("process.stdout.end(); process.stdout.destroy(); console.log('still')")
    assert run.out == "still\n"
    assert js.run("[process.stdout.isTTY, process.stdout.fd, process.stderr.fd, typeof process.stdout.on]").text == "[ undefined, 1, 2, 'function' ]"


def test_half_characters(js):
    run = js.run("console.log('a\\ud800b'); 'c\\udc00'")
    assert (run.out, run.text) == ("a\ufffdb\n", "c\ufffd")
    run = js.run("throw new Error('d\\ud800')")
    assert run.error["message"] == "d\ufffd"
    run = js.run("display.json({ 'e\\ud800': ['\\udfff', '\\\\ud800'] })")
    assert run.of("display")[0]["data"]["application/json"] == {"e\ufffd": ["\ufffd", "\\ud800"]}


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(10)).decode()


@pytest.mark.parametrize(
    "code, data",
    [
        ("display('text')", {"text/plain": "text"}),
        ("display([1])", {"text/plain": "[ 1 ]", "application/json": [1]}),
        ("display(undefined)", {"text/plain": "undefined"}),
        ("display.html('<b>x</b>')", {"text/html": "<b>x</b>"}),
        ("display.markdown('# x')", {"text/markdown": "# x"}),
        ("display.latex('$x$')", {"text/latex": "$x$"}),
        ("display.svg('<svg/>')", {"image/svg+xml": "<svg/>"}),
        (f"display.png('{PNG}')", {"image/png": PNG}),
        (f"display.png(Buffer.from('{PNG}', 'base64'))", {"image/png": PNG}),
        (f"display.png(Uint8Array.from(Buffer.from('{PNG}', 'base64')).buffer)", {"image/png": PNG}),
        (f"display.png(new Uint8Array(Buffer.from('xx' + atob('{PNG}'), 'latin1')).subarray(2))", {"image/png": PNG}),
        ("display.jpeg('AAAA')", {"image/jpeg": "AAAA"}),
        ("display.json({ a: [null] })", {"application/json": {"a": [None]}}),
        ("display.json('a')", {"application/json": "a"}),
        ("display.chart({ type: 'bar' })", {"application/vnd.crownest.chart+json": {"type": "bar"}}),
        ("display.mime({ 'text/html': 'h', 'text/plain': 'p' })", {"text/html": "h", "text/plain": "p"}),
        ("display({ 'text/html': 'h' }, { raw: true })", {"text/html": "h"}),
        ("display({ [Symbol.for('Jupyter.display')]: () => ({ 'text/html': 'h' }), toString() { return 't' } })", None),
    ],
)
def test_display(js, code, data):
    run = js.run(code)
    assert (run.status, run.err, run.result) == ("ok", "", None), run.events
    [event] = run.of("display")
    assert data is None or event["data"] == data
    assert "text/html" in event["data"] or data is not None


def test_table(js):
    run = js.run(
        "display.table([{ n: 1, s: 'a', d: new Date(0), b: true }, { n: 2.5, s: null, o: { x: 1 } }, { n: NaN }]);"
        "display.table({ a: [1n, 2n], b: ['x', 'y'] }); display.table([[1, 2], [3, 4]]);"
        "display.table([{ a: 1, b: 2 }], { columns: ['b'] }); display.table(Array.from({ length: 1000 }, (_, i) => ({ i, long: 'x'.repeat(3000) })))"
    )
    tables = [event["data"]["application/vnd.crownest.table+json"] for event in run.of("display")]
    first, second, third, fourth, fifth = tables
    assert [(c["name"], c["type"], c["nullable"]) for c in first["columns"]] == [
        ("n", "float", False), ("s", "string", True), ("d", "datetime", True), ("b", "boolean", True), ("o", "object", True),
    ]  # fmt: skip
    assert first["rows"] == [
        [1, "a", "1970-01-01T00:00:00.000Z", True, None],
        [2.5, None, None, None, "{ x: 1 }"],
        ["NaN", None, None, None, None],
    ]
    assert (first["row_count"], first["column_count"], first["version"]) == (3, 5, 1)
    assert second["columns"][0]["encoding"] == "string" and second["rows"] == [["1", "x"], ["2", "y"]]
    assert third["rows"] == [[1, 2], [3, 4]] and [c["name"] for c in third["columns"]] == ["0", "1"]
    assert fourth["rows"] == [[2]]
    assert fifth["row_count"] == 1000 and fifth["omitted"] == {"rows": 800, "cut_cells": 200}
    assert js.run("display.table(5)").of("display")[0]["data"] == {"text/plain": "5"}


def test_update_and_clear(js):
    run = js.run("const d = display('a', { id: true, metadata: { m: 1 } }); d.update('b'); display.update('own', 'c'); display.clear(); display.clear({ wait: true }); d")
    first, second, third = run.of("display")
    assert first["display_id"] == second["display_id"] and "update" not in first and second["update"] is True
    assert first["metadata"] == {"m": 1}
    assert (third["display_id"], third["update"]) == ("own", True)
    assert [event["wait"] for event in run.of("clear")] == [False, True]
    assert run.result is None, "a handle is not shown"
    assert js.run("display('e', { id: true })").of("display")[0]["display_id"] != first["display_id"]


def test_output_between_runs(js, tmp_path):
    js.run("const gate = setInterval(() => { if (require('fs').existsSync('go')) { clearInterval(gate); display({ shown: 1 }); display.html('<b>') } }, 1)")
    (tmp_path / "go").touch()
    js.wait_output(b"{ shown: 1 }\n")
    assert js.run("1").text == "1"


@pytest.mark.parametrize(
    "code, problem",
    [
        ("display.png('not base64!')", "image/png was left out"),
        ("display.html(5)", "text/html was left out"),
        ("display.json(() => 1)", "application/json was left out"),
        ("display.json(new (class A {})())", "application/json was left out"),
        ("let deep = {}; for (let i = 0; i < 70; i++) deep = { deep }; display.json(deep)", "application/json was left out"),
    ],
)
def test_what_cannot_be_shown_is_told(js, code, problem):
    run = js.run(code)
    assert run.status == "ok" and problem in run.err
    assert run.of("display")[0]["data"] == {}


def test_entries_above_the_limit_are_left_out_and_named(js):
    size = 8 * MIB
    run = js.run(f"'x'.repeat({size - 2})")
    assert len(run.text) == size - 2
    run = js.run(f"'x'.repeat({size + 1})")
    assert run.result == {}
    assert run.of("result")[0]["metadata"]["crownest"]["omitted"] == [{"mime": "text/plain", "bytes": size + 1}]
    run = js.run(f"'ä'.repeat({size // 2 + 1})")
    assert run.of("result")[0]["metadata"]["crownest"]["omitted"][0]["bytes"] == size + 2
    run = js.run("display.mime({ 'text/a': 'x'.repeat(6e6), 'text/b': 'x'.repeat(7e6), 'text/c': 'x' })")
    assert sorted(run.of("display")[0]["data"]) == ["text/a", "text/c"]
    assert js.run("'x'.repeat(2 ** 29 - 24)").status == "ok"
    assert js.run("1+1").text == "2"


def test_large_displays_are_whole(js):
    run = js.run("for (let i = 0; i < 8; i++) display('x'.repeat(7_000_000 + i)); 'y'.repeat(7_000_000)")
    assert [len(event["data"]["text/plain"]) for event in run.of("display")] == [7_000_000 + i for i in range(8)]
    assert len(run.text) == 7_000_000
    assert [event["ev"] for event in run.events][-2:] == ["result", "done"]


def test_errors_that_are_too_long(js):
    error = js.run("throw new Error('x'.repeat(20_000_000))").error
    assert len(error["message"]) < MIB and error["message"].endswith("characters left out)")
    assert sum(map(len, error["traceback"])) < 2 * MIB
    error = js.run("throw new Error('line\\n'.repeat(1_000_000))").error
    assert "left out" in error["traceback"][-1]


# === input


def test_prompt(js):
    js.begin("[prompt('name? '), prompt('again? ', { password: true }), prompt()]", input=True)
    replies = iter(["Ada 🦀", "", None])
    run = js.finish(reply=lambda event: next(replies))
    assert run.text == "[ 'Ada 🦀', '', null ]"
    assert [(event["prompt"], event["password"]) for event in run.of("input")] == [("name? ", False), ("again? ", True), ("", False)]
    assert js.run("prompt('nobody?')").text == "null"


# === questions


def test_completion(js):
    js.run("const thing = { field: 1, method() {} }; class Made extends Map { own() {} }; const made = new Made(); let über = 1")

    def ask(code, cursor=None):
        answer = js.ask("complete", code=code, cursor=len(code) if cursor is None else cursor).answer
        return {match["text"]: match["kind"] for match in answer["matches"]}, code[answer["start"] : answer["end"]]

    assert ask("thing.") == ({"field": "property", "method": "function", **ask("({}).")[0], **ask("thing.")[0]}, "")
    assert ask("1 + thing.fi") == ({"field": "property"}, "fi")
    assert ask("made.ow")[0] == {"own": "function"}
    assert ask("thi") == ({"thing": "variable", "this": "keyword"}, "thi")
    assert ask("Mad")[0] == {"Made": "class"}
    assert ask("'🦀'; übe + 2", 8) == ({"über": "variable"}, "übe")
    assert ask("thing.field.toFix")[0] == {"toFixed": "function"}
    assert ask("[thing][0].fi")[0] == {"field": "property"}
    assert ask("'text'.padS")[0] == {"padStart": "function"}
    assert ask("f().x") == ({}, "x")
    assert ask("nothing.x") == ({}, "x")
    assert ask("") [0] != {}
    assert ask("import fs from 'node:f")[0] == {}
    assert ask("import fs from 'fs/pro") == ({"fs/promises": "module"}, "fs/pro")
    assert ask("`${thi")[0] == {"thing": "variable", "this": "keyword"}
    assert len(js.ask("complete", code="", cursor=0).answer["matches"]) <= 200


def test_questions_change_nothing(js):
    js.run("let calls = 0; const o = { get g() { calls++; console.log('called'); return { deep: 1 } } }; const p = new Proxy({}, { get() { calls++ }, ownKeys() { calls++; return [] } })")
    for query, fields in (
        ("complete", {"code": "o.g.", "cursor": 4}),
        ("complete", {"code": "p.", "cursor": 2}),
        ("complete", {"code": "(calls++).", "cursor": 10}),
        ("inspect", {"code": "o.g", "cursor": 3}),
        ("inspect", {"code": "p", "cursor": 1}),
        ("variables", {"limit": 10}),
    ):
        run = js.ask(query, **fields)
        assert (run.status, run.out, run.err) == ("ok", "", ""), query
        assert run.events[-1]["count"] == 1
    assert js.run("calls").text == "0"


def test_variables(js):
    assert js.ask("variables", limit=10).answer == {"variables": [], "omitted": 0}
    js.run("let b = 1, a = 'x'; function f() {} implicit = [[1, 2], [3, 4]]; const m = new Map([[1, 2]])")
    js.ts("enum E { A }; class C {}; const t: Uint8Array = new Uint8Array(3), e = new TypeError('m')")
    js.run("let b = 2n; function a2() {}; const { shape } = { shape: { shape: [2, 3] } }")
    found = js.ask("variables", limit=100).answer
    by_name = {one["name"]: one for one in found["variables"]}
    assert list(by_name) == ["b", "a", "f", "m", "E", "C", "t", "e", "a2", "shape", "implicit"]
    assert by_name["b"] == {"name": "b", "type": "bigint", "kind": "variable", "preview": "2n"}
    assert by_name["implicit"]["shape"] == [2, 2] and by_name["shape"]["shape"] == [2, 3]
    assert by_name["t"] == {"name": "t", "type": "Uint8Array", "kind": "variable", "size": 3, "preview": "Uint8Array(3) [ 0, 0, 0 ]"}
    assert by_name["e"]["preview"] == "TypeError: m" and by_name["C"]["kind"] == "class"
    found = js.ask("variables", limit=2).answer
    assert [one["name"] for one in found["variables"]] == ["b", "a"] and found["omitted"] == 9


def test_a_query_that_takes_too_long_is_interrupted(js):
    js.run("const slow = { [Symbol.toStringTag]: 1 }; Object.setPrototypeOf(slow, new Proxy({}, { getPrototypeOf() { for (;;); } })); const inner = {}; undefined")
    js.begin_query("variables", limit=10)
    js.interrupt(frame=True)
    run = js.finish()
    assert run.status in ("ok", "interrupted")
    assert js.ask("no such query").status == "error"
    assert js.run("1").text == "1"


# === the way out


@pytest.fixture
def proxy():
    """A proxy for everything, as in a sandbox; it notes what it is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append("CONNECT " + self.path)
            self.send_error(403)

        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    asked: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_fetch_goes_through_the_proxy(node, proxy):
    url, asked = proxy
    peer = NodeDriver(node)
    try:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        peer.start("/tmp", dict.fromkeys(names, url))
        assert peer.run("await fetch('https://example.test/x')").error["name"] == "TypeError"
        assert asked == ["CONNECT example.test:443"]
        run = peer.run("import http from 'node:http'\nawait new Promise((r) => http.get('http://example.test/y', (a) => r(a.statusCode)).on('error', (e) => r(e.code)))")
        if int(peer.ready["version"].split(".")[0]) >= 22:
            assert run.text == "204" and asked[1:] == ["http://example.test/y"]
        assert run.err == ""
    finally:
        peer.close()
