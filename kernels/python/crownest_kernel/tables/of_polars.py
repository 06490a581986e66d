"""Tables of polars. Loaded when polars is."""

import sys

from . import cells
from .cells import Column


class Table:
    """A DataFrame, or a Series as a table of one column."""

    def __init__(self, value):
        self._polars = sys.modules["polars"]
        self.kind = "series" if issubclass(type(value), self._polars.Series) else "table"
        self._value = value
        self.row_count = len(value)
        self.column_count = 1 if self.kind == "series" else value.width

    def columns(self, rows, wide):
        """The first columns."""
        head = self._value.head(rows)
        series = [head] if self.kind == "series" else [head.to_series(i) for i in range(wide)]
        return [self._column(one) for one in series]

    def _column(self, series):
        dtype = series.dtype
        kind, values, more = self._values(series, dtype)
        name = series.name if series.name or self.kind == "table" else "value"
        return Column(name, str(dtype), kind, True, values, **more)

    def _values(self, series, dtype):
        polars = self._polars
        if dtype.is_integer():
            return "integer", series.to_list(), {}
        if dtype.is_float():
            return "float", cells.floats(series.to_list(), False), {}
        if dtype == polars.Datetime:
            zone = dtype.time_zone
            counts = series.cast(polars.Int64).to_list()
            known = cells.zone_of(zone) if zone else None
            found = cells.moments(counts, dtype.time_unit, known)
            return "datetime", found, {"timezone": zone} if zone else {}
        if dtype == polars.Duration:
            counts = series.cast(polars.Int64).to_list()
            return "duration", cells.durations(counts, dtype.time_unit), {}
        if dtype == polars.Categorical or dtype == polars.Enum:
            return "category", series.cast(polars.String).to_list(), {}
        for kind, name in (
            (polars.Boolean, "boolean"),
            (polars.String, "string"),
            (polars.Date, "date"),
            (polars.Time, "time"),
            (polars.Decimal, "decimal"),
            (polars.List, "list"),
            (polars.Array, "list"),
            (polars.Struct, "json"),
            (polars.Null, "null"),
        ):
            if dtype == kind:
                return name, [cells.whole(value) for value in series.to_list()], {}
        if dtype == polars.Binary:
            return "binary", series.to_list(), {"encoding": "base64"}
        return "object", [cells.plain(value) for value in series.to_list()], {}
