"""The wall-clock times of one recurrence rule.

An occurrence must be in two sets: the grid of days and times that the BYxxx parts allow, and the
periods (years, weeks, minutes, ...) that INTERVAL selects, counted from the start. The search
leaps between the two sets until both match. It never walks from the start, so a rule that began
a century ago costs no more than a new one. `rruleset.py` applies COUNT and UNTIL, which concern
instants.

Invariant: one search takes at most `_LEAPS` leaps, and looks at most a century ahead or back. It
finds no occurrence beyond that.

Source: RFC 5545, 3.3.10. As in dateutil, a start that doesn't match isn't due.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import isleap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import MAXYEAR, MINYEAR, date
from functools import cache, lru_cache, partial
from itertools import chain, compress, groupby, islice
from typing import TypeAlias

from beatstore.schedules.grid import Days, Grid, TimesOfDay, month_length
from beatstore.schedules.instants import DAY, LAST_DAY
from beatstore.schedules.rrulecount import DayTimes, Listed
from beatstore.schedules.rruletext import FREQUENCIES, Rule
from beatstore.schedules.wall import WallTimes

__all__ = ["CENTURY", "RuleTimes", "settled"]

CENTURY = 36_525 * DAY
_LEAPS = 2_000  # in one search
_FAR = 4 * 36_525  # days; the furthest that COUNT may reach
_END = (LAST_DAY + 1) * DAY
_UNITS = {"DAILY": DAY, "HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}
_WITHIN_DAYS, _WITHIN_HOURS, _WITHIN_MINUTES = FREQUENCIES[4:], FREQUENCIES[5:], FREQUENCIES[6:]
_DAY_PARTS = ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO")
_MOST_PICKED = 3_000  # periods that COUNT may reach over with BYSETPOS
_CALENDAR = 400  # years, after which weekdays and leap years repeat


class RuleTimes:
    """The wall-clock times of a rule, in seconds; a `WallTimes`.

    Args:
        rule: the parsed rule.
        start: the wall-clock time that INTERVAL counts from; it also supplies the parts of
            the time that the rule does not set.
        low: the earliest time of the rule.
        lines: the number of rules in the recurrence, which share the limits on work.
    """

    def __init__(self, rule: Rule, start: int, low: int, lines: int) -> None:
        rule = settled(rule, start)
        days = _RuleDays(rule)
        times = TimesOfDay(*(rule.by[name] for name in ("BYHOUR", "BYMINUTE", "BYSECOND")))
        self._days, self._times = days, times
        self._periods = _periods(rule)
        self._picked = None
        if "BYSETPOS" in rule.by:
            self._picked = _Picked(days, times, self._periods, rule.by["BYSETPOS"])
        self._grid: WallTimes = self._picked or Grid(days, times)
        self._freq = rule.freq
        self._interval = rule.interval
        self._phase = self._periods.number(start)
        self._unit = _UNITS.get(rule.freq, DAY)
        self._low = low
        self._leaps = _LEAPS // lines
        self._far = _FAR // lines
        self._most_picked = _MOST_PICKED // lines

    def first(self, low: int) -> int | None:
        """Return the smallest member that is at least `low`."""
        low = max(low, self._low)
        leaps = islice(self._forward(low, low + CENTURY), self._leaps)
        return next((wall for wall in leaps if wall is not None), None)

    def last(self, high: int) -> int | None:
        """Return the largest member that is less than `high`."""
        leaps = islice(self._back(high, high - CENTURY), self._leaps)
        return next((wall for wall in leaps if wall is not None), None)

    def leaps_to_second(self) -> int | None:
        """Return the number of leaps to the second member; None if the search finds none."""
        leaps = islice(self._forward(self._low, self._low + 2 * CENTURY), 2 * self._leaps)
        found = (leap for leap, wall in enumerate(leaps, 1) if wall is not None)
        return next(islice(found, 1, None), None)

    def _forward(self, low: int, stop: int) -> Iterator[int | None]:
        """Yield the members from `low` on, and None for each leap between them."""
        while (wall := self._grid.first(low)) is not None and wall <= stop:
            number = self._periods.number(wall)
            ahead = (self._phase - number) % self._interval
            yield None if ahead else wall
            low = self._periods.start(number + ahead) if ahead else wall + 1

    def _back(self, high: int, stop: int) -> Iterator[int | None]:
        """Yield the members below `high`, latest first, and None for each leap between them."""
        stop = max(stop, self._low)
        while (wall := self._grid.last(high)) is not None and wall >= stop:
            number = self._periods.number(wall)
            behind = (number - self._phase) % self._interval
            yield None if behind else wall
            high = self._periods.start(number - behind + 1) if behind else wall

    def days(self) -> Iterator[tuple[int, DayTimes]]:
        """Yield the days from the start that have times, with these, for four centuries."""
        first = self._low // DAY
        end = min(first + self._far, LAST_DAY + 1)
        picked = self._picked
        if picked is not None and self._freq != "DAILY":
            last = min(first + _FAR, LAST_DAY + 1)
            for number in islice(self._numbers(first, last), self._most_picked):
                yield from (found for found in picked.days(number) if found[0] >= first)
            return
        times: DayTimes = self._times if picked is None else picked.of_a_day()
        if self._interval == 1 or isinstance(self._periods, _Spans):
            years = range(first, end, 366)
            blocks = (self._days.within(low, min(low + 366, end)) for low in years)
            yield from self._in_phase(chain.from_iterable(blocks), times)
            return
        start = self._periods.start
        for number in self._numbers(first, end):
            for day in self._days.within(start(number) // DAY, start(number + 1) // DAY):
                if first <= day < end:
                    yield day, times

    def _numbers(self, first: int, end: int) -> Iterator[int]:
        """Yield the periods that INTERVAL selects, from the day `first` to before `end`."""
        number = self._periods.number(first * DAY)
        number += (self._phase - number) % self._interval
        while self._periods.start(number) < end * DAY:
            yield number
            number += self._interval

    def _in_phase(self, days: Iterable[int], times: DayTimes) -> Iterator[tuple[int, DayTimes]]:
        """Yield the days with times in a period that INTERVAL selects, with these."""
        phase, interval = self._phase, self._interval
        if interval == 1:
            yield from ((day, times) for day in days)
        elif self._unit == DAY:
            length = (self._periods.start(1) - self._periods.start(0)) // DAY
            begin, cycle = self._periods.start(phase) // DAY, length * interval
            yield from ((day, times) for day in days if (day - begin) % cycle < length)
        else:
            marks, units = self._times.marks(), DAY // self._unit
            spans = (marks[at : at + self._unit] for at in range(0, DAY, self._unit))
            busy = marks if self._unit == 1 else bytes(1 in span for span in spans)
            times_from = cache(partial(self._times_from, marks))
            yield from (
                (day, times_from(unit))
                for day in days
                # The numbers of units continue from day to day.
                if (unit := (phase - day * units) % interval) < units
                and (busy[unit] or 1 in busy[unit::interval])
            )

    def _times_from(self, marks: bytes, number: int) -> Listed:
        """Return the times in each INTERVAL-th hour, minute or second of a day from `number`."""
        unit, step = self._unit, self._unit * self._interval
        starts = range(number * unit, DAY, step)
        if unit == 1:
            return Listed([*compress(starts, marks[number::step])])
        spans = (compress(range(at, at + unit), marks[at : at + unit]) for at in starts)
        return Listed([*chain.from_iterable(spans)])


class _Years:
    """Calendar years, by their numbers."""

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
    """Periods of equal length, in seconds, one of which starts at `origin`."""

    def __init__(self, length: int, origin: int = 0) -> None:
        self._length = length
        self._origin = origin

    def number(self, wall: int) -> int:
        return (wall - self._origin) // self._length

    def start(self, number: int) -> int:
        return number * self._length + self._origin


_Periods: TypeAlias = _Years | _Months | _Spans


def _periods(rule: Rule) -> _Periods:
    """Return the periods that INTERVAL counts and BYSETPOS selects from."""
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
    """Return the start of a month; beyond the calendar, the nearest end of the calendar."""
    if not MINYEAR <= year <= MAXYEAR:
        return 0 if year < MINYEAR else _END
    return date(year, month, 1).toordinal() * DAY


def settled(rule: Rule, start: int) -> Rule:
    """Return a rule with all parts of the time, and with a day if it names none.

    Args:
        rule: the parsed rule.
        start: the wall-clock time that it counts from, which supplies what it leaves open.
    """
    first, time = _date(start), start % DAY
    by, byday = dict(rule.by), rule.byday
    if not byday and by.keys().isdisjoint(_DAY_PARTS):
        if rule.freq == "WEEKLY":
            byday = ((0, first.weekday()),)
        if rule.freq in ("MONTHLY", "YEARLY"):
            by["BYMONTHDAY"] = (first.day,)
        if rule.freq == "YEARLY":
            by.setdefault("BYMONTH", (first.month,))
    hour, minute, second = time // 3600, time // 60 % 60, time % 60
    by.setdefault("BYHOUR", range(24) if rule.freq in _WITHIN_DAYS else (hour,))
    by.setdefault("BYMINUTE", range(60) if rule.freq in _WITHIN_HOURS else (minute,))
    by.setdefault("BYSECOND", range(60) if rule.freq in _WITHIN_MINUTES else (second,))
    return replace(rule, by=by, byday=byday)


class _RuleDays(Days):
    """The days that a settled rule allows."""

    def __init__(self, rule: Rule) -> None:
        self._months = frozenset(rule.by.get("BYMONTH", ()))
        self._days = frozenset(rule.by.get("BYMONTHDAY", ()))
        self._year_days = frozenset(rule.by.get("BYYEARDAY", ()))
        self._weeks = frozenset(rule.by.get("BYWEEKNO", ()))
        self._weekdays = frozenset(rule.byday)
        self._week_start = rule.week_start
        # BYDAY=2MO means the second Monday of the year only without BYMONTH.
        self._nth_of_year = rule.freq == "YEARLY" and not rule.by.get("BYMONTH")
        self._known = _known_days(
            *(self._days, self._year_days, self._weeks, self._weekdays),
            *(self._week_start, self._nth_of_year),
        )

    def in_month(self, year: int, month: int) -> Sequence[int]:
        if self._months and month not in self._months:
            return ()
        key = _kind_of(year), month
        days = self._known.get(key)
        if days is None:
            days = self._known[key] = self._matching(year, month)
        return days

    def _matching(self, year: int, month: int) -> Sequence[int]:
        # The weeks at the ends of the calendar extend beyond it.
        if year in (MINYEAR, MAXYEAR):
            year += _CALENDAR if year == MINYEAR else -_CALENDAR
        length = month_length(year, month)
        before = date(year, month, 1).toordinal() - 1
        in_month = range(before + 1, before + length + 1) if self._weeks else ()
        fourths = {day for day in {*map(self._fourth_day, in_month)} if self._is_in_week(day)}
        return [
            day
            for day in range(1, length + 1)
            if (not self._days or day in self._days or day - length - 1 in self._days)
            and (not self._weekdays or self._is_weekday(year, before + day, day, length))
            and (not self._year_days or self._is_year_day(year, before + day))
            and (not self._weeks or self._fourth_day(before + day) in fourths)
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

    def _fourth_day(self, ordinal: int) -> int:
        """Return the fourth day of a day's week; its year is the year of the week."""
        return ordinal - (ordinal - 1 - self._week_start) % 7 + 3

    def _is_in_week(self, fourth: int) -> bool:
        """Return True if the week with this fourth day is in BYWEEKNO."""
        day, length = _year_day(date.fromordinal(fourth).year, fourth)
        number = (day + 6) // 7
        weeks = number + (length - day) // 7
        return number in self._weeks or number - weeks - 1 in self._weeks


@lru_cache(maxsize=1024)
def _known_days(*by: object) -> dict[tuple[int, int], Sequence[int]]:
    """Return the cache of the days of months, by kind of year and month.

    The days of a month depend on its year's first weekday and on which years are leap years:
    there are 21 kinds of years. At worst, two threads compute the same list.
    """
    return {}


@lru_cache(maxsize=16_384)
def _kind_of(year: int) -> int:
    """Return a number that is equal for years with the same days and weeks."""
    weekday = date(year, 1, 1).weekday()
    return weekday * 4 + isleap(year) * 2 + isleap(year - 1)


def _year_day(year: int, ordinal: int) -> tuple[int, int]:
    """Return the day of the year, from 1, and the length of the year."""
    new_year = date(year, 1, 1).toordinal()
    return ordinal - new_year + 1, date(year, 12, 31).toordinal() - new_year + 1


class _Picked:
    """The members of a grid that BYSETPOS selects from each period; a `WallTimes`.

    The members of a period are numbered from 0; picks are such numbers.
    """

    _MOST_PERIODS = 100  # without a pick before the search ends

    def __init__(
        self, days: Days, times: TimesOfDay, periods: _Periods, positions: Sequence[int]
    ) -> None:
        self._days = days
        self._times = times
        self._grid = Grid(days, times)
        self._periods = periods
        self._positions = positions
        self._picks: dict[int, Sequence[int]] = {}
        # The last period; one tuple, replaced as a whole, as in `Days`.
        self._last: tuple[int | None, Sequence[int]] = (None, ())

    def first(self, low: int) -> int | None:
        """Return the smallest member that is at least `low`."""
        for _ in range(self._MOST_PERIODS):
            wall = self._grid.first(low)
            if wall is None:
                return None
            number = self._periods.number(wall)
            days, picks = self._period(number)
            index = bisect_left(picks, self._rank(days, wall))
            if index < len(picks):
                return self._at(days, picks[index])
            low = self._periods.start(number + 1)
        return None

    def last(self, high: int) -> int | None:
        """Return the largest member that is less than `high`."""
        for _ in range(self._MOST_PERIODS):
            wall = self._grid.last(high)
            if wall is None:
                return None
            number = self._periods.number(wall)
            days, picks = self._period(number)
            index = bisect_left(picks, self._rank(days, wall) + 1)
            if index:
                return self._at(days, picks[index - 1])
            high = self._periods.start(number)
        return None

    def of_a_day(self) -> Listed:
        """Return the picked times when each day is a period."""
        return Listed([self._times[pick] for pick in self._picked_of(len(self._times))])

    def days(self, number: int) -> Iterator[tuple[int, DayTimes]]:
        """Yield the days of a period with their picked times."""
        days, picks = self._period(number)
        size = len(self._times)
        if size == 1:
            yield from ((days[pick], self._times) for pick in picks)
            return
        for which, group in groupby(picks, lambda pick: pick // size):
            before = which * size
            yield days[which], Listed([self._times[pick - before] for pick in group])

    def _at(self, days: Sequence[int], pick: int) -> int:
        which, time = divmod(pick, len(self._times))
        return days[which] * DAY + self._times[time]

    def _rank(self, days: Sequence[int], wall: int) -> int:
        """Return the number of a member of the period."""
        return bisect_left(days, wall // DAY) * len(self._times) + self._times.rank(wall % DAY)

    def _period(self, number: int) -> tuple[Sequence[int], Sequence[int]]:
        """Return the days of a period, and its picks."""
        asked, days = self._last
        if asked != number:
            start, end = self._periods.start(number), self._periods.start(number + 1)
            days = self._days.within(start // DAY, end // DAY)
            self._last = number, days
        return days, self._picked_of(len(days) * len(self._times))

    def _picked_of(self, count: int) -> Sequence[int]:
        """Return the picks, ascending, in a period with `count` members."""
        if count not in self._picks:
            found = {at - 1 if at > 0 else count + at for at in self._positions}
            self._picks[count] = sorted(pick for pick in found if 0 <= pick < count)
        return self._picks[count]
