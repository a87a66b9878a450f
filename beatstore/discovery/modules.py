"""Find the entries that an app's code declares, and sync them into the database.

Each module that declares entries, in a list `SCHEDULES` or with `@scheduled`, is a source named
`module:<its name>`. `beat_schedule` is a further source.

The modules of an app are those that its loader imports (`imports`, `include` and what
`autodiscover_tasks` finds), those that define its tasks, and those with the app in a global
variable. So beat and the command line find the same modules, in every process.

On failure: an invalid entry is refused and reported; the others are stored.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery import Celery, _state

from beatstore.definition.spec import Declared
from beatstore.discovery import beatschedule
from beatstore.discovery.marks import declared_by, is_task, marks_of, resolved, unused
from beatstore.errors import InvalidEntryError
from beatstore.store import Store
from beatstore.store.sync.sync import SyncReport
from beatstore.store.unknown_tasks import warn_of_tasks

__all__ = ["PREFIX", "Source", "declared", "import_code", "log"]

logger = logging.getLogger(__name__)

#: The prefix of a module's source.
PREFIX = "module:"


@dataclasses.dataclass
class Source:
    """The declarations of one source.

    Attributes:
        entries: the entries, not yet checked.
        refused: by name, why others are refused.
    """

    entries: list[Declared] = dataclasses.field(default_factory=list)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)


def declared(app: Celery, module: str | None = None) -> dict[str, Source]:
    """Return the declarations of an app's modules, by source.

    Import the app's modules and make its tasks, if that is not done yet.

    Args:
        app: the app.
        module: read only this module; without declarations, its source is empty.

    Raises:
        InvalidEntryError: the app has no such module.
    """
    modules = _modules(app)
    found: dict[str, Source] = {}
    for task, marks in marks_of(app):
        for mark, one in declared_by(task, marks):
            found.setdefault(PREFIX + _plain(app, mark.module), Source()).entries.append(one)
    # A module that is asked for has its list, also if another one imports it.
    first = {module: modules[module]} if module in modules else {}
    for name, listed in _lists({**first, **modules}):
        _read(listed, found.setdefault(PREFIX + name, Source()))
    others: Any = _state
    for mark in unused([app, *(one for one in others._get_active_apps() if one.finalized)]):
        name = _plain(app, mark.module)
        if name in modules:
            source = found.setdefault(PREFIX + name, Source())
            source.refused[mark.target] = (
                "it is not a task; decorate it with @app.task or @shared_task"
            )
    if module is None:
        return found
    if module not in modules and PREFIX + module not in found:
        raise InvalidEntryError(
            "module",
            module,
            "a module that the app imports or autodiscovers, or that defines its tasks",
            f"imports = [{module!r}] in its settings",
        )
    return {PREFIX + module: found.get(PREFIX + module, Source())}


def _modules(app: Celery) -> dict[str, Any]:
    """Import the modules of an app, and return them by name."""
    loader: Any = app.loader
    if not loader.worker_initialized:
        loader.import_default_modules()
    app.finalize()
    names = {*loader.task_modules, *(task.__module__ for task in app.tasks.values())}
    for name, module in [*sys.modules.items()]:
        held = getattr(module, "__dict__", None)
        if type(held) is dict and id(app) in map(id, [*held.values()]):
            names.add(name)
    return {_plain(app, name): sys.modules[name] for name in sorted(names) if name in sys.modules}


def _plain(app: Celery, module: str) -> str:
    """Return the name under which a module is imported; celery names tasks the same way."""
    return str(app.main or module) if module == "__main__" else module


def _lists(modules: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each list `SCHEDULES` of entries once, even if several modules import it."""
    seen: set[int] = set()
    for name, module in modules.items():
        listed = vars(module).get("SCHEDULES")
        if not isinstance(listed, list | tuple) or id(listed) in seen:
            continue
        # A list of other objects is not beatstore's.
        if any(isinstance(one, Declared) for one in listed):
            seen.add(id(listed))
            yield name, listed


def _read(listed: list[Any] | tuple[Any, ...], source: Source) -> None:
    for place, one in enumerate(listed):
        if not isinstance(one, Declared):
            error = InvalidEntryError(f"SCHEDULES[{place}]", one, "a Declared", "Declared(…)")
            source.refused[f"SCHEDULES[{place}]"] = str(error)
            continue
        changed: dict[str, Any] = {}
        if is_task(one.task):
            changed["task"] = one.task.name
        if one.after:
            changed["after"] = resolved(one.after)
        source.entries.append(dataclasses.replace(one, **changed) if changed else one)


def import_code(
    store: Store, app: Celery, *, module: str | None = None, dry_run: bool = False
) -> list[SyncReport]:
    """Sync `beat_schedule` and the declarations of the app's modules into the database.

    Transaction: one of its own for all sources.

    Args:
        store: the store.
        app: the app.
        module: sync only this module.
        dry_run: only report the changes.

    Returns:
        A report for each source. Without `module`, this includes sources in the database whose
        module no longer exists.
    """
    found = declared(app, module)
    if module is None:
        found = {beatschedule.SOURCE: Source(*beatschedule.beat_entries(app)), **found}
    tasks = (one.task for source in found.values() for one in source.entries)
    warn_of_tasks(app, tasks, imported=True)
    sources = {name: (source.entries, source.refused) for name, source in found.items()}
    return store.sync_all(sources, owned=None if module else PREFIX, dry_run=dry_run)


def log(reports: Iterable[SyncReport]) -> None:
    """Log the result of an import: one line, and one for each entry that needs attention."""
    reports = list(reports)
    kinds = ("created", "updated", "deactivated", "unchanged")
    figures = [f"{sum(len(getattr(one, kind)) for one in reports)} {kind}" for kind in kinds]
    logger.info("imported entries from code: %s", ", ".join(figures))
    for report in reports:
        for name, fields in report.kept.items():
            logger.warning(
                "%r of %s keeps its edits, which differ from its code: %s",
                name,
                report.source,
                ", ".join(fields),
            )
        for name, reason in report.refused.items():
            logger.error("could not store %r of %s: %s", name, report.source, reason)
