"""Altair and Vega-Lite: chart data from the specification that a bundle has.

Vega computes where it draws. What can be computed here without doubt is: counts and means by
group, bins, quartiles, stacks. A view whose data is elsewhere, or is transformed first, is named
in `unknown` and has no series.
"""

from . import values
from .budget import SERIES_MAX, Budget
from .described import (
    as_dates,
    as_dict,
    as_list,
    axis,
    categories_of,
    positions,
    title_of,
)
from .document import chart, document
from .units import (
    COLORS,
    MAKERS,
    Unreadable,
    field_of,
    in_order,
    label_of,
    references_of,
    sortable,
    stack,
)

ROWS_MAX = 100_000
VIEWS_MAX = 64
DEPTH_MAX = 8
_GROUPING = ("color", "fill", "stroke", "detail", "shape", "strokeDash")
_MARKS = {
    "line": "line",
    "trail": "line",
    "area": "area",
    "point": "scatter",
    "circle": "scatter",
    "square": "scatter",
    "tick": "scatter",
    "bar": "bar",
    "rect": "heatmap",
    "arc": "pie",
    "boxplot": "box",
    "text": "text",
    "rule": "reference",
}
_SCALES = {"temporal": "datetime", "nominal": "categorical", "ordinal": "categorical"}


def read(spec):
    """The document of a specification, or None."""
    budget = Budget()
    found = []
    _collect(as_dict(spec), {}, as_dict(as_dict(spec).get("datasets")), None, found, DEPTH_MAX)
    if len(found) > VIEWS_MAX:
        budget.leave_out("charts", len(found) - VIEWS_MAX)
    layers = sum(len(views) for views, _, _ in found[:VIEWS_MAX])
    budget.share(min(layers, SERIES_MAX))
    charts = []
    for views, title, place in found[:VIEWS_MAX]:
        made = _chart(views, title, place, budget)
        if made["series"] or made.get("references") or budget.unknown:
            charts.append(made)
    title = None
    if "mark" not in spec and "layer" not in spec:
        title = title_of(spec.get("title"))
    return document("vega-lite", title, charts, budget)


# === views ===


def _collect(spec, inherited, datasets, place, found, depth):
    """Every plot of a specification as (unit views, title, position)."""
    if depth == 0 or len(found) > VIEWS_MAX:
        return
    own = _inherit(spec, inherited, datasets)
    for direction in ("hconcat", "vconcat", "concat"):
        parts = as_list(spec.get(direction))
        wide = int(spec.get("columns") or len(parts)) if direction == "concat" else None
        for index, part in enumerate(parts):
            row, column = {"hconcat": (0, index), "vconcat": (index, 0)}.get(
                direction, divmod(index, max(1, wide or 1))
            )
            rows = (
                len(parts)
                if direction == "vconcat"
                else -(-len(parts) // max(1, wide or len(parts)))
            )
            columns_ = 1 if direction == "vconcat" else wide or len(parts)
            spot = {"row": row, "column": column, "rows": rows, "columns": columns_}
            _collect(as_dict(part), own, datasets, spot, found, depth - 1)
    if "layer" in spec or "mark" in spec:
        views = []
        _layers(spec, inherited, datasets, views, depth)
        titles = [
            spec.get("title"),
            *(as_dict(part).get("title") for part in as_list(spec.get("layer"))),
        ]
        found.append((views, next(filter(None, map(title_of, titles)), None), place))
    elif "facet" in spec or "repeat" in spec:
        views = [{"unreadable": "facet" if "facet" in spec else "repeat"}]
        found.append((views, title_of(spec.get("title")), place))


def _layers(spec, inherited, datasets, views, depth):
    own = _inherit(spec, inherited, datasets)
    if "mark" in spec:
        views.append(own)
    if depth:
        for layer in as_list(spec.get("layer"))[:SERIES_MAX]:
            _layers(as_dict(layer), own, datasets, views, depth - 1)


def _inherit(spec, inherited, datasets):
    own = {
        "encoding": {**inherited.get("encoding", {}), **as_dict(spec.get("encoding"))},
        "transform": inherited.get("transform", []) + as_list(spec.get("transform")),
        "rows": inherited.get("rows"),
        "mark": spec.get("mark"),
    }
    data = spec.get("data")
    if data is not None:
        own["rows"] = _rows(as_dict(data), datasets)
    return own


def _rows(data, datasets):
    found = data.get("values")
    if found is None and type(data.get("name")) is str:
        found = datasets.get(data["name"])
    return found if type(found) is list else None


# === one plot ===


def _chart(views, title, place, budget):
    series, references, encodings = [], [], []
    for view in views:
        try:
            made = _unit(view, budget)
        except Unreadable as error:
            budget.cannot_read(str(error))
            continue
        except Exception:
            budget.cannot_read(_mark(view).get("type"))
            continue
        encodings.append(view["encoding"])
        for one in made:
            (references if one["type"] == "reference" else series).append(one)
    if len(series) > SERIES_MAX:
        budget.leave_out("series", len(series) - SERIES_MAX)
        series = series[:SERIES_MAX]
    axes = {}
    if any(one["type"] != "pie" for one in series):
        axes = {name: _axis(name, encodings, series) for name in "xy"}
    made = chart(title, series, axes, references=references, legend=_legend(series, encodings))
    if place is not None and place["rows"] * place["columns"] > 1:
        made["position"] = place
    if any("xOffset" in e or "yOffset" in e for e in encodings) and "bar_mode" in made:
        made["bar_mode"] = "grouped"
    return made


def _unit(view, budget):
    if "unreadable" in view:
        raise Unreadable(view["unreadable"])
    kind = _MARKS.get(_mark(view).get("type"))
    if kind is None:
        raise Unreadable(values.text(_mark(view).get("type")) or "mark")
    encoding = view["encoding"]
    for step in view["transform"]:
        raise Unreadable("transform " + " ".join(sorted(as_dict(step)))[:50])
    for channel, one in encoding.items():
        if as_dict(one).get("timeUnit"):
            raise Unreadable("timeUnit")
        if channel in ("row", "column", "facet"):
            raise Unreadable("facet")
    if kind == "reference":
        return references_of(encoding)
    rows = view["rows"]
    if rows is None:
        raise Unreadable("data from elsewhere")
    rows = [row for row in rows[:ROWS_MAX] if type(row) is dict]
    groups = _groups(rows, encoding)
    if len(groups) > SERIES_MAX:
        budget.leave_out("series", len(groups) - SERIES_MAX)
        groups = groups[:SERIES_MAX]
    made = []
    for name, members in groups:
        made += MAKERS[kind](kind, encoding, members, budget)
        if made:
            made[-1].setdefault("name", values.text(name))
            made[-1].setdefault("color", _color_of(view, name, groups))
    if kind in ("bar", "area"):
        stack(made, encoding)
    return made


def _groups(rows, encoding):
    """[(name, rows)]: one series for each name of a colour, a detail, a shape."""
    fields = []
    for channel in _GROUPING:
        one = as_dict(encoding.get(channel))
        if "field" in one and one.get("type") != "quantitative" and not one.get("aggregate"):
            if field_of(one) not in fields:
                fields.append(field_of(one))
    if not fields or as_dict(encoding.get("theta")):
        return [(None, rows)]
    found = {}
    for row in rows:
        found.setdefault(tuple(row.get(field) for field in fields), []).append(row)
    order = sorted(found, key=lambda key: [(str(type(part)), part) for part in map(sortable, key)])
    return [(", ".join(str(part) for part in key), found[key]) for key in order]


def _color_of(view, name, groups):
    for holder in (as_dict(view["encoding"].get("color")).get("value"), _mark(view).get("color")):
        if type(holder) is str:
            return values.text(holder)
    color = as_dict(view["encoding"].get("color"))
    if name is None:
        return None if "field" in color else COLORS[0]
    scale = as_dict(color.get("scale"))
    names = [one for one, _ in groups]
    index = names.index(name)
    chosen, domain = scale.get("range"), scale.get("domain")
    if type(domain) is list and name in domain:
        index = domain.index(name)
    if type(chosen) is list and index < len(chosen) and type(chosen[index]) is str:
        return values.text(chosen[index])
    if "field" not in color or chosen is not None or "scheme" in scale:
        return None
    return COLORS[index % len(COLORS)]


# === axes ===


def _axis(name, encodings, series):
    given = [as_dict(encoding.get(name)) for encoding in encodings if name in encoding]
    first = given[0] if given else {}
    kind = _SCALES.get(first.get("type"), "linear")
    scale = as_dict(first.get("scale"))
    if kind == "linear" and type(scale.get("type")) is str:
        kind = values.text(scale["type"])
    if kind == "datetime":
        for one in series:
            as_dates(one, (name,))
    found = [sequence for one in series for sequence in positions(one, name)]
    limits = scale.get("domain")
    names = None
    if kind == "categorical":
        names = in_order(first, categories_of(found))
    if type(limits) is list and len(limits) == 2 and kind != "categorical":
        limits = [values.plain(end) for end in limits]
    else:
        limits = None
    inverted = first.get("sort") == "descending" or scale.get("reverse") is True
    made = axis(label_of(encodings, name), kind, limits, categories=names, inverted=inverted)
    if made["unit"] == "binned":
        made["unit"] = None
    return made


def _legend(series, encodings):
    labels = [one["name"] for one in series if one.get("name")]
    return {"title": label_of(encodings, "color"), "labels": labels} if labels else None


def _mark(view):
    mark = view.get("mark")
    return mark if type(mark) is dict else {"type": mark if type(mark) is str else None}
