"""Time zones by name.

The only door to `zoneinfo`: a name that is accepted here is one that IANA defines.
`ZoneInfo()` itself also takes paths such as "right/UTC" and raises four kinds of
exceptions on bad names. zoneinfo reads its files on first use and keeps what it read
for the life of the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from beatstore.errors import ScheduleError

__all__ = ["local_time", "retold", "shown_in", "zone"]

# Names that mean "whatever this machine is set to", which no two hosts agree on.
_NOT_ZONES = frozenset({"localtime", "Factory"})
_LONGEST = 64

# An instant in a text of ours, such as a reason; what others wrote seldom has these words.
_TOLD = re.compile(
    r"\b(at|due|from|since) (\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?)(?:\+00:00| UTC)"
)


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


def shown_in(at: datetime, tz: tzinfo) -> tuple[datetime, str]:
    """Return an instant as the clock in `tz` shows it, and the offset to write behind it.

    The offset, such as "+02:00", is for an hour that the clock shows twice, and for an instant
    that `local_time` returns in UTC instead; elsewhere it is "".
    """
    local = local_time(at, tz)
    twice = local.replace(fold=1 - local.fold).utcoffset() != local.utcoffset()
    if not twice and local.tzinfo is tz:
        return local, ""
    return local, local.replace(microsecond=0).isoformat()[19:]


def retold(text: str, show: Callable[[datetime], str]) -> str:
    """Return a text with its instants as `show` writes them.

    What is stored, a reason for one, says instants in UTC; it is read in some zone.

    Args:
        text: has instants of UTC, as `isoformat` writes them or `2026-01-31 09:00:00 UTC`.
        show: writes an instant.
    """

    def written(found: re.Match[str]) -> str:
        try:
            at = datetime.fromisoformat(f"{found[2]}+00:00")
        except ValueError:  # no such day: somebody else's words
            return found[0]
        return f"{found[1]} {show(at)}"

    return _TOLD.sub(written, text)
