"""beatstore: a scheduler for celery beat that keeps its entries in a SQL database.

    from beatstore import Store

    store = Store("postgresql+psycopg://…")
    store.migrate()
    store.add("report", "reports.build", "0 2 * * *", timezone="Europe/Berlin")

and then `celery -A proj beat --scheduler beatstore:DBScheduler`.

Importing this package imports neither SQLAlchemy nor celery. The store, the scheduler and the
workers' parts are loaded on first use, so that other `celery` commands, which import this
package to find its subcommand, stay fast.
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
    DeniedError,
    DependencyCycleError,
    EntryChangedError,
    EntryError,
    EntryExistsError,
    EntryNotFoundError,
    InvalidEntryError,
    LoadError,
    NotReadError,
    QueryTimeoutError,
    ScheduleError,
    SchemaError,
    SessionError,
    StoreError,
    UnavailableError,
    UnknownDatabaseError,
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
        AddReport,
        After,
        BeatStatus,
        Explanation,
        FailureGroup,
        Health,
        LoadReport,
        Occurrence,
        Refused,
        RunCount,
        RunDetails,
        StateReport,
        Status,
        Storage,
        Store,
        SyncReport,
        TableSize,
        UpcomingCounts,
        WorkerStatus,
    )
    from beatstore.types import Page
    from beatstore.worker.retryable import StoredRetry, retryable
    from beatstore.worker.signals import setup
    from beatstore.worker.task import Task

_refuse = as_schedule.dispatch(object)
_no_identity = identity.dispatch(object)

_LAZY = {
    "After": "beatstore.store",
    "Audit": "beatstore.records",
    "BeatStatus": "beatstore.store",
    "DBScheduler": "beatstore.beat.scheduler",
    "Entry": "beatstore.records",
    "Explanation": "beatstore.store",
    "FailureGroup": "beatstore.store",
    "Health": "beatstore.store",
    "AddReport": "beatstore.store",
    "LoadReport": "beatstore.store",
    "Refused": "beatstore.store",
    "Occurrence": "beatstore.store",
    "Page": "beatstore.types",
    "Run": "beatstore.records",
    "RunCount": "beatstore.store",
    "RunDetails": "beatstore.store",
    "StateReport": "beatstore.store",
    "Status": "beatstore.store",
    "Storage": "beatstore.store",
    "Store": "beatstore.store",
    "StoredRetry": "beatstore.worker.retryable",
    "SyncReport": "beatstore.store",
    "TableSize": "beatstore.store",
    "Task": "beatstore.worker.task",
    "UpcomingCounts": "beatstore.store",
    "WorkerStatus": "beatstore.store",
    "retryable": "beatstore.worker.retryable",
    "scheduled": "beatstore.discovery.marks",
    "setup": "beatstore.worker.signals",
}

__all__ = [
    "AddReport",
    "After",
    "Audit",
    "BeatStatus",
    "BeatstoreError",
    "Clock",
    "ConfigError",
    "Cron",
    "DBScheduler",
    "Declared",
    "DeniedError",
    "DependencyCycleError",
    "Entry",
    "EntryChangedError",
    "EntryError",
    "EntryExistsError",
    "EntryNotFoundError",
    "Every",
    "Explanation",
    "FailureGroup",
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
    "QueryTimeoutError",
    "RRule",
    "Refused",
    "Run",
    "RunCount",
    "RunDetails",
    "Schedule",
    "ScheduleError",
    "SchemaError",
    "SessionError",
    "Settings",
    "Solar",
    "StateReport",
    "Status",
    "Storage",
    "Store",
    "StoreError",
    "StoredRetry",
    "SyncReport",
    "TableSize",
    "Task",
    "UnavailableError",
    "UnknownDatabaseError",
    "UpcomingCounts",
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
    """Convert celery's own schedules too."""
    convert = _registered(as_schedule, value)
    return _refuse(value, timezone) if convert is _as_celery_schedule else convert(value, timezone)


@identity.register(object)
def _celery_identity(value: object) -> object:
    """Return the identity of celery's own schedules too."""
    identify = _registered(identity, value)
    return _no_identity(value) if identify is _celery_identity else identify(value)


def _registered(function: Any, value: object) -> Any:
    """Return the implementation for a value's type; import celery's when a value needs it."""
    if any(base.__module__.startswith("celery.") for base in type(value).__mro__):
        import beatstore.discovery.convert  # noqa: F401, PLC0415
    return function.dispatch(type(value))


def __getattr__(name: str) -> Any:
    """Import what needs SQLAlchemy or celery on first use."""
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found
