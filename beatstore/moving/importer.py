"""Move entries over from another scheduler's tables.

Invariants:
    * The other scheduler's tables are only read.
    * A move can be repeated: it is a sync, and the package's name is the source.

On failure: `SchemaError` if the tables are missing, and the errors of `Store.sync`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from beatstore.definition.spec import Declared
from beatstore.errors import EntryNotFoundError
from beatstore.moving.schedulers import How, Note, read, scheduler_of
from beatstore.schedules import Once
from beatstore.store.transfer import foreign
from beatstore.store.unknown_tasks import warn_of_tasks

if TYPE_CHECKING:
    from beatstore.store import Store
    from beatstore.store.sync.sync import SyncReport

__all__ = ["How", "Moved", "Note", "move", "of_app", "place_of"]


@dataclass(frozen=True)
class Moved:
    """The result of a move, or with `dry_run`, what it would change."""

    source: str
    url: str
    report: SyncReport
    notes: tuple[Note, ...]
    left: Mapping[str, str]


def move(
    store: Store,
    package: str,
    *,
    url: str | None = None,
    schema: str | None = None,
    how: How | None = None,
    dry_run: bool = False,
    app: Any = None,
    session: Any = None,
) -> Moved:
    """Sync the tables of another scheduler into a store.

    Args:
        store: the store.
        package: "django-celery-beat" or "sqlalchemy-celery-beat"; also the `source` of the
            entries.
        url: the database with the tables; None for the store's own.
        schema: the schema of the tables; None for the connection's default.
        how: options for reading the tables.
        dry_run: only report the changes.
        app: the Celery app, after it has imported the modules of its tasks: the tasks of the
            tables that it does not have are logged.
        session: the caller's session, to join its transaction.

    Raises:
        SchemaError: the tables are missing.
        ConfigError: the package is unknown, or `url` or `how` is invalid.
        UnavailableError: one of the databases did not answer.
    """
    how = how or How()
    with nullcontext(store.database) if url is None else foreign.opened(url) as database:
        tables = foreign.read_tables(database, scheduler_of(package).tables, "tasks", schema)
        where = database.safe_url

    def known(name: str) -> str | None:
        try:
            found = store.get(name, session=session)
        except EntryNotFoundError:
            return None
        return found.state if found.source == package else None

    now = store.now(session=session)
    found = read(package, tables, now, how, known)
    warn_of_tasks(app, (one.task for one in found.entries), imported=True)
    given: dict[str, Any] = {"refused": found.refused, "session": session}
    if dry_run:
        report = store.sync(found.entries, source=package, dry_run=True, **given)
    else:
        late = _late(found.entries, now) if how.overdue else ()
        report = foreign.sync(store, package, found.entries, late=late, **given)
    return Moved(package, where, report, found.notes, found.left)


def _late(entries: Iterable[Declared], now: datetime) -> list[str]:
    """Return the names of the one-shots whose time has passed."""
    rules = ((one.name, one.schedule) for one in entries)
    return [name for name, rule in rules if isinstance(rule, Once) and rule.at <= now]


def of_app(app: Any) -> dict[str, Any]:
    """Return the arguments of `How` from the settings of a Celery app.

    Names in its `beat_schedule` are left out: the other scheduler copies them into its tables,
    and beatstore reads them from the code.
    """
    if not app.loader.worker_initialized:
        app.loader.import_default_modules()
    app.finalize()
    reason = "it is in beat_schedule, which beatstore reads itself"
    return {
        "leave": dict.fromkeys(map(str, app.conf.beat_schedule), reason),
        "grace": app.conf.beat_cron_starting_deadline,
    }


def place_of(app: Any, package: str, schema: str | None) -> tuple[str | None, str | None]:
    """Return the URL and the schema of the tables from a Celery app's settings."""
    if package == "sqlalchemy-celery-beat" and app.conf.get("beat_dburi"):
        return app.conf["beat_dburi"], schema or app.conf.get("beat_schema")
    return None, schema
