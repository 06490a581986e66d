"""`complete`: what could stand where the cursor is.

Names, attributes, modules, keys of dicts and columns of tables, names of arguments, files. What
the cell would do is not done: see expressions.py.
"""

import builtins
import inspect
import keyword
import os
import pkgutil
import re
import sys
import types
from importlib.machinery import PathFinder

from . import shell
from .expressions import (
    InstanceOf,
    Place,
    Unknown,
    modules_imported_in,
    names_bound_in,
    value_of,
)
from .patience import TooSlow

MATCHES_MAX = 200
MATCH_CHARS_MAX = 1_000
# Looked at for one answer; more of them are not worth the time.
CANDIDATES_MAX = 20_000
LOOK_UP_S_MAX = 0.5

_FUNCTIONS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    staticmethod,
    classmethod,
)
_PROPERTIES = (property, types.GetSetDescriptorType, types.MemberDescriptorType)
_MODULE = re.compile(r"[ \t]*(?:import|from)[ \t]+([\w.]*)\Z")
_MORE_MODULES = re.compile(r"[ \t]*import[ \t]+[\w., \t]+\Z")
_FROM = re.compile(r"[ \t]*from[ \t]+([\w.]+)[ \t]+import\b[ \t(]*")
_MAGIC = re.compile(r"[ \t]*(%{1,2})(\w*)\Z")
_LINE_CHARS_MAX = 2_000


def complete(kernel, patience, code, cursor):
    """The `answer` of a `complete` query."""
    place = Place(code[:cursor])
    namespace = {**modules_imported_in(code), **kernel.namespace}
    finder = _Finder(patience, namespace, code)
    begin, matches = finder.find(place, cursor)
    return _answer(matches, begin, cursor)


def kind_of(value):
    """What a value is for somebody who reads its name."""
    kind = type(value)
    if issubclass(kind, types.ModuleType):
        return "module"
    if issubclass(kind, type):
        return "class"
    return "function" if issubclass(kind, _FUNCTIONS) else "variable"


def _answer(matches, begin, end):
    """`matches` is a dict of text to kind or None."""
    found = sorted(matches, key=_order)
    kept = [text for text in found if len(text) <= MATCH_CHARS_MAX][:MATCHES_MAX]
    entries = []
    for text in kept:
        kind = matches[text]
        kind = kind() if callable(kind) else kind
        entries.append({"text": text, "kind": kind} if kind else {"text": text})
    answer = {"matches": entries, "start": begin, "end": end}
    if len(found) > len(kept):
        answer["omitted"] = len(found) - len(kept)
    return answer


def _order(text):
    """Private names last, otherwise as in a dictionary."""
    return (2 if text.startswith("__") else int(text.startswith("_")), text.lower(), text)


class _Finder:
    """Looks for matches; each method gives (where the replaced part begins, {text: kind})."""

    def __init__(self, patience, namespace, code):
        self._patience = patience
        self._namespace = namespace
        self._code = code

    def find(self, place, cursor):
        if place.in_comment:
            return cursor, {}
        if place.string_from is not None:
            return self._in_string(place, cursor)
        text = place.text
        begun = place.name_at_end()
        found = self._after_a_word(place, begun)
        if found is not None:
            return cursor - found[0], found[1]
        before = text[: len(text) - len(begun)].rstrip(" \t")
        if before.endswith(".") and not before.endswith(".."):
            source = place.expression_before(len(before) - 1)
            return cursor - len(begun), self._attributes(source, begun) if source else {}
        return cursor - len(begun), {
            **self._names(begun),
            **self._arguments(place, begun),
        }

    def _after_a_word(self, place, begun):
        """Magics and imports, which the beginning of their line tells: (how many characters are
        replaced, matches), or None."""
        line = place.text[-_LINE_CHARS_MAX:].rpartition("\n")[2]
        if match := _MAGIC.match(line):
            return len(match.group(2)), _magics(match.group(1), match.group(2))
        if match := _MODULE.match(line):
            package, _, begun = match.group(1).rpartition(".")
            return len(begun), _modules(package, begun)
        if _MORE_MODULES.match(line):
            package, _, begun = line.rpartition(",")[2].strip().rpartition(".")
            return (len(begun), _modules(package, begun)) if " " not in begun else (0, {})
        if place.brackets and place.brackets[-1][0] == "(":
            # Names over several lines.
            opened = place.brackets[-1][1]
            line = place.text[max(0, opened - _LINE_CHARS_MAX) : opened].rpartition("\n")[2]
        if match := _FROM.match(line):
            if place.brackets or _is_list_of_names(line[match.end() :]):
                return len(begun), _members(match.group(1), begun)
        return None

    def _value(self, source):
        return self._patience.call(LOOK_UP_S_MAX, value_of, source, self._namespace)

    def _names(self, begun):
        found = {}
        for name in keyword.kwlist:
            found[name] = "keyword"
        for name, value in builtins.__dict__.items():
            found[name] = kind_of(value)
        found.update(names_bound_in(self._code))
        for name, value in self._namespace.items():
            if type(name) is str:
                found[name] = kind_of(value)
        hidden = {"__builtins__", "__warningregistry__", "_dh"}
        return {
            name: kind
            for name, kind in found.items()
            if name.startswith(begun) and name != begun and name not in hidden
        }

    def _attributes(self, source, begun):
        try:
            value = self._value(source)
            if type(value) is InstanceOf:
                value = value.kind
            names = self._patience.call(LOOK_UP_S_MAX, _dir, value)
        except (Exception, TooSlow):
            return {}
        found = {}
        for name in names:
            if name.startswith(begun) and name.isidentifier():
                found[name] = _later_kind(value, name)
        return found

    def _arguments(self, place, begun):
        """Names of the arguments of the call that the cursor is in."""
        if not place.brackets or place.brackets[-1][0] != "(":
            return {}
        opened = place.brackets[-1][1]
        source = place.expression_before(opened)
        if not source or place.text[opened + 1 :].rstrip(" \t\n").endswith("="):
            return {}
        try:
            names = self._patience.call(LOOK_UP_S_MAX, _argument_names, self._value(source))
        except (Exception, TooSlow):
            return {}
        return {name + "=": "variable" for name in names if name.startswith(begun)}

    def _in_string(self, place, cursor):
        text, begun = place.text, place.text[place.string_from :]
        before = text[: place.string_begins].rstrip(" \t")
        if before.endswith("["):
            source = place.expression_before(len(before) - 1)
            if source:
                return cursor - len(begun), self._keys(source, begun)
        if "\n" in begun:
            return cursor, {}
        directory, slash, begun = begun.rpartition("/")
        return cursor - len(begun), _files(directory + slash, begun)

    def _keys(self, source, begun):
        try:
            keys = self._patience.call(LOOK_UP_S_MAX, _keys, self._value(source))
        except (Exception, TooSlow):
            return {}
        return {key: "property" for key in keys if key.startswith(begun)}


def _is_list_of_names(text):
    """Whether what follows `import` is names and commas alone."""
    return all(char in ", \t_" or char.isalnum() for char in text)


def _dir(value):
    """Names of attributes, however odd the object is."""
    try:
        names = dir(value)
    except Exception:
        names = type.__dir__(value) if issubclass(type(value), type) else object.__dir__(value)
    return [str.__str__(name) for name in names[:CANDIDATES_MAX] if issubclass(type(name), str)]


def _later_kind(value, name):
    """Found out for those that are sent, without running a property."""

    def kind():
        try:
            found = inspect.getattr_static(value, name)
        except Exception:
            return None
        if issubclass(type(found), _PROPERTIES):
            return "property"
        return kind_of(found)

    return kind


def _argument_names(value):
    if type(value) is InstanceOf:
        raise Unknown
    parameters = inspect.signature(value).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    positional = inspect.Parameter.POSITIONAL_ONLY
    return [p.name for p in parameters if p.kind not in variable and p.kind is not positional]


def _keys(value):
    """Text keys of a dict, names of the columns of a table."""
    if issubclass(type(value), dict):
        keys = dict.keys(value)
    else:
        keys = getattr(value, "columns", None)
        if keys is None:
            keys = value.dtype.names or ()
    found = []
    for key in keys:
        if len(found) == CANDIDATES_MAX:
            break
        if issubclass(type(key), str):
            found.append(str.__str__(key))
    return found


def _magics(percents, begun):
    """IPython's, where it is loaded."""
    if shell.current() is None:
        return {}
    lists = shell.current().magics_manager.lsmagic()
    names = {*lists["cell"], *(lists["line"] if percents == "%" else ())}
    return {name: "function" for name in names if name.startswith(begun)}


def _modules(package, begun):
    """Modules by their files: nothing is imported."""
    if not package:
        names = {*sys.builtin_module_names, *sys.stdlib_module_names}
        names.update(name for name in sys.modules if "." not in name)
        places = sys.path
    else:
        names, places = set(), _places(package)
    for module in pkgutil.iter_modules(list(places)):
        names.add(module.name)
        if len(names) >= CANDIDATES_MAX:
            break
    return {name: "module" for name in names if name.startswith(begun) and name.isidentifier()}


def _places(package):
    """Directories of a package that need not be loaded."""
    module = sys.modules.get(package)
    if module is not None:
        return [place for place in getattr(module, "__path__", ()) if type(place) is str]
    parent = package.rpartition(".")[0]
    try:
        spec = PathFinder.find_spec(package, _places(parent) if parent else None)
    except (ImportError, ValueError):
        return []
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _members(module_name, begun):
    """What `from module import` could name."""
    found = _modules(module_name, begun)
    module = sys.modules.get(module_name)
    if module is not None:
        for name in _dir(module):
            if name.startswith(begun):
                found[name] = _later_kind(module, name)
    return found


def _files(directory, begun):
    found = {}
    try:
        with os.scandir(os.path.expanduser(directory) or ".") as entries:
            for number, entry in enumerate(entries):
                if number == CANDIDATES_MAX:
                    break
                if entry.name.startswith(begun) and (begun or not entry.name.startswith(".")):
                    found[entry.name + "/" * entry.is_dir()] = "file"
    except OSError:
        pass
    return found
