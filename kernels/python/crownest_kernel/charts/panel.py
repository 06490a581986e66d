"""matplotlib: what the readers of artists share. The plot that an artist is in, the beginning of a
series, its points, its colours."""

import matplotlib.colors as colors

from . import values
from .budget import thinned

# Fields of a series that are there even when there is nothing to say.
ALWAYS = ("name", "color", "x", "y")


class Unreadable(Exception):
    """An artist of a kind that is not described."""


class Panel:
    """What the functions here need to know of the plot that an artist is in."""

    def __init__(self, ax, x, y, budget):
        self.ax, self.x, self.y, self.budget = ax, x, y, budget
        # {colour: name} of a legend whose entries are not the artists themselves.
        self.names = {}

    def name_of(self, artist, color=None):
        """The label that the user gave, or the legend's for that colour."""
        label = artist.get_label()
        label = values.text(label) if label is not None else None
        if label and not label.startswith("_"):
            return label
        return self.names.get(color)

    def placed(self, artist, transform=None):
        """(x, y): which of the coordinates are those of the data."""
        transform = transform or artist.get_transform()
        return transform.contains_branch_seperately(self.ax.transData)


def series(kind, panel, artist, color=None, **more):
    """The beginning of every series."""
    made = {"type": kind, "name": panel.name_of(artist, color), "color": color}
    made.update((name, value) for name, value in more.items() if value is not None)
    return made


def hex_color(color):
    """`#rrggbb`, or None for no colour and for several."""
    try:
        array = colors.to_rgba_array(color)
    except (ValueError, TypeError):
        return None
    if len(array) != 1 or array[0][3] == 0:
        return None
    return colors.to_hex(array[0])


def points(panel, *columns):
    """Columns of equal length, no longer than the budget allows, thinned evenly; and how many
    points are missing."""
    columns = [values.flat(column) for column in columns]
    count = min(len(column) for column in columns)
    kept = panel.budget.points(count, len(columns))
    indices = thinned(count, kept)
    if indices is not None:
        return [column[:count][indices] for column in columns], count - kept
    return [column[:count] for column in columns], 0


def color_scale(mappable):
    """Which colours stand for which values."""
    low, high = mappable.get_clim()
    made = {
        "name": values.text(mappable.get_cmap().name),
        "limits": [None if end is None else values.number(end) for end in (low, high)],
    }
    norm = type(mappable.norm)
    if issubclass(norm, colors.LogNorm):
        made["scale"] = "log"
    bar = getattr(mappable, "colorbar", None)
    if bar is not None:
        axis = bar.ax.xaxis if bar.orientation == "horizontal" else bar.ax.yaxis
        made["label"] = values.text(axis.get_label_text()) or values.text(bar.ax.get_title())
    return made
