"""Rows written without the API, what the API returns, and what it says when it can't."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from beatstore import Once, Store
from beatstore.errors import SchemaError, UnavailableError
from beatstore.models import EntryModel
from beatstore.schedules.instants import EPOCH
from beatstore.tick.queue import Queue
from tests.support.databases import DatabaseServer
from tests.support.marks import on_postgresql, on_servers, on_sqlite

UTC = timezone.utc
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_entries_can_be_added_as_objects(store: Store, queue: Queue) -> None:
    """`session.add(Entry(…))` with the obvious columns is planned at the next tick."""
    past = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    with Session(store.database.engine) as session:
        session.add(EntryModel(name="a", task="t", kind="once", spec=Once(past).spec, args=[1]))
        session.add(EntryModel(name="b", task="t", kind="cron", spec="0 9 * * *", end_at=LATEST))
        session.commit()
    [claim] = queue.plan(queue.look().now)[0]
    assert (claim.name, claim.due_at, claim.args) == ("a", past, [1])
    entry = store.get("b")
    assert (entry.state, entry.version, entry.end_at) == ("active", 1, LATEST)
    assert entry.next_due_at is not None
    assert store.change("b", description="x").version == 2


def test_entries_can_be_inserted_by_plain_sql(store: Store, queue: Queue) -> None:
    """An INSERT of name, task, kind and spec makes a complete entry, which the API reads."""
    with store.database.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO beatstore_entry (name, task, kind, spec) "
                "VALUES ('a', 't', 'every', '60')"
            )
        )
    entry = store.get("a")
    assert (entry.args, entry.kwargs, entry.options) == ([], {}, {})
    assert (entry.state, entry.wake_at, entry.source) == ("active", EPOCH, "api")
    assert queue.plan(queue.look().now) == ([], 1)
    assert store.get("a").next_due_at is not None
    assert store.put("a", "t", 60).state == "active"


@on_sqlite
def test_an_unreadable_row_does_not_hide_the_others(store: Store) -> None:
    """A row with broken JSON, which only SQLite lets in, is listed, edited and removed."""
    store.add("good", "t", 60)
    store.add("bad", "t", 60)
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE beatstore_entry SET args = '[' WHERE name = 'bad'"))
    assert [entry.name for entry in store.entries()] == ["bad", "good"]
    assert store.change("bad", args=[1]).args == [1]
    store.remove("bad")


def test_text_means_the_same_on_every_database(store: Store) -> None:
    """Names and tags differ by case, accents and trailing characters, everywhere."""
    names = ["report", "Report", "repört", "report.", "re\u0301port", "\U0001f600"]
    for name in names:
        store.add(name, "t", 60, tags=[name])
    for name in names:
        assert store.get(name).name == name
        assert [entry.name for entry in store.entries(tag=name)] == [name]


def test_missing_tables_are_explained(database_url: str) -> None:
    """Without tables, any call says in one line what to run, with its own session or not."""
    store = Store(database_url)
    with pytest.raises(SchemaError, match=r"celery -A proj beatstore migrate") as caught:
        store.entries()
    assert "\n" not in str(caught.value)
    with pytest.raises(SchemaError):
        store.add("a", "t", 60)
    with Session(store.database.engine) as session, pytest.raises(SchemaError):
        store.schedule("t", countdown=5, session=session)
    with pytest.raises(SchemaError):
        store.check()
    store.migrate()
    store.check()
    assert store.entries() == []
    store.close()


def test_a_missing_column_is_explained(store: Store) -> None:
    """Tables of another revision are told apart from a mistake in a statement."""
    with store.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE beatstore_run DROP COLUMN traceback"))
    with pytest.raises(SchemaError):
        store.runs()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:secret@127.0.0.1:1/x?connect_timeout=1",
        "mysql+pymysql://u:secret@127.0.0.1:1/x",
        "sqlite:////nowhere/at/all.db",
    ],
)
def test_a_database_that_is_away_is_one_kind_of_error(url: str) -> None:
    """A refused connection is an UnavailableError, without the password in its text."""
    store = Store(url)
    for call in (store.entries, store.status, lambda: store.add("a", "t", 60)):
        with pytest.raises(UnavailableError) as caught:
            call()
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, OperationalError)
    with Session(store.database.engine) as session, pytest.raises(OperationalError):
        store.get("a", session=session)


@on_servers
def test_a_cut_connection_is_replaced(store: Store, database_server: DatabaseServer) -> None:
    """A connection cut while it lay in the pool is noticed, and another one does the work."""
    store.add("a", "t", 60)
    admin = create_engine(store.database.url)
    cut = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": "SELECT id FROM information_schema.processlist "
        "WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    }
    with admin.connect() as connection:
        found = connection.execute(text(cut[admin.dialect.name])).scalars().all()
        if admin.dialect.name == "mysql":
            for process in found:
                connection.execute(text(f"KILL {process}"))
    admin.dispose()
    assert found
    assert store.get("a").name == "a"


@on_postgresql
def test_the_tables_may_be_in_a_schema(database_url: str) -> None:
    """With a schema, every statement of the API goes to the tables in it."""
    store = Store(database_url, schema="beat")
    store.migrate()
    store.add("a", "t", 60, tags=["x"])
    store.put("a", "t", 30)
    store.change("a", new_name="b", tags=["y"])
    store.trigger("b")
    name = store.schedule("t", countdown=5).name
    assert store.reschedule(name, LATEST)
    assert store.cancel(name)
    assert store.get("b").tags == ("y",)
    assert [run.reason for run in store.runs("b")] == ["triggered"]
    assert store.status().entries == {"active": 1, "cancelled": 1}
    store.pause("b")
    store.resume("b")
    assert store.preview("b")
    store.remove("b")
    assert store.prune(0) >= 1
    with Session(store.database.engine) as session:
        store.add("c", "t", 60, session=session)
        session.commit()
    assert store.get("c").id
    assert not inspect(store.database.engine).has_table("beatstore_entry", schema="public")
    store.close()


@on_postgresql
def test_what_is_due_soon_wakes_the_beats(store: Store) -> None:
    """An edit, a trigger or a resume that makes a row due notifies; a distant one does not."""
    listening = store.database.engine.raw_connection()
    driver = listening.driver_connection
    assert driver is not None
    driver.autocommit = True
    driver.execute("LISTEN beatstore")

    def notified() -> int:
        return len(list(driver.notifies(timeout=0.3)))

    try:
        store.add("a", "t", Once(LATEST))
        store.pause("a")
        store.change("a", description="x")
        assert notified() == 0
        store.resume("a")
        assert notified() == 1
        store.trigger("a")
        assert notified() == 1
        store.reschedule("a", datetime(2500, 1, 1, tzinfo=UTC))
        assert notified() == 0
        store.reschedule("a", datetime(2026, 1, 1, tzinfo=UTC))
        assert notified() == 1
        store.change("a", grace=5)
        assert notified() == 1
        store.cancel("a")
        assert notified() == 0
    finally:
        driver.execute("UNLISTEN beatstore")
        listening.close()


def test_a_store_can_be_made_before_its_database(database_server: DatabaseServer) -> None:
    """Making a store, reading its URL and closing it connect to nothing."""
    url = database_server.create()
    database_server.drop(url)
    store = Store(url)
    assert store.url.partition(":")[0] == url.partition(":")[0]
    store.close()
    if database_server.name != "sqlite":
        with pytest.raises(UnavailableError):
            store.entries()
