"""Databases in a mood: behind a pooler, read-only for a while; real beats and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, make_url, text

from beatstore import Every, Store
from beatstore.database.connection import KeptConnection
from tests.support.absent import Unavailable, absent
from tests.support.brokers import Broker
from tests.support.pooler import PrivatePgBouncer
from tests.support.processes import Process
from tests.support.project import Project
from tests.support.wait import wait_until

NewProject = Callable[..., Project]

APP = "tests.support.tracked_app"
SETTINGS = {"beatstore_heartbeat": 0.3, "beat_max_loop_interval": 0.2}

on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
def pooler(migrated_url: str) -> Iterator[PrivatePgBouncer]:
    """Hand out a pooler before the test's database."""
    try:
        pooler = PrivatePgBouncer(migrated_url)
    except Unavailable as reason:
        absent("pgbouncer", reason)
    with pooler:
        pooler.start()
        yield pooler


def succeeded(store: Store, name: str) -> int:
    return len(store.runs(name, state="succeeded", limit=100))


def said(process: Process, *levels: str) -> list[str]:
    """Return the lines of a log that are of these levels."""
    return [line for line in process.output().splitlines() if any(f" {x}/" in line for x in levels)]


@on_postgresql
def test_pgbouncer(
    pooler: PrivatePgBouncer, redis_broker: Broker, new_project: NewProject, migrated_url: str
) -> None:
    """Through PgBouncer in transaction mode all works with the default options, and quietly."""
    project = new_project(redis_broker, pooler.url, SETTINGS, APP)
    beats = [project.beat() for _ in range(2)]
    worker = project.worker()
    worker.wait_for_output(" ready.", 60)
    with closing(Store(pooler.url)) as store:
        for number in range(10):
            store.put(f"up-{number}", "tests.note", Every(1), args=[number])
        store.put("down", "tests.note", after=["up-0"])
        names = ["down", *(f"up-{number}" for number in range(10))]
        wait_until(lambda: all(succeeded(store, name) >= 8 for name in names), 60)
        states = {run.state for run in store.runs(limit=500)}
        assert states <= {"succeeded", "sent", "started", "claimed"}
    for beat in beats:
        assert said(beat, "WARNING", "ERROR") == []
        assert beat.output().count("a connection pooler stands before PostgreSQL") == 1
    assert said(worker, "ERROR") == []
    assert "beatstore" not in "".join(said(worker, "WARNING"))


@on_postgresql
def test_no_limit_is_set_through_a_pooler(pooler: PrivatePgBouncer) -> None:
    """The limits of a beat's session are its own, and no other client of a pooler gets them."""
    asked = text("SHOW idle_in_transaction_session_timeout")
    with closing(Store(pooler.url)) as store:
        kept = KeptConnection(store.database)
        assert kept.claiming_again(lambda connection: connection.scalar(asked)) == "0"
        kept.drop(orderly=True)


@on_postgresql
def test_prepared_by_others(pooler: PrivatePgBouncer) -> None:
    """No statement is run that another client of the pooler has prepared under the same name."""
    stores = [Store(pooler.url) for _ in range(3)]
    for round_ in range(20):
        for number, store in enumerate(stores):
            store.put(f"{number}", "t", timedelta(seconds=60 + round_))
            assert store.get(f"{number}").name == f"{number}"
            assert len(store.entries()) == min(3, round_ * 3 + number + 1)
    for store in stores:
        store.close()


class ReadOnly:
    """Makes a database of PostgreSQL read-only, and cuts its connections, as a failover does."""

    def __init__(self, url: str) -> None:
        made = make_url(url)
        self._database = made.database
        self._engine = create_engine(made.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def switch(self, on: bool) -> None:
        with self._engine.connect() as connection:
            mode = "on" if on else "off"
            setting = f'"{self._database}" SET default_transaction_read_only = {mode}'
            connection.execute(text(f"ALTER DATABASE {setting}"))
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(text(ended), {"name": self._database})

    def close(self) -> None:
        self._engine.dispose()


@on_postgresql
def test_read_only_for_a_while(
    redis_broker: Broker, new_project: NewProject, database_url: str
) -> None:
    """A run that ends while the database is read-only is known to have, and none is sent twice."""
    with closing(Store(database_url)) as store, closing(ReadOnly(database_url)) as read_only:
        store.migrate()
        project = new_project(redis_broker, database_url, SETTINGS, APP)
        beat, worker = project.beat(), project.worker("--concurrency", "2")
        worker.wait_for_output(" ready.", 60)
        go = project.directory / "go"
        store.put("long", "tests.hold", store.now() + timedelta(seconds=1), args=[str(go)])
        store.put("after", "tests.note", after=["long"])
        wait_until(lambda: store.runs("long", state="started"), 30)
        store.put("tick", "tests.note", Every(1))
        read_only.switch(True)
        beat.wait_for_output("lost connection to the database", 30)
        go.touch()
        worker.wait_for_output("could not report runs to the database", 30)
        read_only.switch(False)
        wait_until(lambda: succeeded(store, "after"), 30)
        wait_until(lambda: succeeded(store, "tick") >= 3, 30)
        assert [run.state for run in store.runs("long")] == ["succeeded"]
    for process in (beat, worker):
        lines = said(process, "ERROR")
        assert all(", retrying: " in line for line in lines), lines
        assert not process.failed(), process.output()
        assert "dropped" not in process.output()
    assert beat.output().count("lost connection to the database") == 1
    assert beat.output().count("connected to the database again") == 1
    assert len({ran.id for ran in project.runs()}) == len(project.runs())
