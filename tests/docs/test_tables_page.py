"""docs/tables.md has the columns that there are, and its SQL does what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import types
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.schema import Column

from beatstore import ManualClock
from beatstore.database.models import Base
from tests.support.harness.play import Play
from tests.support.pages import ROOT, blocks, rows

PAGE = "docs/tables.md"
HEADER = "| column | type | by | meaning |"

#: The page's words for types, by what SQLAlchemy makes of them.
WORDS: dict[type[types.TypeEngine[object]], str] = {
    types.Text: "text",
    types.String: "name",
    types.JSON: "json",
    types.BigInteger: "bigint",
    types.Integer: "int",
    types.Float: "float",
    types.Boolean: "bool",
    types.DateTime: "instant",
}

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


def word(column: Column[object]) -> str:
    """Return what the page calls the type of a column."""
    kind = column.type.impl_instance if hasattr(column.type, "impl_instance") else column.type
    found = next(word for base, word in WORDS.items() if isinstance(kind, base))
    return f"{found}?" if column.nullable else found


def listed() -> dict[str, list[list[str]]]:
    """Return the rows of the page's tables, by the names of tables."""
    return {
        table: rows(PAGE, f"## {table}\n{text}{HEADER}")
        for table, text in re.findall(
            rf"^## (beatstore_\w+)\n(.*?){re.escape(HEADER)}", page(), re.M | re.S
        )
    }


def page() -> str:
    """Return the page."""
    return (ROOT / PAGE).read_text()


def test_every_column_is_on_the_page() -> None:
    """The page has each table and column, in their order, with its type, and no other."""
    found = {
        table: [(row[0].strip("`"), row[1]) for row in columns]
        for table, columns in listed().items()
    }
    there = {
        table.name: [(column.name, word(column)) for column in table.columns]
        for table in Base.metadata.tables.values()
    }
    assert found == there


def test_each_column_says_who_writes_it() -> None:
    """Each row names its writers by the page's words, and says what the column means."""
    words = {row[0] for row in rows(PAGE, "| by | |")}
    for columns in listed().values():
        for name, _, by, meaning in columns:
            assert meaning, name
            assert set(filter(None, by.split(", "))) <= words, name


def test_the_types_are_those_of_the_databases() -> None:
    """The table of types names what each database makes of a column."""
    dialects = (postgresql.dialect(), mysql.dialect(), sqlite.dialect())
    kinds = {row[0].strip("`"): row[1:] for row in rows(PAGE, TYPES)}
    assert set(kinds) == set(WORDS.values())
    for table in Base.metadata.tables.values():
        for column in table.columns:
            told = kinds[word(column).rstrip("?")]
            for dialect, cell in zip(dialects, told, strict=True):
                made = column.type.compile(dialect)
                assert f"`{short(made)}" in cell, (column, dialect.name, made)


TYPES = "| type | PostgreSQL | MySQL, MariaDB | SQLite |"


def short(made: str) -> str:
    """Leave out how long a text may be, and its collation."""
    return re.sub(r"(?<=VARCHAR)\((?!26\)).*", "", made)


# -- the SQL --------------------------------------------------------------------------------


@pytest.fixture
def play(migrated_url: str) -> Iterator[Play]:
    """Return a store, and a beat without a broker, by the time of day: that of the triggers."""
    play = Play(migrated_url, ManualClock(datetime.now(timezone.utc)))
    yield play
    play.close()


def execute(play: Play, heading: str, *, number: int = 0) -> None:
    """Run a block of a section: the one that is for this database, or for all."""
    name = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "mysql": "MySQL"}[
        play.store.database.engine.dialect.name
    ]
    section = re.split(rf"^### {heading}$", page(), flags=re.M)[1]
    found = re.findall(
        r"^```sql\n(.*?)^```$", re.split(r"^##", section, flags=re.M)[0], re.M | re.S
    )
    fit = [one for one in found if not one.startswith("-- ") or name in one.partition("\n")[0]]
    with play.store.database.engine.begin() as connection:
        driver = connection.execution_options(no_parameters=True)
        for statement in filter(str.strip, fit[number].split(";")):
            driver.exec_driver_sql(statement)


@pytest.mark.every_database
def test_entries_are_added(play: Play) -> None:
    """The INSERTs make a cron entry, which is planned, and a one-shot, which is sent."""
    execute(play, "Add a cron entry")
    execute(play, "Add a one-shot")
    assert play.tick() == ["remind-7"]
    assert play.held["remind-7"][0].kwargs == {"user": 7}
    report = play.store.get("report")
    assert report.args == ["Berlin"]
    assert report.next_due_at == play.store.preview("report", 1)[0] > play.clock.now()
    play.clock.set(report.next_due_at)
    assert play.tick() == ["report"]


@pytest.mark.every_database
def test_a_schedule_is_changed(play: Play) -> None:
    """The UPDATE counts at the next tick, and nothing is made up for."""
    execute(play, "Add a cron entry")
    play.tick()
    changed_at = datetime.now(timezone.utc)
    execute(play, "Change a schedule")
    play.clock.set(datetime.now(timezone.utc))
    play.tick()  # nothing is due, unless this is the very moment
    assert all(run.due_at >= changed_at - SECOND for run in play.store.runs("report"))
    due_at = play.store.get("report").next_due_at
    assert play.clock.now() < due_at <= play.clock.now() + 10 * MINUTE
    play.clock.set(due_at)
    assert play.tick() == ["report"]


@pytest.mark.every_database
def test_an_entry_is_paused_and_resumed(play: Play) -> None:
    """A paused entry sends nothing; a resumed one goes on with what is due from then on."""
    play.store.add("report", "t", 600)
    execute(play, "Pause and resume")
    play.clock.advance(3600)
    assert play.tick() == []
    assert (play.store.get("report").state, play.store.get("report").wake_at) == ("paused", None)
    execute(play, "Pause and resume", number=1)
    play.clock.set(datetime.now(timezone.utc))
    assert play.tick() == []
    assert play.store.get("report").state == "active"
    play.clock.advance(700)
    assert play.tick() == ["report"]
    assert play.last("report").missed_count == 0


@pytest.mark.every_database
def test_an_entry_is_run_now(play: Play) -> None:
    """The run that is inserted is sent at the next tick, beside the schedule, and reported."""
    play.store.add("report", "t", DAY)
    play.tick()
    before = play.store.get("report").next_due_at
    play.store.pause("report")
    execute(play, "Run it now")
    # The row has the time of the database, which a slow machine has gone past by seconds.
    play.clock.set(datetime.now(timezone.utc) + timedelta(seconds=1))
    assert play.tick() == ["report"]
    assert play.end("report") == []
    assert (play.last("report").state, play.last("report").reason) == ("succeeded", "triggered")
    play.store.resume("report")
    assert play.tick() == []
    assert play.store.get("report").next_due_at == before


@pytest.mark.every_database
def test_a_dependency_is_added(play: Play) -> None:
    """The edge that is inserted counts: the downstream runs when the upstream has succeeded."""
    play.store.add("report", "t", 600)
    for number in range(2):
        execute(play, "Add a dependency", number=number)
    assert play.tick() == []
    assert play.store.get("load").pending_reason == "waits for 'report' to succeed"
    play.clock.advance(700)
    assert play.tick() == ["report"]
    assert play.end("report") == ["load"]


@pytest.mark.every_database
def test_a_success_before_the_edge_counts(play: Play) -> None:
    """It sets a new downstream free, unless `consumed_seq` says that it is used up."""
    play.store.add("report", "t", 600)
    for number in range(2):
        execute(play, "Add a dependency", number=number)
    play.store.unlink("load", "report")
    play.clock.advance(700)
    assert play.tick() == ["report"]
    assert play.end("report") == []
    execute(play, "Add a dependency", number=1)
    assert play.tick() == ["load"]
    play.store.unlink("load", "report")
    execute(play, "Add a dependency", number=1)
    with play.store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE beatstore_dependency SET consumed_seq = 1")
    assert play.tick() == []


def test_the_mapped_class_is_planned_too(play: Play) -> None:
    """The page's Python adds an entry, which beat plans."""
    [block] = [one for one in blocks(PAGE, "From Python") if one.language == "python"]
    exec(compile(block.text, PAGE, "exec"), {"engine": play.store.database.engine})
    assert play.tick() == []
    assert play.store.get("nightly").next_due_at is not None


def test_each_table_names_its_class() -> None:
    """The page says of each table by which class of `beatstore.models` it is mapped."""
    named = {row[0].strip("`"): row[1].strip("`") for row in rows(PAGE, "| table | class |")}
    assert named == {
        mapper.local_table.name: mapper.class_.__name__ for mapper in Base.registry.mappers
    }
