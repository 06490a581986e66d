"""matplotlib: a whole figure. Its subplots, twins, colour bars, legends and annotations."""

import matplotlib.collections as collections
import matplotlib.container as container
import matplotlib.lines as lines
import matplotlib.patches as patches
import matplotlib.text as mtext
import numpy as np

from . import bars, records, summaries, values
from .artists import read as read_artist
from .artists import texts_of
from .axes import Axis
from .budget import SERIES_MAX, TEXTS_MAX, Budget
from .document import chart, document, keep_texts
from .grids import GRID
from .panel import Panel, hex_color

_TYPE_NAME = type.__dict__["__name__"].__get__


def read(figure):
    """The document of a figure that has been drawn, or None."""
    budget = Budget()
    shown = [ax for ax in _all_axes(figure) if ax.get_visible() and not hasattr(ax, "_colorbar")]
    budget.share(min(SERIES_MAX, sum(_count_series(ax) for ax in shown)))
    charts, plots = [], []
    legends = [_legend(legend, budget) for legend in getattr(figure, "legends", ())]
    for ax in shown:
        try:
            plot = _Plot(ax, budget, legends)
            plot.read()
        except Exception:
            budget.cannot_read(_TYPE_NAME(type(ax)))
            continue
        first = next((other for other in plots if other.is_twin(ax)), None)
        if first is not None:
            first.twins.append(plot)
        else:
            plots.append(plot)
    for plot in plots:
        try:
            if plot.shows_something():
                charts.append(plot.described())
        except Exception:
            budget.cannot_read(_TYPE_NAME(type(plot.ax)))
    if not charts and budget.unknown:
        charts.append(chart(None, [], {}))
    return document("matplotlib", _title(figure), charts, budget)


def _all_axes(figure):
    found = []
    for ax in figure.axes:
        found.append(ax)
        found.extend(child for child in ax.child_axes if hasattr(child, "lines"))
    return found


def _title(figure):
    title = getattr(figure, "_suptitle", None)
    return title.get_text() if title is not None else None


def _artists(ax):
    """In the order in which they were added."""
    children = getattr(ax, "_children", None)
    return list(children) if children is not None else ax.get_children()


def _count_series(ax):
    """About how many series there will be."""
    single, recorded = 0, set()
    for artist in (*ax.lines, *ax.collections, *ax.images):
        record = records.of(artist)
        if record is None:
            single += 1
        else:
            recorded.add(id(record))
    return single + len(recorded) + len(ax.containers)


class _Plot:
    """One axes, with the axes that are drawn over it."""

    def __init__(self, ax, budget, legends):
        self.ax, self.budget = ax, budget
        self.twins = []
        self.series, self.references, self.annotations = [], [], []
        self.panel = Panel(ax, Axis(ax.xaxis, budget), Axis(ax.yaxis, budget), budget)
        self.z = None
        if ax.name == "3d":
            from . import space

            self.z = space.z_axis(ax, budget)
        legend = ax.get_legend()
        self.legends = ([_legend(legend, budget)] if legend is not None else []) + legends
        for one in self.legends:
            for color, name in one["names"]:
                self.panel.names.setdefault(color, name)

    def is_twin(self, ax):
        """Whether the other axes are drawn over these, with an axis of their own."""
        siblings = getattr(self.ax, "_twinned_axes", None)
        return siblings is not None and siblings.joined(self.ax, ax)

    def shows_something(self):
        """Whether there is more than an empty frame."""
        return bool(self.series or self.references or self.annotations or self.unknown) or any(
            twin.shows_something() for twin in self.twins
        )

    # === reading ===

    def read(self):
        """Reads every artist; what cannot be read is named."""
        self.unknown = False
        if self.z is not None:
            self._read_space()
            return
        taken, stubs, things = self._containers(), [], []
        for artist in _artists(self.ax):
            try:
                self._read_artist(artist, taken, stubs, things)
            except Exception:
                self._cannot_read(artist)
        self._settle_stubs(stubs, things)
        self.series = summaries.merged(self.series)
        self._read_texts()

    def _read_artist(self, artist, taken, stubs, things):
        if id(artist) in taken:
            maker = taken[id(artist)]
            if maker is not None and maker[0] is artist:
                self._add(maker[1], maker[2], things)
            return
        if issubclass(type(artist), mtext.Text) or not _is_shown(artist):
            return
        stub = self._stub(artist) if len(stubs) < bars.STUBS_MAX else None
        if stub is not None:
            stubs.append((stub, artist))
        else:
            self._add(artist, self._reader(artist), things)

    def _containers(self):
        """Which artists belong together: {id: (first artist, the whole, its reader)}, or None for
        those that are told by another."""
        taken, told = {}, self._errors_of_bars()
        shown = {id(artist) for artist in _artists(self.ax) if _is_shown(artist)}
        for group in self.ax.containers:
            readers = (
                (container.BarContainer, bars.read_bars),
                (container.ErrorbarContainer, bars.read_errorbar),
                (container.StemContainer, bars.read_stem),
            )
            reader = next((r for kind, r in readers if issubclass(type(group), kind)), None)
            if reader is None:
                continue
            members = [a for a in group.get_children() if id(a) in shown]
            if getattr(group, "errorbar", None) is not None:
                for member in group.errorbar.get_children():
                    taken[id(member)] = None
            for member in members:
                taken.setdefault(id(member), None)
            # Bars of an errorbar() that belongs to bars are told with them.
            first = next((a for a in members if taken[id(a)] is None), None)
            if first is not None and id(group) not in told:
                for member in members:
                    taken[id(member)] = (first, group, reader)
        self._take_records(taken)
        return taken

    def _read_space(self):
        from . import space

        reader = space.reader(self.z)
        for artist in _artists(self.ax):
            if _is_shown(artist) and not issubclass(type(artist), mtext.Text):
                self._add(artist, reader, [])

    def _errors_of_bars(self):
        """Error bars that are told with their bars, by id."""
        return {id(getattr(group, "errorbar", None)) for group in self.ax.containers}

    def _take_records(self, taken):
        first = {}
        for artist in _artists(self.ax):
            record = records.of(artist)
            if record is None or (record.kind == "histogram" and id(artist) in taken):
                continue
            # Each outline of a histogram is a record; a box plot is one with many artists.
            if record.kind == "histogram":
                taken[id(artist)] = (artist, artist, _read_outline)
                continue
            maker = first.setdefault(id(record), (artist, record, summaries.read_record))
            taken[id(artist)] = maker

    def _reader(self, artist):
        if issubclass(type(artist), patches.Wedge):
            return _read_wedges(self.ax)
        return read_artist

    def _stub(self, artist):
        if not issubclass(type(artist), lines.Line2D) or self.panel.placed(artist) != (True, True):
            return None
        return bars.stub_of(artist)

    def _add(self, thing, reader, things):
        if len(self.series) >= SERIES_MAX:
            self.budget.leave_out("series")
            return
        try:
            made = reader(self.panel, thing)
        except Exception:
            self._cannot_read(thing)
            return
        for one in made if issubclass(type(made), list) else [made]:
            if one is None:
                continue
            if one["type"] == "reference":
                self.references.append(one)
                continue
            self.series.append(one)
            if one["type"] == "bar":
                places = one.get("positions") or one["categories"]
                if "error" not in one and _are_numbers(places):
                    things.append((one, values.flat(places), one["orientation"] == "vertical"))
            elif issubclass(type(thing), lines.Line2D):
                places = values.flat(thing.get_xdata(orig=False))
                things.append((one, places, True))
                things.append((one, values.flat(thing.get_ydata(orig=False)), False))

    def _cannot_read(self, thing):
        self.unknown = True
        self.budget.cannot_read(_TYPE_NAME(type(thing)))

    def _settle_stubs(self, stubs, things):
        used = bars.attach_stubs(self.panel, things, [stub for stub, _ in stubs])
        for index, (_, artist) in enumerate(stubs):
            if index not in used:
                self._add(artist, read_artist, [])

    def _read_texts(self):
        """Texts in the data: those that stand in the cells of a heatmap belong to it."""
        found = []
        for artist in self.ax.texts:
            try:
                found += self._text(artist)
            except Exception:
                self._cannot_read(artist)
        for one in self.series:
            grid = one.pop(GRID, None)
            if grid is not None:
                found = _cell_texts(self.panel, one, grid, found)
        self.annotations = texts_of(self.panel, found, TEXTS_MAX)

    def _text(self, artist):
        """[(text, x, y)] of a text that stands at a place of the data."""
        text = values.text(artist.get_text())
        if records.of(artist) is not None or not text or not _is_shown(artist):
            return []
        place = getattr(artist, "xy", None) or artist.get_position()
        if self.panel.placed(artist, _transform_of(artist)) != (True, True):
            return []
        x, y = self.ax.convert_xunits(place[0]), self.ax.convert_yunits(place[1])
        return [(text, float(x), float(y))]

    # === describing ===

    def described(self):
        """The chart of the document."""
        axes = {"x": self.panel.x.described(), "y": self.panel.y.described()}
        if self.z is not None:
            axes["z"] = self.z.described()
        if all(one["type"] == "pie" for one in self.series) and self.series:
            axes = {}
        series, references = list(self.series), list(self.references)
        annotations, legends = list(self.annotations), [*self.legends]
        for number, twin in enumerate(self.twins, 2):
            shared = self.ax.get_shared_x_axes().joined(self.ax, twin.ax)
            own = "y" if shared else "x"
            name = "%s%d" % (own, number)
            axes[name] = (twin.panel.y if shared else twin.panel.x).described()
            for one in (*twin.series, *twin.references, *twin.annotations):
                one[own + "_axis"] = name
            series += twin.series
            references += twin.references
            annotations += twin.annotations
            legends += [one for one in twin.legends if one not in legends]
        made = chart(
            _axes_title(self.ax),
            series,
            axes,
            references=references,
            annotations=annotations,
            legend=_joined(legends),
            position=_position(self.ax),
        )
        if self.ax.name != "rectilinear":
            made["projection"] = values.text(self.ax.name)
        return made


def _is_shown(artist):
    """Whether an artist is drawn; one that raises counts, and is named when it is read."""
    try:
        return bool(artist.get_visible())
    except Exception:
        return True


def _are_numbers(places):
    return all(type(place) in (int, float) for place in places)


def _transform_of(text):
    """Where the point is that an annotation points at, or the text itself."""
    coordinates = getattr(text, "xycoords", None)
    if coordinates is None:
        return text.get_transform()
    return text.axes.transData if coordinates == "data" else text.axes.transAxes


def _read_outline(panel, polygon):
    return bars.read_outline(panel, records.of(polygon), polygon)


def _read_wedges(ax):
    """Wedges that no pie() of this process has made: all of them are one pie."""
    wedges = [a for a in _artists(ax) if issubclass(type(a), patches.Wedge)]

    def reader(panel, wedge):
        return summaries.pie_of(panel, wedges) if wedge is wedges[0] else None

    return reader


def _cell_texts(panel, heatmap, grid, found):
    """Takes the texts that stand in the cells of a heatmap, as rows of texts, out of `found`."""
    xs, ys = grid
    if not found or len(found) < 2 or "omitted" in heatmap:
        return found
    columns = {"%.6g" % x: index for index, x in enumerate(xs.tolist())}
    rows = {"%.6g" % y: index for index, y in enumerate(ys.tolist())}
    texts = [[None] * len(columns) for _ in rows]
    left, placed = [], []
    for text, x, y in found:
        row, column = rows.get("%.6g" % y), columns.get("%.6g" % x)
        if row is None or column is None or texts[row][column] is not None:
            left.append((text, x, y))
        else:
            texts[row][column] = text
            placed.append(text)
    if placed and len(keep_texts(panel.budget, placed, len(placed))) == len(placed):
        heatmap["texts"] = texts
        return left
    return found


def _axes_title(ax):
    for place in ("center", "left", "right"):
        title = ax.get_title(place)
        if title:
            return title
    return None


def _position(ax):
    """Row and column among the subplots, where there are several."""
    spec = ax.get_subplotspec()
    if spec is None:
        return None
    spec = spec.get_topmost_subplotspec()
    rows, columns = spec.get_gridspec().get_geometry()
    if rows * columns == 1:
        return None
    made = {"row": spec.rowspan.start, "column": spec.colspan.start}
    made.update({"rows": rows, "columns": columns})
    return made


# === legends ===


def _legend(legend, budget):
    """{title, labels, names}: `names` says which colour has which label."""
    try:
        texts = [values.text(text.get_text()) or "" for text in legend.get_texts()]
        names = []
        for handle, text in zip(legend.legend_handles, texts):
            color = _handle_color(handle)
            if color is not None and text:
                names.append((color, text))
        title = values.text(legend.get_title().get_text())
        return {"title": title, "labels": keep_texts(budget, texts, TEXTS_MAX), "names": names}
    except Exception:
        return {"title": None, "labels": [], "names": []}


def _handle_color(handle):
    if issubclass(type(handle), lines.Line2D):
        drawn = handle.get_linestyle() not in ("None", "none", "", " ", None)
        return hex_color(handle.get_color() if drawn else handle.get_markerfacecolor())
    if issubclass(type(handle), (patches.Patch, collections.Collection)):
        face = np.asarray(handle.get_facecolor())
        color = hex_color(face)
        return color if color is not None else hex_color(handle.get_edgecolor())
    if issubclass(type(handle), container.Container):
        return next((c for c in map(_handle_color, handle.get_children()) if c), None)
    return None


def _joined(legends):
    labels = [label for one in legends for label in one["labels"]]
    if not labels:
        return None
    title = next((one["title"] for one in legends if one["title"]), None)
    return {"title": title, "labels": labels}
