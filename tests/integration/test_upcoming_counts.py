"""How many occurrences are due in each minute to come, on every database."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from beatstore import Cron, Every, InvalidEntryError, Once, RRule, Store
from beatstore.clock import ManualClock
from beatstore.models import EntryModel
from beatstore.rules.due import LATEST
from beatstore.store import coming_load
from tests.support.written import DAY, HOUR, MINUTE, NOON, alter, write

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]

#: Schedules of all kinds, with bounds, each for some entries.
SCHEDULES: list[tuple[Any, dict[str, Any]]] = [
    (Cron("*/7 * * * *"), {}),
    (Cron("30 9 * * *", "Asia/Tokyo"), {}),
    (Cron("30 9 * * *"), {"timezone": "Asia/Kolkata"}),
    (Cron("* * * * * */20"), {"end_at": NOON + 90 * MINUTE}),
    (Every(0.5), {"end_at": NOON + 3 * MINUTE}),
    (Every(17.3, NOON - DAY), {}),
    (Every(600), {"start_at": NOON + 45 * MINUTE}),
    (Every(60), {}),
    (Every(45), {"max_runs": 3}),
    (Every(7 * 3600), {"jitter": 30}),
    (RRule("FREQ=MINUTELY;INTERVAL=11"), {}),
    (Once(NOON + 61 * MINUTE), {}),
    (Once(NOON + 3 * DAY), {}),
]


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a loaded machine take its time."""
    monkeypatch.setattr(coming_load, "_BUDGET", 60)


def due_times(store: Store, until: datetime) -> Counter[datetime]:
    """Return the minutes in which something is due, one entry after another."""
    found: Counter[datetime] = Counter()
    for entry in store.entries(state="active", limit=1000):
        times = store.preview(entry.name, 10_000, NOON)
        found.update(at.replace(second=0, microsecond=0) for at in times if at < until)
    return found


@pytest.mark.usefixtures("budget")
def test_all_schedules_are_counted(store: Store, clock: ManualClock) -> None:
    """Each minute has as many occurrences as the entries' own previews."""
    for number, (schedule, options) in enumerate(SCHEDULES):
        for copy in range(number % 3 + 1):
            store.add(f"{number} {copy}", "t", schedule, **options)
        clock.advance(7)
    clock.set(NOON)
    store.add("paused", "t", 60, paused=True)
    store.add("after", "t", after=["0 0"])
    until = NOON + 8 * HOUR
    found = store.upcoming_counts(until=until)
    expected = due_times(store, until)
    assert found.start == NOON
    assert found.step == MINUTE
    assert {NOON + at * MINUTE: count for at, count in enumerate(found.counts) if count} == dict(
        expected
    )
    assert len(found.counts) == 8 * 60
    assert not found.cut
    assert [count for _, count in found.fullest] == [count for _, count in expected.most_common(5)]
    assert all(expected[at] == count for at, count in found.fullest)
    hours = store.upcoming_counts(start=NOON, until=until, step=HOUR)
    assert sum(hours.counts) == sum(found.counts)
    assert hours.counts[0] == sum(found.counts[:60])


def test_nothing_is_due(store: Store) -> None:
    """Without entries every minute is empty, and none is the fullest."""
    found = store.upcoming_counts(until=NOON + 90 * MINUTE + timedelta(seconds=1))
    assert found.counts == (0,) * 91
    assert (found.fullest, found.entries, found.left_out, found.cut) == ((), 0, 0, False)


def test_what_is_left_out_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most frequent schedules come first, and the entries beyond the limits are counted."""
    for name in "abcd":
        store.add(name, "t", Cron("0 13 * * *" if name != "d" else "0 14 * * *"))
    monkeypatch.setattr(coming_load, "_SCHEDULES", 1)
    found = store.upcoming_counts(until=NOON + DAY)
    assert (sum(found.counts), found.entries, found.left_out, found.cut) == (3, 3, 1, True)
    assert found.fullest == ((NOON + HOUR, 3),)
    monkeypatch.setattr(coming_load, "_BUDGET", -1)
    found = store.upcoming_counts(until=NOON + DAY)
    assert (sum(found.counts), found.entries, found.left_out) == (0, 0, 4)


def test_a_schedule_without_end_is_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that takes too long is left out as a whole."""
    store.add("a", "t", Cron("* * * * * *"))
    monkeypatch.setattr(coming_load, "_BUDGET", 0.0005)
    monkeypatch.setattr(coming_load, "_PAGE", 10)
    found = store.upcoming_counts(until=NOON + DAY)
    assert (sum(found.counts), found.left_out) == (0, 1)


@pytest.mark.usefixtures("budget")
def test_a_sample_stands_for_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If too many entries may be due, some are read, and the numbers are near the true ones."""
    made = {"task": "t", "kind": "cron", "created_at": NOON - HOUR, "wake_at": NOON + HOUR}
    specs = {"0 13 * * *": 900, "30 13 * * *": 300}
    for spec, count in specs.items():
        rows = ({"name": f"{spec} {n}", "spec": spec, **made} for n in range(count))
        write(store, EntryModel, *rows)
    write(store, EntryModel, {**made, "name": "far", "spec": "0 9 * * *", "wake_at": NOON + DAY})
    asked = {"until": NOON + 3 * HOUR, "step": 30 * MINUTE}
    exact = store.upcoming_counts(**asked)
    assert (exact.counts, exact.entries, exact.share) == ((0, 0, 900, 300, 0, 0), 1200, 1)
    monkeypatch.setattr(coming_load, "_SAMPLE", 400)
    found = store.upcoming_counts(**asked)
    assert found.share == pytest.approx(1 / 3, abs=0.01)
    assert found.counts[2] == pytest.approx(900, rel=0.15)
    assert found.counts[3] == pytest.approx(300, rel=0.25)
    assert found.entries == pytest.approx(1200, rel=0.1)
    assert (found.left_out, found.counts[:2], found.counts[4:]) == (0, (0, 0), (0, 0))


@pytest.mark.usefixtures("budget")
def test_a_broken_row_harms_nobody(store: Store) -> None:
    """A schedule that can't be read has no occurrences, and the others are counted."""
    store.add("good", "t", Cron("0 13 * * *"))
    made = {"task": "t", "kind": "cron", "created_at": NOON - HOUR}
    write(store, EntryModel, {"name": "bad", "spec": "no cron", **made})
    store.add("odd", "t", 60)
    alter(store, "odd", spec="no number", wake_at=NOON)
    assert sum(store.upcoming_counts(until=NOON + DAY).counts) == 1


@pytest.mark.parametrize(
    "asked", [{"until": NOON}, {"step": 0}, {"step": 1}, {"start": NOON + 2 * DAY}]
)
def test_steps_that_cant_be_counted(store: Store, asked: dict[str, Any]) -> None:
    """No time, and more steps than a page can show, are refused."""
    with pytest.raises(InvalidEntryError):
        store.upcoming_counts(**{"until": NOON + DAY, **asked})


@pytest.mark.usefixtures("budget")
@pytest.mark.by_turns("backend")
@pytest.mark.parametrize("seconds", [7, 60, 420, 3600, 5400, 86_400])
def test_intervals_of_entries_that_were_added_one_by_one(
    store: Store, clock: ManualClock, seconds: int
) -> None:
    """Each counts from its own creation, to the microsecond; together they are exact."""
    clock.set(NOON - DAY - timedelta(seconds=3, microseconds=250_000))
    for number in range(40):
        store.add(f"{number}", "t", Every(seconds))
        clock.advance(61.7)
    store.add("later", "t", Every(seconds), start_at=NOON + HOUR)
    clock.set(NOON)
    until = NOON + 9 * HOUR
    times: list[datetime] = []
    for entry in store.entries():
        of_entry = store.preview(entry.name, 9 * 3600 // seconds + 2, NOON)
        alter(store, entry.name, wake_at=of_entry[0])
        times += [at for at in of_entry if at < until]
    for step in (MINUTE, 7 * MINUTE, 90 * MINUTE):
        expected = Counter((at - NOON) // step for at in times)
        found = store.upcoming_counts(until=until, step=step)
        assert {at: count for at, count in enumerate(found.counts) if count} == dict(expected)
        assert found.left_out == 0


@pytest.mark.usefixtures("budget")
def test_intervals_that_are_alike_are_counted_together(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many entries share an interval, there is one group for each step of it."""
    clock.set(NOON - DAY)
    for number in range(50):
        store.add(f"{number}", "t", Every(3600))
        clock.advance(130.5)
    clock.set(NOON)
    for entry in store.entries():
        alter(store, entry.name, wake_at=store.preview(entry.name, 1)[0])
    monkeypatch.setattr(coming_load, "_SCHEDULES", 3)
    found = store.upcoming_counts(until=NOON + 12 * HOUR, step=30 * MINUTE)
    assert (sum(found.counts), found.entries, found.left_out) == (600, 50, 0)


def test_what_is_due_later_is_not_computed(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither counted nor left out: beat has found that it is due after the time in question."""
    for number in range(5):
        store.add(f"far {number}", "t", Cron(f"{number} 0 1 7 *"))
        alter(store, f"far {number}", wake_at=NOON + 160 * DAY)
    store.add("near", "t", Cron("0 13 * * *"))
    store.add("spread", "t", Cron("55 14 * * *"), jitter=1800)
    alter(store, "spread", wake_at=NOON + 3 * HOUR + 20 * MINUTE)
    monkeypatch.setattr(coming_load, "_SCHEDULES", 2)
    found = store.upcoming_counts(until=NOON + 3 * HOUR)
    assert (sum(found.counts), found.entries, found.left_out) == (2, 2, 0)


def test_the_end_of_the_calendar(store: Store) -> None:
    """The last hour there is can be asked for, too."""
    end = LATEST
    store.add("last", "t", Once(end - MINUTE), jitter=30)
    found = store.upcoming_counts(start=end - HOUR, until=end, step=1800)
    assert [*found.counts] == [0, 1]
