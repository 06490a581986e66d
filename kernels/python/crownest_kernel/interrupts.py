"""SIGINT: raises KeyboardInterrupt in user code, and nowhere else.

The handler is installed once and decides by state, so that no cell pays for signal() calls:

* idle: swallowed. Init signals only while a run is active, so this is one that came too late.
* between reading `execute` and the first line of the cell: kept, raised as the cell starts.
* user code: KeyboardInterrupt.
* while a frame is being written (display() inside a cell): raised right after the frame.
* top-level await: the cell's task is cancelled if the event loop is waiting; if the task itself
  is computing, KeyboardInterrupt is raised inside it.
"""

import _signal  # without the enum conversions of `signal`, which cost more than the call
import os

_set_handler, _get_handler, _SIGINT = _signal.signal, _signal.getsignal, int(_signal.SIGINT)


class Interrupts:
    """State of the one SIGINT handler. Main thread only."""

    def __init__(self):
        self.fired = False
        self._pending = False
        self._armed = False
        self._held = 0
        self._task = None
        self._loop = None
        self._handler = self._on_sigint

    def install(self):
        """Makes this the SIGINT handler, again if a cell has put something else there."""
        if _get_handler(_SIGINT) is not self._handler:
            _set_handler(_SIGINT, self._handler)

    def begin(self, run, channel):
        """`run` has been read. A signal from before that was for the run before it, unless its
        `interrupt` frame, which init writes ahead of the signal, says otherwise."""
        self.fired = False
        if self._pending:
            self._pending = False
            self._pending = channel.take_interrupt(run)

    def arm(self):
        """User code follows."""
        self._armed = True
        if self._pending:
            self._fire()

    def disarm(self):
        """User code is over: a signal from here on changes nothing but `fired` of this run."""
        self._armed = False
        self._held = 0
        self._task = self._loop = None

    def watch(self, loop, task):
        """The armed code is `task` on `loop`."""
        self._loop, self._task = loop, task

    def unwatch(self):
        self._task = self._loop = None

    def hold(self):
        """Until `release`, an interrupt waits: half a frame would end the context."""
        self._held += 1

    def release(self):
        if self._held:
            self._held -= 1
        if self._pending and self._armed and not self._held:
            self._fire()

    def _fire(self):
        self._pending = False
        self.fired = True
        raise KeyboardInterrupt

    def _on_sigint(self, _number, frame):
        if not self._armed or self._held:
            self._pending = True
        elif self._task is not None and _inside_event_loop(frame):
            self.fired = True
            self._task.cancel()
            self._loop.call_soon_threadsafe(_nothing)
        else:
            self._fire()


_LOOP_FILES = tuple(
    os.path.join(os.path.dirname(os.__file__), name) for name in ("asyncio" + os.sep, "selectors.py")
)


def _inside_event_loop(frame):
    """Whether the loop itself, and not a coroutine, is what was interrupted."""
    return frame is not None and frame.f_code.co_filename.startswith(_LOOP_FILES)


def _nothing():
    """Wakes the loop out of its wait."""
