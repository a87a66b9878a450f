"""What an entry waits for: its unsatisfied upstreams, and what each of them is doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, String, case, func, literal, or_, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Instant, Unreadable
from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT, DEPENDENCY, ENTRY, RUN
from beatstore.records import Audit, Entry, Run
from beatstore.rules.states import UNFINISHED
from beatstore.schedules.instants import EPOCH
from beatstore.store.explain.wording import Told, clause
from beatstore.tick.edges import NOT_SUCCEEDED, unsatisfied

__all__ = ["Upstream", "changed_to", "last_runs", "read_runs", "readable", "unfinished", "unmet"]

R = TypeVar("R", Entry, Run)

#: Instants that each row has.
_NEEDED = ("created_at", "updated_at")

#: So many upstreams are told of.
SHOWN = 10

#: So many of an entry's changes are searched for the one that put it into its state.
_CHANGES_READ = 100

#: The states of a run that has not ended, the one that is worked on first.
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
        doing: what it is doing, or did last, in words.
        next_due_at: when it is due next, as far as it has a clock and is active.
    """

    name: str
    on: str
    align: str
    state: str
    doing: str
    next_due_at: datetime | None = None


def unmet(tx: Transaction, entry: Entry, told: Told) -> tuple[int, int, list[Upstream]]:
    """Return how many upstreams an entry has, how many are unsatisfied, and the first of those.

    Those that need somebody's hand come first, then they are ordered by name.
    """
    edges = DEPENDENCY.outerjoin(_UP, _UP.c.id == _EDGE.upstream_id)
    unsatisfied = _unsatisfied(entry)
    count = func.count(case((unsatisfied, 1))).label("unmet")
    mine = _EDGE.downstream_id == entry.id
    counts = tx.execute(
        select(func.count().label("edges"), count).select_from(edges).where(mine)
    ).one()
    if not counts.unmet:
        return counts.edges, 0, []
    stuck = case((_UP.c.state == "active", 1), else_=0)
    found = select(_EDGE.upstream_id, _EDGE.on, _EDGE.align).select_from(edges)
    page = found.where(mine, unsatisfied).order_by(stuck, _UP.c.name).limit(SHOWN)
    rows = tx.execute(page).all()
    ids = [row.upstream_id for row in rows]
    found_ups = tx.all(Entry, select(ENTRY).where(ENTRY.c.id.in_(ids)))
    by_id = {up.id: readable(up) for up in found_ups}
    ups = [_upstream(tx, entry, by_id.get(row.upstream_id), row, told) for row in rows]
    return counts.edges, counts.unmet, ups


def _unsatisfied(entry: Entry) -> ColumnElement[bool]:
    """Return the condition that an edge holds the entry back, by the account that beats keep."""
    due_at = literal(entry.pending_due_at or EPOCH, Instant())
    return or_(_UP.c.id.is_(None), unsatisfied(_UP, due_at))


def _upstream(
    tx: Transaction, entry: Entry, up: Entry | None, edge: object, told: Told
) -> Upstream:
    on, align, upstream_id = (getattr(edge, name) for name in ("on", "align", "upstream_id"))
    if up is None:
        name = tx.execute(
            select(RUN.c.entry_name)
            .where(RUN.c.entry_id == upstream_id)
            .order_by(RUN.c.due_at.desc())
            .limit(1)
        ).scalar()
        return Upstream(name or f"entry {upstream_id}", on, align, "removed", "it was removed")
    doing = _doing(tx, entry, up, told)
    upcoming = up.next_due_at
    if up.state != "active" or (upcoming is not None and upcoming <= told.now):
        upcoming = None
    if upcoming is not None:
        doing += f"; it is due next at {told.when(upcoming)}"
    return Upstream(up.name, on, align, up.state, doing, upcoming)


def _doing(tx: Transaction, entry: Entry, up: Entry, told: Told) -> str:
    """Return what an upstream is doing, or what became of its last run, as a clause."""
    if up.state == "broken":
        return f"it is broken ({clause(up.error or 'nobody said why')})"
    if up.state != "active":
        by = changed_to(tx, up.name, up.state)
        so = told.since(by.at, by.actor) if by else ""
        over = "" if up.state == "paused" else ", and will not run again"
        return f"it is {up.state}{so}{over}"
    for run in unfinished(tx, up.id, 1)[1]:
        return told.under_way(run, told.which(run, "its run"))
    if up.id != entry.id and up.pending_since is not None:
        reason = clause(up.pending_reason or "waits").removeprefix("waits: ")
        reason = reason if reason.startswith("waits") else f"waits, since {reason}"
        return f"it {reason} (for {told.ago(up.pending_since)})"
    last = last_runs(tx, up.id, 1)
    if not last:
        return "it has never run"
    return told.outcome(last[0], "its last run")


# -- what is known of any entry ------------------------------------------------------------


def unfinished(tx: Transaction, entry_id: int, limit: int) -> tuple[bool, list[Run]]:
    """Return the runs of an entry that have not ended, and whether there are more.

    The ones that are being worked on come first, each state with the newest first.
    """
    found: list[Run] = []
    for state in _UNFINISHED:
        page = select(RUN).where(RUN.c.entry_id == entry_id, RUN.c.state == state, NOT_SUCCEEDED)
        found += read_runs(tx, page.order_by(RUN.c.due_at.desc()).limit(limit + 1))
    return len(found) > limit, found[:limit]


def last_runs(tx: Transaction, entry_id: int, limit: int) -> Sequence[Run]:
    """Return the last runs of an entry, the newest first."""
    page = select(RUN).where(RUN.c.entry_id == entry_id)
    return read_runs(tx, page.order_by(RUN.c.due_at.desc(), RUN.c.id.desc()).limit(limit))


def read_runs(tx: Transaction, page: Select[Any]) -> list[Run]:
    """Return runs, without those whose due time nobody can read."""
    return [readable(run) for run in tx.all(Run, page) if isinstance(run.due_at, datetime)]


def readable(row: R) -> R:
    """Return a row as if what can't be read in it (written by hand) were not there."""
    instead: dict[str, Any] = {}
    for column in (ENTRY if isinstance(row, Entry) else RUN).columns:
        value = getattr(row, column.name)
        if isinstance(value, Unreadable):
            default: Any = column.default
            given = default.arg if default and default.is_scalar else None
            text = value.given if isinstance(column.type, String) else given
            instead[column.name] = EPOCH if column.name in _NEEDED else text
    return replace(row, **instead) if instead else row


def changed_to(tx: Transaction, name: str, state: str) -> Audit | None:
    """Return the change that put an entry into the state it is in, if it is on record."""
    found = select(AUDIT).where(AUDIT.c.entry == name)
    page = found.order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(_CHANGES_READ)
    for change in tx.all(Audit, page):
        became = change.after.get("state") if isinstance(change.after, dict) else None
        if became is not None:
            return change if became == state else None
    return None
