"""What the tick asks of a database that holds far more rows than are due."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import event, insert, text
from sqlalchemy.engine import Connection

from beatstore import DBScheduler, Store
from beatstore.config import Settings
from beatstore.database.tables import ENTRY, RUN
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.queue import Queue
from tests.support.harness.inprocess import running
from tests.support.marks import on_postgresql, on_servers

pytestmark = pytest.mark.every_database

#: Rows of each table that no tick has any business with.
STORED = 20_000

TABLES = ("beatstore_entry", "beatstore_run")


# -- what was executed -------------------------------------------------------------------------


@dataclass(frozen=True)
class Executed:
    """A statement as the driver got it; of a batch, with the parameters of the first."""

    statement: str
    parameters: Any
    rows: int = 1


@contextmanager
def recorded(store: Store) -> Iterator[list[Executed]]:
    """Collect what is executed inside, apart from settings and the bounds of transactions."""
    found: list[Executed] = []

    def note(*said: Any) -> None:
        _, _, statement, parameters, _, many = said
        if statement.split(maxsplit=1)[0] in ("BEGIN", "COMMIT", "ROLLBACK", "SET"):
            return
        first = parameters[0] if many else parameters
        found.append(Executed(statement, first, len(parameters) if many else 1))

    event.listen(store.database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(store.database.engine, "before_cursor_execute", note)


# -- how the database would execute it ---------------------------------------------------------


@dataclass(frozen=True)
class Access:
    """One step of a query plan that reads a table: by an index, or all of it."""

    table: str
    index: str | None
    said: str


def explain(connection: Connection, executed: Executed, *, generic: bool = False) -> list[Access]:
    """Ask the database how it reads beatstore's tables for a statement."""
    name = connection.dialect.name
    if name == "sqlite":
        return _explain_sqlite(connection, executed)
    if name == "postgresql":
        plan = _explain_postgresql(connection, executed, generic=generic)
        return list(_accesses(plan["Plan"]))
    return _explain_mysql(connection, executed)


def _explain_sqlite(connection: Connection, executed: Executed) -> list[Access]:
    asked = f"EXPLAIN QUERY PLAN {executed.statement}"
    rows = connection.exec_driver_sql(asked, executed.parameters)
    found = []
    for row in rows:
        match = re.match(r"(SEARCH|SCAN) (\w+)(?: USING (?:COVERING )?(.*))?", row.detail)
        if match and match[2] in TABLES:
            found.append(Access(match[2], match[3] if match[1] == "SEARCH" else None, row.detail))
    return found


def _explain_postgresql(connection: Connection, executed: Executed, *, generic: bool) -> Any:
    if not generic:
        asked = f"EXPLAIN (FORMAT JSON) {executed.statement}"
        return connection.exec_driver_sql(asked, executed.parameters).scalar_one()[0]
    numbers = {name: number for number, name in enumerate(executed.parameters, 1)}
    statement = re.sub(r"%\((\w+)\)s", lambda match: f"${numbers[match[1]]}", executed.statement)
    # What a statement that is executed often ends up with: a plan made for any parameters.
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    connection.exec_driver_sql(f"PREPARE asked AS {statement}")
    anything = f"({', '.join(['NULL'] * len(numbers))})" if numbers else ""
    plan = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE asked{anything}")
    found = plan.scalar_one()[0]
    connection.exec_driver_sql("DEALLOCATE asked")
    return found


def _accesses(node: dict[str, Any]) -> Iterator[Access]:
    if node["Node Type"] == "Bitmap Heap Scan":
        (source,) = node["Plans"]
        yield Access(node["Relation Name"], source.get("Index Name"), str(node))
    elif node["Node Type"].endswith("Scan") and node.get("Relation Name") in TABLES:
        yield Access(node["Relation Name"], node.get("Index Name"), str(node))
    for part in node.get("Plans", ()):
        yield from _accesses(part)


def _explain_mysql(connection: Connection, executed: Executed) -> list[Access]:
    rows = connection.exec_driver_sql(f"EXPLAIN {executed.statement}", executed.parameters)
    return [
        Access(row.table, row.key if row.type != "ALL" else None, str(row))
        for row in rows
        if row.table in TABLES and row.select_type != "INSERT"
    ]


# -- the rows ----------------------------------------------------------------------------------


def entry_rows(prefix: str, wake_at: datetime, count: int) -> list[dict[str, Any]]:
    """Return rows of one-shots that are looked at from `wake_at` on, a second apart."""
    return [
        {
            "name": f"{prefix}-{number}",
            "task": "t",
            "kind": "once",
            "spec": wake_at.isoformat(),
            "wake_at": wake_at + timedelta(seconds=number),
        }
        for number in range(count)
    ]


def run_rows(
    state: str, wake_at: datetime | None, count: int, attempt: int
) -> list[dict[str, Any]]:
    """Return rows of runs of the first entries."""
    return [
        {
            "entry_id": number + 1,
            "entry_name": f"far-{number}",
            "due_at": datetime(2020, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=number),
            "attempt": attempt,
            "task_id": f"{state}-{number}",
            "state": state,
            "claimed_by": "another",
            "wake_at": wake_at,
        }
        for number in range(count)
    ]


@pytest.fixture
def full_store(store: Store, backend: str) -> Store:
    """Return a store with 20,000 entries and runs, of which 100 and 20 are due."""
    now = datetime.now(timezone.utc)
    past, far = now - timedelta(minutes=5), now + timedelta(days=30)
    if backend == "postgresql":
        # What other tests have left in this database would have the rows out of order.
        run(store, *(f"VACUUM FULL {table}" for table in TABLES))
    with store.database.engine.begin() as connection:
        connection.execute(insert(ENTRY), entry_rows("far", far, STORED))
        connection.execute(insert(RUN), run_rows("sent", None, STORED, attempt=1))
        connection.execute(insert(ENTRY), entry_rows("due", past, 100))
        connection.execute(insert(RUN), run_rows("claimed", past, 20, attempt=2))
    analyze = "ANALYZE TABLE" if backend == "mariadb" else "ANALYZE"
    run(store, *(f"{analyze} {table}" for table in TABLES))
    return store


def run(store: Store, *statements: str) -> None:
    """Execute what is no part of a transaction."""
    with store.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            connection.execute(text(statement))


def one_round(store: Store) -> dict[str, list[Executed]]:
    """Let a beat look, sweep, plan and mark; return what each of them executed."""
    queue = Queue(store.database, Settings(), "a-beat")
    found: dict[str, list[Executed]] = {}
    with recorded(store) as found["look"]:
        now = queue.look().now
    with recorded(store) as found["sweep"]:
        swept = queue.sweep(now).claims
    with recorded(store) as found["plan"]:
        planned, _ = queue.plan(now)
    outcomes = [outcome(number, claim) for number, claim in enumerate([*swept, *planned])]
    with recorded(store) as found["mark"]:
        queue.mark(outcomes)
    queue.close()
    assert (len(swept), len(planned)) == (20, 100)
    return found


def outcome(number: int, claim: Claim) -> Outcome:
    """Return what may become of a claim; most are sent."""
    state = {5: "failed", 6: "skipped", 7: "claimed"}.get(number, "sent")
    return Outcome(claim, state, None if state == "sent" else "why", 5.0)


# -- the tests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "generic"),
    [
        *(("sqlite", False), ("postgresql", False), ("mariadb", False)),
        pytest.param("postgresql", True, marks=pytest.mark.heavy),
    ],
    indirect=["backend"],
    ids=["sqlite", "postgresql", "mariadb", "postgresql, generic plans"],
)
def test_no_statement_of_a_tick_reads_rows_that_are_not_due(
    full_store: Store, generic: bool
) -> None:
    """Look, sweep, plan and mark find their rows by index among 20,000 others."""
    read: dict[str, set[str]] = {}
    for step, executed in one_round(full_store).items():
        for each in executed:
            with full_store.database.engine.begin() as connection:
                accesses = explain(connection, each, generic=generic)
            for access in accesses:
                assert access.index, f"{step} reads all of {access.table}: {access.said}\n{each}"
                read.setdefault(step, set()).add(f"{access.table} {access.index}")
    for step, table in (("look", "entry"), ("look", "run"), ("sweep", "run"), ("plan", "entry")):
        wanted = f"beatstore_{table}_wake_at"
        assert any(wanted in one for one in read[step]), f"{step} does not search {wanted}: {read}"
    assert read["mark"]


@on_postgresql
def test_a_batch_of_a_burst_is_read_alone(store: Store) -> None:
    """Of 5,000 rows that are due at once, a claim reads those that it takes: they may be a million.

    The server's statistics are older than the burst: they say that hardly any row is due.
    """
    now = datetime.now(timezone.utc)
    past, far = now - timedelta(hours=3), now + timedelta(days=30)
    for wake_at, prefix, count in ((far, "far", STORED), (past, "due", 20), (past, "burst", 5_000)):
        entries = entry_rows(prefix, wake_at, count)
        random.Random(1).shuffle(entries)
        attempt = {"far": 1, "due": 2, "burst": 3}[prefix]
        runs = run_rows("claimed", wake_at, count, attempt)
        for row, entry in zip(runs, entries, strict=True):
            row["wake_at"] = entry["wake_at"]
        with store.database.engine.begin() as connection:
            connection.execute(insert(ENTRY), entries)
            connection.execute(insert(RUN), runs)
        if prefix == "due":
            run(store, *(f"VACUUM ANALYZE {table}" for table in TABLES))
    queue = Queue(store.database, Settings(), "a-beat")
    with recorded(store) as claims:
        look = queue.look().now
        assert len(queue.sweep(look).claims) == queue.limit == queue.plan(look)[1]
    with recorded(store) as status:
        assert store.status().overdue == 1_000
    for executed, most in (claims, queue.limit), (status, 1_000):
        found = [rows for each in executed for rows in _read_by_wake_at(store, each)]
        assert max(found) == most, f"a batch of {most} rows: {found}"
    queue.close()


def _read_by_wake_at(store: Store, executed: Executed) -> list[int]:
    """Execute a statement again, and return how many rows each part read by `wake_at`."""
    with store.database.engine.connect() as connection:
        asked = f"EXPLAIN (ANALYZE, FORMAT JSON) {executed.statement}"
        found = connection.exec_driver_sql(asked, executed.parameters).scalar_one()
    steps, read = [found[0]["Plan"]], []
    while steps:
        step = steps.pop()
        steps += step.get("Plans", ())
        if "_wake_at" in step.get("Index Name", ""):
            read.append(step["Actual Rows"])
    return read


@pytest.fixture
def ticked(app: Celery) -> Iterator[DBScheduler]:
    """Return a beat by the database's own clock, which has ticked once."""
    app.conf.beatstore_listen = False
    with running(app) as scheduler:
        scheduler.tick()
        yield scheduler


def statements(ticked: DBScheduler) -> list[Executed]:
    """Return what one tick executes."""
    with recorded(ticked.store) as found:
        ticked.tick()
    return found


def test_an_idle_tick_is_one_statement(ticked: DBScheduler) -> None:
    """With nothing due, a tick asks one question and writes nothing."""
    far = datetime.now(timezone.utc) + timedelta(days=30)
    with ticked.store.database.engine.begin() as connection:
        connection.execute(insert(ENTRY), entry_rows("far", far, 50))
    (executed,) = statements(ticked)
    assert executed.statement.startswith("SELECT")


def test_a_batch_takes_as_many_statements_for_one_entry_as_for_a_hundred(
    ticked: DBScheduler,
) -> None:
    """What is planned, sent and marked together is written together."""
    past = datetime.now(timezone.utc) - timedelta(minutes=5)
    taken = []
    for count in (1, 10, 100):
        with ticked.store.database.engine.begin() as connection:
            connection.execute(insert(ENTRY), entry_rows(f"due-{count}", past, count))
        executed = statements(ticked)
        assert len(ticked.store.runs(limit=1000)) == sum(n for n in (1, 10, 100) if n <= count)
        taken.append(len(executed))
        # SQLite is in this process. Drivers of MySQL join the rows of an INSERT, but no others.
        alone = [one for one in executed if one.rows > 1 and "INSERT" not in one.statement]
        assert not alone or ticked.store.database.engine.dialect.name == "sqlite", alone
    assert taken[0] == taken[1] == taken[2] <= 8


@pytest.mark.parametrize(
    ("backend", "generic"),
    [
        *(("sqlite", False), ("postgresql", False), ("mariadb", False)),
        pytest.param("postgresql", True, marks=pytest.mark.heavy),
    ],
    indirect=["backend"],
    ids=["sqlite", "postgresql", "mariadb", "postgresql, generic plans"],
)
def test_few_entries_are_found_among_many(full_store: Store, generic: bool) -> None:
    """Entries that are broken, and the sources of code, are read by an index, however often."""
    full_store.add("of-code", "t", 60, source="code:a")
    with recorded(full_store) as executed:
        assert full_store.entries(state="broken") == []
        assert full_store.names(state="paused") == []
        full_store.sync_all({}, owned="code:", dry_run=True)
    seen = []
    for each in executed:
        if "state" in each.statement.partition("WHERE")[2] or "DISTINCT" in each.statement:
            with full_store.database.engine.begin() as connection:
                seen += explain(connection, each, generic=generic)
    indexes = [access.index or access.said for access in seen if access.table == TABLES[0]]
    assert len(indexes) >= 3
    for index in indexes[:2]:
        assert "beatstore_entry_state_name" in index
    assert any("beatstore_entry_source_name" in index for index in indexes[2:])


@pytest.mark.parametrize(
    ("backend", "generic"),
    [
        *(("sqlite", False), ("postgresql", False), ("mariadb", False)),
        pytest.param("postgresql", True, marks=pytest.mark.heavy),
    ],
    indirect=["backend"],
    ids=["sqlite", "postgresql", "mariadb", "postgresql, generic plans"],
)
def test_an_entry_is_found_by_its_name(full_store: Store, generic: bool) -> None:
    """A name without `*` is no pattern, which has to be compared with others, however often."""
    full_store.change("far-7", tags=["x"])
    with recorded(full_store) as executed:
        for chosen in ({}, {"state": "active"}, {"source": "api"}, {"tag": "x"}):
            assert full_store.names(name="far-7", **chosen) == ["far-7"]
            assert len(full_store.entries(name="far-7", **chosen)) == 1
    for each in executed:
        with full_store.database.engine.begin() as connection:
            seen = explain(connection, each, generic=generic)
        for access in seen:
            assert access.index, access
            # PostgreSQL names the index too where it reads all of it.
            assert "Node Type" not in access.said or "Index Cond" in access.said, access


@pytest.mark.every_database
@on_servers
def test_the_status_reads_no_entry_but_by_an_index(full_store: Store) -> None:
    """All entries are counted, in an index or in the table; whatever else is asked is found.

    SQLite keeps no figures of what a range holds, and takes one with a single bound for much.
    """
    with recorded(full_store) as executed:
        full_store.status()
        full_store.health()
    seen: list[Access] = []
    for each in executed:
        with full_store.database.engine.begin() as connection:
            seen += explain(connection, each)
    of_entries = [access for access in seen if access.table == TABLES[0]]
    assert len(of_entries) > 10
    whole = [one for one in of_entries if one.index is None]
    assert len(whole) <= 1, whole
