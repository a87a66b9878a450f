"""Which database a connection is of, and what is said of one that beatstore does not know."""

from __future__ import annotations

import inspect
import sqlite3
from typing import Any

import pytest
from sqlalchemy import make_url, select
from sqlalchemy.dialects import mssql, oracle
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from beatstore import Store
from beatstore.database.columns import check_levels
from beatstore.database.dialects import (
    DatabaseDialect,
    MariaDB,
    MySQL,
    PostgreSQL,
    SQLite,
    dialect_at,
    dialect_of,
)
from beatstore.database.functions import db_now, micros_between
from beatstore.database.tables import ENTRY, WAIT
from beatstore.errors import ConfigError, InvalidEntryError, SessionError, UnknownDatabaseError

URLS = {
    "sqlite:///x.db": SQLite,
    "postgresql+psycopg://u@h/d": PostgreSQL,
    "postgresql+psycopg2://u@h/d": PostgreSQL,
    "mysql+pymysql://u@h/d": MySQL,
    "mariadb+pymysql://u@h/d": MariaDB,
}


def spoken(url: str) -> Any:
    """Return SQLAlchemy's dialect for a URL."""
    return make_url(url).get_dialect()()


@pytest.mark.parametrize("url", URLS)
def test_each_database_has_its_dialect(url: str) -> None:
    """A URL and a connection lead to the same object, whatever the driver."""
    found = dialect_of(spoken(url))
    assert type(found) is URLS[url]
    assert found is dialect_at(make_url(url))
    assert found is dialect_at(make_url(found.example_url))


def test_a_server_says_that_it_is_mariadb() -> None:
    """A MariaDB that is spoken to by a URL of MySQL's is known for what it is."""
    dialect = spoken("mysql+pymysql://u@h/d")
    assert type(dialect_of(dialect)) is MySQL
    dialect.is_mariadb = True
    assert type(dialect_of(dialect)) is MariaDB


@pytest.mark.parametrize("dialect", [mssql.dialect(), oracle.dialect()])
def test_an_unknown_database_is_refused_by_name(dialect: Dialect) -> None:
    """A database that beatstore does not know is named, with those it knows and what to write."""
    known = "beatstore runs on PostgreSQL, MySQL/MariaDB and SQLite"
    with pytest.raises(UnknownDatabaseError, match=f"{known}; got '{dialect.name}'") as refused:
        dialect_of(dialect)
    assert refused.value.write == PostgreSQL.example_url
    for statement in (select(db_now()), select(ENTRY), CreateTable(WAIT)):
        with pytest.raises(UnknownDatabaseError, match=dialect.name):
            statement.compile(dialect=dialect)


def test_a_session_of_an_unknown_database_is_of_another() -> None:
    """A session that is bound to such a database is refused as one of another database."""

    class Bound(Session):
        def get_bind(self, *args: Any, **kwargs: Any) -> Any:
            class Bind:
                url = make_url("oracle+oracledb://u@h/d")

            Bind.engine = Bind  # type: ignore[attr-defined]
            return Bind

    with pytest.raises(SessionError, match="bound to oracle"):
        Store("sqlite://").get("x", session=Bound())


def test_a_statement_can_be_printed() -> None:
    """SQLAlchemy prints a statement when nobody says for which database it is."""
    printed = str(select(ENTRY.c.wake_at, db_now(), micros_between(ENTRY.c.wake_at, db_now())))
    assert printed.startswith("SELECT")
    assert "CREATE TABLE" in str(CreateTable(WAIT))


def test_a_url_of_one_protocol_may_name_the_same_database() -> None:
    """MySQL's and MariaDB's URLs of one place are one database; other places are others."""
    places = [
        dialect_at(url).place(url)
        for url in map(
            make_url,
            (
                "mysql+pymysql://u@localhost/d",
                "mariadb+pymysql://v@127.0.0.1:3306/d",
                "mysql://127.0.0.1:3307/d",
                "postgresql+psycopg://localhost/d",
                "postgresql+psycopg2://:5432/d",
                "sqlite:///d",
            ),
        )
    ]
    assert places[0] == places[1]
    assert places[3] == places[4]
    assert len(set(places)) == 4


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:///x.db", "x.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///file:x.db?uri=true", None),
        ("postgresql+psycopg://u@h/d", None),
    ],
)
def test_only_a_file_has_a_path(url: str, path: str | None) -> None:
    """A server has no path, nor has a database in memory."""
    assert dialect_at(make_url(url)).file_of(make_url(url)) == path


def test_an_old_sqlite_is_refused() -> None:
    """A library that takes fewer parameters than statements have is named at the first connect."""

    class Old:
        sqlite_version_info = (3, 31, 1)
        OperationalError = sqlite3.OperationalError

    connection = sqlite3.connect(":memory:")
    with pytest.raises(ConfigError, match=r"expected 3\.32 or newer, got '3\.31\.1'"):
        SQLite().set_up(connection, Old)
    Old.sqlite_version_info = (3, 32, 0)
    SQLite().set_up(connection, Old)
    connection.close()


def test_only_mariadb_limits_levels() -> None:
    """JSON as deep as MariaDB refuses is let through elsewhere."""
    deep: Any = []
    for _ in range(40):
        deep = [deep]
    for url in set(URLS) - {"mariadb+pymysql://u@h/d"}:
        check_levels("args", deep, spoken(url))
    with pytest.raises(InvalidEntryError, match="29 levels, which is what MariaDB holds"):
        check_levels("args", deep, spoken("mariadb+pymysql://u@h/d"))


def test_every_question_is_documented() -> None:
    """Each question of the base class says what it asks, and each fact stands in its docstring."""
    asked = [
        (name, member)
        for name, member in vars(DatabaseDialect).items()
        if not name.startswith("_") and name not in DatabaseDialect.__annotations__
    ]
    assert asked
    assert all(inspect.getdoc(member) for _, member in asked)
    described = inspect.getdoc(DatabaseDialect) or ""
    assert [
        name for name in DatabaseDialect.__annotations__ if f"\n    {name}: " not in described
    ] == []
