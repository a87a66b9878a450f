"""Dependencies between entries: written by name, and never in a circle.

Each function works in the open transaction it is given.

Invariants:
    * Upstreams are locked before an edge to them is written, so no completion of theirs
      comes between: it either counts for the new edge or sees it. As a completion does,
      this locks upstreams first.
    * Whoever closes a circle is refused. Those who link at the same time take turns, before
      they lock anything else.

On failure: `InvalidEntryError`, naming the upstream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, column, delete, insert, select, table, update

from beatstore.database.dialects import dialect_of
from beatstore.database.models import VERSION_TABLE, EntryModel
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY
from beatstore.definition import edges
from beatstore.definition.edges import After
from beatstore.errors import InvalidEntryError
from beatstore.records import Entry
from beatstore.rules.due import will_not_run_again
from beatstore.rules.outcomes import counter_of
from beatstore.schedules.instants import EPOCH
from beatstore.store import audit
from beatstore.store.lineage import Lineage
from beatstore.tick import cycles

__all__ = [
    "NODE_COLUMNS",
    "are_as_asked",
    "edge_row",
    "link",
    "prepare",
    "read",
    "read_all",
    "take_turns",
    "unlink",
    "wake",
    "wake_downstreams",
    "write",
]


def read(tx: Transaction, entry: Entry) -> list[After]:
    """Return the edges to an entry's upstreams, by their names."""
    return read_all(tx, DEPENDENCY.c.downstream_id == entry.id).get(entry.id, [])


def read_all(tx: Transaction, chosen: ColumnElement[bool]) -> dict[int, list[After]]:
    """Return the edges to the upstreams of the downstreams chosen, by their ids and names."""
    found: dict[int, list[After]] = {}
    for row in tx.execute(_EDGES.where(chosen)):
        found.setdefault(row[0], []).append(After(*tuple(row)[1:]))
    return found


_COLUMNS = tuple("timeout_s" if one.name == "timeout" else one.name for one in fields_of(After)[1:])
_UP = ENTRY.alias("up")
#: The downstream's id, and what `After` is made of. Made once, since that takes longer than
#: to execute it.
_EDGES = (
    select(DEPENDENCY.c.downstream_id, _UP.c.name, *(DEPENDENCY.c[name] for name in _COLUMNS))
    .join(_UP, _UP.c.id == DEPENDENCY.c.upstream_id)
    .order_by(_UP.c.name)
)


def are_as_asked(there: Sequence[After], asked: Sequence[After]) -> bool:
    """Say whether edges are those asked for; one that says no alignment has any."""
    aligned = {one.name: one.align for one in there}
    wanted = {replace(one, align=one.align or aligned.get(one.name)) for one in asked}
    return set(there) == wanted


def write(
    tx: Transaction,
    entry: Entry,
    asked: Sequence[After],
    *,
    new: bool,
    kind: str | None = None,
) -> audit.Differences:
    """Make the upstreams of a locked entry those asked for; return the edges that differed.

    Args:
        tx: the open transaction.
        entry: the downstream.
        asked: as `edges.wanted` returns them.
        new: whether the entry was made in this transaction, so that nobody depends on it.
        kind: of its schedule, where that changes too.
    """
    there = [] if new else read(tx, entry)
    asked = Lineage(tx).settle(entry.name, kind or entry.kind, asked, there)
    if set(there) == set(asked):
        return {}
    gone = {one.name for one in there} - {one.name for one in asked}
    _delete(tx, entry, gone)
    _insert(tx, entry, [one for one in asked if one not in there], new=new)
    if not new:
        wake(tx, [entry.id])
    before = [edges.told(one) for one in there if one not in asked]
    return {"after": (before, [edges.told(one) for one in asked if one not in there])}


def link(tx: Transaction, name: str, asked: Sequence[After]) -> Entry:
    """Add edges to an entry, or change them; see `Store.link`."""
    prepare(tx, asked)
    entry = tx.get(name, lock=True)
    there = {one.name: one for one in read(tx, entry)}
    merged = {**there, **{one.name: one for one in asked}}
    audit.record_edit(tx, "link", entry, entry, write(tx, entry, list(merged.values()), new=False))
    return tx.get(name)


def prepare(tx: Transaction, asked: Iterable[After]) -> None:
    """Take the locks that come before an entry's own, when its upstreams are edited."""
    take_turns(tx)
    for up in sorted({one.name for one in asked}):
        tx.find(up, lock=True)


def unlink(tx: Transaction, name: str, upstreams: Iterable[str]) -> Entry:
    """Remove edges of an entry; see `Store.unlink`."""
    entry = tx.get(name, lock=True)
    there = {one.name: one for one in read(tx, entry)}
    for up in upstreams:
        if there.pop(up, None) is None:
            tx.get(up)
            raise InvalidEntryError("after", up, f"an upstream of {name!r}")
    audit.record_edit(tx, "unlink", entry, entry, write(tx, entry, list(there.values()), new=False))
    return tx.get(name)


def wake_downstreams(tx: Transaction, ids: Sequence[int]) -> None:
    """Have the downstreams of entries looked at that are about to be deleted."""
    below = select(DEPENDENCY.c.downstream_id).where(DEPENDENCY.c.upstream_id.in_(ids))
    wake(tx, list(tx.execute(below).scalars()))


def wake(tx: Transaction, ids: Sequence[int]) -> None:
    """Have entries looked at anew; the triggers on edges do the same for plain SQL."""
    if ids:
        awake = update(ENTRY).where(ENTRY.c.id.in_(ids), ENTRY.c.state == "active")
        tx.execute(awake.values(wake_at=EPOCH, blocked_by=None))
        tx.notify(EPOCH)


def _delete(tx: Transaction, entry: Entry, names: Iterable[str]) -> None:
    names = list(names)
    if names:
        # Read first: MySQL's triggers forbid an edit of edges that reads entries.
        ups = list(tx.execute(select(ENTRY.c.id).where(ENTRY.c.name.in_(names))).scalars())
        of_entry = DEPENDENCY.c.downstream_id == entry.id
        tx.execute(delete(DEPENDENCY).where(of_entry, DEPENDENCY.c.upstream_id.in_(ups)))


def _insert(tx: Transaction, entry: Entry, asked: Sequence[After], *, new: bool) -> None:
    ups = {one.name: tx.get(one.name, lock=True) for one in sorted(asked, key=lambda one: one.name)}
    circle = [one for one in asked if not one.first_free]
    for one in circle:
        _refuse_circle(tx, entry, ups[one.name])
    rows = [edge_row(entry, ups[one.name], one) for one in asked]
    if rows and not new:
        changed = [row["upstream_id"] for row in rows]
        of_entry = DEPENDENCY.c.downstream_id == entry.id
        tx.execute(delete(DEPENDENCY).where(of_entry, DEPENDENCY.c.upstream_id.in_(changed)))
    if rows:
        tx.execute(insert(DEPENDENCY).values(rows))


#: The columns of a downstream and of an upstream that `edge_row` reads.
NODE_COLUMNS = (
    "id",
    "kind",
    "state",
    "max_runs",
    "run_count",
    "success_seq",
    "failure_seq",
    "done_seq",
)


def edge_row(entry: Any, up: Any, one: After) -> dict[str, Any]:
    """Return the row of an edge between two locked entries, or what has their `NODE_COLUMNS`."""
    return {
        "downstream_id": entry.id,
        "upstream_id": up.id,
        "on": one.on,
        "first_free": one.first_free,
        "align": one.align or "latest",
        "on_upstream_failure": one.on_upstream_failure,
        "timeout_s": one.timeout,
        "consumed_seq": _consumed(entry, up, one),
        "failure_seen": up.failure_seq,
    }


def _consumed(entry: Any, up: Any, one: After) -> int:
    """Return how much of what the upstream has done already is used up.

    Nothing of it, for an entry that never ran: what happened before its first start counts.
    But what has no clock would then run the moment it is made; so for that, only an upstream
    that will not run again counts.
    """
    if one.first_free:
        return -1
    if entry.run_count == 0 and (entry.kind != "after" or will_not_run_again(up)):
        return 0
    return int(getattr(up, counter_of(one.on)))


def take_turns(tx: Transaction) -> None:
    """Wait until nobody else is linking.

    A write, not a lock: who looks at the database as it was before somebody else's turn is
    refused by PostgreSQL then, and made to wait by SQLite.
    """
    # A schema_translate_map is for tables of a MetaData.
    version = table(VERSION_TABLE, column("version_num"), schema=tx.database.schema)
    tx.execute(update(version).values(version_num=version.c.version_num))


def _refuse_circle(tx: Transaction, entry: Entry, up: Entry) -> None:
    if entry.id == up.id:
        write_instead = f"After({up.name!r}, on='done', first_free=True), or overlap='wait'"
        raise InvalidEntryError("after", up.name, "another entry", write_instead)
    connection = tx.session.connection(bind_arguments={"mapper": EntryModel})
    locking = dialect_of(connection.dialect).reads_snapshot(connection)
    way = cycles.path(tx.execute, entry.id, up.id, current=locking)
    if way is not None:
        words = cycles.spelled(tx.execute, way)
        raise InvalidEntryError(
            "after",
            up.name,
            f"no circle; this would close {words}",
            "first_free=True on one of them",
        )
