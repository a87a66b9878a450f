"""The upkeep of one beat: its own row, and what it does for all rows when nothing is due.

Each method opens and commits a transaction of its own, on the connection of the queue.

On failure: as in `beatstore.tick.queue`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from beatstore.database.connection import KeptConnection, read_now
from beatstore.database.dialects import dialect_of
from beatstore.database.drivers import Listener
from beatstore.database.tables import BEAT, ENTRY, RUN, chunks
from beatstore.schedules.instants import EPOCH
from beatstore.tick import gates
from beatstore.tick.claims import BeatFigures
from beatstore.tick.locks import free_entries

__all__ = ["Pruner", "Upkeep"]

#: How long the row of a beat that was stopped, or died, is kept.
KEPT = timedelta(days=1)


class Pruner(Protocol):
    """What deletes old rows, a page at a time."""

    def is_due(self, now: datetime) -> bool:
        """Say whether there may be something to delete, without asking the database."""
        ...

    def step(self, connection: Connection, now: datetime) -> bool:
        """Delete one page in the caller's transaction; return whether more is left."""
        ...


class Upkeep:
    """What a beat does beside its ticks.

    Args:
        kept: the connection of its queue.
        beat_id: names this beat.
    """

    def __init__(self, kept: KeptConnection, beat_id: str) -> None:
        self._kept = kept
        self._database = kept.database
        self._beat_id = beat_id
        self._held_zones: set[int] = set()

    # -- the beat's own row ------------------------------------------------------

    def introduce(self, *, host: str, pid: int, version: str, tzdata: str) -> bool:
        """Write this beat's row.

        Returns:
            Whether the beat that started last before this one used other zone data, so
            that cached due times may be wrong.
        """
        others = select(BEAT.c.tzdata).where(BEAT.c.id != self._beat_id)
        with self._kept.claiming() as connection:
            now = read_now(connection, self._database)
            before = connection.scalar(others.order_by(BEAT.c.started_at.desc()).limit(1))
            insert = dialect_of(connection.dialect).insert_ignore(BEAT)
            connection.execute(
                insert.values(
                    id=self._beat_id,
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

    def heartbeat(self, figures: BeatFigures) -> bool:
        """Write that this beat is alive, and what it did; return whether its row was there."""
        with self._kept.claiming() as connection:
            written = connection.execute(
                update(BEAT)
                .where(BEAT.c.id == self._beat_id)
                .values(
                    heartbeat_at=read_now(connection, self._database),
                    stopped_at=None,
                    tick_s=figures.tick_s,
                    planned=figures.planned,
                    sent=figures.sent,
                )
            )
        return written.rowcount > 0

    def release(self) -> None:
        """Leave the claims of this beat to whoever sweeps first, be it this one."""
        with self._kept.claiming() as connection:
            self._release(connection, read_now(connection, self._database))

    def withdraw(self, *, keep: bool = True) -> None:
        """Write that this beat was stopped in order, and leave its claims to the others.

        The row tells a person when beat was stopped, and the next beat under which zone
        data the due times were made.

        Args:
            keep: keep the row for a while; without it, nothing says that there was this beat.
        """
        mine = BEAT.c.id == self._beat_id
        with self._kept.claiming() as connection:
            now = read_now(connection, self._database)
            self._release(connection, now)
            stop = update(BEAT).where(mine).values(stopped_at=now)
            connection.execute(stop if keep else BEAT.delete().where(mine))

    def _release(self, connection: Connection, now: datetime) -> None:
        """Have the claims of this beat swept by whoever comes first.

        One that a transaction of the application holds stays until it expires.
        """
        mine = (
            RUN.c.wake_at.is_not(None),
            RUN.c.state == "claimed",
            RUN.c.claimed_by == self._beat_id,
        )
        free = connection.scalars(select(RUN.c.id).where(*mine).with_for_update(skip_locked=True))
        for some in chunks(free):
            connection.execute(update(RUN).where(RUN.c.id.in_(some), *mine).values(wake_at=now))

    # -- for all rows --------------------------------------------------------------

    def wake_forgotten(self, limit: int = 1000) -> int:
        """Wake entries that wait for what is there already; return how many.

        There are none, unless dependencies were edited behind beatstore's back: by a
        cascade on MySQL, which fires no trigger, or with the triggers gone.
        """
        return self._kept.claiming_again(lambda connection: gates.wake_forgotten(connection, limit))

    def prune(self, pruner: Pruner, now: datetime) -> bool:
        """Delete one page of what is over and old.

        Args:
            pruner: what knows which rows those are.
            now: the database's time.

        Returns:
            Whether more is left; False: nothing, for an hour.
        """
        if not pruner.is_due(now):
            return False
        return self._kept.claiming_again(lambda connection: pruner.step(connection, now))

    def replan_zones(self, after_id: int, limit: int = 1000) -> int | None:
        """Have the next `limit` entries that follow a zone looked at, whatever `wake_at` says.

        What a transaction of the application holds is left to the next call.

        Args:
            after_id: where the last call ended; 0 to begin.
            limit: how many rows are read.

        Returns:
            Where this call ended, or None when there are no more.
        """
        page = select(ENTRY.c.id).where(ENTRY.c.id > after_id).order_by(ENTRY.c.id).limit(limit)
        wanted: set[int] = set()
        with self._kept.claiming() as connection:
            ids = connection.scalars(page).all()
            for some in chunks({*ids, *self._held_zones}):
                zoned = select(ENTRY.c.id).where(
                    dialect_of(connection.dialect).among(ENTRY.c.id, some),
                    ENTRY.c.kind.in_(("cron", "rrule")),
                    ENTRY.c.wake_at.is_not(None),
                )
                wanted |= set(connection.scalars(zoned))
            free = free_entries(connection, wanted)
            for some in chunks(free):
                these = dialect_of(connection.dialect).among(ENTRY.c.id, some)
                connection.execute(update(ENTRY).where(these).values(wake_at=EPOCH))
        self._held_zones = wanted - set(free)
        if not ids and not self._held_zones:
            return None
        return ids[-1] if ids else after_id

    def listener(self) -> Listener | None:
        """Open what wakes a sleeping beat early, or None where there is no such thing."""
        return self._database.listener()
