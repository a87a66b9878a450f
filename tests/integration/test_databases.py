"""The databases that tests are given: new, alone, and as the migrations left them."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, inspect, text

from tests.support.databases import DatabaseServer

pytestmark = pytest.mark.every_database

ROW = "INSERT INTO beatstore_audit (actor, action, entry) VALUES ('a', 'b', 'c')"


def run(url: str, *statements: str) -> list[object]:
    engine = create_engine(url)
    with engine.begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        found = [result.scalar() if result.returns_rows else None for result in results]
    engine.dispose()
    return found


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = set(inspect(connection).get_table_names())
    engine.dispose()
    return found


def test_an_empty_database_is_empty(database_url: str) -> None:
    """`database_url` has no tables, and can be written to."""
    assert not tables(database_url)
    run(database_url, "CREATE TABLE mine (n int)")
    assert tables(database_url) == {"mine"}


def test_a_used_database_comes_back_as_new(database_server: DatabaseServer) -> None:
    """After a test that left rows and an open transaction, the next one starts from id 1."""
    url = database_server.create_migrated()
    assert run(url, ROW, "SELECT max(id) FROM beatstore_audit")[1] == 1
    engine = create_engine(url)
    left_open = engine.connect()
    left_open.execute(text(ROW))
    database_server.drop(url)
    left_open.invalidate()
    engine.dispose()

    again = database_server.create_migrated()
    assert run(again, "SELECT count(*) FROM beatstore_audit") == [0]
    assert run(again, "SELECT count(*) FROM beatstore_version") == [1]
    assert run(again, ROW, "SELECT max(id) FROM beatstore_audit")[1] == 1
    database_server.drop(again)


def test_a_changed_database_is_not_used_again(database_server: DatabaseServer) -> None:
    """A test may alter tables: the next one gets those of the migrations all the same."""
    for change in (
        "CREATE TABLE mine (n int)",
        "DROP TABLE beatstore_tag",
        "ALTER TABLE beatstore_audit ADD COLUMN extra int",
    ):
        url = database_server.create_migrated()
        expected = tables(url)
        run(url, change)
        database_server.drop(url)
        again = database_server.create_migrated()
        assert tables(again) == expected
        assert run(again, ROW, "SELECT count(*) FROM beatstore_audit")[1] == 1
        database_server.drop(again)


def test_triggers_are_copied(migrated_url: str) -> None:
    """A copied database has the triggers that the migrations made."""
    sources = {
        "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal",
        "mysql": "SELECT count(*) FROM information_schema.triggers"
        " WHERE trigger_schema = DATABASE()",
    }
    [count] = run(migrated_url, sources[migrated_url.partition(":")[0].partition("+")[0]])
    assert count
