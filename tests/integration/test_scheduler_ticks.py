"""What a tick of the scheduler returns: for how long celery may sleep."""

from __future__ import annotations

import math
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from celery import Celery

from beatstore import Cron, Every, Once
from beatstore.beat.housekeeping import Housekeeping
from beatstore.beat.scheduler import AT_ONCE, TOGETHER_S, DBScheduler
from beatstore.clock import ManualClock
from beatstore.schedules.instants import EPOCH
from beatstore.tick.claims import Look
from tests.support.brokers import Broker
from tests.support.harness.inprocess import at_clock, names, running, tick_until_idle
from tests.support.marks import on_sqlite

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@on_sqlite
@pytest.mark.parametrize("max_interval", [1, 300])
@pytest.mark.parametrize(
    "wake_in",
    [
        None,
        timedelta(microseconds=1),
        timedelta(milliseconds=300),
        timedelta(days=1),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) - NOON,
        timedelta(0),
        timedelta(seconds=-1),
        EPOCH - NOON,
    ],
)
def test_a_tick_returns_seconds_that_celery_can_sleep(
    app: Celery,
    monkeypatch: pytest.MonkeyPatch,
    wake_in: timedelta | None,
    max_interval: int,
) -> None:
    """Whatever the rows say, a tick returns a number from 0 to the interval, never more."""
    at = None if wake_in is None else NOON + wake_in
    with running(app, max_interval=max_interval) as scheduler:
        for look in (Look(NOON, at, None), Look(NOON, None, at), Look(NOON, at, at)):
            monkeypatch.setattr(scheduler.queue, "look", lambda look=look: look)
            wait = scheduler.tick()
            assert type(wait) in (int, float)
            assert math.isfinite(wait)
            assert 0 <= wait <= max_interval
            if wake_in and wake_in > timedelta(0):
                assert wait == min(wake_in.total_seconds(), max_interval)


def test_a_due_entry_is_sent_and_the_next_tick_follows_at_once(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """A tick that sent something is followed by another within milliseconds."""
    scheduler.store.add("a", "tests.note", Once(NOON + timedelta(seconds=1)), args=[1])
    scheduler.tick()
    assert memory_broker.drain() == []
    clock.advance(1)
    assert scheduler.tick() < TOGETHER_S
    (message,) = memory_broker.drain()
    (run,) = scheduler.store.runs()
    assert (message.id, message.task, message.args) == (run.task_id, "tests.note", [1])
    assert (run.state, run.sent_at) == ("sent", clock.now())
    assert scheduler.tick() == 1.0
    assert memory_broker.drain() == []


@on_sqlite
def test_ticks_under_load_have_a_pace(
    scheduler: DBScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some ticks follow at once on one another; under load there are fifty a second."""
    times = [100.0]
    clock = SimpleNamespace(monotonic=lambda: times[-1])
    monkeypatch.setattr("beatstore.beat.scheduler.time", clock)
    monkeypatch.setattr(Housekeeping, "is_listening", True)
    waits = []
    for _ in range(105):
        started = times[-1]
        times.append(started + 0.005)  # what a tick takes
        waits.append(max(0.0, scheduler._together_in(started)))
        times.append(times[-1] + waits[-1])
    assert waits[:AT_ONCE] == [0.0] * AT_ONCE
    assert times[-1] - times[0] == pytest.approx(2.0, abs=0.05)
    times.append(times[-1] + 1.0)
    assert scheduler._together_in(times[-1]) < 0
    monkeypatch.setattr(Housekeeping, "is_listening", False)
    assert scheduler._together_in(times[-1] - 0.005) == pytest.approx(0.015)


def test_a_pending_entry_is_slept_for(scheduler: DBScheduler, clock: ManualClock) -> None:
    """A tick returns the time left to the earliest entry, to the microsecond."""
    for name, after in (("b", 0.75), ("a", 0.123456), ("c", 900.0)):
        scheduler.store.add(name, "tests.note", Once(NOON + timedelta(seconds=after)))
    assert tick_until_idle(scheduler) == 0.123456
    clock.advance(0.1)
    assert scheduler.tick() == 0.023456
    clock.advance(0.023456)
    assert scheduler.tick() < TOGETHER_S
    assert tick_until_idle(scheduler) == pytest.approx(0.626544, abs=1e-9)


def test_a_new_schedule_is_seen_at_the_next_tick(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An edit needs no restart: the same name with another schedule is due by the new one."""
    scheduler.store.add("a", "tests.note", Once(NOON + timedelta(hours=1)))
    assert tick_until_idle(scheduler) == 1.0
    scheduler.store.change("a", schedule=Once(NOON + timedelta(seconds=0.5)))
    assert tick_until_idle(scheduler) == 0.5
    clock.advance(0.5)
    tick_until_idle(scheduler)
    assert len(memory_broker.drain()) == 1


def test_a_schedule_without_more_occurrences_is_not_asked_again(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """An entry that is finished makes no tick short, and is kept for people to see."""
    scheduler.store.add("a", "tests.note", Every(0.5), max_runs=2)
    for _ in range(5):
        clock.advance(0.5)
        tick_until_idle(scheduler)
    assert scheduler.tick() == 1.0
    assert scheduler.store.get("a").state == "finished"
    assert len(memory_broker.drain()) == 2


def test_one_tick_drains_in_batches(app: Celery, memory_broker: Broker, clock: ManualClock) -> None:
    """However much is due, a tick takes one batch and returns, so that beat stays reachable."""
    app.conf.update(beatstore_batch_size=10, beatstore_listen=False)
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        for n in range(25):
            scheduler.store.add(f"e{n:02}", "tests.note", Once(NOON))
        *waits, together, idle = [scheduler.tick() for _ in range(4)]
        assert (waits, idle) == ([0, 0], 1.0)
        assert together < TOGETHER_S
    assert len(memory_broker.drain()) == 25


def test_entries_due_together_are_all_sent_in_order(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """Several entries due at one instant are all sent, the first stored first."""
    order = ["m", "a", "z", "k"]
    for name in order:
        scheduler.store.add(name, "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    clock.advance(60)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == order


@on_sqlite
def test_an_unexpected_error_ends_neither_beat_nor_its_patience(
    scheduler: DBScheduler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in a tick is logged, and tried again after the interval."""
    with monkeypatch.context() as patch:
        patch.setattr(scheduler.queue, "look", lambda: 1 / 0)
        assert scheduler.tick() == 1.0
    assert "ZeroDivisionError" in caplog.text
    scheduler.store.add("a", "tests.note", Once(NOON))
    assert scheduler.tick() < TOGETHER_S


def test_without_listening_and_with_it_the_interval_is_kept(
    app: Celery, backend: str, memory_broker: Broker
) -> None:
    """Where PostgreSQL wakes beat, a tick still returns within a second or so."""
    with running(app, max_interval=300) as scheduler:
        scheduler.store.add("a", "tests.note", Once(datetime.now(UTC) + timedelta(hours=1)))
        tick_until_idle_or_listening(scheduler)
        timer = threading.Timer(0.2, lambda: scheduler.store.add("b", "tests.note", Once(NOON)))
        timer.start()
        wait = scheduler.tick()
        timer.join()
        assert wait == (0 if backend == "postgresql" else 300)
        tick_until_idle_or_listening(scheduler)
        assert names(memory_broker.drain()) == ["b"]


def tick_until_idle_or_listening(scheduler: DBScheduler) -> None:
    """Tick until everything that is due has been looked at."""
    while True:
        look = scheduler.queue.look()
        due = [
            at for at in (look.entry_wake_at, look.run_wake_at) if at is not None and at <= look.now
        ]
        if not due:
            return
        scheduler.tick()
