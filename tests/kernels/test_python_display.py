"""MIME bundles, display(), figures, and objects that misbehave."""

import base64

import pytest

PNG = b"\x89PNG\r\n\x1a\n"
MIB = 1024 * 1024


def png(text):
    data = base64.b64decode(text, validate=True)
    assert data.startswith(PNG)
    return data


def define(**methods):
    body = "".join("    def %s(self, *a, **k): return %s\n" % pair for pair in methods.items())
    return "class R:\n    def __repr__(self): return 'R()'\n%sR()" % body


@pytest.mark.parametrize(
    "method, mime, value, sent",
    [
        ("_repr_html_", "text/html", "'<b>'", "<b>"),
        ("_repr_markdown_", "text/markdown", "'# m'", "# m"),
        ("_repr_svg_", "image/svg+xml", "'<svg/>'", "<svg/>"),
        ("_repr_latex_", "text/latex", "'$x$'", "$x$"),
        ("_repr_json_", "application/json", "{'a': [1, None]}", {"a": [1, None]}),
        ("_repr_png_", "image/png", "b'\\x89PNG'", base64.b64encode(b"\x89PNG").decode()),
        ("_repr_jpeg_", "image/jpeg", "b'\\xff\\xd8'", base64.b64encode(b"\xff\xd8").decode()),
        ("_repr_pdf_", "application/pdf", "b'%PDF-1'", base64.b64encode(b"%PDF-1").decode()),
        ("_repr_mimebundle_", "text/x-own", "{'text/x-own': 'o'}", "o"),
        ("_repr_mimebundle_", "text/x-own", "({'text/x-own': 'o'}, {'k': 1})", "o"),
    ],
)
def test_representations(context, method, mime, value, sent):
    run = context.run(define(**{method: value}))
    assert run.result[mime] == sent
    assert run.text == "R()"


def test_metadata_travels(context):
    run = context.run(define(_repr_png_="(b'\\x89PNG', {'width': 5})"))
    assert run.of("result")[0]["metadata"] == {"image/png": {"width": 5}}


def test_display(context):
    run = context.run("display(1, 'two')\nprint('x')\ndisplay({'a': 1})")
    assert [e["data"]["text/plain"] for e in run.of("display")] == ["1", "two", "{'a': 1}"]


def test_display_from_ipython(context):
    run = context.run(
        "from IPython.display import display, HTML, Markdown, JSON, Image, SVG, Latex, clear_output\n"
        "display(HTML('<i>'), Markdown('*m*'), JSON({'j': 1}), Latex('$l$'), SVG('<svg></svg>'))\n"
        "display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n', format='png'))\n"
        "clear_output(wait=True)\nHTML('<b>')"
    )
    kinds = [set(e["data"]) - {"text/plain"} for e in run.of("display")]
    assert kinds == [{"text/html"}, {"text/markdown"}, {"application/json"}, {"text/latex"}, {"image/svg+xml"}, {"image/png"}]
    png(run.of("display")[-1]["data"]["image/png"])
    assert run.of("clear")[0]["wait"] is True
    assert run.result["text/html"] == "<b>"


def test_update_display(context):
    run = context.run("h = display('first', display_id=True)\nh.update('second')")
    first, second = run.of("display")
    assert first["display_id"] == second["display_id"] and "update" not in first
    assert second["update"] is True and second["data"]["text/plain"] == "second"
    run = context.run("from IPython.display import update_display\nupdate_display(3, display_id='own')")
    assert run.of("display")[0]["display_id"] == "own"


def test_ipython_display_method(context):
    run = context.run("class D:\n    def _ipython_display_(self): print('shown')\nD()")
    assert (run.out, run.result, run.err) == ("shown\n", None, "")


def test_formatters_that_libraries_register_count(context):
    run = context.run(
        "class T: pass\nget = __import__('IPython').get_ipython\n"
        "get().display_formatter.formatters['text/html'].for_type(T, lambda t: '<reg>')\nT()"
    )
    assert run.result["text/html"] == "<reg>", run.err


def test_mock_objects_answer_to_every_name(context):
    run = context.run("from unittest.mock import MagicMock\nMagicMock()")
    assert set(run.result) == {"text/plain"}


def test_classes_are_not_their_instances(context):
    context.run(define(_repr_html_="'<b>'"))
    assert set(context.run("R").result) == {"text/plain"}


HOSTILE_REPR = [
    "raise ValueError('no')",
    "return 5",
    "return repr(self)",
    "raise SystemExit(1)",
    "raise KeyboardInterrupt",
    "raise type('Odd', (BaseException,), {})()",
    "return '\\ud800' * 10",
    "return 'x' * (20 << 20)",
    "return '\\0' * (3 << 20)",
]


@pytest.mark.parametrize("body", HOSTILE_REPR)
def test_hostile_repr(context, body):
    context.run("kept = 1")
    run = context.run("class H:\n    def __repr__(self):\n        %s\nH()" % body)
    assert run.events[-1]["ev"] == "done"
    assert run.error or run.result or run.of("result")[0]["metadata"]["crownest"]["omitted"]
    assert context.run("kept").text == "1"
    run = context.run("display(H())")
    assert context.run("kept").text == "1"


def test_hostile_exceptions(context):
    for body in ("raise RuntimeError", "return 5", "return 'x' * (20 << 20)", "return str(self)"):
        run = context.run("class E(Exception):\n    def __str__(self): %s\nraise E" % body)
        assert run.status == "error" and run.error["name"] == "E"
        assert len(run.error["message"]) < 100_000
    run = context.run("e = ValueError('a')\ne.__cause__ = e\nraise e")
    assert run.error["name"] == "ValueError"
    run = context.run("raise ValueError('\\ud800' + 'y' * (20 << 20))")
    assert run.status == "error"
    assert context.run("1").text == "1"


@pytest.mark.parametrize(
    "method, value",
    [
        ("_repr_html_", "5"),
        ("_repr_html_", "1 / 0"),
        ("_repr_png_", "'not base64!'"),
        ("_repr_json_", "[[[]]] and (lambda f: f(f, 200))(lambda f, n: [f(f, n - 1)] if n else 0)"),
        ("_repr_mimebundle_", "5"),
        ("_repr_mimebundle_", "{5: 'x', 'text/html': object(), '': 'y', 'z' * 5000: 'z'}"),
    ],
)
def test_a_bad_representation_is_left_out(context, method, value):
    run = context.run(define(**{method: value}))
    assert run.status == "ok"
    assert run.result == {"text/plain": "R()"}
    assert run.err


def test_cyclic_json(context):
    run = context.run("c = []\nc.append(c)\n" + define(_repr_json_="c"))
    assert run.result == {"text/plain": "R()"}


def test_json_that_readers_refuse(context):
    run = context.run(define(_repr_json_="{'n': float('nan'), 'i': 10 ** 400, 5: 'k', 't': (1, 2), 'b': True}"))
    value = run.result["application/json"]
    assert value["n"] is None and value["i"] == str(10**400) and value["5"] == "k"
    assert value["t"] == [1, 2] and value["b"] is True


def test_entry_above_the_limit_is_named(context):
    run = context.run("'x' * (%d + 1)" % (8 * MIB))
    event = run.of("result")[0]
    assert event["data"] == {}
    assert event["metadata"]["crownest"]["omitted"] == [{"mime": "text/plain", "bytes": 8 * MIB + 1}]
    assert len(context.run("'x' * %d" % (8 * MIB)).text) == 8 * MIB


def test_bundle_above_the_frame_loses_its_largest(context):
    run = context.run(define(_repr_html_="'h' * (7 << 20)", _repr_svg_="'s' * (6 << 20)"))
    event = run.of("result")[0]
    assert event["metadata"]["crownest"]["omitted"] == [{"mime": "text/html", "bytes": 7 * MIB}]
    assert set(event["data"]) == {"text/plain", "image/svg+xml"}


def test_forged_omissions_are_dropped(context):
    run = context.run("display({'text/plain': 'x'}, raw=True, metadata={'crownest': {'omitted': []}})")
    assert run.of("display")[0]["metadata"] == {}


# === figures ===


def test_show_gives_one_picture(context):
    run = context.run(
        "import matplotlib.pyplot as plt, tempfile, os\nplt.plot([1, 2, 3], [1, 4, 9])\n"
        "path = tempfile.mktemp('.png')\nplt.savefig(path)\nplt.show()\nos.path.getsize(path) > 1000"
    )
    assert run.text == "True" and len(run.of("display")) == 1
    png(run.of("display")[0]["data"]["image/png"])


def test_open_figures_are_shown_at_the_end_in_order_and_closed(context):
    run = context.run(
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)); plt.plot([1])\n"
        "plt.figure(figsize=(4, 4)); plt.plot([2])\nprint('printed')"
    )
    sizes = [len(png(e["data"]["image/png"])) for e in run.of("display")]
    assert len(sizes) == 2 and sizes[0] < sizes[1]
    run = context.run("plt.get_fignums()")
    assert run.text == "[]" and not run.of("display")


def test_shows_in_a_loop(context):
    run = context.run("import matplotlib.pyplot as plt\nfor i in range(3):\n    plt.plot([i, 2]); plt.show()")
    assert len(run.of("display")) == 3


def test_figure_as_value_is_shown_once(context):
    run = context.run("import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2])\nfig")
    png(run.result["image/png"])
    assert not run.of("display")
    png(context.run("fig").result["image/png"])


def test_figures_of_a_failed_cell_are_shown(context):
    run = context.run("import matplotlib.pyplot as plt\nplt.plot([1])\n1/0")
    assert run.error["name"] == "ZeroDivisionError" and len(run.of("display")) == 1


def test_pyplot_choices_of_programs(context):
    run = context.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.ion()\nplt.plot([1])\nplt.show()")
    assert len(run.of("display")) == 1
    run = context.run("import matplotlib\nmatplotlib.use('Agg')\nplt.plot([1]); plt.close()")
    assert run.status == "ok"


def test_other_formats_of_figures(context):
    run = context.run(
        "from matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('svg')\n"
        "import matplotlib.pyplot as plt\nplt.plot([1]); None"
    )
    kinds = {"image/svg+xml", "text/plain", "application/vnd.crownest.chart+json"}
    assert set(run.of("display")[0]["data"]) == kinds


def test_dataframe(context):
    run = context.run("import pandas as pd\npd.DataFrame({'name': ['Alice', 'Bob'], 'age': [1, 2]})")
    assert "<table" in run.result["text/html"] and "Alice" in run.text


def test_pillow(context):
    run = context.run("from PIL import Image\nImage.new('RGB', (4, 4))")
    png(run.result["image/png"])


def test_plotly_sends_json(context):
    if context.run("import importlib.util as u; u.find_spec('plotly') is None").text == "True":
        pytest.skip("plotly is not installed")
    run = context.run("import plotly.graph_objects as go\nfig = go.Figure(go.Bar(y=[2, 3]))\nfig")
    bundle = run.result or run.of("display")[0]["data"]
    assert "application/vnd.plotly.v1+json" in bundle and "text/html" not in bundle
    run = context.run("fig.show()")
    assert "application/vnd.plotly.v1+json" in run.of("display")[0]["data"]


# === IPython ===


def test_magics(context):
    assert "loop" in context.run("%timeit -n 2 -r 1 sum(range(10))").out
    run = context.run("%%time\nv = 6\nv * 7")
    assert run.text == "42" and "Wall time" in run.out
    assert context.run("v").text == "6"
    assert context.run("!echo shell $HOME").out.startswith("shell /")
    assert context.run("files = !echo a b\nfiles[0]").text == "a b"
    assert context.run("%%bash\necho from bash").out == "from bash\n"
    assert "sum" in context.run("sum?").out.lower() + str(context.run("sum?").of("display"))
    run = context.run("%%capture c\nprint('kept back')\n")
    assert run.out == ""
    assert context.run("c.stdout").text == "kept back\n"
    assert context.run("%nosuch").error["name"] == "UsageError"
    assert context.run("%pip --version").out.startswith("pip ")
    assert "v" in context.run("%who").out.split()
    assert context.run("%cd /usr").status == "ok"
    assert context.run("import os; os.getcwd()").text == "/usr"


def test_error_inside_a_magic(context):
    run = context.run("%%time\n1/0")
    assert run.error["name"] == "ZeroDivisionError"


def test_percent_in_plain_python(context):
    assert context.run("(7\n% 4)").text == "3"
    assert context.run("'''\n%timeit\n!x\n'''").text == "\n%timeit\n!x\n"


def test_namespace_holds_only_what_the_user_put_there(context):
    run = context.run("sorted(n for n in globals() if not n.startswith('__'))")
    assert run.text == "[]"
