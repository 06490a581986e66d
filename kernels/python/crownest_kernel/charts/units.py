"""Vega-Lite: series of single views. Rows, groups, aggregates, bins and stacks as Vega makes them."""

import math

from . import values
from .described import as_dict, between, box_of, columns, counts, title_of

BINS_DEFAULT = 10
# Vega-Lite's colours of names, in the order of the names, and of all else.
COLORS = ("#4c78a8 #f58518 #e45756 #72b7b2 #54a24b #eeca3b #b279a2 #ff9da6 #9d755d #bab0ac").split()
_AGGREGATES = {
    "count": len,
    "valid": len,
    "distinct": lambda found: len(set(map(repr, found))),
    "sum": math.fsum,
    "mean": lambda found: math.fsum(found) / len(found),
    "average": lambda found: math.fsum(found) / len(found),
    "median": lambda found: between(sorted(found), (len(found) - 1) / 2),
    "min": min,
    "max": max,
}


class Unreadable(Exception):
    """A part of a view whose numbers cannot be known here."""


def _points(kind, encoding, rows, budget):
    """Lines, points and areas."""
    channels = ["x", "y"] + [c for c in ("size", "color", "y2") if _is_number(encoding.get(c))]
    found = _table(encoding, rows, channels)
    if kind in ("line", "area") and "order" not in encoding:
        upright = as_dict(encoding.get("x")).get("type") != "quantitative" or (
            as_dict(encoding.get("y")).get("type") == "quantitative"
        )
        along = 0 if upright else 1
        found.sort(key=lambda row: (str(type(row[along])), sortable(row[along])))
    made, omitted = columns(budget, *(list(column) for column in _columns(found, len(channels))))
    one = {"type": kind, "x": made[0], "y": made[1]}
    names = {"size": "sizes", "color": "values", "y2": "base"}
    one.update({names[channel]: column for channel, column in zip(channels[2:], made[2:])})
    if omitted:
        one["omitted"] = omitted
    return [one]


def _is_number(one):
    one = as_dict(one)
    return "field" in one and one.get("type", "quantitative") == "quantitative"


def _bars(kind, encoding, rows, budget):
    x, y = as_dict(encoding.get("x")), as_dict(encoding.get("y"))
    horizontal = _measures(x) and not _measures(y)
    name, length = (y, x) if horizontal else (x, y)
    made = {"orientation": "horizontal" if horizontal else "vertical"}
    if name.get("bin"):
        return [{"type": "histogram", **made, **_histogram(name, length, rows, budget)}]
    channels = ("y", "x") if horizontal else ("x", "y")
    found = _table(encoding, rows, channels)
    (names, lengths), omitted = columns(budget, *map(list, _columns(found, 2)))
    one = {"type": "bar", **made, "categories": names, "values": lengths}
    if omitted:
        one["omitted"] = omitted
    return [one]


def _measures(one):
    """Whether a channel is what is measured, and not what it is measured for."""
    return bool(one.get("aggregate")) or (one.get("type") == "quantitative" and not one.get("bin"))


def _histogram(name, length, rows, budget):
    if length.get("aggregate") != "count" or name["bin"] == "binned":
        raise Unreadable("bin")
    samples = [row.get(field_of(name)) for row in rows]
    samples = [sample for sample in samples if type(sample) in (int, float)]
    if not samples:
        return {"edges": [], "counts": []}
    edges = _bin_edges(min(samples), max(samples), as_dict(name["bin"]))
    if not budget.take(2 * len(edges)):
        raise Unreadable("bin")
    return {"edges": edges, "counts": counts(edges, samples)}


def _bin_edges(low, high, given):
    """The bounds that Vega chooses: steps of 1, 2 or 5 times a power of ten, few enough."""
    most = given.get("maxbins", BINS_DEFAULT)
    extent = given.get("extent")
    if type(extent) is list and len(extent) == 2:
        low, high = extent
    span = (high - low) or abs(low) or 1
    step = given.get("step")
    if step is None:
        step = 10.0 ** (math.floor(math.log10(span) + 0.5) - math.ceil(math.log10(most)))
        while math.ceil(span / step) > most:
            step *= 10
        for part in (5, 2):
            if span / (step / part) <= most:
                step /= part
    if given.get("nice", True):
        digits = 1 - math.floor(math.log10(step)) if step < 1 else 1
        nudge = 10.0 ** (-digits - 1)
        start = math.floor(low / step + nudge) * step
        low = start - step if low < start else start
        high = math.ceil(high / step) * step
    count = max(1, min(1_000, round((high - low) / step)))
    return [float("%.12g" % (low + step * index)) for index in range(count + 1)]


def _cells(kind, encoding, rows, budget):
    """A grid of coloured cells."""
    if any(as_dict(encoding.get(c)).get("bin") for c in "xy"):
        raise Unreadable("bin")
    found = _table(encoding, rows, ("x", "y", "color"))
    xs = in_order(encoding.get("x"), [x for x, _, _ in found])
    ys = in_order(encoding.get("y"), [y for _, y, _ in found])
    if not budget.take(len(xs) * len(ys) + len(xs) + len(ys)):
        raise Unreadable("rect")
    places = {(x, y): shade for x, y, shade in found}
    cells = [[values.plain(places.get((x, y))) for x in xs] for y in ys]
    made = {"type": "heatmap", "x": list(map(values.plain, xs)), "y": list(map(values.plain, ys))}
    made.update({"values": cells, "color_scale": {"label": label_of([encoding], "color")}})
    return [made]


def _slices(kind, encoding, rows, budget):
    color = as_dict(encoding.get("color"))
    channels = ("color", "theta") if "field" in color else ("theta",)
    found = _table(encoding, rows, channels)
    found = [row if len(row) == 2 else (None, row[0]) for row in found]
    if color.get("sort", True) is not None:
        found.sort(key=lambda row: str(row[0]))
    kept = budget.points(len(found), 6)
    whole = sum(size for _, size in found if type(size) in (int, float)) or 1
    slices, names = [], {}
    for label, size in found[:kept]:
        size = values.plain(size)
        fraction = size / whole if type(size) in (int, float) else None
        part = {"label": values.text(label), "value": size, "fraction": fraction}
        part.update({"angle": None if fraction is None else 360 * fraction, "radius": 1})
        shade = names.setdefault(label, len(names)) % len(COLORS)
        part["color"] = None if color.get("scale") else COLORS[shade]
        slices.append(part)
    made = {"type": "pie", "slices": slices, "name": None, "color": None}
    if kept < len(found):
        made["omitted"] = len(found) - kept
    return [made]


def _boxes(kind, encoding, rows, budget):
    x, y = as_dict(encoding.get("x")), as_dict(encoding.get("y"))
    horizontal = x.get("type") == "quantitative" and y.get("type") != "quantitative"
    name, measure = (y, x) if horizontal else (x, y)
    groups = {}
    for row in rows:
        key = row.get(field_of(name)) if "field" in name else None
        groups.setdefault(values.plain(key), []).append(row.get(field_of(measure)))
    boxes, names = [], []
    for key in in_order(name, list(groups)):
        box = box_of(groups[key], lambda ordered, part: between(ordered, (len(ordered) - 1) * part))
        if box is not None and budget.take(10 + len(box["outliers"])):
            boxes.append(box)
            names.append(key)
    made = {"type": "box", "orientation": "horizontal" if horizontal else "vertical"}
    return [{**made, "categories": names, "boxes": boxes}]


def _texts(kind, encoding, rows, budget):
    found = _table(encoding, rows, ("x", "y", "text"))
    (xs, ys, texts), omitted = columns(budget, *map(list, _columns(found, 3)))
    one = {"type": "text", "x": xs, "y": ys, "text": [values.text(text) for text in texts]}
    if omitted:
        one["omitted"] = omitted
    return [one]


def references_of(encoding):
    made = []
    for direction in "xy":
        datum = as_dict(encoding.get(direction)).get("datum")
        if datum is not None:
            made.append({"type": "reference", "axis": direction, "value": values.plain(datum)})
    if not made:
        raise Unreadable("rule")
    return [{**one, "name": None, "color": _value_color(encoding)} for one in made]


def _value_color(encoding):
    color = as_dict(encoding.get("color")).get("value")
    return values.text(color) if type(color) is str else None


MAKERS = {
    "line": _points,
    "area": _points,
    "scatter": _points,
    "bar": _bars,
    "heatmap": _cells,
    "pie": _slices,
    "box": _boxes,
    "text": _texts,
}


# === rows ===


def _table(encoding, rows, channels):
    """Rows of what the channels show; where one is an aggregate, one row for each group."""
    chosen = [as_dict(encoding.get(channel)) for channel in channels]
    if any(one.get("bin") for one in chosen):
        raise Unreadable("bin")
    if not any(one.get("aggregate") for one in chosen):
        return [tuple(_cell(one, row) for one in chosen) for row in rows]
    groups = {}
    offsets = [as_dict(encoding.get(name)) for name in ("xOffset", "yOffset")]
    keys = [one for one in (*chosen, *offsets) if "field" in one and not one.get("aggregate")]
    for row in rows:
        groups.setdefault(tuple(_cell(one, row) for one in keys), []).append(row)
    found = []
    for members in groups.values():
        found.append(tuple(_aggregate(one, members) for one in chosen))
    return found


def _aggregate(one, rows):
    name = one.get("aggregate")
    if not name:
        return _cell(one, rows[0])
    if type(name) is not str or name not in _AGGREGATES:
        raise Unreadable("aggregate")
    if name == "count":
        return len(rows)
    found = [row.get(field_of(one)) for row in rows]
    found = [value for value in found if value is not None]
    if name not in ("valid", "distinct"):
        found = [value for value in found if type(value) in (int, float)]
    if not found and name not in ("valid", "distinct"):
        return 0 if name == "sum" else None
    return _AGGREGATES[name](found)


def _cell(one, row):
    if "datum" in one:
        return one["datum"]
    return row.get(field_of(one)) if "field" in one else None


def _columns(rows, count):
    return list(zip(*rows)) if rows else [()] * count


def stack(made, encoding):
    """Bars and areas of several names stand on each other, the last name at the bottom."""
    x, y = as_dict(encoding.get("x")), as_dict(encoding.get("y"))
    stacked = [one.get("stack", True) for one in (x, y)]
    if len(made) < 2 or "xOffset" in encoding or "yOffset" in encoding or None in stacked:
        return
    if False in stacked or any(one not in (True, "zero") for one in stacked):
        return
    tops = {}
    for one in reversed(made):
        if one["type"] == "histogram":
            places, field = [(a,) for a in one["edges"][:-1]], "counts"
        else:
            places = one.get("categories") or one.get("x")
            field = "values" if one["type"] == "bar" else "y"
        base = []
        for place, amount in zip(places, one[field]):
            amount = amount if type(amount) in (int, float) else 0
            key = (place, amount < 0)
            base.append(tops.get(key, 0))
            tops[key] = base[-1] + amount
        if field == "y":
            one["y"] = [b + (a or 0) for a, b in zip(one["y"], base)]
        if any(base) or field == "y":
            one["base"] = base


# === channels ===


def field_of(one):
    field = one.get("field")
    return field.replace("\\", "") if type(field) is str else ""


def in_order(one, found):
    """Names on an axis stand sorted, unless it is said otherwise."""
    distinct = list(dict.fromkeys(found))
    order = as_dict(one).get("sort", "ascending")
    if type(order) is list:
        there = set(distinct)
        first = dict.fromkeys(name for name in order if name in there)
        return list(first) + [name for name in distinct if name not in first]
    if order in ("ascending", "descending"):
        key = lambda name: (str(type(name)), sortable(name))  # noqa: E731
        return sorted(distinct, key=key, reverse=order == "descending")
    return distinct


def label_of(encodings, name):
    for encoding in encodings:
        one = as_dict(encoding.get(name))
        for given in (one, as_dict(one.get("axis")), as_dict(one.get("legend"))):
            if given.get("title") is not None:
                return title_of(given["title"])
        aggregate = one.get("aggregate")
        if aggregate == "count":
            return "Count of Records"
        if type(aggregate) is str and "field" in one:
            return values.text("%s of %s" % (aggregate.capitalize(), field_of(one)))
        if "field" in one:
            return values.text(field_of(one)) + (" (binned)" if one.get("bin") else "")
    return None


def sortable(value):
    return value if type(value) in (int, float, str) else str(value)
