"""Convert the tables of other schedulers to declared entries.

Invariants:
    * An entry keeps the meaning of its row, or a note says what differs; or the row is refused or
      left out, with the reason. A bad row does not affect others.
    * An entry that has already run as often as it should does not run again.

On failure: an invalid row is refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, cast

from celery.schedules import crontab

import beatstore.discovery.convert  # noqa: F401  (registers celery's crontab with `as_schedule`)
from beatstore.definition.spec import Declared
from beatstore.definition.values import decoded
from beatstore.errors import BeatstoreError, ConfigError, InvalidEntryError
from beatstore.rules.due import from_start, just_before
from beatstore.schedules import Every, Once, Schedule, Solar, as_schedule, zone

__all__ = ["SCHEDULERS", "Found", "How", "Note", "OtherScheduler", "read", "scheduler_of"]

Row = Mapping[str, Any]

_CLEANUP = "celery.backend_cleanup"
_PERIODS = ("days", "hours", "minutes", "seconds", "microseconds")


@dataclass(frozen=True)
class OtherScheduler:
    """Another scheduler: its tables, and how its tasks name their schedules."""

    tables: Mapping[str, str]
    #: Returns the kinds and ids of a task's schedules; its scheduler uses the first.
    schedules: Callable[[Row], list[tuple[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class How:
    """Options for reading the tables.

    Attributes:
        paused: pause every entry; a later move without this option resumes them.
        overdue: also move one-shots whose time passed before they ran; they run at once.
        timezone: time zone of instants that the tables store without one.
        crontab_timezone: time zone of every crontab; None uses that of its row.
        grace: `grace` of entries with a crontab, in seconds; None uses the default.
        leave: names to leave out, with the reason.
    """

    paused: bool = False
    overdue: bool = False
    timezone: str = "UTC"
    crontab_timezone: str | None = None
    grace: float | None = None
    leave: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A difference between an entry and its row: the field, the reason, and what it has instead."""

    name: str
    field: str
    why: str
    instead: str


@dataclass(frozen=True)
class Found:
    """The result of reading rows, in the order of their ids.

    Attributes:
        entries: the entries, for `Store.sync`.
        notes: the differences between entries and rows.
        refused: by name, why invalid rows are refused; their entries stay unchanged.
        left: by name, why rows are left out; their entries are deactivated.
    """

    entries: tuple[Declared, ...]
    notes: tuple[Note, ...]
    refused: Mapping[str, str]
    left: Mapping[str, str]


def read(
    package: str,
    tables: Mapping[str, list[dict[str, Any]]],
    now: datetime,
    how: How,
    known: Callable[[str], str | None],
) -> Found:
    """Convert rows to entries.

    Args:
        package: the package of the other scheduler.
        tables: rows of `tasks`, `interval`, `crontab`, `solar` and `clocked`.
        now: the database's time.
        how: options for reading the rows.
        known: returns the state of an entry that an earlier move added, by its name; None: there
            is none.
    """
    reader = _Reader(scheduler_of(package), tables, now, how, known)
    entries: list[Declared] = []
    refused: dict[str, str] = {}
    left: dict[str, str] = {}
    for row in sorted(tables["tasks"], key=lambda row: row.get("id") or 0):
        name = str(row.get("name"))
        try:
            entries.append(reader.entry(name, row))
        except _LeftOutError as reason:
            left[name] = str(reason)
        except BeatstoreError as error:
            refused[name] = str(error)
        except Exception as error:  # noqa: BLE001  (a bad row must not stop the others)
            refused[name] = f"{type(error).__name__}: {error}"
    carried = {entry.name for entry in entries}
    notes = tuple(note for note in reader.notes if note.name in carried)
    return Found(tuple(entries), notes, refused, left)


class _LeftOutError(Exception):
    """A row is left out on purpose; the text says why."""


class _Reader:
    """Reads tasks one by one, and collects notes."""

    def __init__(
        self,
        scheduler: OtherScheduler,
        tables: Mapping[str, list[dict[str, Any]]],
        now: datetime,
        how: How,
        known: Callable[[str], str | None],
    ) -> None:
        self.notes: list[Note] = []
        self._scheduler = scheduler
        self._now = now
        self._how = how
        self._known = known
        self._zone = zone(how.timezone)
        if how.crontab_timezone is not None:
            zone(how.crontab_timezone)
        self._schedules = {
            kind: {row.get("id"): row for row in tables.get(kind, ())}
            for kind in scheduler.tables
            if kind != "tasks"
        }

    def entry(self, name: str, row: Row) -> Declared:
        """Return the entry for a row.

        Raises:
            _LeftOutError: the row is left out.
        """
        if name in self._how.leave:
            raise _LeftOutError(self._how.leave[name])
        enabled = _flag(row, "enabled", default=True)
        if name == _CLEANUP:
            raise _LeftOutError(_cleanup(enabled))
        kind, schedule_row = self._schedule_row(name, row)
        start_at = self._instant(row, "start_time")
        expires = self._instant(row, "expires")
        if expires is not None and expires <= self._now:
            raise _LeftOutError(f"it expired at {_utc(expires)}")
        one_off = kind == "clocked" or _flag(row, "one_off")
        if one_off and enabled and (row.get("total_run_count") or 0) > 0:
            raise _LeftOutError("it runs once, and has already run")
        schedule = self._schedule(name, row, kind, schedule_row, start_at)
        once = isinstance(schedule, Once)
        if isinstance(schedule, Once):
            self._check_time(name, row, schedule.at, expires)
        elif expires is not None and self._known(name) is None:
            self._check_end(schedule, start_at, expires)
        return Declared(
            name,
            cast(Any, row.get("task")),  # an invalid task refuses the row
            schedule,
            args=_json(row, "args", list),
            kwargs=_json(row, "kwargs", dict),
            options=_options(row, expires),
            start_at=None if once else start_at,
            # Their end is the first instant without runs, ours the last with runs.
            end_at=None if expires is None else just_before(expires),
            max_runs=1 if one_off and not once else None,
            grace=self._how.grace if kind == "crontab" else None,
            description=row.get("description") or None,
            paused=self._how.paused or not enabled,
        )

    def _check_time(self, name: str, row: Row, at: datetime, expires: datetime | None) -> None:
        """Leave out a one-shot whose time has passed, unless it should still run."""
        last = self._instant(row, "last_run_at")
        if expires is not None and expires <= at:
            raise _LeftOutError(f"it expires at {_utc(expires)}, before its time")
        if at > self._now:
            return
        if last is not None and last >= at:
            raise _LeftOutError(f"it ran at {_utc(last)}")
        if not _flag(row, "enabled", default=True):
            raise _LeftOutError(f"it is disabled, and its time, {_utc(at)}, has passed")
        if self._how.overdue:
            return
        state = self._known(name)
        if state is None:
            raise _LeftOutError(
                f"its time, {_utc(at)}, passed before it ran; with --overdue it is moved, and runs "
                "at once"
            )
        if state == "paused" and not self._how.paused:
            why = f"its time, {_utc(at)}, passed before it ran, and while it was paused here"
            instead = "missed; with --overdue it runs at once"
            self.notes.append(Note(name, "clocked_time", why, instead))

    def _check_end(self, rule: Schedule, start_at: datetime | None, expires: datetime) -> None:
        """Leave out an entry that is not due again before it expires."""
        start = from_start(start_at, self._now)
        if isinstance(rule, Every):
            rule = rule.anchored(self._now)
        due = rule.next_after(start)
        if due is not None and due >= expires:
            raise _LeftOutError(f"it expires at {_utc(expires)}, before its next due time")

    # -- schedules -------------------------------------------------------------------------

    def _schedule_row(self, name: str, row: Row) -> tuple[str, Row]:
        given = self._scheduler.schedules(row)
        if not given:
            raise InvalidEntryError(
                "schedule", None, "an interval, crontab, solar or clocked schedule"
            )
        kind, key = given[0]
        if kind not in self._schedules:
            raise InvalidEntryError("schedule", kind, f"one of {', '.join(self._schedules)}")
        if len(given) > 1:
            others = ", ".join(other for other, _ in given[1:])
            self.notes.append(
                Note(
                    name,
                    "schedule",
                    f"it has several: {kind}, {others}",
                    f"{kind}, which its scheduler uses",
                )
            )
        found = self._schedules[kind].get(key)
        if found is None:
            table = self._scheduler.tables[kind]
            raise InvalidEntryError("schedule", f"{kind} {key}", f"an id that {table} has")
        return kind, found

    def _schedule(
        self, name: str, row: Row, kind: str, given: Row, start_at: datetime | None
    ) -> Schedule:
        if kind == "interval":
            return self._interval(row, given, start_at)
        if kind == "clocked":
            at = self._instant(given, "clocked_time")
            if at is None:
                raise InvalidEntryError("clocked_time", None, "an instant")
            # Their scheduler waits for both, so the later one is its time.
            return Once(at if start_at is None else max(at, start_at))
        if start_at is not None and start_at > self._now and row.get("last_run_at") is None:
            self.notes.append(
                Note(
                    name,
                    "start_time",
                    f"its scheduler may run it at {_utc(start_at)}, outside its schedule",
                    "the first due time of its schedule from then on",
                )
            )
        if kind == "solar":
            place = float(given["latitude"]), float(given["longitude"])
            return Solar(str(given["event"]), *place)
        named = self._how.crontab_timezone
        if named is None and "timezone" in given:
            named = str(given["timezone"] or "UTC")
        return _cron(tuple(str(given.get(part) or "*") for part in _CRONTAB), named)

    def _interval(self, row: Row, given: Row, start_at: datetime | None) -> Every:
        """Return an interval that continues theirs.

        Their next run is one period after the last run. If the task never ran, it is one period
        after the row's last change, or at its start.
        """
        period, every = given.get("period"), given.get("every")
        if period not in _PERIODS:
            raise InvalidEntryError("period", period, f"one of {', '.join(_PERIODS)}")
        if every is None or int(every) < 1:
            raise InvalidEntryError("every", every, "a whole number of 1 or more")
        step = timedelta(**{str(period): int(every)})
        last = self._instant(row, "last_run_at")
        if last is None and start_at is None:
            last = self._instant(row, "date_changed")
        if start_at is not None and (last is None or last + step <= start_at):
            last = start_at
        return Every(step, last)

    # -- values ----------------------------------------------------------------------------

    def _instant(self, row: Row, column: str) -> datetime | None:
        value = row.get(column)
        if isinstance(value, str) and value:
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise InvalidEntryError(column, value, "an instant") from None
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise InvalidEntryError(column, value, "an instant")
        return value.replace(tzinfo=self._zone) if value.tzinfo is None else value


_CRONTAB = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


@lru_cache(maxsize=4096)
def _cron(texts: tuple[str, ...], zone_name: str | None) -> Schedule:
    """Return the schedule that celery reads from the texts of a crontab."""
    theirs: Any = crontab(**dict(zip(_CRONTAB, texts, strict=True)))
    return as_schedule(theirs, zone_name)


def _options(row: Row, expires: datetime | None) -> dict[str, Any]:
    """Return the options of the messages."""
    found = {name: row[name] for name in ("queue", "exchange", "routing_key") if row.get(name)}
    if row.get("priority") is not None:
        found["priority"] = row["priority"]
    # Their workers also drop messages that are still queued after the end.
    lifetime = expires or row.get("expire_seconds")
    if lifetime:
        found["expires"] = lifetime
    headers = _json(row, "headers", dict)
    return {**found, "headers": headers} if headers else found


def _json(row: Row, column: str, kind: type[Any]) -> Any:
    """Return the value of JSON text, which must have a type; no text means an empty value."""
    text = row.get(column)
    try:
        value = text if isinstance(text, list | dict) else json.loads(text or "null")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEntryError(column, text, f"JSON ({error})") from None
    if value is None:
        return kind()
    value = decoded(column, value)  # their scheduler uses kombu's JSON too
    if not isinstance(value, kind):
        expected = "a list as JSON" if kind is list else "an object as JSON"
        raise InvalidEntryError(column, text, expected, "[]" if kind is list else "{}")
    return value


def _flag(row: Row, column: str, *, default: bool = False) -> bool:
    value = row.get(column)
    return default if value is None else bool(value)


def _utc(at: datetime) -> str:
    return f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _cleanup(enabled: bool) -> str:
    reason = "beatstore sends it itself, where celery's own beat would"
    return reason if enabled else f"{reason}; to keep it disabled, pause it here"


def scheduler_of(package: str) -> OtherScheduler:
    """Return the scheduler of a package.

    Raises:
        ConfigError: beatstore can't read the tables of this package.
    """
    if package not in SCHEDULERS:
        known = " or ".join(SCHEDULERS)
        raise ConfigError("package", package, known, repr(next(iter(SCHEDULERS))))
    return SCHEDULERS[package]


def _by_columns(row: Row) -> list[tuple[str, Any]]:
    """Return the schedules that a task names, in a column for each kind, in that order."""
    kinds = ("interval", "crontab", "solar", "clocked")
    return [(kind, row[f"{kind}_id"]) for kind in kinds if row.get(f"{kind}_id") is not None]


def _by_discriminator(row: Row) -> list[tuple[str, Any]]:
    """Return the one schedule that a task names by class and id."""
    if row.get("discriminator") is None or row.get("schedule_id") is None:
        return []
    return [(str(row["discriminator"]).removesuffix("schedule"), row["schedule_id"])]


def _tables(pattern: str) -> dict[str, str]:
    kinds = ("interval", "crontab", "solar", "clocked")
    schedules = {kind: pattern.format(f"{kind}schedule") for kind in kinds}
    return {"tasks": pattern.format("periodictask"), **schedules}


SCHEDULERS: Mapping[str, OtherScheduler] = {
    "django-celery-beat": OtherScheduler(_tables("django_celery_beat_{}"), _by_columns),
    "sqlalchemy-celery-beat": OtherScheduler(_tables("celery_{}"), _by_discriminator),
}
