"""matplotlib: what single artists show. Lines, points, areas, segments, grids of cells, images,
contours. Each function gives a series, None for decoration, or raises."""

import matplotlib.collections as collections
import matplotlib.colors as colors
import matplotlib.image as image
import matplotlib.lines as lines
import matplotlib.patches as patches
import numpy as np

from . import grids, values
from .document import keep_texts
from .panel import ALWAYS, Unreadable, color_scale, hex_color, points, series

# Kinds of series that one set of coloured points is split into, if a legend names their colours.
HUES_MAX = 20


def read(panel, artist):
    """The series of one artist."""
    for kind, function in _READERS:
        if issubclass(type(artist), kind):
            return function(panel, artist)
    raise Unreadable


# === lines ===


def _line(panel, line):
    x_data, y_data = panel.placed(line)
    if not (x_data and y_data):
        return _reference(panel, line, x_data, y_data)
    xs, ys = line.get_xdata(orig=False), line.get_ydata(orig=False)
    marked = line.get_marker() not in ("None", "none", None, "", " ")
    drawn = line.get_linestyle() not in ("None", "none", None, "", " ")
    if not (marked or drawn) or not len(xs):
        return None
    color = hex_color(line.get_color() if drawn else line.get_markerfacecolor())
    (xs, ys), omitted = points(panel, xs, ys)
    style = line.get_drawstyle()
    return series(
        "line" if drawn else "scatter",
        panel,
        line,
        color,
        x=panel.x.convert(xs),
        y=panel.y.convert(ys),
        marker=str(line.get_marker())[:20] if marked else None,
        step=_STEPS.get(style),
        dash=_DASHES.get(line.get_linestyle()) if drawn else None,
        omitted=omitted or None,
    )


_STEPS = {"steps": "pre", "steps-pre": "pre", "steps-post": "post", "steps-mid": "mid"}
_DASHES = {"--": "dashed", ":": "dotted", "-.": "dashdot"}


def _axline(panel, line):
    """A line without an end: by a point of it, and its slope or a second point."""
    made = {"type": "reference", "name": panel.name_of(line), "color": hex_color(line.get_color())}
    x, y = line.get_xy1()
    made["through"] = [panel.x.convert([x])[0], panel.y.convert([y])[0]]
    if line.get_xy2() is not None:
        x, y = line.get_xy2()
        made["and"] = [panel.x.convert([x])[0], panel.y.convert([y])[0]]
    else:
        made["slope"] = values.number(line.get_slope())
    return made


def _reference(panel, line, x_data, y_data):
    """axhline and axvline: one coordinate is of the data, the other spans the plot."""
    if not (x_data or y_data):
        return None
    axis, name, data = (
        (panel.x, "x", line.get_xdata()) if x_data else (panel.y, "y", line.get_ydata())
    )
    found = sorted(set(values.flat(data).tolist()))
    if len(found) != 1:
        return None
    made = {"type": "reference", "name": panel.name_of(line), "color": hex_color(line.get_color())}
    made.update({"axis": name, "value": axis.convert(found)[0]})
    return made


def _rectangle(panel, patch):
    """axvspan and axhspan. Other rectangles are bars, which their containers tell, or drawings."""
    x_data, y_data = panel.placed(patch)
    if x_data == y_data:
        if not x_data or patch.get_width() == patch.get_height() == 0:
            return None  # outside of the data, or there for the legend's sake
        raise Unreadable
    axis, name = (panel.x, "x") if x_data else (panel.y, "y")
    low = patch.get_x() if x_data else patch.get_y()
    size = patch.get_width() if x_data else patch.get_height()
    made = {"type": "reference", "name": panel.name_of(patch)}
    made["color"] = hex_color(patch.get_facecolor())
    low, high = axis.convert(sorted([low, low + size]))
    made.update({"axis": name, "from": low, "to": high})
    return made


# === points ===


def _scatter(panel, collection):
    x_data, y_data = panel.placed(collection, collection.get_offset_transform())
    if not (x_data and y_data):
        return None
    offsets = np.ma.asarray(collection.get_offsets(), dtype=float).filled(np.nan)
    if not len(offsets):
        return None
    split = _by_hue(panel, collection, offsets)
    if split is not None:
        return split
    return _cloud(panel, collection, offsets, _one_color(collection.get_facecolor()))


def _cloud(panel, collection, offsets, color, rows=None):
    sizes, shades = values.flat(collection.get_sizes()), _shades(collection, len(offsets))
    columns = [offsets[:, 0], offsets[:, 1]]
    if len(sizes) == len(offsets) > 1 and len(set(sizes.tolist())) > 1:
        columns.append(sizes)
    else:
        sizes = None
    if shades is not None:
        columns.append(shades)
    if rows is not None:
        columns = [column[rows] for column in columns]
    kept, omitted = points(panel, *columns)
    made = series("scatter", panel, collection, None if shades is not None else color)
    made["x"], made["y"] = panel.x.convert(kept[0]), panel.y.convert(kept[1])
    if sizes is not None:
        made["sizes"] = values.numbers(kept[2])
    if shades is not None:
        made["values"] = values.numbers(kept[-1])
        made["color_scale"] = color_scale(collection)
    elif color is None and rows is None:
        made["colors"] = _colors_of_points(panel, collection, len(offsets), omitted)
    if omitted:
        made["omitted"] = omitted
    return {name: value for name, value in made.items() if value is not None or name in ALWAYS}


def _shades(collection, count):
    """The numbers that a colour map turns into the colours of points."""
    array = collection.get_array()
    if array is None:
        return None
    shades = values.flat(array)
    return shades if len(shades) == count else None


def _one_color(face_colors):
    distinct = {tuple(color) for color in np.asarray(face_colors).tolist()}
    return hex_color(distinct.pop()) if len(distinct) == 1 else None


def _colors_of_points(panel, collection, count, omitted):
    found = collection.get_facecolor()
    if len(found) != count or omitted or not panel.budget.take(count // 2):
        return None
    return [colors.to_hex(color) for color in found]


def _by_hue(panel, collection, offsets):
    """Points of a few colours, all of which the legend names, are as many series: how seaborn
    draws a hue."""
    found = np.asarray(collection.get_facecolor())
    if len(found) != len(offsets) or not panel.names or collection.get_array() is not None:
        return None
    rows = {}
    for index, color in enumerate(map(tuple, found.tolist())):
        rows.setdefault(color, []).append(index)
        if len(rows) > HUES_MAX:
            return None
    by_hex = {hex_color(color): index for color, index in rows.items()}
    if len(by_hex) != len(rows) or not set(by_hex) <= set(panel.names) or len(rows) < 2:
        return None
    split = []
    order = list(panel.names)
    for color in sorted(by_hex, key=order.index):
        one = _cloud(panel, collection, offsets, color, by_hex[color])
        one["name"] = panel.names[color]
        split.append(one)
    return split


# === areas and segments ===


def _area(panel, collection):
    """fill_between, fill_betweenx, stackplot: between two curves over the same places."""
    paths = collection.get_paths()
    along_x = getattr(collection, "t_direction", "x") == "x"
    places, low, high = [], [], []
    for path in paths:
        corners = np.asarray(path.vertices, dtype=float)
        # Out along the first curve, back along the second; closed by a point of each.
        half = (len(corners) - 3) // 2
        if half < 1 or len(corners) != 2 * half + 3:
            raise Unreadable
        first, second = corners[1 : half + 1], corners[half + 2 : 2 * half + 2][::-1]
        t, f = (0, 1) if along_x else (1, 0)
        if not np.array_equal(first[:, t], second[:, t]):
            raise Unreadable
        places.append(first[:, t])
        low.append(first[:, f])
        high.append(second[:, f])
    if not places:
        return None
    places, first, second = (np.concatenate(column) for column in (places, low, high))
    if not _is_base(first, second):
        first, second = second, first
    color = _one_color(collection.get_facecolor())
    violin = None if along_x else _violin(panel, collection, color, places, first, second)
    if violin is not None:
        return violin
    (places, low, high), omitted = points(panel, places, first, second)
    made = series("area", panel, collection, color)
    across, up = (panel.x, panel.y) if along_x else (panel.y, panel.x)
    names = ("x", "y") if along_x else ("y", "x")
    made[names[0]], made[names[1]] = across.convert(places), up.convert(high)
    made["base"] = up.convert(low)
    if not along_x:
        made["orientation"] = "horizontal"
    if omitted:
        made["omitted"] = omitted
    return made


def _violin(panel, collection, color, places, first, second):
    """An area that is the same on both sides of a place: how seaborn draws a violin."""
    middle = (first + second) / 2
    if len(places) < 3 or np.ptp(middle) > 1e-9 * max(1.0, float(np.abs(middle).max())):
        return None
    (places, widths), _ = points(panel, places, second - middle)
    center = float("%.12g" % middle.mean())
    made = series("violin", panel, collection, color, orientation="vertical")
    made["categories"], made["positions"] = panel.x.names([center]), [center]
    body = {"values": panel.y.convert(places), "density": values.numbers(widths)}
    made["violins"] = [body]
    return made


def _is_base(first, second):
    """Whether the first curve is what the area stands on: it is level, or the lower one."""
    level = [np.ptp(curve) == 0 for curve in (first, second)]
    if level[0] != level[1]:
        return bool(level[0])
    return bool(np.nanmean(first) <= np.nanmean(second))


def _segments(panel, collection):
    """hlines, vlines, eventplot: pieces of lines."""
    if panel.placed(collection) != (True, True):
        return None
    ends = [np.asarray(segment, dtype=float) for segment in collection.get_segments()]
    ends = [segment for segment in ends if len(segment) == 2]
    if not ends:
        raise Unreadable
    columns, omitted = points(panel, *np.concatenate(ends).reshape(len(ends), 4).T)
    made = series("segments", panel, collection, _one_color(collection.get_edgecolor()))
    for name, column in zip(("x", "y", "x2", "y2"), columns):
        made[name] = (panel.x if name[0] == "x" else panel.y).convert(column)
    if omitted:
        made["omitted"] = omitted
    return made


def _arrows(panel, quiver):
    kept, omitted = points(panel, quiver.X, quiver.Y, quiver.U, quiver.V)
    made = series("vectors", panel, quiver)
    made.update({"x": panel.x.convert(kept[0]), "y": panel.y.convert(kept[1])})
    made.update({"u": values.numbers(kept[2]), "v": values.numbers(kept[3])})
    if omitted:
        made["omitted"] = omitted
    return made


# === patches ===


def _stairs(panel, patch):
    counts, edges, baseline = patch.get_data()
    count = panel.budget.points(len(counts), 2)
    made = series("histogram", panel, patch, hex_color(patch.get_facecolor()))
    if made["color"] is None:
        made["color"] = hex_color(patch.get_edgecolor())
    made["orientation"] = str(patch.orientation)
    axis = panel.x if patch.orientation == "vertical" else panel.y
    made["edges"] = axis.convert(values.flat(edges)[: count + 1])
    made["counts"] = values.numbers(values.flat(counts)[:count])
    if count < len(counts):
        made["omitted"] = len(counts) - count
    return made


def texts_of(panel, found, most):
    """Annotations: text, and where in the data it stands."""
    kept = keep_texts(panel.budget, [text for text, _, _ in found], most)
    made = [
        {
            "text": text,
            "x": panel.x.convert([x], whole=False)[0],
            "y": panel.y.convert([y], whole=False)[0],
        }
        for text, x, y in found[: len(kept)]
    ]
    if len(kept) < len(found):
        panel.budget.leave_out("annotations", len(found) - len(kept))
    return made


def _kinds(module, *names):
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


def _late(module_name, *names):
    import importlib

    return _kinds(importlib.import_module(module_name), *names)


# The first that fits counts: subclasses stand before their classes.
_READERS = (
    (_kinds(lines, "AxLine"), _axline),
    ((lines.Line2D,), _line),
    (_kinds(collections, "FillBetweenPolyCollection"), _area),
    (_late("matplotlib.contour", "ContourSet"), grids.contours),
    (_late("matplotlib.quiver", "Quiver"), _arrows),
    ((collections.QuadMesh,), grids.mesh),
    ((collections.PathCollection,), _scatter),
    ((collections.PolyCollection,), grids.hexagons),
    ((collections.LineCollection,), _segments),
    ((image.AxesImage,), grids.picture),
    (_kinds(patches, "StepPatch"), _stairs),
    ((patches.Rectangle,), _rectangle),
)
