"""Whether a run may start, for the start-once guard.

Joins the caller's transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Interval, bindparam, func, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.functions import NOW
from beatstore.database.tables import RUN
from beatstore.rules.states import NOT_STARTED
from beatstore.tick.report import Report, seconds_since
from beatstore.tick.workers import NOT_SUSPECTED

__all__ = ["is_followed", "start_free"]

#: Locks the run, if it may start and no other transaction has locked it.
_FREE = (
    select(RUN.c.id, NOW.label("now"))
    .where(RUN.c.id == bindparam("b_id"), RUN.c.task_id == bindparam("b_task_id"))
    .where(or_(*(RUN.c.state == state for state in sorted(NOT_STARTED))))
    .with_for_update(skip_locked=True)
    .cte("free")
)

_START = (
    update(RUN)
    .where(RUN.c.id == _FREE.c.id)
    .values(
        state="started",
        finished_at=null(),
        claimed_by=NOT_SUSPECTED,
        worker=bindparam("b_worker"),
        started_at=_FREE.c.now - bindparam("b_age", type_=Interval()),
        wake_at=_FREE.c.now + bindparam("b_silence", type_=Interval()),
    )
    .returning(RUN.c.started_at)
)


def start_free(
    connection: Connection, database: Database, report: Report, silence: timedelta
) -> datetime | None:
    """Mark a run as started that no worker has started and no other transaction has locked.

    It is one statement.

    Args:
        connection: in the caller's transaction.
        database: provides the clock.
        report: of state `started`.
        silence: how long the run may go without a heartbeat.

    Returns:
        When it was started; None if it was not marked, or if the database has no such statement.
    """
    if not dialect_of(connection.dialect).writes_in_queries:
        return None
    row = {
        "b_id": report.of.run_id,
        "b_task_id": report.of.task_id,
        "b_worker": report.worker[:255],
        "b_age": timedelta(seconds=seconds_since(report.at)),
        "b_silence": silence,
        **database.given_now(),
    }
    at: datetime | None = connection.scalar(_START, row)
    return at


def is_followed(connection: Connection, run: Any) -> bool:
    """Return whether there is a later attempt of the same occurrence."""
    later = select(func.count()).select_from(RUN)
    same = (RUN.c.entry_id == run.entry_id, RUN.c.due_at == run.due_at)
    return bool(connection.scalar(later.where(*same, RUN.c.attempt > run.attempt)))
