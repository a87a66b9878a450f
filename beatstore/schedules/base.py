"""The base class of schedules.

A schedule is a value: frozen, hashable, picklable, and equal to schedules with the same rule. It
remembers no runs and reads no clock. Its three methods agree: `next_after` and `latest_before`
are inverse to each other, and `between` lists what repeated `next_after` finds. So a caller may
split time anywhere without losing or doubling an occurrence.

The constructors raise `ScheduleError` for an invalid schedule; the three methods raise it only
for a naive datetime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from beatstore.schedules.instants import SECOND, instant, micros

if TYPE_CHECKING:
    from beatstore.schedules.wall import Fires

__all__ = ["Schedule", "WallSchedule"]

# The kinds are frozen dataclasses whose constructors check and normalise their arguments.
# They set their fields through `vars(self)`, since the instance is frozen.


class Schedule(ABC):
    """When something is due."""

    kind: ClassVar[str]
    """The word stored in the entry's `kind` column."""

    timezone: str | None = None
    """IANA name; None for the caller's default, and in kinds without time zones."""

    @property
    @abstractmethod
    def spec(self) -> str:
        """The text for the entry's `spec` column; `parse` reads it."""

    @abstractmethod
    def _after(self, count: int) -> int | None:
        """Return the first occurrence after `count`; both in microseconds."""

    @abstractmethod
    def _before(self, count: int) -> int | None:
        """Return the last occurrence before `count`; both in microseconds."""

    def next_after(self, t: datetime) -> datetime | None:
        """Return the first occurrence strictly after `t`, or None if there is none."""
        found = self._after(micros("t", t))
        return None if found is None else instant(found)

    def latest_before(self, t: datetime) -> datetime | None:
        """Return the last occurrence strictly before `t`, or None if there is none."""
        found = self._before(micros("t", t))
        return None if found is None else instant(found)

    def between(self, start: datetime, end: datetime, limit: int) -> list[datetime]:
        """Return the first `limit` occurrences with start < occurrence <= end, oldest first."""
        count, stop = micros("start", start), micros("end", end)
        found: list[datetime] = []
        while len(found) < limit:
            step = self._after(count)
            if step is None or step > stop or (at := instant(step)) is None:
                break
            found.append(at)
            count = step
        return found

    def in_zone(self, timezone: str | None) -> Schedule:
        """Return this schedule in `timezone`, unless it names a zone or its kind has none."""
        del timezone
        return self

    def anchored(self, at: datetime) -> Schedule:
        """Return this schedule counted from `at`, unless it has an anchor or needs none."""
        del at
        return self


class WallSchedule(Schedule):
    """A schedule in wall-clock times; `wall.py` has the rules for clock changes."""

    _fires: Fires

    def _after(self, count: int) -> int | None:
        found = self._fires.first(count // SECOND + 1)
        return None if found is None else found * SECOND

    def _before(self, count: int) -> int | None:
        found = self._fires.last(-(-count // SECOND))
        return None if found is None else found * SECOND
