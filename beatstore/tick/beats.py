"""The SQL of a beat's background work: its own row, wake checks, retention and time zones.

Each method opens and commits its own transaction, on the queue's connection.

On failure: as in `beatstore.tick.queue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from sqlalchemy import and_, exists, literal, or_, select, update
from sqlalchemy.engine import Connection

from beatstore.database.columns import Instant
from beatstore.database.connection import KeptConnection, read_now
from beatstore.database.dialects import dialect_of
from beatstore.database.drivers import Listener
from beatstore.database.functions import db_now
from beatstore.database.tables import BEAT, DEPENDENCY, ENTRY, RUN, chunks
from beatstore.rules.states import UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.tick.edges import ANY_DUE_TIME, OPEN, OPEN_NOT_SUCCEEDED, satisfied_by_any
from beatstore.tick.locks import free_entries

__all__ = ["BeatFigures", "Pruner", "Upkeep"]

#: A past instant that does not mark a row as just written.
_AWAKE = EPOCH + timedelta(days=2)

#: The latest valid instant.
_LAST = datetime.max.replace(tzinfo=timezone.utc)

_UP = ENTRY.alias("up")
_EDGE = DEPENDENCY.c

#: How long the row of a stopped or dead beat is kept.
KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BeatFigures:
    """A beat's figures.

    Attributes:
        tick_s: how long its last tick with work took, in seconds.
        planned: how many runs it has claimed since its start.
        sent: how many messages it has sent since its start.
        step: how it sent the latest batch, and why not by a faster step; None before the first.
    """

    tick_s: float | None
    planned: int
    sent: int
    step: str | None = None


class Pruner(Protocol):
    """Deletes old rows, a page at a time."""

    def is_due(self, now: datetime) -> bool:
        """Return whether there may be rows to delete, without querying the database."""
        ...

    def step(self, connection: Connection, now: datetime) -> bool:
        """Delete one page in the caller's transaction; return whether more is left."""
        ...


class Upkeep:
    """The SQL that a beat runs between its ticks.

    Args:
        kept: the queue's connection.
        beat_id: the id of this beat.
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
            Whether the previous beat used different time zone data, so that stored due times
            may be wrong.
        """
        others = select(BEAT.c.tzdata).where(BEAT.c.id != self._beat_id)
        row = {"id": self._beat_id, "host": host, "pid": pid, "version": version, "tzdata": tzdata}

        def write(connection: Connection) -> str | None:
            now = read_now(connection, self._database)
            latest = others.order_by(BEAT.c.started_at.desc()).limit(1)
            before: str | None = connection.scalar(latest)
            insert = dialect_of(connection.dialect).insert_ignore(BEAT)
            connection.execute(insert.values(**row, started_at=now, heartbeat_at=now))
            connection.execute(BEAT.delete().where(BEAT.c.heartbeat_at < now - KEPT))
            return before

        before = self._kept.claiming_again(write)
        return before is not None and before != tzdata

    def heartbeat(self, figures: BeatFigures) -> bool:
        """Update the beat's heartbeat and figures; return whether its row existed."""

        def write(connection: Connection) -> bool:
            written = connection.execute(
                update(BEAT)
                .where(BEAT.c.id == self._beat_id)
                .values(
                    heartbeat_at=read_now(connection, self._database),
                    stopped_at=None,
                    tick_s=figures.tick_s,
                    planned=figures.planned,
                    sent=figures.sent,
                    step=figures.step,
                )
            )
            return written.rowcount > 0

        return self._kept.claiming_again(write)

    def release(self) -> None:
        """Release the claims of this beat, so that the next sweep of any beat takes them."""
        self._kept.claiming_again(
            lambda connection: self._release(connection, read_now(connection, self._database))
        )

    def withdraw(self, *, keep: bool = True) -> None:
        """Mark this beat as stopped, and release its claims.

        The row shows when the beat stopped. The next beat reads from it which time zone data
        was used for the stored due times.

        Args:
            keep: whether to keep the row for a day, or delete it now.
        """
        mine = BEAT.c.id == self._beat_id

        def write(connection: Connection) -> None:
            now = read_now(connection, self._database)
            self._release(connection, now)
            stop = update(BEAT).where(mine).values(stopped_at=now)
            connection.execute(stop if keep else BEAT.delete().where(mine))

        self._kept.claiming_again(write)

    def _release(self, connection: Connection, now: datetime) -> None:
        """Give the claims of this beat back, due for a sweep now.

        A run that another transaction has locked stays claimed until its claim expires.
        """
        mine = (
            RUN.c.wake_at.is_not(None),
            RUN.c.state == "claimed",
            RUN.c.claimed_by == self._beat_id,
        )
        free = connection.scalars(select(RUN.c.id).where(*mine).with_for_update(skip_locked=True))
        for some in chunks(free):
            given_back = {"wake_at": now, "claimed_by": None}
            connection.execute(update(RUN).where(RUN.c.id.in_(some), *mine).values(given_back))

    # -- for all rows --------------------------------------------------------------

    def wake_forgotten(self, limit: int = 1000) -> int:
        """Wake entries whose dependencies are met already; return how many.

        There are none unless dependencies changed without a trigger: by a cascade on MySQL,
        which fires none, or after the triggers were dropped.
        """
        return self._kept.claiming_again(lambda connection: _wake_forgotten(connection, limit))

    def prune(self, pruner: Pruner, now: datetime) -> bool:
        """Delete one page of old finished rows.

        Args:
            pruner: selects and deletes the rows.
            now: the database's time.

        Returns:
            Whether more rows are left.
        """
        if not pruner.is_due(now):
            return False
        return self._kept.claiming_again(lambda connection: pruner.step(connection, now))

    def replan_zones(self, after_id: int, limit: int = 1000) -> int | None:
        """Wake a page of entries with a time zone, so that the tick recomputes their due times.

        Rows that another transaction has locked are left to the next call.

        Args:
            after_id: the last id of the previous page; 0 for the first page.
            limit: the size of the page.

        Returns:
            The last id of this page, or None after the last page.
        """
        ids, self._held_zones = self._kept.claiming_again(
            lambda connection: _replan_zones(connection, after_id, self._held_zones, limit)
        )
        if not ids and not self._held_zones:
            return None
        return ids[-1] if ids else after_id

    def listener(self) -> Listener | None:
        """Open a listener that wakes a sleeping beat early; None if the database has none."""
        return self._database.listener()


def _replan_zones(
    connection: Connection, after_id: int, held: set[int], limit: int
) -> tuple[Sequence[int], set[int]]:
    """Wake a page of entries with a zone; return the page's ids, and those that are locked.

    Args:
        connection: in a transaction.
        after_id: the last id of the previous page.
        held: the ids that were locked in previous pages.
        limit: the size of the page.
    """
    page = select(ENTRY.c.id).where(ENTRY.c.id > after_id).order_by(ENTRY.c.id).limit(limit)
    to_wake: set[int] = set()
    ids = connection.scalars(page).all()
    for some in chunks({*ids, *held}):
        zoned = select(ENTRY.c.id).where(
            dialect_of(connection.dialect).among(ENTRY.c.id, some),
            ENTRY.c.kind.in_(("cron", "rrule")),
            ENTRY.c.wake_at.is_not(None),
        )
        to_wake |= set(connection.scalars(zoned))
    free = free_entries(connection, to_wake)
    for some in chunks(free):
        these = dialect_of(connection.dialect).among(ENTRY.c.id, some)
        connection.execute(update(ENTRY).where(these).values(wake_at=EPOCH))
    return ids, to_wake - set(free)


def _wake_forgotten(connection: Connection, limit: int) -> int:
    """Wake entries that are asleep although their dependencies are met; return how many.

    Normally a completion, or an edit of an edge, wakes them. This finds edits that fired no
    trigger: deletions by a foreign key on MySQL, or a database without the triggers.
    """
    edge = and_(_EDGE.downstream_id == ENTRY.c.id, _EDGE.upstream_id == ENTRY.c.blocked_by)
    met = and_(ANY_DUE_TIME, satisfied_by_any(_UP))
    running = exists().where(
        OPEN.c.entry_id == ENTRY.c.id, OPEN.c.state.in_(UNFINISHED), OPEN_NOT_SUCCEEDED
    )
    own = ENTRY.c.blocked_by == ENTRY.c.id
    # Some sleep until a timeout, or until their end.
    sleeps = or_(ENTRY.c.wake_at.is_(None), ENTRY.c.wake_at > db_now())
    asleep = (
        select(ENTRY.c.id)
        .outerjoin(DEPENDENCY, edge)
        .outerjoin(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(
            ENTRY.c.blocked_by.is_not(None),
            sleeps,
            ENTRY.c.state == "active",
            or_(met, and_(~own, _EDGE.upstream_id.is_(None)), and_(own, ~running)),
        )
        .limit(limit)
    )
    ids = free_entries(connection, connection.scalars(asleep))
    if ids:
        still = (ENTRY.c.id.in_(ids), sleeps, ENTRY.c.state == "active")
        # As after an edit, so that each due time is checked from the beginning.
        connection.execute(update(ENTRY).where(*still).values(wake_at=EPOCH, blocked_by=None))
    # A `wake_at` such as infinity, written by hand, would never become due.
    for rows in (ENTRY, RUN):
        beyond = rows.c.wake_at > literal(_LAST, Instant())
        connection.execute(update(rows).where(beyond).values(wake_at=_AWAKE))
    return len(ids)
