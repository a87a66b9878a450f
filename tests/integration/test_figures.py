"""Figures about the runs of a time, on every database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from beatstore import Entry, EntryNotFoundError, InvalidEntryError, Store
from beatstore.models import RunModel
from beatstore.store import figures
from tests.support.written import DAY, HOUR, MINUTE, NOON, run, write

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]


@pytest.fixture
def entry(store: Store) -> Entry:
    """Return an entry without a run."""
    return store.add("a", "t", 60)


def test_runs_are_counted_by_step_and_state(store: Store, entry: Entry) -> None:
    """Each step has the runs due from its beginning to before its end; empty ones are there."""
    begin = NOON - HOUR
    other = store.add("b", "t", 60)
    write(
        store,
        RunModel,
        *(
            run(entry, begin + after * MINUTE, state=state)
            for after, state in enumerate(["succeeded", "failed", "succeeded", "missed"])
        ),
        run(other, begin + timedelta(minutes=19, microseconds=59_999_999), state="lost"),
        run(entry, begin + 40 * MINUTE, state="started"),
        run(entry, begin - timedelta(microseconds=1), state="failed"),
        run(entry, NOON, state="failed"),
    )
    counts = store.run_counts(since=begin, step=20 * MINUTE)
    assert [one.at for one in counts] == [begin, begin + 20 * MINUTE, begin + 40 * MINUTE]
    first = {"succeeded": 2, "failed": 1, "missed": 1, "lost": 1}
    assert [one.states for one in counts] == [first, {}, {"started": 1}]
    assert all(one.complete for one in counts)
    [whole] = store.run_counts("a", since=begin, until=NOON + MINUTE, step=DAY)
    assert whole.states == {"succeeded": 2, "failed": 2, "missed": 1, "started": 1}


def test_the_last_step_may_be_shorter(store: Store, entry: Entry) -> None:
    """A time that is no multiple of the step ends in a step that is not full."""
    write(store, RunModel, run(entry, NOON - MINUTE), run(entry, NOON + MINUTE))
    counts = store.run_counts(since=NOON - 50 * MINUTE, step=20 * 60)
    assert [sum(one.states.values()) for one in counts] == [0, 0, 1]


#: Columns of a run that was sent two minutes after its due time, and whether it was late.
LATE: dict[str, tuple[dict[str, Any], bool]] = {
    "late": ({}, True),
    "in time": ({"sent_at": NOON - HOUR + MINUTE}, False),
    "a retry": ({"attempt": 2}, False),
    "by hand": ({"reason": "triggered"}, False),
    "waited": ({"reason": "waited 2 min"}, False),
    "never sent": ({"sent_at": None, "state": "missed"}, False),
}


@pytest.mark.parametrize(("columns", "late"), LATE.values(), ids=LATE)
def test_late_runs(store: Store, entry: Entry, columns: dict[str, Any], late: bool) -> None:
    """A run counts as late if beat sent it more than a minute late, and for no other reason."""
    at = NOON - HOUR
    write(store, RunModel, run(entry, at, **{"sent_at": at + 2 * MINUTE, **columns}))
    [count] = store.run_counts(since=at, step=HOUR)
    assert count.late == late


def test_an_entry_without_a_schedule_is_not_late(store: Store, entry: Entry) -> None:
    """Its due time is that of its upstream, after whose end it is sent."""
    down = store.add("down", "t", after=["a"])
    write(store, RunModel, run(down, NOON - HOUR, sent_at=NOON))
    assert store.run_counts(since=NOON - HOUR, step=HOUR)[0].late == 0


def test_counts_that_are_not_complete_say_so(
    store: Store, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the newest runs are read, and the steps before them are marked."""
    write(store, RunModel, *(run(entry, NOON - minute * MINUTE) for minute in range(1, 61)))
    for limit, complete in ((60, [True] * 3), (30, [False, False, True]), (5, [False] * 3)):
        monkeypatch.setattr(figures, "_RUNS", limit)
        counts = store.run_counts("a", since=NOON - HOUR, step=20 * MINUTE)
        assert [one.complete for one in counts] == complete
        assert all(one.states == {"sent": 20} for one in counts if one.complete)


@pytest.mark.parametrize(
    "asked",
    [
        {"step": 0},
        {"step": 0.001},
        {"step": 1e-9},
        {"until": NOON - HOUR},
        {"until": NOON - 2 * HOUR},
        {"since": NOON.replace(tzinfo=None)},
    ],
)
def test_steps_that_cant_be_counted(store: Store, asked: dict[str, Any]) -> None:
    """No time, an endless number of steps and naive instants are refused."""
    with pytest.raises(InvalidEntryError):
        store.run_counts(**{"since": NOON - HOUR, "step": 60, **asked})
    with pytest.raises(EntryNotFoundError):
        store.run_counts("no such", since=NOON - HOUR, step=60)


#: Errors of one group each, and how the group is called.
ALIKE = {
    "TimeoutError: timeout after # s": [
        "TimeoutError: timeout after 31 s",
        "TimeoutError: timeout after 32.5 s\nsecond line",
    ],
    "KeyError: 'order-#'": ["KeyError: 'order-17'", "KeyError: 'order-9000'"],
    "E: #": ["E: 6f9619ff-8b86-d011-b42d-00c04fc964ff", "E: 0xdeadbeef", "E: 693ba2ae07", "E: 7"],
    "E: host # port #": ["E: host 10.0.0.1 port 80", "E: host 10.0.0.12 port 443"],
    "E: defaced": ["E: defaced"],
}


def test_failures_are_grouped(store: Store, entry: Entry) -> None:
    """Errors that differ in numbers and ids are one group, the largest first."""
    others = [store.add(name, "t", 60) for name in "bcd"]
    age = 0
    for errors in ALIKE.values():
        for error in errors:
            age += 1
            row = run(others[age % 3], NOON - age * MINUTE, state="failed", error=error)
            write(store, RunModel, row)
    old = run(entry, NOON - DAY - MINUTE, state="failed", error="E: too old")
    write(store, RunModel, old, run(entry, NOON - MINUTE, state="succeeded"))
    found = store.failures(since=NOON - DAY)
    assert {one.error: one.count for one in found} == {
        error: len(errors) for error, errors in ALIKE.items()
    }
    assert not found.more
    first = found[0]
    assert (first.error, first.names, first.due_at) == ("E: #", ("d", "b", "c"), NOON - 5 * MINUTE)
    assert store.run(first.run_id).run.error == ALIKE["E: #"][0]
    assert [one.error for one in store.failures("a", since=NOON - 2 * DAY)] == ["E: too old"]
    assert store.failures("a", since=NOON - DAY) == []


def test_a_lost_run_has_its_reason(store: Store, entry: Entry) -> None:
    """A run without an error is grouped by its reason, or else by its state."""
    reason = "no report for 30 s"
    write(store, RunModel, run(entry, NOON - MINUTE, state="lost", reason=reason))
    write(store, RunModel, run(entry, NOON - 2 * MINUTE, state="lost"))
    assert [one.error for one in store.failures(since=NOON - HOUR)] == ["no report for # s", "lost"]


def test_failures_that_were_left_out(
    store: Store, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups beyond the limit and runs that were not read are told of."""
    rows = [run(entry, NOON - n * MINUTE, state="failed", error="ABC"[n % 3]) for n in range(1, 7)]
    write(store, RunModel, *rows)
    since = NOON - HOUR
    assert not store.failures(since=since).more
    assert store.failures(since=since, limit=2).more
    monkeypatch.setattr(figures, "_RUNS", 4)
    assert store.failures(since=since).more
    # The fifth says that there is more to read.
    assert sum(one.count for one in store.failures(since=since)) == 5
    monkeypatch.setattr(figures, "_FAILURES", 2)
    assert sum(one.count for one in store.failures("a", since=since)) == 2


def test_runs_whose_ids_say_nothing_of_their_time(store: Store, entry: Entry) -> None:
    """They are counted alike, wherever they are stored: new ones first, or far from each other."""
    rows = [run(entry, NOON - n * MINUTE, state="failed", error="E") for n in range(1, 30)]
    write(store, RunModel, *rows)
    first = [one.states for one in store.run_counts(since=NOON - HOUR, step=MINUTE)]
    assert sum(states.get("failed", 0) for states in first) == 29
    assert store.failures(since=NOON - HOUR)[0].count == 29
    # The oldest run gets an id far from all others.
    old = run(entry, NOON - 31 * MINUTE, state="failed", error="E") | {"id": 1_000_000}
    write(store, RunModel, old)
    again = [one.states for one in store.run_counts(since=NOON - HOUR, step=MINUTE)]
    assert sum(states.get("failed", 0) for states in again) == 30
    assert store.failures(since=NOON - HOUR)[0].count == 30
    [few] = store.run_counts(since=NOON - 10 * MINUTE, until=NOON - 5 * MINUTE, step=5 * MINUTE)
    assert few.states == {"failed": 5}


def test_runs_due_at_the_same_instant_are_all_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More runs than are read, due at midnight: the step says that it is not complete."""
    monkeypatch.setattr(figures, "_RUNS", 4)
    entries = [store.add(f"n{number}", "t", 60) for number in range(8)]
    write(store, RunModel, *(run(one, NOON - 2 * MINUTE, state="succeeded") for one in entries))
    write(store, RunModel, run(entries[0], NOON - MINUTE, state="failed", error="E"))
    [before, after] = store.run_counts(since=NOON - 2 * MINUTE, step=MINUTE)
    assert after.states == {"failed": 1}
    assert after.complete
    assert not before.complete
    assert 4 <= before.states["succeeded"] <= 8
    assert store.failures(since=NOON - HOUR).more
