"""bokeh: chart data from the models of a figure, or of a layout of figures."""

import sys

import numpy as np

from . import values
from .budget import SERIES_MAX, Budget
from .described import as_dates, axis, categories_of, columns, kind_of_values, positions
from .document import chart, document

CHARTS_DEPTH_MAX = 8
_MARKERS = ("Scatter", "Circle", "Marker")
_DASHES = {(6,): "dashed", (2, 4): "dotted", (2, 4, 6, 4): "dashdot"}
_STEPS = {"before": "pre", "after": "post", "center": "mid"}
_TYPE_NAME = type.__dict__["__name__"].__get__


class Unreadable(Exception):
    """A glyph whose numbers are not known here."""


def read(model):
    """The document of a figure or layout, or None."""
    budget = Budget()
    found = []
    _collect(model, None, found, CHARTS_DEPTH_MAX)
    if not found:
        return None
    budget.share(min(SERIES_MAX, sum(len(plot.renderers) for plot, _ in found)))
    charts = []
    for plot, place in found:
        try:
            made = _Plot(plot, budget).described(place)
        except Exception:
            budget.cannot_read(_TYPE_NAME(type(plot)))
            made = chart(None, [], {})
        if made["series"] or made.get("references") or budget.unknown:
            charts.append(made)
    return document("bokeh", None, charts, budget)


def _collect(model, place, found, depth):
    """Every plot of a layout with its row and column."""
    if depth == 0:
        return
    models = sys.modules["bokeh.models"]
    kind = type(model)
    if issubclass(kind, models.Plot):
        found.append((model, place))
        return
    children = list(getattr(model, "children", None) or ())
    places = []
    for index, child in enumerate(children):
        spot = (0, index) if issubclass(kind, models.Row) else (index, 0)
        if type(child) is tuple:
            child, spot = child[0], child[1:3]
        places.append((child, spot))
    rows = 1 + max((row for _, (row, _) in places), default=0)
    wide = 1 + max((column for _, (_, column) in places), default=0)
    for child, (row, column) in places:
        if issubclass(type(child), models.Model):
            spot = {"row": row, "column": column, "rows": rows, "columns": wide}
            _collect(child, spot if rows * wide > 1 else place, found, depth - 1)


class _Plot:
    """One figure."""

    def __init__(self, plot, budget):
        self.plot, self.budget = plot, budget
        self.names = _legend_names(plot)
        # {(direction, name of the range): name of the axis in the document}
        self._axes = {}

    def described(self, place):
        """The chart of the document."""
        series, references = [], []
        for renderer in list(self.plot.renderers)[:SERIES_MAX]:
            glyph = getattr(renderer, "glyph", None)
            if glyph is None or not renderer.visible:
                continue
            try:
                series += self._series(renderer, glyph)
            except Exception:
                self.budget.cannot_read(_TYPE_NAME(type(glyph)))
        for model in (*self.plot.center, *self.plot.renderers, *self.plot.left, *self.plot.below):
            references += _reference(model)
        axes = {}
        if any(one["type"] != "pie" for one in series) or references:
            for direction in "xy":
                self._axes.setdefault((direction, "default"), direction)
            for (direction, own), name in sorted(self._axes.items(), key=lambda item: item[1]):
                axes[name] = self._axis(direction, own, name, series)
        labels = [name for name in dict.fromkeys(self.names.values()) if name]
        made = chart(
            getattr(self.plot.title, "text", None),
            series,
            axes,
            references=references,
            legend={"title": _legend_title(self.plot), "labels": labels} if labels else None,
            position=place,
        )
        return made

    def _series(self, renderer, glyph):
        name = _TYPE_NAME(type(glyph))
        maker = _MAKERS.get(name)
        if maker is None:
            raise Unreadable
        made = maker(_Reader(renderer, glyph), self.budget)
        for one in made:
            one["name"] = values.text(self.names.get(renderer.id))
            one.setdefault("color", _color(glyph))
            for direction in "xy":
                own = getattr(renderer, direction + "_range_name", "default")
                key = (direction, own)
                if key not in self._axes:
                    number = 1 + sum(d == direction for d, _ in self._axes)
                    first = own == "default"
                    self._axes[key] = direction if first else "%s%d" % (direction, max(2, number))
                if self._axes[key] != direction:
                    one[direction + "_axis"] = self._axes[key]
        return made

    def _axis(self, direction, own, name, series):
        sides = (
            (self.plot.below, self.plot.above)
            if direction == "x"
            else (
                self.plot.left,
                self.plot.right,
            )
        )
        mine = [one for one in series if one.get(direction + "_axis", direction) == name]
        shown = [
            a
            for a in (*sides[0], *sides[1])
            if getattr(a, direction + "_range_name", "default") == own and hasattr(a, "axis_label")
        ]
        label = next((a.axis_label for a in shown if a.axis_label), None)
        label = label if type(label) is str else getattr(label, "text", None)
        default = own == "default"
        ranges = getattr(self.plot, "extra_%s_ranges" % direction)
        scales = getattr(self.plot, "extra_%s_scales" % direction)
        kept = getattr(self.plot, direction + "_range") if default else ranges.get(own)
        scale = getattr(self.plot, direction + "_scale") if default else scales.get(own)
        found = [sequence for one in mine for sequence in positions(one, direction)]
        factors = getattr(kept, "factors", None)
        kind = "linear"
        if factors is not None:
            kind = "categorical"
        elif "Log" in _TYPE_NAME(type(scale)):
            kind = "log"
        elif any("Datetime" in _TYPE_NAME(type(a)) for a in shown):
            kind = "datetime"
            for one in mine:
                _milliseconds_to_dates(one, direction)
        elif kind_of_values(found) == "datetime":
            kind = "datetime"
        if kind == "datetime":
            for one in mine:
                as_dates(one, (direction,))
        limits, inverted = None, False
        low, high = (values.plain(getattr(kept, end, None)) for end in ("start", "end"))
        if kind != "categorical" and _are_numbers(low, high):
            limits, inverted = sorted([low, high]), low > high
            if kind == "datetime":
                limits = [_from_milliseconds(end) for end in limits]
        names = None
        if kind == "categorical":
            names = [_factor(factor) for factor in factors[:1_000]] or categories_of(found)
        return axis(label, kind, limits, categories=names, inverted=inverted)


class _Reader:
    """Columns of one glyph."""

    def __init__(self, renderer, glyph):
        self.glyph = glyph
        self._data = renderer.data_source.data
        self._length = max((_length(column) for column in self._data.values()), default=0)

    def column(self, name):
        """What the glyph has for a property, one value for each of its points; None where it has
        nothing."""
        return self._resolved(getattr(self.glyph, name, None))

    def _resolved(self, spec):
        if spec is None:
            return None
        kind = _TYPE_NAME(type(spec))
        if type(spec) is str:
            return _listed(self._data[spec]) if spec in self._data else None
        if kind == "Field":
            return _listed(self._data[spec.field])
        if kind == "Value":
            return [spec.value] * self._length
        if kind == "Expr":
            return self._computed(spec.expr)
        if type(spec) in (int, float):
            return [spec] * self._length
        return None

    def _computed(self, expression):
        kind = _TYPE_NAME(type(expression))
        if kind == "Stack":
            found = [_listed(self._data[field]) for field in expression.fields]
            if not found:
                return [0] * self._length
            return [sum(row) for row in zip(*found)]
        if kind == "CumSum":
            whole, sums = 0, [0]
            for amount in _listed(self._data[expression.field]):
                whole += amount
                sums.append(whole)
            return sums[:-1] if expression.include_zero else sums[1:]
        raise Unreadable

    def field_of(self, name):
        """The name of the column that a property is taken from, or None."""
        spec = getattr(self.glyph, name, None)
        if _TYPE_NAME(type(spec)) == "Field":
            return spec.field
        return spec if type(spec) is str and spec in self._data else None

    def of_field(self, name):
        """A column by its own name."""
        return _listed(self._data[name])


# === glyphs ===


def _finished(made, omitted):
    if omitted:
        made["omitted"] = omitted
    return [made]


def _line(reader, budget):
    (xs, ys), omitted = columns(budget, reader.column("x"), reader.column("y"))
    made = {"type": "line", "x": xs, "y": ys}
    if hasattr(reader.glyph, "mode"):
        made["step"] = _STEPS.get(str(reader.glyph.mode), "pre")
    dash = _DASHES.get(tuple(getattr(reader.glyph, "line_dash", None) or ()))
    if dash:
        made["dash"] = dash
    return _finished(made, omitted)


def _points(reader, budget):
    found = [reader.column(name) for name in ("x", "y")]
    shaded = _shade_field(reader)
    found.append(reader.of_field(shaded) if shaded else None)
    (xs, ys, shades), omitted = columns(budget, *found)
    made = {"type": "scatter", "x": xs, "y": ys}
    if shades is not None:
        made["values"] = shades
        made["color"] = None
    return _finished(made, omitted)


def _shade_field(reader):
    """The column that a colour mapper makes into colours."""
    spec = getattr(reader.glyph, "fill_color", None)
    if _TYPE_NAME(type(spec)) == "Field" and "ColorMapper" in _TYPE_NAME(type(spec.transform)):
        return spec.field
    return None


def _vertical_bars(reader, budget):
    return _bars(reader, budget, "x", "bottom", "top", "vertical")


def _horizontal_bars(reader, budget):
    return _bars(reader, budget, "y", "left", "right", "horizontal")


def _bars(reader, budget, place, low, high, orientation):
    found = [reader.column(name) for name in (place, low, high)]
    (names, bases, tops), omitted = columns(budget, *found)
    bases = bases or [0] * len(names)
    lengths = [None if None in (top, base) else top - base for top, base in zip(tops, bases)]
    made = {"type": "bar", "orientation": orientation, "categories": names, "values": lengths}
    if any(bases):
        made["base"] = bases
    shift = getattr(getattr(reader.glyph, place), "transform", None)
    if _TYPE_NAME(type(shift)) == "Dodge":
        made["offset"] = values.number(shift.value)
    return _finished(made, omitted)


def _quads(reader, budget):
    """Rectangles side by side on one line are a histogram."""
    found = [reader.column(name) for name in ("left", "right", "bottom", "top")]
    (left, right, bottom, top), omitted = columns(budget, *found)
    for orientation, starts, ends, bases, tops in (
        ("vertical", left, right, bottom, top),
        ("horizontal", bottom, top, left, right),
    ):
        touching = all(abs(a - b) < 1e-9 * max(1, abs(a)) for a, b in zip(ends, starts[1:]))
        if touching and set(bases) <= {0} and starts:
            made = {"type": "histogram", "orientation": orientation}
            made.update({"edges": [*starts, ends[-1]], "counts": tops})
            return _finished(made, omitted)
    raise Unreadable


def _area(reader, budget):
    across = "x" if hasattr(reader.glyph, "y1") else "y"
    up = "y" if across == "x" else "x"
    names = (across, up + "1", up + "2")
    (places, first, second), omitted = columns(budget, *(reader.column(name) for name in names))
    made = {"type": "area", across: places, up: second, "base": first}
    if across == "y":
        made["orientation"] = "horizontal"
    return _finished(made, omitted)


def _wedges(reader, budget):
    starts, ends = reader.column("start_angle"), reader.column("end_angle")
    field = _item_field(reader)
    names = reader.of_field(field) if field else [None] * len(starts)
    kept = budget.points(len(starts), 6)
    turn = 2 * np.pi if str(getattr(reader.glyph, "start_angle_units", "rad")) == "rad" else 360.0
    shades = reader.column("fill_color") or [None] * len(starts)
    slices = []
    for start, end, name, shade in list(zip(starts, ends, names, shades))[:kept]:
        fraction = values.number((end - start) / turn)
        part = {"label": values.text(name), "value": None, "fraction": fraction}
        part.update({"angle": None if fraction is None else 360 * fraction, "radius": 1})
        part["color"] = values.text(shade) if type(shade) is str else None
        slices.append(part)
    return _finished({"type": "pie", "slices": slices, "color": None}, len(starts) - kept)


def _item_field(reader):
    """Slices are named by the column of the legend, else by the first column of texts."""
    for name, column in reader._data.items():
        listed = _listed(column)
        if listed and all(type(value) is str and not value.startswith("#") for value in listed):
            return name
    return None


def _image(reader, budget):
    images = reader.column("image")
    if len(images) != 1 or np.ndim(images[0]) != 2:
        raise Unreadable
    cells = np.asarray(images[0], dtype=float)
    rows, wide = cells.shape
    if not budget.take(rows * wide + rows + wide):
        raise Unreadable
    x, y, width, height = (reader.column(name)[0] for name in ("x", "y", "dw", "dh"))
    xs = [x + width * (index + 0.5) / wide for index in range(wide)]
    ys = [y + height * (index + 0.5) / rows for index in range(rows)]
    made = {"type": "heatmap", "x": xs, "y": ys, "color": None}
    made["values"] = [values.numbers(row) for row in cells]
    return [made]


def _rectangles(reader, budget):
    """Cells of a grid, coloured by a mapper."""
    field = _shade_field(reader)
    if field is None:
        raise Unreadable
    xs, ys = ([_factor(v) for v in reader.column(name)] for name in "xy")
    wide, rows = list(dict.fromkeys(xs)), list(dict.fromkeys(ys))
    if not budget.take(len(wide) * len(rows) + len(wide) + len(rows)):
        raise Unreadable
    places = dict(zip(zip(xs, ys), reader.of_field(field)))
    cells = [[values.plain(places.get((x, y))) for x in wide] for y in rows]
    return [{"type": "heatmap", "x": wide, "y": rows, "values": cells, "color": None}]


def _many_lines(reader, budget):
    made = []
    for xs, ys in zip(reader.column("xs"), reader.column("ys")):
        if len(made) == SERIES_MAX:
            budget.leave_out("series")
            continue
        (xs, ys), omitted = columns(budget, _listed(xs), _listed(ys))
        made += _finished({"type": "line", "x": xs, "y": ys}, omitted)
    return made


def _segments(reader, budget):
    found = [reader.column(name) for name in ("x0", "y0", "x1", "y1")]
    (x, y, x2, y2), omitted = columns(budget, *found)
    return _finished({"type": "segments", "x": x, "y": y, "x2": x2, "y2": y2}, omitted)


def _texts(reader, budget):
    found = [reader.column(name) for name in ("x", "y", "text")]
    (xs, ys, texts), omitted = columns(budget, *found)
    made = {"type": "text", "x": xs, "y": ys, "text": [values.text(text) for text in texts]}
    return _finished(made, omitted)


_MAKERS = {
    "Line": _line,
    "Step": _line,
    "VBar": _vertical_bars,
    "HBar": _horizontal_bars,
    "Quad": _quads,
    "VArea": _area,
    "HArea": _area,
    "Wedge": _wedges,
    "AnnularWedge": _wedges,
    "Image": _image,
    "Rect": _rectangles,
    "MultiLine": _many_lines,
    "Segment": _segments,
    "Text": _texts,
    **{name: _points for name in _MARKERS},
}


# === what is around them ===


def _legend_names(plot):
    """{id of a renderer: its label}."""
    names = {}
    for legend in plot.legend or ():
        for item in legend.items:
            label = getattr(item.label, "value", item.label)
            for renderer in item.renderers:
                if type(label) is str:
                    names.setdefault(renderer.id, label)
    return names


def _legend_title(plot):
    return next((values.text(one.title) for one in plot.legend or () if one.title), None)


def _reference(model):
    kind = _TYPE_NAME(type(model))
    if kind == "Span":
        direction = "y" if str(model.dimension) == "width" else "x"
        value = values.plain(model.location)
        made = {"type": "reference", "axis": direction, "value": value}
        return [{**made, "name": None, "color": _color(model)}]
    return []


def _color(model):
    for name in ("line_color", "fill_color"):
        color = getattr(model, name, None)
        color = getattr(color, "value", color)
        if type(color) is str:
            return values.text(color)
    return None


def _milliseconds_to_dates(series, direction):
    for field in (direction, direction + "2", "categories"):
        column = series.get(field)
        if type(column) is list and (field != "categories" or positions(series, direction)):
            series[field] = [_from_milliseconds(value) for value in column]


def _from_milliseconds(value):
    if type(value) not in (int, float):
        return value
    return values.dates(np.array([value / 86_400_000.0]), np.datetime64("1970-01-01"))[0]


def _are_numbers(*found):
    return all(type(value) in (int, float) for value in found)


def _length(column):
    try:
        return len(column)
    except TypeError:
        return 0


def _listed(column):
    """A column as a list of Python's own values, dates among them."""
    if type(column) is np.ndarray:
        return list(column) if column.dtype.kind in "mM" else column.tolist()
    if type(column) is list:
        return [_factor(value) if type(value) is tuple else value for value in column]
    if hasattr(type(column), "to_numpy"):
        return _listed(column.to_numpy())
    return [_factor(value) for value in column]


def _factor(value):
    """A nested category is named by its parts."""
    if type(value) is tuple:
        return values.text(", ".join(str(part) for part in value))
    return value
