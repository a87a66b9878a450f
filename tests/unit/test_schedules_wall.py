"""Time cut into pieces of constant offset, against zoneinfo asked day by day."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest

from beatstore.schedules.instants import SECOND, instant, micros
from beatstore.schedules.wall import pieces

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
