"""The task class with the start-once guard."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import celery
from celery.exceptions import Ignore

from beatstore.worker import refusal, setup

if TYPE_CHECKING:
    _Task = celery.Task[..., Any]
else:
    _Task = celery.Task

__all__ = ["Task"]

logger = logging.getLogger(__name__)


class Task(_Task):
    """A celery task of which one message of each run starts, and no second one.

    Use it for all tasks with `Celery(task_cls="beatstore:Task")`, or for one with
    `@app.task(base=beatstore.Task)`. It also does what `beatstore.setup(app)` does.

    Before the task's own code starts, the database is asked whether the run may start. A
    second message of a run that is started, or over, is dropped, and logged. What may
    start again: celery's own retries, and with `acks_late` a message that was delivered
    before, to a worker that is gone.

    The answer is waited for briefly (`beatstore.worker.BUDGET`). Without one, the task
    starts: that a task runs late or never because a database is away would be worse than
    that it runs twice.

    A class with a `before_start` of its own must call `super().before_start(…)`.
    """

    #: Whether to ask; a class or a task may say False.
    starts_once = True

    @classmethod
    def on_bound(cls, app: celery.Celery) -> None:
        """Set the app up, when the task becomes one of it."""
        setup(app)
        super().on_bound(app)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Drop the message if its run must not start.

        Raises:
            Ignore: it must not.
        """
        reason = refusal(self) if self.starts_once else None
        if reason is not None:
            logger.warning("%s[%s] is dropped: %s", self.name, task_id, reason)
            raise Ignore(reason)
        super().before_start(task_id, args, kwargs)
