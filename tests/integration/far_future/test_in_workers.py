"""Calls, retries and replacements that tasks make in a worker, for the far future."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from beatstore import Store
from beatstore.beat.scheduler import DBScheduler
from tests.support.brokers import Broker
from tests.support.far import HOUR, NOON, at, lose_database, request_of, task, work
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.of_app


@on_sqlite
def test_a_call_by_a_task_has_its_parents(
    app: Celery, store: Store, memory_broker: Broker, inner: dict[str, Any]
) -> None:
    """What a running task calls for later has its root, parent and priority, and is its child."""
    app.conf.task_inherit_parent_priority = True
    sent = task(app, "call").apply_async(root_id="the-root", priority=4)
    work(app, memory_broker)
    result_id, children = sent.get()
    options = store.get(result_id).options
    assert options == {
        "task_id": result_id, "root_id": "the-root", "parent_id": sent.id, "priority": 4,
    }  # fmt: skip
    assert children == [result_id]
    inner["add_to_parent"] = False
    sent = task(app, "call").apply_async()
    work(app, memory_broker)
    assert sent.get()[1] == []


@on_sqlite
def test_a_far_retry_is_kept(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A task that retries itself in a year keeps its id, its count and its options meanwhile."""
    how = {"countdown": HOUR * 9000}
    sent = task(app, "again").apply_async(
        kwargs=how, headers={"tenant": "a"}, time_limit=30, link=task(app).si(1)
    )
    [first] = work(app, memory_broker)
    entry = store.get(sent.id)
    assert entry.next_due_at == NOON + timedelta(hours=9000)
    [second] = at(scheduler, memory_broker, NOON + timedelta(hours=9000))
    assert (second.id, second.kwargs, second.embed) == (first.id, first.kwargs, first.embed)
    assert (first.headers["retries"], second.headers["retries"]) == (0, 1)
    assert second.headers["tenant"] == "a"
    for name in ("root_id", "timelimit", "ignore_result"):
        assert second.headers[name] == first.headers[name]
    [run] = store.runs(sent.id)
    assert run.task_id == sent.id


@on_sqlite
def test_a_retry_of_a_run_stays_with_the_broker(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A run of beatstore's that retries itself is still under way: its message is the broker's."""
    entry = store.schedule(task(app, "again").s(countdown=HOUR * 9), countdown=0)
    [first] = at(scheduler, memory_broker, NOON)
    request_of(app, first).execute()
    [second] = memory_broker.drain()
    assert second.id == first.id
    assert second.headers["retries"] == 1
    assert second.headers["beatstore_run_id"] == first.headers["beatstore_run_id"]
    assert [found.name for found in store.entries()] == [entry.name]


@on_sqlite
def test_a_replacement_of_a_run_stays_with_the_broker(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A run that goes on as another task goes on there, however late."""

    @app.task(name="far.replace", shared=False, bind=True)
    def replace(self: Any) -> Any:
        raise self.replace(task(app).s(1).set(countdown=HOUR * 9))

    store.schedule(replace.s(), countdown=0)
    [first] = at(scheduler, memory_broker, NOON)
    request_of(app, first).execute()
    [second] = memory_broker.drain()
    assert (second.id, second.task) == (first.id, "far.add")
    assert len(store.entries()) == 1


#: Canvases with a task that is far, and how many messages of them are sent.
CANVASES: dict[str, tuple[Callable[[Any, Any], Any], int]] = {
    "chain": (lambda far, near: chain(far(), near()), 1),
    "chain with a late end": (lambda far, near: chain(near(), far()), 2),
    "group": (lambda far, near: group(far(), near()), 2),
    "chord": (lambda far, near: chord([far(), far()], near()), 2),
}


@on_sqlite
@pytest.mark.parametrize("shape", CANVASES)
def test_a_canvas_that_replaces_a_run_stays_with_the_broker(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker, shape: str
) -> None:
    """A run that goes on as a canvas is all with the broker, however late a task of it is."""
    build, count = CANVASES[shape]
    app.conf.result_backend = "cache+memory://"

    @app.task(name="far.replace", shared=False, bind=True)
    def replace(self: Any) -> Any:
        def far() -> Any:
            return task(app).si(1).set(countdown=HOUR * 9)

        raise self.replace(build(far, lambda: task(app).si(1)))

    store.schedule(replace.s(), countdown=0)
    [first] = at(scheduler, memory_broker, NOON)
    request_of(app, first).execute()
    sent = memory_broker.drain()
    if count > len(sent):
        request_of(app, sent[0]).execute()
        sent += memory_broker.drain()
    sent = [one for one in sent if one.task == "far.add"]
    assert len(sent) == count
    assert any(one.headers["eta"] for one in sent)
    run_id = first.headers["beatstore_run_id"]
    assert {one.headers["beatstore_run_id"] for one in sent} == {run_id}
    assert len(store.entries()) == 1


@on_sqlite
def test_what_joins_the_chord_of_a_run_stays_with_the_broker(
    app: Celery,
    store: Store,
    scheduler: DBScheduler,
    memory_broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a task adds to its chord is counted there, so it is sent, however late it is."""
    app.conf.result_backend = "cache+memory://"
    # Only Redis can do the counting; what is sent is the same.
    monkeypatch.setattr(app.backend, "add_to_chord", lambda *args: None, raising=False)

    @app.task(name="far.join", shared=False, bind=True)
    def join(self: Any) -> None:
        self.add_to_chord(task(app).si(1).set(countdown=HOUR * 9))

    store.schedule(chord([join.si(), join.si()], task(app).si(1)), countdown=0)
    first, *_ = at(scheduler, memory_broker, NOON)
    request_of(app, first).execute()
    [joined] = [one for one in memory_broker.drain() if one.task == "far.add"]
    assert joined.headers["beatstore_run_id"] == first.headers["beatstore_run_id"]
    assert len(store.entries()) == 1


@on_sqlite
@pytest.mark.parametrize("how", ["apply_async", "schedule"])
def test_a_call_with_the_headers_of_a_run_is_kept(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker, how: str
) -> None:
    """A far call is no part of the run whose task passes its headers on, and is stored."""

    @app.task(name="far.pass", shared=False, bind=True)
    def passes_on(self: Any) -> None:
        theirs = {**self.request.headers, "tenant": "a"}
        getattr(task(app), how)((1,), countdown=HOUR * 9, headers=theirs)

    store.schedule(passes_on.s(), countdown=0, name="first")
    [first] = at(scheduler, memory_broker, NOON)
    request_of(app, first).execute()
    assert memory_broker.drain() == []
    [kept] = [found.options["headers"] for found in store.entries() if found.name != "first"]
    assert kept["tenant"] == "a"
    assert not [name for name in kept if name.startswith("beatstore_")]


@on_sqlite
def test_a_later_step_of_a_run_stays_with_the_broker(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A step of a canvas that beat has sent is part of its run, however late it is to start."""
    late = task(app).s(2).set(countdown=HOUR * 9)
    store.schedule(chain(task(app).s(1), late), countdown=0)
    [first] = at(scheduler, memory_broker, NOON)
    request_of(app, first).execute()
    [second] = memory_broker.drain()
    assert second.headers["eta"] is not None
    assert second.headers["beatstore_run_id"] == first.headers["beatstore_run_id"]
    assert len(store.entries()) == 1


@on_sqlite
def test_a_retry_is_not_lost_with_the_database(
    app: Celery, store: Store, memory_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry that can't be stored goes to the broker, since the worker would drop its message."""
    sent = task(app, "again").apply_async(kwargs={"countdown": HOUR * 9})
    [first] = memory_broker.drain()
    store.database.dispose()
    lose_database(store)
    request_of(app, first).execute()
    [second] = memory_broker.drain()
    assert (second.id, second.headers["retries"]) == (sent.id, 1)
    assert second.headers["eta"] is not None
    assert f"far.again[{sent.id}]: sending the retry through the broker: " in caplog.text


@on_sqlite
def test_a_message_that_comes_twice_is_retried_once(
    app: Celery, store: Store, memory_broker: Broker
) -> None:
    """The second delivery of a message finds its far retry stored, and adds no other."""
    sent = task(app, "again").apply_async(kwargs={"countdown": HOUR * 9})
    [message] = memory_broker.drain()
    for _ in range(2):
        request_of(app, message).execute()
    assert [entry.name for entry in store.entries()] == [sent.id]
    assert memory_broker.drain() == []


@on_sqlite
def test_an_id_used_before_does_not_stop_a_retry(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A retry under an id of which an entry is over goes to the broker."""
    task(app).schedule((1,), countdown=0, task_id="daily")
    assert len(at(scheduler, memory_broker, NOON)) == 1
    task(app, "again").apply_async(kwargs={"countdown": HOUR * 9}, task_id="daily")
    [first] = memory_broker.drain()
    request_of(app, first).execute()
    assert [message.headers["retries"] for message in memory_broker.drain()] == [1]
