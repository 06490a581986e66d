"""Chart data of matplotlib: bars, histograms, boxes, violins, pies and heatmaps, with known numbers."""

import pytest

from charting import bars, close, only, parts, plotted


# === bars ===


def test_bars_of_equal_height_and_a_single_bar(context):
    assert bars(only(plotted(context, "plt.bar(['a', 'b', 'c'], [5, 5, 5])"))) == [
        ("vertical", ["a", "b", "c"], [5, 5, 5])
    ]
    assert bars(only(plotted(context, "plt.bar(['only'], [5])"))) == [("vertical", ["only"], [5])]
    assert bars(only(plotted(context, "plt.barh(['a', 'b'], [2, 2])"))) == [
        ("horizontal", ["a", "b"], [2, 2])
    ]
    assert bars(only(plotted(context, "plt.barh(['only'], [7])"))) == [
        ("horizontal", ["only"], [7])
    ]
    assert bars(only(plotted(context, "plt.bar([1, 2, 3], [4, 4, 4], width=1)"))) == [
        ("vertical", [1, 2, 3], [4, 4, 4])
    ]
    assert bars(only(plotted(context, "plt.bar([0.1, 0.3], [4, 4], width=0.1)"))) == [
        ("vertical", [0.1, 0.3], [4, 4])
    ]


def test_categories_of_bars(context):
    chart = only(plotted(context, "plt.bar(['b', 'a'], [1, 2], color=['red', 'blue'], label='L')"))
    assert chart["axes"]["x"]["scale"] == "categorical" and chart["axes"]["x"]["categories"] == [
        "b",
        "a",
    ]
    assert parts(chart, "name", "color", "positions") == [("L", None, [0, 1])]
    assert chart["axes"]["y"]["scale"] == "linear"


def test_grouped_bars_with_errors(context):
    chart = only(
        plotted(
            context,
            "x = np.arange(3)\nplt.bar(x - 0.2, [1, 2, 3], 0.4, label='men', yerr=[0.5, 0.25, 1])\n"
            "plt.bar(x + 0.2, [3, 3, 3], 0.4, label='women')\nplt.xticks(x, ['G1', 'G2', 'G3']); plt.legend()",
        )
    )
    assert bars(chart, "name") == [
        ("vertical", ["G1", "G2", "G3"], [1, 2, 3], "men"),
        ("vertical", ["G1", "G2", "G3"], [3, 3, 3], "women"),
    ]
    assert chart["series"][0]["error"] == {"low": [0.5, 1.75, 2], "high": [1.5, 2.25, 4]}
    assert chart["series"][0]["positions"] == pytest.approx([-0.2, 0.8, 1.8])
    assert chart["bar_mode"] == "grouped" and chart["axes"]["x"]["categories"] == ["G1", "G2", "G3"]


def test_stacked_bars(context):
    chart = only(
        plotted(
            context,
            "plt.bar(['a', 'b'], [1, 2], label='p'); plt.bar(['a', 'b'], [3, 3], bottom=[1, 2], label='q')",
        )
    )
    assert bars(chart, "name", "base") == [
        ("vertical", ["a", "b"], [1, 2], "p", None),
        ("vertical", ["a", "b"], [3, 3], "q", [1, 2]),
    ]
    assert chart["bar_mode"] == "stacked"
    chart = only(
        plotted(context, "plt.barh(['a'], [-1]); plt.barh(['a'], [3], left=[1], xerr=[[1], [2]])")
    )
    assert bars(chart, "base", "error") == [
        ("horizontal", ["a"], [-1], None, None),
        ("horizontal", ["a"], [3], [1], {"low": [3], "high": [6]}),
    ]


def test_grouped_bar_of_matplotlib(context):
    chart = only(
        plotted(context, "plt.grouped_bar({'a': [1, 1], 'b': [3, 4]}, tick_labels=['p', 'q'])")
    )
    assert bars(chart, "name") == [
        ("vertical", ["p", "q"], [1, 1], "a"),
        ("vertical", ["p", "q"], [3, 4], "b"),
    ]


def test_bars_over_dates(context):
    chart = only(
        plotted(
            context,
            "import datetime as d\nplt.bar([d.date(2026, 1, 1), d.date(2026, 1, 2)], [3, 4])",
        )
    )
    assert bars(chart) == [("vertical", ["2026-01-01T00:00:00", "2026-01-02T00:00:00"], [3, 4])]
    assert chart["axes"]["x"]["scale"] == "datetime"


def test_labels_of_bars_are_annotations(context):
    chart = only(plotted(context, "plt.bar_label(plt.bar(['a', 'b'], [1, 2]))"))
    assert chart["annotations"] == [{"text": "1", "x": 0, "y": 1}, {"text": "2", "x": 1, "y": 2}]


# === histograms ===


def test_histogram(context):
    chart = only(
        plotted(context, "plt.hist([1, 1, 2, 3, 3, 3], bins=[1, 2, 3, 4], label='h', color='red')")
    )
    assert chart["type"] == "histogram"
    assert parts(chart, "name", "color", "edges", "counts", "orientation") == [
        ("h", "#ff0000", [1, 2, 3, 4], [2, 1, 3], "vertical")
    ]


@pytest.mark.parametrize(
    "options",
    [
        "rwidth=0.5",
        "align='left'",
        "histtype='step'",
        "histtype='stepfilled'",
        "color='g', edgecolor='k'",
        "log=True",
    ],
)
def test_histograms_of_every_look(context, options):
    chart = only(plotted(context, "plt.hist([1, 1, 2, 3], bins=[1, 2, 3, 4], %s)" % options))
    assert parts(chart, "type", "edges", "counts") == [("histogram", [1, 2, 3, 4], [2, 1, 1])]
    assert chart["axes"]["y"]["scale"] == ("log" if "log" in options else "linear")


def test_histograms_of_several(context):
    for options in (
        "stacked=True",
        "stacked=True, histtype='step'",
        "histtype='bar'",
        "histtype='barstacked'",
    ):
        chart = only(
            plotted(
                context,
                "plt.hist([[1, 1, 2], [2, 3, 3]], bins=[1, 2, 3], label=['u', 'v'], %s)" % options,
            )
        )
        found = sorted(parts(chart, "type", "name", "edges", "counts"), key=lambda part: part[1])
        assert found == [
            ("histogram", "u", [1, 2, 3], [2, 1]),
            ("histogram", "v", [1, 2, 3], [0, 3]),
        ], options
    chart = only(
        plotted(
            context,
            "plt.hist([1, 2, 3, 3], bins=2, orientation='horizontal', density=True, cumulative=True)",
        )
    )
    assert parts(chart, "orientation", "density", "cumulative", "edges") == [
        ("horizontal", True, True, [1, 2, 3])
    ]
    close(chart["series"][0]["counts"], [0.25, 1])


def test_histograms_that_are_drawn_as_bars(context):
    chart = only(
        plotted(
            context,
            "c, e = np.histogram([1, 2, 3, 4, 5], bins=2)\nplt.bar(e[:-1], c, width=np.diff(e), align='edge')",
        )
    )
    assert parts(chart, "type", "edges", "counts") == [("histogram", [1, 3, 5], [2, 3])]
    chart = only(plotted(context, "plt.stairs([1, 2], [0, 1, 3], label='s')"))
    assert parts(chart, "type", "name", "edges", "counts") == [
        ("histogram", "s", [0, 1, 3], [1, 2])
    ]


# === boxes, violins, pies ===


def test_boxes_with_outliers(context):
    code = "plt.boxplot([[1, 2, 3, 4, 5, 20], [2, 3, 4]], tick_labels=['A', 'B'], %s)"
    boxes = [
        {
            "min": 1,
            "first_quartile": 2.25,
            "median": 3.5,
            "third_quartile": 4.75,
            "max": 5,
            "mean": 35 / 6,
            "outliers": [20],
        },
        {
            "min": 2,
            "first_quartile": 2.5,
            "median": 3,
            "third_quartile": 3.5,
            "max": 4,
            "mean": 3,
            "outliers": [],
        },
    ]
    for options in (
        "patch_artist=True",
        "notch=True",
        "showmeans=True",
        "showcaps=False",
        "meanline=True",
    ):
        chart = only(plotted(context, code % options))
        assert chart["type"] == "box", options
        (one,) = chart["series"]
        assert (one["categories"], one["orientation"], one["boxes"]) == (
            ["A", "B"],
            "vertical",
            boxes,
        ), options
    chart = only(plotted(context, code % "showfliers=False, orientation='horizontal'"))
    (one,) = chart["series"]
    assert one["orientation"] == "horizontal" and [box["outliers"] for box in one["boxes"]] == [
        [],
        [],
    ]


def test_labels_of_boxes_that_are_set_later(context):
    chart = only(
        plotted(
            context, "plt.boxplot([[1, 2], [3, 4]])\nplt.gca().set_xticklabels(['late', 'later'])"
        )
    )
    assert chart["series"][0]["categories"] == ["late", "later"]


def test_violins(context):
    chart = only(
        plotted(
            context,
            "plt.violinplot([[1, 2, 3, 4, 5], [2, 2.5, 3]], points=5, showmedians=True, quantiles=[[0.5], []])",
        )
    )
    assert chart["type"] == "violin"
    (one,) = chart["series"]
    assert one["categories"] == [1, 2]
    first, second = one["violins"]
    assert (first["min"], first["median"], first["mean"], first["max"], first["quantiles"]) == (
        1,
        3,
        3,
        5,
        [3],
    )
    assert (
        first["values"] == [1, 2, 3, 4, 5]
        and len(first["density"]) == 5
        and max(first["density"]) == first["density"][2]
    )
    assert (second["min"], second["max"]) == (2, 3)


def test_pie(context):
    chart = only(
        plotted(
            context,
            "plt.pie([1, 2, 5], labels=['a', 'b', 'c'], colors=['r', 'g', 'b'], autopct='%d%%', explode=[0, 0.1, 0], startangle=90)",
        )
    )
    assert chart["type"] == "pie" and chart["axes"] == {} and "annotations" not in chart
    assert chart["series"][0]["slices"] == [
        {"label": "a", "value": 1, "fraction": 0.125, "angle": 45, "radius": 1, "color": "#ff0000"},
        {"label": "b", "value": 2, "fraction": 0.25, "angle": 90, "radius": 1, "color": "#008000"},
        {
            "label": "c",
            "value": 5,
            "fraction": 0.625,
            "angle": 225,
            "radius": 1,
            "color": "#0000ff",
        },
    ]


def test_donut_and_pies_without_labels(context):
    chart = only(
        plotted(context, "plt.pie([1, 3]); plt.pie([1, 1], radius=0.5, wedgeprops={'width': 0.25})")
    )
    outer, inner = chart["series"]
    assert [part["value"] for part in outer["slices"]] == [1, 3] and "hole" not in outer
    assert [part["label"] for part in outer["slices"]] == [None, None]
    assert inner["hole"] == 0.25 and [part["radius"] for part in inner["slices"]] == [0.5, 0.5]


# === heatmaps ===


def test_heatmap_of_imshow_with_annotations(context):
    chart = only(
        plotted(
            context,
            "data = np.array([[1, 2, 3], [4, np.nan, 6]])\nplt.imshow(data, cmap='hot', vmin=0, vmax=10)\n"
            "plt.xticks(range(3), ['a', 'b', 'c']); plt.yticks(range(2), ['p', 'q']); plt.colorbar(label='n')\n"
            "for i in range(2):\n    for j in range(3): plt.text(j, i, 't%d%d' % (i, j), ha='center')",
        )
    )
    assert chart["type"] == "heatmap" and "annotations" not in chart
    (one,) = chart["series"]
    assert (one["x"], one["y"], one["values"]) == (
        ["a", "b", "c"],
        ["p", "q"],
        [[1, 2, 3], [4, None, 6]],
    )
    assert one["texts"] == [["t00", "t01", "t02"], ["t10", "t11", "t12"]]
    assert one["color_scale"] == {"name": "hot", "limits": [0, 10], "label": "n"}
    assert chart["axes"]["y"]["inverted"] is True and chart["axes"]["x"]["categories"] == [
        "a",
        "b",
        "c",
    ]


def test_heatmap_of_pcolormesh_and_its_relatives(context):
    chart = only(plotted(context, "plt.pcolormesh([0, 1, 3], [0, 10, 20], [[1, 2], [3, 4]])"))
    assert parts(chart, "type", "x", "y", "values") == [
        ("heatmap", [0.5, 2], [5, 15], [[1, 2], [3, 4]])
    ]
    chart = only(plotted(context, "plt.hist2d([1, 2, 2], [1, 2, 2], bins=2)"))
    assert parts(chart, "type", "values") == [("heatmap", [[1, 0], [0, 2]])]
    chart = only(
        plotted(context, "plt.imshow([[1, 2], [3, 4]], origin='lower', extent=(0, 4, 10, 30))")
    )
    assert parts(chart, "x", "y", "values") == [([1, 3], [15, 25], [[1, 2], [3, 4]])]
    chart = only(plotted(context, "plt.imshow(np.zeros((4, 5, 3)))"))
    assert parts(chart, "type", "width", "height") == [("image", 5, 4)]


def test_contours_and_hexagons(context):
    chart = only(plotted(context, "plt.contour([[1, 2, 3], [2, 3, 4], [3, 4, 5]], levels=[2.5])"))
    (one,) = chart["series"]
    assert (one["type"], one["levels"], one["filled"]) == ("contour", [2.5], False)
    assert [(p["level"], sorted(p["x"]), sorted(p["y"])) for p in one["paths"]] == [
        (2.5, [0, 0.5, 1, 1.5], [0, 0.5, 1, 1.5])
    ]
    chart = only(plotted(context, "plt.contourf([[1, 2], [2, 3]], levels=[1, 2, 3])"))
    assert parts(chart, "levels", "filled") == [([1, 2, 3], True)]
    chart = only(plotted(context, "plt.hexbin([1, 1, 3], [1, 1, 3], gridsize=2)"))
    assert chart["type"] == "hexbin" and sum(chart["series"][0]["values"]) == 3
