"""The scheduler is closed: at rest, in the middle of a tick, by a signal, and twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import signals

from beatstore import Once, Store
from beatstore.beat import scheduler as module
from beatstore.beat.scheduler import TOGETHER_S, DBScheduler
from beatstore.clock import ManualClock
from beatstore.tick.tick import BATCH
from tests.support.brokers import Broker
from tests.support.harness.inprocess import (
    NOWHERE,
    at_clock,
    names,
    new_app,
    running,
    tick_until_idle,
)
from tests.support.harness.ticks import running_beats
from tests.support.marks import on_sqlite

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@on_sqlite
def test_close_gives_everything_back(scheduler: DBScheduler, memory_broker: Broker) -> None:
    """After `close` no connection is held, and beat's row says that it was stopped; twice, too."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    scheduler.tick()
    assert len(scheduler.store.status().beats) == 1
    for _ in range(3):
        scheduler.close()
        assert "producer" not in vars(scheduler)
        assert "connection" not in vars(scheduler)
    assert running_beats(scheduler.store) == []
    assert scheduler.store.database.engine.pool.checkedout() == 0


@on_sqlite
def test_a_closed_scheduler_opens_again(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """As in celery's own, what is needed after `close` is simply made again."""
    scheduler.close()
    scheduler.store.add("a", "tests.note", Once(NOON))
    assert scheduler.tick() < TOGETHER_S
    assert len(memory_broker.drain()) == 1


@pytest.mark.parametrize("url", ["postgresql+psycopg://u@127.0.0.1:1/x", NOWHERE])
def test_close_is_quick_while_the_database_is_away(memory_broker: Broker, url: str) -> None:
    """Nothing is waited for at the end of a beat that had no database."""
    with running(new_app(memory_broker, url)) as scheduler:
        scheduler.tick()
        scheduler.close()
        scheduler.close()


class Handler:
    """Celery's signal handler, raised at one point of a tick: close, then SystemExit."""

    def __init__(self, scheduler: DBScheduler) -> None:
        self.scheduler = scheduler

    def __call__(self, *_: object, **__: object) -> None:
        self.scheduler.close()
        raise SystemExit


def at_publish(number: int) -> Callable[[DBScheduler, pytest.MonkeyPatch], None]:
    """Send the signal just before the `number`-th message is published."""

    def arrange(scheduler: DBScheduler, patch: pytest.MonkeyPatch) -> None:
        publish, count = module.publish, [0]

        def publish_or_end(*args: Any) -> Any:
            count[0] += 1
            return Handler(scheduler)() if count[0] == number else publish(*args)

        patch.setattr(module, "publish", publish_or_end)

    return arrange


def at_call(method: str, *, after: bool) -> Callable[[DBScheduler, pytest.MonkeyPatch], None]:
    """Send the signal just before or after a call of the queue."""

    def arrange(scheduler: DBScheduler, patch: pytest.MonkeyPatch) -> None:
        original = getattr(scheduler.queue, method)
        ended = [False]

        def call(*args: Any, **kwargs: Any) -> Any:
            if ended[0]:
                return original(*args, **kwargs)
            ended[0] = True
            if after:
                original(*args, **kwargs)
            return Handler(scheduler)()

        patch.setattr(scheduler.queue, method, call)

    return arrange


MOMENTS = {
    "before look": at_call("look", after=False),
    "after look": at_call("look", after=True),
    "before plan": at_call("plan", after=False),
    "after plan": at_call("plan", after=True),
    "first message": at_publish(1),
    "fourth message": at_publish(4),
    "last message": at_publish(7),
    "before mark": at_call("mark", after=False),
    "after mark": at_call("mark", after=True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_in_the_middle_of_a_tick_loses_and_doubles_nothing(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock, moment: str
) -> None:
    """SIGTERM closes beat inside a tick; the next beat sends, at once, just what is left."""
    for n in range(7):
        scheduler.store.add(f"e{n}", "tests.note", Once(NOON))
    with pytest.MonkeyPatch.context() as patch:
        MOMENTS[moment](scheduler, patch)
        with pytest.raises(SystemExit):
            scheduler.tick()
    scheduler.close()
    assert running_beats(scheduler.store) == []
    with running(scheduler.app) as heir:
        tick_until_idle(at_clock(heir, clock))
        runs = heir.store.runs()
    assert {run.state for run in runs} == {"sent"}
    messages = memory_broker.drain()
    assert sorted(names(messages)) == [f"e{n}" for n in range(7)]
    assert {message.id for message in messages} == {run.task_id for run in runs}


@on_sqlite
def test_close_in_the_middle_of_a_tick_leaves_it_its_claims(
    scheduler: DBScheduler, memory_broker: Broker, migrated_url: str
) -> None:
    """What the tick is about to send is not handed to other beats while it may still do so."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    seen: list[Any] = []

    def on_publish(**_: Any) -> None:
        scheduler.close()
        other = Store(migrated_url)
        seen.extend((run.state, run.wake_at) for run in other.runs())
        seen.append(len(running_beats(other)))
        other.close()

    signals.before_task_publish.connect(on_publish)
    try:
        scheduler.tick()
    finally:
        signals.before_task_publish.disconnect(on_publish)
    ttl = timedelta(seconds=scheduler.store.settings.claim_ttl)
    assert seen == [("claimed", NOON + ttl), 1]
    assert len(memory_broker.drain()) == 1


@on_sqlite
def test_a_beat_ends_though_the_signals_exception_was_dropped(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Closed in the middle of a tick, it sends no other batch, whatever became of SystemExit."""
    count = 2 * BATCH + 50
    scheduler.store.schedule_many(("tests.note", NOON) for _ in range(count))
    scheduler.queue.limit = count  # as many as one look can claim that makes up for much
    signals.before_task_publish.connect(lambda **_: scheduler.close(), weak=False, dispatch_uid="x")
    try:
        with pytest.raises(SystemExit):
            scheduler.tick()
        with pytest.raises(SystemExit):
            scheduler.tick()
    finally:
        signals.before_task_publish.disconnect(dispatch_uid="x")
    assert len(memory_broker.drain()) == BATCH
