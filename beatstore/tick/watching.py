"""The watch on runs that were sent: when beat looks at one of which no worker is heard.

A run that was sent is looked at when the `run_timeout` in force for its entry is over (see
`beatstore.rules.gate.run_timeout`), or when its message has expired, whichever comes first.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, bindparam, func, or_, select, update
from sqlalchemy.engine import Connection

from beatstore.config import Settings
from beatstore.database.dialects import Unreadable, among
from beatstore.database.tables import RUN
from beatstore.rules.gate import run_timeout
from beatstore.tick.claims import timeout_of
from beatstore.tick.edges import NOT_SUCCEEDED
from beatstore.tick.endings import SUSPECTED
from beatstore.tick.parts import Parts

__all__ = ["look_at", "renew", "timeout_in_force"]

#: How long after a message has expired its run is looked at: a worker may be about to say so.
_EXPIRY_MARGIN = timedelta(seconds=10)

_SET = update(RUN).where(RUN.c.id == bindparam("b_id")).values(wake_at=bindparam("b_wake_at"))


def timeout_in_force(entry: Any, settings: Settings) -> timedelta | None:
    """Return how long a run of an entry may go unheard of once it was sent; None: for ever."""
    return timeout_of(run_timeout(entry.run_timeout_s, entry.overlap, settings))


def look_at(
    since: datetime, timeout: timedelta | None, expires_at: datetime | None, now: datetime
) -> datetime | None:
    """Return when beat looks at a run that waits for a worker; None: never.

    Args:
        since: since when it waits.
        timeout: how long it may.
        expires_at: when its message is dropped.
        now: the database's time.
    """
    looks = [] if timeout is None else [since + timeout]
    if expires_at is not None:
        looks.append(max(expires_at, now) + _EXPIRY_MARGIN)
    return min(looks, default=None)


def renew(
    connection: Connection, entries: Iterable[Row[Any]], settings: Settings, now: datetime
) -> None:
    """Have the runs that were sent looked at when the entries, which were edited, say now.

    The last run of each that was sent is watched from now on. Earlier ones are only if they
    were before: what was sent while no worker could report it is not to be given up, and
    retried, by the thousand.

    Args:
        connection: in the transaction that locked the entries.
        entries: with `run_timeout_s`, `overlap` and `last_run_at`.
        settings: the settings in force.
        now: the database's time.
    """
    timeouts = {
        entry.id: timeout_in_force(entry, settings)
        for entry in entries
        if entry.last_run_at is not None
    }
    changed = []
    for run in _sent(connection, list(timeouts)) if timeouts else ():
        if Unreadable in map(type, run):
            continue  # the sweep ends it
        since = max(filter(None, (run.sent_at, Parts.read(run.parts).until)), default=now)
        wake_at = look_at(since, timeouts[run.entry_id], run.expires_at, now)
        if wake_at != run.wake_at:
            changed.append({"b_id": run.id, "b_wake_at": wake_at})
    if changed:
        connection.execute(_SET, changed)


def _sent(connection: Connection, entry_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Lock the runs of entries that wait for a worker, but for those that never were watched.

    A run that somebody holds is being reported, and is left to them.
    """
    waiting = (
        among(RUN.c.entry_id, entry_ids, connection.dialect),
        RUN.c.state == "sent",
        NOT_SUCCEEDED,
    )
    last = select(func.max(RUN.c.id)).where(*waiting).group_by(RUN.c.entry_id)
    ids = connection.scalars(last).all()
    columns = ("id", "entry_id", "sent_at", "wake_at", "expires_at", "parts")
    return connection.execute(
        select(*(RUN.c[name] for name in columns))
        .where(*waiting, or_(RUN.c.wake_at.is_not(None), RUN.c.id.in_(ids)))
        .where(or_(RUN.c.claimed_by.is_(None), RUN.c.claimed_by != SUSPECTED))
        .with_for_update(skip_locked=True)
    ).all()
