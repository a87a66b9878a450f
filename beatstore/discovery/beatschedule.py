"""Convert `app.conf.beat_schedule` to declared entries.

`beat_entries` reads it as celery's own scheduler would. When beat sends, `evaluated` calls each
`BeatLazyFunc` among the arguments.

A function can't be stored, so the row stores its name, and beat looks up the function in the
`beat_schedule` of its app:

    {"beatstore_lazy": "proj.tasks.today", "entry": "daily-report", "argument": "day"}

`argument` is an index of `args`, or a key of `kwargs`.

On failure: an invalid entry is refused with the reason; the others are stored. A function that
is missing or raises is a `LazyArgumentError`: only that run fails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.beat import BeatLazyFunc
from celery.schedules import BaseSchedule, crontab, schedule, solar

from beatstore.definition import fields
from beatstore.definition.spec import Declared
from beatstore.discovery.convert import clock_interval, own_zone, zone_name
from beatstore.errors import BeatstoreError, InvalidEntryError, LazyArgumentError
from beatstore.schedules import Schedule

__all__ = ["CLEANUP", "SOURCE", "beat_entries", "evaluated"]

#: The source of the entries from `beat_schedule`.
SOURCE = "beat_schedule"

#: The entry that celery adds if results expire and the backend does not remove them.
CLEANUP = "celery.backend_cleanup"

_LAZY = "beatstore_lazy"

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

#: The keys of an entry of `beat_schedule`: the arguments of celery's `ScheduleEntry`.
_KNOWN = frozenset({"task", "schedule", "args", "kwargs", "options", "relative"})

#: The further fields of a `ScheduleEntry` object; beatstore has them in the database.
_OF_BEAT = frozenset({"name", "app", "last_run_at", "total_run_count"})


#: Schedules that do not depend on a time zone.
_WITHOUT_ZONE = (int, float, timedelta, schedule, solar)


def beat_entries(app: Celery) -> tuple[list[Declared], dict[str, str]]:
    """Read `beat_schedule`, including `add_periodic_task` and celery's own clean-up.

    Returns:
        The entries, and by name the reasons why others are refused.
    """
    reader = _Reader(app)
    found: list[Declared] = []
    refused: dict[str, str] = {}
    seen: set[object] = set()
    for key, given in {**_cleanup(app), **_schedule(app)}.items():
        name = _steady(key)
        if name in seen:
            error = InvalidEntryError(
                "name", name, "each name once", "add_periodic_task(…, name=…)"
            )
            refused[_shown(name)] = str(error)
            continue
        seen.add(name)
        try:
            found.append(reader.read(name, given))
        except BeatstoreError as error:
            refused[_shown(name)] = str(error)
        except Exception as error:  # noqa: BLE001  (objects of any class; read the others)
            refused[_shown(name)] = f"{type(error).__name__}: {error}"
    return found, refused


def _schedule(app: Celery) -> Mapping[Any, Any]:
    return app.conf.beat_schedule or {}


def _steady(name: object) -> object:
    """Return a name that is the same in every process, and short enough for its column.

    Without a name, `add_periodic_task` uses the signature's `repr`, which contains all arguments
    and possibly memory addresses.
    """
    return fields.shortened(_ADDRESS.sub("", name)) if isinstance(name, str) else name


def _cleanup(app: Celery) -> dict[str, Any]:
    """Return celery's daily clean-up if celery itself would schedule it."""
    if not app.conf.result_expires or app.backend.supports_autoexpire:
        return {}
    options = {"expires": 12 * 3600}
    return {CLEANUP: {"task": CLEANUP, "schedule": crontab("0", "4"), "options": options}}


def _shown(name: object) -> str:
    """Return the name of an entry for a report, also if it is not text."""
    if isinstance(name, str):
        return name if name.isprintable() else ascii(name)
    return f"a key of type {type(name).__name__}"


class _Reader:
    """Reads the entries of one app."""

    def __init__(self, app: Celery) -> None:
        self._tz = app.timezone
        deadline = app.conf.beat_cron_starting_deadline
        # celery skips occurrences that are later than this; without it, it skips none.
        self._deadline = {} if deadline is None else {"grace": deadline, "misfire": "skip"}

    def read(self, name: object, given: Any) -> Declared:
        """Return one entry; its values are checked when it is stored."""
        if not isinstance(name, str):
            raise InvalidEntryError("name", name, "text", "'nightly'")
        if not name.isprintable():
            fields.text("name", name)
        entry = dict(given)
        for key in entry.keys() - _KNOWN - _OF_BEAT:
            raise InvalidEntryError("key", key, f"one of {', '.join(sorted(_KNOWN))}")
        rule = entry.get("schedule")
        timezone = own_zone(rule) if isinstance(rule, BaseSchedule) else None
        every = _relative(rule, entry.get("relative"))
        if timezone is None and (every is not None or _takes_zone(rule)):
            timezone = zone_name(self._tz)
        return Declared(
            name,
            _task(entry.get("task")),
            rule if every is None else clock_interval(every, timezone),
            args=_stored(name, entry.get("args")),
            kwargs=_stored(name, entry.get("kwargs")) or None,
            options=entry.get("options") or None,
            timezone=timezone,
            **(self._deadline if isinstance(rule, crontab) else {}),
        )


def _takes_zone(rule: Any) -> bool:
    """Return whether a schedule is read in the app's zone."""
    if isinstance(rule, Schedule):
        return rule.timezone is None
    return not isinstance(rule, _WITHOUT_ZONE)


def _task(given: Any) -> Any:
    """Return a task: a name, a Task or a signature."""
    if given is None or isinstance(given, str | Mapping | Task):
        return given
    raise InvalidEntryError("task", given, "the name of a task", "'proj.tasks.report'")


def _relative(rule: Any, relative: object) -> timedelta | None:
    """Return the interval of a schedule with `relative=True`, or None."""
    if type(rule) is schedule:
        own: Any = rule
        return own.run_every if own.relative and own.nowfun is None else None
    if not relative or isinstance(rule, bool):
        return None
    if isinstance(rule, timedelta):
        return rule
    return timedelta(seconds=rule) if isinstance(rule, int | float) else None


# -- functions among the arguments -------------------------------------------------------


def _stored(entry: str, arguments: Any) -> Any:
    """Return `args` or `kwargs` with each function replaced by its name."""
    if not arguments:
        return ()
    if isinstance(arguments, Mapping):
        return {key: _named(entry, key, value) for key, value in arguments.items()}
    if isinstance(arguments, str | bytes):
        return arguments  # refused where it is stored
    return [_named(entry, place, value) for place, value in enumerate(arguments)]


def _named(entry: str, argument: object, value: object) -> object:
    if not isinstance(value, BeatLazyFunc):
        return value
    return {_LAZY: _name_of(value), "entry": entry, "argument": argument}


def _name_of(lazy: BeatLazyFunc) -> str:
    function = vars(lazy)["_func"]
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def evaluated(app: Celery, value: Any) -> Any:
    """Return an argument to send: call it if it is, or names, a `BeatLazyFunc`.

    Args:
        app: the app whose `beat_schedule` has the function.
        value: the stored argument.

    Raises:
        LazyArgumentError: the function is missing, or raised.
    """
    if isinstance(value, BeatLazyFunc):
        lazy, place = value, "an argument"
    elif isinstance(value, dict) and _LAZY in value:
        lazy = _found(app, value)
        place = f"argument {value.get('argument')!r} of {value.get('entry')!r}"
    else:
        return value
    try:
        return lazy()
    except Exception as error:
        # Any exception: an OSError of the function must not look like one of the broker.
        raise LazyArgumentError(
            f"{_name_of(lazy)} for {place} raised {type(error).__name__}: {error}"
        ) from error


def _found(app: Celery, value: Mapping[str, Any]) -> BeatLazyFunc:
    entry: Any
    argument: Any
    entry, argument = value.get("entry"), value.get("argument")
    found: Any = None
    schedule = _schedule(app)
    given: Any = schedule.get(entry) if isinstance(entry, str) else None
    if given is None:
        given = next((one for key, one in schedule.items() if _steady(key) == entry), None)
    try:
        held = dict(given)["kwargs" if isinstance(argument, str) else "args"]
        found = held[argument] if isinstance(argument, str) else [*held][int(argument)]
    except (TypeError, ValueError, LookupError):
        pass  # the code has changed, or it is another app's
    if isinstance(found, BeatLazyFunc) and _name_of(found) == value[_LAZY]:
        return found
    raise LazyArgumentError(
        f"{value[_LAZY]} is not argument {argument!r} of {entry!r} in the beat_schedule of this "
        "beat's app, which has to call it"
    )
