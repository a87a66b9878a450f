"""SQL for simulations: a scratch database, and what happened to the runs in it.

Each function opens and closes a session of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, event, func, or_, select

from beatstore.clock import Clock
from beatstore.config import Settings
from beatstore.database.engine import Database
from beatstore.database.tables import ENTRY, RUN
from beatstore.rules.states import UNFINISHED, WITH_WORKER
from beatstore.store import Store
from beatstore.tick.claims import CALL

__all__ = ["Mark", "happened", "mark", "scratch", "under_way", "waiting"]

_SHOWN = (
    *("id", "entry_name", "due_at", "attempt", "state", "reason", "error", "sent_at"),
    *("started_at", "finished_at", "first_missed_at", "missed_count", "wake_at"),
)

#: A database file with the tables; `migrate` takes longer than most simulations.
_template: bytes | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in the history: the newest run, and the runs that had not ended."""

    last_id: int
    open_ids: frozenset[int]


def scratch(clock: Clock, settings: Settings | None) -> Store:
    """Return a store with new tables in a temporary file, which is deleted with the store.

    It is a file, not memory, so that all connections and threads see the same data. It does not
    wait for the disk.
    """
    global _template  # noqa: PLW0603  (a cache)
    folder = tempfile.mkdtemp(prefix="beatstore-")
    path = os.path.join(folder, "beatstore.db")
    if _template is not None:
        with open(path, "wb") as file:
            file.write(_template)
    store = Store(f"sqlite:///{path}", settings=settings, clock=clock)
    weakref.finalize(store.database, shutil.rmtree, folder, ignore_errors=True)
    event.listen(store.database.engine, "connect", _hurry)
    if _template is None:
        store.migrate()
        store.close()  # writes everything to the one file
        with open(path, "rb") as file:
            _template = file.read()
    return store


def _hurry(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()


def mark(database: Database) -> Mark:
    """Return the current point in the history."""
    with database.session() as session:
        last_id = session.scalar(select(func.max(RUN.c.id)))
        found = select(RUN.c.id).where(RUN.c.state.in_(UNFINISHED))
        return Mark(last_id or 0, frozenset(session.scalars(found)))


def under_way(database: Database) -> list[Row[Any]]:
    """Return the sent runs that have not ended, the oldest first."""
    columns = [RUN.c[name] for name in ("id", "task_id", "entry_name", "state", "sent_at")]
    columns += [RUN.c[name] for name in ("due_at", "attempt", "wake_at", "started_at")]
    names = (*CALL, "run_timeout_s", "overlap")
    call = [ENTRY.c[name] for name in names if name != "name"]
    found = select(*columns, *call).outerjoin(ENTRY, ENTRY.c.id == RUN.c.entry_id)
    found = found.where(RUN.c.state.in_(WITH_WORKER))
    with database.session() as session:
        return list(session.execute(found.order_by(RUN.c.sent_at, RUN.c.due_at, RUN.c.id)))


def happened(database: Database, since: Mark) -> list[Row[Any]]:
    """Return the runs that are newer than a mark, or had not ended at it."""
    columns = [RUN.c[name] for name in _SHOWN]
    with database.session() as session:
        found = list(session.execute(select(*columns).where(RUN.c.id > since.last_id)))
        for run_id in sorted(since.open_ids):
            found += session.execute(select(*columns).where(RUN.c.id == run_id))
    return found


def waiting(database: Database) -> list[Row[Any]]:
    """Return the entries that wait or are broken, sorted by name."""
    waits = and_(ENTRY.c.state == "active", ENTRY.c.pending_reason.is_not(None))
    columns = [ENTRY.c[name] for name in ("name", "state", "error", "pending_reason")]
    columns += [ENTRY.c[name] for name in ("pending_since", "pending_due_at")]
    found = select(*columns).where(or_(waits, ENTRY.c.state == "broken"))
    with database.session() as session:
        return list(session.execute(found.order_by(ENTRY.c.name)))
