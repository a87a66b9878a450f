"""Every column that somebody may write by plain SQL, with whatever its database takes.

Some rows are spoiled in one column; a real beat ticks over them, and over a good entry beside
them, now and minutes later. `BEATSTORE_TEST_EXAMPLES=10000` tries so many values of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.brokers import Broker
from tests.support.hostile import examples
from tests.support.spoiled import NOON, TABLES, Spoiled, values

pytestmark = pytest.mark.quick_on("sqlite")

ENTRY, RUN = "beatstore_entry", "beatstore_run"

#: Ids that no database gives by itself: of two good entries, and of the first spoiled one.
UP, DOWN, FIRST = 90_001, 90_002, 100_000

#: So many rows are spoiled at once.
ROWS = 20


def before(**span: float) -> str:
    """Return an instant before noon as plain SQL gives it."""
    return str((NOON - timedelta(**span)).replace(tzinfo=None))


MADE = {"created_at": before(minutes=9)}

#: Rows that are good until one of their columns is spoiled.
ENTRIES: tuple[dict[str, Any], ...] = (
    {"kind": "every", "spec": "60"},
    {"kind": "every", "spec": "60", "misfire": "all", "grace_s": 1, "jitter_s": 5},
    {"kind": "cron", "spec": "*/10 * * * *", "timezone": "Europe/Berlin", "misfire": "skip"},
    {"kind": "once", "spec": "2026-01-15T11:00:00+00:00", "run_timeout_s": 5, "max_retries": 1},
    {"kind": "rrule", "spec": "FREQ=MINUTELY;INTERVAL=5", "max_runs": 3},
    {"kind": "solar", "spec": "solar_noon 52.5 13.4", "start_at": before(days=2)},
    {"kind": "every", "spec": "60", "overlap": "wait", "cursor_at": before(minutes=5)},
    {"kind": "after", "spec": ""},
)

RUNS: tuple[dict[str, Any], ...] = (
    {"state": "claimed", "reason": "triggered"},
    {"state": "sent", "sent_at": before(minutes=9)},
    {"state": "started", "started_at": before(minutes=9), "worker": "w", "claimed_by": "suspected"},
    {"state": "started", "started_at": before(minutes=9), "worker": "w"},
    {"state": "failed", "attempt": 1, "error": "no"},
    {"state": "skipped"},
    {"state": "cancelled", "attempt": 2},
)

CASES = [
    (table.name, column.name)
    for table in TABLES.values()
    for column in table.columns
    if (table.name, column.name) not in {(ENTRY, "id"), (RUN, "id")}
]

Row = dict[str, Any]


@pytest.fixture
def world(migrated_url: str, memory_broker: Broker) -> Iterator[Spoiled]:
    """Return a database, and a beat over it."""
    with Spoiled(migrated_url, memory_broker) as world:
        yield world


def an_entry(number: int, like: int) -> Row:
    """Return a good entry."""
    return {"name": f"e{number}", "task": "tests.note", **MADE, **ENTRIES[like % len(ENTRIES)]}


def entries(_: str, number: int, like: int, column: str, value: Any) -> Iterator[tuple[str, Row]]:
    """Yield an entry that is spoiled, with what its kind needs beside it."""
    row = {"id": FIRST + number, **an_entry(number, like)}
    if column == "spec":
        row["kind"] = ("once", "cron", "every", "rrule", "solar")[like % 5]
    yield ENTRY, {**row, column: value}
    if row["kind"] == "after" or like % 3 == 0:
        yield "beatstore_dependency", {"downstream_id": FIRST + number, "upstream_id": UP}
    if row.get("overlap"):
        open_run = {"entry_name": row["name"], "due_at": before(minutes=7), "task_id": f"o{number}"}
        yield RUN, {"entry_id": FIRST + number, "state": "sent", **open_run}


def runs(_: str, number: int, like: int, column: str, value: Any) -> Iterator[tuple[str, Row]]:
    """Yield a run that is spoiled, of an entry that others wait for."""
    yield ENTRY, {"id": FIRST + number, **an_entry(number, like)}
    edge = {"downstream_id": DOWN, "upstream_id": FIRST + number}
    yield "beatstore_dependency", {**edge, "align": "same" if like % 2 else "latest"}
    row = {
        **{"entry_id": FIRST + number, "entry_name": f"e{number}", "task_id": f"t{number}"},
        **{"due_at": before(minutes=10), "wake_at": before(minutes=1)},
        **RUNS[like % len(RUNS)],
    }
    yield RUN, {**row, column: value}


def edges(_: str, number: int, like: int, column: str, value: Any) -> Iterator[tuple[str, Row]]:
    """Yield an edge that is spoiled, between entries that are good; the upstream has run."""
    yield ENTRY, {"id": FIRST + number, **an_entry(number, like), "success_seq": 1, "done_seq": 2}
    yield ENTRY, {"id": 2 * FIRST + number, **an_entry(FIRST + number, like // 8)}
    edge = {
        **{"downstream_id": 2 * FIRST + number, "upstream_id": FIRST + number},
        **{"on": ("success", "done", "failure")[like % 3]},
        **{"align": "same" if like % 2 else "latest"},
        **{"on_upstream_failure": "skip" if like % 5 else "wait", "timeout_s": 5},
    }
    yield "beatstore_dependency", {**edge, column: value}


def others(
    table: str, number: int, like: int, column: str, value: Any
) -> Iterator[tuple[str, Row]]:
    """Yield a row that is spoiled of a table that has no other maker."""
    yield ENTRY, {"id": FIRST + number, **an_entry(number, like)}
    if table in ("beatstore_token", "beatstore_wait"):
        edge = {"downstream_id": FIRST + number, "upstream_id": UP, "align": "same"}
        yield "beatstore_dependency", edge
    shared = {"downstream_id": FIRST + number, "due_at": before(minutes=7)}
    row: Row = {
        "beatstore_tag": {"entry_id": FIRST + number, "tag": "a"},
        "beatstore_audit": {"actor": "a", "action": "pause", "entry": f"e{number}"},
        "beatstore_beat": {
            "id": f"b{number}",
            "host": "h",
            "pid": 1,
            "version": "1",
            "tzdata": "x",
        },
        "beatstore_worker": {"id": f"w{number}", "name": "w", "pid": 1, "version": "1"},
        "beatstore_token": {**shared, "upstream_id": UP, "outcome": "success"},
        "beatstore_wait": {**shared, "state": ("look", "waits", "met", "taken")[like % 4]},
    }[table]
    yield table, {**row, column: value}


MAKE: dict[str, Callable[..., Iterator[tuple[str, Row]]]] = {
    ENTRY: entries,
    RUN: runs,
    "beatstore_dependency": edges,
}


def spoil(world: Spoiled, number: int, case: tuple[str, str], like: int, value: Any) -> Any:
    """Write rows of which one is spoiled; return the name by which to ask for its entry."""
    table, column = case
    for where, row in MAKE.get(table, others)(table, number, like, column, value):
        world.write(where, row)
    return value if column in ("name", "entry_name", "entry") else f"e{number}"


def begin(world: Spoiled) -> None:
    """Make the tables what they were, with two entries that are good."""
    world.clear()
    assert world.write(ENTRY, {**an_entry(UP, 0), "id": UP})
    assert world.write(ENTRY, {**an_entry(DOWN, 7), "id": DOWN})


def test_any_column(world: Spoiled, backend: str) -> None:
    """Whatever stands in some columns: no tick fails, and what is good is sent on time."""
    of_case = {case: values(backend, TABLES[case[0]].c[case[1]]) for case in CASES}
    row = st.sampled_from(CASES).flatmap(
        lambda case: st.tuples(st.just(case), st.integers(0, 55), of_case[case])
    )

    @examples(12 if backend == "sqlite" else 4)
    @given(st.lists(row, min_size=1, max_size=ROWS))
    def try_it(spoiled: list[tuple[tuple[str, str], int, Any]]) -> None:
        begin(world)
        names = [spoil(world, number, *one) for number, one in enumerate(spoiled)]
        world.live()
        world.ask(names)

    try_it()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("table", "column"), CASES)
def test_a_column(world: Spoiled, backend: str, table: str, column: str) -> None:
    """The same for each column, a few of its values at a time."""
    value = values(backend, TABLES[table].c[column])

    @examples(200, each=ROWS)
    @given(st.lists(st.tuples(st.integers(0, 55), value), min_size=ROWS, max_size=ROWS))
    def try_it(spoiled: list[tuple[int, Any]]) -> None:
        begin(world)
        names = [spoil(world, number, (table, column), *one) for number, one in enumerate(spoiled)]
        world.live()
        world.ask(names)

    try_it()
