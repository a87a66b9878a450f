"""The import at the start of beat: several beats, no database, nothing to import."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery

import beatstore
from beatstore import ManualClock, Store
from beatstore.discovery.modules import import_code, log
from tests.support.brokers import Broker
from tests.support.code import beat, sent
from tests.support.harness.inprocess import running
from tests.support.marks import on_servers, on_sqlite

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@on_servers
def test_two_beats_that_start_together_import_once(app: Celery) -> None:
    """Whoever comes second finds it done: each entry is there once, written once."""
    app.conf.beat_schedule = {
        f"entry-{n}": {"task": "tests.note", "schedule": 60 + n} for n in range(300)
    }
    app.finalize()
    barrier = threading.Barrier(4)
    reports: list[Any] = []

    def start() -> None:
        store = Store.from_app(app)
        barrier.wait()
        reports.extend(import_code(store, app))
        store.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(len(report.created) for report in reports) == [0, 0, 0, 300]
    assert sorted(len(report.unchanged) for report in reports) == [0, 300, 300, 300]
    store = Store.from_app(app)
    assert {entry.version for entry in store.entries()} == {1}
    assert len(store.audit(limit=1000)) == 300
    store.close()


def test_a_database_that_comes_later_gets_the_import(
    app: Celery, clock: ManualClock, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start without a database is a start: the import follows when it answers."""
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 60}}
    check = Store.check

    def away(self: Store) -> None:
        raise beatstore.UnavailableError("away")

    monkeypatch.setattr(Store, "check", away)
    with beat(app, clock) as scheduler:
        assert scheduler.tick() > 0
        monkeypatch.setattr(Store, "check", check)
        assert sent(scheduler, memory_broker) == {}
        clock.set(NOON + timedelta(minutes=1))
        assert sent(scheduler, memory_broker).keys() == {"conf"}


@on_sqlite
def test_a_lazy_scheduler_imports_nothing(app: Celery) -> None:
    """The one of the banner leaves the database as it is."""
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 60}}
    with running(app, lazy=True) as scheduler:
        assert scheduler.store.entries() == []


def test_the_log_of_nothing_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """An app without entries in its code says so once."""
    caplog.set_level(logging.INFO, "beatstore.discovery.modules")
    log([])
    assert [record.getMessage() for record in caplog.records] == [
        "imported entries from code: 0 created, 0 updated, 0 deactivated, 0 unchanged"
    ]
