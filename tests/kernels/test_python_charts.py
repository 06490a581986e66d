"""Chart data of matplotlib: every kind of artist with known numbers."""

import json
import math

import pytest

from charting import (
    CHART,
    DOCUMENT_BYTES_MAX,
    PLOT,
    POINTS_MAX,
    bundles,
    document,
    only,
    parts,
    plotted,
)


def close(found, expected):
    """Equal but for what is lost when a computer adds up."""
    assert len(found) == len(expected)
    assert all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(found, expected)), (
        found
    )


# === lines and points ===


def test_lines(context):
    made = plotted(
        context,
        "plt.plot([1, 2, 3], [4, 5, 9], color='#ff0000', label='first')\n"
        "plt.plot([1, 3], [7.5, 8], '--', label='second')\n"
        "plt.legend(title='kind')\nplt.title('Title'); plt.xlabel('Time (s)'); plt.ylabel('Speed [m/s]')",
    )
    chart = only(made)
    assert (made["library"], made["type"], made["title"], chart["title"]) == (
        "matplotlib",
        "line",
        None,
        "Title",
    )
    assert chart["series"] == [
        {"type": "line", "name": "first", "color": "#ff0000", "x": [1, 2, 3], "y": [4, 5, 9]},
        {
            "type": "line",
            "name": "second",
            "color": "#1f77b4",
            "x": [1, 3],
            "y": [7.5, 8],
            "dash": "dashed",
        },
    ]
    assert chart["legend"] == {"title": "kind", "labels": ["first", "second"]}
    x, y = chart["axes"]["x"], chart["axes"]["y"]
    assert (x["label"], x["unit"], x["scale"]) == ("Time (s)", "s", "linear")
    assert (y["label"], y["unit"]) == ("Speed [m/s]", "m/s")
    assert x["limits"] == pytest.approx([0.9, 3.1])
    assert "omitted" not in made and "unknown" not in made


def test_ticks_are_those_in_view(context):
    chart = only(
        plotted(
            context,
            "plt.plot([0, 10]); plt.xticks([-5, 0, 1], ['out', 'zero', 'one'])\nplt.xlim(-0.5, 1.5)",
        )
    )
    assert chart["axes"]["x"]["ticks"] == {"values": [0, 1], "labels": ["zero", "one"]}
    assert chart["axes"]["x"]["scale"] == "linear"


def test_steps_and_markers(context):
    chart = only(
        plotted(context, "plt.step([1, 2], [3, 4], where='post'); plt.plot([1, 2], [5, 6], 'o')")
    )
    assert parts(chart, "type", "step", "marker", "y") == [
        ("line", "post", None, [3, 4]),
        ("scatter", None, "o", [5, 6]),
    ]
    assert chart["type"] == "combo"


def test_scatter_with_sizes_and_values(context):
    chart = only(
        plotted(
            context,
            "plt.scatter([1, 2, 3], [4, 5, 6], c=[7, 8, 9], s=[10, 20, 30], cmap='plasma')\nplt.colorbar(label='heat')",
        )
    )
    (one,) = chart["series"]
    assert (one["x"], one["y"], one["sizes"], one["values"]) == (
        [1, 2, 3],
        [4, 5, 6],
        [10, 20, 30],
        [7, 8, 9],
    )
    assert one["color"] is None
    assert one["color_scale"] == {"name": "plasma", "limits": [7, 9], "label": "heat"}


def test_scatter_with_colours_of_points(context):
    chart = only(plotted(context, "plt.scatter([1, 2], [3, 4], c=['red', '#00ff00'])"))
    assert parts(chart, "colors") == [(["#ff0000", "#00ff00"],)]


def test_missing_values(context):
    chart = only(
        plotted(
            context,
            "plt.plot([1, 2, 3], [np.nan, 5, np.inf]); plt.plot(np.ma.array([1, 2, 3], mask=[0, 1, 0]))\n"
            "plt.scatter(np.ma.array([1, 2], mask=[1, 0]), [-np.inf, 2])",
        )
    )
    assert [one["y"] for one in chart["series"]] == [[None, 5, None], [1, None, 3], [None, 2]]


def test_references(context):
    chart = only(
        plotted(
            context,
            "plt.plot([1, 2]); plt.axhline(1.5, color='k', label='limit'); plt.axvline(0.5)\n"
            "plt.axvspan(0.25, 0.75, color='g'); plt.axhspan(1, 2); plt.axline((0, 0), slope=2)",
        )
    )
    assert chart["type"] == "line" and len(chart["series"]) == 1
    limit, upright, span, flat, slanted = chart["references"]
    assert limit == {
        "type": "reference",
        "name": "limit",
        "color": "#000000",
        "axis": "y",
        "value": 1.5,
    }
    assert (upright["axis"], upright["value"]) == ("x", 0.5)
    assert (span["axis"], span["from"], span["to"]) == ("x", 0.25, 0.75)
    assert (flat["axis"], flat["from"], flat["to"]) == ("y", 1, 2)
    assert (slanted["through"], slanted["slope"]) == ([0, 0], 2)


def test_stem_segments_and_vectors(context):
    chart = only(plotted(context, "plt.stem([1, 2], [3, 4], label='s')"))
    assert parts(chart, "type", "name", "x", "y", "base") == [("stem", "s", [1, 2], [3, 4], 0)]
    chart = only(plotted(context, "plt.hlines([1, 2], 0, 3, colors='r'); plt.vlines(5, 0, 1)"))
    assert parts(chart, "type", "x", "y", "x2", "y2") == [
        ("segments", [0, 0], [1, 2], [3, 3], [1, 2]),
        ("segments", [5], [0], [5], [1]),
    ]
    chart = only(plotted(context, "plt.quiver([1, 2], [3, 4], [5, 6], [7, 8])"))
    assert parts(chart, "type", "x", "y", "u", "v") == [("vectors", [1, 2], [3, 4], [5, 6], [7, 8])]


def test_polar_and_three_dimensions(context):
    made = only(plotted(context, "plt.polar([0, 1, 2], [3, 4, 5])"))
    assert made["projection"] == "polar" and parts(made, "x", "y") == [([0, 1, 2], [3, 4, 5])]
    made = plotted(
        context,
        "ax = plt.figure().add_subplot(projection='3d')\nax.plot([1, 2], [3, 4], [5, 6])\n"
        "ax.scatter([1, 2], [3, 4], [5, 6], c=[7, 8]); ax.set_zlabel('Z (m)')\n"
        "ax.plot_surface(*np.meshgrid([0, 1], [0, 1]), np.zeros((2, 2)))",
    )
    chart = only(made)
    assert parts(chart, "type", "x", "y", "z", "values") == [
        ("line", [1, 2], [3, 4], [5, 6], None),
        ("scatter", [1, 2], [3, 4], [5, 6], [7, 8]),
    ]
    assert chart["axes"]["z"]["unit"] == "m" and made["unknown"] == ["Poly3DCollection"]


# === bars ===


def bars(chart, *fields):
    assert {one["type"] for one in chart["series"]} == {"bar"}
    return parts(chart, "orientation", "categories", "values", *fields)


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


# === error bars, areas ===


def test_error_bars(context):
    chart = only(
        plotted(
            context,
            "plt.errorbar([1, 2], [3, 4], yerr=[[0.5, 1], [2, 3]], xerr=0.25, label='e', fmt='o', capsize=3)",
        )
    )
    (one,) = chart["series"]
    assert (one["type"], one["name"], one["x"], one["y"]) == ("scatter", "e", [1, 2], [3, 4])
    assert one["y_error"] == {"low": [2.5, 3], "high": [5, 7]}
    assert one["x_error"] == {"low": [0.75, 1.75], "high": [1.25, 2.25]}
    chart = only(plotted(context, "plt.errorbar([1, 2], [3, 4], yerr=1, fmt='none')"))
    assert parts(chart, "type", "y_error") == [("error_bar", {"low": [2, 3], "high": [4, 5]})]


def test_areas(context):
    chart = only(plotted(context, "plt.fill_between([1, 2, 3], [4, 5, 6], label='f')"))
    assert parts(chart, "type", "name", "x", "y", "base") == [
        ("area", "f", [1, 2, 3], [4, 5, 6], [0, 0, 0])
    ]
    chart = only(
        plotted(
            context, "plt.plot([1, 2], [3, 4]); plt.fill_between([1, 2], [2, 3], [5, 6], alpha=0.2)"
        )
    )
    assert chart["type"] == "line" and parts(chart, "type", "y", "base") == [
        ("line", [3, 4], None),
        ("area", [5, 6], [2, 3]),
    ]
    chart = only(plotted(context, "plt.stackplot([1, 2], [1, 2], [3, 4], labels=['u', 'v'])"))
    assert parts(chart, "name", "y", "base") == [("u", [1, 2], [0, 0]), ("v", [4, 6], [1, 2])]
    chart = only(plotted(context, "plt.fill_betweenx([1, 2], [3, 4])"))
    assert parts(chart, "orientation", "y", "x", "base") == [("horizontal", [1, 2], [3, 4], [0, 0])]


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


# === axes ===


def test_combination_on_two_axes(context):
    chart = only(
        plotted(
            context,
            "fig, ax = plt.subplots()\nax.bar(['a', 'b'], [3, 4], label='bars'); ax.set_ylabel('left')\n"
            "right = ax.twinx(); right.plot(['a', 'b'], [30, 40], 'r', label='line'); right.set_ylabel('right [%]')\n"
            "ax.legend(); right.legend()",
        )
    )
    assert chart["type"] == "combo" and sorted(chart["axes"]) == ["x", "y", "y2"]
    assert chart["axes"]["y2"]["unit"] == "%"
    assert parts(chart, "type", "name", "y_axis") == [("bar", "bars", None), ("line", "line", "y2")]
    assert chart["series"][0]["values"] == [3, 4] and chart["series"][1]["x"] == ["a", "b"]
    assert chart["legend"]["labels"] == ["bars", "line"]


def test_bars_and_a_line_on_one_axis(context):
    chart = only(plotted(context, "plt.bar([1, 2], [3, 3]); plt.plot([1, 2], [4, 5])"))
    assert chart["type"] == "combo"
    assert parts(chart, "type", "values", "y") == [("bar", [3, 3], None), ("line", None, [4, 5])]


def test_subplots(context):
    made = plotted(
        context,
        "fig, axs = plt.subplots(2, 2)\naxs[0, 1].plot([1, 2]); axs[1, 0].scatter([1], [2]); axs[0, 1].set_title('upper')\n"
        "fig.suptitle('all')",
    )
    assert (made["type"], made["title"]) == ("multiple", "all")
    assert [(c["type"], c["title"], c["position"]) for c in made["charts"]] == [
        ("line", "upper", {"row": 0, "column": 1, "rows": 2, "columns": 2}),
        ("scatter", None, {"row": 1, "column": 0, "rows": 2, "columns": 2}),
    ]


def test_dates(context):
    code = "import datetime as d\nplt.plot([d.datetime(2026, 1, 1), d.datetime(2026, 3, 1, 12, 30, 15, 250000)], [1, 2])"
    chart = only(plotted(context, code))
    assert chart["axes"]["x"]["scale"] == "datetime"
    assert chart["series"][0]["x"] == ["2026-01-01T00:00:00", "2026-03-01T12:30:15.250000"]
    chart = only(
        plotted(context, "plt.plot(np.array(['2026-01-01', 'NaT'], dtype='M8[D]'), [1, 2])")
    )
    assert chart["series"][0]["x"] == ["2026-01-01T00:00:00", None]
    code = "import datetime as d\nz = d.timezone(d.timedelta(hours=2))\nplt.plot([d.datetime(2026, 1, 1, tzinfo=z)], [1], 'o')"
    assert only(plotted(context, code))["series"][0]["x"] == ["2026-01-01T00:00:00+02:00"]


def test_scales(context):
    chart = only(plotted(context, "plt.loglog([1, 10], [10, 100])"))
    assert (chart["axes"]["x"]["scale"], chart["axes"]["y"]["scale"]) == ("log", "log")
    assert parts(chart, "x", "y") == [([1, 10], [10, 100])]
    chart = only(
        plotted(context, "plt.plot([1, 2]); plt.yscale('symlog'); plt.gca().invert_xaxis()")
    )
    assert chart["axes"]["y"]["scale"] == "symlog" and chart["axes"]["x"]["inverted"] is True


def test_annotations(context):
    chart = only(
        plotted(
            context,
            "plt.plot([1, 2]); plt.text(0.5, 1.5, 'note'); plt.annotate('tip', (1, 2), (0, 1), arrowprops={})\nplt.figtext(0, 0, 'elsewhere')",
        )
    )
    assert chart["annotations"] == [
        {"text": "note", "x": 0.5, "y": 1.5},
        {"text": "tip", "x": 1, "y": 2},
    ]


# === seaborn and pandas ===

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


# === bounds and harm ===


def test_points_are_thinned_evenly_and_counted(context):
    made = plotted(context, "plt.plot(np.arange(50_001), np.arange(50_001) * 2)")
    (one,) = only(made)["series"]
    assert (
        len(one["x"]) == POINTS_MAX
        and one["omitted"] == 40_001
        and made["omitted"] == {"points": 40_001}
    )
    assert (one["x"][0], one["x"][-1], one["y"][-1]) == (0, 50_000, 100_000)
    assert all(b == 2 * a for a, b in zip(one["x"], one["y"]))


def test_many_series_share_and_are_counted(context):
    made = plotted(context, "for n in range(500): plt.plot(np.arange(1000) + n)")
    chart = only(made)
    assert len(chart["series"]) == 200 and made["omitted"]["series"] == 300
    assert all(len(one["x"]) >= 50 for one in chart["series"])
    assert made["omitted"]["points"] == sum(one["omitted"] for one in chart["series"])


def test_many_charts_are_counted(context):
    made = plotted(
        context,
        "fig, axs = plt.subplots(9, 9, figsize=(3, 3))\nfor ax in axs.flat: ax.plot([1, 2])",
    )
    assert len(made["charts"]) == 64 and made["omitted"] == {"charts": 17}


@pytest.mark.parametrize(
    "code",
    [
        "plt.imshow(np.zeros((2000, 3000)))",
        "plt.bar(np.arange(3000), np.arange(3000))",
        "plt.plot(['%05d' % n + 'é' * 1000 for n in range(3000)], range(3000)); plt.xticks([])",
        "plt.scatter(np.arange(30_000), np.arange(30_000), c=np.random.rand(30_000, 3))",
        "plt.pie(np.ones(600), labels=['é' * 30] * 600)",
        "for n in range(1100): plt.text(0, 1, 'é' * 20, size=1)\nplt.plot([1, 2])",
        "plt.boxplot([np.random.standard_cauchy(20_000) for _ in range(5)])",
        "plt.contour(np.random.rand(200, 200))",
    ],
)
def test_large_figures_are_bounded(context, code):
    run = context.run(PLOT + code + "\nplt.show()")
    data = bundles(run)[-1]
    assert len(json.dumps(data[CHART], ensure_ascii=False).encode()) < DOCUMENT_BYTES_MAX
    assert data[CHART].get("omitted") or "scatter" not in code


def test_unknown_artists_are_named(context):
    made = plotted(context, "plt.plot([1, 2]); plt.table([['a']]); plt.fill([1, 2, 3], [1, 3, 1])")
    assert made["unknown"] == ["Table", "Polygon"] or sorted(made["unknown"]) == [
        "Polygon",
        "Table",
    ]
    assert len(only(made)["series"]) == 1
    made = plotted(context, "plt.fill([1, 2, 3], [1, 3, 1])")
    assert only(made)["type"] == "unknown" and made["unknown"] == ["Polygon"]


def test_a_figure_without_data_has_no_chart(context):
    for code in ("plt.figure().text(0.5, 0.5, 'only text')", "plt.subplots()"):
        run = context.run(PLOT + code + "\nplt.show()")
        assert run.status == "ok" and all(CHART not in bundle for bundle in bundles(run))


def test_one_bad_artist_does_not_hide_the_others(context):
    made = plotted(
        context,
        "class L(plt.Line2D):\n    def get_color(self): return 5 if self.late else 'r'\n    late = False\n"
        "class V(plt.Line2D):\n    def get_xdata(self, orig=True): return 1 / 0 if self.late else super().get_xdata(orig)\n"
        "    late = False\nax = plt.gca(); ax.plot([1, 2], [3, 4], label='good'); v = V([1, 2], [3, 4]); ax.add_line(v)\n"
        "ax.figure.canvas.mpl_connect('draw_event', lambda e: setattr(v, 'late', True))\nplt.imshow([[1, 2]]); plt.text(0, 0, 'x')",
    )
    assert made["unknown"] == ["V"]
    assert parts(only(made), "type", "name") == [("line", "good"), ("heatmap", None)]


def test_what_is_hidden_or_removed_is_not_told(context):
    chart = only(
        plotted(
            context,
            "b = plt.bar(['a', 'b'], [1, 2]); [r.set_visible(False) for r in b]; plt.plot(['a'], [1])[0].set_visible(False)\n"
            "plt.plot(['a', 'b'], [3, 4]); t = plt.text(0, 1, 'hidden'); t.set_visible(False)",
        )
    )
    assert parts(chart, "type", "y") == [("line", [3, 4])] and "annotations" not in chart
    made = plotted(
        context, "n, e, p = plt.hist([1, 2, 2], bins=2); p[0].remove(); plt.plot([1, 2])"
    )
    assert len(only(made)["series"]) >= 1


HOSTILE = [
    # artists that raise, lie or are endless
    "class L(plt.Line2D):\n    def get_xdata(self, orig=True): raise KeyError\nplt.gca().add_line(L([1, 2], [3, 4]))",
    "class L(plt.Line2D):\n    def get_label(self): return 5\nplt.gca().add_line(L([1, 2], [3, 4]))",
    "class L(plt.Line2D):\n    def get_color(self): return 'no colour'\nplt.gca().add_line(L([1, 2], [3, 4]))",
    "class L(plt.Line2D):\n    def get_xdata(self, orig=True): return np.arange(10)\n    def get_ydata(self, orig=True): return np.arange(3)\nplt.gca().add_line(L([1, 2], [3, 4]))",
    "class L(plt.Line2D):\n    def get_transform(self): return object() if getattr(self, 'on', 0) else super().get_transform()\nl = L([1, 2], [3, 4]); plt.gca().add_line(l)",
    "class S(str):\n    def __len__(self): return -5\n    def __str__(self): raise ValueError\nplt.plot([1, 2], label='x'); plt.gca().lines[0]._label = S('lie')",
    "class P(list):\n    def __len__(self): return 10 ** 9\nplt.gca().lines\nplt.plot(P([1, 2]))",
    "plt.plot([1, 2]); plt.gca().containers.append(5)",
    "plt.plot([1, 2]); plt.gca().containers.append(object())",
    "b = plt.bar(['a'], [1]); b.patches = None",
    "b = plt.bar(['a', 'b'], [1, 2]); b.errorbar = 'x'",
    "b = plt.bar(['a', 'b'], [1, 2]); b[0].set_label(5)",
    "plt.hist([1, 2]); plt.gca().patches[0].remove()",
    "d = plt.boxplot([1, 2, 3]); d['medians'][0].remove()",
    "plt.pie([1, 2])[0][0].set_theta1(float('nan'))",
    "ax = plt.gca(); ax.plot([1, 2]); ax.xaxis.freq = 'M'",
    "ax = plt.gca(); ax.plot(['a', 'b'], [1, 2]); ax.xaxis.get_units()._mapping.clear()",
    "plt.plot([1, 2]); plt.gca().get_legend = lambda: 5",
    "plt.plot([1, 2], [10 ** 400, 1]) if 0 else plt.plot([1, 2], [1e308, -1e308])",
    "plt.plot([1, 2]); plt.gcf()._suptitle = 5",
    "plt.gca()._colorbar = 1; plt.plot([1, 2])",
]


@pytest.mark.parametrize("code", HOSTILE)
def test_hostile_figures(context, code):
    context.run("kept = 1")
    run = context.run(PLOT + code + "\nplt.show()")
    assert run.events[-1]["ev"] == "done"
    for bundle in bundles(run):
        if CHART in bundle:
            assert bundle[CHART]["charts"]
    context.run("plt.close('all')")
    assert context.run("kept").text == "1"


def test_an_endless_artist_can_be_interrupted(context):
    context.begin(
        PLOT
        + "class L(plt.Line2D):\n    def get_label(self):\n        if drawn:\n            print('reading', flush=True)\n"
        "            while True: pass\n        return 'l'\ndrawn = []\nplt.gca().add_line(L([1, 2], [3, 4]))\n"
        "fig = plt.gcf(); fig.canvas.mpl_connect('draw_event', drawn.append); plt.show()"
    )
    context.wait_output(b"reading")
    context.interrupt(frame=True)
    run = context.finish()
    assert run.status == "interrupted"
    assert context.run("plt.close('all'); 1+1").text == "2"


def test_the_figure_stays_as_it_was(context):
    run = context.run(
        PLOT + "import io\n"
        "def png():\n    b = io.BytesIO(); fig.savefig(b, format='png', metadata={'Software': None}); return b.getvalue()\n"
        "fig, (ax, bx, cx) = plt.subplots(1, 3)\nax.bar(['a', 'b'], [1, 2], yerr=1, label='l'); ax.legend(); ax.twinx().plot([3, 4])\n"
        "bx.boxplot([1, 2, 30]); cx.hist([1, 2, 2]); cx.set_yscale('log')\n"
        "before = png()\ndisplay(fig)\nprint(png() == before, len(ax.lines), len(ax.texts))\nplt.close()"
    )
    assert document(run)["type"] == "multiple"
    assert run.out.startswith("True "), run.err


def test_pickled_figures_have_no_records_and_are_read(context):
    run = context.run(
        PLOT
        + "import pickle\nplt.hist([1, 1, 2, 3], bins=3); data = pickle.dumps(plt.gcf()); plt.close()\n"
        "fig = pickle.loads(data)\nplt.show()"
    )
    (one,) = only(document(run))["series"]
    assert one["type"] == "histogram" and one["counts"] == [2, 1, 1]


def test_wrapped_methods_are_what_they_were(context):
    run = context.run(
        PLOT + "import inspect, matplotlib\nAxes = matplotlib.axes.Axes\n"
        "n, bins, patches = plt.hist([1, 2, 2], bins=2); plt.close()\n"
        "list(n), 'bins' in inspect.signature(Axes.hist).parameters, Axes.hist.__name__, plt.pie.__doc__ is not None"
    )
    assert run.text == "([np.float64(1.0), np.float64(2.0)], True, 'hist', True)"
    run = context.run("plt.hist([1], bins='nothing')")
    assert run.error and not any("crownest_kernel" in line for line in run.error["traceback"])


def test_every_way_to_show_a_figure(context):
    run = context.run(PLOT + "fig, ax = plt.subplots(); ax.plot([1, 2])\nfig")
    assert CHART in run.result and "image/png" in run.result
    run = context.run("display(fig)\nplt.close('all')")
    assert CHART in run.of("display")[0]["data"]
    run = context.run("plt.plot([1, 2]); None")
    assert only(document(run))["type"] == "line"
    run = context.run("plt.plot([1]); plt.show(); plt.plot([2]); plt.show()")
    assert [b[CHART]["charts"][0]["series"][0]["y"] for b in bundles(run)] == [[1], [2]]
    run = context.run(
        "from matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('svg')\nplt.bar(['a'], [1]); None"
    )
    assert only(document(run, "image/svg+xml"))["type"] == "bar"
