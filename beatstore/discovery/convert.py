"""Convert between celery's schedules and beatstore's.

`celery_schedule` makes a celery schedule for monitoring packages. Importing this module registers
celery's schedule classes with `as_schedule`, and so with `Store.add`. Each is converted exactly,
or refused with the reason.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast
from zoneinfo import ZoneInfo

from celery.schedules import BaseSchedule, crontab, crontab_parser, schedule, solar

from beatstore.definition.identity import form, identity
from beatstore.errors import NoIdentityError, ScheduleError
from beatstore.schedules import Cron, Every, RRule, Schedule, Solar, as_schedule, zone
from beatstore.schedules.crontext import read_cron

__all__ = ["celery_schedule", "clock_interval", "own_zone", "zone_name"]

_CRONTAB_FIELDS = 5

#: The units that celery rounds a relative interval to, with their cron expressions.
_UNITS = (
    (timedelta(days=1), "0 0 * * *"),
    (timedelta(hours=1), "0 * * * *"),
    (timedelta(minutes=1), "* * * * *"),
    (timedelta(seconds=1), None),
)

#: The start of such intervals, in their zone; any midnight works.
_FROM = datetime(2024, 1, 1)  # noqa: DTZ001  (wall-clock time)

#: The methods that compute due times; a class that overrides one can't be stored.
_RULE = ("is_due", "remaining_estimate", "remaining_delta", "now", "maybe_make_aware", "to_local")


@lru_cache(maxsize=4096)
def celery_schedule(kind: str, spec: str, timezone: str | None) -> BaseSchedule:
    """Return the celery schedule closest to an entry's own, for hooks of monitoring packages.

    These packages make monitors from the text of a `crontab`, and from a `schedule`. So a cron
    expression with five fields becomes a crontab that celery and monitors read alike: without 7
    for Sunday, ranges across the end of a week, aliases, or seconds. An interval becomes a
    `schedule`, and an event of the sun a `solar`. Anything else, such as L, #, W, years and
    several seconds, becomes a plain `BaseSchedule`, which gets no monitor.
    """
    try:
        return _shown(kind, spec, timezone)
    except Exception:  # noqa: BLE001  (a row edited by hand must not stop the others)
        return BaseSchedule()


def _shown(kind: str, spec: str, timezone: str | None) -> BaseSchedule:
    if kind == "cron":
        fields = _crontab_fields(Cron.parse(spec))
        if fields is not None:
            shown: Any = crontab(*fields)
            if timezone:
                shown.tz = ZoneInfo(timezone)
            return cast(BaseSchedule, shown)
    elif kind == "every":
        return schedule(float(spec.split(maxsplit=1)[0]))
    elif kind == "solar":
        event, lat, lon = spec.split()
        return solar(cast(Any, event), float(lat), float(lon))
    return BaseSchedule()


def _crontab_fields(cron: Cron) -> list[str] | None:
    """Return the crontab arguments of a cron expression; None if five fields can't express it."""
    parsed = read_cron(cron.expression, day_or=cron.day_or)
    texts = cron.expression.lower().split()[:_CRONTAB_FIELDS]
    texts = texts if len(texts) == _CRONTAB_FIELDS else [""] * _CRONTAB_FIELDS  # an alias
    minute, hour, day, month, weekday = (
        _plain(text, *one)
        for text, one in zip(
            texts,
            (
                (parsed.minutes, 0, 59),
                (parsed.hours, 0, 23),
                (parsed.days, 1, 31),
                (parsed.months, 1, 12),
                (parsed.weekdays, 0, 6),
            ),
            strict=True,
        )
    )
    if parsed.last_day or parsed.nearest_weekday or parsed.nth or parsed.years is not None:
        return None
    if len(parsed.seconds) > 1:
        return None
    if "*" in (day, weekday) and parsed.union:
        day = weekday = "*"  # every day matches
    if not (parsed.union or day.startswith("*") or weekday.startswith("*")):
        return None  # both must match, but monitors would accept either
    # celery's arguments have another order.
    return [minute, hour, weekday, day, month]


def _plain(text: str, members: Collection[int], low: int, high: int) -> str:
    """Return the text of a field if celery and monitors read it alike, else its numbers."""
    if len(members) > high - low:
        return "*"
    parser = crontab_parser(high - low + 1, low)
    with suppress(ValueError, crontab_parser.ParseException):
        alike = parser.parse(text) == {*members}
        bounds = (part.split("-") for part in text.split(",") if "-" in part)
        if alike and all(
            "/" not in to and max(parser.parse(first)) < min(parser.parse(to))
            for first, to in bounds
        ):
            return text
    return ",".join(map(str, sorted(members)))


@as_schedule.register(crontab)
def _from_crontab(value: Any, timezone: str | None = None) -> Schedule:
    """Convert a crontab to the cron expression with the same meaning.

    Use the sets that celery expanded, since celery reads some texts differently; keep only `*`
    and `*/n`. celery requires both day fields to match, cron either.
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
    return Cron(" ".join(fields), own_zone(value) or timezone, day_or=either)


@as_schedule.register(schedule)
def _from_interval(value: Any, timezone: str | None = None) -> Schedule:
    """Convert an interval; for `relative`, apply celery's rounding."""
    _refuse_subclass(value, schedule)
    if not value.relative:
        return Every(value.run_every)
    return clock_interval(value.run_every, own_zone(value) or timezone)


@lru_cache(maxsize=1024)
def clock_interval(every: timedelta, timezone: str | None) -> Schedule:
    """Return the schedule of an interval with `relative=True`.

    celery adds the interval to the last run, and rounds the result down to the largest unit
    (day, hour, minute or second) within the interval. This rounds the interval too: every 90
    minutes is every hour. celery does not define from when every third hour counts; here it
    counts from a midnight in 2024, so a restart does not move it.

    Args:
        every: the interval.
        timezone: its time zone; None if it is unknown.

    Raises:
        ScheduleError: the interval is less than a second; or it has hours, and the zone is
            unknown or changes by part of an hour.
    """
    unit, expression = next((one for one in _UNITS if every >= one[0]), (None, None))
    if unit is None:
        raise ScheduleError("schedule", every, "a second or more with relative=True", "Every(…)")
    count = every // unit
    if count == 1 and expression is not None:
        return Cron(expression, timezone)
    if unit == timedelta(days=1):
        return RRule(f"DTSTART:{_FROM:%Y%m%dT%H%M%S} RRULE:FREQ=DAILY;INTERVAL={count}", timezone)
    if unit == timedelta(hours=1) and (timezone is None or not _by_the_hour(timezone)):
        expected = (
            "no hours with relative=True, since the time zone is unknown"
            if timezone is None
            else f"no hours with relative=True, as {timezone} changes by part of an hour"
        )
        raise ScheduleError("schedule", every, expected, f"Every({count * 3600}, anchor=…)")
    return Every(count * unit, anchor=_FROM.replace(tzinfo=zone(timezone or "UTC")))


@lru_cache(maxsize=64)
def _by_the_hour(timezone: str) -> bool:
    """Return True if all clock changes of a zone are by whole hours."""
    tz = zone(timezone)
    weeks = (_FROM.replace(tzinfo=tz) + timedelta(weeks=week) for week in range(53 * 14))
    return len({(week.utcoffset() or timedelta()) % timedelta(hours=1) for week in weeks}) == 1


@as_schedule.register(solar)
def _from_solar(value: solar, timezone: str | None = None) -> Schedule:
    """Convert an event of the sun."""
    _refuse_subclass(value, solar)
    return Solar(value.event, value.lat, value.lon)


def _field(value: crontab, original: Any, members: set[int], full: int) -> str:
    if not all(isinstance(member, int) for member in members):
        raise ScheduleError("schedule", value, "whole numbers in every field", "5 for 5.5")
    if len(members) == full:
        return "*"
    text = str(original)
    if text.startswith("*/") and text[2:].isdigit():
        # A longer step means the same as the longest, which `Cron` accepts.
        return f"*/{min(int(text[2:]), full)}"
    return ",".join(str(member) for member in sorted(members))


def own_zone(value: Any) -> str | None:
    """Return the time zone of a celery schedule or of its app, or None."""
    given = "tz" in vars(value) or getattr(value, "_app", None) is not None
    if given or type(value).tz is not BaseSchedule.tz:
        return zone_name(value.tz)
    return None


def zone_name(tz: Any) -> str:
    """Return the IANA name of a zone object.

    Raises:
        ScheduleError: the zone has no name.
    """
    key = getattr(tz, "key", None) or getattr(tz, "zone", None)
    if key is None and str(tz) == "UTC":
        key = "UTC"
    if key is None:
        raise ScheduleError("timezone", tz, "a zone with a name", "timezone='UTC'")
    return str(key)


@as_schedule.register(BaseSchedule)
def _refuse_unknown(value: Any, timezone: str | None = None) -> Schedule:
    """Refuse other schedule classes, whose rule is code."""
    del timezone
    raise _custom_rule(value, "celery's crontab, schedule or solar")


def _refuse_subclass(value: Any, known: type[BaseSchedule]) -> None:
    changed = any(getattr(type(value), one, None) is not getattr(known, one, None) for one in _RULE)
    if changed or value.nowfun is not None:
        raise _custom_rule(value, f"a {known.__name__} with celery's own is_due and clock")


def _custom_rule(value: Any, expected: str) -> ScheduleError:
    return ScheduleError(
        "schedule", value, expected, "a schedule of beatstore, such as Cron or Every"
    )


# Identities of celery's schedules without parsing them, for `Store.sync`.


@identity.register(crontab)
def _crontab_identity(value: Any) -> object:
    _check_no_subclass(value, crontab)
    fields = (value._orig_minute, value._orig_hour, value._orig_day_of_month)
    dates = (value._orig_month_of_year, value._orig_day_of_week)
    return form((*fields, *dates, _zone_identity(value)))


@identity.register(schedule)
def _interval_identity(value: Any) -> object:
    _check_no_subclass(value, schedule)
    return form((value.run_every, value.relative, _zone_identity(value)))


@identity.register(solar)
def _solar_identity(value: Any) -> object:
    _check_no_subclass(value, solar)
    return form((value.event, value.lat, value.lon))


def _check_no_subclass(value: Any, known: type[BaseSchedule]) -> None:
    if value.nowfun is not None or type(value) is not known:
        raise NoIdentityError


def _zone_identity(value: Any) -> str | None:
    try:
        return own_zone(value)
    except ScheduleError:
        raise NoIdentityError from None
