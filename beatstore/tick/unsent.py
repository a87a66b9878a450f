"""Mark runs that were not sent: they are tried again, given back, or over.

Every write checks the beat's claim, as in `beatstore.tick.mark`.

Joins the caller's transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from beatstore.database.tables import ENTRY, RUN
from beatstore.schedules.instants import EPOCH
from beatstore.tick.claims import Outcome, legible
from beatstore.tick.endings import reworded_reason

__all__ = ["mark_unsent"]


def mark_unsent(connection: Connection, beat_id: str, items: list[Outcome], now: datetime) -> None:
    """Write the same outcome to several claims that were not sent."""
    one, ids = items[0], [item.claim.run_id for item in items]
    next_at = now + timedelta(seconds=one.retry_in)
    # The sweep counts what is over, if it counts, and wakes what waits for it.
    values: dict[str, Any] = {
        "state": one.state,
        "finished_at": None if one.state == "claimed" else now,
        "wake_at": next_at,
    }
    if one.state == "claimed" and (one.tries or not one.retry_in):
        values["claimed_by"] = None  # it is given back; other claims are prolonged
    if one.tries:
        values["tries"] = one.tries
    if one.reason:
        values["reason"] = reworded_reason(legible(one.reason))
    mine = (RUN.c.state == "claimed", RUN.c.claimed_by == beat_id)
    connection.execute(update(RUN).where(RUN.c.id.in_(ids), *mine).values(values))
    if one.state == "claimed" and one.tries:
        _look_later(connection, ids, next_at)


def _look_later(connection: Connection, run_ids: list[int], at: datetime) -> None:
    """Delay the entries of runs until the runs are retried.

    Otherwise each occurrence meanwhile would become another run that can't be sent. Delayed,
    they are missed, and the misfire policy decides about them.
    """
    # Others are another beat's by now, or have been started: their messages have arrived after all.
    given_back = (RUN.c.state == "claimed", RUN.c.wake_at == at)
    of_runs = select(RUN.c.entry_id).where(RUN.c.id.in_(run_ids), *given_back)
    # The wake_at of a row that was just edited is special, and stays.
    planned = ENTRY.c.wake_at > EPOCH + timedelta(days=3)
    early = (ENTRY.c.id.in_(of_runs), ENTRY.c.state == "active", planned, ENTRY.c.wake_at < at)
    # Locked entries are skipped: they keep their wake_at.
    free = select(ENTRY.c.id).where(*early).with_for_update(skip_locked=True, of=ENTRY)
    ids = connection.scalars(free).all()
    if ids:
        connection.execute(update(ENTRY).where(ENTRY.c.id.in_(ids)).values(wake_at=at))
