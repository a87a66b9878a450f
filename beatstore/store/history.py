"""Read runs, errors and previews.

Invariants:
    * The cost of an answer does not grow with the history: pages, and an entry's last errors,
      follow an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple, get_args

from sqlalchemy import Select, and_, case, literal, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Instant, Unreadable
from beatstore.database.dialects import dialect_of
from beatstore.database.functions import is_word, micros_between
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY, RUN, TAG, chunks
from beatstore.database.together import Question
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.records import Entry, Run
from beatstore.rules.due import LATEST, DueTimes, just_before
from beatstore.rules.states import ERRORS, LIVE, RUN_STATES
from beatstore.schedules import local_time, zone
from beatstore.store.ahead import UNREADABLE, Ahead
from beatstore.tick.edges import NOT_SUCCEEDED
from beatstore.types import Page, RunSort

__all__ = [
    "RUN_SORTS",
    "RunDetails",
    "RunFilter",
    "details",
    "errors",
    "found_run",
    "last",
    "preview",
    "runs",
]

#: What runs can be sorted by.
RUN_SORTS: tuple[RunSort, ...] = get_args(RunSort)

_PREVIEW_LIMIT = 10_000

#: How many of the newest runs are searched, before all of a tag or a task, or since a time, are.
_NEAR = (2_000, 20_000)

#: The longest id of a task that a row holds.
_TASK_ID = 155

#: Sorts an unfinished run as the longest.
_FAR = literal(datetime(9999, 12, 31, tzinfo=timezone.utc), Instant())

_ENDS = case((RUN.c.state == "started", _FAR), else_=RUN.c.finished_at)

#: The sort keys of runs, in descending order.
_KEYS: dict[RunSort, ColumnElement[Any]] = {
    "due": RUN.c.due_at,
    "sent": RUN.c.sent_at,
    "started": RUN.c.started_at,
    "finished": RUN.c.finished_at,
    "runtime": micros_between(RUN.c.started_at, _ENDS),
    "lateness": case((RUN.c.attempt == 1, micros_between(RUN.c.due_at, RUN.c.sent_at))),
}


class RunFilter(NamedTuple):
    """The filters and the order of a page of runs; see `Store.runs`."""

    state: str | Iterable[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    tag: str | None = None
    task: str | None = None
    worker: str | None = None
    sort: RunSort | None = None


@dataclass(frozen=True, slots=True)
class RunDetails:
    """One run, with all attempts of its occurrence and its entry.

    Attributes:
        run: the run.
        attempts: all attempts of the same due time, in order; the run is one of them.
        entry: the run's entry as it is now; None: it was removed.
    """

    run: Run
    attempts: tuple[Run, ...]
    entry: Entry | None


def details(tx: Transaction, given: int | str) -> RunDetails:
    """Return a run with its attempts and its entry; see `Store.run`."""
    run = found_run(tx, given)
    attempts = [run]
    if isinstance(run.due_at, datetime):  # else the row was written by hand
        of_key = (RUN.c.entry_id == run.entry_id, RUN.c.due_at == run.due_at)
        attempts = tx.all(Run, select(RUN).where(*of_key).order_by(RUN.c.attempt))
    found = tx.all(Entry, select(ENTRY).where(ENTRY.c.id == run.entry_id))
    return RunDetails(run, tuple(attempts), found[0] if found else None)


def found_run(tx: Transaction, given: int | str) -> Run:
    """Return the run with an id, or the newest with a task id.

    Raises:
        InvalidEntryError: there is no such run.
    """
    expected = "the id of a run on record"
    if isinstance(given, str):
        expected = "the id of a run on record, or of its task"
        known = is_word(RUN.c.task_id, fields.sought("run", given, _TASK_ID))
    elif isinstance(given, int) and not isinstance(given, bool) and abs(given) < 2**63:
        known = RUN.c.id == given
    else:
        raise InvalidEntryError("run", given, expected)
    found = tx.all(Run, select(RUN).where(known).order_by(RUN.c.id.desc()).limit(1))
    if not found:
        raise InvalidEntryError("run", given, expected)
    return found[0]


def runs(
    tx: Transaction, name: str | None, chosen: RunFilter, limit: int, before_id: int | None
) -> Page[Run]:
    """Return a page of runs, newest first; see `Store.runs`."""
    limit = fields.whole("limit", limit, least=1)
    if before_id is not None:
        fields.row_id("before_id", before_id)
    found = _ordered(tx, name, chosen, before_id).limit(limit + 1)
    if name is None:
        return Page.cut(_of_all(tx, found, chosen, before_id, limit + 1), limit)
    if not fields.storable(name):
        raise tx.missing(name)
    entry = tx.find(name)
    if entry is not None:
        return Page.cut(_of_entry(tx, entry, chosen, before_id, limit + 1), limit)
    # The entry was removed; its runs still hold its name, which has no index.
    of_removed = tx.all(Run, found.where(is_word(RUN.c.entry_name, name)))
    if not of_removed and before_id is None:
        raise tx.missing(name)
    return Page.cut(of_removed, limit)


def _of_entry(
    tx: Transaction, entry: Entry, chosen: RunFilter, before_id: int | None, limit: int
) -> list[Run]:
    """Return the first runs of an entry, which has the tag and the task or has not."""
    if chosen.task is not None and entry.task != chosen.task:
        return []
    if chosen.tag is not None:
        tagged = select(TAG.c.entry_id).where(TAG.c.entry_id == entry.id)
        if tx.execute(tagged.where(is_word(TAG.c.tag, chosen.tag))).first() is None:
            return []
    found = _ordered(tx, entry.name, chosen._replace(tag=None, task=None), before_id)
    found = found.where(RUN.c.entry_id == entry.id)
    if chosen.sort in (None, "due") and not dialect_of(tx.dialect).sorts_ties:
        return _without_ties(tx, found, limit)
    return tx.all(Run, found.limit(limit))


def _without_ties(tx: Transaction, query: Select[Any], limit: int) -> list[Run]:
    """Return the first runs of an entry by their due time, which is all that its index sorts by.

    MariaDB sorts all of them, for the ids of those with the same due time; or it walks the due
    times of all entries, and looks up each run. So the due times are sorted alone, and those runs
    are added that have the last one too.
    """
    ids = query.order_by(None).with_only_columns(RUN.c.due_at, RUN.c.id)
    first = list(tx.execute(ids.order_by(RUN.c.due_at.desc()).limit(limit)))
    if len(first) == limit:
        first += tx.execute(ids.where(RUN.c.due_at == first[-1].due_at))
    kept = sorted(set(first), key=_due, reverse=True)[:limit]
    order = _ordered(tx, None, RunFilter(sort="due"), None)
    parts = (order.where(RUN.c.id.in_(part)) for part in chunks(row.id for row in kept))
    return [run for part in parts for run in tx.all(Run, part)]


def _of_all(
    tx: Transaction, query: Select[Any], chosen: RunFilter, before_id: int | None, limit: int
) -> list[Run]:
    """Return the first runs of all entries, which `query` finds.

    For a tag or a task, MariaDB begins with its entries, and sorts all rows of their runs, which
    may take minutes. So the newest runs are searched first, and then ids are sorted alone.
    """
    if chosen.since is not None and chosen.sort is None:
        return _since(tx, query, chosen, before_id, limit)
    if (chosen.tag is None and chosen.task is None) or chosen.sort not in (None, "due"):
        return tx.all(Run, query)
    window = RunFilter(since=chosen.since, until=chosen.until, sort=chosen.sort)
    newest = _ordered(tx, None, window, before_id).with_only_columns(RUN.c.id)
    rest = _ordered(tx, None, chosen._replace(since=None, until=None), None)
    for most in _NEAR:
        found = _joined(tx, newest.limit(most), rest.limit(limit))
        if len(found) == limit or tx.execute(newest.offset(most).limit(1)).first() is None:
            return found
    order = _ordered(tx, None, RunFilter(sort=chosen.sort), None)
    return _joined(tx, query.with_only_columns(RUN.c.id), order)


def _since(
    tx: Transaction, query: Select[Any], chosen: RunFilter, before_id: int | None, limit: int
) -> list[Run]:
    """Return the first runs of all entries that were due since then, which `query` finds.

    They are sorted by id, of which no index ends at a due time: a database would walk all ids for
    a page that is not full. So after the newest runs, those due since then are searched by their
    due time. Their ids are sorted by a value that no index has.
    """
    dialect = dialect_of(tx.dialect)
    newest = _ordered(tx, None, RunFilter(), before_id).with_only_columns(RUN.c.id)
    for most in _NEAR:
        edge = tx.execute(newest.offset(most).limit(1)).scalar()
        if edge is None:
            return tx.all(Run, query)
        found = tx.all(Run, dialect.by_key(query.where(RUN.c.id > edge), RUN))
        if len(found) == limit:
            return found
    key = RUN.c.id + 0
    ids = _chosen(select(RUN.c.id), chosen).where(key <= edge).order_by(key.desc())
    order = _ordered(tx, None, RunFilter(), None)
    return found + _joined(tx, ids.limit(limit - len(found)), order)


def _joined(tx: Transaction, ids: Select[Any], query: Select[Any]) -> list[Run]:
    """Return those runs of a query that have one of these ids."""
    near = ids.subquery("near")
    joined = query.select_from(near.join(RUN, RUN.c.id == near.c.id))
    return tx.all(Run, dialect_of(tx.dialect).joined_in_order(joined))


def _ordered(
    tx: Transaction, name: str | None, chosen: RunFilter, before_id: int | None
) -> Select[Any]:
    """Return the sorted query, starting after one run."""
    found, sort = _chosen(select(RUN), chosen), chosen.sort
    if sort is None and name is None:
        found = found if before_id is None else found.where(RUN.c.id < before_id)
        return found.order_by(RUN.c.id.desc())
    if sort in (None, "due"):
        found = found if before_id is None else found.where(_before(tx, before_id))
        return found.order_by(RUN.c.due_at.desc(), RUN.c.id.desc())
    key = _KEYS[fields.choice("sort", sort, RUN_SORTS)]
    found = found.where(key.is_not(None))
    if before_id is not None:
        last = tx.execute(select(key).where(RUN.c.id == before_id)).scalar()
        if last is None or isinstance(last, Unreadable):
            expected = f"the id of a run on record that has a value for sort={sort!r}"
            raise InvalidEntryError("before_id", before_id, expected)
        found = found.where(or_(key < last, and_(key == last, RUN.c.id < before_id)))
    return found.order_by(key.desc(), RUN.c.id.desc())


def errors(tx: Transaction, name: str, limit: int) -> Page[Run]:
    """Return the last failed or lost runs, newest first; see `Store.errors`."""
    limit = fields.whole("limit", limit, least=1)
    entry = tx.find(name)
    if entry is None:
        return runs(tx, name, RunFilter(ERRORS), limit, None)
    found: list[Run] = []
    for state in ERRORS:  # one query each, so that each follows the index in its order
        page = select(RUN).where(RUN.c.entry_id == entry.id, RUN.c.state == state, NOT_SUCCEEDED)
        page = page.order_by(RUN.c.due_at.desc(), RUN.c.id.desc()).limit(limit + 1)
        found += tx.all(Run, page)
    found.sort(key=_due, reverse=True)
    return Page.cut(found, limit)


def last(entry_id: int, limit: int) -> Question[Page[Run]]:
    """Ask for the last runs of an entry, newest first.

    They are those that the index has last: for the order of their ids MariaDB may walk the runs of
    all entries.
    """
    page = select(RUN).where(RUN.c.entry_id == entry_id)
    page = page.order_by(RUN.c.due_at.desc(), RUN.c.attempt.desc()).limit(limit + 1)

    def read(rows: Sequence[Any]) -> Page[Run]:
        return Page.cut([Run(*row) for row in sorted(rows, key=_due, reverse=True)], limit)

    return Question(page, read)


def _due(row: Any) -> tuple[str, int]:
    return str(row.due_at), row.id  # as text, since a row written by hand may hold anything


def _chosen(found: Select[Any], chosen: RunFilter) -> Select[Any]:
    if chosen.state is not None:
        states = _states(chosen.state)
        found = found.where(RUN.c.state.in_(states))
        # The index of what did not succeed: the states alone, as parameters, would not say so.
        found = found if "succeeded" in states else found.where(NOT_SUCCEEDED)
    if chosen.since is not None:
        found = found.where(RUN.c.due_at >= fields.instant("since", chosen.since))
    if chosen.until is not None:
        found = found.where(RUN.c.due_at < fields.instant("until", chosen.until))
    if chosen.tag is not None:
        tagged = select(TAG.c.entry_id).where(TAG.c.entry_id == RUN.c.entry_id)
        found = found.where(
            tagged.where(is_word(TAG.c.tag, fields.sought("tag", chosen.tag))).exists()
        )
    if chosen.task is not None:
        of_task = select(ENTRY.c.id).where(ENTRY.c.id == RUN.c.entry_id)
        found = found.where(
            of_task.where(is_word(ENTRY.c.task, fields.sought("task", chosen.task))).exists()
        )
    if chosen.worker is not None:
        found = found.where(is_word(RUN.c.worker, fields.sought("worker", chosen.worker)))
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
    if not isinstance(due_at, datetime):  # pruned meanwhile, or written by hand
        return RUN.c.id < run_id
    return and_(RUN.c.due_at <= due_at, or_(RUN.c.due_at < due_at, RUN.c.id < run_id))


def preview(tx: Transaction, name: str, count: int, start: datetime | None) -> list[datetime]:
    """Return the next occurrences of an entry; see `Store.preview`."""
    entry = tx.get(name)
    count = fields.whole("count", count, most=_PREVIEW_LIMIT)
    if entry.state not in LIVE or entry.kind == "after":
        return []
    if any(isinstance(getattr(entry, column.name), Unreadable) for column in ENTRY.columns):
        return []  # beat will mark it broken
    times = DueTimes.of(entry, tx.settings)
    now = tx.now()
    after = now if start is None else just_before(fields.instant("start", start))
    if entry.max_runs is not None:
        try:
            ahead = Ahead(entry, now, tx.settings)
        except UNREADABLE:
            return []  # as above
        ahead.skip(after)
        count = min(count, ahead.remaining or 0)
    shown_in = zone(entry.timezone or tx.settings.default_timezone)
    return [local_time(at, shown_in) for at in times.between(after, LATEST, count)]
