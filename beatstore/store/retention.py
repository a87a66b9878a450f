"""Clearing: what is over and old is deleted, a page of rows at a time.

Invariants:
    * What is still needed stays: the newest run of an entry that recurs and those its cursor
      has not passed (they tell occurrences apart), runs that have not ended, an entry's last
      errors, a one-shot that others wait for or that code declares, and the last worker's row.
    * Which shared due times were accounted for is not forgotten: before the rows that say so
      are deleted, the cursor of their entry passes them.
    * A page reads and deletes a bounded number of rows, whatever the table holds: it goes on
      at the mark where the page before ended, and rows that stay are passed once.
    * Rows that somebody else holds are left for another time; nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, and_, delete, func, or_, select
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import Session

from beatstore.config import Settings
from beatstore.database.engine import Database
from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT, DEPENDENCY, ENTRY, RUN, WAIT, WORKER
from beatstore.rules.states import ERRORS, OVER, SETTLED, UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.store import audit
from beatstore.store.entries import delete_entries
from beatstore.store.shared_times import close_account
from beatstore.store.sync.merge import let_go_in
from beatstore.tick.edges import NOT_SUCCEEDED, one_shot

__all__ = ["Pruner", "prune"]

#: How many of an entry's last errors stay, however old, of each kind.
ERRORS_KEPT = 5

#: How long the row of a worker that is gone stays.
WORKERS_KEPT = timedelta(days=1)

#: How long beat leaves the tables alone when it has been through them.
REST = timedelta(hours=1)

#: Rows that a page deletes at most; and entries that it reads, for which no index asks.
_PAGE = 1000
_ENTRIES_READ = 10_000

#: How many entries a page closes the accounts of.
_ACCOUNTS = 100

#: Where a page of rows ended: (due_at, id) of its last row.
Mark = tuple[datetime, int]

BEGINNING: Mark = (EPOCH, 0)


@dataclass(frozen=True, slots=True)
class Page:
    """What a page did.

    Attributes:
        deleted: how many rows.
        next: where the next page begins, if there is one.
        read: how many runs it looked at.
    """

    deleted: int
    next: Mark | None
    read: int = 0


def entries(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Delete a page of the one-shots that are over since before `before`."""
    window = select(ENTRY.c.id).where(ENTRY.c.id > after[1]).order_by(ENTRY.c.id)
    ids = window.limit(_ENTRIES_READ).subquery("ids")
    ends = select(func.max(ids.c.id).label("last"), func.count(ids.c.id).label("read"))
    end = tx.execute(ends).one()
    if end.last is None:
        return Page(0, None)
    over = select(ENTRY.c.id, ENTRY.c.declared).where(
        ENTRY.c.id > after[1],
        ENTRY.c.id <= end.last,
        one_shot(ENTRY),
        ENTRY.c.state.in_(OVER),
        ENTRY.c.updated_at < before,
        or_(ENTRY.c.last_run_at.is_(None), ENTRY.c.last_run_at < before),
        or_(ENTRY.c.cursor_at.is_(None), ENTRY.c.cursor_at < before),
        ~_waited_for(),
        ~_unfinished(),
    )
    page = over.order_by(ENTRY.c.id).limit(_PAGE).with_for_update(skip_locked=True)
    found = tx.execute(page).all()
    # The next sync would make a declared one anew, and it would run once more.
    gone = [row.id for row in found if row.declared is None or let_go_in(row.declared)]
    if gone:
        delete_entries(tx, gone)
    if len(found) == _PAGE:
        return Page(len(gone), (EPOCH, found[-1].id))
    return Page(len(gone), (EPOCH, end.last) if end.read == _ENTRIES_READ else None)


def runs(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Delete those of the next page of runs due before `before` that are settled and not needed."""
    due_at, last_id = after
    following = RUN.c.due_at >= due_at, or_(RUN.c.due_at > due_at, RUN.c.id > last_id)
    columns = (RUN.c.id, RUN.c.due_at, RUN.c.entry_id, RUN.c.state, RUN.c.wake_at)
    page = select(*columns).where(*following, RUN.c.due_at < before)
    read = tx.execute(page.order_by(RUN.c.due_at, RUN.c.id).limit(_PAGE)).all()
    rows = [row for row in read if isinstance(row.due_at, datetime)]
    settled = [row for row in rows if _is_settled(row)]
    kept = _kept_since(tx, {row.entry_id for row in settled if row.state in ERRORS})
    # An entry that is gone keeps none: what is before the end of time goes.
    end = datetime.max.replace(tzinfo=timezone.utc)
    ids = [row.id for row in settled if row.due_at < kept.get((row.entry_id, row.state), end)]
    if ids:
        free = select(RUN.c.id).where(RUN.c.id.in_(ids), ~_needed())
        ids = list(tx.execute(free.with_for_update(skip_locked=True)).scalars())
    if ids:
        tx.execute(delete(RUN).where(RUN.c.id.in_(ids)))
    mark = (rows[-1].due_at, rows[-1].id) if rows and len(read) == _PAGE else None
    return Page(len(ids), mark, len(read))


def audits(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Delete a page of the audit's oldest rows; they are numbered in the order of time."""
    page = select(AUDIT.c.id, AUDIT.c.at).where(AUDIT.c.id > after[1])
    rows = tx.execute(page.order_by(AUDIT.c.id).limit(_PAGE)).all()
    ids = [row.id for row in rows if isinstance(row.at, datetime) and row.at < before]
    if ids:
        tx.execute(delete(AUDIT).where(AUDIT.c.id.in_(ids)))
    return Page(len(ids), (EPOCH, ids[-1]) if len(ids) == _PAGE else None)


def workers(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Delete the rows of workers not heard of for a day, but never the last one's.

    That one tells that outcomes are reported here.
    """
    newest = select(WORKER.c.id).order_by(WORKER.c.heartbeat_at.desc(), WORKER.c.id).limit(1)
    last = tx.execute(newest).scalar()
    if last is None:
        return Page(0, None)
    silent = WORKER.c.heartbeat_at < tx.now() - WORKERS_KEPT
    gone = tx.execute(delete(WORKER).where(silent, WORKER.c.id != last))
    return Page(gone.rowcount, None)


def waits(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Close the account of shared due times before `before`, for a page of entries.

    What still waits after so long is given up, and the log says so.
    """
    old = and_(WAIT.c.due_at < before, WAIT.c.downstream_id > after[1])
    page = select(WAIT.c.downstream_id).where(old, ENTRY.c.kind == "after").distinct()
    joined = page.join(ENTRY, ENTRY.c.id == WAIT.c.downstream_id)
    ids = list(tx.execute(joined.order_by(WAIT.c.downstream_id).limit(_ACCOUNTS)).scalars())
    if not ids:
        return Page(0, None)
    free = select(ENTRY.c.id, ENTRY.c.name).where(ENTRY.c.id.in_(ids))
    deleted = sum(
        close_account(tx, row, before) for row in tx.execute(free.with_for_update(skip_locked=True))
    )
    return Page(deleted, (EPOCH, ids[-1]) if len(ids) == _ACCOUNTS else None)


_Phase = Callable[[Transaction, datetime, Mark], Page]

#: What is cleared, in this order: runs whose entry goes first are needed no longer.
_PHASES: dict[str, _Phase] = {
    "entries": entries,
    "waits": waits,
    "runs": runs,
    "audits": audits,
    "workers": workers,
}


def prune(
    write: Callable[[Callable[[Transaction], Any]], Any],
    before: datetime,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Clear everything; see `Store.prune`.

    Args:
        write: does a piece of work in a transaction.
        before: what is older is old.
        progress: is told how many old runs were looked at, of how many.
    """
    counts = dict.fromkeys(_PHASES, 0)
    total = write(partial(_count_runs, before)) if progress else 0
    done = 0
    for name, phase in _PHASES.items():
        mark: Mark | None = BEGINNING
        while mark is not None:
            page: Page = write(partial(_call, phase, before, mark))
            mark = page.next
            counts[name] += page.deleted
            done += page.read
            if progress:
                progress(min(done, total), total)
    deleted = {name: counts[name] for name in ("entries", "runs")}
    if any(deleted.values()):
        after = {"before": before, **deleted}
        write(lambda tx: audit.record(tx, "prune", "", None, after))
    return sum(deleted.values())


def _count_runs(before: datetime, tx: Transaction) -> int:
    return int(tx.execute(select(func.count()).where(RUN.c.due_at < before)).scalar_one())


def _call(phase: _Phase, before: datetime, mark: Mark, tx: Transaction) -> Page:
    return phase(tx, before, mark)


class Pruner:
    """Clears for one beat, a page whenever it is asked, and rests when it is through.

    Where it is stands in memory only: a beat that starts begins at the beginning, and two
    beats that clear the same rows leave each other's alone.

    Args:
        database: where.
        settings: `retention` says what is old.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._phase = 0
        self._mark = BEGINNING
        self._rests_until = EPOCH

    def is_due(self, now: datetime) -> bool:
        """Say whether there may be something to clear; asks no database."""
        # A clock that was set back must not make the rest endless.
        return not self._rests_until - REST <= now < self._rests_until

    def step(self, connection: Connection, now: datetime) -> bool:
        """Delete one page, of at most 1,000 runs or entries, if it is time.

        Args:
            connection: with the transaction open in which rows are claimed (`begin_claim`),
                which the caller commits.
            now: the database's time.

        Returns:
            Whether more is left; False: nothing, for an hour.
        """
        if not self.is_due(now):
            return False
        before = now - timedelta(seconds=self._settings.retention)
        with Session(connection, expire_on_commit=False) as session:
            tx = Transaction(session, self._database, self._settings)
            page = list(_PHASES.values())[self._phase](tx, before, self._mark)
        self._mark = page.next or BEGINNING
        if page.next is None:
            self._phase = (self._phase + 1) % len(_PHASES)
            if self._phase == 0:
                self._rests_until = now + REST
                return False
        return True


# -- what stays ------------------------------------------------------------------------


def _waited_for() -> ColumnElement[bool]:
    """Return the condition that an entry is upstream of one that is not itself over."""
    down = ENTRY.alias("down")
    edge = DEPENDENCY.join(down, down.c.id == DEPENDENCY.c.downstream_id)
    over = and_(one_shot(down), down.c.state.in_(OVER))
    found = select(down.c.id).select_from(edge).where(DEPENDENCY.c.upstream_id == ENTRY.c.id, ~over)
    return found.correlate(ENTRY).exists()


def _unfinished() -> ColumnElement[bool]:
    """Return the condition that a run of an entry is under way, or another attempt to come."""
    found = select(RUN.c.id).where(
        RUN.c.entry_id == ENTRY.c.id,
        RUN.c.state.in_(UNFINISHED),
        NOT_SUCCEEDED,
        RUN.c.wake_at.is_not(None),
    )
    return found.correlate(ENTRY).exists()


def _is_settled(row: Row[tuple[int, datetime, int, str, datetime | None]]) -> bool:
    return row.state in SETTLED and row.wake_at is None


def _needed() -> ColumnElement[bool]:
    """Return the condition that a run tells its entry's occurrences apart, or holds it back."""
    newer, entry = RUN.alias("newer"), ENTRY.alias("entry")
    follows = or_(
        newer.c.due_at > RUN.c.due_at,
        and_(newer.c.due_at == RUN.c.due_at, newer.c.attempt > RUN.c.attempt),
    )
    # The first term says nothing new, but where in the index to begin.
    ahead_of_it = newer.c.due_at >= RUN.c.due_at
    after_it = select(newer.c.id).where(newer.c.entry_id == RUN.c.entry_id, ahead_of_it, follows)
    followed = after_it.correlate(RUN).exists()
    # Without a clock, what was accounted for stands in the account of shared due times.
    ahead = and_(entry.c.kind != "after", RUN.c.due_at > entry.c.cursor_at)
    last = and_(entry.c.kind != "once", ~followed)
    holds = and_(RUN.c.state == "sent", entry.c.overlap != "allow")
    of_run = select(entry.c.id).where(entry.c.id == RUN.c.entry_id, or_(ahead, last, holds))
    return of_run.correlate(RUN).exists()


def _kept_since(tx: Transaction, entry_ids: set[int]) -> dict[tuple[int, str], datetime]:
    """Return since when each of these entries keeps its errors, by the state they are in.

    For an entry that has no more errors in that state than are kept it is the epoch; one that
    is gone has no place in the answer.
    """
    if not entry_ids:
        return {}
    columns = [_oldest_kept(state).label(state) for state in ERRORS]
    rows = tx.execute(select(ENTRY.c.id, *columns).where(ENTRY.c.id.in_(entry_ids)))
    return {(row.id, state): getattr(row, state) or EPOCH for row in rows for state in ERRORS}


def _oldest_kept(state: str) -> ScalarSelect[datetime]:
    page = select(RUN.c.due_at).where(RUN.c.entry_id == ENTRY.c.id, RUN.c.state == state)
    last = page.where(NOT_SUCCEEDED).order_by(RUN.c.due_at.desc())
    return last.offset(ERRORS_KEPT - 1).limit(1).correlate(ENTRY).scalar_subquery()
