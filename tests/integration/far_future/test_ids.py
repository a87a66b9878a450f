"""A far call has one id: nothing else is sent under it, and it is cancelled by it."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, signals
from sqlalchemy import update

from beatstore import ManualClock, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import EntryExistsError, InvalidEntryError, UnavailableError
from beatstore.models import EntryModel, RunModel
from beatstore.store.shared import store_of
from tests.support.brokers import Broker
from tests.support.far import FAR, HOUR, NOON, at, claim_of, lose_database, make_app, task
from tests.support.flaky import FlakyBroker
from tests.support.harness.ticks import report
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.of_app


def test_a_second_task_of_an_id_is_refused(app: Celery, store: Store) -> None:
    """An id is one task's: a second entry of it is an error that says so, and what to do."""
    task(app).apply_async((1,), eta=FAR, task_id="mine")
    with pytest.raises(EntryExistsError, match="leave task_id out") as caught:
        task(app).apply_async((2,), eta=FAR, task_id="mine")
    assert caught.value.name == "mine"
    with pytest.raises(EntryExistsError, match="leave task_id out"):
        task(app).schedule((2,), eta=FAR, task_id="mine")
    assert store.get("mine").args == [1]


@on_sqlite
def test_the_database_away_is_an_error_of_the_caller(
    app: Celery, store: Store, memory_broker: Broker
) -> None:
    """Without the database a far call raises, and nothing goes to the broker in its place."""
    lose_database(store)
    for call in (task(app).apply_async, task(app).schedule):
        with pytest.raises(UnavailableError):
            call((1,), eta=FAR)
    assert memory_broker.drain() == []


def test_a_task_is_cancelled_by_its_id(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Before it is sent, `cancel` says True, and nothing is ever sent; after it, False."""
    early, late = (task(app).apply_async((1,), eta=FAR) for _ in range(2))
    assert store.cancel(early.id) is True
    assert store.cancel(early.id) is True
    assert [message.id for message in at(scheduler, memory_broker, FAR)] == [late.id]
    assert store.cancel(late.id) is False
    assert at(scheduler, memory_broker, FAR + timedelta(days=999)) == []
    assert store.get(early.id).state == "cancelled"


def test_a_task_is_moved_and_explained_by_its_id(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """`reschedule`, `explain` and `change` know it by its id, and it is sent under that id."""
    result = task(app).apply_async((1,), eta=FAR)
    sooner = NOON + timedelta(hours=3)
    assert store.reschedule(result.id, sooner) is True
    assert "15:00" in str(store.explain(result.id))
    store.change(result.id, args=[5], options={"queue": memory_broker.queue})
    assert store.get(result.id).options == {"queue": memory_broker.queue, "task_id": result.id}
    [message] = at(scheduler, memory_broker, sooner)
    assert (message.id, message.args) == (result.id, [5])
    assert store.reschedule(result.id, FAR) is False


def test_only_the_first_message_has_the_id(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A triggered run, a further attempt and a rerun have ids of their own."""
    signature = task(app).s(1).set(task_id="mine")
    store.schedule(signature, at=FAR, max_retries=1, retry_delay=60)
    store.trigger("mine")
    [triggered] = at(scheduler, memory_broker, NOON)
    [first] = at(scheduler, memory_broker, FAR)
    assert first.id == "mine"
    report(store, "failed", [claim_of(first)], "ValueError: no")
    [second] = at(scheduler, memory_broker, FAR + timedelta(minutes=2))
    report(store, "failed", [claim_of(second)], "ValueError: no")
    store.rerun(first.headers["beatstore_run_id"])
    [third] = at(scheduler, memory_broker, FAR + timedelta(minutes=3))
    attempts = [message.headers["beatstore_attempt"] for message in (first, second, third)]
    assert attempts == [1, 2, 3]
    assert len({message.id for message in (triggered, first, second, third)}) == 4


def test_a_crash_between_send_and_mark_sends_the_same_id(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """A claim that was never marked sent is sent again by another beat, under the same id."""
    result = task(app).schedule((1,), eta=FAR)
    clock.set(FAR)
    scheduler.tick()  # it makes itself known
    with store.database.session() as session:
        table = RunModel.__table__
        session.execute(update(table).values(state="claimed", wake_at=FAR, claimed_by="gone"))
    memory_broker.drain()
    again = at(scheduler, memory_broker, FAR + timedelta(seconds=31))
    assert [message.id for message in again] == [result.id]


def test_a_recurring_entry_has_no_id(store: Store, app: Celery) -> None:
    """An entry that is sent more than once takes no id, since one message alone may have it."""
    signature = task(app).s(1).set(task_id="mine")
    with pytest.raises(InvalidEntryError, match="each run of an entry has its own"):
        store.add("a", signature, "0 9 * * *")
    with pytest.raises(InvalidEntryError):
        store.add("a", "t", 60, options={"task_id": "mine"})
    entry = store.add("a", signature, FAR)
    assert entry.options == {"task_id": "mine"}
    with pytest.raises(InvalidEntryError, match="its existing task id"):
        store.change("a", options={"task_id": "other"})
    assert store.change("a", options={}).options == {"task_id": "mine"}
    assert store.change("a", schedule="0 9 * * *").options == {}


def test_a_one_shot_that_is_sent_anew_has_a_new_id(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A finished one-shot that is given another time sends another message."""
    result = task(app).schedule((1,), countdown=0)
    [first] = at(scheduler, memory_broker, NOON)
    store.change(result.id, schedule=NOON + timedelta(hours=1))
    [second] = at(scheduler, memory_broker, NOON + timedelta(hours=1))
    assert first.id == result.id
    assert second.id != result.id


@on_sqlite
def test_an_id_written_by_hand_that_is_none(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A row whose id can't be one is broken, and holds up no other."""
    bad = store.schedule(task(app).s(1), countdown=0, name="bad")
    good = task(app).schedule((2,), countdown=0)
    for given in (7, "", "x" * 200, "a\x00b"):
        with store.database.session() as session:
            row = update(EntryModel).where(EntryModel.id == bad.id)
            session.execute(row.values(options={"task_id": given}, state="active", wake_at=NOON))
        at(scheduler, memory_broker, NOON)
        broken = store.get("bad")
        assert (broken.state, (broken.error or "")[:40]) == ("broken", _ID_ERROR)
    assert store.get(good.id).state == "finished"


_ID_ERROR = "InvalidEntryError: options['task_id']: e"


def test_the_signals_are_those_of_the_sending(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """`before_task_publish` is sent when the message is, and not when the call is stored."""
    heard: list[str] = []

    def listen(headers: dict[str, Any], **_: Any) -> None:
        heard.append(headers["id"])

    signals.before_task_publish.connect(listen, weak=False)
    try:
        result = task(app).apply_async((1,), eta=FAR)
        assert heard == []
        at(scheduler, memory_broker, FAR)
        assert heard == [result.id]
    finally:
        signals.before_task_publish.disconnect(listen)


def test_threads_and_children_share_one_store(app: Celery, store: Store) -> None:
    """Calls from threads, and from a forked child, are all stored, over one store for an app."""
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(task(app).schedule((1,), eta=FAR).id))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    child = os.fork()
    if not child:
        try:
            task(app).schedule((1,), eta=FAR, task_id="of-the-child")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert store_of(app) is store
    assert {entry.name for entry in store.entries()} == {*ids, "of-the-child"}


def test_a_broker_that_is_away_is_not_asked(clock: ManualClock, migrated_url: str) -> None:
    """To keep a call the broker is not needed, nor connected to."""
    flaky = FlakyBroker()
    app = make_app(Broker("memory", "memory://"), migrated_url, beatstore_eta_threshold=HOUR)
    app.conf.update(flaky.settings)
    flaky.down = True
    result = task(app).apply_async((1,), eta=FAR)
    assert store_of(app).get(result.id).next_due_at == FAR
    assert flaky.connected == 0
    store_of(app).close()
