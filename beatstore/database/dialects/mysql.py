"""MySQL, and MariaDB, which differs from it in little that beatstore asks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import (
    URL,
    ClauseElement,
    Executable,
    Insert,
    Select,
    String,
    Table,
    bindparam,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from beatstore.database.dialects.base import (
    DatabaseDialect,
    TableSize,
    UpdateEach,
    execute,
    in_utc,
    milliseconds,
)
from beatstore.errors import SchemaError

__all__ = ["MariaDB", "MySQL"]

#: How often, and how many seconds each, GET_LOCK waits for another process: in turns, since a
#: driver may take a long silence for a dead server.
_TURNS, _TURN_S = 60, 10

#: What servers do by default: refuse values, not cut them.
_SQL_MODE = "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"


_TABLES = text(
    """
    SELECT table_name, data_length + index_length, table_rows FROM information_schema.tables
    WHERE table_schema = COALESCE(:at, DATABASE()) AND table_name IN :tables
    ORDER BY table_name
    """
).bindparams(bindparam("tables", expanding=True))

#: The name of the lock is the server's, and may be no longer than 64 characters.
_LOCK = "CONCAT('beatstore ', MD5(COALESCE(:at, DATABASE())))"
_TAKE, _RELEASE = text(f"SELECT GET_LOCK({_LOCK}, :wait)"), text(f"SELECT RELEASE_LOCK({_LOCK})")

_TRIGGERS = text(
    """
    SELECT trigger_name FROM information_schema.triggers
    WHERE trigger_schema = COALESCE(:at, DATABASE()) AND trigger_name LIKE 'beatstore!_%' ESCAPE '!'
    ORDER BY trigger_name
    """
)


#: MariaDB's limit of silence within a transaction, in seconds; 0 is none.
_IDLE = "idle_transaction_timeout"


class MySQL(DatabaseDialect):
    """MySQL. It commits each statement that changes tables by itself.

    There is no `given_rows`: given a join, it may lock the wrong rows, unless the order of the
    tables is written down, as in `update_each`. And the limit of 100 levels of JSON is one that
    beatstore has for every database.

    Attributes:
        time_limit: the setting of a session that limits how long a statement may take.
        counts_seconds: whether that is in seconds, with decimals; or in milliseconds.
    """

    name = protocol = "mysql"
    label = "MySQL"
    example_url = "mysql+pymysql://user@host/database"
    default_port = 3306
    install_hints: ClassVar[Mapping[str, str]] = {
        "pymysql": "pip install 'beatstore[mysql]'",
        "MySQLdb": "pip install mysqlclient; or mysql+pymysql:// for the usual driver",
        "mysql": "pip install mysql-connector-python; or mysql+pymysql:// for the usual driver",
    }
    # A database may default to tables that hold only Latin-1, or to an engine without row locks.
    table_options: ClassVar[Mapping[str, str]] = {
        "engine": "InnoDB",
        "charset": "utf8mb4",
        "collate": "utf8mb4_bin",
    }
    # It does not even describe its own tables.
    server_schemas = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
    # The level of claims: to set it for each of them, and back, takes four round trips.
    session_isolation = "READ COMMITTED"
    stores_by_key = True
    sorts_ties = False
    # It refuses the statement as a whole, whatever the trigger comes to.
    edges_read_entries = False
    triggers_have_definers = True
    triggers = DatabaseDialect.triggers | {"beatstore_dependency_free"}
    time_limit: ClassVar[str] = "max_execution_time"
    counts_seconds: ClassVar[bool] = False

    def now(self) -> str:
        """Return the time to the microsecond."""
        return "(UTC_TIMESTAMP(6))"

    def micros_between(self, begin: str, end: str) -> str:
        """Ask for microseconds."""
        return f"TIMESTAMPDIFF(MICROSECOND, {begin}, {end})"

    def insert_ignore(self, table: Table) -> Insert:
        """Ignore the error of a key that exists, and others with it."""
        return mysql.insert(table).prefix_with("IGNORE")

    def by_key(self, query: Select[Any], table: Table) -> Select[Any]:
        """Say so: it takes the index of another condition, and looks up each row."""
        return query.with_hint(table, "FORCE INDEX (PRIMARY)")

    def joined_in_order(self, query: Select[Any]) -> Select[Any]:
        """Say so: it takes a subquery of a few ids for the larger table."""
        return query.prefix_with("STRAIGHT_JOIN")

    def update_each(
        self, dialect: Dialect, table: Table, columns: Mapping[str, TypeEngine[Any]]
    ) -> UpdateEach:
        """Give the rows as one JSON document, which is read first, and find each by its key.

        Left to itself, the server reads all rows of a small table, and locks them.
        """
        return UpdateEach(_UpdateByDocument(table, columns), _document)

    def instant_type(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use DATETIME(6), in UTC: TIMESTAMP ends in 2038."""
        return dialect.type_descriptor(mysql.DATETIME(fsp=6))

    def instant_parameter(self, utc: datetime, dialect: Dialect) -> Any:
        """Leave out the zone, which the column has none of."""
        return utc.replace(tzinfo=None)

    def to_connect(self, url: URL) -> URL:
        """Widen `charset=utf8`, which MySQL takes for characters of three bytes: no emoji."""
        is_narrow = str(url.query.get("charset")).lower() in ("utf8", "utf8mb3")
        return url.update_query_dict({"charset": "utf8mb4"}) if is_narrow else url

    def set_up(self, connection: Any, dbapi: Any) -> None:
        """Have values refused that do not fit."""
        execute(connection, _SQL_MODE)

    @contextmanager
    def begin_reading(
        self, connection: Connection, timeout: float | None = None
    ) -> Iterator[Connection]:
        """Begin a transaction with its snapshot taken at once."""
        try:
            with connection.begin():
                if timeout is not None:
                    connection.exec_driver_sql(self._limit(milliseconds(timeout)))
                # Under another level there would be no snapshot.
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
                yield connection
        finally:
            if timeout is not None and not connection.invalidated:
                self._unlimit(connection)

    def _limit(self, limit_ms: int) -> str:
        """Return the SQL that limits the time of a session's statements, and notes the old limit.

        One statement sets both, so that the old limit needs no round trip of its own.
        """
        limit = f"{limit_ms / 1000:.3f}" if self.counts_seconds else str(limit_ms)
        setting = f"SESSION {self.time_limit}"
        return f"SET @beatstore_time_limit = @@{setting.replace(' ', '.')}, {setting} = {limit}"

    def _unlimit(self, connection: Connection) -> None:
        """Set the old limit again; a connection where that fails is not used again."""
        try:
            connection.exec_driver_sql(f"SET SESSION {self.time_limit} = @beatstore_time_limit")
        except Exception:  # noqa: BLE001  (whatever the driver raises: the reading is over)
            connection.invalidate()

    def limit_lock_wait(self, connection: Connection, milliseconds: int) -> None:
        """Do nothing: `limit_session` has set it, since here it is the session's."""

    def limit_session(self, connection: Connection, silence_s: int) -> None:
        """Limit the waits for locks. MySQL has no limit of silence within a transaction."""
        connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 1")
        connection.rollback()

    def reads_snapshot(self, connection: Connection) -> bool:
        """Ask for the level: the default, REPEATABLE READ, is the one under which this is so."""
        return connection.get_isolation_level() != "READ COMMITTED"

    def table_sizes(
        self, connection: Connection, schema: str | None, tables: Iterable[str]
    ) -> list[TableSize]:
        """Ask for InnoDB's estimates."""
        rows = connection.execute(_TABLES, {"at": schema, "tables": list(tables)})
        return [TableSize(*row) for row in rows]

    def trigger_names(self, connection: Connection, schema: str | None) -> list[str]:
        """Ask for those that this account may see."""
        return list(connection.execute(_TRIGGERS, {"at": schema}).scalars())

    def session_sql(self, schema: str | None) -> list[str]:
        """Make the schema, which is a database, the one that names mean."""
        return [f"USE {schema}"] if schema else []

    def wait_for_migrations(self, connection: Connection, schema: str | None) -> None:
        """Take a named lock of the session, since each change of a table ends a transaction."""
        given = {"at": schema, "wait": _TURN_S}
        if not any(connection.scalar(_TAKE, given) == 1 for _ in range(_TURNS)):
            raise SchemaError(
                f"another process has been migrating this database for {_TURNS * _TURN_S} s; look "
                "for it in SHOW PROCESSLIST, then run the migration again"
            )

    def end_migrations(self, connection: Connection, schema: str | None) -> None:
        """Release the named lock: on OceanBase it outlives its session."""
        with suppress(SQLAlchemyError):  # the connection is broken, and its session over
            connection.execute(_RELEASE, {"at": schema})


class MariaDB(MySQL):
    """MariaDB, by a URL of its own or by one of MySQL's: the server says which it is."""

    name = "mariadb"
    label = "MariaDB"
    example_url = "mariadb+pymysql://user@host/database"
    # The check of a JSON column takes no more, and its error looks like an outage.
    json_levels = 31
    has_lateral = False
    time_limit = "max_statement_time"
    counts_seconds = True

    def limit_session(self, connection: Connection, silence_s: int) -> None:
        """Limit both, by one statement."""
        limit = f"IF(@@{_IDLE} = 0, {silence_s}, LEAST(@@{_IDLE}, {silence_s}))"
        connection.exec_driver_sql(f"SET SESSION innodb_lock_wait_timeout = 1, {_IDLE} = {limit}")
        connection.rollback()


class _UpdateByDocument(Executable, ClauseElement):
    """An UPDATE of the rows whose ids are in a JSON document, by the values there."""

    inherit_cache = False

    def __init__(self, table: Table, columns: Mapping[str, TypeEngine[Any]]) -> None:
        self.table = table
        self.columns = columns


@compiles(_UpdateByDocument)
def _update_by_document(element: _UpdateByDocument, compiler: SQLCompiler, **kw: Any) -> str:
    quoted = compiler.preparer.quote
    shape, values = [], []
    for name, kind in element.columns.items():
        charset = " CHARACTER SET utf8mb4" if isinstance(kind, String) else ""
        column = f"{quoted(name)} {kind.compile(compiler.dialect)}{charset}"
        # NULL is a name that is absent.
        shape.append(f"{column} PATH '$.{name}' NULL ON EMPTY ERROR ON ERROR")
        if name != "b_id":
            values.append(f"written.{quoted(name)} = given.{quoted(name)}")
    rows = compiler.process(bindparam("rows", type_=String()), **kw)
    table = compiler.process(element.table, asfrom=True, **kw)
    return (
        f"UPDATE JSON_TABLE({rows}, '$[*]' COLUMNS ({', '.join(shape)})) AS given "
        f"STRAIGHT_JOIN {table} AS written FORCE INDEX (PRIMARY) "
        f"ON written.id = given.b_id SET {', '.join(values)}"
    )


def _document(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    @cache  # the same few instants stand in every row
    def encode(value: datetime) -> str:
        return in_utc(value).replace(tzinfo=None).isoformat(" ", "microseconds")

    given = [{name: one for name, one in row.items() if one is not None} for row in rows]
    return {"rows": json.dumps(given, default=encode)}
