"""Queries: completion, inspection, variables. Asked of a live context between its runs."""

import time

import pytest

SPENT_S_MAX = 10.0


def ask(peer, query, **fields):
    """(answer or None, status) of a query; nothing else may come."""
    peer.run_number += 1
    for buffer in peer.pipes.values():
        buffer.clear()
    peer.send({"op": "query", "run": peer.run_number, "query": query, **fields})
    run = peer.finish()
    kinds = [event["ev"] for event in run.events]
    assert kinds in (["answer", "done"], ["done"]), run.events
    assert not run.stdout and not run.stderr
    return (run.events[0]["answer"] if len(kinds) == 2 else None), run.status


def complete(peer, marked):
    """Matches at the `|` of a cell, as texts, and the part that they replace."""
    cursor = marked.index("|")
    code = marked.replace("|", "", 1)
    answer, status = ask(peer, "complete", code=code, cursor=cursor)
    assert status == "ok"
    assert 0 <= answer["start"] <= answer["end"] == cursor
    replaced = code[answer["start"] : answer["end"]]
    texts = [match["text"] for match in answer["matches"]]
    assert all(text.startswith(replaced) for text in texts), (replaced, texts)
    return texts


def kinds(peer, code):
    answer, _ = ask(peer, "complete", code=code, cursor=len(code))
    return {match["text"]: match.get("kind") for match in answer["matches"]}


def variables(peer, **fields):
    answer, status = ask(peer, "variables", **fields)
    assert status == "ok"
    return {entry["name"]: entry for entry in answer["variables"]}


# === complete ===


def test_names_and_their_kinds(context):
    context.run(
        "number = 1\ndef numb_function(): pass\nclass NumbClass: pass\nimport math as numb_math"
    )
    assert kinds(context, "x = numb") == {
        "number": "variable",
        "numb_function": "function",
        "numb_math": "module",
    }
    assert kinds(context, "Numb") == {"NumbClass": "class"}
    assert kinds(context, "whil") == {"while": "keyword"}
    assert kinds(context, "prin")["print"] == "function"
    assert kinds(context, "ValueErr") == {"ValueError": "class"}


def test_attributes(context):
    context.run(
        "import os\nclass C:\n    field = 1\n    @property\n    def prop(self): 1/0\n"
        "    def method(self): pass\nc = C(); c.own = 2; d = {'k': [c]}"
    )
    expected = {"field": "variable", "prop": "property", "method": "function", "own": "variable"}
    for code in ("c.", "1 + c.", "d['k'][0].", "f(1, c.", "  if c ."):
        found = kinds(context, code)
        assert {name: found[name] for name in expected} == expected, code
    assert kinds(context, "os.path.join")["join"] == "function"
    assert "getcwd" in complete(context, "print(os.getc|)")
    assert set(complete(context, "C().me|")) == {"method"}
    assert "upper" in complete(context, "'text'.up|")
    assert "append" in complete(context, "[1, 2].app|")
    assert complete(context, "nothing.|") == []
    assert complete(context, "c.method().|") == []


def test_names_that_the_cell_has_not_run_yet(context):
    assert complete(context, "import json as jj\nfuture_name = 1\nprint(future_n|") == [
        "future_name"
    ]
    assert "dumps" in complete(context, "import json as jj\njj.dum|")
    assert complete(context, "def later_function(a): pass\nlater_f|") == ["later_function"]


def test_modules_without_importing_them(context):
    context.run("import sys\nbefore = set(sys.modules)")
    assert "this" in complete(context, "import thi|")
    assert "etree" in complete(context, "import xml.|")
    assert "ElementTree" in complete(context, "from xml.etree import Elem|")
    assert "getcwd" in complete(context, "from os import listdir, getc|")
    assert (
        context.run(
            "'this' in sys.modules, 'xml.etree.ElementTree' in set(sys.modules) - before"
        ).text
        == "(False, False)"
    )


def test_keys_files_and_arguments(context, tmp_path_factory):
    context.run(
        "import os, tempfile\nos.chdir(tempfile.mkdtemp())\nos.mkdir('folder')\n"
        "open('folder/file.txt', 'w'); open('fox.txt', 'w')\n"
        "table = {'alpha': 1, 'alps': {'inner': 2}, 5: 6}\n"
        "def call(first, *rest, second=2, **more): pass"
    )
    assert complete(context, "table['al|") == ["alpha", "alps"]
    assert complete(context, "table['alps'][\"i|") == ["inner"]
    assert complete(context, "open('fo|") == ["folder/", "fox.txt"]
    assert complete(context, "open('folder/|") == ["file.txt"]
    assert {"first=", "second="} <= set(complete(context, "call(1, |"))
    assert complete(context, "call(sec|") == ["second="]
    assert complete(context, "# tab|") == [] and complete(context, "'tab|") == []


def test_columns_of_a_table(context):
    context.run("import pandas as pd\ndf = pd.DataFrame({'price': [1], 'prime': [2]})")
    assert complete(context, "df['pri|") == ["price", "prime"]
    assert complete(context, "df.pri|")[:2] == ["price", "prime"]


def test_cursor_counts_code_points(context):
    context.run("wert = 1")
    answer, _ = ask(context, "complete", code="'😀😀'; wer + 1", cursor=9)
    assert [m["text"] for m in answer["matches"]] == ["wert"]
    assert (answer["start"], answer["end"]) == (6, 9)


def test_many_matches_are_counted(context):
    context.run("for i in range(1000): globals()['many_%04d' % i] = i")
    answer, _ = ask(context, "complete", code="many_", cursor=5)
    assert len(answer["matches"]) == 200 and answer["omitted"] == 800
    assert answer["matches"][0]["text"] == "many_0000"


@pytest.mark.parametrize(
    "body",
    [
        "def __dir__(self): raise ValueError",
        "def __dir__(self):\n        while True: pass",
        "def __dir__(self): return [5, 'x' * (1 << 20), 'fine', None]",
        "def __getattr__(self, name):\n        while True: pass",
        "def __getattribute__(self, name): raise SystemExit",
        "@property\n    def __class__(self): 1/0",
        "def __dir__(self): print('said'); import os; os.write(1, b''); return ['fine']",
    ],
)
def test_hostile_attributes(context, body):
    context.run("class H:\n    %s\nh = H()" % body)
    for code in ("h.", "h.a.b.", "h.a['", "h.a(", "len(h."):
        began = time.monotonic()
        answer, status = ask(context, "complete", code=code, cursor=len(code))
        assert time.monotonic() - began < SPENT_S_MAX
        assert status in ("ok", "error")
        assert status == "error" or all(len(m["text"]) < 2000 for m in answer["matches"])
    assert context.run("1+1").text == "2"


@pytest.mark.parametrize(
    "code",
    [
        "(" * 5000,
        "'" * 5001,
        "a." * 100_000,
        "[" * 2000 + "]" * 2000 + ".",
        "f'{x.",
        '"""',
        "\\",
        "x = '\\",
        # What a careless pattern would try in all ways.
        "import " + "a,  " * 60 + "!\nx.",
        "import" + " " * 200_000 + "!\nx.",
        "\n" * 200_000 + "x",
        "a" * 200_000 + " ",
        "'" + "\\'" * 100_000,
        "['" + "']['" * 50_000,
    ],
    ids=range(14),
)
def test_odd_cells(context, code):
    began = time.monotonic()
    for query in ("complete", "inspect"):
        answer, status = ask(context, query, code=code, cursor=len(code), detail=0)
        assert status == "ok" and answer is not None
    assert time.monotonic() - began < SPENT_S_MAX
    for cursor in (-5, 0, 1 << 40):
        assert ask(context, "complete", code=code[:1000], cursor=cursor)[1] == "ok"


def test_imports_on_several_lines(context):
    assert complete(context, "from os import (listdir,\n    getc|") == ["getcwd", "getcwdb"]
    assert "this" in complete(context, "import json, thi|")
    assert complete(context, "import json as j|") == []


# === inspect ===


def test_inspect(context):
    context.run(
        "def area(width, height=2):\n    '''Area of it.'''\n    return width * height\nvalue = [1, 2]"
    )
    answer, _ = ask(context, "inspect", code="y = area(3)", cursor=6, detail=0)
    text = answer["data"]["text/plain"]
    assert answer["found"] and text.startswith("area(width, height=2)\n") and "Area of it." in text
    assert "return width" not in text
    answer, _ = ask(context, "inspect", code="y = area(3, ", cursor=12, detail=1)
    assert "return width * height" in answer["data"]["text/plain"]
    answer, _ = ask(context, "inspect", code="value", cursor=2, detail=0)
    assert "Type: list\nValue: [1, 2]" in answer["data"]["text/plain"]
    for code in ("nowhere", "", "'area", "value.nothing"):
        answer, status = ask(context, "inspect", code=code, cursor=len(code), detail=0)
        assert (answer, status) == ({"found": False, "data": {}}, "ok")


def test_inspect_of_a_huge_documentation_is_cut(context):
    context.run(
        "def f(): pass\nf.__doc__ = 'd' * (20 << 20)\nclass G: __doc__ = property(lambda s: 1/0)\ng = G()"
    )
    answer, _ = ask(context, "inspect", code="f", cursor=1, detail=1)
    assert len(answer["data"]["text/plain"]) < 400_000
    assert ask(context, "inspect", code="g", cursor=1, detail=1)[1] == "ok"


# === variables ===


def test_variables_in_order_of_definition(context):
    context.run(
        "zeta = 1\nalpha = 'text'\ndef function(a, b=1): pass\nclass Class: pass\nimport math\n"
        "items = [1, 'two', {'k': (3,)}]\nzeta = 2\n3"
    )
    context.run("4\n5")
    found = variables(context)
    assert list(found) == ["zeta", "alpha", "function", "Class", "math", "items"]
    assert found["zeta"] == {"name": "zeta", "type": "int", "kind": "variable", "preview": "2"}
    assert found["alpha"]["preview"] == "'text'" and found["alpha"]["size"] == 4
    assert (
        found["function"]["kind"] == "function"
        and found["function"]["preview"] == "function(a, b=1)"
    )
    assert found["Class"]["kind"] == "class" and found["math"]["kind"] == "module"
    assert found["items"]["size"] == 3 and found["items"]["preview"] == "[1, 'two', {'k': (3,)}]"


def test_variables_of_a_new_context(context):
    assert variables(context) == {}
    context.run("x: int = 1\nimport warnings\nwarnings.warn('w')\n7\n8")
    assert list(variables(context)) == ["x", "warnings"]


def test_underscore_of_the_user_is_a_variable(context):
    context.run("_ = 'mine'\n__ = 'too'\n5")
    assert list(variables(context)) == ["_", "__"]


def test_shapes_and_sizes(context):
    context.run(
        "import numpy as np, pandas as pd\n"
        "a = np.zeros((3, 4, 5))\ndf = pd.DataFrame({'x': range(7), 'y': 1.5})\n"
        "s = df['x']\nscalar = np.float64(2.5)\n"
        "class Tensor:\n    shape = (2, 8)\n    def __repr__(self): return 'tensor'\nt = Tensor()"
    )
    found = variables(context)
    assert (found["a"]["shape"], found["a"]["size"], found["a"]["type"]) == (
        [3, 4, 5],
        60,
        "ndarray",
    )
    assert (found["df"]["shape"], found["df"]["size"]) == ([7, 2], 14)
    assert found["df"]["preview"] == "7 rows × 2 columns: x, y"
    assert (found["s"]["shape"], found["s"]["size"]) == ([7], 7)
    assert (found["t"]["shape"], found["t"]["size"], found["t"]["preview"]) == (
        [2, 8],
        16,
        "tensor",
    )
    assert found["scalar"]["preview"] == "np.float64(2.5)"


@pytest.mark.parametrize(
    "module, make",
    [
        ("polars", "pl.DataFrame({'a': [1, 2, 3], 'b': ['x', 'y', 'z']})"),
        ("pyarrow", "pl.table({'a': [1, 2, 3], 'b': ['x', 'y', 'z']})"),
    ],
)
def test_shapes_of_other_tables(context, module, make):
    if context.run("import importlib.util as u; u.find_spec(%r) is None" % module).text == "True":
        pytest.skip("%s is not installed" % module)
    context.run("import %s as pl\nt = %s" % (module, make))
    found = variables(context)["t"]
    assert (found["shape"], found["size"]) == ([3, 2], 6)


def test_limit_and_omitted(context):
    context.run("for i in range(2000): globals()['v%d' % i] = i\ndel i")
    answer, _ = ask(context, "variables", limit=3)
    assert [v["name"] for v in answer["variables"]] == ["v0", "v1", "v2"] and answer[
        "omitted"
    ] == 1997
    answer, _ = ask(context, "variables", limit=10**9)
    assert len(answer["variables"]) == 1000
    for odd in (0, -1, "x", None):
        assert len(ask(context, "variables", limit=odd)[0]["variables"]) == 200


@pytest.mark.parametrize(
    "body",
    [
        "def __repr__(self): raise ValueError",
        "def __repr__(self): raise SystemExit",
        "def __repr__(self): return 5",
        "def __repr__(self): return 'x' * (20 << 20)",
        "def __repr__(self):\n        while True: pass",
        "def __repr__(self):\n        import time; time.sleep(100)",
        "def __repr__(self): return repr(self)",
        "def __repr__(self): display('shown'); print('said'); globals()['new'] = 1; return 'r'",
        "def __repr__(self): return input('? ')",
        "def __len__(self): return -1",
        "def __len__(self): return 10 ** 30",
        "def __len__(self):\n        while True: pass",
        "shape = (10 ** 40, -5)",
        "shape = property(lambda self: 1 / 0)",
        "shape = 'abc'",
        "shape = (1,) * 10000",
        "@property\n    def __class__(self): raise KeyError",
    ],
)
def test_hostile_values(context, body):
    context.run("class H:\n    %s\nh = H(); inside = [h]; after = 1" % body)
    began = time.monotonic()
    found = variables(context)
    assert time.monotonic() - began < SPENT_S_MAX
    assert list(found)[:4] == ["H", "h", "inside", "after"]
    assert found["after"]["preview"] == "1"
    for entry in found.values():
        assert len(entry["preview"]) <= 200
        assert all(type(n) is int and n >= 0 for n in entry.get("shape", []))
        assert entry.get("size", 0) >= 0
    run = context.run("1+1")
    assert run.text == "2" and not run.of("display")


def test_hostile_names(context):
    context.run(
        "globals()['x' * 100_000] = 1\nglobals()[5] = 2\nglobals()['\\ud800'] = 3\nclass Odd(str): pass\n"
        "globals()[Odd('odd')] = 4\nbig = 10 ** 100_000\nmillion = list(range(10 ** 6))\ncycle = []\ncycle.append(cycle)"
    )
    found = variables(context)
    assert found["big"]["preview"].startswith("<int of 332193 bits")
    assert found["million"]["size"] == 10**6 and found["million"]["preview"].endswith("…]")
    assert "cycle" in found and len(found) < 8


def test_a_timer_of_the_tenant_survives(context):
    context.run(
        "import signal, time\nrang = []\nsignal.signal(signal.SIGALRM, lambda *a: rang.append(1))\n"
        "class Slow:\n    def __repr__(self): time.sleep(10)\nslow = Slow()\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.3)"
    )
    variables(context)
    run = context.run(
        "end = time.monotonic() + 10\nwhile not rang and time.monotonic() < end: time.sleep(0.01)\nrang"
    )
    assert run.text == "[1]"


# === all of them ===


def test_a_query_changes_nothing(context):
    context.run("x = 1\n'value'")
    before = context.run("_").of("result")[0]["count"]
    for query in (
        {"query": "complete", "code": "x.", "cursor": 2},
        {"query": "inspect", "code": "x", "cursor": 1},
        {"query": "variables"},
    ):
        ask(context, **query)
    run = context.run("_")
    assert run.text == "value" and run.of("result")[0]["count"] == before + 1
    assert context.run("sorted(n for n in globals() if not n.startswith('_'))").text == "['x']"
    assert context.run("import sys; type(sys.stdout).__name__").text == "TextIOWrapper"


def test_an_unknown_query_and_a_broken_one(context):
    for fields in (
        {"query": "divine"},
        {"query": "complete"},
        {"query": "inspect", "code": "x", "cursor": "y"},
        {"query": None},
    ):
        assert ask(context, **fields) == (None, "error")
    assert context.run("1").text == "1"


def test_a_query_can_be_interrupted(context):
    """A loop that swallows what the time limit raises."""
    context.run(
        "import os\nclass H:\n    def __repr__(self):\n        os.write(1, b'looping')\n        while True:\n"
        "            try:\n                while True: pass\n            except Exception: pass\n"
        "            except BaseException as e:\n                if isinstance(e, KeyboardInterrupt): raise\nh = H()"
    )
    context.run_number += 1
    context.send({"op": "query", "run": context.run_number, "query": "variables"})
    context.wait_output(b"looping")
    context.interrupt(frame=True)
    run = context.finish()
    assert run.status == "interrupted" and [e["ev"] for e in run.events] == ["done"]
    assert context.run("1").text == "1"


def test_a_fork_in_a_query_makes_no_second_driver(context):
    context.run(
        "import os\nclass H:\n    def __repr__(self): return str(os.fork() and 'parent')\nh = H()"
    )
    assert variables(context)["h"]["preview"] in ("parent", "'parent'")
    assert context.run("os.waitpid(-1, 0)[1]").text == "0"
    assert context.run("1").text == "1"
