"""Whether another message of a task comes, and when; and when this one was accepted.

Celery makes the headers of a message attributes of its request. So what is noted on a request has
names that no header is likely to have: they begin with `noted_`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from math import inf
from typing import Any

from celery.exceptions import Retry

from beatstore.definition.allowed import OURS
from beatstore.headers import GOES_ON, RUNNING

__all__ = [
    "began_at",
    "comes_again",
    "facts_of",
    "is_first",
    "is_in_vain",
    "is_retry_of",
    "message_of",
    "next_times",
    "note_times",
    "ours_in",
]


def message_of(request: Any) -> tuple[Any, int]:
    """Return what tells the messages of a task and of its retries apart."""
    return request.get("id"), request.get("retries") or 0


def is_first(request: Any) -> bool:
    """Return whether a message is the first of its task: no retry, and none that replaces it."""
    return not request.get("retries") and not request.get(GOES_ON)


def is_retry_of(request: Any, facts: Mapping[str, Any]) -> bool:
    """Return whether a message, of which the facts are given, is the retry of a task."""
    own, retries = message_of(request)
    return bool(facts.get("id") == own and (facts.get("retries") or 0) > retries)


def facts_of(headers: Mapping[str, Any], body: Any) -> Mapping[str, Any]:
    """Return where a message says what it is: with `task_protocol = 1` that is its body."""
    return body if isinstance(body, Mapping) else headers


def ours_in(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's headers that all of its messages have."""
    ours = {name: value for name, value in request.items() if str(name).startswith(OURS)}
    return {name: ours[name] for name in ours if name not in (GOES_ON, RUNNING)}


def note_times(request: Any, facts: Mapping[str, Any]) -> float:
    """Note until when the messages of a run that its task sends wait, and when they expire.

    Returns:
        Until when this one waits, on the monotonic clock.
    """
    now = time.monotonic()
    until = now + (_seconds_until(facts.get("eta")) or 0.0)
    request.noted_wait = max(request.get("noted_wait") or 0.0, until)
    expires_in = _seconds_until(facts.get("expires"))
    expires_at = inf if expires_in is None else now + expires_in
    request.noted_expiry = max(request.get("noted_expiry") or 0.0, expires_at)
    return until


def next_times(request: Any, at: float, delay: float) -> dict[str, Any]:
    """Return what `note_times` has noted, as a report says it: in seconds after `at`.

    Args:
        request: the task's request.
        at: the time of the report, on the monotonic clock.
        delay: for how many seconds the run's next message waits, if the request does not know.
    """
    expires_at = request.get("noted_expiry")
    return {
        "delay": max(delay, (request.get("noted_wait") or 0.0) - at),
        "expires": None if expires_at is None else expires_at - at,
    }


def began_at(request: Any, state: str) -> float | None:
    """Return when a task began of which the main process reports a state; None if nobody knows.

    Its child may have begun it a moment later, and have said so. So this is no answer to the
    question which of two starts is meant that its message is in the queue again: what starts after
    the retry was sent is the retry.

    Args:
        request: the main process's; None if it has none.
        state: the state that is reported.
    """
    if state == "sent":
        return getattr(request, "retried_at", None)
    accepted = getattr(request, "time_start", None)
    return None if not accepted else time.monotonic() - max(0.0, time.time() - accepted)


def comes_again(task: Any) -> bool:
    """Return whether the broker redelivers the message of a task that hit its time limit."""
    acknowledged = getattr(task, "acks_on_timeout", None)
    if acknowledged is None:  # celery before 5.7
        acknowledged = task.acks_on_failure_or_timeout
    return bool(task.acks_late and not acknowledged)


def is_in_vain(request: Any, reason: Any, retried: tuple[tuple[Any, int], float] | None) -> bool:
    """Return whether a task has raised a `Retry` for which no message was sent.

    `self.retry()` raises one in a task that was called by another one, like a function. Any code
    can raise it, too.

    Args:
        request: the task's request. Where a child was lost, the worker's main process sends the
            retry, and has no start time in its request.
        reason: the exception.
        retried: the message whose retry this thread has sent last, and until when that waits.
    """
    if not isinstance(reason, Retry) or reason.sig is not None:  # type: ignore[attr-defined]
        return False
    sent = retried is not None and retried[0] == message_of(request)
    return not sent and request.get("noted_start") is not None


def _seconds_until(given: Any) -> float | None:
    """Return the seconds until a message's eta or expiry, by this machine's clock, or None."""
    try:
        at = datetime.fromisoformat(given)
        return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
