"""The task class: the start-once guard, and calls that are due far in the future."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import celery
from celery.exceptions import Ignore

from beatstore.errors import InvalidEntryError
from beatstore.types import Duration, SessionLike
from beatstore.worker import eta as far
from beatstore.worker.signals import refusal, setup

if TYPE_CHECKING:
    from celery.result import AsyncResult

    _Task = celery.Task[..., Any]
else:
    _Task = celery.Task

__all__ = ["Task"]

logger = logging.getLogger(__name__)


class Task(_Task):
    """A celery task that can be due in a year, and of which each run starts once.

    Use it for all tasks with `Celery(task_cls="beatstore:Task")`, or for one with
    `@app.task(base=beatstore.Task)`. It also does what `beatstore.setup(app)` does.

    `schedule` stores a call in the database until it is due, and so does `apply_async`
    with an `eta` or `countdown` further away than `beatstore_eta_threshold`.

    Before the task's own code starts, the database is asked whether the run may start. A
    second message of a run that is started, or over, is dropped, and logged. What may
    start again: celery's own retries, and with `acks_late` a message that was delivered
    before, to a worker that is gone.

    The answer is waited for briefly (`beatstore.worker.signals.BUDGET`). Without one, the task
    starts: that a task runs late or never because a database is away would be worse than
    that it runs twice.

    A class with a `before_start` of its own must call `super().before_start(…)`. Among
    several bases, this one comes first.
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
            logger.warning("dropped %s[%s]: %s", self.name, task_id, reason)
            raise Ignore(reason)
        super().before_start(task_id, args, kwargs)

    def schedule(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        eta: datetime | str | None = None,
        countdown: Duration | None = None,
        *,
        session: SessionLike | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Store a call until it is due; beat sends it then.

        Args:
            args: JSON.
            kwargs: JSON.
            eta: when; an aware datetime, or the same as ISO 8601 text.
            countdown: or in how many seconds, by the database's clock.
            session: the caller's SQLAlchemy session, to join its transaction.
            options: those of `apply_async`; seconds in `expires` count from the sending.

        Returns:
            The `AsyncResult` of the task; its id is the name of the entry, by which
            `Store.cancel` and `Store.reschedule` know it.

        Raises:
            InvalidEntryError: neither or both of `eta` and `countdown` are given, or
                something that can't be stored; it is a `ValueError`.
            EntryExistsError: `task_id` is another's.
            UnavailableError: the database did not answer.
        """
        times = {"eta": eta, "countdown": countdown}
        given = {name: value for name, value in times.items() if value is not None}
        if len(given) != 1:
            expected = "exactly one of eta and countdown"
            raise InvalidEntryError("eta", given or None, expected, "countdown=3600")
        kept: AsyncResult[Any] = far.keep(self, args, kwargs, {**options, **given}, session)
        return kept

    def apply_async(  # noqa: PLR0917  (celery's own)
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: Any = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: Any = None,
        **options: Any,
    ) -> Any:
        """Send the task; or store it, if it is due far in the future.

        See `celery.Task.apply_async`. With `beatstore_eta_threshold` set, what is due later
        than that is stored as by `schedule`, under the same id.

        Raises:
            InvalidEntryError: it is far, and can't be stored.
            UnavailableError: it is far, and the database did not answer.
        """
        given = {"task_id": task_id, "link": link, "link_error": link_error, "shadow": shadow}
        if options.get("countdown") or options.get("eta"):
            result = far.divert(self, args, kwargs, {**options, **given})
            if result is not None:
                return result
        return super().apply_async(args, kwargs, producer=producer, **given, **options)
