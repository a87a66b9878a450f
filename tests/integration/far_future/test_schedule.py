"""Calls that `Task.schedule` keeps until their time, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from kombu import Queue
from sqlalchemy.orm import Session

import beatstore
from beatstore import Store
from beatstore.beat.message import overrides_apply_async
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from tests.support.brokers import Broker
from tests.support.far import FAR, HOUR, NOON, at, task
from tests.support.harness.inprocess import new_claim
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.of_app


def test_a_call_is_kept_until_its_time(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A scheduled call is an entry of its id, and at its time one message of the same id."""
    result = task(app).schedule((1,), {"y": 2}, eta=FAR, queue=memory_broker.queue, priority=3)
    assert isinstance(result, AsyncResult)
    entry = store.get(result.id)
    assert (entry.kind, entry.next_due_at, entry.task) == ("once", FAR, "far.add")
    assert at(scheduler, memory_broker, FAR - timedelta(microseconds=1)) == []
    [message] = at(scheduler, memory_broker, FAR)
    assert (message.id, message.task) == (result.id, "far.add")
    assert (message.args, message.kwargs) == ([1], {"y": 2})
    assert message.properties["priority"] == 3
    assert message.headers["eta"] is None
    [run] = store.runs(result.id)
    assert (run.task_id, run.state, run.due_at) == (result.id, "sent", FAR)
    assert store.get(result.id).state == "finished"
    assert at(scheduler, memory_broker, FAR + timedelta(days=9)) == []


def test_a_countdown_counts_from_the_databases_now(app: Celery, store: Store) -> None:
    """Seconds and timedeltas are counted by the database's clock, also many thousand years."""
    for countdown, due_at in (
        (90, NOON + timedelta(seconds=90)),
        (timedelta(days=1), NOON + timedelta(days=1)),
        (0, NOON),
        (15_000_000_000, NOON + timedelta(seconds=15_000_000_000)),
    ):
        result = task(app).schedule((1,), countdown=countdown)
        assert store.get(result.id).next_due_at == due_at


@on_sqlite
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "eta"),
        ({"eta": FAR, "countdown": 5}, "eta"),
        ({"eta": datetime(2525, 1, 1)}, "eta"),
        ({"eta": "2525-01-01T00:00:00"}, "eta"),
        ({"eta": "in a year"}, "eta"),
        ({"eta": 5}, "eta"),
        ({"countdown": -1}, "countdown"),
        ({"countdown": True}, "countdown"),
        ({"countdown": float("nan")}, "countdown"),
        ({"countdown": float("inf")}, "countdown"),
        ({"countdown": 10**12}, "countdown"),
        ({"countdown": timedelta(days=-1)}, "countdown"),
        ({"countdown": 5, "args": [{1}]}, "args[0]"),
        ({"countdown": 5, "task_id": "x" * 156}, "options['task_id']"),
        ({"countdown": 5, "qeue": "x"}, "options['qeue']"),
        ({"countdown": 5, "queue": Queue("unknown")}, "options['queue']"),
    ],
)
def test_a_call_needs_exactly_one_time(
    app: Celery, store: Store, given: dict[str, Any], field: str
) -> None:
    """What can't be kept is a ValueError by name, and nothing is stored or sent."""
    with pytest.raises(InvalidEntryError) as caught:
        task(app).schedule(**{"args": (1,), **given})
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert store.entries() == []


@on_sqlite
def test_text_with_a_zone_is_a_time(app: Celery, store: Store) -> None:
    """An aware eta may be ISO 8601 text, as celery takes it."""
    result = task(app).schedule((1,), eta="2525-11-11T10:30:00+01:00")
    assert store.get(result.id).next_due_at == FAR


@on_sqlite
def test_wrong_arguments_are_an_error_at_once(app: Celery, store: Store) -> None:
    """A call that the task can't take raises when it is made, not in the year 2525."""
    for args in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            task(app).schedule(args, countdown=HOUR * 2)
        with pytest.raises(TypeError):
            task(app).apply_async(args, countdown=HOUR * 2)
    assert store.entries() == []


def test_it_joins_the_callers_transaction(app: Celery, store: Store) -> None:
    """With `session=` a call is stored with the caller's commit, and undone with a rollback."""
    with Session(store.database.engine) as session:
        kept = task(app).schedule((1,), eta=FAR, session=session)
        session.commit()
        undone = task(app).schedule((2,), eta=FAR, session=session)
        session.rollback()
    assert store.get(kept.id).args == [1]
    with pytest.raises(EntryNotFoundError):
        store.get(undone.id)


@on_sqlite
def test_pydantic_arguments_are_stored_as_json(app: Celery, store: Store) -> None:
    """Of a task with `pydantic=True` models may be given, where celery takes them."""
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        number: int

    def ship(order: Order) -> None:
        """Do nothing."""

    ship.__annotations__["order"] = Order
    shipping: Any = app.task(name="far.ship", pydantic=True, shared=False)(ship)
    if getattr(shipping, "_dump_pydantic_arguments", None) is None:
        pytest.skip("celery before 5.7 takes no models")
    result = shipping.schedule((Order(number=7),), eta=FAR)
    assert store.get(result.id).args == [{"number": 7}]


@on_sqlite
def test_tasks_of_the_class_are_sent_in_batches(app: Celery, scheduler: DBScheduler) -> None:
    """The class's own `apply_async` is no reason to write messages to the broker one by one."""

    class Own(beatstore.Task):
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            return super().apply_async(*args, **kwargs)

    @app.task(name="far.own", base=Own, shared=False)
    def own() -> None:
        """Do nothing."""

    assert not overrides_apply_async(scheduler.app, new_claim("far.add"))
    assert overrides_apply_async(scheduler.app, new_claim("far.own"))
