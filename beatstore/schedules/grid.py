"""Days, times of day, and the wall-clock times that combine them.

Schedules select days by the calendar and times within the day, independently. So each is
searched separately: days month by month, times of day by bisection. No search looks further
than `HORIZON` years or enumerates the seconds of a year, so its cost is bounded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from calendar import isleap
from collections.abc import Iterable, Iterator, Sequence
from datetime import MAXYEAR, MINYEAR, date

from beatstore.schedules.instants import DAY, FIRST_DAY, LAST_DAY

__all__ = ["Days", "Grid", "TimesOfDay", "month_length"]

# The longest possible wait is 40 years: 29 February on a given weekday, across a
# year such as 2100 that is not a leap year.
HORIZON = 50

_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FEBRUARY = 2


def month_length(year: int, month: int) -> int:
    """Return the number of days in a month."""
    return _LENGTHS[month] + (month == _FEBRUARY and isleap(year))


class Days(ABC):
    """A set of days, numbered as by `date.toordinal`."""

    years: Sequence[int] | None = None
    """The years that have days, ascending; None for all years."""

    # The last question and its answer: callers that step through instants, or look at
    # many entries at once, ask for the same day again. Each is one tuple, replaced as a
    # whole, so that threads can't mix them up.
    _first: tuple[int | None, int | None] = (None, None)
    _last: tuple[int | None, int | None] = (None, None)

    @abstractmethod
    def in_month(self, year: int, month: int) -> Sequence[int]:
        """Return the days of a month that belong to the set, ascending."""

    def first(self, ordinal: int) -> int | None:
        """Return the first day of the set at or after `ordinal`."""
        asked, answer = self._first
        if asked != ordinal:
            answer = self._search(ordinal)
            self._first = ordinal, answer
        return answer

    def last(self, ordinal: int) -> int | None:
        """Return the last day of the set at or before `ordinal`."""
        asked, answer = self._last
        if asked != ordinal:
            answer = self._search_back(ordinal)
            self._last = ordinal, answer
        return answer

    def within(self, low: int, high: int) -> list[int]:
        """Return the days of the set with low <= day < high, ascending."""
        found: list[int] = []
        month, high = max(low, FIRST_DAY), min(high, LAST_DAY + 1)
        while month < high:
            start = date.fromordinal(month)
            before = month - start.day
            found += [before + day for day in self.in_month(start.year, start.month)]
            month = before + month_length(start.year, start.month) + 1
        return found[bisect_left(found, low) : bisect_left(found, high)]

    def _search(self, ordinal: int) -> int | None:
        if ordinal > LAST_DAY:
            return None
        start = date.fromordinal(max(ordinal, FIRST_DAY))
        for year in self._years(start.year, forward=True):
            same = year == start.year
            for month in range(start.month if same else 1, 13):
                low = start.day if same and month == start.month else 1
                days = self.in_month(year, month)
                if days and days[-1] >= low:
                    return date(year, month, days[bisect_left(days, low)]).toordinal()
        return None

    def _search_back(self, ordinal: int) -> int | None:
        if ordinal < FIRST_DAY:
            return None
        end = date.fromordinal(min(ordinal, LAST_DAY))
        for year in self._years(end.year, forward=False):
            same = year == end.year
            for month in range(end.month if same else 12, 0, -1):
                high = end.day if same and month == end.month else 31
                days = self.in_month(year, month)
                if days and days[0] <= high:
                    return date(year, month, days[bisect_right(days, high) - 1]).toordinal()
        return None

    def _years(self, year: int, *, forward: bool) -> Iterable[int]:
        """Return the years to search, from `year` on or back."""
        if self.years is None:
            if forward:
                return range(year, min(year + HORIZON, MAXYEAR) + 1)
            return range(year, max(year - HORIZON, MINYEAR) - 1, -1)
        if forward:
            return self.years[bisect_left(self.years, year) :]
        return self.years[: bisect_right(self.years, year)][::-1]


class TimesOfDay:
    """All combinations of hours, minutes and seconds; each is ascending and not empty.

    A time is a number of seconds since midnight by the wall clock. The set is never
    enumerated: every second of a day would be 86,400 numbers.
    """

    def __init__(
        self, hours: Sequence[int], minutes: Sequence[int], seconds: Sequence[int]
    ) -> None:
        self._hours = tuple(hours)
        self._minutes = tuple(minutes)
        self._seconds = tuple(seconds)
        self._length = len(self._hours) * len(self._minutes) * len(self._seconds)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        """Return the time that has `index` earlier ones."""
        rest, second = divmod(index, len(self._seconds))
        hour, minute = divmod(rest, len(self._minutes))
        return self._hours[hour] * 3600 + self._minutes[minute] * 60 + self._seconds[second]

    def __iter__(self) -> Iterator[int]:
        hours = (hour * 3600 for hour in self._hours)
        starts = (hour + minute * 60 for hour in hours for minute in self._minutes)
        return (start + second for start in starts for second in self._seconds)

    def marks(self) -> bytes:
        """Return one byte for each second of a day: 1 if it is in the set."""
        seconds = bytes(second in self._seconds for second in range(60))
        minutes = (seconds if minute in self._minutes else bytes(60) for minute in range(60))
        hour, nothing = b"".join(minutes), bytes(3600)
        return b"".join(hour if one in self._hours else nothing for one in range(24))

    def first(self, low: int) -> int | None:
        """Return the earliest time that is at least `low`."""
        index = self.rank(low)
        return self[index] if index < len(self) else None

    def last(self, high: int) -> int | None:
        """Return the latest time that is at most `high`."""
        index = self.rank(high + 1)
        return self[index - 1] if index else None

    def rank(self, time: int) -> int:
        """Return how many of the times are earlier than `time`."""
        minute, second = divmod(time, 60)
        hour, minute = divmod(minute, 60)
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        count = bisect_left(hours, hour)
        if count == len(hours) or hours[count] != hour:
            return count * len(minutes) * len(seconds)
        at = bisect_left(minutes, minute)
        count = count * len(minutes) + at
        if at == len(minutes) or minutes[at] != minute:
            return count * len(seconds)
        return count * len(seconds) + bisect_left(seconds, second)


class Grid:
    """The wall-clock times at the given times of the given days; a `WallTimes`."""

    def __init__(self, days: Days, times: TimesOfDay) -> None:
        self.days = days
        self.times = times

    def first(self, low: int) -> int | None:
        """Return the smallest member that is at least `low`."""
        wanted, time = divmod(low, DAY)
        day = self.days.first(wanted)
        if day == wanted:
            found = self.times.first(time)
            if found is not None:
                return day * DAY + found
            day = self.days.first(wanted + 1)
        return None if day is None else day * DAY + self.times[0]

    def last(self, high: int) -> int | None:
        """Return the largest member that is less than `high`."""
        wanted, time = divmod(high - 1, DAY)
        day = self.days.last(wanted)
        if day == wanted:
            found = self.times.last(time)
            if found is not None:
                return day * DAY + found
            day = self.days.last(wanted - 1)
        return None if day is None else day * DAY + self.times[len(self.times) - 1]
