"""Time zones by name.

The only door to `zoneinfo`: a name that is accepted here is one that IANA defines.
`ZoneInfo()` itself also takes paths such as "right/UTC" and raises four kinds of
exceptions on bad names. zoneinfo reads its files on first use and keeps what it read
for the life of the process.
"""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from beatstore.errors import ScheduleError

__all__ = ["local_time", "zone"]

# Names that mean "whatever this machine is set to", which no two hosts agree on.
_NOT_ZONES = frozenset({"localtime", "Factory"})
_LONGEST = 64


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Return the accepted names, by their lower-case form."""
    return {name.lower(): name for name in available_timezones() - _NOT_ZONES}


@lru_cache(maxsize=1024)
def _load(name: str) -> ZoneInfo:
    names = _names()
    if names.get(name.lower()) == name:
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, KeyError) as error:
            wanted = "a zone whose data can be read"
            raise ScheduleError("timezone", name, wanted, '"UTC", or repair tzdata') from error
    near = get_close_matches(name.lower(), names, n=1)
    write = f'"{names[near[0]]}"' if near else '"Europe/Berlin" or "UTC"'
    raise ScheduleError("timezone", name, "an IANA time zone name", write)


def zone(name: str) -> ZoneInfo:
    """Return the zone of that IANA name; the same object each time.

    Raises:
        ScheduleError: there is no such zone; the message suggests the nearest.
    """
    if not isinstance(name, str) or len(name) > _LONGEST:
        wanted = f"an IANA time zone name of at most {_LONGEST} characters"
        raise ScheduleError("timezone", name, wanted, '"Europe/Berlin" or "UTC"')
    return _load(name)


def local_time(at: datetime, tz: tzinfo) -> datetime:
    """Return an instant as the clock in `tz` shows it.

    East of Greenwich the last hours of the year 9999 have no local time that a datetime can
    hold, and west of it the first ones of the year 1: such an instant is returned in UTC.
    """
    try:
        return at.astimezone(tz)
    except OverflowError:
        return at.astimezone(timezone.utc)
