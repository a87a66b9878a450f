"""Resolve collisions: a planned run whose due time another run of the entry has already.

Joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.engine import Connection

from beatstore.database.tables import RUN
from beatstore.rules.decision import Decision, PlannedRun
from beatstore.rules.reasons import is_triggered

__all__ = ["without_written"]

#: How far a run is moved if another run has its due time.
_ASIDE = timedelta(microseconds=1)


def without_written(
    connection: Connection, decided: Sequence[tuple[Row[Any], Decision]]
) -> dict[int, Decision]:
    """Return the decisions by entry, without the runs that exist already.

    The key of a run is its entry, due time and attempt. A due time belongs to the schedule, or
    to the upstreams that share it. A run that was triggered by hand at the same instant is moved
    by a microsecond. So is an occurrence of an entry without a schedule, whose due time is the
    moment at which it was found. Any other existing row is the same occurrence.
    """
    return {
        entry.id: _distinct(connection, entry, decision) if decision.runs else decision
        for entry, decision in decided
    }


def _distinct(connection: Connection, entry: Row[Any], decision: Decision) -> Decision:
    rows = connection.execute(
        select(RUN.c.due_at, RUN.c.reason)
        .where(RUN.c.entry_id == entry.id, RUN.c.due_at.in_([run.due_at for run in decision.runs]))
        .order_by(RUN.c.attempt.desc())
    )
    reasons = {row.due_at: row.reason for row in rows}  # of the first attempts
    has_no_schedule = entry.kind == "after" and not decision.takes
    runs: list[PlannedRun] = []
    for run in decision.runs:
        if run.due_at not in reasons:
            runs.append(run)
        elif has_no_schedule:
            runs.append(replace(run, due_at=_free(connection, entry.id, run.due_at)))
        elif is_triggered(reasons[run.due_at]):
            aside = _free(connection, entry.id, run.due_at)
            of_instant = (RUN.c.entry_id == entry.id, RUN.c.due_at == run.due_at)
            connection.execute(update(RUN).where(*of_instant).values(due_at=aside))
            runs.append(run)
    return replace(decision, runs=tuple(runs), consume=decision.consume and bool(runs))


def _free(connection: Connection, entry_id: int, at: datetime) -> datetime:
    """Return the first instant after `at` for which the entry has no run."""
    taken = True
    while taken:
        at += _ASIDE
        of_instant = (RUN.c.entry_id == entry_id, RUN.c.due_at == at)
        taken = connection.execute(select(RUN.c.id).where(*of_instant)).first() is not None
    return at
