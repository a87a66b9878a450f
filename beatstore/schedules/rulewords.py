"""Recurrence rules in English, for `describe`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from beatstore.schedules.daywords import (
    WEEKDAYS,
    DayRule,
    days_in_words,
    in_months,
    of_months,
    sentence,
    with_times,
)
from beatstore.schedules.instants import DAY
from beatstore.schedules.rrule import RRule, parts_of
from beatstore.schedules.rruleset import Begin, follow_the_clock
from beatstore.schedules.rruletext import Moment, Rule
from beatstore.schedules.rruletimes import settled
from beatstore.schedules.timewords import ONCE, joined, ordinal, times_in_words

__all__ = ["moment_in_words", "rule_in_words"]

_UNITS = {
    "YEARLY": "year",
    "MONTHLY": "month",
    "WEEKLY": "week",
    "DAILY": "day",
    "HOURLY": "hour",
    "MINUTELY": "minute",
    "SECONDLY": "second",
}
_BY_CLOCK = ("HOURLY", "MINUTELY", "SECONDLY")
_CALENDAR = ("MONTHLY", "YEARLY")
_EVERY_WEEKDAY = frozenset((0, day) for day in range(7))
_WORKING = frozenset((0, day) for day in range(5))
_YEAR, _HOURS, _MINUTES = 12, 24, 60
_FEW, _MOST = 2, 9  # dates that are named in a text that is to be short, and in any text


def rule_in_words(schedule: RRule, *, exact: bool) -> str | None:
    """Return a recurrence in words; None if there is no sentence for it.

    Args:
        schedule: the recurrence.
        exact: False shortens long lists to their length.
    """
    recurrence, begin = parts_of(schedule)
    zone = schedule.timezone or "UTC"
    once = not follow_the_clock(recurrence.rules)
    rules = [settled(rule, begin.wall) for rule in recurrence.rules]
    said = [_one_rule(rule, begin, once=once, exact=exact) for rule in rules]
    start = _start(rules, begin)
    single = len(rules) == 1
    parts = []
    for rule, words in zip(rules, said, strict=True):
        if words is None:
            return None
        parts.append(words + start * single + _end(rule, zone))
    text = "; and ".join(parts) + f"; {start[2:]}" * (bool(start) and not single)
    if recurrence.added:
        text += ", and " if parts else ""
        text += f"on {_dates(recurrence.added, zone, exact=exact)}"
    if recurrence.excluded:
        text += f", except {_dates(recurrence.excluded, zone, exact=exact)}"
    return text


def moment_in_words(wall: datetime) -> str:
    """Return a date and time, without its zone, and without seconds that are zero."""
    detail = "microseconds" if wall.microsecond else "seconds" if wall.second else "minutes"
    return wall.replace(tzinfo=None).isoformat(" ", detail)


def _one_rule(rule: Rule, begin: Begin, *, once: bool, exact: bool) -> str | None:
    """Return a settled rule in words, without its start and its end."""
    days = _day_rule(rule)
    if days.dates and days.year_days:
        return None
    hours, minutes, seconds = (rule.by[name] for name in ("BYHOUR", "BYMINUTE", "BYSECOND"))
    if rule.interval > 1 and rule.freq in _BY_CLOCK:
        said = _by_clock(rule, begin)
        only = _only(days_in_words(days, exact=exact)) * _filters(days)
        return None if said is None else said + only + _weeks(rule, days) + ONCE * once
    if "BYSETPOS" in rule.by and len(hours) * len(minutes) * len(seconds) > 1:
        return None
    said = _days(rule, days, exact=exact)
    if said is None:
        return None
    times = times_in_words(hours, minutes, seconds, once=once, exact=exact)
    if rule.interval == 1:
        return sentence(said, times)
    said = f"every {rule.interval:,} {_UNITS[rule.freq]}s{said}"
    return with_times(said, times) if times.one_by_one else f"{times.text}, {said}"


def _days(rule: Rule, days: DayRule, *, exact: bool) -> str | None:
    """Return the days in words; those of an interval are to follow "every 2 weeks"."""
    weeks = _weeks(rule, days)
    if "BYSETPOS" in rule.by:
        return None if weeks else _picked(rule, days, exact=exact)
    said = days_in_words(days, exact=exact) + weeks
    if rule.interval == 1:
        return said
    plain = any(not nth for nth, _ in days.weekdays)
    if rule.freq == "DAILY" and not _filters(replace(days, months=frozenset())):
        return in_months(days.months)
    if rule.freq == "WEEKLY" and days == DayRule(weekdays=days.weekdays) and plain:
        return f", {said}" if " to " in said else f" on {said.removeprefix('every ')}"
    if rule.freq in _CALENDAR and _filters(replace(days, months=frozenset())) and not plain:
        month = "" if rule.freq == "MONTHLY" else "of every month"
        return f" {days_in_words(days, exact=exact, month=month)}{weeks}"
    return _only(said) if _filters(days) else f", {said}"


def _only(days: str) -> str:
    return f", only {'on ' * days.startswith('every ')}{days}"


def _day_rule(rule: Rule) -> DayRule:
    months, weekdays = _by(rule, "BYMONTH"), frozenset(rule.byday)
    return DayRule(
        months=frozenset() if len(months) == _YEAR else frozenset(months),
        dates=_by(rule, "BYMONTHDAY"),
        weekdays=frozenset() if weekdays >= _EVERY_WEEKDAY else weekdays,
        year_days=_by(rule, "BYYEARDAY"),
        weeks=_by(rule, "BYWEEKNO"),
        # BYDAY=2MO means the second Monday of the year only without BYMONTH.
        of_year=rule.freq == "YEARLY" and "BYMONTH" not in rule.by and bool(weekdays),
    )


def _by(rule: Rule, name: str) -> Sequence[int]:
    return tuple(rule.by.get(name, ()))


def _filters(days: DayRule) -> bool:
    """Return whether not all days are allowed."""
    return replace(days, of_year=False) != DayRule()


def _weeks(rule: Rule, days: DayRule) -> str:
    """Return on which day weeks start, where that matters and is unusual."""
    by_week = rule.freq == "WEEKLY" and (rule.interval > 1 or "BYSETPOS" in rule.by)
    matters = rule.week_start != 0 and (by_week or bool(days.weeks))
    return f", weeks from {WEEKDAYS[rule.week_start]}" * matters


def _picked(rule: Rule, days: DayRule, *, exact: bool) -> str | None:
    """Return the days that BYSETPOS picks from each period; each has one time."""
    cut = rule.freq in ("WEEKLY", "YEARLY") and days.months
    if rule.freq == "DAILY" or cut or (rule.interval > 1 and rule.freq != "MONTHLY"):
        return None
    month = f"of every {_UNITS[rule.freq]}" if rule.interval == 1 else ""
    which = joined([ordinal(at) for at in sorted(rule.by["BYSETPOS"], key=lambda at: (at < 0, at))])
    rest = replace(days, months=frozenset(), of_year=False)
    if rest == DayRule(dates=days.dates) and days.dates and rule.freq == "MONTHLY":
        dates = days_in_words(days, exact=exact, month=month).replace(" that has it", "")
        said = f"on the {which} of {dates.removeprefix('on ')}"
    elif rest == DayRule(weekdays=days.weekdays) and all(not nth for nth, _ in days.weekdays):
        names = [WEEKDAYS[day] for _, day in sorted(days.weekdays)] or ["day"]
        noun = "working day" if days.weekdays == _WORKING else joined(names, "or")
        within = of_months(days.months) or month
        said = f"on the {which} {noun} {within}".rstrip()
    else:
        return None
    return said if rule.interval == 1 else f" {said}"


def _by_clock(rule: Rule, begin: Begin) -> str | None:
    """Return a rule of each INTERVAL-th hour, minute or second, without its days."""
    hours, minutes, seconds = (rule.by[name] for name in ("BYHOUR", "BYMINUTE", "BYSECOND"))
    minute, second = begin.wall // 60 % 60, begin.wall % 60
    usual = {
        "HOURLY": len(minutes) == 1 and tuple(seconds) == (second,),
        "MINUTELY": len(minutes) == _MINUTES and tuple(seconds) == (second,),
        "SECONDLY": len(minutes) == len(seconds) == _MINUTES,
    }
    if not usual[rule.freq] or hours[-1] - hours[0] >= len(hours):
        return None
    said = f"every {rule.interval:,} {_UNITS[rule.freq]}s"
    if rule.freq == "HOURLY" and minutes[0] != minute:
        said += f" at {minutes[0]} minute{'s' * (minutes[0] != 1)} past the hour"
    if len(hours) < _HOURS:
        said += f", only from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return said


def _start(rules: Sequence[Rule], begin: Begin) -> str:
    """Return the start, where it is written or decides about what is due."""
    counts = any(rule.interval > 1 or rule.count for rule in rules)
    if not rules or not (begin.given == "DTSTART" or (begin.given and counts)):
        return ""
    wall = datetime.fromordinal(begin.wall // DAY) + timedelta(seconds=begin.wall % DAY)
    dated = all(_from_its_day(rule, begin.wall % DAY) for rule in rules)
    return f", from {wall.date() if dated else moment_in_words(wall)}"


def _from_its_day(rule: Rule, time: int) -> bool:
    """Return whether all times of its first day count."""
    first = [rule.by[name][0] for name in ("BYHOUR", "BYMINUTE", "BYSECOND")]
    by_clock = rule.freq in _BY_CLOCK and rule.interval > 1
    return not by_clock and time <= first[0] * 3600 + first[1] * 60 + first[2]


def _end(rule: Rule, zone: str) -> str:
    if rule.count is not None:
        return ", once" if rule.count == 1 else f", {rule.count:,} times"
    if rule.until is None:
        return ""
    if rule.until.dated:
        return f", until {rule.until.wall.date()}"
    return f", until {_shown(rule.until, zone)}"


def _dates(moments: Sequence[Moment], zone: str, *, exact: bool) -> str:
    if len(moments) <= (_MOST if exact else _FEW):
        return joined(list(_each(moments, zone)))
    return f"{len(set(moments)):,} dates"


def _each(moments: Sequence[Moment], zone: str) -> Iterator[str]:
    """Yield dates in words, each once; those in one zone in their order."""
    for moment in sorted(set(moments), key=lambda one: (one.timezone or zone, one.wall)):
        yield _shown(moment, zone)


def _shown(moment: Moment, zone: str) -> str:
    other = moment.timezone not in (None, zone)
    return moment_in_words(moment.wall) + f" {moment.timezone}" * other
