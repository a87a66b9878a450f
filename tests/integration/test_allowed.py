"""`beatstore_allowed_tasks` and the headers of the protocol, asked again at every send."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import text

from beatstore import ManualClock, Once, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.models import RunModel
from beatstore.tick.queue import Queue
from tests.support.brokers import Broker, Message
from tests.support.harness.inprocess import keeping, names, new_app, running, tick_until_idle
from tests.support.harness.ticks import report
from tests.support.marks import on_sqlite
from tests.support.written import write

pytestmark = pytest.mark.of_app

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
OTHER = {
    **{"task": "other.task", "args": [], "kwargs": {}, "options": {}},
    **{"subtask_type": None, "immutable": False},
}


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str, clock: ManualClock) -> Iterator[Celery]:
    """Return an app that allows the tasks of reports; its store reads the test's clock."""
    app = new_app(
        memory_broker,
        migrated_url,
        beatstore_listen=False,
        beatstore_allowed_tasks=["reports.*"],
        result_expires=None,
    )
    with keeping(app, clock):
        yield app


@pytest.fixture
def beat(
    scheduler: DBScheduler, clock: ManualClock, memory_broker: Broker
) -> Callable[..., list[Message]]:
    """Return what moves the clock on, lets beat send all that is due, and returns it."""

    def tick(seconds: float = 1) -> list[Message]:
        clock.advance(seconds)
        tick_until_idle(scheduler)
        return memory_broker.drain()

    return tick


def by_sql(store: Store, name: str, **columns: Any) -> None:
    """Change columns of an entry by plain SQL."""
    with store.database.session() as session:
        for column, value in columns.items():
            told = value if isinstance(value, str) else json.dumps(value)
            session.execute(
                text(f"UPDATE beatstore_entry SET {column} = :value WHERE name = :name"),
                {"value": told, "name": name},
            )


SPOILED: dict[str, dict[str, Any]] = {
    "the task": {"task": "other.task"},
    "a callback": {"options": {"link": OTHER}},
    "an errback in lists": {"options": {"link_error": [[OTHER]]}},
    "what comes after": {"options": {"chain": [OTHER]}},
    "a member": {
        "task": "celery.group",
        "kwargs": {"tasks": [{**OTHER, "task": "reports.a"}, OTHER]},
    },
    "a shape that is none": {"options": {"link": {"task": 5}}},
    "a header": {"options": {"headers": {"task": "other.task"}}},
    "a header of a callback": {
        "options": {"link": {"task": "reports.a", "options": {"headers": {"task": "other.task"}}}}
    },
}


Beat = Callable[..., list[Message]]

NAMES = ("a", "b")


def add(store: Store, at: datetime, retries: int = 2) -> None:
    """Add the two entries."""
    for name in NAMES:
        given: Any = {"max_retries": retries, "retry_delay": 30}
        store.add(name, "reports.build", Once(at), **given)


def triggered(store: Store, beat: Beat) -> None:
    """Ask for runs by hand."""
    add(store, NOON + timedelta(days=99))
    for name in NAMES:
        store.trigger(name)


def retried(store: Store, beat: Beat) -> None:
    """Let first runs fail, so that the next attempts wait."""
    add(store, NOON)
    assert len(beat()) == 2
    failed(store)


def rerun(store: Store, beat: Beat) -> None:
    """Ask for another attempt of runs that failed."""
    add(store, NOON, 0)
    assert len(beat()) == 2
    failed(store)
    for run in store.runs():
        store.rerun(run.id)


def unsent(store: Store, beat: Beat) -> None:
    """Let a beat claim runs, and never send them."""
    add(store, NOON)
    queue = Queue(store.database, store.settings, str(uuid.uuid4()))
    assert len(queue.plan(queue.look().now)[0]) == 2
    queue.close()


def by_hand(store: Store, beat: Beat) -> None:
    """Insert the rows of runs by plain SQL."""
    add(store, NOON + timedelta(days=99))
    for name in NAMES:
        row = {"entry_id": store.get(name).id, "entry_name": name, "task_id": str(uuid.uuid4())}
        row |= {"due_at": NOON, "attempt": 1, "state": "claimed", "wake_at": NOON}
        write(store, RunModel, row)


ORIGINS = {one.__name__: one for one in (triggered, retried, rerun, unsent, by_hand)}


def failed(store: Store) -> None:
    """Let a worker say that all runs have failed."""
    claims: Any = [SimpleNamespace(run_id=run.id, task_id=run.task_id) for run in store.runs()]
    report(store, "failed", claims, "RuntimeError: no")


@pytest.mark.parametrize("spoiled", ["a callback", "a header"])
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_run_of_any_origin_is_asked_for(
    store: Store, beat: Beat, origin: str, spoiled: str
) -> None:
    """What may not be sent fails alone, with the reason, and is never tried again."""
    ORIGINS[origin](store, beat)
    by_sql(store, "a", **SPOILED[spoiled])
    assert [message.headers["beatstore_entry"] for message in beat(60)] == ["b"]
    run = store.runs("a")[0]
    assert run.state == "failed"
    assert "other.task" in str(run.reason)
    attempts = len(store.runs("a"))
    assert beat(86400) == []
    assert len(store.runs("a")) == attempts


@on_sqlite
@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_spoiled_row_is_not_sent(store: Store, beat: Beat, spoiled: str) -> None:
    """Whatever plain SQL writes into a row, in no shape is the other task sent."""
    for name in ("a", "b", "c"):
        store.add(name, "reports.build", Once(NOON + timedelta(seconds=30)))
    store.trigger("a")
    for name in ("a", "b"):
        by_sql(store, name, **SPOILED[spoiled])
    sent = [message.headers["beatstore_entry"] for message in beat(60)]
    assert sent == ["c"]
    assert {run.state for run in store.runs("a")} <= {"failed"}
    assert store.get("b").state == "broken" or store.runs("b")[0].state == "failed"


@on_sqlite
@pytest.mark.parametrize("spoiled", ["a header", "a header of a callback"])
def test_headers_are_asked_for_without_patterns_too(
    app: Celery, memory_broker: Broker, migrated_url: str, clock: ManualClock, spoiled: str
) -> None:
    """A header of the protocol in a row is an error also where every task is allowed."""
    app.conf.beatstore_allowed_tasks = None
    store = Store(migrated_url, clock=clock)
    store.add("a", "reports.build", Once(NOON))
    store.add("b", "reports.build", Once(NOON))
    by_sql(store, "a", **SPOILED[spoiled])
    with running(app) as scheduler:
        scheduler.store.database.clock = clock
        clock.advance(1)
        tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["b"]
    assert "no header of celery's own protocol" in str(store.runs("a")[0].reason)
    store.close()
