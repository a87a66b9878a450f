"""The status: figures, beats and workers, and warnings about what somebody should fix.

Invariants:
    * The cost does not grow with the history: samples and counts of waiting rows are capped, and
      counts of runs follow an index of the last hour's runs or of those that wait. Counting
      entries by state reads all entries, and looking for a cycle reads all edges.
    * A warning is a sentence that says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Select, Table, case, func, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Unreadable
from beatstore.database.rows import Transaction
from beatstore.database.tables import BEAT, DEPENDENCY, ENTRY, RUN, WORKER
from beatstore.rules.graph import find_cycle
from beatstore.rules.states import UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.store.conditions import SIMPLY_DUE, WAITING, overdue
from beatstore.store.explain import stalls

__all__ = [
    "BeatStatus",
    "Health",
    "Status",
    "WorkerStatus",
    "beats",
    "health",
    "status",
    "workers",
]

P = TypeVar("P", "BeatStatus", "WorkerStatus")

#: A beat or worker without a heartbeat for this long counts as dead.
SILENCE = timedelta(seconds=60)

_OVERDUE_LIMIT = 1000
_LATENESS_SAMPLE = 10_000
_NAMES_SHOWN = 3
_MEMBERS_SHOWN = 10

#: An entry that has been due for less than this is not called overdue.
_PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class BeatStatus:
    """One beat process, as it last reported itself.

    Attributes:
        id: the id that its claims carry.
        host: the host it runs on.
        pid: its process id there.
        version: its version of beatstore.
        started_at: when it started.
        heartbeat_at: when it sent its last heartbeat.
        stopped_at: when it was shut down in order; None: it was not.
        alive: whether it was not shut down and sent a heartbeat in the last 60 s.
        tick_s: how long its last tick took, in seconds.
        planned: how many runs it has claimed since it started.
        sent: how many messages it has sent since it started.
    """

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None
    alive: bool
    tick_s: float | None
    planned: int
    sent: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker that reports the outcomes of runs, as it last reported itself.

    Attributes:
        name: its node name, such as `celery@host`.
        pid: the id of its main process.
        version: its version of beatstore.
        started_at: when it started.
        heartbeat_at: when it sent its last heartbeat.
        stopped_at: when it was shut down in order; None: it was not.
        alive: whether it was not shut down and sent a heartbeat in the last 60 s.
        running: how many runs it was working on then.
    """

    name: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    stopped_at: datetime | None
    alive: bool
    running: int


@dataclass(frozen=True, slots=True)
class Status:
    """The status of all entries, runs, beats and workers.

    Attributes:
        now: the database's time when the status was read.
        entries: how many entries there are, by state.
        waiting: how many active entries have a due occurrence that waits for an upstream or for
            a run of their own.
        runs: how many runs have not ended, by state. Of the sent runs, only those due in the last
            hour or with a `run_timeout` count.
        runs_last_hour: how many runs were due in the last hour, by their state now.
        overdue: how many entries no beat has picked up in time; 1,000 means 1,000 or more.
        oldest_overdue_at: since when the longest of them has been overdue.
        lateness_p50_s: the median lateness in seconds, from due time to sending, of the last
            hour's runs (at most the 10,000 newest). It leaves out triggered runs, retries, runs
            that waited, runs of entries without a schedule, and runs that cover earlier
            occurrences.
        lateness_p99_s: the 99th percentile of the same.
        beats: the beat processes on record, the newest first. One that was stopped or is dead
            stays on record for at least a day.
        workers: the workers on record that report outcomes, the newest first.
        warnings: what somebody should fix, in sentences that say how.
    """

    now: datetime
    entries: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    runs: dict[str, int] = field(default_factory=dict)
    runs_last_hour: dict[str, int] = field(default_factory=dict)
    overdue: int = 0
    oldest_overdue_at: datetime | None = None
    lateness_p50_s: float | None = None
    lateness_p99_s: float | None = None
    beats: list[BeatStatus] = field(default_factory=list)
    workers: list[WorkerStatus] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether due entries are sent.

    Attributes:
        now: the database's time when this was read.
        beats_alive: how many beats sent a heartbeat in the last minute.
        beat_stopped_at: when the last beat was shut down in order, if none is alive; None: it
            was not.
        overdue_since: since when the longest overdue entry or run has been waiting for a beat;
            None: none is overdue.
        broken: how many entries are broken, and so not sent.
        warnings: broken and stalled entries, in sentences that say what to do.
    """

    now: datetime
    beats_alive: int
    beat_stopped_at: datetime | None
    overdue_since: datetime | None
    broken: int
    warnings: tuple[str, ...]


def health(tx: Transaction) -> Health:
    """Return whether due entries are sent; see `Store.health`."""
    now = tx.now()
    known = beats(tx, now)
    alive = sum(beat.alive for beat in known)
    last = max(known, key=lambda beat: beat.stopped_at or beat.heartbeat_at, default=None)
    waiting = [*_overdue_since(tx, now), *_unswept_since(tx, now)]
    bad = {"broken": ENTRY.c.state == "broken", "forgotten": stalls.FORGOTTEN}
    counts = (func.count(case((is_bad, 1))).label(name) for name, is_bad in bad.items())
    counted = tx.execute(select(*counts)).one()
    broken, forgotten = counted.broken, counted.forgotten
    warnings = [_broken_warning(tx, broken)] if broken else []
    warnings += stalls.forgotten(tx) if forgotten else []
    warnings += stalls.stalls(tx, now)
    return Health(
        now=now,
        beats_alive=alive,
        beat_stopped_at=last.stopped_at if last is not None and not alive else None,
        overdue_since=min(waiting, default=None),
        broken=broken,
        warnings=tuple(warnings),
    )


def status(tx: Transaction) -> Status:
    """Return the status; see `Store.status`."""
    now = tx.now()
    hour_ago = now - timedelta(hours=1)
    entries = _entries(tx)
    overdue = _overdue_since(tx, now)
    lateness = _lateness(tx, hour_ago)
    last_hour = _by_state(tx, select(RUN.c.state).where(RUN.c.due_at >= hour_ago))
    found = Status(
        now=now,
        entries=entries.by_state,
        waiting=entries.waiting,
        runs=_unfinished(tx, hour_ago, last_hour),
        runs_last_hour=last_hour,
        overdue=len(overdue),
        oldest_overdue_at=min(overdue, default=None),
        lateness_p50_s=_percentile(lateness, 50),
        lateness_p99_s=_percentile(lateness, 99),
        beats=beats(tx, now),
        workers=workers(tx, now),
    )
    found.warnings.extend(_warnings(tx, found, entries))
    return found


# -- entries ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entries:
    by_state: dict[str, int]
    waiting: int
    forgotten: int
    lack_outcomes: bool


def _entries(tx: Transaction) -> _Entries:
    """Count the entries in one pass, and find out whether outcomes are needed and reported."""
    asks = case((or_(ENTRY.c.max_retries > 0, ENTRY.c.overlap != "allow"), 1))
    waiting = func.count(case((WAITING, 1))).label("waiting")
    counts = (func.count().label("entries"), waiting)
    known = func.max(ENTRY.c.success_seq).label("known")
    forgotten = func.count(case((stalls.FORGOTTEN, 1))).label("forgotten")
    found = select(ENTRY.c.state, *counts, func.count(asks).label("asking"), forgotten, known)
    rows = tx.execute(found.group_by(ENTRY.c.state)).all()
    linked = tx.execute(select(DEPENDENCY.c.upstream_id).limit(1)).first() is not None
    return _Entries(
        {row.state: row.entries for row in rows},
        sum(row.waiting for row in rows),
        sum(row.forgotten for row in rows),
        (linked or any(row.asking for row in rows)) and not any(row.known for row in rows),
    )


def _overdue_since(tx: Transaction, now: datetime) -> list[datetime]:
    """Return since when each overdue entry has been waiting for a beat, capped."""
    # A new row has the epoch as its wake_at: use the time of its edit instead.
    return _waiting_since(tx, ENTRY.c.wake_at, ENTRY.c.updated_at, now)


def _unswept_since(tx: Transaction, now: datetime) -> list[datetime]:
    """Return since when each overdue run has been waiting for a beat, capped."""
    # A triggered run has the epoch as its wake_at: use its due time instead.
    return _waiting_since(tx, RUN.c.wake_at, RUN.c.due_at, now)


def _waiting_since(
    tx: Transaction, wake_at: ColumnElement[Any], otherwise: ColumnElement[Any], now: datetime
) -> list[datetime]:
    """Return the past `wake_at` of each row, or `otherwise` where that is the epoch."""
    waiting = select(wake_at.label("came"), otherwise.label("other")).where(overdue(wake_at, now))
    recent = EPOCH + timedelta(days=1)
    rows = tx.execute(waiting.order_by(wake_at).limit(_OVERDUE_LIMIT))
    since = (
        row.came if isinstance(row.came, datetime) and row.came >= recent else row.other
        for row in rows
    )
    return [at if isinstance(at, datetime) else now for at in since]


# -- runs ------------------------------------------------------------------------------


def _by_state(tx: Transaction, states: Select[Any]) -> dict[str, int]:
    """Return how often each state occurs in a query that selects nothing else."""
    [state] = states.selected_columns
    rows = tx.execute(states.add_columns(func.count().label("rows")).group_by(state))
    return {row.state: row.rows for row in rows}


def _unfinished(tx: Transaction, hour_ago: datetime, last_hour: dict[str, int]) -> dict[str, int]:
    """Count the runs that have not ended.

    Without reporting workers a run stays `sent` for good: only the last hour's count then.
    """
    older = select(RUN.c.state).where(RUN.c.wake_at.is_not(None), RUN.c.due_at < hour_ago)
    found = _by_state(tx, older)
    counts = {state: found.get(state, 0) + last_hour.get(state, 0) for state in sorted(UNFINISHED)}
    return {state: count for state, count in counts.items() if count}


def _lateness(tx: Transaction, since: datetime) -> list[float]:
    """Return the sorted lateness, in seconds, of runs that had no reason to be late."""
    sent = (
        select(RUN.c.due_at, RUN.c.sent_at)
        .join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
        .where(RUN.c.due_at >= since, ENTRY.c.kind != "after", SIMPLY_DUE)
        .order_by(RUN.c.due_at.desc())
        .limit(_LATENESS_SAMPLE)
    )
    return sorted(
        (row.sent_at - row.due_at).total_seconds()
        for row in tx.execute(sent)
        if isinstance(row.sent_at, datetime) and isinstance(row.due_at, datetime)
    )


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that `percent` of the values do not exceed."""
    if not ordered:
        return None
    return ordered[-(-len(ordered) * percent // 100) - 1]


# -- processes -------------------------------------------------------------------------


def beats(tx: Transaction, now: datetime) -> list[BeatStatus]:
    """Return the beats on record, the newest first."""
    return _processes(tx, now, BEAT, BeatStatus)


def workers(tx: Transaction, now: datetime) -> list[WorkerStatus]:
    """Return the workers on record, the newest first."""
    return _processes(tx, now, WORKER, WorkerStatus)


def _processes(tx: Transaction, now: datetime, table: Table, kind: type[P]) -> list[P]:
    names = [field.name for field in fields(kind) if field.name != "alive"]
    columns = [table.c[name] for name in names]
    rows = tx.execute(select(*columns).order_by(table.c.started_at.desc(), table.c.id))
    return [
        kind(**row._mapping, alive=row.stopped_at is None and now - row.heartbeat_at <= SILENCE)
        for row in rows
        if Unreadable not in map(type, row)
    ]


# -- warnings --------------------------------------------------------------------------


def _warnings(tx: Transaction, found: Status, entries: _Entries) -> list[str]:
    warnings: list[str] = []
    if entries.lack_outcomes and not found.workers:
        warnings.append(
            "Entries depend on outcomes (downstreams, retries or overlap), but no worker has ever "
            "reported one: call beatstore.setup(app) in the module of the Celery app."
        )
    waited_since = found.oldest_overdue_at
    overdue = waited_since is not None and found.now - waited_since > _PATIENCE
    if overdue and not any(beat.alive for beat in found.beats):
        more = "+" if found.overdue >= _OVERDUE_LIMIT else ""
        have = "entry has" if found.overdue == 1 else "entries have"
        warnings.append(
            f"No beat is alive, and {found.overdue:,}{more} {have} been overdue since "
            f"{waited_since:%Y-%m-%d %H:%M:%S} UTC: start one with "
            "`celery -A … beat --scheduler beatstore:DBScheduler`."
        )
    behind = waited_since is not None and found.now - waited_since > SILENCE
    if behind and any(beat.alive for beat in found.beats):
        warnings.append(_behind_warning(tx, found))
    if found.entries.get("broken"):
        warnings.append(_broken_warning(tx, found.entries["broken"]))
    warnings += [] if not entries.forgotten else stalls.forgotten(tx)
    warnings += stalls.stalls(tx, found.now)
    warnings += stalls.retries_of_paused(tx)
    cycle = _cycle(tx)
    if cycle:
        warnings.append(
            f"A dependency cycle keeps these entries from running: {cycle}. Unlink one of them, "
            "or give an edge first_free=True."
        )
    return warnings


def _behind_warning(tx: Transaction, found: Status) -> str:
    """Name the entries that are overdue though a beat is alive."""
    due = select(ENTRY.c.name).where(ENTRY.c.wake_at <= found.now - _PATIENCE)
    rows = tx.execute(due.order_by(ENTRY.c.wake_at, ENTRY.c.id).limit(_NAMES_SHOWN))
    names = ", ".join(map(repr, rows.scalars()))
    more = "+" if found.overdue >= _OVERDUE_LIMIT else ""
    have = "entry has" if found.overdue == 1 else "entries have"
    return (
        f"{found.overdue:,}{more} {have} been overdue since "
        f"{found.oldest_overdue_at:%Y-%m-%d %H:%M:%S} UTC, though a beat is alive: {names}. Beat "
        "is behind, its broker is unreachable, or another transaction has locked these rows: see "
        "its log."
    )


def _broken_warning(tx: Transaction, count: int) -> str:
    broken = select(ENTRY.c.name).where(ENTRY.c.state == "broken").order_by(ENTRY.c.name)
    names = [repr(name) for name in tx.execute(broken.limit(_NAMES_SHOWN)).scalars()]
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    are = "entry is" if count == 1 else "entries are"
    return f"{count:,} {are} broken and will not run: {', '.join(names)}{more}; see explain()."


def _cycle(tx: Transaction) -> str | None:
    """Return the names on a cycle that plain SQL has created; None if there is none."""
    columns = (DEPENDENCY.c.upstream_id, DEPENDENCY.c.downstream_id)
    edges = tx.execute(select(*columns).where(DEPENDENCY.c.first_free.is_(False)))
    members = find_cycle((row.upstream_id, row.downstream_id) for row in edges)
    if not members:
        return None
    first = members.index(min(members))  # the same words for any order of rows
    members = members[first:] + members[:first]
    shown = members[:_MEMBERS_SHOWN]
    named = select(ENTRY.c.id, ENTRY.c.name).where(ENTRY.c.id.in_(shown))
    names = {row.id: repr(row.name) for row in tx.execute(named)}
    if len(members) > len(shown):
        more = f"… ({len(members) - len(shown):,} more)"
        return " → ".join([*(names.get(member, "?") for member in shown), more])
    return " → ".join(names.get(member, "?") for member in [*members, members[0]])
