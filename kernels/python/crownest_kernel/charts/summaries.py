"""matplotlib: box plots, violins and pies, from what their methods were told (`records`)."""

import numpy as np

from . import values
from .document import keep_texts
from .panel import Unreadable, hex_color

OUTLIERS_MAX = 1_000
SLICES_MAX = 500
_BOX_FIELDS = (
    ("min", "whislo"),
    ("first_quartile", "q1"),
    ("median", "med"),
    ("third_quartile", "q3"),
    ("max", "whishi"),
    ("mean", "mean"),
)


def read_record(panel, record):
    """The series of a record of a box plot, a violin plot or a pie."""
    return {"box": _boxes, "violin": _violins, "pie": _pie}[record.kind](panel, record)


def _beginning(panel, record, kind):
    """Name and colour: those of the first box, if all are alike."""
    artists = [artist for artist in (ref() for ref in record.boxes) if artist is not None]
    found = {_face(artist) for artist in artists}
    color = found.pop() if len(found) == 1 else None
    name = None
    if artists:
        name = values.text(artists[0].get_label())
        name = panel.names.get(color) if not name or name.startswith("_") else name
    orientation = "vertical" if record.vertical else "horizontal"
    return {"type": kind, "name": name, "color": color, "orientation": orientation}


def _face(artist):
    for method in ("get_facecolor", "get_color"):
        if hasattr(artist, method):
            return hex_color(getattr(artist, method)())
    return None


def _names(panel, record, count):
    axis = panel.x if record.vertical else panel.y
    names = axis.names(record.positions[:count])
    if axis.has_names:
        return names
    given = [stats.get("label") for stats in record.stats[:count]]
    return [values.plain(label) if label else name for label, name in zip(given, names)]


def _positions(record, count):
    rounded = [float("%.12g" % place) for place in values.flat(record.positions[:count])]
    return values.numbers(values.flat(rounded))


def _boxes(panel, record):
    count = panel.budget.points(len(record.stats), len(_BOX_FIELDS) + 2)
    made = _beginning(panel, record, "box")
    made["categories"] = _names(panel, record, count)
    made["positions"] = _positions(record, count)
    boxes = []
    for stats in record.stats[:count]:
        box = {name: values.number(stats[key]) for name, key in _BOX_FIELDS if key in stats}
        outliers = values.flat(stats.get("fliers", ())) if record.has_outliers else np.zeros(0)
        kept = min(len(outliers), OUTLIERS_MAX)
        kept = kept if panel.budget.take(kept) else 0
        box["outliers"] = values.numbers(outliers[:kept])
        if kept < len(outliers):
            box["outliers_omitted"] = len(outliers) - kept
            panel.budget.leave_out("points", len(outliers) - kept)
        boxes.append(box)
    made["boxes"] = boxes
    if count < len(record.stats):
        made["omitted"] = len(record.stats) - count
    return made


def _violins(panel, record):
    made = _beginning(panel, record, "violin")
    violins, kept = [], 0
    for stats in record.stats:
        places, widths = values.flat(stats["coords"]), values.flat(stats["vals"])
        if not panel.budget.take(2 * len(places) + 8):
            break
        violin = {name: values.number(stats[name]) for name in ("min", "median", "mean", "max")}
        quantiles = stats.get("quantiles")
        if quantiles is not None and len(quantiles):
            violin["quantiles"] = values.numbers(values.flat(quantiles)[:100])
        violin["values"], violin["density"] = values.numbers(places), values.numbers(widths)
        violins.append(violin)
        kept += 1
    made["categories"] = _names(panel, record, kept)
    made["positions"] = _positions(record, kept)
    made["violins"] = violins
    if kept < len(record.stats):
        made["omitted"] = len(record.stats) - kept
        panel.budget.leave_out("points", made["omitted"])
    return made


def _pie(panel, record):
    wedges = [wedge for wedge in (ref() for ref in record.boxes) if wedge is not None]
    sizes = values.flat(record.sizes)
    return pie_of(panel, wedges, sizes if len(sizes) == len(wedges) else None)


def pie_of(panel, wedges, sizes=None):
    """A pie of its wedges; without `sizes`, their angles are all that is known."""
    if not wedges:
        raise Unreadable
    count = panel.budget.points(min(len(wedges), SLICES_MAX), 6)
    labels = [values.text(wedge.get_label()) for wedge in wedges[:count]]
    labels = [None if label and label.startswith("_") else label for label in labels]
    count = len(keep_texts(panel.budget, labels, count))
    slices = []
    for index, wedge in enumerate(wedges[:count]):
        angle = abs(float(wedge.theta2) - float(wedge.theta1))
        part = {"label": labels[index], "value": None, "fraction": values.number(angle / 360)}
        if sizes is not None:
            part["value"] = values.number(sizes[index])
        part.update({"angle": values.number(angle), "radius": values.number(wedge.r)})
        part["color"] = hex_color(wedge.get_facecolor())
        slices.append(part)
    made = {"type": "pie", "name": None, "color": None, "slices": slices}
    inner = {wedge.width for wedge in wedges}
    if inner != {None} and len(inner) == 1:
        made["hole"] = values.number(float(wedges[0].r) - float(inner.pop()))
    if count < len(wedges):
        made["omitted"] = len(wedges) - count
    return made


def merged(found):
    """Series that belong together: boxes that were drawn by several calls, as seaborn does (those
    of one name and colour are one series, and so are all that have no name), what is drawn inside
    violins, and the outlines of areas."""
    made = []
    for one in found:
        if one["type"] == "line" and (_is_inside(made, one) or _is_outline(found, one)):
            continue
        same = None
        if one["type"] in ("box", "violin"):
            same = next((other for other in made if _belong_together(other, one)), None)
        if same is None:
            made.append(one)
            continue
        for part in ("categories", "positions", "boxes", "violins"):
            if part in one:
                same[part] = same[part] + one[part]
        if same["color"] != one["color"]:
            same["color"] = None
    return made


def _belong_together(one, other):
    return all(one.get(part) == other[part] for part in ("type", "name", "orientation")) and (
        one["name"] is None or one["color"] == other["color"]
    )


def _is_outline(found, line):
    """Whether a line is the upper edge of an area: pandas draws both."""
    return any(
        one["type"] == "area"
        and (one["x"], one["y"], one["name"]) == (line["x"], line["y"], line["name"])
        for one in found
    )


def _is_inside(made, line):
    """Takes seaborn's miniature box into the violin that it is drawn in: the median, a thick line
    between the quartiles, a thin one between the whiskers."""
    if line["name"] is not None or len(set(line["x"])) != 1 or len(line["x"]) > 2:
        return False
    for one in made:
        body = _body_at(one, line["x"][0]) if one["type"] == "violin" else None
        if body is None:
            continue
        ends = line["y"]
        if len(ends) == 1:
            body["median"] = ends[0]
            errors = line.get("y_error")
            ends = [errors["low"][0], errors["high"][0]] if errors is not None else None
        if ends is not None and "whiskers" not in body:
            body["whiskers"] = ends
        elif ends is not None:
            wide, narrow = sorted((body["whiskers"], ends), key=lambda pair: pair[0] - pair[1])
            body["whiskers"] = wide
            body["first_quartile"], body["third_quartile"] = narrow
        return True
    return False


def _body_at(violins, place):
    for name, position, body in zip(
        violins["categories"], violins["positions"], violins["violins"]
    ):
        if place == name or (type(place) is float and abs(place - position) < 1e-9):
            return body
    return None
