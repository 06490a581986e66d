"""Tables of pandas. Loaded when pandas is."""

import sys

from . import cells
from .cells import Column


class Table:
    """A DataFrame, or a Series as a table of one column."""

    def __init__(self, value):
        self._pandas = sys.modules["pandas"]
        self.kind = "series" if issubclass(type(value), self._pandas.Series) else "table"
        self._value = value
        self.row_count = len(value.index)
        self.column_count = 1 if self.kind == "series" else len(value.columns)

    def columns(self, rows, wide):
        """The columns of the index, if it says anything, then those of the table."""
        head = self._value.iloc[:rows]
        found = self._index_columns(head.index)
        if self.kind == "series":
            return [*found, self._column(_name(head.name, "value"), head)]
        for place in range(wide):
            label = head.columns[place]
            found.append(self._column(_name(label, place), head.iloc[:, place], _path(label)))
        return found

    def _index_columns(self, index):
        pandas = self._pandas
        whole = self._value.index
        if type(whole) is pandas.RangeIndex and whole.name is None:
            if whole.start == 0 and whole.step == 1:
                return []
        found = []
        for level in range(index.nlevels):
            values = index.get_level_values(level).to_series()
            name = _name(index.names[level], "index" if index.nlevels == 1 else "level_%d" % level)
            column = self._column(name, values)
            column.more["index"] = True
            found.append(column)
        return found

    def _column(self, name, series, path=None):
        dtype = series.dtype
        kind, nullable, values, more = self._values(series, dtype)
        if path is not None:
            more["path"] = path
        return Column(name, str(dtype), kind, nullable, values, **more)

    def _values(self, series, dtype):
        """(logical type, whether a value may be missing, JSON values, more about the column)"""
        pandas = self._pandas
        if issubclass(type(dtype), pandas.CategoricalDtype):
            return self._categories(series, dtype)
        if issubclass(type(dtype), pandas.ArrowDtype):
            from . import of_arrow

            array = series.array.__arrow_array__()
            return of_arrow.values_of(array, dtype.pyarrow_dtype)
        if issubclass(type(dtype), pandas.SparseDtype):
            return self._values(series.sparse.to_dense(), dtype.subtype)
        if issubclass(type(dtype), pandas.DatetimeTZDtype):
            counts = _counts(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
            found = [
                None if count is None else moment.isoformat()
                for count, moment in zip(counts, series)
            ]
            return "datetime", True, list(map(_trimmed, found)), {"timezone": str(dtype.tz)}
        if issubclass(type(dtype), (pandas.PeriodDtype, pandas.IntervalDtype)):
            missing = series.isna().tolist()
            texts = [None if gone else str(value) for value, gone in zip(series, missing)]
            return "string", True, texts, {}
        letter = getattr(dtype, "kind", "O")
        masked = hasattr(dtype, "numpy_dtype") and letter in "iufb"
        if masked:
            return self._masked(series, letter)
        if letter in "iub":
            kind = "boolean" if letter == "b" else "integer"
            return kind, False, series.to_numpy().tolist(), {}
        if letter == "f":
            return "float", True, cells.floats(series.to_numpy().tolist(), True), {}
        if letter in "Mm":
            array = series.to_numpy()
            unit = str(array.dtype)[str(array.dtype).index("[") + 1 : -1]
            write = cells.moments if letter == "M" else cells.durations
            kind = "datetime" if letter == "M" else "duration"
            return kind, True, write(_counts(array), unit), {}
        return self._objects(series, issubclass(type(dtype), pandas.StringDtype))

    def _masked(self, series, letter):
        """Int64, Float64, boolean: missing is not NaN."""
        missing = series.isna().tolist()
        found = [None if gone else value for value, gone in zip(series.tolist(), missing)]
        if letter == "f":
            return "float", True, cells.floats(found, False), {}
        return ("boolean" if letter == "b" else "integer"), True, found, {}

    def _objects(self, series, is_text):
        listed = series.tolist()
        missing = series.isna().tolist()
        listed = [None if gone is True else value for value, gone in zip(listed, missing)]
        kind = "string" if is_text else cells.kind_of_objects(listed)
        more = {"encoding": "base64"} if kind == "binary" else {}
        found = [value if kind == "integer" else cells.whole(value) for value in listed]
        if kind == "integer":
            found = [None if value is None else int(value) for value in listed]
        return kind, True, found, more

    def _categories(self, series, dtype):
        names = dtype.categories
        _, _, texts, _ = self._values(names.to_series(), names.dtype)
        codes = series.cat.codes.tolist()
        found = [None if code < 0 else texts[code] for code in codes]
        more = {"categories": texts[: cells.CATEGORIES_MAX], "ordered": bool(dtype.ordered)}
        if len(texts) > cells.CATEGORIES_MAX:
            more["categories_omitted"] = len(texts) - cells.CATEGORIES_MAX
        return "category", True, found, more


def _counts(array):
    """Numbers of units since 1970, None for NaT."""
    counts = array.astype("int64").tolist()
    lowest = -(1 << 63)
    return [None if count == lowest else count for count in counts]


def _trimmed(text):
    """`…00.500000+01:00` says no more than `…00.5+01:00`."""
    if text is None or "." not in text:
        return text
    head, _, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    fraction = rest[:digits].rstrip("0")
    return head + ("." + fraction if fraction else "") + rest[digits:]


def _name(label, otherwise):
    if label is None:
        return str(otherwise)
    if type(label) is tuple:
        return ", ".join(cells.bounded(part) for part in label)
    return label


def _path(label):
    """The parts of a name that has several, as a column under a MultiIndex."""
    return [cells.bounded(part) for part in label] if type(label) is tuple else None
