"""Edits: check the arguments, find what changes, and set the entry's next look. Pure.

Invariants:
    * Equal requests make equal rows; a value that is already stored is not written.
    * An edit never makes an entry due for an instant before the edit. Only a one-shot may get a
      time in the past; it then runs at once.
    * An entry that could never be due is not stored.

On failure: `InvalidEntryError` or `ScheduleError`, naming the argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Protocol

from beatstore.config import NOT_SKIPPING_ALL, Settings, skips_all
from beatstore.definition import edges, fields
from beatstore.definition.calls import check_id, make_call
from beatstore.definition.spec import FIELDS, columns_of
from beatstore.definition.values import canonical
from beatstore.errors import InvalidEntryError
from beatstore.rules.decision import EntryRow
from beatstore.rules.due import EARLIEST, STEP, from_start, has_one_run, schedule_of
from beatstore.rules.states import STOPPED
from beatstore.schedules import Once, Schedule, as_schedule, parse, zone
from beatstore.schedules.instants import EPOCH

__all__ = [
    "NOTHING_PENDING",
    "CheckedFields",
    "StoredEntry",
    "call_columns",
    "changes",
    "check",
    "check_span",
    "consequences",
    "first_due",
    "mended",
    "moved",
    "new_row",
]

_CALL = columns_of("call")
_SCHEDULE = columns_of("due")
_LIMITS = columns_of("limit")
_POLICIES = columns_of("policy")

#: The columns to clear when the occurrences change or no longer wait.
NOTHING_PENDING = {
    "pending_due_at": None,
    "pending_since": None,
    "pending_reason": None,
    "blocked_by": None,
}


class StoredEntry(EntryRow, Protocol):
    """The columns of an entry that an edit reads."""

    @property
    def task(self) -> str: ...  # noqa: D102

    @property
    def wake_at(self) -> datetime | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class CheckedFields:
    """The columns that an edit sets; tags, paused and after are None if it does not set them."""

    columns: dict[str, Any]
    tags: tuple[str, ...] | None = None
    paused: bool | None = None
    after: tuple[edges.After, ...] | None = None


def check(
    given: Mapping[str, Any], settings: Settings, old: StoredEntry | None = None
) -> CheckedFields:
    """Convert arguments to columns.

    Args:
        given: the fields of `spec.FIELDS` that the caller set; without `old`, all that an
            entry requires.
        settings: supply the default time zone and the allowed tasks.
        old: the edited entry, whose columns supply what was not set.
    """
    for field in given:
        if field not in FIELDS:
            raise InvalidEntryError(
                field, given[field], "a field of an entry", fields.nearest(field, FIELDS)
            )
    columns = {**_call(given, settings, old), **_rule(given, settings, old), **_simple(given)}
    check_span(
        columns.get("start_at", old and old.start_at), columns.get("end_at", old and old.end_at)
    )
    if given.keys() & {"misfire", "grace"}:
        _check_grace(columns, settings, old)
    _keep_id(columns, old)
    tags, paused, after = (
        _field_of_other_tables(name, given) for name in ("tags", "paused", "after")
    )
    if columns.get("kind") == "after" and after == ():
        raise _no_schedule(None)
    return CheckedFields(columns, tags, paused, after)


def _check_grace(columns: Mapping[str, Any], settings: Settings, old: StoredEntry | None) -> None:
    misfire = columns.get("misfire", old and old.misfire) or settings.default_misfire
    grace_s = columns.get("grace_s", old and old.grace_s)
    if skips_all(misfire, settings.default_grace if grace_s is None else grace_s):
        raise InvalidEntryError("grace", grace_s, NOT_SKIPPING_ALL, "60")


def check_span(start_at: object, end_at: object) -> None:
    """Refuse an end at or before the start; either may be missing or unreadable."""
    if isinstance(start_at, datetime) and isinstance(end_at, datetime) and end_at <= start_at:
        raise InvalidEntryError(
            "end_at", end_at.isoformat(), f"an instant after start_at, {start_at.isoformat()}"
        )


def new_row(
    name: str, checked: CheckedFields, now: datetime | None, settings: Settings
) -> dict[str, Any]:
    """Return the columns of a new entry.

    Args:
        name: its name.
        checked: the result of `check`.
        now: the database's time; None for a one-shot, which does not need it.
        settings: the settings.
    """
    row = {"name": name, **checked.columns}
    if now is not None:
        row["created_at"] = row["updated_at"] = now
    first = first_due(row, now, settings)
    return {
        **row,
        "state": "paused" if checked.paused else "active",
        "next_due_at": first,
        "wake_at": None if checked.paused else _wake_at(row, first),
    }


def changes(old: StoredEntry, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that differ from those of `old`."""
    return {
        column: value for column, value in columns.items() if not _same(getattr(old, column), value)
    }


def consequences(
    old: StoredEntry,
    changed: Mapping[str, Any],
    paused: bool | None,
    now: datetime,
    settings: Settings,
) -> dict[str, Any]:
    """Return the further columns to write, so that beat follows an edit.

    Args:
        old: the entry before the edit.
        changed: the columns that the edit changes.
        paused: True pauses, False resumes, None does neither.
        now: the database's time.
        settings: the settings.
    """
    row = {column: getattr(old, column) for column in (*_SCHEDULE, *_LIMITS, "jitter_s")}
    row |= {"created_at": old.created_at, **changed}
    state = old.state
    found: dict[str, Any] = {}
    _check_bounds(row, changed, now, settings)
    rescheduled = _rescheduled(old, row, changed)
    if rescheduled or _revived(old, row, changed):
        first = first_due(row, now, settings) if rescheduled else None
        found = {
            "cursor_at": None if row["kind"] == "once" else now,
            "next_due_at": first,
            "error": None,
            **NOTHING_PENDING,
        }
        if state == "finished":
            # A message with the old task id was sent; the next message needs another id.
            found |= _without_id(changed.get("options", old.options))
        state = "active" if state in STOPPED else state
        found["wake_at"] = _wake_at(row, first)
    elif changed.keys() & (_LIMITS | _POLICIES):
        found["wake_at"] = EPOCH
    if paused:
        state = "paused" if state == "active" else state
        found |= NOTHING_PENDING
    elif paused is False and state == "paused":
        # A pause is not downtime: occurrences within it are neither run nor missed.
        state = "active"
        found = {"cursor_at": now, "wake_at": EPOCH, **NOTHING_PENDING, **found}
    if state != "active":
        # It is not due, but a new run timeout also applies to its unfinished runs.
        found["wake_at"] = EPOCH if changed.keys() & {"overlap", "run_timeout_s"} else None
    elif found.get("wake_at") == old.wake_at is not None:
        # The trigger takes an update that keeps wake_at for one by plain SQL, and would
        # set the cursor too. Any other instant in the past works.
        found["wake_at"] = EPOCH + STEP if old.wake_at == EPOCH else EPOCH
    if state != old.state:
        found["state"] = state
    return found


def mended(old: StoredEntry, now: datetime) -> dict[str, Any]:
    """Return the columns that make a broken entry active again."""
    cursor_at = None if old.kind == "once" else now
    back = {"state": "active", "error": None, "cursor_at": cursor_at, "wake_at": EPOCH}
    return {**back, **NOTHING_PENDING}


def _call(given: Mapping[str, Any], settings: Settings, old: StoredEntry | None) -> dict[str, Any]:
    if not _CALL & given.keys():
        return {}
    asked = {name: given[name] for name in _CALL & given.keys()}
    if old is not None:
        asked.setdefault("task", old.task)
        if not isinstance(asked["task"], Mapping):
            asked = {**{name: getattr(old, name) for name in _CALL}, **asked}
    call = make_call(**asked, allowed=settings.allowed_tasks)
    return {"task": call.task, "args": call.args, "kwargs": call.kwargs, "options": call.options}


def call_columns(task: object, options: object, settings: Settings) -> dict[str, Any]:
    """Return the columns of a one-shot's message; `options` are those besides the signature's."""
    given = {"task": task, "args": None, "kwargs": None, "options": options}
    columns = _call(given, settings, None)
    check_id(columns["options"], once=True)
    return columns


def moved(row: Mapping[str, Any], due_at: datetime) -> dict[str, Any]:
    """Return the row of a new one-shot with another due time."""
    found = {**row, "spec": Once(due_at).spec, "next_due_at": due_at}
    return found if row["wake_at"] is None else {**found, "wake_at": _wake_at(row, due_at)}


def _keep_id(columns: dict[str, Any], old: StoredEntry | None) -> None:
    """Keep the task id of a one-shot; a recurring entry has none."""
    stored = old.options if old is not None and isinstance(old.options, dict) else {}
    options = columns.get("options", stored)
    kind, max_runs = (columns.get(name, getattr(old, name, None)) for name in ("kind", "max_runs"))
    once, own = has_one_run(kind, max_runs), stored.get("task_id")
    if own is None:
        check_id(options, once=once)
    elif options.get("task_id", own) != own:
        raise InvalidEntryError(
            "options['task_id']", options["task_id"], "its existing task id", repr(own)
        )
    elif not once:
        columns |= _without_id(options)
    elif "options" in columns:
        columns["options"] = {**options, "task_id": own}


def _without_id(options: object) -> dict[str, Any]:
    """Return the column `options` without the task id, if it has one."""
    if not isinstance(options, dict) or "task_id" not in options:
        return {}
    return {"options": {key: value for key, value in options.items() if key != "task_id"}}


# -- the schedule ----------------------------------------------------------------------


def _rule(given: Mapping[str, Any], settings: Settings, old: StoredEntry | None) -> dict[str, Any]:
    if "schedule" not in given and "timezone" not in given:
        return {}
    named = given.get("timezone")
    if named is not None:
        zone(named)
    if "schedule" in given:
        stored = old.timezone if old is not None and "timezone" not in given else None
        if given["schedule"] is None and (
            given.get("after") or _stays_without_schedule(given, old)
        ):
            return {"kind": "after", "spec": "", "timezone": named or settings.default_timezone}
        schedule = _schedule(given["schedule"], named)
        timezone = named or schedule.timezone or stored or settings.default_timezone
        schedule = schedule.in_zone(timezone)
    else:
        assert old is not None  # add() and put() always give both
        timezone = named or settings.default_timezone
        if old.kind == "after":
            return {"timezone": timezone}
        schedule = parse(old.kind, old.spec, timezone, old.start_at or old.created_at)
        _check_zone(schedule, named)
        return {"timezone": schedule.timezone or timezone}
    if len(schedule.spec.encode()) >= 2**16:
        raise InvalidEntryError("schedule", schedule.spec, "a rule of less than 64 KiB of text")
    return {"kind": schedule.kind, "spec": schedule.spec, "timezone": timezone}


def _schedule(given: object, timezone: str | None) -> Schedule:
    if given is None:
        raise _no_schedule(given)
    schedule = as_schedule(given, None)
    _check_zone(schedule, timezone)
    return schedule


def _check_zone(schedule: Schedule, timezone: str | None) -> None:
    """Refuse a zone beside that of a schedule."""
    if timezone and schedule.timezone and timezone != schedule.timezone:
        raise InvalidEntryError(
            "timezone",
            timezone,
            f"the schedule's own zone, {schedule.timezone}",
            "only one of them",
        )


def _stays_without_schedule(given: Mapping[str, Any], old: StoredEntry | None) -> bool:
    return old is not None and old.kind == "after" and "after" not in given


def _no_schedule(given: object) -> InvalidEntryError:
    return InvalidEntryError(
        "schedule",
        given,
        "a Schedule, a cron expression, an aware datetime or a timedelta; or after=[…]",
        "'0 2 * * *' for each night at two",
    )


def first_due(row: Mapping[str, Any], now: datetime | None, settings: Settings) -> datetime | None:
    """Return the first due time of an entry; None for an entry without a schedule.

    Raises:
        InvalidEntryError: the entry is never due.
    """
    if row["kind"] == "after":
        return None
    for name in ("start_at", "end_at"):
        if isinstance(row.get(name), str):  # written by plain SQL
            raise InvalidEntryError(name, row[name], "an instant", "None")
    rule = SimpleNamespace(**{"start_at": None, "end_at": None, "created_at": now, **row})
    schedule = schedule_of(rule, settings)
    after = EARLIEST
    if rule.kind != "once":
        assert now is not None
        after = from_start(rule.start_at, now)
    first = schedule.next_after(after)
    if first is None:
        expected = f"a schedule that is due after {after.isoformat()}"
        raise InvalidEntryError("schedule", rule.spec, expected, _with_a_start(rule, after))
    if rule.kind == "once" and rule.start_at is not None and first < rule.start_at:
        raise InvalidEntryError("start_at", rule.start_at.isoformat(), _not_after(first), "None")
    if rule.end_at is not None and first > rule.end_at:
        raise InvalidEntryError(
            "end_at", rule.end_at.isoformat(), f"not before {_due(first)}", "None"
        )
    return first


def _with_a_start(rule: Any, after: datetime) -> str | None:
    """Suggest what to write for a recurrence without DTSTART."""
    if rule.kind != "rrule" or "DTSTART" in rule.spec.upper():
        return None
    return (
        f"DTSTART:{after:%Y%m%dT%H%M%SZ} before it; without DTSTART it counts from the entry's "
        "start_at, or from when the entry is added"
    )


def _due(first: datetime) -> str:
    return f"the first due time, {first.isoformat()}"


def _not_after(first: datetime) -> str:
    return f"not after {_due(first)}"


def _wake_at(row: Mapping[str, Any], first: datetime | None) -> datetime:
    # Jitter depends on the entry's id, which is not known yet: let beat look at once.
    return EPOCH if first is None or row.get("jitter_s") else first


def _rescheduled(old: StoredEntry, row: Mapping[str, Any], changed: Mapping[str, Any]) -> bool:
    if old.kind == row["kind"] == "once":
        # Its zone only affects how its instant is shown.
        return "spec" in changed
    return bool(changed.keys() & _SCHEDULE)


def _check_bounds(
    row: Mapping[str, Any], changed: Mapping[str, Any], now: datetime, settings: Settings
) -> None:
    """Refuse new bounds of a one-shot that leave out its due time.

    A recurrence has other due times; without any left it is finished.
    """
    if row["kind"] == "once" and changed.keys() & {"start_at", "end_at"}:
        first_due(row, now, settings)


def _revived(old: StoredEntry, row: Mapping[str, Any], changed: Mapping[str, Any]) -> bool:
    """Return True if an edit makes a broken or finished entry active again."""
    if old.state == "broken":
        return bool(changed.keys() & (_CALL | _SCHEDULE | _LIMITS | _POLICIES))
    if old.state != "finished" or row["kind"] == "once":
        return False
    limits = [(getattr(old, name), row[name]) for name in _LIMITS & changed.keys()]
    more = [
        becomes is None or not isinstance(was, type(becomes)) or becomes > was
        for was, becomes in limits
        if was is not None
    ]
    return any(more)


# -- single fields ---------------------------------------------------------------------


def _simple(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the fields that are checked independently."""
    return {
        one.columns[0]: one.check(name, given[name])
        for name, one in FIELDS.items()
        if name in given and one.columns and one.check is not None
    }


def _field_of_other_tables(name: str, given: Mapping[str, Any]) -> Any:
    """Return the checked value of a field without a column; None if it is not set."""
    check = FIELDS[name].check
    if name not in given or check is None:
        return None
    return check(name, given[name])


def _same(old: object, new: object) -> bool:
    if isinstance(new, list | dict):
        # As JSON, since 1, 1.0 and True are equal in Python. An unreadable cell (of a row
        # written by hand) is not a list or dict.
        return isinstance(old, list | dict) and canonical(old) == canonical(new)
    return old == new
