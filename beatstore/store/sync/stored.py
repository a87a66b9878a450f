"""Read the rows, tags and edges of many entries in a few statements.

Each function joins the open transaction it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, select

from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, TAG, chunks
from beatstore.database.together import Question, ask
from beatstore.definition.edges import After
from beatstore.records import Entry
from beatstore.store import links
from beatstore.store.conditions import DECLARED
from beatstore.store.sync import merge

__all__ = [
    "Related",
    "locked",
    "named",
    "owned",
    "related",
    "related_of_sources",
    "sources",
]

_SHOWN = [ENTRY.c[name] for name in ("id", "name", "source", "state", "declared", *merge.COLUMNS)]


class Related:
    """The tags and edges of entries, by their ids."""

    def __init__(self) -> None:
        self.tags: dict[int, list[str]] = {}
        self.after: dict[int, list[After]] = {}

    def json_fields(self, row: Any) -> merge.JsonFields:
        """Return everything that the database has of an entry; `row` has its columns."""
        return merge.of_row(row, self.tags.get(row.id, ()), self.after.get(row.id, ()))


def sources(tx: Transaction, prefix: str) -> list[str]:
    """Return the stored sources with a prefix, sorted."""
    found = tx.execute(select(ENTRY.c.source).where(DECLARED).distinct()).scalars()
    return sorted(source for source in found if source.startswith(prefix))


def owned(tx: Transaction, sources: Iterable[str]) -> dict[str, Row[Any]]:
    """Return the rows of entries of these sources, which are code, by name."""
    return _rows(tx, ENTRY.c.source, sources, DECLARED)


def named(tx: Transaction, names: Iterable[str]) -> dict[str, Row[Any]]:
    """Return the rows of entries with these names, by name."""
    return _rows(tx, ENTRY.c.name, names)


def _rows(
    tx: Transaction, column: ColumnElement[str], values: Iterable[str], *more: ColumnElement[bool]
) -> dict[str, Row[Any]]:
    found: dict[str, Row[Any]] = {}
    for some in chunks(values):
        rows = select(*_SHOWN).where(column.in_(some), *more)
        found |= {row.name: row for row in tx.execute(tx.current(rows))}
    return found


def related(tx: Transaction, ids: Iterable[int]) -> Related:
    """Return the tags and edges of these entries, which are locked, as they are now."""
    found = Related()
    snapshot = tx.reads_snapshot
    for some in chunks(ids):
        if not snapshot:
            _read_related(tx, found, some)
            continue
        tags = select(TAG.c.entry_id, TAG.c.tag).where(TAG.c.entry_id.in_(some))
        for row in tx.execute(tx.current(tags)):
            found.tags.setdefault(row.entry_id, []).append(row.tag)
        for entry_id, _, edge in links.current(tx, DEPENDENCY.c.downstream_id.in_(some)):
            found.after.setdefault(entry_id, []).append(edge)
    return found


def related_of_sources(tx: Transaction, sources: Iterable[str]) -> Related:
    """Return the tags and edges of all entries of these sources, which are code."""
    found = Related()
    for some in chunks(sources):
        _read_related(tx, found, select(ENTRY.c.id).where(ENTRY.c.source.in_(some), DECLARED))
    return found


def _read_related(tx: Transaction, found: Related, ids: list[int] | Select[Any]) -> None:
    chosen = select(TAG.c.entry_id, TAG.c.tag).where(TAG.c.entry_id.in_(ids))
    tags = Question(chosen, lambda rows: [(row.entry_id, row.tag) for row in rows])
    after = links.asked(DEPENDENCY.c.downstream_id.in_(ids))
    ask(tx, [tags, after])
    for entry_id, tag in tags.answer:
        found.tags.setdefault(entry_id, []).append(tag)
    found.after |= after.answer


def locked(tx: Transaction, ids: Iterable[int], *, lock: bool = True) -> dict[int, Entry]:
    """Lock entries and return them as they are now.

    Upstreams are locked before their downstreams, as in a completion.
    """
    found: dict[int, Entry] = {}
    for level in _levels(tx, set(ids)) if lock else [sorted(ids)]:
        for some in chunks(level):
            statement = select(ENTRY).where(ENTRY.c.id.in_(some)).order_by(ENTRY.c.id)
            statement = statement.with_for_update() if lock else statement
            found |= {entry.id: entry for entry in tx.all(Entry, statement)}
    return found


def _levels(tx: Transaction, ids: set[int]) -> list[list[int]]:
    """Return ids in levels, each upstream in a level before its downstreams."""
    ups: dict[int, set[int]] = {}
    columns = DEPENDENCY.c.downstream_id, DEPENDENCY.c.upstream_id
    for some in chunks(sorted(ids)):
        for edge in tx.execute(select(*columns).where(columns[0].in_(some))):
            if edge.upstream_id in ids and edge.upstream_id != edge.downstream_id:
                ups.setdefault(edge.downstream_id, set()).add(edge.upstream_id)
    levels: list[list[int]] = []
    left = set(ids)
    while left:
        free = [entry_id for entry_id in left if not ups.get(entry_id, set()) & left]
        # The members of a cycle come last, in any order.
        levels.append(sorted(free or left))
        left.difference_update(levels[-1])
    return levels
