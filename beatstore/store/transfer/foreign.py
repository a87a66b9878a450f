"""Read the tables of other schedulers: rows as dicts; nothing is written there.

Invariants:
    * All rows are read from one snapshot, in a read-only transaction.
    * Only the names of the tables are assumed. Rows have the columns that are there, with the
      values that the driver returns.

On failure: an unusable URL raises `ConfigError`, a missing table that is needed raises
`SchemaError`, and a database that does not answer raises `UnavailableError`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Select, inspect, literal_column, null, select, table, update
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from beatstore.database import transaction
from beatstore.database.dialects import dialect_at, dialect_of
from beatstore.database.drivers import connect_defaults
from beatstore.database.engine import Database, make_engine
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY, chunks
from beatstore.database.transaction import explained
from beatstore.definition.spec import Declared
from beatstore.errors import ConfigError, SchemaError
from beatstore.rules.due import STEP
from beatstore.schedules.instants import EPOCH

if TYPE_CHECKING:
    from beatstore.store import Store
    from beatstore.store.sync.sync import SyncReport

__all__ = ["opened", "read_tables", "sync"]


@contextmanager
def opened(url: str | URL) -> Iterator[Database]:
    """Open the database of another scheduler, and change nothing in it.

    Raises:
        ConfigError: `url` is not a database URL, names an SQLite file that does not exist, or
            its driver is not installed.
    """
    named = Database(url).url  # this checks the URL
    path = dialect_at(named).file_of(named)
    if path is not None and not Path(path).is_file():
        raise ConfigError("url", path, "an SQLite file that exists", "its absolute path")
    arguments = connect_defaults(named, {}, Database.program)
    engine = make_engine(named, connect_args=arguments, poolclass=NullPool)
    try:
        yield Database(engine)
    finally:
        engine.dispose()


def read_tables(
    database: Database, tables: Mapping[str, str], needed: str, schema: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of some tables, by the keys of `tables`.

    Args:
        database: the database to read.
        tables: the names of the tables; a missing table has no rows.
        needed: the key of the table that must exist.
        schema: the schema of the tables; None for the default schema of the connection.

    Raises:
        SchemaError: the needed table does not exist.
    """
    with explained(database), database.engine.connect() as connection:
        present = {
            key: name
            for key, name in tables.items()
            if inspect(connection).has_table(name, schema=schema)
        }
        if needed not in present:
            raise SchemaError(_not_there(database, connection, tables[needed], schema))
        connection.rollback()
        with dialect_of(connection.dialect).begin_reading(connection):
            return {
                key: _rows(connection, present[key], schema) if key in present else []
                for key in tables
            }


def sync(
    store: Store,
    source: str,
    entries: Collection[Declared],
    *,
    refused: Mapping[str, str],
    late: Collection[str],
    session: Any,
) -> SyncReport:
    """Sync the entries of another scheduler; see `Store.sync`.

    Args:
        store: the store.
        source: the owner of the entries.
        entries: everything that was read.
        refused: the names that could not be read, each with the reason.
        late: one-shots whose time has passed, and which run at once. Had they been paused over
            their time, they would be missed.
        session: the caller's session, or None.
    """

    def work(own: Session) -> SyncReport:
        report = store.sync(entries, source=source, refused=refused, session=own)
        tx = Transaction(own, store.database, store.settings)
        for some in chunks(late):
            passed = ENTRY.c.name.in_(some), ENTRY.c.source == source, ENTRY.c.kind == "once"
            resumed = update(ENTRY).where(*passed, ENTRY.c.state == "active")
            # Another wake_at than that of the sync: one that stays is an edit for the trigger.
            due = {"cursor_at": null(), "wake_at": EPOCH + STEP}
            tx.execute(resumed.where(ENTRY.c.cursor_at.is_not(None)).values(due))
        return report

    return transaction.write(store.database, session, work)


def _rows(connection: Connection, name: str, schema: str | None) -> list[dict[str, Any]]:
    # Read without column types, which would raise for a value of another kind: one bad row must
    # not prevent reading the others.
    everything: Select[Any] = select(literal_column("*")).select_from(table(name, schema=schema))
    return [dict(row) for row in connection.execute(everything).mappings()]


def _not_there(database: Database, connection: Connection, name: str, schema: str | None) -> str:
    place = f"schema {schema!r}" if schema else "the default schema"
    others = set(inspect(connection).get_schema_names())
    others -= dialect_of(connection.dialect).server_schemas
    elsewhere = [other for other in sorted(others) if inspect(connection).has_table(name, other)]
    where = f"; schema {elsewhere[0]!r} has one" if elsewhere else ""
    return f"{database.safe_url}: no table {name!r} in {place}{where}"
