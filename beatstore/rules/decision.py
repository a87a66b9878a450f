"""The input and the output of `decide`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any, Protocol

from beatstore.rules.due import ScheduleRow

__all__ = ["ENTRY_COLUMNS", "Decision", "EntryRow", "PlannedRun"]


class EntryRow(ScheduleRow, Protocol):
    """The columns of an entry that `decide` reads, from a row or from a frozen value."""

    # ruff: noqa: D102  (each is documented with the tables)

    @property
    def id(self) -> int: ...

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
    def last_run_at(self) -> datetime | None: ...

    @property
    def args(self) -> Any: ...

    @property
    def kwargs(self) -> Any: ...

    @property
    def options(self) -> Any: ...


#: The names of these columns, and of those of `ScheduleRow`.
ENTRY_COLUMNS = tuple(
    name
    for protocol in (ScheduleRow, EntryRow)
    for name, kind in vars(protocol).items()
    if isinstance(kind, property)
)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run row to write: a run to send (`claimed`), or a record of occurrences not sent.

    `missed_count` of a run is the number of occurrences that it covers besides its own `due_at`;
    of a record, the number of all. Above `COUNT_LIMIT` it means "more than that". `counts` marks
    a record that counts as a failure for its downstreams.
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
    """The run rows of an entry to write, oldest first, and its columns after this look.

    `pending_due_at` is the oldest occurrence that waits, `blocked_by` the entry whose completion
    wakes this one. `consume` means that this look consumes the completions of its upstreams;
    `spares_free`, that it does not consume edges whose first run is still free.

    `takes` are the shared due times that this look accounts for (`align="same"`); `unmatched` are
    those that are not occurrences of the entry.
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
    unmatched: tuple[datetime, ...] = ()
