"""The tick's half of the store: look, plan, sweep, settle.

    look    what time is it, and when is the next row due   1 statement, no lock
    plan    due entries -> decisions -> run rows            1 transaction
    sweep   runs whose claim expired -> claimed again       1 transaction
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

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Table, bindparam, literal, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql.expression import null

from beatstore.config import Settings
from beatstore.decide import TRIGGERED, call_problem
from beatstore.dialects import EPOCH, Listener, Unreadable, begin_claim, claim_isolation
from beatstore.errors import UnavailableError
from beatstore.store import beats
from beatstore.store.claims import CALL, ENTRY, RUN, BeatFigures, Claim, Look, Outcome, claim_of
from beatstore.store.database import Database, unavailable
from beatstore.store.plan import Planner

__all__ = ["Queue"]

#: What a run of an entry in one of these states is told instead of being sent.
_HELD = ("paused", "cancelled")

_REFUSE = update(RUN).where(RUN.c.id == bindparam("b_id")).values(wake_at=null())

_UNREADABLE = literal("unreadable")


class Queue:
    """The claims of one beat.

    Args:
        database: where the rows are.
        settings: batch size, claim expiry and the defaults of the rule.
        beat_id: names this beat in `claimed_by`; at most 36 characters.
    """

    def __init__(self, database: Database, settings: Settings, beat_id: str) -> None:
        self._database = database
        self._settings = settings
        self._beat_id = beat_id
        self._planner = Planner(settings, beat_id)
        self._earliest = _earliest(ENTRY), _earliest(RUN)
        self._connection: Connection | None = None

    # -- the tick ---------------------------------------------------------------

    def look(self) -> Look:
        """Read the clock and the two earliest `wake_at`."""
        now = self._database.now_sql().label("now")
        with self._connected() as connection:
            try:
                row = connection.execute(select(now, *self._earliest)).one()
            except (ValueError, OverflowError, DBAPIError) as error:
                if isinstance(error, DBAPIError) and unavailable(error):
                    raise
                connection.rollback()
                row = connection.execute(select(now, _UNREADABLE, _UNREADABLE)).one()
            connection.rollback()
        # A wake_at that can't be read is due: planning will find the row and say so.
        entry_wake_at, run_wake_at = (
            EPOCH if isinstance(at, (Unreadable, str)) else at for at in row[1:]
        )
        return Look(row.now, entry_wake_at, run_wake_at)

    def plan(self, now: datetime) -> tuple[list[Claim], int]:
        """Decide the entries due at `now`, and claim the runs they get.

        Args:
            now: the database's time, from `look`.

        Returns:
            The claims, in the order of their due times, and how many entries were
            decided; 0 means that other beats hold them all.

        Transaction: opens and commits its own.
        """
        limit = self._settings.batch_size
        due = ENTRY.c.wake_at <= now
        try:
            with self._claiming() as connection:
                count, claims = self._planner.plan_where(connection, due, limit, now)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001  (whatever one row did must not stop the others)
            return self._plan_one_by_one(now)
        claims.sort(key=lambda claim: claim.due_at)
        return claims, count

    def sweep(self, now: datetime) -> tuple[list[Claim], int]:
        """Claim the runs whose earlier claim expired at or before `now`.

        A run whose entry was removed, paused or cancelled meanwhile is cancelled, with
        the reason, unless somebody asked for it by hand.

        Returns:
            As `plan`.

        Transaction: opens and commits its own.
        """
        limit = self._settings.batch_size
        with self._claiming() as connection:
            runs = connection.execute(
                select(RUN)
                .where(RUN.c.wake_at <= now)
                .order_by(RUN.c.wake_at, RUN.c.id)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            if not runs:
                return [], 0
            entries = self._entries_of(connection, runs)
            claims: list[Claim] = []
            refused: list[dict[str, Any]] = []
            for run in runs:
                state, reason = _refusal(run, entries.get(run.entry_id))
                if state is None:
                    claims.append(claim_of(run, entries[run.entry_id]))
                else:
                    refused.append({"b_id": run.id, "state": state, "reason": reason})
            self._claim_again(connection, [claim.run_id for claim in claims], now)
            if refused:
                connection.execute(_REFUSE, refused)
        return claims, len(runs)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Write what became of the claims.

        A claim without an outcome stays as it is until it expires. Settling the same
        outcomes twice changes nothing, so a caller who can't know may do it again.

        Transaction: opens and commits its own.
        """
        with self._claiming() as connection:
            now = self._database.now_sql()
            sent = [item.claim.run_id for item in outcomes if item.state == "sent"]
            self._settle_all(connection, sent, state="sent", sent_at=now, wake_at=None)
            unsent = [item for item in outcomes if item.state != "sent"]
            for (state, reason, retry_in), group in _grouped(unsent):
                again = self._read_now(connection) if state == "claimed" else None
                self._settle_all(
                    connection,
                    [item.claim.run_id for item in group],
                    state=state,
                    reason=reason,
                    finished_at=None if again else now,
                    wake_at=again + timedelta(seconds=retry_in) if again else None,
                )

    def _settle_all(self, connection: Connection, ids: Sequence[int], **columns: Any) -> None:
        """Write `columns` to those of these runs that are still this beat's.

        A run that was cancelled while its message was on its way has been sent all the
        same, and says so.
        """
        if ids:
            values = {name: value for name, value in columns.items() if name != "reason" or value}
            states = ("claimed", "cancelled") if columns["state"] == "sent" else ("claimed",)
            connection.execute(
                update(RUN)
                .where(
                    RUN.c.id.in_(ids),
                    RUN.c.state.in_(states),
                    RUN.c.claimed_by == self._beat_id,
                )
                .values(**values)
            )

    # -- the beat's own row --------------------------------------------------------

    def introduce(self, *, host: str, pid: int, version: str, tzdata: str) -> bool:
        """Write this beat's row.

        Returns:
            Whether the beat that started last before this one used other zone data, so
            that cached due times may be wrong.

        Transaction: opens and commits its own, as do the four below.
        """
        with self._claiming() as connection:
            return beats.introduce(
                connection,
                self._beat_id,
                self._read_now(connection),
                host=host,
                pid=pid,
                version=version,
                tzdata=tzdata,
            )

    def heartbeat(self, figures: BeatFigures) -> None:
        """Say that this beat is alive, and what it did."""
        with self._claiming() as connection:
            beats.heartbeat(connection, self._beat_id, self._read_now(connection), figures)

    def release(self) -> None:
        """Leave the claims of this beat to whoever sweeps first, be it this one."""
        with self._claiming() as connection:
            beats.release(connection, self._beat_id, self._read_now(connection))

    def withdraw(self) -> None:
        """Delete this beat's row, at an orderly end, and leave its claims to the others."""
        with self._claiming() as connection:
            beats.withdraw(connection, self._beat_id, self._read_now(connection))

    def replan_zones(self, after_id: int, limit: int = 1000) -> int | None:
        """Have the next `limit` entries that follow a zone looked at again.

        Args:
            after_id: where the last call ended; 0 to begin.
            limit: how many rows are read.

        Returns:
            Where this call ended, or None when there are no more.
        """
        with self._claiming() as connection:
            return beats.replan_zones(connection, after_id, limit)

    def listener(self) -> Listener | None:
        """Open what wakes a sleeping beat early, or None where there is no such thing."""
        with _translated():
            return Listener.open(self._database.engine)

    def close(self, *, orderly: bool = True) -> None:
        """Give the connection back. Safe to call at any time, and again.

        Args:
            orderly: whether to end its transaction; if not, it is cut, also under a
                thread that waits on it.
        """
        self._drop(orderly=orderly)

    # -- steps -------------------------------------------------------------------------

    def _plan_one_by_one(self, now: datetime) -> tuple[list[Claim], int]:
        """Plan the same batch, a transaction for each, and take out of service what fails.

        For rows that the driver can't even read (`infinity`, a date out of range).
        """
        with self._claiming() as connection:
            ids = connection.scalars(
                select(ENTRY.c.id)
                .where(ENTRY.c.wake_at <= now)
                .order_by(ENTRY.c.wake_at, ENTRY.c.id)
                .limit(self._settings.batch_size)
            ).all()
        claims: list[Claim] = []
        for entry_id in ids:
            this = ENTRY.c.id == entry_id
            try:
                with self._claiming() as connection:
                    claims += self._planner.plan_where(connection, this, 1, now)[1]
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001  (as in plan)
                with self._claiming() as connection:
                    self._planner.quarantine(connection, entry_id, f"unreadable row: {error}")
        return claims, len(ids)

    def _entries_of(self, connection: Connection, runs: Sequence[Row[Any]]) -> dict[int, Row[Any]]:
        ids = {run.entry_id for run in runs}
        columns = [ENTRY.c.id, ENTRY.c.state, *(ENTRY.c[name] for name in CALL)]
        rows = connection.execute(select(*columns).where(ENTRY.c.id.in_(ids)))
        return {row.id: row for row in rows}

    def _claim_again(self, connection: Connection, ids: Sequence[int], now: datetime) -> None:
        if ids:
            expires_at = now + timedelta(seconds=self._settings.claim_ttl)
            connection.execute(
                update(RUN)
                .where(RUN.c.id.in_(ids))
                .values(state="claimed", claimed_by=self._beat_id, wake_at=expires_at)
            )

    def _read_now(self, connection: Connection) -> datetime:
        at = connection.scalar(select(self._database.now_sql()))
        assert isinstance(at, datetime)
        return at

    # -- the connection ------------------------------------------------------------------

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Yield the one connection of this beat, and drop it if anything goes wrong."""
        try:
            with _translated():
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
        except BaseException:
            self._drop(orderly=False)
            raise

    @contextmanager
    def _claiming(self) -> Iterator[Connection]:
        with self._connected() as connection, begin_claim(connection):
            yield connection

    def _connect(self) -> Connection:
        engine = self._database.engine
        return engine.connect().execution_options(
            isolation_level=claim_isolation(engine.dialect), **self._database.options
        )

    def _drop(self, *, orderly: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(Exception):
            if not orderly:
                connection.invalidate()
            connection.close()


def _earliest(table: Table) -> Any:
    return (
        select(table.c.wake_at)
        .where(table.c.wake_at.is_not(None))
        .order_by(table.c.wake_at)
        .limit(1)
        .scalar_subquery()
    )


def _refusal(run: Row[Any], entry: Row[Any] | None) -> tuple[str | None, str | None]:
    """Return the state and reason of a run that is not sent after all, or (None, None)."""
    if run.state != "claimed":
        return run.state, run.reason  # nothing waits for it; its wake_at is cleared
    if entry is None:
        return "cancelled", "entry removed before it was sent"
    if entry.state in _HELD and run.reason != TRIGGERED:
        return "cancelled", f"entry {entry.state} before it was sent"
    problem = "unreadable row" if _any_unreadable(run, entry) else call_problem(entry)
    return ("failed", problem) if problem else (None, None)


def _grouped(
    outcomes: Iterable[Outcome],
) -> Iterator[tuple[tuple[str, str | None, float], list[Outcome]]]:
    """Group what is written alike; there are few groups, and mostly one."""
    groups: dict[tuple[str, str | None, float], list[Outcome]] = {}
    for item in outcomes:
        groups.setdefault((item.state, item.reason, item.retry_in), []).append(item)
    yield from groups.items()


def _any_unreadable(*rows: Row[Any]) -> bool:
    return any(isinstance(value, Unreadable) for row in rows for value in row)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn "the database did not answer" into an error that level 4 knows."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, OSError) or unavailable(error):
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        raise
