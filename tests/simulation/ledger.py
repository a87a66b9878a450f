"""What the tables say after each commit, read beside all processes, as plain rows."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "EDGE",
    "ENTRY_COLUMNS",
    "RUN_COLUMNS",
    "Book",
    "Edge",
    "Entry",
    "Run",
    "SQLiteBook",
    "State",
]

Rows = Iterable[Sequence[Any]]

ENTRY_COLUMNS = (
    *("id", "name", "task", "kind", "spec", "start_at", "end_at", "max_runs", "misfire"),
    *("grace_s", "jitter_s", "overlap"),
    *("run_timeout_s", "max_retries", "retry_delay_s", "state", "wake_at", "cursor_at"),
    *("pending_due_at", "pending_since", "pending_reason", "blocked_by", "success_seq"),
    *("failure_seq", "done_seq", "created_at", "error"),
)
RUN_COLUMNS = (
    *("id", "entry_id", "due_at", "attempt", "task_id", "state", "reason", "first_missed_at"),
    *("missed_count", "claimed_by", "wake_at", "sent_at", "started_at", "finished_at", "worker"),
    *("follow_up", "tries"),
)
EDGE = (
    *("downstream_id", "upstream_id", '"on"', "first_free", "align", "consumed_seq"),
    *("on_upstream_failure", "timeout_s"),
)


@dataclass(slots=True)
class Entry:
    """A row of `beatstore_entry`; instants as the table has them."""

    id: int
    name: str
    task: str
    kind: str
    spec: str
    start_at: str | None
    end_at: str | None
    max_runs: int | None
    misfire: str | None
    grace_s: float | None
    jitter_s: float
    overlap: str
    run_timeout_s: float | None
    max_retries: int
    retry_delay_s: float
    state: str
    wake_at: str | None
    cursor_at: str | None
    pending_due_at: str | None
    pending_since: str | None
    pending_reason: str | None
    blocked_by: int | None
    success_seq: int
    failure_seq: int
    done_seq: int
    created_at: str
    error: str | None


@dataclass(slots=True)
class Run:
    """A row of `beatstore_run`."""

    id: int
    entry_id: int
    due_at: str
    attempt: int
    task_id: str
    state: str
    reason: str | None
    first_missed_at: str | None
    missed_count: int
    claimed_by: str | None
    wake_at: str | None
    sent_at: str | None
    started_at: str | None
    finished_at: str | None
    worker: str | None
    follow_up: str | None
    tries: int


@dataclass(slots=True)
class Edge:
    """A row of `beatstore_dependency`."""

    downstream_id: int
    upstream_id: int
    on: str
    first_free: int
    align: str
    consumed_seq: int
    on_upstream_failure: str
    timeout_s: float | None


@dataclass(slots=True)
class State:
    """All of it at one moment, by id; edges by downstream and upstream."""

    entries: dict[int, Entry]
    runs: dict[int, Run]
    edges: dict[tuple[int, int], Edge]

    @classmethod
    def of(cls, entries: Rows, runs: Rows, edges: Rows) -> State:
        """Make it of the rows of the three tables."""
        edges_read = [Edge(*row) for row in edges]
        return cls(
            {one.id: one for one in (Entry(*row) for row in entries)},
            {one.id: one for one in (Run(*row) for row in runs)},
            {(one.downstream_id, one.upstream_id): one for one in edges_read},
        )

    def runs_of(self, entry_id: int) -> list[Run]:
        """Return the runs of an entry, in the order of their ids."""
        return [run for run in self.runs.values() if run.entry_id == entry_id]

    def upstreams(self, entry_id: int) -> list[Edge]:
        """Return the edges of an entry to what it waits for."""
        return [edge for edge in self.edges.values() if edge.downstream_id == entry_id]

    def named(self, name: str) -> Entry | None:
        """Return the entry of a name."""
        return next((one for one in self.entries.values() if one.name == name), None)


class Book(ABC):
    """Reads the tables of one schedule."""

    @abstractmethod
    def read(self) -> State:
        """Read what is committed."""

    @abstractmethod
    def next_wake(self) -> str | None:
        """Return the earliest `wake_at` of all rows."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class SQLiteBook(Book):
    """Reads them beside SQLAlchemy, since it is asked after each commit; of one schedule after
    the other.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, cached_statements=32)

    def empty(self, tables: Iterable[str]) -> None:
        """Delete all rows of these tables, in this order."""
        self._connection.execute("BEGIN")
        for table in tables:
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("COMMIT")

    def read(self) -> State:
        """Read what is committed."""
        return State.of(*(self._connection.execute(statement) for statement in _STATE))

    def next_wake(self) -> str | None:
        """Return the earliest `wake_at` of all rows."""
        found: str | None = self._connection.execute(_NEXT).fetchone()[0]
        return found

    def close(self) -> None:
        """Keep the connection."""


def _select(columns: Iterable[str], table: str) -> str:
    return f"SELECT {', '.join(columns)} FROM beatstore_{table} ORDER BY 1, 2"


_STATE = (
    _select(ENTRY_COLUMNS, "entry"),
    _select(RUN_COLUMNS, "run"),
    _select(EDGE, "dependency"),
)
_NEXT = (
    "SELECT min(at) FROM (SELECT min(wake_at) AS at FROM beatstore_entry "
    "UNION ALL SELECT min(wake_at) FROM beatstore_run)"
)
