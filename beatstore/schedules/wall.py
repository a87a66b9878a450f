"""Convert wall-clock times to instants, across every clock change.

UTC is divided into pieces of constant offset. Within a piece the wall clock runs evenly; at its
start it may jump. Two rules decide what is due:

* `once=False`: every instant at which the wall clock shows a wanted time. A time in a gap is
  skipped; a repeated time is due twice.
* `once=True`: every wanted time exactly once, the first time that the clock shows it. A time in
  a gap is due at the first instant after the gap; several times in one gap are one occurrence.

The rules hold for changes of any size, daylight saving or not. Source: the behaviour of Debian's
cron(8), without its limit of three hours.

Invariants: all arithmetic is on integers, so nothing overflows, and no aware datetimes are
compared; `first` and `last` are inverse to each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from beatstore.schedules.instants import DAY, FIRST_DAY, LAST_DAY

__all__ = ["Fires", "Piece", "WallTimes", "is_steady", "last_showing", "pieces", "showing"]

# In IANA's data, two changes of one zone are never closer than 3.9 days, and no change is
# larger than a day. So a block of three days has at most one change, and only the block
# before it can have shown one of its times.
_BLOCK = 3 * DAY
_QUARTER, _YEAR = 900, 365 * DAY
_BLOCKS = 128  # about a year, in which `pieces` looks for changes at once

# The tables of IANA's data end before; from then on, rules give two changes a year.
_FAR_BLOCK = date(2100, 1, 1).toordinal() * DAY // _BLOCK
_FAR_STEP = 8  # blocks

_ZERO = FIRST_DAY * DAY
_FIRST, _LAST = (FIRST_DAY + 1) * DAY, (LAST_DAY - 1) * DAY


class WallTimes(Protocol):
    """A set of wall-clock times, in seconds."""

    def first(self, low: int) -> int | None:
        """Return the smallest member that is at least `low`."""
        ...

    def last(self, high: int) -> int | None:
        """Return the largest member that is less than `high`."""
        ...


class Piece(NamedTuple):
    """A period of UTC, start <= second < end, with a constant offset.

    `seen` is the wall-clock time that the clock had reached before `start`: less than
    `start + offset` after a gap, more if times are repeated.
    """

    start: int
    end: int
    offset: int
    seen: int

    def floor(self, low: int, *, once: bool) -> int:
        """Return the earliest wall-clock time that is due in the piece from `low` on."""
        if not once:
            return low + self.offset
        if low == self.start:
            return self.seen
        return max(low + self.offset, self.seen)


class Fires:
    """The instants, in seconds of UTC, at which wall-clock times are due in a zone.

    Args:
        times: the wanted wall-clock times.
        tz: the time zone.
        once: the rule, see the module's docstring.
    """

    def __init__(self, times: WallTimes, tz: ZoneInfo, *, once: bool) -> None:
        self._times = times
        self._tz = tz
        self._once = once

    def first(self, low: int) -> int | None:
        """Return the first occurrence at or after `low`."""
        return _first(self, low)

    def last(self, high: int) -> int | None:
        """Return the last occurrence before `high`."""
        return _last(self, high)

    def _first(self, low: int) -> int | None:
        while True:
            piece = _piece(self._tz, low)
            wall = self._times.first(piece.floor(low, once=self._once))
            if wall is not None and wall < piece.end + piece.offset:
                return max(wall - piece.offset, piece.start)
            # After a day without a wanted time, no change can repeat an earlier one, and no
            # offset exceeds a day: continue shortly before the next one.
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
            if wall is not None and wall >= piece.floor(piece.start, once=self._once):
                return max(wall - piece.offset, piece.start)
            if high - piece.start < DAY:
                high = piece.start
            elif wall is None:
                return None
            else:
                high = min(piece.start, wall + DAY + 1)


# Beat looks at entries with the same expression together.
_first = lru_cache(maxsize=4096)(Fires._first)
_last = lru_cache(maxsize=4096)(Fires._last)


def _piece(tz: ZoneInfo, second: int) -> Piece:
    pieces = _pieces(tz, second // _BLOCK)
    return pieces[0] if second < pieces[0].end else pieces[1]


def pieces(tz: ZoneInfo, second: int) -> Iterator[Piece]:
    """Yield the pieces from the one that contains `second` to the end of the calendar.

    Long pieces are yielded in parts.
    """
    chunk = second // (_BLOCK * _BLOCKS)
    while chunk * _BLOCK * _BLOCKS <= LAST_DAY * DAY:
        for piece in _chunk(tz, chunk):
            if piece.end > second:
                yield piece
        chunk += 1


def showing(wall: int, tz: ZoneInfo) -> int:
    """Return the first instant at which the clock shows `wall`, or the end of its gap."""
    piece = _piece(tz, wall - DAY)
    while piece.end + piece.offset <= wall:
        piece = _piece(tz, piece.end)
    return max(wall - piece.offset, piece.start)


def last_showing(wall: int, tz: ZoneInfo) -> int | None:
    """Return the last instant at which the clock shows `wall`; None if it is in a gap."""
    piece = _piece(tz, wall + DAY)
    while piece.start + piece.offset > wall:
        piece = _piece(tz, piece.start - 1)
    return wall - piece.offset if wall < piece.end + piece.offset else None


def is_steady(tz: ZoneInfo, low: int, high: int, most: int) -> bool:
    """Return True if no jump ahead of more than `most` seconds lasts for a year."""
    offsets = [_offset(tz, second) for second in range(low, high + _YEAR, _YEAR)]
    return all(after - before <= most for before, after in pairwise(offsets))


@lru_cache(maxsize=4096)
def _chunk(tz: ZoneInfo, chunk: int) -> tuple[Piece, ...]:
    """Return the pieces of a chunk of blocks; look only into blocks with a change."""
    first = chunk * _BLOCKS
    last = _pieces(tz, first)[0]
    found = []
    for block in _changing(tz, first, first + _BLOCKS):
        # A change on the border is the start of the next block.
        after = _pieces(tz, block)
        for piece in after if len(after) > 1 else _pieces(tz, block + 1):
            if piece.offset != last.offset:
                found.append(last._replace(end=piece.start))
                last = piece
    found.append(last._replace(end=(first + _BLOCKS) * _BLOCK))
    return tuple(found)


def _changing(tz: ZoneInfo, low: int, high: int) -> Iterator[int]:
    """Yield the blocks with an offset change inside or at the end."""
    if tz.utcoffset(None) is not None:
        return  # a zone that never changes
    step = _FAR_STEP if high - low > _FAR_STEP and low > _FAR_BLOCK else 1
    borders = range(low, high + 1, step)
    offsets = [_offset(tz, block * _BLOCK) for block in borders]
    for block, before, after in zip(borders, offsets, offsets[1:], strict=False):
        if before != after:
            yield from (block,) if step == 1 else _changing(tz, block, block + step)


@lru_cache(maxsize=8192)
def _pieces(tz: ZoneInfo, block: int) -> tuple[Piece, ...]:
    """Return the one or two pieces of a block."""
    shown = [end + offset for _, end, offset in _spans(tz, block - 1)]
    pieces = []
    for start, end, offset in _spans(tz, block):
        pieces.append(Piece(start, end, offset, max(shown)))
        shown.append(end + offset)
    return tuple(pieces)


@lru_cache(maxsize=64)
def _spans(tz: ZoneInfo, block: int) -> list[tuple[int, int, int]]:
    """Return (start, end, offset) of the pieces of a block."""
    start, end = block * _BLOCK, (block + 1) * _BLOCK
    before, after = _offset(tz, start), _offset(tz, end - 1)
    if before == after:
        return [(start, end, before)]
    change = _change(tz, start, end - 1, before)
    return [(start, change, before), (change, end, after)]


def _change(tz: ZoneInfo, low: int, high: int, before: int) -> int:
    """Return the first second after `low` with another offset than `before`."""
    for unit in (_QUARTER, 1):  # most changes are on a quarter of an hour
        while high - low > unit:
            middle = (low + high) // 2 // unit * unit
            middle = middle if middle > low else middle + unit
            if middle >= high:
                break
            if _offset(tz, middle) == before:
                low = middle
            else:
                high = middle
        if _offset(tz, high - 1) == before:
            break
    return high


def _offset(tz: ZoneInfo, second: int) -> int:
    # Within a day of either end of the calendar, the local time may not exist. No zone
    # changes there, so the nearest second that has one has the same offset.
    second = min(max(second, _FIRST), _LAST)
    shift = tz.fromutc(_zero(tz) + timedelta(seconds=second - _ZERO)).utcoffset() or timedelta()
    return shift.days * DAY + shift.seconds


@lru_cache(maxsize=1024)
def _zero(tz: ZoneInfo) -> datetime:
    return datetime.min.replace(tzinfo=tz)
