"""One message: what it is made of, and how it is handed to celery.

A registered task is sent by its own `apply_async`, so that its options and its base class
count; a canvas by its signature; any other name by `send_task`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

from celery import Celery
from celery.app.task import Task
from celery.beat import ScheduleEntry
from celery.canvas import _chain, chord, group
from celery.utils.time import maybe_iso8601, maybe_make_aware

from beatstore import headers
from beatstore.beat import outcomes
from beatstore.definition import allowed
from beatstore.definition.calls import Call, check_allowed
from beatstore.definition.values import copied, opened
from beatstore.discovery.beatschedule import evaluated
from beatstore.discovery.convert import celery_schedule
from beatstore.store.strangers import warn_of_tasks
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.endings import Ending
from beatstore.worker.canvas import CANVAS, canvas_of, thawed
from beatstore.worker.task import Task as OwnTask

__all__ = ["BeatEntry", "has_own_way", "publish", "without_results"]


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
            reason = outcomes.taken_over(self._task, self.result, self.published)
            if reason:
                return Outcome(self.claim, "skipped", reason)
            return Outcome(self.claim, "sent", expires=self._expires())
        if reason := outcomes.duplicate(error):
            return Outcome(self.claim, "skipped", reason)
        if outcomes.of_the_message(error):
            return Outcome(self.claim, "failed", f"{type(error).__name__}: {error}")
        return outcomes.try_later(self.claim, error)

    @property
    def _task(self) -> Any:
        app: Any = self.app
        return app.tasks.get(self.task)

    def ending(self) -> Ending | None:
        """Return how the run has ended, if its task ran while it was sent."""
        return outcomes.eager_ending(self.claim.run_id, self.claim.task_id, self.result)

    def _expires(self) -> float | datetime | None:
        """Return when the message is dropped: so many seconds from now, or an instant."""
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
    """Hand one message to celery: the end of the road through the hooks.

    Args:
        app: whose task it is.
        entry: the message.
        producer: publishes it.
        patterns: of the names of tasks that are allowed; None allows all.
    """
    try:
        if has_own_way(app, entry.claim):
            with outcomes.heard(entry):
                return _publish(app, entry, producer, patterns)
        return _publish(app, entry, producer, patterns)
    except Exception as error:
        if not (app.conf.task_always_eager and entry.task in app.tasks):
            raise
        # The task ran, and its own error may look like one of the broker's.
        return outcomes.failed_eagerly(entry.claim.task_id, error)


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
    """Say whether a task's class sends in a way of its own, such as with a lock.

    It has to see at once whether its message was taken: told later, and asked again,
    it would take the message for its own duplicate.
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
