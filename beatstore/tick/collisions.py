"""Two runs for one instant: which of them the due time belongs to.

The key of a run is its entry, its due time and its attempt, and a due time belongs to the
schedule, or to the upstreams that share it. A run that somebody triggered at the same instant
moves aside by a microsecond, and so does an occurrence without a clock, whose due time is the
moment at which it was seen. Any other row is this very occurrence: it was written before.

Joins the caller's transaction, which has locked the entries: nobody else inserts runs of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.engine import Connection

from beatstore.database.tables import RUN
from beatstore.rules.decide import is_triggered
from beatstore.rules.decision import Decision, PlannedRun

__all__ = ["settle_collisions"]

_STEP = timedelta(microseconds=1)


def settle_collisions(
    connection: Connection, decided: Sequence[tuple[Row[Any], Decision]]
) -> dict[int, Decision]:
    """Return the decisions by entry, without the runs that were written before.

    Args:
        connection: in the transaction that locked the entries.
        decided: entries, with `id` and `kind`, and what they get.
    """
    return {
        entry.id: _settled(connection, entry, decision) if decision.runs else decision
        for entry, decision in decided
    }


def _settled(connection: Connection, entry: Row[Any], decision: Decision) -> Decision:
    rows = connection.execute(
        select(RUN.c.due_at, RUN.c.reason)
        .where(RUN.c.entry_id == entry.id, RUN.c.due_at.in_([run.due_at for run in decision.runs]))
        .order_by(RUN.c.attempt.desc())
    )
    reasons = {row.due_at: row.reason for row in rows}  # of the first attempts
    has_no_clock = entry.kind == "after" and not decision.takes
    runs: list[PlannedRun] = []
    for run in decision.runs:
        if run.due_at not in reasons:
            runs.append(run)
        elif has_no_clock:
            runs.append(replace(run, due_at=_free(connection, entry.id, run.due_at)))
        elif is_triggered(reasons[run.due_at]):
            aside = _free(connection, entry.id, run.due_at)
            of_instant = (RUN.c.entry_id == entry.id, RUN.c.due_at == run.due_at)
            connection.execute(update(RUN).where(*of_instant).values(due_at=aside))
            runs.append(run)
    return replace(decision, runs=tuple(runs), consume=decision.consume and bool(runs))


def _free(connection: Connection, entry_id: int, at: datetime) -> datetime:
    """Return the first instant after `at` at which the entry has no run."""
    taken = True
    while taken:
        at += _STEP
        of_instant = (RUN.c.entry_id == entry_id, RUN.c.due_at == at)
        taken = connection.execute(select(RUN.c.id).where(*of_instant)).first() is not None
    return at
