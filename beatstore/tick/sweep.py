"""Sweep runs whose `wake_at` is due: expired claims, retries, expired and stale runs.

Joins the caller's transaction, and locks only the runs that it finds. Runs to count are
returned, and counted in a separate transaction, which locks entries first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, select, update
from sqlalchemy.engine import Connection

from beatstore.config import Settings
from beatstore.database.dialects import dialect_of
from beatstore.database.tables import ENTRY, RUN, WORKER
from beatstore.rules.decide import call_problem, is_triggered
from beatstore.rules.gate import duration, run_timeout
from beatstore.rules.states import CANCELS_RUNS, RUN_STATES, UNFINISHED, WITH_WORKER
from beatstore.tick.claims import CALL, StaleRun, SweepResult, claim_of, legible, unreadable
from beatstore.tick.endings import SUSPECTED
from beatstore.tick.notices import Notice
from beatstore.tick.reports import MISSED_UNTIL_LOST
from beatstore.words import misspelt

__all__ = ["Found", "give_up", "sweep"]

#: Seconds for which a stale run is left to the beat that found it.
_ASKING = 60.0

_REFUSE = update(RUN).where(RUN.c.id == bindparam("b_id"))


@dataclass(slots=True)
class Found:
    """The result of a sweep, the runs to count, and the events to log."""

    swept: SweepResult
    uncounted: list[int] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


def sweep(
    connection: Connection,
    due: ColumnElement[bool],
    now: datetime,
    settings: Settings,
    beat_id: str,
) -> Found:
    """Lock a batch of due runs, and handle each by its state; see `Queue.sweep`."""
    runs = connection.execute(
        select(RUN)
        .where(due)
        .order_by(RUN.c.wake_at, RUN.c.id)
        .limit(settings.batch_size)
        .with_for_update(skip_locked=True)
    ).all()
    found = Found(SweepResult([], [], len(runs)))
    if not runs:
        return found
    problems = {
        run.id: _unreadable(run) or misspelt("state", run.state, RUN_STATES) for run in runs
    }
    spoiled = {run_id: problem for run_id, problem in problems.items() if problem}
    bad = [(run, "failed", spoiled[run.id]) for run in runs if run.id in spoiled]
    _refuse(connection, bad, now, found)
    runs = [run for run in runs if run.id not in spoiled]
    claimable = [run for run in runs if run.state == "claimed"]
    _send_again(connection, claimable, now, found, settings=settings, beat_id=beat_id)
    expires_at = now + timedelta(seconds=settings.claim_ttl)
    claimed = [claim.run_id for claim in found.swept.claims]
    _write(connection, claimed, claimed_by=beat_id, wake_at=expires_at)
    expired = {
        run.id: run
        for run in runs
        if run.state == "sent" and run.expires_at is not None and run.expires_at <= now
    }
    _expire(connection, expired, now, found)
    silent = [run for run in runs if run.state in WITH_WORKER and run.id not in expired]
    _mark_stale(connection, silent, now, settings.heartbeat * MISSED_UNTIL_LOST, found)
    found.uncounted += [run.id for run in runs if run.state not in UNFINISHED]
    return found


def _send_again(
    connection: Connection,
    runs: Sequence[Row[Any]],
    now: datetime,
    found: Found,
    *,
    settings: Settings,
    beat_id: str,
) -> None:
    """Claim the runs that may be sent, and end the others."""
    if not runs:
        return
    names = ("id", "state", *CALL, "run_timeout_s", "overlap")
    columns = [ENTRY.c[name] for name in names]
    these = dialect_of(connection.dialect).among(ENTRY.c.id, {run.entry_id for run in runs})
    entries = {row.id: row for row in connection.execute(select(*columns).where(these))}
    refused: list[tuple[Row[Any], str, str | None]] = []
    for run in runs:
        state, reason = _refusal(run, entries.get(run.entry_id))
        if state is None:
            entry = entries[run.entry_id]
            timeout_s = run_timeout(entry.run_timeout_s, entry.overlap, settings)
            found.swept.claims.append(claim_of(run, entry, timeout_s))
            if run.claimed_by is not None and not run.tries:  # not a retry after a failed send
                kind = "own claims" if run.claimed_by == beat_id else "claims"
                whose = f"claimed by beat {run.claimed_by}"
                found.notices.append(Notice(kind, run.entry_name, run.due_at, whose, run.id))
        else:
            refused.append((run, state, reason))
    _refuse(connection, refused, now, found)


def give_up(connection: Connection, run_id: int, now: datetime, reason: str) -> None:
    """Mark a run as failed if it can't be processed, without waking downstreams."""
    over = {"state": "failed", "reason": legible(reason), "wake_at": None, "finished_at": now}
    connection.execute(_REFUSE, [{"b_id": run_id, **over}])


def _refuse(
    connection: Connection,
    refused: Sequence[tuple[Row[Any], str, str | None]],
    now: datetime,
    found: Found,
) -> None:
    """End runs with a state and a reason, and note that they must be counted."""
    if not refused:
        return
    over = {"wake_at": now, "finished_at": now}
    rows = [
        {"b_id": run.id, "state": state, "reason": reason and legible(reason), **over}
        for run, state, reason in refused
    ]
    connection.execute(_REFUSE, rows)
    found.uncounted += [run.id for run, _, _ in refused]
    found.notices += [
        Notice(_notice_kind(run, state), run.entry_name, run.due_at, reason, run.id)
        for run, state, reason in refused
    ]


def _notice_kind(run: Row[Any], state: str) -> str:
    """Return the kind of event to log for a run that the sweep ended."""
    if state == "failed":
        return "refused"
    return "expired" if run.state == "sent" else "cancelled"


def _mark_stale(
    connection: Connection,
    runs: Sequence[Row[Any]],
    now: datetime,
    grace_s: float,
    found: Found,
) -> None:
    """Mark runs as stale if their worker is silent; return those marked before.

    `grace_s` gives time to workers that could not report because of an outage of the database
    or a change of its clock. Their next heartbeat within that time clears the mark.
    """
    fresh = [run for run in runs if run.state == "started" and run.claimed_by != SUSPECTED]
    ids = [run.id for run in fresh]
    _write(connection, ids, claimed_by=SUSPECTED, wake_at=now + timedelta(seconds=grace_s))
    given_up = [run for run in runs if run.id not in set(ids)]
    _write(
        connection,
        [run.id for run in given_up],
        claimed_by=SUSPECTED,
        wake_at=now + timedelta(seconds=_ASKING),
    )
    found.swept.stale_runs.extend(
        StaleRun(run.id, run.task_id, run.entry_name, _stale_reason(run, now)) for run in given_up
    )


def _expire(
    connection: Connection, expired: Mapping[int, Row[Any]], now: datetime, found: Found
) -> None:
    """Cancel runs whose message expired before a worker reported a start.

    If no worker has ever reported anything, the runs may have run, and are checked later.
    """
    if not expired:
        return
    if connection.execute(select(WORKER.c.id).limit(1)).first() is None:
        _write(connection, list(expired), wake_at=now + timedelta(seconds=_ASKING))
        return
    ended = [(run, "cancelled", _expired_reason(run)) for run in expired.values()]
    _refuse(connection, ended, now, found)


def _expired_reason(run: Row[Any]) -> str:
    return f"expired in the queue: no worker started it by {run.expires_at:%Y-%m-%d %H:%M:%S} UTC"


def _stale_reason(run: Row[Any], now: datetime) -> str:
    if run.state == "started":
        return f"worker {run.worker} stopped sending heartbeats"
    since = run.sent_at or run.due_at
    return f"no worker reported it within {duration(now - since)} of sending"


def _write(connection: Connection, ids: Sequence[int], **values: Any) -> None:
    if ids:
        these = dialect_of(connection.dialect).among(RUN.c.id, ids)
        connection.execute(update(RUN).where(these).values(**values))


def _refusal(run: Row[Any], entry: Row[Any] | None) -> tuple[str | None, str | None]:
    """Return the state and reason of a run that must not be sent, or (None, None)."""
    if entry is None:
        return "cancelled", "entry removed before it was sent"
    if entry.state in CANCELS_RUNS and not is_triggered(run.reason):
        return "cancelled", f"entry {entry.state} before it was sent"
    problem = _unreadable(entry) or call_problem(entry)
    return ("failed", problem) if problem else (None, None)


def _unreadable(row: Row[Any]) -> str | None:
    problem = unreadable(row)
    return problem and f"unreadable row: {problem}"
