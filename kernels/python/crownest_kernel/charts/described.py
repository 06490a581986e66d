"""What the readers of plotly, vega and bokeh share: columns of plain values, axes that are told by
their values, bars that are stacked by whoever draws them."""

import re

from . import values
from .budget import thinned

_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-]\d\d:?\d\d)?)?\Z"
)
# Looked at to find out what an axis is of.
_SAMPLE = 100


def columns(budget, *given):
    """Columns of equal length as plain values, thinned evenly to what the budget allows; and how
    many points are missing. A column that is None stays None."""
    present = [column for column in given if column is not None]
    count = min((len(column) for column in present), default=0)
    kept = budget.points(count, len(present))
    indices = thinned(count, kept)
    chosen = range(count) if indices is None else indices
    made = [None if c is None else [values.plain(c[index]) for index in chosen] for c in given]
    return made, count - kept


def kind_of_values(sequences):
    """`datetime`, `categorical` or `linear`, by what stands on an axis."""
    texts = dates = others = 0
    for sequence in sequences:
        for value in sequence[:_SAMPLE]:
            if type(value) is str:
                texts += 1
                dates += _DATE.match(value) is not None
            elif value is not None:
                others += 1
    if texts and dates == texts and not others:
        return "datetime"
    return "categorical" if texts > others else "linear"


def iso(value):
    """A date as ISO 8601 in full; what is none stays as it is."""
    match = _DATE.match(value) if type(value) is str else None
    if match is None:
        return value
    day, time, zone = match.groups()
    time = time or "00:00"
    if len(time) == 5:
        time += ":00"
    if "." in time:
        time = time.rstrip("0").rstrip(".")
    return "%sT%s%s" % (day, time, {"Z": "+00:00"}.get(zone, zone or ""))


def as_dates(series, axis_names):
    """In place: positions on an axis of dates."""
    for name in axis_names:
        for field in (name, name + "2"):
            if type(series.get(field)) is list:
                series[field] = [iso(value) for value in series[field]]
    if "categories" in series and _category_axis(series) in axis_names:
        series["categories"] = [iso(value) for value in series["categories"]]


def _category_axis(series):
    return "y" if series.get("orientation") == "horizontal" else "x"


def categories_of(sequences, most=1_000):
    """The distinct names on an axis, in order of appearance."""
    found = {}
    for sequence in sequences:
        for value in sequence:
            if type(value) is str and len(found) < most:
                found.setdefault(value)
    return list(found)


def positions(series, axis):
    """What a series has on an axis, for finding out what the axis is of."""
    found = []
    if type(series.get(axis)) is list:
        found.append(series[axis])
    if "categories" in series and _category_axis(series) == axis:
        found.append(series["categories"])
    if "edges" in series and _category_axis(series) == axis:
        found.append(series["edges"])
    return found


def stack(bars):
    """Gives each bar the base that it stands on: positive ones upwards, negative ones downwards."""
    tops = {}
    for one in bars:
        base = []
        for category, value in zip(one["categories"], one["values"]):
            number = value if type(value) in (int, float) else 0
            key = (one.get("orientation"), category, number < 0)
            base.append(tops.get(key, 0))
            tops[key] = base[-1] + number
        if any(base):
            one["base"] = base


def axis(label, scale, limits=None, **more):
    """An axis of the document."""
    label = values.text(label)
    made = {"label": label, "unit": values.unit_of(label), "scale": scale}
    if limits is not None:
        made["limits"] = limits
    made.update((name, value) for name, value in more.items() if value)
    return made


def counts(bounds, samples):
    """How many numbers fall between each two of the sorted bounds; the last one is inclusive."""
    from bisect import bisect_right

    found = [0] * (len(bounds) - 1)
    for sample in samples:
        if type(sample) not in (int, float) or sample != sample:
            continue
        index = bisect_right(bounds, sample) - 1
        if index == len(found) and sample == bounds[-1]:
            index -= 1
        if 0 <= index < len(found):
            found[index] += 1
    return found


def box_of(samples, quantile):
    """The box of a sample; `quantile(sorted, part)` is a library's way to find a quartile."""
    ordered = sorted(sample for sample in samples if type(sample) in (int, float))
    if not ordered:
        return None
    first, median, third = (quantile(ordered, part) for part in (0.25, 0.5, 0.75))
    reach = 1.5 * (third - first)
    inside = [sample for sample in ordered if first - reach <= sample <= third + reach] or [median]
    return {
        "min": min(inside[0], first),
        "first_quartile": first,
        "median": median,
        "third_quartile": third,
        "max": max(inside[-1], third),
        "mean": sum(ordered) / len(ordered),
        "outliers": [s for s in ordered if not first - reach <= s <= third + reach],
    }


def between(ordered, place):
    """The value at a fractional index of a sorted list."""
    place = min(max(0.0, place), len(ordered) - 1.0)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# === reading JSON that may be anything ===


def as_dict(given):
    """An object, or an empty one."""
    return given if type(given) is dict else {}


def as_list(given):
    """A list, or an empty one."""
    return given if type(given) is list else []


def title_of(given):
    """A title is a text, lines of it, or an object that has it."""
    if type(given) is dict:
        given = given.get("text")
    if type(given) is list:
        given = " ".join(part for part in given if type(part) is str)
    return values.text(given) if type(given) is str else None


def color_of(given):
    """A colour as it was written, `#rrggbb` in small letters."""
    color = values.text(given) if type(given) is str else None
    return color.lower() if color and color.startswith("#") else color
