"""The unsatisfied upstreams of an entry and what each of them is doing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, String, case, func, literal, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.config import Settings
from beatstore.database.columns import Instant, Unreadable
from beatstore.database.functions import is_word
from beatstore.database.tables import AUDIT, DEPENDENCY, ENTRY, RUN
from beatstore.database.together import Question
from beatstore.records import Audit, Entry, Run, entry_of
from beatstore.rules.states import UNFINISHED, WITH_WORKER
from beatstore.schedules.instants import EPOCH
from beatstore.store.audit import is_departure, is_of_run
from beatstore.store.explain.wording import NO_REASON, Wording, clause, maker
from beatstore.tick.edges import NOT_SUCCEEDED, unsatisfied

__all__ = [
    "CHANGES_READ",
    "Upstream",
    "Upstreams",
    "addition",
    "changed_to",
    "changes",
    "last_of_another",
    "newest_first",
    "newest_unfinished",
    "readable",
    "runs",
    "unfinished",
]

R = TypeVar("R", Entry, Run)

#: Instants that are never NULL.
_NEEDED = ("created_at", "updated_at")

#: How many upstreams are shown.
SHOWN = 10

#: How many of an entry's changes are searched for the one that set its state.
CHANGES_READ = 100

#: The states of a run that has not ended, `started` first.
_UNFINISHED = sorted(UNFINISHED, key=lambda state: (state != "started", state))

_UP = ENTRY.alias("up")
_EDGE = DEPENDENCY.c


@dataclass(frozen=True, slots=True)
class Upstream:
    """An upstream that an entry waits for.

    Attributes:
        name: of the upstream.
        on: what it must do: `success`, `done` or `failure`.
        align: `latest`, or `same`: for the same due time.
        state: the upstream's state.
        doing: what it is doing or did last, in words.
        next_due_at: its next due time, if it has a schedule and is active.
    """

    name: str
    on: str
    align: str
    state: str
    doing: str
    next_due_at: datetime | None = None


class Upstreams:
    """Finds the unsatisfied upstreams of an entry.

    Ask `questions` first, then `details()`, if there are any; then the other attributes and
    `described` are known.

    Args:
        entry: whose upstreams are meant.
        settings: the default time zone.
    """

    def __init__(self, entry: Entry, settings: Settings) -> None:
        self._entry, self._settings = entry, settings
        edges = DEPENDENCY.outerjoin(_UP, _UP.c.id == _EDGE.upstream_id)
        due_at = literal(entry.pending_due_at or EPOCH, Instant())
        # The condition that an edge blocks the entry, as the tick has it.
        blocks = or_(_UP.c.id.is_(None), unsatisfied(_UP, due_at))
        mine = _EDGE.downstream_id == entry.id
        counts: list[ColumnElement[Any]] = [func.count().label("edges")]
        counts.append(func.count(case((blocks, 1))).label("unmet"))
        self._counts: Question[tuple[int, int]] = Question(
            select(*counts).select_from(edges).where(mine),
            lambda rows: (rows[0].edges, rows[0].unmet),
        )
        # Those that are not active come first; each group is ordered by name.
        stuck = case((_UP.c.state == "active", 1), else_=0)
        edge = (_EDGE.upstream_id, _EDGE.on.label("edge_on"), _EDGE.align.label("edge_align"))
        page = select(_UP, *edge).select_from(edges).where(mine, blocks)
        self._page = Question(page.order_by(stuck, _UP.c.name).limit(SHOWN), self._edges)
        self.questions: list[Question[Any]] = [self._counts, self._page]
        self._runs: Question[dict[int, Run]]
        self._last: Question[dict[int, Run]]
        self._changes: dict[str, Question[list[Audit]]] = {}
        self._names: dict[int, Question[str | None]] = {}

    @property
    def edges(self) -> int:
        """How many upstreams the entry has."""
        return self._counts.answer[0]

    @property
    def unmet(self) -> int:
        """How many of them are unsatisfied."""
        return self._counts.answer[1]

    def _edges(self, rows: Sequence[Any]) -> list[tuple[Entry | None, Any]]:
        """Return the unsatisfied edges in their order, each with its upstream, if that exists."""
        width = len(ENTRY.columns)
        found = [
            (None if row[0] is None else readable(entry_of(row[:width], self._settings)), row)
            for row in rows
        ]
        # A removed one has no name, and comes first, as on most databases.
        return sorted(found, key=lambda one: _order(one[0]))

    def details(self) -> list[Question[Any]]:
        """Return the questions about what these upstreams are doing."""
        ups = [up for up, _ in self._page.answer if up is not None]
        for up in (one for one in ups if one.state != "active"):
            if up.state != "broken":  # the error says why it is
                self._changes[up.name] = changes(up.name)
        for up_id in (edge.upstream_id for up, edge in self._page.answer if up is None):
            named = select(RUN.c.entry_name.label("name")).where(RUN.c.entry_id == up_id)
            page = named.order_by(RUN.c.due_at.desc()).limit(1)
            self._names[up_id] = Question(page, lambda rows: rows[0].name if rows else None)
        asked: list[Question[Any]] = [*self._changes.values(), *self._names.values()]
        if ups:
            ids = [up.id for up in ups]
            self._runs = Question(newest_unfinished(ids, _UNFINISHED), _by_entry)
            self._last = Question(_newest(ids), _by_entry)
            asked += [self._runs, self._last]
        return asked

    def described(self, wording: Wording) -> list[Upstream]:
        """Return the first unsatisfied upstreams."""
        return [self._upstream(up, edge, wording) for up, edge in self._page.answer]

    def _upstream(self, up: Entry | None, edge: Any, wording: Wording) -> Upstream:
        on, align = edge.edge_on, edge.edge_align
        if up is None:
            name = self._names[edge.upstream_id].answer or f"entry {edge.upstream_id}"
            return Upstream(name, on, align, "removed", "it was removed")
        doing = self._doing(up, wording)
        upcoming = up.next_due_at
        if up.state != "active" or (upcoming is not None and upcoming <= wording.now):
            upcoming = None
        if upcoming is not None:
            doing += f"; it is due next at {wording.when(upcoming)}"
        return Upstream(up.name, on, align, up.state, doing, upcoming)

    def _doing(self, up: Entry, wording: Wording) -> str:
        """Return what an upstream is doing, or how its last run ended, as a clause."""
        if up.state == "broken":
            return f"it is broken ({clause(up.error or NO_REASON)})"
        run = self._runs.answer.get(up.id)
        under_way = wording.under_way(run, wording.which(run, "its run")) if run else ""
        is_finished = up.state == "finished"
        if up.state != "active" and not is_finished:
            by = changed_to(self._changes[up.name].answer, up.state)
            so = wording.since(by.at, maker(by)) if by else ""
            over = "" if up.state == "paused" else ", and will not run again"
            sent = run is not None and run.state in WITH_WORKER
            return f"it is {up.state}{so}{over}" + (f"; {under_way}" if sent else "")
        if under_way:
            return under_way
        if up.id != self._entry.id and up.pending_since is not None:
            reason = clause(up.pending_reason or "waits").removeprefix("waits: ")
            reason = reason if reason.startswith("waits") else f"waits because {reason}"
            return f"it {reason} (for {wording.ago(up.pending_since)})"
        last = self._last.answer.get(up.id)
        ended = "it has never run" if last is None else wording.outcome(last, "its last run")
        return f"it is finished, and will not run again; {ended}" if is_finished else ended


def _order(up: Entry | None) -> tuple[bool, str]:
    return (False, "") if up is None else (up.state == "active", up.name)


# -- runs and changes ----------------------------------------------------------------------


def unfinished(entry_id: int, limit: int) -> list[Question[list[Run]]]:
    """Ask for runs of an entry that have not ended, one more than `limit` of each state.

    Started ones come first; within a state, the newest first.
    """
    # A query for each state, so that each follows the index in its order.
    return [runs(_in_state(entry_id, state).limit(limit + 1)) for state in _UNFINISHED]


def _in_state(entry_id: Any, state: str, *columns: Any) -> Select[Any]:
    found = select(*(columns or (RUN,))).where(RUN.c.entry_id == entry_id)
    return found.where(RUN.c.state == state, NOT_SUCCEEDED).order_by(RUN.c.due_at.desc())


def newest_unfinished(ids: Iterable[int], states: Sequence[str]) -> Select[Any]:
    """Return a query for one run of each entry: the newest in the first state that has one."""
    newest = [
        _in_state(ENTRY.c.id, state, RUN.c.id).limit(1).correlate(ENTRY).scalar_subquery()
        for state in states
    ]
    return _joined(func.coalesce(*newest), ids)


def _newest(ids: Iterable[int]) -> Select[Any]:
    """Return a query for the last run of each entry."""
    of_each = select(RUN.c.id).where(RUN.c.entry_id == ENTRY.c.id)
    newest = of_each.order_by(RUN.c.due_at.desc(), RUN.c.attempt.desc()).limit(1)  # as an index
    return _joined(newest.correlate(ENTRY).scalar_subquery(), ids)


def _joined(run_id: ColumnElement[int], ids: Iterable[int]) -> Select[Any]:
    of_each = select(run_id.label("id")).where(ENTRY.c.id.in_(list(ids))).subquery()
    return select(RUN).join(of_each, of_each.c.id == RUN.c.id)


def _by_entry(rows: Sequence[Any]) -> dict[int, Run]:
    return {run.entry_id: run for run in _readable_runs(rows)}


def runs(page: Select[Any]) -> Question[list[Run]]:
    """Ask for runs, newest first, leaving out those whose due time can't be read."""
    return Question(page, newest_first)


def newest_first(rows: Sequence[Any]) -> list[Run]:
    """Return rows as runs, newest first, without those whose due time can't be read."""
    return sorted(_readable_runs(rows), key=lambda run: (run.due_at, run.id), reverse=True)


def _readable_runs(rows: Sequence[Any]) -> list[Run]:
    return [readable(Run(*row)) for row in rows if isinstance(row.due_at, datetime)]


def readable(row: R) -> R:
    """Return a row with a default for each value that can't be read (written by hand)."""
    instead: dict[str, Any] = {}
    for column in (ENTRY if isinstance(row, Entry) else RUN).columns:
        value = getattr(row, column.name)
        if isinstance(value, Unreadable):
            default: Any = column.default
            given = default.arg if default and default.is_scalar else None
            text = value.given if isinstance(column.type, String) else given
            instead[column.name] = EPOCH if column.name in _NEEDED else text
    return replace(row, **instead) if instead else row


def changes(name: str, *when: Any, limit: int = CHANGES_READ) -> Question[list[Audit]]:
    """Ask for the changes of an entry, newest first."""
    page = select(AUDIT).where(is_word(AUDIT.c.entry, name), *when)
    page = page.order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(limit)
    return Question(page, _changes)


def _changes(rows: Sequence[Any]) -> list[Audit]:
    # One whose time can't be read, in a row written by hand, comes last.
    found = sorted(
        (Audit(*row) for row in rows),
        key=lambda change: (change.at if isinstance(change.at, datetime) else EPOCH, change.id),
        reverse=True,
    )
    return found


def changed_to(found: Sequence[Audit], state: str) -> Audit | None:
    """Return the one of an entry's changes that put it into its state; None if none did."""
    for change in found:
        if is_of_run(change):
            continue
        became = change.after.get("state") if isinstance(change.after, dict) else None
        if became is not None:
            return change if became == state else None
    return None


def addition(found: Sequence[Audit], created_at: datetime) -> Audit | None:
    """Return the change that made an entry, and not another one of its name; None: it is unknown.

    Args:
        found: changes, newest first.
        created_at: when the entry was made.
    """
    known = (one for one in found if isinstance(one.at, datetime) and not is_of_run(one))
    made = next((one for one in known if one.before is None), None)
    return made if made is not None and made.at >= created_at else None


def last_of_another(found: Sequence[Audit], created_at: datetime) -> Audit | None:
    """Return the last change of an entry that had the name before the one created at an instant.

    Args:
        found: all changes after an instant, newest first.
        created_at: when the present entry was made.

    Returns:
        None: no entry had the name at that instant, as far as the audit knows.
    """
    known = [one for one in found if isinstance(one.at, datetime) and not is_of_run(one)]
    if not known or known[-1].before is None:
        return None
    ends = (one for one in known if one.at <= created_at and one.before is not None)
    return next((one for one in ends if is_departure(one)), None)
