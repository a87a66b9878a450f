"""Read and write the edges between entries, and refuse dependency cycles.

Each function works in the open transaction it is given.

Invariants:
    * An upstream is locked before an edge to it is written, so a completion either counts for
      the new edge or finds it. Like a completion, this locks upstreams before downstreams.
    * An edge that would create a cycle is refused. Transactions that link take turns, before they
      lock anything else.

On failure: `InvalidEntryError` or `EntryNotFoundError`, which names the upstream, before anything
is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    column,
    delete,
    insert,
    select,
    table,
    update,
)

from beatstore.database.models import VERSION_TABLE
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, chunks
from beatstore.database.together import Question, ask
from beatstore.definition import edges
from beatstore.definition.edges import After
from beatstore.errors import DependencyCycleError, InvalidEntryError
from beatstore.records import Entry
from beatstore.rules.outcomes import counter_of, is_one_shot
from beatstore.rules.states import LIVE
from beatstore.schedules.instants import EPOCH
from beatstore.store import audit
from beatstore.store.lineage import Lineage
from beatstore.tick import cycles

__all__ = [
    "NODE_COLUMNS",
    "are_as_asked",
    "asked",
    "current",
    "edge_row",
    "limit",
    "link",
    "of_new",
    "prepare",
    "read",
    "read_all",
    "take_turns",
    "unlink",
    "wake",
    "wake_downstreams",
    "will_not_run_again",
    "write",
    "write_new",
]


def read(tx: Transaction, entry: Entry) -> list[After]:
    """Return the edges to an entry's upstreams, sorted by their names."""
    return read_all(tx, DEPENDENCY.c.downstream_id == entry.id).get(entry.id, [])


def read_all(tx: Transaction, chosen: ColumnElement[bool]) -> dict[int, list[After]]:
    """Return, by the id of each chosen downstream, its edges, sorted by name."""
    found = asked(chosen)
    ask(tx, [found])
    return found.answer


def current(tx: Transaction, chosen: ColumnElement[bool]) -> list[tuple[int, int, After]]:
    """Return the edges of locked entries as they are now, sorted by the names of their upstreams.

    Each with the ids of its downstream and of its upstream.
    """
    rows: Iterable[Sequence[Any]]
    if not tx.reads_snapshot:
        rows = tx.execute(_EDGES.add_columns(DEPENDENCY.c.upstream_id).where(chosen)).all()
    else:
        found: Sequence[Any] = tx.execute(tx.current(_ROWS.where(chosen))).all()
        names = _names(tx, {row.upstream_id for row in found})
        rows = [(down, names[up], *rest, up) for down, up, *rest in found if up in names]
    made = [(row[0], row[-1], After(*tuple(row)[1:-1])) for row in rows]
    return sorted(made, key=lambda one: one[2].name)


def _names(tx: Transaction, ids: Iterable[int]) -> dict[int, str]:
    """Return the names of upstreams whose downstream is locked already.

    They are not locked, since locks go downstream; but for those that the snapshot does not show.
    """
    query = select(ENTRY.c.id, ENTRY.c.name)
    found: dict[int, str] = {}
    for some in chunks(ids):
        found |= {row.id: row.name for row in tx.execute(query.where(ENTRY.c.id.in_(some)))}
    for some in chunks(one for one in ids if one not in found):
        late = tx.current(query.where(ENTRY.c.id.in_(some)))
        found |= {row.id: row.name for row in tx.execute(late)}
    return found


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
#: The same without the names of upstreams.
_ROWS: Select[Any] = select(
    DEPENDENCY.c.downstream_id, DEPENDENCY.c.upstream_id, *(DEPENDENCY.c[name] for name in _COLUMNS)
)


def are_as_asked(there: Sequence[After], asked: Sequence[After]) -> bool:
    """Return whether the edges are those asked for; one without an alignment matches any."""
    aligned = {one.name: one.align for one in there}
    aligned_edges = {replace(one, align=one.align or aligned.get(one.name)) for one in asked}
    return set(there) == aligned_edges


def of_new(tx: Transaction, name: str, asked: Sequence[After]) -> dict[str, Entry]:
    """Lock the upstreams of an entry that is about to be added, and return them by name.

    Nothing depends on a new entry, so only an edge to itself closes a cycle.
    """
    for one in asked:
        if one.name == name and not one.first_free:
            raise _itself(name)
    return _locked(tx, {one.name for one in asked} - {name})


def write_new(
    tx: Transaction, entry: Entry, asked: Sequence[After], ups: Mapping[str, Entry]
) -> list[Any]:
    """Write the edges of an entry that was just added, and return them as JSON.

    Args:
        tx: the open transaction.
        entry: the downstream.
        asked: the edges, as `edges.checked` returns them.
        ups: what `of_new` has returned for them.
    """
    aligned = Lineage(tx).aligned(entry.name, entry.kind, asked)
    _insert(tx, entry, aligned, {**ups, entry.name: entry})
    return [edges.as_json(one) for one in aligned]


#: The edges of an entry, each with the id of its upstream.
_There = Mapping[After, int]


def _there(tx: Transaction, entry: Entry) -> _There:
    mine = DEPENDENCY.c.downstream_id == entry.id
    return {edge: up_id for _, up_id, edge in current(tx, mine)}


def write(
    tx: Transaction,
    entry: Entry,
    asked: Sequence[After],
    *,
    kind: str | None = None,
    there: _There | None = None,
) -> audit.Differences:
    """Set the upstreams of a locked entry; return the edges that differed.

    Args:
        tx: the open transaction.
        entry: the downstream.
        asked: the edges, as `edges.checked` returns them.
        kind: the kind of its schedule, if that changes too.
        there: its edges, if they are known.
    """
    there = _there(tx, entry) if there is None else there
    asked = Lineage(tx).aligned(entry.name, kind or entry.kind, asked, list(there))
    if set(there) == set(asked):
        return {}
    changed = [one for one in asked if one not in there]
    ups = _locked(tx, {one.name for one in changed})
    made = edges.new_waits(changed, there)
    for one in made:
        if not one.first_free:
            _refuse_cycle(tx, entry, ups[one.name])
    # What is refused was refused by now.
    _delete(tx, entry, [there[one] for one in edges.new_waits(there, asked)])
    _insert(tx, entry, made, ups)
    limit(tx, [(entry.id, ups[one.name].id, one) for one in changed if one not in made])
    wake(tx, [entry.id])
    before = [edges.as_json(one) for one in there if one not in asked]
    return {"after": (before, [edges.as_json(one) for one in changed])}


def link(tx: Transaction, name: str, asked: Sequence[After]) -> Entry:
    """Add or change edges of an entry; see `Store.link`."""
    prepare(tx, asked)
    entry = tx.get(name, lock=True)
    there = _there(tx, entry)
    merged = {one.name: one for one in (*there, *asked)}
    return _edit(tx, "link", entry, list(merged.values()), there)


def prepare(tx: Transaction, asked: Iterable[After]) -> None:
    """Take the locks that come before an entry's own, when its upstreams change."""
    take_turns(tx)
    for up in sorted({one.name for one in asked}):
        tx.find(up, lock=True)


def unlink(tx: Transaction, name: str, upstreams: Iterable[str]) -> Entry:
    """Remove edges of an entry; see `Store.unlink`."""
    entry = tx.get(name, lock=True)
    there = _there(tx, entry)
    left = {one.name: one for one in there}
    for up in upstreams:
        if left.pop(up, None) is None:
            tx.get(up)
            raise InvalidEntryError("after", up, f"an upstream of {name!r}")
    return _edit(tx, "unlink", entry, list(left.values()), there)


def _edit(
    tx: Transaction, action: str, entry: Entry, asked: Sequence[After], there: _There
) -> Entry:
    """Set the upstreams of a locked entry, record the edit, and return the entry."""
    differences = write(tx, entry, asked, there=there)
    if not differences:
        return entry
    tx.execute(update(ENTRY).where(ENTRY.c.id == entry.id).values(tx.stamp()))
    audit.record_edit(tx, action, entry, entry, differences)
    return tx.get(entry.name)


def wake_downstreams(tx: Transaction, ids: Sequence[int]) -> None:
    """Wake the downstreams of entries that are about to be deleted."""
    below = select(DEPENDENCY.c.downstream_id).where(DEPENDENCY.c.upstream_id.in_(ids))
    wake(tx, list(tx.execute(tx.current(below)).scalars()))


def wake(tx: Transaction, ids: Sequence[int]) -> None:
    """Let beat process entries at its next tick; triggers on edges do this for plain SQL."""
    if ids:
        awake = update(ENTRY).where(ENTRY.c.id.in_(ids), ENTRY.c.state == "active")
        tx.execute(awake.values(wake_at=EPOCH, blocked_by=None))
        tx.notify(EPOCH)


def _delete(tx: Transaction, entry: Entry, ups: Sequence[int]) -> None:
    if ups:
        of_entry = DEPENDENCY.c.downstream_id == entry.id
        tx.execute(delete(DEPENDENCY).where(of_entry, DEPENDENCY.c.upstream_id.in_(ups)))


def limit(tx: Transaction, changed: Iterable[tuple[int, int, After]]) -> None:
    """Change how long edges wait, and what happens then; they keep what they have used up.

    Args:
        tx: the open transaction.
        changed: the ids of the downstream and of the upstream, and what the edge becomes.
    """
    rows = [
        {"down": down, "up": up, "failed": one.on_upstream_failure, "seconds": one.timeout}
        for down, up, one in changed
    ]
    if rows:
        ends = (
            DEPENDENCY.c.downstream_id == bindparam("down"),
            DEPENDENCY.c.upstream_id == bindparam("up"),
        )
        limits: dict[str, Any] = {
            "on_upstream_failure": bindparam("failed"),
            "timeout_s": bindparam("seconds"),
        }
        tx.execute(update(DEPENDENCY).where(*ends).values(limits), rows)


def _insert(
    tx: Transaction, entry: Entry, asked: Iterable[After], ups: Mapping[str, Entry]
) -> None:
    rows = [edge_row(entry, ups[one.name], one) for one in asked]
    if rows:
        tx.execute(insert(DEPENDENCY).values(rows))


def _locked(tx: Transaction, names: Iterable[str]) -> dict[str, Entry]:
    return {name: tx.get(name, lock=True) for name in sorted(names)}


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
    takes_last = entry.run_count == 0 and will_not_run_again(up)
    return {
        "downstream_id": entry.id,
        "upstream_id": up.id,
        "on": one.on,
        "first_free": one.first_free,
        "align": one.align or "latest",
        "on_upstream_failure": one.on_upstream_failure,
        "timeout_s": one.timeout,
        "consumed_seq": _consumed(entry, up, one, takes_last=takes_last),
        "failure_seen": 0 if takes_last else up.failure_seq,
    }


def _consumed(entry: Any, up: Any, one: After, *, takes_last: bool) -> int:
    """Return how many completions of the upstream a new edge ignores.

    For a scheduled entry that has never run, none: earlier completions count for its first run.
    An entry without a schedule would then run at once, so it ignores them all, unless the
    upstream will not run again.
    """
    if one.first_free:
        return -1
    if takes_last or (entry.run_count == 0 and entry.kind != "after"):
        return 0
    return int(getattr(up, counter_of(one.on)))


def will_not_run_again(entry: Any) -> bool:
    """Return True if an upstream has no further due times, so its past outcome counts.

    A one-shot has some if it was rescheduled, or triggered before its time.
    `beatstore.tick.edges.not_running_again` is the same rule in SQL.
    """
    return bool(entry.state == "finished" or (is_one_shot(entry) and entry.state not in LIVE))


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
        raise _itself(up.name)
    way = cycles.path(tx.execute, entry.id, up.id, current=tx.reads_snapshot)
    if way is not None:
        raise DependencyCycleError(up.name, cycles.spelled(tx.execute, way))


def _itself(name: str) -> InvalidEntryError:
    write_instead = f"After({name!r}, on='done', first_free=True), or overlap='wait'"
    return InvalidEntryError("after", name, "another entry", write_instead)
