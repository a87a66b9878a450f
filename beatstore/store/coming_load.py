"""How many occurrences of all entries are due in each minute to come.

Entries with the same schedule are counted together: the database groups them, and each schedule
is computed once, the most frequent first, until the time for that is up. Intervals that each entry
counts from an instant of its own are alike if their due times fall into the same steps.

An entry whose `wake_at` is after the time in question is not due in it, as in
`beatstore.store.upcoming`; so of an entry that is due in a year not even the schedule is read. Of
the entries that may be due, so many are read that the answer takes the same time however many
there are; they stand for the others.

Each function joins the open transaction it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import nsmallest
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    union,
)

from beatstore.database.columns import Instant
from beatstore.database.dialects import dialect_of
from beatstore.database.functions import micros_between
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.rules.due import STEP, DueTimes, just_before, sent_from
from beatstore.schedules import Every
from beatstore.schedules.instants import EPOCH
from beatstore.store.ahead import UNREADABLE, Ahead
from beatstore.types import Duration

__all__ = ["UpcomingCounts", "upcoming_counts"]

#: For how many seconds of the processor's time schedules are computed, so that what an answer
#: leaves out does not depend on what else the machine does.
_BUDGET = 0.06

#: How many different schedules are read at most.
_SCHEDULES = 3_000

#: The most steps of one answer, and how many due times are computed between looks at the clock.
_STEPS = 10_000
_PAGE = 500

#: How many entries are read, about; if more may be due, they are a sample.
_SAMPLE = 2_500

#: A sample is chosen by the ids, which this spreads evenly: the id modulo the first, times the
#: second, modulo the third.
_SPREAD = (1_000_003, 7_919, 10_007)

#: With jitter, `wake_at` is after the due time: for so long, due times are looked for.
_JITTER = timedelta(hours=1)

_FULLEST = 5

_SECOND = timedelta(seconds=1)

#: The kinds that count from an instant of their entry.
_ANCHORED = ENTRY.c.kind.in_(["every", "rrule"])


@dataclass(frozen=True, slots=True)
class UpcomingCounts:
    """How many occurrences are due in each step of a time to come.

    Attributes:
        start: where the first step begins.
        step: how long each step is.
        counts: how many occurrences are due in each step, the earliest first.
        fullest: the five steps with the most occurrences, by where they begin, and how many those
            are; the fullest first.
        entries: how many entries were counted.
        left_out: how many active entries with a schedule were not counted, because their
            schedules are too many, or take too long to compute.
        share: what share of the entries was read: 1 for all of them; if it is less, all numbers
            here are estimates, and the entries that were read stand for the others.
    """

    start: datetime
    step: timedelta
    counts: tuple[int, ...]
    fullest: tuple[tuple[datetime, int], ...]
    entries: int
    left_out: int
    share: float = 1.0

    @property
    def cut(self) -> bool:
        """Whether entries were left out."""
        return self.left_out > 0


def upcoming_counts(
    tx: Transaction, start: datetime | None, until: datetime, step: Duration
) -> UpcomingCounts:
    """Return how many occurrences are due in each step; see `Store.upcoming_counts`."""
    now = tx.now()
    begin = now if start is None else fields.instant("start", start)
    end = fields.instant("until", until)
    length = timedelta(seconds=fields.seconds("step", step, above=True)) // STEP * STEP
    steps = -((begin - end) // max(length, STEP))
    if not 0 < steps <= _STEPS:
        expected = f"an instant after start that is at most {_STEPS:,} steps later"
        raise InvalidEntryError("until", end.isoformat(), expected)
    counts, entries = [0] * steps, 0
    chosen, share = _sample(tx, end)
    rows = tx.execute(_grouped(chosen(_rules(now, begin, end, length)))).all()
    total = int(rows[0].of_all) if rows else 0
    computed = _Computed(tx, now, begin, end, length)
    for row in rows:
        steps_due = computed.steps(row)
        if steps_due is None:
            continue
        entries += row.entries
        for at, times in steps_due.items():
            counts[at] += times * row.entries
    counts = [round(count / share) for count in counts]
    full = nsmallest(_FULLEST, (at for at in range(steps) if counts[at]), lambda at: -counts[at])
    fullest = tuple((begin + at * length, counts[at]) for at in full)
    counted, left_out = round(entries / share), round((total - entries) / share)
    return UpcomingCounts(begin, length, tuple(counts), fullest, counted, left_out, share)


def _sample(tx: Transaction, end: datetime) -> tuple[Callable[[Select[Any]], Select[Any]], float]:
    """Return how a query is limited to the entries that are read, and what share of all they are.

    They are counted by the indexes alone, and so are those that wait for something else.
    """
    each = ENTRY.c.wake_at < sent_from(end, _JITTER), ENTRY.c.blocked_by.is_not(None)
    counts = (select(func.count()).select_from(ENTRY).where(one).scalar_subquery() for one in each)
    found = sum(tx.execute(select(*counts)).one())
    if found <= _SAMPLE:
        return lambda query: query.where(or_(*each)), 1.0
    modulus, factor, parts = _SPREAD
    most = max(1, parts * _SAMPLE // found)
    # With two bounds PostgreSQL expects few ids, and looks up each, instead of reading all rows.
    drawn = (ENTRY.c.id % modulus * factor % parts).between(0, most - 1)
    # Found by the indexes too: the other columns are read of the sample alone.
    ids = union(*(select(ENTRY.c.id).where(one, drawn) for one in each)).subquery("drawn")
    dialect = dialect_of(tx.dialect)

    def limited(query: Select[Any]) -> Select[Any]:
        return dialect.joined_in_order(query.join_from(ids, ENTRY, ids.c.id == ENTRY.c.id))

    return limited, most / parts


def _rules(now: datetime, begin: datetime, end: datetime, length: timedelta) -> Select[Any]:
    """Return a query for the schedules of entries."""
    first = _first(begin, end, length)
    is_anchored = and_(_ANCHORED, ENTRY.c.start_at.is_(None), first.is_(None))
    zone = case((ENTRY.c.kind.in_(["cron", "rrule"]), ENTRY.c.timezone))
    at, waits = literal(now, Instant()), ENTRY.c.pending_due_at.is_not(None)
    left = ENTRY.c.max_runs - ENTRY.c.run_count - case((waits, 1), else_=0)
    # What is due already uses up runs, too: as many as the misfire policy sends of it. All of what
    # jitter puts off is sent. Otherwise jitter does not count, which would part alike entries.
    is_due = func.coalesce(ENTRY.c.next_due_at, ENTRY.c.created_at) <= at
    owes = and_(ENTRY.c.max_runs.is_not(None), not_(waits), is_due)
    is_new = and_(owes, ENTRY.c.cursor_at.is_(None))
    misfire = case((and_(owes, ENTRY.c.wake_at > at), "all"), (owes, ENTRY.c.misfire))
    rule: list[ColumnElement[Any]] = [ENTRY.c[name] for name in ("kind", "spec")]
    rule += [zone.label("timezone"), ENTRY.c.start_at, ENTRY.c.end_at]
    rule += [
        first.label("first"),
        case((or_(is_anchored, is_new), ENTRY.c.created_at)).label("anchor"),
        left.label("remaining"),
        case((owes, ENTRY.c.cursor_at), else_=at).label("cursor_at"),
        misfire.label("misfire"),
        case((owes, ENTRY.c.grace_s)).label("grace_s"),
    ]
    return select(*rule).where(*_scheduled(end))


def _grouped(rules: Select[Any]) -> Select[Any]:
    """Return a query for the different schedules, and how many entries have each."""
    # Grouped outside: what is computed with parameters is the same expression once more only to
    # a driver that names its parameters.
    rule = rules.subquery("rules").c
    entries = func.count().label("entries")
    # How many there are, those beyond the limit included.
    of_all = func.sum(func.count()).over().label("of_all")
    found = select(*rule, entries, of_all).group_by(*rule)
    return found.order_by(entries.desc()).limit(_SCHEDULES)


def _scheduled(end: datetime) -> list[ColumnElement[bool]]:
    """Return the conditions of entries with due times to come."""
    near = or_(ENTRY.c.wake_at < end, ENTRY.c.blocked_by.is_not(None), ENTRY.c.jitter_s > 0)
    return [ENTRY.c.state == "active", ENTRY.c.kind != "after", near]


def _first(begin: datetime, end: datetime, length: timedelta) -> ColumnElement[int]:
    """Return how many microseconds after `begin` an interval is due next, to the step it is in.

    It is NULL where that is not enough to count all its due times: for other kinds, for what has
    bounds, or has not been looked at yet, and for intervals that no whole number of steps fits.
    """
    step, minute = length // _SECOND, 60
    settled = and_(
        ENTRY.c.kind == "every",
        *(ENTRY.c[bound].is_(None) for bound in ("start_at", "end_at", "max_runs", "blocked_by")),
        ENTRY.c.created_at < begin,
        ENTRY.c.wake_at >= begin,
        ENTRY.c.jitter_s == 0,
    )
    if length % _SECOND or (end - begin) % length:
        settled = and_(settled, false())
    whole = case((ENTRY.c.spec.regexp_match("^[1-9][0-9]{0,9}$"), ENTRY.c.spec))
    period = cast(whole, BigInteger)
    fits = or_(period % step == 0, step % period == 0)
    grain: list[Any] = [(and_(settled, fits), length // STEP)]
    if step % minute == 0:
        grain.append((and_(settled, period % minute == 0), minute * (_SECOND // STEP)))
    since = micros_between(literal(begin, Instant()), ENTRY.c.wake_at)
    return since - since % case(*grain)


class _Computed:
    """Counts the due times of one schedule after another, until the time is up."""

    def __init__(
        self, tx: Transaction, now: datetime, begin: datetime, end: datetime, length: timedelta
    ) -> None:
        self._settings = tx.settings
        self._now, self._begin, self._end, self._length = now, begin, end, length
        self._ends_at = time.thread_time() + _BUDGET

    def steps(self, row: Any) -> dict[int, int] | None:
        """Return how often a schedule is due in each step; None if the time is up."""
        if time.thread_time() >= self._ends_at:
            return None
        if row.first is not None:
            period = int(row.spec) * (_SECOND // STEP)
            first = self._begin + row.first % period * STEP
            return self._at_intervals(first, period, self._end)
        rule = SimpleNamespace(**row._mapping, created_at=row.anchor or EPOCH)
        try:
            times = DueTimes.of(rule, self._settings)
            after = just_before(self._begin)
            if row.remaining is None and isinstance(times.schedule, Every):
                end = self._end if times.end_at is None else min(self._end, times.end_at + STEP)
                period = round(times.schedule.seconds / STEP.total_seconds())
                return self._at_intervals(times.next_after(after), period, end)
            if row.remaining is None:
                return self._one_by_one(times, after, None)
            after = max(after, self._now)
            return self._one_by_one(times, after, self._left(rule, after))
        except UNREADABLE:
            return {}  # a row written by hand, which beat will mark broken

    def _left(self, rule: SimpleNamespace, after: datetime) -> int:
        """Return how many runs `max_runs` leaves to the due times after an instant."""
        rule.id, rule.jitter_s = 0, 0
        rule.state, rule.pending_due_at = "active", None
        rule.max_runs, rule.run_count = rule.remaining, 0
        ahead = Ahead(rule, self._now, self._settings)
        ahead.skip(after)
        return ahead.remaining or 0

    def _at_intervals(self, first: datetime | None, period: int, end: datetime) -> dict[int, int]:
        """Count by arithmetic, since a period may be far shorter than a step."""
        if first is None or first >= end:
            return {}
        length = self._length // STEP
        offset, left = (first - self._begin) // STEP, (end - first - STEP) // STEP // period + 1
        found: dict[int, int] = {}
        while left:
            at = offset // length
            times_in_it = min(left, ((at + 1) * length - offset - 1) // period + 1)
            found[at] = times_in_it
            offset += times_in_it * period
            left -= times_in_it
        return found

    def _one_by_one(
        self, times: DueTimes, after: datetime, left: int | None
    ) -> dict[int, int] | None:
        found: dict[int, int] = {}
        while left is None or left > 0:
            page = times.between(after, just_before(self._end), min(_PAGE, left or _PAGE))
            for due_at in page:
                at = (due_at - self._begin) // self._length
                found[at] = found.get(at, 0) + 1
            if len(page) < _PAGE:
                return found
            if time.thread_time() >= self._ends_at:
                return None
            after = page[-1]
            left = None if left is None else left - len(page)
        return found
