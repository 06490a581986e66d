"""How much of a figure its chart data may hold.

Bounds are counted in values, each of which is at most VALUE_BYTES as JSON, so that a document
always fits what an answer may hold inline (1 MiB).
"""

CHARTS_MAX = 64
SERIES_MAX = 200
# Of one series; the others shall have their share of a figure's.
POINTS_MAX = 10_000
POINTS_SHARED_MIN = 50
VALUES_MAX = 24_000
VALUE_BYTES = 25
TEXT_CHARS_MAX = 200
TEXTS_MAX = 1_000
UNKNOWN_MAX = 20


class Budget:
    """What is left for one document, and what was left out of it."""

    def __init__(self):
        self.values_left = VALUES_MAX
        self.points_max = POINTS_MAX
        self.omitted = {}
        self.unknown = {}

    def share(self, series):
        """There are so many series: none may use up what the others need."""
        if series > 1:
            self.points_max = max(POINTS_SHARED_MIN, min(POINTS_MAX, VALUES_MAX // (2 * series)))

    def points(self, count, values_each):
        """How many of `count` points, of so many values each, may be kept."""
        kept = min(count, self.points_max, self.values_left // max(1, values_each))
        self.values_left -= kept * values_each
        if kept < count:
            self.leave_out("points", count - kept)
        return kept

    def take(self, values):
        """Whether that many values more may be kept."""
        if values > self.values_left:
            return False
        self.values_left -= values
        return True

    def leave_out(self, what, count=1):
        self.omitted[what] = self.omitted.get(what, 0) + count

    def cannot_read(self, kind):
        """`kind`: the name of a type that is shown and not described."""
        name = str(kind)[:TEXT_CHARS_MAX]
        if len(self.unknown) < UNKNOWN_MAX or name in self.unknown:
            self.unknown[name] = True


def thinned(count, kept):
    """Indices of `kept` out of `count` points, the first and the last among them, or None for all
    of them."""
    if kept >= count:
        return None
    if kept <= 1:
        return list(range(kept))
    return [index * (count - 1) // (kept - 1) for index in range(kept)]
