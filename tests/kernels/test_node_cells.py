"""JavaScript and TypeScript: what a cell is, what it gives, how its errors read."""

import json

import pytest


def test_ready_says_what_it_is(js):
    assert js.ready["language"] == "javascript"
    assert int(js.ready["version"].split(".")[0]) >= 20


@pytest.mark.parametrize(
    "code, text",
    [
        ("1\n2", "2"),
        ("({ a: 1 })", "{ a: 1 }"),
        ("{ a: 1, ...{ b: 2 } }", "{ a: 1, b: 2 }"),
        ("{ let a = 1; a }", None),
        ("if (true) 5", None),
        ("let a = 5", None),
        ("a5 = 5", "5"),
        ("(1, 2)", "2"),
        ("'use strict'", "use strict"),
        ("'use strict'; 5", "5"),
        ("5 // said", "5"),
        ("`${await 5}${`${await 6}`}`", "56"),
        ("await (1, 2)", "2"),
        ("(await { a: 5 })?.a", "5"),
        ("#!/usr/bin/env node\n5", "5"),
        ("this === globalThis", "true"),
        ("[typeof require, typeof module, typeof exports]", "[ 'function', 'object', 'object' ]"),
        ("require.main === module", "true"),
        ("import.meta.url === 'file://' + process.argv[1]", "true"),
        ("export default 7", "7"),
        ("export const x7 = 7; x7", "7"),
        ("export default function () {}", "[Function (anonymous)]"),
        ("async function lazy() { return 8 }\nlazy()", "8"),
        ("-0", "-0"),
        ("10n ** 20n", "100000000000000000000n"),
        ("Symbol('s')", "Symbol(s)"),
        ("\ufeff5", "5"),
        ("let crlf = 1\r\ncrlf + 1\r\n", "2"),
        ("<!-- a comment\n5", "5"),
    ],
)
def test_value(js, code, text):
    run = js.run(code)
    assert (run.status, run.text) == ("ok", text), run.events


def test_count_goes_up_with_every_cell(js):
    assert [js.run(code).events[-1]["count"] for code in ("1", "", "throw 1", "let = = 1")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "code, found",
    [
        ("[1, 'a', null, true, undefined, NaN]", [1, "a", None, True, None, None]),
        ("({ a: { b: [] }, c: undefined })", {"a": {"b": []}}),
        ("[new Date(0)]", ["1970-01-01T00:00:00.000Z"]),
        ("Object.create(null)", {}),
        ("require('vm').runInNewContext('({ a: [1] })')", {"a": [1]}),
        ("new Map()", None),
        ("[() => 1]", None),
        ("[1n]", None),
        ("class A {}; new A()", None),
        ("({ get a() { return 1 } })", None),
        ("new Proxy({}, {})", None),
        ("const cycle = {}; cycle.self = cycle; cycle", None),
        ("'text'", None),
        ("null", None),
    ],
)
def test_plain_data_comes_as_json_too(js, code, found):
    run = js.run(code)
    assert run.status == "ok" and run.text is not None
    assert run.result.get("application/json") == found
    assert ("application/json" in run.result) == (found is not None)


def test_deep_data_has_no_json(js):
    assert "application/json" in js.run("let deep = []; for (let i = 0; i < 60; i++) deep = [deep]; deep").result
    assert "application/json" not in js.run("for (let i = 0; i < 10; i++) deep = [deep]; deep").result
    assert js.run("for (let i = 0; i < 1e5; i++) deep = [deep]; deep").status == "ok"


@pytest.mark.parametrize("first", ["let K = 1", "const K = 1", "var K = 1", "class K {}", "function K() {}", "import * as K from 'fs'"])
@pytest.mark.parametrize(
    "second, value",
    [
        ("let K = 2", "2"),
        ("let K", "undefined"),
        ("const K = 2", "2"),
        ("const { K } = { K: 2 }", "2"),
        ("let [a2, K] = [1, 2], b2", "2"),
        ("var K = 2", "2"),
        ("for (var K = 0; K < 2; K++);", "2"),
        ("for (var K of [1, 2]);", "2"),
        ("if (true) { var K = 2 }", "2"),
        ("class K { static two = 2 }", "[class K] { two: 2 }"),
        ("function K() {}", "[Function: K]"),
        ("async function* K() {}", "[AsyncGeneratorFunction: K]"),
        ("import { sep as K } from 'path'", "'/'"),
        ("import K, { sep } from 'path'", None),
    ],
)
def test_any_declaration_after_any_other(js, first, second, value):
    assert js.run(first).status == "ok"
    run = js.run(second)
    assert run.status == "ok", run.error
    shown = js.run("require('util').inspect(K)")
    assert value is None or shown.text == value
    # It is a variable like others afterwards, or a constant.
    assert js.run("let K = 3; K").text == "3"


def test_functions_see_what_was_declared_again(js):
    js.run("const step = 1; const next = (n) => n + step")
    js.run("function step2() { return next(1) }")
    js.run("let step = 5")
    assert js.run("step2()").text == "6"
    js.run("let step2 = 0")
    js.run("let after = hoisted()\nfunction hoisted() { return 'early' }")
    assert js.run("after").text == "early"
    js.run("let hoisted = 1")
    assert js.run("let again = hoisted()\nfunction hoisted() { return 'again' }\nagain").text == "again"


@pytest.mark.parametrize(
    "code",
    [
        "K = 2", "K += 1", "K++", "--K", "[K] = [2]", "({ a: K } = { a: 2 })", "for (K of [2]);", "for (K in { a: 1 });",
        "(() => { K = 2 })()", "K &&= 2", "{ let a = 1; K = a }", "function f9() { K = 9 } f9()",
    ],
)  # fmt: skip
def test_constants_cannot_be_assigned_to(js, code):
    for cell in (f"const K = 1; {code}", code):
        run = js.run(cell)
        assert run.error["name"] == "TypeError" and run.error["message"] == "Assignment to constant variable.", cell
    assert js.run("K").text == "1"


@pytest.mark.parametrize(
    "code",
    [
        "{ let K = 1; K = 2 }", "(K => { K = 2 })(1)", "function f8(K) { K++ } f8(1)", "for (let K = 0; K < 2; K++);",
        "try { throw 1 } catch (K) { K = 2 }", "(function K() { var K; K = 3 })()", "({ K: 1 }).K = 2", "K ||= 5",
        "switch (1) { case 1: let K = 1; K = 2 }", "class C8 { static { let K = 1; K = 2 } }",
    ],
)  # fmt: skip
def test_other_variables_of_that_name_can(js, code):
    js.run("const K = 1")
    run = js.run(code)
    assert run.status == "ok", (code, run.error)
    assert js.run("K").text == "1"


def test_what_v8_refuses_declares_nothing(js):
    assert js.run("let fresh = 1; let undefined = 2").error["name"] == "SyntaxError"
    assert js.run("function fresh() {}\ntypeof fresh").text == "function"


def test_modules(js, tmp_path):
    (tmp_path / "own.mjs").write_text("export const a = 1; export default 2; export { a as 'a b' }")
    (tmp_path / "own.cjs").write_text("exports.here = __dirname")
    (tmp_path / "data.json").write_text('{"n": 3}')
    (tmp_path / "broken.mjs").write_text("export const = 1")
    assert js.run("import two, { a, 'a b' as b } from './own.mjs'\n[two, a, b]").text == "[ 2, 1, 1 ]"
    assert js.run("import two2, * as all from './own.mjs'\n[two2, all.a]").text == "[ 2, 1 ]"
    assert js.run("import data from './data.json'\ndata.n").text == "3"
    assert js.run("import data2 from './data.json' with { type: 'json' }\ndata2.n").text == "3"
    assert js.run("(await import('./data.json')).default.n").text == "3"
    assert js.run(f"require('./own.cjs').here === {json.dumps(str(tmp_path))}").text == "true"
    assert js.run("import { here } from './own.cjs'; here === import.meta.dirname").text == "true"
    assert js.run("import 'node:os'").result is None
    assert js.run("require.resolve('fs')").text == "fs"
    run = js.run("\nimport { nothing } from './own.mjs'")
    assert (run.error["name"], run.error["line"]) == ("SyntaxError", 2)
    assert "does not provide an export named 'nothing'" in run.error["message"]
    assert js.run("import './broken.mjs'").error["name"] == "SyntaxError"
    run = js.run("1\n\nawait import('./none.mjs')")
    assert run.error["line"] == 3 and "none.mjs" in run.error["message"]
    assert not any("crownest" in line for line in run.error["traceback"])
    # Types are not there when the cell runs: TypeScript may import them without saying so.
    assert js.ts("import { a as kept, SomeType } from './own.mjs'\nkept").text == "1"


def test_a_package_that_comes_later(js, tmp_path):
    for code in ("import late from 'late'", "require('late')", "await import('late/sub.js')"):
        assert js.run(code).status == "error"
    package = tmp_path / "node_modules" / "late"
    package.mkdir(parents=True)
    exports = {".": {"import": "./index.mjs", "require": "./index.cjs"}, "./sub.js": "./sub.js"}
    (package / "package.json").write_text(json.dumps({"name": "late", "exports": exports}))
    (package / "index.mjs").write_text("export default 'module'")
    (package / "index.cjs").write_text("module.exports = 'script'")
    (package / "sub.js").write_text("exports.sub = 1")
    assert js.run("import late from 'late'\nlate").text == "module"
    assert js.run("require('late')").text == "script"
    assert js.run("(await import('late/sub.js')).sub").text == "1"


def test_modules_are_those_of_the_directory(js, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here.mjs").write_text(f"export default '{name}'")
    assert js.run("import h from './here.mjs'; h", cwd=str(tmp_path / "one")).text == "one"
    js.run("process.chdir('two')")
    assert js.run("import h from './here.mjs'; h").text == "two"
    assert js.run("__dirname.endsWith('two')").text == "true"


def test_packages_of_the_driver_are_not_there(js):
    for name in ("acorn", "oxc-transform", "undici"):
        assert js.run(f"require('{name}')").error["message"].startswith("Cannot find module")
        assert "Cannot find package" in js.run(f"await import('{name}')").error["message"]


@pytest.mark.parametrize(
    "code, name, message, line",
    [
        ("\n\nnull.x", "TypeError", "Cannot read properties of null (reading 'x')", 3),
        ("class MyError extends Error {}\nthrow new MyError('m')", "MyError", "m", 2),
        ("const e = new Error('m'); e.name = 'Named'; throw e", "Named", "m", 1),
        ("throw 42", "Uncaught", "42", None),
        ("throw 'text'", "Uncaught", "text", None),
        ("throw { a: 1 }", "Uncaught", "{ a: 1 }", None),
        ("throw undefined", "Uncaught", "undefined", None),
        ("await Promise.reject(new RangeError('r'))", "RangeError", "r", 1),
        ("[1].forEach(() => {\n  JSON.parse('{')\n})", "SyntaxError", None, 2),
        ("async function f() {\n  await null\n  throw new Error('later')\n}\n\nawait f()", "Error", "later", 3),
        ("require('fs').readFileSync('/none')", "Error", "ENOENT: no such file or directory, open '/none'", 1),
        ("let a = 1;\nlet b = ;", "SyntaxError", "Unexpected token ';'", 2),
        ("let a = 1;\nlet a = 2;", "SyntaxError", "Identifier 'a' has already been declared", 2),
        ("return 5", "SyntaxError", "Illegal return statement", 1),
        ("import x from 'y'\nlet z = ;", "SyntaxError", "Unexpected token", 2),
        ("(" * 50_000, "RangeError", "Maximum call stack size exceeded", None),
    ],
)
def test_errors(js, code, name, message, line):
    error = js.run(code).error
    assert error["name"] == name
    assert message is None or error["message"] == message
    assert error.get("line") == line
    text = "\n".join(error["traceback"])
    assert "crownest" not in text and "node:internal" not in text and "\x1b" not in text
    assert js.run("1+1").text == "2"


def test_errors_with_causes_and_properties(js):
    error = js.run("throw new Error('outer', { cause: Object.assign(new TypeError('inner'), { code: 'E_CODE' }) })").error
    text = "\n".join(error["traceback"])
    assert "[cause]: TypeError: inner" in text and "code: 'E_CODE'" in text
    error = js.run("throw new AggregateError([new Error('a'), new Error('b')], 'both')").error
    assert "Error: a" in "\n".join(error["traceback"]) and error["message"] == "both"


def test_a_line_of_an_earlier_cell(js):
    js.run("function f() {\n  throw new Error('f')\n}")
    error = js.run("\n\n\nf()").error
    assert error["line"] == 4
    assert any("cell-1.js:2" in line for line in error["traceback"])


def test_printed_stacks_have_no_frames_of_the_driver(js):
    run = js.run("console.log(new Error('e').stack)\nconst after = await 1\nconsole.log(new Error('later').stack)")
    assert "crownest" not in run.out and "node:inspector" not in run.out
    assert "cell-1.js:1:13" in run.out and "cell-1.js:3:" in run.out


TYPESCRIPT = """interface Wide {
  a: number
}
enum E { A, B }
const chain = [1, 2, 3]
  .map((n: number) =>
    n * 2)
  .filter((n) => {
    if (n > 4) throw new Error('in a chain')
    return true
  })
"""


def test_lines_of_typescript(js):
    error = js.ts(TYPESCRIPT).error
    assert error["line"] == 9
    assert any("cell-1.ts:9:22" in line for line in error["traceback"]), error
    js.ts("type A = 1\ntype B = 2\nfunction late(): never { throw new Error('late') }")
    error = js.run("late()").error
    assert error["line"] == 1 and any("cell-2.ts:3:" in line for line in error["traceback"])
    error = js.ts("// ä🦀\nlet x: string = 'ä🦀' +;").error
    assert (error["name"], error["line"]) == ("SyntaxError", 2)
    assert error["traceback"][1:3] == ["let x: string = 'ä🦀' +;", " " * 23 + "^"]


def test_one_context_runs_both_languages(js):
    js.ts("enum Colour { Red = 'r' }\nconst typed: number = 1")
    assert js.run("[Colour.Red, typed]").text == "[ 'r', 1 ]"
    assert js.run("let n: number = 1").error["name"] == "SyntaxError"
    assert js.run("1", language="cobol").error["message"] == "the language cobol is not one of this context"
    assert js.ts("{ a: 1 as number, b: 2 }").text == "{ a: 1, b: 2 }"


def test_cells_of_a_context_for_typescript(node, tmp_path):
    from node_driver import NodeDriver

    with_types = NodeDriver(node, language="typescript")
    try:
        assert with_types.run("let n: number = 5; n").text == "5"
        assert with_types.run("n", language="javascript").text == "5"
    finally:
        with_types.close()


def test_shell_lines(js):
    run = js.run("!echo out; echo err >&2\nlet x = 1\n!exit 3\nx + _exit_code")
    assert (run.out, run.err, run.text) == ("out\n", "err\n", "4")
    assert js.run("!echo -n\t'a'").out == "a"
    assert js.run("!pwd").out.strip().startswith("/")
    # What is JavaScript stays that, when the name is one of the context.
    assert js.run("let ls = 1, l = 5\n!ls - l").text == "-5"
    assert js.run("!l").text == "false"
    assert js.run("`\n!echo no\n`").text == "\n!echo no\n"
    assert js.run("![]").text == "false"
    assert js.run("!no-such-program-at-all x y").error["name"] == "SyntaxError"


def test_async_errors_end_the_run_that_they_belong_to(js):
    for code in (
        "setTimeout(() => { throw new Error('late') }, 1)",
        "Promise.reject(new Error('late'))",
        "queueMicrotask(() => { throw new Error('late') })",
        "new Promise(async () => { throw new Error('late') })",
        "process.nextTick(() => { throw new Error('late') })",
    ):
        run = js.run(f"let after = 0\n{code}; await new Promise(() => {{}}); after = 1")
        assert (run.status, run.error["message"]) == ("error", "late"), code
        assert run.error["line"] == 2 and run.error["traceback"][0].startswith("Uncaught ")
        assert len(run.of("error")) == 1
    assert js.run("after").text == "0"


def test_async_errors_between_runs_are_output(js, tmp_path):
    gated = "const gate = setInterval(() => { if (require('fs').existsSync('go')) { clearInterval(gate); %s } }, 1)"
    for failing, text in (
        ("setTimeout(() => { throw new Error('between') })", b"Uncaught Error: between"),
        ("Promise.reject(new Error('rejected'))", b"Uncaught (in promise) Error: rejected"),
    ):
        assert js.run(gated % failing).status == "ok"
        (tmp_path / "go").touch()
        js.wait_output(text, js.stderr)
        (tmp_path / "go").unlink()
    assert js.run("const repeats = setInterval(() => { throw new Error('old') }, 1); undefined").status == "ok"
    js.wait_output(b"Uncaught Error: old", js.stderr)
    # A timer of an earlier run does not end this one.
    run = js.run("await new Promise((done) => setTimeout(done, 20)); clearInterval(repeats); 'through'")
    assert (run.status, run.text) == ("ok", "through") and "Uncaught Error: old" in run.err


def test_a_cell_may_catch_what_nobody_catches(js):
    js.run("const seen = []; process.on('uncaughtException', (e) => seen.push(e.message)); process.on('unhandledRejection', (e) => seen.push(e.message))")
    run = js.run("setTimeout(() => { throw new Error('a') }, 1); Promise.reject(new Error('b')); await new Promise((r) => setTimeout(r, 20)); seen.sort().join()")
    assert (run.text, run.err) == ("a,b", "")


def test_warnings_and_console(js):
    run = js.run("console.table([{ a: 1 }]); console.group('g'); console.log('in'); console.groupEnd(); console.assert(false, 'no'); console.count(); undefined")
    assert "│ 0" in run.out and "  in\n" in run.out and "default: 1" in run.out
    assert "Assertion failed: no" in run.err
    assert js.run("let s = 1").err == ""


def test_environment_and_exec_path(js, node):
    import os

    assert js.run("process.env.HOME === process.cwd()").text == "true"
    assert js.run("process.execPath").text == os.path.realpath(node)
    assert js.run("process.env.PATH").text.split(":")[0] == os.path.dirname(os.path.realpath(node))
    assert js.run("require('child_process').execSync('node --version').toString().trim() === process.version").text == "true"


def test_a_start_where_nobody_can_go(node):
    from node_driver import NodeDriver

    peer = NodeDriver(node, cwd="/")
    try:
        peer.start("/no/such/directory")
        assert peer.run("process.cwd()").text == "/"
    finally:
        peer.close()
