"""The status: figures, beats and workers, and warnings about what somebody should fix.

Invariants:
    * The cost does not grow with the history: samples and counts of waiting rows are capped, and
      counts of runs follow an index of the last hour's runs or of those that wait. Counting
      entries by state reads all entries, and looking for a cycle reads all edges.
    * Whatever is wrong, it takes four statements: for the time, for nearly all else, for the
      edges, and for the names of what a warning is about.
    * A warning is a sentence that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Integer, Select, and_, case, exists, func, literal, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Instant
from beatstore.database.functions import is_instant, micros_between
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN
from beatstore.database.together import Question, ask
from beatstore.rules.graph import find_cycle
from beatstore.rules.states import UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.store.conditions import SIMPLY_DUE, WAITING, overdue
from beatstore.store.explain import stalls
from beatstore.store.explain.blocked import Blocked
from beatstore.store.processes import (
    SILENCE,
    BeatStatus,
    WorkerStatus,
    beats_asked,
    workers_asked,
)

__all__ = ["Health", "Status", "health", "status"]

_OVERDUE_LIMIT = 1000
_LATENESS_SAMPLE = 10_000
_PERCENTS = (50, 99)
_NAMES_SHOWN = 3
_MEMBERS_SHOWN = 10

#: An entry that has been due for less than this is not called overdue.
_PATIENCE = timedelta(seconds=10)


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
    known, overdue, unswept = beats_asked(now), _overdue_since(now), _unswept_since(now)
    bad = {"broken": ENTRY.c.state == "broken", "forgotten": stalls.FORGOTTEN}
    counts: list[ColumnElement[Any]] = [
        func.count(case((is_bad, 1))).label(name) for name, is_bad in bad.items()
    ]
    counted: Question[Any] = Question(select(*counts), lambda rows: rows[0])
    standing, blocked = stalls.stalls(now, tx.settings), Blocked(now, tx.settings)
    ask(tx, [known, overdue, unswept, counted, *standing, blocked.chains])
    broken = counted.answer.broken
    first = [_broken_warning(broken)] if broken else []
    first += [stalls.forgotten()] if counted.answer.forgotten else []
    ask(tx, [*first, *blocked.details()])
    alive = sum(beat.alive for beat in known.answer)
    last = max(known.answer, key=lambda beat: beat.stopped_at or beat.heartbeat_at, default=None)
    since = [one.answer.since for one in (overdue, unswept) if one.answer.since is not None]
    return Health(
        now=now,
        beats_alive=alive,
        beat_stopped_at=last.stopped_at if last is not None and not alive else None,
        overdue_since=min(since, default=None),
        broken=broken,
        warnings=(*_said(first), *_said(standing), *blocked.sentences()),
    )


def _said(asked: Iterable[stalls.Stalls]) -> list[str]:
    return [sentence for one in asked for sentence in one.answer]


def status(tx: Transaction) -> Status:
    """Return the status; see `Store.status`."""
    now = tx.now()
    hour_ago = now - timedelta(hours=1)
    entries, overdue, lateness = _entries(), _overdue_since(now), _lateness(hour_ago)
    last_hour = _by_state(select(RUN.c.state).where(RUN.c.due_at >= hour_ago))
    # Without reporting workers a run stays `sent` for good: only the last hour's count then.
    waits = (RUN.c.wake_at.is_not(None), RUN.c.due_at < hour_ago)
    older = _by_state(select(RUN.c.state).where(*waits))
    known = (beats_asked(now), workers_asked(now))
    standing, paused = stalls.stalls(now, tx.settings), stalls.retries_of_paused()
    blocked = Blocked(now, tx.settings)
    of_entries: list[Question[Any]] = [entries, overdue, *standing, paused, blocked.chains]
    ask(tx, [*of_entries, lateness, last_hour, older, *known])
    found = Status(
        now=now,
        entries=entries.answer.by_state,
        waiting=entries.answer.waiting,
        runs=_unfinished(older.answer, last_hour.answer),
        runs_last_hour=last_hour.answer,
        overdue=overdue.answer.count,
        oldest_overdue_at=overdue.answer.since,
        lateness_p50_s=lateness.answer.get(50),
        lateness_p99_s=lateness.answer.get(99),
        beats=known[0].answer,
        workers=known[1].answer,
    )
    cycle = _cycle(tx)
    first = _warnings(found, entries.answer)
    named = [one for one in first if isinstance(one, Question)]
    ask(tx, [*named, *blocked.details(), *([cycle] if cycle else [])])
    for one in first:
        found.warnings.extend([one] if isinstance(one, str) else one.answer)
    found.warnings.extend((*_said(standing), *blocked.sentences(), *paused.answer))
    found.warnings.extend(cycle.answer if cycle else [])
    return found


# -- entries ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entries:
    by_state: dict[str, int]
    waiting: int
    forgotten: int
    lack_outcomes: bool


def _entries() -> Question[_Entries]:
    """Count the entries in one pass, and find out whether outcomes are needed and reported."""
    asks = case((or_(ENTRY.c.max_retries > 0, ENTRY.c.overlap != "allow"), 1))
    counts = {
        "entries": func.count(),
        "waiting": func.count(case((WAITING, 1))),
        "asking": func.count(asks),
        "forgotten": func.count(case((stalls.FORGOTTEN, 1))),
        "known": func.max(ENTRY.c.success_seq),
        "linked": case((exists(select(DEPENDENCY.c.upstream_id)), 1), else_=0),
    }
    labelled = (column.label(name) for name, column in counts.items())
    query: Select[Any] = select(ENTRY.c.state, *labelled).group_by(ENTRY.c.state)
    return Question(query, _counted)


def _counted(rows: Sequence[Any]) -> _Entries:
    needed = any(row.asking or row.linked for row in rows)
    return _Entries(
        {row.state: row.entries for row in rows},
        sum(row.waiting for row in rows),
        sum(row.forgotten for row in rows),
        needed and not any(row.known for row in rows),
    )


@dataclass(frozen=True, slots=True)
class _Overdue:
    """How many rows wait for a beat, capped, and since when the first of them has waited."""

    count: int
    since: datetime | None


def _overdue_since(now: datetime) -> Question[_Overdue]:
    """Ask since when entries have been waiting for a beat."""
    # A new row has the epoch as its wake_at: use the time of its edit instead.
    return _waiting_since(ENTRY.c.wake_at, ENTRY.c.updated_at, now)


def _unswept_since(now: datetime) -> Question[_Overdue]:
    """Ask since when runs have been waiting for a beat."""
    # A triggered run has the epoch as its wake_at: use its due time instead.
    return _waiting_since(RUN.c.wake_at, RUN.c.due_at, now)


def _waiting_since(
    wake_at: ColumnElement[Any], otherwise: ColumnElement[Any], now: datetime
) -> Question[_Overdue]:
    """Ask for the first past `wake_at`, or `otherwise` where that is the epoch."""
    waiting = select(wake_at.label("came"), otherwise.label("other")).where(overdue(wake_at, now))
    first = waiting.order_by(wake_at).limit(_OVERDUE_LIMIT).subquery()
    recent = literal(EPOCH + timedelta(days=1), Instant())
    came = case((and_(first.c.came >= recent, is_instant(first.c.came)), first.c.came))
    other = case((is_instant(first.c.other), first.c.other))
    since = func.min(func.coalesce(came, other, literal(now, Instant()))).label("since")
    query = select(func.count().label("count_of"), since).select_from(first)
    return Question(query, lambda rows: _Overdue(rows[0].count_of, rows[0].since))


# -- runs ------------------------------------------------------------------------------


def _by_state(states: Select[Any]) -> Question[dict[str, int]]:
    """Ask how often each state occurs in a query that selects nothing else."""
    [state] = states.selected_columns
    query = states.add_columns(func.count().label("rows")).group_by(state)
    return Question(query, lambda found: {row.state: row.rows for row in found})


def _unfinished(older: dict[str, int], last_hour: dict[str, int]) -> dict[str, int]:
    """Return how many runs have not ended."""
    counts = {state: older.get(state, 0) + last_hour.get(state, 0) for state in sorted(UNFINISHED)}
    return {state: count for state, count in counts.items() if count}


def _lateness(since: datetime) -> Question[dict[int, float]]:
    """Ask for percentiles of the lateness, in seconds, of runs that had no reason to be late.

    Each is the smallest value that so many percent of the values do not exceed.
    """
    readable = and_(is_instant(RUN.c.due_at), is_instant(RUN.c.sent_at))
    sent = (
        select(case((readable, micros_between(RUN.c.due_at, RUN.c.sent_at))).label("micros"))
        .join(ENTRY, ENTRY.c.id == RUN.c.entry_id)
        .where(RUN.c.due_at >= since, ENTRY.c.kind != "after", SIMPLY_DUE)
        .order_by(RUN.c.due_at.desc())
        .limit(_LATENESS_SAMPLE)
        .subquery()
    )
    at = func.row_number(type_=Integer).over(order_by=sent.c.micros).label("at")
    known = select(sent.c.micros, at, func.count().over().label("of_all"))
    ordered = known.where(sent.c.micros.is_not(None)).subquery()
    wanted = [ordered.c.at == (ordered.c.of_all * percent + 99) // 100 for percent in _PERCENTS]
    query = select(ordered.c.micros, ordered.c.at, ordered.c.of_all).where(or_(*wanted))
    return Question(query, _percentiles)


def _percentiles(rows: Sequence[Any]) -> dict[int, float]:
    by_rank = {row.at: row.micros / 1_000_000 for row in rows}
    count = max((row.of_all for row in rows), default=0)
    return {percent: by_rank[-(-count * percent // 100)] for percent in _PERCENTS if count}


# -- warnings --------------------------------------------------------------------------


def _warnings(found: Status, entries: _Entries) -> list[str | stalls.Stalls]:
    """Return the warnings about entries, or the questions that name them, in their order."""
    warnings: list[str | stalls.Stalls] = []
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
        warnings.append(_behind_warning(found))
    if found.entries.get("broken"):
        warnings.append(_broken_warning(found.entries["broken"]))
    if entries.forgotten:
        warnings.append(stalls.forgotten())
    return warnings


def _behind_warning(found: Status) -> stalls.Stalls:
    """Name the entries that are overdue though a beat is alive."""
    due = select(ENTRY.c.name, ENTRY.c.id, ENTRY.c.wake_at)
    due = due.where(ENTRY.c.wake_at <= found.now - _PATIENCE)
    due = due.order_by(ENTRY.c.wake_at, ENTRY.c.id).limit(_NAMES_SHOWN)
    more = "+" if found.overdue >= _OVERDUE_LIMIT else ""
    have = "entry has" if found.overdue == 1 else "entries have"

    def said(rows: Sequence[Any]) -> list[str]:
        ordered = sorted(rows, key=lambda row: (str(row.wake_at), row.id))
        names = ", ".join(repr(row.name) for row in ordered)
        return [
            f"{found.overdue:,}{more} {have} been overdue since "
            f"{found.oldest_overdue_at:%Y-%m-%d %H:%M:%S} UTC, though a beat is alive: {names}. "
            "Beat is behind, its broker is unreachable, or another transaction has locked these "
            "rows: see its log."
        ]

    return Question(due, said)


def _broken_warning(count: int) -> stalls.Stalls:
    broken = select(ENTRY.c.name).where(ENTRY.c.state == "broken").order_by(ENTRY.c.name)

    def said(rows: Sequence[Any]) -> list[str]:
        names = [repr(name) for name in sorted(row.name for row in rows)]
        more = f" and {count - len(names):,} more" if count > len(names) else ""
        are = "entry is" if count == 1 else "entries are"
        return [
            f"{count:,} {are} broken and will not run: {', '.join(names)}{more}; see explain()."
        ]

    return Question(broken.limit(_NAMES_SHOWN), said)


def _cycle(tx: Transaction) -> stalls.Stalls | None:
    """Ask for the names on a cycle that plain SQL has created; None if there is none."""
    columns = (DEPENDENCY.c.upstream_id, DEPENDENCY.c.downstream_id)
    edges = tx.execute(select(*columns).where(DEPENDENCY.c.first_free.is_(False)))
    members = find_cycle((row.upstream_id, row.downstream_id) for row in edges)
    if not members:
        return None
    first = members.index(min(members))  # the same words for any order of rows
    members = members[first:] + members[:first]
    shown = members[:_MEMBERS_SHOWN]
    further = members[len(shown) :]

    def said(rows: Sequence[Any]) -> list[str]:
        names = {row.id: repr(row.name) for row in rows}
        last = f"… ({len(further):,} more)" if further else names.get(members[0], "?")
        cycle = " → ".join([*(names.get(member, "?") for member in shown), last])
        return [
            f"A dependency cycle keeps these entries from running: {cycle}. Unlink one of them, "
            "or give an edge first_free=True."
        ]

    return Question(select(ENTRY.c.id, ENTRY.c.name).where(ENTRY.c.id.in_(shown)), said)
