"""Everything that differs between databases, in one place.

SQLite, PostgreSQL, MySQL and MariaDB store the same values and answer the same
questions; this file holds the branches that make it so: the database's clock, an insert
that ignores what is there already, the transaction that claims. `columns` has their types,
and `drivers` what differs between drivers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Insert,
    String,
    Table,
    any_,
    bindparam,
    column,
    literal,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from beatstore.database.columns import (
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
)

__all__ = [
    "CHANNEL",
    "Arguments",
    "BigId",
    "BigWhole",
    "Instant",
    "Json",
    "Name",
    "Note",
    "Number",
    "Unreadable",
    "Whole",
    "among",
    "begin_claim",
    "begin_reading",
    "claim_isolation",
    "db_now",
    "given_rows",
    "insert_ignore",
    "lock_limit",
    "micros_between",
    "shows_the_past",
    "trigger_reads_entries",
    "wait_briefly",
    "write_rows",
]


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


class micros_between(FunctionElement[int]):  # noqa: N801  (an SQL function, named like one)
    """The microseconds from the first of two instants to the second; NULL where one is none."""

    type = BigInteger()
    inherit_cache = True
    name = "micros_between"


@compiles(micros_between, "postgresql")
def _pg_between(element: micros_between, compiler: SQLCompiler, **kw: Any) -> str:
    begin, end = (compiler.process(one, **kw) for one in element.clauses)
    return f"CAST(EXTRACT(EPOCH FROM ({end}) - ({begin})) * 1000000 AS BIGINT)"


@compiles(micros_between, "sqlite")
def _sqlite_between(element: micros_between, compiler: SQLCompiler, **kw: Any) -> str:
    # julianday() is a float, which is too coarse; an Instant ends in six digits.
    count = "(CAST(strftime('%s', {0}) AS INTEGER) * 1000000 + CAST(substr({0}, -6) AS INTEGER))"
    begin, end = (count.format(compiler.process(one, **kw)) for one in element.clauses)
    return f"({end} - {begin})"


@compiles(micros_between, "mysql")
@compiles(micros_between, "mariadb")
def _mysql_between(element: micros_between, compiler: SQLCompiler, **kw: Any) -> str:
    begin, end = (compiler.process(one, **kw) for one in element.clauses)
    return f"TIMESTAMPDIFF(MICROSECOND, {begin}, {end})"


def insert_ignore(table: Table, dialect: Dialect) -> Insert:
    """Return an INSERT that leaves a row alone whose key exists already.

    The caller has checked lengths and types: MySQL's IGNORE would cut them silently.
    """
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    if dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return mysql.insert(table).prefix_with("IGNORE")


def among(id_column: ColumnElement[int], ids: Iterable[int], dialect: Dialect) -> Any:
    """Return the condition that an id is one of these.

    PostgreSQL is given them as one array: with a parameter for each, driver and server read
    a longer statement anew for each batch.
    """
    if dialect.name == "postgresql":
        return id_column == any_(literal(list(ids), ARRAY(BigInteger)))
    return id_column.in_(list(ids))


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


def wait_briefly(connection: Connection, milliseconds: int) -> None:
    """Let no statement wait longer than this for a lock, until the transaction ends.

    For PostgreSQL. MySQL has a limit of the session's, which is set when we connect; SQLite
    waits for its turn before the first statement.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(milliseconds)}")


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
    driver: Any = connection.connection.dbapi_connection
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
        driver: Any = connection.connection.dbapi_connection
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


def lock_limit(dialect: Dialect) -> str | None:
    """Return what limits how long a session waits for a lock, where it is a session's setting.

    PostgreSQL has the same by transaction, and SQLite's writers queue for milliseconds.
    """
    if dialect.name in ("mysql", "mariadb"):
        return "SET SESSION innodb_lock_wait_timeout = 1"
    return None
