"""Tables of Arrow, and columns of pandas that are of Arrow. Loaded when pyarrow is."""

import sys

from . import cells
from .cells import Column


class Table:
    """A Table or a RecordBatch."""

    kind = "table"

    def __init__(self, value):
        self._value = value
        self.row_count, self.column_count = value.num_rows, value.num_columns

    def columns(self, rows, wide):
        """The first columns."""
        found = []
        head = self._value.slice(0, rows)
        for place in range(wide):
            field = head.schema.field(place)
            kind, _, values, more = values_of(head.column(place), field.type)
            nullable = bool(field.nullable)
            found.append(Column(field.name, str(field.type), kind, nullable, values, **more))
        return found


def values_of(column, dtype):
    """(logical type, nullable, JSON values, more about the column)"""
    arrow = sys.modules["pyarrow"]
    types = arrow.types
    if types.is_dictionary(dtype):
        _, _, values, more = values_of(column.cast(dtype.value_type), dtype.value_type)
        return "category", True, values, {**more, "ordered": bool(dtype.ordered)}
    if types.is_integer(dtype):
        return "integer", True, column.to_pylist(), {}
    if types.is_floating(dtype):
        return "float", True, cells.floats(column.to_pylist(), False), {}
    if types.is_timestamp(dtype):
        counts = column.cast(arrow.int64()).to_pylist()
        zone = dtype.tz
        known = cells.zone_of(zone) if zone else None
        found = cells.moments(counts, dtype.unit, known)
        return "datetime", True, found, {"timezone": zone} if zone else {}
    if types.is_duration(dtype):
        counts = column.cast(arrow.int64()).to_pylist()
        return "duration", True, cells.durations(counts, dtype.unit), {}
    if types.is_time64(dtype) and dtype.unit == "ns":
        counts = column.cast(arrow.int64()).to_pylist()
        texts = cells.moments(counts, "ns")
        return "time", True, [text and text.partition("T")[2] for text in texts], {}
    for is_kind, name in (
        (types.is_boolean, "boolean"),
        (types.is_string, "string"),
        (types.is_large_string, "string"),
        (types.is_date, "date"),
        (types.is_time, "time"),
        (types.is_decimal, "decimal"),
        (types.is_list, "list"),
        (types.is_large_list, "list"),
        (types.is_fixed_size_list, "list"),
        (types.is_map, "json"),
        (types.is_struct, "json"),
        (types.is_null, "null"),
    ):
        if is_kind(dtype):
            return name, True, [cells.whole(value) for value in column.to_pylist()], {}
    if types.is_binary(dtype) or types.is_large_binary(dtype) or types.is_fixed_size_binary(dtype):
        return "binary", True, column.to_pylist(), {"encoding": "base64"}
    return "object", True, [cells.plain(value) for value in column.to_pylist()], {}
