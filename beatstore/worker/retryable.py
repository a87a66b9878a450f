"""Calls that are made at once, and stored for later when they fail.

    from beatstore import retryable

    notify = retryable(send_mail, max_retries=3, retry_delay=300)
    notify(user_id=7)

Invariants:
    * What could not be stored is refused before the task is called, so that a call that
      fails can always be made again.
    * An exception is never lost: it is raised, or logged with the retry that was stored.

On failure: if the retry can't be stored, since the database is away, the task's own
exception is raised, and logged with the reason.
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
from beatstore.store import Store
from beatstore.store.shared import store_of
from beatstore.types import Duration, SessionLike
from beatstore.types import Task as AnyTask

__all__ = ["Retryable", "StoredRetry", "retryable"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredRetry:
    """What a call returns that failed and will be retried; it is false.

    Attributes:
        name: of the one-shot entry that was stored.
        due_at: when it is due.
        error: what the task raised.
        retries: how many there will be at most.
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
    """Return a callable that runs a task at once, here, and stores its retry if it fails.

    Calling it returns the task's result. If the task raises, the exception is logged, the
    same call is stored as a one-shot that beat sends to a worker, and a `StoredRetry` is
    returned. With no retries left to store, the exception is raised. `Ignore` and `Reject`
    are no failures, and are raised.

    Args:
        task: a task; it is called in this process, as `task(…)` is.
        max_retries: how often the call is made again at most, by workers.
        retry_delay: seconds from the failure to the first retry.
        retry_backoff: each further delay is so many times the one before, up to a day.
        tags: words by which the stored entries are found.
        store: where retries are stored; None: as the settings of the task's app say.
        session: the caller's session, to store them in its transaction. One that the task
            has made unusable takes none, and then the exception is raised.

    Raises:
        InvalidEntryError: an argument can't be stored; here, and by the call, where it is
            raised before the task is called.
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
    """A task that is called at once, and retried by beat; see `retryable`."""

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
        # Made beforehand also because the task may change what it is given.
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
        said = f"{type(error).__name__}: {error}".replace("\0", "\\0")
        said = said.encode(errors="backslashreplace").decode()
        entry = store.schedule(
            {
                "task": call.task,
                "args": decoded("args", call.args),
                "kwargs": decoded("kwargs", call.kwargs),
            },
            countdown=self.retry_delay,
            max_retries=self.max_retries - 1,
            retry_delay=self.retry_delay * self.retry_backoff,
            retry_backoff=self.retry_backoff,
            # A retry is still wanted when beat was away.
            misfire="coalesce",
            tags=self.tags,
            description=f"retry of a call of {self._where()} that failed with {said[:500]}",
            session=self._session,
        )
        return StoredRetry(entry.name, entry.next_due_at, error, self.max_retries)

    def _where(self) -> str:
        """Return the path of the task's function."""
        run = self.task.run
        name = getattr(run, "__qualname__", self.task.name)
        return f"{getattr(run, '__module__', '')}.{name}".lstrip(".")
