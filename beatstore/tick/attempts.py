"""The attempts of one occurrence: what counts if one is dropped, and which of them decides.

Beat makes the next attempt of a run that has failed or was lost, and a user may ask for one (a
rerun). What is known late of an attempt may take back the one after it.

Each function joins the caller's transaction, which has locked the entry.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.database.dialects import dialect_of
from beatstore.database.tables import RUN
from beatstore.rules.reasons import TRIGGERED, is_rerun, is_triggered
from beatstore.tick.claims import Ending, legible, task_id_of

__all__ = [
    "IS_COUNTED",
    "add_attempt",
    "has_cancelled_the_next",
    "is_retry",
    "neighbours",
    "note_later",
    "take_back",
]


#: Nothing is left to do for a run that has ended, but perhaps to wake who waits for it.
IS_COUNTED = or_(RUN.c.wake_at.is_(None), RUN.c.follow_up == "wake").label("is_counted")


def is_retry(run: Row[Any]) -> bool:
    """Return whether beat made a run after a failure, which counts if this run is dropped.

    Then nobody tries again, whoever has dropped it, so the failure before it is the outcome.
    `beatstore.tick.endings.NO_RETRY` is the opposite in SQL.
    """
    return run.attempt > 1 and not is_rerun(run.reason)


def neighbours(connection: Connection, run: Row[Any]) -> tuple[Row[Any] | None, Row[Any] | None]:
    """Return the attempts before and after a run, if there are any."""
    names = ("id", "attempt", "state", "reason")
    columns: list[Any] = [*(RUN.c[name] for name in names), IS_COUNTED]
    others = select(*columns).where(
        RUN.c.entry_id == run.entry_id,
        RUN.c.due_at == run.due_at,
        RUN.c.attempt.in_((run.attempt - 1, run.attempt + 1)),
    )
    found = {row.attempt: row for row in connection.execute(others)}
    return found.get(run.attempt - 1), found.get(run.attempt + 1)


def has_cancelled_the_next(run: Row[Any]) -> bool:
    """Return whether the late end of a run has cancelled the attempt after it."""
    return run.state == "succeeded" or (run.state == "cancelled" and not is_retry(run))


def take_back(connection: Connection, run: Row[Any], following: Row[Any], now: datetime) -> bool:
    """Cancel the attempt after a run; return False if it is, or was, under way."""
    waits = and_(RUN.c.state == "claimed", RUN.c.claimed_by.is_(None))
    never_sent = and_(RUN.c.sent_at.is_(None), RUN.c.worker.is_(None))
    dropped = and_(RUN.c.state == "cancelled", never_sent, RUN.c.follow_up.is_(None))
    taking = update(RUN).where(RUN.c.id == following.id, or_(waits, dropped))
    why = f"attempt {run.attempt} reported its outcome after all"
    values = {"state": "cancelled", "wake_at": null(), "finished_at": now, "reason": why}
    return connection.execute(taking.values(values)).rowcount == 1


def note_later(connection: Connection, run: Row[Any], ending: Ending) -> None:
    """Note in the reason of a run what was reported too late to count."""
    words = f"reported later: {ending.state}"
    if (run.reason or "").endswith(words):
        return  # the same report once more
    reason = f"{run.reason}; {words}" if run.reason else words
    connection.execute(update(RUN).where(RUN.c.id == run.id).values(reason=reason[:2000]))


def add_attempt(connection: Connection, run: Row[Any], wake_at: datetime, ending: Ending) -> bool:
    """Insert the next attempt, which covers the same occurrences as this one.

    Returns:
        False if a person has asked for it before this one was counted.
    """
    attempt = run.attempt + 1
    why = ending.error or ending.reason or ending.state
    words = f"attempt {attempt}, after: {why[:200]}"
    if is_triggered(run.reason):
        words = f"{TRIGGERED}; {words}"  # and no longer a rerun
    insert = dialect_of(connection.dialect).insert_counted(RUN)
    inserted = connection.execute(
        insert.values(
            entry_id=run.entry_id,
            entry_name=run.entry_name,
            due_at=run.due_at,
            attempt=attempt,
            task_id=task_id_of(run.entry_id, run.entry_created_at, run.due_at, attempt),
            state="claimed",
            reason=legible(words),
            first_missed_at=run.first_missed_at,
            missed_count=run.missed_count,
            wake_at=wake_at,
        )
    )
    return inserted.rowcount == 1
