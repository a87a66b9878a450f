"""Report the states of runs from workers: `setup(app)` and Celery's signals.

    task_prerun                      started
    task_success, task_failure       succeeded, failed
    task_retry, Reject(requeue)      sent: the message is with the broker again
    Ignore, revoked, expired         cancelled
    unknown, malformed, Reject       failed

Facts about celery that shape this file:
    * With prefork, the signals of the first three lines are sent in a child. If a run ends
      outside its task (revoked, expired, a hard time limit, a killed child), the signal is sent
      in the main process, without the request. So received requests are kept, weakly.
    * With late acknowledgement, a message is acknowledged after `task_postrun`.
    * The canvas that replaces a task ends with the task's id, and has none of its headers.
    * The state in `task_postrun` is not final (storing the result may still fail), and None when
      the process ends. `task_success` is final.

Invariants:
    * Only messages with the id of a run are handled, and only of apps that were set up.
    * A task waits for the database twice, at most `beatstore_report_wait` seconds each. Handlers
      outside a task do not wait, and neither does the end of a short task whose message is
      acknowledged already.

On failure: see `beatstore.worker.reporter`.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from celery import Celery, current_task, signals
from celery.exceptions import Ignore, Reject, TimeLimitExceeded, WorkerShutdown, WorkerTerminate

from beatstore.appconf import know
from beatstore.headers import GOES_ON, RUN_ID, RUNNING
from beatstore.tick.reports import Report
from beatstore.worker.canvas import follow
from beatstore.worker.tracker import Tracker, active_requests, origin_of

__all__ = ["refusal", "setup"]

#: Tasks that took less than this, in seconds, do not wait at their end: the wait could take longer
#: than the task.
SHORT = 0.1


def setup(app: Celery) -> None:
    """Let the workers of `app` report the states of beatstore's runs.

    Call it in the module that creates the app; further calls change nothing. It does not
    connect: the first report reads the settings.
    """
    real: Celery = getattr(app, "_get_current_object", lambda: app)()
    if real in _trackers:
        return
    _trackers[real] = Tracker(real)
    know(real)
    for name, receiver in _RECEIVERS.items():
        getattr(signals, name).connect(receiver, weak=False, dispatch_uid=f"beatstore.{name}")


def refusal(task: Any) -> str | None:
    """Ask whether the run of the task's current message may start: the start-once guard.

    Returns:
        Why it must not start; None if it may, if the message belongs to no run, or if the
        database does not answer in time.
    """
    request = task.request
    origin, tracker = origin_of(request), _trackers.get(task.app)
    if origin is None or tracker is None or request.is_eager or origin.part is not None:
        return None  # the tasks of a canvas are many messages of one run
    at = _begin(request)
    report = Report(origin, "started", at, str(request.hostname))
    info = request.delivery_info or {}
    redelivered = task.acks_late and info.get("redelivered") and not request.get(RUNNING)
    again = bool(request.retries or redelivered or request.get(GOES_ON))
    answer = tracker.reporter.ask(report, again=again, wait=tracker.wait_s)
    request.refused = answer is not None
    return answer


# -- signal handlers ------------------------------------------------------------------


def _on_received(*, sender: Any, request: Any, **_: Any) -> None:
    """Keep the request, and tell the child if this worker runs an earlier message of the run."""
    origin = origin_of(request.request_dict)
    if origin is None or sender.app not in _trackers:
        return
    if any(origin_of(one.request_dict) == origin for one in active_requests()):
        request.request_dict[RUNNING] = True
    _received[request.id] = request


def _on_prerun(*, sender: Any, **_: Any) -> None:
    request = sender.request
    origin = origin_of(request)
    if origin is None or request.is_eager:
        return
    at = _begin(request)
    asked = origin.part is None and getattr(sender, "starts_once", False)
    if not asked:  # otherwise the guard reports it
        _report(sender.app, request, "started", at=at)


def on_publish(*, sender: Any, headers: dict[str, Any], body: Any = None, **_: Any) -> None:
    """Continue a run in the message that replaces its task, and note the message's eta."""
    task: Any = current_task
    if not task or headers is None or task.app not in _trackers:
        return
    request = task.request
    origin = origin_of(request)
    if origin is None or request.is_eager:
        return
    how = None
    if RUN_ID not in headers:
        given = request.headers or {}
        ours = {key: given[key] for key in given if key.startswith("beatstore_")}
        how = follow(request, origin.part, headers, body, ours)
    sent = origin_of(headers)
    if sent is None or sent[:2] != origin[:2]:
        return
    until = time.monotonic() + _ahead(headers.get("eta"))
    request.waits_until = max(request.get("waits_until") or 0.0, until)
    if how == "replaced" and not request.get("went_on"):
        # Reported first, or the next task might start before.
        _report(task.app, request, "sent", reason=f"continued by {sender}")
        request.went_on = True
    if how == "replaced" and sent.part is None:
        headers[GOES_ON] = True


def _on_success(*, sender: Any, **_: Any) -> None:
    _report(sender.app, sender.request, "succeeded", acknowledged=not sender.acks_late)


def _on_failure(
    *, sender: Any, task_id: str, exception: BaseException, einfo: Any = None, **_: Any
) -> None:
    if isinstance(exception, Reject):
        return  # postrun has reported it already
    request = _request_of(sender, task_id)
    if isinstance(exception, TimeLimitExceeded) and _comes_again(sender):
        _report(sender.app, request, "sent", reason=f"put back in the queue: {exception!r}")
        return
    acknowledged = not sender.acks_late
    _report(sender.app, request, "failed", error=exception, einfo=einfo, acknowledged=acknowledged)


def _on_retry(*, sender: Any, request: Any, reason: Any = None, **_: Any) -> None:
    why = "retried by the task" if reason is not None else "put back in the queue"
    _report(sender.app, request, "sent", reason=f"{why}: {reason}" if reason else why)


def _on_postrun(*, sender: Any, state: str | None = None, retval: Any = None, **_: Any) -> None:
    request, tracker = sender.request, _trackers.get(sender.app)
    if tracker is None or origin_of(request) is None or request.get("refused"):
        return
    if isinstance(retval, Reject) and state == "REJECTED":
        if retval.requeue:  # type: ignore[attr-defined]
            _report(sender.app, request, "sent", reason=_words("the task raised Reject", retval))
        else:
            _report(sender.app, request, "failed", error=retval)
    elif isinstance(retval, Ignore) and state == "IGNORED" and not request.get("went_on"):
        _report(sender.app, request, "cancelled", reason=_words("the task raised Ignore", retval))
    elif state is None and not tracker.is_child:
        _report_exit(sender, request, sys.exc_info()[1])


def _on_revoked(
    *,
    sender: Any,
    request: Any,
    terminated: bool = False,
    signum: Any = None,
    expired: bool = False,
    **_: Any,
) -> None:
    reason = "revoked"
    if expired:
        reason = "expired in the queue"
    elif terminated:
        reason = f"terminated by {_signal_name(signum)}"
    _report(sender.app, request, "cancelled", reason=reason)


def _on_unknown(*, sender: Any, message: Any, name: str | None = None, **_: Any) -> None:
    text = f"NotRegistered: {name!r} is not a task of this worker"
    _report_message(sender, message, text)


def _on_rejected(*, sender: Any, message: Any, exc: BaseException | None = None, **_: Any) -> None:
    text = "the worker can't read the message" if exc is None else _error_text(exc)
    _report_message(sender, message, text)


def _on_internal_error(
    *, sender: Any, request: Any, exception: BaseException, einfo: Any = None, **_: Any
) -> None:
    _report(sender.app, request, "failed", error=exception, einfo=einfo)


def _on_init(*, sender: Any, **_: Any) -> None:
    """Import the driver before the worker forks, so that first tasks do not wait for it."""
    tracker = _trackers.get(sender.app)
    if tracker is not None:
        with suppress(Exception):  # the first report logs it
            tracker.open()[0].load()


def _on_ready(*, sender: Any, **_: Any) -> None:
    tracker = _trackers.get(sender.app)
    if tracker is not None:
        tracker.beat(str(sender.hostname))
        tracker.prepare()


def _on_process_init(**_: Any) -> None:
    for tracker in list(_trackers.values()):
        tracker.prepare()


def _on_worker_shutdown(*, sender: Any, **_: Any) -> None:
    tracker = _trackers.get(sender.app)
    if tracker is not None:
        tracker.stop()


def _stop_all(**_: Any) -> None:
    for tracker in list(_trackers.values()):
        tracker.stop()


# -- reports ---------------------------------------------------------------------------------


def _report(
    app: Any,
    request: Any,
    state: str,
    *,
    at: float | None = None,
    reason: str | None = None,
    error: BaseException | None = None,
    einfo: Any = None,
    acknowledged: bool = False,
) -> None:
    """Report on the run of a request, if it belongs to one.

    Args:
        app: the task's app.
        request: the task's request, the worker's request, a message's headers, or None.
        state: the new state of the run.
        at: the time on the monotonic clock; None: now.
        reason: why, in words.
        error: the exception.
        einfo: Celery's exception info, with the traceback.
        acknowledged: whether the broker has forgotten the message, so that nothing is to be done
            after the report.
    """
    tracker = _trackers.get(app)
    if tracker is None or request is None:
        return
    given = getattr(request, "request_dict", request)
    origin = origin_of(given)
    if origin is None or given.get("is_eager"):
        return
    since = given.get("tracked_since")
    at = time.monotonic() if at is None else at
    report = Report(
        origin,
        state,
        at,
        str(given.get("hostname")),
        started=None if state == "started" else since,
        reason=reason,
        error=None if error is None else _error_text(error),
        traceback=None if einfo is None else str(einfo.traceback),
        delay=max(0.0, (given.get("waits_until") or 0.0) - at),
    )
    # The main process also reports runs that it did not start; it must not wait.
    waits = since is not None and state != "started"
    if waits and acknowledged and at - since < SHORT:
        waits = tracker.reporter.is_behind
    tracker.reporter.report(report, wait=tracker.wait_s if waits else 0.0)


def _report_exit(task: Any, request: Any, error: BaseException | None) -> None:
    """Report a task that ended its thread; for a child, the main process does this.

    Do nothing if the whole worker ends, since the message may be delivered again; nor if a
    greenlet is killed, since Celery reports that as revoked.
    """
    if error is None or isinstance(error, (Exception, WorkerShutdown, WorkerTerminate)):
        return
    name = type(error).__name__
    if name == "Timeout" and _comes_again(task):  # gevent's, at the time limit
        _report(task.app, request, "sent", reason=f"put back in the queue: {error!r}")
    elif name != "GreenletExit":
        _report(task.app, request, "failed", error=error)


def _report_message(consumer: Any, message: Any, error: str) -> None:
    """Report a message that failed before it became a request."""
    tracker, origin = _trackers.get(consumer.app), origin_of(message.headers or {})
    if tracker is not None and origin is not None:
        report = Report(origin, "failed", time.monotonic(), str(consumer.hostname), error=error)
        tracker.reporter.report(report)


def _begin(request: Any) -> float:
    """Return the start time of the task, and remember it."""
    at = request.get("tracked_since")
    if at is None:
        at = request.tracked_since = time.monotonic()
    assert isinstance(at, float)
    return at


def _ahead(eta: Any) -> float:
    """Return the seconds until a message's eta, by this machine's clock."""
    try:
        at = datetime.fromisoformat(eta)
        return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _request_of(task: Any, task_id: str) -> Any:
    request = task.request
    return request if request.id == task_id else _received.get(task_id)


def _words(what: str, error: BaseException) -> str:
    text = ", ".join(str(arg) for arg in error.args if isinstance(arg, (str, Exception)))
    return f"{what}: {text}" if text else what


def _comes_again(task: Any) -> bool:
    """Return whether the broker redelivers the message of a task that hit its time limit."""
    acknowledged = getattr(task, "acks_on_timeout", None)
    if acknowledged is None:  # celery before 5.7
        acknowledged = task.acks_on_failure_or_timeout
    return bool(task.acks_late and not acknowledged)


def _signal_name(given: Any) -> str:
    try:
        return signal.Signals(given).name
    except ValueError:
        return str(given)


def _error_text(error: BaseException) -> str:
    # An exception that can't be pickled is wrapped; the wrapper has its name.
    name = getattr(error, "exc_cls_name", type(error).__name__)
    try:
        text = str(getattr(error, "reason", error) if isinstance(error, Reject) else error)
    except Exception:  # noqa: BLE001  (of the user's class)
        text = "(it can't be shown)"
    return f"{name}: {text}" if text else str(name)


_RECEIVERS: dict[str, Callable[..., None]] = {
    "before_task_publish": on_publish,
    "task_received": _on_received,
    "task_prerun": _on_prerun,
    "task_success": _on_success,
    "task_failure": _on_failure,
    "task_retry": _on_retry,
    "task_postrun": _on_postrun,
    "task_revoked": _on_revoked,
    "task_unknown": _on_unknown,
    "task_rejected": _on_rejected,
    "task_internal_error": _on_internal_error,
    "worker_init": _on_init,
    "worker_ready": _on_ready,
    "worker_process_init": _on_process_init,
    "worker_shutdown": _on_worker_shutdown,
    "worker_process_shutdown": _stop_all,
}

_trackers: weakref.WeakKeyDictionary[Celery, Tracker] = weakref.WeakKeyDictionary()
_received: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def _after_fork() -> None:
    for tracker in list(_trackers.values()):
        tracker.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

atexit.register(_stop_all)
