"""Completions: what became of runs, counted once, and whoever waits for it woken.

    the run's row -> its outcome -> a next attempt, or the entry's counters -> its downstreams

all in the one transaction of the caller.

Invariants:
    * An occurrence is counted once, by its final outcome: the row of a run that has ended
      is not written again, and a failure with attempts left is not final.
    * Locks are taken upstream first, entries in the order of their ids: the completed
      entries, then their downstreams. A beat that looks at a downstream holds its row, so it
      either sees the count, or is seen waiting and woken.
    * Only a downstream that this completion may set free is written; the rest are only
      locked for the moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, func, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.decide import TRIGGERED, retry_delay
from beatstore.dialects import CHANNEL, Instant, Unreadable, db_now, insert_ignore
from beatstore.store.database.engine import Database
from beatstore.store.tick.claims import DEPENDENCY, ENTRY, RUN, legible, task_id_of

__all__ = ["ERROR_LENGTH", "SUSPECTED", "Ending", "count", "finish"]

#: States from which a report may end a run. One that was cancelled or skipped may have been
#: on its way all the same.
_OPEN = ("claimed", "sent", "started", "cancelled", "skipped")

#: What `claimed_by` says of a run that no worker has spoken of for too long.
SUSPECTED = "suspected"

#: How long a text of an error is kept: its beginning, and of a traceback the end.
ERROR_LENGTH = 2000
TRACEBACK_LENGTH = 20_000

_CHUNK = 1000

_WAITING = ("id", "state", "kind", "blocked_by", "pending_due_at", "wake_at")


@dataclass(frozen=True, slots=True)
class Ending:
    """How one run ended.

    Attributes:
        run_id: which run.
        task_id: of that run; without it this would end the same number's in another database.
        state: succeeded, failed, lost or cancelled.
        reason: why, in words.
        error: the exception, in one line.
        traceback: and where it came from.
        worker: who says so.
        age_s: how long ago it was, in seconds.
        ran_s: how long it took, in seconds, where that is known.
    """

    run_id: int
    task_id: str
    state: str
    reason: str | None = None
    error: str | None = None
    traceback: str | None = None
    worker: str | None = None
    age_s: float = 0.0
    ran_s: float | None = None


@dataclass(slots=True)
class _Tally:
    """What the completions of one transaction add up to, by entry."""

    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    freed: set[int] = field(default_factory=set)

    def add(self, entry: Row[Any], *counters: str) -> None:
        """Count a final outcome; without counters it only frees the entry itself."""
        counts = self.counts.setdefault(entry.entry_id, dict.fromkeys(_COUNTERS, 0))
        for counter in counters:
            counts[counter] += 1
        if "failure_seq" in counters:
            self.failed.add(entry.entry_id)
        if entry.blocked_by == entry.entry_id and entry.entry_state == "active":
            self.freed.add(entry.entry_id)


_COUNTERS = ("success_seq", "failure_seq", "done_seq")
_SUCCESS = ("success_seq", "done_seq")
_FAILURE = ("failure_seq", "done_seq")

# -- the statements, made once: a worker executes them for each of its tasks ---------------

_IDS: Any = bindparam("ids", expanding=True)

#: The entries of runs, locked, and both in rows, with the time.
_LOCK = (
    select(
        func.coalesce(bindparam("now", type_=Instant()), db_now(), type_=Instant()).label("now"),
        *(RUN.c[name] for name in ("id", "entry_id", "due_at", "attempt", "state", "reason")),
        *(RUN.c[name] for name in ("task_id", "claimed_by", "worker")),
        RUN.c.wake_at.is_(None).label("settled"),
        *(ENTRY.c[name].label(f"entry_{name}") for name in ("state", "name", "created_at")),
        *(ENTRY.c[name] for name in ("blocked_by", "max_retries", "retry_delay_s")),
        *(ENTRY.c[name] for name in ("retry_backoff", "retry_jitter_s")),
    )
    .join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
    .where(RUN.c.id.in_(_IDS))
    .order_by(ENTRY.c.id, RUN.c.id)
    .with_for_update(of=ENTRY)
)

_WRITE = (
    update(RUN)
    .where(
        RUN.c.id == bindparam("b_id"),
        RUN.c.task_id == bindparam("b_task_id"),
        RUN.c.state.in_(bindparam("b_states", expanding=True)),
    )
    .values(
        wake_at=null(),
        **{
            name: bindparam(f"b_{name}", type_=RUN.c[name].type)
            for name in ("state", "finished_at", "error", "traceback")
        },
        **{
            name: func.coalesce(bindparam(f"b_{name}", type_=RUN.c[name].type), RUN.c[name])
            for name in ("reason", "worker", "started_at")
        },
    )
)

_COUNT = (
    update(ENTRY)
    .where(ENTRY.c.id == bindparam("b_id"))
    .values({name: ENTRY.c[name] + bindparam(f"b_{name}") for name in _COUNTERS})
)

_EDGES = select(
    *(DEPENDENCY.c[name] for name in ("upstream_id", "downstream_id", "align")),
    DEPENDENCY.c.on_upstream_failure,
).where(DEPENDENCY.c.upstream_id.in_(_IDS))

_LOCK_DOWNSTREAMS = (
    select(*(ENTRY.c[name] for name in _WAITING))
    .where(ENTRY.c.id.in_(_IDS))
    .order_by(ENTRY.c.id)
    .with_for_update()
)


def finish(connection: Connection, database: Database, endings: Sequence[Ending]) -> list[Ending]:
    """Write how runs ended, and what follows; a run that has ended already is left alone.

    Returns:
        The endings that were not written because no row was found: the run has ended and its
        entry is removed, or it is not here at all.
    """
    by_id = {(ending.run_id, ending.task_id): ending for ending in endings}
    tally = _Tally()
    found, now = _lock(connection, database, [run_id for run_id, _ in by_id])
    rows = [row for row in found if (row.id, row.task_id) in by_id]
    for row in rows:
        _finish_one(connection, row, by_id[row.id, row.task_id], now, tally)
    # The runs of an entry that was removed have nobody to tell.
    orphans = by_id.keys() - {(row.id, row.task_id) for row in rows}
    left = [key for key in orphans if not _write(connection, by_id[key], now, _OPEN)]
    _publish(connection, tally, now)
    return [by_id[key] for key in left]


def count(connection: Connection, database: Database, ids: Iterable[int]) -> None:
    """Count what the tick has ended by itself: rows that are over and still have a `wake_at`.

    An occurrence that was given up for its upstream, a message that could not be sent, and
    a next attempt that was cancelled are failures to whoever waits for them.
    """
    tally = _Tally()
    ids = list(ids)
    rows, now = _lock(connection, database, ids)
    for row in rows:
        if row.state in ("sent", "started"):
            continue  # a worker has its message all the same, and tells how it ends
        counted = update(RUN).where(RUN.c.id == row.id, RUN.c.wake_at.is_not(None))
        counted = counted.where(RUN.c.state == row.state).values(wake_at=null())
        if connection.execute(counted).rowcount:
            fails = row.state in ("failed", "skipped") or row.attempt > 1
            tally.add(row, *(_FAILURE if fails else ()))
    orphans = [run_id for run_id in ids if run_id not in {row.id for row in rows}]
    if orphans:
        connection.execute(update(RUN).where(RUN.c.id.in_(orphans)).values(wake_at=null()))
    _publish(connection, tally, now)


def _lock(
    connection: Connection, database: Database, ids: Iterable[int]
) -> tuple[list[Row[Any]], datetime]:
    """Lock the entries of runs, and return both in rows, and the time."""
    clock = database.clock
    given = {"ids": list(ids), "now": None if clock is None else clock.now()}
    rows = connection.execute(_LOCK, given).all()
    if rows:
        return list(rows), max(row.now for row in rows)
    return [], connection.execute(select(database.now_sql())).scalar_one()


def _finish_one(
    connection: Connection, run: Row[Any], ending: Ending, now: datetime, tally: _Tally
) -> None:
    if ending.state == "lost" and (run.state == "lost" or not _still_suspected(connection, ending)):
        return  # it was heard of, just now, or is lost already
    if _is_counted(run):
        _finish_late(connection, run, ending, now, tally)
        return
    if run.state == "skipped" and run.claimed_by is None:
        return  # there was no message
    # What beat has called failed, and not counted yet, is counted as its worker says.
    states = (*_OPEN, "failed") if run.state == "failed" and not run.settled else _OPEN
    if _write(connection, ending, now, states):
        _follow(connection, run, ending, now, tally)


def _is_counted(run: Row[Any]) -> bool:
    """Say whether beat has ended and counted a run, not knowing what its worker says now."""
    if run.state == "lost":
        return True
    by_beat = run.worker is None and bool(run.settled)
    return by_beat and (run.state == "failed" or (run.state == "cancelled" and run.attempt > 1))


def _still_suspected(connection: Connection, ending: Ending) -> bool:
    """Lock a run, and say whether still nobody has spoken of it."""
    of_run = select(RUN.c.id).where(RUN.c.id == ending.run_id, RUN.c.task_id == ending.task_id)
    suspected = of_run.where(RUN.c.claimed_by == SUSPECTED)
    found = connection.execute(suspected.with_for_update()).first()
    return found is not None


def _follow(
    connection: Connection, run: Row[Any], ending: Ending, now: datetime, tally: _Tally
) -> None:
    """Do what follows from an outcome: a next attempt, or a count."""
    if ending.state == "succeeded":
        tally.add(run, *_SUCCESS)
    elif ending.state == "cancelled":
        tally.add(run)
    else:
        delay = None if run.entry_state == "cancelled" else retry_delay(run, run.id, run.attempt)
        if delay is None or Unreadable in map(type, run):
            tally.add(run, *_FAILURE)
        else:
            _add_attempt(connection, run, now + delay, ending)


def _finish_late(
    connection: Connection, run: Row[Any], ending: Ending, now: datetime, tally: _Tally
) -> None:
    """Take the outcome of a run that was given up, unless its next attempt decides."""
    following = connection.execute(
        select(RUN.c.id, RUN.c.state, RUN.c.claimed_by).where(
            RUN.c.entry_id == run.entry_id,
            RUN.c.due_at == run.due_at,
            RUN.c.attempt == run.attempt + 1,
        )
    ).first()
    if following is None or ending.state == "failed":
        # It was counted as a failure when it was given up, or its next attempt will be.
        if _write(connection, ending, now, (run.state,)) and ending.state == "succeeded":
            tally.add(run, "success_seq")
        return
    waiting = (
        update(RUN)
        .where(RUN.c.id == following.id, RUN.c.state == "claimed", RUN.c.claimed_by.is_(None))
        .values(
            state="cancelled",
            wake_at=null(),
            finished_at=now,
            reason=f"attempt {run.attempt} was heard of after all",
        )
    )
    if connection.execute(waiting).rowcount:
        if _write(connection, ending, now, (run.state,)):
            _follow(connection, run, ending, now, tally)
    else:
        words = f"was heard of later: {ending.state}"
        reason = f"{run.reason}; {words}" if run.reason else words
        connection.execute(update(RUN).where(RUN.c.id == run.id).values(reason=reason[:2000]))


def _write(connection: Connection, ending: Ending, now: datetime, states: Sequence[str]) -> bool:
    """Write an outcome to a run that is in one of `states`; say whether it was."""
    finished_at = now - _span(ending.age_s)
    given = {
        "b_id": ending.run_id,
        "b_task_id": ending.task_id,
        "b_states": list(states),
        "b_state": ending.state,
        "b_finished_at": finished_at,
        "b_error": legible(ending.error, ERROR_LENGTH) if ending.error else None,
        "b_traceback": _end(ending.traceback),
        "b_reason": legible(ending.reason, ERROR_LENGTH) if ending.reason else None,
        "b_worker": legible(ending.worker, 255) if ending.worker else None,
        "b_started_at": None if ending.ran_s is None else finished_at - _span(ending.ran_s),
    }
    return connection.execute(_WRITE, given).rowcount == 1


def _add_attempt(connection: Connection, run: Row[Any], wake_at: datetime, ending: Ending) -> None:
    attempt = run.attempt + 1
    why = ending.error or ending.reason or ending.state
    words = f"attempt {attempt}, after: {why[:200]}"
    triggered = (run.reason or "").startswith(TRIGGERED)
    connection.execute(
        insert_ignore(RUN, connection.dialect).values(
            entry_id=run.entry_id,
            entry_name=run.entry_name,
            due_at=run.due_at,
            attempt=attempt,
            task_id=task_id_of(run.entry_id, run.entry_created_at, run.due_at, attempt),
            state="claimed",
            reason=legible(f"{TRIGGERED}; {words}" if triggered else words),
            wake_at=wake_at,
        )
    )


# -- who is told ---------------------------------------------------------------------------


def _publish(connection: Connection, tally: _Tally, now: datetime) -> None:
    """Count for the entries, and wake whoever may have waited for that."""
    counted = {key: counts for key, counts in tally.counts.items() if any(counts.values())}
    if counted:
        connection.execute(
            _COUNT,
            [
                {"b_id": key, **{f"b_{name}": value for name, value in counted[key].items()}}
                for key in sorted(counted)
            ],
        )
    woken = set(tally.freed)
    if counted:
        woken |= _waiting(connection, counted.keys(), tally.failed, now)
    ordered = sorted(woken)
    for at in range(0, len(ordered), _CHUNK):
        chunk = ENTRY.c.id.in_(ordered[at : at + _CHUNK])
        connection.execute(update(ENTRY).where(chunk).values(wake_at=now))
    if woken and connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(CHANNEL, "")))


def _waiting(
    connection: Connection, completed: Iterable[int], failed: set[int], now: datetime
) -> set[int]:
    """Lock the downstreams of these entries; return those that this may set free."""
    completed = set(completed)
    edges = connection.execute(_EDGES, {"ids": list(completed)}).all()
    # These look at every completion, the others at the one that they know they wait for.
    eager = {
        edge.downstream_id
        for edge in edges
        if edge.align == "same"
        or (edge.on_upstream_failure == "skip" and edge.upstream_id in failed)
    }
    ordered = sorted({edge.downstream_id for edge in edges})
    woken: set[int] = set()
    for at in range(0, len(ordered), _CHUNK):
        # By their ids alone: what else is asked may be changing under a beat's hands, and is
        # true only of the row that was waited for.
        rows = connection.execute(_LOCK_DOWNSTREAMS, {"ids": ordered[at : at + _CHUNK]})
        woken |= {
            row.id
            for row in rows
            if row.state == "active"
            and (row.kind == "after" or row.pending_due_at is not None)
            and (row.blocked_by is None or row.blocked_by in completed or row.id in eager)
            and (row.wake_at is None or row.wake_at > now)
        }
    return woken


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=max(0.0, seconds))


def _end(text: str | None) -> str | None:
    """Return the last part of a text, which of a traceback says most."""
    if text is None:
        return None
    cut = "…" if len(text) > TRACEBACK_LENGTH else ""
    return cut + legible(text[-TRACEBACK_LENGTH:], TRACEBACK_LENGTH)
