"""Retention: delete old rows, a page at a time.

Invariants:
    * What is still needed stays: the newest run of a recurring entry and the runs that its cursor
      has not passed (they tell occurrences apart), runs that have not ended, an entry's last
      errors, a one-shot that others wait for or that code declares, and the last worker's row.
    * The cursor of an entry passes its shared due times before the rows that account for them are
      deleted.
    * A page reads and deletes a bounded number of rows, whatever the size of the table. It starts
      at the mark where the previous page ended, so each row that stays is read once.
    * Locked rows are skipped until the next pass; nothing waits for them.
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

#: How many of an entry's last errors of each kind stay, however old they are.
ERRORS_KEPT = 5

#: How long the row of a dead worker stays.
WORKERS_KEPT = timedelta(days=1)

#: How long beat waits after a complete pass before it starts the next.
REST = timedelta(hours=1)

#: How many rows a page deletes at most, and how many entries it reads (without an index).
_PAGE = 1000
_ENTRIES_READ = 10_000

#: For how many entries a page deletes the account of shared due times.
_ACCOUNTS = 100

_NEWER = RUN.alias("newer")
_ENTRY, _DOWN = ENTRY.alias("entry"), ENTRY.alias("down")

#: Where a page of rows ended: (due_at, id) of its last row.
Mark = tuple[datetime, int]

BEGINNING: Mark = (EPOCH, 0)


@dataclass(frozen=True, slots=True)
class Page:
    """The result of a page.

    Attributes:
        deleted: how many rows it deleted.
        next: where the next page starts; None: there is none.
        read: how many runs it examined.
    """

    deleted: int
    next: Mark | None
    read: int = 0


def entries(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Delete a page of the one-shots that have been over since before `before`."""
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
    # The next sync would add a declared one-shot again, and it would run twice.
    gone = [row.id for row in found if row.declared is None or let_go_in(row.declared)]
    if gone:
        delete_entries(tx, gone)
    if len(found) == _PAGE:
        return Page(len(gone), (EPOCH, found[-1].id))
    return Page(len(gone), (EPOCH, end.last) if end.read == _ENTRIES_READ else None)


def runs(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Delete the settled and unneeded runs of the next page of runs due before `before`."""
    due_at, last_id = after
    following = RUN.c.due_at >= due_at, or_(RUN.c.due_at > due_at, RUN.c.id > last_id)
    columns = (RUN.c.id, RUN.c.due_at, RUN.c.entry_id, RUN.c.state, RUN.c.wake_at)
    page = select(*columns).where(*following, RUN.c.due_at < before)
    read = tx.execute(page.order_by(RUN.c.due_at, RUN.c.id).limit(_PAGE)).all()
    rows = [row for row in read if isinstance(row.due_at, datetime)]
    settled = [row for row in rows if _is_settled(row)]
    kept = _kept_since(tx, {row.entry_id for row in settled if row.state in ERRORS})
    # A removed entry keeps no errors: the limit is the end of time.
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
    """Delete a page of the audit's oldest rows; their ids follow the order of time.

    They may not where a clock was wrong, so the last page is one without an old row.
    """
    page = select(AUDIT.c.id, AUDIT.c.at).where(AUDIT.c.id > after[1])
    rows = tx.execute(page.order_by(AUDIT.c.id).limit(_PAGE)).all()
    ids = [row.id for row in rows if isinstance(row.at, datetime) and row.at < before]
    if ids:
        tx.execute(delete(AUDIT).where(AUDIT.c.id.in_(ids)))
    more = ids and len(rows) == _PAGE
    return Page(len(ids), (EPOCH, rows[-1].id) if more else None)


def workers(tx: Transaction, before: datetime, after: Mark) -> Page:
    """Delete the rows of workers without a heartbeat for a day, except the last one.

    That row shows that workers report outcomes here.
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

    Due times that still wait after so long are skipped, and the log says so.
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

#: What is deleted, in this order: once its entry is deleted, a run is no longer needed.
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
    """Delete all old rows; see `Store.prune`.

    Args:
        write: runs a function in a transaction.
        before: rows older than this are deleted.
        progress: called after each page with how many old runs were examined, of how many.
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
    """Prunes for one beat, a page at a time, with a rest after each complete pass.

    The position is kept in memory only: a new beat starts at the beginning, and two beats that
    prune the same rows skip each other's locks.

    Args:
        database: the database to prune.
        settings: their `retention` says how old a row must be.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._phase = 0
        self._mark = BEGINNING
        self._rests_until = EPOCH

    def is_due(self, now: datetime) -> bool:
        """Return whether it is time to prune; does not query the database."""
        # A clock that was set back must not prolong the rest.
        return not self._rests_until - REST <= now < self._rests_until

    def step(self, connection: Connection, now: datetime) -> bool:
        """Delete one page, of at most 1,000 runs or entries, if it is time.

        Args:
            connection: with an open transaction that may skip locked rows (`begin_claim`); the
                caller commits it.
            now: the database's time.

        Returns:
            Whether there is more to delete; False: not for an hour.
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
    """Return the condition that an entry is the upstream of one that is not over."""
    edge = DEPENDENCY.join(_DOWN, _DOWN.c.id == DEPENDENCY.c.downstream_id)
    over = and_(one_shot(_DOWN), _DOWN.c.state.in_(OVER))
    found = (
        select(_DOWN.c.id).select_from(edge).where(DEPENDENCY.c.upstream_id == ENTRY.c.id, ~over)
    )
    return found.correlate(ENTRY).exists()


def _unfinished() -> ColumnElement[bool]:
    """Return the condition that a run of an entry has not ended, or will be retried."""
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
    """Return the condition that a run tells occurrences of its entry apart, or blocks it."""
    newer, entry = _NEWER, _ENTRY
    follows = or_(
        newer.c.due_at > RUN.c.due_at,
        and_(newer.c.due_at == RUN.c.due_at, newer.c.attempt > RUN.c.attempt),
    )
    # The first term is redundant, but it tells the database where in the index to start.
    ahead_of_it = newer.c.due_at >= RUN.c.due_at
    after_it = select(newer.c.id).where(newer.c.entry_id == RUN.c.entry_id, ahead_of_it, follows)
    followed = after_it.correlate(RUN).exists()
    # Without a schedule, the account of shared due times tells occurrences apart.
    ahead = and_(entry.c.kind != "after", RUN.c.due_at > entry.c.cursor_at)
    last = and_(entry.c.kind != "once", ~followed)
    holds = and_(RUN.c.state == "sent", entry.c.overlap != "allow")
    of_run = select(entry.c.id).where(entry.c.id == RUN.c.entry_id, or_(ahead, last, holds))
    return of_run.correlate(RUN).exists()


def _kept_since(tx: Transaction, entry_ids: set[int]) -> dict[tuple[int, str], datetime]:
    """Return, by entry and state, the due time of the oldest error that is kept.

    It is the epoch if the entry has no more errors in that state than are kept. Removed entries
    are left out.
    """
    if not entry_ids:
        return {}
    columns = [_oldest_kept(state).label(state) for state in ERRORS]
    rows = tx.execute(select(ENTRY.c.id, *columns).where(ENTRY.c.id.in_(entry_ids)))
    found = {(row.id, state): getattr(row, state) for row in rows for state in ERRORS}
    # Of a due time that was written by hand nobody knows what comes before it: all are kept.
    return {key: at if isinstance(at, datetime) else EPOCH for key, at in found.items()}


def _oldest_kept(state: str) -> ScalarSelect[datetime]:
    page = select(RUN.c.due_at).where(RUN.c.entry_id == ENTRY.c.id, RUN.c.state == state)
    last = page.where(NOT_SUCCEEDED).order_by(RUN.c.due_at.desc())
    return last.offset(ERRORS_KEPT - 1).limit(1).correlate(ENTRY).scalar_subquery()
