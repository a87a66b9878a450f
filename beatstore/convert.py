"""Between celery's schedules and beatstore's.

Outwards: what a monitoring package is shown of an entry. Inwards: importing this module
teaches `as_schedule`, and with it `Store.add`, celery's own schedule classes. Each is
carried exactly or refused with the reason.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import Any, cast
from zoneinfo import ZoneInfo

from celery.schedules import BaseSchedule, crontab, schedule, solar

from beatstore.errors import ScheduleError
from beatstore.schedules import Cron, Every, Schedule, Solar, as_schedule

__all__ = ["celery_schedule"]

_CRONTAB_FIELDS = 5

#: The intervals that, counted from the clock (`relative`), are also a cron expression.
_RELATIVE = {
    timedelta(minutes=1): "* * * * *",
    timedelta(hours=1): "0 * * * *",
    timedelta(days=1): "0 0 * * *",
}


@lru_cache(maxsize=4096)
def celery_schedule(kind: str, spec: str, timezone: str | None) -> BaseSchedule:
    """Return the celery schedule nearest to an entry's own, for hooks to look at.

    A `crontab` for five plain fields and a `schedule` for an interval, since monitors
    are made of those. Anything else is a plain `BaseSchedule`, of which none is made.
    """
    try:
        return _shown(kind, spec, timezone)
    except Exception:  # noqa: BLE001  (a row edited by hand must not hold up the others)
        return BaseSchedule()


def _shown(kind: str, spec: str, timezone: str | None) -> BaseSchedule:
    # celery would take mon#2, the second Monday, for every Monday.
    if kind == "cron" and len(spec.split()) == _CRONTAB_FIELDS and "#" not in spec:
        minute, hour, day_of_month, month_of_year, day_of_week = spec.split()
        shown: Any = crontab(
            minute=minute,
            hour=hour,
            day_of_month=day_of_month,
            month_of_year=month_of_year,
            day_of_week=day_of_week,
        )
        if timezone:
            shown.tz = ZoneInfo(timezone)
        return cast(BaseSchedule, shown)
    if kind == "every":
        return schedule(float(spec.split(maxsplit=1)[0]))
    return BaseSchedule()


@as_schedule.register(crontab)
def _from_crontab(value: Any, timezone: str | None = None) -> Schedule:
    """Write a crontab as the expression with the same meaning.

    From the sets celery expanded, since its text has readings of its own; only `*` and
    `*/n` are kept as text. celery asks for both day fields at once, cron for either.
    """
    _refuse_subclass(value, crontab)
    sets: list[tuple[Any, set[int], int]] = [
        (value._orig_minute, value.minute, 60),
        (value._orig_hour, value.hour, 24),
        (value._orig_day_of_month, value.day_of_month, 31),
        (value._orig_month_of_year, value.month_of_year, 12),
        (value._orig_day_of_week, value.day_of_week, 7),
    ]
    fields = [_field(value, *one) for one in sets]
    either = fields[2].startswith("*") or fields[4].startswith("*")
    return Cron(" ".join(fields), _zone_of(value) or timezone, day_or=either)


@as_schedule.register(schedule)
def _from_interval(value: Any, timezone: str | None = None) -> Schedule:
    """Carry an interval; one counted from the clock (`relative`) only where cron has it."""
    _refuse_subclass(value, schedule)
    if not value.relative:
        return Every(value.run_every)
    expression = _RELATIVE.get(value.run_every)
    if expression is None:
        raise ScheduleError(
            "schedule",
            value,
            "an interval without relative=True",
            f"Every({value.run_every.total_seconds():g}), or a cron expression",
        )
    return Cron(expression, timezone)


@as_schedule.register(solar)
def _from_solar(value: solar, timezone: str | None = None) -> Schedule:
    """Carry an event of the sun."""
    return Solar(value.event, value.lat, value.lon)


def _field(value: crontab, original: Any, members: set[int], full: int) -> str:
    if not all(isinstance(member, int) for member in members):
        raise ScheduleError("schedule", value, "whole numbers in every field", "5 for 5.5")
    if len(members) == full:
        return "*"
    text = str(original)
    if text.startswith("*/") and text[2:].isdigit():
        return text
    return ",".join(str(member) for member in sorted(members))


def _zone_of(value: Any) -> str | None:
    """Return the zone that a schedule was given, itself or by its app."""
    if "tz" in vars(value) or value._app is not None:
        key = getattr(value.tz, "key", None) or getattr(value.tz, "zone", None)
        if key is None:
            raise ScheduleError("timezone", value.tz, "a zone with a name", "timezone='UTC'")
        return str(key)
    return None


def _refuse_subclass(value: Any, known: type[BaseSchedule]) -> None:
    if type(value).is_due is not known.is_due or value.nowfun is not None:
        raise ScheduleError(
            "schedule",
            value,
            f"a {known.__name__} with celery's own is_due and clock",
            "a schedule of beatstore's",
        )
