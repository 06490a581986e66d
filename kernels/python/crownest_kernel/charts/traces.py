"""plotly: series of single traces. Each reader yields the series of one kind of trace."""

import base64

import numpy as np

from . import values
from .described import (
    as_dict,
    as_list,
    between,
    box_of,
    categories_of,
    color_of,
    columns,
    counts,
    kind_of_values,
    title_of,
)

_SAMPLES_MAX = 200_000
_DTYPES = {"i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"}
_DASHES = {"dash": "dashed", "dot": "dotted", "dashdot": "dashdot"}
_STEPS = {"hv": "post", "vh": "pre", "hvh": "mid"}


def _scatter(trace, budget):
    xs, ys = _xy(trace)
    marker = as_dict(trace.get("marker"))
    mode = trace.get("mode", "lines" if max(len(xs or ()), len(ys or ())) > 20 else "lines+markers")
    shades = marker.get("color") if type(marker.get("color")) in (list, dict) else None
    sizes = marker.get("size") if type(marker.get("size")) in (list, dict) else None
    extra = [column_of(c) if c is not None else None for c in (trace.get("z"), shades, sizes)]
    errors = [_errors(trace.get("error_" + d), c) for d, c in (("x", xs), ("y", ys))]
    ends = [end for pair in errors for end in (pair or (None, None))]
    (x, y, z, shades, sizes, *ends), omitted = columns(budget, xs, ys, *extra, *ends)
    lined = "lines" in str(mode)
    fill = trace.get("fill") not in (None, "none") or trace.get("stackgroup") is not None
    made = {"type": "area" if fill else "line" if lined else "scatter", "x": x, "y": y}
    if trace.get("stackgroup") is not None:
        made["stacked"] = True
    if z is not None:
        made["z"] = z
    if sizes is not None:
        made["sizes"] = sizes
    if shades is not None:
        made["colors" if any(type(s) is str for s in shades) else "values"] = shades
    for direction, low, high in (("x", *ends[:2]), ("y", *ends[2:])):
        if low is not None:
            made[direction + "_error"] = {"low": low, "high": high}
    line = as_dict(trace.get("line"))
    if line.get("dash") in _DASHES:
        made["dash"] = _DASHES[line["dash"]]
    if line.get("shape") in _STEPS:
        made["step"] = _STEPS[line["shape"]]
    if omitted:
        made["omitted"] = omitted
    yield made


def _bar(trace, budget):
    xs, ys = _xy(trace)
    horizontal = trace.get("orientation") == "h"
    names, lengths = (ys, xs) if horizontal else (xs, ys)
    base = trace.get("base")
    base = column_of(base) if type(base) in (list, dict) else None
    ends = _errors(trace.get("error_x" if horizontal else "error_y"), lengths) or (None, None)
    (names, lengths, base, low, high), omitted = columns(budget, names, lengths, base, *ends)
    made = {"type": "bar", "orientation": "horizontal" if horizontal else "vertical"}
    made.update({"categories": names, "values": lengths})
    if base is not None:
        made["base"] = base
    if low is not None:
        made["error"] = {"low": low, "high": high}
    if omitted:
        made["omitted"] = omitted
    yield made


def _histogram(trace, budget):
    horizontal = trace.get("orientation") == "h" or ("y" in trace and "x" not in trace)
    samples = column_of(trace["y" if horizontal else "x"])[:_SAMPLES_MAX]
    orientation = {"orientation": "horizontal" if horizontal else "vertical"}
    bins = as_dict(trace.get("ybins" if horizontal else "xbins"))
    plain = [values.plain(sample) for sample in samples]
    is_count = trace.get("histfunc", "count") == "count" and not trace.get("histnorm")
    weighted = trace.get("x" if horizontal else "y") is not None
    if is_count and not weighted and kind_of_values([plain]) == "categorical":
        names = categories_of([plain])
        found = {name: 0 for name in names}
        for name in plain:
            if name in found:
                found[name] += 1
        (names, amounts), omitted = columns(budget, names, list(found.values()))
        yield {"type": "bar", **orientation, "categories": names, "values": amounts}
        return
    numbers = all(type(bins.get(part)) in (int, float) for part in ("start", "end", "size"))
    if is_count and not weighted and numbers and bins["size"] > 0:
        count = int(np.ceil((bins["end"] - bins["start"]) / bins["size"] - 1e-9))
        count = budget.points(max(0, count), 2)
        edges = [bins["start"] + bins["size"] * index for index in range(count + 1)]
        yield {"type": "histogram", **orientation, "edges": edges, "counts": counts(edges, plain)}
        return
    (kept,), omitted = columns(budget, samples)
    made = {"type": "histogram", **orientation, "samples": kept}
    if omitted:
        made["omitted"] = omitted
    yield made


def _box(trace, budget):
    horizontal = trace.get("orientation") == "h" or ("x" in trace and "y" not in trace)
    made = {"type": "box", "orientation": "horizontal" if horizontal else "vertical"}
    if trace.get("q1") is not None:
        made.update(_known_boxes(trace, budget, horizontal))
        yield made
        return
    groups = _groups(trace, horizontal)
    quantile = _QUANTILES.get(trace.get("quartilemethod"), _linear)
    boxes, names = [], []
    for name, samples in groups.items():
        box = box_of(samples, quantile)
        if box is None or not budget.take(10):
            continue
        if trace.get("boxpoints") is False or not budget.take(len(box["outliers"])):
            box["outliers"] = []
        boxes.append(box)
        names.append(name)
    made.update({"categories": names, "boxes": boxes})
    yield made


def _known_boxes(trace, budget, horizontal):
    fields = (
        ("min", "lowerfence"),
        ("first_quartile", "q1"),
        ("median", "median"),
        ("third_quartile", "q3"),
        ("max", "upperfence"),
    )
    found = [column_of(trace[key]) if trace.get(key) is not None else None for _, key in fields]
    names = trace.get("y" if horizontal else "x")
    names = column_of(names) if names is not None else list(range(len(found[1])))
    (names, *found), _ = columns(budget, names, *found)
    boxes = [
        {
            **{field: column[i] for (field, _), column in zip(fields, found) if column is not None},
            "outliers": [],
        }
        for i in range(len(names))
    ]
    return {"categories": names, "boxes": boxes}


def _violin(trace, budget):
    horizontal = trace.get("orientation") == "h" or ("x" in trace and "y" not in trace)
    made = {"type": "violin", "orientation": "horizontal" if horizontal else "vertical"}
    names, violins = [], []
    for name, samples in _groups(trace, horizontal).items():
        (kept,), omitted = columns(budget, samples)
        violins.append({"samples": kept, **({"omitted": omitted} if omitted else {})})
        names.append(name)
    made.update({"categories": names, "violins": violins})
    yield made


def _groups(trace, horizontal):
    """{name: samples} of a trace that shows distributions."""
    samples = column_of(trace["x" if horizontal else "y"])[:_SAMPLES_MAX]
    names = trace.get("y" if horizontal else "x")
    if names is None:
        return {values.text(trace.get("name")): [values.plain(sample) for sample in samples]}
    groups = {}
    for name, sample in zip(column_of(names), samples):
        groups.setdefault(values.plain(name), []).append(values.plain(sample))
    return groups


def _linear(ordered, part):
    return between(ordered, len(ordered) * part - 0.5)


def _halves(with_median):
    """The quartiles as medians of the halves, which have the median in them or not."""

    def quantile(ordered, part):
        count = len(ordered)
        if part == 0.5 or count == 1:
            return between(ordered, (count - 1) / 2)
        half = (count + 1) // 2 if with_median else count // 2
        chosen = ordered[:half] if part < 0.5 else ordered[count - half :]
        return between(chosen, (len(chosen) - 1) / 2)

    return quantile


_QUANTILES = {"exclusive": _halves(False), "inclusive": _halves(True)}


def _pie(trace, budget):
    sizes = trace.get("values")
    labels = trace.get("labels")
    if sizes is None:
        sizes = [1] * len(column_of(labels))
    labels = column_of(labels) if labels is not None else [None] * len(column_of(sizes))
    sums = {}
    for number, (label, size) in enumerate(zip(labels, column_of(sizes))):
        key = number if label is None else values.plain(label)
        size = values.plain(size)
        sums[key] = sums.get(key, 0) + (size if type(size) in (int, float) else 0)
    kept = budget.points(len(sums), 6)
    whole = sum(sums.values()) or 1
    colors = as_list(as_dict(trace.get("marker")).get("colors"))
    slices = [
        {
            "label": None if labels[0] is None else values.text(key),
            "value": size,
            "fraction": size / whole,
            "angle": 360 * size / whole,
            "radius": 1,
            "color": color_of(colors[number]) if number < len(colors) else None,
        }
        for number, (key, size) in enumerate(list(sums.items())[:kept])
    ]
    made = {"type": "pie", "slices": slices}
    if trace.get("hole"):
        made["hole"] = values.plain(trace["hole"])
    if kept < len(sums):
        made["omitted"] = len(sums) - kept
    yield made


def _heatmap(trace, budget):
    rows = [column_of(row) for row in _rows(trace["z"])]
    width = max((len(row) for row in rows), default=0)
    height = len(rows)
    room = min(budget.values_left, 2 * budget.points_max)
    kept_rows = min(height, max(1, room // max(1, width)))
    kept_columns = min(width, room)
    budget.take(kept_rows * kept_columns)
    cells = [[values.plain(cell) for cell in row[:kept_columns]] for row in rows[:kept_rows]]
    made = {"type": "contour" if trace.get("type") == "contour" else "heatmap"}
    for direction, kept, whole in (("x", kept_columns, width), ("y", kept_rows, height)):
        places = trace.get(direction)
        places = list(range(whole)) if places is None else column_of(places)
        if len(places) == whole + 1 and all(type(p) in (int, float) for p in places):
            places = [(a + b) / 2 for a, b in zip(places, places[1:])]
        made[direction] = [values.plain(place) for place in places[:kept]]
    made["values"] = cells
    omitted = height * width - kept_rows * kept_columns
    if omitted:
        made["omitted"] = omitted
        budget.leave_out("points", omitted)
    bar = as_dict(trace.get("colorbar"))
    if bar.get("title"):
        made["color_scale"] = {"label": title_of(bar["title"])}
    yield made


def _candlestick(trace, budget):
    fields = ("x", "open", "high", "low", "close")
    found, omitted = columns(budget, *(column_of(trace[field]) for field in fields))
    made = {"type": "candlestick", **dict(zip(fields, found))}
    if omitted:
        made["omitted"] = omitted
    yield made


READERS = {
    "scatter": _scatter,
    "scattergl": _scatter,
    "scatter3d": _scatter,
    "bar": _bar,
    "histogram": _histogram,
    "box": _box,
    "violin": _violin,
    "pie": _pie,
    "heatmap": _heatmap,
    "contour": _heatmap,
    "candlestick": _candlestick,
    "ohlc": _candlestick,
}


# === columns ===


def _xy(trace):
    """Both columns; where one is missing, its places are 0, 1, 2 …"""
    found = [trace.get(direction) for direction in "xy"]
    found = [column_of(column) if column is not None else None for column in found]
    for index, other in ((0, 1), (1, 0)):
        if found[index] is None and found[other] is not None:
            start, step = trace.get("%s0" % "xy"[index], 0), trace.get("d%s" % "xy"[index], 1)
            start, step = (n if type(n) in (int, float) else d for n, d in ((start, 0), (step, 1)))
            found[index] = [start + step * number for number in range(len(found[other]))]
    return found


def _errors(given, places):
    """(low, high), absolute, of error_x or error_y; None without errors."""
    given = as_dict(given)
    if not given or given.get("visible") is False or places is None:
        return None
    kind = given.get("type", "data")
    symmetric = given.get("symmetric", "arrayminus" not in given and "valueminus" not in given)
    sizes = []
    for part in (("array" if symmetric else "arrayminus"), "array"):
        if kind == "data":
            sizes.append(column_of(given.get(part) or [0] * len(places)))
        else:
            name = "value" if part == "array" or symmetric else "valueminus"
            size = given.get(name, 10)
            scale = [abs(p) / 100 if kind == "percent" else 1 for p in places]
            sizes.append([size * one for one in scale])
    low = [p - s if _both(p, s) else None for p, s in zip(places, sizes[0])]
    high = [p + s if _both(p, s) else None for p, s in zip(places, sizes[1])]
    return low, high


def _both(place, size):
    return type(place) in (int, float) and type(size) in (int, float)


def column_of(given):
    """A list of values, however plotly has written them down."""
    if type(given) is dict:
        array = _typed_array(given)
        return array.ravel().tolist()
    return given if type(given) is list else []


def _rows(given):
    if type(given) is dict:
        array = _typed_array(given)
        return array.tolist() if array.ndim == 2 else [array.tolist()]
    return as_list(given)


def _typed_array(given):
    """Numbers in base64, `{dtype, bdata, shape}`."""
    if given.get("dtype") not in _DTYPES:
        raise ValueError("not an array")
    array = np.frombuffer(base64.b64decode(given["bdata"]), dtype="<" + given["dtype"])
    shape = given.get("shape")
    if shape is not None:
        array = array.reshape([int(length) for length in str(shape).split(",")])
    return array
