"""What is accepted as the place of a database, and what is said of the rest."""

from __future__ import annotations

import pickle

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.asyncio import create_async_engine

from beatstore import Store
from beatstore.database.dialects import PostgreSQL
from beatstore.errors import ConfigError, UnknownDatabaseError

ASYNC = {
    "postgresql+asyncpg://u@h/d": "postgresql+psycopg://",
    "postgresql+psycopg_async://u@h/d": "postgresql+psycopg://",
    "mysql+aiomysql://u@h/d": "mysql+pymysql://",
    "mysql+asyncmy://u@h/d": "mysql+pymysql://",
    "mariadb+aiomysql://u@h/d": "mariadb+pymysql://",
    "sqlite+aiosqlite:///x.db": "sqlite:///",
}

UNKNOWN = ("duckdb:///x", "mssql+pyodbc://u@h/d", "oracle+oracledb://h", "snowflake://u@h/d")


@pytest.mark.parametrize("url", ASYNC)
def test_async_urls_are_refused(url: str) -> None:
    """A URL for asyncio is refused when a store is made, in one line with what to write."""
    with pytest.raises(ConfigError, match="works without an event loop") as refused:
        Store(url)
    assert refused.value.write is not None
    assert refused.value.write.startswith(ASYNC[url])
    assert "\n" not in str(refused.value)


def test_async_engines_are_refused() -> None:
    """So is an AsyncEngine, and the Engine inside it, which works for coroutines alone."""
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(ConfigError, match="no event loop for an AsyncEngine"):
        Store(engine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="aiosqlite does not"):
        Store(engine.sync_engine)


@pytest.mark.parametrize("url", UNKNOWN)
def test_other_databases_are_refused_by_name(url: str) -> None:
    """A database that beatstore doesn't know is refused, whether its driver is there or not."""
    sentence = "beatstore runs on PostgreSQL, MySQL/MariaDB and SQLite; got "
    with pytest.raises(UnknownDatabaseError) as refused:
        Store(url)
    assert str(refused.value).startswith(f"url: {sentence}{refused.value.given!r}; ")
    assert str(refused.value).endswith(f"write {PostgreSQL.example_url}")


@pytest.mark.parametrize("name", ["cockroachdb", "oceanbase", "postgres", "tidb", "yugabytedb"])
def test_relatives_of_the_known_ones_are_explained(name: str) -> None:
    """For a dialect of a server that speaks a known protocol, the error says how to go on."""
    with pytest.raises(UnknownDatabaseError) as refused:
        Store(f"{name}://u:secret@h/d")
    error = pickle.loads(pickle.dumps(refused.value))
    assert str(error) == str(refused.value)
    assert error.why in str(error)
    assert "secret" not in str(error)
    if error.write is None:
        assert name in {"cockroachdb", "tidb"}
    else:
        assert Store(error.write).url == error.write


def test_an_engine_of_another_database_is_refused() -> None:
    """An Engine of such a database is refused before it connects."""

    class Stranger(DefaultDialect):
        name = driver = "stranger"

    engine = create_engine("sqlite://")
    engine.dialect = Stranger()
    engine.url = engine.url.set(drivername="stranger")
    with pytest.raises(UnknownDatabaseError, match=r"SQLite; got 'stranger://'"):
        Store(engine)


@pytest.mark.parametrize("url", ["postgresql+asyncpg://u:secret@h/d", "oracle://u:secret@h/d"])
def test_no_password_is_shown(url: str) -> None:
    """What is refused is shown without its password."""
    with pytest.raises(ConfigError) as refused:
        Store(url)
    assert "secret" not in str(refused.value)


def test_a_driver_that_is_not_installed() -> None:
    """A driver that is missing is a wrong setting, and the error says which."""
    store = Store("mysql+cymysql://u@h/d")
    with pytest.raises(ConfigError, match="cymysql"):
        store.check()
