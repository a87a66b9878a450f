"""Rows of other schedulers that can't be carried, and tables that can't be read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from beatstore import ConfigError, SchemaError, Store
from beatstore.database.dialects import dialect_of
from beatstore.moving.importer import move
from beatstore.moving.schedulers import SCHEDULERS, How, read
from beatstore.schedules import Every
from tests.support.harness.base import entry_states
from tests.support.marks import on_postgresql, on_sqlite
from tests.support.theirs import (
    ALCHEMY,
    DJANGO,
    HOUR,
    NOW,
    Theirs,
    both,
    clocked,
    cron,
    every,
    moved,
)

pytestmark = [pytest.mark.quick_on("sqlite"), pytest.mark.by_turns("package")]


@both
@on_sqlite
def test_bad_rows_are_refused_with_the_reason(theirs: Theirs, at_noon: Store) -> None:
    """What can't be carried is refused, keeps its entry here, and holds up no other row."""
    broken = {
        "args": "[1,",
        "kwargs": "[1]",
        "headers": '"text"',
        "priority": "'-1'",
        "expires": "'tomorrow'",
    }
    theirs.write(*(cron(f"bad-{column}") for column in broken), cron("good"))
    moved(at_noon, theirs)
    for column, value in broken.items():
        quoted = value if value.startswith("'") else f"'{value}'"
        theirs.sql(
            "PRAGMA ignore_check_constraints = ON",
            f"UPDATE {theirs.tasks} SET task = 'proj.x', {column} = {quoted}"
            f" WHERE name = 'bad-{column}'",
        )
    theirs.sql(f"UPDATE {theirs.tasks} SET task = 'proj.y' WHERE name = 'good'")
    report = moved(at_noon, theirs).report
    assert report.updated == ("good",)
    assert report.deactivated == ()
    assert sorted(report.refused) == sorted(f"bad-{column}" for column in broken)
    for column in broken:
        assert column in report.refused[f"bad-{column}"]
        assert at_noon.get(f"bad-{column}").task == f"proj.bad-{column}"


@both
@on_sqlite
def test_bad_schedules_are_refused_with_the_reason(theirs: Theirs, at_noon: Store) -> None:
    """A schedule that is gone, unreadable or never due is refused, and named."""
    tables = SCHEDULERS[theirs.package].tables
    theirs.write(
        cron("text", "1"),
        cron("never", "2"),
        cron("zone", "3"),
        cron("gone", "4"),
        every("period", 5, "minutes"),
        every("zero", 6, "minutes"),
        every("short", 7, "microseconds"),
        cron("good", "8"),
    )
    theirs.sql(
        "PRAGMA foreign_keys = OFF",
        "PRAGMA ignore_check_constraints = ON",
        f"UPDATE {tables['crontab']} SET hour = 'noon' WHERE minute = '1'",
        f"UPDATE {tables['crontab']} SET day_of_month = '31', month_of_year = '2'"
        " WHERE minute = '2'",
        f"UPDATE {tables['crontab']} SET timezone = 'Mars/Base' WHERE minute = '3'",
        f"DELETE FROM {tables['crontab']} WHERE minute = '4'",
        f"UPDATE {tables['interval']} SET period = 'moons' WHERE every = 5",
        f"UPDATE {tables['interval']} SET every = 0 WHERE every = 6",
    )
    report = moved(at_noon, theirs).report
    assert report.created == ("good",)
    expected = {
        **{"text": "noon", "never": "31", "zone": "Mars/Base", "period": "moons"},
        **{"gone": f"an id that {tables['crontab']} has", "zero": "every", "short": "0.1"},
    }
    assert report.refused.keys() == expected.keys()
    for name, words in expected.items():
        assert words in report.refused[name], report.refused[name]


@both
@on_sqlite
def test_zones_of_instants_and_crontabs_can_be_named(theirs: Theirs, at_noon: Store) -> None:
    """Instants that the tables keep without a zone, and crontabs, are read in the one given."""
    theirs.write(clocked("once", NOW + HOUR), cron("nine", timezone="UTC"))
    moved(at_noon, theirs, timezone="America/New_York", crontab_timezone="Asia/Kolkata")
    once, nine = at_noon.get("once"), at_noon.get("nine")
    assert once.next_due_at == NOW + 6 * HOUR
    assert (nine.timezone, nine.next_due_at.hour, nine.next_due_at.minute) == (
        *("Asia/Kolkata", 3),
        30,
    )


@both
def test_nothing_is_written_where_it_is_read(
    theirs: Theirs, at_noon: Store, tmp_path: Path
) -> None:
    """Their tables are read in a transaction that can't write."""
    theirs.write(cron("one"))
    engine = create_engine(theirs.url, poolclass=NullPool)
    deletion = text(f"DELETE FROM {theirs.tasks}")
    refused = pytest.raises(DBAPIError, match=r"(?i)read.?only")
    reading = dialect_of(engine.dialect).begin_reading
    with engine.connect() as connection, refused, reading(connection):
        connection.execute(deletion)
    assert theirs.sql(f"SELECT name FROM {theirs.tasks}")[0] == ("one",)
    # And whoever uses the connection next may write again.
    moved(at_noon, theirs)
    assert entry_states(at_noon) == {"one": "active"}


@both
@on_sqlite
def test_their_file_is_left_as_it_is(package: str, database_url: str, migrated_url: str) -> None:
    """Not a byte of their SQLite file changes, and no file appears beside it."""
    theirs = Theirs(package, database_url)
    theirs.write(cron("one"))
    file = Path(database_url.partition("///")[2])
    before = hashlib.sha256(file.read_bytes()).digest()
    store = Store(migrated_url)
    assert move(store, package, url=database_url).report.created == ("one",)
    store.close()
    assert hashlib.sha256(file.read_bytes()).digest() == before
    assert [path.name for path in file.parent.glob(f"{file.name}*")] == [file.name]


@pytest.mark.parametrize("package", [ALCHEMY])
@on_postgresql
def test_their_tables_may_have_a_schema(theirs: Theirs, at_noon: Store) -> None:
    """Tables in a schema are found there, and named when they are looked for elsewhere."""
    theirs.write(cron("one"), schema="theirs")
    with pytest.raises(SchemaError, match="schema 'theirs' has one"):
        moved(at_noon, theirs)
    report = move(at_noon, ALCHEMY, schema="theirs")
    assert report.report.created == ("one",)


@both
def test_tables_that_are_not_there_are_named(package: str, at_noon: Store) -> None:
    """What was looked for, and where, is said; and no password with it."""
    with pytest.raises(SchemaError) as refused:
        move(at_noon, package)
    assert SCHEDULERS[package].tables["tasks"] in str(refused.value)
    assert at_noon.url in str(refused.value)


@on_sqlite
def test_a_place_that_can_not_be_is_refused(at_noon: Store, tmp_path: Path) -> None:
    """No file is made of a mistyped name, and an unknown package is named with those known."""
    missing = tmp_path / "nothing.db"
    with pytest.raises(ConfigError, match="that exists"):
        move(at_noon, DJANGO, url=f"sqlite:///{missing}")
    assert not missing.exists()
    with pytest.raises(ConfigError, match="django-celery-beat or sqlalchemy-celery-beat"):
        move(at_noon, "redbeat")


def test_older_tables_are_read_too() -> None:
    """A column or table that an older version has not is as if it were at its default."""
    tables: dict[str, list[dict[str, Any]]] = {
        "tasks": [
            {"id": 1, "name": "one", "task": "t", "crontab_id": 3, "interval_id": None},
            {"id": 2, "name": "two", "task": "t", "interval_id": 4, "crontab_id": 3},
            {"id": 3, "name": "three", "task": "t", "clocked_id": 1},
            {"id": 4, "name": "four", "task": "t"},
        ],
        "crontab": [{"id": 3, "minute": "5", "hour": "*"}],
        "interval": [{"id": 4, "every": 2, "period": "hours"}],
        "solar": [],
        "clocked": [],
    }
    found = read(DJANGO, tables, NOW, How(), lambda name: None)
    one, two = found.entries
    assert (one.schedule.spec, one.schedule.timezone, one.paused) == ("5 * * * *", None, False)
    assert two.schedule == Every(7200)
    assert [(note.name, note.instead) for note in found.notes] == [
        ("two", "interval, which its scheduler uses")
    ]
    assert found.refused.keys() == {"three", "four"}
