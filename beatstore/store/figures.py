"""Figures about the runs of a window of time: how many by state, and what failed.

Invariants:
    * Only the newest runs of a window are read, by an index, up to a limit; each answer says
      where that left something out. Runs with the same due time may be read beyond the limit.

Each function joins the open transaction it is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Select, Text, and_, case, func, literal, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Instant
from beatstore.database.dialects import dialect_of
from beatstore.database.functions import micros_between
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY, RUN
from beatstore.database.together import Question, ask
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.rules.due import STEP
from beatstore.rules.states import ERRORS
from beatstore.store.conditions import SIMPLY_DUE
from beatstore.types import Duration, Page, RunState

__all__ = ["FailureGroup", "RunCount", "failures", "run_counts"]

#: How many runs are read at most, and how many failures among them.
_RUNS = 20_000
_FAILURES = 2_000

#: The most steps of one answer.
_STEPS = 10_000

#: A run that was sent more than this after its due time was late.
_LATE = timedelta(seconds=60)

_NAMES = 3

#: Runs are read by a range of ids, if it has at most so many times as many ids as runs.
_SPREAD = 4

#: How much of an error is read, and what stands for a number or an id in it.
_ERROR_LENGTH = 300
_VARYING = re.compile(
    r"""
    \b [0-9a-f]{8} (?: - [0-9a-f]{4} ){3} - [0-9a-f]{12} \b  # a UUID
    | \b 0x [0-9a-f]+ \b
    | \b (?= [a-f]* [0-9] ) [0-9a-f]{8,} \b                  # a digest, or its beginning
    | [0-9]+ (?: [.,:] [0-9]+ )*                             # a number, a time, an address
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class RunCount:
    """How many runs were due in one step of time.

    Attributes:
        at: where the step begins; it ends where the next one begins.
        states: how many runs were due in it, by their state now; retries count too.
        late: how many of them were sent more than 60 s after their due time, for no reason of
            their own. As in the lateness of `Status`, triggered runs, retries, runs that waited,
            runs of entries with jitter or without a schedule, and runs that cover earlier
            occurrences are not.
        complete: whether all runs of the step were read.
    """

    at: datetime
    states: Mapping[RunState, int] = field(default_factory=dict)
    late: int = 0
    complete: bool = True

    def __hash__(self) -> int:
        # The counts have no hash.
        return hash(self.at)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The failed and lost runs whose errors differ in numbers and ids only.

    Attributes:
        error: the first line of their error, with "#" for each number and id.
        count: how many runs there are.
        names: up to three names of their entries, that of the newest run first.
        run_id: the id of the newest run.
        due_at: its due time.
    """

    error: str
    count: int
    names: tuple[str, ...]
    run_id: int
    due_at: datetime


def run_counts(
    tx: Transaction,
    name: str | None,
    since: datetime,
    until: datetime | None,
    step: Duration,
) -> tuple[RunCount, ...]:
    """Return how many runs were due in each step; see `Store.run_counts`."""
    begin = fields.instant("since", since)
    end = tx.now() if until is None else fields.instant("until", until)
    length = timedelta(seconds=fields.seconds("step", step, above=True)) // STEP
    steps = -((begin - end) // STEP // max(length, 1))
    if not 0 < steps <= _STEPS:
        expected = f"a time after since that has at most {_STEPS:,} steps"
        raise InvalidEntryError("until", end.isoformat(), expected)
    states: list[dict[Any, int]] = [{} for _ in range(steps)]
    late, read, oldest = [0] * steps, 0, steps
    for row in tx.execute(_counted(tx, name, begin, end, length)):
        read += row.runs
        if row.step is not None and 0 <= row.step < steps:
            at = int(row.step)
            states[at][row.state] = row.runs
            late[at] += int(row.late)
            oldest = min(oldest, at)
    complete_from = oldest + 1 if read > _RUNS else 0
    return tuple(
        RunCount(begin + at * length * STEP, states[at], late[at], complete=at >= complete_from)
        for at in range(steps)
    )


def _counted(
    tx: Transaction, name: str | None, begin: datetime, end: datetime, length: int
) -> Select[Any]:
    """Return a query for the number of runs by step and state."""
    on_time = case((and_(ENTRY.c.kind != "after", ENTRY.c.jitter_s == 0), 1), else_=0)
    punctual = select(on_time).where(ENTRY.c.id == RUN.c.entry_id).scalar_subquery()
    behind = micros_between(RUN.c.due_at, RUN.c.sent_at) > _LATE // STEP
    # The entry is looked up for the few that may be late; it may be gone.
    late = case((and_(SIMPLY_DUE, behind), func.coalesce(punctual, 0)), else_=0)
    columns = (RUN.c.due_at, RUN.c.state, late.label("late"))
    window = _window(tx, name, columns, begin, end)
    newest = _newest(tx, window, end, of_all=name is None).subquery("newest")
    elapsed = micros_between(literal(begin, Instant()), newest.c.due_at)
    step = (elapsed // length).label("step")
    inner = select(step, newest.c.state, newest.c.late).subquery("steps")
    key: list[ColumnElement[Any]] = [inner.c.step, inner.c.state]
    counts = [func.count().label("runs"), func.sum(inner.c.late).label("late")]
    found: Any = select(*key, *counts).group_by(*key)
    return cast("Select[Any]", found)


def failures(tx: Transaction, name: str | None, since: datetime, limit: int) -> Page[FailureGroup]:
    """Return the failed and lost runs, grouped by their error; see `Store.failures`."""
    limit = fields.whole("limit", limit, least=1)
    begin = fields.instant("since", since)
    columns = (RUN.c.id, RUN.c.due_at, RUN.c.state)
    window = _window(tx, name, columns, begin, None)
    newest = _newest(tx, window, None, of_all=name is None).subquery("newest")
    wrong = select(newest.c.id).where(newest.c.state.in_(ERRORS)).order_by(newest.c.due_at.desc())
    ids = wrong.limit(_FAILURES).subquery("ids")
    shown = [
        func.substr(RUN.c[text], 1, _ERROR_LENGTH, type_=Text()).label(text)
        for text in ("error", "reason")
    ]
    read = select(RUN.c.id, RUN.c.entry_name, RUN.c.due_at, RUN.c.state, *shown)
    read = read.join(ids, ids.c.id == RUN.c.id)
    dues = window.with_only_columns(RUN.c.due_at).order_by(RUN.c.due_at.desc())
    beyond = dues.offset(_RUNS + 1).limit(1)
    wrong_runs, older = Question(read, _newest_first), Question(beyond, bool)
    ask(tx, [wrong_runs, older])
    rows = wrong_runs.answer
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(_pattern(row.error or row.reason or row.state), []).append(row)
    found = sorted(groups.items(), key=lambda group: len(group[1]), reverse=True)
    cut = len(found) > limit or len(rows) == _FAILURES or older.answer
    return Page((_group(error, members) for error, members in found[:limit]), more=cut)


def _group(error: str, rows: Sequence[Any]) -> FailureGroup:
    names = tuple(dict.fromkeys(row.entry_name for row in rows))[:_NAMES]
    return FailureGroup(error, len(rows), names, rows[0].id, rows[0].due_at)


def _newest_first(rows: Sequence[Any]) -> list[Any]:
    """Sort rows, without those whose due time can't be read, as of one written by hand."""
    known = [row for row in rows if isinstance(row.due_at, datetime)]
    return sorted(known, key=lambda row: (row.due_at, row.id), reverse=True)


def _pattern(error: str) -> str:
    """Return the first line of an error, with what varies replaced."""
    lines = error.splitlines()
    return _VARYING.sub("#", lines[0].strip() if lines else "")


def _window(
    tx: Transaction,
    name: str | None,
    columns: Sequence[ColumnElement[Any]],
    begin: datetime,
    end: datetime | None,
) -> Select[Any]:
    """Return a query for the runs due in a window.

    Raises:
        EntryNotFoundError: there is no entry of that name.
    """
    found = select(*columns).where(RUN.c.due_at >= begin)
    if end is not None:
        found = found.where(RUN.c.due_at < end)
    if name is not None:
        found = found.where(RUN.c.entry_id == tx.get(name).id)
    return found


def _newest(
    tx: Transaction, window: Select[Any], end: datetime | None, *, of_all: bool
) -> Select[Any]:
    """Return a query for the newest runs due in a window, by an index or by a range of ids.

    It returns one more than `_RUNS`, if there are so many.

    Args:
        tx: the open transaction.
        window: a query for all of them.
        end: where the window ends.
        of_all: whether it is one of all entries.
    """
    keys = _keys(tx) if of_all else None
    if keys is None or (end is not None and end <= keys.latest):
        return window.order_by(RUN.c.due_at.desc()).limit(_RUNS + 1)
    near = RUN.c.id.between(keys.first, keys.last), RUN.c.due_at >= keys.oldest
    return dialect_of(tx.dialect).by_key(window.where(*near), RUN)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Between which ids the newest runs are, and between which due times."""

    first: int
    last: int
    oldest: datetime
    latest: datetime


def _keys(tx: Transaction) -> _Keys | None:
    """Return where the newest runs are; None if they are not read by a range of ids."""
    newest = select(RUN.c.id, RUN.c.due_at).order_by(RUN.c.due_at.desc()).limit(_RUNS + 1)
    one = newest.subquery("newest").c
    ends = (func.min(one.id), func.max(one.id), func.min(one.due_at), func.max(one.due_at))

    def read() -> _Keys | None:
        row: Any = tx.execute(select(*ends, func.count())).one()
        first, last, oldest, latest, count = row
        if not (isinstance(oldest, datetime) and isinstance(latest, datetime)):
            return None  # there is none, or one that was written by hand
        return _Keys(first, last, oldest, latest) if last - first < _SPREAD * count else None

    return tx.known(("newest runs",), read) if dialect_of(tx.dialect).stores_by_key else None
