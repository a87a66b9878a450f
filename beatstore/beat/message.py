"""Build one message, pass it to Celery, and return its outcome.

A registered task is sent by its own `apply_async`, so that its options and base class apply; a
canvas by its signature; any other name by `send_task`.

    it returned              `sent`, unless a package that locks tasks reported a duplicate
    it ran the task          `sent`, and the run has ended: eager tasks run in beat's process
    the message is invalid   `failed`: a retry can't help
    any other error          retried with increasing delays, and `failed` after the last retry
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.beat import ScheduleEntry
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.exceptions import SerializationError, SerializerNotInstalled

from beatstore import headers
from beatstore.beat.duplicates import already_queued, duplicate_reason, recording_published
from beatstore.beat.results import eager_ending, failed_eagerly
from beatstore.definition import allowed
from beatstore.definition.calls import Call, check_allowed
from beatstore.definition.values import copied, opened
from beatstore.discovery.beatschedule import evaluated
from beatstore.discovery.convert import celery_schedule
from beatstore.store.unknown_tasks import warn_of_tasks
from beatstore.tick.claims import Claim, Outcome
from beatstore.worker.canvas import CANVAS, canvas_of, check_backend, unfrozen
from beatstore.worker.task import Task as OwnTask

__all__ = [
    "MAX_TRIES",
    "MESSAGE_ERRORS",
    "RETRY_S",
    "BeatEntry",
    "is_message_error",
    "overrides_apply_async",
    "publish",
    "try_later",
    "without_results",
]

#: Seconds until a failed send is retried: the first delay and the maximum. Each delay is twice
#: the one before.
RETRY_S = 5.0
MAX_RETRY_S = 900.0

#: The number of attempts to send a message; the last is about 36 minutes after the first.
MAX_TRIES = 10

#: Errors of the message itself. All other errors may pass, and are retried.
MESSAGE_ERRORS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    struct.error,  # py-amqp: a property or header that AMQP has no room for
    SerializationError,
    SerializerNotInstalled,
)


class BeatEntry(ScheduleEntry):
    """The entry that Celery's hooks see while one message is sent.

    A schedule without a time zone is shown in `timezone`, the default zone. The scheduler's
    `apply_async` sets `tried`, and `result` or `error`; a result may be None.
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
        options["retry"] = False  # kombu would reconnect in the middle of a batch; beat tries again
        # A row written by hand may hold an eta or countdown; only the schedule sets the time.
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
        """Return the outcome of the message, after its batch was written."""
        error = self.error
        if error is None:
            reason = already_queued(self._task, self.result, self.published)
            if reason:
                return Outcome(self.claim, "skipped", reason)
            ending = eager_ending(self.claim.run_id, self.claim.task_id, self.result)
            return Outcome(self.claim, "sent", expires=self._expires(), ending=ending)
        if reason := duplicate_reason(error):
            return Outcome(self.claim, "skipped", reason)
        if is_message_error(error):
            return Outcome(self.claim, "failed", f"{type(error).__name__}: {error}")
        return try_later(self.claim, error)

    @property
    def _task(self) -> Any:
        app: Any = self.app
        return app.tasks.get(self.task)

    @property
    def given_expires(self) -> Any:
        """Return what the entry or its task says of `expires`.

        As Celery does: None in the entry's options says that the task's own does not count.
        """
        return (self.options or {}).get("expires", getattr(self._task, "expires", None))

    def _expires(self) -> float | datetime | None:
        """Return when the message expires: seconds from now, or an instant."""
        app: Any = self.app
        given = self.given_expires
        if isinstance(given, str):
            given = maybe_iso8601(given)
        if isinstance(given, datetime):
            return maybe_make_aware(given, app.timezone)
        return given if isinstance(given, int | float) and given >= 0 else None


def publish(
    app: Any, entry: BeatEntry, producer: Any, patterns: Sequence[str] | None = None
) -> Any:
    """Pass one message to Celery, after all hooks.

    Args:
        app: the task's app.
        entry: the message.
        producer: publishes the message.
        patterns: patterns of allowed task names; None allows all.
    """
    try:
        if overrides_apply_async(app, entry.claim):
            with recording_published(entry):
                return _publish(app, entry, producer, patterns)
        return _publish(app, entry, producer, patterns)
    except Exception as error:
        if not (app.conf.task_always_eager and entry.task in app.tasks):
            raise
        # The task ran, and its own error may look like a broker error.
        return failed_eagerly(entry.claim.task_id, error)


def _publish(app: Any, entry: BeatEntry, producer: Any, patterns: Sequence[str] | None) -> Any:
    name = str(entry.task)
    given, named, options = opened(entry.args or (), entry.kwargs or {}, entry.options or {})
    args = [evaluated(app, value) for value in given]
    kwargs = {key: evaluated(app, value) for key, value in named.items()}
    # Checked at each send, since rows and the setting can change.
    allowed.check_headers(name, kwargs, entry.claim.options, ours=False)
    if patterns is not None:
        check_allowed(Call(name, args, kwargs, options), patterns)
    if name in CANVAS:
        if entry.claim.options.get("task_id") != options.get("task_id"):
            kwargs = unfrozen(name, kwargs)
        canvas = canvas_of(name, args, kwargs, options.pop("headers", {}), app)
        if "headers" in canvas.options:  # a map: celery 5.6 sends it without its options
            options["headers"] = canvas.options["headers"]
        check_backend(app.backend, canvas)
        return canvas.apply_async(producer=producer, **options)
    task = app.tasks.get(name)
    if task is not None:
        return task.apply_async(args, kwargs, producer=producer, **options)
    warn_of_tasks(app, [name], imported=True)
    return app.send_task(name, args, kwargs, producer=producer, **options)


def overrides_apply_async(app: Any, claim: Claim) -> bool:
    """Return whether the task class overrides `apply_async` (e.g. to lock).

    Such a class must learn at once whether the broker accepted its message. If it were called
    again later, it would reject the message as a duplicate of its own.
    """
    task: Any = app.tasks.get(claim.task)
    return task is not None and _overrides_apply_async(task.__class__)


@lru_cache(maxsize=1024)
def _overrides_apply_async(kind: type[Any]) -> bool:
    # beatstore.Task only handles a far eta, which beat never passes.
    own = (one for one in kind.__mro__ if "apply_async" in vars(one) and one is not OwnTask)
    return next(own) is not Task


@contextmanager
def without_results(app: Any) -> Iterator[None]:
    """Stop Celery from preparing for results, which nobody in beat waits for.

    An unavailable result backend would delay each message until its retries end.
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
            # Another beat in this process may have been here meanwhile, if they share the backend.
            vars(backend).pop(name, None)


def headers_of(claim: Claim) -> dict[str, Any]:
    """Return the headers that identify the run to workers and monitors."""
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


# -- outcomes ------------------------------------------------------------


def is_message_error(error: BaseException | None) -> bool:
    """Return whether an error is in the message itself, so that a retry can't help."""
    # py-amqp raises this for a header without an AMQP type, and for a name that is too long.
    return isinstance(error, MESSAGE_ERRORS) or type(error).__name__ == "FrameSyntaxError"


def try_later(claim: Claim, error: BaseException) -> Outcome:
    """Return the outcome of a send that failed and is retried, or failed for the last time."""
    tries = claim.tries + 1
    why = f"last with {type(error).__name__}: {error}"
    if tries >= MAX_TRIES:
        return Outcome(claim, "failed", f"sending failed {tries} times, {why}", tries=tries)
    distance = min(RETRY_S * 2.0**claim.tries, MAX_RETRY_S)
    return Outcome(claim, "claimed", f"sending failed, {why}", distance, tries)
