"""For the tests of charts: a figure's document out of a run, and parts of it."""

import math

CHART = "application/vnd.crownest.chart+json"
PLOT = "import matplotlib.pyplot as plt, numpy as np\n"
POINTS_MAX = 10_000
DOCUMENT_BYTES_MAX = 1024 * 1024


def bundles(run):
    """Every bundle that the run showed."""
    return [event["data"] for event in run.events if event["ev"] in ("display", "result")]


def document(run, picture="image/png"):
    """The one chart document of a run, which is beside its picture."""
    assert run.error is None, run.error
    found = [bundle for bundle in bundles(run) if CHART in bundle]
    assert len(found) == 1, (bundles(run), run.err)
    assert picture is None or picture in found[0], list(found[0])
    made = found[0][CHART]
    assert made["version"] == 1 and made["charts"]
    return made


def plotted(context, code):
    """The document of the figure that a cell draws with matplotlib."""
    return document(context.run(PLOT + code + "\nplt.show()"))


def only(made):
    """The chart of a document that has one."""
    assert len(made["charts"]) == 1
    assert made["type"] == made["charts"][0]["type"]
    return made["charts"][0]


def parts(chart, *fields):
    """Of each series the fields that matter, as tuples."""
    return [tuple(one.get(field) for field in fields) for one in chart["series"]]


def bars(chart, *fields):
    assert {one["type"] for one in chart["series"]} == {"bar"}
    return parts(chart, "orientation", "categories", "values", *fields)


def close(found, expected):
    """Equal but for what is lost when a computer adds up."""
    assert len(found) == len(expected)
    assert all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(found, expected)), (
        found
    )
