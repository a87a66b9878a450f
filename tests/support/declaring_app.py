"""An app with all its entries in the code, for real processes; see `tests.support.app`."""

from __future__ import annotations

import itertools
import os
from datetime import timedelta
from typing import Any

from celery import Task
from celery.beat import BeatLazyFunc
from celery.schedules import crontab

import beatstore
from beatstore import Declared
from tests.support.app import app, leave_line

__all__ = ["app"]

count = itertools.count(1)

#: Another deployment of the code, in which entries are changed, new or gone.
LATER = os.environ.get("BEATSTORE_TEST_LATER") == "1"


def next_number() -> int:
    """Return 1, 2, 3, … in one process."""
    return next(count)


app.conf.beat_schedule = {
    "lazy": {
        "task": "tests.note",
        "schedule": 0.5,
        "args": ("number", BeatLazyFunc(next_number)),
    },
    "daily": {"task": "tests.note", "schedule": crontab(hour=9 if LATER else 4, minute=0)},
}
if not LATER:
    app.conf.beat_schedule["leaves"] = {"task": "tests.note", "schedule": 3600}


@app.on_after_finalize.connect
def add_more(sender: Any, **_: Any) -> None:
    """Add entries when all tasks are known, as celery's documentation does it."""
    note = sender.signature("tests.note", args=("added",))
    sender.add_periodic_task(0.5, note, name="added", queue=sender.conf.task_default_queue)
    sender.add_periodic_task(timedelta(hours=6), note, name="relative")


@beatstore.scheduled("* * * * * *", args=["decorated"], max_runs=2)
@app.task(name="tests.decorated", bind=True, shared=False)
def decorated(self: Task[..., Any], *args: Any) -> None:
    """Leave a line."""
    leave_line(self)


SCHEDULES = [Declared("listed", decorated, after=["tests.decorated"], args=["listed"])]
