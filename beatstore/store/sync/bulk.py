"""Write many entries at once: one statement for each kind of change, not for each entry.

Each function works in the open transaction it is given, on rows that are locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, select, update

from beatstore.database.dialects import dialect_of
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, TAG, chunks

__all__ = ["insert_edges", "insert_entries", "insert_tags", "remove_edges", "remove_tags", "write"]


def insert_entries(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Insert entries, and return their ids by name.

    Entries whose name another transaction took at the same time are missing.
    """
    found: dict[str, int] = {}
    if rows:
        tx.execute(dialect_of(tx.dialect).insert_ignore(ENTRY).inline(), rows)
    for some in chunks(rows):
        sources = {row["name"]: row["source"] for row in some}
        named = select(ENTRY.c.name, ENTRY.c.id, ENTRY.c.source).where(ENTRY.c.name.in_(sources))
        made = tx.execute(tx.current(named))
        found.update((row.name, row.id) for row in made if row.source == sources[row.name])
    return found


def write(
    tx: Transaction, changes: Mapping[int, Mapping[str, Any]], **stamp: ColumnElement[Any]
) -> None:
    """Update entries, one statement for all entries in which the same columns change.

    Args:
        tx: the open transaction.
        changes: the columns that change, by the entry's id.
        stamp: columns that are set for all entries.
    """
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry_id, changed in changes.items():
        values = {f"new_{column}": value for column, value in changed.items()}
        alike.setdefault(tuple(sorted(changed)), []).append({"entry": entry_id, **values})
    for columns, rows in alike.items():
        given = {name: bindparam(f"new_{name}", type_=ENTRY.c[name].type) for name in columns}
        mine = update(ENTRY).where(ENTRY.c.id == bindparam("entry"))
        tx.execute(mine.values({**given, **stamp}), rows)


def insert_tags(tx: Transaction, pairs: Iterable[tuple[int, str]]) -> None:
    """Insert tags of entries: (entry's id, tag)."""
    rows = [{"entry_id": entry_id, "tag": tag} for entry_id, tag in pairs]
    if rows:
        tx.execute(dialect_of(tx.dialect).insert_ignore(TAG).inline(), rows)


def remove_tags(tx: Transaction, pairs: Iterable[tuple[int, str]]) -> None:
    """Delete tags of entries: (entry's id, tag)."""
    rows = [{"entry": entry_id, "word": tag} for entry_id, tag in pairs]
    if rows:
        mine = TAG.c.entry_id == bindparam("entry"), TAG.c.tag == bindparam("word")
        tx.execute(delete(TAG).where(*mine), rows)


def insert_edges(tx: Transaction, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert edges, rows as `links.edge_row` returns them."""
    if rows:
        tx.execute(insert(DEPENDENCY), rows)


def remove_edges(tx: Transaction, pairs: Iterable[tuple[int, int]]) -> None:
    """Delete edges: (downstream's id, upstream's id)."""
    rows = [{"down": down, "up": up} for down, up in pairs]
    if rows:
        ends = (
            DEPENDENCY.c.downstream_id == bindparam("down"),
            DEPENDENCY.c.upstream_id == bindparam("up"),
        )
        tx.execute(delete(DEPENDENCY).where(*ends), rows)
