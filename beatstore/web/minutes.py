"""The coming day as a heat map: a row for each hour, with its minutes that are not empty.

Minutes in a row that are equally full are one cell, so that a page with something due in every
minute is no larger than others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from beatstore.store.coming_load import UpcomingCounts

if TYPE_CHECKING:
    from beatstore.web.call import Call

__all__ = ["Hour", "Minutes", "hours"]

#: How dark a cell is: the share of the fullest minute, up to 1, in this many steps.
_LEVELS = 4

#: The cells of a row.
_MINUTES = 60

#: The size of a cell, in units of the drawing.
CELL = 12


@dataclass(frozen=True, slots=True)
class Minutes:
    """One or several minutes in a row that are equally full.

    Attributes:
        x: where their cell stands.
        width: how wide it is.
        level: how full they are, from 1 to 4.
        text: how many due times each has, in words.
    """

    x: int
    width: int
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
    minutes: tuple[Minutes, ...]


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
        cells = []
        for level, minutes in _alike(of_hour, most):
            at = [call.clock(begin + one * counts.step) for one in (minutes[0], minutes[-1])]
            due = of_hour[minutes[0] : minutes[-1] + 1]
            text = f"{_span(*at)}: {_span(f'{min(due):,}', f'{max(due):,}')} due"
            text += " each" if len(due) > 1 else ""
            cells.append(Minutes(minutes[0] * CELL, len(due) * CELL - 1, level, text))
        found.append(Hour(call.clock(begin), sum(of_hour), tuple(cells)))
    return found


def _alike(counts: Sequence[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the minutes in a row that are equally full, but for empty ones, with their level."""

    def level(minute: int) -> int:
        count = counts[minute]
        return 1 + min(_LEVELS - 1, (count - 1) * _LEVELS // most) if count else 0

    for known, minutes in groupby(range(len(counts)), level):
        if known:
            yield known, list(minutes)


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
