"""NOTIFY is a setting, and a server that refuses to LISTEN is polled."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors

from beatstore import Cron, Settings, Store
from beatstore.database.dialects import CHANNEL
from beatstore.database.drivers import Listener
from beatstore.errors import UnavailableError
from beatstore.tick import complete
from beatstore.tick.claims import Ending
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import plan, sent, sweep
from tests.support.marks import on_postgresql

pytestmark = [pytest.mark.every_database, on_postgresql]


@pytest.fixture
def ear(database_url: str) -> Iterator[psycopg.Connection]:
    """Hand out a connection that listens."""
    url = sa.make_url(database_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield connection


def a_store(url: str, *, notify: bool, schema: str | None = None) -> Store:
    """Return a migrated store with this setting."""
    store = Store(url, settings=Settings(url=url, notify=notify, schema=schema))
    store.migrate()
    store.check()
    return store


def notified_of(store: Store, ear: psycopg.Connection) -> list[str]:
    """Do one of everything that notifies; return what of it was heard."""
    heard: list[str] = []

    def hear(what: str) -> None:
        if list(ear.notifies(timeout=0.2)):
            heard.append(what)

    def by_sql(statement: str) -> None:
        with store.database.engine.begin() as connection:
            schema = store.database.schema
            connection.exec_driver_sql(f"SET LOCAL search_path TO {schema or 'public'}")
            connection.exec_driver_sql(statement)

    store.add("up", "t", Cron("0 3 * * *"))
    store.add("down", "t", after=["up"])
    hear("add")
    by_sql("UPDATE beatstore_entry SET spec = '0 4 * * *' WHERE name = 'up'")
    hear("edit")
    by_sql("UPDATE beatstore_dependency SET first_free = true")
    hear("edge")
    queue = Queue(store.database, store.settings, "b1")
    plan(queue)
    store.trigger("up")
    hear("trigger")
    store.pause("up")
    store.resume("up")
    hear("resume")
    claims = [*plan(queue), *sweep(queue)]
    queue.mark(sent(claims))
    ended = [Ending(claim.run_id, claim.task_id, "succeeded") for claim in claims]
    list(ear.notifies(timeout=0.2))
    complete.finish_kept(queue._kept, ended)
    hear("completion")
    queue.close()
    return heard


ALL = ["add", "edit", "edge", "trigger", "resume", "completion"]


@pytest.mark.parametrize("schema", [None, "beats"])
def test_nothing_notifies_where_it_is_off(
    database_url: str, ear: psycopg.Connection, schema: str | None
) -> None:
    """With `beatstore_notify` off no transaction notifies: neither the API's nor plain SQL's."""
    store = a_store(database_url, notify=False, schema=schema)
    assert notified_of(store, ear) == []
    assert store.database.listener() is None
    store.close()


def test_all_notify_where_it_is_on(database_url: str, ear: psycopg.Connection) -> None:
    """It is on by default, and all that makes something due notifies."""
    assert Settings().notify
    store = a_store(database_url, notify=True)
    assert notified_of(store, ear) == ALL
    store.close()


def test_a_migration_follows_the_setting(
    database_url: str, ear: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The triggers follow the setting at the next migration; a check warns until then."""
    a_store(database_url, notify=True).close()
    store = Store(database_url, settings=Settings(url=database_url, notify=False))
    with caplog.at_level(logging.WARNING):
        store.check()
    assert "beatstore_notify is False, but the triggers of" in caplog.text
    caplog.clear()
    a_store(database_url, notify=False).close()
    store.check()
    assert caplog.text == ""
    store.close()
    back = a_store(database_url, notify=True)
    assert notified_of(back, ear) == ALL
    back.close()


def test_a_server_that_refuses_to_listen_is_polled(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the server does not know LISTEN, beat polls, says so once, and asks no more."""
    asked: list[Any] = []

    def refuse(engine: Any) -> Listener:
        asked.append(engine)
        raise errors.FeatureNotSupported("LISTEN not supported yet")

    monkeypatch.setattr(Listener, "open", refuse)
    with caplog.at_level(logging.INFO):
        assert [store.database.listener() for _ in range(3)] == [None] * 3
    assert len(asked) == 1
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "the server refuses LISTEN (LISTEN not supported yet): what is added is noticed at the "
        "next look, not at once"
    ]


def test_a_server_that_is_away_is_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer, or is a standby for now, is asked to listen later."""
    for error in (errors.ReadOnlySqlTransaction("in recovery"), psycopg.OperationalError("gone")):

        def fail(engine: Any, error: Exception = error) -> Listener:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(Listener, "open", fail)
            with pytest.raises(UnavailableError):
                store.database.listener()
    listener = store.database.listener()
    assert listener is not None
    listener.close()
