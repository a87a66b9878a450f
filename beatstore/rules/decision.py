"""What the rule reads of an entry, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

__all__ = ["Decision", "EntryRow", "PlannedRun"]


class EntryRow(Protocol):
    """The columns of an entry that the rule reads."""

    id: int
    kind: str
    spec: str
    timezone: str | None
    start_at: datetime | None
    end_at: datetime | None
    max_runs: int | None
    jitter_s: float
    misfire: str | None
    grace_s: float | None
    overlap: str
    run_timeout_s: float | None
    state: str
    error: str | None
    cursor_at: datetime | None
    next_due_at: datetime | None
    pending_due_at: datetime | None
    pending_since: datetime | None
    run_count: int
    created_at: datetime
    args: Any
    kwargs: Any
    options: Any


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run row to write: one to send (`claimed`), or the record of what was not sent.

    `missed_count` is how many occurrences the row stands for beside its own `due_at`
    when it is sent, and how many in all when it is not; above `COUNT_LIMIT` it means
    "more than that many". `counts` marks a record that its downstreams take for a failure.
    """

    due_at: datetime
    state: str = "claimed"
    reason: str | None = None
    first_missed_at: datetime | None = None
    missed_count: int = 0
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The runs an entry gets, oldest first, and its columns after this look.

    `pending_due_at` is the first occurrence that waits, `blocked_by` the entry whose
    completion wakes it. `consume` says that the completions of its upstreams are used up, and
    `spares_free` that the edges whose first run is still free keep that.

    `takes` are the shared due times that are accounted for by this look (`align="same"`), and
    `strange` those that are no occurrences of the entry.
    """

    state: str
    runs: tuple[PlannedRun, ...] = ()
    cursor_at: datetime | None = None
    next_due_at: datetime | None = None
    wake_at: datetime | None = None
    error: str | None = None
    pending_due_at: datetime | None = None
    pending_since: datetime | None = None
    pending_reason: str | None = None
    blocked_by: int | None = None
    consume: bool = False
    spares_free: bool = False
    takes: tuple[datetime, ...] = ()
    strange: tuple[datetime, ...] = ()
