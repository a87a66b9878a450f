"""A three-way merge by field: what code declares, what it declared last, and the stored row.

The baseline, in the column `declared`, is what code declared at the last sync. A field whose
stored value is the baseline follows the code. A field with another value was edited by a user,
and keeps the edit.

Invariants:
    * A user's edit is never overwritten. It is never mixed with the code's either: `schedule`,
      `timezone` and `start_at` are merged as one field.
    * A second merge changes nothing.

Pure: no SQL and no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from beatstore.definition import edges
from beatstore.definition.edits import CheckedFields
from beatstore.definition.spec import FIELDS, VALUES
from beatstore.definition.values import canonical

__all__ = [
    "COLUMNS",
    "JsonFields",
    "differing",
    "is_unedited",
    "let_go_in",
    "of_code",
    "of_row",
    "packed",
    "paused_in",
    "taken",
    "unpacked",
    "waits_for",
]

#: An entry in JSON: its columns, and its sorted `tags` and edges (`after`).
JsonFields = dict[str, Any]

#: Edges in JSON; see `edges.as_json`.
JsonEdges = Sequence[dict[str, Any]]

#: The fields that are merged.
_MERGED = tuple(one for one in FIELDS.values() if one.group is not None)

#: The columns of those fields.
COLUMNS = tuple(column for one in _MERGED for column in one.columns)

#: The values that a baseline leaves out.
_LEFT_OUT: JsonFields = {
    key: one.left_out for one in _MERGED if one.is_ever_left_out for key in one.keys
}

_INSTANTS = tuple(one.keys[0] for one in _MERGED if one.form == "instant")
_VALUES = attrgetter(*COLUMNS)


def _grouped() -> tuple[tuple[str, ...], ...]:
    """Return the groups of keys that are merged as one field."""
    groups: dict[str, tuple[str, ...]] = {}
    for one in _MERGED:
        name = one.group or one.name
        groups[name] = (*groups.get(name, ()), *one.keys)
    return tuple(groups.values())


_GROUPS = _grouped()


def of_code(checked: CheckedFields) -> JsonFields:
    """Return what code declares; `checked` is the result of `edits.check`."""
    found = {column: _json(checked.columns[column]) for column in COLUMNS}
    found["tags"] = list(checked.tags or ())
    found["after"] = _edges(checked.after or ())
    return found


def of_row(row: Any, tags: Iterable[str], after: Iterable[edges.After]) -> JsonFields:
    """Return what the database has; `row` has the columns."""
    # A value that can't be read stays as it is: it equals nothing that code can declare.
    found: JsonFields = dict(zip(COLUMNS, _VALUES(row), strict=True))
    for name in _INSTANTS:
        if found[name] is not None:
            found[name] = _json(found[name])
    found["tags"] = sorted(tags)
    found["after"] = _edges(after)
    return found


def packed(
    code: JsonFields, *, paused: bool, digest: str | None, let_go: str | None = None
) -> dict[str, Any]:
    """Return the column `declared`.

    Args:
        code: what code declares.
        paused: whether it declares that the entry starts paused.
        digest: the digest of the declaration, if it has one.
        let_go: the state of the entry when it was no longer declared.
    """
    kept = {
        name: value for name, value in code.items() if not _same(value, _LEFT_OUT.get(name, ...))
    }
    found: dict[str, Any] = {"said": kept}
    others = {"paused": paused or None, "digest": digest, "let_go": let_go}
    return found | {name: value for name, value in others.items() if value is not None}


def unpacked(declared: object) -> JsonFields | None:
    """Return what code declared; None if there is nothing that can be read."""
    code = declared.get("said") if isinstance(declared, dict) else None
    return {**_LEFT_OUT, **code} if isinstance(code, dict) else None


def let_go_in(declared: object) -> str | None:
    """Return the state of an entry when it was no longer declared; None: it is declared."""
    return declared.get("let_go") if isinstance(declared, dict) else None


def paused_in(declared: object) -> bool:
    """Return whether code declared that the entry is paused."""
    return isinstance(declared, dict) and bool(declared.get("paused"))


def taken(row: JsonFields, base: JsonFields, code: JsonFields) -> set[str]:
    """Return which columns, `tags` and `after` follow the code: only it has changed them."""
    found: set[str] = set()
    for columns in _GROUPS:
        if _alike(row, base, columns) and not _alike(row, code, columns):
            found.update(columns)
    return found


def is_unedited(
    after: JsonEdges, base: JsonEdges, gone: Collection[str], new: Collection[str]
) -> bool:
    """Return whether stored edges differ from the baseline only because of their upstreams.

    Somebody has renamed these, to names in `gone` that no code declares; or removed them, so that
    their names are in `new`, which are not stored. So the edges are not edited, and follow the
    code to the entries that have the old names again.
    """
    renamed = [one for one in after if one not in base]
    missing = [one for one in base if one not in after]
    if not missing or not all(one["name"] in gone for one in renamed):
        return False
    there = _unnamed(one for one in missing if one["name"] not in new)
    return there <= _unnamed(renamed) <= _unnamed(missing)


def _unnamed(after: Iterable[dict[str, Any]]) -> Counter[str]:
    return Counter(canonical({**one, "name": ""}) for one in after)


def waits_for(declared: object, names: Collection[str]) -> bool:
    """Return whether code declared an edge to one of these upstreams."""
    code = unpacked(declared)
    return code is not None and any(one["name"] in names for one in code["after"])


def differing(row: JsonFields, code: JsonFields) -> tuple[str, ...]:
    """Return the fields in which both differ, under their names in `Store.add`."""
    if row == code and all(_same(row[name], code[name]) for name in VALUES):
        return ()
    return tuple(one.name for one in _MERGED if not _alike(row, code, one.keys))


def _alike(one: JsonFields, other: JsonFields, columns: Iterable[str]) -> bool:
    return all(_same(one[column], other.get(column, ...)) for column in columns)


def _same(one: object, other: object) -> bool:
    if one != other:
        return False
    if not one or not isinstance(one, list | dict):
        return True
    # Python takes 1, 1.0 and True as equal, but a task may not.
    return repr(one) == repr(other) or canonical(one) == canonical(other)


def _edges(after: Iterable[edges.After]) -> list[dict[str, Any]]:
    return [edges.as_json(one) for one in sorted(after, key=lambda one: one.name)]


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
