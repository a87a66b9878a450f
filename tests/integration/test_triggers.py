"""The triggers: an edit by plain SQL counts at the next tick, and never for the past."""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from beatstore.database import migrate
from beatstore.database.dialects import CHANNEL
from beatstore.database.engine import Database
from beatstore.models import EntryModel, RunModel
from beatstore.schedules.instants import EPOCH
from tests.support.marks import on_mariadb, on_postgresql

pytestmark = pytest.mark.every_database

CURSOR = datetime(2026, 1, 1, tzinfo=timezone.utc)
WAKE = datetime(2525, 11, 11, 9, 30, tzinfo=timezone.utc)


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """Yield a migrated database."""
    database = Database(migrated_url)
    yield database
    database.dispose()


@dataclass
class Edit:
    """What an UPDATE made of an entry's `wake_at` and `cursor_at`, and when it ran."""

    wake_at: datetime | None
    cursor_at: datetime | None
    since: datetime
    until: datetime

    @property
    def woken(self) -> bool:
        """Say whether a tick will look at the entry at once."""
        return self.wake_at == EPOCH

    @property
    def cursor(self) -> str:
        """Say where the cursor is: left, none or now."""
        if self.cursor_at is None:
            return "none"
        if self.cursor_at == CURSOR:
            return "left"
        # SQLite's clock has milliseconds.
        slack = timedelta(milliseconds=1)
        return "now" if self.since - slack <= self.cursor_at <= self.until else str(self.cursor_at)


def edit(database: Database, assignments: str, **columns: Any) -> Edit:
    """Store an entry with `columns`, and UPDATE it in plain SQL from another transaction."""
    row = {
        "name": "e",
        "task": "t",
        "kind": "cron",
        "spec": "0 0 * * *",
        "wake_at": WAKE,
        "cursor_at": CURSOR,
        **columns,
    }
    with Session(database.engine) as session, session.begin():
        # Not through the unit of work, which takes None for "the default".
        session.execute(sa.insert(EntryModel.__table__), [row, {**row, "name": "other"}])
    with Session(database.engine) as session, session.begin():
        since = database.now(session)
        done = session.connection().exec_driver_sql(
            f"UPDATE beatstore_entry SET {assignments} WHERE name = 'e'"
        )
        assert done.rowcount == 1
        until = database.now(session)
    with Session(database.engine) as session:
        after = {entry.name: entry for entry in session.scalars(sa.select(EntryModel))}
    assert (after["other"].wake_at, after["other"].cursor_at) == (row["wake_at"], row["cursor_at"])
    assert after["e"].version == 1
    return Edit(after["e"].wake_at, after["e"].cursor_at, since, until)


@pytest.mark.parametrize(
    ("assignments", "columns", "cursor"),
    [
        ("spec = '0 3 * * *'", {}, "now"),
        ("spec = '0 3 * * *'", {"cursor_at": None}, "now"),
        ("timezone = 'Europe/Berlin'", {}, "now"),
        ("timezone = NULL", {"timezone": "UTC"}, "now"),
        ("start_at = '2030-01-01 00:00:00.000000'", {}, "now"),
        ("kind = 'every', spec = '60'", {}, "now"),
        ("kind = 'once', spec = '2030-01-01T00:00:00Z'", {}, "none"),
        ("spec = '2030-01-01T00:00:00Z'", {"kind": "once", "state": "finished"}, "none"),
        ("spec = '2030-01-01', state = 'active'", {"kind": "once", "state": "missed"}, "none"),
        ("kind = 'cron', spec = '0 3 * * *'", {"kind": "once"}, "now"),
        ("end_at = '2030-01-01 00:00:00.000000'", {}, "left"),
        ("end_at = NULL", {"end_at": CURSOR}, "left"),
        ("max_runs = 3", {}, "left"),
        ("jitter_s = 0.5", {}, "left"),
        ("misfire = 'all'", {}, "left"),
        ("misfire = NULL", {"misfire": "skip"}, "left"),
        ("grace_s = 0.25", {}, "left"),
        ("overlap = 'wait'", {}, "left"),
    ],
)  # fmt: skip
def test_an_edited_rule_counts_at_the_next_tick(
    database: Database, assignments: str, columns: dict[str, Any], cursor: str
) -> None:
    """Editing what the rule reads wakes the entry; a new plan starts from now on."""
    result = edit(database, assignments, **columns)
    assert (result.woken, result.cursor) == (True, cursor)


@pytest.mark.parametrize(
    ("assignments", "columns", "cursor"),
    [
        ("state = 'active'", {"state": "paused"}, "now"),
        ("state = 'active'", {"state": "broken"}, "now"),
        ("state = 'active'", {"state": "paused", "kind": "once"}, "now"),
        ("state = 'active', max_runs = 9", {"state": "paused"}, "now"),
        ("state = 'paused'", {}, "left"),
    ],
)
def test_a_changed_state_counts_at_the_next_tick(
    database: Database, assignments: str, columns: dict[str, Any], cursor: str
) -> None:
    """Resuming by plain SQL doesn't run what was due in the pause; pausing keeps the cursor."""
    result = edit(database, assignments, **{"wake_at": None, **columns})
    assert (result.woken, result.cursor) == (True, cursor)


@pytest.mark.parametrize(
    "assignments",
    [
        "description = 'nightly', task = 'other', source = 'me', args = '[1]', kwargs = '{}'",
        "run_count = 7, success_seq = 7, last_run_at = '2026-01-01 00:00:00.000000'",
        "max_retries = 2, retry_delay_s = 1, error = 'x'",
        "spec = spec, kind = kind, state = state, misfire = misfire, grace_s = grace_s",
    ],
)
@pytest.mark.parametrize("wake_at", [WAKE, None])
def test_what_the_rule_does_not_read_leaves_the_entry_asleep(
    database: Database, assignments: str, wake_at: datetime | None
) -> None:
    """Updates of other columns, or to the same values, cause no look at the entry."""
    result = edit(database, assignments, wake_at=wake_at)
    assert (result.wake_at, result.cursor) == (wake_at, "left")


@pytest.mark.parametrize(
    ("assignments", "wake_at", "expected"),
    [
        ("state = 'finished', wake_at = NULL", WAKE, None),
        ("spec = '0 3 * * *', wake_at = NULL", WAKE, None),
        ("kind = 'once', state = 'active', wake_at = '{wake}'", None, WAKE),
    ],
)
def test_an_update_that_sets_wake_at_is_left_as_it_is(
    database: Database, assignments: str, wake_at: datetime | None, expected: datetime | None
) -> None:
    """Whoever sets `wake_at`, as beat and the API do, is taken at their word."""
    zone = "+00" if database.engine.dialect.name == "postgresql" else ""
    wake = f"{WAKE:%Y-%m-%d %H:%M:%S.%f}{zone}"
    result = edit(database, assignments.format(wake=wake), wake_at=wake_at)
    assert (result.wake_at, result.cursor) == (expected, "left")


@pytest.mark.parametrize("assignment", ["spec = '0 3 * * *'", "state = 'active'"])
def test_an_update_that_sets_the_cursor_keeps_it(database: Database, assignment: str) -> None:
    """An edit with a `cursor_at` of its own wakes the entry and keeps that cursor."""
    result = edit(
        database, f"{assignment}, cursor_at = '2020-05-05 00:00:00.000000'", state="paused"
    )
    assert result.woken
    assert result.cursor_at is not None
    assert result.cursor_at.year == 2020


def test_an_edit_of_many_rows_wakes_each(database: Database) -> None:
    """One UPDATE over many entries wakes those it changes, and no others."""
    with Session(database.engine) as session, session.begin():
        for n in range(20):
            spec = "0 3 * * *" if n % 2 else "0 0 * * *"
            session.add(EntryModel(name=f"{n:02d}", task="t", kind="cron", spec=spec, wake_at=WAKE))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE beatstore_entry SET spec = '0 3 * * *'")
    with Session(database.engine) as session:
        woken = session.scalars(
            sa.select(EntryModel.name).where(EntryModel.wake_at == EPOCH).order_by(EntryModel.name)
        )
        assert list(woken) == [f"{n:02d}" for n in range(0, 20, 2)]


# PostgreSQL


@pytest.fixture
def heard(database: Database) -> Iterator[Callable[[int], list[str]]]:
    """Listen, and yield what returns the payloads of that many notifications."""
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        yield lambda count: [
            notice.payload for notice in connection.notifies(timeout=30, stop_after=count)
        ]


@on_postgresql
def test_beats_own_update_calls_no_function(database: Database) -> None:
    """An UPDATE that sets `wake_at` costs a comparison, and not even a function call."""
    plan = "EXPLAIN (ANALYZE, FORMAT JSON) UPDATE beatstore_entry SET state = 'finished'"
    with Session(database.engine) as session, session.begin():
        session.add(EntryModel(name="e", task="t", kind="cron", spec="0 0 * * *", wake_at=WAKE))
        session.flush()
        connection = session.connection()
        [own] = connection.exec_driver_sql(f"{plan}, wake_at = NULL").scalar_one()
        [edited] = connection.exec_driver_sql(f"{plan}, max_runs = 1").scalar_one()
    assert [trigger["Trigger Name"] for trigger in own["Triggers"]] == []
    assert [trigger["Trigger Name"] for trigger in edited["Triggers"]] == ["beatstore_entry_edit"]


def _entry(number: int, wake_at: datetime | None) -> sa.Insert:
    values = {"name": f"e{number}", "task": "t", "kind": "cron", "spec": "", "wake_at": wake_at}
    return sa.insert(EntryModel).values(values)


def _run(number: int, wake_at: datetime | None) -> sa.Insert:
    values = {"entry_id": number, "entry_name": "e", "due_at": CURSOR, "wake_at": wake_at}
    return sa.insert(RunModel).values({**values, "task_id": "x", "state": "claimed"})


@on_postgresql
@pytest.mark.parametrize("make", [_entry, _run])
def test_only_rows_that_are_due_notify(
    database: Database,
    heard: Callable[[int], list[str]],
    make: Callable[[int, datetime | None], sa.Insert],
) -> None:
    """An insert that is due wakes a listening beat, once a commit; one due later does not."""
    number = itertools.count()
    for wake_ats in ([WAKE], [None], [EPOCH, EPOCH, WAKE]):
        with database.engine.begin() as connection:
            for wake_at in wake_ats:
                connection.execute(make(next(number), wake_at))
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"NOTIFY {CHANNEL}, 'committed'")
    assert heard(4) == ["committed", "committed", "", "committed"]


@on_postgresql
def test_an_edit_notifies(database: Database, heard: Callable[[int], list[str]]) -> None:
    """An edit by plain SQL wakes a listening beat; one that wakes no entry does not."""
    with database.engine.begin() as connection:
        connection.execute(_entry(1, WAKE))
    for update in ("description = 'quiet'", "wake_at = NULL", "spec = '0 3 * * *'"):
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE beatstore_entry SET {update}")
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"NOTIFY {CHANNEL}, 'committed'")
    assert heard(4) == ["committed", "committed", "", "committed"]


# A MySQL server that refuses


@on_mariadb
def test_a_server_that_refuses_triggers_is_migrated_without(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the right to make triggers, the tables are made and the log says what to write."""
    migrate.downgrade(database)
    user = f"u{uuid.uuid4().hex[:12]}"
    rights = "CREATE, DROP, INDEX, ALTER, REFERENCES, SELECT, INSERT, UPDATE, DELETE"
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {user}@'%%' IDENTIFIED BY 'pw'")
        connection.exec_driver_sql(f"GRANT {rights} ON {database.url.database}.* TO {user}@'%%'")
    humble = Database(database.url.set(username=user, password="pw"))
    try:
        with caplog.at_level(logging.WARNING, logger="beatstore.migrate"):
            migrate.upgrade(humble)
        migrate.check(humble)
        assert edit(humble, "spec = '0 3 * * *'").wake_at == WAKE
        migrate.downgrade(humble)
    finally:
        humble.dispose()
        with database.engine.connect() as connection:
            connection.exec_driver_sql(f"DROP USER {user}@'%%'")
    warnings = [record.getMessage() for record in caplog.records]
    assert all("refused to make a trigger" in warning for warning in warnings)
    [of_entries, of_edges] = warnings
    assert "wake_at = '1970-01-01' WHERE" in of_entries
    assert "blocked_by = NULL WHERE" in of_edges
