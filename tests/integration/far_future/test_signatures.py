"""Signatures and canvases, kept by `Store.schedule` under the ids they have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from beatstore import Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import EntryExistsError, EntryNotFoundError
from tests.support.brokers import Broker
from tests.support.far import FAR, NOON, at, canvases, claim_of, ids_in, stamped, task
from tests.support.harness.ticks import report
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.of_app


SIGNATURES: dict[str, Callable[[Celery], Any]] = {
    "plain": lambda app: task(app).s(1, y=2),
    "immutable": lambda app: task(app).si(1),
    "callback": lambda app: task(app).s(1).set(link=task(app).s(2)),
    "callbacks": lambda app: task(app).s(1).set(link=[task(app).s(2), task(app).si(3)]),
    "errback": lambda app: task(app).s(1).set(link_error=task(app).si(2).set(queue="errors")),
    "canvas for a callback": lambda app: task(app).s(1).set(link=task(app).s(1) | task(app).s(2)),
    "options": lambda app: task(app).s(1).set(priority=3, headers={"a": [1]}, time_limit=9),
    "stamped": stamped,
    "frozen": lambda app: _frozen(task(app).s(1)),
}


def _frozen(signature: Any) -> Any:
    signature.freeze()
    return signature


@pytest.mark.parametrize("kind", SIGNATURES)
@on_sqlite
def test_a_stored_signature_sends_its_message(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker, kind: str
) -> None:
    """What is sent of a signature at its time is what its `apply_async` would have sent."""
    signature = SIGNATURES[kind](app)
    entry = store.schedule(signature, at=FAR)
    signature.apply_async()
    [near] = memory_broker.drain()
    [far] = at(scheduler, memory_broker, FAR)
    assert (far.task, far.args, far.kwargs, far.embed) == (
        near.task, near.args, near.kwargs, near.embed,
    )  # fmt: skip
    for name in ("stamps", "stamped_headers", "timelimit", "ignore_result", "a"):
        assert far.headers.get(name) == near.headers.get(name), name
    assert far.properties.get("priority") == near.properties.get("priority")
    if kind == "frozen":
        assert near.id == far.id == entry.name


KINDS = (
    *("chain", "group", "chord", "group in a chain", "chord in a group"),
    *("chain in a chord", "map", "chunks"),
)


@pytest.mark.parametrize("kind", KINDS)
@on_sqlite
def test_a_frozen_canvas_is_sent_again_with_other_ids(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker, kind: str
) -> None:
    """The first attempt has the ids that freezing gave; a further one shares none with it."""
    app.conf.result_backend = "cache+memory://"
    canvas = canvases(app)[kind]
    result = canvas.freeze()
    entry = store.schedule(canvas, at=FAR, max_retries=1, retry_delay=60)
    assert entry.name == result.id
    first = at(scheduler, memory_broker, FAR)
    [run] = store.runs(entry.name)
    assert (run.task_id, run.state) == (result.id, "sent")
    report(store, "failed", [claim_of(first[0])], "ValueError: no")
    second = at(scheduler, memory_broker, FAR + timedelta(minutes=2))
    assert len(second) == len(first)
    assert second[0].headers["beatstore_attempt"] == 2
    assert ids_in(first) & ids_in(second) == set()


@on_sqlite
def test_a_canvas_can_be_stored_again_if_it_is_not_frozen(app: Celery, store: Store) -> None:
    """The same canvas stored twice is two entries; frozen, its ids stand in the way."""
    for kind, canvas in canvases(app).items():
        assert store.schedule(canvas, at=FAR).name != store.schedule(canvas, at=FAR).name, kind
        canvas.freeze()
        store.schedule(canvas, at=FAR)
        with pytest.raises(EntryExistsError, match="create a new signature"):
            store.schedule(canvas, at=FAR)


def test_a_name_may_be_given_beside_the_id(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """With `name=` the entry has that name, and its message the id of the signature."""
    store.schedule(task(app).s(1).set(task_id="the-id"), at=FAR, name="the-name")
    with pytest.raises(EntryNotFoundError):
        store.get("the-id")
    assert [message.id for message in at(scheduler, memory_broker, FAR)] == ["the-id"]
    assert store.runs("the-name")[0].task_id == "the-id"


def test_a_one_shot_after_others_has_its_id(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A signature that waits for others, and for no clock, is sent under its id too."""
    store.schedule(task(app).s(1), countdown=0, name="before")
    store.schedule(task(app).s(2).set(task_id="the-id"), after=["before"])
    [before] = at(scheduler, memory_broker, NOON)
    report(store, "succeeded", [claim_of(before)])
    assert [message.id for message in at(scheduler, memory_broker, NOON)] == ["the-id"]


@on_sqlite
def test_far_tasks_are_carried_to_another_database(
    app: Celery, store: Store, database_server: Any
) -> None:
    """An export has the id of a task, so that it is sent under it from elsewhere."""
    result = task(app).schedule((1,), eta=FAR)
    url = database_server.create_migrated()
    other = Store(url)
    other.load(list(store.export()))
    assert other.get(result.id).options == {"task_id": result.id}
    other.close()
    database_server.drop(url)
