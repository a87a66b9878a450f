"""Connections in a bad state: what is done again, what is waited for, what is an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from beatstore import After, Store
from beatstore.database import connection as kept_connection
from beatstore.database.connection import KeptConnection
from beatstore.errors import UnavailableError
from beatstore.tick.queue import Queue
from beatstore.tick.reports import Origin, Report, Reports
from beatstore.worker.reporter import Reporter
from tests.support.harness.ticks import report, tick
from tests.support.marks import on_mariadb, on_postgresql, on_servers
from tests.support.wait import wait_until

pytestmark = pytest.mark.every_database


SESSION = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mariadb": ("SELECT CONNECTION_ID()", "KILL CONNECTION {}"),
}

#: Out of sight of psycopg, as a pooler does it.
FORGET = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"


@pytest.fixture
def kept(store: Store) -> Iterator[KeptConnection]:
    kept = KeptConnection(store.database)
    yield kept
    kept.drop(orderly=True)


def number(connection: Connection) -> int:
    """Return the server's number of this session."""
    found = connection.scalar(text(SESSION[_name(connection)][0]))
    assert isinstance(found, int)
    return found


def end_session(store: Store, session: int) -> None:
    """Let the server close a connection, as it does with what is idle."""
    with store.database.engine.connect() as connection:
        connection.execute(text(SESSION[_name(connection)][1].format(session)))


def _name(connection: Connection) -> str:
    return connection.dialect.name.replace("mysql", "mariadb")


@on_servers
@pytest.mark.parametrize("way", ["reading_again", "claiming_again"])
def test_an_idle_connection_that_was_closed(store: Store, kept: KeptConnection, way: str) -> None:
    """A connection that the server closed while it was idle is replaced, and nobody hears of it."""
    again: Callable[[Callable[[Connection], int]], int] = getattr(kept, way)
    first = again(number)
    end_session(store, first)
    assert again(number) != first


@on_servers
def test_a_commit_is_not_done_again(store: Store, kept: KeptConnection) -> None:
    """What was lost at the commit may count: it is reported, and not done a second time."""
    calls = []

    def work(connection: Connection) -> None:
        calls.append(number(connection))
        connection.execute(text("UPDATE beatstore_entry SET version = version"))
        end_session(store, calls[-1])

    with pytest.raises(UnavailableError):
        kept.claiming_again(work)
    assert len(calls) == 1


@on_servers
def test_what_one_connection_refuses(store: Store, kept: KeptConnection) -> None:
    """A statement refused by a connection that was there already is tried once on a new one."""
    table = "beatstore_only_here"
    made = f"CREATE TEMPORARY TABLE {table} (n int)"

    def missing_at_first(connection: Connection) -> object:
        calls.append(number(connection))
        if len(calls) == 1:
            return connection.execute(text(f"SELECT n FROM {table}"))
        connection.execute(text(made))
        return connection.scalar(text(f"SELECT count(*) FROM {table}"))

    calls = [kept.claiming_again(number)]
    calls.clear()
    assert kept.claiming_again(missing_at_first) == 0
    assert len(set(calls)) == 2


@on_servers
def test_a_mistake_is_an_error(kept: KeptConnection) -> None:
    """A value out of range is refused as that, after two tries, and never called an outage."""
    sums = {"postgresql": "9223372036854775807::bigint + 1", "mariadb": "9223372036854775807 + 1"}
    calls = []

    def work(connection: Connection) -> object:
        calls.append(1)
        return connection.scalar(text(f"SELECT {sums[_name(connection)]}"))

    kept.claiming_again(number)
    with pytest.raises(DBAPIError):
        kept.claiming_again(work)
    assert len(calls) == 2


@on_postgresql
def test_prepared_statements_that_are_gone(store: Store) -> None:
    """Statements that a pooler forgot are sent again, unprepared; so is all that follows."""
    url = store.database.url.render_as_string(hide_password=False)
    prepared = Store(url, engine_options={"connect_args": {"prepare_threshold": 0}})
    kept = KeptConnection(prepared.database)
    threshold = []

    def note(connection: Connection) -> None:
        threshold.append(connection.connection.dbapi_connection.prepare_threshold)  # type: ignore[union-attr]

    with closing(prepared):
        assert kept.claiming_again(number) == kept.claiming_again(number)
        kept.claiming_again(lambda connection: connection.execute(text(FORGET)) and None)
        assert kept.claiming_again(number)
        kept.claiming_again(note)
        kept.drop(orderly=True)
        assert threshold == [None]


@on_postgresql
def test_prepared_statements_of_the_api(store: Store) -> None:
    """The API does the same with the connections of its pool."""
    url = store.database.url.render_as_string(hide_password=False)
    options = {"connect_args": {"prepare_threshold": 0}, "pool_size": 1, "max_overflow": 0}
    prepared = Store(url, engine_options=options)
    with closing(prepared):
        for _ in range(3):
            prepared.put("a", "t", 60)
        with prepared.database.engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            driver.cursor().execute(FORGET)
        prepared.put("a", "t", 70)
        assert prepared.get("a").spec


READ_ONLY = {
    "postgresql": tuple(f"SET default_transaction_read_only = {on}" for on in ("off", "on")),
    "mysql": ("SET SESSION TRANSACTION READ WRITE", "SET SESSION TRANSACTION READ ONLY"),
}


class Switch:
    """Makes the sessions of an engine read-only while it is on."""

    def __init__(self, engine: Engine) -> None:
        self.on = False
        name = engine.dialect.name

        def checkout(connection: Any, *_: object) -> None:
            cursor = connection.cursor()
            cursor.execute(READ_ONLY[name][self.on])
            cursor.close()
            connection.commit()

        event.listen(engine, "checkout", checkout)


def turn_read_only(engine: Engine, count: int) -> None:
    """Make so many connections of an engine's pool read-only for good, as a failover does."""
    connections = [engine.connect() for _ in range(count)]
    for connection in connections:
        connection.exec_driver_sql(READ_ONLY[engine.dialect.name][True])
        connection.commit()
    for connection in connections:
        connection.close()


def test_a_connection_in_use_is_closed_when_it_is_given_back(store: Store) -> None:
    """A store that is closed leaves no connection open that another thread was using."""
    engine = store.database.engine
    with engine.connect() as used:
        connection = used.connection.dbapi_connection
        store.close()
    with pytest.raises(engine.dialect.loaded_dbapi.Error):
        connection.cursor().execute("SELECT 1")


@on_servers
def test_another_server_has_taken_over(migrated_url: str) -> None:
    """The connections of a pool to a server that takes no writes any more are all left at once."""
    with closing(Store(migrated_url)) as store:
        turn_read_only(store.database.engine, 3)
        for name in ("a", "b", "c"):
            store.add(name, "t", 60)
        assert len(store.entries()) == 3


@on_servers
def test_another_server_has_taken_over_from_an_engine_of_the_user_s(migrated_url: str) -> None:
    """Of a pool of the user's own each such connection is given up by the call that it fails."""
    engine = create_engine(migrated_url)
    turn_read_only(engine, 2)
    store = Store(engine)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            store.add("a", "t", 60)
    store.add("a", "t", 60)
    engine.dispose()


@on_servers
def test_a_database_that_is_read_only(
    store: Store, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reports wait for a database that is read-only for a while: one line, and none is dropped."""
    engine = create_engine(migrated_url)
    switch = Switch(engine)
    with closing(Queue(store.database, store.settings, "b1")) as queue:
        store.schedule("t", name="once", countdown=0)
        [claim] = tick(queue)
    reports = Reports(Store(engine).database, store.settings)
    reporter = Reporter(lambda: reports)
    switch.on = True
    of = Origin(claim.run_id, claim.task_id)
    reporter.report(Report(of, "succeeded", time.monotonic(), "w"))
    wait_until(lambda: ", retrying: " in caplog.text)
    with pytest.raises(UnavailableError):
        Store(engine).put("other", "t", 60)
    switch.on = False
    assert reporter.flush(30)
    reporter.stop(10)
    engine.dispose()
    assert store.runs("once")[0].state == "succeeded"
    assert caplog.text.count(", retrying: ") == caplog.text.count(" again after ") == 1
    assert "Traceback" not in caplog.text


def test_a_pool_of_one(migrated_url: str) -> None:
    """A beat, its listener and the API of its process work with a pool of one connection."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}
    store = Store(migrated_url, engine_options=options)
    with closing(store), closing(Queue(store.database, store.settings, "b1")) as queue:
        queue.look()
        listener = queue.upkeep.listener()
        store.put("up", "t", timedelta(milliseconds=100))
        store.put("down", "t", after=[After("up", align="latest")])
        up = wait_until(lambda: [claim for claim in tick(queue) if claim.name == "up"])
        store.pause("up")
        report(store, "succeeded", up)
        assert [claim.name for claim in tick(queue)] == ["down"]
        assert store.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        if listener is not None:
            listener.close()


@on_mariadb
def test_locks_are_waited_for_briefly(store: Store, kept: KeptConnection) -> None:
    """The session that is kept limits its waits for locks, and those of the pool do not."""
    asked = text("SELECT @@SESSION.innodb_lock_wait_timeout")
    assert kept.claiming_again(lambda connection: connection.scalar(asked)) == 1
    kept.drop(orderly=True)
    with store.database.engine.connect() as connection:
        assert connection.scalar(asked) > 1


@on_postgresql
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_a_look_is_one_round_trip(migrated_url: str, driver: str) -> None:
    """A look has no transaction around it, which would be a round trip more at either end."""
    pytest.importorskip(driver)
    store = Store(make_url(migrated_url).set(drivername=f"postgresql+{driver}"))
    queue = Queue(store.database, store.settings, "beat")
    others = text(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND query LIKE '%beatstore_entry.wake_at%'"
    )
    states: list[str] = []

    def ask(*_: object) -> None:
        with watcher.connect() as connection:
            states.extend(connection.scalars(others))

    watcher = create_engine(migrated_url)
    event.listen(store.database.engine, "after_cursor_execute", ask)
    assert queue.look().now
    assert states == ["idle"]
    queue.close()
    store.close()
    watcher.dispose()


@on_servers
def test_a_client_that_falls_silent_in_a_transaction(
    store: Store, kept: KeptConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a beat has locked is free after a limit, also if it stands still or is cut off."""
    store.add("a", "t", timedelta(hours=1))
    monkeypatch.setattr(kept_connection, "SILENCE", 1)

    def is_free() -> bool:
        locked = text("SELECT id FROM beatstore_entry FOR UPDATE SKIP LOCKED")
        with store.database.engine.connect() as connection:
            return bool(connection.execute(locked).all())

    def lock_and_say_nothing() -> None:
        with kept.claiming() as connection:
            connection.execute(text("UPDATE beatstore_entry SET description = 'locked'"))
            assert not is_free()
            wait_until(is_free, 10, "the row is locked for good")

    with pytest.raises(UnavailableError):
        lock_and_say_nothing()
    assert kept.claiming_again(number)


@on_servers
def test_a_stricter_limit_of_the_server_stays(migrated_url: str, backend: str) -> None:
    """A limit of silence that the server has is lowered where it is longer, and never raised."""
    setting, query, asked = {
        "postgresql": (
            "idle_in_transaction_session_timeout",
            ("options", "-c {}={}s"),
            "SELECT CAST(setting AS INTEGER) / 1000 FROM pg_settings WHERE name = '{}'",
        ),
        "mariadb": (
            "idle_transaction_timeout",
            ("init_command", "SET SESSION {}={}"),
            "SELECT @@SESSION.{}",
        ),
    }[backend]
    for there, expected in ((0, 30), (7, 7), (3600, 30)):
        given = {query[0]: query[1].format(setting, there)}
        store = Store(make_url(migrated_url).update_query_dict(given))
        kept = KeptConnection(store.database)
        limit = text(asked.format(setting))
        assert (
            kept.claiming_again(lambda connection, limit=limit: connection.scalar(limit))
            == expected
        )
        kept.drop(orderly=True)
        store.close()


@on_postgresql
def test_no_plan_of_a_beat_reads_a_whole_table(kept: KeptConnection) -> None:
    """The server keeps the plans of a session, also those made for a table that was empty.

    Elsewhere a table without rows is read as a whole, and goes on being read so as it grows.
    """
    asked = text("EXPLAIN SELECT id FROM beatstore_run WHERE id = ANY(ARRAY[1, 2])")

    def explained(connection: Connection) -> str:
        assert connection.scalar(text("SHOW jit")) == "off"
        return str(connection.execute(asked).all())

    assert "Seq Scan" not in kept.claiming_again(explained)


@on_servers
def test_a_connection_that_fails_half_way_is_closed(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is opened and can't be prepared leaves no connection behind at the server."""
    opened: list[Any] = []

    def fail(connection: Any) -> None:
        opened.append(connection)
        raise OSError("the network is gone")

    store = Store(migrated_url)
    kept = KeptConnection(store.database)
    with monkeypatch.context() as patched:
        patched.setattr(kept_connection, "prepare_connection", fail)
        with pytest.raises(UnavailableError, match="network"):
            kept.claiming_again(number)
    (driver,) = opened
    assert driver.closed if hasattr(driver, "closed") else not driver.open
    assert kept.claiming_again(number)
    kept.drop(orderly=True)
    store.close()
