"""What waits for a beat: how many rows, since when, and whose the oldest is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, literal, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Instant
from beatstore.database.functions import is_instant
from beatstore.database.tables import ENTRY, RUN
from beatstore.database.together import Question
from beatstore.schedules.instants import EPOCH
from beatstore.store.conditions import NEW, overdue, overdue_entry

__all__ = ["LIMIT", "Overdue", "entries_overdue", "runs_overdue"]

#: The most rows that are counted.
LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Overdue:
    """How many rows wait for a beat, capped, and the one that has waited the longest.

    Attributes:
        count: how many rows.
        since: since when that one has waited.
        name: the name of its entry.
        id: its own id.
    """

    count: int = 0
    since: datetime | None = None
    name: str | None = None
    id: int | None = None


def entries_overdue(now: datetime) -> Question[Overdue]:
    """Ask which entries have been waiting for a beat."""
    # A new row has the epoch as its wake_at: use the time of its edit instead.
    columns = (ENTRY.c.id, ENTRY.c.name, ENTRY.c.wake_at, ENTRY.c.updated_at)
    return _waiting(columns, now, overdue_entry(now, first=True))


def runs_overdue(now: datetime) -> Question[Overdue]:
    """Ask which runs have been waiting for a beat."""
    # A triggered run has the epoch as its wake_at: use its due time instead.
    columns = (RUN.c.id, RUN.c.entry_name, RUN.c.wake_at, RUN.c.due_at)
    return _waiting(columns, now, overdue(RUN.c.wake_at, now, first=True))


def _waiting(
    columns: Sequence[ColumnElement[Any]], now: datetime, which: ColumnElement[bool]
) -> Question[Overdue]:
    """Ask for the first row past `wake_at`, or past the last column where that is the epoch."""
    row_id, name, wake_at, otherwise = columns
    waiting = select(
        row_id.label("id"),
        name.label("name"),
        wake_at.label("came"),
        otherwise.label("other"),
    )
    first = waiting.where(which).order_by(wake_at).limit(LIMIT).subquery()
    recent = literal(EPOCH + NEW, Instant())
    came = case((and_(first.c.came >= recent, is_instant(first.c.came)), first.c.came))
    other = case((is_instant(first.c.other), first.c.other))
    since = func.coalesce(came, other, literal(now, Instant())).label("since")
    count = func.count().over().label("count_of")
    query = select(first.c.id, first.c.name, since, count).order_by(since, first.c.id).limit(1)

    def read(rows: Sequence[Any]) -> Overdue:
        if not rows:
            return Overdue()
        [row] = rows
        return Overdue(row.count_of, row.since, row.name, row.id)

    return Question(query, read)
