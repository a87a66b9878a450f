"""Rows that get values of their own by one statement: what is written is what was given."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import BigInteger, String, Text, select

from beatstore import Store
from beatstore.database.columns import Instant
from beatstore.database.dialects import UpdateEach, dialect_of
from beatstore.database.tables import ENTRY
from tests.support.harness.races import SELDOM
from tests.support.marks import on_servers

pytestmark = pytest.mark.every_database

COLUMNS: dict[str, Any] = {
    "b_id": BigInteger(),
    "wake_at": Instant(),
    "error": Text(),
    "state": String(20),
    "run_count": BigInteger(),
}

#: Instants to the microsecond, the largest number, and texts that documents have to quote.
VALUES: list[dict[str, Any]] = [
    {
        "wake_at": datetime(9999, 12, 31, 23, 59, 59, 999_999, timezone.utc),
        "error": 'it\'s "quoted" \\ `so` %s %(rows)s :rows {} \n\t\x01 é \N{PILE OF POO}',
        "state": "done",
        "run_count": 2**63 - 1,
    },
    {"wake_at": None, "error": None, "state": "paused", "run_count": 0},
    {
        "wake_at": datetime(1970, 1, 1, 0, 0, 0, 1, timezone.utc),
        "error": "",
        "state": "active",
        "run_count": -1,
    },
]


def update_of(store: Store) -> UpdateEach:
    dialect = store.database.engine.dialect
    return dialect_of(dialect).update_each(dialect, ENTRY, COLUMNS)


def written(store: Store, ids: list[int]) -> list[dict[str, Any]]:
    columns = [ENTRY.c[name] for name in COLUMNS if name != "b_id"]
    with store.database.session() as session:
        rows = session.execute(select(ENTRY.c.id, *columns)).mappings().all()
    found = {row["id"]: {name: row[name] for name in row if name != "id"} for row in rows}
    return [found[one] for one in ids]


def test_each_row_gets_its_own_values(store: Store) -> None:
    """Whatever the values are, and no other row is touched."""
    ids = [store.add(f"e{number}", "t", SELDOM).id for number in range(4)]
    (before,) = written(store, ids[3:])
    update = update_of(store)
    rows = [{"b_id": one, **values} for one, values in zip(ids, VALUES, strict=False)]
    with store.database.session() as session:
        session.execute(update.statement, update.parameters(rows))
    assert written(store, ids) == [*VALUES, before]


@on_servers
@pytest.mark.parametrize("count", [2, 3, 6, 40])
def test_rows_that_others_have_locked_are_not_waited_for(store: Store, count: int) -> None:
    """Only the rows that are written are locked, however few rows the table has."""
    ids = [store.add(f"e{number}", "t", SELDOM).id for number in range(count)]
    update = update_of(store)
    rows = [{"b_id": one, **VALUES[2]} for one in ids[::2]]
    with store.database.engine.begin() as other:
        # One by one: of several ids, MariaDB reads and locks all rows of a small table.
        for one in ids[1::2]:
            other.execute(select(ENTRY.c.id).where(ENTRY.c.id == one).with_for_update())
        with store.database.session() as session:
            session.execute(update.statement, update.parameters(rows))
    assert written(store, ids[::2]) == len(ids[::2]) * VALUES[2:]
