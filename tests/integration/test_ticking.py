"""One tick without a beat: what is due is sent, and nothing is waited for."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import text

from beatstore import Once, SchemaError, Store, UnavailableError
from beatstore.beat.once import TickReport, tick
from beatstore.errors import BrokerError, ConfigError
from beatstore.models import RunModel
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from tests.support.brokers import Broker
from tests.support.harness.inprocess import NOWHERE, names, new_app, running, tick_until_idle
from tests.support.marks import on_postgresql, on_servers, on_sqlite
from tests.support.written import alter, run, write


def due_now(store: Store, name: str, **given: Any) -> None:
    """Add a one-shot whose time has come."""
    at = store.now() - timedelta(seconds=1)
    store.add(name, "tests.note", Once(at), args=[name], **given)


def figures(report: TickReport) -> tuple[int, int, int, int]:
    """Return what a report counts."""
    return report.sent, report.skipped, report.failed, report.left


@pytest.mark.quick_on("sqlite")
def test_what_is_due_is_sent_once(app: Celery, store: Store, memory_broker: Broker) -> None:
    """One tick sends everything that is due, more than a batch of it, and the next nothing."""
    for number in range(250):
        due_now(store, f"e{number}")
    store.add("later", "tests.note", 3600)
    assert figures(tick(app)) == (250, 0, 0, 0)
    assert len(set(names(memory_broker.drain()))) == 250
    assert figures(tick(app)) == (0, 0, 0, 0)
    assert store.status().beats == []  # it leaves no trace as a beat
    assert {one.state for one in store.runs(limit=300)} == {"sent"}


def test_a_tag_keeps_to_its_entries_and_their_runs(
    app: Celery, store: Store, memory_broker: Broker
) -> None:
    """Neither planning nor the sweep touches what has another tag, or none."""
    for tag in ("etl", "web"):
        due_now(store, f"{tag}-planned", tags=[tag])
        store.add(f"{tag}-swept", "tests.note", 3600, args=[f"{tag}-swept"], tags=[tag])
        store.trigger(f"{tag}-swept")
    due_now(store, "untagged")
    assert figures(tick(app, tag="etl")) == (2, 0, 0, 0)
    assert sorted(names(memory_broker.drain())) == ["etl-planned", "etl-swept"]
    assert figures(tick(app, tag="nobody")) == (0, 0, 0, 0)
    assert figures(tick(app)) == (3, 0, 0, 0)


def test_a_broken_row_of_another_tag_is_left_alone(app: Celery, store: Store) -> None:
    """What can't be read is taken out of service by a tick that is about it, and no other."""
    store.add("bad", "tests.note", 3600, tags=["web"])
    alter(store, "bad", kind="nope", wake_at=store.now() - timedelta(minutes=1))
    tick(app, tag="etl")
    assert store.get("bad").state == "active"
    tick(app, tag="web")
    assert store.get("bad").state == "broken"


def test_what_can_not_be_sent_is_told(app: Celery, store: Store) -> None:
    """A message that can't be made is a failed run; one that fails for now is left."""

    @app.task(name="tests.two", shared=False)
    def two(x: int, y: int) -> None:
        """Takes two arguments."""

    class Away(app.Task):  # type: ignore[name-defined, misc]
        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("not now")

    @app.task(base=Away, name="tests.away", shared=False)
    def away() -> None:
        """Can't be sent."""

    store.schedule("tests.two", at=store.now(), name="two")
    store.schedule("tests.away", at=store.now(), name="away")
    due_now(store, "good")
    assert figures(tick(app)) == (1, 0, 1, 1)
    assert store.runs("away")[0].state == "claimed"


def test_it_runs_beside_a_beat(app: Celery, store: Store, memory_broker: Broker) -> None:
    """What a beat has claimed is not sent again, and what a tick has sent is not the beat's."""
    due_now(store, "claimed")
    beat = Queue(store.database, store.settings, "a-beat")
    claims, _ = beat.plan(beat.look().now)
    due_now(store, "free")
    assert figures(tick(app)) == (1, 0, 0, 0)
    assert names(memory_broker.drain()) == ["free"]
    beat.mark([Outcome(claim, "sent") for claim in claims])
    beat.close()
    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == []


def test_ticks_at_once_share_the_work(
    app: Celery, store: Store, memory_broker: Broker, backend: str
) -> None:
    """Two ticks at the same time send each occurrence once."""
    for number in range(120):
        due_now(store, f"e{number}")
    reports: list[TickReport] = []
    other = new_app(memory_broker, store.database.url.render_as_string(False), result_expires=None)
    threads = [
        threading.Thread(target=lambda app=each: reports.append(tick(app)))  # type: ignore[misc]
        for each in (app, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.close()
    assert sum(report.sent for report in reports) == 120
    found = names(memory_broker.drain())
    assert len(found) == len(set(found)) == 120


def test_a_silent_run_is_lost_by_the_time_it_ends(app: Celery, store: Store) -> None:
    """What no worker reports on is asked after, and the answer is written, within one tick."""
    store.add("job", "tests.note", 3600)
    past = store.now() - timedelta(minutes=5)
    write(store, RunModel, run(store.get("job"), past, sent_at=past, wake_at=past))
    assert figures(tick(app)) == (0, 0, 0, 0)
    assert store.runs("job")[0].state == "lost"


@on_sqlite
def test_an_entry_that_is_always_due_does_not_keep_it(app: Celery, store: Store) -> None:
    """What falls due while it ticks is for the next tick."""
    store.add("busy", "tests.note", 0.1, args=["busy"])
    time.sleep(0.15)
    began = time.monotonic()
    assert tick(app, timeout=30).sent >= 1
    assert time.monotonic() - began < 15


@on_sqlite
def test_what_is_left_when_the_time_is_over_is_said(
    app: Celery, store: Store, memory_broker: Broker
) -> None:
    """A tick that stops while more is due says so; the one that sends the rest does not."""
    for number in range(250):
        due_now(store, f"e{number}")
    report = tick(app, timeout=0)
    assert (report.sent, report.more) == (100, True)
    report = tick(app)
    assert (report.sent, report.more) == (150, False)
    assert len(set(names(memory_broker.drain()))) == 250


@on_servers
def test_an_entry_that_is_locked_is_left(app: Celery, store: Store) -> None:
    """An entry that a transaction of somebody holds is not sent, and the tick says so."""
    due_now(store, "held")
    with store.database.engine.begin() as connection:
        connection.execute(text("SELECT id FROM beatstore_entry FOR UPDATE"))
        report = tick(app, timeout=0.2)
        assert (report.sent, report.left, report.more) == (0, 0, True)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"beatstore_url": NOWHERE}, UnavailableError),
        ({"beatstore_nonsense": 1}, ConfigError),
        ({"broker_url": "redis://127.0.0.1:1/0"}, BrokerError),
    ],
)
@on_sqlite
def test_what_is_away_is_said_and_not_waited_for(
    memory_broker: Broker, migrated_url: str, store: Store, settings: Any, error: type[Exception]
) -> None:
    """No database, no broker or a wrong setting ends it, and what is due stays due."""
    due_now(store, "waits")
    app = new_app(memory_broker, migrated_url, **settings)
    began = time.monotonic()
    with pytest.raises(error):
        tick(app)
    app.close()
    assert time.monotonic() - began < 30
    assert store.runs() == []


@on_postgresql
def test_missing_tables_are_said(memory_broker: Broker, database_url: str) -> None:
    """Where tables are not made by themselves, the message says how they are."""
    app = new_app(memory_broker, database_url)
    with pytest.raises(SchemaError, match="migrate"):
        tick(app)
    app.close()
