"""Store tasks that are due far in the future as entries, not as messages with an eta.

A worker receives a message with an eta at once, and keeps it in memory. Redis delivers it again
every hour (the visibility timeout), RabbitMQ closes the connection after half an hour (the
consumer timeout), and a worker that is full of such messages receives no others.

Invariants:
    * The entry's name, its message and the caller's result have the same id.
    * A message that belongs to a running run goes to the broker, since the run waits for it.
    * A call that can't be stored raises, and is never sent to the broker instead. The only
      exception is a retry, since the worker would discard its message.

On failure: raises the errors of `Store.schedule`.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from datetime import datetime, timedelta
from numbers import Real
from typing import Any

from celery import Celery
from celery.utils import uuid
from celery.utils.time import maybe_iso8601, maybe_make_aware

from beatstore.appconf import given_settings, read_settings
from beatstore.config import PREFIX
from beatstore.definition.values import check_serializer, encoded
from beatstore.errors import BeatstoreError, EntryExistsError
from beatstore.headers import RUN_ID, run_id_in
from beatstore.rules.states import SPENT
from beatstore.store.shared import store_of
from beatstore.worker.canvas import disown, goes_on

__all__ = ["divert", "keep"]

logger = logging.getLogger(__name__)

#: Options that only make sense in one process, or describe one delivery.
_NOT_KEPT = frozenset(
    ("producer", "publisher", "connection", "router", "redelivered", "add_to_parent")
)

#: Options where None overrides the task's own value.
_CLEARED = ("expires", "time_limit", "soft_time_limit")

_thresholds: weakref.WeakKeyDictionary[Celery, float | None] = weakref.WeakKeyDictionary()


def divert(task: Any, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Any:
    """Store a call that is due later than `beatstore_eta_threshold` from now.

    Args:
        task: the task whose `apply_async` was called.
        args: its arguments.
        kwargs: its keyword arguments.
        options: all other arguments of `apply_async`.

    Returns:
        The result; None if the call must be sent to the broker.
    """
    app: Celery = task.app
    threshold = _threshold(app)
    if threshold is None or app.conf.task_always_eager or task.name.startswith("celery."):
        return None
    time = _time(options)
    if _ahead(app, time) <= threshold:
        return None
    current: Any = app.current_worker_task
    again = current is not None and current.request.id == options.get("task_id")
    in_run = current is not None and run_id_in(current.request) is not None
    if goes_on(current.request, options) if in_run else RUN_ID in (options.get("headers") or {}):
        return None
    given = {**options, "eta": None, "countdown": None, **time}
    if given.get("expires") is not None:
        given["expires"] = _expires(app, given["expires"])
    try:
        return keep(task, args, kwargs, given)
    except BeatstoreError as error:
        if not again:
            raise
        return _stored_before(task, str(options["task_id"]), error)


def keep(task: Any, args: Any, kwargs: Any, options: Mapping[str, Any], session: Any = None) -> Any:
    """Store a call, and return its result.

    Args:
        task: the task.
        args: its arguments.
        kwargs: its keyword arguments.
        options: the options of `apply_async`, with either `eta` or `countdown`.
        session: the caller's session, to join its transaction.
    """
    if task.typing and hasattr(task, "__header__"):
        task.__header__(*(args or ()), **(kwargs or {}))
    dump = getattr(task, "_dump_pydantic_arguments", None)
    if dump is not None and options.get("serializer") != "pickle":
        args, kwargs = dump(args, kwargs)
    app, parent = task.app, task.app.current_worker_task
    if parent and run_id_in(parent.request) is not None:
        options = _disowned(parent.request, options)
    found = _options(app, options)
    serializer = found.get("serializer") or task.serializer
    if serializer != "json":
        # Arguments that apply_async would refuse now must not fail in a year.
        check_serializer(serializer, encoded("args", args or ()), encoded("kwargs", kwargs or {}))
    if parent:
        _descend(app, parent.request, found)
    entry = store_of(app).schedule(
        {"task": task.name, "args": args or (), "kwargs": kwargs or {}, "options": found},
        # Like a waiting message, it is sent even if beat was down when it was due.
        misfire="coalesce",
        session=session,
    )
    result = task.AsyncResult(entry.name)
    result.ignored = found.get("ignore_result", task.ignore_result)
    if parent and options.get("add_to_parent", True):
        parent.add_trail(result)
    return result


def _disowned(request: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without the run in headers that a task has copied from its own."""
    given, headers = {**options}, {**(options.get("headers") or {})}
    disown(request, headers, (given,))
    return {**given, "headers": headers or None}


def _threshold(app: Celery) -> float | None:
    """Return the threshold in seconds; None if nothing is diverted."""
    try:
        return _thresholds[app]
    except KeyError:
        # Without the setting nothing is diverted, even if other settings are invalid.
        given = given_settings(app).get(f"{PREFIX}eta_threshold")
        found = None if given is None else read_settings(app).eta_threshold
        _thresholds[app] = found
        return found


def _time(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the eta or countdown that Celery would use, parsed as Celery does."""
    countdown, eta = options.get("countdown"), options.get("eta")
    if countdown:
        return {"countdown": float(countdown)} if isinstance(countdown, Real) else {}
    try:
        return {"eta": _instant(eta)} if eta else {}
    except (TypeError, ValueError, AttributeError):
        return {}  # Celery raises the error


def _ahead(app: Celery, time: Mapping[str, Any]) -> float:
    """Return how many seconds in the future a time is."""
    eta = time.get("eta")
    return float(time.get("countdown", 0)) if eta is None else (eta - app.now()).total_seconds()


def _expires(app: Celery, given: Any) -> Any:
    """Return when a message expires: celery counts seconds from the call, not from the eta."""
    if isinstance(given, Real):
        return app.now() + timedelta(seconds=float(given))
    try:
        return _instant(given)
    except (TypeError, ValueError, AttributeError):
        return given  # storing it raises, with the reason


def _instant(given: Any) -> datetime:
    """Parse an instant as a worker does: without a time zone it is in UTC."""
    at: Any = maybe_iso8601(given)
    return maybe_make_aware(at)


def _options(app: Celery, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options to store, including the task id."""
    found = {
        key: value
        for key, value in given.items()
        if key not in _NOT_KEPT and (key in _CLEARED or value not in (None, ""))
    }
    found.setdefault("task_id", uuid())
    queue = getattr(found.get("queue"), "name", None)
    if queue in app.amqp.queues:  # a queue given as an object, which beat knows by its name
        found["queue"] = queue
    return found


def _descend(app: Celery, request: Any, options: dict[str, Any]) -> None:
    """Set the parent ids that Celery would set on a call made by a task."""
    options.setdefault("root_id", request.root_id or request.id)
    options.setdefault("parent_id", request.id)
    priority = (request.delivery_info or {}).get("priority")
    if app.conf.task_inherit_parent_priority and priority is not None:
        options.setdefault("priority", priority)


def _stored_before(task: Any, task_id: str, error: BeatstoreError) -> Any:
    """Return the result of a retry that is stored already, or None to send it to the broker."""
    state = None
    if isinstance(error, EntryExistsError):
        try:
            state = store_of(task.app).get(task_id).state
        except BeatstoreError as second:
            error = second
    if state is None or state in SPENT:
        # That entry has ended, so this retry belongs to another message.
        logger.warning(
            "%s[%s]: sending the retry through the broker: %s", task.name, task_id, error
        )
        return None
    # The message was delivered twice, and retried before.
    logger.info("%s[%s]: the retry is already stored", task.name, task_id)
    return task.AsyncResult(task_id)
