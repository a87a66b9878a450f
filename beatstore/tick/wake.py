"""Count completions, and wake the downstreams that may have waited for them.

Joins the caller's transaction, which has locked the completed entries.

Invariants:
    * Entries are locked upstream first, in the order of their ids. A beat that looks at a
      downstream holds its row, so it either reads the new counter, or is already marked as
      waiting and gets woken.
    * Only downstreams that this completion may unblock are written; the others are only locked
      briefly.
    * A downstream that another transaction has locked is skipped, and the run keeps
      `follow_up='wake'`: it is woken later. Waking it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, case, or_, select, update
from sqlalchemy.engine import Connection

from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, chunks
from beatstore.rules.outcomes import (
    COUNTERS,
    asks_for_same,
    counter_of,
    counters_of,
    failure_ends_wait,
)
from beatstore.rules.states import SPENT
from beatstore.tick.counted import MOST_COUNT
from beatstore.tick.locks import lock_later
from beatstore.tick.tokens import FinalOutcome, write_tokens

__all__ = ["Tally", "count_and_wake"]

#: The counters that an outcome increments. A late success was counted as a failure before.
_INCREMENTS = {
    "success": counters_of("success"),
    "failure": counters_of("failure"),
    "late success": (counter_of("success"),),
    None: (),
}

#: How long until a locked downstream is woken.
_AGAIN = timedelta(seconds=1)

_IDS: Any = bindparam("ids", expanding=True)

_OF_DOWNSTREAM = (
    *("id", "state", "kind", "blocked_by", "pending_due_at", "wake_at"),
    *("cursor_at", "created_at"),
)


@dataclass(slots=True)
class Tally:
    """The completions of one transaction, by entry."""

    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    unblocked: set[int] = field(default_factory=set)
    outcomes: list[FinalOutcome] = field(default_factory=list)
    runs: dict[int, list[int]] = field(default_factory=dict)

    def add(self, run: Row[Any], outcome: str | None) -> None:
        """Count a final outcome; None, of a cancelled run, only unblocks the entry itself."""
        counts = self.counts.setdefault(run.entry_id, dict.fromkeys(COUNTERS, 0))
        for counter in _INCREMENTS[outcome]:
            counts[counter] += 1
        if outcome is not None:
            self._add_outcome(run, "failure" if outcome == "failure" else "success")
        if run.blocked_by == run.entry_id and run.entry_state == "active":
            self.unblocked.add(run.entry_id)

    def wake_again(self, run: Row[Any]) -> None:
        """Wake the downstreams of an outcome that is counted already."""
        self._add_outcome(run, "success" if run.state == "succeeded" else "failure")

    def _add_outcome(self, run: Row[Any], outcome: str) -> None:
        if outcome == "failure":
            self.failed.add(run.entry_id)
        self.runs.setdefault(run.entry_id, []).append(run.id)
        if isinstance(run.due_at, datetime):
            is_last = run.entry_state in SPENT
            one = FinalOutcome(run.entry_id, run.due_at, outcome, run.sent_at, is_last)
            self.outcomes.append(one)


_COUNT = (
    update(ENTRY)
    .where(ENTRY.c.id == bindparam("b_id"))
    .values(
        {
            name: case(
                (ENTRY.c[name] > MOST_COUNT - bindparam(f"b_{name}"), ENTRY.c[name]),
                else_=ENTRY.c[name] + bindparam(f"b_{name}"),
            )
            for name in COUNTERS
        }
    )
)

_EDGES = select(
    *(DEPENDENCY.c[name] for name in ("upstream_id", "downstream_id", "on", "align")),
    *(DEPENDENCY.c[name] for name in ("on_upstream_failure", "consumed_seq")),
).where(DEPENDENCY.c.upstream_id.in_(_IDS))

_DOWNSTREAMS = (
    select(*(ENTRY.c[name] for name in _OF_DOWNSTREAM))
    .where(ENTRY.c.id.in_(_IDS))
    .order_by(ENTRY.c.id)
)
_LOCK = _DOWNSTREAMS.with_for_update(skip_locked=True)


def count_and_wake(
    connection: Connection, database: Database, tally: Tally, now: datetime, *, patience: float
) -> None:
    """Update the counters of entries, and wake downstreams that may have waited.

    Args:
        connection: in the transaction that locked the completed entries.
        database: knows how beats are notified.
        tally: the completions.
        now: the database's time.
        patience: how many seconds to wait for locked downstreams.
    """
    counted = {key: counts for key, counts in tally.counts.items() if any(counts.values())}
    if counted:
        connection.execute(
            _COUNT,
            [
                {"b_id": key, **{f"b_{name}": value for name, value in counted[key].items()}}
                for key in sorted(counted)
            ],
        )
    woken = set(tally.unblocked)
    if tally.runs:
        woken |= _waiting(connection, tally, now, patience)
    for some in chunks(sorted(woken)):
        these = dialect_of(connection.dialect).among(ENTRY.c.id, some)
        # An earlier one is due already, or is the mark of an edit.
        later = or_(ENTRY.c.wake_at.is_(None), ENTRY.c.wake_at > now)
        connection.execute(update(ENTRY).where(these, later).values(wake_at=now))
    if woken and database.notification is not None:
        connection.execute(database.notification)


def _waiting(connection: Connection, tally: Tally, now: datetime, patience: float) -> set[int]:
    """Lock the downstreams of the completed entries; return those that may be unblocked."""
    edges = connection.execute(_EDGES, {"ids": list(tally.runs)}).all()
    ordered = sorted({edge.downstream_id for edge in edges})
    locked = {row.id: row for row in _lock(connection, ordered)}
    missing = set(ordered) - locked.keys()
    if missing:
        there = {
            entry_id
            for some in chunks(missing)
            for entry_id in connection.scalars(select(ENTRY.c.id).where(ENTRY.c.id.in_(some)))
        }
        late = lock_later(lambda some: _lock(connection, some), there, patience)
        locked |= {row.id: row for row in late}
        _wake_later(connection, tally, edges, there - locked.keys(), now)
    woken = _unblocked(tally, edges, locked)
    woken |= write_tokens(connection, tally.outcomes, edges, locked, now)
    return {key for key in woken if locked[key].wake_at is None or locked[key].wake_at > now}


def _unblocked(tally: Tally, edges: Sequence[Row[Any]], locked: dict[int, Row[Any]]) -> set[int]:
    """Return the downstreams with edges on any completion that may be unblocked."""
    any_completion = [edge for edge in edges if not asks_for_same(edge.align, edge.consumed_seq)]
    # Any failure wakes these; the others wake only for the upstream that blocks them.
    eager = {
        edge.downstream_id
        for edge in any_completion
        if failure_ends_wait(edge.on, edge.on_upstream_failure) and edge.upstream_id in tally.failed
    }
    return {
        row.id
        for row in (locked.get(edge.downstream_id) for edge in any_completion)
        if row is not None
        and row.state == "active"
        and (row.kind == "after" or row.pending_due_at is not None)
        and (row.blocked_by is None or row.blocked_by in tally.runs or row.id in eager)
    }


def _lock(connection: Connection, ids: Iterable[int]) -> list[Row[Any]]:
    """Lock the entries that are not locked.

    The query selects by id only: a beat may be changing the other columns, and their values
    are reliable only after the row is locked.
    """
    return [row for some in chunks(ids) for row in connection.execute(_LOCK, {"ids": some})]


def _wake_later(
    connection: Connection,
    tally: Tally,
    edges: Sequence[Row[Any]],
    held: set[int],
    now: datetime,
) -> None:
    """Let the next sweep wake the downstreams that are locked."""
    upstreams = {edge.upstream_id for edge in edges if edge.downstream_id in held}
    runs = [run_id for upstream_id in upstreams for run_id in tally.runs.get(upstream_id, ())]
    if runs:
        later = update(RUN).where(RUN.c.id.in_(runs))
        connection.execute(later.values(wake_at=now + _AGAIN, follow_up="wake"))
