"""input(), getpass() and sys.stdin of a context.

Owns the question to init and the wait for its answer. A run that nobody can answer (its `execute`
did not say `input: true`) gets what Python says at the end of a file, at once.
"""

import builtins
import io
import os
import select
import signal
import sys
import threading

PROMPT_CHARS_MAX = 4096

_kernel = None
_select = select.select
_get_ident = threading.get_ident
_main_thread = threading.main_thread


class StdinNotAvailable(EOFError):
    """Raised by input() and getpass(): nobody is there to answer."""

    __module__ = "builtins"  # so that tracebacks name it without a path


def install(kernel):
    """Takes the place of input() and sys.stdin; imports.py calls patch_getpass() when it is due."""
    global _kernel
    _kernel = kernel
    sys.stdin = sys.__stdin__ = _open()
    builtins.input = _input


def restore():
    """After a cell: input() and sys.stdin as they were."""
    if builtins.input is not _input:
        builtins.input = _input
    stdin = getattr(sys, "stdin", None)
    if stdin is None or getattr(stdin, "closed", True):
        sys.stdin = sys.__stdin__ = _open()


def patch_getpass():
    """Replaces getpass.getpass where the module is loaded."""
    module = sys.modules.get("getpass")
    if module is not None:
        module.getpass = _getpass


def _input(prompt="", /):
    """input() of a context."""
    if not _answered():
        if prompt:
            print(prompt, end="", flush=True)
        raise StdinNotAvailable(
            "input() is not available in this context: code runs without a terminal. "
            "Put the value into the code instead."
        )
    return _ask_or_end(str(prompt), password=False)


def _getpass(prompt="Password: ", stream=None):
    """getpass.getpass() of a context."""
    if not _answered():
        raise StdinNotAvailable(
            "getpass() is not available in this context: code runs without a terminal."
        )
    return _ask_or_end(str(prompt), password=True)


def _answered():
    """Whether somebody answers this run. Threads are not asked for: the main thread alone reads
    from the control socket."""
    kernel = _kernel
    if not kernel.takes_input or kernel.run is None or kernel.forked:
        return False
    return _get_ident() == _main_thread().ident


def _ask_or_end(prompt, password):
    value = _ask(prompt, password)
    if value is None:
        raise EOFError("the end of the input was reached")
    return value


def _ask(prompt, password):
    """One line from whoever started the run, or None at the end. Interrupts end the wait, and
    only that: a frame is taken from the socket whole or not at all."""
    kernel, run = _kernel, _kernel.run
    kernel.streams.flush()
    prompt = str.__str__(prompt)[:PROMPT_CHARS_MAX]
    event = {"ev": "input", "run": run, "prompt": prompt, "password": password}
    kernel.channel.send(event)
    while True:
        if not kernel.channel.has_unread():
            _wait(kernel.channel.fd)
        kernel.interrupts.hold()
        try:
            frame = kernel.channel.receive_waiting()
        finally:
            kernel.interrupts.release()
        if frame is not None and frame.get("op") == "input_reply" and frame.get("run") == run:
            value = frame.get("value")
            return value if value is None or type(value) is str else str(value)


def _wait(fd):
    """Until a frame or a signal has come. A signal between the interpreter's last look and the call
    would not end the call; the byte that it leaves in a pipe does."""
    told, tell = os.pipe()
    try:
        os.set_blocking(tell, False)
        before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        try:
            _select((fd, told), (), ())
        finally:
            signal.set_wakeup_fd(before)
    finally:
        os.close(told)
        os.close(tell)


def _open():
    try:
        raw = io.FileIO(0, "r", closefd=False)
    except OSError:
        return None  # as Python itself does when there is no fd 0
    return _Stdin(io.BufferedReader(raw), encoding="utf-8")


class _Stdin(io.TextIOWrapper):
    """fd 0, which is at its end, unless the run is answered: then a line is asked for."""

    def readline(self, size=-1, /):
        if not _answered():
            return super().readline(size)
        value = _ask("", password=False)
        return "" if value is None else value + "\n"

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def read(self, size=-1, /):
        if not _answered():
            return super().read(size)
        return "".join(self) if size is None or size < 0 else self.readline()
