"""The transactions of a tick: look, plan, sweep, settle.

    look    read the time and when the next row is due      1 statement, no lock
    plan    turn due entries into runs                      1 transaction
    sweep   find expired claims, retries and stale runs     1 transaction, 2 with failures
    settle  write the outcomes of messages to the runs      1 transaction

Any number of beats call these at the same time. They lock rows with SKIP LOCKED (SQLite: one
writer at a time), so beats share the work and do not wait for each other. The unique key of
`run` prevents a second row for one occurrence.

Invariants:
    * A run is committed before its message may be sent.
    * Only the beat that holds a claim settles it: every later write checks the claim.
    * The cost depends on the number of due rows. No statement here reads other rows.

On failure: database errors become `UnavailableError`, the connection is dropped, and the next
call opens a new one. Claims stay until they expire; then the first beat that sweeps sends them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, literal, select, true, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from beatstore.config import Settings
from beatstore.database.connection import KeptConnection, read_now
from beatstore.database.engine import Database
from beatstore.database.faults import contended, unavailable
from beatstore.database.functions import db_now
from beatstore.database.tables import ENTRY, RUN, TAG
from beatstore.errors import CollisionError, UnavailableError
from beatstore.schedules.instants import EPOCH
from beatstore.tick import complete, settling, sweep
from beatstore.tick.beats import Upkeep
from beatstore.tick.claims import Claim, Ending, Look, Outcome, StaleRun, SweepResult
from beatstore.tick.locks import LOCK_WAIT_S, NO_WAIT_S, held_runs
from beatstore.tick.notices import Notice, log_notices
from beatstore.tick.plan import Planner

__all__ = ["Queue"]

_UNREADABLE = literal("unreadable")


class Queue:
    """The claims of one beat.

    Args:
        database: the database.
        settings: batch size, claim expiry and defaults of the rule.
        beat_id: the id of this beat in `claimed_by`; at most 36 characters.
        tag: only handle entries with this tag, and their runs.

    Attributes:
        settings: as given.
        upkeep: the SQL of the beat's background work.
    """

    def __init__(
        self, database: Database, settings: Settings, beat_id: str, *, tag: str | None = None
    ) -> None:
        self._database = database
        self.settings = settings
        self._beat_id = beat_id
        self._planner = Planner(settings, beat_id)
        self._entries, self._runs = _tagged(ENTRY.c.id, tag), _tagged(RUN.c.entry_id, tag)
        # Built once, since an idle beat mostly runs this query.
        earliest = _earliest(ENTRY, self._entries), _earliest(RUN, self._runs)
        self._asked = select(db_now(), *earliest)
        self._no_wait_until = 0.0
        self._kept = KeptConnection(database)
        self.upkeep = Upkeep(self._kept, beat_id)

    # -- the tick ---------------------------------------------------------------

    def look(self) -> Look:
        """Read the database's time, and the earliest `wake_at` of entries and of runs."""
        row = self._kept.connected_again(self._read_look)
        # An unreadable wake_at is due, and overwritten; planning finds other problems.
        unreadable = [isinstance(at, str) for at in row[1:]]
        for rows, spoiled in zip((ENTRY, RUN), unreadable, strict=True):
            if spoiled:
                self._wake_earliest(rows)
        at = [EPOCH if spoiled else at for at, spoiled in zip(row[1:], unreadable, strict=True)]
        clock = self._database.clock
        return Look(row[0] if clock is None else clock.now(), *at)

    def plan(self, now: datetime) -> tuple[list[Claim], int]:
        """Decide the entries due at `now`, and claim the runs they get.

        Args:
            now: the database's time, from `look`.

        Returns:
            The claims in the order of their due times, and the number of decided entries; 0
            means that other beats have locked all of them.

        Transaction: opens and commits its own.
        """
        limit = self.settings.batch_size
        due = and_(ENTRY.c.wake_at <= now, self._entries)
        try:
            count, claims = self._plan(due, limit, now)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001  (one bad row must not stop the others)
            return self._plan_one_by_one(now)
        claims.sort(key=lambda claim: claim.due_at)
        return claims, count

    def sweep(self, now: datetime) -> SweepResult:
        """Handle the runs whose `wake_at` is due.

            claimed     its claim expired, or a next attempt is due     claim it, to be sent
            started     no heartbeat of its worker                      mark it; return it next time
            sent        no worker reported within `run_timeout`         return it as stale
            any other   its end is not counted yet                      count it

        If the entry was removed, paused or cancelled meanwhile, a claimed run is cancelled with
        the reason, unless it was triggered by hand.

        Args:
            now: the database's time, from `look`.

        Transaction: opens and commits its own; counting uses a second one.
        """
        try:
            return self._sweep(and_(RUN.c.wake_at <= now, self._runs), now)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001  (one bad row must not stop the others)
            return self._sweep_one_by_one(now)

    def end(self, endings: Sequence[Ending]) -> None:
        """Record how runs ended that no worker reported on.

        Transaction: opens and commits its own.
        """
        try:
            complete.finish_kept(self._kept, endings)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  (as in sweep)
            if len(endings) == 1:
                self._give_up(endings[0].run_id, error)
                return
            for ending in endings:
                self.end([ending])

    def settle(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write the outcomes of claims to their runs.

        A claim without an outcome stays until it expires. Writing the same outcomes twice
        changes nothing, so a caller may repeat a call whose result is unknown.

        Returns:
            The outcomes of runs that are locked: write them again later.

        Transaction: opens and commits its own.
        """
        return self._kept.claiming_again(lambda connection: self._settle(connection, outcomes))

    def _settle(self, connection: Connection, outcomes: Sequence[Outcome]) -> list[Outcome]:
        patience = LOCK_WAIT_S if time.monotonic() >= self._no_wait_until else 0.0
        ids = held_runs(connection, [item.claim.run_id for item in outcomes], patience)
        held = [item for item in outcomes if item.claim.run_id in ids]
        if held:
            self._no_wait_until = time.monotonic() + NO_WAIT_S
            outcomes = [item for item in outcomes if item.claim.run_id not in ids]
        settling.settle(connection, self._database, self._beat_id, outcomes)
        return held

    def close(self, *, orderly: bool = True) -> None:
        """Release the connection. Safe to call at any time, and more than once.

        Args:
            orderly: whether to end the transaction first; otherwise cut the connection, even
                if another thread waits on it.
        """
        self._kept.drop(orderly=orderly)

    # -- steps -------------------------------------------------------------------------

    def _read_look(self, connection: Connection) -> Any:
        try:
            row = connection.execute(self._asked).one()
        except (ValueError, OverflowError, DBAPIError) as error:
            if unavailable(error):
                raise
            connection.rollback()
            row = connection.execute(select(db_now(), _UNREADABLE, _UNREADABLE)).one()
        connection.rollback()
        return row

    def _sweep(self, due: ColumnElement[bool], now: datetime) -> SweepResult:
        found = self._kept.claiming_again(
            lambda connection: sweep.sweep(connection, due, now, self.settings, self._beat_id)
        )
        log_notices(found.notices)
        if found.uncounted:
            try:
                self._kept.claiming_again(
                    lambda connection: complete.count(connection, self._database, found.uncounted)
                )
            except UnavailableError as error:
                if not contended(error.__cause__):
                    raise  # a locked row stays due for the next sweep
        return found.swept

    def _sweep_one_by_one(self, now: datetime) -> SweepResult:
        """Sweep the same batch, each run in its own transaction, and end the runs that fail.

        Runs that were claimed before an error are sent when their claims expire.
        """
        claims: list[Claim] = []
        stale_runs: list[StaleRun] = []
        ids = self._due(RUN, self._runs, now)
        for run_id in ids:
            try:
                swept = self._sweep(RUN.c.id == run_id, now)
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001  (as in sweep)
                self._give_up(run_id, error)
            else:
                claims += swept.claims
                stale_runs += swept.stale_runs
        return SweepResult(claims, stale_runs, len(ids))

    def _wake_earliest(self, rows: Table) -> None:
        """Overwrite the earliest `wake_at` of a table with a past instant."""
        first = select(rows.c.id).where(rows.c.wake_at.is_not(None)).order_by(rows.c.wake_at)
        with self._kept.claiming() as connection:
            earliest = connection.scalar(first.limit(1))
            connection.execute(update(rows).where(rows.c.id == earliest).values(wake_at=EPOCH))

    def _give_up(self, run_id: int, error: Exception) -> None:
        with self._kept.claiming() as connection:
            now = read_now(connection, self._database)
            reason = f"unreadable row: {error}"
            sweep.give_up(connection, run_id, now, reason)
            name = connection.scalar(select(RUN.c.entry_name).where(RUN.c.id == run_id))
        log_notices([Notice("refused", name, reason=reason, run_id=run_id)])

    def _due(self, rows: Table, which: ColumnElement[bool], now: datetime) -> Sequence[int]:
        """Return the ids of a due batch, without reading any other column."""
        with self._kept.claiming() as connection:
            return connection.scalars(
                select(rows.c.id)
                .where(rows.c.wake_at <= now, which)
                .order_by(rows.c.wake_at, rows.c.id)
                .limit(self.settings.batch_size)
            ).all()

    def _plan(
        self, which: ColumnElement[bool], limit: int, now: datetime
    ) -> tuple[int, list[Claim]]:
        """Plan in one transaction; if a due time has a run already, plan again carefully."""
        try:
            planned = self._kept.claiming_again(
                lambda connection: self._planner.plan_where(connection, which, limit, now)
            )
        except CollisionError:
            planned = self._kept.claiming_again(
                lambda connection: self._planner.plan_where(
                    connection, which, limit, now, careful=True
                )
            )
        log_notices(self._planner.notices)
        return planned

    def _plan_one_by_one(self, now: datetime) -> tuple[list[Claim], int]:
        """Plan the same batch, each entry in its own transaction, and mark failing ones broken.

        This is for rows that the driver can't read (`infinity`, a date out of range).
        """
        ids = self._due(ENTRY, self._entries, now)
        claims: list[Claim] = []
        for entry_id in ids:
            this = ENTRY.c.id == entry_id
            try:
                claims += self._plan(this, 1, now)[1]
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001  (as in plan)
                with self._kept.claiming() as connection:
                    self._planner.notices = []
                    self._planner.quarantine(connection, entry_id, f"unreadable row: {error}")
                log_notices(self._planner.notices)
        return claims, len(ids)


def _tagged(entry_id: Column[int], tag: str | None) -> ColumnElement[bool]:
    """Return the condition that an entry has the tag; always true without a tag."""
    if tag is None:
        return true()
    return entry_id.in_(select(TAG.c.entry_id).where(TAG.c.tag == tag))


def _earliest(table: Table, which: ColumnElement[bool]) -> Any:
    return (
        select(table.c.wake_at)
        .where(table.c.wake_at.is_not(None), which)
        .order_by(table.c.wake_at)
        .limit(1)
        .scalar_subquery()
    )
