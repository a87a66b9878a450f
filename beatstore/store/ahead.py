"""What is to come of one entry: what is due already, and the due times that `max_runs` leaves.

What is due already takes runs, as many as its misfire policy sends of it. So all that tells what is
to come asks here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from beatstore.config import Settings
from beatstore.errors import ScheduleError
from beatstore.rules.decide import Look
from beatstore.rules.due import (
    DueTimes,
    accounted_for,
    jitter_offset,
    remaining_runs,
    sent_from,
)
from beatstore.rules.gate import OPEN

__all__ = ["UNREADABLE", "Ahead"]

#: What a row written by hand may raise, which beat will mark broken.
UNREADABLE = (ScheduleError, TypeError, ValueError, OverflowError, AttributeError)


class Ahead:
    """The due times to come of an entry with a schedule, counted against its `max_runs`.

    Attributes:
        times: all its due times.
        offset: how long after its due time an occurrence is sent (jitter).
        owed: the due times of what is due already and will be sent; of several that become one
            run, it is the first.
        since: the instant after which its other due times are to come. One that jitter puts off
            is after it.
        remaining: how many runs are left to those; None: any number.

    Args:
        row: the entry. If it is not active, nothing is due, as when it is made active now.
        now: the database's time.
        settings: the defaults.

    Raises:
        UNREADABLE: the row was written by hand, and makes no sense.
    """

    def __init__(self, row: Any, now: datetime, settings: Settings) -> None:
        self.times = DueTimes.of(row, settings)
        self.offset = jitter_offset(row.id, row.jitter_s)
        self.remaining = remaining_runs(row)
        self.since = now
        self.owed: list[datetime] = []
        if row.state == "active":
            self._look(row, now, settings)

    def _look(self, row: Any, now: datetime, settings: Settings) -> None:
        """Find what is due already, and from when on the rest is to come."""
        accounted, until = accounted_for(row), now - self.offset
        self.since = max(accounted, until)
        oldest = self.times.next_after(accounted)
        if oldest is None:
            return
        if row.pending_due_at is not None:
            self.owed = [row.pending_due_at][: self.remaining]
        elif oldest <= until:
            planned = Look.at(row, now, settings, OPEN).planned_runs()
            to_send = [run for run in planned if run.state == "claimed"][: self.remaining]
            self.owed = [run.first_missed_at or run.due_at for run in to_send]
        self._pass_by(len(self.owed))

    def skip(self, until: datetime) -> None:
        """Count the due times up to an instant as sent; only what is later is to come."""
        if until > self.since:
            if self.remaining:
                self._pass_by(len(self.times.between(self.since, until, self.remaining)))
            self.since = until

    def next(self) -> datetime | None:
        """Return the first due time to come, or None."""
        return None if self.remaining == 0 else self.times.next_after(self.since)

    def sent_before(self, until: datetime | None) -> Iterator[datetime]:
        """Yield the due times to come that are sent before an instant; None: all of them."""
        while (due_at := self.next()) is not None:
            if until is not None and sent_from(due_at, self.offset) >= until:
                return
            yield due_at
            self._pass_by(1)
            self.since = due_at

    def _pass_by(self, count: int) -> None:
        if self.remaining is not None:
            self.remaining = max(0, self.remaining - count)
