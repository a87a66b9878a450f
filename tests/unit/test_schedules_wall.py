"""Time cut into pieces of constant offset, against zoneinfo asked day by day."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from beatstore.schedules.instants import SECOND, instant, micros
from beatstore.schedules.wall import last_showing, pieces, showing

UTC = timezone.utc


def seconds(year: int) -> int:
    """Return the start of a year in seconds of UTC."""
    return micros("at", datetime(year, 1, 1, tzinfo=UTC)) // SECOND


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("UTC", 2020, 2030),
        ("Europe/Berlin", 2094, 2112),
        ("Europe/Dublin", 2020, 2026),
        ("Australia/Lord_Howe", 2098, 2106),
        ("Africa/Casablanca", 2025, 2030),
        ("Asia/Gaza", 2038, 2042),
        ("Asia/Gaza", 2098, 2106),
        ("America/Recife", 1999, 2003),
        ("Pacific/Apia", 2010, 2014),
        ("Africa/Monrovia", 1970, 1974),
        ("America/Scoresbysund", 2022, 2026),
    ],
)
def test_pieces_are_what_zoneinfo_says(name: str, first: int, last: int) -> None:
    """The pieces follow each other without a hole, and have the offset of each of their days."""
    tz = ZoneInfo(name)
    end = seconds(last)
    found = list(takewhile(lambda piece: piece.start < end, pieces(tz, seconds(first))))
    assert found[0].start <= seconds(first) < found[0].end
    assert found[-1].end >= end
    for before, after in pairwise(found):
        assert before.end == after.start
        assert after.seen >= min(before.end + before.offset, after.start + after.offset)
    for piece in found:
        edges = range(piece.start, piece.end - 1, 86_400)
        for second in (*edges, piece.end - 1):
            at = instant(second * SECOND)
            assert at is not None
            assert at.astimezone(tz).utcoffset() == timedelta(seconds=piece.offset)


@pytest.mark.parametrize(
    ("name", "wall", "first", "last"),
    [
        ("Europe/Berlin", "2026-06-01T12:00", "2026-06-01T10:00", "2026-06-01T10:00"),
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30", "2026-10-25T01:30"),
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:00", None),
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00", "2026-03-29T01:00"),
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45", "2026-04-04T15:15"),
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00", None),
        ("Pacific/Kwajalein", "1969-09-30T12:00", "1969-09-30T01:00", "1969-10-01T00:00"),
    ],
)
def test_when_a_clock_shows_a_time(name: str, wall: str, first: str, last: str | None) -> None:
    """A time has a first and a last showing; in a gap it has none, and counts at the gap's end."""

    def counted(text: str) -> int:
        return micros("at", datetime.fromisoformat(text).replace(tzinfo=UTC)) // SECOND

    tz = ZoneInfo(name)
    assert showing(counted(wall), tz) == counted(first)
    assert last_showing(counted(wall), tz) == (None if last is None else counted(last))
