"""The unsatisfied upstreams of an entry and what each of them is doing."""

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
from beatstore.store.explain.wording import NO_REASON, Wording, clause, maker
from beatstore.tick.edges import NOT_SUCCEEDED, unsatisfied

__all__ = ["Upstream", "changed_to", "last_runs", "read_runs", "readable", "unfinished", "unmet"]

R = TypeVar("R", Entry, Run)

#: Instants that are never NULL.
_NEEDED = ("created_at", "updated_at")

#: How many upstreams are shown.
SHOWN = 10

#: How many of an entry's changes are searched for the one that set its state.
_CHANGES_READ = 100

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


def unmet(tx: Transaction, entry: Entry, wording: Wording) -> tuple[int, int, list[Upstream]]:
    """Return how many upstreams an entry has, how many are unsatisfied, and the first of those.

    Those that are not active come first; each group is ordered by name.
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
    ups = [_upstream(tx, entry, by_id.get(row.upstream_id), row, wording) for row in rows]
    return counts.edges, counts.unmet, ups


def _unsatisfied(entry: Entry) -> ColumnElement[bool]:
    """Return the condition that an edge blocks the entry, as the tick has it."""
    due_at = literal(entry.pending_due_at or EPOCH, Instant())
    return or_(_UP.c.id.is_(None), unsatisfied(_UP, due_at))


def _upstream(
    tx: Transaction, entry: Entry, up: Entry | None, edge: object, wording: Wording
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
    doing = _doing(tx, entry, up, wording)
    upcoming = up.next_due_at
    if up.state != "active" or (upcoming is not None and upcoming <= wording.now):
        upcoming = None
    if upcoming is not None:
        doing += f"; it is due next at {wording.when(upcoming)}"
    return Upstream(up.name, on, align, up.state, doing, upcoming)


def _doing(tx: Transaction, entry: Entry, up: Entry, wording: Wording) -> str:
    """Return what an upstream is doing, or how its last run ended, as a clause."""
    if up.state == "broken":
        return f"it is broken ({clause(up.error or NO_REASON)})"
    if up.state != "active":
        by = changed_to(tx, up.name, up.state)
        so = wording.since(by.at, maker(by)) if by else ""
        over = "" if up.state == "paused" else ", and will not run again"
        return f"it is {up.state}{so}{over}"
    for run in unfinished(tx, up.id, 1)[1]:
        return wording.under_way(run, wording.which(run, "its run"))
    if up.id != entry.id and up.pending_since is not None:
        reason = clause(up.pending_reason or "waits").removeprefix("waits: ")
        reason = reason if reason.startswith("waits") else f"waits because {reason}"
        return f"it {reason} (for {wording.ago(up.pending_since)})"
    last = last_runs(tx, up.id, 1)
    if not last:
        return "it has never run"
    return wording.outcome(last[0], "its last run")


# -- runs and changes ----------------------------------------------------------------------


def unfinished(tx: Transaction, entry_id: int, limit: int) -> tuple[bool, list[Run]]:
    """Return the runs of an entry that have not ended, and whether there are more.

    Started ones come first; within a state, the newest first.
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
    """Return runs, leaving out those whose due time can't be read."""
    return [readable(run) for run in tx.all(Run, page) if isinstance(run.due_at, datetime)]


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


def changed_to(tx: Transaction, name: str, state: str) -> Audit | None:
    """Return the change that put an entry into its state; None if none is on record."""
    found = select(AUDIT).where(AUDIT.c.entry == name)
    page = found.order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(_CHANGES_READ)
    for change in tx.all(Audit, page):
        became = change.after.get("state") if isinstance(change.after, dict) else None
        if became is not None:
            return change if became == state else None
    return None
