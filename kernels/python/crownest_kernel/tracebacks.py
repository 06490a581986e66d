"""Exceptions as `error` events: name, message, lines without colour, line in the cell.

Shows the frames of the user's code and of libraries, not those of this package. Every part of an
exception belongs to tenant code and may itself raise.
"""

import os
import traceback

# Below what the server takes, in bytes, so that the mark of what is left out arrives as well.
MESSAGE_BYTES_MAX = 63 * 1024
# Of one character: an escaped surrogate.
LETTER_BYTES_MAX = 6
TRACEBACK_LINES_MAX = 400
TRACEBACK_LINE_CHARS_MAX = 2 * 1024 - 1

_KERNEL_DIR = os.path.dirname(__file__) + os.sep
_TracebackException = traceback.TracebackException
# Past whatever a metaclass puts in its place.
_type_name = type.__dict__["__name__"].__get__


def describe(error, cell):
    """Fields of the `error` event. Runs code of the exception, so as a part of the cell: an
    interrupt, and whatever is no Exception, passes through."""
    try:
        return _describe(error, cell)
    except Exception as broken:
        return without_text(error, broken)


def without_text(error, broken):
    """Fields of the `error` event of an exception that cannot be shown. Runs no code of it."""
    name = _name(error)
    message = "(the exception could not be shown: %s)" % _name(broken)
    return {"name": name, "message": message, "traceback": [name]}


def _describe(error, cell):
    if isinstance(error, SystemExit):
        return _describe_exit(error, cell)
    summary = _TracebackException(type(error), error, error.__traceback__, compact=True)
    _drop_kernel_frames(summary)
    lines = []
    for chunk in summary.format():
        lines.extend(chunk.rstrip("\n").split("\n"))
    event = {
        "name": _name(error),
        "message": _message(error, summary),
        "traceback": _bounded(lines),
    }
    line = _line_in_cell(error, cell)
    if line is not None:
        event["line"] = line
    return event


def _describe_exit(error, cell):
    """exit() ends the run, not the context; its traceback would say nothing."""
    code = error.code
    message = "" if code is None else _bounded_text(str(code))
    event = {"name": "SystemExit", "message": message, "traceback": ["SystemExit: " + message if message else "SystemExit"]}
    line = _line_in_cell(error, cell)
    if line is not None:
        event["line"] = line
    return event


def _name(error):
    return _type_name(type(error))


def _message(error, summary):
    if isinstance(error, SyntaxError):
        text = error.msg if isinstance(error.msg, str) else str(error)
        if isinstance(error.filename, str) and isinstance(error.lineno, int):
            text = "%s (%s, line %d)" % (text, error.filename, error.lineno)
        return _bounded_text(text)
    # The summary has asked the exception already; it may be slow, or answer once.
    text = getattr(summary, "_str", None)
    return _bounded_text(text if type(text) is str else str.__str__(str(error)))


def _bounded_text(text):
    if len(text) <= MESSAGE_BYTES_MAX // LETTER_BYTES_MAX:
        return text
    kept = text[:MESSAGE_BYTES_MAX]
    # A lone surrogate travels as its escape.
    while (size := len(kept.encode("utf-8", "backslashreplace"))) > MESSAGE_BYTES_MAX:
        kept = kept[: len(kept) * MESSAGE_BYTES_MAX // size]
    left_out = len(text) - len(kept)
    return kept + "… (%d characters more)" % left_out if left_out else text


def _bounded(lines):
    lines = [
        line
        if len(line) <= TRACEBACK_LINE_CHARS_MAX
        else line[:TRACEBACK_LINE_CHARS_MAX] + "…"
        for line in lines
    ]
    if len(lines) <= TRACEBACK_LINES_MAX:
        return lines
    half = TRACEBACK_LINES_MAX // 2
    left_out = len(lines) - 2 * half
    return [*lines[:half], "  … %d lines left out …" % left_out, *lines[-half:]]


def _drop_kernel_frames(summary):
    """In the exception and in everything chained to it, however long the chain."""
    waiting, seen = [summary], set()
    while waiting:
        summary = waiting.pop()
        if summary is None or id(summary) in seen:
            continue
        seen.add(id(summary))
        stack = summary.stack
        if stack:
            stack[:] = [frame for frame in stack if not frame.filename.startswith(_KERNEL_DIR)]
        waiting += (summary.__cause__, summary.__context__, *(summary.exceptions or ()))


def _line_in_cell(error, cell):
    if isinstance(error, SyntaxError) and error.filename == cell:
        return error.lineno if isinstance(error.lineno, int) and error.lineno > 0 else None
    line = None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == cell:
            line = step.tb_lineno
        step = step.tb_next
    return line


def print_foreign(error, stream):
    """For a process that user code forked, or a formatter that failed: as Python prints it."""
    summary = _TracebackException(type(error), error, error.__traceback__, compact=True)
    _drop_kernel_frames(summary)
    stream.write("".join(summary.format()))
