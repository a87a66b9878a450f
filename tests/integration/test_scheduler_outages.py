"""A scheduler whose database or broker is absent, and how it goes on."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Connection

from beatstore import Cron, Once
from beatstore.beat.scheduler import TOGETHER_S, DBScheduler
from beatstore.clock import ManualClock
from beatstore.errors import UnavailableError
from tests.support.brokers import Broker
from tests.support.flaky import FlakyBroker
from tests.support.harness.inprocess import at_clock, names, new_app, running, tick_until_idle
from tests.support.marks import on_mariadb, on_sqlite
from tests.support.ports import free_port
from tests.support.wait import wait_until

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "mysql+pymysql"])
def test_no_server_is_waited_for(
    memory_broker: Broker, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A database server that does not answer at start is logged once, and asked again."""
    url = f"{scheme}://user:secret@127.0.0.1:{free_port()}/db"
    with running(new_app(memory_broker, url), max_interval=2) as scheduler:
        waits = [scheduler.tick() for _ in range(6)]
    assert all(0 < wait <= 2 for wait in waits)
    assert waits == sorted(waits)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "lost connection to the database" in record.getMessage()
    assert "secret" not in caplog.text


def test_a_database_that_comes_later_is_used(
    memory_broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beat may start before its database: when that is there, it is migrated and read."""
    folder = tmp_path / "later"
    app = new_app(memory_broker, f"sqlite:///{folder}/beatstore.db", result_expires=None)
    with running(app) as scheduler:
        assert 0 < scheduler.tick() <= 1
        folder.mkdir()
        assert scheduler.tick() == 1.0
        scheduler.store.add("a", "tests.note", Once(NOON))
        assert scheduler.tick() < TOGETHER_S
        assert len(memory_broker.drain()) == 1
    assert caplog.text.count("connected to the database again") == 1


@on_sqlite
def test_a_database_that_goes_and_returns_costs_nothing(
    scheduler: DBScheduler,
    memory_broker: Broker,
    migrated_url: str,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An outage is survived: a tick says when to look again, and nothing is lost by it."""
    scheduler.store.add("a", "tests.note", Cron("* * * * *"))
    tick_until_idle(scheduler)
    path = Path(migrated_url.removeprefix("sqlite:///"))
    scheduler.queue.close()
    scheduler.store.close()
    gone = path.rename(path.with_suffix(".gone"))
    path.mkdir()
    clock.advance(60)
    waits = [scheduler.tick() for _ in range(8)]
    assert all(0 < wait <= 1 for wait in waits)
    path.rmdir()
    gone.rename(path)
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["a"]
    levels = [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]
    assert levels == ["ERROR", "WARNING"]


@on_sqlite
def test_a_broker_that_goes_and_returns_costs_nothing(
    app: Celery,
    memory_broker: Broker,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the broker is away beat claims nothing new, and sends all when it is back, once."""
    flaky = FlakyBroker()
    app.conf.update(flaky.settings)
    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        at_clock(scheduler, clock)
        scheduler.store.add("a", "tests.note", Once(NOON))
        scheduler.store.add("b", "tests.note", Once(NOON + timedelta(seconds=10)))
        flaky.down = True
        waits = [scheduler.tick() for _ in range(3)]
        assert all(0 < wait <= 1 for wait in waits)
        clock.advance(60)
        waits = [scheduler.tick() for _ in range(3)]
        assert all(0 <= wait <= 1 for wait in waits)
        assert [run.entry_name for run in scheduler.store.runs()] == ["a"]
        assert [run.state for run in scheduler.store.runs()] == ["claimed"]
        flaky.down = False
        wait_until(lambda: (scheduler.tick(), memory_broker.count() == 2)[1], 10, "two messages")
        tick_until_idle(scheduler)
        assert {run.state for run in scheduler.store.runs()} == {"sent"}
    assert sorted(names(memory_broker.drain())) == ["a", "b"]
    levels = [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]
    assert levels == ["ERROR", "WARNING"]


def test_what_was_sent_is_not_sent_again_when_it_could_not_be_marked(
    scheduler: DBScheduler, memory_broker: Broker, clock: ManualClock
) -> None:
    """A database that goes away between send and mark is told later, however much later."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    with pytest.MonkeyPatch.context() as patch:

        def away(*_: Any) -> None:
            raise UnavailableError("the database is away")

        patch.setattr(scheduler.queue, "mark", away)
        assert 0 < scheduler.tick() <= 1
        clock.advance(3600)
        assert 0 < scheduler.tick() <= 1
    assert tick_until_idle(scheduler) == 1.0
    assert len(memory_broker.drain()) == 1
    assert [run.state for run in scheduler.store.runs()] == ["sent"]


@on_mariadb
def test_a_lock_on_the_tables_is_an_outage(
    app: Celery, memory_broker: Broker, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the driver gives up waiting for somebody's lock, beat tries again later."""
    app.conf.beatstore_engine_options = {"connect_args": {"read_timeout": 0.3}}
    engine = create_engine(migrated_url)
    with running(app) as scheduler, engine.connect() as other:
        scheduler.store.add("a", "tests.note", Once(NOON))
        other.execute(text("LOCK TABLES beatstore_entry WRITE, beatstore_run WRITE"))
        assert 0 < scheduler.tick() <= 1
        assert "lost connection to the database" in caplog.text
        other.execute(text("UNLOCK TABLES"))
        tick_until_idle(scheduler)
    engine.dispose()
    assert names(memory_broker.drain()) == ["a"]


@on_sqlite
def test_a_full_disk_is_an_outage(
    scheduler: DBScheduler,
    memory_broker: Broker,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database without room for a row is waited for, said once, and nothing is lost."""
    engine, most = scheduler.store.database.engine, [2**30]

    @event.listens_for(engine, "begin")
    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {most[0]}")

    for number in range(300):
        scheduler.store.add(f"entry-{number}", "tests.note", Once(NOON + timedelta(seconds=10)))
    with engine.connect() as connection:
        most[0] = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    clock.advance(10)
    assert [scheduler.tick() > 0 for _ in range(5)] == [True] * 5
    assert memory_broker.drain() == []
    most[0] = 2**30
    tick_until_idle(scheduler)
    assert len(set(names(memory_broker.drain()))) == 300
    levels = [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]
    assert levels == ["ERROR", "WARNING"]


def test_a_column_that_is_missing_breaks_no_entry(
    scheduler: DBScheduler, memory_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Tables in the middle of a migration are waited for: no row is at fault."""
    scheduler.store.add("a", "tests.note", Once(NOON))
    engine = create_engine(scheduler.store.database.url)
    for one, other in (("reason", "away"), ("away", "reason")):
        with engine.begin() as connection:
            rename = f"ALTER TABLE beatstore_run RENAME COLUMN {one} TO {other}"
            connection.exec_driver_sql(rename)
        if other == "away":
            assert all(scheduler.tick() > 0 for _ in range(3))
    engine.dispose()
    tick_until_idle(scheduler)
    assert names(memory_broker.drain()) == ["a"]
    levels = [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]
    assert levels == ["ERROR", "WARNING"]


def test_a_beat_s_own_row_comes_back(scheduler: DBScheduler) -> None:
    """Where somebody deletes the row of a living beat, its next heartbeat writes it again."""
    scheduler.tick()
    with scheduler.store.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM beatstore_beat"))
    assert scheduler.store.status().beats == []
    scheduler.housekeeping._heartbeat_due = 0.0
    scheduler.tick()
    assert len(scheduler.store.status().beats) == 1
