"""The API's half of shared due times: discard what upstreams did, and close old accounts.

Each function works in the open transaction it is given, in which the entry is locked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, case, delete, func, select, update
from sqlalchemy.sql.expression import null

from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, TOKEN, WAIT
from beatstore.rules.states import UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.tick.edges import NOT_SUCCEEDED
from beatstore.tick.tokens import OPEN

__all__ = ["close_account", "reset_account"]

logger = logging.getLogger(__name__)


def reset_account(tx: Transaction, ids: Iterable[int]) -> None:
    """Discard everything that the upstreams of these entries have done so far."""
    ids = list(ids)
    over = and_(WAIT.c.downstream_id.in_(ids), WAIT.c.state.in_(OPEN))
    tx.execute(update(WAIT).where(over).values(state="taken", blocked_by=null()))
    tx.execute(delete(TOKEN).where(TOKEN.c.downstream_id.in_(ids)))


def _still_under_way(tx: Transaction, entry_id: int, before: datetime) -> Sequence[Any]:
    """Return the first old due times that are still in use.

    One was recorded after `before`, as when a backlog is caught up; another belongs to a run of an
    upstream that has not ended.
    """
    mine = WAIT.c.downstream_id == entry_id
    reported = select(func.min(WAIT.c.due_at)).where(mine, WAIT.c.since >= before)
    runs = (
        select(func.min(RUN.c.due_at))
        .join(DEPENDENCY, DEPENDENCY.c.upstream_id == RUN.c.entry_id)
        .where(DEPENDENCY.c.downstream_id == entry_id, DEPENDENCY.c.align == "same")
        .where(RUN.c.state.in_(UNFINISHED), NOT_SUCCEEDED)
    )
    return [tx.execute(one).scalar() for one in (reported, runs)]


def close_account(tx: Transaction, entry: Row[Any], before: datetime) -> int:
    """Move the cursor of an entry without a schedule past its due times before `before`.

    Due times that still wait are skipped. Their rows are old enough to be deleted, so a warning in
    the log says so instead.

    Returns:
        How many rows were deleted.
    """
    mine = WAIT.c.downstream_id == entry.id
    bounds = (before, *_still_under_way(tx, entry.id, before))
    before = min(bound for bound in bounds if isinstance(bound, datetime))
    old = and_(mine, WAIT.c.due_at < before)
    still = and_(old, WAIT.c.state.in_(OPEN))
    found = tx.execute(
        select(
            func.max(WAIT.c.due_at).label("last"),
            func.min(case((still, WAIT.c.due_at))).label("first_open"),
            func.count(case((still, 1))).label("waiting"),
        ).where(old)
    ).one()
    if found.last is None:
        return 0
    if found.waiting:
        logger.warning(
            "%r skips %d due times, the first at %s: not all of its upstreams ended for them "
            "within beatstore_retention",
            *(entry.name, found.waiting, found.first_open),
        )
    passed = case((ENTRY.c.cursor_at > found.last, ENTRY.c.cursor_at), else_=found.last)
    awake = {"wake_at": EPOCH, "blocked_by": None} if found.waiting else {}
    tx.execute(update(ENTRY).where(ENTRY.c.id == entry.id).values(cursor_at=passed, **awake))
    deleted = tx.execute(delete(WAIT).where(old)).rowcount
    tx.execute(delete(TOKEN).where(TOKEN.c.downstream_id == entry.id, TOKEN.c.due_at < before))
    return deleted
