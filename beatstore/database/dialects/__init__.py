"""Everything that differs between databases: one class for each, behind one base class.

    base         DatabaseDialect: what beatstore asks of a database
    postgresql   PostgreSQL
    mysql        MySQL, MariaDB
    sqlite       SQLite

Whoever has a connection asks `dialect_of(connection.dialect)`, whoever has a URL `dialect_at`,
and nobody for the name of the database. `beatstore.database.columns` has the types of columns, and
`beatstore.database.drivers` what differs between drivers.
"""

from __future__ import annotations

from typing import Any, NoReturn

from sqlalchemy import URL
from sqlalchemy.engine import Dialect

from beatstore.database.dialects.base import (
    DatabaseDialect,
    GivenRows,
    TableSize,
    UpdateEach,
    execute,
    in_utc,
)
from beatstore.database.dialects.mysql import MariaDB, MySQL
from beatstore.database.dialects.postgresql import CHANNEL, PostgreSQL
from beatstore.database.dialects.sqlite import SQLite
from beatstore.errors import UnknownDatabaseError

__all__ = [
    "CHANNEL",
    "DatabaseDialect",
    "GivenRows",
    "MariaDB",
    "MySQL",
    "PostgreSQL",
    "SQLite",
    "TableSize",
    "UpdateEach",
    "dialect_at",
    "dialect_of",
    "execute",
    "in_utc",
    "supports",
    "table_options",
]

_DIALECTS: dict[str, DatabaseDialect] = {
    dialect.name: dialect for dialect in (SQLite(), PostgreSQL(), MySQL(), MariaDB())
}

#: What to write for names that SQLAlchemy knows, or that others' dialects give it, and why. A
#: server that speaks PostgreSQL's or MySQL's protocol is spoken to as one of these.
_RELATIVES = {
    "cockroachdb": (None, "CockroachDB lacks what beatstore's triggers and migrations need"),
    "oceanbase": (
        "mysql+pymysql://user@host:2881/database",
        "OceanBase is spoken to as MySQL",
    ),
    "postgres": (PostgreSQL.example_url, "PostgreSQL's name in a URL is postgresql"),
    "tidb": (None, "TiDB has no triggers and no SKIP LOCKED"),
    "yugabytedb": (
        "postgresql+psycopg://user@host:5433/database",
        "YugabyteDB is spoken to as PostgreSQL",
    ),
}

#: SQLAlchemy prints a statement in a dialect of this name where nobody says for which database.
_PRINTED = "default"


def dialect_of(dialect: Dialect) -> DatabaseDialect:
    """Return the dialect of a connection or engine, by SQLAlchemy's own.

    Raises:
        UnknownDatabaseError: beatstore does not know that database.
    """
    # A server that is spoken to as MySQL's says when it is MariaDB.
    name = MariaDB.name if getattr(dialect, "is_mariadb", False) else dialect.name
    found = _DIALECTS.get(SQLite.name if name == _PRINTED else name)
    return found or _refuse(name, "database", name)


def dialect_at(url: URL, given: Any = None) -> DatabaseDialect:
    """Return the dialect of the database that a URL names.

    Args:
        url: with or without a driver.
        given: what the user wrote, for the error, with no password in it.

    Raises:
        UnknownDatabaseError: beatstore does not know that database.
    """
    name = url.get_backend_name()
    return _DIALECTS.get(name) or _refuse(name, "url", given or name)


def supports(url: URL) -> bool:
    """Say whether beatstore knows the database that a URL names."""
    return url.get_backend_name() in _DIALECTS


def _refuse(name: str, setting: str, given: Any) -> NoReturn:
    write, why = _RELATIVES.get(name, (PostgreSQL.example_url, None))
    raise UnknownDatabaseError(setting, given, write, why)


def table_options() -> dict[str, str]:
    """Return the options of every table, for all databases at once, as SQLAlchemy takes them."""
    return {
        f"{dialect.name}_{option}": value
        for dialect in _DIALECTS.values()
        for option, value in dialect.table_options.items()
    }
