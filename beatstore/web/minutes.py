"""The coming day as a heat map: a row for each hour, a cell for each minute that is not empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from beatstore.store.coming_load import UpcomingCounts

if TYPE_CHECKING:
    from beatstore.web.call import Call

__all__ = ["Hour", "Minute", "hours"]

#: How dark a cell is: the share of the fullest minute, up to 1, in this many steps.
_LEVELS = 4

#: The cells of a row.
_MINUTES = 60

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


def hours(call: Call, counts: UpcomingCounts) -> list[Hour]:
    """Return a row for each hour.

    Args:
        call: the request, whose zone the times are in.
        counts: how many due times each minute has; they begin at a whole hour.
    """
    most = max(counts.counts, default=0)
    found = []
    for first in range(0, len(counts.counts), _MINUTES):
        begin = counts.start + first * counts.step
        of_hour = counts.counts[first : first + _MINUTES]
        cells = [
            Minute(
                minute * CELL,
                1 + min(_LEVELS - 1, (count - 1) * _LEVELS // most),
                f"{call.plain(begin + minute * counts.step)[-5:]}: {count:,} due",
            )
            for minute, count in enumerate(of_hour)
            if count
        ]
        found.append(Hour(call.plain(begin)[-5:], sum(of_hour), tuple(cells)))
    return found
