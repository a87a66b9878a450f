"""Make schedules from rows and from arguments `schedule=`.

`parse` returns a schedule or raises `ScheduleError`, whatever plain SQL wrote into the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache, singledispatch

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule
from beatstore.schedules.cron import Cron
from beatstore.schedules.every import Every
from beatstore.schedules.instants import micros
from beatstore.schedules.once import Once
from beatstore.schedules.rrule import RRule
from beatstore.schedules.solar import Solar
from beatstore.words import nearest

__all__ = ["as_schedule", "parse"]

_LONGEST = 8_192
_COLUMNS = ("kind", "spec", "timezone", "anchor")
_READERS: dict[str, Callable[[str, str | None], Schedule]] = {
    Once.kind: lambda spec, _: Once.parse(spec),
    Cron.kind: Cron.parse,
    Every.kind: lambda spec, _: Every.parse(spec),
    RRule.kind: RRule,
    Solar.kind: lambda spec, _: Solar.parse(spec),
}
_ZONED = (Cron.kind, RRule.kind)
_ANCHORED = (Every.kind, RRule.kind)

_ISO_LIKE = re.compile(r"\s*\d{4}-?\d\d-?\d\d")
_RRULE_LIKE = re.compile(r"\s*(RRULE:|DTSTART|FREQ=)", re.IGNORECASE)


def parse(
    kind: str, spec: str, timezone: str | None = None, anchor: datetime | None = None
) -> Schedule:
    """Return the schedule in a row's columns; equal columns return the same object.

    Args:
        kind: the column `kind`.
        spec: the column `spec`, written by `Schedule.spec` or by hand.
        timezone: the row's time zone, or the default.
        anchor: what `every` and `rrule` count from if the spec names no start.

    Raises:
        ScheduleError: a column is invalid; the error's `field` is "kind", "spec",
            "timezone" or "anchor".
    """
    if not isinstance(kind, str) or kind not in _READERS:
        write = f'"{nearest(kind, _READERS)}"'
        raise ScheduleError("kind", kind, f"one of {', '.join(_READERS)}", write)
    if not isinstance(spec, str) or len(spec) > _LONGEST:
        raise ScheduleError("spec", spec, f"a str of at most {_LONGEST} characters")
    if timezone is not None and not isinstance(timezone, str):
        raise ScheduleError("timezone", timezone, "an IANA time zone name", '"Europe/Berlin"')
    if anchor is not None:
        micros("anchor", anchor)
    return _parse(
        kind,
        spec,
        timezone if kind in _ZONED else None,
        # Rows that differ only in a column their kind ignores share one object.
        anchor if kind in _ANCHORED else None,
    )


@lru_cache(maxsize=4096)
def _parse(kind: str, spec: str, timezone: str | None, anchor: datetime | None) -> Schedule:
    try:
        schedule = _READERS[kind](spec, timezone)
        return schedule if anchor is None else schedule.anchored(anchor)
    except ScheduleError as error:
        if error.field in _COLUMNS:
            raise
        raise ScheduleError("spec", error.given, error.expected, error.write) from error


@singledispatch
def as_schedule(value: object, timezone: str | None = None) -> Schedule:
    """Convert a value to a schedule.

    A `Schedule` is returned as it is; a str is a cron expression; an aware datetime is `Once`;
    a timedelta or a number of seconds is `Every`. Register further types as with any
    `functools.singledispatch` function.

    Args:
        value: the argument `schedule=`.
        timezone: IANA name for a schedule in wall-clock times that names no zone.

    Raises:
        ScheduleError: the value has another type, or is invalid.
    """
    del timezone
    wanted = "a Schedule, a cron expression, an aware datetime, a timedelta or seconds"
    raise ScheduleError("schedule", value, wanted, 'Cron("0 9 * * *")')


@as_schedule.register
def _(value: Schedule, timezone: str | None = None) -> Schedule:
    return value.in_zone(timezone)


@as_schedule.register
def _(value: str, timezone: str | None = None) -> Schedule:
    if _ISO_LIKE.match(value):
        write = "Once(datetime.fromisoformat(...)) with an offset in the text"
        raise ScheduleError("schedule", value, "a cron expression", write)
    if _RRULE_LIKE.match(value):
        raise ScheduleError("schedule", value, "a cron expression", f"RRule({value!r})")
    return Cron.parse(value, timezone)


@as_schedule.register
def _(value: datetime, timezone: str | None = None) -> Schedule:
    del timezone
    return Once(value)


@as_schedule.register(timedelta)
@as_schedule.register(int)
@as_schedule.register(float)
def _(value: float | timedelta, timezone: str | None = None) -> Schedule:
    del timezone
    return Every(value)


# bool is an int to Python; True seconds are not a schedule.
as_schedule.register(bool, as_schedule.dispatch(object))
