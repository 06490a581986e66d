"""One run, from `execute` to `done`, and the loop that reads one after the other.

Owns the namespace (a real `__main__` module), the execution count, the event loop for top-level
await, and the promise that every run ends in exactly one `done`.
"""

import gc
import os
import platform
import sys
import time
import types

from . import display, figures, imports, inputs, shell, tracebacks
from .cells import COROUTINE, Cells, may_be_ipython
from .frames import Channel, PeerGone, encode, encode_done
from .interrupts import Interrupts
from .streams import Streams

# Frames that the kernel itself needs; a cell that goes below gets them back afterwards.
RECURSION_LIMIT_MIN = 200
# Signal handlers that a cell left behind may raise while the context is idle. One that raises
# again and again is a loop, and ends the context.
IDLE_ERRORS_MAX = 1_000

_exec, _eval = exec, eval
_get_recursion_limit, _set_recursion_limit = sys.getrecursionlimit, sys.setrecursionlimit
_cpu_ns = time.process_time_ns
_exit = os._exit
# Past whatever a class of the user's puts in its place.
_set_traceback = BaseException.__traceback__.__set__
_MISSING = object()
# Made here, since what makes it would be copied pages in every child of a zygote.
_READY = encode({"ev": "ready", "language": "python", "version": platform.python_version()})


class Kernel:
    """One code context."""

    def __init__(self):
        self.interrupts = Interrupts()
        self.channel = Channel(self.interrupts)
        self.streams = Streams()
        inputs.install(self)
        self.cells = Cells()
        self.count = 0
        self.run = None
        # Whether somebody answers when this run asks for a line.
        self.takes_input = False
        # The format in which this run's tables are written to files, and how many were.
        self.table_export = None
        self.exports = 0
        self.forked = False
        self._attached = False
        # Whether the collector comes back after the next run.
        self.collects_after_run = False
        self._loop = None
        self._last = self._before_last = _MISSING
        self.module = types.ModuleType("__main__")
        self._fill_namespace()
        # The module that started this process must outlive its place in sys.modules.
        self._entry_module = sys.modules.get("__main__")
        sys.modules["__main__"] = self.module
        display.bind(self)
        imports.install(self)
        os.register_at_fork(after_in_child=self._after_fork)

    def _fill_namespace(self):
        self.namespace = self.module.__dict__
        self.namespace.update({"__name__": "__main__", "__builtins__": __builtins__})
        self.namespace["__doc__"] = None

    def reset(self):
        """For a zygote: takes back what the warm-up left in the context."""
        self.namespace.clear()
        self._fill_namespace()
        self.forget_runs()
        if self._loop is not None:
            # Its descriptors would be shared by every child.
            import asyncio

            self._loop.close()
            self._loop = None
            asyncio.set_event_loop(None)
        shell.forget_namespace(self.namespace)

    def forget_runs(self):
        """As if nothing had run, for runs that leave no more than their value behind."""
        self.namespace.pop("_", None)
        self.cells.forget_all()
        self.count = 0
        self._last = self._before_last = _MISSING

    def attach(self, control_fd):
        """Takes over the control socket and the standard fds of this process."""
        self._attached = True
        self.channel.adopt(control_fd)
        self.streams.attach()
        inputs.patch_getpass()
        self.interrupts.install()

    def expect(self, private):
        """As attach(), done once by a zygote: in each child it would be copied pages. A child has
        its control socket and the originals of its fds 0 to 2 at the numbers `private`."""
        self._attached = True
        # A child starts without collection: it would touch, and so copy, many pages. It comes
        # back after the first answer.
        self.collects_after_run = True
        self.channel.fd = private[0]
        self.streams.expect(private[1:])
        self.interrupts.install()

    def _after_fork(self):
        """Runs in every child that user code forks."""
        if self.channel.fd < 0 or not self._attached:
            return
        self.forked = True
        self.channel.abandon()
        self.streams.abandon()

    # === the loop ===

    def serve(self, while_idle=None):
        """Says `ready`, then runs cells until init closes the socket. Does not return.
        `while_idle` is called once before the first of them."""
        code = 0
        try:
            self.say_ready()
            if while_idle is not None:
                while_idle(self)
            while True:
                self._serve_one()
        except PeerGone:
            pass
        except BaseException as error:
            # A defect of the kernel, not of a cell: say so where an operator can see it.
            code = 70
            try:
                tracebacks.print_foreign(error, sys.__stderr__)
            except BaseException:
                pass
        try:
            self.streams.flush()
        finally:
            _exit(code)

    def _receive(self):
        """The next frame. What a signal handler of the user's raises meanwhile (an alarm that a
        cell has not called off) is shown on stderr and ends nothing."""
        for _ in range(IDLE_ERRORS_MAX):
            try:
                return self.channel.receive()
            except PeerGone:
                raise
            except BaseException as error:
                tracebacks.print_foreign(error, self.streams.stderr)
        raise RuntimeError("signal handlers raise without end")

    def say_ready(self):
        self.channel.send(_READY)

    def serve_frame(self, frame):
        """Serves `frame` as if it had come from init."""
        self.channel.feed(frame)
        self._serve_one()

    def _serve_one(self):
        request = self._receive()
        op = request.get("op")
        if op == "execute":
            self.execute(request)
        elif op == "start":
            self.start(request)
        elif op == "query":
            self.query(request)

    def start(self, request):
        """The context's environment and directory."""
        os.environ.update(request.get("env") or {})
        imports.watch_user_site()
        if request.get("env", {}).get("TZ"):
            time.tzset()
        try:
            os.chdir(request.get("cwd") or "/")
        except OSError as error:
            sys.stderr.write("the context starts in %s: %s\n" % (os.getcwd(), error))

    # === one run ===

    def execute(self, request):
        run = self.run = request["run"]
        self.takes_input = request.get("input") is True
        self.table_export = request.get("table_export")
        self.exports = 0
        self.interrupts.begin(run, self.channel)
        self.count += 1
        cell = self.cells.name(self.count)
        before_ns = _cpu_ns()
        came_from = None
        failure = None
        cwd = request.get("cwd")
        if cwd:
            came_from, failure = self._enter(cwd)
        if failure is None:
            failure = self._guarded(self._run_cell, request["code"], cell)
            if figures.open_figures():
                later = self._guarded(figures.end_of_run, self.interrupts.fired)
                failure = later if failure is None else failure
        if self.forked:
            self._leave_forked_child(failure)
        if came_from is not None:
            _leave(cwd, came_from)
        self._finish(run, cell, failure, before_ns)

    def query(self, request):
        """Answers a question about the context. `self.run` stays None, so that nothing is shown
        and nobody is asked."""
        run = request["run"]
        self.interrupts.begin(run, self.channel)
        before_ns = _cpu_ns()
        found = []
        failure = self._guarded(self._answer, request, found)
        if self.forked:
            self._leave_forked_child(failure)
        status = "ok"
        if failure is not None:
            _set_traceback(failure, None)
            status = "error"
            if self._is_interrupt(failure):
                status = "interrupted"
        elif found:
            self.channel.queue({"ev": "answer", "run": run, "answer": found[0]})
        self.streams.restore()
        self.interrupts.install()
        self.channel.send(encode_done(run, status, self.count, (_cpu_ns() - before_ns) // 1000))

    def _answer(self, request, found):
        from . import queries

        found.append(queries.answer(self, request))

    def has_put(self, name, value):
        """Whether that name of the namespace is the kernel's own doing."""
        if name in ("_", "__"):
            return value is (self._last if name == "_" else self._before_last)
        return name == "_dh"

    def _is_interrupt(self, failure):
        return issubclass(type(failure), KeyboardInterrupt) and self.interrupts.fired

    def _finish(self, run, cell, failure, before_ns):
        """Everything the run said, then `error` if it failed, then `done`."""
        if _get_recursion_limit() < RECURSION_LIMIT_MIN:
            _set_recursion_limit(RECURSION_LIMIT_MIN)
        status = "ok"
        if self.streams.are_replaced():
            later = self._guarded(self.streams.flush_foreign)
            failure = later if failure is None else failure
        if failure is not None:
            status = "error"
            if self._is_interrupt(failure):
                status = "interrupted"
            event = self._described(failure, cell)
            event["ev"] = "error"
            event["run"] = run
            self.channel.queue(event)
            # A failed cell's frames hold its variables; nobody can look at them.
            _set_traceback(failure, None)
        self.streams.flush_own()
        self.streams.restore()
        self.interrupts.install()
        self.run = None
        cpu_us = (_cpu_ns() - before_ns) // 1000
        self.channel.send(encode_done(run, status, self.count, cpu_us))
        if self.collects_after_run:
            self.collects_after_run = False
            gc.enable()

    def _described(self, failure, cell):
        """The fields of `error`. Exceptions are classes of the user's: theirs is still the time,
        and the interrupt."""
        found = []
        broken = self._guarded(lambda: found.append(tracebacks.describe(failure, cell)))
        return found[0] if found else tracebacks.without_text(failure, broken)

    def _guarded(self, function, *args):
        """Calls `function` with interrupts armed; what it raised, or None. A second SIGINT may
        land inside the first handler, hence the two layers."""
        try:
            try:
                self.interrupts.arm()
                function(*args)
            finally:
                self.interrupts.disarm()
        except PeerGone:
            raise
        except BaseException as error:
            self.interrupts.disarm()
            return error
        return None

    def _run_cell(self, source, cell):
        self.namespace.pop("__warningregistry__", None)
        self.cells.remember(cell, source)
        try:
            tree = self.cells.parse(source, cell)
        except SyntaxError:
            if not may_be_ipython(source):
                raise
            transformed = shell.transform(self, source)
            if transformed is None:
                raise
            source = transformed
            self.cells.remember(cell, source)
            tree = self.cells.parse(source, cell)
        statements, expression, quiet = self.cells.build(tree, source, cell)
        if statements is not None:
            if statements.co_flags & COROUTINE:
                self._await(statements)
            else:
                _exec(statements, self.namespace)
        if expression is not None:
            if expression.co_flags & COROUTINE:
                value = self._await(expression)
            else:
                value = _eval(expression, self.namespace)
            if value is not None and not quiet and not self.forked:
                self._show(value)

    def _show(self, value):
        """The value of the last expression: `result`, `_`, `__`."""
        data, metadata = display.bundle(value)
        if data:
            event = display.result_event(self.run, data, metadata, self.count)
            self.channel.queue(event)
        namespace = self.namespace
        # As IPython: a program that uses `_` for something else keeps it.
        if namespace.get("_", _MISSING) is self._last:
            if self._last is not _MISSING:
                namespace["__"] = self._before_last = self._last
            namespace["_"] = self._last = value

    def _await(self, code):
        """Top-level await, on one event loop for the life of the context."""
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        asyncio.set_event_loop(loop)
        task = loop.create_task(_eval(code, self.namespace))
        self.interrupts.watch(loop, task)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            if self.interrupts.fired:
                raise KeyboardInterrupt from None
            raise
        finally:
            self.interrupts.unwatch()

    def _enter(self, cwd):
        """For a run with its own directory: where to go back to, and what went wrong."""
        try:
            came_from = os.getcwd()
        except OSError:
            came_from = None
        try:
            os.chdir(cwd)
        except OSError as error:
            return None, error
        return came_from, None

    def _leave_forked_child(self, failure):
        """User code called os.fork() and this is the child, back from the cell. It is not a
        driver: it ends as a program would."""
        code = 0
        try:
            if isinstance(failure, SystemExit):
                code = failure.code if isinstance(failure.code, int) else int(bool(failure.code))
            elif failure is not None:
                tracebacks.print_foreign(failure, sys.stderr)
                code = 1
            self.streams.flush()
        finally:
            _exit(code & 0xFF)


def _leave(cwd, came_from):
    """Back to where the context was, unless the cell went somewhere itself."""
    try:
        if os.path.samefile(os.getcwd(), cwd):
            os.chdir(came_from)
    except OSError:
        pass
