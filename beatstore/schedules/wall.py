"""From wall-clock times to instants, through every clock change.

The line of UTC is cut into pieces of constant offset. Inside a piece the wall clock
runs evenly; at its start it may have jumped. Two rules decide what is due there:

* `once=False`: every instant at which the wall clock shows a wanted time. A time in a
  gap never comes, a time in a repeated stretch comes twice.
* `once=True`: every wanted time exactly once: at its first showing, or, if the clock
  jumped over it, at the first instant after the jump. Several times jumped over are
  one occurrence.

The same holds for changes of any size, daylight saving or not. Source: the behaviour
of Debian's cron(8), without its limit of three hours.

Invariants: no aware datetimes are compared; all arithmetic is on integers, so there
is nothing to overflow; `first` and `last` are inverse to each other.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from beatstore.schedules.instants import DAY, FIRST_DAY, LAST_DAY

__all__ = ["Fires", "WallTimes"]

# In all of IANA's data two changes of one zone are never closer than 3.9 days, and no
# change is larger than a day; so a block of two days holds at most one change, and
# only the block before it can have shown a time already.
_BLOCK = 2 * DAY
_ZERO = datetime(1, 1, 1, tzinfo=timezone.utc)


class WallTimes(Protocol):
    """A set of wall-clock times, in seconds on the face of the clock."""

    def first(self, low: int) -> int | None:
        """Return the smallest member that is at least `low`."""
        ...

    def last(self, high: int) -> int | None:
        """Return the largest member that is less than `high`."""
        ...


class _Piece(NamedTuple):
    """A stretch of UTC, start <= second < end, in which the offset is constant.

    `seen` is the wall-clock time up to which the clock had got before `start`: less
    than `start + offset` after a gap, more where times are shown again.
    """

    start: int
    end: int
    offset: int
    seen: int


class Fires:
    """The instants, in seconds of UTC, at which wall-clock times are due in a zone.

    Args:
        times: the wall-clock times wanted.
        tz: where the clock hangs.
        once: the rule, as in the module's docstring.
    """

    def __init__(self, times: WallTimes, tz: ZoneInfo, *, once: bool) -> None:
        self._times = times
        self._tz = tz
        self._once = once

    def first(self, low: int) -> int | None:
        """Return the first occurrence that is not before `low`."""
        return _first(self, low)

    def last(self, high: int) -> int | None:
        """Return the last occurrence before `high`."""
        return _last(self, high)

    def _first(self, low: int) -> int | None:
        while True:
            piece = _piece(self._tz, low)
            wall = self._times.first(self._floor(piece, low))
            if wall is not None and wall < piece.end + piece.offset:
                return max(wall - piece.offset, piece.start)
            # After a day without a wanted time no change can bring an earlier one
            # back, and no offset exceeds a day: go on shortly before the next one.
            if piece.end - low < DAY:
                low = piece.end
            elif wall is None:
                return None
            else:
                low = max(piece.end, wall - DAY)

    def _last(self, high: int) -> int | None:
        while True:
            piece = _piece(self._tz, high - 1)
            wall = self._times.last(high + piece.offset)
            if wall is not None and wall >= self._floor(piece, piece.start):
                return max(wall - piece.offset, piece.start)
            if high - piece.start < DAY:
                high = piece.start
            elif wall is None:
                return None
            else:
                high = min(piece.start, wall + DAY + 1)

    def _floor(self, piece: _Piece, low: int) -> int:
        """Return the earliest wall-clock time that is due in `piece` from `low` on."""
        if not self._once:
            return low + piece.offset
        if low == piece.start:
            return piece.seen
        return max(low + piece.offset, piece.seen)


# Entries with one expression are looked at together, and ask the same questions.
_first = lru_cache(maxsize=4096)(Fires._first)
_last = lru_cache(maxsize=4096)(Fires._last)


def _piece(tz: ZoneInfo, second: int) -> _Piece:
    pieces = _pieces(tz, second // _BLOCK)
    return pieces[0] if second < pieces[0].end else pieces[1]


@lru_cache(maxsize=8192)
def _pieces(tz: ZoneInfo, block: int) -> tuple[_Piece, ...]:
    """Return the one or two pieces of a block."""
    shown = [end + offset for _, end, offset in _spans(tz, block - 1)]
    pieces = []
    for start, end, offset in _spans(tz, block):
        pieces.append(_Piece(start, end, offset, max(shown)))
        shown.append(end + offset)
    return tuple(pieces)


def _spans(tz: ZoneInfo, block: int) -> list[tuple[int, int, int]]:
    """Return (start, end, offset) of the pieces of a block."""
    start, end = block * _BLOCK, (block + 1) * _BLOCK
    before, after = _offset(tz, start), _offset(tz, end - 1)
    if before == after:
        return [(start, end, before)]
    low, high = start, end - 1
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(tz, middle) == before:
            low = middle
        else:
            high = middle
    return [(start, high, before), (high, end, after)]


def _offset(tz: ZoneInfo, second: int) -> int:
    # Within a day of either end of the calendar the local time may not exist; no zone
    # changes there, so the nearest second that has one is as good.
    second = min(max(second, (FIRST_DAY + 1) * DAY), (LAST_DAY - 1) * DAY)
    moment = _ZERO + timedelta(seconds=second - FIRST_DAY * DAY)
    shift = moment.astimezone(tz).utcoffset() or timedelta()
    return shift.days * DAY + shift.seconds
