"""The coming day as a heat map: a row for each hour, a cell for each minute that is not empty."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from beatstore.store import UpcomingCounts

if TYPE_CHECKING:
    from beatstore.web.call import Call

__all__ = ["Hour", "Minute", "hours"]

#: How dark a cell is: the share of the fullest minute, up to 1, in this many steps.
_LEVELS = 4

#: The size of a cell, in units of the drawing.
CELL = 12


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute in which something is due.

    Attributes:
        x: where its cell stands.
        level: how full it is, from 1 to 4.
        text: how many due times it has, in words.
    """

    x: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Hour:
    """One row.

    Attributes:
        label: the local time at which it begins.
        total: how many due times it has.
        minutes: its cells.
    """

    label: str
    total: int
    minutes: tuple[Minute, ...]


def hours(call: Call, counts: UpcomingCounts, start: datetime) -> list[Hour]:
    """Return the 24 hours from `start`, which is a whole hour.

    Args:
        call: the request, whose zone the times are in.
        counts: how many due times each minute has.
        start: the first instant.
    """
    most = max([count for _, count in counts.counts] or [1])
    rows: list[list[Minute]] = [[] for _ in range(24)]
    totals = [0] * 24
    for at, count in counts.counts:
        hour, rest = divmod(int((at - start).total_seconds()) // 60, 60)
        if 0 <= hour < len(rows) and count:
            level = 1 + min(_LEVELS - 1, (count - 1) * _LEVELS // most)
            rows[hour].append(Minute(rest * CELL, level, f"{call.plain(at)[-5:]}: {count:,} due"))
            totals[hour] += count
    return [
        Hour(call.plain(start + timedelta(hours=number))[-5:], totals[number], tuple(cells))
        for number, cells in enumerate(rows)
    ]
