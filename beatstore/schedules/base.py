"""What every schedule is.

A schedule is a value: frozen, hashable, picklable, equal by what it says, and without
memory of what ran. It answers three questions about instants, and the three always
agree: `next_after` and `latest_before` are inverse to each other, and `between` lists
what stepping with `next_after` would find, so that a time line may be cut anywhere
without losing or doubling an occurrence. Nothing here reads a clock.

What can't be a schedule is refused by its constructor with a `ScheduleError`; the
three questions raise only for a naive datetime.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from beatstore.schedules.instants import SECOND, instant, micros

if TYPE_CHECKING:
    from beatstore.schedules.wall import Fires

__all__ = ["Schedule", "WallSchedule"]

# The kinds are frozen dataclasses whose constructors check and normalise what they are
# given; they write their fields through `vars(self)`, the one way that is left open.


class Schedule(ABC):
    """A recurrence rule, apart from what it runs and from what ran."""

    kind: ClassVar[str]
    """The word stored in the entry's `kind` column."""

    timezone: str | None = None
    """IANA name; None where the caller's default counts, and in kinds without zones."""

    @property
    @abstractmethod
    def spec(self) -> str:
        """The text stored in the entry's `spec` column; `parse` reads it back."""

    @abstractmethod
    def _after(self, count: int) -> int | None:
        """Return the first occurrence after `count`; both in microseconds."""

    @abstractmethod
    def _before(self, count: int) -> int | None:
        """Return the last occurrence before `count`; both in microseconds."""

    def next_after(self, t: datetime) -> datetime | None:
        """Return the first occurrence strictly after `t`, or None when there is no more."""
        found = self._after(micros("t", t))
        return None if found is None else instant(found)

    def latest_before(self, t: datetime) -> datetime | None:
        """Return the last occurrence strictly before `t`, or None when there is none."""
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
        """Return this schedule in `timezone` if its kind has zones and it names none."""
        del timezone
        return self

    def anchored(self, at: datetime) -> Schedule:
        """Return this schedule counted from `at` if it needs an anchor and has none."""
        del at
        return self


class WallSchedule(Schedule):
    """A schedule said in wall-clock times; `wall.py` has the rule for clock changes."""

    _fires: Fires

    def _after(self, count: int) -> int | None:
        found = self._fires.first(count // SECOND + 1)
        return None if found is None else found * SECOND

    def _before(self, count: int) -> int | None:
        found = self._fires.last(-(-count // SECOND))
        return None if found is None else found * SECOND
