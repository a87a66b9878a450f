"""Find out that a task class has sent nothing, since its message is already queued.

Two packages that lock tasks are known: celery-once and celery-singleton. They override
`apply_async`; any other task publishes its message, or raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from celery import states
from celery.result import EagerResult
from celery.signals import before_task_publish

__all__ = ["already_queued", "duplicate_reason", "recording_published"]

#: Errors that celery-once and celery-singleton raise for a duplicate.
_DUPLICATE = ("AlreadyQueued", "DuplicateTaskError")


def already_queued(task: Any, result: Any, published: Set[str]) -> str | None:
    """Return why a send that returned has sent nothing, or None if it sent a message.

    A task class may return anything, and give its messages ids of its own. Only two results are
    known to mean that nothing was sent: celery-once returns a rejected result without an id,
    and celery-singleton the result of the message that is already queued.

    Args:
        task: the task that was sent; None for a name that is not registered.
        result: what its `apply_async` returned.
        published: the ids of the messages that it published, as far as known.
    """
    if isinstance(result, EagerResult) and result.id is None:
        return "already queued" if result.state == states.REJECTED else None
    queued = getattr(result, "id", None)
    if queued is None or queued in published or isinstance(result, EagerResult):
        return None
    return f"already queued: {queued}" if _is_singleton(task.__class__) else None


def duplicate_reason(error: Exception) -> str | None:
    """Return the reason if an error means that the message is already queued, or None."""
    if type(error).__name__ not in _DUPLICATE:
        return None
    return f"already queued: {getattr(error, 'task_id', error)}"


@contextmanager
def recording_published(entry: Any) -> Iterator[None]:
    """Record the messages that are published while a task class sends by its own method.

    Their ids are stored on the entry. If the task class replaced the headers, the run's headers
    are added again.
    """
    headers_of_run = dict(entry.options["headers"])
    entry.published = set()

    def note(headers: Any = None, body: Any = None, **_: Any) -> None:
        protocol_1 = isinstance(body, dict)
        entry.published.add(body["id"] if protocol_1 else headers["id"])
        for name, value in headers_of_run.items():
            headers.setdefault(name, value)

    before_task_publish.connect(note, sender=str(entry.task), weak=False)
    try:
        yield
    finally:
        before_task_publish.disconnect(note, sender=str(entry.task))


@lru_cache(maxsize=1024)
def _is_singleton(kind: type[Any]) -> bool:
    """Return whether a task class comes from celery-singleton."""
    return any(one.__module__.partition(".")[0] == "celery_singleton" for one in kind.__mro__)
