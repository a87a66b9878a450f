"""Record run outcomes: write each once, then retry, count and wake downstreams.

    the run's row -> its outcome -> a next attempt, or the entry's counters -> its downstreams

all in one transaction of the caller.

Invariants:
    * An occurrence is counted once, by its final outcome: the row of a run that has ended
      is not written again, and a failure with attempts left is not final.
    * Locks are taken upstream first, entries in the order of their ids: the completed
      entries, then their downstreams (see `beatstore.tick.wake`).
    * Nobody waits long for a lock. If another transaction has locked an entry, the outcome is
      written anyway, and `follow_up` on the run says what is left to do; the sweep does it
      when the entry is free.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, literal, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.database.columns import Instant, Unreadable
from beatstore.database.connection import KeptConnection
from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.functions import NOW
from beatstore.database.tables import ENTRY, RUN
from beatstore.rules.reasons import is_rerun
from beatstore.rules.retries import retry_delay
from beatstore.rules.states import DROPPED, MAY_END, UNFINISHED, WITH_WORKER
from beatstore.tick.attempts import (
    IS_COUNTED,
    add_attempt,
    has_cancelled_the_next,
    is_retry,
    neighbours,
    note_later,
    take_back,
)
from beatstore.tick.claims import Ending
from beatstore.tick.counted import write_counted
from beatstore.tick.edges import outcome_of
from beatstore.tick.endings import HELD, SUSPECTED, UnwrittenEndings, is_reported, write_ending
from beatstore.tick.locks import LOCK_WAIT_MS, LOCK_WAIT_S, lock_later, lock_runs
from beatstore.tick.notices import Notice
from beatstore.tick.wake import Tally, count_and_wake

__all__ = ["count", "finish", "finish_alone", "finish_kept"]

_OF_RUN = (
    *("id", "entry_id", "due_at", "attempt", "state", "reason", "error", "sent_at"),
    *("first_missed_at", "missed_count", "follow_up", "task_id", "claimed_by", "worker"),
)


# -- the statements, compiled once: a worker executes them for each task ---------------

_IDS: Any = bindparam("ids", expanding=True)

#: Runs joined to their entries, with the database's time.
_ROWS = (
    select(
        NOW.label("now"),
        *(RUN.c[name] for name in _OF_RUN),
        IS_COUNTED,
        outcome_of(RUN).label("outcome"),
        *(ENTRY.c[name].label(f"entry_{name}") for name in ("state", "name", "created_at")),
        *(ENTRY.c[name] for name in ("blocked_by", "max_retries", "retry_delay_s")),
        *(ENTRY.c[name] for name in ("retry_backoff", "retry_jitter_s")),
    )
    .join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
    .where(RUN.c.id.in_(_IDS))
    .order_by(ENTRY.c.id, RUN.c.id)
)
_LOCK = _ROWS.with_for_update(of=ENTRY, skip_locked=True)


def finish(
    connection: Connection, database: Database, endings: Sequence[Ending], *, patience: float
) -> UnwrittenEndings:
    """Record how runs ended, and what follows; runs that have ended already stay as they are.

    Args:
        connection: in the caller's transaction, which has locked the runs.
        database: provides the clock.
        endings: at most one for each run.
        patience: how many seconds to wait for locked entries. Those still locked after that
            are left for later.

    Returns:
        The endings that were not written.
    """
    by_id = {(ending.run_id, ending.task_id): ending for ending in endings}
    ids = {run_id for run_id, _ in by_id}
    unwritten, tally = UnwrittenEndings(), Tally()
    found, now = _lock(connection, database, ids)
    rest = ids - {row.id for row in found}
    if rest:
        of_held = _of_entries(connection, rest)
        found += lock_later(lambda some: _locked(connection, database, some), of_held, patience)
        rest -= {row.id for row in found}
        for ending in (one for one in endings if one.run_id in rest):
            if ending.run_id in of_held:
                if not _leave_for_sweep(connection, of_held[ending.run_id], ending, now):
                    unwritten.held.append(ending)
            elif not _finish_removed(connection, ending, now):
                unwritten.unknown.append(ending)
    for row in _as_they_are(connection, database, found):
        if (row.id, row.task_id) in by_id:
            _finish_one(connection, row, by_id[row.id, row.task_id], now, tally)
    task_ids = {row.id: row.task_id for row in found}
    unwritten.unknown += [
        one for one in endings if task_ids.get(one.run_id, one.task_id) != one.task_id
    ]
    count_and_wake(connection, database, tally, now, patience=patience)
    return unwritten


def finish_alone(
    connection: Connection, database: Database, endings: Sequence[Ending], *, patience: float
) -> set[int]:
    """Record the ends that only count, without locking the runs before; see `tick/counted`.

    Args:
        connection: in the caller's transaction.
        database: provides the clock.
        endings: at most one for each run.
        patience: how many seconds to wait for locked downstreams.

    Returns:
        The ids of the runs whose ends were written. `finish` records the others.
    """
    written, waited_for = write_counted(connection, database, endings)
    if waited_for:
        tally = Tally()
        rows, now = _lock(connection, database, waited_for)
        for row in rows:
            tally.wake_again(row)
        count_and_wake(connection, database, tally, now, patience=patience)
    return written


def finish_kept(kept: KeptConnection, endings: Sequence[Ending]) -> list[Notice]:
    """Run `finish` in its own transaction; runs that are locked are left to the sweep.

    A run is lost only if its row is as the sweep that found it stale has left it: whatever a
    worker, another beat or a user has written since decides.

    Returns:
        The runs that are lost, for the log.

    Raises:
        UnavailableError: the database did not answer.
    """

    def finishing(connection: Connection) -> list[Notice]:
        held = lock_runs(connection, [ending.run_id for ending in endings], LOCK_WAIT_S)
        free = [ending for ending in endings if ending.run_id not in held]
        silent = _silent(connection, [one.run_id for one in free if one.state == "lost"])
        lost = [one for one in free if one.state == "lost" and (one.run_id, one.wake_at) in silent]
        known = [one for one in free if one.state != "lost"]
        finish(connection, kept.database, [*known, *lost], patience=LOCK_WAIT_S)
        return [
            Notice("lost", silent[one.run_id, one.wake_at], reason=one.reason, run_id=one.run_id)
            for one in lost
        ]

    return kept.claiming_again(finishing)


def _silent(
    connection: Connection, run_ids: Sequence[int]
) -> dict[tuple[int, datetime | None], str]:
    """Return the names of the runs that are stale still, by id and `wake_at`; they are locked."""
    if not run_ids:
        return {}
    stale = select(RUN.c.id, RUN.c.wake_at, RUN.c.entry_name).where(
        RUN.c.id.in_(run_ids), RUN.c.state.in_(WITH_WORKER), RUN.c.claimed_by == SUSPECTED
    )
    return {(row.id, row.wake_at): row.entry_name for row in connection.execute(stale)}


def count(connection: Connection, database: Database, ids: Iterable[int]) -> None:
    """Count runs that have ended and still have a `wake_at`, and wake their downstreams.

    The tick itself has ended the runs without a `follow_up`. To downstreams, these are failures:
    an occurrence that was skipped because of its upstream, a message that could not be sent, and
    a retry that was cancelled. Runs whose entry is locked are swept again after `HELD`.
    """
    tally = Tally()
    ids = list(ids)
    dialect_of(connection.dialect).limit_lock_wait(connection, LOCK_WAIT_MS)
    rows, now = _lock(connection, database, ids)
    for row in rows:
        if row.state in WITH_WORKER:
            continue  # a worker has its message anyway, and will report how it ends
        counted = update(RUN).where(RUN.c.id == row.id, RUN.c.wake_at.is_not(None))
        counted = counted.where(RUN.c.state == row.state)
        if not connection.execute(counted.values(wake_at=null(), follow_up=null())).rowcount:
            continue
        if row.follow_up == "end":
            ending = Ending(row.id, row.task_id, row.state, row.reason, row.error)
            _follow(connection, row, ending, now, tally)
        elif row.follow_up == "wake":
            tally.wake_again(row)
        else:
            tally.add(row, "failure" if row.outcome == "failure" or is_retry(row) else None)
    rest = set(ids) - {row.id for row in rows}
    if rest:
        of_held = _of_entries(connection, rest)
        # Nothing follows from the end of a run whose entry was removed.
        nothing = {"wake_at": null(), "follow_up": null()}
        for some, values in (
            (rest - of_held.keys(), nothing),
            (of_held.keys(), {"wake_at": literal(now + HELD, Instant())}),
        ):
            if some:
                later = update(RUN).where(RUN.c.id.in_(some), RUN.c.wake_at.is_not(None))
                # A worker may have started one since.
                later = later.where(RUN.c.state.not_in(WITH_WORKER))
                connection.execute(later.values(values))
    count_and_wake(connection, database, tally, now, patience=0.0)


def _of_entries(connection: Connection, ids: Collection[int]) -> dict[int, Row[Any]]:
    """Return the runs among these whose entries exist."""
    runs = select(*(RUN.c[name] for name in ("id", "task_id", "state")))
    joined = runs.join(ENTRY, ENTRY.c.id == RUN.c.entry_id).where(RUN.c.id.in_(ids))
    return {row.id: row for row in connection.execute(joined)}


def _lock(
    connection: Connection, database: Database, ids: Iterable[int]
) -> tuple[list[Row[Any]], datetime]:
    """Lock the entries of runs, skipping locked ones; return the joined rows and the time."""
    rows = _locked(connection, database, ids)
    if rows:
        return rows, max(row.now for row in rows)
    return [], connection.execute(select(database.now_sql())).scalar_one()


def _locked(connection: Connection, database: Database, ids: Iterable[int]) -> list[Row[Any]]:
    return list(connection.execute(_LOCK, {"ids": list(ids)} | database.given_now()).all())


def _as_they_are(
    connection: Connection, database: Database, found: Iterable[Row[Any]]
) -> Iterator[Row[Any]]:
    """Yield locked rows; one after another attempt of its occurrence is read again.

    The late success of an attempt cancels the next one.
    """
    seen: set[tuple[int, datetime]] = set()
    for row in found:
        known = (row.entry_id, row.due_at) in seen
        seen.add((row.entry_id, row.due_at))
        yield from _locked(connection, database, [row.id]) if known else [row]


def _leave_for_sweep(connection: Connection, run: Row[Any], ending: Ending, now: datetime) -> bool:
    """Write the outcome of a run whose entry is locked; return False to try again later."""
    if run.state not in UNFINISHED:
        return bool(run.state == "succeeded")  # the other late reports need the entry
    if run.task_id == ending.task_id:
        write_ending(connection, ending, now, MAY_END, follow_up="end")
    return True


def _finish_removed(connection: Connection, ending: Ending, now: datetime) -> bool:
    """Write the outcome of a run whose entry was removed, so that nothing depends on it.

    Returns:
        False if there is no such run, or if it has ended, or another attempt decides.
    """
    of_run = select(RUN).where(RUN.c.id == ending.run_id, RUN.c.task_id == ending.task_id)
    run = connection.execute(of_run).first()
    is_last = run is not None and neighbours(connection, run)[1] is None
    return write_ending(connection, ending, now, MAY_END | {"lost"} if is_last else MAY_END)


def _finish_one(
    connection: Connection, run: Row[Any], ending: Ending, now: datetime, tally: Tally
) -> None:
    if run.state == "lost" and run.follow_up == "end":
        # Marked lost while its entry was locked, and not counted yet: count this outcome instead.
        _finish_uncounted(connection, run, ending, now, tally, states=("lost",))
        return
    if _is_counted(run):
        _finish_late(connection, run, ending, now, tally, state=run.state)
        return
    if run.state == "skipped" and run.claimed_by is None:
        return  # there was no message
    # A run that beat or a user has ended as failed, and that is not counted yet, is counted as its
    # worker reports.
    corrected = run.state == "failed" and not run.is_counted and not is_reported(run)
    states = MAY_END | {"failed"} if corrected else MAY_END
    if _finish_uncounted(connection, run, ending, now, tally, states=states):
        return
    if ending.state != "lost" and _is_lost_by_now(connection, run.id):
        _finish_late(connection, run, ending, now, tally, state="lost")


def _finish_uncounted(
    connection: Connection,
    run: Row[Any],
    ending: Ending,
    now: datetime,
    tally: Tally,
    *,
    states: Collection[str],
) -> bool:
    """Write the outcome of a run that is in one of `states`, and count it; return whether it is.

    After a success, a rerun that somebody has asked for meanwhile is not sent any more.
    """
    if not write_ending(connection, ending, now, states):
        return False
    if ending.state == "succeeded" and run.state not in UNFINISHED:
        following = neighbours(connection, run)[1]
        if following is not None:
            take_back(connection, run, following, now)
    _follow(connection, run, ending, now, tally)
    return True


def _is_lost_by_now(connection: Connection, run_id: int) -> bool:
    """Lock a run, and return whether it was marked lost while we waited for its entry."""
    found = select(RUN.c.state).where(RUN.c.id == run_id).with_for_update()
    return connection.scalar(found) == "lost"


def _is_counted(run: Row[Any]) -> bool:
    """Return whether a run has ended and counts as a failure, before its worker reports."""
    if run.state == "lost":
        return True
    dropped = run.state in DROPPED and is_retry(run)
    by_us = run.state == "failed" and not is_reported(run)
    return bool(run.is_counted) and (dropped or by_us)


def _follow(
    connection: Connection, run: Row[Any], ending: Ending, now: datetime, tally: Tally
) -> None:
    """Do what follows from an outcome: a next attempt, or a count."""
    if ending.state == "succeeded":
        tally.add(run, "success")
    elif ending.state == "cancelled":
        tally.add(run, "failure" if is_retry(run) else None)
    else:
        delay = None if run.entry_state == "cancelled" else retry_delay(run, run.id, run.attempt)
        is_retried = (
            delay is not None
            and Unreadable not in map(type, run)
            and add_attempt(connection, run, now + delay, ending)
        )
        if not is_retried:
            tally.add(run, "failure")


def _finish_late(
    connection: Connection,
    run: Row[Any],
    ending: Ending,
    now: datetime,
    tally: Tally,
    *,
    state: str,
) -> None:
    """Record the late outcome of a run that beat had ended, unless another attempt decides."""
    before, following = neighbours(connection, run)
    if state == "cancelled" and before is not None and has_cancelled_the_next(before):
        _finish_needless(connection, run, ending, now, tally, before=before)
        return
    # A next attempt that was dropped leaves the failure, which may be counted by now.
    counted = (
        following is None
        or is_rerun(following.reason)
        or (following.state == "cancelled" and following.is_counted)
    )
    if counted and ending.state == "cancelled":
        # The failure is counted. A row that says `cancelled` would say that nothing is.
        note_later(connection, run, ending)
        return
    if following is None or ending.state == "failed":
        # It was counted as a failure when beat ended it, or its next attempt will be counted.
        if write_ending(connection, ending, now, (state,)):
            if run.follow_up == "wake":
                tally.wake_again(run)
            if ending.state == "succeeded":
                tally.add(run, "late success")
        return
    if not take_back(connection, run, following, now):
        note_later(connection, run, ending)
    elif write_ending(connection, ending, now, (state,)):
        if counted:
            tally.add(run, "late success")
        else:
            _follow(connection, run, ending, now, tally)


def _finish_needless(
    connection: Connection,
    run: Row[Any],
    ending: Ending,
    now: datetime,
    tally: Tally,
    *,
    before: Row[Any],
) -> None:
    """Record the end of a run that the late end of the attempt before it has cancelled.

    A success is the outcome of the occurrence. A cancelled attempt is none, so this end counts.
    """
    if before.state == "succeeded" or ending.state == "cancelled":
        note_later(connection, run, ending)
    elif write_ending(connection, ending, now, ("cancelled",)):
        _follow(connection, run, ending, now, tally)
