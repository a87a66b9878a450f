"""What is cleared and what stays, on every database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from beatstore import Once, Store
from beatstore.clock import ManualClock
from beatstore.config import Settings
from beatstore.database.dialects import dialect_of
from beatstore.errors import InvalidEntryError
from beatstore.models import (
    AuditModel,
    DependencyModel,
    EntryModel,
    RunModel,
    TagModel,
    WorkerModel,
)
from beatstore.store import retention
from beatstore.store.retention import Pruner
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from tests.support.harness.play import Play
from tests.support.marks import on_sqlite
from tests.support.written import DAY, HOUR, NOON, alter, run, sql, write

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


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
    queue.mark([Outcome(claim, "sent") for claim in queue.plan(NOON)[0]])
    clock.advance(95 * 86400)
    queue.mark([Outcome(claim, "sent") for claim in queue.plan(clock.now())[0]])
    assert store.prune(96 * DAY) == 0
    assert store.prune(30 * DAY) == 3
    assert [entry.name for entry in store.entries()] == ["late finished", "recurring", "waiting"]
    assert [item.entry_name for item in store.runs()] == ["late finished"]
    with store.database.session() as session:
        assert set(session.scalars(select(TagModel.tag))) == {"y"}
    clock.advance(1)
    assert store.prune(timedelta(0)) == 2
    assert [entry.name for entry in store.entries()] == ["recurring", "waiting"]


def test_old_runs_are_cleared(store: Store) -> None:
    """Runs that are settled go; those not yet sent, or started, stay."""
    entry_id = 12345
    states = ["claimed", "sent", "started", "succeeded", "failed", "lost", "missed", "skipped"]
    for number, state in enumerate(states):
        write(store, RunModel, run(entry_id, NOON - DAY - timedelta(seconds=number), state=state))
    write(store, RunModel, run(entry_id, NOON - timedelta(hours=23)))
    assert store.prune(86400) == 6
    assert sorted(item.state for item in store.runs()) == ["claimed", "sent", "started"]


def test_what_tells_occurrences_apart_is_kept(store: Store) -> None:
    """The newest run of a recurring entry stays, and so do those its cursor has not passed."""
    entry = store.add("a", "t", 60)
    fresh = store.add("b", "t", 60)
    once = store.schedule("t", at=NOON - 30 * DAY, name="c")
    with store.database.engine.begin() as connection:
        cursor_at = NOON - 12 * DAY
        statement = EntryModel.__table__.update().where(EntryModel.name == "a")
        connection.execute(statement.values(cursor_at=cursor_at))
    for days in (10, 11, 12, 13, 14):
        write(store, RunModel, run(entry, NOON - days * DAY))
    write(store, RunModel, run(entry, NOON - 10 * DAY, attempt=2))
    write(store, RunModel, run(fresh, NOON - 20 * DAY), run(fresh, NOON - 21 * DAY))
    write(store, RunModel, run(once, NOON - 30 * DAY))
    assert store.prune(DAY) == 5
    assert [round((NOON - item.due_at) / DAY) for item in store.runs("a")] == [10, 10, 11]
    assert [round((NOON - item.due_at) / DAY) for item in store.runs("b")] == [20]
    assert store.runs("c") == []


def test_what_others_wait_for_is_kept(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A one-shot that another entry depends on is not cleared away under it."""
    upstream = store.schedule("t", at=NOON, name="up")
    downstream = store.add("down", "t", 3600)
    write(store, DependencyModel, {"upstream_id": upstream.id, "downstream_id": downstream.id})
    queue.plan(NOON)
    clock.advance(86400 * 90)
    store.prune()
    assert store.get("up").state == "finished"


def test_clearing_goes_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are old, each transaction deletes a page, and all are deleted."""
    monkeypatch.setattr(retention, "_PAGE", 10)
    kept = store.add("kept", "t", 60)
    old = NOON - 60 * DAY
    write(store, RunModel, *(run(number, old) for number in range(1000, 1030)))
    write(store, RunModel, *(run(999, old + timedelta(seconds=number)) for number in range(25)))
    write(store, RunModel, run(kept, old))
    over = {"task": "t", "kind": "once", "spec": old.isoformat(), "state": "finished"}
    rows = [{"name": f"o{number}", "updated_at": old, **over} for number in range(35)]
    write(store, EntryModel, *rows)
    assert store.prune(DAY) >= 35 + 30 + 24
    assert [entry.name for entry in store.entries()] == ["kept"]
    assert len(store.runs("kept")) == 1
    assert store.prune(DAY) == 0


def test_the_retention_setting_is_the_default(migrated_url: str, clock: ManualClock) -> None:
    """Without an argument, prune() keeps rows for beatstore_retention seconds."""
    store = Store(migrated_url, settings=Settings(retention=3600.0), clock=clock)
    write(
        store, RunModel, run(1, NOON - timedelta(minutes=59)), run(1, NOON - timedelta(minutes=61))
    )
    assert store.prune() == 1
    for wrong in (-1, "30d", timedelta(days=36_501)):
        with pytest.raises(InvalidEntryError, match="older_than"):
            store.prune(wrong)  # type: ignore[arg-type]
    store.close()


def test_what_the_setting_allows_is_allowed(migrated_url: str, clock: ManualClock) -> None:
    """Whoever keeps rows for up to a hundred years can call prune() all the same."""
    longest = 36_500 * 86_400.0
    read = {"beatstore_url": migrated_url, "beatstore_retention": longest}
    store = Store(migrated_url, settings=Settings.read(read), clock=clock)
    assert store.prune() == 0
    assert store.prune(timedelta(days=36_500)) == 0
    with pytest.raises(InvalidEntryError, match=r"and less than 3.1536e\+09 \(100 years\)"):
        store.prune(longest + 2)
    store.close()


def test_the_last_errors_of_an_entry_are_kept(store: Store) -> None:
    """Five that failed and five that were lost, however old; none of an entry that is gone."""
    entry, other = store.add("a", "t", 60), store.add("b", "t", 60)
    for number in range(40):
        state = ("failed", "succeeded", "lost", "succeeded")[number % 4]
        at = NOON - 60 * DAY + number * HOUR
        write(store, RunModel, run(entry, at, state=state), run(54321, at, state=state))
    write(store, RunModel, run(other, NOON - 90 * DAY, state="failed"))
    write(store, RunModel, run(other, NOON - 80 * DAY, state="succeeded"))
    last = [item.due_at for item in store.errors("a")]
    store.prune(DAY)
    # The newest run stays too, as ever.
    assert [item.state for item in store.runs("a")] == ["succeeded", *["lost", "failed"] * 5]
    assert [item.due_at for item in store.errors("a")] == last
    assert [item.state for item in store.runs("b")] == ["succeeded", "failed"]
    assert {item.entry_id for item in store.runs()} == {entry.id, other.id}


def test_runs_that_have_not_ended_are_kept(store: Store) -> None:
    """What is to be asked after, retried, or holds its entry back, and its one-shot."""
    at = NOON - 60 * DAY
    alone = store.add("alone", "t", 60)
    alter(store, "alone", overlap="wait")
    store.add("many", "t", 60)
    once = store.schedule("t", at=at, name="once")
    gone = store.schedule("t", at=at, name="gone")
    over = {"state": "finished", "updated_at": at, "cursor_at": at, "last_run_at": at}
    alter(store, "once", **over, wake_at=None)
    alter(store, "gone", **over, wake_at=None)
    many = store.get("many")
    write(
        store,
        RunModel,
        run(once, at, state="failed"),
        run(once, at, attempt=2, state="claimed", wake_at=NOON + HOUR),
        run(gone, at, state="succeeded"),
        run(alone, at, state="sent"),
        run(alone, at + HOUR, state="succeeded"),
        run(many, at, state="sent"),
        run(many, at + HOUR, state="sent", wake_at=NOON + HOUR),
        run(many, at + 2 * HOUR, state="succeeded"),
    )
    assert store.prune(DAY) == 3
    assert [entry.name for entry in store.entries()] == ["alone", "many", "once"]
    assert [item.state for item in store.runs("alone")] == ["succeeded", "sent"]
    assert [item.state for item in store.runs("many")] == ["succeeded", "sent"]
    assert [item.state for item in store.runs("once")] == ["claimed", "failed"]


def test_a_pipeline_that_is_over_goes_as_a_whole(store: Store) -> None:
    """Upstreams stay while a downstream may still run, be it once, and go with the last."""
    over = {"kind": "once", "spec": NOON.isoformat(), "task": "t", "updated_at": NOON - 60 * DAY}
    done = {"state": "finished", "wake_at": None, **over}
    after = {**done, "kind": "after", "spec": "", "max_runs": 1}
    rows = [{"name": name, **done, "max_runs": None} for name in ("extract", "waited for")]
    rows += [{"name": name, **after} for name in ("transform", "load")]
    write(store, EntryModel, *rows, {"name": "waiting", **after, "state": "active"})
    with store.database.session() as session:
        found = {entry.name: entry.id for entry in session.query(EntryModel)}
    for up, down in (("extract", "transform"), ("transform", "load"), ("waited for", "waiting")):
        write(store, DependencyModel, {"upstream_id": found[up], "downstream_id": found[down]})
    assert store.prune(DAY) == 3
    assert [entry.name for entry in store.entries()] == ["waited for", "waiting"]


def test_old_audit_rows_are_cleared(store: Store) -> None:
    """By the same age; they are not counted among what was deleted."""
    row = {"actor": "ann", "action": "pause", "entry": "a"}
    ages = (90, 60, 2, 0)
    write(store, AuditModel, *({"at": NOON - days * DAY, **row} for days in ages))
    assert store.prune(30 * DAY) == 0
    assert [round((NOON - item.at) / DAY) for item in store.audit()] == [0, 2]


def test_an_audit_row_of_a_wrong_clock_keeps_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that seems to be of the future, among old ones, stays; those after it go, as before."""
    monkeypatch.setattr(retention, "_PAGE", 3)
    row = {"actor": "ann", "action": "pause", "entry": "a"}
    ages = (90, -3650, *[80] * 9, 1)
    write(store, AuditModel, *({"at": NOON - days * DAY, **row} for days in ages))
    store.prune(30 * DAY)
    assert [round((NOON - item.at) / DAY) for item in store.audit()] == [1, -3650]


def test_workers_that_are_gone_are_forgotten_but_for_the_last(store: Store) -> None:
    """A day after they were last heard of; the last one tells that outcomes are reported here."""
    same = {"name": "celery@a", "pid": 1, "version": "0"}
    for number, hours in enumerate((300, 200, 20)):
        write(store, WorkerModel, {"id": str(number), **same, "heartbeat_at": NOON - hours * HOUR})
    store.prune()
    assert [worker.heartbeat_at for worker in store.status().workers] == [NOON - 20 * HOUR]
    with store.database.engine.begin() as connection:
        connection.execute(update(WorkerModel).values(heartbeat_at=NOON - 300 * DAY))
    store.prune()
    assert len(store.status().workers) == 1


# -- by beat ---------------------------------------------------------------------------


def steps(store: Store, pruner: Pruner, clock: ManualClock) -> int:
    """Let a beat clear until nothing is left; return in how many steps."""
    count = 1
    while step(store, pruner, clock):
        count += 1
    return count


def step(store: Store, pruner: Pruner, clock: ManualClock) -> bool:
    """Let a beat clear one page, as it does in an idle tick."""
    engine = store.database.engine
    with engine.connect() as connection:
        dialect = dialect_of(engine.dialect)
        connection.execution_options(isolation_level=dialect.claim_isolation)
        with dialect.begin_claim(connection):
            return pruner.step(connection, clock.now())


def test_beat_clears_a_page_at_a_time_and_rests(store: Store, clock: ManualClock) -> None:
    """At most 1,000 runs in a step; through it all, it leaves the tables alone for an hour."""
    pruner = Pruner(store.database, Settings(retention=3600.0))
    write(store, RunModel, *(run(7, NOON - DAY - timedelta(seconds=at)) for at in range(1500)))
    left = []
    while step(store, pruner, clock):
        left.append(len(store.runs(limit=2000)))
    assert left == [1500, 1500, 500, 0, 0]
    assert not pruner.is_due(clock.now())
    write(store, RunModel, run(7, NOON - 2 * DAY))
    clock.advance(3599)
    assert step(store, pruner, clock) is False
    assert len(store.runs()) == 1
    clock.advance(1)
    assert pruner.is_due(clock.now())
    assert steps(store, pruner, clock) == 5
    assert store.runs() == []


def test_a_clock_that_was_set_back_ends_the_rest(store: Store, clock: ManualClock) -> None:
    """Beat does not wait for the hour that it read off a wrong clock."""
    pruner = Pruner(store.database, store.settings)
    clock.advance(365 * 86400)
    steps(store, pruner, clock)
    clock.set(NOON)
    assert pruner.is_due(clock.now())


def test_what_stays_is_passed_once(store: Store, clock: ManualClock) -> None:
    """A page goes on where the last one ended, past rows that stay, and ends at the retention."""
    entry = store.add("a", "t", 60)
    alter(store, "a", cursor_at=NOON - 90 * DAY)
    for day in (80, 70):
        rows = (run(entry, NOON - day * DAY + timedelta(seconds=at)) for at in range(1000))
        write(store, RunModel, *rows)
    write(store, RunModel, run(7, NOON - 60 * DAY), run(7, NOON - DAY))
    pruner = Pruner(store.database, store.settings)
    assert steps(store, pruner, clock) == 7
    assert len(store.runs("a", limit=3000)) == 2000
    assert [item.due_at for item in store.runs(until=NOON)][:1] == [NOON - DAY]


def test_many_entries_are_read_a_window_at_a_time(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few of them are over, a step reads so many entries and no more."""
    monkeypatch.setattr(retention, "_ENTRIES_READ", 10)
    monkeypatch.setattr(retention, "_PAGE", 3)
    rest = {"task": "t", "kind": "once", "spec": NOON.isoformat(), "updated_at": NOON - 90 * DAY}
    states = ["finished" if number % 10 < 4 else "active" for number in range(40)]
    rows = ({"name": f"e{number}", "state": state, **rest} for number, state in enumerate(states))
    write(store, EntryModel, *rows)
    assert store.prune() == 16
    assert {entry.state for entry in store.entries()} == {"active"}


def test_rows_that_can_not_be_read_stop_nobody(store: Store) -> None:
    """An instant written by hand that is none stays where it is; the others are cleared."""
    if store.database.engine.dialect.name != "sqlite":
        pytest.skip("the other databases refuse such a row")
    write(store, RunModel, run(7, NOON - 90 * DAY), run(8, NOON - 80 * DAY))
    write(store, AuditModel, {"at": NOON - 90 * DAY, "actor": "a", "action": "x", "entry": "e"})
    with store.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE beatstore_run SET due_at = '2020-99-99' WHERE entry_id = 8"
        )
        connection.exec_driver_sql("UPDATE beatstore_audit SET at = 'long ago'")
    assert store.prune() == 1
    with store.database.session() as session:
        assert len(session.scalars(select(AuditModel.id)).all()) == 2


@on_sqlite
def test_a_kept_error_that_can_not_be_read_stops_nobody(store: Store) -> None:
    """Without its due time nobody knows which errors are older: they stay, and the rest goes."""
    entry = store.add("a", "t", 60)
    at = NOON - 90 * DAY
    write(store, RunModel, *(run(entry, at - n * DAY, state="failed") for n in range(8)))
    write(store, RunModel, *(run(entry, at + n * HOUR, state="succeeded") for n in range(1, 9)))
    the_fifth = "(SELECT max(id) - 11 FROM beatstore_run)"
    sql(store, f"UPDATE beatstore_run SET due_at = '2025-10-13 99:99' WHERE id = {the_fifth}")
    assert store.prune() == 7
    assert [item.state for item in store.runs("a")] == ["succeeded", *["failed"] * 8]


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_a_page_reads_no_run_that_it_is_not_about(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a page is a small part of what there is, each statement goes by an index."""
    monkeypatch.setattr(retention, "_PAGE", 100)
    entry = store.add("a", "t", 60)
    rows = [
        run(number, NOON - 90 * DAY + timedelta(seconds=second), state=state)
        for number in range(entry.id, entry.id + 100)
        for second in range(100)
        for state in ["failed" if second % 10 == 0 else "succeeded"]
    ]
    write(store, RunModel, *rows)
    engine = store.database.engine
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    seen: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    middle = (NOON - 90 * DAY + timedelta(seconds=50), 0)
    page = store._write(None, lambda tx: retention.runs(tx, NOON - DAY, middle))
    assert page.next is not None
    asked = [item for item in seen if "beatstore_run" in item[0] and item[0][0] in "SD"]
    assert len(asked) == 4
    how = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"{how} {statement}", parameters)
            steps = [str(row[-1]) for row in plan]
            read_whole = [step for step in steps if "SCAN beatstore_run" in step]
            read_whole += [step for step in steps if "Seq Scan on beatstore_run" in step]
            assert not read_whole, steps


def test_a_time_whose_run_was_deleted_can_be_due_again(play: Play) -> None:
    """Without the run nobody knows that it was sent: asked for anew, it is sent again."""
    play.add("a", "0 * * * *")
    assert play.at("13:00") == ["a"]
    first = play.last("a")
    play.end("a")
    assert play.at("14:00") == ["a"]
    play.end("a")
    play.store.prune(timedelta(0))
    assert [run.due_at for run in play.store.runs("a")] == [first.due_at + timedelta(hours=1)]
    assert play.tick() == []
    play.store.change("a", schedule=Once(first.due_at))
    assert play.tick() == ["a"]
    again = play.store.runs("a")[-1]
    assert (again.due_at, again.task_id) == (first.due_at, first.task_id)
