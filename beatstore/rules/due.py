"""The due times of an entry, the instant from which they count, and how many runs are left.

Invariants:
    * Nothing is due before `start_at`, after `end_at`, or at the instant at which the entry was
      made. All code gets due times from `DueTimes`.
    * Every due time up to `accounted_for` has been decided; every later one has not.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from beatstore.config import Settings
from beatstore.schedules import Schedule, parse

__all__ = [
    "EARLIEST",
    "LATEST",
    "STEP",
    "DueTimes",
    "ScheduleRow",
    "Window",
    "accounted_for",
    "counts_after",
    "from_start",
    "has_one_run",
    "jitter_offset",
    "just_before",
    "remaining_runs",
    "schedule_of",
    "sent_from",
    "shown_offset",
]

#: The first and the last instant.
EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
LATEST = datetime.max.replace(tzinfo=timezone.utc)

#: The smallest difference between two instants.
STEP = timedelta(microseconds=1)


class ScheduleRow(Protocol):
    """The columns of an entry that say when it is due."""

    # ruff: noqa: D102  (each is documented with the tables)

    @property
    def kind(self) -> str: ...

    @property
    def spec(self) -> str: ...

    @property
    def timezone(self) -> str | None: ...

    @property
    def start_at(self) -> datetime | None: ...

    @property
    def end_at(self) -> datetime | None: ...

    @property
    def created_at(self) -> datetime: ...


def schedule_of(entry: ScheduleRow, settings: Settings) -> Schedule:
    """Return the schedule in the columns of `entry`.

    Raises:
        ScheduleError: they hold no valid schedule.
    """
    anchor = entry.start_at or entry.created_at
    if entry.start_at is None and entry.kind == "rrule":
        anchor += STEP  # an entry is never due when it is made, so COUNT must not count that
    return parse(entry.kind, entry.spec, entry.timezone or settings.default_timezone, anchor)


@dataclass(frozen=True, slots=True)
class DueTimes:
    """The due times of an entry: those of its schedule from `start_at` to `end_at`.

    Attributes:
        schedule: the schedule without bounds.
        start_at: the earliest due time; None: no bound.
        end_at: the latest due time; None: no bound.
    """

    schedule: Schedule
    start_at: datetime | None = None
    end_at: datetime | None = None

    @classmethod
    def of(cls, entry: ScheduleRow, settings: Settings) -> DueTimes:
        """Return the due times of an entry.

        Raises:
            ScheduleError: its columns hold no valid schedule.
        """
        return cls(schedule_of(entry, settings), entry.start_at, entry.end_at)

    def next_after(self, at: datetime) -> datetime | None:
        """Return the first due time after `at`, or None."""
        found = self.schedule.next_after(from_start(self.start_at, at))
        if found is None or (self.end_at is not None and found > self.end_at):
            return None
        return found

    def latest_until(self, at: datetime) -> datetime | None:
        """Return the last due time at or before `at`, or None."""
        until = at if self.end_at is None else min(at, self.end_at)
        if until == LATEST:
            until -= STEP  # no schedule contains that instant
        found = self.schedule.latest_before(until + STEP)
        if found is None or (self.start_at is not None and found < self.start_at):
            return None
        return found

    def between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """Return the first `limit` due times after `after`, up to and including `until`."""
        end = until if self.end_at is None else min(until, self.end_at)
        return self.schedule.between(from_start(self.start_at, after), end, limit)

    def includes(self, at: datetime) -> bool:
        """Return True if `at` is a due time."""
        return self.next_after(just_before(at)) == at


@dataclass(frozen=True, slots=True)
class Window:
    """The due times of one entry that one look decides.

    Attributes:
        times: all due times of the entry.
        after: everything up to this instant is accounted for.
        until: due times up to this instant are due.
        taken: due times after `after` that are accounted for individually.
        oldest: the first due time that is not accounted for, or None.
        following: the next one, if `oldest` is due; otherwise None.
    """

    times: DueTimes
    after: datetime
    until: datetime
    taken: frozenset[datetime]
    oldest: datetime | None
    following: datetime | None

    @classmethod
    def at(
        cls, times: DueTimes, after: datetime, until: datetime, taken: frozenset[datetime]
    ) -> Window:
        """Return the window from the last accounted due time to the last that is due."""
        oldest = _next_free(times, after, taken)
        following = None
        if oldest is not None and oldest <= until:
            following = _next_free(times, oldest, taken)
        found = cls(times, after, until, taken, oldest, following)
        return found.past(found.accounted_before(oldest))

    @property
    def is_due(self) -> bool:
        """Whether anything is due."""
        return self.oldest is not None and self.oldest <= self.until

    @property
    def first(self) -> datetime:
        """The first due time; only if something is due."""
        assert self.oldest is not None  # callers check is_due first
        return self.oldest

    @property
    def latest(self) -> datetime:
        """The last due time; only if something is due."""
        latest = self.times.latest_until(self.until)
        assert latest is not None  # callers check is_due first
        return latest

    def next_after(self, at: datetime) -> datetime | None:
        """Return the first due time after `at` that is not in `taken`."""
        return self.following if at == self.oldest else _next_free(self.times, at, self.taken)

    def includes(self, at: datetime) -> bool:
        """Return True if `at` is a due time within the window."""
        return self.after < at <= self.until and self.times.includes(at)

    def past(self, at: datetime) -> Window:
        """Return the window with everything up to `at` accounted for."""
        return self if at <= self.after else replace(self, after=at)

    def accounted_before(self, at: datetime | None) -> datetime:
        """Return the last accounted instant before `at`, the first that is not accounted for."""
        return max([self.after, *(one for one in self.taken if at is None or one < at)])


def _next_free(times: DueTimes, at: datetime, taken: Collection[datetime]) -> datetime | None:
    found = times.next_after(at)
    while found is not None and found in taken:
        found = times.next_after(found)
    return found


def just_before(at: datetime) -> datetime:
    """Return the last instant before `at`."""
    return at if at == EARLIEST else at - STEP


def from_start(start_at: datetime | None, at: datetime) -> datetime:
    """Return the instant after which to search for due times after `at` and from `start_at`."""
    return at if start_at is None else max(at, just_before(start_at))


def counts_after(entry: Any) -> datetime:
    """Return the instant after which an entry's due times count: when it was made.

    The due time of a one-shot counts even if it passed before the row was committed.
    """
    made_at: datetime = entry.created_at
    return EARLIEST if entry.kind == "once" else made_at


def accounted_for(entry: Any) -> datetime:
    """Return the instant up to which all due times of an entry are accounted for.

    Args:
        entry: has the columns `kind`, `cursor_at`, `created_at` and `start_at`.
    """
    return from_start(entry.start_at, entry.cursor_at or counts_after(entry))


def remaining_runs(entry: Any) -> int | None:
    """Return how many more runs `max_runs` allows; None: any number."""
    if entry.max_runs is None:
        return None
    return max(0, int(entry.max_runs - entry.run_count))


def has_one_run(kind: str | None, max_runs: int | None) -> bool:
    """Return True if an entry has at most one run.

    Only then may its options have a `task_id`.
    """
    return kind == "once" or max_runs == 1


def jitter_offset(entry_id: int, jitter_s: float) -> timedelta:
    """Return the delay from an entry's due time to its send, 0 <= offset < jitter.

    The offset is fixed per entry: jitter spreads entries, and keeps the interval between the
    runs of each.
    """
    if not jitter_s:
        return timedelta(0)
    share = zlib.crc32(str(entry_id).encode()) / 2**32
    return timedelta(seconds=jitter_s * share)


def shown_offset(entry: Any) -> timedelta:
    """Return the delay as `jitter_offset` does; 0 if plain SQL wrote no number of seconds."""
    try:
        return jitter_offset(entry.id, entry.jitter_s)
    except (TypeError, ValueError, OverflowError):
        return timedelta(0)


def sent_from(due_at: datetime, offset: timedelta) -> datetime:
    """Return when to send an occurrence: its due time plus the offset, within the calendar."""
    return due_at + min(offset, LATEST - due_at)
