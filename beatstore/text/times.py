"""Instants as people read and write them: options accept every printed form.

There are two printed forms, both as local time in one zone. The full form is
`2026-11-28 02:00:00`. The short form, for terminals, is `11-28 02:00`: it omits zero seconds,
and the year if the instant is less than half a year away. In the hour that the clocks repeat,
both forms add the offset.

On failure: a `ValueError` says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo

from dateutil.parser import isoparse

from beatstore.schedules import shown_in, zone

__all__ = ["Given", "full", "read", "short"]

#: An instant this near needs no year.
_HALF_A_YEAR = timedelta(days=180)

#: What output adds to an instant: the time to or since it, or the same instant in UTC.
_BEHIND = re.compile(r"(, (in .*|.* ago|now)| \([^()]*\))$")

#: An instant followed by the name of a zone.
_ZONE = re.compile(r"(.*\d)\s+([A-Za-z][A-Za-z0-9_+/-]*)")

#: A time without the year, or without a date.
_PART = re.compile(
    r"(?:(\d\d)-(\d\d)[ T])?(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6}))?)?(Z|[+-]\d\d(?::?\d\d)?)?"
)


def full(at: datetime, tz: tzinfo) -> str:
    """Return an instant to the second, with its year."""
    local, offset = shown_in(at, tz)
    return local.replace(tzinfo=None, microsecond=0).isoformat(" ") + offset


def short(at: datetime, tz: tzinfo, now: datetime) -> str:
    """Return an instant without zero seconds, and without the year if it is near."""
    local, offset = shown_in(at, tz)
    shown = local.replace(tzinfo=None, microsecond=0).isoformat(" ")
    shown = shown if local.second else shown[:-3]
    return (shown[5:] if abs(at - now) < _HALF_A_YEAR else shown) + offset


@dataclass(frozen=True, slots=True)
class Given:
    """A time as it was written.

    Attributes:
        text: what was written.
        wall: the local time; parts that were not written have no meaning.
        lacks: the missing part: "year", "date" or "".
        zone_name: the zone that was written after it.
    """

    text: str
    wall: datetime
    lacks: str = ""
    zone_name: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it is an instant without a default zone."""
        return not self.lacks and self.wall.tzinfo is not None

    def instant(self, zone_name: str, now: Callable[[], datetime]) -> datetime:
        """Return the instant that is meant.

        A local time that occurs twice is the first of the two. Without a year it is the
        nearest such time, and without a date it is today.

        Args:
            zone_name: the zone of a time without an offset and a zone.
            now: returns the current time, if a part is missing.

        Raises:
            ValueError: no such local time exists.
        """
        zone_name = self.zone_name or zone_name
        if not self.lacks:
            return _placed(self.wall, zone_name)
        here = now().astimezone(self.wall.tzinfo or zone(zone_name))
        if self.lacks == "date":
            today = self.wall.replace(year=here.year, month=here.month, day=here.day)
            return _placed(today, zone_name)
        years = [year for year in range(here.year - 1, here.year + 2) if _has(year, self.wall)]
        if not years:
            raise ValueError(f"{self.text} is not a date in a near year: write it with its year")
        found = [_placed(self.wall.replace(year=year), zone_name) for year in years]
        return min(found, key=lambda at: abs(at - here))


def read(text: str) -> Given:
    """Read a time: ISO 8601, a printed form, or a time of today.

    Raises:
        ValueError: it is none of these.
    """
    local = _BEHIND.sub("", text.strip())
    zone_name = None
    if found := _ZONE.fullmatch(local):
        local, zone_name = found[1], zone(found[2]).key
    if part := _PART.fullmatch(local):
        month, day, hour, minute, second, fraction, offset = part.groups()
        # The year is a placeholder; a leap year has all dates.
        face = f"2000-{month or '01'}-{day or '01'}T{hour}:{minute}:{second or '00'}"
        face += f".{(fraction or '0'):0<6}{offset or ''}"
        return Given(text, isoparse(face), "year" if month else "date", zone_name)
    return Given(text, isoparse(local.replace(" ", "T", 1)), zone_name=zone_name)


def _has(year: int, wall: datetime) -> bool:
    try:
        wall.replace(year=year)
    except ValueError:
        return False
    return True


def _placed(wall: datetime, zone_name: str) -> datetime:
    """Return the instant of a local time in a zone; an offset in it counts instead."""
    if wall.tzinfo is not None:
        return wall
    tz = zone(zone_name)
    found = wall.replace(tzinfo=tz)
    text = wall.isoformat(" ")
    try:
        shown = found.astimezone(timezone.utc).astimezone(tz)
    except OverflowError as error:
        raise ValueError(
            f"{text} in {zone_name} is outside the years 1 to 9999 in UTC; write an earlier time"
        ) from error
    if shown.replace(tzinfo=None) != wall:
        raise ValueError(
            f"{text} does not exist in {zone_name}, where the clocks went forward; write another "
            "time, or one with an offset"
        )
    return found
