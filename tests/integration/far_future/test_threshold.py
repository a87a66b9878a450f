"""Calls beyond the threshold: which are kept, and that the message is celery's own."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import celery
import pytest
from celery import Celery, chain
from kombu import Queue

from beatstore import Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import ConfigError, InvalidEntryError
from tests.support.brokers import Broker
from tests.support.far import FAR, HOUR, at, make_app, request_of, task
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.of_app


UTC = timezone.utc


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
    [message] = at(scheduler, memory_broker, FAR)
    expires = datetime.fromisoformat(message.headers["expires"])
    assert timedelta(0) <= expires - FAR - timedelta(seconds=60) < timedelta(seconds=20)


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
