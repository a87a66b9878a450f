"""What is printed of an instant can be given back, in either form and every zone."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beatstore.schedules import zone
from beatstore.text.times import full, read, short

UTC = timezone.utc
NOW = datetime(2026, 11, 27, 19, 30, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]


def back(said: str, zone_name: str = "UTC", now: datetime = NOW) -> datetime:
    """Return the instant that is read from what was printed in a zone."""
    return read(said).instant(zone_name, lambda: now)


@settings(deadline=None)
@given(
    at=st.datetimes(datetime(1971, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC)),
    near=st.timedeltas(timedelta(days=-400), timedelta(days=400)),
    zone_name=st.sampled_from(ZONES),
)
def test_what_is_printed_is_read_back(at: datetime, near: timedelta, zone_name: str) -> None:
    """Both forms are the same instant again, to the second, wherever the year is left out."""
    tz = zone(zone_name)
    for one in (at, NOW + near):
        second = one.replace(microsecond=0)
        assert back(full(one, tz), zone_name) == second
        assert back(short(one, tz, NOW), zone_name) == second
        # Copied with what stands beside it, and read the day after.
        assert back(f"{short(one, tz, NOW)}, in 3 d", zone_name, NOW + timedelta(days=1)) == second


@pytest.mark.parametrize(
    ("at", "zone_name", "said"),
    [
        ("2026-11-27T02:00:00+00:00", "UTC", "11-27 02:00"),
        ("2026-11-27T02:00:05.999999+00:00", "UTC", "11-27 02:00:05"),
        ("2027-01-05T02:00:00+00:00", "Europe/Berlin", "01-05 03:00"),
        ("2026-03-01T02:00:00+00:00", "UTC", "2026-03-01 02:00"),
        ("2525-11-11T09:30:00+00:00", "UTC", "2525-11-11 09:30"),
        ("2026-10-25T00:30:00+00:00", "Europe/Berlin", "10-25 02:30+02:00"),
        ("2026-10-25T01:30:00+00:00", "Europe/Berlin", "10-25 02:30+01:00"),
        ("2026-10-25T02:30:00+00:00", "Europe/Berlin", "10-25 03:30"),
        ("9999-12-31T23:30:00+00:00", "Asia/Tokyo", "9999-12-31 23:30+00:00"),
    ],
)
def test_the_short_form(at: str, zone_name: str, said: str) -> None:
    """The year and the seconds stand there where they are needed, and so does the offset."""
    instant = datetime.fromisoformat(at)
    assert short(instant, zone(zone_name), NOW) == said
    assert back(said, zone_name) == instant.replace(microsecond=0)


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ("03:00", "2026-11-28T03:00:00+09:00"),
        ("03:00:30 UTC", "2026-11-27T03:00:30+00:00"),
        ("2026-11-27 02:00 Europe/Berlin (01:00 UTC)", "2026-11-27T01:00:00+00:00"),
        ("2026-11-27 02:00 UTC (03:00 Europe/Berlin)", "2026-11-27T02:00:00+00:00"),
        ("2026-11-27 02:00:00, 17 h ago", "2026-11-27T02:00:00+09:00"),
        ("11-27 02:00, now", "2026-11-27T02:00:00+09:00"),
        ("11-27T02:00:00.250Z", "2026-11-27T02:00:00.250000+00:00"),
        ("2026-11-27", "2026-11-27T00:00:00+09:00"),
        ("20261127T020000Z", "2026-11-27T02:00:00+00:00"),
    ],
)
def test_what_is_read(given: str, at: str) -> None:
    """What sentences and tables have, and ISO 8601, is read, in the zone given or named."""
    assert back(given, "Asia/Tokyo") == datetime.fromisoformat(at)


@pytest.mark.parametrize(
    "given", ["", "yesterday", "13-01 02:00", "02-30 02:00", "25:00", "2026-11-27 02:00 Nowhere"]
)
def test_what_is_no_time(given: str) -> None:
    """Anything else is refused, and so is a day or a zone that there is not."""
    with pytest.raises(ValueError, match=r".*"):
        back(given)


def test_a_time_that_is_not_there() -> None:
    """A time that the clock skips, and the 29th of February in other years, is refused."""
    with pytest.raises(ValueError, match="does not exist in"):
        back("2026-03-29 02:30", "Europe/Berlin")
    with pytest.raises(ValueError, match="with its year"):
        back("02-29 12:00")
    leap = datetime(2028, 2, 29, 12, tzinfo=UTC)
    assert back("02-29 12:00", now=leap - timedelta(days=300)) == leap
