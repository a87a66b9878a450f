"""Mark a run as started by one statement, for the start-once guard.

Joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Executable,
    Interval,
    String,
    and_,
    bindparam,
    func,
    select,
    update,
)
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.sql.expression import null

from beatstore.database.columns import Instant
from beatstore.database.dialects import dialect_of
from beatstore.database.engine import Database
from beatstore.database.functions import db_now
from beatstore.database.tables import RUN
from beatstore.rules.states import NOT_STARTED
from beatstore.tick.report import Report, seconds_since
from beatstore.tick.workers import NOT_SUSPECTED

__all__ = ["start_free"]

_GIVEN: dict[str, Any] = {
    "b_id": BigInteger(),
    "b_task_id": String(),
    "b_worker": String(),
    "b_age": Interval(),
    "b_silence": Interval(),
}

_Write = tuple[Executable, Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]]


def start_free(
    connection: Connection, database: Database, report: Report, silence: timedelta
) -> datetime | None:
    """Mark a run as started that no worker has started and no other transaction has locked.

    Args:
        connection: in the caller's transaction.
        database: provides the clock.
        report: of state `started`.
        silence: how long the run may go without a heartbeat.

    Returns:
        When it was started; None if it was not marked, or if the database takes no rows as one
        parameter.
    """
    write = _write(connection.dialect)
    if write is None:
        return None
    statement, parameters = write
    row = {
        "b_id": report.of.run_id,
        "b_task_id": report.of.task_id,
        "b_worker": report.worker[:255],
        "b_age": f"{seconds_since(report.at):.6f} seconds",
        "b_silence": f"{silence.total_seconds():.6f} seconds",
    }
    now = None if database.clock is None else database.clock.now()
    at: datetime | None = connection.scalar(statement, parameters([row]) | {"now": now})
    return at


@lru_cache
def _write(dialect: Dialect) -> _Write | None:
    given = dialect_of(dialect).given_rows(dialect, _GIVEN)
    if given is None:
        return None
    one = given.table.c
    now = func.coalesce(bindparam("now", type_=Instant()), db_now(), type_=Instant())
    free = (
        select(RUN.c.id, now.label("now"), one.b_worker, one.b_age, one.b_silence)
        .join_from(given.table, RUN, and_(RUN.c.id == one.b_id, RUN.c.task_id == one.b_task_id))
        .where(RUN.c.state.in_(sorted(NOT_STARTED)))
        .with_for_update(of=RUN, skip_locked=True)
        .cte("free")
    )
    values = {
        "state": "started",
        "finished_at": null(),
        "claimed_by": NOT_SUSPECTED,
        "worker": free.c.b_worker,
        "started_at": free.c.now - free.c.b_age,
        "wake_at": free.c.now + free.c.b_silence,
    }
    started = update(RUN).where(RUN.c.id == free.c.id).values(values).returning(RUN.c.started_at)
    return started, given.parameters
