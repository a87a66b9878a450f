"""Reading what is known: the tables, and the file of the witness."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Table, select

from beatstore import Store
from beatstore.models import DependencyModel, EntryModel, RunModel
from tests.chaos.ledger import Edge, EntryRow, Line, RunRow, Sample
from tests.chaos.view import OPEN

__all__ = ["Tables", "read_lines", "read_tables", "sample", "unrest"]

T = TypeVar("T", RunRow, EntryRow, Edge)

Tables = tuple[list[RunRow], list[EntryRow], list[Edge], float]

#: A row with a `wake_at` so far ahead is still to be waited for at the end.
_SOON = 90.0


def read_tables(store: Store) -> Tables:
    """Return the runs, entries and edges, from one state of the database, and its time."""
    with store.reading(timeout=60) as session:
        now = store.database.now(session).timestamp()
        runs = _rows(session.execute(_selected(RunRow, RunModel.__table__)), RunRow)
        entries = _rows(session.execute(_selected(EntryRow, EntryModel.__table__)), EntryRow)
        edges = _rows(session.execute(_selected(Edge, DependencyModel.__table__)), Edge)
    return runs, entries, edges, now


def _selected(kind: type[Any], table: Any) -> Any:
    assert isinstance(table, Table)
    return select(*(table.c[one.name] for one in fields(kind)))


def _rows(rows: Iterable[Any], kind: type[T]) -> list[T]:
    return [kind(*(_plain(value) for value in row)) for row in rows]


def _plain(value: object) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


def read_lines(path: Path) -> list[Line]:
    """Return the lines of the witness."""
    if not path.exists():
        return []
    return [Line(**json.loads(line)) for line in path.read_text().splitlines()]


def sample(store: Store) -> Sample:
    """Return what is overdue now, and by how many seconds."""
    runs, entries, _, now = read_tables(store)
    return Sample(
        now,
        _overdue([(entry.name, entry.wake_at) for entry in entries], now),
        _overdue([(f"run {run.id} of {run.entry_name}", run.wake_at) for run in runs], now),
    )


def _overdue(rows: Iterable[tuple[str, float | None]], now: float) -> dict[str, float]:
    return {name: now - wake for name, wake in rows if wake and now - wake > 5}


def unrest(tables: Tables) -> Sequence[str]:
    """Return what keeps everything from being at rest, in words."""
    runs, entries, _, now = tables
    found = [
        f"run {run.id} of {run.entry_name} is {run.state}" for run in runs if run.state in OPEN
    ]
    found += [
        f"run {run.id} of {run.entry_name} has a wake_at"
        for run in runs
        if run.state not in OPEN and run.wake_at is not None
    ]
    found += [
        f"{entry.name} is looked at in {entry.wake_at - now:.0f} s"
        for entry in entries
        if entry.state == "active" and entry.wake_at is not None and entry.wake_at - now < _SOON
    ]
    return found
