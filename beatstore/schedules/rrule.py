"""Recurrence rules (RFC 5545), evaluated in a time zone.

`rruletext.py` reads the text, `rruletimes.py` finds the wall-clock times of each rule,
`wall.py` turns them into instants, and `rruleset.py` puts the lines together. dateutil's iteration
is not used: it walks from DTSTART, and never returns from some rules that match nothing;
in what both can do they agree, which the tests check.
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
from beatstore.schedules.rruletext import Recurrence, read_recurrence
from beatstore.schedules.wall import showing
from beatstore.schedules.zones import zone

__all__ = ["RRule"]


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
    _anchor: datetime | None = field(default=None, repr=False)

    def __init__(self, text: str, timezone: str | None = None) -> None:
        self._set(text, timezone, None)

    def _set(self, text: str, timezone: str | None, anchor: datetime | None) -> None:
        recurrence = _read(text)
        if recurrence.start is not None:
            # The anchor counts for nothing then, and must not tell equal values apart.
            timezone, anchor = recurrence.start.timezone or timezone, None
        tz = zone("UTC" if timezone is None else timezone)
        vars(self).update(
            text="\n".join(text.split()),
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


def _begin(recurrence: Recurrence, anchor: datetime | None, tz: ZoneInfo) -> Begin:
    """Return where a recurrence begins: at its DTSTART, else at the anchor, else in 1970."""
    if recurrence.start is not None:
        wall = face(recurrence.start.wall)
        return Begin(wall, showing(wall, tz), "DTSTART")
    at = EPOCH if anchor is None else anchor
    try:
        wall = face(at.astimezone(tz))
    except OverflowError as error:
        raise ScheduleError("anchor", at, "a date in the years 1 to 9999") from error
    # What the anchor's second shows gives the phase; nothing is due before the anchor.
    return Begin(wall, -(-micros("anchor", at) // SECOND), None if anchor is None else "anchor")
