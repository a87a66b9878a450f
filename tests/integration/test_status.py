"""How things stand, on every database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from beatstore import Store
from beatstore.clock import ManualClock
from beatstore.models import BeatModel, DependencyModel, RunModel, WorkerModel
from beatstore.store.status import Status
from beatstore.tick.beats import BeatFigures
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import report, tick
from tests.support.marks import on_sqlite
from tests.support.written import DAY, HOUR, MINUTE, NOON, alter, run, sql, write

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`


def test_the_status_of_an_empty_store(store: Store) -> None:
    """Without entries, runs or beats all figures are empty, and none is an error."""
    assert store.status() == Status(now=NOON)


def test_the_status_counts_by_state(store: Store, clock: ManualClock) -> None:
    """Entries are counted in all, runs if they were due within the hour."""
    entry = store.add("a", "t", 3600)
    store.add("b", "t", 3600, paused=True)
    write(
        store,
        RunModel,
        *(run(entry, NOON - timedelta(minutes=minute)) for minute in (0, 59, 60, 61)),
    )
    write(store, RunModel, run(entry, NOON - timedelta(minutes=1), state="missed"))
    status = store.status()
    assert status.entries == {"active": 1, "paused": 1}
    assert status.runs_last_hour == {"sent": 3, "missed": 1}
    assert status.runs_counted_since is None


def test_a_full_hour_is_counted_in_part(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more runs than are counted, the newest are, and it says since when; no other is lost."""
    entry = store.add("a", "t", 3600)
    rows = [run(entry, NOON - n * MINUTE) for n in range(1, 8)]
    rows[4]["wake_at"] = rows[6]["wake_at"] = NOON + HOUR
    write(store, RunModel, *rows)
    assert store.status().runs == {"sent": 7}
    monkeypatch.setattr("beatstore.store.status._COUNTED", 3)
    found = store.status()
    assert found.runs_last_hour == {"sent": 4}
    assert found.runs_counted_since == NOON - 4 * MINUTE
    assert found.runs == {"sent": 6}
    monkeypatch.setattr("beatstore.store.status._COUNTED", 7)
    assert store.status().runs_counted_since is None


def test_runs_of_one_instant_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More claimed runs due at midnight than are counted: none of those that wait is left out."""
    monkeypatch.setattr("beatstore.store.status._COUNTED", 3)
    for number in range(9):
        entry = store.add(f"n{number}", "t", 3600)
        write(store, RunModel, run(entry, NOON - MINUTE, state="claimed", wake_at=NOON))
    found = store.status()
    assert found.runs == {"claimed": 9}
    assert found.runs_counted_since == NOON - MINUTE


@on_sqlite
def test_a_due_time_that_is_none_is_no_reason_to_fail(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run written by hand, alone in its state, whose due time nobody can read."""
    monkeypatch.setattr("beatstore.store.status._COUNTED", 2)
    entry = store.add("a", "t", 3600)
    write(store, RunModel, *(run(entry, NOON - n * MINUTE) for n in (1, 2, 3)))
    write(store, RunModel, run(entry, NOON - 4 * MINUTE, state="missed"))
    sql(store, "UPDATE beatstore_run SET due_at = 'tomorrow' WHERE state = 'missed'")
    assert store.status().runs_counted_since == NOON - 2 * MINUTE


def test_the_newest_runs_are_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that no beat will send is found among so many, however many there are."""
    entry = store.add("a", "t", 3600)
    rows = [run(entry, NOON - n * MINUTE) for n in range(1, 8)]
    rows[2] |= {"state": "claimed", "wake_at": None}
    write(store, RunModel, *rows)
    sql(store, "UPDATE beatstore_run SET wake_at = NULL")
    assert "no beat will ever send it" in " ".join(store.status().warnings)
    monkeypatch.setattr("beatstore.store.explain.stalls._SAMPLE", 3)
    assert "no beat will ever send it" in " ".join(store.status().warnings)
    monkeypatch.setattr("beatstore.store.explain.stalls._SAMPLE", 2)
    assert "no beat will ever send it" not in " ".join(store.status().warnings)


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
    monkeypatch.setattr("beatstore.store.overdue.LIMIT", 1)
    assert store.status().overdue == 1


def test_a_new_entry_that_runs_after_others_is_not_overdue(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """It waits for its upstream and not for a beat, before one has looked at it too."""
    store.add("a", "t", 86_400)
    store.add("b", "t", after=["a"])
    clock.advance(3600)
    status, health = store.status(), store.health()
    assert (status.overdue, status.oldest_overdue_at, status.warnings[1:]) == (0, None, [])
    assert (health.overdue_since, health.overdue_name) == (None, None)
    assert list(store.names(only="overdue")) == []
    store.trigger("b")
    clock.advance(60)
    health, [run] = store.health(), store.runs("b")
    assert (health.overdue_name, health.overdue_run) == ("b", run.id)
    clock.advance(86_400)
    health = store.health()
    assert (store.status().overdue, list(store.names(only="overdue"))) == (1, ["a"])
    assert health.overdue_since == run.due_at


def test_the_status_measures_lateness(store: Store) -> None:
    """The median and the 99th percentile of sent minus due, in seconds, of the last hour."""
    entry = store.add("a", "t", 60)
    rows = [
        run(entry, at, sent_at=at + timedelta(milliseconds=late))
        for late in range(1, 201)
        if (at := NOON - timedelta(seconds=late))
    ]
    long_ago = NOON - timedelta(hours=2)
    write(store, RunModel, *rows, run(entry, long_ago, sent_at=NOON))
    write(store, RunModel, run(entry, NOON, state="missed"))
    status = store.status()
    assert status.lateness_p50_s == pytest.approx(0.100)
    assert status.lateness_p99_s == pytest.approx(0.198)


LATE_BY_THEMSELVES = {
    "a retry": {"attempt": 2},
    "a rerun": {"attempt": 2, "reason": "triggered: rerun of attempt 1"},
    "asked for by hand": {"reason": "triggered"},
    "asked for by hand, and hard to send": {"reason": "triggered; OSError: no"},
    "waited": {"reason": "waited 30 min"},
    "waited, and missed some": {"reason": "waited 30 min; misfire: first seen 2 h late"},
    "stands for others": {"first_missed_at": NOON - HOUR, "missed_count": 3},
}


@pytest.mark.parametrize("columns", LATE_BY_THEMSELVES.values(), ids=LATE_BY_THEMSELVES)
def test_lateness_is_of_what_was_simply_due(store: Store, columns: dict[str, object]) -> None:
    """What was sent later than its due time for a reason of its own says nothing of beat."""
    entry = store.add("a", "t", 60)
    write(store, RunModel, run(entry, NOON - 40 * MINUTE, sent_at=NOON, **columns))
    assert store.status().lateness_p99_s is None
    at = NOON - 10 * MINUTE
    write(store, RunModel, run(entry, at, sent_at=at + MINUTE, reason="misfire: first seen late"))
    assert store.status().lateness_p50_s == store.status().lateness_p99_s == 60


def test_lateness_is_of_the_newest_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nearly all were triggered, it does not read the whole hour for the others."""
    entry = store.add("a", "t", 60)
    at = NOON - 10 * MINUTE
    write(store, RunModel, run(entry, at, sent_at=at + MINUTE))
    for late in range(2):
        asked = run(entry, NOON - (1 + late) * MINUTE, sent_at=NOON, reason="triggered")
        write(store, RunModel, asked)
    assert store.status().lateness_p50_s == 60
    monkeypatch.setattr("beatstore.store.status._LATENESS_RUNS", 2)
    assert store.status().lateness_p50_s is None


def test_an_entry_without_a_clock_is_not_late(store: Store) -> None:
    """Its due time is that of its upstream, after whose end it is sent."""
    store.add("up", "t", 3600)
    down = store.add("down", "t", after=["up"])
    write(store, RunModel, run(down, NOON - 30 * MINUTE, sent_at=NOON))
    assert store.status().lateness_p99_s is None


def test_the_status_lists_the_beats(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A beat is alive for 60 s after its heartbeat; the newest is first."""
    write(
        store,
        BeatModel,
        {
            **{"id": "old", "host": "h", "pid": 1, "version": "0", "tzdata": "x"},
            **{"started_at": NOON - DAY, "heartbeat_at": NOON - timedelta(seconds=61)},
        },
    )
    queue.upkeep.introduce(host="here", pid=7, version="0.1", tzdata="x")
    queue.upkeep.heartbeat(BeatFigures(tick_s=0.25, planned=3, sent=2, step="push: x"))
    new, old = store.status().beats
    assert (new.host, new.pid, new.version, new.alive) == ("here", 7, "0.1", True)
    assert (new.tick_s, new.planned, new.sent, new.step) == (0.25, 3, 2, "push: x")
    assert (old.id, old.alive, old.tick_s, old.stopped_at) == ("old", False, None, None)
    assert old.step is None
    queue.upkeep.withdraw()
    stopped = store.status().beats[0]
    assert (stopped.host, stopped.alive, stopped.stopped_at) == ("here", False, NOON)


def test_the_status_lists_the_workers(store: Store) -> None:
    """Those that report outcomes; alive for 60 s after they were last heard of."""
    same = {"pid": 1, "version": "0", "started_at": NOON - DAY}
    write(
        store,
        WorkerModel,
        {"id": "1", "name": "celery@a", "heartbeat_at": NOON, "running": 3, **same},
        {"id": "2", "name": "celery@b", "heartbeat_at": NOON - 2 * MINUTE, "running": 0, **same},
    )
    first, second = store.status().workers
    assert (first.name, first.alive, first.running, first.pid) == ("celery@a", True, 3, 1)
    assert (second.name, second.alive, second.heartbeat_at) == (
        "celery@b",
        False,
        NOON - 2 * MINUTE,
    )


def test_the_status_counts_what_waits(store: Store) -> None:
    """Active entries that hold an occurrence back; a paused one waits for nobody."""
    for name in ("a", "b", "c"):
        store.add(name, "t", 3600)
        alter(store, name, pending_due_at=NOON, pending_since=NOON, blocked_by=99, wake_at=None)
    store.pause("c")
    assert store.status().waiting == 2


def test_the_status_counts_runs_that_have_not_ended(store: Store) -> None:
    """All that a beat still minds, and what was sent in the last hour."""
    entry = store.add("a", "t", 3600)
    for minute, state in enumerate(("claimed", "started", "sent", "sent", "succeeded", "failed")):
        write(store, RunModel, run(entry, NOON - timedelta(minutes=minute), state=state))
    for hour, state in ((2, "claimed"), (3, "started"), (4, "sent")):
        write(store, RunModel, run(entry, NOON - hour * HOUR, state=state, wake_at=NOON + HOUR))
    write(store, RunModel, run(entry, NOON - 5 * HOUR, state="sent"))
    assert store.status().runs == {"claimed": 2, "started": 2, "sent": 3}


# -- warnings ----------------------------------------------------------------------------

NO_WORKER = (
    "Entries depend on outcomes (downstreams, retries or overlap), but no worker has ever "
    "reported one: call beatstore.setup(app) in the module of the Celery app, or start a worker."
)


@pytest.mark.parametrize("need", ["downstream", "retries", "overlap"])
def test_a_missing_setup_is_warned_of_where_outcomes_matter(store: Store, need: str) -> None:
    """Not where nothing depends on outcomes, and no more once a worker has reported."""
    up, down = store.add("up", "t", 3600), store.add("down", "t", 3600)
    assert store.status().warnings == []
    if need == "downstream":
        write(store, DependencyModel, {"upstream_id": up.id, "downstream_id": down.id})
    else:
        alter(store, "up", **({"max_retries": 1} if need == "retries" else {"overlap": "skip"}))
    assert store.status().warnings == [NO_WORKER]
    gone = {"id": "1", "name": "celery@a", "pid": 1, "version": "0"}
    write(store, WorkerModel, {**gone, "heartbeat_at": NOON - 300 * DAY})
    assert store.status().warnings == []


def test_outcomes_that_are_known_need_no_worker(store: Store) -> None:
    """Eager tasks run in beat, and no worker is ever heard of."""
    store.add("a", "t", 3600, overlap="skip")
    assert store.status().warnings == [NO_WORKER]
    alter(store, "a", success_seq=1)
    assert store.status().warnings == []


def test_a_missing_beat_is_warned_of_when_something_is_due(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """With how to start one; not while one is alive, and not the second something is due."""
    store.add("a", "t", 60)
    store.add("b", "t", 60)
    clock.advance(65)
    assert store.status().warnings == []
    clock.advance(55)
    assert store.status().warnings == [
        "No beat is alive, and 2 entries have been overdue since 2026-01-15 12:01:00 UTC: start "
        "one with `celery -A … beat --scheduler beatstore:DBScheduler`."
    ]
    queue.upkeep.introduce(host="here", pid=7, version="0.1", tzdata="x")
    assert store.status().warnings == []


def test_broken_entries_are_named(store: Store) -> None:
    """Three of them, and how many more."""
    for number in range(5):
        store.add(f"e{number}", "t", 3600)
        alter(store, f"e{number}", state="broken", wake_at=None)
    assert store.status().warnings == [
        "5 entries are broken and will not run: 'e0', 'e1', 'e2' and 2 more; see explain()."
    ]
    for number in range(4):
        store.remove(f"e{number}")
    assert store.status().warnings == ["1 entry is broken and will not run: 'e4'; see explain()."]


def test_a_cycle_is_named(store: Store) -> None:
    """Its members in order; an edge whose first run is free makes none."""
    made = [store.add(name, "t", 3600) for name in ("a", "b", "c")]
    write(store, WorkerModel, {"id": "1", "name": "celery@a", "pid": 1, "version": "0"})
    for up, down in ((0, 1), (1, 2)):
        write(store, DependencyModel, {"upstream_id": made[up].id, "downstream_id": made[down].id})
    assert store.status().warnings == []
    back = {"upstream_id": made[2].id, "downstream_id": made[0].id}
    write(store, DependencyModel, {**back, "first_free": True})
    assert store.status().warnings == []
    with store.database.engine.begin() as connection:
        connection.execute(update(DependencyModel).values(first_free=False))
    assert store.status().warnings == [
        "A dependency cycle keeps these entries from running: 'a' → 'b' → 'c' → 'a'. Unlink one "
        "of them, or give an edge first_free=True."
    ]


def test_a_long_cycle_is_named_in_part(store: Store) -> None:
    """Ten of its members say enough."""
    made = [store.add(f"e{number:02}", "t", 3600) for number in range(12)]
    write(store, WorkerModel, {"id": "1", "name": "celery@a", "pid": 1, "version": "0"})
    rows = [
        {"upstream_id": up.id, "downstream_id": down.id}
        for up, down in zip(made, [*made[1:], made[0]], strict=True)
    ]
    write(store, DependencyModel, *rows)
    [warning] = store.status().warnings
    assert "'e00' → 'e01' → " in warning
    assert "'e09' → … (2 more). Unlink one" in warning


def test_a_rerun_waits_since_it_was_asked_for(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A rerun of an old run is not overdue since that was due, unless no beat sends it."""
    store.schedule("t", countdown=0, name="a")
    [claim] = tick(queue)
    report(store, "failed", [claim], "RuntimeError: no")
    clock.advance(86400)
    assert tick(queue) == []
    store.rerun(claim.run_id)
    clock.advance(2)
    health = store.health()
    assert (health.overdue_since, health.warnings) == (clock.now() - timedelta(seconds=2), ())
    assert [one.name for one in tick(queue)] == ["a"]
    assert store.health().overdue_since is None
