"""Moving over: the entries of a store agree with the tables of another scheduler.

Invariants:
    * Their tables are read, never written.
    * It can be repeated: it is a sync, with the package's name for a source.

On failure: `SchemaError` where their tables are not, and what `Store.sync` raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beatstore.errors import EntryNotFoundError
from beatstore.moving.peers import How, Note, peer_of, read
from beatstore.store.transfer import foreign

if TYPE_CHECKING:
    from beatstore.store import Store
    from beatstore.store.sync.sync import SyncReport

__all__ = ["How", "Moved", "Note", "move", "of_app", "place_of"]


@dataclass(frozen=True)
class Moved:
    """What moving over did, or with `dry_run` would do."""

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
    session: Any = None,
) -> Moved:
    """Make the entries of a store agree with the tables of another scheduler.

    Args:
        store: where the entries go.
        package: "django-celery-beat" or "sqlalchemy-celery-beat"; also their `source`.
        url: database that the tables are in; None for the store's own.
        schema: the schema that they are in; None for the connection's own.
        how: how they are read.
        dry_run: report what would be done, and write nothing.
        session: the caller's session, to join its transaction.

    Raises:
        SchemaError: the tables are not there.
        ConfigError: there is no such package, or `url` or `how` can't be used.
        UnavailableError: one of the databases did not answer.
    """
    how = how or How()
    with nullcontext(store.database) if url is None else foreign.opened(url) as database:
        tables = foreign.read_tables(database, peer_of(package).tables, "tasks", schema)
        where = database.safe_url

    def known(name: str) -> bool:
        try:
            return store.get(name, session=session).source == package
        except EntryNotFoundError:
            return False

    found = read(package, tables, store.now(session=session), how, known)
    report = store.sync(
        found.entries, source=package, dry_run=dry_run, refused=found.refused, session=session
    )
    return Moved(package, where, report, found.notes, found.left)


def of_app(app: Any) -> dict[str, Any]:
    """Return the arguments of `How` that a Celery app gives.

    What its `beat_schedule` has, their beat has copied into their tables at each start;
    beatstore reads it by itself.
    """
    if not app.loader.worker_initialized:
        app.loader.import_default_modules()
    app.finalize()
    reason = "it is in beat_schedule, which beatstore reads by itself"
    return {
        "leave": dict.fromkeys(map(str, app.conf.beat_schedule), reason),
        "grace": app.conf.beat_cron_starting_deadline,
    }


def place_of(app: Any, package: str, schema: str | None) -> tuple[str | None, str | None]:
    """Return the URL and the schema that a Celery app's settings give for their tables."""
    if package == "sqlalchemy-celery-beat" and app.conf.get("beat_dburi"):
        return app.conf["beat_dburi"], schema or app.conf.get("beat_schema")
    return None, schema
