"""Instants and wall-clock times as whole numbers.

This package computes with integers: an instant is a number of microseconds (or seconds) of UTC,
and a wall-clock time is a number of seconds. Both count from the day before 0001-01-01, so that
`seconds // DAY` equals `date.toordinal()`. Integers neither drift nor overflow; only `instant`
checks the ends of the calendar, and returns None beyond them.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import TypeGuard

from beatstore.errors import ScheduleError

__all__ = [
    "DAY",
    "EPOCH",
    "FIRST_DAY",
    "LAST_DAY",
    "SECOND",
    "UTC",
    "face",
    "instant",
    "is_span",
    "micros",
]

SECOND = 1_000_000  # microseconds
DAY = 86_400  # seconds
FIRST_DAY = date.min.toordinal()
LAST_DAY = date.max.toordinal()
UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ZERO = datetime(1, 1, 1, tzinfo=UTC)
_ZERO_MICROS = FIRST_DAY * DAY * SECOND
_MICRO = timedelta(microseconds=1)

#: About thirty years. A longer span is a mistake, and could exceed the range of dates.
_LONGEST_SPAN_S = 1e9


def face(wall: datetime) -> int:
    """Return a wall-clock time in seconds, ignoring its zone."""
    return wall.toordinal() * DAY + wall.hour * 3600 + wall.minute * 60 + wall.second


def micros(name: str, t: datetime) -> int:
    """Return the instant `t` in microseconds.

    Args:
        name: the name of the argument, for the error.
        t: an aware datetime in any zone.

    Raises:
        ScheduleError: `t` is naive, or not a datetime.
    """
    offset = t.utcoffset() if isinstance(t, datetime) else None
    if offset is None:
        raise ScheduleError(name, t, "an aware datetime", _aware_form(t))
    count = face(t) * SECOND + t.microsecond
    return count - offset // _MICRO if offset else count


def instant(count: int) -> datetime | None:
    """Return the instant in UTC, or None outside the years 1 to 9999."""
    try:
        return _ZERO + timedelta(microseconds=count - _ZERO_MICROS)
    except OverflowError:
        return None


def is_span(seconds: object) -> TypeGuard[float]:
    """Return True for a number of seconds that a row may hold: 0 or more, and not too many."""
    return isinstance(seconds, (int, float)) and 0 <= seconds < _LONGEST_SPAN_S


def _aware_form(t: object) -> str:
    if isinstance(t, datetime) and t.tzinfo is None:
        return f"{repr(t)[:-1]}, tzinfo=timezone.utc)"
    return "datetime(2026, 1, 31, 9, 0, tzinfo=timezone.utc)"
