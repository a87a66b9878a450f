"""What is accepted as the place of a database, and what is said of the rest."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.asyncio import create_async_engine

from beatstore import Store
from beatstore.errors import ConfigError

ASYNC = {
    "postgresql+asyncpg://u@h/d": "postgresql+psycopg://",
    "postgresql+psycopg_async://u@h/d": "postgresql+psycopg://",
    "mysql+aiomysql://u@h/d": "mysql+pymysql://",
    "mysql+asyncmy://u@h/d": "mysql+pymysql://",
    "mariadb+aiomysql://u@h/d": "mariadb+pymysql://",
    "sqlite+aiosqlite:///x.db": "sqlite:///",
}

UNKNOWN = ("duckdb:///x", "mssql+pyodbc://u@h/d", "oracle+oracledb://h", "cockroachdb://h/d")


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
    name = url.partition(":")[0].partition("+")[0]
    with pytest.raises(ConfigError, match=f"'{name}' is none of them"):
        Store(url)


def test_an_engine_of_another_database_is_refused() -> None:
    """An Engine of such a database is refused before it connects."""

    class Stranger(DefaultDialect):
        name = driver = "stranger"

    engine = create_engine("sqlite://")
    engine.dialect = Stranger()
    engine.url = engine.url.set(drivername="stranger")
    with pytest.raises(ConfigError, match="'stranger' is none of them"):
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
