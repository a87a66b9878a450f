"""The wall-clock times of one recurrence rule.

A rule is two sets to be met at once: the grid of days and times that its BYxxx parts
leave, and the periods (years, weeks, minutes, ...) that its INTERVAL picks, counted
from the start. The search leaps from one to the other until both agree: it never
walks from the start, so a rule that began a century ago costs what a new one does.
COUNT is turned into an end, once.

Invariant: one search takes at most `_LEAPS` leaps and looks at most a century ahead or
back. A rule whose next occurrence is beyond that has none.

Source: RFC 5545, 3.3.10. As in dateutil, a start that doesn't match isn't due.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import MAXYEAR, MINYEAR, date
from itertools import islice
from typing import TypeAlias

from beatstore.errors import ScheduleError
from beatstore.schedules.grid import Days, Grid, TimesOfDay, month_length
from beatstore.schedules.instants import DAY, LAST_DAY
from beatstore.schedules.rruletext import FREQUENCIES, Rule
from beatstore.schedules.wall import WallTimes

__all__ = ["RuleTimes"]

_LEAPS = 10_000
_CENTURY = 36_525 * DAY
_END = (LAST_DAY + 1) * DAY
_UNITS = {"DAILY": DAY, "HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}
_WITHIN_DAYS, _WITHIN_HOURS, _WITHIN_MINUTES = FREQUENCIES[4:], FREQUENCIES[5:], FREQUENCIES[6:]


class RuleTimes:
    """The wall-clock times of a rule, in seconds; a `WallTimes`.

    Args:
        rule: what the text says.
        start: the wall-clock time that INTERVAL and COUNT count from; it also gives
            the parts of the time that the rule leaves open.
        until: the last wall-clock time that belongs to the rule, or None.

    Raises:
        ScheduleError: it doesn't come once in a century, or COUNT reaches beyond four centuries.
    """

    def __init__(self, rule: Rule, start: int, until: int | None) -> None:
        days, times = _RuleDays(rule, start // DAY), _times_of_day(rule, start % DAY)
        self._grid: WallTimes = Grid(days, times)
        self._periods = _periods(rule)
        self._interval = rule.interval
        if "BYSETPOS" in rule.by:
            self._grid = _Picked(days, times, self._periods, rule.by["BYSETPOS"])
        self._start = start
        self._phase = self._periods.number(start)
        self._until = _END
        self._check_that_it_comes(rule)
        if rule.count is not None:
            self._until = self._nth(rule.count)
        if until is not None:
            self._until = until

    def _check_that_it_comes(self, rule: Rule) -> None:
        """Refuse a rule that no search would find again, rather than let it end silently."""
        found = self.first(self._start)
        if found is not None:
            found = self.first(found + 1)
        if found is None and self._start + _CENTURY < _END:
            wanted = "parts that come together at least once in a century"
            raise ScheduleError("text", rule.text, wanted, "fewer BYxxx parts")

    def first(self, low: int) -> int | None:
        """Return the smallest member that is at least `low`."""
        low = max(low, self._start)
        leaps = islice(self._forward(low, low + _CENTURY), _LEAPS)
        return next((wall for wall in leaps if wall is not None), None)

    def last(self, high: int) -> int | None:
        """Return the largest member that is less than `high`."""
        high = min(high, self._until + 1)
        leaps = islice(self._back(high, high - _CENTURY), _LEAPS)
        return next((wall for wall in leaps if wall is not None), None)

    def _forward(self, low: int, stop: int) -> Iterator[int | None]:
        """Yield members from `low` on, and None for each leap in between."""
        stop = min(stop, self._until)
        while (wall := self._grid.first(low)) is not None and wall <= stop:
            number = self._periods.number(wall)
            ahead = (self._phase - number) % self._interval
            yield None if ahead else wall
            low = self._periods.start(number + ahead) if ahead else wall + 1

    def _back(self, high: int, stop: int) -> Iterator[int | None]:
        """Yield members below `high`, latest first, and None for each leap in between."""
        stop = max(stop, self._start)
        while (wall := self._grid.last(high)) is not None and wall >= stop:
            number = self._periods.number(wall)
            behind = (number - self._phase) % self._interval
            yield None if behind else wall
            high = self._periods.start(number - behind + 1) if behind else wall

    def _nth(self, count: int) -> int:
        """Return the member that COUNT makes the last one."""
        leaps = islice(self._forward(self._start, self._start + 4 * _CENTURY), 2 * _LEAPS)
        members = list(islice((wall for wall in leaps if wall is not None), count))
        if len(members) < count and self._start + 4 * _CENTURY < _END:
            wanted = "a COUNT that four centuries and a short search suffice for"
            raise ScheduleError("text", f"COUNT={count}", wanted, "UNTIL with the last date")
        return members[-1] if members else self._start - 1


class _Years:
    """Calendar years, numbered as they are."""

    def number(self, wall: int) -> int:
        return _date(wall).year

    def start(self, number: int) -> int:
        return _midnight(number, 1)


class _Months:
    """Calendar months."""

    def number(self, wall: int) -> int:
        day = _date(wall)
        return day.year * 12 + day.month - 1

    def start(self, number: int) -> int:
        return _midnight(number // 12, number % 12 + 1)


class _Spans:
    """Stretches of equal length, in seconds, one of which starts at `origin`."""

    def __init__(self, length: int, origin: int = 0) -> None:
        self._length = length
        self._origin = origin

    def number(self, wall: int) -> int:
        return (wall - self._origin) // self._length

    def start(self, number: int) -> int:
        return number * self._length + self._origin


_Periods: TypeAlias = _Years | _Months | _Spans


def _periods(rule: Rule) -> _Periods:
    """Return the periods that INTERVAL counts and BYSETPOS picks from."""
    if rule.freq == "YEARLY":
        return _Years()
    if rule.freq == "MONTHLY":
        return _Months()
    if rule.freq == "WEEKLY":
        # Day 1 of the calendar is a Monday.
        return _Spans(7 * DAY, (1 + rule.week_start) * DAY)
    return _Spans(_UNITS[rule.freq])


def _date(wall: int) -> date:
    return date.fromordinal(wall // DAY)


def _midnight(year: int, month: int) -> int:
    """Return where a month starts; beyond the calendar, one of its ends."""
    if not MINYEAR <= year <= MAXYEAR:
        return 0 if year < MINYEAR else _END
    return date(year, month, 1).toordinal() * DAY


def _times_of_day(rule: Rule, start: int) -> TimesOfDay:
    """Return the times of day a rule leaves; what it leaves open comes from the start."""
    hour, minute, second = start // 3600, start // 60 % 60, start % 60
    return TimesOfDay(
        rule.by.get("BYHOUR") or (range(24) if rule.freq in _WITHIN_DAYS else (hour,)),
        rule.by.get("BYMINUTE") or (range(60) if rule.freq in _WITHIN_HOURS else (minute,)),
        rule.by.get("BYSECOND") or (range(60) if rule.freq in _WITHIN_MINUTES else (second,)),
    )


class _RuleDays(Days):
    """The days a rule leaves."""

    def __init__(self, rule: Rule, start: int) -> None:
        first = date.fromordinal(start)
        self._months = frozenset(rule.by.get("BYMONTH", ()))
        self._days = frozenset(rule.by.get("BYMONTHDAY", ()))
        self._year_days = frozenset(rule.by.get("BYYEARDAY", ()))
        self._weeks = frozenset(rule.by.get("BYWEEKNO", ()))
        self._weekdays = frozenset(rule.byday)
        self._week_start = rule.week_start
        if not (self._days or self._year_days or self._weeks or self._weekdays):
            if rule.freq == "WEEKLY":
                self._weekdays = frozenset({(0, first.weekday())})
            if rule.freq in ("MONTHLY", "YEARLY"):
                self._days = frozenset({first.day})
            if rule.freq == "YEARLY" and not self._months:
                self._months = frozenset({first.month})
        # The month looked at last; one tuple, replaced as a whole, as in `Days`.
        self._month: tuple[tuple[int, int], Sequence[int]] = ((0, 0), ())
        # BYDAY=2MO means the second of the year only where no months are picked.
        self._nth_of_year = rule.freq == "YEARLY" and not rule.by.get("BYMONTH")

    def in_month(self, year: int, month: int) -> Sequence[int]:
        if self._months and month not in self._months:
            return ()
        asked, days = self._month
        if asked != (year, month):
            days = self._matching(year, month)
            self._month = (year, month), days
        return days

    def _matching(self, year: int, month: int) -> Sequence[int]:
        length = month_length(year, month)
        before = date(year, month, 1).toordinal() - 1
        return [
            day
            for day in range(1, length + 1)
            if (not self._days or day in self._days or day - length - 1 in self._days)
            and (not self._weekdays or self._is_weekday(year, before + day, day, length))
            and (not self._year_days or self._is_year_day(year, before + day))
            and (not self._weeks or self._is_in_week(before + day))
        ]

    def _is_year_day(self, year: int, ordinal: int) -> bool:
        day, length = _year_day(year, ordinal)
        return day in self._year_days or day - length - 1 in self._year_days

    def _is_weekday(self, year: int, ordinal: int, day: int, length: int) -> bool:
        weekday = (ordinal - 1) % 7
        if (0, weekday) in self._weekdays:
            return True
        if self._nth_of_year:
            day, length = _year_day(year, ordinal)
        nth, nth_last = (day + 6) // 7, -((length - day) // 7 + 1)
        return (nth, weekday) in self._weekdays or (nth_last, weekday) in self._weekdays

    def _is_in_week(self, ordinal: int) -> bool:
        # A week belongs to the year in which its fourth day lies.
        fourth = ordinal - (ordinal - 1 - self._week_start) % 7 + 3
        year = date.fromordinal(min(max(fourth, 1), LAST_DAY)).year
        day, length = _year_day(year, fourth)
        number = (day + 6) // 7
        weeks = number + (length - day) // 7
        return number in self._weeks or number - weeks - 1 in self._weeks


def _year_day(year: int, ordinal: int) -> tuple[int, int]:
    """Return the day of the year, from 1, and the length of the year."""
    new_year = date(year, 1, 1).toordinal()
    return ordinal - new_year + 1, date(year, 12, 31).toordinal() - new_year + 1


class _Picked:
    """The members of a grid that BYSETPOS picks from each period; a `WallTimes`."""

    _MOST_PERIODS = 100  # without a pick, before the search gives up

    def __init__(
        self, days: Days, times: TimesOfDay, periods: _Periods, positions: Sequence[int]
    ) -> None:
        self._days = days
        self._times = times
        self._grid = Grid(days, times)
        self._periods = periods
        self._positions = positions

    def first(self, low: int) -> int | None:
        """Return the smallest member that is at least `low`."""
        for _ in range(self._MOST_PERIODS):
            wall = self._grid.first(low)
            if wall is None:
                return None
            number = self._periods.number(wall)
            found = [pick for pick in self._picks(number) if pick >= low]
            if found:
                return min(found)
            low = self._periods.start(number + 1)
        return None

    def last(self, high: int) -> int | None:
        """Return the largest member that is less than `high`."""
        for _ in range(self._MOST_PERIODS):
            wall = self._grid.last(high)
            if wall is None:
                return None
            number = self._periods.number(wall)
            found = [pick for pick in self._picks(number) if pick < high]
            if found:
                return max(found)
            high = self._periods.start(number)
        return None

    def _picks(self, number: int) -> Iterator[int]:
        days = []
        day = self._days.first(self._periods.start(number) // DAY)
        end = self._periods.start(number + 1) // DAY
        while day is not None and day < end:
            days.append(day)
            day = self._days.first(day + 1)
        count = len(days) * len(self._times)
        for position in self._positions:
            index = position - 1 if position > 0 else count + position
            if 0 <= index < count:
                which, time = divmod(index, len(self._times))
                yield days[which] * DAY + self._times[time]
