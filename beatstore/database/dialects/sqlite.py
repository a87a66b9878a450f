"""SQLite: a file, and a library in this process; one writer at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from math import inf
from typing import Any

from sqlalchemy import URL, ColumnElement, Insert, String, Table, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine

from beatstore.database.dialects.base import DatabaseDialect, TableSize, execute
from beatstore.errors import ConfigError

__all__ = ["SQLite"]

#: Older ones take 999 parameters at most, and beatstore's statements have more.
_OLDEST = (3, 32)

#: What stands for a path where the database is in memory.
_IN_MEMORY = ("", ":memory:")


#: Both ends of a table are found at once, without the rows in between.
_ROWS = 'SELECT COALESCE((SELECT max(rowid) FROM "{0}") - (SELECT min(rowid) FROM "{0}") + 1, 0)'

#: How many instructions SQLite executes between two looks at the clock: less than 1 ms of them.
_INSTRUCTIONS = 10_000


class SQLite(DatabaseDialect):
    """SQLite. A transaction that writes waits for its turn before its first statement."""

    name = protocol = "sqlite"
    label = "SQLite"
    example_url = "sqlite:////var/lib/app/beatstore.db"
    is_server = False
    has_schemas = False
    migrates_at_start = True
    # The transactions of `begin_claim` begin by SQL.
    claim_isolation = "AUTOCOMMIT"
    locks_rows = False
    has_lateral = False

    def now(self) -> str:
        """Return the time, to the millisecond."""
        # %f ends in milliseconds; the three zeros keep the fixed width of an instant.
        return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"

    def micros_between(self, begin: str, end: str) -> str:
        """Count in integers: julianday() is a float, which is too coarse."""

        def count(instant: str) -> str:
            # Without the fraction, which strftime would round up from .9995 on.
            seconds = f"CAST(strftime('%s', substr({instant}, 1, 19)) AS INTEGER)"
            # The text of an instant ends in six digits.
            return f"({seconds} * 1000000 + CAST(substr({instant}, -6) AS INTEGER))"

        return f"({count(end)} - {count(begin)})"

    def is_instant(self, column: str) -> str:
        """Look at the text: SQLite also takes a number alone for a time, and a time alone."""
        date = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
        is_time = f"strftime('%s', substr({column}, 1, 19)) IS NOT NULL"
        return f"(typeof({column}) = 'text' AND {column} GLOB '{date}' AND {is_time})"

    def insert_ignore(self, table: Table) -> Insert:
        """Do nothing on a conflict."""
        return sqlite.insert(table).on_conflict_do_nothing()

    def matches(self, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
        """Use GLOB: LIKE takes upper and lower case for equal."""
        return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))

    def instant_type(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store text of fixed width, which orders as time does, and which SQLite reads too."""
        return dialect.type_descriptor(String(26))

    def instant_parameter(self, utc: datetime, dialect: Dialect) -> Any:
        """Write it out, with all its digits."""
        return utc.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")

    def set_up(self, connection: Any, dbapi: Any) -> None:
        """Let several processes work on one file.

        Write-ahead logging lets readers and a writer work side by side, and 30 s is how
        long one waits for another's write.

        Raises:
            ConfigError: the library is too old.
        """
        found = getattr(dbapi, "sqlite_version_info", _OLDEST)
        if found < _OLDEST:
            version, oldest = (".".join(map(str, one)) for one in (found, _OLDEST))
            raise ConfigError("sqlite3.sqlite_version", version, f"{oldest} or newer")
        execute(connection, "PRAGMA busy_timeout=30000")
        execute(connection, "PRAGMA foreign_keys=ON")
        # SQLite does not wait here when several processes open a new file at once; then
        # one of the others has made the change, which is the file's and stays.
        with suppress(dbapi.OperationalError):
            execute(connection, "PRAGMA journal_mode=WAL")

    @contextmanager
    def begin_claim(self, connection: Connection) -> Iterator[Connection]:
        """Begin as a writer: one that reads first fails at once when another commits in between."""
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
    def begin_reading(
        self, connection: Connection, timeout: float | None = None
    ) -> Iterator[Connection]:
        """Begin a transaction in which SQLite refuses to write."""
        connection.execution_options(isolation_level="AUTOCOMMIT")
        driver: Any = connection.connection.dbapi_connection
        try:
            with connection.begin():
                connection.exec_driver_sql("PRAGMA query_only = ON")
                if not driver.in_transaction:  # an engine of the application's own may have begun
                    connection.exec_driver_sql("BEGIN")
                with _limited(connection, driver, timeout):
                    yield connection
        finally:
            if not connection.invalidated:
                _end_reading(connection, driver)

    def table_sizes(
        self, connection: Connection, schema: str | None, tables: Iterable[str]
    ) -> list[TableSize]:
        """Estimate the rows from the ids at both ends; sizes would take reading all pages."""
        there = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
        return [
            TableSize(name, None, connection.exec_driver_sql(_ROWS.format(name)).scalar())
            for name in sorted(set(there.scalars()) & set(tables))
        ]

    def size(self, connection: Connection, tables: Iterable[TableSize]) -> int | None:
        """Return the bytes of the whole file."""
        pages, size = (
            connection.exec_driver_sql(f"PRAGMA {asked}").scalar_one()
            for asked in ("page_count", "page_size")
        )
        return int(pages) * int(size)

    def trigger_names(self, connection: Connection, schema: str | None) -> list[str]:
        """Ask the schema."""
        asked = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        found = connection.exec_driver_sql(asked).scalars()
        return [name for name in found if name.startswith("beatstore_")]

    def limit_lock_wait(self, connection: Connection, milliseconds: int) -> None:
        """Do nothing: a transaction that has begun to write waits for nobody."""

    def limit_session(self, connection: Connection, silence_s: int) -> None:
        """Do nothing: the system frees a file that a process has locked when that ends."""

    def wait_for_migrations(self, connection: Connection, schema: str | None) -> None:
        """Do nothing: the transaction has waited for its turn."""

    def place(self, url: URL) -> tuple[str, str, int | None, str]:
        """Tell files apart by their paths; what is in memory is the same as nothing else."""
        path = url.database or ""
        where = str(id(url)) if path in _IN_MEMORY else os.path.abspath(path)
        return self.protocol, "", None, where

    def file_of(self, url: URL) -> str | None:
        """Return the path, which may be relative."""
        path = url.database or ""
        return None if path in _IN_MEMORY or path.startswith("file:") else path


def _end_reading(connection: Connection, driver: Any) -> None:
    """Roll back and allow writes again; a connection where that fails is not used again.

    SQLite has rolled back by itself after some errors, such as a full disk.
    """
    try:
        if driver.in_transaction:
            connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("PRAGMA query_only = OFF")
    except Exception:  # noqa: BLE001  (whatever the driver raises: the reading is over)
        connection.invalidate()


@contextmanager
def _limited(connection: Connection, driver: Any, timeout: float | None) -> Iterator[None]:
    """Let no statement on a connection take longer than this many seconds.

    SQLite has no such setting, but calls a function of ours while it works.
    """
    if timeout is None or not hasattr(driver, "set_progress_handler"):  # of another driver
        yield
        return
    ends_at = inf

    def begin(*_: object) -> None:
        nonlocal ends_at
        ends_at = time.monotonic() + timeout

    event.listen(connection, "before_cursor_execute", begin)
    driver.set_progress_handler(lambda: time.monotonic() > ends_at, _INSTRUCTIONS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
        event.remove(connection, "before_cursor_execute", begin)
