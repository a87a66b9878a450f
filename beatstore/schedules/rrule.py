"""Recurrence rules (RFC 5545), evaluated in a time zone.

`rruletext.py` reads the text, `rruletimes.py` finds the wall-clock times of each rule,
`wall.py` turns them into instants by the rule for fixed times. dateutil's iteration is
not used: it walks from DTSTART, and never returns from some rules that match nothing;
in what both can do they agree, which the tests check.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import ClassVar
from zoneinfo import ZoneInfo

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule, WallSchedule
from beatstore.schedules.instants import DAY, EPOCH, UTC, face, micros
from beatstore.schedules.rruletext import Moment, Recurrence, read_recurrence
from beatstore.schedules.rruletimes import RuleTimes
from beatstore.schedules.wall import Fires, WallTimes
from beatstore.schedules.zones import zone

__all__ = ["RRule"]

_CADENCES = ("HOURLY", "MINUTELY", "SECONDLY")


@dataclass(frozen=True, init=False)
class RRule(WallSchedule):
    """Due at the times of an RFC 5545 recurrence.

    The text is an RRULE, with or without its name, and perhaps lines with one DTSTART,
    further RRULEs, RDATEs and EXDATEs, separated by white space.

    Times are wall-clock times in the zone that DTSTART names with TZID, or UTC if it
    ends in Z; otherwise in `timezone`. Other dates that say their zone are converted to
    that one. UNTIL is included; UNTIL as a date includes its whole day. Through clock
    changes rules of hours, minutes and seconds follow the clock, as an expression of
    `Cron` with a star does; of any other each occurrence runs once, as a fixed time does.

    Without DTSTART the rule counts from the entry's own anchor once it is stored, and
    from 1970-01-01 when it is asked alone. As in dateutil, a DTSTART that doesn't match
    the rule isn't due, and `BYDAY=2TU` without FREQ=MONTHLY or YEARLY is refused.

    Args:
        text: the recurrence.
        timezone: IANA name; None means the caller's default, and UTC if there is none.

    Raises:
        ScheduleError: the text isn't understood or never matches, or there is no such
            zone.
    """

    kind: ClassVar[str] = "rrule"

    text: str
    timezone: str | None = None
    _anchor: datetime = field(default=EPOCH, repr=False)

    def __init__(self, text: str, timezone: str | None = None) -> None:
        self._set(text, timezone, EPOCH)

    def _set(self, text: str, timezone: str | None, anchor: datetime) -> None:
        recurrence = _read(text)
        start = recurrence.start
        if start is not None:
            # The anchor counts for nothing then, and must not tell equal values apart.
            timezone, anchor = start.timezone or timezone, EPOCH
        tz = zone("UTC" if timezone is None else timezone)
        times = _times(recurrence, _face_of(anchor, tz) if start is None else _face(start, tz), tz)
        vars(self).update(
            text="\n".join(text.split()),
            timezone=timezone,
            _anchor=anchor,
            _fires=Fires(times, tz, once=not _follows_the_clock(recurrence)),
        )

    @property
    def spec(self) -> str:
        """The text, one property to a line."""
        return self.text

    def in_zone(self, timezone: str | None) -> Schedule:
        """Return this schedule in `timezone`, unless it names its own zone."""
        if self.timezone is not None or timezone is None:
            return self
        return self._with(timezone, self._anchor)

    def anchored(self, at: datetime) -> Schedule:
        """Return this schedule counted from `at`, unless it names its own DTSTART."""
        if _read(self.text).start is not None:
            return self
        micros("anchor", at)
        return self._with(self.timezone, at.astimezone(UTC).replace(microsecond=0))

    def _with(self, timezone: str | None, anchor: datetime) -> RRule:
        other = RRule.__new__(RRule)
        other._set(self.text, timezone, anchor)
        return other


@lru_cache(maxsize=1024)
def _read(text: str) -> Recurrence:
    return read_recurrence(text)


def _follows_the_clock(recurrence: Recurrence) -> bool:
    """Say whether the rules are cadences: they keep their distance through a repeated hour."""
    return bool(recurrence.rules) and all(rule.freq in _CADENCES for rule in recurrence.rules)


def _times(recurrence: Recurrence, start: int, tz: ZoneInfo) -> WallTimes:
    """Return the wall-clock times of all lines together."""
    rules: list[WallTimes] = []
    for rule in recurrence.rules:
        until = None
        if rule.until is not None:
            until = _face(rule.until, tz) + (DAY - 1 if rule.until.dated else 0)
        rules.append(RuleTimes(rule, start, until))
    if len(rules) == 1 and not recurrence.added and not recurrence.excluded:
        return rules[0]
    added = sorted(_face(moment, tz) for moment in recurrence.added)
    return _Merged([*rules, _Listed(added)], {_face(moment, tz) for moment in recurrence.excluded})


class _Listed:
    """Wall-clock times listed one by one, ascending; a `WallTimes`."""

    def __init__(self, walls: Sequence[int]) -> None:
        self._walls = walls

    def first(self, low: int) -> int | None:
        index = bisect_left(self._walls, low)
        return self._walls[index] if index < len(self._walls) else None

    def last(self, high: int) -> int | None:
        index = bisect_left(self._walls, high)
        return self._walls[index - 1] if index else None


class _Merged:
    """What any of several sets contains, without some exceptions; a `WallTimes`."""

    def __init__(self, parts: Sequence[WallTimes], without: Collection[int]) -> None:
        self._parts = parts
        self._without = without

    def first(self, low: int) -> int | None:
        while True:
            found = [wall for part in self._parts if (wall := part.first(low)) is not None]
            if not found or min(found) not in self._without:
                return min(found, default=None)
            low = min(found) + 1

    def last(self, high: int) -> int | None:
        while True:
            found = [wall for part in self._parts if (wall := part.last(high)) is not None]
            if not found or max(found) not in self._without:
                return max(found, default=None)
            high = max(found)


def _face(moment: Moment, tz: ZoneInfo) -> int:
    """Return what the clock in `tz` shows at a moment of the text."""
    if moment.timezone is None:
        return face(moment.wall)
    return _face_of(moment.wall.replace(tzinfo=zone(moment.timezone)), tz)


def _face_of(at: datetime, tz: ZoneInfo) -> int:
    try:
        return face(at.astimezone(tz))
    except OverflowError as error:
        raise ScheduleError("text", at, "dates in the years 1 to 9999") from error
