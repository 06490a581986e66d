"""sys.stdout, sys.stderr and file descriptors 0 to 2; `inputs` has sys.stdin.

Line buffered on the pipe itself: a complete line is in init's hands when print() returns. Larger
pieces would be cheaper, but somebody has to bring out the last one: a thread cannot while C code
holds the interpreter lock, and a fork, a kill or a write from C would double, lose or overtake
what waits. Init sees to it that a write wakes nobody (PROTOCOL.md, Output).

Part of a line waits for its end, for the end of the run, for the next display, or for
time.sleep(), before which a program wants its progress to be seen. After each cell, what the cell
replaced or closed is put back.
"""

import ctypes
import fcntl
import functools
import io
import os
import sys
import time

from . import inputs
from .frames import private_fd

BUFFER_BYTES = 64 * 1024

_fstat, _dup2 = os.fstat, os.dup2
_fcntl, _F_GETFL, _F_SETFL, _O_NONBLOCK = fcntl.fcntl, fcntl.F_GETFL, fcntl.F_SETFL, os.O_NONBLOCK
_libc = ctypes.CDLL(None)
# stdout only: flushing every FILE would wait for a thread that reads from one.
_c_stdout = ctypes.c_void_p.in_dll(_libc, "stdout")
_fflush = _libc.fflush
_fflush.argtypes = [ctypes.c_void_p]


def _open_writer(fd):
    raw = io.FileIO(fd, "w", closefd=False)
    writer = io.TextIOWrapper(
        io.BufferedWriter(raw, BUFFER_BYTES),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    writer.mode = "w"
    return writer


class Streams:
    """The standard streams of one context."""

    def __init__(self):
        """Builds the writers. They belong to fd numbers, so a zygote builds them before forking;
        fds 1 and 2 must be pipes at that moment, since io remembers whether a file can seek."""
        self._saved = {}
        self._identity = {}
        self._open_all()
        self._patch_sleep()

    def _open_all(self):
        self.stdout, self.stderr = _open_writer(1), _open_writer(2)
        sys.stdout = sys.__stdout__ = self.stdout
        sys.stderr = sys.__stderr__ = self.stderr

    def attach(self):
        """Remembers what fds 0 to 2 are, before the first cell."""
        for fd in (0, 1, 2):
            self._saved[fd] = private_fd(fd)
        self.identify()

    def expect(self, saved):
        """For a zygote: its children will have the originals of fds 0 to 2 at these numbers."""
        self._saved.update(zip((0, 1, 2), saved))

    def identify(self):
        """What fds 0 to 2 are now is what they shall be after every cell."""
        for fd in (0, 1, 2):
            stat = _fstat(fd)
            self._identity[fd] = (stat.st_dev, stat.st_ino)

    def abandon(self):
        """Runs in a child that user code forked: nothing to put back there."""
        for fd in self._saved.values():
            try:
                os.close(fd)
            except OSError:
                pass
        self._saved.clear()

    def flush(self):
        """Everything written so far reaches the pipes. Runs inside a cell: an interrupt, and
        whatever ends a cell, passes through from streams that the cell has put in place of ours."""
        self.flush_foreign()
        self.flush_own()

    def are_replaced(self):
        """Whether a cell has put something in place of our streams."""
        return sys.__dict__.get("stdout") is not self.stdout or (
            sys.__dict__.get("stderr") is not self.stderr
        )

    def flush_foreign(self):
        """Streams that a cell has put in place of ours: code of the cell."""
        for name, own in (("stdout", self.stdout), ("stderr", self.stderr)):
            stream = sys.__dict__.get(name)
            if stream is own:
                continue
            try:
                stream.flush()
            except Exception:
                pass

    def flush_own(self):
        """Our own streams and C's. Never raises but for an interrupt."""
        for stream in (self.stdout, self.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        _fflush(_c_stdout)

    def restore(self):
        """After a cell: fds, stream objects and input() as they were. What could not be written
        to an fd that the cell had closed is written now, as long as it belongs to that run."""
        repaired = False
        for fd, saved in self._saved.items():
            try:
                # Set on the pipe itself by a child or a library; print() would lose what does
                # not fit.
                flags = _fcntl(saved, _F_GETFL)
                if flags & _O_NONBLOCK:
                    _fcntl(saved, _F_SETFL, flags & ~_O_NONBLOCK)
                    repaired = True
            except OSError:
                continue  # the cell has closed our copy: there is nothing to put back
            try:
                stat = _fstat(fd)
                if (stat.st_dev, stat.st_ino) == self._identity[fd]:
                    continue
            except OSError:
                pass
            _dup2(saved, fd)
            repaired = True
        if repaired:
            self.flush_own()
        # In this order: what a cell put around our buffer closes the buffer as it goes.
        sys.stdout, sys.stderr = self.stdout, self.stderr
        if _closed(self.stdout) or _closed(self.stderr):
            self._open_all()
        inputs.restore()

    def _patch_sleep(self):
        sleep = time.sleep

        @functools.wraps(sleep)
        def sleep_after_flush(seconds, /):
            try:
                sys.stdout.flush()
            except (AttributeError, ValueError, OSError):
                pass
            sleep(seconds)

        time.sleep = sleep_after_flush


def _closed(stream):
    """True as well for a stream whose buffer was detached."""
    try:
        return stream.closed
    except ValueError:
        return True
