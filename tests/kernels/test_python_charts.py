"""Chart data of matplotlib: lines, points, areas and axes, with known numbers."""

import pytest

from charting import only, parts, plotted


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
