"""Numbers, dates, texts and colours as plain JSON. Needs numpy."""

import datetime
import math

import numpy as np

from .budget import TEXT_CHARS_MAX

_DAY_US = 86_400_000_000
# Beyond year 9999 there is no ISO 8601 that everybody reads.
_DAYS_MAX = 2_932_896
_DAYS_MIN = -719_162


def flat(values):
    """A one-dimensional array of floats; what is masked is NaN."""
    if np.ma.isMaskedArray(values):
        values = np.ma.asarray(values, dtype=float).filled(np.nan)
    array = np.asarray(values, dtype=float)
    return array.ravel()


def numbers(array):
    """A list of finite floats and None."""
    listed = array.tolist()
    if np.isfinite(array).all():
        return listed
    return [value if math.isfinite(value) else None for value in listed]


def number(value):
    """A finite float, an int as it is, or None."""
    if type(value) is int:
        return value if abs(value) < 1 << 63 else float(value)
    value = float(value)
    return value if math.isfinite(value) else None


def text(value, chars=TEXT_CHARS_MAX):
    """A bounded text, or None when there is nothing to say."""
    if value is None:
        return None
    if not issubclass(type(value), str):
        value = str(value)
    value = str.__str__(value)
    if len(value) > chars:
        value = value[: chars - 1] + "…"
    return value or None


def texts_cost(texts):
    """Values of a budget that a list of texts takes: the bytes that the longest may need."""
    return sum(1 + len(item) // 4 for item in texts if item is not None)


def dates(days, epoch, tz=None):
    """ISO 8601 texts of days since `epoch` (a datetime64), and None."""
    found = []
    good = np.isfinite(days)
    whole = np.zeros(len(days))
    whole[good] = np.clip(days[good], -4e6, 4e6)
    moments = epoch.astype("datetime64[us]") + np.rint(whole * _DAY_US).astype("timedelta64[us]")
    since_1970 = moments.astype("int64") // _DAY_US
    good &= (since_1970 >= _DAYS_MIN) & (since_1970 <= _DAYS_MAX)
    for moment, is_good in zip(moments.astype(object), good.tolist()):
        found.append(_iso(moment, tz) if is_good else None)
    return found


def _iso(moment, tz):
    if tz is None:
        return moment.isoformat()
    return moment.replace(tzinfo=datetime.timezone.utc).astimezone(tz).isoformat()


def plain(value):
    """Whatever a library holds as one value of its data: a number, a text, a date, None."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int or kind is float:
        return number(value)
    if issubclass(kind, str):
        return text(value) or ""
    if issubclass(kind, (datetime.date, datetime.time)):
        return value.isoformat() if value == value else None
    if issubclass(kind, np.datetime64):
        return None if np.isnat(value) else _without_zeros(np.datetime_as_string(value))
    if issubclass(kind, np.generic):
        return plain(value.item())
    if issubclass(kind, (int, float)):
        return number(kind.__float__(value))
    return text(value)


def _without_zeros(iso):
    """`2026-01-01T00:00:00.000000000` says no more than its first 19 characters."""
    iso = str(iso)
    if len(iso) == 10:
        return iso + "T00:00:00"
    head, dot, fraction = iso.partition(".")
    fraction = fraction.rstrip("0")
    return head + dot + fraction if fraction else head


def unit_of(label):
    """What stands in brackets at the end of a label: `Speed (m/s)`, `Speed [m/s]`."""
    for begin, end in ("()", "[]"):
        if label and label.endswith(end) and begin in label:
            unit = label[label.rindex(begin) + 1 : -1].strip()
            if unit:
                return unit
    return None
