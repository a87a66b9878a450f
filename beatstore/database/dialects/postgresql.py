"""PostgreSQL: the only one of the four that can wake a sleeping beat."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Insert,
    String,
    Table,
    any_,
    bindparam,
    column,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeEngine

from beatstore.database.dialects.base import (
    DatabaseDialect,
    GivenRows,
    TableSize,
    in_utc,
    milliseconds,
)

__all__ = ["CHANNEL", "PostgreSQL"]

#: The notification channel that wakes a sleeping beat.
CHANNEL = "beatstore"

#: The key of the advisory lock of migrations, which is a number.
_MIGRATION_LOCK = int.from_bytes(b"beatstor", "big")


#: The estimate of rows is -1 before the first ANALYZE.
_TABLES = text(
    """
    SELECT c.relname, pg_total_relation_size(c.oid), CAST(c.reltuples AS BIGINT)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = COALESCE(:at, current_schema()) AND c.relkind IN ('r', 'p')
        AND c.relname IN :tables
    ORDER BY c.relname
    """
).bindparams(bindparam("tables", expanding=True))

_TRIGGERS = text(
    """
    SELECT t.tgname FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = COALESCE(:at, current_schema()) AND NOT t.tgisinternal
        AND t.tgenabled <> 'D' AND t.tgname LIKE 'beatstore!_%' ESCAPE '!'
    ORDER BY t.tgname
    """
)


#: How the triggers' functions notify, and what stands there instead where they are not to.
_LOUD = f"PERFORM pg_notify('{CHANNEL}', '');"
_SILENT = "NULL; -- beatstore_notify = False"

#: The functions of the triggers in which a text stands, as statements that make them anew.
_FUNCTIONS = text(
    """
    SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = COALESCE(:at, current_schema()) AND p.proname LIKE 'beatstore!_%' ESCAPE '!'
        AND position(CAST(:part AS TEXT) IN p.prosrc) > 0
    ORDER BY p.proname
    """
)


#: Prepares the session of a beat or worker: a limit of its silence, in milliseconds, where there is
#: none yet or a longer one; no compiling, as in `_BEGIN_READING`; and no reading of whole tables,
#: since all its statements look up rows by an index. The server keeps the plans of statements, and
#: one made for a small table would go on reading all of it when it has grown. Through a pooler this
#: does nothing: the number of the session, as the client knows it, is another there.
_PREPARE_SESSION = text(
    """
    SELECT set_config(
        name,
        CASE name
            WHEN 'idle_in_transaction_session_timeout' THEN CAST(:ms AS TEXT) ELSE 'off'
        END,
        false
    )
    FROM pg_settings
    WHERE pg_backend_pid() = :session
        AND CASE name
            WHEN 'idle_in_transaction_session_timeout'
            THEN CAST(setting AS BIGINT) NOT BETWEEN 1 AND CAST(:ms AS BIGINT)
            ELSE name IN ('jit', 'enable_seqscan')
        END
    """
)

#: Sets the time limit of each statement of a transaction, in milliseconds, and has none compiled:
#: for the time that a question of ours takes, compiling costs more than it saves.
_BEGIN_READING = text(
    "SELECT set_config('statement_timeout', CAST(:ms AS TEXT), true), "
    "CASE WHEN current_setting('jit', true) = 'on' THEN set_config('jit', 'off', true) END"
)


class PostgreSQL(DatabaseDialect):
    """PostgreSQL."""

    name = protocol = "postgresql"
    label = "PostgreSQL"
    example_url = "postgresql+psycopg://user@host/database"
    default_port = 5432
    install_hints: ClassVar[Mapping[str, str]] = {
        "psycopg": "pip install 'beatstore[postgres]'",
        "psycopg2": "pip install psycopg2-binary; or postgresql+psycopg:// for the usual driver",
    }
    server_schemas = frozenset({"information_schema"})
    writes_in_queries = True
    # psycopg prepares what it is asked often, and the server keeps the plan: one made while a
    # table was empty reads all of it for each thousand names, when it no longer is.
    unites_untyped_nulls = False
    force_custom_plans = "SET LOCAL plan_cache_mode = force_custom_plan"
    triggers = DatabaseDialect.triggers | {"beatstore_entry_due", "beatstore_run_due"}
    notification = select(func.pg_notify(CHANNEL, ""))

    def now(self) -> str:
        """Go on within a transaction, but be the same wherever it stands in a statement.

        now() does not change within a caller's long transaction. And clock_timestamp() is
        volatile: no index serves a comparison with it, and Citus refuses an UPDATE that has it.
        No statement of beatstore waits for a lock and then needs the time of after; triggers
        do, and keep clock_timestamp().
        """
        return "statement_timestamp()"

    def clock_default(self) -> str:
        """Return what the migrations have made; an INSERT may be volatile on Citus, too."""
        return "clock_timestamp()"

    def micros_between(self, begin: str, end: str) -> str:
        """Count in numerics, which are exact."""
        return f"CAST(EXTRACT(EPOCH FROM ({end}) - ({begin})) * 1000000 AS BIGINT)"

    def insert_ignore(self, table: Table) -> Insert:
        """Do nothing on a conflict."""
        return postgresql.insert(table).on_conflict_do_nothing()

    def among(
        self, id_column: ColumnElement[int], ids: Iterable[int] | None = None
    ) -> ColumnElement[bool]:
        """Give the ids as one array.

        With a parameter for each, driver and server read a longer statement anew for each batch.
        """
        array = ARRAY(BigInteger)
        given = bindparam("ids", type_=array) if ids is None else literal(list(ids), array)
        return id_column == any_(given)

    def given_rows(
        self, dialect: Dialect, columns: Mapping[str, TypeEngine[Any]]
    ) -> GivenRows | None:
        """Give the rows as one JSON document.

        One statement costs server and driver half of what a statement for each row does.
        """
        kinds = {name: kind.compile(dialect) for name, kind in columns.items()}
        # JSON is given as text. What is JSON within JSON is unpacked, and then a NUL is refused,
        # which a column may hold.
        packed = [name for name, kind in kinds.items() if kind == "JSON"]
        shape = ", ".join(f"{name} {'TEXT' if name in packed else kinds[name]}" for name in kinds)
        cells = ", ".join(
            f"CAST({one} AS JSON) AS {one}" if one in packed else one for one in kinds
        )
        made = text(f"SELECT {cells} FROM json_to_recordset(CAST(:rows AS json)) AS given({shape})")
        typed = [column(name, kind) for name, kind in columns.items()]
        document = made.bindparams(bindparam("rows", type_=String()))

        def parameters(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            @cache  # the same few instants stand in every row
            def encode(value: datetime) -> str:
                return str(in_utc(value))

            if packed:
                rows = [{**row, **{name: _as_text(row[name]) for name in packed}} for row in rows]
            return {"rows": json.dumps(rows, default=encode)}

        return GivenRows(document.columns(*typed).subquery("given"), parameters)

    def instant_type(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use timestamptz."""
        if _takes_text(dialect):
            return _Uncast(timezone=True)
        return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))

    def instant_parameter(self, utc: datetime, dialect: Dialect) -> Any:
        """Leave it to the driver, or write it out."""
        return utc.isoformat() if _takes_text(dialect) else utc

    def select_instant(self, column: str) -> str:
        """Select it as JSON, which no setting of a session changes.

        An instant itself is written in the session's zone and DateStyle. Not every driver asks
        for the style, and in zones east of UTC the end of year 9999 is no year that Python has.
        """
        return f"CAST(to_json(timezone('UTC', {column})) AS TEXT)"

    def write_instant(self, parameter: str, dialect: Dialect) -> str:
        """Read text as an instant, where it is given as text."""
        if not _takes_text(dialect):
            return parameter
        return f"CAST(CAST({parameter} AS TEXT) AS TIMESTAMP WITH TIME ZONE)"

    def set_up(self, connection: Any, dbapi: Any) -> None:
        """Leave it as it is: what its drivers need, `beatstore.database.drivers` does."""

    @contextmanager
    def begin_statement(self, connection: Connection) -> Iterator[Connection]:
        """Leave it to the server: BEGIN and ROLLBACK would take a round trip each."""
        driver: Any = connection.connection.dbapi_connection
        driver.autocommit = True
        yield connection
        connection.rollback()
        driver.autocommit = False

    @contextmanager
    def begin_reading(
        self, connection: Connection, timeout: float | None = None
    ) -> Iterator[Connection]:
        """Begin a transaction that sees one snapshot, with a time limit of its own."""
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            if timeout is not None:
                connection.execute(_BEGIN_READING, {"ms": milliseconds(timeout)})
            yield connection

    def limit_lock_wait(self, connection: Connection, milliseconds: int) -> None:
        """Set a limit that is the transaction's own."""
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(milliseconds)}")

    def limit_session(self, connection: Connection, silence_s: int) -> None:
        """Limit the silence, and say how to plan.

        Not if a pooler answers, which gives its sessions to others too.
        """
        info = getattr(connection.connection.dbapi_connection, "info", None)
        session = getattr(info, "backend_pid", None)
        if session is not None:
            connection.execute(_PREPARE_SESSION, {"ms": silence_s * 1000, "session": session})
            connection.commit()

    def table_sizes(
        self, connection: Connection, schema: str | None, tables: Iterable[str]
    ) -> list[TableSize]:
        """Ask the catalogue."""
        rows = connection.execute(_TABLES, {"at": schema, "tables": list(tables)})
        return [TableSize(name, size, rows if rows >= 0 else None) for name, size, rows in rows]

    def trigger_names(self, connection: Connection, schema: str | None) -> list[str]:
        """Ask the catalogue, and leave out what is disabled."""
        return list(connection.execute(_TRIGGERS, {"at": schema}).scalars())

    def session_sql(self, schema: str | None) -> list[str]:
        """Set the zone: defaults that are instants are read in it when a table is made."""
        zone = ["SET LOCAL TIME ZONE 'UTC'"]
        return [*zone, f"SET LOCAL search_path TO {schema}"] if schema else zone

    def notifying_sql(self, connection: Connection, schema: str | None, on: bool) -> list[str]:
        """Exchange the line that notifies in the functions of the triggers."""
        there, wanted = (_SILENT, _LOUD) if on else (_LOUD, _SILENT)
        found = connection.execute(_FUNCTIONS, {"at": schema, "part": there}).scalars()
        return [definition.replace(there, wanted) for definition in found]

    def wait_for_migrations(self, connection: Connection, schema: str | None) -> None:
        """Take an advisory lock of the transaction."""
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))


class _Uncast(postgresql.TIMESTAMP):
    """A `timestamptz` that SQLAlchemy does not make one of asyncpg's, which takes no text."""

    def adapt(self, cls: Any, **kw: Any) -> Any:
        """Stay what it is."""
        return _Uncast(timezone=True)


def _takes_text(dialect: Dialect) -> bool:
    """Say whether the driver is given instants as text: asyncpg makes `infinity` of the last."""
    return dialect.driver == "asyncpg"


def _as_text(value: Any) -> str | None:
    """Return the text of JSON; NULL stays NULL."""
    return None if value is None else json.dumps(value)
