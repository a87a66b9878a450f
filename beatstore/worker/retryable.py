"""Call tasks directly, and store a retry if the call fails.

    from beatstore import retryable

    notify = retryable(send_mail, max_retries=3, retry_delay=300)
    notify(user_id=7)

Invariants:
    * Arguments that can't be stored are refused before the task is called, so that a failed
      call can always be retried.
    * No exception is lost: it is raised, or logged together with the stored retry.

On failure: if the retry can't be stored, for example because the database is unavailable, the
task's own exception is raised, and the reason is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject

from beatstore.definition import fields
from beatstore.definition.calls import Call, make_call
from beatstore.definition.values import decoded
from beatstore.errors import InvalidEntryError
from beatstore.rules.retries import grown
from beatstore.store import Store
from beatstore.store.shared import store_of
from beatstore.types import Duration, SessionLike
from beatstore.types import Task as AnyTask

__all__ = ["Retryable", "StoredRetry", "retryable"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredRetry:
    """The result of a call that failed and will be retried. It is false.

    Attributes:
        name: the name of the stored one-shot entry.
        due_at: when the retry is due.
        error: the exception of the task.
        retries: the maximum number of retries.
    """

    name: str
    due_at: datetime | None
    error: Exception
    retries: int

    def __bool__(self) -> bool:
        return False


def retryable(
    task: AnyTask,
    *,
    max_retries: int = 3,
    retry_delay: Duration = 300,
    retry_backoff: float = 1,
    tags: Iterable[str] = (),
    store: Store | None = None,
    session: SessionLike | None = None,
) -> Retryable:
    """Return a callable that runs a task in this process, and stores a retry if it fails.

    Calling it returns the task's result. If the task raises, the callable logs the exception,
    stores the same call as a one-shot, which beat sends to a worker, and returns a
    `StoredRetry`. With `max_retries=0` it raises the exception. It also raises `Ignore` and
    `Reject`, which are not failures.

    Args:
        task: the task to call in this process, like `task(…)`.
        max_retries: the maximum number of retries, which workers run.
        retry_delay: seconds from the failure to the first retry.
        retry_backoff: multiplier for each further delay; capped at one day.
        tags: tags of the stored entries.
        store: the store for retries; None: the one from the settings of the task's app.
        session: the caller's session, to store retries in its transaction. If the task has
            made the session unusable, the exception is raised.

    Raises:
        InvalidEntryError: an argument can't be stored. The call also raises it, before it
            runs the task.
    """
    return Retryable(
        task,
        max_retries=max_retries,
        retry_delay=retry_delay,
        retry_backoff=retry_backoff,
        tags=tags,
        store=store,
        session=session,
    )


class Retryable:
    """A task that is called directly and retried by beat; see `retryable`."""

    def __init__(
        self,
        task: AnyTask,
        *,
        max_retries: int,
        retry_delay: Duration,
        retry_backoff: float,
        tags: Iterable[str],
        store: Store | None,
        session: SessionLike | None,
    ) -> None:
        if not isinstance(task, Task):
            raise InvalidEntryError("task", task, "a task that can be called here", "@app.task")
        self.task = task
        self.max_retries = fields.whole("max_retries", max_retries)
        self.retry_delay = fields.seconds("retry_delay", retry_delay)
        self.retry_backoff = fields.number("retry_backoff", retry_backoff, least=1)
        self.tags = fields.tags(tags)
        self._store = store
        self._session = session

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task with these arguments, and return its result or a `StoredRetry`."""
        store = self._store or store_of(self.task.app)
        # Made before the call, since the task may change its arguments.
        call = make_call(self.task, args, kwargs, allowed=store.settings.allowed_tasks)
        try:
            return self.task(*args, **kwargs)
        except (Ignore, Reject):
            raise
        except Exception as error:
            if not self.max_retries:
                raise
            try:
                stored = self._keep(store, call, error)
            except Exception:
                logger.exception("%s failed and its retry could not be stored", self._where())
                raise error from None
            logger.warning(
                "%s failed: %s: %s; stored up to %d retries as entry %r, the first due at %s",
                *(self._where(), type(error).__name__, error, stored.retries),
                *(stored.name, stored.due_at),
                exc_info=error,
            )
            return stored

    def __repr__(self) -> str:
        return f"<retryable {self.task.name}>"

    def _keep(self, store: Store, call: Call, error: Exception) -> StoredRetry:
        """Store the call as a one-shot."""
        failure = f"{type(error).__name__}: {error}".replace("\0", "\\0")
        failure = failure.encode(errors="backslashreplace").decode()
        entry = store.schedule(
            {
                "task": call.task,
                "args": decoded("args", call.args),
                "kwargs": decoded("kwargs", call.kwargs),
            },
            countdown=self.retry_delay,
            max_retries=self.max_retries - 1,
            retry_delay=grown(self.retry_delay, self.retry_backoff, 1),
            retry_backoff=self.retry_backoff,
            # A retry is still wanted after beat was down.
            misfire="coalesce",
            tags=self.tags,
            description=f"retry of a call of {self._where()} that failed with {failure[:500]}",
            session=self._session,
        )
        return StoredRetry(entry.name, entry.next_due_at, error, self.max_retries)

    def _where(self) -> str:
        """Return the path of the task's function."""
        run = self.task.run
        name = getattr(run, "__qualname__", self.task.name)
        return f"{getattr(run, '__module__', '')}.{name}".lstrip(".")
