"""What psycopg refuses to read: its row is told of, and hides no other."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime, timezone

import pytest
from sqlalchemy import text

from beatstore import Store
from beatstore.database.columns import Unreadable
from beatstore.tick.queue import Queue
from tests.support.marks import on_postgresql, on_sqlite

pytestmark = pytest.mark.every_database

#: What is written, and how it is read.
BAD = {
    "end_at": {
        "infinity": "infinity",
        "-infinity": "-infinity",
        "4713-01-01 00:00:00+00 BC": "4713-01-01T00:00:00 BC",
        "294276-12-31 23:59:59+00": "294276-12-31T23:59:59",
    },
    "args": {"[" * 5000 + "]" * 5000: "[" * 5000 + "]" * 5000},
}


def held(value: str) -> str:
    """Return a value as it is shown: JSON that this Python can read as "…", any other as text."""
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return value
    return "…"


@on_postgresql
@pytest.mark.parametrize("column", BAD)
def test_a_value_without_end(store: Store, column: str) -> None:
    """An instant or a document that Python can't hold is read as such, among rows that are good."""
    store.add("good", "t", "0 2 * * *")
    for number, value in enumerate(BAD[column]):
        store.add(f"bad-{number}", "t", "0 2 * * *")
        with store.database.session() as session:
            edit = text(f"UPDATE beatstore_entry SET {column} = :v WHERE name = :n")
            session.execute(edit, {"v": value, "n": f"bad-{number}"})
    found = {entry.name: getattr(entry, column) for entry in store.entries()}
    assert not isinstance(found.pop("good"), (str, Unreadable))
    assert sorted(found.values()) == sorted(map(held, BAD[column].values()))
    assert [str(store.explain(name)) for name in found]


@on_sqlite
def test_a_date_alone_is_midnight_utc(store: Store) -> None:
    """Plain SQL on SQLite may write a date where an instant is meant; beat's look reads it too."""
    store.add("a", "t", "0 2 * * *")
    with store.database.session() as session:
        session.execute(
            text("UPDATE beatstore_entry SET end_at = '2100-01-31', wake_at = '1970-01-01'")
        )
    assert store.get("a").end_at == datetime(2100, 1, 31, tzinfo=timezone.utc)
    with closing(Queue(store.database, store.settings, "b")) as queue:
        assert queue.look().is_entry_due


@on_sqlite
def test_an_offset_in_a_column_of_utc_is_unreadable(store: Store) -> None:
    """An instant with an offset would be compared wrong by SQLite, so it is told of."""
    store.add("a", "t", "0 2 * * *")
    with store.database.session() as session:
        session.execute(text("UPDATE beatstore_entry SET end_at = '2100-01-31 00:00:00+02:00'"))
    found = store.get("a").end_at
    assert isinstance(found, Unreadable)
    assert "offset" in found.reason
