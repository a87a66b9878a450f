"""Sweep runs whose `wake_at` is due: expired claims, retries, expired and stale runs.

Joins the caller's transaction, and locks only the runs that it finds. Runs to count are
returned, and counted in a separate transaction, which locks entries first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Integer, Row, Select, bindparam, select, update
from sqlalchemy.engine import Connection

from beatstore.config import Settings
from beatstore.database.dialects import DatabaseDialect, dialect_of
from beatstore.database.tables import ENTRY, RUN, WORKER
from beatstore.rules.decide import call_problem
from beatstore.rules.reasons import duration, is_dropped, reworded
from beatstore.rules.states import RUN_STATES, UNFINISHED, WITH_WORKER
from beatstore.tick.claims import CALL, Claim, StaleRun, claim_of, legible, unreadable
from beatstore.tick.endings import SUSPECTED, reworded_reason
from beatstore.tick.notices import Notice
from beatstore.tick.reports import MISSED_UNTIL_LOST
from beatstore.tick.watch import recheck_at, timeout_in_force, write_checks
from beatstore.words import misspelt

__all__ = ["Swept", "give_up", "sweep"]

#: For how long a stale run is left to the beat that found it.
_ASKING = timedelta(seconds=60)

_END = update(RUN).where(RUN.c.id == bindparam("b_id"))


@dataclass(slots=True)
class Swept:
    """The result of a sweep.

    Attributes:
        count: the number of rows that were swept.
        claims: runs to send.
        stale_runs: stale runs, to ask the result backend about and then end.
        uncounted: the ids of runs that have ended and must be counted.
        notices: the events to log after the commit.
    """

    count: int = 0
    claims: list[Claim] = field(default_factory=list)
    stale_runs: list[StaleRun] = field(default_factory=list)
    uncounted: list[int] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


def sweep(
    connection: Connection,
    due: ColumnElement[bool],
    now: datetime,
    settings: Settings,
    beat_id: str,
    *,
    limit: int,
) -> Swept:
    """Lock a batch of due runs, and handle each by its state; see `Queue.sweep`."""
    runs = connection.execute(_locking(due), {"now": now, "limit": limit}).all()
    batch = _Batch(connection, now, settings, beat_id, Swept(len(runs)))
    if runs:
        batch.handle(runs)
    return batch.swept


@lru_cache(maxsize=8)
def _locking(due: ColumnElement[bool]) -> Select[Any]:
    first = select(RUN).where(due).order_by(RUN.c.wake_at, RUN.c.id)
    return first.limit(bindparam("limit", type_=Integer)).with_for_update(skip_locked=True)


def give_up(connection: Connection, run_id: int, now: datetime, reason: str) -> Notice:
    """Mark a run as failed if it can't be processed, without waking downstreams.

    Returns:
        The event to log after the commit.
    """
    over = {"state": "failed", "wake_at": None, "finished_at": now}
    words = reworded_reason(legible(reason))
    connection.execute(update(RUN).where(RUN.c.id == run_id).values(over | {"reason": words}))
    name = connection.scalar(select(RUN.c.entry_name).where(RUN.c.id == run_id))
    return Notice("refused", name, reason=reason, run_id=run_id)


@dataclass(frozen=True, slots=True)
class _Batch:
    """One sweep: its transaction, its time, and what it has found so far."""

    connection: Connection
    now: datetime
    settings: Settings
    beat_id: str
    swept: Swept

    def handle(self, runs: Sequence[Row[Any]]) -> None:
        """Handle each run by its state."""
        problems = {
            run.id: problem
            for run in runs
            if (problem := _unreadable(run) or misspelt("state", run.state, RUN_STATES))
        }
        self._end([(run, "failed", problems[run.id]) for run in runs if run.id in problems])
        runs = [run for run in runs if run.id not in problems]
        self._claim([run for run in runs if run.state == "claimed"])
        with_worker = [run for run in runs if run.state in WITH_WORKER]
        self._expire([run for run in with_worker if self._is_expired(run)])
        self._mark_stale([run for run in with_worker if not self._is_expired(run)])
        self.swept.uncounted += [run.id for run in runs if run.state not in UNFINISHED]

    def _claim(self, runs: Sequence[Row[Any]]) -> None:
        """Claim the runs that may be sent, and end the others."""
        if not runs:
            return
        entries = self._entries_of(runs)
        endings = {run.id: _refusal(run, entries.get(run.entry_id)) for run in runs}
        claimed = [run for run in runs if endings[run.id] is None]
        for run in claimed:
            self.swept.claims.append(claim_of(run, entries[run.entry_id], self.settings))
            if run.claimed_by is not None and not run.tries:  # not a retry after a failed send
                kind = "own claims" if run.claimed_by == self.beat_id else "claims"
                whose = f"claimed by beat {run.claimed_by}"
                self.swept.notices.append(Notice(kind, run.entry_name, run.due_at, whose, run.id))
        self._end([(run, *ending) for run in runs if (ending := endings[run.id])])
        expires_at = self.now + timedelta(seconds=self.settings.claim_ttl)
        self._write(claimed, claimed_by=self.beat_id, wake_at=expires_at)

    def _end(self, ended: Sequence[tuple[Row[Any], str, str]]) -> None:
        """End runs with a state and a reason, and note that they must be counted."""
        if not ended:
            return
        over = {"wake_at": self.now, "finished_at": self.now}
        ended = [(run, state, reworded(run.reason, words)) for run, state, words in ended]
        rows = [
            {"b_id": run.id, "state": state, "reason": legible(words), **over}
            for run, state, words in ended
        ]
        self.connection.execute(_END, rows)
        self.swept.uncounted += [run.id for run, _, _ in ended]
        self.swept.notices += [
            Notice(_notice_kind(run, state), run.entry_name, run.due_at, reason, run.id)
            for run, state, reason in ended
        ]

    def _is_expired(self, run: Row[Any]) -> bool:
        expires_at = run.expires_at
        return run.state == "sent" and expires_at is not None and expires_at <= self.now

    def _expire(self, runs: Sequence[Row[Any]]) -> None:
        """Cancel runs whose message expired before a worker reported a start.

        If no worker has ever reported anything, the runs may have run. They are stale once their
        timeout is over, as those whose message does not expire. Until then they are checked ever
        more seldom, and after a day no more.
        """
        if not runs:
            return
        if self.connection.execute(select(WORKER.c.id).limit(1)).first() is not None:
            self._end([(run, "cancelled", _expired_reason(run)) for run in runs])
            return
        entries = self._entries_of(runs).values()
        timeouts = {entry.id: timeout_in_force(entry, self.settings) for entry in entries}
        checks = {run.id: recheck_at(run, timeouts.get(run.entry_id), self.now) for run in runs}
        later = {number: at for number, at in checks.items() if at is None or at > self.now}
        self._mark_stale([run for run in runs if run.id not in later])
        write_checks(self.connection, later)

    def _mark_stale(self, runs: Sequence[Row[Any]]) -> None:
        """Mark runs as stale if their worker is silent; note those that were marked before.

        The first mark gives time to workers that could not report because of an outage of the
        database or a change of its clock. Their next heartbeat clears the mark.
        """
        fresh = [run for run in runs if run.state == "started" and run.claimed_by != SUSPECTED]
        stale = [run for run in runs if run.state != "started" or run.claimed_by == SUSPECTED]
        grace = timedelta(seconds=self.settings.heartbeat * MISSED_UNTIL_LOST)
        self._write(fresh, claimed_by=SUSPECTED, wake_at=self.now + grace)
        again_at = self.now + _ASKING
        self._write(stale, claimed_by=SUSPECTED, wake_at=again_at)
        self.swept.stale_runs += [
            StaleRun(run.id, run.task_id, run.entry_name, _stale_reason(run, self.now), again_at)
            for run in stale
        ]

    def _entries_of(self, runs: Sequence[Row[Any]]) -> dict[int, Row[Any]]:
        ids = {run.entry_id for run in runs}
        of_runs = _of_runs(dialect_of(self.connection.dialect))
        return {row.id: row for row in self.connection.execute(of_runs, {"ids": list(ids)})}

    def _write(self, runs: Sequence[Row[Any]], **values: Any) -> None:
        if runs:
            ids = [run.id for run in runs]
            these = dialect_of(self.connection.dialect).among(RUN.c.id, ids)
            self.connection.execute(update(RUN).where(these).values(**values))


@cache
def _of_runs(dialect: DatabaseDialect) -> Select[Any]:
    """Select what a claim takes from its entry."""
    names = ("id", "state", "wake_at", *CALL, "run_timeout_s", "overlap")
    return select(*(ENTRY.c[name] for name in names)).where(dialect.among(ENTRY.c.id))


def _notice_kind(run: Row[Any], state: str) -> str:
    """Return the kind of event to log for a run that the sweep ended."""
    if state == "failed":
        return "refused"
    return "expired" if run.state == "sent" else "cancelled"


def _expired_reason(run: Row[Any]) -> str:
    return f"expired in the queue: no worker started it by {run.expires_at:%Y-%m-%d %H:%M:%S} UTC"


def _stale_reason(run: Row[Any], now: datetime) -> str:
    if run.state == "started":
        return f"worker {run.worker} stopped sending heartbeats"
    # A slow beat marks a message as sent that a worker has had already.
    since = min(filter(None, (run.sent_at, run.started_at)), default=run.due_at)
    return f"no worker reported it within {duration(now - since)} of sending"


def _refusal(run: Row[Any], entry: Row[Any] | None) -> tuple[str, str] | None:
    """Return the state and reason of a run that must not be sent, or None."""
    if entry is None:
        return "cancelled", "entry removed before it was sent"
    if is_dropped(entry, run.reason):
        return "cancelled", f"entry {entry.state} before it was sent"
    problem = _unreadable(entry) or call_problem(entry)
    return ("failed", problem) if problem else None


def _unreadable(row: Row[Any]) -> str | None:
    problem = unreadable(row)
    return problem and f"unreadable row: {problem}"
