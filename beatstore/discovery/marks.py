"""The decorator `scheduled`, and the search for its marks on the tasks of an app.

A mark is stored on the decorated object: on the function if `@scheduled` is below `@app.task`,
otherwise on the task. If celery has not made the task yet, the mark does not make it: it is set
when celery makes the task, or looked up when the app's entries are read.

Invariants:
    * Importing a decorated module uses no database and makes no task.
    * The name of an entry depends on its own decorator and on unnamed ones closer to the
      function, not on those above it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

from celery import Celery
from celery.app.task import Task
from celery.local import Proxy
from celery.schedules import BaseSchedule, crontab, schedule, solar

from beatstore.definition.fields import shortened
from beatstore.definition.spec import DEFAULTS, Declared
from beatstore.schedules import Schedule
from beatstore.types import ScheduledOptions, ScheduleLike, refuse_unknown, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Mark", "declared_by", "is_task", "marks_of", "resolved", "scheduled", "unused"]

T = TypeVar("T")

_ATTRIBUTE = "__beatstore_scheduled__"

#: The most characters of a schedule in the name of a task's further entries.
_LONG = 80


@dataclasses.dataclass(frozen=True, eq=False)
class Mark:
    """One `@scheduled`.

    Attributes:
        module: the module that contains it.
        target: the decorated object, for messages.
        entry: the declared entry, without a task; the name is "" if it has none.
    """

    module: str
    target: str
    entry: Declared


#: Marks on shared tasks, which celery makes for each app, with the task's proxy.
_SHARED: list[tuple[Any, Mark]] = []

#: Marks on functions, which may not become tasks.
_ON_FUNCTIONS: list[Mark] = []


@takes(ScheduledOptions, DEFAULTS)
def scheduled(
    schedule: ScheduleLike | None = None,
    *,
    name: str | None = None,
    **given: Unpack[ScheduledOptions],
) -> Callable[[T], T]:
    """Declare an entry for a task, which `beat` and `celery -A proj beatstore sync` store.

        @beatstore.scheduled("0 9 * * mon-fri", timezone="Europe/Berlin")
        @app.task
        def report(): ...

    It may be above or below `@app.task` or `@shared_task`, and may be repeated. The arguments
    are those of `Store.add`, with two differences: in `after`, a task means its first entry,
    and `paused` only applies to a new entry. The values are checked when the entry is stored.

    Args:
        schedule: a Schedule, or a value that converts to one; None, with `after`, for an
            entry without a schedule.
        name: the entry's name. None uses the task's name; if several have no name, the one
            closest to the function does, and the others append their schedule in brackets.
        given: the options (`beatstore.types.ScheduledOptions`).

    Returns:
        A decorator that returns the decorated object.

    Raises:
        InvalidEntryError: an option is unknown.
    """
    refuse_unknown(given, ScheduledOptions)
    # `declared_by` sets the task, which is not known yet.
    entry = Declared(name or "", cast(Any, None), schedule, **given)
    module = sys._getframe(1).f_globals.get("__name__", "__main__")

    def decorate(target: T) -> T:
        _attach(target, module, entry)
        return target

    return decorate


def _attach(target: Any, module: str, entry: Declared) -> None:
    kind = type(target)
    if issubclass(kind, Proxy):
        mark = Mark(module, "a task", entry)
        if hasattr(kind, "__then__"):
            # Its app makes it once: set the mark then.
            target.__then__(lambda: _put(target._get_current_object(), mark))
        else:
            _SHARED.append((target, mark))
        return
    if not callable(target):
        raise TypeError(
            f"@scheduled: expected a task or its function, got {target!r}; "
            "write it directly above or below @app.task"
        )
    mark = Mark(module, f"{module}.{getattr(target, '__qualname__', kind.__qualname__)}", entry)
    _put(target, mark)
    if not isinstance(target, Task):
        _ON_FUNCTIONS.append(mark)


def _put(target: Any, mark: Mark) -> None:
    setattr(target, _ATTRIBUTE, (*vars(target).get(_ATTRIBUTE, ()), mark))


def is_task(value: object) -> TypeGuard[Task[..., Any]]:
    """Return True for a task, also one that celery has not made yet; do not make it."""
    return issubclass(type(value), Proxy) or isinstance(value, Task)


# -- the marks of an app --------------------------------------------------


def marks_of(app: Celery) -> Iterator[tuple[str, list[Mark]]]:
    """Yield the name and the marks of each marked task; the closest to the function is first."""
    shared: dict[str, list[Mark]] = {}
    for proxy, mark in _SHARED:
        shared.setdefault(proxy._get_current_object().name, []).append(mark)
    for name, task in sorted(app.tasks.items()):
        marks = [*_of_task(task), *shared.get(name, ())]
        if marks:
            yield name, marks


def _of_task(task: Any) -> Iterator[Mark]:
    # celery's wrappers copy the attributes of the function. Subclasses of a marked task
    # class do not inherit its mark.
    yield from getattr(task.run, _ATTRIBUTE, ())
    yield from vars(type(task)).get(_ATTRIBUTE, ())
    yield from vars(task).get(_ATTRIBUTE, ())


def _marks_on(task: Any) -> list[Mark]:
    shared = [mark for proxy, mark in _SHARED if proxy._get_current_object().name == task.name]
    return [*_of_task(task), *shared]


def unused(apps: Iterable[Celery]) -> list[Mark]:
    """Return the marks on functions that are not tasks of these apps."""
    used = {mark for app in apps for _, marks in marks_of(app) for mark in marks}
    return [mark for mark in _ON_FUNCTIONS if mark not in used]


def declared_by(task: str, marks: Sequence[Mark]) -> Iterator[tuple[Mark, Declared]]:
    """Yield the entries that a task's marks declare, with their names."""
    first = True
    for mark in marks:
        entry = mark.entry
        name = entry.name
        if not name:
            name = task if first else shortened(f"{task} ({words(entry)})")
            first = False
        yield mark, dataclasses.replace(entry, name=name, task=task, after=resolved(entry.after))


def resolved(after: Any) -> Any:
    """Return `after` with tasks replaced by names; leave invalid values unchanged."""
    if is_task(after):
        return (_first_entry(after),)
    if isinstance(after, str | Mapping):
        return after
    return tuple(map(_upstream, after)) if isinstance(after, Iterable) else _upstream(after)


def _upstream(one: Any) -> Any:
    if is_task(one):
        return _first_entry(one)
    if is_task(getattr(one, "name", None)):  # After(task)
        return dataclasses.replace(one, name=_first_entry(one.name))
    return one


def _first_entry(task: Any) -> str:
    """Return the name of the first entry that a task declares, or would."""
    marks = _marks_on(task)
    return str((marks[0].entry.name if marks else "") or task.name)


def words(entry: Declared) -> str:
    """Return the schedule of an entry as short text, the same in every process."""
    text = " ".join(_of_schedule(entry.schedule).split())
    if entry.timezone:
        text = f"{text} {entry.timezone}"
    if len(text) > _LONG:
        text = f"{text[:_LONG]}… {hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return text


def _of_schedule(value: Any) -> str:
    if isinstance(value, Schedule):
        return f"{value.kind} {value.spec} {value.timezone or ''}"
    if isinstance(value, BaseSchedule):
        return _of_celery(value)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float):
        return f"every {value:g} s"
    return "after" if value is None else str(value)


def _of_celery(value: Any) -> str:
    if isinstance(value, crontab):
        fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
        given = (getattr(value, f"_orig_{field}") for field in fields)
        return " ".join(
            str(one) if isinstance(one, str | int) else ",".join(map(str, sorted(one)))
            for one in given
        )
    if isinstance(value, solar):
        return f"{value.event} {value.lat:g} {value.lon:g}"
    if isinstance(value, schedule):
        return f"every {value.seconds:g} s"
    return type(value).__qualname__
