"""Schedules in plain English.

A sentence says all that a schedule means; where there is none that is short, the words are the
spec itself. `timewords` has times of day, `daywords` days, `rulewords` recurrence rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from beatstore.schedules.base import Schedule
from beatstore.schedules.cron import Cron, fields_of
from beatstore.schedules.crontext import CronFields
from beatstore.schedules.daywords import DayRule, days_in_words, sentence
from beatstore.schedules.every import Every, origin_of, period_in_words
from beatstore.schedules.instants import DAY
from beatstore.schedules.once import Once
from beatstore.schedules.rrule import RRule
from beatstore.schedules.rulewords import moment_in_words, rule_in_words
from beatstore.schedules.solar import Solar
from beatstore.schedules.timewords import joined, listed, step_of, times_in_words

__all__ = ["describe"]

_LONGEST = 160
_MONTHS, _DATES, _WEEK = 12, 31, 7
_SOME = 6  # years that are listed one by one
_PLURALS = 999  # the most of one unit in "every 90 seconds"
_UNITS = ((DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def describe(schedule: Schedule) -> str:
    """Return a schedule in English: "Monday to Friday at 09:00", "every 90 seconds".

    Equal words of schedules in one zone mean equal due times, unless they count what they leave
    out: a long list is shortened to its length, as in "at 37 minutes of every hour". Where no
    short sentence says all, the words are the spec. They have at most 160 characters, of
    which the last is "…" if the spec is longer. The zone is not in the words: instants are in
    UTC and say so, and other times are those of `schedule.timezone`.

    Without an anchor, words do not say from when `Every` and `RRule` count; `parse` and
    `Schedule.anchored` set the one of an entry.

    Args:
        schedule: any schedule. Those of classes other than beatstore's are shown by their spec.
    """
    for exact in (True, False):
        words = _in_words(schedule, exact=exact)
        if words is not None and len(words) <= _LONGEST:
            return words
    spec = " ".join(schedule.spec.split())
    return spec if len(spec) <= _LONGEST else f"{spec[: _LONGEST - 1]}…"


def _in_words(schedule: Schedule, *, exact: bool) -> str | None:
    if isinstance(schedule, Cron):
        return _cron(fields_of(schedule), exact=exact)
    if isinstance(schedule, RRule):
        return rule_in_words(schedule, exact=exact)
    if isinstance(schedule, Every):
        return _every(schedule)
    if isinstance(schedule, Once):
        return f"once at {moment_in_words(schedule.at)} UTC"
    return _solar(schedule) if isinstance(schedule, Solar) else None


def _cron(fields: CronFields, *, exact: bool) -> str:
    times = times_in_words(
        fields.hours, fields.minutes, fields.seconds, once=fields.once, exact=exact
    )
    said = sentence(days_in_words(_cron_days(fields), exact=exact), times)
    return said if fields.years is None else f"{said}, {_years(fields.years, exact=exact)}"


def _cron_days(fields: CronFields) -> DayRule:
    """Return the days of a cron expression, without a day field that allows all days."""
    dates = [*sorted(fields.days), *[-1] * fields.last_day]
    nth = frozenset(
        (-1 if isinstance(which, str) else which, (day - 1) % _WEEK)
        for day, numbers in fields.nth.items()
        for which in numbers
    )
    weekdays = nth or frozenset((0, (day - 1) % _WEEK) for day in fields.weekdays)
    all_dates = fields.nearest_weekday is None and len(fields.days) == _DATES
    all_weekdays = not nth and len(weekdays) == _WEEK
    months = frozenset() if len(fields.months) == _MONTHS else fields.months
    if fields.union and (all_dates or all_weekdays):
        return DayRule(months=months)
    return DayRule(
        months=months,
        dates=() if all_dates or fields.nearest_weekday is not None else dates,
        nearest=fields.nearest_weekday,
        weekdays=frozenset() if all_weekdays else weekdays,
        either=fields.union,
    )


def _years(years: Sequence[int], *, exact: bool) -> str:
    step = step_of(years)
    if step == 1:
        return f"from {years[0]} to {years[-1]}"
    if step and len(years) > _SOME:
        return f"every {step} years from {years[0]} to {years[-1]}"
    if exact or len(years) <= _SOME:
        return f"in {joined(listed(years))}"
    return f"in {len(years)} years from {years[0]} to {years[-1]}"


def _every(schedule: Every) -> str:
    origin = origin_of(schedule)
    since = "" if origin is None else f" since {moment_in_words(origin)} UTC"
    seconds = schedule.seconds
    if isinstance(seconds, int):
        for size, unit in _UNITS:
            count = seconds // size
            if seconds % size == 0 and not (size == DAY and count == 1) and count <= _PLURALS:
                return f"every {unit if count == 1 else f'{count} {unit}s'}{since}"
    elif seconds <= _PLURALS:
        return f"every {Every(seconds).spec} seconds{since}"
    return f"every {period_in_words(Every(seconds).spec)}{since}"


def _solar(schedule: Solar) -> str:
    kind, _, sort = schedule.event.partition("_")
    names = {"solar": "solar noon"}
    event = names.get(kind, f"{sort} {kind}" if sort else kind)
    north = f"{_degrees(schedule.lat)}° {'S' if schedule.lat < 0 else 'N'}"
    east = f"{_degrees(schedule.lon)}° {'W' if schedule.lon < 0 else 'E'}"
    return f"at {event} in {north}, {east}"


def _degrees(given: float) -> str:
    """Return degrees with two decimals, or with those that they have, up to six."""
    whole, _, decimals = f"{abs(given):.6f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
