"""Chart data of figures that are large, strange or hostile; figures stay as they were."""

import json

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
