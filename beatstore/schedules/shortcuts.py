"""Functions for common schedules."""

from __future__ import annotations

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule
from beatstore.schedules.cron import Cron
from beatstore.schedules.every import Every
from beatstore.schedules.rrule import RRule

__all__ = ["daily", "hourly", "minutely", "monthly", "weekly"]

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORTEST_MONTH = 28
_ABBREVIATION = 3


def daily(hour: int, minute: int = 0, *, timezone: str | None = None) -> Cron:
    """Return a schedule due every day at hour:minute by the wall clock."""
    return Cron(f"{_minute(minute)} {_hour(hour)} * * *", timezone)


def weekly(day: str | int, hour: int, minute: int = 0, *, timezone: str | None = None) -> Cron:
    """Return a schedule due once a week at hour:minute by the wall clock.

    Args:
        day: "mon" or "monday" and so on; or 0 for Monday to 6 for Sunday, as
            `datetime.weekday` counts (cron counts from Sunday).
        hour: 0 to 23.
        minute: 0 to 59.
        timezone: IANA name; None means the caller's default.
    """
    return Cron(f"{_minute(minute)} {_hour(hour)} * * {_weekday(day)}", timezone)


def monthly(day: int, hour: int, minute: int = 0, *, timezone: str | None = None) -> Schedule:
    """Return a schedule due once in every month at hour:minute by the wall clock.

    Args:
        day: 1 to 31; in a shorter month, its last day.
        hour: 0 to 23.
        minute: 0 to 59.
        timezone: IANA name; None means the caller's default.
    """
    _number("day", day, 1, 31)
    if day <= _SHORTEST_MONTH:
        return Cron(f"{_minute(minute)} {_hour(hour)} {day} * *", timezone)
    # Cron can't express it: the last of the days 28 to `day` that the month has.
    days = ",".join(map(str, range(_SHORTEST_MONTH, day + 1)))
    time = f"BYHOUR={_hour(hour)};BYMINUTE={_minute(minute)};BYSECOND=0"
    return RRule(f"FREQ=MONTHLY;BYMONTHDAY={days};BYSETPOS=-1;{time}", timezone)


def hourly(every: int = 1) -> Every:
    """Return a schedule due every `every` hours of elapsed time."""
    return Every(_number("every", every, 1, 8_760) * 3_600)


def minutely(every: int = 1) -> Every:
    """Return a schedule due every `every` minutes of elapsed time."""
    return Every(_number("every", every, 1, 525_600) * 60)


def _hour(value: int) -> int:
    return _number("hour", value, 0, 23)


def _minute(value: int) -> int:
    return _number("minute", value, 0, 59)


def _number(field: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ScheduleError(field, value, f"an int from {low} to {high}", str(low))
    return value


def _weekday(day: str | int) -> str:
    """Return cron's name for a weekday."""
    if isinstance(day, str):
        for name in _WEEKDAYS:
            if day.lower() in (name, name[:_ABBREVIATION]):
                return name[:_ABBREVIATION]
    elif isinstance(day, int) and not isinstance(day, bool) and 0 <= day < len(_WEEKDAYS):
        return _WEEKDAYS[day][:_ABBREVIATION]
    wanted = "a weekday's name, or 0 for Monday to 6 for Sunday"
    raise ScheduleError("day", day, wanted, '"mon"')
