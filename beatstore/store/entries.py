"""What the API does with entries; each function works in the open transaction it is given.

Invariants:
    * A row that is read to be changed is locked first, so that no look of a beat, and no
      other edit, comes between.
    * Whoever loses a race learns it from a row, not from a failed statement: the
      caller's transaction stays usable.

On failure: arguments are refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Select, case, delete, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import Instant
from beatstore.database.dialects import dialect_of
from beatstore.database.models import EntryModel
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, TAG, chunks
from beatstore.definition import edges, edits, fields
from beatstore.errors import EntryExistsError, InvalidEntryError
from beatstore.records import Entry
from beatstore.rules.states import ENTRY_STATES, LIVE
from beatstore.store import audit, links
from beatstore.store.shared_times import begin_anew
from beatstore.tick.gates import consume
from beatstore.types import Page

__all__ = [
    "add",
    "cancel_runs",
    "cancel_runs_of",
    "change",
    "edit",
    "entries",
    "insert",
    "matching",
    "names",
    "pause",
    "put",
    "remove",
    "resume",
    "tags",
    "write",
]

#: A name is shorter, and SQLite refuses a pattern of 50,000 bytes.
_PATTERN_LENGTH = 1000

#: How often put() looks again when the entry comes and goes under its hands.
_TRIES = 5


def add(tx: Transaction, name: str, given: Mapping[str, Any], action: str = "add") -> Entry:
    """Insert an entry; see `Store.add`."""
    name = fields.text("name", name)
    made = insert(tx, action, name, edits.check(given, tx.settings))
    if made is None:
        raise EntryExistsError(name)
    return made


def put(tx: Transaction, name: str, given: Mapping[str, Any]) -> Entry:
    """Insert an entry or make it as asked; see `Store.put`."""
    name = fields.text("name", name)
    # An entry paused by hand stays so: False says how a new one begins, and no more.
    update_only = {key: value for key, value in given.items() if key != "paused" or value}
    for _ in range(_TRIES):
        old = tx.find(name)
        if old is None:
            made = insert(tx, "put", name, edits.check(given, tx.settings))
            if made is not None:
                return made
        elif _is_as_asked(tx, old, edits.check(update_only, tx.settings, old)):
            return old
        _lock_upstreams(tx, given)
        old = tx.find(name, lock=True)
        if old is not None:
            return edit(tx, "put", old, edits.check(update_only, tx.settings, old))
    raise EntryExistsError(name)  # pragma: no cover  (added and removed five times in a row)


def change(tx: Transaction, name: str, given: Mapping[str, Any]) -> Entry:
    """Edit an entry; see `Store.change`."""
    named = dict(given)
    new_name = named.pop("new_name", None)
    _lock_upstreams(tx, named)
    old = tx.get(name, lock=True)
    wanted = edits.check(named, tx.settings, old)
    renamed = new_name is not None and new_name != name
    if renamed:
        _rename(tx, old, fields.text("new_name", new_name))
    return edit(tx, "change", old, wanted, touched=renamed)


def pause(tx: Transaction, name: str) -> Entry:
    """Take an entry out of service for a while; see `Store.pause`."""
    return edit(tx, "pause", tx.get(name, lock=True), edits.Wanted({}, paused=True))


def resume(tx: Transaction, name: str) -> Entry:
    """Put an entry back into service; see `Store.resume`."""
    old = tx.get(name, lock=True)
    if old.kind == "after" and old.state != "active":
        # Resuming runs nothing by itself: what its upstreams did meanwhile is over.
        consume(tx, [old.id])
        begin_anew(tx, [old.id])
    if old.state in LIVE:
        return edit(tx, "resume", old, edits.Wanted({}, paused=False))
    if old.state == "broken":
        return write(tx, "resume", old, edits.mended(old, tx.now()))
    instead = f"store.change({name!r}, schedule=…), which makes it active"
    raise InvalidEntryError("state", old.state, "a paused or broken entry", instead)


def remove(tx: Transaction, name: str) -> None:
    """Delete an entry; see `Store.remove`."""
    old = tx.get(name, lock=True)
    was = audit.entry_columns(old, **_told(tx, old))
    cancel_runs(tx, old, "entry removed", held=True)
    delete_entries(tx, [old.id])
    audit.record(tx, "remove", old.name, was, None)


def delete_entries(tx: Transaction, ids: Iterable[int]) -> None:
    """Delete entries with what points at them.

    The foreign keys would do that too, but SQLite minds them only where it is told to.
    """
    ids = list(ids)
    links.wake_downstreams(tx, ids)
    of_them = or_(DEPENDENCY.c.downstream_id.in_(ids), DEPENDENCY.c.upstream_id.in_(ids))
    tx.execute(delete(TAG).where(TAG.c.entry_id.in_(ids)))
    tx.execute(delete(DEPENDENCY).where(of_them))
    tx.execute(delete(ENTRY).where(ENTRY.c.id.in_(ids)))


def entries(
    tx: Transaction, chosen: Mapping[str, str | None], limit: int, after: str | None
) -> Page[Entry]:
    """Return a page of entries, by name; see `Store.entries`."""
    found = _page(tx, select(ENTRY), chosen, limit, after)
    return Page.cut(tx.all(Entry, found), limit)


def names(
    tx: Transaction, chosen: Mapping[str, str | None], limit: int, after: str | None
) -> Page[str]:
    """Return a page of names; see `Store.names`."""
    found = _page(tx, select(ENTRY.c.name), chosen, limit, after)
    return Page.cut(tx.execute(found).scalars(), limit)


def _page(
    tx: Transaction,
    found: Select[Any],
    chosen: Mapping[str, str | None],
    limit: int,
    after: str | None,
) -> Select[Any]:
    """Return a query of a page of entries, by name, and of one more."""
    found = matching(tx, found, chosen)
    if after is not None:
        found = found.where(ENTRY.c.name > fields.sought("after", after))
    return found.order_by(ENTRY.c.name).limit(fields.whole("limit", limit, least=1) + 1)


def matching(tx: Transaction, found: Select[Any], chosen: Mapping[str, str | None]) -> Select[Any]:
    """Return a query of entries with the conditions of `Store.entries`."""
    if (tag := chosen.get("tag")) is not None:
        tagged = select(TAG.c.entry_id).where(TAG.c.tag == fields.sought("tag", tag))
        found = found.where(ENTRY.c.id.in_(tagged))
    if (state := chosen.get("state")) is not None:
        found = found.where(ENTRY.c.state == fields.choice("state", state, ENTRY_STATES))
    if (source := chosen.get("source")) is not None:
        found = found.where(ENTRY.c.source == fields.sought("source", source))
    if (name := chosen.get("name")) is not None:
        found = found.where(_matches(tx, fields.sought("name", name, _PATTERN_LENGTH)))
    return found


def tags(tx: Transaction, name: str) -> list[str]:
    """Return the tags of an entry, sorted."""
    entry = tx.get(name)
    found = tx.execute(select(TAG.c.tag).where(TAG.c.entry_id == entry.id))
    return sorted(found.scalars())


# -- writing ---------------------------------------------------------------------------


def insert(tx: Transaction, action: str, name: str, wanted: edits.Wanted) -> Entry | None:
    """Insert an entry with its tags; None if the name is taken."""
    now = None if wanted.columns["kind"] == "once" else tx.now()
    row = edits.new_row(name, wanted, now, tx.settings)
    if now is None:
        row["created_at"] = row["updated_at"] = tx.database.now_sql()
    if not tx.insert(ENTRY, row):
        return None
    made = tx.get(name)
    for tag in wanted.tags or ():
        tx.insert(TAG, {"entry_id": made.id, "tag": tag})
    after: list[Any] = []
    if wanted.after:
        _, after = links.write(tx, made, wanted.after, new=True)["after"]
    audit.record(tx, action, name, None, audit.entry_columns(made, wanted.tags or (), after))
    return made


def edit(
    tx: Transaction, action: str, old: Entry, wanted: edits.Wanted, *, touched: bool = False
) -> Entry:
    """Make a locked entry as it is wanted, and return it; write nothing if it is so already."""
    changed = edits.changes(old, wanted.columns)
    if changed or _turns(old, wanted.paused):
        changed |= edits.consequences(old, changed, wanted.paused, tx.now(), tx.settings)
    beside = _write_tags(tx, old, wanted.tags)
    if wanted.after is not None:
        kind = wanted.columns.get("kind")
        beside |= links.write(tx, old, wanted.after, new=False, kind=kind)
    return write(tx, action, old, changed, beside, touched=touched)


def _lock_upstreams(tx: Transaction, given: Mapping[str, Any]) -> None:
    """Lock what comes before the entry itself, if it is given upstreams."""
    if given.get("after"):
        links.prepare(tx, edges.wanted(given["after"]))


def write(
    tx: Transaction,
    action: str,
    old: Entry,
    changed: Mapping[str, Any],
    beside: audit.Differences | None = None,
    *,
    touched: bool = False,
) -> Entry:
    """Write the columns that change, and count the edit; `touched` counts it in any case.

    `beside` is what the edit has changed in other tables.
    """
    written = bool(changed or beside or touched)
    if written:
        stamp = {"version": ENTRY.c.version + 1, "updated_at": tx.database.now_sql()}
        tx.execute(update(ENTRY).where(ENTRY.c.id == old.id).values({**changed, **stamp}))
        tx.notify(changed.get("wake_at"))
    new = tx.all(Entry, select(ENTRY).where(ENTRY.c.id == old.id))[0]
    if written:
        audit.record_edit(tx, action, old, new, beside or {})
    return new


def cancel_runs(tx: Transaction, entry: Entry, reason: str, *, held: bool = False) -> None:
    """Cancel the runs of an entry that are not sent yet; with `held` those of a beat too."""
    cancel_runs_of(tx, [entry.id], reason, held=held)


def cancel_runs_of(tx: Transaction, ids: Sequence[int], reason: str, *, held: bool = False) -> None:
    """Do the same for many entries."""
    now = tx.now()
    # A next attempt was to decide what the occurrence comes to: now it failed, and counts.
    counted = case((RUN.c.attempt > 1, literal(now, Instant())))
    done = {"state": "cancelled", "reason": reason, "wake_at": counted, "finished_at": now}
    for some in chunks(ids):
        unsent = [RUN.c.entry_id.in_(some), RUN.c.state == "claimed"]
        if not held:
            unsent.append(RUN.c.claimed_by.is_(None))
        tx.execute(update(RUN).where(*unsent).values(done))


def _rename(tx: Transaction, old: Entry, name: str) -> None:
    """Give a locked entry another name.

    A statement that fails would end the caller's transaction on PostgreSQL, so
    a savepoint catches the name that another transaction takes at the same time.
    """
    if tx.find(name) is not None:
        raise EntryExistsError(name)
    # The connection's savepoint: the session's would flush what the caller has pending.
    connection = tx.session.connection(bind_arguments={"mapper": EntryModel})
    try:
        with connection.begin_nested():
            tx.execute(update(ENTRY).where(ENTRY.c.id == old.id).values(name=name))
    except IntegrityError as error:
        raise EntryExistsError(name) from error


def _write_tags(tx: Transaction, entry: Entry, wanted: tuple[str, ...] | None) -> audit.Differences:
    """Make the tags of an entry those wanted; return what they were, if they were others."""
    if wanted is None:
        return {}
    of_entry = TAG.c.entry_id == entry.id
    found = set(tx.execute(select(TAG.c.tag).where(of_entry)).scalars())
    if found - set(wanted):
        tx.execute(delete(TAG).where(of_entry, TAG.c.tag.in_(found - set(wanted))))
    for tag in sorted(set(wanted) - found):
        tx.insert(TAG, {"entry_id": entry.id, "tag": tag})
    return {} if found == set(wanted) else {"tags": (sorted(found), sorted(wanted))}


def _told(tx: Transaction, entry: Entry) -> dict[str, Any]:
    """Return what other tables say of an entry, for the audit."""
    found = tx.execute(select(TAG.c.tag).where(TAG.c.entry_id == entry.id)).scalars()
    return {"tags": sorted(found), "after": [edges.told(one) for one in links.read(tx, entry)]}


def _is_as_asked(tx: Transaction, old: Entry, wanted: edits.Wanted) -> bool:
    if edits.changes(old, wanted.columns) or _turns(old, wanted.paused):
        return False
    if wanted.after is not None and not links.are_as_asked(links.read(tx, old), wanted.after):
        return False
    found = tx.execute(select(TAG.c.tag).where(TAG.c.entry_id == old.id)).scalars()
    return wanted.tags is None or sorted(found) == list(wanted.tags)


def _turns(old: Entry, paused: bool | None) -> bool:
    """Say whether pausing or resuming makes a difference to this entry."""
    return old.state == ("active" if paused else "paused") and paused is not None


def _matches(tx: Transaction, pattern: str) -> ColumnElement[bool]:
    """Return the condition that a name matches `*` and `?`, as exactly as = does."""
    return dialect_of(tx.dialect).matches(ENTRY.c.name, pattern)
