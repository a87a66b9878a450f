"""Recurrence rules of entries: what they count from, and what the error says."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest

from beatstore import InvalidEntryError, RRule, ScheduleError, Store, testing
from beatstore.testing import ManualClock, simulate

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)


@pytest.mark.parametrize("fraction", [0, 0.25])
@pytest.mark.parametrize("start", [None, 2])
def test_count_is_the_number_of_runs(fraction: float, start: int | None) -> None:
    """Without DTSTART an entry runs COUNT times from its start_at, or from its creation, on."""
    begun = NOON + timedelta(seconds=fraction)
    start_at = None if start is None else begun + start * DAY
    with closing(testing.store(begun)) as store:
        store.add("e", "t.e", RRule("FREQ=DAILY;COUNT=3"), start_at=start_at)
        simulate(store, 9 * DAY)
        runs = store.runs("e")
        assert len(runs) == 3
        assert all(run.due_at.time() == NOON.time() for run in runs)
        assert store.get("e").state == "finished"


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=DAILY;COUNT=3",
        "FREQ=DAILY;UNTIL=20260120T000000Z",
        "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29",
    ],
)
def test_the_error_names_dtstart(store: Store, clock: ManualClock, text: str) -> None:
    """A rule that the age of its entry ends, or puts out of step, is refused naming DTSTART."""
    store.add("e", "t.e", "@daily")
    clock.advance(30 * 86_400)
    with pytest.raises((InvalidEntryError, ScheduleError), match="DTSTART"):
        store.change("e", schedule=RRule(text))
    assert store.get("e").kind == "cron"
