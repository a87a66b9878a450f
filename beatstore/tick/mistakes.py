"""Find mistakes on edges that were written by hand: cycles, and misspelt values.

Each function joins the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import or_, select
from sqlalchemy.engine import Connection

from beatstore.database.dialects import dialect_of
from beatstore.database.tables import DEPENDENCY, ENTRY
from beatstore.rules.outcomes import ALIGNS, CONDITIONS, ON_FAILURE
from beatstore.tick import cycles
from beatstore.words import misspelt

__all__ = ["cycle_problems", "misspelt_edges"]

#: The valid values of an edge's columns.
_WORDS: dict[str, tuple[str, ...]] = {
    "on": CONDITIONS,
    "align": ALIGNS,
    "on_upstream_failure": ON_FAILURE,
}

_UP = ENTRY.alias("up")
_EDGE = DEPENDENCY.c


def cycle_problems(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    """Return the members of dependency cycles through these entries, each with the problem."""
    found: dict[int, str] = {}
    for entry_id in ids:
        members = None if entry_id in found else cycles.cycle_through(connection.execute, entry_id)
        if members:
            words = cycles.spelled(connection.execute, members)
            problem = (
                f"dependency cycle: {words}; remove one of these edges, then resume the entries"
            )
            found |= dict.fromkeys(members, problem)
    return found


def misspelt_edges(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    """Return the entries with an invalid value on an edge, and what to write instead.

    Without this check such an edge would silently mean something else.
    """
    invalid = or_(*(_EDGE[name].not_in(words) for name, words in _WORDS.items()))
    mine = dialect_of(connection.dialect).among(_EDGE.downstream_id, ids)
    found: dict[int, str] = {}
    for row in connection.execute(
        select(_EDGE.downstream_id, _UP.c.name, *(_EDGE[name] for name in _WORDS))
        .join(_UP, _UP.c.id == _EDGE.upstream_id)
        .where(mine, invalid)
        .order_by(_EDGE.downstream_id, _EDGE.upstream_id)
    ):
        problems = (misspelt(name, row._mapping[name], words) for name, words in _WORDS.items())
        problem = next(filter(None, problems), None)
        if problem:
            found.setdefault(row.downstream_id, f"the edge from {row.name!r}: {problem}")
    return found
