"""Planning: from due entries to their run rows and new columns, in one transaction.

Invariants:
    * The rows are locked from the reading to the commit, so no other beat, and no edit,
      comes between the decision and its writing.
    * A row that can't be decided is taken out of service in the same transaction, with
      the reason on it; the others of its batch go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement

from beatstore.config import Settings
from beatstore.decide import Decision, EntryRow, PlannedRun, decide
from beatstore.dialects import Unreadable, insert_ignore
from beatstore.store.calls import Call, check_allowed
from beatstore.store.claims import ENTRY, RUN, Claim, claim_of, task_id_of

__all__ = ["Planner"]

# The columns written come from the rows given, so that a broken row keeps its others.
_WRITE_ENTRY = update(ENTRY).where(ENTRY.c.id == bindparam("b_id"))

_UNUSED = {"description", "source", "pending_due_at", "pending_since", "pending_reason"}
_DECIDING = [column for column in ENTRY.columns if column.name not in _UNUSED]


@dataclass(frozen=True, slots=True)
class _Plan:
    """An entry, the runs it gets, and its columns after this look."""

    entry: Row[Any]
    runs: tuple[PlannedRun, ...]
    columns: dict[str, Any]


class Planner:
    """Plans entries for one beat, on a connection whose transaction the caller opened."""

    def __init__(self, settings: Settings, beat_id: str) -> None:
        self._settings = settings
        self._beat_id = beat_id

    def plan_where(
        self, connection: Connection, which: ColumnElement[bool], limit: int, now: datetime
    ) -> tuple[int, list[Claim]]:
        """Plan the entries that `which` selects; return how many, and the claims."""
        rows = connection.execute(
            select(*_DECIDING)
            .where(which)
            .order_by(ENTRY.c.wake_at, ENTRY.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        if not rows:
            return 0, []
        plans = [self._plan_row(row, now) for row in rows]
        claims = self._write_runs(connection, plans, now)
        good = [plan.columns for plan in plans if plan.columns["state"] != "broken"]
        bad = [plan.columns for plan in plans if plan.columns["state"] == "broken"]
        for group in (good, bad):
            if group:
                connection.execute(_WRITE_ENTRY, group)
        return len(rows), claims

    def _plan_row(self, row: Row[Any], now: datetime) -> _Plan:
        try:
            for name, value in zip(row._fields, row, strict=True):
                if isinstance(value, Unreadable):
                    reason = f"{name}: {value.reason}, got {value.given!r:.200}"
                    return _Plan(row, (), _quarantine(row.id, reason))
            decision = decide(cast(EntryRow, row), now, self._settings)
            if decision.runs:
                call = Call(row.task, row.args, row.kwargs, row.options)
                check_allowed(call, self._settings.allowed_tasks)
            if decision.state == "broken":
                return _Plan(row, (), _quarantine(row.id, decision.error or ""))
            return _Plan(row, decision.runs, _columns(row, decision, now))
        except Exception as error:  # noqa: BLE001  (a row written by hand can hold anything)
            return _Plan(row, (), _quarantine(row.id, f"{type(error).__name__}: {error}"))

    def _write_runs(
        self, connection: Connection, plans: Sequence[_Plan], now: datetime
    ) -> list[Claim]:
        """Insert the decided runs, and return those of them that this beat now holds."""
        expires_at = now + timedelta(seconds=self._settings.claim_ttl)
        rows = [
            self._run_row(plan.entry, run, now, expires_at) for plan in plans for run in plan.runs
        ]
        planned = {
            (plan.entry.id, run.due_at): plan.entry
            for plan in plans
            for run in plan.runs
            if run.state == "claimed"
        }
        if rows:
            connection.execute(insert_ignore(RUN, connection.dialect), rows)
        if not planned:
            return []
        # Read back rather than RETURNING, which MySQL lacks. What was there already
        # (an occurrence that this database has seen before) is not among these.
        mine = connection.execute(
            select(RUN).where(
                RUN.c.wake_at == expires_at,
                RUN.c.claimed_by == self._beat_id,
                RUN.c.state == "claimed",
            )
        )
        found = ((run, planned.get((run.entry_id, run.due_at))) for run in mine)
        return [claim_of(run, entry) for run, entry in found if entry is not None]

    def _run_row(
        self, entry: Row[Any], run: PlannedRun, now: datetime, expires_at: datetime
    ) -> dict[str, Any]:
        claimed = run.state == "claimed"
        return {
            "entry_id": entry.id,
            "entry_name": entry.name,
            "due_at": run.due_at,
            "attempt": 1,
            "task_id": task_id_of(entry.id, entry.created_at, run.due_at, 1),
            "state": run.state,
            "reason": run.reason,
            "first_missed_at": run.first_missed_at,
            "missed_count": run.missed_count,
            "claimed_by": self._beat_id if claimed else None,
            "wake_at": expires_at if claimed else None,
            "finished_at": None if claimed else now,
        }

    def quarantine(self, connection: Connection, entry_id: int, reason: str) -> None:
        """Take an entry out of service, saying why."""
        connection.execute(_WRITE_ENTRY, [_quarantine(entry_id, reason)])


def _columns(entry: Row[Any], decision: Decision, now: datetime) -> dict[str, Any]:
    """Return the columns of an entry after a look, for `_WRITE_ENTRY`."""
    sent = sum(run.state == "claimed" for run in decision.runs)
    return {
        "b_id": entry.id,
        "state": decision.state,
        "error": decision.error,
        "cursor_at": decision.cursor_at,
        "next_due_at": decision.next_due_at,
        "wake_at": decision.wake_at,
        "run_count": entry.run_count + sent,
        "last_run_at": now if sent else entry.last_run_at,
    }


def _quarantine(entry_id: int, reason: str) -> dict[str, Any]:
    """Return the columns that take an entry out of service; what it holds stays as it is."""
    error = reason.replace("\0", "\\0")[:2000]
    return {
        "b_id": entry_id,
        "state": "broken",
        "error": error,
        "next_due_at": None,
        "wake_at": None,
    }
