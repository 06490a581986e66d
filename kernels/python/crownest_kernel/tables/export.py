"""A whole table as a file, for a run that asked for it (`table_export` of `execute`).

The file is the tenant's, in the tenant's directory; whoever asked takes it from there and removes
it. A table that cannot be written, or is too large, leaves no file and a `notice`.
"""

import io
import os
import sys

DIRECTORY = "/workspace/.crownest/exports"
FORMATS = ("parquet", "csv")
EXPORT_BYTES_MAX = 1024 * 1024 * 1024
# Of one run: a loop that displays tables is not asking for as many files.
EXPORTS_MAX = 16


class TooLarge(Exception):
    """The file would be larger than EXPORT_BYTES_MAX."""


def write(value, library, form, run, number):
    """Writes the table and says where: {path, format, bytes}. Raises when it cannot."""
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    path = "%s/%d-%d.%s" % (DIRECTORY, run, number, form)
    begun = path + ".part"
    try:
        with open(begun, "wb") as raw, _Bounded(raw) as file:
            _WRITERS[library, form](value, file)
            file.flush()
            size = file.written
        os.rename(begun, path)
    except BaseException:
        try:
            os.unlink(begun)
        except OSError:
            pass
        raise
    return {"path": path, "format": form, "bytes": size}


class _Bounded(io.BufferedIOBase):
    """A file that refuses to become too large."""

    def __init__(self, raw):
        super().__init__()
        self._raw = raw
        self.written = 0

    def writable(self):
        return True

    def write(self, data):
        data = memoryview(data)
        self.written += data.nbytes
        if self.written > EXPORT_BYTES_MAX:
            raise TooLarge("the table takes more than %d bytes" % EXPORT_BYTES_MAX)
        self._raw.write(data)
        return data.nbytes

    def flush(self):
        self._raw.flush()

    def tell(self):
        return self.written


def _pandas_parquet(value, file):
    pandas = sys.modules["pandas"]
    if issubclass(type(value), pandas.Series):
        value = value.to_frame("value" if value.name is None else value.name)
    value.to_parquet(file, engine="pyarrow")


def _pandas_csv(value, file):
    index = value.index
    default = type(index) is sys.modules["pandas"].RangeIndex and index.name is None
    value.to_csv(file, index=not default, encoding="utf-8")


def _polars_frame(value):
    return value.to_frame() if hasattr(type(value), "to_frame") else value


def _polars_parquet(value, file):
    _polars_frame(value).write_parquet(file)


def _polars_csv(value, file):
    _polars_frame(value).write_csv(file)


def _arrow_table(value):
    arrow = sys.modules["pyarrow"]
    if issubclass(type(value), arrow.RecordBatch):
        return arrow.Table.from_batches([value])
    return value


def _arrow_parquet(value, file):
    import pyarrow.parquet as parquet

    parquet.write_table(_arrow_table(value), file)


def _arrow_csv(value, file):
    import pyarrow.csv as csv

    csv.write_csv(_arrow_table(value), file)


_WRITERS = {
    ("pandas", "parquet"): _pandas_parquet,
    ("pandas", "csv"): _pandas_csv,
    ("polars", "parquet"): _polars_parquet,
    ("polars", "csv"): _polars_csv,
    ("pyarrow", "parquet"): _arrow_parquet,
    ("pyarrow", "csv"): _arrow_csv,
}
