"""The rows of workers, and their heartbeats for the runs that they execute.

Joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import case, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql.expression import null

from beatstore.database.dialects import dialect_of
from beatstore.database.tables import RUN, WORKER
from beatstore.tick.endings import SUSPECTED
from beatstore.tick.locks import lock_runs
from beatstore.tick.parts import Parts
from beatstore.version import __version__

__all__ = ["NOT_SUSPECTED", "Origin", "heartbeat", "keep_alive", "withdraw"]

#: The value of `claimed_by` that clears the mark of a stale run.
NOT_SUSPECTED = case((RUN.c.claimed_by != SUSPECTED, RUN.c.claimed_by), else_=null())


class Origin(NamedTuple):
    """The run, and the part of it, that a message belongs to.

    Attributes:
        run_id: the run's id.
        task_id: the run's task id, since other databases have runs with the same id.
        part: the task of a canvas; see `beatstore.tick.parts`.
    """

    run_id: int
    task_id: str
    part: str | None = None


def keep_alive(connection: Connection, running: Sequence[Origin], wake_at: datetime) -> None:
    """Extend the deadline of the runs that a worker is executing."""
    alive = [one for one in running if one.part is None]
    alive += _open(connection, [one for one in running if one.part is not None])
    if alive:
        held = lock_runs(connection, [one.run_id for one in alive], 0.0)
        alive = [one for one in alive if one.run_id not in held]
    if alive:
        living = update(RUN).where(*_among(alive), RUN.c.state == "started")
        connection.execute(living.values(wake_at=wake_at, claimed_by=NOT_SUSPECTED))


def heartbeat(
    connection: Connection, worker_id: str, now: datetime, *, name: str, pid: int, running: int
) -> None:
    """Update the heartbeat of a worker, and insert its row if necessary."""
    values = {"heartbeat_at": now, "stopped_at": None, "running": running}
    beat = update(WORKER).where(WORKER.c.id == worker_id).values(values)
    if not connection.execute(beat).rowcount:
        insert = dialect_of(connection.dialect).insert_ignore(WORKER)
        connection.execute(
            insert.values(
                id=worker_id,
                name=name[:255],
                pid=pid,
                version=__version__,
                started_at=now,
                **values,
            )
        )


def withdraw(connection: Connection, worker_id: str, now: datetime) -> None:
    """Mark a worker as stopped; its row stays, to show that a worker has reported."""
    of_worker = update(WORKER).where(WORKER.c.id == worker_id)
    connection.execute(of_worker.values(stopped_at=now, running=0))


def _open(connection: Connection, running: Sequence[Origin]) -> list[Origin]:
    """Return the parts that are running according to their runs."""
    if not running:
        return []
    found = connection.execute(select(RUN.c.id, RUN.c.task_id, RUN.c.parts).where(*_among(running)))
    parts = {(row.id, row.task_id): Parts.read(row.parts).open for row in found}
    return [one for one in running if one.part in parts.get((one.run_id, one.task_id), ())]


def _among(running: Sequence[Origin]) -> tuple[Any, Any]:
    """Return the conditions that select these runs."""
    ids, task_ids = {one.run_id for one in running}, {one.task_id for one in running}
    return RUN.c.id.in_(ids), RUN.c.task_id.in_(task_ids)
