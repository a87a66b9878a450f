"""Far-future tasks, on every database: what is kept, under which id, and what is then sent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import celery
import pytest
from celery import Celery, chain, chord, group, signals
from celery.result import AsyncResult
from celery.worker.request import Request
from kombu import Queue
from sqlalchemy import update
from sqlalchemy.orm import Session

import beatstore
from beatstore import ManualClock, Store
from beatstore.beat.message import overrides_apply_async
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import (
    ConfigError,
    EntryExistsError,
    EntryNotFoundError,
    InvalidEntryError,
    UnavailableError,
)
from beatstore.models import EntryModel, RunModel
from beatstore.store.shared import store_of
from tests.support.brokers import Broker, Message
from tests.support.flaky import FlakyBroker
from tests.support.inprocess import NOWHERE, new_app, new_claim
from tests.support.marks import on_sqlite
from tests.support.ticks import report

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)
HOUR = 3600.0


def make_app(broker: Broker, url: str, **settings: Any) -> Celery:
    """Return an app whose tasks are beatstore's, and which calls an hour far."""
    app = new_app(broker, url, result_expires=None, **settings)
    app.task_cls = "beatstore:Task"

    @app.task(name="far.add", shared=False)
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name="far.total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="far.again", shared=False, bind=True, max_retries=9)
    def again(self: Any, **how: Any) -> None:
        raise self.retry(**how)

    return app


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str, clock: ManualClock) -> Iterator[Celery]:
    """Return the app; its store reads the test's clock, which stands at noon."""
    app = make_app(
        memory_broker, migrated_url, beatstore_eta_threshold=HOUR, beatstore_listen=False
    )
    store_of(app).database.clock = clock
    yield app
    store_of(app).close()
    app.close()


@pytest.fixture
def store(app: Celery) -> Store:
    """Return the store of the app."""
    return store_of(app)


def at(scheduler: DBScheduler, broker: Broker, when: datetime) -> list[Message]:
    """Move the clock, tick until nothing is due, and take what is in the queue."""
    clock = scheduler.store.database.clock
    assert isinstance(clock, ManualClock)
    clock.set(when)
    while not scheduler.tick():
        pass
    return broker.drain()


def task(app: Celery, name: str = "add") -> Any:
    """Return a task of the app."""
    return app.tasks[f"far.{name}"]


class _Raw:
    """A message as a worker's request takes it."""

    content_type = content_encoding = None

    def __init__(self, message: Message) -> None:
        self.headers, self.properties = message.headers, message.properties
        self.delivery_info = message.properties["delivery_info"]
        self.body = self.payload = (message.args, message.kwargs, message.embed)


def request_of(app: Celery, message: Message) -> Any:
    """Return what a worker makes of a message."""
    return Request(_Raw(message), app=app)  # type: ignore[no-untyped-call]


def work(app: Celery, broker: Broker) -> list[Message]:
    """Run what is in the queue as a worker does, until it is empty; return it."""
    done: list[Message] = []
    while messages := broker.drain():
        for message in messages:
            request_of(app, message).execute()
        done += messages
    return done


# -- schedule --------------------------------------------------------------------------


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


# -- apply_async beyond the threshold --------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"countdown": HOUR + 1}, True),
        ({"countdown": HOUR}, False),
        ({"countdown": 5}, False),
        ({"eta": FAR}, True),
        ({"eta": FAR.replace(tzinfo=None)}, True),
        ({"eta": "2525-11-11T09:30:00"}, True),
        ({"eta": "2525-11-11T10:30:00+01:00"}, True),
        ({"eta": datetime(2020, 1, 1, tzinfo=UTC)}, False),
        ({"eta": FAR, "countdown": 5}, False),
        ({"countdown": 0, "eta": FAR}, True),
        ({}, False),
    ],
)
@on_sqlite
def test_only_what_is_far_is_kept(
    app: Celery, store: Store, memory_broker: Broker, options: dict[str, Any], kept: bool
) -> None:
    """Beyond the threshold a call goes to the database and not to the broker, and else as ever."""
    result = task(app).apply_async((1,), **options)
    entries = [entry.name for entry in store.entries()]
    messages = [message.id for message in memory_broker.drain()]
    assert (entries, messages) == (([result.id], []) if kept else ([], [result.id]))


@on_sqlite
def test_without_the_setting_nothing_is_kept(memory_broker: Broker, migrated_url: str) -> None:
    """Without `beatstore_eta_threshold` all goes to the broker, whatever the other settings are."""
    app = make_app(memory_broker, migrated_url, beatstore_no_such_setting=1)
    result = task(app).apply_async((1,), eta=FAR)
    assert [message.id for message in memory_broker.drain()] == [result.id]
    app.conf.beatstore_eta_threshold = 5
    other = make_app(memory_broker, migrated_url, beatstore_eta_threshold="soon")
    with pytest.raises(ConfigError):
        task(other).apply_async((1,), eta=FAR)


@pytest.mark.parametrize("timezone", ["Europe/Berlin", "UTC"])
@on_sqlite
def test_an_eta_is_read_as_a_worker_reads_it(
    app: Celery, store: Store, memory_broker: Broker, timezone: str
) -> None:
    """A naive eta is what the worker of celery would have taken it for, in any zone of the app."""
    app.conf.timezone = timezone
    naive = datetime(2525, 7, 1, 12)
    kept = store.get(task(app).apply_async((1,), eta=naive).id)
    app.send_task("far.add", (1,), eta=naive)
    [message] = memory_broker.drain()
    assert kept.next_due_at == request_of(app, message).eta.astimezone(UTC)


def test_the_message_is_what_celery_would_have_sent(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """All options reach the message, as those of the same call without a time do."""
    options: dict[str, Any] = {
        "queue": memory_broker.queue,
        "priority": 7,
        "link": task(app).s(2),
        "link_error": [task(app).si(3)],
        "headers": {"tenant": "a"},
        "expires": FAR + timedelta(hours=1),
        "time_limit": 30,
        "soft_time_limit": 20,
        "shadow": "shadowed",
        "ignore_result": True,
        "group_id": "g",
        "group_index": 4,
        "root_id": "r",
        "parent_id": "p",
        "chain": [task(app).s(4)],
        "chord": task(app, "total").s(),
        "serializer": "json",
        "compression": "gzip",
        "argsrepr": "(secret)",
        "stamped_headers": ["order"],
        "order": "A1",
    }
    assert task(app).apply_async((1,), task_id="near", **options).ignored
    [near] = memory_broker.drain()
    assert task(app).apply_async((1,), task_id="far", eta=FAR, **options).ignored
    [far] = at(scheduler, memory_broker, FAR)
    assert (far.args, far.kwargs, far.embed) == (near.args, near.kwargs, near.embed)
    own = {"id", "origin", "eta", "timelimit"}
    for name in near.headers.keys() - own:
        assert far.headers[name] == near.headers[name], name
    assert far.headers["timelimit"] == near.headers["timelimit"]
    assert far.headers["expires"].startswith("2525-11-11T10:30")
    assert far.properties["priority"] == 7


@on_sqlite
def test_later_steps_may_have_times_of_their_own(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """An eta on a later step of a chain, however deep, reaches the message as celery writes it."""
    later, much_later = FAR + timedelta(days=1), FAR + timedelta(days=2)
    inner = task(app).s(3).set(eta=much_later, expires=much_later)
    outer = task(app).s(2).set(eta=later, link=inner)
    chain(task(app).s(1), outer).apply_async(eta=FAR)
    [message] = at(scheduler, memory_broker, FAR)
    [step] = message.embed["chain"]
    assert step["options"]["eta"] == later
    link = step["options"]["link"]
    [link] = link if isinstance(link, list) else [link]
    assert link["options"]["eta"] == link["options"]["expires"] == much_later


@on_sqlite
def test_what_lives_in_a_process_is_left_behind(
    app: Celery, store: Store, memory_broker: Broker
) -> None:
    """A producer or connection is for sending now, and a queue's object stands for its name."""
    app.conf.task_queues = [Queue("default"), Queue("mail")]
    with app.producer_pool.acquire(block=True) as producer:
        result = task(app).apply_async(
            (1,), eta=FAR, producer=producer, publisher=producer, connection=producer.connection,
            router=None, queue=Queue("mail"),
        )  # fmt: skip
    assert store.get(result.id).options == {"task_id": result.id, "queue": "mail"}
    assert memory_broker.drain() == []


@on_sqlite
def test_what_json_cannot_hold_is_refused(app: Celery, store: Store, memory_broker: Broker) -> None:
    """Arguments that only pickle could carry are an error; they do not slip to the broker."""
    with pytest.raises(InvalidEntryError, match=r"args\[0\]: expected text, a number"):
        task(app).apply_async(({1, 2},), eta=FAR, serializer="pickle")
    assert store.entries() == []
    assert memory_broker.drain() == []


@on_sqlite
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (60, None),
        (FAR, FAR),
        (datetime(2525, 11, 11, 9, 30), FAR),
        ("2525-11-11T09:30:00", FAR),
        ("2525-11-11T10:30:00+01:00", FAR),
    ],
)
def test_expires_means_what_celery_means(
    app: Celery, store: Store, given: Any, expected: datetime | None
) -> None:
    """Seconds count from the call, as in celery, and not from the eta; what is naive is UTC."""
    before = datetime.now(UTC)
    stored = store.get(task(app).apply_async((1,), eta=FAR, expires=given).id).options["expires"]
    found = datetime.fromisoformat(stored)
    if expected is None:
        after = datetime.now(UTC)
        assert before <= found - timedelta(seconds=given) <= after
    else:
        assert found == expected


@on_sqlite
def test_expires_of_schedule_counts_from_the_sending(
    app: Celery, store: Store, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """In `schedule`, as in `Store.add`, seconds in expires begin when the message is sent."""
    task(app).schedule((1,), eta=FAR, expires=60)
    before = datetime.now(UTC)
    [message] = at(scheduler, memory_broker, FAR)
    expires = datetime.fromisoformat(message.headers["expires"])
    assert before <= expires - timedelta(seconds=60) <= datetime.now(UTC)


@on_sqlite
def test_none_clears_what_the_task_says(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """An explicit None is kept where the task has a value of its own, as celery does."""

    @app.task(name="far.hasty", shared=False, expires=60, soft_time_limit=5)
    def hasty() -> None:
        """Do nothing."""

    hasty.apply_async(eta=FAR, expires=None, soft_time_limit=None)
    [message] = at(scheduler, memory_broker, FAR)
    assert message.headers["expires"] is None
    assert message.headers["timelimit"] == [None, None]
    assert hasty.apply_async(eta=FAR).id
    [message] = at(scheduler, memory_broker, FAR)
    assert message.headers["expires"] is not None


@on_sqlite
def test_an_eager_app_stays_eager(app: Celery, store: Store) -> None:
    """With `task_always_eager` a call runs here and now, as in the tests of celery's users."""
    app.conf.task_always_eager = True
    assert task(app).apply_async((1, 2), eta=FAR).get() == 3
    assert store.entries() == []


@on_sqlite
def test_celerys_own_tasks_stay_with_the_broker(
    app: Celery, store: Store, memory_broker: Broker
) -> None:
    """What celery sends to itself, such as the unlocking of a chord, is none of ours."""
    app.finalize()
    app.tasks["celery.backend_cleanup"].apply_async(countdown=HOUR * 2)
    assert len(memory_broker.drain()) == 1
    assert store.entries() == []


@on_sqlite
def test_a_task_of_another_class_stays_with_the_broker(
    app: Celery, store: Store, memory_broker: Broker
) -> None:
    """What is sent by name, or by a task of celery's own class, is sent as ever."""
    app.send_task("far.add", (1,), eta=FAR)

    @app.task(name="far.plain", base=celery.Task, shared=False)
    def plain() -> None:
        """Do nothing."""

    plain.apply_async(eta=FAR)
    assert len(memory_broker.drain()) == 2
    assert store.entries() == []


# -- inside a worker -------------------------------------------------------------------


@pytest.fixture
def inner(app: Celery) -> dict[str, Any]:
    """Return the arguments that `far.call`, a task that calls `far.add`, calls it with."""
    given: dict[str, Any] = {"countdown": HOUR * 2}

    @app.task(name="far.call", shared=False, bind=True)
    def call(self: Any) -> Any:
        result = task(app).apply_async((1,), **given)
        return [result.id, [child.id for child in self.request.children]]

    app.conf.result_backend = "cache+memory://"
    return given


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
    _away(store)
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


def _away(store: Store) -> None:
    """Let the store look for its database where there is none."""
    nowhere = Store(NOWHERE).database
    store.database = nowhere


# -- one id ----------------------------------------------------------------------------


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
    _away(store)
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


def claim_of(message: Message) -> Any:
    """Return as much of a claim as a report on its run needs."""
    headers = message.headers
    ids = {"run_id": headers["beatstore_run_id"], "task_id": headers["beatstore_task_id"]}
    return SimpleNamespace(**ids)


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


# -- any signature, by Store.schedule --------------------------------------------------


def stamped(app: Celery) -> Any:
    """Return a signature with a stamp, and a callback that has it too."""
    signature = task(app).s(1).set(link=task(app).s(2))
    signature.stamp(order="A1")
    return signature


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


def canvases(app: Celery) -> dict[str, Any]:
    """Return a canvas of each kind."""
    add, total = task(app), task(app, "total")
    return {
        "chain": chain(add.s(1), add.s(2)),
        "group": group(add.s(1), add.s(2)),
        "chord": chord([add.s(1), add.s(2)], total.s()),
        "group in a chain": add.s(1) | group(add.s(1), add.s(2)),
        "chord in a group": group(chord([add.s(1)], total.s()), add.s(2)),
        "chain in a chord": chord([add.s(1) | add.s(2)], total.s() | add.s(3)),
        "map": add.map([1, 2]),
        "chunks": add.chunks([(1, 2), (3, 4)], 2),
    }


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


def ids_in(messages: list[Message]) -> set[str]:
    """Return the ids of tasks, groups and chords in messages."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            options = value.get("options") if "task" in value else None
            for name in ("task_id", "group_id"):
                if isinstance(options, dict) and options.get(name):
                    found.add(options[name])
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)):
                walk(item)

    for message in messages:
        found |= {message.id, message.headers["group"]} - {None}
        walk(message.embed)
    return found


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
