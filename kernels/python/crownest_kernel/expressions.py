"""Which expression stands at a place of a cell, and what it is worth without running it.

For completion and inspection: names, attributes and items of plain containers are looked up, so a
property of the tenant's may run; nothing is called, assigned or imported.
"""

import ast
import builtins
import re
import sys
import types

_REST = re.compile(r"\w*")
_MODULES = re.compile(r"[\w., \t]+\Z")
# Literals and comments, so that brackets and quotes inside them do not count. An open literal
# runs to the end.
_TOKENS = re.compile(
    r"""(?P<comment>\#[^\n]*)
    | (?P<prefix>\b[rRbBuUfF]{1,2})?(?P<quote>'''|\"\"\"|'|\")
    | (?P<plain>\w+|[^\w\#'"()\[\]{}]+)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_PAIRS = {")": "(", "]": "[", "}": "{"}
_CODE_CHARS_MAX = 256 * 1024
NAME_CHARS_MAX = 1_000
EXPRESSION_CHARS_MAX = 2_000
_DEPTH_MAX = 40


class Unknown(Exception):
    """The expression is worth nothing that can be known without running it."""


class InstanceOf:
    """A value that is not there, of a class that is."""

    def __init__(self, kind):
        self.kind = kind


class Place:
    """What surrounds the end of `text`: a cell up to the cursor."""

    def __init__(self, text):
        self.text = text[-_CODE_CHARS_MAX:]
        # Set for an open string: where its content begins, and where its prefix or quote does.
        self.string_from = self.string_begins = None
        self.in_comment = False
        # Open brackets as (character, position).
        self.brackets = []
        # Positions inside of literals and comments, which are not code.
        self._hidden = []
        self._scan()

    def _scan(self):
        text, at = self.text, 0
        while at < len(text):
            match = _TOKENS.match(text, at)
            kind = match.lastgroup
            if kind == "quote":
                at = self._skip_string(match)
                continue
            if kind == "comment":
                self._hidden.append((match.start(), match.end()))
                self.in_comment = match.end() == len(text)
            elif kind == "other":
                self._bracket(match.group(), at)
            at = match.end()

    def _bracket(self, char, at):
        if char in "([{":
            self.brackets.append((char, at))
        elif char in _PAIRS and self.brackets and self.brackets[-1][0] == _PAIRS[char]:
            self.brackets.pop()

    def _skip_string(self, match):
        quote, text = match.group("quote"), self.text
        at = match.end()
        while True:
            end = text.find(quote, at)
            newline = text.find("\n", at) if len(quote) == 1 else -1
            if 0 <= newline and (end < 0 or newline < end):
                if text[newline - 1] == "\\":
                    at = newline + 1
                    continue
                return newline + 1  # a literal that was never closed
            if end < 0:
                self.string_from, self.string_begins = match.end(), match.start()
                return len(text)
            backslashes = 0
            while text[end - 1 - backslashes] == "\\" and end - backslashes > match.end():
                backslashes += 1
            if backslashes % 2:
                at = end + 1
                continue
            self._hidden.append((match.start(), end + len(quote)))
            return end + len(quote)

    def name_at_end(self):
        """The beginning of a name right before the end."""
        return self.text[_begin_of_name(self.text, len(self.text)) :]

    def expression_before(self, end):
        """Source of the primary expression that ends at `end`: names, attributes, items, calls,
        literals. Empty when there is none, or a very long one."""
        # Nothing before this place is looked at, nor copied again and again.
        floor = max(0, end - EXPRESSION_CHARS_MAX)
        text = self.text[floor:end]
        hidden = [(a - floor, b - floor) for a, b in self._hidden if b > floor and b <= end]
        begin = len(text)
        while True:
            piece = _piece_before(text, len(text[:begin].rstrip(" \t")), hidden)
            if piece is None:
                break
            begin = piece
            before = text[:begin].rstrip(" \t")
            is_name = text[begin] == "_" or text[begin].isalpha()
            if before.endswith(".") and is_name:
                begin = len(before) - 1
                continue
            if is_name or text[begin] not in "([":
                break
            # Brackets follow what they are applied to, or stand by themselves.
            if not before or not (before[-1] in ")]}\"'_" or before[-1].isalnum()):
                break
        return text[begin:].strip() if begin or not floor else ""


def _begin_of_name(text, end):
    """Where the name begins that ends at `end`; `end` itself when there is none."""
    begin = end
    while begin > max(0, end - NAME_CHARS_MAX) and (
        text[begin - 1] == "_" or text[begin - 1].isalnum()
    ):
        begin -= 1
    while begin < end and text[begin].isdigit():
        begin += 1
    return begin


def _piece_before(text, end, hidden):
    """Where the name, literal or bracket that ends at `end` begins. `hidden`: where literals and
    comments are."""
    if end <= 0:
        return None
    if text[end - 1] in "\"'":
        return next((max(0, a) for a, b in reversed(hidden) if b == end), None)
    if text[end - 1] in _PAIRS:
        return _bracket_before(text, end - 1, hidden)
    begin = _begin_of_name(text, end)
    return begin if begin < end else None


def _bracket_before(text, at, hidden):
    depth, left = 0, len(hidden)
    while at >= 0:
        while left and hidden[left - 1][0] > at:
            left -= 1
        if left and hidden[left - 1][0] <= at < hidden[left - 1][1]:
            at = hidden[left - 1][0] - 1
            continue
        if text[at] in ")]}":
            depth += 1
        elif text[at] in "([{":
            depth -= 1
            if depth == 0:
                return at
        at -= 1
    return None


_BINDINGS = re.compile(
    r"\b(?:(def|class)|as|for|(import))[ \t]{1,20}([^\W\d]\w*)"
    r"|^[ \t]*([^\W\d]\w*)[ \t]{0,20}(?::[^=\n]{1,200})?=(?!=)",
    re.MULTILINE,
)


def names_bound_in(source):
    """Names that a cell defines or imports, with their kind, as far as its words tell."""
    found = {}
    for match in _BINDINGS.finditer(source):
        name = match.group(3) or match.group(4)
        kind = {"def": "function", "class": "class"}.get(match.group(1), "variable")
        found.setdefault(name, "module" if match.group(2) else kind)
    return found


def value_of(source, namespace):
    """The value of an expression, or an InstanceOf. Unknown when it would have to be run."""
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unknown from None
    return _value(tree, namespace, _DEPTH_MAX)


def _value(node, namespace, depth):
    if depth == 0:
        raise Unknown
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return _name(node.id, namespace)
    if isinstance(node, ast.Attribute):
        return _attribute(_value(node.value, namespace, depth - 1), node.attr)
    if isinstance(node, ast.Subscript):
        holder = _value(node.value, namespace, depth - 1)
        return _item(holder, _value(node.slice, namespace, depth - 1))
    if isinstance(node, ast.Call):
        called = _value(node.func, namespace, depth - 1)
        if issubclass(type(called), type) and called is not type:
            return InstanceOf(called)
        raise Unknown
    for kinds, made in _LITERALS:
        if isinstance(node, kinds):
            return InstanceOf(made)
    raise Unknown


_LITERALS = (
    (ast.JoinedStr, str),
    ((ast.List, ast.ListComp), list),
    ((ast.Dict, ast.DictComp), dict),
    ((ast.Set, ast.SetComp), set),
    (ast.Tuple, tuple),
)


def _name(name, namespace):
    if name in namespace:
        return namespace[name]
    if name in builtins.__dict__:
        return builtins.__dict__[name]
    raise Unknown


def _attribute(value, name):
    if isinstance(value, InstanceOf):
        raise Unknown
    try:
        return getattr(value, name)
    except Exception:
        if type(value) is types.ModuleType:
            module = sys.modules.get("%s.%s" % (value.__name__, name))
            if module is not None:
                return module
        raise Unknown from None


def _item(holder, key):
    if type(holder) not in (list, tuple, dict, str) or type(key) not in (int, str, bool):
        raise Unknown
    try:
        return holder[key]
    except (LookupError, TypeError):
        raise Unknown from None


def modules_imported_in(source):
    """Modules that a cell would import and that are loaded already, by the names it gives them."""
    found = {}
    for line in source.split("\n"):
        words = line.strip()
        if not words.startswith("import ") or not _MODULES.match(words):
            continue
        for part in words[len("import ") :].split(","):
            name, _, alias = part.partition(" as ")
            name, alias = name.strip(), alias.strip()
            module = sys.modules.get(name if alias else name.partition(".")[0])
            if type(module) is types.ModuleType:
                found[alias or name.partition(".")[0]] = module
    return found


def end_of_name(code, cursor):
    """Where the name ends that the cursor stands in or right behind."""
    return _REST.match(code, cursor).end()
