"""`query`: questions about the context, answered between runs.

Owns what holds for all of them: nothing is counted, named, displayed or printed, the tenant's code
that runs by the way does so for a bounded time, and the end is one `done`. Loaded at the first
query; a zygote loads it before it forks.
"""

import sys
import threading

from . import completion, inspection
from .patience import Patience

# Of the tenant's code, all together, in one query.
TENANT_S_MAX = 2.0

_get_ident, _main_thread = threading.get_ident, threading.main_thread


class UnknownQuery(Exception):
    """A query that this driver does not know."""


def answer(kernel, request):
    """What the query asks for. Raises what the tenant's code raises, and TypeError or KeyError
    for a request that lacks something."""
    patience = Patience(kernel.interrupts, TENANT_S_MAX)
    name = request["query"]
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Silent(stdout), _Silent(stderr)
    try:
        if name == "variables":
            return inspection.variables(kernel, patience, request.get("limit"))
        if name not in ("complete", "inspect"):
            raise UnknownQuery(name)
        code = str(request["code"])
        cursor = min(max(0, int(request.get("cursor", len(code)))), len(code))
        if name == "complete":
            return completion.complete(kernel, patience, code, cursor)
        return inspection.inspect_at(kernel, patience, code, cursor, request.get("detail"))
    finally:
        sys.stdout, sys.stderr = stdout, stderr


class _Silent:
    """A stream for the time of a query: what the query prints belongs to nobody, what threads of
    the tenant's print meanwhile is theirs."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        if _get_ident() == _main_thread().ident:
            return len(text)
        return self._stream.write(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def __getattr__(self, name):
        return getattr(self._stream, name)
