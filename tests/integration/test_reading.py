"""Several calls that read one state of the database, within a limit of time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError

from beatstore import Every, InvalidEntryError, QueryTimeoutError, Store, UnavailableError
from beatstore.database.dialects import dialect_of
from beatstore.errors import SessionError, StoreError
from tests.support.marks import on_postgresql

pytestmark = pytest.mark.every_database

#: A statement that takes minutes on every database.
SLOW = text(
    """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
    SELECT count(*) FROM n a, n b, n c, n d WHERE a.i + b.i + c.i + d.i = 1
    """
)

#: What a session says of its limits and rights, on each database.
SETTINGS = {
    "sqlite": ["PRAGMA query_only"],
    "postgresql": [
        "SHOW statement_timeout",
        "SHOW transaction_read_only",
        "SHOW transaction_isolation",
    ],
    "mysql": ["SELECT @@SESSION.max_execution_time", "SELECT @@SESSION.transaction_isolation"],
    "mariadb": ["SELECT @@SESSION.max_statement_time", "SELECT @@SESSION.tx_isolation"],
}


@pytest.fixture
def store(migrated_url: str) -> Iterator[Store]:
    """Return a store with one connection, which every call uses."""
    store = Store(migrated_url, engine_options={"pool_size": 1, "max_overflow": 0})
    yield store
    store.close()


def settings(store: Store) -> list[Any]:
    """Ask the one connection of a store for its settings."""
    with store.database.engine.connect() as connection:
        asked = SETTINGS[dialect_of(connection.dialect).name]
        return [connection.exec_driver_sql(one).scalar() for one in asked]


def test_the_calls_read_one_state(store: Store, migrated_url: str) -> None:
    """What others commit meanwhile is not seen inside, and is seen afterwards."""
    store.add("a", "t", 60)
    other = Store(migrated_url)
    with store.reading() as session:
        assert store.names(session=session) == ["a"]
        other.add("b", "t", 60)
        assert store.names(session=session) == ["a"]
        assert store.status(session=session).entries == {"active": 1}
    other.close()
    assert store.names() == ["a", "b"]


def test_a_write_is_refused(store: Store) -> None:
    """The database refuses a statement that writes, and a method that writes says what to do."""
    store.add("a", "t", 60)
    with store.reading() as session, pytest.raises(SessionError, match=r"Store.reading\(\)"):
        store.pause("a", session=session)
    with pytest.raises(UnavailableError), store.reading() as session:
        session.execute(text("DELETE FROM beatstore_entry"))
    assert store.pause("a").state == "paused"


def test_a_statement_that_takes_too_long_is_ended(store: Store) -> None:
    """It raises an error that names the limit."""
    began = time.monotonic()
    longer = pytest.raises(QueryTimeoutError, match=r"took longer than 0\.3 s")
    with longer as caught, store.reading(timeout=0.3) as session:
        session.execute(SLOW).all()
    assert caught.value.timeout == 0.3
    assert isinstance(caught.value, UnavailableError)
    assert time.monotonic() - began < 20


def test_a_method_that_takes_too_long_is_ended(store: Store) -> None:
    """The method itself raises the error, so that its caller can answer at once."""
    with store.reading(timeout=0.3) as session, pytest.raises(QueryTimeoutError):
        store._read(session, lambda tx: tx.execute(SLOW).all())


def test_the_limit_is_that_of_each_statement(store: Store) -> None:
    """A reading may take longer than one of its statements."""
    with store.reading(timeout=timedelta(seconds=1)) as session:
        for _ in range(3):
            time.sleep(0.5)  # the caller's own work
            assert store.names(session=session) == []


@pytest.mark.parametrize("end", ["in order", "by an error", "by a limit"])
def test_the_connection_is_as_it_was(store: Store, end: str) -> None:
    """However a reading ends, its connection has the settings that it had before."""
    before = settings(store)
    statement = {"by an error": text("SELECT nothing FROM nowhere"), "by a limit": SLOW}.get(end)
    with suppress(DBAPIError, StoreError), store.reading(timeout=0.2) as session:
        assert settings_inside(session) != before
        if statement is not None:
            session.execute(statement).all()
    assert settings(store) == before
    assert store.add("a", "t", 60).state == "active"


@on_postgresql
def test_questions_are_not_compiled(store: Store) -> None:
    """A question of ours is over before its compiled form would pay; PostgreSQL can't know."""
    asked = text("SHOW jit")
    with store.database.engine.connect() as connection:
        before = connection.scalar(asked)
    with store.reading() as session:
        assert session.scalar(asked) == "off"
    with store.database.engine.connect() as connection:
        assert connection.scalar(asked) == before


def settings_inside(session: Any) -> list[Any]:
    """Return the settings of a session as they are inside its transaction."""
    asked = SETTINGS[dialect_of(session.get_bind().dialect).name]
    return [session.execute(text(one)).scalar() for one in asked]


@pytest.mark.parametrize("backend", ["mariadb"], indirect=True)
def test_a_limit_of_the_users_own_comes_back(store: Store) -> None:
    """A limit that an application has set on its connections is set again."""

    def limit(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION max_statement_time = 77")

    event.listen(store.database.engine, "connect", limit)
    with store.reading(timeout=2.5) as session:
        assert settings_inside(session)[0] == 2.5
    assert settings(store)[0] == 77


def test_it_takes_few_statements(store: Store) -> None:
    """A reading adds four statements at most to those of the calls inside."""
    executed: list[str] = []
    store.now()
    engine = store.database.engine
    event.listen(engine, "before_cursor_execute", lambda *said: executed.append(said[2]))
    with store.reading():
        pass
    assert len(executed) <= 4, executed


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", None])
def test_a_limit_is_above_zero(store: Store, timeout: Any) -> None:
    """No time at all, or none that can be read, is refused before anything is opened."""
    with pytest.raises(InvalidEntryError, match="timeout"), store.reading(timeout=timeout):
        raise AssertionError("unreachable")


def test_an_error_of_the_caller_stays_his_own(store: Store) -> None:
    """A file that is missing is no outage of the database."""
    with pytest.raises(FileNotFoundError), store.reading():
        raise FileNotFoundError("page.html")
    assert store.names() == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_transaction_that_sqlite_ended_leaves_nothing_behind(store: Store) -> None:
    """After a full disk SQLite has rolled back by itself; the next writes are as good as ever."""
    with store.reading() as session:
        assert store.names(session=session) == []
        session.execute(text("ROLLBACK"))
    for number in range(3):
        store.add(f"entry-{number}", "t.x", Every(60))


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_connection_that_cannot_be_put_back_is_not_used_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the last PRAGMA fails, the connection is closed, and another one writes."""
    with store.reading() as session:
        driver = session.connection().connection.dbapi_connection
        session.execute(text("ROLLBACK"))
        assert driver is not None
        event.listen(store.database.engine, "before_cursor_execute", _fail_at_the_end, named=True)
    event.remove(store.database.engine, "before_cursor_execute", _fail_at_the_end)
    store.add("nightly", "t.x", Every(60))
    with store.database.engine.connect() as connection:
        assert connection.connection.dbapi_connection is not driver


def _fail_at_the_end(**given: Any) -> None:
    if "OFF" in given["statement"]:
        raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("backend", "driver"),
    [
        *(("postgresql", name) for name in ("psycopg", "psycopg2", "pg8000")),
        *(("mariadb", name) for name in ("pymysql", "mysqlconnector")),
    ],
    indirect=["backend"],
)
def test_every_driver_takes_every_question(migrated_url: str, driver: str) -> None:
    """Of some drivers the server gets a parameter for each place in which a value stands."""
    pytest.importorskip({"mysqlconnector": "mysql.connector"}.get(driver, driver))
    url = make_url(migrated_url)
    query = {} if driver == "mysqlconnector" else url.query
    name = f"{url.get_backend_name()}+{driver}"
    store = Store(url.set(drivername=name, host=url.host or "127.0.0.1", query=query))
    store.add("a", "t", 60, tags=["x"], jitter=5)
    store.add("b", "t", "0 2 * * *", after=["a"])
    store.trigger("a")
    now = store.now()
    hour = {"since": now - timedelta(hours=1)}
    for _ in range(2):
        with store.reading(timeout=60) as session:
            for read in (
                *(partial(store.entries, only=only) for only in ("failing", "overdue", "waiting")),
                partial(store.entries, tag="x", name="*a*", include=["tags", "after", "edited"]),
                *(partial(store.runs, sort=sort, **hour) for sort in ("due", "runtime")),
                partial(store.runs, "a", state=["sent", "lost"], tag="x", task="t", worker="w"),
                partial(store.run_counts, step=60, **hour),
                partial(store.failures, **hour),
                partial(store.last_runs, ["a", "b"]),
                partial(store.upcoming, until=now + timedelta(days=1)),
                partial(store.upcoming_counts, until=now + timedelta(days=1), step=3600),
                *(partial(read, "a") for read in (store.explain, store.errors, store.audit)),
                *(store.status, store.health, store.storage, store.graph, store.workers),
            ):
                read(session=session)
    assert [document["name"] for document in store.export(tag="x") if "name" in document] == ["a"]
    store.close()
