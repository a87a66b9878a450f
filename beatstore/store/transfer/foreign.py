"""Tables of other schedulers, read as they stand: rows as dicts, and nothing is written.

Invariants:
    * What is read is one state of that database, in a transaction that can't write.
    * Nothing is assumed but the name of a table: its columns are those that it has, and
      their values are what the driver makes of them.

On failure: an unusable URL is a `ConfigError`, a table that must be there and is not a
`SchemaError`, and a database that does not answer an `UnavailableError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Select, create_engine, inspect, literal_column, select, table
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from beatstore.database.dialects import dialect_at, dialect_of
from beatstore.database.drivers import connect_defaults
from beatstore.database.engine import Database
from beatstore.database.transaction import explained
from beatstore.errors import ConfigError, SchemaError

__all__ = ["opened", "read_tables"]


@contextmanager
def opened(url: str | URL) -> Iterator[Database]:
    """Open a database that is not ours, and change nothing about it.

    Raises:
        ConfigError: that is no URL of a database, or it names an SQLite file that does
            not exist.
    """
    named = Database(url).url  # which checks it
    path = dialect_at(named).file_of(named)
    if path is not None and not Path(path).is_file():
        raise ConfigError("url", path, "an SQLite file that exists", "its absolute path")
    arguments = connect_defaults(named, {}, Database.program)
    engine = create_engine(named, connect_args=arguments, poolclass=NullPool)
    try:
        yield Database(engine)
    finally:
        engine.dispose()


def read_tables(
    database: Database, tables: Mapping[str, str], needed: str, schema: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of some tables, by the keys of `tables`.

    Args:
        database: where.
        tables: their names; one that is not there has no rows.
        needed: the key of the one that must be there.
        schema: the schema that they are in; None for the connection's own.

    Raises:
        SchemaError: the needed one is not there.
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


def _rows(connection: Connection, name: str, schema: str | None) -> list[dict[str, Any]]:
    # Without their types, which would raise for a value of another kind: one bad row is
    # no reason to read none.
    everything: Select[Any] = select(literal_column("*")).select_from(table(name, schema=schema))
    return [dict(row) for row in connection.execute(everything).mappings()]


def _not_there(database: Database, connection: Connection, name: str, schema: str | None) -> str:
    place = f"schema {schema!r}" if schema else "the connection's own schema"
    others = set(inspect(connection).get_schema_names())
    others -= dialect_of(connection.dialect).server_schemas
    elsewhere = [other for other in sorted(others) if inspect(connection).has_table(name, other)]
    where = f"; schema {elsewhere[0]!r} has one" if elsewhere else ""
    return f"{database.safe_url}: no table {name!r} in {place}{where}"
