"""What happened and what is to come: runs, previews, figures, and the clearing of old rows.

Invariants:
    * No answer costs more the longer the history is: pages follow an index, samples and
      counts of waiting rows are capped. Counting the entries by state alone reads them all.
    * Clearing never deletes what tells two occurrences apart: the newest run of an entry
      that recurs, or one that its cursor has not passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, delete, func, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.decide import schedule_of
from beatstore.dialects import EPOCH
from beatstore.models import Run
from beatstore.schedules import zone
from beatstore.store import fields
from beatstore.store.entries import delete_entries
from beatstore.store.rows import BEAT, DEPENDENCY, ENTRY, RUN, Transaction

__all__ = ["BeatStatus", "Status", "preview", "prune_entries", "prune_runs", "runs", "status"]

#: The states of a run.
RUN_STATES = (
    *("claimed", "sent", "started", "succeeded", "failed", "lost", "cancelled"),
    *("missed", "skipped"),
)

#: States of a run of which nothing more is expected, or not for so long as rows are kept.
_SETTLED = ("sent", "succeeded", "failed", "lost", "cancelled", "missed", "skipped")

#: A beat that has not been heard of for so long is taken for dead.
_SILENCE = timedelta(seconds=60)

_OVERDUE_LIMIT = 1000
_LATENESS_SAMPLE = 10_000
_PREVIEW_LIMIT = 10_000

_STEP = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BeatStatus:
    """One beat process, as it last reported itself.

    Attributes:
        id: its claims carry this.
        host: where it runs.
        pid: its process there.
        version: of beatstore.
        started_at: when it began.
        heartbeat_at: when it was last heard of.
        alive: that is less than 60 s ago.
        tick_s: how long its last tick took, in seconds.
        planned: entries it has looked at since it began.
        sent: messages it has sent since it began.
    """

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    alive: bool
    tick_s: float | None
    planned: int
    sent: int


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand, by the database's clock.

    Attributes:
        now: when this was so.
        entries: how many entries there are in each state that occurs.
        runs_last_hour: how many runs were due in the last hour, by their state now.
        overdue: entries that wait for a beat to look at them; 1,000 means so many or more.
        oldest_overdue_at: since when the first of them has waited.
        lateness_p50_s: of the last hour's runs that were sent (at most the 10,000 newest),
            half were sent within so many seconds of their due time.
        lateness_p99_s: and 99 % within so many.
        beats: the beat processes on record, the newest first.
    """

    now: datetime
    entries: dict[str, int] = field(default_factory=dict)
    runs_last_hour: dict[str, int] = field(default_factory=dict)
    overdue: int = 0
    oldest_overdue_at: datetime | None = None
    lateness_p50_s: float | None = None
    lateness_p99_s: float | None = None
    beats: list[BeatStatus] = field(default_factory=list)


class RunFilter(NamedTuple):
    """Which runs a page is about; see `Store.runs`."""

    state: str | None
    since: datetime | None
    until: datetime | None


def runs(
    tx: Transaction, name: str | None, chosen: RunFilter, limit: int, before_id: int | None
) -> list[Run]:
    """Return a page of runs, newest first; see `Store.runs`."""
    found = select(RUN).limit(fields.whole("limit", limit, least=1))
    if chosen.state is not None:
        found = found.where(RUN.c.state == fields.choice("state", chosen.state, RUN_STATES))
    if chosen.since is not None:
        found = found.where(RUN.c.due_at >= fields.instant("since", chosen.since))
    if chosen.until is not None:
        found = found.where(RUN.c.due_at < fields.instant("until", chosen.until))
    if name is None:
        if before_id is not None:
            found = found.where(RUN.c.id < before_id)
        return tx.all(Run, found.order_by(RUN.c.id.desc()))
    if before_id is not None:
        found = found.where(_before(tx, before_id))
    found = found.order_by(RUN.c.due_at.desc(), RUN.c.id.desc())
    entry = tx.find(name)
    if entry is not None:
        return tx.all(Run, found.where(RUN.c.entry_id == entry.id))
    # The entry is gone; its runs still say its name, in no index.
    of_removed = tx.all(Run, found.where(RUN.c.entry_name == name))
    if not of_removed and before_id is None:
        raise tx.missing(name)
    return of_removed


def _before(tx: Transaction, run_id: int) -> ColumnElement[bool]:
    """Return the condition that a run comes after that one in the order (due_at, id) desc."""
    due_at = tx.execute(select(RUN.c.due_at).where(RUN.c.id == run_id)).scalar()
    if due_at is None:  # cleared in between
        return RUN.c.id < run_id
    return and_(RUN.c.due_at <= due_at, or_(RUN.c.due_at < due_at, RUN.c.id < run_id))


def preview(tx: Transaction, name: str, count: int, start: datetime | None) -> list[datetime]:
    """Return the next occurrences of an entry; see `Store.preview`."""
    entry = tx.get(name)
    count = fields.whole("count", count, most=_PREVIEW_LIMIT)
    if entry.state not in ("active", "paused"):
        return []
    schedule = schedule_of(entry, tx.settings)
    after = tx.now() if start is None else fields.instant("start", start) - _STEP
    if entry.start_at is not None:
        after = max(after, entry.start_at - _STEP)
    if entry.max_runs is not None:
        count = min(count, max(0, entry.max_runs - entry.run_count))
    until = entry.end_at or datetime.max.replace(tzinfo=timezone.utc)
    shown_in = zone(entry.timezone or tx.settings.default_timezone)
    return [at.astimezone(shown_in) for at in schedule.between(after, until, count)]


def status(tx: Transaction) -> Status:
    """Return how things stand; see `Store.status`."""
    now = tx.now()
    hour_ago = now - timedelta(hours=1)
    recent = RUN.c.due_at >= hour_ago
    waiting = _waiting_since(tx, now)
    lateness = _lateness(tx, hour_ago)
    return Status(
        now=now,
        entries=_by_state(tx, select(ENTRY.c.state)),
        runs_last_hour=_by_state(tx, select(RUN.c.state).where(recent)),
        overdue=len(waiting),
        oldest_overdue_at=min(waiting, default=None),
        lateness_p50_s=_percentile(lateness, 50),
        lateness_p99_s=_percentile(lateness, 99),
        beats=_beats(tx, now),
    )


def _by_state(tx: Transaction, states: Select[Any]) -> dict[str, int]:
    """Return how often each state occurs in a query that selects nothing else."""
    [state] = states.selected_columns
    rows = tx.execute(states.add_columns(func.count().label("rows")).group_by(state))
    return {row.state: row.rows for row in rows}


def _waiting_since(tx: Transaction, now: datetime) -> list[datetime]:
    """Return since when each entry has waited that a beat should look at, capped."""
    waiting = (
        select(ENTRY.c.wake_at, ENTRY.c.updated_at)
        .where(ENTRY.c.wake_at <= now)
        .order_by(ENTRY.c.wake_at)
        .limit(_OVERDUE_LIMIT)
    )
    # A row just written is due since the epoch, which says nothing; its edit does.
    recent = EPOCH + timedelta(days=1)
    rows = tx.execute(waiting)
    return [row.updated_at if row.wake_at < recent else row.wake_at for row in rows]


def _lateness(tx: Transaction, since: datetime) -> list[float]:
    sent = (
        select(RUN.c.due_at, RUN.c.sent_at)
        .where(RUN.c.due_at >= since, RUN.c.sent_at.is_not(None))
        .order_by(RUN.c.due_at.desc())
        .limit(_LATENESS_SAMPLE)
    )
    return sorted((row.sent_at - row.due_at).total_seconds() for row in tx.execute(sent))


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that `percent` of all do not exceed."""
    if not ordered:
        return None
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _beats(tx: Transaction, now: datetime) -> list[BeatStatus]:
    names = [name for name in BeatStatus.__slots__ if name != "alive"]
    columns = [BEAT.c[name] for name in names]
    rows = tx.execute(select(*columns).order_by(BEAT.c.started_at.desc(), BEAT.c.id))
    return [BeatStatus(**row._mapping, alive=now - row.heartbeat_at <= _SILENCE) for row in rows]


# -- clearing --------------------------------------------------------------------------

#: Where a page of rows ended: (due_at, id) of its last row.
Mark = tuple[datetime, int]

BEGINNING: Mark = (EPOCH, 0)

_PAGE = 1000


def prune_entries(tx: Transaction, *, before: datetime, after: Mark) -> tuple[Mark | None, int]:
    """Delete one page of the one-shots that are over since before `before`.

    Returns:
        Where the next page begins, or None if this was the last; how many were deleted.
    """
    depended_on = select(DEPENDENCY.c.upstream_id).where(DEPENDENCY.c.upstream_id == ENTRY.c.id)
    over = select(ENTRY.c.id).where(
        ENTRY.c.id > after[1],
        ENTRY.c.kind == "once",
        ENTRY.c.state.in_(("finished", "missed", "cancelled")),
        ENTRY.c.updated_at < before,
        or_(ENTRY.c.last_run_at.is_(None), ENTRY.c.last_run_at < before),
        or_(ENTRY.c.cursor_at.is_(None), ENTRY.c.cursor_at < before),
        ~depended_on.exists(),
    )
    page = over.order_by(ENTRY.c.id).limit(_PAGE).with_for_update(skip_locked=True)
    ids = list(tx.execute(page).scalars())
    if ids:
        delete_entries(tx, ids)
    return ((EPOCH, ids[-1]) if len(ids) == _PAGE else None), len(ids)


def prune_runs(tx: Transaction, *, before: datetime, after: Mark) -> tuple[Mark | None, int]:
    """Delete one page of the runs due before `before` that are settled and not needed.

    Returns:
        Where the next page begins, or None if this was the last; how many were deleted.
    """
    due_at, last_id = after
    old = select(RUN.c.due_at, RUN.c.id).where(
        RUN.c.due_at >= due_at,
        or_(RUN.c.due_at > due_at, RUN.c.id > last_id),
        RUN.c.due_at < before,
        RUN.c.state.in_(_SETTLED),
        ~_needed(),
    )
    rows = tx.execute(old.order_by(RUN.c.due_at, RUN.c.id).limit(_PAGE))
    found: list[Mark] = [(row.due_at, row.id) for row in rows]
    if found:
        tx.execute(delete(RUN).where(RUN.c.id.in_([run_id for _, run_id in found])))
    return (found[-1] if len(found) == _PAGE else None), len(found)


def _needed() -> ColumnElement[bool]:
    """Return the condition that a run tells its entry's occurrences apart."""
    newer, entry = RUN.alias("newer"), ENTRY.alias("entry")
    follows = or_(
        newer.c.due_at > RUN.c.due_at,
        and_(newer.c.due_at == RUN.c.due_at, newer.c.attempt > RUN.c.attempt),
    )
    after_it = select(newer.c.id).where(newer.c.entry_id == RUN.c.entry_id, follows)
    followed = after_it.correlate(RUN).exists()
    ahead = RUN.c.due_at > entry.c.cursor_at
    last = and_(entry.c.kind != "once", ~followed)
    of_run = select(entry.c.id).where(entry.c.id == RUN.c.entry_id, or_(ahead, last))
    return of_run.correlate(RUN).exists()
