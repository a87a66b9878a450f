"""What the rule reads of an entry, and what it answers."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any, Protocol

__all__ = ["ENTRY_COLUMNS", "Decision", "EntryRow", "PlannedRun"]


class EntryRow(Protocol):
    """The columns of an entry that the rule reads, of a row or of a value that can't be changed."""

    # ruff: noqa: D102  (each is documented with the tables)

    @property
    def id(self) -> int: ...

    @property
    def kind(self) -> str: ...

    @property
    def spec(self) -> str: ...

    @property
    def timezone(self) -> str | None: ...

    @property
    def start_at(self) -> datetime | None: ...

    @property
    def end_at(self) -> datetime | None: ...

    @property
    def max_runs(self) -> int | None: ...

    @property
    def jitter_s(self) -> float: ...

    @property
    def misfire(self) -> str | None: ...

    @property
    def grace_s(self) -> float | None: ...

    @property
    def overlap(self) -> str: ...

    @property
    def run_timeout_s(self) -> float | None: ...

    @property
    def state(self) -> str: ...

    @property
    def error(self) -> str | None: ...

    @property
    def cursor_at(self) -> datetime | None: ...

    @property
    def next_due_at(self) -> datetime | None: ...

    @property
    def pending_due_at(self) -> datetime | None: ...

    @property
    def pending_since(self) -> datetime | None: ...

    @property
    def run_count(self) -> int: ...

    @property
    def created_at(self) -> datetime: ...

    @property
    def args(self) -> Any: ...

    @property
    def kwargs(self) -> Any: ...

    @property
    def options(self) -> Any: ...


#: Their names.
ENTRY_COLUMNS = tuple(name for name, kind in vars(EntryRow).items() if isinstance(kind, property))


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run row to write: one to send (`claimed`), or the record of what was not sent.

    `missed_count` is how many occurrences the row stands for beside its own `due_at`
    when it is sent, and how many in all when it is not; above `COUNT_LIMIT` it means
    "more than that many". `counts` marks a record that its downstreams take for a failure.
    """

    due_at: datetime
    _: KW_ONLY
    state: str = "claimed"
    reason: str | None = None
    first_missed_at: datetime | None = None
    missed_count: int = 0
    counts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
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
