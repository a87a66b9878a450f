"""The ledger: the result of a simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import overload

from beatstore.schedules import retold
from beatstore.store import Store, virtual

__all__ = ["Ledger", "Row", "Waiting", "read_ledger"]


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt to run an occurrence, or the record of missed or skipped occurrences.

    Attributes:
        at: when beat sent it; for a record, when beat decided.
        name: the entry's name.
        due_at: its due time.
        attempt: 1 for the first attempt, higher for retries.
        state: sent (it waits for a worker), started, succeeded, failed, lost or cancelled; or
            missed or skipped.
        reason: why, in words, or None.
        error: the exception, in one line.
        sent_at: when beat sent it; None: not sent.
        started_at: when a worker started it.
        finished_at: when it ended.
        first_missed_at: the oldest missed due time that it covers.
        missed_count: the number of other due times that it covers; of a record, of all.
        run_id: the id of its row.
    """

    at: datetime
    name: str
    due_at: datetime
    attempt: int
    state: str
    reason: str | None
    error: str | None
    sent_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    first_missed_at: datetime | None
    missed_count: int
    run_id: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry that waits at the end, or a run that is not sent yet.

    Attributes:
        name: the entry's name.
        why: the reason, in words.
        since: when the wait began, or when the run will be sent; None: the entry is broken.
        due_at: the oldest occurrence that waits; None for an entry without a schedule.
    """

    name: str
    why: str
    since: datetime | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Ledger(Sequence[Row]):
    """The result of a simulation: its rows in the order of time, and what is left waiting.

    Attributes:
        rows: one row for each attempt, and for each record of missed or skipped occurrences.
        waiting: what is left waiting at the end, sorted by name.
        start: when the simulation began.
        until: when it ended.
    """

    rows: tuple[Row, ...]
    waiting: tuple[Waiting, ...]
    start: datetime
    until: datetime

    def of(self, *names: str) -> Ledger:
        """Return the ledger of these entries only."""
        kept = tuple(row for row in self.rows if row.name in names)
        left = tuple(item for item in self.waiting if item.name in names)
        return replace(self, rows=kept, waiting=left)

    @property
    def sent(self) -> Ledger:
        """The ledger of the runs that beat sent."""
        return replace(self, rows=tuple(row for row in self.rows if row.sent_at is not None))

    @property
    def names(self) -> list[str]:
        """The names of the rows' entries."""
        return [row.name for row in self.rows]

    def states(self) -> dict[str, int]:
        """Return the number of rows in each state."""
        return dict(sorted(Counter(row.state for row in self.rows).items()))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return f"<Ledger: {self.states()}, {len(self.waiting)} waiting>"

    def __str__(self) -> str:
        table = [("at", "entry", "due", "state", "reason"), *map(_shown, self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(map(str.ljust, cells, widths)).rstrip()  # align the columns
            for cells in table
        ]
        for item in self.waiting:
            since = f" since {_time(item.since)}" if item.since else ""
            lines.append(f"left: {item.name}{since}: {retold(item.why, _time)}")
        return "\n".join(lines)


def _shown(row: Row) -> tuple[str, ...]:
    due = "" if row.due_at == row.at else _time(row.due_at)
    words = "; ".join(filter(None, (retold(row.reason or "", _time), row.error)))
    others = "" if row.sent_at is None or not row.missed_count else f"+{row.missed_count}"
    return _time(row.at), f"{row.name} {others}".rstrip(), due, row.state, words


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def read_ledger(store: Store, before: virtual.Mark, start: datetime, until: datetime) -> Ledger:
    """Return the ledger of what happened since a mark."""
    rows: list[Row] = []
    left: list[Waiting] = []
    for run in virtual.happened(store.database, before):
        at = run.sent_at or run.finished_at
        if at is None:
            words = f"attempt {run.attempt} is due later" if run.attempt > 1 else "not sent yet"
            left.append(Waiting(run.entry_name, run.reason or words, run.wake_at, run.due_at))
            continue
        moments = run.sent_at, run.started_at, run.finished_at, run.first_missed_at
        what = run.due_at, run.attempt, run.state, run.reason, run.error
        rows.append(Row(at, run.entry_name, *what, *moments, run.missed_count, run.id))
    rows.sort(key=lambda row: (row.at, row.due_at, row.run_id))
    for entry in virtual.waiting(store.database):
        if entry.state == "broken":
            left.append(Waiting(entry.name, f"it is broken: {entry.error}"))
        else:
            since, due_at = entry.pending_since, entry.pending_due_at
            left.append(Waiting(entry.name, entry.pending_reason, since, due_at))
    left.sort(key=lambda item: item.name)
    return Ledger(tuple(rows), tuple(left), start, until)
