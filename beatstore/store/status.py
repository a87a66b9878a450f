"""The status: figures, beats and workers, and warnings about what somebody should fix.

Invariants:
    * The cost does not grow with the history or with the rate of messages: samples and counts of
      runs and of waiting rows are capped, or follow an index of what waits. Counting
      entries reads an index of all of them, and looking for a cycle reads the keys of all edges.
    * Whatever is wrong, it takes three statements: for the time, for nearly all else, and for the
      names of what a warning is about.
    * A warning is a sentence that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Integer,
    Select,
    and_,
    case,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.sql import ColumnElement

from beatstore.database.functions import is_instant, micros_between
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN
from beatstore.database.together import Question, ask
from beatstore.rules.graph import find_cycle
from beatstore.rules.states import UNFINISHED
from beatstore.store.conditions import NOT_ACTIVE, SIMPLY_DUE, WAITING, overdue_entry
from beatstore.store.explain import stalls
from beatstore.store.explain.blocked import Blocked
from beatstore.store.overdue import LIMIT, Overdue, entries_overdue, runs_overdue
from beatstore.store.processes import (
    SILENCE,
    BeatStatus,
    WorkerStatus,
    beats_asked,
    workers_asked,
)

__all__ = ["Health", "Status", "health", "status"]

_OUTCOME_SAMPLE = 10_000

#: The lateness is that of so many runs at most, out of so many of the last hour's newest.
_LATENESS_SAMPLE, _LATENESS_RUNS = 2_000, 5_000

#: How many of the last hour's runs are counted by state: at full speed there are millions.
_COUNTED = 20_000

_PERCENTS = (50, 99)
_NAMES_SHOWN = 3
_MEMBERS_SHOWN = 10

_NO_OUTCOMES = (
    "Entries depend on outcomes (downstreams, retries or overlap), but no worker has ever "
    "reported one: call beatstore.setup(app) in the module of the Celery app, or start a worker."
)

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
        runs: how many runs have not ended, by state. Of the sent runs without a `run_timeout`,
            only those of `runs_last_hour` count.
        runs_last_hour: how many runs were due in the last hour, by their state now. If they are
            more than 20,000, about so many of the newest are counted.
        runs_counted_since: the due time of the oldest of those; None: all of the hour are counted.
        overdue: how many entries no beat has picked up in time; 1,000 means 1,000 or more.
        oldest_overdue_at: since when the longest of them has been overdue.
        lateness_p50_s: the median lateness in seconds, from due time to sending, of the last
            hour's runs (at most 2,000, out of the 5,000 newest). It leaves out triggered runs,
            retries, runs that waited, runs of entries with jitter or without a schedule, and runs
            that cover earlier occurrences.
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
    runs_counted_since: datetime | None = None
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
        overdue_name: the name of that entry, or of the entry of that run.
        overdue_run: the id of the run; None: it is an entry.
    """

    now: datetime
    beats_alive: int
    beat_stopped_at: datetime | None
    overdue_since: datetime | None
    broken: int
    warnings: tuple[str, ...]
    overdue_name: str | None = None
    overdue_run: int | None = None


def health(tx: Transaction) -> Health:
    """Return whether due entries are sent; see `Store.health`."""
    now = tx.now()
    known, overdue, unswept = beats_asked(now), entries_overdue(now), runs_overdue(now)
    broken = _count(NOT_ACTIVE, ENTRY.c.state == "broken")
    forgotten = stalls.forgotten()
    standing, blocked = stalls.stalls(now, tx.settings), Blocked(now, tx.settings)
    ask(tx, [known, overdue, unswept, broken, *forgotten, *standing, blocked.chains])
    first = [_broken_warning(broken.answer)] if broken.answer else []
    ask(tx, [*first, *blocked.details()])
    alive = sum(beat.alive for beat in known.answer)
    last = max(known.answer, key=lambda beat: beat.stopped_at or beat.heartbeat_at, default=None)
    oldest = _oldest(overdue.answer, unswept.answer)
    return Health(
        now=now,
        beats_alive=alive,
        beat_stopped_at=last.stopped_at if last is not None and not alive else None,
        overdue_since=oldest.since,
        broken=broken.answer,
        warnings=(*_said([*first, *forgotten, *standing]), *blocked.sentences()),
        overdue_name=oldest.name,
        overdue_run=oldest.id if oldest is unswept.answer else None,
    )


def _oldest(entries: Overdue, runs: Overdue) -> Overdue:
    """Return that of the two which has waited longer."""
    if entries.since is None or (runs.since is not None and runs.since < entries.since):
        return runs
    return entries


def _said(asked: Iterable[stalls.Stalls]) -> list[str]:
    return [sentence for one in asked for sentence in one.answer]


def status(tx: Transaction) -> Status:
    """Return the status; see `Store.status`."""
    now = tx.now()
    hour_ago = now - timedelta(hours=1)
    entries, overdue, lateness = _count(), entries_overdue(now), _lateness(hour_ago)
    inactive, waiting = _by_state(select(ENTRY.c.state).where(NOT_ACTIVE)), _count(WAITING)
    last_hour = _newest_runs(hour_ago)
    waits = _by_state(select(RUN.c.state).where(RUN.c.wake_at.is_not(None)))
    known = (beats_asked(now), workers_asked(now))
    standing, paused = stalls.stalls(now, tx.settings), stalls.retries_of_paused()
    blocked, forgotten = Blocked(now, tx.settings), stalls.forgotten()
    of_entries: list[Question[Any]] = [entries, inactive, waiting, overdue, *forgotten, *standing]
    cycle = _cycle()
    ask(tx, [*of_entries, paused, blocked.chains, cycle, lateness, last_hour, waits, *known])
    active = entries.answer - sum(inactive.answer.values())
    found = Status(
        now=now,
        entries=inactive.answer | ({"active": active} if active else {}),
        waiting=waiting.answer,
        runs=_unfinished(waits.answer, last_hour.answer),
        runs_last_hour=last_hour.answer.states,
        runs_counted_since=last_hour.answer.since,
        overdue=overdue.answer.count,
        oldest_overdue_at=overdue.answer.since,
        lateness_p50_s=lateness.answer.get(50),
        lateness_p99_s=lateness.answer.get(99),
        beats=known[0].answer,
        workers=known[1].answer,
    )
    first = _warnings(found)
    named = [one for one in first if isinstance(one, Question)]
    members = [_cycle_warning(cycle.answer)] if cycle.answer else []
    ask(tx, [*named, *blocked.details(), *members])
    for one in (*first, *forgotten, *standing):
        found.warnings.extend([one] if isinstance(one, str) else one.answer)
    found.warnings.extend((*blocked.sentences(), *paused.answer))
    found.warnings.extend(sentence for one in members for sentence in one.answer)
    return found


# -- entries ---------------------------------------------------------------------------


def _count(*which: ColumnElement[bool]) -> Question[int]:
    """Count the entries that fulfil these conditions."""
    query = select(func.count().label("count_of")).select_from(ENTRY).where(*which)
    return Question(query, lambda rows: rows[0].count_of)


# -- runs ------------------------------------------------------------------------------


def _by_state(states: Select[Any]) -> Question[dict[str, int]]:
    """Ask how often each state occurs in a query that selects nothing else."""
    [state] = states.selected_columns
    query = states.add_columns(func.count().label("rows")).group_by(state)
    return Question(query, lambda found: {row.state: row.rows for row in found})


@dataclass(frozen=True, slots=True)
class _Newest:
    """How many of the newest runs there are by state, and since when; None: all are counted.

    Attributes:
        states: all of them.
        silent: those that nothing but a report moves.
        since: the due time of the oldest.
    """

    states: dict[str, int]
    silent: dict[str, int]
    since: datetime | None


def _newest_runs(since: datetime) -> Question[_Newest]:
    """Count the newest runs due since then, by state."""
    silent = case((RUN.c.wake_at.is_(None), 1)).label("silent")
    due = select(RUN.c.state, RUN.c.due_at, silent).where(RUN.c.due_at >= since)
    newest = due.order_by(RUN.c.due_at.desc()).limit(_COUNTED + 1).subquery("newest")
    first = func.min(case((is_instant(newest.c.due_at), newest.c.due_at))).label("since")
    counts = [func.count().label("rows"), func.count(newest.c.silent).label("silent")]
    query = select(newest.c.state, *counts, first).group_by(newest.c.state)

    def read(found: Sequence[Any]) -> _Newest:
        states = {row.state: row.rows for row in found}
        known = [row.since for row in found if isinstance(row.since, datetime)]
        cut = sum(states.values()) > _COUNTED
        oldest = min(known, default=since) if cut else None
        return _Newest(states, {row.state: row.silent for row in found}, oldest)

    return Question(query, read)


def _unfinished(waiting: dict[str, int], newest: _Newest) -> dict[str, int]:
    """Return how many runs have not ended.

    Without reporting workers a run stays `sent` for good: of those that nothing else moves, only
    the newest count.
    """
    silent = newest.silent
    counts = {state: waiting.get(state, 0) + silent.get(state, 0) for state in sorted(UNFINISHED)}
    return {state: count for state, count in counts.items() if count}


def _lateness(since: datetime) -> Question[dict[int, float]]:
    """Ask for percentiles of the lateness, in seconds, of runs that had no reason to be late.

    Each is the smallest value that so many percent of the values do not exceed.
    """
    readable = and_(is_instant(RUN.c.due_at), is_instant(RUN.c.sent_at))
    micros = case((readable, micros_between(RUN.c.due_at, RUN.c.sent_at))).label("micros")
    simply = case((SIMPLY_DUE, 1)).label("simply")
    due = select(RUN.c.entry_id, RUN.c.due_at, micros, simply).where(RUN.c.due_at >= since)
    # The newest first: nearly all may be retries or triggered.
    newest = due.order_by(RUN.c.due_at.desc()).limit(_LATENESS_RUNS).subquery("newest")
    sent = (
        select(newest.c.micros)
        .join(ENTRY, ENTRY.c.id == newest.c.entry_id)
        .where(newest.c.simply == 1, ENTRY.c.kind != "after", ENTRY.c.jitter_s == 0)
        .order_by(newest.c.due_at.desc())
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


def _lack_of_outcomes() -> stalls.Stalls:
    """Ask whether outcomes are needed, though none was ever reported, by the newest entries."""
    needed = ("max_retries", "overlap", "success_seq")
    newest = select(*(ENTRY.c[name] for name in needed)).order_by(ENTRY.c.id.desc())
    some = newest.limit(_OUTCOME_SAMPLE).subquery("newest")
    asking = case((or_(some.c.max_retries > 0, some.c.overlap != "allow"), 1))
    linked = case((exists(select(DEPENDENCY.c.upstream_id)), 1), else_=0)
    counts = {"asking": func.count(asking), "known": func.max(some.c.success_seq), "linked": linked}
    query = select(*(count.label(name) for name, count in counts.items())).select_from(some)

    def said(rows: Sequence[Any]) -> list[str]:
        [row] = rows
        return [] if row.known or not (row.asking or row.linked) else [_NO_OUTCOMES]

    return Question(query, said)


def _warnings(found: Status) -> list[str | stalls.Stalls]:
    """Return the warnings about entries, or the questions that name them, in their order."""
    warnings: list[str | stalls.Stalls] = [] if found.workers else [_lack_of_outcomes()]
    waited_since = found.oldest_overdue_at
    overdue = waited_since is not None and found.now - waited_since > _PATIENCE
    if overdue and not any(beat.alive for beat in found.beats):
        more = "+" if found.overdue >= LIMIT else ""
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
    return warnings


def _behind_warning(found: Status) -> stalls.Stalls:
    """Name the entries that are overdue though a beat is alive."""
    due = select(ENTRY.c.name, ENTRY.c.id, ENTRY.c.wake_at)
    due = due.where(overdue_entry(found.now - _PATIENCE, first=True))
    due = due.order_by(ENTRY.c.wake_at, ENTRY.c.id).limit(_NAMES_SHOWN)
    more = "+" if found.overdue >= LIMIT else ""
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
    broken = select(ENTRY.c.name).where(NOT_ACTIVE, ENTRY.c.state == "broken")
    broken = broken.order_by(ENTRY.c.name)

    def said(rows: Sequence[Any]) -> list[str]:
        names = [repr(name) for name in sorted(row.name for row in rows)]
        more = f" and {count - len(names):,} more" if count > len(names) else ""
        are = "entry is" if count == 1 else "entries are"
        return [
            f"{count:,} {are} broken and will not run: {', '.join(names)}{more}; see explain()."
        ]

    return Question(broken.limit(_NAMES_SHOWN), said)


def _cycle() -> Question[list[int] | None]:
    """Ask for the ids on a cycle that plain SQL has created; None if there is none.

    On a cycle, what an edge comes from has an upstream, and what it leads to has a downstream. So
    the first and the last edges of all chains stay where they are.
    """
    edge, before, beyond = DEPENDENCY, DEPENDENCY.alias("before"), DEPENDENCY.alias("beyond")
    inner = (
        edge.c.first_free.is_(False),
        exists(select(before.c.upstream_id).where(before.c.downstream_id == edge.c.upstream_id)),
        exists(select(beyond.c.upstream_id).where(beyond.c.upstream_id == edge.c.downstream_id)),
    )
    query = select(edge.c.upstream_id, edge.c.downstream_id).where(*inner)
    return Question(
        query, lambda rows: find_cycle((row.upstream_id, row.downstream_id) for row in rows)
    )


def _cycle_warning(members: list[int]) -> stalls.Stalls:
    """Ask for the names of the entries on a cycle."""
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
