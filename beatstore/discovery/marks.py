"""The decorator `scheduled`, and how it is found again on the tasks of an app.

A mark is kept on what was decorated: on the function, where `@scheduled` stands below
`@app.task`, and else on the task. A task that celery has not made yet is not made for it: a
mark waits for it, or is looked up when the app is asked for its entries.

Invariants:
    * Importing a decorated module touches no database and makes no task.
    * The name of an entry depends on its own decorator, and on whether an unnamed one
      stands closer to the function; on nothing above it.
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

from beatstore.definition.fields import fitting
from beatstore.definition.spec import DEFAULTS, Declared
from beatstore.schedules import Schedule
from beatstore.types import ScheduledOptions, ScheduleLike, refuse_unknown, takes

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Mark", "declared_by", "is_task", "marks_of", "resolved", "scheduled", "unused"]

T = TypeVar("T")

_ATTRIBUTE = "__beatstore_scheduled__"

#: How much of a long schedule is in the name of a further entry of a task.
_LONG = 80


@dataclasses.dataclass(frozen=True, eq=False)
class Mark:
    """One `@scheduled`.

    Attributes:
        module: where it stands.
        target: what it stands on, for people.
        said: what it says; without a task, and with the name "" for none.
    """

    module: str
    target: str
    said: Declared


#: Marks on tasks that celery makes anew for each app, with that task.
_SHARED: list[tuple[Any, Mark]] = []

#: Marks on functions, which may never become tasks.
_ON_FUNCTIONS: list[Mark] = []


@takes(ScheduledOptions, DEFAULTS)
def scheduled(
    schedule: ScheduleLike | None = None,
    *,
    name: str | None = None,
    **given: Unpack[ScheduledOptions],
) -> Callable[[T], T]:
    """Declare an entry for a task: `beat` and `celery -A proj beatstore sync` store it.

        @beatstore.scheduled("0 9 * * mon-fri", timezone="Europe/Berlin")
        @app.task
        def report(): ...

    It may stand above or below `@app.task` or `@shared_task`, and several times. The
    arguments mean the same as those of `Store.add`, but that in `after` a task stands for
    its first entry, and that `paused` only counts when the entry is new. Their values are
    not checked before the entry is stored.

    Args:
        schedule: a Schedule, or what stands for one; None, with `after`, for an entry
            without a schedule of its own.
        name: the entry's name. None takes the task's name; of several without a name the
            one closest to the function does, and each other adds its schedule in brackets.
        given: the options (`beatstore.types.ScheduledOptions`).

    Returns:
        A decorator that returns what it is given.

    Raises:
        InvalidEntryError: there is no such option.
    """
    refuse_unknown(given, ScheduledOptions)
    # The task is not known yet, and is filled in by `declared_by`.
    said = Declared(name or "", cast(Any, None), schedule, **given)
    module = sys._getframe(1).f_globals.get("__name__", "__main__")

    def decorate(target: T) -> T:
        _attach(target, module, said)
        return target

    return decorate


def _attach(target: Any, module: str, said: Declared) -> None:
    kind = type(target)
    if issubclass(kind, Proxy):
        mark = Mark(module, "a task", said)
        if hasattr(kind, "__then__"):
            # Made once, by its app: the mark waits for that.
            target.__then__(lambda: _put(target._get_current_object(), mark))
        else:
            _SHARED.append((target, mark))
        return
    if not callable(target):
        raise TypeError(
            f"@scheduled: expected a task or its function, got {target!r}; "
            "write it directly above or below @app.task"
        )
    mark = Mark(module, f"{module}.{getattr(target, '__qualname__', kind.__qualname__)}", said)
    _put(target, mark)
    if not isinstance(target, Task):
        _ON_FUNCTIONS.append(mark)


def _put(target: Any, mark: Mark) -> None:
    setattr(target, _ATTRIBUTE, (*vars(target).get(_ATTRIBUTE, ()), mark))


def is_task(value: object) -> TypeGuard[Task[..., Any]]:
    """Say whether a value is a task, also one that is not made yet; it is not made for this."""
    return issubclass(type(value), Proxy) or isinstance(value, Task)


# -- what is found on the tasks of an app --------------------------------------------------


def marks_of(app: Celery) -> Iterator[tuple[str, list[Mark]]]:
    """Yield the tasks of an app that have marks: name and marks, closest to the function first."""
    shared: dict[str, list[Mark]] = {}
    for proxy, mark in _SHARED:
        shared.setdefault(proxy._get_current_object().name, []).append(mark)
    for name, task in sorted(app.tasks.items()):
        marks = [*_of_task(task), *shared.get(name, ())]
        if marks:
            yield name, marks


def _of_task(task: Any) -> Iterator[Mark]:
    # What celery wraps around the function copies its attributes; a class that other tasks
    # are made from keeps its mark to itself.
    yield from getattr(task.run, _ATTRIBUTE, ())
    yield from vars(type(task)).get(_ATTRIBUTE, ())
    yield from vars(task).get(_ATTRIBUTE, ())


def _marks_on(task: Any) -> list[Mark]:
    shared = [mark for proxy, mark in _SHARED if proxy._get_current_object().name == task.name]
    return [*_of_task(task), *shared]


def unused(apps: Iterable[Celery]) -> list[Mark]:
    """Return the marks on functions that are no task of any of these apps."""
    used = {mark for app in apps for _, marks in marks_of(app) for mark in marks}
    return [mark for mark in _ON_FUNCTIONS if mark not in used]


def declared_by(task: str, marks: Sequence[Mark]) -> Iterator[tuple[Mark, Declared]]:
    """Yield the entries that a task's marks declare, with their names."""
    first = True
    for mark in marks:
        said = mark.said
        name = said.name
        if not name:
            name = task if first else fitting(f"{task} ({words(said)})")
            first = False
        yield mark, dataclasses.replace(said, name=name, task=task, after=resolved(said.after))


def resolved(after: Any) -> Any:
    """Return `after` with names in the place of tasks; what is wrong in it is left so."""
    if is_task(after):
        return (_first_entry(after),)
    if isinstance(after, str | Mapping):
        return after
    return tuple(map(_upstream, after)) if isinstance(after, Iterable) else _upstream(after)


def _upstream(one: Any) -> Any:
    if is_task(one):
        return _first_entry(one)
    if is_task(getattr(one, "name", None)):  # After(task), known by its looks: it needs SQL
        return dataclasses.replace(one, name=_first_entry(one.name))
    return one


def _first_entry(task: Any) -> str:
    """Return the name of the first entry that a task declares, or would."""
    marks = _marks_on(task)
    return str((marks[0].said.name if marks else "") or task.name)


def words(said: Declared) -> str:
    """Return in few words when an entry is due; the same in every process."""
    text = " ".join(_of_schedule(said.schedule).split())
    if said.timezone:
        text = f"{text} {said.timezone}"
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
