"""How long the reports of a process are gathered before they are written together."""

from __future__ import annotations

import time
from math import inf

__all__ = ["LEAST", "Pace"]

#: How long a `started` report waits for its end, and the least time between the writes of a
#: burst, in seconds.
LEAST = 0.005

#: The most between the writes of a burst. What waits for a run is woken so much later by a process
#: in which 600 tasks a second have ended, for as long as at least 100 a second do.
MOST = 0.03

#: With so many ends in one write, the next one gathers for longer.
MANY = 3


class Pace:
    """The time between the writes of one process: the more ends there are, the longer.

    Each write is a transaction, whose price is nearly the same for one end and for twenty.

    Args:
        least: seconds between the writes where ends are few.
    """

    def __init__(self, least: float = LEAST) -> None:
        self._least = self._gap = least
        self._wrote_at = -inf

    def left(self, began: float, ends: int) -> float:
        """Return for how many seconds more reports are gathered.

        Args:
            began: since when they are, on the monotonic clock.
            ends: how many of those that are there end a run; starts alone can wait.
        """
        since, gap = (self._wrote_at, self._gap) if ends else (began, self._least)
        return since + gap - time.monotonic()

    def write(self, ends: int) -> None:
        """Note that so many ends are written now."""
        self._wrote_at = time.monotonic()
        self._gap = min(2 * self._gap, max(MOST, self._least)) if ends >= MANY else self._least
