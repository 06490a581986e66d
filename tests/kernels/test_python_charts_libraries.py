"""Chart data of plotly, altair and bokeh, and what else is in their bundles."""

import json

import pytest

from charting import CHART, bundles, document, only, parts

# What a whole library in an output would take, and more.
LIBRARY_BYTES_MIN = 200_000
FRAME = (
    "import pandas as pd\n"
    "df = pd.DataFrame({'c': ['a', 'a', 'b', 'b'], 'h': ['u', 'v', 'u', 'v'], 'v': [1., 2., 3., 4.],"
    " 't': pd.date_range('2026-01-01', periods=4)})\n"
)


def needs(context, module):
    """Looks for the module first, as programs do, which must not change what its import does."""
    code = "import importlib.util as u; u.find_spec(%r) is None" % module
    if context.run(code).text == "True":
        pytest.skip("%s is not installed" % module)


def inlines_no_library(run):
    for bundle in bundles(run):
        assert len(json.dumps(bundle)) < LIBRARY_BYTES_MIN, {
            m: len(str(v)) for m, v in bundle.items()
        }
        assert "application/javascript" not in bundle


# === plotly ===

PLOTLY = "application/vnd.plotly.v1+json"
EXPRESS = "import plotly.express as px, plotly.graph_objects as go\n" + FRAME


def plotly(context, code):
    needs(context, "plotly")
    run = context.run(EXPRESS + code)
    made = document(run, PLOTLY)
    assert made["library"] == "plotly"
    inlines_no_library(run)
    assert all("text/html" not in bundle for bundle in bundles(run))
    return made


def test_plotly_lines(context):
    made = plotly(context, "px.line(df, x='t', y='v', color='h', title='T', log_y=True)")
    chart = only(made)
    assert (made["title"], chart["type"]) == ("T", "line")
    assert parts(chart, "name", "color", "x", "y") == [
        ("u", "#636efa", ["2026-01-01T00:00:00", "2026-01-03T00:00:00"], [1, 3]),
        ("v", "#ef553b", ["2026-01-02T00:00:00", "2026-01-04T00:00:00"], [2, 4]),
    ]
    assert chart["axes"]["x"]["scale"] == "datetime" and chart["axes"]["y"]["scale"] == "log"
    assert chart["legend"] == {"title": "h", "labels": ["u", "v"]}


def test_plotly_shows_the_same_however_it_is_shown(context):
    needs(context, "plotly")
    for code in (
        "go.Figure(go.Bar(x=['a'], y=[5]))",
        "go.Figure(go.Bar(x=['a'], y=[5])).show()",
        "display(go.Figure(go.Bar(x=['a'], y=[5])))",
    ):
        chart = only(document(context.run(EXPRESS + code), PLOTLY))
        assert parts(chart, "type", "categories", "values") == [("bar", ["a"], [5])]


def test_plotly_bars(context):
    chart = only(plotly(context, "px.bar(df, x='c', y='v', color='h')"))
    assert parts(chart, "categories", "values", "base") == [
        (["a", "b"], [1, 3], None),
        (["a", "b"], [2, 4], [1, 3]),
    ]
    assert chart["bar_mode"] == "stacked" and chart["axes"]["x"]["categories"] == ["a", "b"]
    chart = only(
        plotly(
            context,
            "px.bar(df, x='v', y='c', color='h', barmode='group', orientation='h', error_x='v')",
        )
    )
    assert parts(chart, "orientation", "categories", "values") == [
        ("horizontal", ["a", "b"], [1, 3]),
        ("horizontal", ["a", "b"], [2, 4]),
    ]
    assert (
        chart["series"][0]["error"] == {"low": [0, 0], "high": [2, 6]}
        and chart["bar_mode"] == "grouped"
    )


def test_plotly_points(context):
    chart = only(plotly(context, "px.scatter(df, x='v', y='v', color='v', size='v')"))
    assert parts(chart, "type", "x", "y", "sizes", "values") == [
        ("scatter", [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4])
    ]
    chart = only(
        plotly(
            context,
            "import numpy as np\ngo.Figure(go.Scatter(x=np.arange(3), y=np.array([1.5, np.nan, np.inf]), mode='markers'))",
        )
    )
    assert parts(chart, "x", "y") == [([0, 1, 2], [1.5, None, None])]
    chart = only(plotly(context, "px.scatter_3d(df, x='v', y='v', z='v')"))
    assert parts(chart, "type", "z") == [("scatter", [1, 2, 3, 4])]
    chart = only(plotly(context, "px.area(df, x='t', y='v')"))
    assert chart["type"] == "area" and chart["series"][0]["stacked"] is True


def test_plotly_distributions(context):
    chart = only(
        plotly(
            context, "go.Figure(go.Histogram(x=[1, 1, 2, 4], xbins=dict(start=1, end=4, size=1)))"
        )
    )
    assert parts(chart, "type", "edges", "counts") == [("histogram", [1, 2, 3, 4], [2, 1, 1])]
    chart = only(plotly(context, "px.histogram(df, x='v')"))
    assert parts(chart, "type", "samples", "counts") == [("histogram", [1, 2, 3, 4], None)]
    chart = only(plotly(context, "px.histogram(df, x='c')"))
    assert parts(chart, "type", "categories", "values") == [("bar", ["a", "b"], [2, 2])]
    chart = only(plotly(context, "go.Figure(go.Box(y=[1, 2, 3, 4, 5, 6, 7, 30], name='n'))"))
    (one,) = chart["series"]
    assert one["categories"] == ["n"] and one["boxes"] == [
        {
            "min": 1,
            "first_quartile": 2.5,
            "median": 4.5,
            "third_quartile": 6.5,
            "max": 7,
            "mean": 7.25,
            "outliers": [30],
        }
    ]
    chart = only(
        plotly(
            context,
            "go.Figure(go.Box(q1=[1], median=[2], q3=[3], lowerfence=[0], upperfence=[4], x=['k']))",
        )
    )
    assert chart["series"][0]["boxes"] == [
        {"min": 0, "first_quartile": 1, "median": 2, "third_quartile": 3, "max": 4, "outliers": []}
    ]
    chart = only(plotly(context, "px.violin(df, y='v', x='c')"))
    assert chart["series"][0]["violins"] == [{"samples": [1, 2]}, {"samples": [3, 4]}]


def test_plotly_pies_and_heatmaps(context):
    chart = only(plotly(context, "px.pie(df, names='c', values='v', hole=0.5)"))
    assert [(s["label"], s["value"], s["fraction"]) for s in chart["series"][0]["slices"]] == [
        ("a", 3, 0.3),
        ("b", 7, 0.7),
    ]
    assert chart["series"][0]["hole"] == 0.5
    chart = only(plotly(context, "px.imshow([[1, 2], [3, 4]], x=['p', 'q'], y=['r', 's'])"))
    assert parts(chart, "type", "x", "y", "values") == [
        ("heatmap", ["p", "q"], ["r", "s"], [[1, 2], [3, 4]])
    ]
    assert chart["axes"]["y"]["inverted"] is True


def test_plotly_subplots_and_second_axes(context):
    made = plotly(
        context,
        "from plotly.subplots import make_subplots\nf = make_subplots(rows=2, cols=1, subplot_titles=['U', 'L'])\n"
        "f.add_bar(x=['a'], y=[1], row=1, col=1); f.add_scatter(y=[1, 2], row=2, col=1); f",
    )
    assert [(c["type"], c["title"], c["position"]["row"]) for c in made["charts"]] == [
        ("bar", "U", 0),
        ("line", "L", 1),
    ]
    chart = only(
        plotly(
            context,
            "from plotly.subplots import make_subplots\nf = make_subplots(specs=[[{'secondary_y': True}]])\n"
            "f.add_bar(x=['a', 'b'], y=[1, 2], name='B'); f.add_scatter(x=['a', 'b'], y=[10, 20], name='L', secondary_y=True)\n"
            "f.update_yaxes(title_text='right (kg)', secondary_y=True); f",
        )
    )
    assert chart["type"] == "combo" and chart["axes"]["y2"]["unit"] == "kg"
    assert parts(chart, "type", "name", "y_axis") == [("bar", "B", None), ("line", "L", "y2")]


def test_plotly_that_cannot_be_read(context):
    made = plotly(context, "go.Figure(go.Surface(z=[[1, 2], [3, 4]]))")
    assert only(made)["type"] == "unknown" and made["unknown"] == ["surface"]
    made = plotly(
        context, "import numpy as np\ngo.Figure([go.Scatter(y=np.arange(20_000)), go.Sankey()])"
    )
    assert made["omitted"]["points"] == 14_000 and made["unknown"] == ["sankey"]


FORGED = [
    {"data": 5},
    {"data": [5, None, {"type": "bar"}]},
    {"data": [{"type": [], "x": {}}]},
    {"data": [{"type": "bar", "x": {"dtype": "f8", "bdata": "!"}, "y": [1]}]},
    {"data": [{"type": "bar", "x": {"dtype": "O", "bdata": "AAAA"}, "y": [1]}]},
    {"data": [{"type": "scatter", "x": [[[1]]], "y": [{"a": 1}]}], "layout": [1]},
    {
        "data": [
            {"type": "histogram", "x": [1], "xbins": {"start": 0, "end": 1e300, "size": 1e-300}}
        ]
    },
    {
        "data": [{"type": "pie", "labels": ["a"], "values": ["x"]}],
        "layout": {"yaxis": {"range": [400, 900], "type": "log"}},
    },
    {"data": [{"type": "heatmap", "z": [[1], [], 5, "x"]}]},
    {
        "data": [{"type": "scatter", "y": [1], "xaxis": "", "yaxis": 5}],
        "layout": {"title": {"text": 5}},
    },
    {"data": [{"type": "scatter", "y": [1, 2], "error_y": {"type": "percent", "value": "x"}}]},
    {
        "data": [{"type": "scatter", "y": [1], "xaxis": "x2"}, {"type": "scatter", "y": [1]}],
        "layout": {"xaxis2": {"domain": ["a"]}},
    },
]


@pytest.mark.parametrize("forged", FORGED)
def test_plotly_json_that_is_none(context, forged):
    run = context.run("display({%r: %r, 'text/plain': 'f'}, raw=True)" % (PLOTLY, forged))
    assert run.status == "ok" and run.error is None
    assert len(bundles(run)) == 1 and bundles(run)[0][PLOTLY] == forged
    assert context.run("1+1").text == "2"


# === altair ===


def altair(context, code):
    needs(context, "altair")
    run = context.run("import altair as alt\n" + FRAME + "C = alt.Chart(df, title='T')\n" + code)
    assert run.error is None, run.error
    mime = next(m for m in bundles(run)[0] if m.startswith("application/vnd.vegalite."))
    made = document(run, mime)
    assert made["library"] == "vega-lite" and set(bundles(run)[0]) == {mime, CHART, "text/plain"}
    inlines_no_library(run)
    return made


def test_altair_lines_and_points(context):
    chart = only(altair(context, "C.mark_line().encode(x='t', y='v', color='h')"))
    assert (chart["type"], chart["title"]) == ("line", "T")
    assert parts(chart, "name", "color", "x", "y") == [
        ("u", "#4c78a8", ["2026-01-01T00:00:00", "2026-01-03T00:00:00"], [1, 3]),
        ("v", "#f58518", ["2026-01-02T00:00:00", "2026-01-04T00:00:00"], [2, 4]),
    ]
    chart = only(
        altair(
            context,
            "C.mark_point().encode(x='v', y=alt.Y('v', scale=alt.Scale(type='log'), title='V (kg)'), color='v', size='v')",
        )
    )
    assert parts(chart, "type", "x", "values", "sizes") == [
        ("scatter", [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4])
    ]
    assert (chart["axes"]["y"]["scale"], chart["axes"]["y"]["unit"]) == ("log", "kg")
    chart = only(altair(context, "C.mark_area().encode(x='c', y='sum(v)')"))
    assert parts(chart, "type", "x", "y") == [("area", ["a", "b"], [3, 7])]


def test_altair_bars(context):
    chart = only(altair(context, "C.mark_bar().encode(x='c', y='v', color='h')"))
    assert parts(chart, "name", "categories", "values", "base") == [
        ("u", ["a", "b"], [1, 3], [2, 4]),
        ("v", ["a", "b"], [2, 4], None),
    ]
    assert chart["bar_mode"] == "stacked"
    chart = only(altair(context, "C.mark_bar().encode(x='mean(v)', y='c')"))
    assert parts(chart, "orientation", "categories", "values") == [
        ("horizontal", ["a", "b"], [1.5, 3.5])
    ]
    assert chart["axes"]["x"]["label"] == "Mean of v"
    chart = only(altair(context, "C.mark_bar().encode(x='c', y='count()', xOffset='h', color='h')"))
    assert (
        parts(chart, "values", "base") == [([1, 1], None), ([1, 1], None)]
        and chart["bar_mode"] == "grouped"
    )


@pytest.mark.parametrize(
    "samples, options, edges, counted",
    [
        (
            "[0, 1, 2, 5, 9.5, 10]",
            "bin=True",
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            [1, 1, 1, 0, 0, 1, 0, 0, 0, 2],
        ),
        ("[0, 100, 37]", "bin=alt.Bin(maxbins=5)", [0, 20, 40, 60, 80, 100], [1, 1, 0, 0, 1]),
        ("[1, 2, 3]", "bin=alt.Bin(step=2)", [0, 2, 4], [1, 2]),
        (
            "[0.013, 0.021, 0.042]",
            "bin=True",
            [0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045],
            [1, 0, 1, 0, 0, 0, 1],
        ),
    ],
)
def test_altair_histograms(context, samples, options, edges, counted):
    chart = only(
        altair(
            context,
            "alt.Chart(pd.DataFrame({'v': %s})).mark_bar().encode(x=alt.X('v', %s), y='count()')"
            % (samples, options),
        )
    )
    (one,) = chart["series"]
    assert (
        one["type"] == "histogram"
        and one["edges"] == pytest.approx(edges)
        and one["counts"] == counted
    )


def test_altair_grids_pies_and_boxes(context):
    chart = only(altair(context, "C.mark_rect().encode(x='c:N', y='h:N', color='v')"))
    assert parts(chart, "type", "x", "y", "values") == [
        ("heatmap", ["a", "b"], ["u", "v"], [[1, 3], [2, 4]])
    ]
    chart = only(altair(context, "C.mark_arc().encode(theta='sum(v)', color='c')"))
    assert [(s["label"], s["value"], s["fraction"]) for s in chart["series"][0]["slices"]] == [
        ("a", 3, 0.3),
        ("b", 7, 0.7),
    ]
    chart = only(
        altair(
            context,
            "alt.Chart(pd.DataFrame({'k': ['z'] * 5, 'v': [1, 2, 3, 4, 30]})).mark_boxplot().encode(x='k', y='v')",
        )
    )
    assert chart["series"][0]["categories"] == ["z"] and chart["series"][0]["boxes"] == [
        {
            "min": 1,
            "first_quartile": 2,
            "median": 3,
            "third_quartile": 4,
            "max": 4,
            "mean": 8,
            "outliers": [30],
        }
    ]


def test_altair_layers_and_concatenations(context):
    chart = only(
        altair(
            context,
            "C.mark_bar().encode(x='c', y='v') + C.mark_line(color='red').encode(x='c', y='v') + alt.Chart().mark_rule().encode(y=alt.datum(2))",
        )
    )
    assert chart["type"] == "combo" and [one["type"] for one in chart["series"]] == ["bar", "line"]
    assert chart["references"] == [
        {"type": "reference", "axis": "y", "value": 2, "name": None, "color": None}
    ]
    made = altair(
        context, "C.mark_line().encode(x='t', y='v') | C.mark_point().encode(x='t', y='v')"
    )
    assert [(c["type"], c["position"]["column"]) for c in made["charts"]] == [
        ("line", 0),
        ("scatter", 1),
    ]


@pytest.mark.parametrize(
    "code, unknown",
    [
        ("C.mark_line().encode(x='t', y='v', column='h')", "facet"),
        ("C.mark_line().encode(x='t', y='v').transform_filter('datum.v > 1')", "transform filter"),
        ("C.mark_line().encode(x='month(t)', y='v')", "timeUnit"),
        (
            "alt.Chart('https://example.com/d.csv').mark_line().encode(x='a:Q', y='b:Q')",
            "data from elsewhere",
        ),
        ("C.mark_geoshape()", "geoshape"),
        ("C.mark_bar().encode(x='c', y='stdev(v)')", "aggregate"),
    ],
)
def test_altair_says_what_it_does_not_compute(context, code, unknown):
    made = altair(context, code)
    assert made["unknown"] == [unknown] and made["charts"][0]["series"] == []


# === bokeh ===


def bokeh(context, code):
    needs(context, "bokeh")
    run = context.run(
        FRAME
        + "import numpy as np\nfrom bokeh.plotting import figure, show\nfrom bokeh.models import *\n"
        "from bokeh.transform import *\nfrom bokeh.layouts import row, column, gridplot\n" + code
    )
    made = document(run, "text/html")
    page = bundles(run)[0]["text/html"]
    assert made["library"] == "bokeh" and "cdn.bokeh.org" in page
    inlines_no_library(run)
    return made


def test_bokeh_lines_and_points(context):
    chart = only(
        bokeh(
            context,
            "p = figure(title='T', x_axis_label='x (s)')\np.line([1, 2], [3, 4], legend_label='L', line_dash='dashed'); p.scatter([1, 2], [3, np.nan], color='red')\np",
        )
    )
    assert (chart["title"], chart["axes"]["x"]["unit"]) == ("T", "s")
    assert parts(chart, "type", "name", "color", "x", "y", "dash") == [
        ("line", "L", "#1f77b4", [1, 2], [3, 4], "dashed"),
        ("scatter", None, "red", [1, 2], [3, None], None),
    ]
    chart = only(
        bokeh(
            context,
            "p = figure(x_axis_type='datetime'); p.line(df.t, df.v); p.step(df.t, df.v, mode='after')\np",
        )
    )
    assert (
        chart["axes"]["x"]["scale"] == "datetime"
        and chart["series"][0]["x"][0] == "2026-01-01T00:00:00"
    )
    assert chart["series"][1]["step"] == "post"


def test_bokeh_show(context):
    for ending in (
        "show(p)",
        "from bokeh.io import output_notebook; output_notebook(); show(p)",
        "display(p)",
    ):
        chart = only(bokeh(context, "p = figure(); p.line([1], [2])\n" + ending))
        assert parts(chart, "y") == [([2],)]


def test_bokeh_bars(context):
    chart = only(
        bokeh(
            context,
            "p = figure(x_range=['a', 'b']); p.vbar(x=['a', 'b'], top=[5, 5], width=0.5)\np",
        )
    )
    assert parts(chart, "type", "categories", "values") == [("bar", ["a", "b"], [5, 5])]
    chart = only(
        bokeh(
            context,
            "p = figure(y_range=['a', 'b']); p.hbar(y=['a', 'b'], right=[5, 6], height=0.5)\np",
        )
    )
    assert parts(chart, "orientation", "values") == [("horizontal", [5, 6])]
    source = "s = ColumnDataSource({'c': ['a', 'b'], 'v': [1, 2], 'u': [3, 4]}); p = figure(x_range=['a', 'b'])\n"
    chart = only(
        bokeh(
            context,
            source
            + "p.vbar_stack(['u', 'v'], x='c', source=s, width=0.5, legend_label=['u', 'v'], color=['blue', 'green'])\np",
        )
    )
    assert (
        parts(chart, "name", "values", "base") == [("u", [3, 4], None), ("v", [1, 2], [3, 4])]
        and chart["bar_mode"] == "stacked"
    )
    chart = only(
        bokeh(
            context,
            source
            + "for f, d in (('u', -0.2), ('v', 0.2)): p.vbar(x=dodge('c', d, range=p.x_range), top=f, source=s, width=0.2)\np",
        )
    )
    assert parts(chart, "categories", "values", "offset") == [
        (["a", "b"], [3, 4], -0.2),
        (["a", "b"], [1, 2], 0.2),
    ]
    assert chart["bar_mode"] == "grouped"
    chart = only(
        bokeh(
            context,
            "h, e = np.histogram([1, 1, 2, 3], bins=2); p = figure(); p.quad(top=h, bottom=0, left=e[:-1], right=e[1:])\np",
        )
    )
    assert parts(chart, "type", "edges", "counts") == [("histogram", [1, 2, 3], [2, 2])]


def test_bokeh_pies_areas_and_grids(context):
    chart = only(
        bokeh(
            context,
            "d = pd.DataFrame({'k': ['a', 'b'], 'v': [1, 3]}); d['angle'] = d.v / d.v.sum() * 2 * np.pi\np = figure()\n"
            "p.wedge(x=0, y=1, radius=0.4, start_angle=cumsum('angle', include_zero=True), end_angle=cumsum('angle'), source=d)\np",
        )
    )
    assert [(s["label"], s["fraction"]) for s in chart["series"][0]["slices"]] == [
        ("a", 0.25),
        ("b", 0.75),
    ]
    chart = only(
        bokeh(
            context,
            "p = figure(y_axis_type='log'); p.varea(x=[1, 2], y1=[1, 1], y2=[2, 3]); p.add_layout(Span(location=5, dimension='width'))\np",
        )
    )
    assert (
        parts(chart, "type", "y", "base") == [("area", [2, 3], [1, 1])]
        and chart["references"][0]["value"] == 5
    )
    chart = only(
        bokeh(context, "p = figure(); p.image(image=[np.eye(2)], x=0, y=0, dw=2, dh=2)\np")
    )
    assert parts(chart, "type", "x", "values") == [("heatmap", [0.5, 1.5], [[1, 0], [0, 1]])]


def test_bokeh_layouts_and_second_axes(context):
    made = bokeh(
        context, "a = figure(); a.line([1], [2]); b = figure(); b.scatter([1], [2])\ncolumn(a, b)"
    )
    assert [(c["type"], c["position"]["row"]) for c in made["charts"]] == [
        ("line", 0),
        ("scatter", 1),
    ]
    chart = only(
        bokeh(
            context,
            "p = figure(); p.extra_y_ranges = {'f': Range1d(0, 100)}; p.add_layout(LinearAxis(y_range_name='f', axis_label='F [%]'), 'right')\n"
            "p.vbar(x=[1, 2], top=[3, 4], width=0.5); p.line([1, 2], [30, 40], y_range_name='f')\np",
        )
    )
    assert chart["type"] == "combo" and (
        chart["axes"]["y2"]["unit"],
        chart["axes"]["y2"]["limits"],
    ) == ("%", [0, 100])
    assert parts(chart, "y_axis") == [(None,), ("y2",)]


def test_bokeh_that_cannot_be_read(context):
    made = bokeh(context, "p = figure(); p.patch([1, 2, 3], [1, 2, 1]); p.line([1], [2])\np")
    assert made["unknown"] == ["Patch"] and parts(only(made), "type") == [("line",)]
