"""Translate the results of Celery into the states and endings of runs."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import replace
from socket import gethostname
from typing import Any

from celery import states
from celery.result import EagerResult, ResultSet

from beatstore.tick.claims import Ending

__all__ = ["ENDED", "eager_ending", "failed_eagerly"]

#: The run state for each Celery state.
ENDED = {
    states.SUCCESS: "succeeded",
    states.FAILURE: "failed",
    states.REVOKED: "cancelled",
    states.REJECTED: "failed",
    states.IGNORED: "cancelled",
}


def failed_eagerly(task_id: str, error: Exception) -> EagerResult[Any]:
    """Return the result of an eager task or canvas that raised."""
    return EagerResult(task_id, error, states.FAILURE, traceback=traceback.format_exc())


def eager_ending(run_id: int, task_id: str, result: Any) -> Ending | None:
    """Return how a run of eager tasks ended, or None if messages were sent."""
    results = list(_flat(result))
    if not results or not all(isinstance(one, EagerResult) and one.id for one in results):
        return None
    ending = Ending(
        run_id, task_id, "succeeded", "ran eagerly in beat", worker=f"beat@{gethostname()}"
    )
    for one in results:
        state = ENDED.get(one.state, "failed")
        if state == "failed":
            error = f"{type(one.result).__name__}: {one.result}"
            trace = str(one.traceback) if one.traceback else None
            return replace(ending, state=state, error=error, traceback=trace)
        if state != "succeeded":
            return replace(ending, state=state, reason=f"{ending.reason}: {one.state}")
    return ending


def _flat(result: Any) -> Iterator[Any]:
    if isinstance(result, ResultSet):
        for one in result.results or ():
            yield from _flat(one)
    elif result is not None:
        yield result
