"""The ends of the calendar, where an instant has no local time in some zones."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from beatstore import Cron, Every, Once, RRule, Store
from beatstore.schedules import Schedule
from tests.support.command import Command
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.quick_on("sqlite")

UTC = timezone.utc
LATEST = datetime.max.replace(tzinfo=UTC)
NIGHT = datetime(9999, 12, 31, 23, 30, tzinfo=UTC)

RULES = {
    "once": Once(NIGHT),
    "the last microsecond": Once(LATEST),
    "cron": Cron("30 8 1 1 *"),
    "every": Every(3600, anchor=NIGHT),
    "rrule": RRule("DTSTART:99991231T233000Z FREQ=DAILY"),
}


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "UTC", "America/Los_Angeles"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_question_has_an_answer(store: Store, rule: Schedule, zone: str) -> None:
    """What is due in the last hours of the year 9999 can be looked at, in every zone."""
    timezone = None if rule.timezone else zone
    store.put("far", "t.x", rule, timezone=timezone, jitter=600, end_at=LATEST)
    found = store.preview("far", 1, start=NIGHT - timedelta(days=365))
    assert found
    assert all(at.utcoffset() is not None for at in found)
    assert str(store.explain("far"))
    for at in (NIGHT - timedelta(hours=1), NIGHT, LATEST):
        assert str(store.explain("far", at))
    assert store.upcoming(start=NIGHT - timedelta(days=1), limit=5) is not None


def test_times_without_a_local_time_are_shown_in_utc(store: Store) -> None:
    """Where the zone has no such date any more, the instant is told in UTC, and says so."""
    store.put("far", "t.x", NIGHT, timezone="Asia/Tokyo")
    assert store.preview("far", 1) == [NIGHT]
    assert store.preview("far", 1)[0].tzinfo is UTC
    assert "9999-12-31 23:30 UTC" in str(store.explain("far"))


def test_jitter_ends_with_the_calendar(store: Store) -> None:
    """Jitter that would put an occurrence off beyond the year 9999 puts it off to its end."""
    for number in range(5):
        store.put(f"far{number}", "t.x", LATEST, jitter=86_400)
    assert [one.send_at for one in store.upcoming(limit=5)] == [LATEST] * 5


@on_sqlite
def test_the_command_line_shows_it_too(migrated_url: str, store: Store) -> None:
    """`show`, `why`, `next` and `ls` work for a one-shot in the last hours of the calendar."""
    store.put("far", "t.x", NIGHT, timezone="Asia/Tokyo", jitter=86_400)
    call = Command(migrated_url, "url")
    for verb in (
        ("show", "far"),
        ("why", "far"),
        ("why", "far", "--at", "9999-12-31T23:30Z"),
        ("next", "far"),
        ("next",),
        ("list",),
    ):
        for zone in ("Asia/Tokyo", "America/Los_Angeles"):
            done = call(*verb, "--timezone", zone)
            assert done.code == 0, done.err
    done = call("why", "far", "--at", "9999-12-31T23:30", "--timezone", "America/Los_Angeles")
    assert done.code == 2
    assert "years 1 to 9999" in done.err
