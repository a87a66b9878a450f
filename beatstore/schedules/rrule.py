"""Recurrence rules (RFC 5545), evaluated in a time zone.

`rruletext.py` parses the text, `rruletimes.py` finds the wall-clock times of each rule, `wall.py`
converts them to instants, and `rruleset.py` combines the lines. dateutil's iteration is not used:
it walks from DTSTART, and never returns for some rules that match nothing. Where both have an
answer they agree; the tests check that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import ClassVar
from zoneinfo import ZoneInfo

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule, WallSchedule
from beatstore.schedules.instants import EPOCH, SECOND, UTC, face, micros
from beatstore.schedules.rruleset import Begin, occurrences
from beatstore.schedules.rruletext import Recurrence, lines, read_recurrence
from beatstore.schedules.wall import showing
from beatstore.schedules.zones import zone

__all__ = ["RRule", "parts_of"]


@dataclass(frozen=True, init=False)
class RRule(WallSchedule):
    """Due at the times of an RFC 5545 recurrence.

    The text is an RRULE, with or without its name, and optional lines: one DTSTART, further
    RRULEs, RDATEs and EXDATEs, separated by white space.

    Times are wall-clock times in the zone that DTSTART names with TZID, or UTC if it ends in
    Z; otherwise in `timezone`. Other dates with a zone are converted to it. UNTIL is
    inclusive; UNTIL as a date includes its whole day. When clocks change, rules of hours,
    minutes and seconds follow the clock, like a `Cron` expression with a star; any other
    occurrence runs once, like a fixed time.

    Without DTSTART, the rule counts from the anchor of the entry that stores it, and from
    1970-01-01 outside an entry. As in dateutil, a DTSTART that doesn't match the rule isn't
    due, and `BYDAY=2TU` needs FREQ=MONTHLY or YEARLY.

    Args:
        text: the recurrence.
        timezone: IANA name; None means the caller's default, or UTC if there is none.

    Raises:
        ScheduleError: the text is invalid or never matches, or the time zone is unknown.
    """

    kind: ClassVar[str] = "rrule"

    text: str
    timezone: str | None = None
    _anchor: datetime | None = field(default=None, repr=False)

    def __init__(self, text: str, timezone: str | None = None) -> None:
        self._set(text, timezone, None)

    def _set(self, text: str, timezone: str | None, anchor: datetime | None) -> None:
        recurrence = _read(text)
        if recurrence.start is not None:
            # DTSTART makes the anchor irrelevant, so it must not make equal values differ.
            timezone, anchor = recurrence.start.timezone or timezone, None
        tz = zone("UTC" if timezone is None else timezone)
        vars(self).update(
            text="\n".join(lines(text)),
            timezone=timezone,
            _anchor=anchor,
            _fires=occurrences(recurrence, _begin(recurrence, anchor, tz), tz),
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
        return self._with(self.timezone, at.astimezone(UTC))

    def _with(self, timezone: str | None, anchor: datetime | None) -> RRule:
        other = RRule.__new__(RRule)
        other._set(self.text, timezone, anchor)
        return other


@lru_cache(maxsize=1024)
def _read(text: str) -> Recurrence:
    return read_recurrence(text)


def parts_of(schedule: RRule) -> tuple[Recurrence, Begin]:
    """Return the parsed lines of a schedule, and what it counts from."""
    recurrence = _read(schedule.text)
    tz = zone("UTC" if schedule.timezone is None else schedule.timezone)
    return recurrence, _begin(recurrence, schedule._anchor, tz)


def _begin(recurrence: Recurrence, anchor: datetime | None, tz: ZoneInfo) -> Begin:
    """Return the start of a recurrence: its DTSTART, else the anchor, else 1970-01-01."""
    if recurrence.start is not None:
        wall = face(recurrence.start.wall)
        return Begin(wall, showing(wall, tz), "DTSTART")
    at = EPOCH if anchor is None else anchor
    try:
        wall = face(at.astimezone(tz))
    except OverflowError as error:
        raise ScheduleError("anchor", at, "a date in the years 1 to 9999") from error
    # The wall-clock second of the anchor is the phase; nothing is due before the anchor.
    return Begin(wall, -(-micros("anchor", at) // SECOND), None if anchor is None else "anchor")
