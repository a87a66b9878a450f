"""Intervals of elapsed time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from beatstore.errors import ScheduleError
from beatstore.schedules.base import Schedule
from beatstore.schedules.instants import DAY, EPOCH, SECOND, instant, micros
from beatstore.schedules.once import read_instant

__all__ = ["Every", "origin_of", "period_in_words"]

_SHORTEST = SECOND // 10
_LONGEST = 36_525 * DAY * SECOND  # a hundred years
_WHOLE = re.compile(r"\d{1,10}", re.ASCII)
_UNITS = (("d", DAY), ("h", 3600), ("min", 60), ("s", 1))
_SPEC = re.compile(r"(?P<seconds>\d{1,10}(?:\.\d{1,6})?)(?:\s+from\s+(?P<anchor>\S.*))?", re.ASCII)


@dataclass(frozen=True, init=False)
class Every(Schedule):
    """Due at the anchor, at anchor + seconds, anchor + 2 * seconds, and so on.

    The phase does not depend on past runs, so it survives restarts. It is not due before the
    anchor; an entry anchored to its own creation is not due at that instant either. A day is
    86,400 seconds even when clocks change; for "every day at nine" use `daily` or `Cron`.

    Args:
        seconds: the period, from 0.1 seconds to a hundred years, in whole microseconds.
        anchor: an aware datetime. None means the anchor of the entry that stores it, and
            1970-01-01 UTC outside an entry.

    Raises:
        ScheduleError: the period is out of range, or the anchor is naive.
    """

    kind: ClassVar[str] = "every"

    seconds: float
    anchor: datetime | None
    _period: int = field(repr=False)
    _origin: int = field(repr=False)

    def __init__(self, seconds: float | timedelta, anchor: datetime | None = None) -> None:
        period = _period(seconds)
        whole, rest = divmod(period, SECOND)
        origin = micros("anchor", EPOCH if anchor is None else anchor)
        utc = instant(origin)
        if utc is None:
            raise ScheduleError("anchor", anchor, "an instant in the years 1 to 9999 in UTC")
        vars(self).update(
            seconds=period / SECOND if rest else whole,
            anchor=None if anchor is None else utc,
            _period=period,
            _origin=origin,
        )

    @property
    def spec(self) -> str:
        """The period in seconds, followed by "from" and the anchor if it has one."""
        whole, rest = divmod(self._period, SECOND)
        text = f"{whole}.{rest:06}".rstrip("0") if rest else str(whole)
        return text if self.anchor is None else f"{text} from {self.anchor.isoformat()}"

    def _after(self, count: int) -> int | None:
        steps = (count - self._origin) // self._period + 1
        return self._origin + self._period * max(steps, 0)

    def _before(self, count: int) -> int | None:
        steps = (count - 1 - self._origin) // self._period
        return self._origin + self._period * steps if steps >= 0 else None

    def anchored(self, at: datetime) -> Every:
        """Return this schedule counted from `at`, unless it names its own anchor.

        The spec does not change: the anchor belongs to the entry.
        """
        if self.anchor is not None:
            return self
        other = Every(self.seconds)
        vars(other).update(_origin=micros("anchor", at))
        return other

    @classmethod
    def parse(cls, spec: str) -> Every:
        """Parse "300", "0.5" or "300 from 2026-01-01T00:00:00+00:00"."""
        match = _SPEC.fullmatch(spec.strip())
        if match is None:
            wanted = 'seconds with at most 6 decimals, optionally followed by "from" and an instant'
            write = '"300" or "300 from 2026-01-31T09:00:00+00:00"'
            raise ScheduleError("spec", spec, wanted, write)
        whole, _, decimals = match["seconds"].partition(".")
        micro = int(whole) * SECOND + int(decimals.ljust(6, "0") or 0)
        anchor = match["anchor"]
        return cls(timedelta(microseconds=micro), read_instant("spec", anchor) if anchor else None)


def origin_of(schedule: Every) -> datetime | None:
    """Return what a schedule counts from; None if that is neither given nor an entry's."""
    unknown = schedule.anchor is None and schedule._origin == micros("anchor", EPOCH)
    return None if unknown else instant(schedule._origin)


def period_in_words(seconds: str) -> str:
    """Return the seconds of a spec in words, exactly: "1 h", "1 min 30 s", "0.5 s"."""
    if _WHOLE.fullmatch(seconds) is None or not int(seconds):
        return f"{seconds} s"
    left = int(seconds)
    parts = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count:,} {unit}")
    return " ".join(parts)


def _period(seconds: float | timedelta) -> int:
    """Return the period in microseconds."""
    period = -1
    if isinstance(seconds, timedelta):
        period = seconds // timedelta(microseconds=1)
    elif isinstance(seconds, int) and not isinstance(seconds, bool):
        period = seconds * SECOND
    elif isinstance(seconds, float) and math.isfinite(seconds * SECOND):
        period = round(seconds * SECOND)
    if not _SHORTEST <= period <= _LONGEST:
        wanted = "seconds from 0.1 to 3155760000 (a hundred years), or such a timedelta"
        raise ScheduleError("seconds", seconds, wanted, "300")
    return period
