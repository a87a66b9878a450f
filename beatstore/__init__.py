"""beatstore: celery beat fires what the database says.

    from beatstore import Store

    store = Store("postgresql+psycopg://…")
    store.migrate()
    store.add("report", "reports.build", "0 2 * * *", timezone="Europe/Berlin")

and then `celery -A proj beat --scheduler beatstore:DBScheduler`.

Importing this package imports neither SQLAlchemy nor celery: the store, the scheduler, and
what workers need, are loaded when they are asked for, so that what only passes by (any
`celery` command, to which ours is added) is not held up.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from beatstore.clock import Clock, ManualClock
from beatstore.config import Settings
from beatstore.definition.identity import identity
from beatstore.definition.spec import Declared
from beatstore.errors import (
    BeatstoreError,
    ConfigError,
    EntryError,
    EntryExistsError,
    EntryNotFoundError,
    InvalidEntryError,
    LoadError,
    NotReadError,
    ScheduleError,
    SchemaError,
    SessionError,
    StoreError,
    UnavailableError,
)
from beatstore.rules.graph import Graph
from beatstore.schedules import (
    Cron,
    Every,
    Once,
    RRule,
    Schedule,
    Solar,
    as_schedule,
    daily,
    hourly,
    minutely,
    monthly,
    weekly,
)
from beatstore.version import __version__

if TYPE_CHECKING:
    from beatstore.beat.scheduler import DBScheduler
    from beatstore.discovery.marks import scheduled
    from beatstore.records import Audit, Entry, Run
    from beatstore.store import (
        After,
        BeatStatus,
        Explanation,
        Health,
        LoadReport,
        Occurrence,
        RunDetails,
        Status,
        Store,
        SyncReport,
        WorkerStatus,
    )
    from beatstore.types import Page
    from beatstore.worker.retryable import StoredRetry, retryable
    from beatstore.worker.signals import setup
    from beatstore.worker.task import Task

_refused = as_schedule.dispatch(object)
_unsure = identity.dispatch(object)

_LAZY = {
    "After": "beatstore.store",
    "Audit": "beatstore.records",
    "BeatStatus": "beatstore.store",
    "DBScheduler": "beatstore.beat.scheduler",
    "Entry": "beatstore.records",
    "Explanation": "beatstore.store",
    "Health": "beatstore.store",
    "LoadReport": "beatstore.store",
    "Occurrence": "beatstore.store",
    "Page": "beatstore.types",
    "Run": "beatstore.records",
    "RunDetails": "beatstore.store",
    "Status": "beatstore.store",
    "Store": "beatstore.store",
    "StoredRetry": "beatstore.worker.retryable",
    "SyncReport": "beatstore.store",
    "Task": "beatstore.worker.task",
    "WorkerStatus": "beatstore.store",
    "retryable": "beatstore.worker.retryable",
    "scheduled": "beatstore.discovery.marks",
    "setup": "beatstore.worker.signals",
}

__all__ = [
    "After",
    "Audit",
    "BeatStatus",
    "BeatstoreError",
    "Clock",
    "ConfigError",
    "Cron",
    "DBScheduler",
    "Declared",
    "Entry",
    "EntryError",
    "EntryExistsError",
    "EntryNotFoundError",
    "Every",
    "Explanation",
    "Graph",
    "Health",
    "InvalidEntryError",
    "LoadError",
    "LoadReport",
    "ManualClock",
    "NotReadError",
    "Occurrence",
    "Once",
    "Page",
    "RRule",
    "Run",
    "RunDetails",
    "Schedule",
    "ScheduleError",
    "SchemaError",
    "SessionError",
    "Settings",
    "Solar",
    "Status",
    "Store",
    "StoreError",
    "StoredRetry",
    "SyncReport",
    "Task",
    "UnavailableError",
    "WorkerStatus",
    "__version__",
    "daily",
    "hourly",
    "minutely",
    "monthly",
    "retryable",
    "scheduled",
    "setup",
    "weekly",
]


@as_schedule.register(object)
def _as_celery_schedule(value: object, timezone: str | None = None) -> Schedule:
    """Take celery's own schedules too."""
    taught = _taught(as_schedule, value)
    return _refused(value, timezone) if taught is _as_celery_schedule else taught(value, timezone)


@identity.register(object)
def _celery_identity(value: object) -> object:
    """Tell celery's own schedules apart too."""
    taught = _taught(identity, value)
    return _unsure(value) if taught is _celery_identity else taught(value)


def _taught(function: Any, value: object) -> Any:
    """Return what knows a value's type, importing what knows celery's when one is met."""
    if any(base.__module__.startswith("celery.") for base in type(value).__mro__):
        import beatstore.discovery.convert  # noqa: F401, PLC0415
    return function.dispatch(type(value))


def __getattr__(name: str) -> Any:
    """Load what needs SQLAlchemy or celery when it is asked for."""
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found
