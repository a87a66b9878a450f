"""Pause and resume entries: one, or many in a few statements.

Each function works in the open transaction it is given.

Invariants:
    * Many entries are locked before they are read, upstreams before their downstreams, as in a
      completion.
    * What changes in many entries is what would change in each of them alone, and so is the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from beatstore.database.dialects import dialect_of
from beatstore.database.rows import Transaction
from beatstore.database.tables import ENTRY, chunks
from beatstore.definition import edits, fields
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from beatstore.records import Entry
from beatstore.store import audit
from beatstore.store.entries import write
from beatstore.store.many import Refused
from beatstore.store.shared_times import reset_account
from beatstore.store.sync import stored
from beatstore.tick.gates import consume
from beatstore.types import EntryState

__all__ = ["StateReport", "pause", "pause_many", "resume", "resume_many"]


@dataclass(frozen=True, slots=True)
class StateReport:
    """What `pause_many` or `resume_many` did.

    Attributes:
        states: the state of each entry now, by its name, in the order in which they were given.
        refused: the names that were refused, with the reason, in the same order.
    """

    states: Mapping[str, EntryState] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()

    def __hash__(self) -> int:
        # The states have no hash.
        return hash(self.refused)

    def __add__(self, other: StateReport) -> StateReport:
        return StateReport({**self.states, **other.states}, self.refused + other.refused)


#: For how many names that are not there one like it is looked for.
_HINTS = 10

#: Returns the columns that change in an entry; raises if the entry is refused.
_Changes = Callable[[Transaction, Entry, datetime], Mapping[str, Any]]


def pause(tx: Transaction, name: str) -> Entry:
    """Pause an entry; see `Store.pause`."""
    old = tx.get(name, lock=True)
    return write(tx, "pause", old, _paused(tx, old, tx.now()))


def resume(tx: Transaction, name: str) -> Entry:
    """Resume an entry; see `Store.resume`."""
    old = tx.get(name, lock=True)
    changed = _resumed(tx, old, tx.now())
    _discard(tx, [old])
    return write(tx, "resume", old, changed)


def pause_many(tx: Transaction, given: Sequence[tuple[int, object]]) -> StateReport:
    """Pause entries; see `Store.pause_many`. Each name is given with its index."""
    return _write_many(tx, "pause", given, _paused)


def resume_many(tx: Transaction, given: Sequence[tuple[int, object]]) -> StateReport:
    """Resume entries; see `Store.resume_many`. Each name is given with its index."""
    return _write_many(tx, "resume", given, _resumed)


def _paused(tx: Transaction, old: Entry, now: datetime) -> Mapping[str, Any]:
    """Return what pausing changes in an entry: nothing, unless it is active."""
    return edits.consequences(old, {}, True, now, tx.settings) if old.state == "active" else {}


def _resumed(tx: Transaction, old: Entry, now: datetime) -> Mapping[str, Any]:
    """Return what resuming changes in an entry: nothing, if it is active.

    Raises:
        InvalidEntryError: it is over.
    """
    if old.state == "paused":
        return edits.consequences(old, {}, False, now, tx.settings)
    if old.state == "broken":
        return edits.mended(old, now)
    if old.state == "active":
        return {}
    instead = f"store.change({old.name!r}, schedule=…) with another schedule, which makes it active"
    raise InvalidEntryError("state", old.state, "a paused or broken entry", instead)


def _discard(tx: Transaction, edited: Iterable[Entry]) -> None:
    """Discard what the upstreams of entries without a schedule did while these were not active.

    Resuming runs nothing by itself. Entries that are being paused were active.
    """
    ids = [old.id for old in edited if old.kind == "after" and old.state != "active"]
    for some in chunks(ids):
        consume(tx, some, current=tx.reads_snapshot)
        reset_account(tx, some)


def _write_many(
    tx: Transaction, action: str, given: Sequence[tuple[int, object]], changes: _Changes
) -> StateReport:
    olds = _locked(tx, [name for _, name in given if isinstance(name, str)])
    now = tx.now()
    states: dict[str, EntryState] = {}
    refused: list[Refused] = []
    changed: dict[int, Mapping[str, Any]] = {}
    for index, name in given:
        try:
            asked = name if isinstance(name, str) else fields.text("name", name)
            old = olds.get(asked)
            if old is None:
                raise _missing(tx, asked, hint=len(refused) < _HINTS)
            row = changes(tx, old, now)
        except (EntryNotFoundError, InvalidEntryError) as error:
            known = name if isinstance(name, str) else None
            refused.append(Refused(index, known, str(error)))
            continue
        states[old.name] = row.get("state", old.state)
        if row:
            changed[old.id] = row
    edited = [old for old in olds.values() if old.id in changed]
    _discard(tx, edited)
    _write_alike(tx, changed)
    audit.record_edits(tx, action, ((old, changed[old.id], {}) for old in edited))
    return StateReport(states, tuple(refused))


def _missing(tx: Transaction, name: str, *, hint: bool) -> EntryNotFoundError:
    """Return the error for a name that is not there; to look for one like it takes six queries."""
    return tx.missing(name) if hint else EntryNotFoundError(name)


def _locked(tx: Transaction, names: Iterable[str]) -> dict[str, Entry]:
    """Lock entries, and return them as they are now, by name."""
    storable = sorted({name for name in names if fields.storable(name)})
    if not dialect_of(tx.dialect).locks_rows:
        # The first write locks, as in `Transaction.find`.
        for some in chunks(storable):
            same = update(ENTRY).where(ENTRY.c.name.in_(some))
            tx.execute(same.values(version=ENTRY.c.version))
    # Not locked yet: a shared lock would come before those of the upstreams.
    ids: list[int] = []
    for some in chunks(storable):
        ids += tx.execute(select(ENTRY.c.id).where(ENTRY.c.name.in_(some))).scalars()
    found = {entry.name: entry for entry in stored.locked(tx, ids).values()}
    # What the caller's snapshot does not show.
    for some in chunks(name for name in storable if name not in found):
        late = select(ENTRY).where(ENTRY.c.name.in_(some)).order_by(ENTRY.c.id).with_for_update()
        found |= {entry.name: entry for entry in tx.all(Entry, late)}
    return found


def _write_alike(tx: Transaction, changed: Mapping[int, Mapping[str, Any]]) -> None:
    """Write what changes, in one statement for all entries with the same new values."""
    alike: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for entry_id, row in changed.items():
        alike.setdefault(tuple(sorted(row.items())), []).append(entry_id)
    for values, ids in alike.items():
        row = dict(values)
        for some in chunks(ids):
            mine = update(ENTRY).where(ENTRY.c.id.in_(some))
            tx.execute(mine.values({**row, **tx.stamp()}))
        tx.notify(row.get("wake_at"))
