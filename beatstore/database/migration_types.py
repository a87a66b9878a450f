"""The column types of the migrations: what a revision has made, it makes for ever.

The models' own types may change with any version, and what a released revision does may not.
So the revisions stand on these types, which say no more than the DDL needs, and on nothing
else of beatstore. They are frozen: a column that is to become another one gets a new type,
beside the old.

They are in this package, and not beside the revisions, because Alembic loads those by their
path, from a checkout or from the installed package, and neither is a package to import from.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Integer, String
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["BigId", "Instant", "Json", "Name", "now"]

#: An instant: `timestamptz`, `DATETIME(6)` in UTC, or SQLite's text of fixed width.
Instant = (
    DateTime(timezone=True)
    .with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    .with_variant(String(26), "sqlite")
)

#: A JSON document.
Json = JSON()

#: A primary key, or a reference to one. SQLite numbers rows by itself only for INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")


def Name(length: int) -> String:  # noqa: N802  (reads as a type in a column list)
    """Return a text type that compares byte by byte on every database."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


class now(FunctionElement[datetime]):  # noqa: N801  (an SQL function, named like one)
    """The database's clock, as the default of a column of type `Instant`."""

    inherit_cache = True
    name = "now"


@compiles(now, "postgresql")
def _postgresql_now(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    return "clock_timestamp()"


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


@compiles(now, "mysql")
@compiles(now, "mariadb")
def _mysql_now(element: now, compiler: SQLCompiler, **kw: Any) -> str:
    return "(UTC_TIMESTAMP(6))"
