"""matplotlib: one axis of a plot. Its label, scale, limits and ticks, and what its numbers mean:
numbers, dates or categories."""

import functools
import sys

import matplotlib.category as category
import matplotlib.dates as mdates
import matplotlib.ticker as ticker
import numpy as np

from . import values
from .document import keep_texts

TICKS_MAX = 100
CATEGORIES_MAX = 1_000
# How far a bar may be from the tick that names it, as a part of the distance between ticks.
_NEAR = 0.5


class Axis:
    """Reads one matplotlib axis, after the figure has been drawn."""

    def __init__(self, axis, budget):
        self._axis = axis
        self._budget = budget
        self.categories = _categories(axis)
        self._periods = _period_frequency(axis)
        self.is_date = self._periods is None and _counts_days(axis.get_converter())
        self._named = self._named_ticks()
        # Whether bars, boxes or cells are named by the ticks.
        self._names_things = False

    def described(self):
        """The axis of the document."""
        axis = self._axis
        label = values.text(axis.get_label_text())
        made = {"label": label, "unit": values.unit_of(label), "scale": self._scale()}
        low, high = sorted(axis.get_view_interval().tolist())
        made["limits"] = self.convert([low, high], whole=False)
        if axis.get_inverted():
            made["inverted"] = True
        categories = self._all_categories()
        if categories is not None:
            made["categories"] = keep_texts(self._budget, categories, CATEGORIES_MAX)
            if len(made["categories"]) < len(categories):
                self._budget.leave_out("categories", len(categories) - len(made["categories"]))
        made["ticks"] = self._ticks(low, high)
        return made

    def convert(self, numbers, whole=True):
        """Positions on the axis as JSON: numbers, ISO dates or names of categories. `whole`:
        names only if every position is one, as for points that were given by name."""
        array = values.flat(numbers)
        if self.is_date:
            return self._dates(array)
        if self._periods is not None:
            return self._of_periods(array)
        if self.categories is not None and whole:
            named = [self._category(number) for number in array.tolist()]
            if None not in named:
                return named
        return values.numbers(array)

    def names(self, numbers):
        """As convert(), for bars, boxes and cells: the tick next to each position names it."""
        array = values.flat(numbers)
        if self.is_date or self._periods is not None:
            return self.convert(array)
        if self.categories is not None:
            return [self._category(round(n)) if n == n else None for n in array.tolist()]
        if self._named:
            found = self._nearest_names(array)
            if found is not None:
                self._names_things = True
                return found
        return values.numbers(array)

    @property
    def has_names(self):
        """Whether positions have names at all."""
        return self.categories is not None or bool(self._named)

    def _scale(self):
        if self.is_date or self._periods is not None:
            return "datetime"
        if self.categories is not None or self._names_things:
            return "categorical"
        return values.text(self._axis.get_scale()) or "linear"

    def _all_categories(self):
        if self.categories is not None:
            return [name for _, name in sorted(self.categories.items())]
        return [name for _, name in self._named] if self._names_things else None

    def _category(self, number):
        return self.categories.get(int(number)) if number == number // 1 else None

    def _dates(self, days):
        tz = self._axis.get_units()
        epoch = np.datetime64(mdates.get_epoch())
        return values.dates(days, epoch, tz if hasattr(tz, "utcoffset") else None)

    def _of_periods(self, ordinals):
        pandas = sys.modules["pandas"]
        good = np.isfinite(ordinals)
        whole = np.where(good, ordinals, 0).astype("int64")
        moments = pandas.PeriodIndex.from_ordinals(whole, freq=self._periods).to_timestamp()
        listed = [moment.isoformat() for moment in moments.to_pydatetime()]
        return [text if ok else None for text, ok in zip(listed, good.tolist())]

    # === ticks ===

    def _ticks(self, low, high):
        locations, labels = self._located(self._axis.get_majorticklocs())
        margin = (high - low) * 1e-9
        shown = [
            (location, values.text(label) or "")
            for location, label in zip(locations, labels)
            if low - margin <= location <= high + margin
        ][:TICKS_MAX]
        names = keep_texts(self._budget, [label for _, label in shown], TICKS_MAX)
        places = [location for location, _ in shown[: len(names)]]
        return {"values": self.convert(places), "labels": names}

    def _located(self, locations):
        locations = values.flat(locations)[:CATEGORIES_MAX]
        labels = self._axis.get_major_formatter().format_ticks(locations)
        return locations.tolist(), list(labels)

    def _named_ticks(self):
        """[(location, text)] where the ticks were given texts that are no numbers."""
        formatter = self._axis.get_major_formatter()
        if not issubclass(type(formatter), (ticker.FixedFormatter, ticker.FuncFormatter)):
            return []
        if issubclass(type(formatter), ticker.FuncFormatter):
            function = formatter.func
            # What set_ticklabels() leaves; any other function is a way to write numbers.
            if not (type(function) is functools.partial and function.args):
                return []
        locations = values.flat(self._axis.get_majorticklocs())[:CATEGORIES_MAX]
        labels = formatter.format_ticks(locations)
        return [
            (location, values.text(label))
            for location, label in zip(locations.tolist(), labels)
            if values.text(label)
        ]

    def _nearest_names(self, array):
        """The texts of the ticks that things at these positions belong to; None if one of them
        belongs to none."""
        named = sorted(self._named)
        places = np.array([place for place, _ in named])
        if not len(array) or not np.isfinite(array).all():
            return None
        gaps = np.diff(np.unique(places))
        reach = _NEAR * gaps.min() if len(gaps) else 1.0
        after = np.clip(np.searchsorted(places, array), 1, max(1, len(places) - 1))
        before = after - 1
        after = np.minimum(after, len(places) - 1)
        nearest = np.where(array - places[before] <= places[after] - array, before, after)
        if (np.abs(places[nearest] - array) > reach).any():
            return None
        return [named[index][1] for index in nearest.tolist()]


def _categories(axis):
    """{position: name} of an axis of categories, or None."""
    if not issubclass(type(axis.get_converter()), category.StrCategoryConverter):
        return None
    units = axis.get_units()
    mapping = getattr(units, "_mapping", None)
    if not mapping:
        return None
    return {int(place): values.text(name) or "" for name, place in mapping.items()}


def _counts_days(converter):
    kinds = (mdates.DateConverter, mdates._SwitchableDateConverter)
    return issubclass(type(converter), kinds)


def _period_frequency(axis):
    """pandas draws a series with a regular index by the ordinals of its periods."""
    if type(axis.get_converter()).__name__ != "PeriodConverter" or "pandas" not in sys.modules:
        return None
    return getattr(axis, "freq", None)
