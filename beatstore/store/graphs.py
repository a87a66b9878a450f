"""Read the graph of dependencies, or a part of it, by one statement.

The cost follows the size of the part: it is read from its start outwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select, union

from beatstore.database.functions import is_word
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, TAG
from beatstore.database.together import Question, ask
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.rules.graph import Edge, Graph, Node

__all__ = ["Neighbours", "edges", "graph"]

_EDGE = DEPENDENCY.c
_SHOWN = ("id", "name", "state", "task", "next_due_at", "pending_since", "pending_reason")


def graph(tx: Transaction, name: str | None, tag: str | None) -> Graph:
    """Return the graph, or a part of it; see `Store.graph`."""
    if name is not None and tag is not None:
        raise InvalidEntryError("tag", tag, "no tag together with a name", "one of the two")
    if name is not None:
        return _made(tx, *_around(tx.get(name).id))
    if tag is not None:
        return _made(tx, *_tagged(fields.sought("tag", tag)))
    ends = union(select(_EDGE.upstream_id.label("id")), select(_EDGE.downstream_id)).subquery()
    return _made(tx, select(ends.c.id), select(DEPENDENCY))


def edges(tx: Transaction, name: str) -> list[Edge]:
    """Return the edges of one entry; see `Store.edges`."""
    entry_id = tx.get(name).id
    mine = _touching(select(ENTRY.c.id).where(ENTRY.c.id == entry_id))
    return list(_made(tx, _ends(mine), mine).edges)


def _around(entry_id: int) -> tuple[Select[Any], Select[Any]]:
    """Return queries for the ids that lead to an entry or follow from it, and for edges to them."""
    start = select(ENTRY.c.id).where(ENTRY.c.id == entry_id)
    below, above = start.cte("below", recursive=True), start.cte("above", recursive=True)
    # Not UNION ALL: a cycle, which plain SQL can make, then ends as well.
    below = below.union(select(_EDGE.downstream_id).join(below, _EDGE.upstream_id == below.c.id))
    above = above.union(select(_EDGE.upstream_id).join(above, _EDGE.downstream_id == above.c.id))
    reached = union(select(below.c.id), select(above.c.id)).cte("reached")
    # Edges to what was not reached are left out when the graph is made.
    edges = select(DEPENDENCY).join(reached, reached.c.id == _EDGE.downstream_id)
    return select(reached.c.id), edges


def _tagged(tag: str) -> tuple[Select[Any], Select[Any]]:
    """Return queries for the ids of tagged entries and their neighbours, and for the edges."""
    ids = select(TAG.c.entry_id).where(is_word(TAG.c.tag, tag))
    found = _touching(ids)
    every = union(ids, _ends(found)).subquery()
    return select(every.c.entry_id), found


def _touching(ids: Select[Any]) -> Select[Any]:
    """Return a query for the edges of which one end is among these ids."""
    ends = (_EDGE.downstream_id, _EDGE.upstream_id)
    chosen = ids.subquery()
    [one] = chosen.c
    found = union(*(select(DEPENDENCY).join(chosen, one == end) for end in ends)).subquery()
    return select(found)


def _ends(edges: Select[Any]) -> Select[Any]:
    found = edges.subquery()
    both = union(select(found.c.upstream_id.label("id")), select(found.c.downstream_id)).subquery()
    return select(both.c.id)


def _made(tx: Transaction, ids: Select[Any], edges: Select[Any]) -> Graph:
    # Joined, since MariaDB looks through the ids of an IN once for each row.
    wanted = ids.subquery("wanted")
    columns = (ENTRY.c[column] for column in _SHOWN)
    chosen = select(*columns).join(wanted, wanted.c[0] == ENTRY.c.id)
    nodes, found = Question(chosen, _nodes), Question(edges, list)
    ask(tx, [nodes, found])
    known = nodes.answer
    there = (row for row in found.answer if row.upstream_id in known and row.downstream_id in known)
    return Graph.of(
        known.values(),
        (_edge(row, known[row.upstream_id].name, known[row.downstream_id].name) for row in there),
    )


def _nodes(rows: Sequence[Any]) -> dict[int, Node]:
    nodes: dict[int, Node] = {}
    for row in rows:
        waits = row.pending_since is not None
        reason = (row.pending_reason or "waits") if waits else None
        nodes[row.id] = Node(row.name, row.state, row.task, row.next_due_at, reason)
    return nodes


def _edge(row: Any, upstream: str, downstream: str) -> Edge:
    return Edge(
        upstream,
        downstream,
        row.on,
        bool(row.first_free),
        row.align,
        row.on_upstream_failure,
        row.timeout_s,
    )


class Neighbours:
    """Asks for the edges of one entry, the first ones in the order of names.

    Args:
        entry_id: its id.
        name: its name.
        limit: how many edges to upstreams, and how many to downstreams, are read.
    """

    def __init__(self, entry_id: int, name: str, limit: int) -> None:
        self._name = name
        ups, downs = _EDGE.upstream_id, _EDGE.downstream_id
        first = {
            far: select(DEPENDENCY, ENTRY.c.name)
            .join(ENTRY, ENTRY.c.id == far)
            .where(near == entry_id)
            .order_by(ENTRY.c.name)
            .limit(limit)
            for near, far in ((downs, ups), (ups, downs))
        }
        self._upstreams = Question(first[ups], self._to_upstreams)
        self._downstreams = Question(first[downs], self._to_downstreams)
        counts = {
            label: select(func.count()).where(near == entry_id).scalar_subquery().label(label)
            for label, near in (("ups", downs), ("downs", ups))
        }
        number = select(*counts.values())
        self._number = Question(number, lambda rows: (rows[0].ups, rows[0].downs))
        self.questions: list[Question[Any]] = [self._upstreams, self._downstreams, self._number]

    @property
    def upstreams(self) -> list[Edge]:
        """The edges from its upstreams."""
        return self._upstreams.answer

    @property
    def downstreams(self) -> list[Edge]:
        """The edges to its downstreams."""
        return self._downstreams.answer

    @property
    def further(self) -> tuple[int, int]:
        """How many upstreams and downstreams are left out."""
        ups, downs = self._number.answer
        return ups - len(self.upstreams), downs - len(self.downstreams)

    def _to_upstreams(self, rows: Sequence[Any]) -> list[Edge]:
        return [_edge(row, row.name, self._name) for row in sorted(rows, key=_name)]

    def _to_downstreams(self, rows: Sequence[Any]) -> list[Edge]:
        return [_edge(row, self._name, row.name) for row in sorted(rows, key=_name)]


def _name(row: Any) -> str:
    return str(row.name)
