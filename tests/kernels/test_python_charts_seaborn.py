"""Chart data of what seaborn and pandas draw, with known numbers."""

import pytest

from charting import bars, only, parts, plotted

FRAME = (
    "import pandas as pd, seaborn as sns\n"
    "df = pd.DataFrame({'cat': ['a', 'a', 'b', 'b'] * 2, 'hue': ['u', 'v'] * 4, 'val': [1., 2, 3, 4, 2, 3, 4, 5]})\n"
    "ends = lambda s: (s.min(), s.max())\n"
)


def seaborn(context, code):
    if context.run("import importlib.util as u; u.find_spec('seaborn') is None").text == "True":
        pytest.skip("seaborn is not installed")
    return plotted(context, FRAME + code)


def test_seaborn_bars(context):
    made = seaborn(context, "sns.barplot(df, x='cat', y='val', hue='hue', errorbar=ends)")
    chart = only(made)
    assert bars(chart, "name", "error") == [
        ("vertical", ["a", "b"], [1.5, 3.5], "u", {"low": [1, 3], "high": [2, 4]}),
        ("vertical", ["a", "b"], [2.5, 4.5], "v", {"low": [2, 4], "high": [3, 5]}),
    ]
    assert chart["bar_mode"] == "grouped" and chart["legend"] == {
        "title": "hue",
        "labels": ["u", "v"],
    }
    assert "unknown" not in made
    chart = only(seaborn(context, "sns.barplot(df, y='cat', x='val', errorbar=ends, capsize=0.2)"))
    assert bars(chart, "error") == [
        ("horizontal", ["a", "b"], [2, 4], {"low": [1, 3], "high": [3, 5]})
    ]
    chart = only(seaborn(context, "sns.countplot(df, x='cat', hue='hue')"))
    assert bars(chart, "name") == [
        ("vertical", ["a", "b"], [2, 2], "u"),
        ("vertical", ["a", "b"], [2, 2], "v"),
    ]


def test_seaborn_histogram(context):
    chart = only(seaborn(context, "sns.histplot([1, 1, 2, 3, 3, 3], bins=[1, 2, 3], kde=True)"))
    assert chart["type"] == "combo"
    assert parts(chart, "type", "edges", "counts")[0] == ("histogram", [1, 2, 3], [2, 4])
    chart = only(seaborn(context, "sns.histplot(df, x='val', hue='hue', bins=2, multiple='stack')"))
    assert sorted(parts(chart, "name", "edges", "counts")) == [
        ("u", [1, 3, 5], [2, 2]),
        ("v", [1, 3, 5], [1, 3]),
    ]


def test_seaborn_boxes(context):
    chart = only(seaborn(context, "sns.boxplot(df, x='cat', y='val', hue='hue')"))
    assert chart["type"] == "box"
    assert parts(chart, "name", "categories") == [("u", ["a", "b"]), ("v", ["a", "b"])]
    assert [box["median"] for one in chart["series"] for box in one["boxes"]] == [
        1.5,
        3.5,
        2.5,
        4.5,
    ]
    chart = only(seaborn(context, "sns.boxplot(df, x='cat', y='val')"))
    assert parts(chart, "categories") == [(["a", "b"],)]
    assert [(b["min"], b["median"], b["max"]) for b in chart["series"][0]["boxes"]] == [
        (1, 2, 3),
        (3, 4, 5),
    ]


def test_seaborn_violins(context):
    chart = only(seaborn(context, "sns.violinplot(df, x='cat', y='val', gridsize=5)"))
    assert chart["type"] == "violin" and parts(chart, "categories") == [(["a", "b"],)]
    first = chart["series"][0]["violins"][0]
    assert (
        first["median"],
        first["whiskers"],
        first["first_quartile"],
        first["third_quartile"],
    ) == (2, [1, 3], 1.75, 2.25)
    assert len(first["values"]) == len(first["density"]) == 5


def test_seaborn_heatmap(context):
    chart = only(
        seaborn(
            context,
            "sns.heatmap(pd.DataFrame([[1, 2], [3, 4]], index=['r1', 'r2'], columns=['c1', 'c2']), annot=True, fmt='d')",
        )
    )
    assert parts(chart, "type", "x", "y", "values", "texts") == [
        ("heatmap", ["c1", "c2"], ["r1", "r2"], [[1, 2], [3, 4]], [["1", "2"], ["3", "4"]])
    ]


def test_seaborn_points_and_lines(context):
    chart = only(seaborn(context, "sns.scatterplot(df, x='val', y='val', hue='hue')"))
    assert parts(chart, "type", "name", "x") == [
        ("scatter", "u", [1, 3, 2, 4]),
        ("scatter", "v", [2, 4, 3, 5]),
    ]
    chart = only(seaborn(context, "sns.lineplot(df, x='cat', y='val', hue='hue', errorbar=None)"))
    assert parts(chart, "type", "name", "x", "y") == [
        ("line", "u", ["a", "b"], [1.5, 3.5]),
        ("line", "v", ["a", "b"], [2.5, 4.5]),
    ]
    chart = only(seaborn(context, "sns.lineplot(df, x='cat', y='val', errorbar=ends)"))
    assert chart["type"] == "line"
    assert sorted(parts(chart, "type", "y", "base"), key=str) == [
        ("area", [3, 5], [1, 3]),
        ("line", [2, 4], None),
    ]
    chart = only(seaborn(context, "sns.pointplot(df, x='cat', y='val', errorbar=ends)"))
    assert parts(chart, "y", "y_error") == [([2, 4], {"low": [1, 3], "high": [3, 5]})]


def test_pandas_plots(context):
    frame = "import pandas as pd\ndf = pd.DataFrame({'x': [1, 2, 3], 'y': [4, 5, 6]}, index=['a', 'b', 'c'])\n"
    chart = only(plotted(context, frame + "df.plot.bar()"))
    assert bars(chart, "name") == [
        ("vertical", ["a", "b", "c"], [1, 2, 3], "x"),
        ("vertical", ["a", "b", "c"], [4, 5, 6], "y"),
    ]
    chart = only(plotted(context, frame + "df.plot.barh(stacked=True)"))
    assert bars(chart, "base") == [
        ("horizontal", ["a", "b", "c"], [1, 2, 3], None),
        ("horizontal", ["a", "b", "c"], [4, 5, 6], [1, 2, 3]),
    ]
    chart = only(plotted(context, frame + "df.plot.hist(bins=[1, 4, 7])"))
    assert parts(chart, "name", "edges", "counts") == [
        ("x", [1, 4, 7], [3, 0]),
        ("y", [1, 4, 7], [0, 3]),
    ]
    chart = only(plotted(context, frame + "df.plot.box()"))
    assert chart["series"][0]["categories"] == ["x", "y"]
    chart = only(plotted(context, frame + "df.plot.area()"))
    assert chart["type"] == "area" and parts(chart, "name", "y", "base") == [
        ("x", [1, 2, 3], [0, 0, 0]),
        ("y", [5, 7, 9], [1, 2, 3]),
    ]
    chart = only(plotted(context, frame + "df['x'].plot.pie()"))
    assert [(s["label"], s["value"]) for s in chart["series"][0]["slices"]] == [
        ("a", 1),
        ("b", 2),
        ("c", 3),
    ]
    chart = only(plotted(context, frame + "df.plot(secondary_y='y')"))
    assert parts(chart, "name", "y_axis") == [("x", None), ("y (right)", "y2")]


@pytest.mark.parametrize(
    "index, expected",
    [
        ("pd.date_range('2026-01-01', periods=2)", ["2026-01-01T00:00:00", "2026-01-02T00:00:00"]),
        (
            "pd.to_datetime(['2026-01-01 00:00', '2026-01-05 06:30'])",
            ["2026-01-01T00:00:00", "2026-01-05T06:30:00"],
        ),
        (
            "pd.period_range('2026-01', periods=2, freq='M')",
            ["2026-01-01T00:00:00", "2026-02-01T00:00:00"],
        ),
        (
            "pd.date_range('2026-01-01', periods=2, freq='15min')",
            ["2026-01-01T00:00:00", "2026-01-01T00:15:00"],
        ),
    ],
)
def test_pandas_dates(context, index, expected):
    chart = only(
        plotted(context, "import pandas as pd\npd.Series([1, 2], index=%s).plot()" % index)
    )
    assert chart["axes"]["x"]["scale"] == "datetime" and parts(chart, "x", "y") == [
        (expected, [1, 2])
    ]
