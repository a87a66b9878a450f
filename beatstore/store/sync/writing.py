"""Write the result of a sync.

Each function works in the open transaction it is given, on entries that are locked. It writes each
kind of change, and the audit, in one statement for all entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beatstore.database.rows import Transaction
from beatstore.definition import edges
from beatstore.records import Entry
from beatstore.store import audit, links
from beatstore.store.sync import bulk, entry, stored
from beatstore.store.sync.entry import DeclaredEntry
from beatstore.tick.endings import cancel_unsent
from beatstore.tick.gates import consume

__all__ = ["insert", "let_go", "update"]


def insert(tx: Transaction, new: Mapping[str, DeclaredEntry]) -> dict[str, int]:
    """Insert entries without their tags and edges; return the new ids, by name."""
    made = bulk.insert_entries(tx, [one.row for one in new.values()])
    added = ((name, None, _audited(new[name], entry_id)) for name, entry_id in made.items())
    audit.record_all(tx, "sync", added)
    return made


def update(
    tx: Transaction,
    declared: Mapping[str, DeclaredEntry],
    new: Mapping[str, int],
    ups: Mapping[str, Entry],
) -> None:
    """Write the changes of stored entries, and the tags and edges of all entries.

    Args:
        tx: the open transaction.
        declared: the entries, including new ones, by name.
        new: the ids of the new ones.
        ups: the upstreams that are stored, by name.
    """
    olds = [(one.old, one) for one in declared.values() if one.old is not None]
    seen = [(old, one) for old, one in olds if one.is_updated]
    bulk.write(tx, {old.id: one.row for old, one in seen}, **tx.stamp())
    bulk.write(tx, {old.id: one.row for old, one in olds if one.row and not one.is_updated})
    ids = {**new, **{old.name: old.id for old, _ in olds}}
    _write_tags(tx, ids, declared)
    _write_edges(tx, ids, declared, ups)
    # Discard what the upstreams did while the entry was not declared.
    back = [old.id for old, one in seen if one.returns and one.becomes("kind") == "after"]
    if back:
        consume(tx, back, current=tx.reads_snapshot)
    links.wake(tx, [old.id for old, one in seen if one.after])
    times = [at for _, one in seen if (at := one.row.get("wake_at")) is not None]
    tx.notify(min(times, default=None))
    audit.record_edits(tx, "sync", ((old, one.row, one.differences()) for old, one in seen))


def let_go(tx: Transaction, left: Iterable[Entry]) -> None:
    """Cancel entries that are no longer declared; only mark declared that are over."""
    columns = [(old, entry.let_go(old)) for old in left]
    served = [(old, row) for old, row in columns if entry.is_in_service(old)]
    bulk.write(tx, {old.id: row for old, row in served}, **tx.stamp())
    bulk.write(tx, {old.id: row for old, row in columns if not entry.is_in_service(old)})
    gone = [old.id for old, _ in served]
    cancel_unsent(tx, gone, tx.now(), "entry is no longer declared")
    cancelled = {"state": "cancelled"}
    audit.record_all(tx, "sync", ((old.name, {"state": old.state}, cancelled) for old, _ in served))


def _audited(one: DeclaredEntry, entry_id: int) -> dict[str, Any]:
    others = {name: pair[1] for name, pair in one.differences().items()}
    return audit.shown({"id": entry_id, **one.row, **others})


def _write_tags(
    tx: Transaction, ids: Mapping[str, int], declared: Mapping[str, DeclaredEntry]
) -> None:
    tags = [
        (ids[name], set(one.tags[0]), set(one.tags[1]))
        for name, one in declared.items()
        if one.tags
    ]
    bulk.remove_tags(tx, [(at, tag) for at, was, now in tags for tag in sorted(was - now)])
    bulk.insert_tags(tx, [(at, tag) for at, was, now in tags for tag in sorted(now - was)])


def _write_edges(
    tx: Transaction,
    ids: Mapping[str, int],
    declared: Mapping[str, DeclaredEntry],
    ups: Mapping[str, Entry],
) -> None:
    up_ids = {**{name: up.id for name, up in ups.items()}, **ids}
    changing = [(name, one, *one.after) for name, one in declared.items() if one.after]
    # An edge that waits for something else is deleted and inserted again.
    gone = [
        (ids[name], edge.name)
        for name, _, was, becomes in changing
        for edge in edges.new_waits(was, becomes)
    ]
    left = stored.named(tx, {up for _, up in gone} - up_ids.keys())
    up_ids |= {name: row.id for name, row in left.items()}
    made: list[dict[str, Any]] = []
    limited: list[tuple[int, int, edges.After]] = []
    for name, one, was, becomes in changing:
        new = edges.new_waits(becomes, was)
        for edge in new:
            up = declared.get(edge.name) or DeclaredEntry.of(ups[edge.name])
            made.append(links.edge_row(one.node(ids[name]), up.node(up_ids[edge.name]), edge))
        changed = (edge for edge in becomes if edge not in was and edge not in new)
        limited += [(ids[name], up_ids[edge.name], edge) for edge in changed]
    bulk.remove_edges(tx, [(down, up_ids[up]) for down, up in gone if up in up_ids])
    bulk.insert_edges(tx, made)
    links.limit(tx, limited)
