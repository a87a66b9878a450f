"""The app of `tests.support.app`, set up to report, with a task for each way to end.

Each task leaves its line when its own code starts; what it does then is in its name.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Task, chain, chord, group
from celery.exceptions import Ignore, Reject

import beatstore
from tests.support.app import app, hold, leave_line, note

__all__ = ["app", "hold", "note"]

beatstore.setup(app)

# A test of what the guard answers is none of how fast it is, on a machine that is busy.
if "BEATSTORE_TEST_BUDGET" in os.environ:
    app.conf.beatstore_report_wait = float(os.environ["BEATSTORE_TEST_BUDGET"])


class TrackedError(Exception):
    """What tasks raise here."""


@app.task(name="tests.break", bind=True, shared=False)
def break_(self: Task[..., Any]) -> None:
    """Fail."""
    leave_line(self)
    raise TrackedError("it broke")


@app.task(name="tests.retry", bind=True, shared=False)
def retry(self: Task[..., Any], path: str | None = None, countdown: float = 0) -> None:
    """Fail once, be retried after `countdown`, and end well when `path` exists."""
    leave_line(self)
    if self.request.retries == 0:
        raise self.retry(exc=TrackedError("not yet"), countdown=countdown)
    while path is not None and not os.path.exists(path):
        time.sleep(0.02)


@app.task(name="tests.ignore", bind=True, shared=False)
def ignore(self: Task[..., Any]) -> None:
    """Raise Ignore."""
    leave_line(self)
    raise Ignore("not today")


@app.task(name="tests.reject", bind=True, shared=False, acks_late=True)
def reject(self: Task[..., Any]) -> None:
    """Raise Reject."""
    leave_line(self)
    raise Reject("not for me", requeue=False)


@app.task(name="tests.requeue", bind=True, shared=False, acks_late=True)
def requeue(self: Task[..., Any], path: str) -> None:
    """Put the message back, until the file `path` exists."""
    leave_line(self)
    if not os.path.exists(path):
        time.sleep(0.05)
        raise Reject("later", requeue=True)


@app.task(name="tests.die", bind=True, shared=False)
def die(self: Task[..., Any]) -> None:
    """Kill the process it runs in."""
    leave_line(self)
    os.kill(os.getpid(), signal.SIGKILL)


class DyingTask(Task):  # type: ignore[type-arg]
    """A task that kills its process once its result is stored."""

    def on_success(self, *args: Any, **kwargs: Any) -> None:
        """Kill the process."""
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="tests.die_late", bind=True, shared=False, base=DyingTask)
def die_late(self: Task[..., Any], path: str) -> None:
    """Run until the file `path` exists, and kill the process when that is stored as a success."""
    leave_line(self)
    while not os.path.exists(path):
        time.sleep(0.02)


@app.task(name="tests.limited", bind=True, shared=False, time_limit=1)
def limited(self: Task[..., Any], seconds: float = 60.0) -> None:
    """Run longer than it may."""
    leave_line(self)
    time.sleep(seconds)


@app.task(name="tests.late", bind=True, shared=False, acks_late=True)
def late(self: Task[..., Any], path: str) -> None:
    """Run until the file `path` exists; acknowledged after that."""
    leave_line(self)
    while not os.path.exists(path):
        time.sleep(0.02)


@app.task(name="tests.once", bind=True, shared=False, base=beatstore.Task)
def once(self: Task[..., Any], path: str | None = None) -> None:
    """Run until `path` exists, if one is given; with the guard."""
    leave_line(self)
    while path is not None and not os.path.exists(path):
        time.sleep(0.02)


@app.task(name="tests.once_late", bind=True, shared=False, base=beatstore.Task, acks_late=True)
def once_late(self: Task[..., Any], path: str) -> None:
    """Run until the file `path` exists; with the guard, acknowledged after that."""
    leave_line(self)
    while not os.path.exists(path):
        time.sleep(0.02)


@app.task(name="tests.go_on", bind=True, shared=False)
def go_on(self: Task[..., Any], how: str, name: str) -> Any:
    """Be replaced by a canvas, whose last task is `name`."""
    leave_line(self)
    note, end = app.signature("tests.note", immutable=True), app.tasks[name].si()
    if how == "chain":
        return self.replace(chain(note, end))
    if how == "group":
        return self.replace(group(note, end))
    return self.replace(chord([note, note], end))


@app.task(name="tests.replace", bind=True, shared=False)
def replace(self: Task[..., Any], name: str) -> Any:
    """Be replaced by another task."""
    leave_line(self)
    return self.replace(app.tasks[name].si())
