"""Add, edit, list and remove entries. Each function works in the open transaction it is given.

Invariants:
    * A row is locked before it is read to be changed, so that no tick and no other edit comes
      in between.
    * A lost race shows in a row, not in a failed statement: the caller's transaction stays
      usable.

On failure: arguments are refused before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, get_args

from sqlalchemy import (
    Select,
    and_,
    bindparam,
    delete,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement

from beatstore.database.columns import check_levels
from beatstore.database.dialects import dialect_of
from beatstore.database.functions import is_word
from beatstore.database.rows import Transaction
from beatstore.database.tables import DEPENDENCY, ENTRY, RUN, TAG, TOKEN, WAIT, chunks
from beatstore.definition import edges, edits, fields
from beatstore.definition.spec import VALUES
from beatstore.errors import EntryChangedError, EntryExistsError
from beatstore.records import Entry
from beatstore.rules.due import STEP
from beatstore.rules.states import ENTRY_STATES
from beatstore.schedules import Once
from beatstore.store import audit, links
from beatstore.store.conditions import DECLARED, NOT_ACTIVE, overdue_entry
from beatstore.store.insertion import insert
from beatstore.store.searching import SEARCHED, search
from beatstore.tick.endings import cancel_unsent
from beatstore.types import EntryOnly, Page

__all__ = [
    "add",
    "change",
    "edit",
    "entries",
    "free_due_time",
    "matching",
    "names",
    "put",
    "remove",
    "write",
]

#: The words of `only`.
ENTRY_ONLY: tuple[EntryOnly, ...] = get_args(EntryOnly)

#: Longer than any name; SQLite refuses a pattern of 50,000 bytes.
_PATTERN_LENGTH = 1000

#: How often put() tries again if others add and remove the entry meanwhile.
_TRIES = 5


def add(tx: Transaction, name: str, given: Mapping[str, Any], action: str = "add") -> Entry:
    """Insert an entry; see `Store.add`."""
    name = fields.text("name", name)
    made = insert(tx, action, name, edits.check(given, tx.settings))
    if made is None:
        raise EntryExistsError(name)
    return made


def put(tx: Transaction, name: str, given: Mapping[str, Any]) -> Entry:
    """Insert or update an entry; see `Store.put`."""
    name = fields.text("name", name)
    # paused=False applies to a new entry only: an entry paused by hand stays paused.
    update_only = {key: value for key, value in given.items() if key != "paused" or value}
    gone = False
    for _ in range(_TRIES):
        old = tx.find(name)
        if old is None or gone:
            made = insert(tx, "put", name, edits.check(given, tx.settings))
            if made is not None:
                return made
        elif not tx.reads_snapshot and _is_as_asked(
            tx, old, edits.check(update_only, tx.settings, old)
        ):
            return old
        _lock_upstreams(tx, given)
        old = tx.find(name, lock=True)
        if old is not None:
            return edit(tx, "put", old, edits.check(update_only, tx.settings, old))
        gone = True  # whatever the caller's snapshot shows
    raise EntryExistsError(name)  # pragma: no cover  (added and removed five times in a row)


def change(
    tx: Transaction, name: str, given: Mapping[str, Any], if_version: object = None
) -> Entry:
    """Edit an entry; see `Store.change`."""
    expected = None if if_version is None else fields.whole("if_version", if_version)
    named = dict(given)
    new_name = named.pop("new_name", None)
    _lock_upstreams(tx, named)
    old = tx.get(name, lock=True)
    if expected is not None and old.version != expected:
        raise EntryChangedError(name, expected, old.version)
    checked = edits.check(named, tx.settings, old)
    if new_name is None or new_name == name:
        return edit(tx, "change", old, checked)
    with tx.whole():
        _rename(tx, old, fields.text("new_name", new_name))
        return edit(tx, "change", old, checked, touched=True)


def remove(tx: Transaction, name: str) -> None:
    """Delete an entry; see `Store.remove`."""
    old = tx.get(name, lock=True)
    was = audit.entry_columns(old, **_related(tx, old))
    cancel_unsent(tx, [old.id], tx.now(), "entry removed", held=True)
    delete_entries(tx, [old.id])
    audit.record(tx, "remove", old.name, was, None)


def delete_entries(tx: Transaction, ids: Iterable[int]) -> None:
    """Delete entries with their tags, edges and shared due times.

    The foreign keys would do that too, but SQLite ignores them unless they are switched on.
    """
    ids = list(ids)
    links.wake_downstreams(tx, ids)
    of_them = or_(DEPENDENCY.c.downstream_id.in_(ids), DEPENDENCY.c.upstream_id.in_(ids))
    tx.execute(delete(TAG).where(TAG.c.entry_id.in_(ids)))
    tx.execute(delete(DEPENDENCY).where(of_them))
    if not dialect_of(tx.dialect).is_server:
        tx.execute(delete(TOKEN).where(TOKEN.c.downstream_id.in_(ids)))
        tx.execute(delete(WAIT).where(WAIT.c.downstream_id.in_(ids)))
    tx.execute(delete(ENTRY).where(ENTRY.c.id.in_(ids)))


def entries(
    tx: Transaction, chosen: Mapping[str, str | None], limit: int, after: str | None
) -> Page[Entry]:
    """Return a page of entries, sorted by name; see `Store.entries`."""
    if _only(chosen) not in SEARCHED:
        found = tx.all(Entry, _whole_page(tx, chosen, limit, after))
        more = len(found) > limit
        return Page(found[:limit], more=more, after=found[limit - 1].name if more else None)
    page = names(tx, chosen, limit, after)
    named = select(ENTRY).order_by(ENTRY.c.name)
    some = (tx.all(Entry, named.where(ENTRY.c.name.in_(part))) for part in chunks(page))
    return Page(chain.from_iterable(some), more=page.more, after=page.after)


def names(
    tx: Transaction, chosen: Mapping[str, str | None], limit: int, after: str | None
) -> Page[str]:
    """Return a page of names; see `Store.names`."""
    page, only = _page(tx, select(ENTRY.c.name), chosen, limit, after), _only(chosen)
    if only is not None and only in SEARCHED:
        apart = chosen.get("tag") is not None or chosen.get("name") is not None
        return search(tx, page, only, limit, apart=apart)
    found = list(tx.execute(page).scalars())
    more = len(found) > limit
    return Page(found[:limit], more=more, after=found[limit - 1] if more else None)


def _page(
    tx: Transaction,
    found: Select[Any],
    chosen: Mapping[str, str | None],
    limit: int,
    after: str | None,
) -> Select[Any]:
    """Return a query for a page of entries, sorted by name, and one more."""
    found = matching(tx, found, chosen)
    if _only(chosen) == "overdue":
        found = found.where(overdue_entry(tx.now()))
    if after is not None:
        found = found.where(ENTRY.c.name > fields.sought("after", after))
    return found.order_by(ENTRY.c.name).limit(fields.whole("limit", limit, least=1) + 1)


def _whole_page(
    tx: Transaction, chosen: Mapping[str, str | None], limit: int, after: str | None
) -> Select[Any]:
    """Return a query for all columns; servers search names in their index, without the rows."""
    dialect = dialect_of(tx.dialect)
    if chosen.get("name") is None or not dialect.is_server:
        return _page(tx, select(ENTRY), chosen, limit, after)
    page = _page(tx, select(ENTRY.c.name), chosen, limit, after).subquery("page")
    found = select(ENTRY).join_from(page, ENTRY, page.c.name == ENTRY.c.name)
    return dialect.joined_in_order(found).order_by(ENTRY.c.name)


def _only(chosen: Mapping[str, str | None]) -> EntryOnly | None:
    only = chosen.get("only")
    return None if only is None else fields.choice("only", only, ENTRY_ONLY)


def matching(tx: Transaction, found: Select[Any], chosen: Mapping[str, str | None]) -> Select[Any]:
    """Return a query for entries with the conditions of `Store.entries`."""
    if (tag := chosen.get("tag")) is not None:
        tagged = select(TAG.c.entry_id).where(is_word(TAG.c.tag, fields.sought("tag", tag)))
        found = found.where(ENTRY.c.id.in_(tagged))
    if (state := chosen.get("state")) is not None:
        found = found.where(*_in_state(fields.choice("state", state, ENTRY_STATES)))
    if (source := chosen.get("source")) is not None:
        found = found.where(is_word(ENTRY.c.source, fields.sought("source", source)))
        # The index has those that code declares: a parameter alone would not say so.
        found = found if source == "api" else found.where(DECLARED)
    if (name := chosen.get("name")) is not None:
        found = found.where(_matches(tx, fields.sought("name", name, _PATTERN_LENGTH)))
    return found


def _in_state(state: str) -> list[ColumnElement[bool]]:
    """Return the conditions that entries are in a state.

    The state stands in the text of the statement: a plan made for any state would walk all names
    where few entries have this one. And the index has those that are not active.
    """
    chosen = ENTRY.c.state == bindparam("state", state, literal_execute=True)
    return [chosen] if state == "active" else [chosen, NOT_ACTIVE]


# -- writing ---------------------------------------------------------------------------


def edit(
    tx: Transaction, action: str, old: Entry, checked: edits.CheckedFields, *, touched: bool = False
) -> Entry:
    """Update a locked entry to its new fields, and return it; write nothing if none differs."""
    changed = edits.changes(old, _at_free_time(tx, old, checked.columns))
    if changed or _turns(old, checked.paused):
        changed |= edits.consequences(old, changed, checked.paused, tx.now(), tx.settings)
    for name in VALUES & changed.keys():
        check_levels(name, changed[name], tx.dialect)
    # All that can be refused is refused before anything is written: upstreams are the last.
    others: audit.Differences = {}
    if checked.after is not None:
        others |= links.write(tx, old, checked.after, kind=checked.columns.get("kind"))
    others |= _write_tags(tx, old, checked.tags)
    return write(tx, action, old, changed, others, touched=touched)


def _at_free_time(tx: Transaction, old: Entry, columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the columns of an edit; a one-shot is not moved to where it has a run already."""
    spec = columns.get("spec", old.spec)
    if columns.get("kind", old.kind) != Once.kind or spec == old.spec:
        return columns
    at = free_due_time(tx, old.id, Once.parse(spec).at, there=old.spec)
    return {**columns, "spec": Once(at).spec}


def free_due_time(
    tx: Transaction, entry_id: int, due_at: datetime, there: str | None = None
) -> datetime:
    """Return the first instant from `due_at` on at which an entry has no run on record.

    A due time has one run: if the entry became due at that of an old one, nothing would be sent.

    Args:
        tx: the open transaction.
        entry_id: the id of the locked entry.
        due_at: the earliest instant.
        there: the rule of the entry, which is returned even if it is taken: it is where an earlier
            edit to `due_at` has moved the entry.
    """
    taken = select(RUN.c.id).where(RUN.c.entry_id == entry_id)
    while Once(due_at).spec != there:
        if tx.execute(tx.current(taken.where(RUN.c.due_at == due_at))).first() is None:
            break
        due_at += STEP
    return due_at


def _lock_upstreams(tx: Transaction, given: Mapping[str, Any]) -> None:
    """Take the locks that come before the entry's own, if it is given upstreams."""
    if given.get("after"):
        links.prepare(tx, edges.checked(given["after"]))


def write(
    tx: Transaction,
    action: str,
    old: Entry,
    changed: Mapping[str, Any],
    others: audit.Differences | None = None,
    *,
    touched: bool = False,
) -> Entry:
    """Write the columns that change, and record the edit.

    Args:
        tx: the open transaction.
        action: the name of the API method, for the audit.
        old: the locked entry.
        changed: the columns that change.
        others: what the edit has changed in other tables.
        touched: record the edit even if nothing changes.
    """
    if not (changed or others or touched):
        return old
    tx.execute(update(ENTRY).where(ENTRY.c.id == old.id).values({**changed, **tx.stamp()}))
    tx.notify(changed.get("wake_at"))
    new = tx.all(Entry, select(ENTRY).where(ENTRY.c.id == old.id))[0]
    audit.record_edit(tx, action, old, new, others or {})
    return new


def _rename(tx: Transaction, old: Entry, name: str) -> None:
    """Rename a locked entry.

    Another transaction may take the name at the same time. On PostgreSQL the failed statement
    would end the caller's transaction, so it runs in a savepoint of theirs: see `change`.
    """
    if tx.find(name) is not None:
        raise EntryExistsError(name)
    try:
        tx.execute(update(ENTRY).where(ENTRY.c.id == old.id).values(name=name))
    except IntegrityError as error:
        raise EntryExistsError(name) from error


def _write_tags(tx: Transaction, entry: Entry, tags: tuple[str, ...] | None) -> audit.Differences:
    """Set the tags of an entry; return the difference, if there is one."""
    if tags is None:
        return {}
    of_entry = TAG.c.entry_id == entry.id
    found = set(tx.execute(tx.current(select(TAG.c.tag).where(of_entry))).scalars())
    if found - set(tags):
        tx.execute(delete(TAG).where(of_entry, TAG.c.tag.in_(found - set(tags))))
    for tag in sorted(set(tags) - found):
        tx.insert(TAG, {"entry_id": entry.id, "tag": tag})
    return {} if found == set(tags) else {"tags": (sorted(found), sorted(tags))}


def _related(tx: Transaction, entry: Entry) -> dict[str, Any]:
    """Return the tags and upstreams of a locked entry, for the audit."""
    tags = tx.execute(tx.current(select(TAG.c.tag).where(TAG.c.entry_id == entry.id))).scalars()
    after = links.current(tx, DEPENDENCY.c.downstream_id == entry.id)
    return {"tags": sorted(tags), "after": [edges.as_json(one) for _, _, one in after]}


def _is_as_asked(tx: Transaction, old: Entry, checked: edits.CheckedFields) -> bool:
    if edits.changes(old, checked.columns) or _turns(old, checked.paused):
        return False
    if checked.after is not None and not links.are_as_asked(links.read(tx, old), checked.after):
        return False
    found = tx.execute(select(TAG.c.tag).where(TAG.c.entry_id == old.id)).scalars()
    return checked.tags is None or sorted(found) == list(checked.tags)


def _turns(old: Entry, paused: bool | None) -> bool:
    """Return whether pausing or resuming changes the state of this entry."""
    return old.state == ("active" if paused else "paused") and paused is not None


def _matches(tx: Transaction, pattern: str) -> ColumnElement[bool]:
    """Return the condition that a name matches a pattern of `*` and `?`, case-sensitively.

    A pattern without either is a name, which PostgreSQL does not search in the index unless it is
    compared as one.
    """
    matches = dialect_of(tx.dialect).matches(ENTRY.c.name, pattern)
    return matches if {"*", "?"} & set(pattern) else and_(ENTRY.c.name == pattern, matches)
