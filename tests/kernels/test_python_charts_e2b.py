"""The mapping of docs/charts.md onto E2B's chart objects: what it derives has E2B's shape, and, for
figures that E2B's own extractor reads rightly, E2B's very values."""

import base64
import importlib.util
import io
import json
import zipfile
from pathlib import Path

import pytest

from charting import PLOT, document

CHART_FIELDS = {"type", "title", "elements"}
PLANE_FIELDS = CHART_FIELDS | {"x_label", "x_unit", "y_label", "y_unit"}
TICKED_FIELDS = PLANE_FIELDS | {
    "x_scale",
    "x_ticks",
    "x_tick_labels",
    "y_scale",
    "y_ticks",
    "y_tick_labels",
}
POINTS = {"line": "line", "area": "line", "stem": "scatter", "scatter": "scatter"}


def as_e2b(made):
    """E2B's chart object of a document, as the table of docs/charts.md says."""
    found = [piece for chart in made["charts"] for piece in pieces(chart)]
    if len(found) == 1:
        return found[0]
    return {"type": "superchart", "title": made["title"], "elements": found}


def pieces(chart):
    kinds = list(
        dict.fromkeys(E2B_KINDS.get(one["type"], "unknown") for one in chart["series"])
    ) or ["unknown"]
    return [piece(chart, kind) for kind in kinds]


E2B_KINDS = {**POINTS, "bar": "bar", "histogram": "bar", "pie": "pie", "box": "box_and_whisker"}


def piece(chart, kind):
    series = [one for one in chart["series"] if E2B_KINDS.get(one["type"], "unknown") == kind]
    made = {"type": kind, "title": chart["title"], "elements": []}
    if kind in ("line", "scatter", "bar", "box_and_whisker"):
        swapped = any(one.get("orientation") == "horizontal" for one in series)
        for name, source in zip("xy", "yx" if swapped else "xy"):
            axis = chart["axes"][source]
            made.update({name + "_label": axis["label"], name + "_unit": axis["unit"]})
            if kind in ("line", "scatter"):
                ticks = axis.get("ticks", {"values": [], "labels": []})
                made.update(
                    {
                        name + "_scale": axis["scale"],
                        name + "_ticks": ticks["values"],
                        name + "_tick_labels": ticks["labels"],
                    }
                )
    for number, one in enumerate(series):
        made["elements"] += elements(kind, one, number)
    return made


def elements(kind, one, number):
    if kind in ("line", "scatter"):
        points = [[x, y] for x, y in zip(one["x"], one["y"]) if x is not None and y is not None]
        return [{"label": one["name"] or "Line %d" % number, "points": points}]
    if kind == "bar":
        if one["type"] == "histogram":
            names = ["%g – %g" % ends for ends in zip(one["edges"], one["edges"][1:])]
            pairs = zip(names, one["counts"])
        else:
            pairs = zip(one["categories"], one["values"])
        group = one["name"] or "Group %d" % number
        return [
            {"label": label, "group": group, "value": value}
            for label, value in pairs
            if value is not None
        ]
    if kind == "pie":
        return [
            {"label": s["label"] or "", "angle": s["angle"], "radius": s["radius"]}
            for s in one["slices"]
        ]
    if kind == "box_and_whisker":
        wanted = ("min", "first_quartile", "median", "third_quartile", "max", "outliers")
        return [
            {"label": c, **{name: box[name] for name in wanted}}
            for c, box in zip(one["categories"], one["boxes"])
        ]
    return []


def derived(context, code):
    return as_e2b(document(context.run(PLOT + code + "\nplt.show()")))


@pytest.mark.parametrize(
    "code, kind, fields, first",
    [
        (
            "plt.plot([1, 2], [3, 4], label='a')",
            "line",
            TICKED_FIELDS,
            {"label": "a", "points": [[1, 3], [2, 4]]},
        ),
        (
            "plt.scatter([1, 2], [3, np.nan])",
            "scatter",
            TICKED_FIELDS,
            {"label": "Line 0", "points": [[1, 3]]},
        ),
        (
            "plt.bar(['a', 'b'], [5, 5])",
            "bar",
            PLANE_FIELDS,
            {"label": "a", "group": "Group 0", "value": 5},
        ),
        (
            "plt.hist([1, 2, 2], bins=[1, 2, 3])",
            "bar",
            PLANE_FIELDS,
            {"label": "1 – 2", "group": "Group 0", "value": 1},
        ),
        (
            "plt.pie([1, 3], labels=['a', 'b'])",
            "pie",
            CHART_FIELDS,
            {"label": "a", "angle": 90, "radius": 1},
        ),
        (
            "plt.boxplot([[1, 2, 3, 20]], tick_labels=['k'])",
            "box_and_whisker",
            PLANE_FIELDS,
            {
                "label": "k",
                "min": 1,
                "first_quartile": 1.75,
                "median": 2.5,
                "third_quartile": 7.25,
                "max": 7.25,
                "outliers": [20],
            },
        ),
        ("plt.imshow([[1, 2]])", "unknown", CHART_FIELDS, None),
    ],
)
def test_every_kind_has_the_fields_of_e2b(context, code, kind, fields, first):
    made = derived(context, code)
    assert made["type"] == kind and set(made) == fields
    if first is None:
        assert made["elements"] == []
    else:
        assert made["elements"][0] == first


def test_several_charts_and_combinations_are_a_superchart(context):
    made = derived(
        context,
        "fig, axs = plt.subplots(1, 2); axs[0].plot([1, 2]); axs[1].bar(['a'], [1]); fig.suptitle('S')",
    )
    assert (made["type"], made["title"], [e["type"] for e in made["elements"]]) == (
        "superchart",
        "S",
        ["line", "bar"],
    )
    made = derived(context, "plt.bar(['a', 'b'], [1, 2]); plt.plot(['a', 'b'], [3, 4])")
    assert (made["type"], [e["type"] for e in made["elements"]]) == ("superchart", ["bar", "line"])
    assert made["elements"][1]["elements"][0]["points"] == [["a", 3], ["b", 4]]


SAME = [
    "plt.plot([1, 2, 3], [4, 5, 7], label='a'); plt.plot([1, 2, 3], [1, 1, 2], label='b'); plt.xlabel('Time (s)'); plt.title('T')",
    "plt.scatter([1, 2, 3], [4, 5, 6], label='p'); plt.ylabel('Speed [m/s]')",
    "plt.bar(['a', 'b', 'c'], [1, 2, 3], label='g'); plt.xlabel('x')",
    "plt.pie([1, 2, 5], labels=['a', 'b', 'c'])",
    "fig, axs = plt.subplots(1, 2); axs[0].plot([1, 2], label='l'); axs[1].scatter([1, 2], [3, 5], label='s'); fig.suptitle('S')",
]


@pytest.fixture(scope="module")
def e2b_charts():
    """A cell's lines that bring their package. Only the tests have it, not the template, and a forked
    context sees nothing of the host but its own directory."""
    spec = importlib.util.find_spec("e2b_charts")
    assert spec is not None, "scripts/test-requirements.txt is not installed"
    package = Path(spec.submodule_search_locations[0])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in package.rglob("*.py"):
            archive.write(file, file.relative_to(package.parent))
    text = base64.b64encode(packed.getvalue()).decode()
    return (
        f"import base64; open('e2b_charts.zip', 'wb').write(base64.b64decode('{text}'))\n"
        "import sys; sys.path.append('e2b_charts.zip')\n"
    )


@pytest.mark.parametrize("code", SAME)
def test_as_the_extractor_of_e2b_where_it_is_right(context, e2b_charts, code):
    run = context.run(
        PLOT + code + "\nfig = plt.gcf(); fig.canvas.draw()\n"
        + e2b_charts + "import e2b_charts, json\n"
        "print(json.dumps(e2b_charts.chart_figure_to_dict(fig), default=str))\nplt.show()"
    )
    assert run.error is None, run.error
    theirs, ours = json.loads(run.out), as_e2b(document(run))
    for chart in (theirs, ours):
        for one in [chart, *(chart["elements"] if chart["type"] == "superchart" else [])]:
            # They send every tick, in view or not, and labels with a typographical minus.
            for name in ("x_ticks", "y_ticks", "x_tick_labels", "y_tick_labels"):
                one.pop(name, None)
    assert ours == theirs
