"""Rows written as they are, for tests of what is read from them."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import insert, text, update

from beatstore import Entry, Run, Store
from beatstore.models import EntryModel

__all__ = ["DAY", "HOUR", "MINUTE", "NOON", "UTC", "alter", "due", "run", "sql", "write"]

UTC = timezone.utc

#: Where the manual clock of the tests stands.
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def write(store: Store, table: type[Any], *rows: dict[str, Any]) -> None:
    """Insert rows as they are."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    with store.database.engine.begin() as connection:
        for group in groups.values():  # of the columns of one statement, each row has all
            connection.execute(insert(table), group)


def alter(store: Store, name: str, **columns: Any) -> None:
    """Set columns of an entry, past the API; the `wake_at` given is the one that stays."""
    with store.database.engine.begin() as connection:
        statement = update(EntryModel).where(EntryModel.name == name).values(**columns)
        connection.execute(statement.execution_options(synchronize_session=False))


def run(entry: Entry | int, due_at: datetime, **columns: Any) -> dict[str, Any]:
    """Return the columns of a run that was sent."""
    entry_id, name = (entry, "gone") if isinstance(entry, int) else (entry.id, entry.name)
    sent: dict[str, Any] = {"state": "sent", "task_id": str(uuid.uuid4()), "attempt": 1}
    return {"entry_id": entry_id, "entry_name": name, "due_at": due_at, **sent, **columns}


def due(runs: list[Run]) -> list[int]:
    """Return the due times of runs, in minutes after noon."""
    return [round((run.due_at - NOON).total_seconds() / 60) for run in runs]


def sql(store: Store, statement: str, **values: Any) -> None:
    """Execute plain SQL, as somebody with a database client would."""
    with store.database.engine.begin() as connection:
        connection.execute(text(statement), values)
