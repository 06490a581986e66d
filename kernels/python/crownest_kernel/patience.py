"""Calls code of the tenant's for a bounded time.

For what runs it without being asked to: a preview, a list of attributes. The bound is kept with
SIGALRM, so it holds for a loop in Python and for a call that sleeps, not for a long computation
in C. A timer and a handler that the tenant has set are put back.
"""

import _signal  # without the enum conversions of `signal`
import time

_AGAIN_S = 0.02

_alarm, _real = int(_signal.SIGALRM), _signal.ITIMER_REAL
_get_handler, _set_handler, _set_timer = _signal.getsignal, _signal.signal, _signal.setitimer
_now = time.monotonic


class TooSlow(BaseException):
    """The call was not back in time. No Exception: code that swallows those is not spared."""


class Failed(Exception):
    """The call raised something that is meant to end a program."""


class Patience:
    """A budget of seconds for any number of calls. Main thread only."""

    def __init__(self, interrupts, budget_s):
        self._interrupts = interrupts
        self.left_s = budget_s
        self._active = False

    def call(self, seconds, function, *args):
        """What `function` returns. TooSlow after `seconds`, or when the budget is used up; an
        Exception for whatever else went wrong, but for an interrupt."""
        seconds = min(seconds, self.left_s)
        if seconds <= 0:
            raise TooSlow
        handler = _get_handler(_alarm)
        if handler is None:
            return self._call(function, args)  # of C code: it could not be put back
        began = _now()
        left_before = _set_timer(_real, 0)
        try:
            try:
                self._active = True
                _set_handler(_alarm, self._on_alarm)
                # More than once: the first may land in code that swallows everything.
                _set_timer(_real, seconds, _AGAIN_S)
                return self._call(function, args)
            finally:
                self._active = False
        finally:
            self._active = False
            self._interrupts.hold()
            spent = _now() - began
            self.left_s -= spent
            _set_timer(_real, 0)
            _set_handler(_alarm, handler)
            if left_before[0]:
                _set_timer(_real, max(1e-6, left_before[0] - spent), left_before[1])
            self._interrupts.release()

    def _call(self, function, args):
        try:
            return function(*args)
        except (Exception, TooSlow):
            raise
        except BaseException as error:
            if self._interrupts.fired and issubclass(type(error), KeyboardInterrupt):
                raise
            raise Failed from None

    def _on_alarm(self, _number, _frame):
        if self._active:
            raise TooSlow
