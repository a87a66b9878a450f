"""A server that has no defaults for JSON columns, as OceanBase, gets tables without them."""

from __future__ import annotations

import logging
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from beatstore import Cron, Store
from beatstore.database import migrate
from beatstore.database.engine import Database
from beatstore.database.faults import unavailable
from beatstore.database.tables import ENTRY
from tests.support.marks import on_mariadb

pytestmark = [pytest.mark.every_database, on_mariadb]

INSERT = (
    "INSERT INTO beatstore_entry (name, task, kind, spec) VALUES ('e', 't', 'cron', '0 3 * * *')"
)


def a_database(url: str, *refused: tuple[str, int]) -> Database:
    """Return a database whose server refuses statements in which a text stands."""
    database = Database(url)
    dialect: Any = database.engine.dialect
    execute = dialect.do_execute

    def do_execute(cursor: Any, statement: str, *rest: Any) -> None:
        for part, number in refused:
            if part in statement:
                raise pymysql.err.OperationalError(number, f"refused: {part}")
        execute(cursor, statement, *rest)

    dialect.do_execute = do_execute
    dialect.do_execute_no_params = do_execute
    return database


def test_an_insert_leaves_json_out(database_url: str) -> None:
    """There a trigger gives what an INSERT leaves out, and what it gives stays."""
    database = a_database(database_url, ("DEFAULT ('[]')", 1101))
    migrate.upgrade(database)
    migrate.check(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        connection.exec_driver_sql(
            "INSERT INTO beatstore_entry (name, task, kind, spec, args, options) "
            """VALUES ('f', 't', 'cron', '0 3 * * *', '[1]', '{"queue": "q"}')"""
        )
    store = Store(database_url)
    found = {entry.name: (entry.args, entry.kwargs, entry.options) for entry in store.entries()}
    assert found == {"e": ([], {}, {}), "f": ([1], {}, {"queue": "q"})}
    store.add("g", "t", Cron("0 3 * * *"), kwargs={"k": 1})
    assert store.get("g").kwargs == {"k": 1}
    store.close()
    migrate.downgrade(database)
    migrate.upgrade(database)
    database.dispose()


def test_a_server_that_refuses_the_trigger_too(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the trigger the log says what to write, and the API needs nothing."""
    refused = ("CREATE TRIGGER beatstore_entry_insert", 1419)
    database = a_database(database_url, ("DEFAULT ('[]')", 1101), refused)
    with caplog.at_level(logging.WARNING, logger="beatstore.migrate"):
        migrate.upgrade(database)
    assert "must give args, kwargs and options" in caplog.text
    store = Store(database_url)
    store.add("e", "t", Cron("0 3 * * *"))
    assert store.get("e").args == []
    store.close()
    database.dispose()


def test_it_goes_on_where_it_broke_off(database_url: str) -> None:
    """An upgrade that broke off before the trigger makes it the next time."""
    broken = a_database(
        database_url, ("DEFAULT ('[]')", 1101), ("CREATE TRIGGER beatstore_entry_insert", 1053)
    )
    with pytest.raises(sa.exc.OperationalError) as caught:
        migrate.upgrade(broken)
    assert unavailable(caught.value)
    broken.dispose()
    database = Database(database_url)
    migrate.upgrade(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(INSERT)
        assert connection.execute(sa.select(ENTRY.c.args)).scalar_one() == []
    database.dispose()


def test_other_refusals_are_raised(database_url: str) -> None:
    """What else the server refuses is an error as before, and no outage."""
    database = a_database(database_url, ("CREATE TABLE beatstore_entry", 1064))
    with pytest.raises(sa.exc.DBAPIError) as caught:
        migrate.upgrade(database)
    assert not unavailable(caught.value)
    database.dispose()
