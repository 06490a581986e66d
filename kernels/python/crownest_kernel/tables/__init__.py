"""Tables as data: what a DataFrame, a Series or an Arrow table holds, with its types.

One document per table, `application/vnd.crownest.table+json`: columns with their types, how many
rows there are, and the first of them with exact values; docs/tables.md is its definition. `cells`
says how values are written, `of_pandas`, `of_polars` and `of_arrow` read one library each, and
`export` writes a whole table to a file. A library is never loaded here, only recognized.

What is read belongs to the tenant. A table that cannot be read has no document, and the run goes
on; nothing here changes a table.
"""

import sys

from ..display import Ready
from ..frames import encode

MIME = "application/vnd.crownest.table+json"
VERSION = 1
ROWS_MAX = 200
COLUMNS_MAX = 500
CELLS_MAX = 20_000
ROWS_PROBED = 8
# As JSON. Below what an answer may hold inline, and not much more than somebody looks at.
DOCUMENT_BYTES_MAX = 256 * 1024

# By library: the classes that are tables, by name.
_KINDS = {
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch"),
}


def library_of(value):
    """The name of the library whose table `value` is, or None."""
    kind = type(value)
    for library, names in _KINDS.items():
        module = sys.modules.get(library)
        if module is None:
            continue
        for name in names:
            table = getattr(module, name, None)
            if issubclass(type(table), type) and issubclass(kind, table):
                return library
    return None


def of(value, library):
    """The document of a table, or None when it cannot be read."""
    try:
        return _document(value, library)
    except Exception:
        return None


def _reader(library):
    if library == "pandas":
        from . import of_pandas as reader
    elif library == "polars":
        from . import of_polars as reader
    else:
        from . import of_arrow as reader
    return reader


def _document(value, library):
    table = _reader(library).Table(value)
    wide = min(table.column_count, COLUMNS_MAX)
    most = min(table.row_count, ROWS_MAX, max(1, CELLS_MAX // max(1, wide)))
    # A few rows say how many there will be room for.
    rows = min(most, ROWS_PROBED)
    while True:
        made = _described(table, library, rows, wide)
        size = len(encode(made))
        if size > DOCUMENT_BYTES_MAX:
            most = min(most, max(1, rows // 2))
            if rows == 1:
                if wide <= 1:
                    return None
                wide //= 2
            rows = most
        elif rows >= most:
            return Ready(made)
        else:
            rows = max(rows + 1, min(most, rows * DOCUMENT_BYTES_MAX // size * 9 // 10))
            rows = min(rows, most)


def _described(table, library, rows, wide):
    columns = table.columns(rows, wide)
    described = [column.described() for column in columns]
    made = {
        "version": VERSION,
        "library": library,
        "kind": table.kind,
        "columns": described,
        "rows": [list(row) for row in zip(*(column.cells for column in columns))],
        "row_count": table.row_count,
        "column_count": table.column_count,
    }
    cut = sum(column.cut for column in columns)
    omitted = {
        "rows": table.row_count - rows,
        "columns": table.column_count - wide,
        "cut_cells": cut,
    }
    omitted = {what: count for what, count in omitted.items() if count}
    if omitted:
        made["omitted"] = omitted
    return made
