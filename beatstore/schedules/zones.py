"""Time zones by name.

The only module that makes `ZoneInfo` objects by name. It accepts only names that IANA defines;
`ZoneInfo()` itself also takes paths such as "right/UTC" and raises four kinds of exceptions for
bad names. zoneinfo reads its files on first use and caches them for the life of the process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from beatstore.errors import ScheduleError

__all__ = ["local_time", "retold", "shown_in", "zone"]

# Names that mean "the setting of this machine", which differs between hosts.
_NOT_ZONES = frozenset({"localtime", "Factory"})
_LONGEST = 64

# An instant in a text that beatstore wrote, such as a reason.
_INSTANT = re.compile(
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
    near = _meant(name.strip().lower().replace(" ", "_"), names)
    write = f'"{near}"' if near else '"Europe/Berlin" or "UTC"'
    raise ScheduleError("timezone", name, "an IANA time zone name", write)


def _meant(given: str, names: Mapping[str, str]) -> str | None:
    """Return the zone that a misspelt name means; None if it may be any.

    An abbreviation such as CEST is like others that are hours away. But a place alone, such as
    Tokyo, is in one zone's name.
    """
    if given in names:
        return names[given]
    if "/" in given:
        return next((names[one] for one in get_close_matches(given, names, n=1)), None)
    # The signs of Etc/GMT+2 and its like are the opposite of what people mean.
    places = {lower: name for lower, name in names.items() if not lower.startswith("etc/")}
    of_place = [name for lower, name in places.items() if given and lower.endswith(f"/{given}")]
    return of_place[0] if len(of_place) == 1 else None


def zone(name: str) -> ZoneInfo:
    """Return the time zone with an IANA name; the same object each time.

    Raises:
        ScheduleError: the zone is unknown; the message suggests the nearest name.
    """
    if not isinstance(name, str) or len(name) > _LONGEST:
        wanted = f"an IANA time zone name of at most {_LONGEST} characters"
        raise ScheduleError("timezone", name, wanted, '"Europe/Berlin" or "UTC"')
    return _load(name)


def local_time(at: datetime, tz: tzinfo) -> datetime:
    """Convert an instant to local time in `tz`.

    East of Greenwich, no datetime can hold the local time of the last hours of the year 9999,
    and west of it, of the first hours of the year 1. Such an instant is returned in UTC.
    """
    try:
        return at.astimezone(tz)
    except OverflowError:
        return at.astimezone(timezone.utc)


def shown_in(at: datetime, tz: tzinfo) -> tuple[datetime, str]:
    """Return the local time of an instant in `tz`, and the offset to print after it.

    The offset, such as "+02:00", is printed in an hour that the clock shows twice, and for an
    instant that `local_time` returns in UTC; elsewhere it is "".
    """
    local = local_time(at, tz)
    twice = local.replace(fold=1 - local.fold).utcoffset() != local.utcoffset()
    if not twice and local.tzinfo is tz:
        return local, ""
    return local, local.replace(microsecond=0).isoformat()[19:]


def retold(text: str, show: Callable[[datetime], str]) -> str:
    """Replace the UTC instants in a text, such as a stored reason, by what `show` returns.

    Args:
        text: a text with instants as `isoformat` writes them, or `2026-01-31 09:00:00 UTC`.
        show: formats an instant.
    """

    def written(found: re.Match[str]) -> str:
        try:
            at = datetime.fromisoformat(f"{found[2]}+00:00")
        except ValueError:  # no such date: not an instant
            return found[0]
        return f"{found[1]} {show(at)}"

    return _INSTANT.sub(written, text)
