"""Entries as JSON documents: what `export` writes and `load` reads.

A document holds the arguments of `Store.add` that are not the default, by name; the schedule as its
kind, spec and zone; and these keys:

    state, error     the entry's state and error
    declared         what its code declared last
    progress         the entry's cursor and counters, and for each upstream the completions that
                     the edge has consumed

Instants are ISO 8601 text. In `args`, `kwargs` and `options`, a value that JSON lacks is written as
kombu's JSON writes it: `{"__type__": "uuid", "__value__": {"hex": "…"}}`.

Because of its progress, an entry that is moved to another database neither repeats nor loses an
occurrence: the cursor says what was accounted for, and the misfire policy makes up for what has
become due since. A document without progress, such as one written by hand, is a new entry that
counts from now.

Nothing here executes SQL.

On failure: `InvalidEntryError` or `ScheduleError`, naming the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from beatstore.config import Settings
from beatstore.database.columns import Unreadable
from beatstore.definition import edges, edits, fields, values
from beatstore.definition.edges import After
from beatstore.definition.spec import FIELDS, VALUES
from beatstore.errors import InvalidEntryError
from beatstore.records import Entry
from beatstore.rules.due import DueTimes, accounted_for
from beatstore.rules.states import ENTRY_STATES, LIVE, STOPPED
from beatstore.schedules import Every, as_schedule, parse, zone
from beatstore.schedules.instants import EPOCH

__all__ = [
    "HEADER",
    "VERSION",
    "Loaded",
    "definition",
    "document",
    "packed",
    "read",
    "unpacked",
]

#: The key of a header, and the version of the format.
HEADER, VERSION = "beatstore", 1

#: The fields that a document holds as their columns do.
_FIELDS = {name: one for name, one in FIELDS.items() if one.form != "own"}
_INSTANTS = tuple(name for name, one in _FIELDS.items() if one.form == "instant")

_SCHEDULE = ("kind", "spec", "timezone")
_KNOWN = (
    *("name", "schedule", "timezone", "tags", "after", "state", "error", "declared"),
    *("progress", *_FIELDS),
)

_COUNTERS = ("run_count", "success_seq", "failure_seq", "done_seq")
_MARKS = ("created_at", "cursor_at", "last_run_at", "pending_due_at", "pending_since")

#: The columns that hold instants, which JSON lacks.
_COLUMNS_OF_INSTANTS = (
    *(column for one in FIELDS.values() if one.form == "instant" for column in one.columns),
    *("cursor_at", "next_due_at", "wake_at", "created_at", "updated_at", "last_run_at"),
    *("pending_due_at", "pending_since"),
)

_LARGEST = 2**63 - 1


# -- writing -----------------------------------------------------------------------------


def document(
    entry: Entry,
    tags: Sequence[str],
    after: Sequence[After],
    used: Mapping[str, tuple[int, int]],
    settings: Settings,
) -> dict[str, Any]:
    """Return an entry as a document.

    Args:
        entry: the stored entry.
        tags: its tags.
        after: the edges to its upstreams.
        used: the edges' `consumed_seq` and `failure_seen`, by upstream.
        settings: give the default time zone.
    """
    timezone = entry.timezone or settings.default_timezone
    made: dict[str, Any] = {
        "name": entry.name,
        "task": entry.task,
        "schedule": {"kind": entry.kind, "spec": entry.spec, "timezone": timezone},
    }
    for name, one in _FIELDS.items():
        (column,) = one.columns
        if (value := getattr(entry, column)) != one.left_out:
            made[name] = value
    if tags:
        made["tags"] = sorted(tags)
    if after:
        made["after"] = [edges.as_json(one) for one in sorted(after, key=lambda one: one.name)]
    made |= {"state": entry.state} if entry.state != "active" else {}
    made |= {"error": entry.error} if entry.error is not None else {}
    made |= {"declared": entry.declared} if entry.declared is not None else {}
    progress = {mark: value for mark in _MARKS if (value := getattr(entry, mark)) is not None}
    progress |= {name: value for name in _COUNTERS if (value := getattr(entry, name))}
    if used:
        progress["upstreams"] = {name: list(used[name]) for name in sorted(used)}
    made["progress"] = progress
    return {name: _plain(value) for name, value in made.items()}


def definition(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a document that users define, without progress and error."""
    asked = {name: value for name, value in made.items() if name not in ("progress", "error")}
    if asked.get("state") in STOPPED - {"cancelled"}:
        del asked["state"]
    return asked


def _plain(value: Any) -> Any:
    """Return a value as JSON; an unreadable one is shown, and refused by `load`."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Unreadable):
        return {"unreadable": value.given}
    if isinstance(value, float) and not math.isfinite(value):
        return {"unreadable": str(value)}
    return value


# -- reading -----------------------------------------------------------------------------


@dataclass(slots=True)
class Loaded:
    """A checked document.

    Attributes:
        name: the entry's name.
        checked: its checked fields.
        state: the entry's state.
        row: all columns but the id, for a new entry.
        used: the edges' `consumed_seq` and `failure_seen`, by upstream.
        moved: whether it has progress.
    """

    name: str
    checked: edits.CheckedFields
    state: str
    row: dict[str, Any]
    used: dict[str, tuple[int, int]] = field(default_factory=dict)
    moved: bool = False


def read(given: object, settings: Settings, now: datetime) -> Loaded:
    """Check a document.

    Args:
        given: the parsed document.
        settings: the settings in force.
        now: the database's time.
    """
    if not isinstance(given, Mapping):
        raise InvalidEntryError("document", given, "a JSON object with an entry")
    for key in given:
        if key not in _KNOWN:
            expected, write = "a field of an entry", fields.nearest(key, _KNOWN)
            raise InvalidEntryError(str(key), given[key], expected, write)
    name = fields.text("name", given.get("name"))
    state = fields.choice("state", given.get("state", "active"), ENTRY_STATES)
    checked = _checked(given, state, settings)
    progress = given.get("progress")
    if progress is None:
        row = _new(name, checked, state, now, settings)
        loaded = Loaded(name, checked, state, row)
    else:
        marks, used = _progress(progress)
        row = {"name": name, **checked.columns, "created_at": now, **marks}
        row |= _next_look(row, state, settings)
        loaded = Loaded(name, checked, state, row, used, moved=True)
    loaded.row |= {"state": state, "error": fields.note("error", given.get("error"))}
    loaded.row["updated_at"] = now
    return loaded


def _checked(given: Mapping[str, Any], state: str, settings: Settings) -> edits.CheckedFields:
    asked = {name: given[name] for name in _FIELDS if given.get(name) is not None}
    for name in _INSTANTS:
        if name in asked:
            asked[name] = _instant(name, asked[name])
    for name in VALUES:
        if name in asked:
            asked[name] = values.decoded(name, asked[name])
    asked.setdefault("task", None)
    after = edges.checked([_after(one) for one in _list("after", given.get("after"))])
    rule, columns = _rule(given, state, settings, asked.get("start_at"), after)
    checked = edits.check(
        {
            **{name: one.left_out for name, one in _FIELDS.items() if one.is_ever_left_out},
            **asked,
            "schedule": rule,
            "tags": _list("tags", given.get("tags")),
            "paused": state == "paused",
        },
        settings,
    )
    declared = given.get("declared")
    if declared is not None and not isinstance(declared, Mapping):
        raise InvalidEntryError("declared", declared, "a JSON object, or null")
    columns["declared"] = None if declared is None else fields.plain("declared", declared)
    return edits.CheckedFields({**checked.columns, **columns}, checked.tags, checked.paused, after)


def _rule(
    given: Mapping[str, Any],
    state: str,
    settings: Settings,
    start_at: datetime | None,
    after: Sequence[After],
) -> tuple[Any, dict[str, Any]]:
    """Return the checked schedule of a document, and its columns as they are given."""
    schedule = given.get("schedule")
    if schedule is None and after:
        schedule = {"kind": "after", "spec": ""}
    if not isinstance(schedule, Mapping):
        if not isinstance(schedule, str):
            write = '{"kind": "cron", "spec": "0 2 * * *", "timezone": "Europe/Berlin"}'
            raise InvalidEntryError("schedule", schedule, "an object, or a cron expression", write)
        schedule = {"kind": "cron", "spec": as_schedule(schedule).spec}
    for key in schedule:
        if key not in _SCHEDULE:
            expected = f"one of {', '.join(_SCHEDULE)}"
            raise InvalidEntryError(f"schedule[{key!r}]", schedule[key], expected)
    columns = {
        "kind": fields.text("kind", schedule.get("kind"), 16),
        "spec": fields.note("spec", schedule.get("spec", "")) or "",
        "timezone": fields.text(
            "timezone",
            schedule.get("timezone") or given.get("timezone") or settings.default_timezone,
            64,
        ),
    }
    if state == "broken":
        return Every(60), columns  # the schedule may be the broken part: load it as it is
    if columns["kind"] == "after":
        zone(columns["timezone"])
        return Every(60), columns  # it has no schedule
    return parse(**columns, anchor=start_at or EPOCH), columns


def _new(
    name: str, checked: edits.CheckedFields, state: str, now: datetime, settings: Settings
) -> dict[str, Any]:
    """Return the columns of an entry that counts from now."""
    if state in LIVE:
        return edits.new_row(name, checked, now, settings)
    cursor_at = None if checked.columns["kind"] == "once" else now
    row = {"name": name, **checked.columns, "created_at": now, "cursor_at": cursor_at}
    return row | {"next_due_at": None, "wake_at": None}


def _next_look(row: Mapping[str, Any], state: str, settings: Settings) -> dict[str, Any]:
    """Return when beat processes an entry with this progress."""
    if state in STOPPED:
        return {"next_due_at": None, "wake_at": None}
    due_at = None
    if row["kind"] != "after":
        rule = SimpleNamespace(**{"cursor_at": None, "end_at": None, **row})
        due_at = DueTimes.of(rule, settings).next_after(accounted_for(rule))
    waits = row.get("pending_since") is not None
    at_once = due_at is None or waits or row["jitter_s"]
    wake_at = None if state == "paused" else EPOCH if at_once else due_at
    return {"next_due_at": due_at, "wake_at": wake_at}


def _progress(given: object) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """Return the columns of an entry's progress, and the counters of its edges."""
    if not isinstance(given, Mapping):
        raise InvalidEntryError("progress", given, "a JSON object, or null for a new entry")
    found: dict[str, Any] = {}
    used: dict[str, tuple[int, int]] = {}
    for key, value in given.items():
        path = f"progress[{key!r}]"
        if key in _MARKS:
            found[key] = _instant(path, value)
        elif key in _COUNTERS:
            found[key] = fields.whole(path, value, most=_LARGEST)
        elif key == "upstreams" and isinstance(value, Mapping):
            used = {fields.text(path, name): _used(path, pair) for name, pair in value.items()}
        else:
            known = (*_MARKS, *_COUNTERS, "upstreams")
            raise InvalidEntryError(path, value, "a key of progress", fields.nearest(key, known))
    return found, used


def _used(path: str, pair: object) -> tuple[int, int]:
    if isinstance(pair, list | tuple) and len(pair) == 2:  # noqa: PLR2004
        consumed, failures = pair
        return (
            fields.whole(path, consumed, least=-1, most=_LARGEST),
            fields.whole(path, failures, most=_LARGEST),
        )
    raise InvalidEntryError(path, pair, "two whole numbers: consumed_seq and failure_seen")


def _after(given: object) -> object:
    """Return an edge as `edges.checked` takes it."""
    if not isinstance(given, Mapping):
        return given
    known = [one.name for one in fields_of(After)]
    for key in given:
        if key not in known:
            raise InvalidEntryError("after", key, "a field of After", fields.nearest(key, known))
    return After(**{"name": "", "align": "latest", **given})


def _list(name: str, given: object) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return list(given)
    raise InvalidEntryError(name, given, "a list")


def _instant(path: str, given: object) -> datetime:
    """Return an instant from ISO 8601 text."""
    if isinstance(given, str):
        text = f"{given[:-1]}+00:00" if given.endswith(("Z", "z")) else given
        try:
            given = datetime.fromisoformat(text)
        except ValueError:
            write = '"2030-01-31T09:30:00+00:00"'
            raise InvalidEntryError(path, given, "an instant, as ISO 8601 text", write) from None
    return fields.instant(path, given)


# -- checked documents, as text ------------------------------------------------------------


def packed(loaded: Loaded) -> str:
    """Return a checked document as a line of text."""
    row = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in loaded.row.items()
    }
    after = [edges.as_json(one) for one in loaded.checked.after or ()]
    rest = (list(loaded.checked.tags or ()), after, loaded.state, row, loaded.used, loaded.moved)
    return json.dumps((loaded.name, list(loaded.checked.columns), *rest))


def unpacked(line: str) -> Loaded:
    """Return a checked document from the text of `packed`."""
    name, columns, tags, after, state, row, used, moved = json.loads(line)
    for column in _COLUMNS_OF_INSTANTS:
        if row.get(column) is not None:
            row[column] = datetime.fromisoformat(row[column])
    checked = edits.CheckedFields(
        {column: row[column] for column in columns},
        tuple(tags),
        state == "paused",
        tuple(After(**{"align": "latest", **one}) for one in after),
    )
    pairs = {up: (pair[0], pair[1]) for up, pair in used.items()}
    return Loaded(name, checked, state, row, pairs, moved)
