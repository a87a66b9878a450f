"""Report the states of runs from workers: `setup(app)` and Celery's signals.

    task_prerun                      started
    task_success, task_failure       succeeded, failed
    task_retry, Reject(requeue)      sent: the message is with the broker again; failed, if it
                                     is with nobody
    Ignore, revoked, expired         cancelled
    unknown, malformed, Reject       failed

Facts about celery that shape this file:
    * With prefork, the signals of the first three lines are sent in a child. If a run ends
      outside its task (revoked, expired, a hard time limit, a killed child), the signal is sent
      in the main process, without the request. So received requests are kept, weakly.
    * A child that is spawned, as on macOS, unpickles a copy of the app: `setup` is called for
      that too, since it is among the app's fixups.
    * With late acknowledgement, a message is acknowledged after `task_postrun`.
    * A task may send copies of its headers, as by `headers=self.request.headers`; so does a retry.
      Where the message has a header `headers`, they are only what is in that.
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
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from celery import Celery, current_task, signals
from celery.exceptions import Ignore, Reject, TimeLimitExceeded, WorkerShutdown, WorkerTerminate

from beatstore.appconf import know
from beatstore.headers import GOES_ON, RUNNING
from beatstore.tick.reports import Report
from beatstore.worker.again import (
    began_at,
    comes_again,
    facts_of,
    is_first,
    is_in_vain,
    is_retry_of,
    message_of,
    next_times,
    note_times,
    ours_in,
)
from beatstore.worker.canvas import assign
from beatstore.worker.received import Received, still_active
from beatstore.worker.tracker import Tracker, origin_of
from beatstore.worker.wording import error_text, reason_text, revoked_text

__all__ = ["refusal", "setup"]

#: What celery calls with each copy of an app.
_FIXUP = "beatstore.worker.signals:setup"

#: Tasks that took less than this, in seconds, do not wait at their end: the wait could take longer
#: than the task.
SHORT = 0.1


def setup(app: Celery) -> None:
    """Let the workers of `app` report the states of beatstore's runs.

    Call it in the module that creates the app; further calls change nothing. It does not
    connect: the first report reads the settings.
    """
    real: Any = getattr(app, "_get_current_object", lambda: app)()
    if real in _trackers:
        return
    _trackers[real] = Tracker(real)
    know(real)
    real.fixups = {*real.fixups, _FIXUP}
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
    request.noted_refusal = answer is not None
    return answer


# -- signal handlers ------------------------------------------------------------------


def _on_received(*, sender: Any, request: Any, **_: Any) -> None:
    """Keep the request, and tell the child if this worker has an earlier message of the run."""
    if origin_of(request.request_dict) is None or sender.app not in _trackers:
        return
    if _received.is_held(request.id):
        request.request_dict[RUNNING] = True
    _received.add(request)


def _on_prerun(*, sender: Any, **_: Any) -> None:
    request = sender.request
    origin = origin_of(request)
    if origin is None or request.is_eager:
        return
    at = _begin(request)
    request.noted_chain = tuple(request.chain or ())  # celery 5.6 takes out what it sends first
    _thread.retried = None
    if origin.part is not None or not getattr(sender, "starts_once", False):  # or the guard does
        _report(sender.app, request, "started", at=at)


def on_publish(*, sender: Any, headers: dict[str, Any], body: Any = None, **_: Any) -> None:
    """Continue a run in the message that replaces its task, and note the message's eta."""
    task: Any = current_task
    if headers is None:
        return
    headers.pop(RUNNING, None)  # a retry has the headers of its request
    facts = facts_of(headers, body)
    if not task:
        _keep_on(facts, headers)
    if not task or task.app not in _trackers:
        return
    request = task.request
    origin = origin_of(request)
    if origin is None or request.is_eager:
        return
    how = assign(request, origin.part, headers, body)
    sent = origin_of(headers)
    if sent is None or sent[:2] != origin[:2]:
        return
    until = note_times(request, facts)
    if how == "retried":
        _thread.retried = message_of(request), until
    if how == "replaced" and not request.get("noted_going_on"):
        # Reported first, or the next task might start before.
        request.noted_report = _report(task.app, request, "sent", reason=f"continued by {sender}")
        request.noted_going_on = True
    if how == "replaced" and sent.part is None and not request.noted_report:
        headers[GOES_ON] = True  # for the guard, the run may still be `started` by this task


def _keep_on(facts: Mapping[str, Any], headers: dict[str, Any]) -> None:
    """Continue a run in the retry that the main process sends, since the task's child was lost."""
    request = _received.get(facts.get("id"))
    if request is not None and is_retry_of(request.request_dict, facts):
        headers.update(ours_in(request.request_dict))
        request.retried_at = time.monotonic()


def _on_success(*, sender: Any, **_: Any) -> None:
    sender.request.noted_end = True
    _report_end(sender.app, sender.request, "succeeded", acknowledged=not sender.acks_late)


def _on_failure(
    *, sender: Any, task_id: str, exception: BaseException, einfo: Any = None, **_: Any
) -> None:
    if isinstance(exception, Reject):
        return  # postrun has reported it already
    request = _request_of(sender, task_id)
    if request is not None:
        request.noted_end = True
    if isinstance(exception, TimeLimitExceeded) and comes_again(sender):
        _report(sender.app, request, "sent", reason=f"put back in the queue: {exception!r}")
        return
    given = {"error": exception, "einfo": einfo, "acknowledged": not sender.acks_late}
    _report_end(sender.app, request, "failed", **given)


def _on_retry(
    *, sender: Any, request: Any, reason: Any = None, einfo: Any = None, **_: Any
) -> None:
    if is_in_vain(request, reason, _thread.retried):
        given = {"error": reason, "einfo": einfo, "acknowledged": not sender.acks_late}
        _report(sender.app, request, "failed", **given)
        return
    if reason is None and not sender.acks_late:
        # A cold shutdown: the message was acknowledged, and no other is sent.
        error = WorkerShutdown("the worker ended before the task did")
        _report(sender.app, request, "failed", error=error)
        return
    why = "retried by the task" if reason is not None else "put back in the queue"
    # A retry after the loss of a child is sent by the main process, and not by the task.
    when = getattr(reason, "when", None)
    delay = when if isinstance(when, (int, float)) else 0.0
    _report(sender.app, request, "sent", reason=f"{why}: {reason}" if reason else why, delay=delay)


def _on_postrun(*, sender: Any, state: str | None = None, retval: Any = None, **_: Any) -> None:
    request, tracker = sender.request, _trackers.get(sender.app)
    if tracker is None or origin_of(request) is None or request.get("noted_refusal"):
        return
    # A class may raise it where a task has succeeded or failed, before a signal says so.
    raised = retval if state == "REJECTED" else sys.exc_info()[1]
    if isinstance(raised, Reject) and not request.get("noted_end"):
        if raised.requeue and sender.acks_late:  # type: ignore[attr-defined]
            _report(
                sender.app, request, "sent", reason=reason_text("the task raised Reject", raised)
            )
        else:
            _report_end(sender.app, request, "failed", error=raised)
    elif isinstance(retval, Ignore) and state == "IGNORED" and not request.get("noted_going_on"):
        reason = reason_text("the task raised Ignore", retval)
        _report_end(sender.app, request, "cancelled", reason=reason)
    elif state is None and not tracker.is_child:
        _report_exit(sender, request, sys.exc_info()[1])


def _on_revoked(*, sender: Any, request: Any, terminated: bool = False, **given: Any) -> None:
    reason = revoked_text({"terminated": terminated, **given})
    tracker = _trackers.get(sender.app)
    if reason.endswith(" SIGUSR1") and tracker is not None and not tracker.is_green:
        # Prefork's soft time limit: the task goes on, and its child says how it ends.
        still_active.update(filter(None, [_received.get(request.get("id"))]))
        return
    dropped = not terminated and is_first(request)
    _report(sender.app, request, "cancelled", reason=reason, dropped=dropped)


def _on_unknown(*, sender: Any, message: Any, name: str | None = None, **_: Any) -> None:
    text = f"NotRegistered: {name!r} is not a task of this worker"
    _report_message(sender, message, text)


def _on_rejected(*, sender: Any, message: Any, exc: BaseException | None = None, **_: Any) -> None:
    text = "the worker can't read the message" if exc is None else error_text(exc)
    _report_message(sender, message, text)


def _on_internal_error(
    *, sender: Any, request: Any, exception: BaseException, einfo: Any = None, **_: Any
) -> None:
    _report_end(sender.app, request, "failed", error=exception, einfo=einfo)


def _on_init(*, sender: Any, **_: Any) -> None:
    """Import the driver before the worker forks, so that first tasks do not wait for it."""
    tracker = _trackers.get(sender.app)
    if tracker is not None:
        with suppress(Exception):  # the first report logs it
            tracker.open()[0].load()


def _on_ready(*, sender: Any, **_: Any) -> None:
    tracker = _trackers.get(sender.app)
    if tracker is not None:
        tracker.is_green = sender.pool.is_green
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
    delay: float = 0.0,
    dropped: bool = False,
) -> bool:
    """Report on the run of a request, if it belongs to one; return whether that is written by now.

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
        delay: for how many seconds the run's next message waits, if the request does not know.
        dropped: whether the message ended before its task began.
    """
    tracker = _trackers.get(app)
    if tracker is None or request is None:
        return False
    given = getattr(request, "request_dict", request)
    origin = origin_of(given)
    if origin is None or given.get("is_eager"):
        return False
    since = given.get("noted_start")
    began = since or began_at(_received.get(given.get("id")), state)
    at = time.monotonic() if at is None else at
    report = Report(
        origin,
        state,
        at,
        str(given.get("hostname")),
        started=None if state == "started" else began,
        reason=reason,
        error=None if error is None else error_text(error),
        traceback=None if einfo is None else str(einfo.traceback),
        dropped=dropped,
        **next_times(given, at, delay),
    )
    # The main process also reports runs that it did not start; it must not wait.
    waits = since is not None and state != "started"
    if waits and acknowledged and at - since < SHORT:
        waits = tracker.reporter.is_behind
    return tracker.reporter.report(report, wait=tracker.wait_s if waits else 0.0)


def _report_end(
    app: Any, request: Any, state: str, *, error: BaseException | None = None, **more: Any
) -> None:
    """Report how a task ended, unless it has sent its retry: the run goes on in that.

    It has if it calls `self.retry(throw=False)`, if it catches the `Retry`, and if celery can't
    store that it is retried.
    """
    given = getattr(request, "request_dict", request)
    message, until = _thread.retried or (None, 0.0)
    if message is None or given is None or message != message_of(given):
        _report(app, request, state, error=error, **more)
        return
    failed = "" if error is None else f", and has failed: {error_text(error)}"
    delay = until - time.monotonic()
    _report(app, request, "sent", reason=f"retried by the task{failed}", delay=max(0.0, delay))


def _report_exit(task: Any, request: Any, error: BaseException | None) -> None:
    """Report a task that ended its thread; for a child, the main process does this.

    Do nothing if the whole worker ends, since the message may be delivered again; nor if a
    greenlet is killed, since Celery reports that as revoked.
    """
    if error is None or isinstance(error, (Exception, WorkerShutdown, WorkerTerminate)):
        return
    name = type(error).__name__
    if name == "Timeout" and comes_again(task):  # gevent's, at the time limit
        _report(task.app, request, "sent", reason=f"put back in the queue: {error!r}")
    elif name != "GreenletExit":
        _report_end(task.app, request, "failed", error=error)


def _report_message(consumer: Any, message: Any, error: str) -> None:
    """Report a message that failed before it became a request."""
    tracker, origin = _trackers.get(consumer.app), origin_of(message.headers or {})
    if tracker is not None and origin is not None:
        at, worker = time.monotonic(), str(consumer.hostname)
        dropped = is_first(message.headers)
        tracker.reporter.report(Report(origin, "failed", at, worker, error=error, dropped=dropped))


def _begin(request: Any) -> float:
    """Return the start time of the task, and remember it."""
    at = request.get("noted_start")
    if at is None:
        at = request.noted_start = time.monotonic()
    assert isinstance(at, float)
    return at


def _request_of(task: Any, task_id: str) -> Any:
    request = task.request
    return request if request.id == task_id else _received.get(task_id)


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


class _Thread(threading.local):
    """What a thread knows of its task."""

    #: The message whose retry the task has sent, and until when that waits.
    retried: tuple[tuple[Any, int], float] | None = None


_thread = _Thread()
_trackers: weakref.WeakKeyDictionary[Celery, Tracker] = weakref.WeakKeyDictionary()
_received = Received()


def _after_fork() -> None:
    for tracker in list(_trackers.values()):
        tracker.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

atexit.register(_stop_all)
