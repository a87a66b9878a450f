"""What became of one message: what the end of `apply_async`, or its error, means.

it returned          `sent`, unless a package that locks tasks answered for a duplicate
it ran the task      `sent`, and the run has ended: eager tasks run in beat's process
no message of it     `failed`: sending again can't mend that
any other error      tried again at growing distances, and `failed` in the end
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from socket import gethostname
from typing import Any

from celery import states
from celery.result import EagerResult, ResultSet
from celery.signals import before_task_publish
from kombu.exceptions import SerializationError, SerializerNotInstalled

from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.endings import Ending

__all__ = [
    "ENDED",
    "OF_THE_MESSAGE",
    "RETRY",
    "TRIES",
    "duplicate",
    "eager_ending",
    "failed_eagerly",
    "heard",
    "of_the_message",
    "taken_over",
    "try_later",
]

#: Seconds until a send that failed for an unknown reason is tried again, the first time
#: and at most: each distance is twice the one before.
RETRY, LONGEST = 5.0, 900.0

#: How often a message is tried, in all; the last time is some 36 minutes after the first.
TRIES = 10

#: What celery's states mean for a run.
ENDED = {
    states.SUCCESS: "succeeded",
    states.FAILURE: "failed",
    states.REVOKED: "cancelled",
    states.REJECTED: "failed",
    states.IGNORED: "cancelled",
}

#: Errors of the message itself. Everything else may pass, and is tried again.
OF_THE_MESSAGE = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    struct.error,  # py-amqp: a property or header that AMQP has no room for
    SerializationError,
    SerializerNotInstalled,
)

#: What packages that lock tasks raise for a duplicate: celery-once, celery-singleton.
_DUPLICATE = ("AlreadyQueued", "DuplicateTaskError")


def of_the_message(error: BaseException | None) -> bool:
    """Say whether an error is one of the message itself, which sending again can't mend."""
    # py-amqp takes a header that AMQP has no type for, or a name too long, for a broken frame.
    return isinstance(error, OF_THE_MESSAGE) or type(error).__name__ == "FrameSyntaxError"


def taken_over(task: Any, result: Any, published: Set[str]) -> str | None:
    """Say why a send that returned has sent nothing, or None if it did send.

    A task's class may return what it likes, and give its messages ids of its own. Only two
    answers are known to stand for no message: celery-once gives a rejected result without
    an id, and celery-singleton the result of the message that is queued already.

    Args:
        task: whose `apply_async` it was; None for a name that is not registered.
        result: what that returned.
        published: the ids of the messages that were published meanwhile, as far as heard.
    """
    if isinstance(result, EagerResult) and result.id is None:
        return "already queued" if result.state == states.REJECTED else None
    queued = getattr(result, "id", None)
    if queued is None or queued in published or isinstance(result, EagerResult):
        return None
    return f"already queued: {queued}" if _is_singleton(task.__class__) else None


def duplicate(error: Exception) -> str | None:
    """Say of an error that it stands for a message that is queued already, or None."""
    if type(error).__name__ not in _DUPLICATE:
        return None
    return f"already queued: {getattr(error, 'task_id', error)}"


@lru_cache(maxsize=1024)
def _is_singleton(kind: type[Any]) -> bool:
    """Say whether a class of tasks is one of celery-singleton's."""
    return any(one.__module__.partition(".")[0] == "celery_singleton" for one in kind.__mro__)


@contextmanager
def heard(entry: Any) -> Iterator[None]:
    """Hear what is published while a task of its own way to send is sent.

    The ids of the messages are kept on the entry, and a message of its task whose headers
    the task's class has replaced gets those of the run back.
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


def try_later(claim: Claim, error: BaseException) -> Outcome:
    """Return the outcome of a send that failed for a reason that may pass."""
    tries = claim.tries + 1
    why = f"last with {type(error).__name__}: {error}"
    if tries >= TRIES:
        return Outcome(claim, "failed", f"sending failed {tries} times, {why}", tries=tries)
    distance = min(RETRY * 2.0**claim.tries, LONGEST)
    return Outcome(claim, "claimed", f"sending failed, {why}", distance, tries)


# -- tasks that ran in beat's own process --------------------------------------------------


def failed_eagerly(task_id: str, error: Exception) -> EagerResult[Any]:
    """Return the result of an eager task or canvas of which only the error came out."""
    return EagerResult(task_id, error, states.FAILURE, traceback=traceback.format_exc())


def eager_ending(run_id: int, task_id: str, result: Any) -> Ending | None:
    """Return how a run ended whose tasks have all run, or None where they are messages."""
    results = list(_flat(result))
    if not results or not all(isinstance(one, EagerResult) and one.id for one in results):
        return None
    ending = Ending(
        run_id, task_id, "succeeded", "ran eagerly, in beat", worker=f"beat@{gethostname()}"
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
