"""What the scheduler sends, and what it sends again after a restart or an error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import celery
import pytest
from celery import Celery, beat, chain, chord, group, signals
from celery.exceptions import Ignore
from celery.schedules import schedule
from sqlalchemy import create_engine, text

from beatstore import After, Cron, Every, Once
from beatstore.beat.scheduler import DBScheduler
from beatstore.clock import ManualClock
from tests.support.brokers import Broker
from tests.support.harness.inprocess import at_clock, names, running, tick_until_idle
from tests.support.marks import on_sqlite

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


# -- what is sent --------------------------------------------------------------------------


def test_a_message_that_can_not_be_made_is_a_failed_run(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """A send that fails for good is on the run, the tick goes on, and so does the entry."""

    @scheduler.app.task(name="tests.two", shared=False)
    def two(x: int, y: int) -> None:
        """Take exactly two arguments."""

    scheduler.store.add("bad", "tests.two", Cron("* * * * *"), args=[1])
    scheduler.store.add("good", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    for _ in range(2):
        clock.advance(60)
        tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["good", "good"]
    runs = scheduler.store.runs("bad")
    assert [run.state for run in runs] == ["failed", "failed"]
    assert all("TypeError" in str(run.reason) and run.finished_at for run in runs)
    assert scheduler.store.get("bad").state == "active"


def test_a_send_that_fails_for_now_is_tried_again_in_five_seconds(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An error nobody foresaw is told on the run, which is tried again, with the same id."""
    failures = [RuntimeError("odd"), RuntimeError("odd")]

    class Odd(scheduler.app.Task):  # type: ignore[name-defined,misc]
        def apply_async(self, *args, **kwargs):
            if failures:
                raise failures.pop()
            return super().apply_async(*args, **kwargs)

    @scheduler.app.task(name="tests.odd", base=Odd, shared=False)
    def odd() -> None:
        """Do nothing."""

    scheduler.store.add("a", "tests.odd", Once(NOON))
    tick_until_idle(scheduler)
    (run,) = scheduler.store.runs()
    assert run.state == "claimed"
    assert run.reason == "sending failed, last with RuntimeError: odd"
    assert run.wake_at == NOON + timedelta(seconds=5)
    clock.advance(4.9)
    tick_until_idle(scheduler)
    assert len(failures) == 1
    for _ in range(2):  # the second distance is twice the first
        clock.advance(10)
        tick_until_idle(scheduler)
    (message,) = memory_broker.drain()
    (run,) = scheduler.store.runs()
    assert (run.state, run.task_id) == ("sent", message.id)


def test_after_a_restart_what_was_missed_runs_once(
    app: Celery, memory_broker: Broker, clock: ManualClock
) -> None:
    """Each entry that was due while beat was down is sent once, and then beat sleeps on."""
    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        for n in range(5):
            scheduler.store.add(f"e{n}", "tests.note", Cron("* * * * *"))
        tick_until_idle(scheduler)
    clock.advance(3630)
    with running(app) as scheduler:
        assert tick_until_idle(at_clock(scheduler, clock)) == 1.0
        messages = memory_broker.drain()
        assert names(messages) == [f"e{n}" for n in range(5)]
        assert {message.headers["beatstore_missed_count"] for message in messages} == {59}
        clock.advance(29.5)
        assert tick_until_idle(scheduler) == 0.5
        assert memory_broker.drain() == []


def test_a_restart_sends_nothing_again(
    app: Celery, memory_broker: Broker, clock: ManualClock
) -> None:
    """What ran is in the database, so a new beat, also one whose clock went back, knows it."""
    app.conf.beatstore_listen = False
    for step in (0, 60, 0, -3600, 3600):
        clock.advance(step)
        with running(app) as scheduler:
            at_clock(scheduler, clock).store.put("a", "tests.note", Cron("* * * * *"))
            tick_until_idle(scheduler)
    assert len(memory_broker.drain()) == 1


def test_a_paused_entry_holds_up_nobody(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An entry that is paused, removed or not yet started leaves the others on time."""
    for name in ("paused", "removed", "good"):
        scheduler.store.add(name, "tests.note", Cron("* * * * *"))
    scheduler.store.add(
        "later", "tests.note", Cron("* * * * *"), start_at=NOON + timedelta(minutes=5)
    )
    tick_until_idle(scheduler)
    scheduler.store.pause("paused")
    scheduler.store.remove("removed")
    clock.advance(60)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["good"]
    scheduler.store.resume("paused")
    tick_until_idle(scheduler)
    assert memory_broker.drain() == []
    clock.advance(60)
    tick_until_idle(scheduler)
    assert sorted(names(memory_broker.drain())) == ["good", "paused"]


def test_rows_deleted_by_plain_sql_are_seen_without_a_nudge(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock, migrated_url: str
) -> None:
    """A bulk DELETE, which tells nobody, counts at the next tick."""
    for n in range(3):
        scheduler.store.add(f"e{n}", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    engine = create_engine(migrated_url)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_entry WHERE name <> 'e1'"))
    engine.dispose()
    clock.advance(60)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["e1"]


def test_an_edit_during_the_send_survives(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """Marking a run as sent writes nothing over an edit that was made meanwhile."""
    scheduler.store.add("a", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    clock.advance(60)

    def on_publish(**_: Any) -> None:
        scheduler.store.change("a", args=[2], description="edited")

    signals.before_task_publish.connect(on_publish)
    try:
        scheduler.tick()
    finally:
        signals.before_task_publish.disconnect(on_publish)
    clock.advance(60)
    tick_until_idle(scheduler)
    assert [message.args for message in memory_broker.drain()] == [[], [2]]
    assert scheduler.store.get("a").description == "edited"


def test_the_zone_of_the_app_is_not_the_zone_of_the_entry(
    app: Celery, memory_broker: Broker, clock: ManualClock
) -> None:
    """An entry is due by its own zone, whatever `timezone` and `enable_utc` the app has."""
    app.conf.update(timezone="America/Lima", enable_utc=False, beatstore_listen=False)
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        for zone in ("Asia/Tokyo", "Europe/Berlin", None):
            scheduler.store.add(f"{zone}", "tests.note", Cron("0 22 * * *", zone))
        due = {entry.name: entry.next_due_at for entry in scheduler.store.entries()}
    assert due == {
        "Asia/Tokyo": datetime(2026, 1, 15, 13, tzinfo=UTC),
        "Europe/Berlin": datetime(2026, 1, 15, 21, tzinfo=UTC),
        "None": datetime(2026, 1, 16, 3, tzinfo=UTC),
    }


def test_hooks_leave_the_row_alone(
    scheduler: DBScheduler, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever monitoring writes into an entry's options stays out of the database."""
    original = beat.Scheduler.apply_entry

    def apply_entry(self, entry, producer=None):
        headers = entry.options.pop("headers", {})
        headers["monitor"] = "x"
        headers["deep"]["n"] = 2
        entry.options.update(headers=headers, priority=9)
        entry.args[0].append(2)
        entry.kwargs["added"] = True
        return original(self, entry, producer=producer)

    monkeypatch.setattr(beat.Scheduler, "apply_entry", apply_entry)
    options = {"headers": {"deep": {"n": 1}}}
    scheduler.store.add("a", "tests.note", Once(NOON), args=[[1]], options=options)
    tick_until_idle(scheduler)
    (message,) = memory_broker.drain()
    assert (message.headers["monitor"], message.headers["deep"]) == ("x", {"n": 2})
    entry = scheduler.store.get("a")
    assert (entry.args, entry.kwargs, entry.options) == ([[1]], {}, options)


def test_entries_of_celery_can_still_be_applied(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Code that hands celery's own entry to `apply_async` gets celery's own behaviour."""
    entry = beat.ScheduleEntry(
        name="x", task="tests.note", schedule=schedule(30), args=(1,), app=scheduler.app
    )
    result = scheduler.apply_async(entry, producer=scheduler.producer, advance=False)
    (message,) = memory_broker.drain()
    assert (message.id, message.args) == (result.id, [1])


def test_a_send_that_never_works_ends(
    scheduler: DBScheduler, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried ten times, further apart each time, and fails with the reason; once told."""

    class Odd(celery.Task):
        def apply_async(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("its lock server is away")

    @scheduler.app.task(name="tests.odd", base=Odd, shared=False)
    def odd() -> None:
        """Do nothing."""

    scheduler.store.add("often", "tests.odd", Every(10), misfire="coalesce", grace=1)
    for _ in range(60):
        scheduler.tick()
        scheduler.tick()
        clock.advance(60)
    runs = scheduler.store.runs("often")
    failed = [run for run in runs if run.state == "failed"]
    assert "sending failed 10 times, last with RuntimeError" in str(failed[-1].reason)
    assert len(runs) < 20, "one row at each look, which is as rare as the tries"
    sending = [one for one in caplog.records if one.name == "beatstore.beat.sender"]
    levels = [one.levelname for one in sending if one.levelno >= logging.WARNING]
    assert levels == ["WARNING", "ERROR"]
    waiting = next(run for run in runs if run.state == "claimed")
    said = "\n".join(scheduler.store.explain("often", at=waiting.due_at).sentences)
    assert "its lock server is away" in said


# -- tasks that run in beat's own process --------------------------------------------------


@pytest.fixture
def eager(scheduler: DBScheduler) -> DBScheduler:
    """Return the same scheduler, of an app whose tasks run where they are called."""
    app = scheduler.app
    app.conf.task_always_eager = True

    @app.task(name="tests.fail", shared=False)
    def fail(*args: Any) -> None:
        """Fail as a broker that is away does, which must not be taken for one."""
        raise ConnectionError("eager error")

    @app.task(name="tests.ignore", shared=False)
    def ignore() -> None:
        """Have no outcome."""
        raise Ignore

    return scheduler


@pytest.mark.parametrize("propagates", [True, False])
def test_the_outcome_of_an_eager_task_is_known_at_once(
    eager: DBScheduler, memory_broker: Broker, clock: ManualClock, *, propagates: bool
) -> None:
    """With `task_always_eager` a run ends as it is sent; retries and downstreams follow."""
    eager.app.conf.task_eager_propagates = propagates
    store = eager.store
    store.add("good", "tests.note", Once(NOON))
    store.add("bad", "tests.fail", Once(NOON), max_retries=1, retry_delay=5)
    store.add("after good", "tests.note", after=["good"])
    store.add("after bad", "tests.note", after=[After("bad", on="failure")])
    for _ in range(20):
        eager.tick()
        clock.advance(1)
    found = {(run.entry_name, run.attempt): run.state for run in store.runs()}
    assert found == {
        ("good", 1): "succeeded",
        ("bad", 1): "failed",
        ("bad", 2): "failed",
        ("after good", 1): "succeeded",
        ("after bad", 1): "succeeded",
    }
    first = store.runs("bad")[-1]
    assert first.error == "ConnectionError: eager error"
    assert "in fail" in str(first.traceback)
    assert first.sent_at is not None
    assert memory_broker.drain() == []


EAGER_CANVASES = [
    (lambda note, fail: chain(note.si(1), note.si(2)), "succeeded"),
    (lambda note, fail: chain(note.si(1), fail.si()), "failed"),
    (lambda note, fail: chain(fail.si(), note.si(1)), "failed"),
    (lambda note, fail: group(note.si(1), note.si(2)), "succeeded"),
    (lambda note, fail: group(note.si(1), fail.si()), "failed"),
    (lambda note, fail: chord([note.si(1), note.si(2)], note.si(3)), "succeeded"),
    (lambda note, fail: chord([note.si(1), fail.si()], note.si(3)), "failed"),
    (lambda note, fail: chain(note.si(1), group(note.si(2), fail.si())), "failed"),
    (lambda note, fail: note.map([1, 2]), "succeeded"),
]


@on_sqlite
@pytest.mark.parametrize("case", EAGER_CANVASES)
def test_the_outcome_of_an_eager_canvas_is_known_at_once(
    eager: DBScheduler, case: tuple[Callable[[Any, Any], Any], str]
) -> None:
    """A canvas that runs in beat succeeds if all of it does, and fails with its first error."""
    tasks = eager.app.tasks
    eager.store.add("canvas", case[0](tasks["tests.note"], tasks["tests.fail"]), Once(NOON))
    tick_until_idle(eager)
    (run,) = eager.store.runs()
    assert run.state == case[1]
    assert ("eager error" in str(run.error)) is (case[1] == "failed")


@on_sqlite
def test_an_eager_task_without_an_outcome_is_cancelled(eager: DBScheduler) -> None:
    """A task that ignores itself ends its run, as it does at a worker."""
    eager.store.add("a", "tests.ignore", Once(NOON))
    tick_until_idle(eager)
    assert [run.state for run in eager.store.runs()] == ["cancelled"]
