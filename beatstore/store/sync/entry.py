"""One declared entry: what its row becomes in a sync.

Executes no SQL. See `beatstore.store.sync.merge` for who wins, the user or the code.

Invariants:
    * A user's pause or cancel stays. An entry that is declared again continues as it was.
    * A change in the code follows the rules of `Store.change`.

On failure: `InvalidEntryError` or `ScheduleError`, naming the argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from beatstore.config import Settings
from beatstore.definition import edges, edits, fields
from beatstore.definition.spec import Declared
from beatstore.errors import InvalidEntryError
from beatstore.records import Entry
from beatstore.rules.states import LIVE, OVER
from beatstore.schedules.instants import EPOCH
from beatstore.store import audit, links
from beatstore.store.sync import merge
from beatstore.store.sync.stored import Related

__all__ = ["DeclaredEntry", "edited", "is_in_service", "let_go"]

_UNREAD = edits.CheckedFields({})


@dataclass
class DeclaredEntry:
    """A declared entry and what changes in the database for it.

    Attributes:
        declared: the declaration.
        source: the source that declares it.
        digest: the digest of the declaration.
        checked: the checked declaration.
        old: the stored entry, locked.
        row: the columns of a new row, or those that change.
        tags: the old and the new tags, if they change.
        after: the old and the new edges, if they change.
        kept: the fields in which a user's edit stays though the code declares another value.
        gone: the names of entries that code no longer declares.
        new: the names of declared entries that are not stored.
    """

    declared: Declared
    source: str
    digest: str | None = None
    checked: edits.CheckedFields = _UNREAD
    old: Entry | None = None
    row: dict[str, Any] = field(default_factory=dict)
    tags: tuple[list[str], list[str]] | None = None
    after: tuple[list[edges.After], list[edges.After]] | None = None
    kept: tuple[str, ...] = ()
    gone: Collection[str] = ()
    new: Collection[str] = ()

    @property
    def is_updated(self) -> bool:
        """Whether anything changes that users can see."""
        return bool(self.row.keys() - {"declared"} or self.tags or self.after)

    @property
    def returns(self) -> bool:
        """Whether a cancelled entry becomes active or paused again."""
        return self.old is not None and self.old.state == "cancelled" and "state" in self.row

    @classmethod
    def of(cls, entry: Entry) -> DeclaredEntry:
        """Return a stored entry that does not change."""
        return cls(Declared(entry.name, entry.task), entry.source, old=entry)

    def becomes(self, column: str) -> Any:
        """Return the new value of a column; None if only the database knows it."""
        return self.row.get(column, getattr(self.old, column, None))

    def node(self, entry_id: int) -> Any:
        """Return the new values of the columns that an edge needs; see `links.edge_row`."""
        old = self.old
        shown = {name: self.row.get(name, getattr(old, name, 0)) for name in links.NODE_COLUMNS}
        return SimpleNamespace(**{**shown, "id": entry_id})

    def differences(self) -> audit.Differences:
        """Return what changes in other tables, for the audit."""
        found: audit.Differences = {"tags": self.tags} if self.tags else {}
        if self.after:
            was, becomes = self.after
            gone = [edges.as_json(one) for one in was if one not in becomes]
            found["after"] = gone, [edges.as_json(one) for one in becomes if one not in was]
        return found

    def check(self, settings: Settings) -> None:
        """Check the declaration in full."""
        fields.text("name", self.declared.name)
        self.checked = edits.check({**self.declared.given(), "source": self.source}, settings)

    def decide(self, related: Related, now: datetime, settings: Settings) -> None:
        """Decide what the row becomes; `related` has the tags and edges of stored entries."""
        if self.old is None:
            self._make(now, settings)
        else:
            self._merge(self.old, related, now, settings)

    def _make(self, now: datetime, settings: Settings) -> None:
        self.row = edits.new_row(self.declared.name, self.checked, now, settings)
        self.row["declared"] = self._baseline(merge.of_code(self.checked))
        self.tags = ([], list(self.checked.tags)) if self.checked.tags else None
        self.after = ([], list(self.checked.after)) if self.checked.after else None

    def _merge(self, old: Entry, related: Related, now: datetime, settings: Settings) -> None:
        was, code = related.json_fields(old), merge.of_code(self.checked)
        base = merge.unpacked(old.declared) or was
        taken = merge.taken(was, base, code)
        if merge.is_unedited(was["after"], base["after"], self.gone, self.new):
            taken.add("after")
        self.kept = merge.differing(was | {name: code[name] for name in taken}, code)
        if "tags" in taken:
            self.tags = sorted(related.tags.get(old.id, [])), list(self.checked.tags or ())
        if "after" in taken:
            self.after = related.after.get(old.id, []), list(self.checked.after or ())
        columns = {name: self.checked.columns[name] for name in taken & self.checked.columns.keys()}
        _check_mixed(old, columns, code["after"] if self.after else was["after"])
        changed = edits.changes(old, columns)
        self.row = {**changed, **self._follow(old, changed, now, settings)}
        if _is_edited(self.row.get("state", old.state), paused=bool(self.checked.paused)):
            self.kept = (*self.kept, "state")
        ownership = {"source": self.source, "declared": self._baseline(code)}
        self.row |= edits.changes(old, ownership)

    def _baseline(self, code: merge.JsonFields) -> dict[str, Any]:
        return merge.packed(code, paused=bool(self.checked.paused), digest=self.digest)

    def _follow(
        self, old: Entry, changed: Mapping[str, Any], now: datetime, settings: Settings
    ) -> dict[str, Any]:
        """Return the columns for beat that change as a consequence, and the state."""
        state, paused = _state(old), self._turn(old)
        if old.state == "cancelled":
            if state == "cancelled":
                return {}  # a user cancelled it: the fields follow the code, but it stays cancelled
            is_paused = state == "paused" if paused is None else paused
            return _returned(old, changed, is_paused, now, settings)
        if not changed and paused is None:
            return {}
        found = edits.consequences(old, changed, paused, now, settings)
        if self.checked.paused and state in OVER and found.get("state") == "active":
            found |= {"state": "paused", "wake_at": None}
        return found

    def _turn(self, old: Entry) -> bool | None:
        """Return True if code pauses the entry, False if it resumes it, None if neither."""
        code = bool(self.checked.paused)
        base = merge.paused_in(old.declared) if merge.unpacked(old.declared) else code
        state = _state(old)
        if state not in LIVE or base == code or (state == "paused") != base:
            return None
        return code


def edited(row: Any, related: Related) -> tuple[str, ...]:
    """Return the fields in which an entry differs from what its code declares.

    Args:
        row: an object with the entry's columns.
        related: its tags and edges.
    """
    code = merge.unpacked(row.declared)
    if code is None or merge.let_go_in(row.declared):
        return ()
    found = merge.differing(related.json_fields(row), code)
    is_edited = _is_edited(row.state, paused=merge.paused_in(row.declared))
    return (*found, "state") if is_edited else found


def is_in_service(old: Entry) -> bool:
    """Return whether an entry has to be cancelled when it is no longer declared."""
    return old.state not in OVER


def let_go(old: Entry) -> dict[str, Any]:
    """Return the columns that change when an entry is no longer declared."""
    declared = old.declared if isinstance(old.declared, dict) else {}
    left = {"declared": {**declared, "let_go": old.state}}
    if not is_in_service(old):
        return left
    over = {"state": "cancelled", "wake_at": None, "next_due_at": None}
    return {**left, **over, **edits.NOTHING_PENDING}


def _state(old: Entry) -> str:
    """Return the state of an entry, or the one it had when it was no longer declared."""
    before = merge.let_go_in(old.declared)
    return old.state if before is None or old.state != "cancelled" else before


def _is_edited(state: str, *, paused: bool) -> bool:
    """Return whether a user set this state; `paused` is what the code declares."""
    return state == "cancelled" or (state in LIVE and paused != (state == "paused"))


def _returned(
    old: Entry, changed: Mapping[str, Any], paused: bool, now: datetime, settings: Settings
) -> dict[str, Any]:
    """Return the columns that change when an entry is declared again."""
    row = edits.consequences(old, changed, None, now, settings)
    if row.get("state") != "active":
        # As in `resume`, occurrences that were due meanwhile are neither run nor missed.
        row = {"state": "active", "error": None, "cursor_at": now, "wake_at": EPOCH}
        row |= edits.NOTHING_PENDING
        with suppress(InvalidEntryError):  # beat decides the state at its next tick
            rule = {name: getattr(old, name) for name in _RULE} | dict(changed)
            row["next_due_at"] = edits.first_due(rule, now, settings)
    return {**row, "state": "paused", "wake_at": None} if paused else row


#: The columns that an entry's first due time depends on.
_RULE = ("kind", "spec", "timezone", "start_at", "end_at", "created_at")


def _check_mixed(old: Entry, columns: Mapping[str, Any], after: object) -> None:
    """Refuse a combination of a user's edit and the code's that is impossible."""
    edits.check_span(columns.get("start_at", old.start_at), columns.get("end_at", old.end_at))
    if columns.get("kind", old.kind) == "after" and not after:
        expected = "a schedule, because somebody removed all upstreams of the entry"
        raise InvalidEntryError("schedule", None, expected)
