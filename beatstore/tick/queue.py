"""The tick's half of the store: look, plan, sweep, settle.

    look    what time is it, and when is the next row due   1 statement, no lock
    plan    due entries -> decisions -> run rows            1 transaction
    sweep   runs that nobody looks after -> claims, suspects    1 transaction, 2 with failures
    settle  what became of the messages -> the run rows     1 transaction

Any number of beats call these at once. Rows are locked with SKIP LOCKED (SQLite: one
writer at a time), so beats share the work instead of waiting for each other, and the
unique key of `run` refuses what would be a second row for one occurrence.

Invariants:
    * A run row is committed before its message may be sent.
    * Only the beat that holds a claim settles it: every later write names the claim.
    * The cost follows the rows that are due. No statement here reads a row that is not.

On failure: whatever the database raises becomes `UnavailableError`, the connection is
dropped, and the next call opens a new one. What was claimed stays claimed until it
expires, and is then sent by whichever beat sweeps first.
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
from beatstore.errors import UnavailableError
from beatstore.schedules.instants import EPOCH
from beatstore.tick import complete, settling, sweep
from beatstore.tick.beats import Upkeep
from beatstore.tick.claims import Claim, Ending, Look, Outcome, Suspect, Swept
from beatstore.tick.locks import LOCK_WAIT_S, NO_WAIT_S, held_runs
from beatstore.tick.notices import Notice, tell
from beatstore.tick.plan import CollisionError, Planner

__all__ = ["Queue"]

_UNREADABLE = literal("unreadable")


class Queue:
    """The claims of one beat.

    Args:
        database: where the rows are.
        settings: batch size, claim expiry and the defaults of the rule.
        beat_id: names this beat in `claimed_by`; at most 36 characters.
        tag: keeps the tick to entries with this tag, and their runs.

    Attributes:
        settings: as given.
        upkeep: the beat's own row, and what is done when nothing is due.
    """

    def __init__(
        self, database: Database, settings: Settings, beat_id: str, *, tag: str | None = None
    ) -> None:
        self._database = database
        self.settings = settings
        self._beat_id = beat_id
        self._planner = Planner(settings, beat_id)
        self._entries, self._runs = _tagged(ENTRY.c.id, tag), _tagged(RUN.c.entry_id, tag)
        # Made once: an idle beat does little else than asking this.
        earliest = _earliest(ENTRY, self._entries), _earliest(RUN, self._runs)
        self._asked = select(db_now(), *earliest)
        self._no_wait_until = 0.0
        self._kept = KeptConnection(database)
        self.upkeep = Upkeep(self._kept, beat_id)

    # -- the tick ---------------------------------------------------------------

    def look(self) -> Look:
        """Read the clock and the two earliest `wake_at`."""
        row = self._kept.connected_again(self._read_look)
        # A wake_at that can't be read is due, and made so: its row tells what else is wrong.
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
            The claims, in the order of their due times, and how many entries were
            decided; 0 means that other beats hold them all.

        Transaction: opens and commits its own.
        """
        limit = self.settings.batch_size
        due = and_(ENTRY.c.wake_at <= now, self._entries)
        try:
            count, claims = self._plan(due, limit, now)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001  (whatever one row did must not stop the others)
            return self._plan_one_by_one(now)
        claims.sort(key=lambda claim: claim.due_at)
        return claims, count

    def sweep(self, now: datetime) -> Swept:
        """Look at the runs whose `wake_at` has come: what nobody looks after any more.

            claimed     its claim expired, or a next attempt is due     claimed, to be sent
            started     no heartbeat of its worker                      suspected, then a suspect
            sent        not heard of within `run_timeout`               a suspect
            any other   its end is still to be counted                  counted

        A run whose entry was removed, paused or cancelled meanwhile is cancelled, with the
        reason, unless somebody asked for it by hand.

        Args:
            now: the database's time, from `look`.

        Transaction: opens and commits its own; another one counts.
        """
        try:
            return self._sweep(and_(RUN.c.wake_at <= now, self._runs), now)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001  (whatever one row did must not stop the others)
            return self._sweep_one_by_one(now)

    def end(self, endings: Sequence[Ending]) -> None:
        """Write how runs ended that no worker reported on, and what follows.

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
        """Write what became of the claims.

        A claim without an outcome stays as it is until it expires. Settling the same
        outcomes twice changes nothing, so a caller who can't know may do it again.

        Returns:
            The outcomes of runs whose rows somebody holds: settle them again later.

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
        """Give the connection back. Safe to call at any time, and again.

        Args:
            orderly: whether to end its transaction; if not, it is cut, also under a
                thread that waits on it.
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

    def _sweep(self, due: ColumnElement[bool], now: datetime) -> Swept:
        found = self._kept.claiming_again(
            lambda connection: sweep.sweep(connection, due, now, self.settings, self._beat_id)
        )
        tell(found.notices)
        if found.uncounted:
            try:
                self._kept.claiming_again(
                    lambda connection: complete.count(connection, self._database, found.uncounted)
                )
            except UnavailableError as error:
                if not contended(error.__cause__):
                    raise  # else somebody holds one of these rows: they are still due
        return found.swept

    def _sweep_one_by_one(self, now: datetime) -> Swept:
        """Sweep the same batch, each run in transactions of its own, and end what fails.

        What had been claimed before the counting failed is sent when that claim expires.
        """
        claims: list[Claim] = []
        suspects: list[Suspect] = []
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
                suspects += swept.suspects
        return Swept(claims, suspects, len(ids))

    def _wake_earliest(self, rows: Table) -> None:
        """Give the row that comes first a `wake_at` that is past, in place of what it has."""
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
        tell([Notice("refused", name, reason=reason, run_id=run_id)])

    def _due(self, rows: Table, which: ColumnElement[bool], now: datetime) -> Sequence[int]:
        """Return the ids of a batch that is due, and read nothing else of it."""
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
        """Plan in a transaction; where a due time has a run already, once more, with care."""
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
        tell(self._planner.notices)
        return planned

    def _plan_one_by_one(self, now: datetime) -> tuple[list[Claim], int]:
        """Plan the same batch, a transaction for each, and take out of service what fails.

        For rows that the driver can't even read (`infinity`, a date out of range).
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
                tell(self._planner.notices)
        return claims, len(ids)


def _tagged(entry_id: Column[int], tag: str | None) -> ColumnElement[bool]:
    """Return the condition that an entry has the tag, or none where there is no tag."""
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
