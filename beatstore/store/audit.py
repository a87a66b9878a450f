"""The audit: one row for each change made by people or code, written in its transaction.

Invariants:
    * A change and its row are committed together, or neither is.
    * An edit that changes nothing writes no row.
    * A row holds the columns that changed, as JSON (an instant as ISO 8601 text). `before` is None
      for a new entry, and `after` is None for a removed one.

What beat does is not audited; the runs record that.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from math import isfinite
from typing import Any

from sqlalchemy import ColumnElement, and_, insert, or_, select

from beatstore.database.columns import Unreadable
from beatstore.database.functions import NOW, is_word
from beatstore.database.rows import Transaction
from beatstore.database.tables import AUDIT, ENTRY
from beatstore.definition import fields
from beatstore.records import Audit, Entry
from beatstore.types import Page

__all__ = [
    "Change",
    "Differences",
    "Edit",
    "audits",
    "author",
    "check_actor",
    "check_reason",
    "entry_columns",
    "followed",
    "is_departure",
    "is_of_run",
    "last_change",
    "new_name",
    "os_user",
    "record",
    "record_all",
    "record_edit",
    "record_edits",
    "shown",
]

#: The fields that differ, by name: the old and the new value.
Differences = dict[str, tuple[Any, Any]]

#: An entry's name, and its changed columns before and after.
Change = tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]

#: An entry as it was, the columns that change, and the differences in other tables.
Edit = tuple[Entry, Mapping[str, Any], Differences]

#: The actions on a run of an entry; they may follow the removal of the entry.
_OF_RUN = ("trigger", "rerun", "end")

#: How many renames are followed, and how many changes are searched for each.
_RENAMES, _CHANGES = 5, 100

#: The most characters of a reason.
_REASON_LENGTH = 1000

#: Columns that every edit changes or that only beat needs; the audit leaves them out.
_HIDDEN = frozenset({"declared", "wake_at", "version", "created_at", "updated_at"})

#: Built once, since every edit executes it; the other columns are its parameters.
_RECORD = insert(AUDIT).values(at=NOW).inline()


def record(
    tx: Transaction,
    action: str,
    entry: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    *,
    reason: str | None = None,
) -> None:
    """Record one change; an edit that changed nothing writes no row.

    Args:
        tx: the transaction of the change; its actor made it.
        action: the name of the API method.
        entry: the entry's name before the change; "" if the change is about no entry.
        before: the old values of the columns that changed.
        after: their new values.
        reason: why; None for the transaction's own reason.
    """
    record_all(tx, action, [(entry, before, after)], reason)


def record_all(
    tx: Transaction, action: str, changes: Iterable[Change], reason: str | None = None
) -> None:
    """Record many changes with the same action; see `record`."""
    same = {"action": action, **author(tx, reason), **tx.database.given_now()}
    rows = [
        {**same, "entry": entry, "before": _json(before), "after": _json(after)}
        for entry, before, after in changes
        if before != after
    ]
    if rows:
        tx.execute(_RECORD, rows)


def author(tx: Transaction, reason: str | None = None) -> dict[str, Any]:
    """Return the columns that say who makes a change, and why."""
    return {"actor": tx.actor or os_user(), "reason": reason or tx.reason}


def audits(tx: Transaction, name: str | None, limit: int, before_id: int | None) -> Page[Audit]:
    """Return a page of changes, newest first; see `Store.audit`."""
    found = select(AUDIT).order_by(AUDIT.c.id.desc())
    if name is not None:
        found = found.where(is_word(AUDIT.c.entry, fields.sought("name", name))).order_by(None)
        found = found.order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc())
    if before_id is not None:
        fields.row_id("before_id", before_id)
        before = AUDIT.c.id < before_id if name is None else _before(tx, before_id)
        found = found.where(before)
    limit = fields.whole("limit", limit, least=1)
    return Page.cut(tx.all(Audit, found.limit(limit + 1)), limit)


def _before(tx: Transaction, change_id: int) -> ColumnElement[bool]:
    """Return the condition that a change comes after that one in the order (at, id) desc.

    The clock may have been set back between the two.
    """
    at = tx.execute(select(AUDIT.c.at).where(AUDIT.c.id == change_id)).scalar()
    if not isinstance(at, datetime):  # pruned meanwhile, or written by hand
        return AUDIT.c.id < change_id
    return and_(AUDIT.c.at <= at, or_(AUDIT.c.at < at, AUDIT.c.id < change_id))


# -- names ---------------------------------------------------------------------------------


def is_of_run(change: Audit) -> bool:
    """Return whether a change is of a run: then its columns are not those of the entry."""
    return change.action in _OF_RUN


def new_name(change: Audit) -> str | None:
    """Return the name that an entry got with a change; None: it kept its own, or was removed."""
    if not isinstance(change.before, Mapping) or not isinstance(change.after, Mapping):
        return None
    return change.after.get("name") or None if "name" in change.before else None


def is_departure(change: Audit) -> bool:
    """Return whether a change took an entry its name: whether it was a rename or a removal."""
    return (change.before is not None and change.after is None) or new_name(change) is not None


def last_change(tx: Transaction, name: str) -> Audit | None:
    """Return the last change of the entry that has a name or had it last, such as its removal."""
    # A run of a removed entry can still be ended.
    found = select(AUDIT).where(is_word(AUDIT.c.entry, name), AUDIT.c.action != "end")
    page = found.order_by(AUDIT.c.at.desc(), AUDIT.c.id.desc()).limit(1)
    return next(iter(tx.all(Audit, page)), None)


def followed(tx: Transaction, name: str) -> tuple[str | None, Audit | None]:
    """Follow the entry that had a name last, and has it no more, through its renames.

    Returns:
        Its name now, or None if it is gone; and the last change on its way, which is its rename or
        its removal, or None if nothing is on record of that name.
    """
    change = last_change(tx, name) if fields.storable(name) else None
    for _ in range(_RENAMES):
        given = change and new_name(change)
        if not change or not given:
            break
        left = _left_by(tx, given, change)
        if left is None:
            return (given if tx.find(given) else None), change
        change = left
    return None, change


def _left_by(tx: Transaction, name: str, since: Audit) -> Audit | None:
    """Return the first change after one that took a name from its entry; None: none did."""
    later = or_(AUDIT.c.at > since.at, and_(AUDIT.c.at == since.at, AUDIT.c.id > since.id))
    found = select(AUDIT).where(is_word(AUDIT.c.entry, name), later)
    found = found.where(AUDIT.c.action.in_(("change", "remove")))
    page = found.order_by(AUDIT.c.at, AUDIT.c.id).limit(_CHANGES)
    return next((one for one in tx.all(Audit, page) if is_departure(one)), None)


# -- writing -------------------------------------------------------------------------------


def record_edit(tx: Transaction, action: str, old: Entry, new: Entry, others: Differences) -> None:
    """Record an edit: the differences in the entry's row and those in other tables (`others`)."""
    columns: Differences = {
        column.name: (getattr(old, column.name), getattr(new, column.name))
        for column in ENTRY.columns
        if column.name not in _HIDDEN
    }
    differing = {name: pair for name, pair in columns.items() if pair[0] != pair[1]} | others
    before = {name: pair[0] for name, pair in differing.items()}
    record(tx, action, old.name, before, {name: pair[1] for name, pair in differing.items()})


def entry_columns(
    entry: Entry, tags: Sequence[str] = (), after: Sequence[Any] = ()
) -> dict[str, Any]:
    """Return the columns of an added or removed entry that are worth recording."""
    row = {column.name: getattr(entry, column.name) for column in ENTRY.columns}
    return shown(row | {"tags": sorted(tags) or None, "after": list(after) or None})


def shown(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that are worth recording."""
    return {
        name: value for name, value in columns.items() if name not in _HIDDEN and value is not None
    }


def record_edits(tx: Transaction, action: str, edits: Iterable[Edit]) -> None:
    """Record many edits with the same action: for each, the columns that get another value."""
    record_all(tx, action, (_change(*edit) for edit in edits))


def _change(old: Entry, new: Mapping[str, Any], others: Differences) -> Change:
    columns = {name: (getattr(old, name), value) for name, value in new.items()}
    differing = {
        name: pair for name, pair in columns.items() if name not in _HIDDEN and pair[0] != pair[1]
    } | others
    before = {name: pair[0] for name, pair in differing.items()}
    return old.name, before, {name: pair[1] for name, pair in differing.items()}


def check_actor(given: object) -> str | None:
    """Return the given actor, or None.

    Raises:
        InvalidEntryError: it is not a text of 1 to 255 characters.
    """
    return None if given is None else fields.text("actor", given)


def check_reason(given: object) -> str | None:
    """Return the given reason; None for None and for blank text.

    Raises:
        InvalidEntryError: it is not a text of at most 1,000 characters.
    """
    said = fields.note("reason", given, _REASON_LENGTH)
    return said if said and not said.isspace() else None


_PLAIN = frozenset({str, int, float, bool, type(None)})


@cache
def os_user() -> str:
    """Return the user of this process: a login name, or `uid 1000` if there is none."""
    try:
        return getpass.getuser()[:255]
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def _json(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if type(value) in _PLAIN:
        # Plain SQL may have written a number that PostgreSQL's JSON does not hold.
        return value if type(value) is not float or isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Unreadable):
        return value.given
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value
