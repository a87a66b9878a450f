"""The task class: the start-once guard, and calls due far in the future."""

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
    """A Celery task that starts once per run, and that can be due far in the future.

    Use it for all tasks with `Celery(task_cls="beatstore:Task")`, or for one with
    `@app.task(base=beatstore.Task)`. It also does what `beatstore.setup(app)` does.

    `schedule` stores a call in the database until it is due, and so does `apply_async`
    with an `eta` or `countdown` further away than `beatstore_eta_threshold`.

    Before the task's code starts, the task asks the database whether the run may start. It
    drops, and logs, a second message of a run that is started or has ended. Celery's own retries
    may start again. So may, with `acks_late`, a message that is redelivered after a worker died.
    The tasks of a chain, group or chord are not guarded: they are many messages of one run, and
    each starts as often as it is delivered, also when the run is over.

    The task waits only briefly for the answer (`beatstore_report_wait`). Without an answer it
    starts: running twice is better than running late or never because the database
    is unavailable.

    A subclass that overrides `before_start` must call `super().before_start(…)`. With several
    base classes, this one must be the first.
    """

    #: Whether to use the start-once guard; set it to False on a class or a task to turn it off.
    starts_once = True

    @classmethod
    def on_bound(cls, app: celery.Celery) -> None:
        """Call `setup(app)` when the task is bound to its app."""
        setup(app)
        super().on_bound(app)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Drop the message if its run must not start.

        Raises:
            Ignore: the run must not start.
        """
        reason = refusal(self) if self.starts_once else None
        if reason is not None:
            logger.warning("%s[%s] was dropped: %s", self.name, task_id, reason)
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
        """Store a call, which beat sends when it is due.

        Args:
            args: positional arguments, as JSON values.
            kwargs: keyword arguments, as JSON values.
            eta: when it is due: an aware datetime, or ISO 8601 text with an offset.
            countdown: or in how many seconds it is due, by the database's clock.
            session: the caller's SQLAlchemy session, to join its transaction.
            options: options of `apply_async`; seconds in `expires` count from sending.

        Returns:
            The `AsyncResult` of the task. Its id is the name of the entry, for `Store.cancel`
            and `Store.reschedule`.

        Raises:
            InvalidEntryError: neither or both of `eta` and `countdown` are given, or a value
                can't be stored; it is a `ValueError`.
            EntryExistsError: an entry with this `task_id` exists.
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
        """Send the task, or store it if it is due far in the future.

        See `celery.Task.apply_async`. With `beatstore_eta_threshold` set, a call that is due
        later than that is stored as by `schedule`, with the same id.

        Raises:
            InvalidEntryError: the call is due later than the threshold, and can't be stored.
            UnavailableError: it is due later, and the database did not answer.
        """
        given = {"task_id": task_id, "link": link, "link_error": link_error, "shadow": shadow}
        if options.get("countdown") or options.get("eta"):
            result = far.divert(self, args, kwargs, {**options, **given})
            if result is not None:
                return result
        return super().apply_async(args, kwargs, producer=producer, **given, **options)
