"""Find where COUNT ends a recurrence rule.

COUNT counts occurrences, so clock changes matter: a repeated hour repeats the occurrences of an
hourly rule, and a gap skips occurrences or merges them into one. So this module numbers the
times day by day, and walks the pieces of constant offset until it reaches the number. It never
walks time by time.

If no gap can contain two of the times, each is due once, and the days alone tell the last one.

Invariant: a search looks at no more than `_MOST_DAYS` days, within four centuries if the days
suffice, else within one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol
from zoneinfo import ZoneInfo

from beatstore.schedules.instants import DAY, LAST_DAY
from beatstore.schedules.wall import is_steady, pieces, showing

__all__ = ["DayTimes", "Listed", "end_of_count"]

_MOST_DAYS = 40_000
_WIDEST = 6 * 3600  # no gap is wider, but where a place changes sides of the date line
_END = (LAST_DAY + 1) * DAY


class DayTimes(Protocol):
    """The times of a day, ascending, in seconds since midnight."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> int:
        """Return the time that has `index` earlier ones."""
        ...

    def __iter__(self) -> Iterator[int]: ...

    def rank(self, time: int) -> int:
        """Return how many of the times are earlier than `time`."""
        ...


class Listed:
    """An ascending list of numbers, as a `WallTimes` and as the times of a day."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> int:
        return self._numbers[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def rank(self, number: int) -> int:
        """Return how many of the numbers are less than `number`."""
        return bisect_left(self._numbers, number)

    def first(self, low: int) -> int | None:
        """Return the smallest number that is at least `low`."""
        index = self.rank(low)
        return self._numbers[index] if index < len(self._numbers) else None

    def last(self, high: int) -> int | None:
        """Return the largest number that is less than `high`."""
        index = self.rank(high)
        return self._numbers[index - 1] if index else None


def _are_far_apart(walls: Iterable[int]) -> bool:
    return all(after - before > _WIDEST for before, after in pairwise(walls))


class _Numbered:
    """The wall-clock times of a rule, numbered from its first day."""

    def __init__(self, days: Iterator[tuple[int, DayTimes]]) -> None:
        self._left = days
        self._days: list[int] = []
        self._times: list[DayTimes] = []
        self._before: list[int] = [0]  # how many times come before each day, and in total
        self.over = False

    def rank(self, wall: int, most: int | None = None) -> int:
        """Return how many times are earlier than `wall`; stop counting at `most`."""
        day, time = divmod(wall, DAY)
        while not self.over and (not self._days or self._days[-1] < day):
            if most is not None and self._before[-1] >= most:
                break
            self._read_day()
        index = bisect_left(self._days, day)
        if index < len(self._days) and self._days[index] == day:
            return self._before[index] + self._times[index].rank(time)
        return self._before[index]

    def _read_day(self) -> None:
        day, times = next(self._left, (None, None))
        if day is None or times is None or len(self._days) == _MOST_DAYS:
            self.over = True
            return
        self._days.append(day)
        self._times.append(times)
        self._before.append(self._before[-1] + len(times))

    def far_apart(self) -> bool:
        """Return True if the times are always more than `_WIDEST` seconds apart."""
        if len(set(map(id, self._times))) == 1:  # every day has the same times
            return _are_far_apart(day + time for day in (0, DAY) for time in self._times[0])
        days = zip(self._days, self._times, strict=True)
        return _are_far_apart(day * DAY + time for day, times in days for time in times)

    def at(self, number: int) -> int:
        """Return the wall-clock time with a number, counted from 1, that `rank` has reached."""
        index = bisect_right(self._before, number - 1) - 1
        return self._days[index] * DAY + self._times[index][number - 1 - self._before[index]]


def end_of_count(
    days: Iterator[tuple[int, DayTimes]],
    tz: ZoneInfo,
    count: int,
    *,
    start: int,
    first: int,
    once: bool,
) -> int | None:
    """Return the instant of occurrence number `count`; None if it is too far away.

    Args:
        days: the days of the rule from its start, each with at least one time.
        tz: the time zone.
        count: the number, counted from 1.
        start: the instant at which the rule starts.
        first: the earliest wall-clock time that belongs to it.
        once: the rule for clock changes, see `wall.py`.
    """
    numbered = _Numbered(days)
    floor = next(pieces(tz, start)).floor(start, once=once)
    number = numbered.rank(max(floor, first)) + count
    if numbered.rank(_END, number) < number:
        return None
    if once and numbered.far_apart():
        last = numbered.at(number)
        if is_steady(tz, start, last, _WIDEST // 2):
            return showing(last, tz)
    for piece in pieces(tz, start):
        if piece.start > start + _MOST_DAYS * DAY:
            return None
        begun = max(start, piece.start)
        floor = max(piece.floor(begun, once=once), first)
        passed = numbered.rank(floor)
        # All times in a gap are due together, right after it.
        shown = begun + piece.offset
        if once and floor < shown:
            passed += max(0, numbered.rank(shown + 1) - passed - 1)
        here = numbered.rank(piece.end + piece.offset, passed + count) - passed
        if here >= count:
            return max(numbered.at(passed + count) - piece.offset, begun)
        if numbered.over:
            return None
        count -= here
    return None
