"""A crontab that is moved over is due when django-celery-beat's own class says so."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatstore.moving.schedulers import SCHEDULERS, How, read
from tests.support.thorough import tries

tzcrontab = pytest.importorskip("django_celery_beat.tzcrontab", reason="of the group `peers`")

DAY = timedelta(days=1)
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def texts(low: int, high: int, words: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    """Make texts of one field of a crontab, as celery reads them."""
    numbers = st.integers(low, high)
    ranges = st.tuples(numbers, numbers).map(lambda ends: f"{ends[0]}-{ends[1]}")
    steps = st.tuples(st.one_of(st.just("*"), ranges), st.integers(1, high)).map(
        lambda parts: f"{parts[0]}/{parts[1]}"
    )
    one = st.one_of(numbers.map(str), ranges, steps)
    if words:
        one |= st.sampled_from(words)
    return st.just("*") | st.lists(one, min_size=1, max_size=3).map(",".join)


crontabs = st.fixed_dictionaries(
    {
        "minute": texts(0, 59),
        "hour": texts(0, 23),
        "day_of_month": texts(1, 31),
        "month_of_year": st.just("*") | texts(1, 12),
        "day_of_week": texts(0, 6, WEEKDAYS),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
    }
)
instants = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1))


def is_quiet(start: datetime, end: datetime, zone: ZoneInfo) -> bool:
    """Say whether the clock in a zone is not changed from a day before to a day after."""
    days = range(-1, (end - start).days + 3)
    return len({(start + n * DAY).astimezone(zone).utcoffset() for n in days}) == 1


@settings(max_examples=tries(200), deadline=None)
@given(fields=crontabs, naive=instants)
def test_a_crontab_is_next_due_when_they_say(fields: dict[str, str], naive: datetime) -> None:
    """Whatever celery makes of the texts, the entry is next due at the same instant."""
    at = naive.replace(tzinfo=timezone.utc)
    rows: dict[str, list[dict[str, Any]]] = {
        "tasks": [{"id": 1, "name": "one", "task": "t", "crontab_id": 1}],
        "crontab": [{"id": 1, **fields}],
    }
    found = read(next(iter(SCHEDULERS)), rows, at, How(), lambda name: None)
    zone = ZoneInfo(fields["timezone"])
    if found.refused:
        # A range that goes backwards in a field where celery does not take it, or a day that
        # no month has: there it is an error too, or never due.
        with pytest.raises((ValueError, RuntimeError)):
            theirs(fields, zone, at)
        return
    due = found.entries[0].schedule.next_after(at)
    assume(is_quiet(at, due, zone))
    assert due == at + theirs(fields, zone, at)


def theirs(fields: dict[str, str], zone: ZoneInfo, at: datetime) -> timedelta:
    """Return how long their schedule would wait."""
    parts = {name: text for name, text in fields.items() if name != "timezone"}
    crontab = tzcrontab.TzAwareCrontab(**parts, tz=zone)
    crontab.nowfun = lambda: at.astimezone(zone)
    left: timedelta = crontab.remaining_estimate(at.astimezone(zone))
    return left
