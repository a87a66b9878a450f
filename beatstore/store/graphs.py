"""Read the graph of dependencies, or a part of it.

The cost follows the size of the part: it is read from its start outwards, one level at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Column, Row, select

from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, TAG, chunks
from beatstore.definition import fields
from beatstore.errors import InvalidEntryError
from beatstore.rules.graph import Edge, Graph, Node

__all__ = ["edges", "graph"]

_EDGE = DEPENDENCY.c


def graph(tx: Transaction, name: str | None, tag: str | None) -> Graph:
    """Return the graph, or a part of it; see `Store.graph`."""
    if name is not None and tag is not None:
        raise InvalidEntryError("tag", tag, "no tag together with a name", "one of the two")
    if name is not None:
        entry_id = tx.get(name).id
        ids = _reach(tx, entry_id, _EDGE.downstream_id, _EDGE.upstream_id)
        ids |= _reach(tx, entry_id, _EDGE.upstream_id, _EDGE.downstream_id)
        edges = [edge for edge in _edges(tx, _EDGE.downstream_id, ids) if edge.upstream_id in ids]
    elif tag is not None:
        ids = set(
            tx.execute(
                select(TAG.c.entry_id).where(TAG.c.tag == fields.sought("tag", tag))
            ).scalars()
        )
        both = [*_edges(tx, _EDGE.downstream_id, ids), *_edges(tx, _EDGE.upstream_id, ids)]
        edges = list({(edge.upstream_id, edge.downstream_id): edge for edge in both}.values())
        ids |= _ends(edges)
    else:
        edges = list(tx.execute(select(DEPENDENCY)))
        ids = _ends(edges)
    return _made(tx, ids, edges)


def edges(tx: Transaction, name: str) -> list[Edge]:
    """Return the edges of one entry; see `Store.edges`."""
    entry_id = tx.get(name).id
    both = [
        *_edges(tx, _EDGE.downstream_id, [entry_id]),
        *_edges(tx, _EDGE.upstream_id, [entry_id]),
    ]
    rows = {(edge.upstream_id, edge.downstream_id): edge for edge in both}
    return list(_made(tx, _ends(rows.values()) | {entry_id}, rows.values()).edges)


def _reach(tx: Transaction, start: int, here: Column[int], there: Column[int]) -> set[int]:
    """Return the ids that can be reached from one, along edges in one direction, and itself."""
    found = {start}
    level = {start}
    while level:
        level = {getattr(edge, there.name) for edge in _edges(tx, here, level)} - found
        found |= level
    return found


def _edges(tx: Transaction, end: Column[int], ids: Iterable[int]) -> Iterator[Row[Any]]:
    """Yield the edges of which one end is among `ids`."""
    for chunk in chunks(sorted(ids)):
        yield from tx.execute(select(DEPENDENCY).where(end.in_(chunk)))


def _ends(edges: Iterable[Row[Any]]) -> set[int]:
    return {end for edge in edges for end in (edge.upstream_id, edge.downstream_id)}


def _made(tx: Transaction, ids: Iterable[int], edges: Iterable[Row[Any]]) -> Graph:
    shown = ("id", "name", "state", "task", "next_due_at", "pending_since", "pending_reason")
    nodes: dict[int, Node] = {}
    for chunk in chunks(sorted(ids)):
        columns = [ENTRY.c[column] for column in shown]
        for row in tx.execute(select(*columns).where(ENTRY.c.id.in_(chunk))):
            waits = row.pending_since is not None
            reason = (row.pending_reason or "waits") if waits else None
            nodes[row.id] = Node(row.name, row.state, row.task, row.next_due_at, reason)
    there = [edge for edge in edges if edge.upstream_id in nodes and edge.downstream_id in nodes]
    return Graph.of(
        nodes.values(),
        (
            Edge(
                nodes[edge.upstream_id].name,
                nodes[edge.downstream_id].name,
                edge.on,
                bool(edge.first_free),
                edge.align,
                edge.on_upstream_failure,
                edge.timeout_s,
            )
            for edge in there
        ),
    )
