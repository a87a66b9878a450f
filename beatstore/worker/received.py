"""The requests that the main process of a worker has received.

Two messages of one task id may be in one worker: the broker delivers a message again while the
first one waits or runs.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from math import inf
from typing import Any

from celery.worker import state as worker_state

__all__ = ["Received", "active_requests", "still_active"]

#: Requests of tasks that go on after a signal, though celery takes them for ended.
still_active: weakref.WeakSet[Any] = weakref.WeakSet()


class Received:
    """Requests by task id, for as long as celery keeps them."""

    def __init__(self) -> None:
        #: A set lives as long as one of its requests, which notes it.
        self._by_id: weakref.WeakValueDictionary[str, weakref.WeakSet[Any]] = (
            weakref.WeakValueDictionary()
        )

    def add(self, request: Any) -> None:
        """Keep a request."""
        request.noted_twins = twins = self._by_id.get(request.id, weakref.WeakSet())
        twins.add(request)
        self._by_id[request.id] = twins

    def get(self, task_id: Any) -> Any:
        """Return the request that celery means by a task id, or None.

        Of several it is that of the last retry; of two deliveries of one message, that which began
        first, since the other one was dropped, or ends later.
        """
        return min(_copy(self._by_id.get(task_id, ())), key=_rank, default=None)

    def is_held(self, task_id: Any) -> bool:
        """Return whether this worker executes a task, or is about to."""
        held = worker_state.reserved_requests, worker_state.active_requests, still_active
        return any(one in some for one in _copy(self._by_id.get(task_id, ())) for some in held)


def active_requests() -> tuple[Any, ...]:
    """Return the requests that this worker is executing."""
    return (*_copy(worker_state.active_requests), *_copy(still_active))


def _rank(request: Any) -> tuple[int, float]:
    retries = request.request_dict.get("retries") or 0
    return -retries, getattr(request, "time_start", None) or inf


def _copy(requests: Iterable[Any]) -> tuple[Any, ...]:
    for _ in range(10):
        try:
            return tuple(requests)
        except RuntimeError:  # changed by another thread meanwhile
            continue
    return ()
