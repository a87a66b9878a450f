"""One message: what it is made of, how it is handed to celery, and what became of it.

A registered task is sent by its own `apply_async`, so that its options and its base class
count; a canvas by its signature; any other name by `send_task`.

    it returned          `sent`, unless a package that locks tasks answered for a duplicate
    it ran the task      `sent`, and the run has ended: eager tasks run in beat's process
    no message of it     `failed`: sending again can't mend that
    any other error      tried again at growing distances, and `failed` in the end
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from socket import gethostname
from typing import Any

from celery import Celery, states
from celery.app.task import Task
from celery.beat import ScheduleEntry
from celery.canvas import _chain, chord, group
from celery.result import EagerResult, ResultSet
from celery.signals import before_task_publish
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.exceptions import SerializationError, SerializerNotInstalled

from beatstore import headers
from beatstore.definition import allowed
from beatstore.definition.calls import Call, check_allowed
from beatstore.definition.values import copied, opened
from beatstore.discovery.beatschedule import evaluated
from beatstore.discovery.convert import celery_schedule
from beatstore.store.strangers import warn_of_tasks
from beatstore.tick.claims import Claim, Ending, Outcome
from beatstore.worker.canvas import CANVAS, canvas_of, thawed
from beatstore.worker.task import Task as OwnTask

__all__ = [
    "ENDED",
    "MAX_TRIES",
    "OF_THE_MESSAGE",
    "RETRY_S",
    "BeatEntry",
    "has_own_way",
    "is_of_the_message",
    "publish",
    "try_later",
    "without_results",
]

#: Seconds until a send that failed for an unknown reason is tried again, the first time
#: and at most: each distance is twice the one before.
RETRY_S = 5.0
MAX_RETRY_S = 900.0

#: How often a message is tried, in all; the last time is some 36 minutes after the first.
MAX_TRIES = 10

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


class BeatEntry(ScheduleEntry):
    """What the hooks around celery's scheduler are shown of one send.

    A schedule without a zone is shown in `timezone`, the default of entries that name none.
    `tried` is set by the scheduler's `apply_async`, with what it returned or raised: a
    result may well be None.
    """

    tried = False
    result: Any = None
    error: Exception | None = None
    published: Set[str] = frozenset()

    def __init__(self, claim: Claim, app: Celery, timezone: str | None = None) -> None:
        options = copied(claim.options)
        given = (options.get("headers") or {}).items()
        own = {name: value for name, value in given if not name.startswith(allowed.OURS)}
        options["headers"] = {**own, **headers_of(claim)}
        options["task_id"] = claim.task_id
        options.setdefault("retry", False)
        # A row written by hand may hold a time of sending; the schedule's is the only one.
        for time_of_sending in ("eta", "countdown"):
            options.pop(time_of_sending, None)
        super().__init__(
            name=claim.name,
            task=claim.task,
            last_run_at=claim.due_at,
            schedule=celery_schedule(claim.kind, claim.spec, claim.timezone or timezone),
            args=tuple(claim.args),
            kwargs=dict(claim.kwargs),
            options=options,
            app=app,
        )
        self.claim = claim

    def outcome(self) -> Outcome:
        """Say what became of the message, once its batch is written."""
        error = self.error
        if error is None:
            reason = _taken_over(self._task, self.result, self.published)
            if reason:
                return Outcome(self.claim, "skipped", reason)
            ending = _eager_ending(self.claim.run_id, self.claim.task_id, self.result)
            return Outcome(self.claim, "sent", expires=self._expires(), ending=ending)
        if reason := _duplicate(error):
            return Outcome(self.claim, "skipped", reason)
        if is_of_the_message(error):
            return Outcome(self.claim, "failed", f"{type(error).__name__}: {error}")
        return try_later(self.claim, error)

    @property
    def _task(self) -> Any:
        app: Any = self.app
        return app.tasks.get(self.task)

    def _expires(self) -> float | datetime | None:
        """Return when the message is dropped: in seconds from now, or an instant."""
        app: Any = self.app
        given = (self.options or {}).get("expires")
        if given is None:
            given = getattr(self._task, "expires", None)
        if isinstance(given, str):
            given = maybe_iso8601(given)
        if isinstance(given, datetime):
            return maybe_make_aware(given, app.timezone)
        return given if isinstance(given, int | float) and given >= 0 else None


def publish(
    app: Any, entry: BeatEntry, producer: Any, patterns: Sequence[str] | None = None
) -> Any:
    """Hand one message to celery, after all hooks.

    Args:
        app: whose task it is.
        entry: the message.
        producer: publishes it.
        patterns: of the names of tasks that are allowed; None allows all.
    """
    try:
        if has_own_way(app, entry.claim):
            with _heard(entry):
                return _publish(app, entry, producer, patterns)
        return _publish(app, entry, producer, patterns)
    except Exception as error:
        if not (app.conf.task_always_eager and entry.task in app.tasks):
            raise
        # The task ran, and its own error may look like one of the broker's.
        return _failed_eagerly(entry.claim.task_id, error)


def _publish(app: Any, entry: BeatEntry, producer: Any, patterns: Sequence[str] | None) -> Any:
    name = str(entry.task)
    given, named, options = opened(entry.args or (), entry.kwargs or {}, entry.options or {})
    args = [evaluated(app, value) for value in given]
    kwargs = {key: evaluated(app, value) for key, value in named.items()}
    # Asked at each send: rows change, and so does the setting.
    allowed.check_headers(name, kwargs, entry.claim.options, ours=False)
    if patterns is not None:
        check_allowed(Call(name, args, kwargs, options), patterns)
    if name in CANVAS:
        if entry.claim.options.get("task_id") != options.get("task_id"):
            kwargs = thawed(name, kwargs)
        canvas = canvas_of(name, args, kwargs, options.pop("headers", {}), app)
        if "headers" in canvas.options:  # a map: celery 5.6 sends it without its options
            options["headers"] = canvas.options["headers"]
        _check_backend(app.backend, canvas)
        return canvas.apply_async(producer=producer, **options)
    task = app.tasks.get(name)
    if task is not None:
        return task.apply_async(args, kwargs, producer=producer, **options)
    warn_of_tasks(app, [name], imported=True)
    return app.send_task(name, args, kwargs, producer=producer, **options)


def _check_backend(backend: Any, canvas: Any) -> None:
    """Raise if a canvas begins with a chord, and the Redis that is to count it is away.

    celery writes its size there after all but one of its tasks are sent, so that they would
    be sent at each try.
    """
    first = canvas.tasks[0] if isinstance(canvas, _chain) and canvas.tasks else canvas
    # A group with something after it is a chord, once it is sent.
    counted = isinstance(first, chord) or (isinstance(first, group) and first is not canvas)
    if counted and hasattr(backend, "ensure") and hasattr(backend.client, "ping"):
        backend.ensure(backend.client.ping, ())


def has_own_way(app: Any, claim: Claim) -> bool:
    """Say whether the task's class overrides `apply_async`, to lock for example.

    Such a class must learn at once whether its message was taken. If it learned that later
    and were asked again, it would take the message for a duplicate of its own.
    """
    task: Any = app.tasks.get(claim.task)
    return task is not None and _sends_itself(task.__class__)


@lru_cache(maxsize=1024)
def _sends_itself(kind: type[Any]) -> bool:
    # beatstore.Task only adds what becomes of an eta, which beat never gives.
    own = (one for one in kind.__mro__ if "apply_async" in vars(one) and one is not OwnTask)
    return next(own) is not Task


@contextmanager
def without_results(app: Any) -> Iterator[None]:
    """Keep celery from preparing for results, which nobody in beat waits for.

    A result backend that is away would hold up each message for as long as its retries last.
    """
    backend = app.backend
    own: dict[str, Any] = {
        "on_task_call": lambda producer, task_id: {},
        "add_pending_result": lambda result, *args, **kwargs: result,  # of groups
    }
    if hasattr(backend, "ensure"):  # of Redis: the size of a chord is written when it is sent
        own["ensure"] = partial(backend.ensure, max_retries=1, interval_start=0)
    vars(backend).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(backend)[name]


def headers_of(claim: Claim) -> dict[str, Any]:
    """Return the headers by which a worker, or a monitor, knows the run."""
    made: dict[str, Any] = {
        "celery_beat_task": True,
        "periodic_task_name": claim.name,
        headers.ENTRY_NAME: claim.name,
        headers.RUN_ID: claim.run_id,
        headers.TASK_ID: claim.task_id,
        headers.DUE_AT: claim.due_at.isoformat(),
        headers.ATTEMPT: claim.attempt,
    }
    if claim.first_missed_at is not None:
        made[headers.FIRST_MISSED_AT] = claim.first_missed_at.isoformat()
        made[headers.MISSED_COUNT] = claim.missed_count
    return made


# -- what became of it ------------------------------------------------------------


def is_of_the_message(error: BaseException | None) -> bool:
    """Say whether an error is one of the message itself, which sending again can't mend."""
    # py-amqp takes a header that AMQP has no type for, or a name too long, for a broken frame.
    return isinstance(error, OF_THE_MESSAGE) or type(error).__name__ == "FrameSyntaxError"


def _taken_over(task: Any, result: Any, published: Set[str]) -> str | None:
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


def _duplicate(error: Exception) -> str | None:
    """Say of an error that it stands for a message that is queued already, or None."""
    if type(error).__name__ not in _DUPLICATE:
        return None
    return f"already queued: {getattr(error, 'task_id', error)}"


@lru_cache(maxsize=1024)
def _is_singleton(kind: type[Any]) -> bool:
    """Say whether a class of tasks is one of celery-singleton's."""
    return any(one.__module__.partition(".")[0] == "celery_singleton" for one in kind.__mro__)


@contextmanager
def _heard(entry: Any) -> Iterator[None]:
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
    if tries >= MAX_TRIES:
        return Outcome(claim, "failed", f"sending failed {tries} times, {why}", tries=tries)
    distance = min(RETRY_S * 2.0**claim.tries, MAX_RETRY_S)
    return Outcome(claim, "claimed", f"sending failed, {why}", distance, tries)


# -- tasks that ran in beat's own process --------------------------------------------------


def _failed_eagerly(task_id: str, error: Exception) -> EagerResult[Any]:
    """Return the result of an eager task or canvas of which only the error came out."""
    return EagerResult(task_id, error, states.FAILURE, traceback=traceback.format_exc())


def _eager_ending(run_id: int, task_id: str, result: Any) -> Ending | None:
    """Return how a run ended whose tasks have all run, or None where they are messages."""
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
