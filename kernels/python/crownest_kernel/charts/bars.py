"""matplotlib: bars, histograms, stems, and error bars of whatever has them."""

import sys

import matplotlib.collections as collections
import numpy as np

from . import records, values
from .artists import read
from .budget import thinned
from .panel import hex_color, series

# Two edges are one when they differ by no more than this part of a bar.
_TOUCHING = 1e-6


def read_bars(panel, container):
    """A BarContainer: a series of bars, or a histogram."""
    patches = list(container.patches)
    vertical = getattr(container, "orientation", None) != "horizontal"
    lefts, bottoms, widths, heights = _rectangles(patches)
    if vertical:
        starts, sizes, bases, lengths = lefts, widths, bottoms, heights
    else:
        starts, sizes, bases, lengths = bottoms, heights, lefts, widths
    across, up = (panel.x, panel.y) if vertical else (panel.y, panel.x)
    color = _color(patches)
    record = records.of(patches[0]) if patches else None
    name = _name(panel, container, patches, color)
    orientation = "vertical" if vertical else "horizontal"
    if record is not None and record.kind == "histogram":
        edges = values.flat(record.edges)
    elif _is_histogram(across, starts, sizes):
        edges = np.append(starts, starts[-1] + sizes[-1])
    else:
        made = {"type": "bar", "name": name, "color": color, "orientation": orientation}
        return _bars(panel, made, across, starts, sizes, bases, lengths, container)
    made = {"type": "histogram", "name": name, "color": color, "orientation": orientation}
    return _histogram(panel, made, across, edges, lengths, bases, record)


def _rectangles(patches):
    corners = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in patches]
    return values.flat(corners).reshape(len(corners), 4).T


def _color(patches):
    found = {tuple(patch.get_facecolor()) for patch in patches}
    return hex_color(found.pop()) if len(found) == 1 else None


def _name(panel, container, patches, color):
    """bar() puts the label on the container, hist() on the first bar."""
    for artist in (container, *patches[:1]):
        label = values.text(artist.get_label())
        if label and not label.startswith("_"):
            return label
    return panel.names.get(color)


def _is_histogram(across, starts, sizes):
    """For bars that hist() did not make: they touch, over numbers, and are not bars of width one
    around whole numbers, unless seaborn is there, which counts whole numbers with those."""
    if len(starts) < 2 or across.has_names or across.is_date or not (sizes > 0).all():
        return False
    gaps = np.abs(starts[1:] - (starts[:-1] + sizes[:-1]))
    if not (gaps <= _TOUCHING * sizes[:-1]).all():
        return False
    centers = starts + sizes / 2
    off = max(np.abs(centers - np.rint(centers)).max(), np.abs(sizes - 1).max())
    return off > 1e-9 or "seaborn" in sys.modules


def _bars(panel, made, across, starts, sizes, bases, lengths, container):
    centers = _rounded(starts + sizes / 2, across)
    errors = _errors_of_bars(container, made["orientation"], centers)
    kept = panel.budget.points(len(centers), 3 if errors is None else 5)
    up = panel.y if made["orientation"] == "vertical" else panel.x
    made["categories"] = across.names(centers[:kept])
    if across.has_names:
        made["positions"] = values.numbers(centers[:kept])
    if up.is_date:
        made["from"], made["to"] = up.convert(bases[:kept]), up.convert((bases + lengths)[:kept])
    made["values"] = values.numbers(lengths[:kept])
    if np.any(bases != 0) and not up.is_date:
        made["base"] = values.numbers(bases[:kept])
    if errors is not None:
        made["error"] = {end: values.numbers(part[:kept]) for end, part in errors.items()}
    if kept < len(centers):
        made["omitted"] = len(centers) - kept
    return made


def _rounded(centers, axis):
    """A bar is placed by its edge: what was 0.3 shall not come back as 0.30000000000000004."""
    if axis.is_date:
        return centers
    return np.array([float("%.12g" % center) for center in centers.tolist()])


def _histogram(panel, made, across, edges, counts, bases, record):
    kept = panel.budget.points(len(counts), 2)
    made["edges"] = across.convert(edges[: kept + 1])
    made["counts"] = values.numbers(counts[:kept])
    if np.any(bases != 0):
        made["base"] = values.numbers(bases[:kept])
    if record is not None:
        for fact in ("density", "cumulative"):
            if getattr(record, fact):
                made[fact] = True
    if kept < len(counts):
        made["omitted"] = len(counts) - kept
    return made


def read_outline(panel, record, patch):
    """hist(histtype="step"): one polygon for the whole histogram."""
    color = hex_color(patch.get_facecolor()) or hex_color(patch.get_edgecolor())
    made = series("histogram", panel, patch, color, orientation=record.orientation)
    across = panel.x if record.orientation == "vertical" else panel.y
    counts = values.flat(record.counts)
    nothing = np.zeros(len(counts))
    return _histogram(panel, made, across, values.flat(record.edges), counts, nothing, record)


# === errors ===


def _errors_of_bars(container, orientation, centers):
    errorbar = getattr(container, "errorbar", None)
    if errorbar is None:
        return None
    ends = _ends(errorbar, "y" if orientation == "vertical" else "x")
    if ends is None or len(ends["low"]) != len(centers):
        return None
    return ends


def _ends(container, direction):
    """{low, high} of an ErrorbarContainer, absolute, in one direction."""
    has = {"x": container.has_xerr, "y": container.has_yerr}
    if not has[direction]:
        return None
    collected = [c for c in container.lines[2] if issubclass(type(c), collections.LineCollection)]
    at = collected[0 if direction == "x" or not has["x"] else 1]
    column = 0 if direction == "x" else 1
    segments = [np.ma.asarray(part, dtype=float).filled(np.nan) for part in at.get_segments()]
    if any(segment.shape != (2, 2) for segment in segments):
        return None
    ends = np.array([segment[:, column] for segment in segments]).reshape(-1, 2)
    return {"low": ends.min(axis=1), "high": ends.max(axis=1)}


def read_errorbar(panel, container):
    """errorbar(): points, or a line, with their ends."""
    line = container.lines[0]
    errors = {direction: _ends(container, direction) for direction in ("x", "y")}
    errors = {direction: ends for direction, ends in errors.items() if ends is not None}
    if line is None:
        return _bare_errors(panel, container, errors)
    made = read(panel, line)
    count = len(values.flat(line.get_xdata(orig=False)))
    if made is None or any(len(ends["low"]) != count for ends in errors.values()):
        return made
    label = values.text(container.get_label())
    if label and not label.startswith("_"):
        made["name"] = label
    indices = thinned(count, len(made["x"]))
    for direction, ends in errors.items():
        axis = panel.x if direction == "x" else panel.y
        panel.budget.take(2 * len(made["x"]))
        made[direction + "_error"] = {
            end: axis.convert(part if indices is None else part[indices], whole=False)
            for end, part in ends.items()
        }
    return made


def _bare_errors(panel, container, errors):
    """fmt="none": there are ends and no points."""
    made = {"type": "error_bar", "name": values.text(container.get_label()), "color": None}
    if made["name"] and made["name"].startswith("_"):
        made["name"] = None
    for direction, ends in errors.items():
        kept = panel.budget.points(len(ends["low"]), 2)
        axis = panel.x if direction == "x" else panel.y
        made[direction + "_error"] = {
            end: axis.convert(part[:kept], whole=False) for end, part in ends.items()
        }
    return made


def read_stem(panel, container):
    """stem(): the markers; their stems begin at the base line."""
    made = read(panel, container.markerline)
    if made is None:
        return None
    label = values.text(container.get_label())
    made["name"] = label if label and not label.startswith("_") else None
    levels = set(values.flat(container.baseline.get_ydata(orig=False)).tolist())
    made.update({"type": "stem", "base": values.number(min(levels)) if levels else None})
    return made


# === errors that seaborn draws as lines of their own ===

STUBS_MAX = 2_000
# Points of a line from end to end, and of one with a cap at either end, and where the former are.
_STUB_POINTS = {2: 0, 8: 3}


def stub_of(line):
    """((x, y), (x, y)) of a line that may be an error bar, or None."""
    if not str(line.get_label()).startswith("_") or str(line.get_marker()) not in ("None", ""):
        return None
    xs, ys = values.flat(line.get_xdata(orig=False)), values.flat(line.get_ydata(orig=False))
    at = _STUB_POINTS.get(len(xs))
    if at is None or not (xs[at] == xs[at + 1] or ys[at] == ys[at + 1]):
        return None
    return (float(xs[at]), float(ys[at])), (float(xs[at + 1]), float(ys[at + 1]))


def attach_stubs(panel, things, stubs):
    """`things`: (series, places, whether its errors are vertical); `stubs`: from stub_of(). Where
    everything of a series has a stub at its place, they are its errors. Gives the numbers of the
    stubs that are used up."""
    used, by_place = set(), {True: {}, False: {}}
    for index, (first, second) in enumerate(stubs):
        for vertical, direction in ((True, 0), (False, 1)):
            if first[direction] == second[direction]:
                by_place[vertical].setdefault(_key(first[direction]), []).append(index)
    for made, places, vertical in things:
        if not 0 < len(places) <= len(stubs):
            continue
        chosen = {}
        for place in places.tolist():
            waiting = by_place[vertical].get(_key(place), ())
            stub = next((i for i in waiting if i not in used and i not in chosen), None)
            if stub is None:
                break
            chosen[stub] = stubs[stub]
        if len(chosen) == len(places) and panel.budget.take(2 * len(chosen)):
            used.update(chosen)
            _attach(made, list(chosen.values()), 1 if vertical else 0)
    return used


def _key(place):
    return "%.9g" % place


def _attach(made, stubs, direction):
    ends = np.sort(values.flat([[end[direction] for end in stub] for stub in stubs]).reshape(-1, 2))
    name = "error" if made["type"] == "bar" else "%s_error" % "xy"[direction]
    made[name] = {"low": values.numbers(ends[:, 0]), "high": values.numbers(ends[:, 1])}
