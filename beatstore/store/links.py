"""Read and write the edges between entries, and refuse dependency cycles.

Each function works in the open transaction it is given.

Invariants:
    * An upstream is locked before an edge to it is written, so a completion either counts for
      the new edge or finds it. Like a completion, this locks upstreams before downstreams.
    * An edge that would create a cycle is refused. Transactions that link take turns, before they
      lock anything else.

On failure: `InvalidEntryError`, which names the upstream.
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
from beatstore.database.together import Question, ask
from beatstore.definition import edges
from beatstore.definition.edges import After
from beatstore.errors import DependencyCycleError, InvalidEntryError
from beatstore.records import Entry
from beatstore.rules.outcomes import counter_of, will_not_run_again
from beatstore.schedules.instants import EPOCH
from beatstore.store import audit
from beatstore.store.lineage import Lineage
from beatstore.tick import cycles

__all__ = [
    "NODE_COLUMNS",
    "are_as_asked",
    "asked",
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
    """Return the edges to an entry's upstreams, sorted by their names."""
    return read_all(tx, DEPENDENCY.c.downstream_id == entry.id).get(entry.id, [])


def read_all(tx: Transaction, chosen: ColumnElement[bool]) -> dict[int, list[After]]:
    """Return, by the id of each chosen downstream, its edges, sorted by name."""
    found = asked(chosen)
    ask(tx, [found])
    return found.answer


def asked(chosen: ColumnElement[bool]) -> Question[dict[int, list[After]]]:
    """Ask for the same as `read_all` returns."""
    return Question(_EDGES.where(chosen), _by_downstream)


def _by_downstream(rows: Sequence[Any]) -> dict[int, list[After]]:
    found: dict[int, list[After]] = {}
    for row in sorted(rows, key=lambda row: str(row[1])):
        found.setdefault(row[0], []).append(After(*tuple(row)[1:]))
    return found


_COLUMNS = tuple("timeout_s" if one.name == "timeout" else one.name for one in fields_of(After)[1:])
_UP = ENTRY.alias("up")
#: Selects the downstream's id and the fields of `After`. Built once, because building it takes
#: longer than executing it.
_EDGES = select(
    DEPENDENCY.c.downstream_id, _UP.c.name, *(DEPENDENCY.c[name] for name in _COLUMNS)
).join(_UP, _UP.c.id == DEPENDENCY.c.upstream_id)


def are_as_asked(there: Sequence[After], asked: Sequence[After]) -> bool:
    """Return whether the edges are those asked for; one without an alignment matches any."""
    aligned = {one.name: one.align for one in there}
    aligned_edges = {replace(one, align=one.align or aligned.get(one.name)) for one in asked}
    return set(there) == aligned_edges


def write(
    tx: Transaction,
    entry: Entry,
    asked: Sequence[After],
    *,
    new: bool,
    kind: str | None = None,
) -> audit.Differences:
    """Set the upstreams of a locked entry; return the edges that differed.

    Args:
        tx: the open transaction.
        entry: the downstream.
        asked: the edges, as `edges.checked` returns them.
        new: whether the entry was added in this transaction, so that nothing depends on it.
        kind: the kind of its schedule, if that changes too.
    """
    there = [] if new else read(tx, entry)
    asked = Lineage(tx).aligned(entry.name, kind or entry.kind, asked, there)
    if set(there) == set(asked):
        return {}
    gone = {one.name for one in there} - {one.name for one in asked}
    _delete(tx, entry, gone)
    _insert(tx, entry, [one for one in asked if one not in there], new=new)
    if not new:
        wake(tx, [entry.id])
    before = [edges.as_json(one) for one in there if one not in asked]
    return {"after": (before, [edges.as_json(one) for one in asked if one not in there])}


def link(tx: Transaction, name: str, asked: Sequence[After]) -> Entry:
    """Add or change edges of an entry; see `Store.link`."""
    prepare(tx, asked)
    entry = tx.get(name, lock=True)
    there = {one.name: one for one in read(tx, entry)}
    merged = {**there, **{one.name: one for one in asked}}
    return _edit(tx, "link", entry, list(merged.values()))


def prepare(tx: Transaction, asked: Iterable[After]) -> None:
    """Take the locks that come before an entry's own, when its upstreams change."""
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
    return _edit(tx, "unlink", entry, list(there.values()))


def _edit(tx: Transaction, action: str, entry: Entry, asked: Sequence[After]) -> Entry:
    """Set the upstreams of a locked entry, record the edit, and return the entry."""
    differences = write(tx, entry, asked, new=False)
    if differences:
        tx.execute(update(ENTRY).where(ENTRY.c.id == entry.id).values(tx.stamp()))
        audit.record_edit(tx, action, entry, entry, differences)
    return tx.get(entry.name)


def wake_downstreams(tx: Transaction, ids: Sequence[int]) -> None:
    """Wake the downstreams of entries that are about to be deleted."""
    below = select(DEPENDENCY.c.downstream_id).where(DEPENDENCY.c.upstream_id.in_(ids))
    wake(tx, list(tx.execute(below).scalars()))


def wake(tx: Transaction, ids: Sequence[int]) -> None:
    """Let beat process entries at its next tick; triggers on edges do this for plain SQL."""
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
    for one in asked:
        if not one.first_free:
            _refuse_cycle(tx, entry, ups[one.name])
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
    """Return the row of an edge between two locked entries (or objects with `NODE_COLUMNS`)."""
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
    """Return how many completions of the upstream a new edge ignores.

    For a scheduled entry that has never run, none: earlier completions count for its first run.
    An entry without a schedule would then run at once, so it ignores them all, unless the
    upstream will not run again.
    """
    if one.first_free:
        return -1
    if entry.run_count == 0 and (entry.kind != "after" or will_not_run_again(up)):
        return 0
    return int(getattr(up, counter_of(one.on)))


def take_turns(tx: Transaction) -> None:
    """Wait until no other transaction is linking.

    This is a write, not a lock: PostgreSQL then refuses a transaction whose snapshot is older than
    the other's commit, and SQLite makes it wait.
    """
    # A schema_translate_map applies only to tables of a MetaData.
    version = table(VERSION_TABLE, column("version_num"), schema=tx.database.schema)
    tx.execute(update(version).values(version_num=version.c.version_num))


def _refuse_cycle(tx: Transaction, entry: Entry, up: Entry) -> None:
    if entry.id == up.id:
        write_instead = f"After({up.name!r}, on='done', first_free=True), or overlap='wait'"
        raise InvalidEntryError("after", up.name, "another entry", write_instead)
    connection = tx.session.connection(bind_arguments={"mapper": EntryModel})
    locking = dialect_of(connection.dialect).reads_snapshot(connection)
    way = cycles.path(tx.execute, entry.id, up.id, current=locking)
    if way is not None:
        raise DependencyCycleError(up.name, cycles.spelled(tx.execute, way))
