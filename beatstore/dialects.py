"""Everything that differs between databases, in one place.

SQLite, PostgreSQL, MySQL and MariaDB store the same values and answer the same
questions; this file holds the branches that make it so, with `columns` for their types: the
database's clock, an insert that ignores what is there already, the transaction that claims,
and the early wake-up on PostgreSQL.
"""

from __future__ import annotations

import json
import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import cache
from typing import Any

from sqlalchemy import (
    FromClause,
    Insert,
    String,
    Table,
    bindparam,
    column,
    event,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect, Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from beatstore.columns import (
    Arguments,
    BigId,
    BigWhole,
    Instant,
    Json,
    Name,
    Note,
    Number,
    Unreadable,
    Whole,
    read_leniently,
)

__all__ = [
    "CHANNEL",
    "EPOCH",
    "Arguments",
    "BigId",
    "BigWhole",
    "Instant",
    "Json",
    "Listener",
    "Name",
    "Note",
    "Number",
    "Unreadable",
    "Whole",
    "begin_claim",
    "begin_reading",
    "claim_isolation",
    "connect_defaults",
    "db_now",
    "given_rows",
    "insert_ignore",
    "read_leniently",
    "shows_the_past",
    "trigger_reads_entries",
    "tune_sqlite",
    "write_rows",
]

#: An instant that is always past: the `wake_at` of a row that nobody has planned yet.
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

#: The PostgreSQL notification channel that wakes a sleeping beat.
CHANNEL = "beatstore"


class db_now(FunctionElement[datetime]):  # noqa: N801  (an SQL function, named like one)
    """The database's clock, as an `Instant`."""

    type = Instant()
    inherit_cache = True
    name = "db_now"


@compiles(db_now, "postgresql")
def _pg_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    # clock_timestamp, not now(): in a caller's long transaction now() stands still.
    return "clock_timestamp()"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    # %f ends in milliseconds; the three zeros keep the fixed width of an Instant.
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


@compiles(db_now, "mysql")
@compiles(db_now, "mariadb")
def _mysql_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "(UTC_TIMESTAMP(6))"


def insert_ignore(table: Table, dialect: Dialect) -> Insert:
    """Return an INSERT that leaves a row alone whose key exists already.

    The caller has checked lengths and types: MySQL's IGNORE would cut them silently.
    """
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    if dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return mysql.insert(table).prefix_with("IGNORE")


def given_rows(dialect: Dialect, **columns: TypeEngine[Any]) -> FromClause | None:
    """Return the rows in a statement's parameter `rows` as a table, or None.

    On PostgreSQL the rows of a batch travel as one JSON document (see `write_rows`): one
    statement costs server and driver half of what a statement for each row does. None on the
    others: SQLite has no way to travel, and MySQL, given a join, may lock the wrong rows.
    """
    if dialect.name != "postgresql":
        return None
    shape = ", ".join(f"{name} {kind.compile(dialect)}" for name, kind in columns.items())
    document = bindparam("rows", type_=String())
    made = text(f"SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given({shape})")
    typed = [column(name, kind) for name, kind in columns.items()]
    return made.bindparams(document).columns(*typed).subquery("given")


def write_rows(dialect: Dialect, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the parameter for `given_rows`."""
    instant = Instant()

    @cache  # the same few instants stand in every row
    def encode(value: datetime) -> str:
        return str(instant.process_bind_param(value, dialect))

    return {"rows": json.dumps(rows, default=encode)}


def trigger_reads_entries(dialect: Dialect) -> bool:
    """Say whether an UPDATE of edges may not read entries, which their trigger writes.

    MySQL refuses that for the statement as a whole, whatever the trigger comes to.
    """
    return dialect.name in ("mysql", "mariadb")


def shows_the_past(connection: Connection) -> bool:
    """Say whether an open transaction reads the database as it was before, and writes it as it is.

    MySQL's does under its default, REPEATABLE READ; only what it locks it sees as it is.
    """
    if connection.dialect.name not in ("mysql", "mariadb"):
        return False
    return connection.get_isolation_level() != "READ COMMITTED"


@contextmanager
def begin_claim(connection: Connection) -> Iterator[Connection]:
    """Open the transaction in which rows are claimed, and commit or roll it back.

    PostgreSQL and MySQL: READ COMMITTED, whatever the engine's default. Under MySQL's
    REPEATABLE READ the gaps between locked rows would block other sessions' inserts.
    SQLite: BEGIN IMMEDIATE, since a transaction that reads first and writes later
    fails at once when another commits in between.

    The connection must have the isolation level of `claim_isolation`.
    """
    if connection.dialect.name != "sqlite":
        with connection.begin():
            yield connection
        return
    driver: Any = connection.connection.driver_connection
    if not connection.in_transaction() and not driver.in_transaction:
        connection.begin()
        if driver.in_transaction:
            # An engine of the application's own may say BEGIN by itself (SQLAlchemy's recipe
            # for savepoints); such a transaction would not wait for its turn to write.
            connection.exec_driver_sql("ROLLBACK")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")
        raise
    else:
        connection.exec_driver_sql("COMMIT")
    finally:
        if connection.in_transaction():
            connection.rollback()


@contextmanager
def begin_reading(connection: Connection) -> Iterator[Connection]:
    """Open a transaction that sees one state of the database, and that can't write."""
    name = connection.dialect.name
    if name == "sqlite":
        connection.execution_options(isolation_level="AUTOCOMMIT")
    elif name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with connection.begin():
        if name in ("mysql", "mariadb"):
            connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        if name != "sqlite":
            yield connection
            return
        driver: Any = connection.connection.driver_connection
        connection.exec_driver_sql("PRAGMA query_only = ON")
        if not driver.in_transaction:  # an engine of the application's own may begin by itself
            connection.exec_driver_sql("BEGIN")
        try:
            yield connection
        finally:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("PRAGMA query_only = OFF")


def claim_isolation(dialect: Dialect) -> str:
    """Return the isolation level under which `begin_claim` is right."""
    return "AUTOCOMMIT" if dialect.name == "sqlite" else "READ COMMITTED"


def tune_sqlite(engine: Engine) -> None:
    """Make an SQLite engine of our own fit for several processes.

    Write-ahead logging lets readers and a writer work side by side, and 30 s is how
    long one waits for another's write. An engine handed in by the user is left alone.
    """

    def on_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.execute("PRAGMA foreign_keys=ON")
        # SQLite does not wait here when several processes open a new file at once; then
        # one of the others has made the change, which is the file's and stays.
        with suppress(engine.dialect.loaded_dbapi.OperationalError):
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    event.listen(engine, "connect", on_connect)


class Listener:
    """A connection of its own on which PostgreSQL says that something is due.

    Never needed for correctness: a beat looks at least once per `max_interval` anyway.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._driver: Any = connection.connection.driver_connection

    @classmethod
    def open(cls, engine: Engine) -> Listener | None:
        """Start listening, or return None where the database or driver can't."""
        if engine.dialect.name != "postgresql" or engine.dialect.driver not in _LISTENING:
            return None
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql(f"LISTEN {CHANNEL}")
        return cls(connection)

    def wait(self, seconds: float) -> bool:
        """Sleep until a notification arrives, `seconds` at most; say whether one did.

        Raises:
            OSError, or an error of the driver's, when the connection is lost.
        """
        if self._pending():
            return True
        ready, _, _ = select.select([self._driver.fileno()], [], [], seconds)
        return bool(ready) and self._pending()

    def close(self) -> None:
        """Close the connection; it is not given back to the pool."""
        self._connection.invalidate()
        self._connection.close()

    def _pending(self) -> bool:
        """Read what has arrived, and forget it."""
        if hasattr(self._driver, "notifies") and callable(self._driver.notifies):
            return any(True for _ in self._driver.notifies(timeout=0))
        self._driver.poll()
        arrived = bool(self._driver.notifies)
        self._driver.notifies.clear()
        return arrived


_LISTENING = ("psycopg", "psycopg2")


def connect_defaults(driver: str) -> dict[str, Any]:
    """Return `connect_args` that keep a dead server from holding a beat for ever.

    Seconds, except for tcp_user_timeout (milliseconds).
    """
    if driver in _LISTENING:
        return {
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
    if driver in ("pymysql", "mysqldb"):
        return {"connect_timeout": 10, "read_timeout": 30, "write_timeout": 30}
    return {}
