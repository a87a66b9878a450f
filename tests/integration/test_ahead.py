"""What is to come of an entry with `max_runs`, while something of it is due, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from beatstore import Every, Store
from beatstore.clock import ManualClock
from beatstore.testing import simulate
from beatstore.types import Misfire
from tests.support.written import HOUR, MINUTE, NOON

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

LATE = NOON + 35 * MINUTE


def counted(store: Store) -> list[datetime]:
    """Return the minutes to come in which something is due."""
    found = store.upcoming_counts(until=NOON + 6 * HOUR, step=60)
    return [found.start + at * MINUTE for at, count in enumerate(found.counts) if count]


def told(store: Store, name: str) -> list[datetime]:
    """Return the due times to come, after checking that all that tells them agrees."""
    preview = store.preview(name, 9)
    coming = [one.due_at for one in store.upcoming(name=name) if one.state == "ahead"]
    assert coming == preview
    assert counted(store) == preview
    assert store.explain(name).next_due_at == next(iter(preview), None)
    for minute in range(40, 100, 10):
        at = NOON + minute * MINUTE
        verdict = "future" if at in preview else "not an occurrence"
        assert store.explain(name, at).verdict == verdict
    return preview


@pytest.mark.parametrize(
    ("misfire", "left"), [("coalesce", [40, 50]), ("skip", [40, 50]), ("all", [])]
)
def test_what_is_overdue_takes_as_many_runs_as_are_sent_of_it(
    store: Store, clock: ManualClock, misfire: Misfire, left: list[int]
) -> None:
    """Of three occurrences that are overdue, the misfire policy sends one, or all that are left."""
    store.add("thrice", "t", Every(600, NOON), max_runs=3, misfire=misfire, grace=600)
    clock.set(LATE)
    expected = [NOON + minute * MINUTE for minute in left]
    assert told(store, "thrice") == expected
    ledger = simulate(store, HOUR)
    assert [row.due_at for row in ledger.sent if row.due_at > LATE] == expected


def test_what_jitter_puts_off_takes_runs(store: Store, clock: ManualClock) -> None:
    """Several occurrences that are due, and are sent later, are not left to those that follow."""
    store.add("spread", "t", Every(60, NOON), max_runs=50, jitter=3000, misfire="all")
    clock.set(LATE)
    expected = store.preview("spread", 50)
    assert len(expected) == 50 - 35
    assert counted(store) == expected
    ledger = simulate(store, 3 * HOUR)
    assert [row.due_at for row in ledger.sent if row.due_at > LATE] == expected


def test_what_jitter_puts_off_is_no_misfire(store: Store, clock: ManualClock) -> None:
    """It is late on purpose, so all of it is sent, and takes runs."""
    store.add("spread", "t", Every(600, NOON), max_runs=9, jitter=1500, misfire="skip", grace=1)
    simulate(store, 35 * MINUTE)
    assert NOON < store.upcoming(limit=1)[0].due_at < LATE
    assert counted(store) == store.preview("spread", 9)


def test_what_a_pause_left_out_takes_no_run(store: Store, clock: ManualClock) -> None:
    """After a resume all runs are left, before a beat has looked too."""
    store.add("thrice", "t", Every(600, NOON), max_runs=3)
    store.pause("thrice")
    clock.set(LATE)
    expected = [NOON + minute * MINUTE for minute in (40, 50, 60)]
    assert store.preview("thrice", 9) == expected
    store.resume("thrice")
    assert told(store, "thrice") == expected


def test_a_due_time_for_which_no_run_was_left_is_explained(
    store: Store, clock: ManualClock
) -> None:
    """Triggers used up `max_runs`, so that beat finished the entry at its next due time."""
    store.add("twice", "t", Every(600, NOON), max_runs=2)
    simulate(store, 5 * MINUTE)
    store.trigger("twice")
    store.trigger("twice")
    assert "not due any more: all its 2 runs (max_runs) were sent" in str(store.explain("twice"))
    store.add("once", "t", Every(600, NOON), max_runs=1)
    store.trigger("once")
    assert "not due any more: its only run (max_runs) was sent" in str(store.explain("once"))
    simulate(store, 10 * MINUTE)
    assert store.get("twice").state == "finished"
    for _ in range(2):
        found = store.explain("twice", NOON + 10 * MINUTE)
        assert found.verdict == "finished"
        assert "all its 2 runs were sent" in str(found)
        store.trigger("twice")  # once more
        simulate(store, 10 * MINUTE)
    clock.set(NOON + 400 * 24 * HOUR)
    assert store.explain("twice", NOON + 10 * MINUTE).verdict == "unknown"  # it may have run


@pytest.mark.parametrize("more", [3, None])
def test_a_due_time_without_a_run_is_explained_after_more_are_allowed(
    store: Store, more: int | None
) -> None:
    """Also the one at which beat finished the entry, and whatever has run since."""
    store.add("once", "t", Every(600, NOON), max_runs=1)
    store.trigger("once")
    simulate(store, 35 * MINUTE)
    store.by("ann").change("once", max_runs=more)
    for _ in range(2):
        for minute in (10, 20, 30):
            found = store.explain("once", NOON + minute * MINUTE)
            assert found.verdict == "finished"
            why = "it was finished then (max_runs was used up). ann changed it at 12:35:00."
            assert str(found).endswith(f"did not run: {why}")
        simulate(store, 20 * MINUTE)
    assert store.explain("once", NOON + 40 * MINUTE).verdict == "ran"


def test_what_jitter_puts_off_is_not_overdue(store: Store, clock: ManualClock) -> None:
    """An entry that no beat has looked at since an edit is overdue from the time of sending."""
    store.add("spread", "t", Every(600, NOON), jitter=3000)
    store.pause("spread")
    store.resume("spread")
    first = store.upcoming(limit=1)[0]
    clock.set(first.send_at - timedelta(seconds=1))
    assert store.explain("spread").overdue_since is None
    clock.set(first.send_at + 2 * MINUTE)
    assert store.explain("spread").overdue_since == first.send_at
    assert "has been overdue for 2 min:" in str(store.explain("spread", first.due_at))


def test_what_an_edit_drops_is_not_to_come(store: Store, clock: ManualClock) -> None:
    """The last occurrence was put off by jitter when the entry was resumed, and so left out."""
    store.add("last", "t", Every(600, NOON), jitter=3000, end_at=NOON + 10 * MINUTE)
    clock.set(store.upcoming(limit=1)[0].send_at - timedelta(seconds=1))
    store.pause("last")
    store.resume("last")
    assert (store.upcoming(), store.preview("last")) == ([], [])
    assert store.explain("last").next_due_at is None
    assert list(simulate(store, HOUR)) == []
