"""What code says of an entry, what it said last, and what the row says: who wins, by field.

The baseline, in the column `declared`, is what code said at the last sync. A field that
still has it follows the code; one that has not was edited since, and stays.

Invariants:
    * A user's edit is never overwritten, and never mixed with what code says of the same
      field: when it is due (`schedule`, `timezone`, `start_at`) is one thing.
    * Merged twice, the second time changes nothing.

Pure: no SQL and no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any

from beatstore.definition import edges
from beatstore.definition.edits import Wanted
from beatstore.definition.spec import FIELDS, VALUES

__all__ = [
    "COLUMNS",
    "Said",
    "differing",
    "let_go_in",
    "of_code",
    "of_row",
    "packed",
    "paused_in",
    "taken",
    "unpacked",
]

#: An entry in JSON: by column, and its `tags` and edges (`after`), sorted.
Said = dict[str, Any]

#: The fields that are merged.
_MERGED = tuple(one for one in FIELDS.values() if one.group is not None)

#: The columns among what is merged.
COLUMNS = tuple(column for one in _MERGED for column in one.columns)

#: What a baseline leaves out.
_LEFT_OUT: Said = {key: one.left_out for one in _MERGED if one.is_ever_left_out for key in one.keys}

_INSTANTS = tuple(one.keys[0] for one in _MERGED if one.form == "instant")
_VALUES = attrgetter(*COLUMNS)


def _grouped() -> tuple[tuple[str, ...], ...]:
    """Return what is merged as one, by the names under which it is compared."""
    groups: dict[str, tuple[str, ...]] = {}
    for one in _MERGED:
        name = one.group or one.name
        groups[name] = (*groups.get(name, ()), *one.keys)
    return tuple(groups.values())


_GROUPS = _grouped()


def of_code(wanted: Wanted) -> Said:
    """Return what code says; `wanted` is what `edits.check` made of it."""
    said = {column: _json(wanted.columns[column]) for column in COLUMNS}
    said["tags"] = list(wanted.tags or ())
    said["after"] = _edges(wanted.after or ())
    return said


def of_row(row: Any, tags: Iterable[str], after: Iterable[edges.After]) -> Said:
    """Return what the database says; `row` has the columns."""
    # A cell that somebody has spoilt stays as it is: it is like nothing that code can say.
    said: Said = dict(zip(COLUMNS, _VALUES(row), strict=True))
    for name in _INSTANTS:
        if said[name] is not None:
            said[name] = _json(said[name])
    said["tags"] = sorted(tags)
    said["after"] = _edges(after)
    return said


def packed(
    said: Said, *, paused: bool, digest: str | None, let_go: str | None = None
) -> dict[str, Any]:
    """Return the column `declared`.

    Args:
        said: what code says.
        paused: whether it says that the entry starts paused.
        digest: of the declaration, if it has one.
        let_go: the state that the entry had when it left the code.
    """
    kept = {
        name: value for name, value in said.items() if not _same(value, _LEFT_OUT.get(name, ...))
    }
    found: dict[str, Any] = {"said": kept}
    beside = {"paused": paused or None, "digest": digest, "let_go": let_go}
    return found | {name: value for name, value in beside.items() if value is not None}


def unpacked(declared: object) -> Said | None:
    """Return what code said; None where it said nothing that can be read."""
    said = declared.get("said") if isinstance(declared, dict) else None
    return {**_LEFT_OUT, **said} if isinstance(said, dict) else None


def let_go_in(declared: object) -> str | None:
    """Return the state that an entry had when it left the code; None: it is in the code."""
    return declared.get("let_go") if isinstance(declared, dict) else None


def paused_in(declared: object) -> bool:
    """Say whether code said that the entry is paused."""
    return isinstance(declared, dict) and bool(declared.get("paused"))


def taken(row: Said, base: Said, code: Said) -> set[str]:
    """Return what of the row is to become as code says: what code alone has changed.

    Columns, and `tags` and `after`.
    """
    found: set[str] = set()
    for columns in _GROUPS:
        if _alike(row, base, columns) and not _alike(row, code, columns):
            found.update(columns)
    return found


def differing(row: Said, code: Said) -> tuple[str, ...]:
    """Return the fields in which they differ, by the names that `Store.add` has for them."""
    if row == code and all(_same(row[name], code[name]) for name in VALUES):
        return ()
    return tuple(one.name for one in _MERGED if not _alike(row, code, one.keys))


def _alike(one: Said, other: Said, columns: Iterable[str]) -> bool:
    return all(_same(one[column], other.get(column, ...)) for column in columns)


def _same(one: object, other: object) -> bool:
    if one != other:
        return False
    if not one or not isinstance(one, list | dict):
        return True
    # Python takes 1, 1.0 and True for equal, and for a task they are not.
    return repr(one) == repr(other) or _canonical(one) == _canonical(other)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _edges(after: Iterable[edges.After]) -> list[dict[str, Any]]:
    return [edges.told(one) for one in sorted(after, key=lambda one: one.name)]


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
