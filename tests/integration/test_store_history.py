"""What happened and how things stand, on every database: runs, status, clearing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, insert, select

from beatstore import Once, Store
from beatstore.clock import ManualClock
from beatstore.config import Settings
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from beatstore.models import Beat, Dependency, Entry, Run, Tag
from beatstore.store import history
from beatstore.store.claims import BeatFigures, Outcome
from beatstore.store.queue import Queue

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def store(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """Return a store whose clock is moved by hand; it stands at noon."""
    store = Store(migrated_url, clock=clock)
    yield store
    store.close()


@pytest.fixture
def queue(store: Store) -> Iterator[Queue]:
    """Return the queue of a beat."""
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    yield queue
    queue.close()


def write(store: Store, table: type[Any], *rows: dict[str, Any]) -> None:
    """Insert rows as they are."""
    with store.database.engine.begin() as connection:
        connection.execute(insert(table), list(rows))


def run(entry: Entry | int, due_at: datetime, **columns: Any) -> dict[str, Any]:
    """Return the columns of a run that was sent."""
    entry_id, name = (entry, "gone") if isinstance(entry, int) else (entry.id, entry.name)
    sent: dict[str, Any] = {"state": "sent", "task_id": str(uuid.uuid4()), "attempt": 1}
    return {"entry_id": entry_id, "entry_name": name, "due_at": due_at, **sent, **columns}


def due(runs: list[Run]) -> list[int]:
    """Return the due times of runs, in minutes after noon."""
    return [round((run.due_at - NOON).total_seconds() / 60) for run in runs]


# -- runs ------------------------------------------------------------------------------


def test_the_runs_of_an_entry_are_newest_first(store: Store) -> None:
    """They come by due time, whatever order they were recorded in, and page by page."""
    entry = store.add("a", "t", 60)
    other = store.add("b", "t", 60)
    minutes = [3, 1, 4, 2, 5, 9, 7]
    write(store, Run, *(run(entry, NOON + timedelta(minutes=minute)) for minute in minutes))
    write(store, Run, run(other, NOON))
    write(store, Run, run(entry, NOON + timedelta(minutes=5), attempt=2))
    assert due(store.runs("a")) == [9, 7, 5, 5, 4, 3, 2, 1]
    found: list[Run] = []
    while page := store.runs("a", limit=3, before_id=found[-1].id if found else None):
        assert len(page) <= 3
        found += page
    assert due(found) == [9, 7, 5, 5, 4, 3, 2, 1]
    assert [item.attempt for item in found[2:4]] == [2, 1]


def test_all_runs_are_in_the_order_they_were_recorded(store: Store) -> None:
    """Without a name, the one written last comes first, across entries and page by page."""
    entry, other = store.add("a", "t", 60), store.add("b", "t", 60)
    for minute in range(5):
        write(store, Run, run(entry if minute % 2 else other, NOON - timedelta(minutes=minute)))
    assert due(store.runs()) == [-4, -3, -2, -1, 0]
    first = store.runs(limit=2)
    assert due(store.runs(limit=2, before_id=first[-1].id)) == [-2, -1]


def test_runs_are_filtered_by_state_and_time(store: Store) -> None:
    """The window starts with the instant x."""
    entry = store.add("a", "t", 60)
    states = ["sent", "failed", "sent", "missed"]
    for minute, state in enumerate(states):
        write(store, Run, run(entry, NOON + timedelta(minutes=minute), state=state))
    assert due(store.runs("a", state="sent")) == [2, 0]
    window = {"since": NOON + timedelta(minutes=1), "until": NOON + timedelta(minutes=3)}
    assert due(store.runs("a", **window)) == due(store.runs(**window)) == [2, 1]
    with pytest.raises(InvalidEntryError, match="one of claimed, sent"):
        store.runs(state="done")
    with pytest.raises(InvalidEntryError, match="since"):
        store.runs(since=datetime(2026, 1, 1))


def test_the_runs_of_a_removed_entry_are_found_by_its_name(store: Store) -> None:
    """History outlives its entry; a name that never was is an error."""
    write(store, Run, run(store.add("a", "t", 60), NOON))
    store.remove("a")
    assert due(store.runs("a")) == [0]
    with pytest.raises(EntryNotFoundError):
        store.runs("b")


def test_a_renamed_entry_keeps_its_runs(store: Store) -> None:
    """Runs belong to the entry, not to the name it had."""
    write(store, Run, run(store.add("a", "t", 60), NOON))
    store.change("a", new_name="b")
    assert [item.entry_name for item in store.runs("b")] == ["a"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_pages_follow_an_index(store: Store) -> None:
    """No page of entries or runs is made by reading a table, however long it is."""
    entry = store.add("a", "t", 60, tags=["x"])
    write(store, Run, run(entry, NOON))
    seen: list[tuple[str, Any]] = []
    engine = store.database.engine
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    store.get("a")
    store.entries(after="A", limit=5)
    store.entries(tag="x", state="active")
    store.entries(name="a*")
    store.runs(limit=5, before_id=9)
    store.runs("a", limit=5, before_id=1)
    store.runs("a", since=NOON, state="sent")
    store.preview("a")
    asked = list(seen)
    with engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row.detail for row in plan]
            assert all(" USING " in step for step in steps if step.startswith("SCAN beat")), steps
            by_tag = any("beatstore_tag" in step for step in steps)
            assert by_tag or "USE TEMP B-TREE FOR ORDER BY" not in steps, steps


# -- status ----------------------------------------------------------------------------


def test_the_status_of_an_empty_store(store: Store) -> None:
    """Without entries, runs or beats all figures are empty, and none is an error."""
    assert store.status() == history.Status(now=NOON)


def test_the_status_counts_by_state(store: Store, clock: ManualClock) -> None:
    """Entries are counted in all, runs if they were due within the hour."""
    entry = store.add("a", "t", 3600)
    store.add("b", "t", 3600, paused=True)
    write(store, Run, *(run(entry, NOON - timedelta(minutes=minute)) for minute in (0, 59, 60, 61)))
    write(store, Run, run(entry, NOON - timedelta(minutes=1), state="missed"))
    status = store.status()
    assert status.entries == {"active": 1, "paused": 1}
    assert status.runs_last_hour == {"sent": 3, "missed": 1}


def test_the_status_says_what_waits_for_a_beat(
    store: Store, queue: Queue, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overdue entries are counted up to a cap, with the time the first has waited since."""
    store.add("a", "t", 60)
    clock.advance(90)
    store.add("b", "t", 3600, jitter=5)
    status = store.status()
    assert (status.overdue, status.oldest_overdue_at) == (2, NOON + timedelta(seconds=60))
    queue.plan(clock.now())
    assert store.status().overdue == 0
    clock.advance(86400)
    monkeypatch.setattr(history, "_OVERDUE_LIMIT", 1)
    assert store.status().overdue == 1


def test_the_status_measures_lateness(store: Store) -> None:
    """The median and the 99th percentile of sent minus due, in seconds, of the last hour."""
    entry = store.add("a", "t", 60)
    rows = [
        run(entry, at, sent_at=at + timedelta(milliseconds=late))
        for late in range(1, 201)
        if (at := NOON - timedelta(seconds=late))
    ]
    long_ago = NOON - timedelta(hours=2)
    write(store, Run, *rows, run(entry, long_ago, sent_at=NOON))
    write(store, Run, run(entry, NOON, state="missed"))
    status = store.status()
    assert status.lateness_p50_s == pytest.approx(0.100)
    assert status.lateness_p99_s == pytest.approx(0.198)


def test_the_status_lists_the_beats(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A beat is alive for 60 s after its heartbeat; the newest is first."""
    write(
        store,
        Beat,
        {
            **{"id": "old", "host": "h", "pid": 1, "version": "0", "tzdata": "x"},
            **{"started_at": NOON - DAY, "heartbeat_at": NOON - timedelta(seconds=61)},
        },
    )
    queue.introduce(host="here", pid=7, version="0.1", tzdata="x")
    queue.heartbeat(BeatFigures(tick_s=0.25, planned=3, sent=2))
    new, old = store.status().beats
    assert (new.host, new.pid, new.version, new.alive) == ("here", 7, "0.1", True)
    assert (new.tick_s, new.planned, new.sent) == (0.25, 3, 2)
    assert (old.id, old.alive, old.tick_s) == ("old", False, None)


# -- prune -----------------------------------------------------------------------------


def ids(store: Store, table: type[Any]) -> list[int]:
    """Return the ids of all rows."""
    with store.database.session() as session:
        return sorted(session.scalars(select(table.id)))


def test_old_one_shots_are_cleared(store: Store, queue: Queue, clock: ManualClock) -> None:
    """What is over since before the limit goes with its tags and runs; the rest stays."""
    store.schedule("t", at=NOON, name="finished", tags=["x"])
    store.schedule("t", at=NOON, name="cancelled", tags=["x"])
    store.schedule("t", at=NOON + 90 * DAY, name="late finished")
    store.schedule("t", at=NOON + 9000 * DAY, name="waiting", tags=["y"])
    store.add("recurring", "t", Once(NOON + 9000 * DAY), tags=["y"])
    store.change("recurring", schedule="0 12 1 1 *")
    store.cancel("cancelled")
    store.cancel("recurring")
    queue.settle([Outcome(claim, "sent") for claim in queue.plan(NOON)[0]])
    clock.advance(95 * 86400)
    queue.settle([Outcome(claim, "sent") for claim in queue.plan(clock.now())[0]])
    assert store.prune(96 * DAY) == 0
    assert store.prune(30 * DAY) == 3
    assert [entry.name for entry in store.entries()] == ["late finished", "recurring", "waiting"]
    assert [item.entry_name for item in store.runs()] == ["late finished"]
    with store.database.session() as session:
        assert set(session.scalars(select(Tag.tag))) == {"y"}
    clock.advance(1)
    assert store.prune(timedelta(0)) == 2
    assert [entry.name for entry in store.entries()] == ["recurring", "waiting"]


def test_old_runs_are_cleared(store: Store) -> None:
    """Runs that are settled go; those not yet sent, or started, stay."""
    entry_id = 12345
    states = ["claimed", "sent", "started", "succeeded", "failed", "lost", "missed", "skipped"]
    for number, state in enumerate(states):
        write(store, Run, run(entry_id, NOON - DAY - timedelta(seconds=number), state=state))
    write(store, Run, run(entry_id, NOON - timedelta(hours=23)))
    assert store.prune(86400) == 6
    assert sorted(item.state for item in store.runs()) == ["claimed", "sent", "started"]


def test_what_tells_occurrences_apart_is_kept(store: Store) -> None:
    """The newest run of a recurring entry stays, and so do those its cursor has not passed."""
    entry = store.add("a", "t", 60)
    fresh = store.add("b", "t", 60)
    once = store.schedule("t", at=NOON - 30 * DAY, name="c")
    with store.database.engine.begin() as connection:
        cursor_at = NOON - 12 * DAY
        statement = Entry.__table__.update().where(Entry.name == "a")
        connection.execute(statement.values(cursor_at=cursor_at))
    for days in (10, 11, 12, 13, 14):
        write(store, Run, run(entry, NOON - days * DAY))
    write(store, Run, run(entry, NOON - 10 * DAY, attempt=2))
    write(store, Run, run(fresh, NOON - 20 * DAY), run(fresh, NOON - 21 * DAY))
    write(store, Run, run(once, NOON - 30 * DAY))
    assert store.prune(DAY) == 5
    assert [round((NOON - item.due_at) / DAY) for item in store.runs("a")] == [10, 10, 11]
    assert [round((NOON - item.due_at) / DAY) for item in store.runs("b")] == [20]
    assert store.runs("c") == []


def test_what_others_wait_for_is_kept(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A one-shot that another entry depends on is not cleared away under it."""
    upstream = store.schedule("t", at=NOON, name="up")
    downstream = store.add("down", "t", 3600)
    write(store, Dependency, {"upstream_id": upstream.id, "downstream_id": downstream.id})
    queue.plan(NOON)
    clock.advance(86400 * 90)
    store.prune()
    assert store.get("up").state == "finished"


def test_clearing_goes_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are old, each transaction deletes a page, and all are deleted."""
    monkeypatch.setattr(history, "_PAGE", 10)
    kept = store.add("kept", "t", 60)
    old = NOON - 60 * DAY
    write(store, Run, *(run(number, old) for number in range(1000, 1030)))
    write(store, Run, *(run(999, old + timedelta(seconds=number)) for number in range(25)))
    write(store, Run, run(kept, old))
    over = {"task": "t", "kind": "once", "spec": old.isoformat(), "state": "finished"}
    rows = [{"name": f"o{number}", "updated_at": old, **over} for number in range(35)]
    write(store, Entry, *rows)
    assert store.prune(DAY) >= 35 + 30 + 24
    assert [entry.name for entry in store.entries()] == ["kept"]
    assert len(store.runs("kept")) == 1
    assert store.prune(DAY) == 0


def test_the_retention_setting_is_the_default(migrated_url: str, clock: ManualClock) -> None:
    """Without an argument, prune() keeps rows for beatstore_retention seconds."""
    store = Store(migrated_url, settings=Settings(retention=3600.0), clock=clock)
    write(store, Run, run(1, NOON - timedelta(minutes=59)), run(1, NOON - timedelta(minutes=61)))
    assert store.prune() == 1
    for wrong in (-1, "30d"):
        with pytest.raises(InvalidEntryError, match="older_than"):
            store.prune(wrong)  # type: ignore[arg-type]
    store.close()
