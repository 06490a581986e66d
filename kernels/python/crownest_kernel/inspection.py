"""`inspect` and `variables`: what a name is, and which names the context has.

Values are described without their own help as far as their type is known; what a class of the
tenant's says of itself is asked for a bounded time and cut.
"""

import inspect
import itertools
import math
import sys
import types
from collections import deque

from .completion import kind_of
from .expressions import InstanceOf, Place, Unknown, end_of_name, modules_imported_in, value_of
from .patience import TooSlow

VARIABLES_DEFAULT, VARIABLES_MAX = 200, 1_000
NAME_CHARS_MAX = 200
PREVIEW_CHARS_MAX = 200
PREVIEW_ITEMS_MAX = 20
PREVIEW_DEPTH_MAX = 3
PREVIEW_S_MAX = 0.1
INSPECT_S_MAX = 1.0
DOCUMENTATION_CHARS_MAX = 64 * 1024
SOURCE_CHARS_MAX = 256 * 1024
DIMENSIONS_MAX = 32
INTEGER_BITS_MAX = 4_096
SIZE_MAX = (1 << 63) - 1

# Put into every module by Python or by the kernel.
_NOT_OF_THE_USER = frozenset(
    "__%s__" % name
    for name in "name doc package loader spec builtins warningregistry annotations".split()
)
_type_name = type.__dict__["__name__"].__get__


# === variables ===


def variables(kernel, patience, limit):
    """The `answer` of a `variables` query."""
    limit = min(limit if type(limit) is int and limit > 0 else VARIABLES_DEFAULT, VARIABLES_MAX)
    found, omitted = [], 0
    for name, value in list(kernel.namespace.items()):
        if type(name) is not str or name in _NOT_OF_THE_USER or kernel.has_put(name, value):
            continue
        if len(found) == limit or len(name) > NAME_CHARS_MAX:
            omitted += 1
        else:
            found.append(_variable(patience, name, value))
    answer = {"variables": found}
    if omitted:
        answer["omitted"] = omitted
    return answer


def _variable(patience, name, value):
    entry = {"name": name, "type": _cut(_type_name(type(value)), NAME_CHARS_MAX)}
    entry["kind"] = kind_of(value)
    if entry["kind"] == "variable":
        for part, function in (("shape", _shape), ("size", _size)):
            answer = _asked(patience, function, value)
            if answer is not None:
                entry[part] = answer
    entry["preview"] = preview(patience, value)
    return entry


def _asked(patience, function, value):
    try:
        return patience.call(PREVIEW_S_MAX, function, value)
    except (Exception, TooSlow):
        return None


def _shape(value):
    kind = type(value)
    if issubclass(kind, type) or not hasattr(kind, "shape"):
        return None
    shape = value.shape
    if not issubclass(type(shape), tuple) or tuple.__len__(shape) > DIMENSIONS_MAX:
        return None
    return [_count(length) for length in tuple.__iter__(shape)]


def _size(value):
    """Number of elements."""
    kind = type(value)
    if kind in _PLAIN_SIZES:
        return len(value)
    shape = _shape(value)
    if shape is not None:
        return _count(math.prod(shape))
    return _count(len(value)) if hasattr(kind, "__len__") else None


_PLAIN_SIZES = frozenset((str, bytes, bytearray, list, tuple, dict, set, frozenset, range))


def _count(number):
    number = int(number.__index__())
    if not 0 <= number <= SIZE_MAX:
        raise ValueError("no number of elements")
    return number


# === previews ===


def preview(patience, value):
    """A line of text about a value, at most PREVIEW_CHARS_MAX characters."""
    try:
        text = patience.call(PREVIEW_S_MAX, _text, value, PREVIEW_DEPTH_MAX)
    except (Exception, TooSlow):
        text = "<%s>" % _type_name(type(value))
    return _one_line(text)


def _one_line(text):
    return _cut(" ".join(text[: 4 * PREVIEW_CHARS_MAX].split()), PREVIEW_CHARS_MAX)


def _cut(text, chars):
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _text(value, depth):
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return _cut(repr(value[: PREVIEW_CHARS_MAX + 1]), PREVIEW_CHARS_MAX + 1)
    if kind is int:
        bits = value.bit_length()
        return repr(value) if bits <= INTEGER_BITS_MAX else "<int of %d bits>" % bits
    if kind in _CONTAINERS:
        return _container(value, kind, depth)
    if issubclass(kind, type):
        return "<class %s>" % _type_name(value)
    if issubclass(kind, types.ModuleType):
        return "<module %s>" % value.__name__
    if kind in (types.FunctionType, types.BuiltinFunctionType, types.MethodType):
        return value.__name__ + _signature(value)
    columns = _columns(value)
    if columns is not None:
        return columns
    text = repr(value)
    return str.__str__(text)[: 4 * PREVIEW_CHARS_MAX]


_CONTAINERS = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    deque: ("deque([", "])"),
    dict: ("{", "}"),
}


def _container(value, kind, depth):
    begin, end = _CONTAINERS[kind]
    if depth == 0 and len(value):
        return begin + "…" + end
    parts, chars = [], 0
    for item in itertools.islice(value.items() if kind is dict else value, PREVIEW_ITEMS_MAX):
        if kind is dict:
            part = "%s: %s" % (_text(item[0], depth - 1), _text(item[1], depth - 1))
        else:
            part = _text(item, depth - 1)
        parts.append(part)
        chars += len(part)
        if chars > PREVIEW_CHARS_MAX:
            break
    if len(parts) < len(value):
        parts.append("…")
    elif kind is tuple and len(parts) == 1:
        end = ",)"
    if kind is set and not parts:
        return "set()"
    return begin + ", ".join(parts) + end


def _columns(value):
    """A table is told by its columns: its own text is drawn for a screen, and slowly."""
    for name in ("pandas", "polars"):
        module = sys.modules.get(name)
        table = getattr(module, "DataFrame", None)
        if issubclass(type(table), type) and issubclass(type(value), table):
            rows, columns = value.shape
            names = ", ".join(str(column) for column in value.columns[:PREVIEW_ITEMS_MAX])
            return "%d rows × %d columns: %s" % (rows, columns, names)
    return None


def _signature(value):
    try:
        return _cut(str(inspect.signature(value)), PREVIEW_CHARS_MAX)
    except (ValueError, TypeError):
        return "(…)"


# === inspect ===


def inspect_at(kernel, patience, code, cursor, detail):
    """The `answer` of an `inspect` query: the name at the cursor, or the function whose call the
    cursor is in."""
    end = end_of_name(code, cursor)
    place = Place(code[:end])
    if place.in_comment or place.string_from is not None:
        return {"found": False, "data": {}}
    namespace = {**modules_imported_in(code), **kernel.namespace}
    sources = [place.expression_before(len(place.text))]
    if place.brackets and place.brackets[-1][0] == "(":
        sources.append(place.expression_before(place.brackets[-1][1]))
    for source in filter(None, sources):
        try:
            value = patience.call(INSPECT_S_MAX, value_of, source, namespace)
            text = patience.call(INSPECT_S_MAX, _describe, source, value, detail)
        except (Unknown, TooSlow, Exception):
            continue
        return {"found": True, "data": {"text/plain": text}}
    return {"found": False, "data": {}}


def _describe(source, value, detail):
    if type(value) is InstanceOf:
        value = value.kind
        lines = ["%s: instance of %s" % (source, _type_name(value))]
    elif callable(value):
        lines = [source + _signature(value), "Type: " + _type_name(type(value))]
    else:
        lines = ["Type: " + _type_name(type(value))]
        lines.append("Value: " + _one_line(_text(value, PREVIEW_DEPTH_MAX)))
    documentation = inspect.getdoc(value)
    if issubclass(type(documentation), str):
        lines += ["", _cut(str.__str__(documentation), DOCUMENTATION_CHARS_MAX)]
    if detail == 1:
        lines += ["", "Source:", _source(value)]
    return "\n".join(lines)


def _source(value):
    try:
        return _cut(inspect.getsource(value), SOURCE_CHARS_MAX)
    except (OSError, TypeError):
        return "(not available)"
