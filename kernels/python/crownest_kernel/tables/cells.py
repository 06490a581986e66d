"""How the values of a column are written as JSON, without loss.

Integers beyond 2**53, decimals and dates are texts; NaN and the infinities of a column of floats
are the texts `NaN`, `Infinity`, `-Infinity`; what is missing is null.
"""

import base64
import datetime
import decimal
import math

# What every reader of JSON gets right.
EXACT_INTEGER_MAX = (1 << 53) - 1
CELL_CHARS_MAX = 2_000
CELL_BYTES_MAX = 1_500
# In a list or a struct, everything inside it counted.
CELL_ITEMS_MAX = 500
CELL_DEPTH_MAX = 8
NAME_CHARS_MAX = 500
CATEGORIES_MAX = 100
_UNITS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime.datetime(1970, 1, 1)
_UTC = datetime.timezone.utc


class Column:
    """One column of the document, and its first cells."""

    def __init__(self, name, dtype, kind, nullable, cells, **more):
        self.name = bounded(name, NAME_CHARS_MAX)
        self.dtype = bounded(dtype, NAME_CHARS_MAX)
        self.kind, self.nullable, self.more = kind, nullable, more
        self.cut = 0
        self.cells = [self._cell(cell) for cell in cells]
        if kind == "integer" and any(_is_inexact(cell) for cell in self.cells):
            self.more["encoding"] = "string"
            self.cells = [None if cell is None else str(cell) for cell in self.cells]

    def described(self):
        """The column without its cells."""
        made = {"name": self.name, "dtype": self.dtype, "type": self.kind}
        made["nullable"] = self.nullable
        made.update((name, value) for name, value in self.more.items() if value)
        return made

    def _cell(self, cell):
        if type(cell) is bytes:
            self.cut += len(cell) > CELL_BYTES_MAX
            return base64_of(cell)
        if type(cell) is str and len(cell) > CELL_CHARS_MAX:
            self.cut += 1
            return cell[: CELL_CHARS_MAX - 1] + "…"
        return cell


def _is_inexact(cell):
    return type(cell) is int and abs(cell) > EXACT_INTEGER_MAX


def bounded(value, chars=CELL_CHARS_MAX):
    """The text of a value, cut."""
    text = value if issubclass(type(value), str) else str(value)
    text = str.__str__(text)
    return text if len(text) <= chars else text[: chars - 1] + "…"


def floats(numbers, nan_is_missing):
    """Floats as JSON."""
    return [_float(number, nan_is_missing) for number in numbers]


def _float(number, nan_is_missing):
    if number is None or math.isfinite(number):
        return number
    if math.isnan(number):
        return None if nan_is_missing else "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def moments(counts, unit, zone=None):
    """Dates with times from the number of units since 1970, None for missing; exact to the
    nanosecond."""
    return [None if count is None else moment(count, unit, zone) for count in counts]


def moment(count, unit, zone=None):
    """One of them."""
    whole, part = divmod(count, _UNITS_PER_S[unit])
    try:
        when = _EPOCH + datetime.timedelta(seconds=whole)
        offset = ""
        if zone is not None:
            local = when.replace(tzinfo=_UTC).astimezone(zone)
            when, offset = local.replace(tzinfo=None), local.isoformat()[19:]
    except (OverflowError, ValueError):
        return "%d%s" % (count, unit)  # no year that a calendar has
    return when.isoformat() + _fraction(part, unit) + offset


def _fraction(part, unit):
    if not part:
        return ""
    digits = len(str(_UNITS_PER_S[unit])) - 1
    return ("." + str(part).zfill(digits)).rstrip("0")


def durations(counts, unit):
    """ISO 8601: `P1DT2H3M4.5S`, and a minus sign in front where it is needed."""
    return [None if count is None else _duration(count, unit) for count in counts]


def _duration(count, unit):
    whole, part = divmod(abs(count), _UNITS_PER_S[unit])
    days, whole = divmod(whole, 86_400)
    hours, rest = divmod(whole, 3_600)
    minutes, seconds = divmod(rest, 60)
    text = "P%dDT%dH%dM%d%sS" % (days, hours, minutes, seconds, _fraction(part, unit))
    return "-" + text if count < 0 else text


def zone_of(name):
    """The time zone of that name; None for none that this machine knows."""
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(str(name))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    sign, _, rest = str(name).partition(":")
    try:
        hours, minutes = int(sign), int(rest or 0)
        minutes = -minutes if str(name).startswith("-") else minutes
        return datetime.timezone(datetime.timedelta(hours=hours, minutes=minutes))
    except (ValueError, OverflowError):
        return _UTC if str(name).upper() == "UTC" else None


def base64_of(value):
    """Bytes as base64, cut before that."""
    return base64.b64encode(value[:CELL_BYTES_MAX]).decode()


def whole(value):
    """A value for a column, which cuts texts and bytes, and counts them."""
    kind = type(value)
    if kind is str or kind is bytes:
        return value
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, (bytearray, bytes)):
        return bytes(value)
    return plain(value)


def plain(value, depth=CELL_DEPTH_MAX, room=None):
    """A value of any type, as in lists, structs and columns of objects. `room` is a list of how
    many items more the cell may hold."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value if kind is not str else bounded(value)
    if kind is int:
        return value if abs(value) <= EXACT_INTEGER_MAX else str(value)
    if kind is float:
        return _float(value, nan_is_missing=False)
    if issubclass(kind, str):
        return bounded(value)
    if issubclass(kind, (datetime.date, datetime.time)):
        return bounded(value.isoformat()) if value == value else None
    if issubclass(kind, datetime.timedelta):
        return _duration(value // datetime.timedelta(microseconds=1), "us")
    if issubclass(kind, decimal.Decimal):
        return decimal.Decimal.__str__(value)
    if issubclass(kind, (bytes, bytearray)):
        return base64_of(bytes(value))
    room = [CELL_ITEMS_MAX] if room is None else room
    if depth and kind in (list, tuple, set, frozenset):
        return [plain(item, depth - 1, room) for item in _first(value, room)]
    if depth and kind is dict:
        return {
            bounded(key, NAME_CHARS_MAX): plain(item, depth - 1, room)
            for key, item in _first(value.items(), room)
        }
    if depth and hasattr(kind, "tolist") and getattr(value, "size", 0) <= CELL_ITEMS_MAX:
        return plain(value.tolist(), depth - 1, room)
    return bounded(value)


def _first(items, room):
    """As many of the items as there is room for."""
    for item in items:
        if not room[0]:
            return
        room[0] -= 1
        yield item


# === columns of objects ===

_OBJECT_KINDS = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "float"),
    (str, "string"),
    (decimal.Decimal, "decimal"),
    (datetime.datetime, "datetime"),
    (datetime.date, "date"),
    (datetime.time, "time"),
    (datetime.timedelta, "duration"),
    ((bytes, bytearray), "binary"),
    ((list, tuple), "list"),
    (dict, "json"),
)


def kind_of_objects(values):
    """What a column of objects is of, by its first values."""
    kinds = set()
    for value in values:
        if value is None or value != value:
            continue
        kinds.add(
            next((name for kind, name in _OBJECT_KINDS if issubclass(type(value), kind)), "object")
        )
    if not kinds:
        return "null"
    return kinds.pop() if len(kinds) == 1 else "mixed"
