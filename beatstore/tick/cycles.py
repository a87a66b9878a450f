"""Find dependency cycles. Edges whose first run is free are allowed to form one.

The search alternates between both ends, one level of edges per statement, and stops when one
end has no more edges. So adding the last entry of a long pipeline reads very little.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Executable, Result, select
from sqlalchemy.sql import ColumnElement

from beatstore.database.tables import DEPENDENCY, ENTRY, chunks

__all__ = ["cycle_through", "path", "spelled"]

Execute = Callable[[Executable], Result[Any]]

#: How many members of a cycle are shown.
_SHOWN = 10

#: The columns that a search follows: from, to.
_DOWN = DEPENDENCY.c.upstream_id, DEPENDENCY.c.downstream_id
_UP = DEPENDENCY.c.downstream_id, DEPENDENCY.c.upstream_id


def path(execute: Execute, start: int, goal: int, *, current: bool = False) -> list[int] | None:
    """Return the entries on a path downstream from `start` to `goal`, both included, or None.

    Args:
        execute: executes a statement.
        start: the id of the first entry.
        goal: the id of the last entry.
        current: whether to lock the edges. MySQL then reads their current state, and not the
            state when the transaction began.
    """
    if start == goal:
        return [start]
    return _meet(execute, start, goal, current)


def cycle_through(execute: Execute, entry_id: int) -> list[int] | None:
    """Return the members of a cycle through an entry, starting with it, or None."""
    found = _meet(execute, entry_id, entry_id)
    return found[:-1] if found else None


def spelled(execute: Execute, ids: Iterable[int]) -> str:
    """Return a cycle as people read it: 'a' → 'b' → 'a'."""
    ids = list(ids)
    named = ENTRY.c.id.in_(ids[:_SHOWN])
    rows = execute(select(ENTRY.c.id, ENTRY.c.name).where(named))
    names = {row.id: row.name for row in rows}
    shown = [repr(names.get(entry_id, entry_id)) for entry_id in ids]
    if len(shown) > _SHOWN:
        shown = [*shown[:_SHOWN], "…"]
    return " → ".join([*shown, shown[0]])


def _meet(execute: Execute, start: int, goal: int, current: bool = False) -> list[int] | None:
    """Search from both ends for a path of at least one edge."""
    forth: dict[int, int] = {}  # entry -> the one before it on the way from start
    back: dict[int, int] = {}  # entry -> the one after it on the way to goal
    ahead, behind = {start}, {goal}
    while ahead and behind:
        ahead = _step(execute, ahead, forth, _DOWN, current)
        met = ahead & (back.keys() | {goal})
        if met:
            at = met.pop()
            rest = [] if at == goal else _walk(back, at, goal)
            return [*reversed(_walk(forth, at, start)), at, *rest]
        behind = _step(execute, behind, back, _UP, current)
        met = behind & (forth.keys() | {start})
        if met:
            at = met.pop()
            before = [] if at == start else _walk(forth, at, start)
            return [*reversed(before), at, *_walk(back, at, goal)]
    return None


def _step(
    execute: Execute,
    frontier: set[int],
    known: dict[int, int],
    direction: tuple[ColumnElement[int], ColumnElement[int]],
    current: bool,
) -> set[int]:
    """Follow one level of edges, and return the entries that are new."""
    found: set[int] = set()
    near, far = direction
    for ids in chunks(frontier):
        edges = select(near.label("near"), far.label("far")).where(
            near.in_(ids), DEPENDENCY.c.first_free.is_(False)
        )
        for edge in execute(edges.with_for_update(read=True) if current else edges):
            if edge.far not in known:
                known[edge.far] = edge.near
                found.add(edge.far)
    return found


def _walk(steps: dict[int, int], at: int, end: int) -> list[int]:
    """Follow `steps` from `at` to `end`; return the entries passed, without `at` itself."""
    way: list[int] = []
    while not way or way[-1] != end:
        at = steps[at]
        way.append(at)
    return way
