"""Source text to code objects, and the source kept for tracebacks.

Owns parsing, the split between statements and the last expression, top-level await, and cell
names. Does not run anything.
"""

import __future__

import ast
import linecache
from collections import deque

# Sources kept for tracebacks and inspect.getsource.
CELLS_KEPT_MAX = 512
CELL_BYTES_KEPT_MAX = 8 * 1024 * 1024

_compile = compile
_PARSE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_Expr, _Expression, _Module = ast.Expr, ast.Expression, ast.Module
COROUTINE = 0x80  # inspect.CO_COROUTINE
# Features of __future__ as they stand in co_flags; one cell's import holds for those after it.
_FUTURE_FLAGS = 0
for _name in __future__.all_feature_names:
    _FUTURE_FLAGS |= getattr(__future__, _name).compiler_flag


class Cells:
    """Compiles the cells of one context."""

    def __init__(self):
        self._kept = deque()
        self._kept_bytes = 0
        self._future = 0

    def name(self, count):
        """File name of a cell in tracebacks."""
        return "Cell %d" % count

    def remember(self, name, source):
        """Makes the source visible to linecache, dropping the oldest when there is too much."""
        size = len(source)
        self._kept.append((name, size))
        self._kept_bytes += size
        lines = [line + "\n" for line in source.split("\n")]
        if type(linecache.cache) is not dict:
            linecache.cache = {}  # a cell has put something else there
        linecache.cache[name] = (size, None, lines, name)
        while len(self._kept) > 1 and (
            len(self._kept) > CELLS_KEPT_MAX or self._kept_bytes > CELL_BYTES_KEPT_MAX
        ):
            old, old_size = self._kept.popleft()
            self._kept_bytes -= old_size
            linecache.cache.pop(old, None)

    def forget_all(self):
        """For a zygote, after its warm-up."""
        for name, _ in self._kept:
            linecache.cache.pop(name, None)
        self._kept.clear()
        self._kept_bytes = 0
        self._future = 0

    def parse(self, source, name):
        """The syntax tree; SyntaxError or ValueError when there is none."""
        return _compile(source, name, "exec", _PARSE | self._future, True)

    def build(self, tree, source, name):
        """(statements, last expression, quiet): code objects or None, and whether a trailing
        semicolon asks to keep the value to oneself."""
        body = tree.body
        statements = expression = None
        quiet = False
        if body and type(body[-1]) is _Expr:
            last = body.pop()
            quiet = _ends_with_semicolon(source, last)
            if body:
                statements = self._compile(_Module(body, []), name, "exec")
            expression = self._compile(_Expression(last.value), name, "eval")
        elif body:
            statements = self._compile(tree, name, "exec")
        return statements, expression, quiet

    def _compile(self, tree, name, mode):
        code = _compile(tree, name, mode, _AWAIT | self._future, True)
        self._future |= code.co_flags & _FUTURE_FLAGS
        return code


def _ends_with_semicolon(source, last):
    if ";" not in source:
        return False
    line = source.split("\n")[last.end_lineno - 1]
    return line.encode()[last.end_col_offset :].lstrip().startswith(b";")


def may_be_ipython(source):
    """Whether source that Python cannot parse could be IPython's: magics, shell, help."""
    for line in source.split("\n"):
        line = line.strip()
        if not line:
            continue
        if line[0] in "%!?" or line[-1] == "?" or "= %" in line or "= !" in line:
            return True
        if "=%" in line or "=!" in line:
            return True
    return False
