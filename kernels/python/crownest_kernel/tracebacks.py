"""Exceptions as `error` events: name, message, lines without colour, line in the cell.

Shows the frames of the user's code and of libraries, not those of this package. Every part of an
exception belongs to tenant code and may itself raise.
"""

import os
import traceback

MESSAGE_CHARS_MAX = 64 * 1024
TRACEBACK_LINES_MAX = 400
TRACEBACK_LINE_CHARS_MAX = 4 * 1024

_KERNEL_DIR = os.path.dirname(__file__) + os.sep
_TracebackException = traceback.TracebackException


def describe(error, cell):
    """Fields of the `error` event. Never raises for what an exception object does."""
    try:
        return _describe(error, cell)
    except Exception as broken:
        return {
            "name": _name(error),
            "message": "(the exception could not be shown: %s)" % _name(broken),
            "traceback": [_name(error)],
        }


def _describe(error, cell):
    if isinstance(error, SystemExit):
        return _describe_exit(error, cell)
    summary = _TracebackException(type(error), error, error.__traceback__, compact=True)
    _drop_kernel_frames(summary, set())
    lines = []
    for chunk in summary.format():
        lines.extend(chunk.rstrip("\n").split("\n"))
    event = {
        "name": _name(error),
        "message": _message(error),
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
    name = type(error).__name__
    return name if type(name) is str else "Exception"


def _message(error):
    if isinstance(error, SyntaxError):
        text = error.msg if isinstance(error.msg, str) else str(error)
        if isinstance(error.filename, str) and isinstance(error.lineno, int):
            text = "%s (%s, line %d)" % (text, error.filename, error.lineno)
        return _bounded_text(text)
    try:
        return _bounded_text(str.__str__(str(error)))
    except Exception:
        return "<exception str() failed>"


def _bounded_text(text):
    if len(text) <= MESSAGE_CHARS_MAX:
        return text
    return text[:MESSAGE_CHARS_MAX] + "… (%d characters more)" % (len(text) - MESSAGE_CHARS_MAX)


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


def _drop_kernel_frames(summary, seen):
    """In the exception and in everything chained to it."""
    if summary is None or id(summary) in seen:
        return
    seen.add(id(summary))
    stack = summary.stack
    if stack:
        stack[:] = [frame for frame in stack if not frame.filename.startswith(_KERNEL_DIR)]
    _drop_kernel_frames(summary.__cause__, seen)
    _drop_kernel_frames(summary.__context__, seen)
    for member in summary.exceptions or ():
        _drop_kernel_frames(member, seen)


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
    _drop_kernel_frames(summary, set())
    stream.write("".join(summary.format()))
