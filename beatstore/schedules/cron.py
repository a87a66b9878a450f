"""Cron expressions, evaluated in a time zone.

`crontext.py` parses the expression, `grid.py` finds the wall-clock times that match, and
`wall.py` converts them to instants. croniter's own iteration is not used: it differs from cron
when clocks change, and can take seconds to cross a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import ClassVar

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule, WallSchedule
from beatstore.schedules.crontext import CronFields, read_cron, split_cron
from beatstore.schedules.grid import Days, Grid, TimesOfDay, month_length
from beatstore.schedules.wall import Fires
from beatstore.schedules.zones import zone

__all__ = ["Cron", "fields_of"]

_SUNDAY, _SATURDAY = 0, 6
_BOTH_DAYS = " days=and"


@dataclass(frozen=True, init=False)
class Cron(WallSchedule):
    """Due when the wall clock in a zone shows a time that matches a cron expression.

    Five fields: minute, hour, day of month, month, day of week. A sixth field is the
    **second**; it comes last, not first as in Quartz: "0 0 12 * * *" is every second of
    the first minute of the 12th. A seventh field is the year. Names, lists,
    ranges, steps, L, #, W, ? and @aliases work as in croniter, but of two day fields either
    is enough with L, # and W too.

    When clocks change, an expression whose minute or hour starts with a star follows the
    clock: it skips the times in a gap, and is due twice at repeated times. Any other is due
    once for each time: right after a gap that contains it, and in the first pass of a
    repeated hour.

    Args:
        expression: the expression; any white space separates the fields.
        timezone: IANA name; None means the caller's default, or UTC if there is none.
        day_or: when neither day field starts with a star, True requires one of them to match
            (as cron does), False both.

    Raises:
        ScheduleError: the expression is invalid or never matches, or the time zone is
            unknown.
    """

    kind: ClassVar[str] = "cron"

    expression: str
    timezone: str | None = None
    day_or: bool = True

    def __init__(
        self, expression: str, timezone: str | None = None, *, day_or: bool = True
    ) -> None:
        text = " ".join(split_cron(expression))
        if not isinstance(day_or, bool):
            raise ScheduleError(
                "day_or", day_or, "a bool", "day_or=False to require both day fields"
            )
        times = _times(text, day_or)
        tz = zone("UTC" if timezone is None else timezone)
        fires = Fires(times.grid, tz, once=times.fields.once)
        vars(self).update(expression=text, timezone=timezone, day_or=day_or, _fires=fires)

    @property
    def spec(self) -> str:
        """The expression, followed by " days=and" if `day_or` is False."""
        return self.expression if self.day_or else self.expression + _BOTH_DAYS

    def in_zone(self, timezone: str | None) -> Schedule:
        """Return this schedule in `timezone`, unless it names its own zone."""
        if self.timezone is not None or timezone is None:
            return self
        return Cron(self.expression, timezone, day_or=self.day_or)

    @classmethod
    def parse(cls, spec: str, timezone: str | None = None) -> Cron:
        """Parse an expression, optionally followed by " days=and"."""
        text = spec.strip()
        expression = text.removesuffix(_BOTH_DAYS)
        return cls(expression, timezone, day_or=expression == text)


@dataclass(frozen=True)
class _Times:
    grid: Grid
    fields: CronFields


@lru_cache(maxsize=4096)
def _times(expression: str, day_or: bool) -> _Times:
    """Return the wall-clock times of an expression, cached for all zones and entries."""
    fields = read_cron(expression, day_or=day_or)
    days = _CronDays(fields)
    if not days.exist():
        wanted = "a date that exists"
        raise ScheduleError("expression", expression, wanted, '"0 0 L 2 *" for the end of February')
    times = TimesOfDay(fields.hours, fields.minutes, fields.seconds)
    return _Times(Grid(days, times), fields)


def fields_of(schedule: Cron) -> CronFields:
    """Return the sets of numbers in the expression of a schedule."""
    return _times(schedule.expression, schedule.day_or).fields


class _CronDays(Days):
    """The days that match a cron expression.

    The matching days of a month depend only on its first weekday and its length, so 28 short
    lists hold all of them. Each is computed on first use; at worst, two threads compute the
    same list.
    """

    def __init__(self, fields: CronFields) -> None:
        self.years = fields.years
        self._fields = fields
        self._known: dict[tuple[int, int], Sequence[int]] = {}

    def exist(self) -> bool:
        """Return whether any day matches; 28 years contain every kind of month."""
        years = range(2000, 2028) if self.years is None else self.years
        return any(self.in_month(year, month) for year in years for month in range(1, 13))

    def in_month(self, year: int, month: int) -> Sequence[int]:
        if month not in self._fields.months:
            return ()
        key = date(year, month, 1).isoweekday() % 7, month_length(year, month)
        if key not in self._known:
            self._known[key] = self._matching(*key)
        return self._known[key]

    def _matching(self, first: int, length: int) -> Sequence[int]:
        """Return the days of a month whose 1st is weekday `first`, counted from Sunday."""
        by_date = self._by_date(first, length)
        by_weekday = self._by_weekday(first, length)
        return tuple(sorted(by_date | by_weekday if self._fields.union else by_date & by_weekday))

    def _by_date(self, first: int, length: int) -> set[int]:
        if self._fields.nearest_weekday is not None:
            return {_nearest_weekday(self._fields.nearest_weekday, first, length)}
        days = {day for day in self._fields.days if day <= length}
        return days | {length} if self._fields.last_day else days

    def _by_weekday(self, first: int, length: int) -> set[int]:
        days = range(1, length + 1)
        nth = self._fields.nth
        if not nth:
            return {day for day in days if (first + day - 1) % 7 in self._fields.weekdays}
        return {
            day
            for day in days
            for which in nth.get((first + day - 1) % 7, ())
            if which == (day + 6) // 7 or (which == "l" and day + 7 > length)
        }


def _nearest_weekday(day: int, first: int, length: int) -> int:
    """Return the day from Monday to Friday nearest to `day` in the same month."""
    day = min(day, length)
    weekday = (first + day - 1) % 7
    if weekday == _SUNDAY:
        return day + 1 if day < length else day - 2
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    return day
