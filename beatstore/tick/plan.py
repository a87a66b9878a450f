"""Plan due entries: write their runs and their new state in one transaction.

Invariants:
    * The rows are locked from reading to commit, so no other beat and no edit can change them
      between the decision and the write.
    * An entry that can't be decided is marked broken in the same transaction, with the reason;
      the rest of its batch is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import BigInteger, Integer, Row, Select, Text, bindparam, select, update
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql import ColumnElement, Executable
from sqlalchemy.types import TypeEngine

from beatstore.config import Settings
from beatstore.database.columns import Instant, Unreadable
from beatstore.database.dialects import UpdateEach, dialect_of
from beatstore.database.tables import ENTRY, RUN
from beatstore.definition.calls import Call, check_allowed, check_id
from beatstore.errors import CollisionError
from beatstore.rules.decide import decide
from beatstore.rules.decision import ENTRY_COLUMNS, Decision, EntryRow, PlannedRun
from beatstore.rules.due import has_one_run
from beatstore.rules.gate import OPEN, Gate, run_timeout
from beatstore.schedules.instants import EPOCH
from beatstore.tick.claims import CALL, Claim, call_of, legible, task_id_of, unreadable
from beatstore.tick.collisions import without_written
from beatstore.tick.endings import cancel_unsent
from beatstore.tick.gates import consume, read_gates
from beatstore.tick.locks import free_entries
from beatstore.tick.mistakes import cycle_problems, misspelt_edges
from beatstore.tick.notices import Notice, notices_of
from beatstore.tick.waits import write_shared
from beatstore.tick.watch import watch_again

__all__ = ["Planned", "Planner", "quarantine"]

# The parameters name the columns to write, so that a broken row keeps its other columns.
_WRITE_ENTRY = update(ENTRY).where(ENTRY.c.id == bindparam("b_id"))

#: The columns that the rule, the message and the counters need.
_READ_ALSO = ("blocked_by", "wake_at")
_READ = [ENTRY.c[name] for name in dict.fromkeys([*ENTRY_COLUMNS, *CALL, *_READ_ALSO])]
_LOCK = select(*_READ).order_by(ENTRY.c.wake_at, ENTRY.c.id).with_for_update(skip_locked=True)

#: The columns that are written.
_RUN_ROW: dict[str, TypeEngine[Any]] = {
    **dict.fromkeys(("due_at", "first_missed_at", "wake_at", "finished_at"), Instant()),
    **dict.fromkeys(("entry_name", "task_id", "state", "reason", "claimed_by"), Text()),
    "entry_id": BigInteger(),
    "missed_count": Integer(),
}
_ENTRY_ROW: dict[str, TypeEngine[Any]] = {
    **dict.fromkeys(("cursor_at", "next_due_at", "wake_at", "last_run_at"), Instant()),
    **dict.fromkeys(("pending_due_at", "pending_since"), Instant()),
    **dict.fromkeys(("state", "error", "pending_reason"), Text()),
    **dict.fromkeys(("b_id", "run_count", "blocked_by"), BigInteger()),
}

#: A `wake_at` before this marks a row that was just written, by any means.
_NEW = EPOCH + timedelta(days=1)

#: The columns that identify an inserted run, and those that its message needs.
_KNOWN = (RUN.c.entry_id, RUN.c.due_at, RUN.c.id, RUN.c.task_id)


@dataclass(frozen=True, slots=True)
class Planned:
    """The result of planning a batch.

    Attributes:
        count: the number of entries that were decided.
        claims: the runs to send.
        notices: the events to log after the commit.
    """

    count: int = 0
    claims: Sequence[Claim] = ()
    notices: Sequence[Notice] = ()


_BROKEN = Decision(state="broken")


@dataclass(frozen=True, slots=True)
class _Plan:
    """An entry and its decision; an entry with a problem is marked broken instead."""

    entry: Row[Any]
    decision: Decision = _BROKEN
    gate: Gate = OPEN
    task_id: str | None = None
    problem: str | None = None


class Planner:
    """Plans entries for one beat, in the caller's transaction."""

    def __init__(self, settings: Settings, beat_id: str) -> None:
        self._settings = settings
        self._beat_id = beat_id

    def plan_where(
        self,
        connection: Connection,
        which: ColumnElement[bool],
        now: datetime,
        *,
        limit: int,
        careful: bool = False,
    ) -> Planned:
        """Plan a batch of the entries that `which` selects.

        Args:
            connection: with a transaction that the caller commits.
            which: the condition that selects entries, in which the parameter `now` is the time.
            now: the database's time.
            limit: the most entries to plan.
            careful: first check which due times have a run already.

        Raises:
            CollisionError: a due time has a run already: roll back, and plan again with
                `careful`.
        """
        rows = connection.execute(_locking(which), {"now": now, "limit": limit}).all()
        if not rows:
            return Planned()
        legible_rows = [row for row in rows if Unreadable not in map(type, row)]
        written = [row for row in legible_rows if row.wake_at is not None and row.wake_at < _NEW]
        new = {row.id for row in written}
        watch_again(connection, written, self._settings, now)
        # By plain SQL; `Store.cancel` does so itself.
        if cancelled := [row.id for row in written if row.state == "cancelled"]:
            cancel_unsent(connection, cancelled, now, "entry cancelled before it was sent")
        gates = read_gates(connection, legible_rows, now, self._settings, new)
        linked = [row.id for row in rows if row.id in new and gates.get(row.id, OPEN).edges]
        in_cycles = cycle_problems(connection, linked)
        problems = in_cycles | (misspelt_edges(connection, linked) if linked else {})
        plans = [
            self._plan_row(row, now, gates.get(row.id, OPEN), problems.get(row.id)) for row in rows
        ]
        if careful:
            decided = [(plan.entry, plan.decision) for plan in plans]
            decisions = without_written(connection, decided)
            plans = [replace(plan, decision=decisions[plan.entry.id]) for plan in plans]
        claims = self._write_runs(connection, plans, now, careful)
        self._write_entries(connection, plans, now)
        results = [(plan.entry, plan.decision, plan.problem) for plan in plans]
        notices = list(notices_of(results, now))
        others = free_entries(connection, in_cycles.keys() - {row.id for row in rows})
        notices += [quarantine(connection, one, in_cycles[one]) for one in others]
        return Planned(len(rows), claims, notices)

    def _plan_row(self, row: Row[Any], now: datetime, gate: Gate, mistake: str | None) -> _Plan:
        """Decide one entry; `mistake` is what is wrong with its edges, if anything is."""
        try:
            problem = unreadable(row) or mistake
            if problem is None:
                decision = decide(cast(EntryRow, row), now, self._settings, gate)
                if decision.state != "broken":
                    return _Plan(row, decision, gate, self._own_task_id(row, decision))
                problem = decision.error or ""
        except Exception as error:  # noqa: BLE001  (a row written by hand can hold anything)
            problem = f"{type(error).__name__}: {error}"
        return _Plan(row, problem=problem)

    def _own_task_id(self, row: Row[Any], decision: Decision) -> str | None:
        """Check the message of an entry that gets runs; return the task id in its options."""
        if not decision.runs:
            return None
        call = Call(row.task, row.args, row.kwargs, row.options)
        check_allowed(call, self._settings.allowed_tasks)
        return check_id(row.options, once=True) if has_one_run(row.kind, row.max_runs) else None

    def _write_entries(self, connection: Connection, plans: Sequence[_Plan], now: datetime) -> None:
        """Write the new state of the entries, and consume upstream completions."""
        good = [_columns(plan.entry, plan.decision, now) for plan in plans if plan.problem is None]
        bad = [_broken(plan.entry.id, plan.problem) for plan in plans if plan.problem is not None]
        if good:
            entries = _writes(connection.dialect).entries
            connection.execute(entries.statement, entries.parameters(good))
        if bad:
            connection.execute(_WRITE_ENTRY, bad)
        shared = [
            (plan.entry, plan.gate.shared, plan.decision)
            for plan in plans
            if plan.gate.shared is not None
        ]
        write_shared(connection, shared)
        for spares_free in (False, True):
            through = [
                plan.entry.id
                for plan in plans
                if plan.decision.consume and plan.decision.spares_free is spares_free
            ]
            if through:
                consume(connection, through, spare_free=spares_free)

    def _write_runs(
        self, connection: Connection, plans: Sequence[_Plan], now: datetime, careful: bool
    ) -> list[Claim]:
        """Insert the decided runs, and return the claims among them.

        Raises:
            CollisionError: a due time has a run already.
        """
        expires_at = now + timedelta(seconds=self._settings.claim_ttl)
        planned = [(plan, run) for plan in plans for run in plan.decision.runs]
        if not planned:
            return []
        rows = [self._run_row(plan, run, now, expires_at) for plan, run in planned]
        writes = _writes(connection.dialect)
        done = connection.execute(writes.runs, writes.run_parameters(rows))
        inserted = done.all() if done.returns_rows else None
        if (done.rowcount if inserted is None else len(inserted)) != len(rows) and not careful:
            raise CollisionError
        claimed = [(plan.entry, run) for plan, run in planned if run.state == "claimed"]
        if not claimed:
            return []
        if inserted is None:
            mine = (RUN.c.claimed_by == self._beat_id, RUN.c.state == "claimed")
            read_back = select(*_KNOWN).where(RUN.c.wake_at == expires_at, *mine)
            inserted = connection.execute(read_back).all()
        written = {(entry_id, due_at): rest for entry_id, due_at, *rest in inserted}
        return [
            self._claim(entry, run, *written[key])
            for entry, run in claimed
            if (key := (entry.id, run.due_at)) in written
        ]

    def _claim(self, entry: Row[Any], run: PlannedRun, run_id: int, task_id: str) -> Claim:
        return Claim(
            run_id,
            task_id,
            run.due_at,
            1,
            run.first_missed_at,
            run.missed_count,
            *call_of(entry),
            run_timeout_s=run_timeout(entry.run_timeout_s, entry.overlap, self._settings),
        )

    def _run_row(
        self, plan: _Plan, run: PlannedRun, now: datetime, expires_at: datetime
    ) -> dict[str, Any]:
        entry, claimed = plan.entry, run.state == "claimed"
        # The sweep counts runs that matter to downstreams, in its own transaction.
        wake_at = expires_at if claimed else now if run.counts else None
        return {
            "entry_id": entry.id,
            "entry_name": entry.name,
            "due_at": run.due_at,
            "task_id": plan.task_id or task_id_of(entry.id, entry.created_at, run.due_at, 1),
            "state": run.state,
            "reason": run.reason,
            "first_missed_at": run.first_missed_at,
            "missed_count": run.missed_count,
            "claimed_by": self._beat_id if claimed else None,
            "wake_at": wake_at,
            "finished_at": None if claimed else now,
        }


@lru_cache(maxsize=8)
def _locking(which: ColumnElement[bool]) -> Select[Any]:
    return _LOCK.where(which).limit(bindparam("limit", type_=Integer))


def quarantine(connection: Connection, entry_id: int, reason: str) -> Notice:
    """Mark an entry as broken, with the reason; return the event to log after the commit."""
    connection.execute(_WRITE_ENTRY, [_broken(entry_id, reason)])
    name = connection.scalar(select(ENTRY.c.name).where(ENTRY.c.id == entry_id))
    return Notice("broken", name, reason=reason)


@dataclass(frozen=True, slots=True)
class _Writes:
    """The two statements that write a batch, and the functions that make their parameters.

    MySQL can't return the inserted runs, so there they are read back.
    """

    runs: Executable
    run_parameters: Callable[[list[dict[str, Any]]], Any]
    entries: UpdateEach


@lru_cache
def _writes(dialect: Dialect) -> _Writes:
    database = dialect_of(dialect)
    insert = database.insert_ignore(RUN).execution_options(preserve_rowcount=True)
    runs = database.given_rows(dialect, _RUN_ROW)
    entries = database.update_each(dialect, ENTRY, _ENTRY_ROW)
    if runs is None:
        return _Writes(insert, lambda rows: rows, entries)
    inserts = insert.from_select(list(_RUN_ROW), select(runs.table), include_defaults=False)
    return _Writes(inserts.returning(*_KNOWN), runs.parameters, entries)


def _columns(entry: Row[Any], decision: Decision, now: datetime) -> dict[str, Any]:
    """Return the new columns of an entry, for `_WRITE_ENTRY`."""
    sent = sum(run.state == "claimed" for run in decision.runs)
    return {
        "b_id": entry.id,
        "state": decision.state,
        "error": decision.error,
        "cursor_at": decision.cursor_at,
        "next_due_at": decision.next_due_at,
        "wake_at": decision.wake_at,
        "pending_due_at": decision.pending_due_at,
        "pending_since": decision.pending_since,
        "pending_reason": decision.pending_reason,
        "blocked_by": decision.blocked_by,
        "run_count": entry.run_count + sent,
        "last_run_at": now if sent else entry.last_run_at,
    }


def _broken(entry_id: int, reason: str) -> dict[str, Any]:
    """Return the columns that mark an entry as broken; its other columns stay."""
    return {
        "b_id": entry_id,
        "state": "broken",
        "error": legible(reason),
        "next_due_at": None,
        "wake_at": None,
    }
