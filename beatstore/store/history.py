"""What happened and what is to come: runs, errors, previews.

Invariants:
    * No answer costs more the longer the history is: pages follow an index, and so do an
      entry's last errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, get_args

from sqlalchemy import Select, and_, literal_column, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.decide import schedule_of
from beatstore.errors import InvalidEntryError
from beatstore.models import Run
from beatstore.schedules import local_time, zone
from beatstore.store import fields
from beatstore.store.database.rows import ENTRY, RUN, TAG, Transaction
from beatstore.types import RunState

__all__ = ["ERRORS", "NOT_SUCCEEDED", "RunFilter", "errors", "preview", "runs"]

#: The states of a run.
RUN_STATES: tuple[RunState, ...] = get_args(RunState)

#: The states of a run that went wrong.
ERRORS: tuple[RunState, ...] = ("failed", "lost")

#: Where the index of what did not succeed is partial, it is used only with this term.
NOT_SUCCEEDED: ColumnElement[bool] = literal_column("state <> 'succeeded'")

_PREVIEW_LIMIT = 10_000

_STEP = timedelta(microseconds=1)


class RunFilter(NamedTuple):
    """Which runs a page is about; see `Store.runs`."""

    state: str | Iterable[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    tag: str | None = None
    task: str | None = None
    worker: str | None = None


def runs(
    tx: Transaction, name: str | None, chosen: RunFilter, limit: int, before_id: int | None
) -> list[Run]:
    """Return a page of runs, newest first; see `Store.runs`."""
    found = _chosen(select(RUN), chosen).limit(fields.whole("limit", limit, least=1))
    if name is None:
        if before_id is not None:
            found = found.where(RUN.c.id < before_id)
        return tx.all(Run, found.order_by(RUN.c.id.desc()))
    if before_id is not None:
        found = found.where(_before(tx, before_id))
    found = found.order_by(RUN.c.due_at.desc(), RUN.c.id.desc())
    if not fields.storable(name):
        raise tx.missing(name)
    entry = tx.find(name)
    if entry is not None:
        return tx.all(Run, found.where(RUN.c.entry_id == entry.id))
    # The entry is gone; its runs still say its name, in no index.
    of_removed = tx.all(Run, found.where(RUN.c.entry_name == name))
    if not of_removed and before_id is None:
        raise tx.missing(name)
    return of_removed


def errors(tx: Transaction, name: str, limit: int) -> list[Run]:
    """Return the last runs that went wrong, newest first; see `Store.errors`."""
    limit = fields.whole("limit", limit, least=1)
    entry = tx.find(name)
    if entry is None:
        return runs(tx, name, RunFilter(ERRORS), limit, None)
    found: list[Run] = []
    for state in ERRORS:  # one at a time, so that each is read off the index in its order
        page = select(RUN).where(RUN.c.entry_id == entry.id, RUN.c.state == state, NOT_SUCCEEDED)
        page = page.order_by(RUN.c.due_at.desc(), RUN.c.id.desc()).limit(limit)
        found += tx.all(Run, page)
    found.sort(key=lambda run: (run.due_at, run.id), reverse=True)
    return found[:limit]


def _chosen(found: Select[Any], chosen: RunFilter) -> Select[Any]:
    if chosen.state is not None:
        found = found.where(RUN.c.state.in_(_states(chosen.state)))
    if chosen.since is not None:
        found = found.where(RUN.c.due_at >= fields.instant("since", chosen.since))
    if chosen.until is not None:
        found = found.where(RUN.c.due_at < fields.instant("until", chosen.until))
    if chosen.tag is not None:
        tagged = select(TAG.c.entry_id).where(TAG.c.entry_id == RUN.c.entry_id)
        found = found.where(tagged.where(TAG.c.tag == fields.sought("tag", chosen.tag)).exists())
    if chosen.task is not None:
        of_task = select(ENTRY.c.id).where(ENTRY.c.id == RUN.c.entry_id)
        found = found.where(
            of_task.where(ENTRY.c.task == fields.sought("task", chosen.task)).exists()
        )
    if chosen.worker is not None:
        found = found.where(RUN.c.worker == fields.sought("worker", chosen.worker))
    return found


def _states(given: object) -> list[str]:
    if isinstance(given, str):
        return [fields.choice("state", given, RUN_STATES)]
    if not isinstance(given, Iterable):
        raise InvalidEntryError("state", given, f"one or several of {', '.join(RUN_STATES)}")
    return [fields.choice("state", state, RUN_STATES) for state in given]


def _before(tx: Transaction, run_id: int) -> ColumnElement[bool]:
    """Return the condition that a run comes after that one in the order (due_at, id) desc."""
    due_at = tx.execute(select(RUN.c.due_at).where(RUN.c.id == run_id)).scalar()
    if not isinstance(due_at, datetime):  # cleared in between, or written by hand
        return RUN.c.id < run_id
    return and_(RUN.c.due_at <= due_at, or_(RUN.c.due_at < due_at, RUN.c.id < run_id))


def preview(tx: Transaction, name: str, count: int, start: datetime | None) -> list[datetime]:
    """Return the next occurrences of an entry; see `Store.preview`."""
    entry = tx.get(name)
    count = fields.whole("count", count, most=_PREVIEW_LIMIT)
    if entry.state not in ("active", "paused") or entry.kind == "after":
        return []
    schedule = schedule_of(entry, tx.settings)
    after = tx.now() if start is None else fields.instant("start", start) - _STEP
    if entry.start_at is not None:
        after = max(after, entry.start_at - _STEP)
    if entry.max_runs is not None:
        count = min(count, max(0, entry.max_runs - entry.run_count))
    until = entry.end_at or datetime.max.replace(tzinfo=timezone.utc)
    shown_in = zone(entry.timezone or tx.settings.default_timezone)
    return [local_time(at, shown_in) for at in schedule.between(after, until, count)]
