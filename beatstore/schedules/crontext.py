"""Parse cron expressions, with croniter.

croniter defines the grammar and expands the fields. First, this module checks each member of a
list and rewrites it where croniter and cron differ: "5-5" means 5 (croniter: every minute), and
"7/2" on weekdays means Sunday. It refuses what croniter gets wrong or chooses at random
("22-4/2", "H", "R"), with a suggestion.

`read_cron` returns plain sets of numbers, which `cron.py` searches. A `ScheduleError` shows the
invalid part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

from croniter import croniter

from beatstore.errors import ScheduleError
from beatstore.schedules.cronhints import (
    WEEKDAYS,
    refuse_foreign,
    suggest_day,
    suggest_weekday,
)

__all__ = ["CronFields", "read_cron", "split_cron"]

_LONGEST = 512  # enough for lists of all minutes, hours and days

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LAYOUT = "5 fields (minute hour day month weekday), optionally followed by second and year"

_MEMBER = re.compile(
    r"(?P<low>\w+|\*)(-(?P<high>\w+))?(/(?P<step>\d+))?(#(?P<nth>[1-5]))?", re.ASCII
)
_NEAREST = re.compile(r"(\d+)w|w(\d+)", re.ASCII)
_LAST_WEEKDAY = re.compile(r"l[0-7]", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_SUNDAY = 7  # its other number is 0


@dataclass(frozen=True)
class CronFields:
    """The sets of numbers in a cron expression.

    Weekdays count from Sunday = 0. `nth` has the occurrences of a weekday within the month,
    "l" for the last. `years` is None for all years. `union` says whether one matching day
    field is enough; `once` is the rule for clock changes, see `wall.py`.
    """

    seconds: Sequence[int]
    minutes: Sequence[int]
    hours: Sequence[int]
    days: frozenset[int]
    last_day: bool
    nearest_weekday: int | None
    months: frozenset[int]
    weekdays: frozenset[int]
    nth: Mapping[int, frozenset[int | str]]
    years: Sequence[int] | None
    union: bool
    once: bool


class _Field(NamedTuple):
    """One field of a cron expression, and how to rewrite it for croniter."""

    name: str
    low: int
    high: int
    names: Sequence[str] = ()

    def tidy(self, text: str) -> str:
        members = text.split(",")
        for star in "*?":
            if len(members) > 1 and star in members:
                wanted = f"{star!r} alone in the {self.name} field, not in a list"
                raise ScheduleError("expression", text, wanted, '"*"')
        if self is _DAY and len(members) > 1 and any(map(_NEAREST.fullmatch, members)):
            wanted = "one day with W alone in the day-of-month field, not in a list"
            raise ScheduleError("expression", text, wanted, "two entries, one for each")
        if self is _WEEKDAY and len({bool({"#", "l"} & set(member)) for member in members}) > 1:
            wanted = "weekdays either all with # or L, or all without"
            raise ScheduleError("expression", text, wanted, "two entries, one for each")
        return ",".join(self._tidy_member(member) for member in members)

    def _tidy_member(self, member: str) -> str:
        if self._is_special(member):
            return member
        match = _MEMBER.fullmatch(member)
        if match is None:
            raise self._refusal(member)
        low, high, step, nth = match.group("low", "high", "step", "nth")
        misplaced = nth and (step or self is not _WEEKDAY)
        if misplaced or (low == "*" and (high or nth)):
            raise self._refusal(member)
        if step is not None:
            self._check_step(member, int(step))
        return member if low == "*" else self._tidy_range(member, low, high, step, nth)

    def _check_step(self, member: str, step: int) -> None:
        if not step:
            wanted = f"{_a(self.name)} step of at least 1"
            raise ScheduleError("expression", member, wanted, f'"{member[: member.index("/")]}"')
        if self.name not in _STEPS:
            return
        length, meaning, unit, seconds = _STEPS[self.name]
        if step <= length:
            return
        low = member.partition("/")[0].partition("-")[0]
        wanted = f"{_a(self.name)} step of at most {length}; {member} would mean {meaning}"
        write = f'"{self.low if low == "*" else low}" for {meaning}'
        if seconds:
            write += f"; Every({step * seconds}) for every {step} {unit}"
        raise ScheduleError("expression", member, wanted, write)

    def _tidy_range(
        self, member: str, low: str, high: str | None, step: str | None, nth: str | None
    ) -> str:
        if self is _DAY and high == "l":
            high = str(self.high)
        first, last = self._number(low, member), self._number(high or low, member)
        if self is _WEEKDAY and first == _SUNDAY:
            first, last, step = 0, last % _SUNDAY, step if high else None
        if high and last < first and self is _YEAR:
            wanted = "years from the earlier to the later one"
            raise ScheduleError("expression", member, wanted, f'"{last}-{first}"')
        if high and last < first and step:
            wanted = f"{_a(self.name)} range with a step that doesn't wrap around"
            raise ScheduleError("expression", member, wanted, "the numbers, as in 22,0,2,4")
        if nth:
            return ",".join(f"{day}#{nth}" for day in _week(first, last))
        if high and first == last:
            return str(first)
        return f"{first}" + (f"-{last}" if high else "") + (f"/{step}" if step else "")

    def _is_special(self, member: str) -> bool:
        """Return True for members that only a day field may have."""
        if self is _DAY:
            match = _NEAREST.fullmatch(member)
            nearest = match is not None and self.low <= int(match[1] or match[2]) <= self.high
            return nearest or member in ("?", "l")
        return self is _WEEKDAY and (member == "?" or _LAST_WEEKDAY.fullmatch(member) is not None)

    def _number(self, text: str, member: str) -> int:
        if text in self.names:
            # Months count from 1 and weekdays from 0, as their fields do.
            return self.names.index(text) + self.low
        if text.isdecimal() and self.low <= int(text) <= self.high:
            return int(text)
        raise self._refusal(member)

    def _refusal(self, member: str) -> ScheduleError:
        names = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        wanted = f"{_a(self.name)} field made of {self.low}-{self.high}{names}"
        return ScheduleError("expression", member, wanted, self._hint(member))

    def _hint(self, member: str) -> str | None:
        """Suggest what to write for an invalid member."""
        word = None
        if self is _DAY:
            word = suggest_day(member)
        elif self is _WEEKDAY:
            word = suggest_weekday(member)
        elif member == str(self.high + 1) and self.low == 0:
            word = '"0", the first value of the field'
        if word is None and member[:3] in self.names:
            word = f'"{member[:3]}"'
        elif re.match(r"[hr]\b", member) or "~" in member:
            word = "a number, and jitter= to spread entries; H, R and ~ would differ between beats"
        elif member == "?":
            word = '"*"'
        return word


_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY, _SECOND, _YEAR = _FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day-of-week", 0, 7, WEEKDAYS),
    _Field("second", 0, 59),
    _Field("year", 1970, 2099),
)
_FEWEST = 5
# The longest step of a field, what a longer one means, and the seconds of its unit, if any.
_STEPS = {
    "second": (60, "once a minute", "seconds", 1),
    "minute": (60, "hourly", "minutes", 60),
    "hour": (24, "daily", "hours", 3_600),
    "day-of-month": (31, "monthly", "days", 86_400),
    "month": (12, "yearly", "months", 0),
    "day-of-week": (7, "weekly", "days", 86_400),
}
_Expanded: TypeAlias = tuple[Sequence[Sequence[int | str]], Mapping[int, set[int | str]]]


def _a(name: str) -> str:
    return f"an {name}" if name == "hour" else f"a {name}"


def split_cron(expression: str) -> list[str]:
    """Split an expression into its fields, unchanged; an alias is one field.

    Raises:
        ScheduleError: the value is not text, is too long, or is not printable ASCII.
    """
    example = '"*/15 * * * *"'
    if not isinstance(expression, str):
        raise ScheduleError("expression", expression, "a cron expression as a str", example)
    if len(expression) > _LONGEST:
        wanted = f"at most {_LONGEST} characters"
        raise ScheduleError("expression", expression, wanted, "ranges and steps, not long lists")
    if not expression.isascii() or any(c < " " and c not in "\t\r\n" for c in expression):
        raise ScheduleError("expression", expression, "printable ASCII", example)
    return expression.split()


def read_cron(expression: str, *, day_or: bool) -> CronFields:
    """Parse a cron expression.

    Args:
        expression: 5 fields, 6 with seconds, or 7 with seconds and year.
        day_or: whether a day must match either (True, as in cron) or both of two restricted
            day fields.

    Raises:
        ScheduleError: the expression is invalid.
    """
    texts = [text.lower() for text in split_cron(expression)]
    if len(texts) == 1 and texts[0].startswith("@") and texts[0] != "@reboot":
        if texts[0] not in _ALIASES:
            raise ScheduleError("expression", expression, f"one of {', '.join(_ALIASES)}")
        texts = _ALIASES[texts[0]].split()
    refuse_foreign(expression, texts)
    if not _FEWEST <= len(texts) <= len(_FIELDS):
        example = '"0 9 * * 1-5" for weekdays at nine'
        raise ScheduleError("expression", expression, _LAYOUT, example)
    tidied = " ".join(field.tidy(text) for field, text in zip(_FIELDS, texts, strict=False))
    try:
        # The stubs give the second value the wrong type.
        sets, nth = cast(_Expanded, croniter.expand(tidied))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        wanted = "an expression that croniter understands"
        raise ScheduleError("expression", expression, wanted) from error
    return _fields(texts, sets, nth, day_or=day_or)


def _fields(
    texts: Sequence[str],
    sets: Sequence[Sequence[int | str]],
    nth: Mapping[int, set[int | str]],
    *,
    day_or: bool,
) -> CronFields:
    """Make `CronFields` of croniter's sets and of what only the text shows."""
    minute, hour, day, _, weekday = texts[:_FEWEST]
    numbers = [_numbers(field, members) for field, members in zip(_FIELDS, sets, strict=False)]
    minutes, hours, days, months, weekdays, *rest = numbers
    nearest = _NEAREST.fullmatch(day)
    every_year = len(sets) < len(_FIELDS) or "*" in sets[-1]
    return CronFields(
        seconds=rest[0] if rest else (0,),
        minutes=minutes,
        hours=hours,
        days=frozenset(days),
        last_day="l" in sets[2],
        nearest_weekday=int(nearest[1] or nearest[2]) if nearest else None,
        months=frozenset(months),
        weekdays=frozenset(number % _SUNDAY for number in weekdays),
        nth={number: frozenset(which) for number, which in nth.items()},
        years=None if every_year else rest[1],
        # Source: Debian's cron. A day field that starts with a star doesn't widen the
        # other one. With a star first in the hour or minute, a job follows the clock.
        union=day_or and day[0] not in "*?" and weekday[0] not in "*?",
        once=minute[0] != "*" and hour[0] != "*",
    )


def _numbers(field: _Field, members: Sequence[int | str]) -> tuple[int, ...]:
    if "*" in members:
        return tuple(range(field.low, field.high + 1))
    return tuple(sorted(member for member in members if isinstance(member, int)))


def _week(first: int, last: int) -> list[int]:
    """Return the weekdays of a range, which may wrap around the end of the week."""
    if first <= last:
        return sorted({day % _SUNDAY for day in range(first, last + 1)})
    return [*range(first, _SUNDAY), *range(last + 1)]
