"""What matplotlib's hist, bxp, violin and pie compute, kept beside the artists that they make.

The artists alone do not say it: a histogram is bars, a box plot is lines. The methods are wrapped
once, when matplotlib is imported; they do what they did. A figure that comes from elsewhere (a
pickle) has no records and is read by its artists.
"""

import functools
import weakref

_records = weakref.WeakKeyDictionary()


class Record:
    """`kind`, the numbers, and which artist stands for the whole."""

    def __init__(self, kind, **facts):
        self.kind = kind
        self.__dict__.update(facts)


def of(artist):
    """The record that an artist belongs to, or None."""
    try:
        return _records.get(artist)
    except Exception:
        return None  # no hash, or one that raises


def watch(axes_class):
    """Wraps the methods of `matplotlib.axes.Axes`."""
    for name, note in _NOTES.items():
        method = axes_class.__dict__.get(name)
        if callable(method) and not hasattr(method, "__crownest__"):
            setattr(axes_class, name, _noted(method, note))


def _noted(method, note):
    @functools.wraps(method)
    def noted(self, *args, **kwargs):
        made = method(self, *args, **kwargs)
        try:
            note(made, args, kwargs)
        except Exception:
            pass
        return made

    noted.__crownest__ = True
    return noted


def _note_hist(made, args, kwargs):
    tops, edges, groups = made
    if len(getattr(tops, "shape", ())) == 1:
        groups, tops = [groups], [tops]
    stacked = bool(kwargs.get("stacked")) or kwargs.get("histtype") == "barstacked"
    below = None
    for top, group in zip(tops, groups):
        counts = top - below if stacked and below is not None else top
        below = top
        record = Record(
            "histogram",
            edges=edges,
            counts=counts,
            stacked=stacked,
            density=bool(kwargs.get("density")),
            cumulative=bool(kwargs.get("cumulative")),
            orientation=str(kwargs.get("orientation", "vertical")),
        )
        for artist in group:
            _records[artist] = record


def _note_boxes(made, args, kwargs):
    stats = list(args[0] if args else kwargs["bxpstats"])
    record = Record("box", stats=stats, **_placed(args, kwargs, len(stats)))
    record.has_outliers = bool(made.get("fliers"))
    for artists in made.values():
        for artist in artists:
            _records[artist] = record
    record.boxes = [weakref.ref(box) for box in made.get("boxes", ())]


def _note_violins(made, args, kwargs):
    stats = list(args[0] if args else kwargs["vpstats"])
    record = Record("violin", stats=stats, **_placed(args, kwargs, len(stats)))
    for artists in made.values():
        for artist in artists if isinstance(artists, list) else [artists]:
            _records[artist] = record
    record.boxes = [weakref.ref(body) for body in made.get("bodies", ())]


def _note_pie(made, args, kwargs):
    sizes = args[0] if args else kwargs["x"]
    # A container from matplotlib 3.11 on, before it a tuple whose first is the list of wedges.
    wedges = getattr(made, "wedges", None)
    wedges = list(made[0] if wedges is None else wedges)
    record = Record("pie", sizes=sizes, boxes=[weakref.ref(wedge) for wedge in wedges])
    texts = [text for group in list(made)[1:] for text in group]
    for artist in (*wedges, *texts):
        _records[artist] = record


def _placed(args, kwargs, count):
    positions = args[1] if len(args) > 1 else kwargs.get("positions")
    vertical = kwargs.get("orientation", "vertical") == "vertical"
    if kwargs.get("vert") is not None:
        vertical = bool(kwargs["vert"])
    positions = list(range(1, count + 1)) if positions is None else list(positions)
    return {"positions": positions, "vertical": vertical}


_NOTES = {"hist": _note_hist, "bxp": _note_boxes, "violin": _note_violins, "pie": _note_pie}
