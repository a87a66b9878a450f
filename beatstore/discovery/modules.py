"""What an app's code declares, found in its modules and brought into the database.

Each module that declares entries is a source of its own, `module:<its name>`: the lists
`SCHEDULES` in it, and the `@scheduled` written in it. `beat_schedule` is one more.

The modules of an app are those that its loader imports (`imports`, `include` and what
`autodiscover_tasks` finds), those in which a task of it is defined, and those that have the
app itself among their names. So beat and the command line see the same, in every process.

On failure: what can't be stored is refused for that entry alone, and reported.
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
from beatstore.store.strangers import warn_of_tasks
from beatstore.store.sync.sync import SyncReport

__all__ = ["PREFIX", "Source", "declared", "import_code", "log"]

logger = logging.getLogger(__name__)

#: What the sources of modules start with.
PREFIX = "module:"


@dataclasses.dataclass
class Source:
    """What one place in the code declares.

    Attributes:
        entries: what can be stored, as far as can be said without a database.
        refused: by name, why others can't.
    """

    entries: list[Declared] = dataclasses.field(default_factory=list)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)


def declared(app: Celery, module: str | None = None) -> dict[str, Source]:
    """Find what the modules of an app declare, by source.

    Imports the app's modules, and makes its tasks, where that is not done yet.

    Args:
        app: whose.
        module: only this module; with nothing in it, its source is there and empty.

    Raises:
        InvalidEntryError: the app has no such module.
    """
    modules = _modules(app)
    found: dict[str, Source] = {}
    for task, marks in marks_of(app):
        for mark, one in declared_by(task, marks):
            found.setdefault(PREFIX + _plain(app, mark.module), Source()).entries.append(one)
    for name, listed in _lists(modules):
        _read(listed, found.setdefault(PREFIX + name, Source()))
    others: Any = _state
    for mark in unused([app, *(one for one in others._get_active_apps() if one.finalized)]):
        name = _plain(app, mark.module)
        if name in modules:
            source = found.setdefault(PREFIX + name, Source())
            source.refused[mark.target] = "it is no task; write @app.task or @shared_task on it"
    if module is None:
        return found
    if module not in modules and PREFIX + module not in found:
        raise InvalidEntryError(
            "module",
            module,
            "a module of this app: one that it imports or autodiscovers, or that has its tasks",
            f"imports = [{module!r}] in its settings",
        )
    return {PREFIX + module: found.get(PREFIX + module, Source())}


def _modules(app: Celery) -> dict[str, Any]:
    """Return the modules of an app by name, all of them imported."""
    loader: Any = app.loader
    if not loader.worker_initialized:
        loader.import_default_modules()
    app.finalize()
    names = {*loader.task_modules, *(task.__module__ for task in app.tasks.values())}
    for name, module in [*sys.modules.items()]:
        held = getattr(module, "__dict__", None)
        if type(held) is dict and any(value is app for value in [*held.values()]):
            names.add(name)
    return {_plain(app, name): sys.modules[name] for name in sorted(names) if name in sys.modules}


def _plain(app: Celery, module: str) -> str:
    """Return a module's name as others import it; celery names tasks by the same rule."""
    return str(app.main or module) if module == "__main__" else module


def _lists(modules: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each list `SCHEDULES` of entries once, though several modules may have it."""
    seen: set[int] = set()
    for name, module in modules.items():
        listed = vars(module).get("SCHEDULES")
        if not isinstance(listed, list | tuple) or id(listed) in seen:
            continue
        # A list of other things by that name is none of ours.
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
    """Make the database agree with `beat_schedule` and with what the app's modules declare.

    Transaction: one of its own for everything.

    Args:
        store: where.
        app: whose code.
        module: only what this module declares.
        dry_run: only say what would be done.

    Returns:
        What became of each source. Without `module`, one that is only in the database, as
        its module is gone, is among them.
    """
    found = declared(app, module)
    if module is None:
        found = {beatschedule.SOURCE: Source(*beatschedule.beat_entries(app)), **found}
    tasks = (one.task for source in found.values() for one in source.entries)
    warn_of_tasks(app, tasks, imported=True)
    sources = {name: (source.entries, source.refused) for name, source in found.items()}
    return store.sync_all(sources, owned=None if module else PREFIX, dry_run=dry_run)


def log(reports: Iterable[SyncReport]) -> None:
    """Log what an import has done: one line, and one for each entry that needs a look."""
    reports = list(reports)
    kinds = ("created", "updated", "deactivated", "unchanged")
    figures = [f"{sum(len(getattr(one, kind)) for one in reports)} {kind}" for kind in kinds]
    logger.info("entries of the code: %s", ", ".join(figures))
    for report in reports:
        for name, fields in report.kept.items():
            logger.warning(
                "%r of %s stays as it was edited, though its code says otherwise: %s",
                name,
                report.source,
                ", ".join(fields),
            )
        for name, reason in report.refused.items():
            logger.error("%r of %s is not stored: %s", name, report.source, reason)
