"""The rows of the beats themselves; each function joins the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from beatstore.database.dialects import among, insert_ignore
from beatstore.database.tables import BEAT, ENTRY, RUN, chunks
from beatstore.schedules.instants import EPOCH
from beatstore.tick.claims import BeatFigures
from beatstore.tick.locks import free_entries

__all__ = ["heartbeat", "introduce", "release", "replan_zones", "withdraw"]

#: How long the row of a beat that was stopped, or died, is kept.
KEPT = timedelta(days=1)


def introduce(
    connection: Connection,
    beat_id: str,
    now: datetime,
    *,
    host: str,
    pid: int,
    version: str,
    tzdata: str,
) -> bool:
    """Write a beat's row, and say whether the last beat before it used other zone data."""
    before = connection.scalar(
        select(BEAT.c.tzdata)
        .where(BEAT.c.id != beat_id)
        .order_by(BEAT.c.started_at.desc())
        .limit(1)
    )
    connection.execute(
        insert_ignore(BEAT, connection.dialect).values(
            id=beat_id,
            host=host,
            pid=pid,
            version=version,
            tzdata=tzdata,
            started_at=now,
            heartbeat_at=now,
        )
    )
    connection.execute(BEAT.delete().where(BEAT.c.heartbeat_at < now - KEPT))
    return before is not None and before != tzdata


def heartbeat(connection: Connection, beat_id: str, now: datetime, figures: BeatFigures) -> bool:
    """Say that a beat is alive, and what it did; return whether its row was there."""
    written = connection.execute(
        update(BEAT)
        .where(BEAT.c.id == beat_id)
        .values(
            heartbeat_at=now,
            stopped_at=None,
            tick_s=figures.tick_s,
            planned=figures.planned,
            sent=figures.sent,
        )
    )
    return written.rowcount > 0


def withdraw(connection: Connection, beat_id: str, now: datetime, *, keep: bool) -> None:
    """Write that a beat was stopped in order, and leave its claims to the others, at once.

    Its row stays for a while, if it is to be kept: a person reads when beat was stopped, and
    the next beat under which zone data the due times were made.
    """
    release(connection, beat_id, now)
    mine = BEAT.c.id == beat_id
    connection.execute(
        update(BEAT).where(mine).values(stopped_at=now) if keep else BEAT.delete().where(mine)
    )


def release(connection: Connection, beat_id: str, now: datetime) -> None:
    """Leave the claims that a beat holds to whoever comes first, at once.

    One that a transaction of the application holds stays until it expires.
    """
    mine = (RUN.c.wake_at.is_not(None), RUN.c.state == "claimed", RUN.c.claimed_by == beat_id)
    free = connection.scalars(select(RUN.c.id).where(*mine).with_for_update(skip_locked=True))
    for some in chunks(free):
        connection.execute(update(RUN).where(RUN.c.id.in_(some), *mine).values(wake_at=now))


def replan_zones(
    connection: Connection, after_id: int, limit: int, held: Collection[int]
) -> tuple[int | None, set[int]]:
    """Have the next `limit` entries that follow a zone looked at, whatever `wake_at` says.

    Args:
        connection: in a transaction that the caller commits.
        after_id: where the last call ended.
        limit: how many rows are read.
        held: the ids of those that somebody held in the last call.

    Returns:
        Where this call ended, or None when there are no more, and what is held now.
    """
    ids = connection.scalars(
        select(ENTRY.c.id).where(ENTRY.c.id > after_id).order_by(ENTRY.c.id).limit(limit)
    ).all()
    wanted: set[int] = set()
    for some in chunks({*ids, *held}):
        zoned = select(ENTRY.c.id).where(
            among(ENTRY.c.id, some, connection.dialect),
            ENTRY.c.kind.in_(("cron", "rrule")),
            ENTRY.c.wake_at.is_not(None),
        )
        wanted |= set(connection.scalars(zoned))
    free = free_entries(connection, wanted)
    for some in chunks(free):
        these = among(ENTRY.c.id, some, connection.dialect)
        connection.execute(update(ENTRY).where(these).values(wake_at=EPOCH))
    still_held = wanted - set(free)
    if not ids and not still_held:
        return None, still_held
    return (ids[-1] if ids else after_id), still_held
