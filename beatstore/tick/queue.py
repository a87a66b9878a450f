"""The transactions of a tick: look, plan, sweep, mark.

    look    read the time and when the next row is due      1 statement, no lock
    plan    turn due entries into runs                      1 transaction
    sweep   find expired claims, retries and stale runs     1 transaction, 2 with failures
    mark    write the outcomes of messages to the runs      1 transaction

Any number of beats call these at the same time. They lock rows with SKIP LOCKED (SQLite: one
writer at a time), so beats share the work and do not wait for each other. The unique key of
`run` prevents a second row for one occurrence.

Invariants:
    * A run is committed before its message may be sent.
    * Only the beat that holds a claim marks its run: every later write checks the claim.
    * The cost depends on the number of due rows. No statement here reads other rows.

On failure: database errors become `UnavailableError`, the connection is dropped, and the next
call opens a new one. Claims stay until they expire; then the first beat that sweeps sends them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, bindparam, literal, select, true, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from beatstore.config import Settings
from beatstore.database.columns import Instant
from beatstore.database.connection import PatientConnection, read_now
from beatstore.database.engine import Database
from beatstore.database.faults import contended, unavailable, withheld
from beatstore.database.functions import db_now, fenced
from beatstore.database.tables import ENTRY, RUN, TAG
from beatstore.errors import CollisionError, UnavailableError
from beatstore.schedules.instants import EPOCH
from beatstore.tick import complete, mark, sweep
from beatstore.tick.beats import Upkeep
from beatstore.tick.claims import Claim, Ending, Look, Outcome
from beatstore.tick.locks import LOCK_WAIT_S, NO_WAIT_S, lock_runs
from beatstore.tick.notices import Notice, log_notices
from beatstore.tick.plan import Planner, quarantine
from beatstore.tick.sweep import Swept

__all__ = ["FIRST_BATCH", "Queue"]

#: How many rows the first transaction of a burst claims.
FIRST_BATCH = 100

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
        limit: the most rows that the next transaction claims; see `Tick`.
        upkeep: the SQL of the beat's background work.
    """

    def __init__(
        self, database: Database, settings: Settings, beat_id: str, *, tag: str | None = None
    ) -> None:
        self._database = database
        self.settings = settings
        self.limit = min(FIRST_BATCH, settings.batch_size)
        self._beat_id = beat_id
        self._planner = Planner(settings, beat_id)
        mine = {ENTRY: _tagged(ENTRY.c.id, tag), RUN: _tagged(RUN.c.entry_id, tag)}
        now = fenced(bindparam("now", type_=Instant()))
        self._due = {rows: and_(rows.c.wake_at <= now, which) for rows, which in mine.items()}
        # Built once, since an idle beat mostly runs this query.
        earliest = [_earliest(rows, which) for rows, which in mine.items()]
        self._look_statement = select(db_now(), *earliest)
        self._no_wait_until = 0.0
        self._kept = PatientConnection(database)
        self.upkeep = Upkeep(self._kept, beat_id)

    # -- the tick ---------------------------------------------------------------

    def look(self) -> Look:
        """Read the database's time, and the earliest `wake_at` of entries and of runs."""
        row = self._kept.reading_again(self._read_look)
        at = list(row[1:])
        for number, rows in enumerate((ENTRY, RUN)):
            if isinstance(at[number], str):
                # An unreadable wake_at is due, and overwritten; planning finds other problems.
                self._wake_earliest(rows)
                at[number] = EPOCH
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
        claims: list[Claim] = []
        plan = partial(self._plan, claims, now)
        count = self._together_or_alone(ENTRY, now, plan, self._quarantine)
        claims.sort(key=lambda claim: claim.due_at)
        return claims, count

    def sweep(self, now: datetime) -> Swept:
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
        swept = Swept()
        sweep = partial(self._sweep, swept, now)
        swept.count = self._together_or_alone(RUN, now, sweep, self._give_up)
        return swept

    def end(self, endings: Sequence[Ending]) -> None:
        """Record how runs ended that no worker reported on.

        Transaction: opens and commits its own.
        """
        try:
            lost = complete.finish_kept(self._kept, endings)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  (as in sweep)
            if len(endings) == 1:
                self._give_up(endings[0].run_id, f"unreadable row: {error}")
                return
            for ending in endings:
                self.end([ending])
        else:
            log_notices(lost)

    def mark(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write the outcomes of claims to their runs.

        A claim without an outcome stays until it expires. Writing the same outcomes twice
        changes nothing, so a caller may repeat a call whose result is unknown.

        Returns:
            The outcomes of runs that are locked: write them again later.

        Transaction: opens and commits its own; for the usual outcomes, where the database has a
        statement that does all of it, that one commits by itself.
        """
        if self._kept.may_write_at_once:
            free = partial(mark.mark_free, database=self._database, beat_id=self._beat_id)
            outcomes = self._kept.writing_at_once(partial(free, outcomes=outcomes))
        if not outcomes:
            return []
        return self._kept.claiming_again(lambda connection: self._mark(connection, outcomes))

    def _mark(self, connection: Connection, outcomes: Sequence[Outcome]) -> list[Outcome]:
        patience = LOCK_WAIT_S if time.monotonic() >= self._no_wait_until else 0.0
        ids = lock_runs(connection, [item.claim.run_id for item in outcomes], patience)
        held = [item for item in outcomes if item.claim.run_id in ids]
        if held:
            self._no_wait_until = time.monotonic() + NO_WAIT_S
            outcomes = [item for item in outcomes if item.claim.run_id not in ids]
        mark.mark(connection, self._database, self._beat_id, outcomes)
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
            row = connection.execute(self._look_statement).one()
        except (ValueError, OverflowError, DBAPIError) as error:
            if unavailable(error) or withheld(error):
                raise
            connection.rollback()
            row = connection.execute(select(db_now(), _UNREADABLE, _UNREADABLE)).one()
        return row

    def _together_or_alone(
        self,
        rows: Table,
        now: datetime,
        handle: Callable[[ColumnElement[bool]], int],
        give_up: Callable[[int, str], None],
    ) -> int:
        """Handle a batch of due rows; if that fails, each in its own transaction.

        So a bad row does not stop the others. The driver can't even read some, such as those
        with the date `infinity`. A run that was claimed before an error is sent when its claim
        expires.

        Args:
            rows: the table.
            now: the database's time.
            handle: handles the rows that a condition selects, and returns how many.
            give_up: marks a row that can't be handled, with the reason.

        Returns:
            The number of rows that were handled or given up.
        """
        try:
            return handle(self._due[rows])
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001  (one bad row must not stop the others)
            ids = self._due_ids(rows, now)
        for row_id in ids:
            try:
                handle(rows.c.id == row_id)
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001  (as above)
                give_up(row_id, f"unreadable row: {error}")
        return len(ids)

    def _due_ids(self, rows: Table, now: datetime) -> Sequence[int]:
        """Return the ids of a due batch, without reading any other column."""
        ids = select(rows.c.id).where(self._due[rows]).order_by(rows.c.wake_at, rows.c.id)
        batch = ids.limit(self.limit).params(now=now)
        return self._kept.claiming_again(lambda connection: connection.scalars(batch).all())

    def _plan(self, claims: list[Claim], now: datetime, which: ColumnElement[bool]) -> int:
        """Plan in one transaction, add to `claims`, and return how many entries were decided.

        If a due time has a run already, plan again carefully.
        """
        plan = partial(self._planner.plan_where, which=which, now=now, limit=self.limit)
        try:
            planned = self._kept.claiming_again(plan)
        except CollisionError:
            planned = self._kept.claiming_again(partial(plan, careful=True))
        log_notices(planned.notices)
        claims += planned.claims
        return planned.count

    def _quarantine(self, entry_id: int, reason: str) -> None:
        notice = self._kept.claiming_again(
            lambda connection: quarantine(connection, entry_id, reason)
        )
        log_notices([notice])

    def _sweep(self, swept: Swept, now: datetime, which: ColumnElement[bool]) -> int:
        """Sweep in one transaction, add to `swept`, and return how many runs were handled.

        Runs that have ended are counted in another transaction.
        """
        settings, most = self.settings, self.limit
        found = self._kept.claiming_again(
            lambda connection: sweep.sweep(
                connection, which, now, settings, self._beat_id, limit=most
            )
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
        swept.claims += found.claims
        swept.stale_runs += found.stale_runs
        return found.count

    def _give_up(self, run_id: int, reason: str) -> None:
        def write(connection: Connection) -> Notice:
            now = read_now(connection, self._database)
            return sweep.give_up(connection, run_id, now, reason)

        log_notices([self._kept.claiming_again(write)])

    def _wake_earliest(self, rows: Table) -> None:
        """Overwrite the earliest `wake_at` of a table with a past instant."""
        first = select(rows.c.id).where(rows.c.wake_at.is_not(None)).order_by(rows.c.wake_at)

        def write(connection: Connection) -> None:
            earliest = connection.scalar(first.limit(1))
            connection.execute(update(rows).where(rows.c.id == earliest).values(wake_at=EPOCH))

        self._kept.claiming_again(write)


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
