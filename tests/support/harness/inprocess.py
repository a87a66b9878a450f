"""Apps of the test's own process, celery's beat of them, and claims to send."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from celery import Celery

from beatstore import Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.clock import ManualClock
from beatstore.store.shared import store_of
from beatstore.tick.claims import Claim, Outcome
from tests.support.brokers import Broker

__all__ = [
    "NOWHERE",
    "at_clock",
    "keeping",
    "names",
    "new_app",
    "new_claim",
    "note_app",
    "running",
    "send",
    "send_into",
    "tick_until_idle",
]

#: A database that can't be opened, for tests that must not need one.
NOWHERE = "sqlite:////beatstore-no-such-directory/beatstore.db"

_run_ids = itertools.count(1)
_NOW = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)

#: How many seconds a busy machine may take to send some thousands of messages.
_PATIENCE = 120


def new_app(broker: Broker, database_url: str = NOWHERE, **settings: Any) -> Celery:
    """Return an app that sends to the broker's queue; it has no tasks but celery's own."""
    app = Celery("tests", set_as_current=False)
    app.conf.update({**broker.settings, "beatstore_url": database_url, "timezone": "UTC"})
    app.conf.update(settings)
    return app


def note_app(broker: Broker, database_url: str = NOWHERE, **settings: Any) -> Celery:
    """Return such an app with one task, `tests.note`, that takes anything and does nothing."""
    app = new_app(broker, database_url, **settings)

    @app.task(name="tests.note", shared=False)
    def note(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    return app


def new_claim(task: str = "tests.note", **columns: Any) -> Claim:
    """Return a claim as a plan makes it, for the first attempt of an hourly entry."""
    run_id = next(_run_ids)
    given: dict[str, Any] = {
        "run_id": run_id,
        "task_id": str(uuid.uuid4()),
        "due_at": _NOW,
        "attempt": 1,
        "first_missed_at": None,
        "missed_count": 0,
        "name": f"entry-{run_id}",
        "task": task,
        "args": [],
        "kwargs": {},
        "options": {},
        "kind": "cron",
        "spec": "0 * * * *",
        "timezone": "UTC",
        "run_timeout_s": None,
        "tries": 0,
    }
    unknown = columns.keys() - given.keys()
    assert not unknown, unknown
    return Claim(**{**given, **columns})


@contextmanager
def running(app: Celery, **arguments: Any) -> Iterator[DBScheduler]:
    """Make a scheduler as `celery beat` does, and close it at the end."""
    given = {"schedule_filename": "celerybeat-schedule", "max_interval": None, "lazy": False}
    scheduler = DBScheduler(app=app, **{**given, **arguments})
    try:
        yield scheduler
    finally:
        scheduler.close()
        app.close()


@contextmanager
def keeping(app: Celery, clock: ManualClock) -> Iterator[Store]:
    """Let the store that the app's tasks and calls use read a clock; close both at the end."""
    store = store_of(app)
    store.database.clock = clock
    try:
        yield store
    finally:
        store.close()
        app.close()


def send(
    scheduler: DBScheduler, *claims: Claim, now: datetime = _NOW, until: float | None = None
) -> list[Outcome]:
    """Send claims as a tick would, and return their outcomes in the order they came."""
    end = time.monotonic() + _PATIENCE if until is None else until
    known = scheduler.sender.send(claims, now=now, until=end)
    return [outcome for outcomes in known for outcome in outcomes]


def send_into(outcomes: list[Outcome], scheduler: DBScheduler, claims: Sequence[Claim]) -> None:
    """Send as a tick does, and keep each outcome as it comes, whatever happens then."""
    for known in scheduler.sender.send(claims, now=_NOW, until=time.monotonic() + _PATIENCE):
        outcomes += known


def at_clock(scheduler: DBScheduler, clock: ManualClock) -> DBScheduler:
    """Let a scheduler and its store read the test's clock."""
    scheduler.store.database.clock = clock
    return scheduler


def tick_until_idle(scheduler: DBScheduler) -> float:
    """Tick as long as something is due, and return how long celery would sleep."""
    for _ in range(1000):
        figures = scheduler._figures
        wait = scheduler.tick()
        if wait and scheduler._figures is figures:  # nothing was due
            return wait
    raise AssertionError("always due")


def names(messages: list[Any]) -> list[str]:
    """Return the entries that messages are of."""
    return [message.headers["beatstore_entry"] for message in messages]
