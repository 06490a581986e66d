"""Charts and their series put together. Knows no library."""

from ..frames import encode
from .budget import CHARTS_MAX
from .values import text, texts_cost

VERSION = 1
# Below what an answer may hold inline.
DOCUMENT_BYTES_MAX = 960 * 1024
# Series that go with others without making the chart one of two kinds.
_COMPANIONS = {"area": ("line", "scatter"), "error_bar": ("line", "scatter", "bar")}


def document(library, title, charts, budget):
    """The whole document; None when nothing is shown."""
    if len(charts) > CHARTS_MAX:
        budget.leave_out("charts", len(charts) - CHARTS_MAX)
        charts = charts[:CHARTS_MAX]
    if not charts:
        return None
    made = {"version": VERSION, "library": library, "title": text(title), "charts": charts}
    made["type"] = charts[0]["type"] if len(charts) == 1 else "multiple"
    excess = len(encode(made)) - DOCUMENT_BYTES_MAX
    if excess > 0 and not _drop_largest(charts, budget, excess):
        return None
    if budget.omitted:
        made["omitted"] = budget.omitted
    if budget.unknown:
        made["unknown"] = list(budget.unknown)
    return made


def _drop_largest(charts, budget, excess):
    """Drops the largest series until so many bytes are gone. Budgets count numbers and names; long
    names in great number may still be too much."""
    sized = [
        (len(encode(one)), where, index)
        for where, found in enumerate(charts)
        for index, one in enumerate(found["series"])
    ]
    dropped = set()
    for size, where, index in sorted(sized, reverse=True):
        if excess <= 0:
            break
        excess -= size
        dropped.add((where, index))
    for where, found in enumerate(charts):
        kept = [o for i, o in enumerate(found["series"]) if (where, i) not in dropped]
        found["series"] = kept
    budget.leave_out("series", len(dropped))
    return excess <= 0


def chart(title, series, axes, **more):
    """One chart: `series` in the order in which they are drawn, `axes` by name (x, y, y2 …)."""
    made = {"type": kind_of(series), "title": text(title), "axes": axes, "series": series}
    made.update((name, value) for name, value in more.items() if value)
    mode = _bar_mode(series)
    if mode:
        made["bar_mode"] = mode
    return made


def kind_of(series):
    """What a chart of these series is called."""
    kinds = {one["type"] for one in series}
    for companion, main in _COMPANIONS.items():
        if companion in kinds and kinds.intersection(main):
            kinds.discard(companion)
    if len(kinds) == 1:
        return kinds.pop()
    return "combo" if kinds else "unknown"


def _bar_mode(series):
    """How several series of bars stand to each other."""
    bars = [one for one in series if one["type"] == "bar"]
    if len(bars) < 2:
        return None
    if any("base" in one for one in bars):
        return "stacked"
    return "overlaid" if len({_places(one) for one in bars}) == 1 else "grouped"


def _places(one):
    return (one.get("offset"), *(one.get("positions") or one["categories"]))


def keep_texts(budget, texts, most):
    """At most so many of `texts`, as the budget allows."""
    kept = texts[:most]
    while kept and not budget.take(texts_cost(kept)):
        kept = kept[: len(kept) // 2]
    return kept
