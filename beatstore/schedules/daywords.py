"""The days of a schedule in English, for `describe`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from beatstore.schedules.timewords import TimeWords, joined, listed, ordinal, step_of

__all__ = [
    "WEEKDAYS",
    "DayRule",
    "days_in_words",
    "in_months",
    "of_months",
    "sentence",
    "with_times",
]

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
_WEEK = 7
_ROW = 3  # days or months in a row that are written as "Monday to Wednesday"
_SOME = 6  # dates that are listed one by one
_ALWAYS = 28  # each month has so many days
_FIFTH = 5
_EVERY_DAY = "every day"
_CLAUSE = re.compile(", [a-z]")  # not a list of names or numbers


@dataclass(frozen=True)
class DayRule:
    """Which days a schedule has; what is empty allows all days.

    Dates and year days below 0 count from the end. `weekdays` are pairs (n, weekday) with
    Monday = 0; n = 0 means every such day. `either` says that a date or a weekday is enough.
    """

    months: frozenset[int] = frozenset()
    dates: Sequence[int] = ()
    nearest: int | None = None
    weekdays: frozenset[tuple[int, int]] = frozenset()
    year_days: Sequence[int] = ()
    weeks: Sequence[int] = ()
    either: bool = False
    of_year: bool = False


def days_in_words(rule: DayRule, *, exact: bool, month: str = "of every month") -> str:
    """Return the days in words, such as "Monday to Friday" or "on the 1st of every month".

    Args:
        rule: the days.
        exact: False shortens long lists to their length.
        month: what follows a date, if all months have it.
    """
    if rule.either and rule.months:
        always = replace(rule, months=frozenset())
        said = days_in_words(always, exact=exact, month="of the month")
        return f"{said},{in_months(rule.months)}"
    within = of_months(rule.months) or month
    inside = in_months(rule.months)
    on = []
    if rule.nearest is not None:
        short = " or the last day" * (rule.nearest > _ALWAYS)
        on.append(f"on the working day nearest to the {ordinal(rule.nearest)}{short} {within}")
    if rule.dates:
        on.append(_on_dates(rule, within, exact=exact))
    if rule.year_days:
        days = joined([ordinal(day) for day in _from_the_start(rule.year_days)])
        if not exact and len(rule.year_days) > _SOME:
            days = f"{len(rule.year_days)} given"
        on.append(f"on the {days} day of the year{inside}")
    if rule.weekdays and (not on or rule.either):
        on.append(_on_weekdays(rule, within, inside))
    elif rule.weekdays:
        on.append(f"if it is {_a_weekday(rule)}")
    if rule.weeks:
        weeks = joined([ordinal(week) for week in _from_the_start(rule.weeks)])
        which = f"in the {weeks} week of the year"
        on.append(which if on else f"{_EVERY_DAY} {which}{inside}")
    return (" and also " if rule.either else ", ").join(on) or _EVERY_DAY + inside


def sentence(days: str, times: TimeWords) -> str:
    """Return days and times as one sentence."""
    if times.one_by_one:
        return with_times(days, times)
    if days == _EVERY_DAY:
        return times.text
    if days == f"{WEEKDAYS[0]} to {WEEKDAYS[4]}":
        return f"{times.text}, on weekdays"
    return f"{times.text}, {days.removeprefix(f'{_EVERY_DAY} ')}"


def with_times(days: str, times: TimeWords) -> str:
    """Return days, or an interval of days, and then the times."""
    return f"{days}{',' * bool(_CLAUSE.search(days))} {times.text}"


def in_months(months: Collection[int]) -> str:
    """Return " in January and July", or " from June to August"; "" for all months."""
    rows = _rows(months)
    one_row = len(rows) == 1 and len(months) > 1
    return f" {'from' if one_row else 'in'} {joined(rows)}" if rows else ""


def of_months(months: Collection[int]) -> str:
    """Return "of January and July"; "" for all months."""
    return f"of {joined(_rows(months))}" if months else ""


def _rows(months: Collection[int]) -> list[str]:
    """Return the names of months; those in a row as "June to August"."""
    return [
        " to ".join(_MONTHS[int(month) - 1] for month in row.split(" to "))
        for row in listed(sorted(months), _ROW)
    ]


def _from_the_start(numbers: Sequence[int]) -> list[int]:
    """Return the numbers in the order of the calendar: those from its end come last."""
    return sorted(numbers, key=lambda number: (number < 0, number))


def _on_dates(rule: DayRule, within: str, *, exact: bool) -> str:
    dates = _from_the_start(rule.dates)
    step = step_of(dates)
    if len(dates) > _SOME and step and step > 1 and dates[0] > 0:
        ends = f"from the {ordinal(dates[0])} to the {ordinal(dates[-1])}"
        return f"on every {ordinal(step)} day {ends} {within}".rstrip()
    if not exact and len(dates) > _SOME:
        return f"on {len(dates)} days {within}".rstrip()
    found = []
    for item in listed([date for date in dates if date > 0], _ROW):
        found.append(" to ".join(ordinal(int(date)) for date in item.split(" to ")))
    found += [f"{ordinal(date)} day" for date in dates if date < 0]
    missing = " that has it" * (within == "of every month" and len(dates) == 1)
    missing = missing if abs(dates[0]) > _ALWAYS else ""
    return f"on the {joined(found)} {within}{missing}".rstrip()


def _on_weekdays(rule: DayRule, within: str, inside: str) -> str:
    plain, nth = _plain(rule), _nth(rule)
    found = []
    if len(plain) == _WEEK:
        found.append(_EVERY_DAY + inside)
    elif plain:
        row = _row_of_week(plain)
        found.append(row + inside if row else f"every {joined(_names(plain))}{inside}")
    if nth:
        within = f"of the year{inside}" if rule.of_year else within
        alone = within == "of every month" and len(rule.weekdays) == 1
        missing = " that has it" * (alone and "5th" in nth[0])
        found.append(f"on the {joined(nth, 'and the')} {within}{missing}".rstrip())
    return " and ".join(found)


def _a_weekday(rule: DayRule) -> str:
    plain = _plain(rule)
    row = _row_of_week(plain)
    found = [row] if row else [f"a {name}" for name in _names(plain)]
    found += [f"the {item} of the {'year' if rule.of_year else 'month'}" for item in _nth(rule)]
    return joined(found, "or")


def _plain(rule: DayRule) -> list[int]:
    return sorted(weekday for nth, weekday in rule.weekdays if not nth)


def _nth(rule: DayRule) -> list[str]:
    """Return "1st and 3rd Monday" and so on, one text for weekdays with the same numbers."""
    numbers: dict[int, list[int]] = {}
    for nth, weekday in sorted(rule.weekdays, key=lambda pair: (pair[0] < 0, pair)):
        if nth:
            numbers.setdefault(weekday, []).append(nth)
    groups: dict[tuple[int, ...], list[int]] = {}
    for weekday in sorted(numbers):
        groups.setdefault(tuple(numbers[weekday]), []).append(weekday)
    return [
        f"{joined([ordinal(number) for number in group])} {joined(_names(weekdays))}"
        for group, weekdays in groups.items()
    ]


def _names(weekdays: Sequence[int]) -> list[str]:
    return [WEEKDAYS[weekday] for weekday in weekdays]


def _row_of_week(weekdays: Sequence[int]) -> str | None:
    """Return "Friday to Monday" for days in a row, which may pass the end of the week."""
    if not _ROW <= len(weekdays) < _WEEK:
        return None
    starts = [day for day in weekdays if (day - 1) % _WEEK not in weekdays]
    if len(starts) > 1:
        return None
    last = (starts[0] + len(weekdays) - 1) % _WEEK
    return f"{WEEKDAYS[starts[0]]} to {WEEKDAYS[last]}"
