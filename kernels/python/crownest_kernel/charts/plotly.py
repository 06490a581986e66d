"""plotly: chart data from the JSON of a figure, as its bundle has it.

plotly.js computes some things where it draws (automatic bins, for one): then the series has the
samples, not what the viewer makes of them.
"""

from . import values
from .budget import SERIES_MAX, Budget
from .described import (
    as_dates,
    as_dict,
    as_list,
    axis,
    categories_of,
    color_of,
    kind_of_values,
    positions,
    stack,
    title_of,
)
from .document import chart, document
from .traces import READERS, column_of

_BAR_MODES = {"group": "grouped", "stack": "stacked", "relative": "stacked", "overlay": "overlaid"}


def read(figure):
    """The document of a figure, or None."""
    budget = Budget()
    traces = [t for t in as_list(figure.get("data")) if as_dict(t).get("visible") in (None, True)]
    layout = as_dict(figure.get("layout"))
    if len(traces) > SERIES_MAX:
        budget.leave_out("series", len(traces) - SERIES_MAX)
    budget.share(min(len(traces), SERIES_MAX))
    plots = {}
    for number, trace in enumerate(traces[:SERIES_MAX]):
        plot = plots.setdefault(_place(trace, layout), [])
        try:
            for one in READERS[trace.get("type", "scatter")](trace, budget):
                if one is not None:
                    _finish(one, trace, layout, number)
                    plot.append(one)
        except Exception:
            budget.cannot_read(values.text(trace.get("type", "scatter")))
    charts = [_chart(place, series, layout) for place, series in plots.items()]
    _arrange(charts, list(plots), layout)
    if not any(one["series"] for one in charts) and not budget.unknown:
        return None
    return document("plotly", title_of(layout.get("title")), charts, budget)


# === layout ===


def _place(trace, layout):
    """Which plot a trace is in: (x axis, y axis), overlays counting as what they lie over; other
    kinds of plots by themselves."""
    kind = trace.get("type", "scatter")
    if kind in ("pie", "funnelarea", "sunburst", "treemap", "indicator", "table", "sankey"):
        return kind, repr(as_dict(trace.get("domain")))
    if "scene" in trace or kind.endswith("3d") or kind == "surface":
        return "scene", str(trace.get("scene", "scene"))
    x, y = str(trace.get("xaxis", "x")), str(trace.get("yaxis", "y"))
    return _under(x, layout), _under(y, layout)


def _under(name, layout):
    over = _axis_layout(name, layout).get("overlaying")
    return over if type(over) is str else name


def _axis_layout(name, layout):
    return as_dict(layout.get(name[0] + "axis" + name[1:])) if name else {}


def _chart(place, series, layout):
    axes = {}
    x, y = place
    if x[:1] == "x" and y[:1] == "y":
        names = {"x": x, "y": y}
        for one in series:
            for direction in "xy":
                own = one.pop("_" + direction, None)
                if own not in (None, names[direction]):
                    name = next((n for n, a in names.items() if a == own), None)
                    if name is None:
                        name = "%s%d" % (direction, 1 + sum(n[0] == direction for n in names))
                        names[name] = own
                    one[direction + "_axis"] = name
        axes = {name: _axis(name, own, series, layout) for name, own in names.items()}
    for one in series:
        one.pop("_x", None), one.pop("_y", None)
    bars = [one for one in series if one["type"] == "bar"]
    mode = _BAR_MODES.get(layout.get("barmode", "group"))
    if mode == "stacked":
        stack(bars)
    made = chart(title_of(layout.get("title")), series, axes, legend=_legend(series, layout))
    if len(bars) > 1:
        made["bar_mode"] = mode or "grouped"
    made["title"] = None
    return made


def _axis(name, own, series, layout):
    given = _axis_layout(own, layout)
    direction = name[0]
    mine = [one for one in series if one.get(direction + "_axis", direction) == name]
    found = [sequence for one in mine for sequence in positions(one, direction)]
    kind = {"date": "datetime", "category": "categorical"}.get(given.get("type"), given.get("type"))
    if kind not in ("linear", "log", "datetime", "categorical"):
        kind = kind_of_values(found)
    if kind == "datetime":
        for one in mine:
            as_dates(one, (direction,))
    limits = as_list(given.get("range"))
    limits = [values.plain(end) for end in limits] if len(limits) == 2 else None
    if limits and kind == "log":
        limits = [_power(end) for end in limits]
    ticks = None
    if given.get("tickvals") is not None and given.get("ticktext") is not None:
        ticks = {
            "values": [values.plain(v) for v in column_of(given["tickvals"])[:100]],
            "labels": [values.text(t) or "" for t in column_of(given["ticktext"])[:100]],
        }
    return axis(
        title_of(given.get("title")),
        kind,
        limits,
        inverted=given.get("autorange") == "reversed",
        categories=categories_of(found) if kind == "categorical" else None,
        ticks=ticks,
    )


def _power(exponent):
    """The limits of a logarithmic axis are given by their logarithms."""
    if type(exponent) not in (int, float) or not -300 < exponent < 300:
        return None
    return 10.0**exponent


def _legend(series, layout):
    labels = [one["name"] for one in series if one["name"]]
    if len(labels) < 2 or layout.get("showlegend") is False:
        return None
    return {"title": title_of(as_dict(layout.get("legend")).get("title")), "labels": labels}


def _arrange(charts, places, layout):
    """Rows and columns of subplots, from where their axes lie."""
    domains = []
    for x, y in places:
        if x[:1] != "x" or y[:1] != "y":
            return
        ends = [as_list(_axis_layout(name, layout).get("domain")) or [0, 1] for name in (x, y)]
        domains.append(tuple(round(float(end[0]), 6) for end in ends))
    columns_at = sorted({x for x, _ in domains})
    rows_at = sorted({y for _, y in domains}, reverse=True)
    if len(charts) < 2:
        return
    titles = _subplot_titles(layout)
    for one, (x, y), title in zip(charts, domains, titles + [None] * len(charts)):
        one["position"] = {
            "row": rows_at.index(y),
            "column": columns_at.index(x),
            "rows": len(rows_at),
            "columns": len(columns_at),
        }
        one["title"] = title


def _subplot_titles(layout):
    """make_subplots() and facets write them as annotations above the plots."""
    return [
        title_of(note.get("text"))
        for note in map(as_dict, as_list(layout.get("annotations")))
        if note.get("xref") == note.get("yref") == "paper" and note.get("showarrow") is False
    ]


# === series ===


def _finish(one, trace, layout, number):
    """What every series has."""
    marker, line = as_dict(trace.get("marker")), as_dict(trace.get("line"))
    template = as_dict(as_dict(layout.get("template")).get("layout"))
    color = next((c for c in (line.get("color"), marker.get("color")) if type(c) is str), None)
    colorway = as_list(layout.get("colorway")) or as_list(template.get("colorway"))
    if color is None and colorway and one["type"] not in ("pie", "heatmap", "contour"):
        color = colorway[number % len(colorway)]
    name = values.text(trace.get("name"))
    one.update({"name": name, "color": color_of(color)})
    one["_x"], one["_y"] = str(trace.get("xaxis", "x")), str(trace.get("yaxis", "y"))
