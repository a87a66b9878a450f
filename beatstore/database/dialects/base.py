"""What beatstore asks of a database, and what most of them answer.

    facts          what it is called, what it has, what a session of it is told
    statements     the expressions and statements that databases write in different ways
    instants       how an instant is stored, given and read
    transactions   how rows are claimed, and how a consistent state is read
    addresses      when two URLs name the same database

Invariants:
    * A dialect has no state. It is given the connection, or SQLAlchemy's own dialect with its
      driver, that a question is about.
    * A new database is a new subclass, registered in this package: no other module asks which
      database it works with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Executable,
    FromClause,
    Insert,
    Select,
    Table,
    bindparam,
    update,
)
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine

from beatstore.errors import ConfigError

__all__ = [
    "DatabaseDialect",
    "GivenRows",
    "TableSize",
    "UpdateEach",
    "execute",
    "in_utc",
    "milliseconds",
]

_LOCAL_HOST = "127.0.0.1"


def execute(connection: Any, statement: str) -> None:
    """Execute a statement on a connection of the driver."""
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


def in_utc(instant: datetime) -> datetime:
    """Return an instant in UTC; a naive datetime is refused."""
    if instant.tzinfo is None:
        raise ValueError(
            f"expected an aware datetime, got {instant!r}; write it with tzinfo=timezone.utc"
        )
    return instant.astimezone(timezone.utc)


def milliseconds(timeout: float) -> int:
    """Return a time limit as servers take it: 0 would be none, and 32 bits hold it."""
    return max(1, min(int(timeout * 1000), 2**31 - 1))


@dataclass(frozen=True, slots=True)
class TableSize:
    """How large a table is.

    Attributes:
        name: its name.
        size: its bytes with its indexes; None: the database can't say quickly.
        rows: how many rows it has, as the database estimates; None: it has no estimate yet.
    """

    name: str
    size: int | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class GivenRows:
    """The rows of a batch as a table inside a statement.

    Attributes:
        table: what stands in the statement; its columns are those of the rows.
        parameters: makes the statement's parameters of the rows.
    """

    table: FromClause
    parameters: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class UpdateEach:
    """An UPDATE that gives each of some rows values of its own.

    Attributes:
        statement: the UPDATE.
        parameters: makes the statement's parameters of the rows.
    """

    statement: Executable
    parameters: Callable[[list[dict[str, Any]]], Any]


class DatabaseDialect(ABC):
    """A kind of database.

    Attributes:
        name: what SQLAlchemy calls it.
        label: what people call it.
        example_url: what to write for a URL.
        protocol: what its clients speak: two URLs of one protocol may name one database.
        default_port: where its servers listen; None: it has no server.
        install_hints: how to install a driver, by the module that is missing.
        table_options: SQLAlchemy's options of a table, without the database's name.
        is_server: whether it is a server. Otherwise it is a library in this process, and a
            connection may be the whole database, as SQLite's in memory.
        has_schemas: whether the tables can be in a schema of their own.
        server_schemas: schemas that hold no tables of users.
        migrates_at_start: whether beat makes and changes the tables when it starts, unless
            the user says otherwise.
        claim_isolation: the isolation level under which `begin_claim` is right.
        session_isolation: the isolation level of the sessions of an engine made by beatstore;
            None: the server's default.
        writes_in_queries: whether a statement may write and read by the way (WITH … AS (INSERT …);
            UPDATE … FROM rows that it locks), and commit by itself.
        locks_rows: whether SELECT … FOR UPDATE locks the rows. Otherwise the first write locks
            all, and a row must be written before it is read to be written.
        stores_by_key: whether a table is stored in the order of its primary key, so that rows are
            read faster by a range of keys than one by one, as another index finds them.
        has_lateral: whether a query in FROM may name the tables before it (LATERAL).
        unites_untyped_nulls: whether a NULL in a part of a UNION needs no type.
        sorts_ties: whether only rows with the same key of an index are sorted by another column.
        edges_read_entries: whether an UPDATE of edges may read entries, though the trigger of
            edges writes them.
        triggers_have_definers: whether a trigger runs as the account that made it, and fails
            when that is dropped.
        triggers: the names of the triggers that migrations make.
        json_levels: how many levels of lists and dicts JSON may have, where that is less than
            beatstore itself allows; None: it is not.
        force_custom_plans: the statement by which each following one is planned for the tables
            as they are, until the transaction ends; None: it always is.
        notification: the statement that wakes the beats that listen; None: none can.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    example_url: ClassVar[str]
    protocol: ClassVar[str]
    default_port: ClassVar[int | None] = None
    install_hints: ClassVar[Mapping[str, str]] = {}
    table_options: ClassVar[Mapping[str, str]] = {}
    is_server: ClassVar[bool] = True
    has_schemas: ClassVar[bool] = True
    server_schemas: ClassVar[frozenset[str]] = frozenset()
    migrates_at_start: ClassVar[bool] = False
    claim_isolation: ClassVar[str] = "READ COMMITTED"
    session_isolation: ClassVar[str | None] = None
    writes_in_queries: ClassVar[bool] = False
    locks_rows: ClassVar[bool] = True
    stores_by_key: ClassVar[bool] = False
    has_lateral: ClassVar[bool] = True
    unites_untyped_nulls: ClassVar[bool] = True
    sorts_ties: ClassVar[bool] = True
    edges_read_entries: ClassVar[bool] = True
    triggers_have_definers: ClassVar[bool] = False
    triggers: ClassVar[frozenset[str]] = frozenset(
        {
            "beatstore_dependency_delete",
            "beatstore_dependency_insert",
            "beatstore_dependency_update",
            "beatstore_entry_edit",
        }
    )
    json_levels: ClassVar[int | None] = None
    force_custom_plans: ClassVar[str | None] = None
    notification: ClassVar[Select[Any] | None] = None

    def __repr__(self) -> str:
        return f"<{self.label}>"

    # -- statements ------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> str:
        """Return the SQL of the time at which a statement begins.

        It goes on within a transaction, statement by statement. A statement that waits for a lock
        has the time of before: what must be later than a lock is read by a statement of its own.
        """

    def clock_default(self) -> str:
        """Return the SQL of the default of columns that hold when their row was made."""
        return self.now()

    @abstractmethod
    def micros_between(self, begin: str, end: str) -> str:
        """Return the SQL of the microseconds from one instant to another, given as SQL."""

    @abstractmethod
    def insert_ignore(self, table: Table) -> Insert:
        """Return an INSERT that leaves a row alone whose key exists already.

        The caller has checked lengths and types: MySQL's IGNORE would cut values silently.
        """

    def insert_counted(self, table: Table) -> Insert:
        """Return `insert_ignore(table)`; `rowcount` of its result is how many rows are new.

        It has no RETURNING, which SQLAlchemy adds for the new id: SQLite counts the rows of such a
        statement only when they have been fetched.
        """
        return self.insert_ignore(table).inline().execution_options(preserve_rowcount=True)

    def among(
        self, id_column: ColumnElement[int], ids: Iterable[int] | None = None
    ) -> ColumnElement[bool]:
        """Return the condition that an id is one of these.

        None: of those in the parameter `ids`, a list, of a statement that is built once.
        """
        return id_column.in_(bindparam("ids", expanding=True) if ids is None else list(ids))

    def matches(self, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
        """Return the condition that a text matches `*` and `?`, as exactly as = compares."""
        escaped = "".join(f"!{char}" if char in "!%_" else char for char in pattern)
        return column.like(escaped.replace("*", "%").replace("?", "_"), escape="!")

    def by_key(self, query: Select[Any], table: Table) -> Select[Any]:
        """Return a query that finds the rows of a table in a range of its primary key."""
        return query

    def joined_in_order(self, query: Select[Any]) -> Select[Any]:
        """Return a query whose first table is read first; most databases see that by themselves."""
        return query

    def given_rows(
        self, dialect: Dialect, columns: Mapping[str, TypeEngine[Any]]
    ) -> GivenRows | None:
        """Return how the rows of a batch travel in one parameter, or None where they can't.

        Then each row is a set of parameters of its own, as in SQLAlchemy's `executemany`.
        """
        return None

    def update_each(
        self, dialect: Dialect, table: Table, columns: Mapping[str, TypeEngine[Any]]
    ) -> UpdateEach:
        """Return how rows of a table get values of their own, by one statement where that can be.

        Args:
            dialect: SQLAlchemy's.
            table: with a column `id`.
            columns: the columns to write, and `b_id`, the id of the row to write.
        """
        values = {name: table.c[name] for name in columns if name != "b_id"}
        given = self.given_rows(dialect, columns)
        if given is None:
            each = {name: bindparam(name, type_=column.type) for name, column in values.items()}
            one = update(table).where(table.c.id == bindparam("b_id")).values(each)
            return UpdateEach(one, lambda rows: rows)
        of_each = {name: given.table.c[name] for name in values}
        all_of_them = update(table).where(table.c.id == given.table.c.b_id).values(of_each)
        return UpdateEach(all_of_them, given.parameters)

    # -- instants --------------------------------------------------------------------------

    @abstractmethod
    def instant_type(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of a column that holds an instant."""

    @abstractmethod
    def instant_parameter(self, utc: datetime, dialect: Dialect) -> Any:
        """Return what the driver is given for an instant, which is aware and in UTC."""

    def is_instant(self, column: str) -> str:
        """Return the SQL of the condition that a cell holds an instant."""
        return f"({column}) IS NOT NULL"

    def select_instant(self, column: str) -> str:
        """Return the SQL by which an instant is selected, so that no driver reads it wrong."""
        return column

    def write_instant(self, parameter: str, dialect: Dialect) -> str:
        """Return the SQL by which an instant is given, so that no driver writes it wrong."""
        return parameter

    # -- connections and transactions --------------------------------------------------------

    @abstractmethod
    def set_up(self, connection: Any, dbapi: Any) -> None:
        """Make a new connection fit for beatstore.

        Args:
            connection: the driver's.
            dbapi: the driver's module, for its errors.
        """

    @contextmanager
    def begin_claim(self, connection: Connection) -> Iterator[Connection]:
        """Open the transaction in which rows are claimed, and commit or roll it back.

        READ COMMITTED, whatever the engine's default: under MySQL's REPEATABLE READ the gaps
        between locked rows would block other sessions' inserts.

        The connection must have the isolation level of `claim_isolation`.
        """
        with connection.begin():
            yield connection

    @contextmanager
    def begin_statement(self, connection: Connection) -> Iterator[Connection]:
        """Begin what is one statement, each in a transaction of its own.

        Here that is the one that the driver begins, and what it writes is rolled back; where
        `writes_in_queries` is true, the statement commits by itself. What fails leaves the
        connection unfit for anything else.

        Args:
            connection: in no transaction; and in none at the end.
        """
        yield connection
        connection.rollback()

    @abstractmethod
    def begin_reading(
        self, connection: Connection, timeout: float | None = None
    ) -> AbstractContextManager[Connection]:
        """Open a transaction that sees one state of the database, and that can't write.

        What is set on the connection's session is undone at the end.

        Args:
            connection: in no transaction.
            timeout: how many seconds each statement may take; None: any number.
        """

    @abstractmethod
    def limit_lock_wait(self, connection: Connection, milliseconds: int) -> None:
        """Let no statement wait longer than this for a lock, until the transaction ends."""

    @abstractmethod
    def limit_session(self, connection: Connection, silence_s: int) -> None:
        """Limit for how long a session of beatstore's own can keep locks from others.

        The server ends a transaction in which it has heard nothing for so long: a client that
        has vanished, or stands still, would keep its locks for as long as the server takes it
        to be there, which may be hours. A stricter limit of the server's stays. Where waits
        for locks are limited by the session, they are limited to a second.

        Called once on a new connection. Opens and ends a transaction of its own.

        Args:
            connection: in no transaction; no part of a pool.
            silence_s: in seconds.
        """

    def reads_snapshot(self, connection: Connection) -> bool:
        """Say whether an open transaction reads the past, and sees what is new only by locking."""
        return False

    # -- migrations --------------------------------------------------------------------------

    def session_sql(self, schema: str | None) -> list[str]:
        """Return the SQL that readies a session for migrations: its zone, what names mean.

        Args:
            schema: quoted, or None for the connection's own.
        """
        return []

    def notifying_sql(self, connection: Connection, schema: str | None, on: bool) -> list[str]:
        """Return the SQL by which the triggers notify from now on, or don't; none if they do so.

        Args:
            connection: to the database.
            schema: that of the tables.
            on: whether they are to notify.
        """
        return []

    @abstractmethod
    def wait_for_migrations(self, connection: Connection, schema: str | None) -> None:
        """Wait until no other process changes the tables of this database.

        Called inside the transaction of `begin_claim`. What is locked here is free again when
        the session ends, or by `end_migrations`.

        Raises:
            SchemaError: the other process does not finish.
        """

    def end_migrations(self, connection: Connection, schema: str | None) -> None:  # noqa: B027
        """Free what `wait_for_migrations` has locked, after its transaction has ended.

        Does nothing where the end of the transaction has freed it.
        """

    # -- what is stored ------------------------------------------------------------------------

    @abstractmethod
    def table_sizes(
        self, connection: Connection, schema: str | None, tables: Iterable[str]
    ) -> list[TableSize]:
        """Return how large tables are, without reading them; those that exist, by name."""

    def size(self, connection: Connection, tables: Iterable[TableSize]) -> int | None:
        """Return the bytes of these tables, or of the database where only that is known."""
        return sum(table.size or 0 for table in tables)

    @abstractmethod
    def trigger_names(self, connection: Connection, schema: str | None) -> list[str]:
        """Return the names of beatstore's triggers, sorted."""

    # -- addresses -----------------------------------------------------------------------------

    def place(self, url: URL) -> tuple[str, str, int | None, str]:
        """Reduce a URL to what makes two of them the same database, whatever the driver."""
        host = url.host or _LOCAL_HOST
        host = _LOCAL_HOST if host == "localhost" else host
        return self.protocol, host, url.port or self.default_port, url.database or ""

    def to_connect(self, url: URL) -> URL:
        """Return the URL to connect with, where a parameter of it would lose something."""
        return url

    def file_of(self, url: URL) -> str | None:
        """Return the path of the database's file; None of a server, in memory, of a `file:` URI."""
        return None

    def check_schema(self, schema: str | None) -> None:
        """Refuse a schema where there are none.

        Raises:
            ConfigError: one was given.
        """
        if schema and not self.has_schemas:
            expected = f"no schema: {self.label} has none"
            raise ConfigError("beatstore_schema", schema, expected, "None")
