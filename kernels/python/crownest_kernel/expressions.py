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
_IMPORTS = re.compile(r"^[ \t]*import[ \t]+([\w., \t]+?)[ \t]*$", re.MULTILINE)
_NAME_BEFORE = re.compile(r"(?:[^\W\d]\w*)?\Z")
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
            backslashes = end - len(text[match.end() : end].rstrip("\\")) - match.end()
            if backslashes % 2:
                at = end + 1
                continue
            self._hidden.append((match.start(), end + len(quote)))
            return end + len(quote)

    def name_at_end(self):
        """The beginning of a name right before the end."""
        return _NAME_BEFORE.search(self.text).group()

    def expression_before(self, end):
        """Source of the primary expression that ends at `end`: names, attributes, items, calls,
        literals. Empty when there is none."""
        text, begin = self.text, end
        while True:
            stripped = len(text[:begin].rstrip(" \t"))
            piece = self._piece_before(stripped)
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
        return text[begin:end].strip()

    def _piece_before(self, end):
        """Where the name, literal or bracket that ends at `end` begins."""
        text = self.text
        if end <= 0:
            return None
        char = text[end - 1]
        if char in "\"'":
            return next((a for a, b in reversed(self._hidden) if b == end), None)
        if char in _PAIRS:
            return self._bracket_before(end - 1)
        name = _NAME_BEFORE.search(text[max(0, end - 1000) : end]).group()
        return end - len(name) if name else None

    def _bracket_before(self, at):
        depth, hidden = 0, list(self._hidden)
        while at >= 0:
            while hidden and hidden[-1][0] > at:
                hidden.pop()
            if hidden and hidden[-1][0] <= at < hidden[-1][1]:
                at = hidden[-1][0] - 1
                continue
            char = self.text[at]
            if char in ")]}":
                depth += 1
            elif char in "([{":
                depth -= 1
                if depth == 0:
                    return at
            at -= 1
        return None


_BINDINGS = re.compile(
    r"\b(?:(def|class)\s+|(?:as|for)\s+|(import)\s+)([^\W\d]\w*)"
    r"|^\s*([^\W\d]\w*)\s*(?::[^=\n]{1,200})?=(?!=)",
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
    for line in _IMPORTS.findall(source):
        for part in line.split(","):
            name, _, alias = part.partition(" as ")
            name, alias = name.strip(), alias.strip()
            module = sys.modules.get(name if alias else name.partition(".")[0])
            if type(module) is types.ModuleType:
                found[alias or name.partition(".")[0]] = module
    return found


def end_of_name(code, cursor):
    """Where the name ends that the cursor stands in or right behind."""
    return _REST.match(code, cursor).end()
