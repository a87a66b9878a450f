"""Lock rows with SKIP LOCKED, and retry locked ones for a short time.

Joins the caller's transaction. Nothing here waits inside the database, so an open transaction
of the application delays only the rows that it has written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.engine import Connection

from beatstore.database.dialects import DatabaseDialect, dialect_of
from beatstore.database.tables import ENTRY, RUN, chunks

__all__ = [
    "LOCK_WAIT_MS",
    "LOCK_WAIT_S",
    "NO_WAIT_S",
    "free_entries",
    "free_runs",
    "lock_later",
    "lock_runs",
]

#: How long to wait for locked rows: other beats and workers release them within
#: milliseconds.
LOCK_WAIT_S = 0.25
LOCK_WAIT_MS = 250

#: After a wait that did not help, skip such waits for this many seconds.
NO_WAIT_S = 5.0

_PAUSE = 0.01

_RUNS = select(RUN.c.id)


def lock_later(
    lock: Callable[[Iterable[int]], list[Row[Any]]], ids: Iterable[int], patience: float
) -> list[Row[Any]]:
    """Lock rows that were locked a moment ago; return those that are free by now.

    Args:
        lock: locks the free rows among these ids, and returns rows with an `id`.
        ids: the ids of existing rows.
        patience: how many seconds to wait for them.
    """
    found: list[Row[Any]] = []
    missing = set(ids)
    end = time.monotonic() + patience
    while missing and time.monotonic() < end:
        time.sleep(_PAUSE)
        rows = lock(missing)
        found += rows
        missing -= {row.id for row in rows}
    return found


def lock_runs(connection: Connection, ids: Iterable[int], patience: float) -> set[int]:
    """Lock runs, and return the ids of those that another transaction has locked."""

    def lock(ids: Iterable[int]) -> list[Row[Any]]:
        found: list[Row[Any]] = []
        for some in chunks(ids):
            runs = free_runs(dialect_of(connection.dialect))
            found += connection.execute(runs, {"ids": some}).all()
        return found

    rest = set(ids)
    rest -= {row.id for row in lock(rest)}
    if not rest:
        return rest
    there = _existing(connection, rest)
    return there - {row.id for row in lock_later(lock, there, patience)}


@cache
def free_runs(dialect: DatabaseDialect) -> Select[Any]:
    """Return the query that locks the free runs among `ids`, and returns their ids."""
    return _RUNS.where(dialect.among(RUN.c.id)).with_for_update(skip_locked=True)


def free_entries(connection: Connection, ids: Iterable[int]) -> list[int]:
    """Lock the entries that are not locked, and return their ids."""
    free: list[int] = []
    for some in chunks(ids):
        these = dialect_of(connection.dialect).among(ENTRY.c.id, some)
        locked = select(ENTRY.c.id).where(these).order_by(ENTRY.c.id)
        free += connection.scalars(locked.with_for_update(skip_locked=True))
    return free


def _existing(connection: Connection, ids: Collection[int]) -> set[int]:
    found: set[int] = set()
    for some in chunks(ids):
        these = dialect_of(connection.dialect).among(RUN.c.id, some)
        found |= set(connection.scalars(_RUNS.where(these)))
    return found
