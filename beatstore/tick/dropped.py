"""Messages that a worker dropped before their tasks began.

A broker may deliver a message twice, and beat may send one twice. While a worker executes the first
one, what becomes of the second one is not how the run ends.

Joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import exists, select
from sqlalchemy.engine import Connection

from beatstore.database.connection import read_now
from beatstore.database.engine import Database
from beatstore.database.tables import RUN, WORKER
from beatstore.tick.parts import Parts
from beatstore.tick.report import Report
from beatstore.tick.workers import Origin

__all__ = ["without_dropped"]

#: Whether a worker lives that has reported on the run.
_IS_ALIVE = exists().where(WORKER.c.name == RUN.c.worker, WORKER.c.stopped_at.is_(None))


def without_dropped(
    connection: Connection, database: Database, reports: Sequence[Report], silence: timedelta
) -> list[Report]:
    """Return reports without those of dropped messages whose runs a living worker executes.

    Args:
        connection: in the caller's transaction, which has locked the runs.
        database: provides the clock.
        reports: any reports.
        silence: a worker that has sent no heartbeat for so long is taken for dead.
    """
    ids = {report.of.run_id for report in reports if report.dropped}
    if not ids:
        return [*reports]
    is_alive = _IS_ALIVE.where(WORKER.c.heartbeat_at > read_now(connection, database) - silence)
    executed = select(RUN.c.id, RUN.c.task_id, RUN.c.parts).where(
        RUN.c.id.in_(ids), RUN.c.state == "started", is_alive
    )
    rows = connection.execute(executed).all()
    begun = {Origin(row.id, row.task_id) for row in rows}
    for row in rows:
        begun |= {Origin(row.id, row.task_id, part) for part in Parts.read(row.parts).open}
    return [report for report in reports if not (report.dropped and report.of in begun)]
