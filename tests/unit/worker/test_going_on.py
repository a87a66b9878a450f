"""Runs that go on in another message, and what the main process of a worker reports."""

from __future__ import annotations

import signal
import time
from contextlib import nullcontext
from typing import Any

import celery
import pytest
from celery import Celery, signals
from celery.exceptions import Reject, Retry, TimeLimitExceeded, WorkerLostError

from beatstore.worker import signals as worker
from beatstore.worker.received import active_requests
from tests.support.recorder import Recorder
from tests.support.tracer import Thing, only, request_of, run, told

# -- runs that go on in another message ------------------------------------------------------


def test_a_task_that_is_replaced(app: Celery, writer: Recorder, sent: list[dict[str, Any]]) -> None:
    """A run goes on in the task that replaces its own."""

    @app.task(shared=False)
    def other() -> None: ...

    @app.task(shared=False, bind=True)
    def first(self: Any) -> None:
        raise self.replace(other.si())

    run(first, headers={"beatstore_run_id": 1})
    assert [report.state for report in told(app, writer)] == ["sent"]
    (other_s,) = sent
    assert (other_s["id"], other_s["beatstore_run_id"]) == ("the-id", 1)


@pytest.mark.parametrize("answers", [True, False])
def test_what_a_replacement_says_to_the_guard(
    app: Celery, writer: Recorder, sent: list[dict[str, Any]], answers: bool
) -> None:
    """It may start though the run is started only where the database does not know that it may."""

    @app.task(shared=False)
    def other() -> None: ...

    @app.task(shared=False, bind=True)
    def first(self: Any) -> None:
        if not answers:
            writer.hang()
        raise self.replace(other.si())

    app.conf.beatstore_report_wait = 10.0 if answers else 0.05
    run(first, headers={"beatstore_run_id": 1, "beatstore_goes_on": True})
    (other_s,) = sent
    assert other_s["beatstore_run_id"] == 1
    assert ("beatstore_goes_on" in other_s) is not answers
    writer.release()


def test_the_guard_lets_a_replacement_start(app: Celery, writer: Recorder, guarded: Any) -> None:
    """The task that replaces another starts, though the run is started."""
    run(guarded, 1, beatstore_goes_on=True)
    assert [again for _, again in writer.asked] == [True]


def test_a_part_of_a_canvas(app: Celery, writer: Recorder, guarded: Any) -> None:
    """The tasks of a canvas all start, and say which part of the run has ended."""
    writer.answer = "it runs elsewhere"
    run(guarded, 1, beatstore_part="step")
    run(guarded, 1, beatstore_part="2/3")
    assert len(guarded.ran) == 2
    assert writer.asked == []
    assert [(report.state, report.of.part) for report in told(app, writer)] == [
        ("succeeded", "the-id"),
        ("succeeded", "2/3"),
    ]


def test_what_a_task_sends_else(app: Celery, writer: Recorder, sent: list[dict[str, Any]]) -> None:
    """Other messages that a task sends are none of its run."""

    @app.task(shared=False)
    def other() -> None: ...

    @app.task(shared=False)
    def first() -> None:
        other.delay()

    run(first)
    assert only(app, writer).state == "succeeded"
    assert "beatstore_run_id" not in sent[0]


# -- the main process of a worker ------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"terminated": False, "signum": None, "expired": True}, "expired in the queue"),
        ({"terminated": False, "signum": None, "expired": False}, "revoked"),
        ({"terminated": True, "signum": 15, "expired": False}, "terminated by SIGTERM"),
        ({"terminated": True, "signum": "9", "expired": False}, "terminated by 9"),
    ],
)
def test_revoked(app: Celery, writer: Recorder, said: dict[str, Any], reason: str) -> None:
    """A run whose message was thrown away is cancelled, and says why."""

    @app.task(shared=False)
    def task() -> None: ...

    context = {"id": "the-id", "beatstore_run_id": 1, "hostname": "w@h"}
    signals.task_revoked.send(task, request=context, **said)
    report = only(app, writer)
    assert (report.state, report.reason, report.worker) == ("cancelled", reason, "w@h")
    assert report.dropped is not said["terminated"]


def test_a_retry_that_is_dropped(app: Celery, writer: Recorder) -> None:
    """The only message of a run is its retry, so the run ends with that."""

    @app.task(shared=False)
    def task() -> None: ...

    for more in ({"retries": 1}, {"beatstore_goes_on": True}):
        context = {"id": "the-id", "beatstore_run_id": 1, **more}
        signals.task_revoked.send(task, request=context, terminated=False, expired=True)
        assert only(app, writer).dropped is False


@pytest.mark.parametrize("green", [False, True])
def test_a_soft_signal(app: Celery, writer: Recorder, green: bool) -> None:
    """Prefork's SIGUSR1 is the signal of a soft time limit: the task says how it ends.

    Until then the worker keeps its run alive. A green thread is killed, whatever the signal.
    """

    @app.task(shared=False)
    def task() -> None: ...

    request = request_of(app, task)
    signals.task_received.send(Thing(app=app), request=request)
    worker._trackers[app].is_green = green
    said = {"terminated": True, "signum": signal.SIGUSR1, "expired": False}
    signals.task_revoked.send(task, request=request.request_dict, **said)
    states = [report.state for report in told(app, writer)]
    assert states == (["cancelled"] if green else [])
    assert (request in active_requests()) is not green


def test_a_failure_outside_of_the_task(app: Celery, writer: Recorder) -> None:
    """What the main process has to say of a task names the run by the request it received."""

    @app.task(shared=False)
    def task() -> None: ...

    request = request_of(app, task)
    consumer = Thing(app=app)
    signals.task_received.send(consumer, request=request)
    signals.task_failure.send(
        task, task_id="the-id", exception=TimeLimitExceeded(3), einfo=None, args=(), kwargs={}
    )
    report = only(app, writer)
    assert report.state == "failed"
    assert report.error is not None
    assert report.error.startswith("TimeLimitExceeded")
    del request
    signals.task_failure.send(
        task, task_id="the-id", exception=ValueError(), einfo=None, args=(), kwargs={}
    )
    assert len(told(app, writer)) == 1  # nothing is kept of a request that is over


def test_a_time_limit_that_puts_the_message_back(app: Celery, writer: Recorder) -> None:
    """A late acknowledged task that is to run again after its limit has not failed."""

    @app.task(acks_late=True, acks_on_failure_or_timeout=False, shared=False)
    def task() -> None: ...

    request = request_of(app, task)
    signals.task_received.send(Thing(app=app), request=request)
    signals.task_failure.send(
        task, task_id="the-id", exception=TimeLimitExceeded(3), einfo=None, args=(), kwargs={}
    )
    assert only(app, writer).state == "sent"


def test_a_retry_after_a_child_was_lost(app: Celery, writer: Recorder) -> None:
    """A retry that the main process sends, as celery 5.7 can, waits as long as it says."""

    @app.task(shared=False)
    def task() -> None: ...

    request = {"id": "the-id", "beatstore_run_id": 1, "hostname": "w@h"}
    signals.task_retry.send(
        task, request=request, reason=Retry(exc=WorkerLostError(), when=180), einfo=None
    )
    report = only(app, writer)
    assert report.state == "sent"
    assert report.delay == pytest.approx(180, abs=5)


def test_what_the_retry_of_a_lost_child_carries(
    app: Celery, writer: Recorder, sent: list[dict[str, Any]]
) -> None:
    """The retry that the main process sends is of the run, and nothing else with its id is."""

    @app.task(bind=True, shared=False)
    def task(self: Any) -> None: ...

    request = request_of(app, task)
    request.request_dict["retries"] = 1
    signals.task_received.send(Thing(app=app), request=request)
    for retries in (1, 2):
        task.apply_async(task_id="the-id", retries=retries, headers={"trace": "a"})
    assert [headers.get("beatstore_run_id") for headers in sent] == [None, 1]
    later = time.monotonic()
    signals.task_retry.send(
        task, request={**request.request_dict}, reason=Retry(exc=WorkerLostError(), when=0)
    )
    report = only(app, writer)
    assert report.state == "sent"
    assert report.started is not None
    assert report.started <= later  # what has started since then is the retry


@pytest.mark.parametrize("throw", [True, False])
def test_a_retry_by_the_first_protocol(
    app: Celery, writer: Recorder, sent: list[dict[str, Any]], throw: bool
) -> None:
    """A retry is known by its body where celery's first protocol is spoken."""

    @app.task(bind=True, shared=False)
    def again(self: Any) -> None:
        self.retry(countdown=100, throw=throw)

    app.conf.task_protocol = 1
    run(again, beatstore_task_id="the-id")
    report = only(app, writer)
    assert (report.state, report.delay) == ("sent", pytest.approx(100, abs=5))
    assert [headers["beatstore_run_id"] for headers in sent] == [1]


def test_what_one_process_says_to_another(
    app: Celery, writer: Recorder, sent: list[dict[str, Any]]
) -> None:
    """That a worker runs an earlier message of the run is told to its own child alone."""

    @app.task(bind=True, shared=False)
    def again(self: Any) -> None:
        self.retry(countdown=0)

    run(again, beatstore_running=True)
    assert [headers.get("beatstore_run_id") for headers in sent] == [1]
    assert "beatstore_running" not in sent[0]


@pytest.mark.parametrize("late", [True, False])
def test_a_retry_that_nobody_has_sent(app: Celery, writer: Recorder, late: bool) -> None:
    """A task that lets the `Retry` of one through that it called has failed: no message comes."""

    @app.task(bind=True, shared=False)
    def called(self: Any) -> None:
        self.retry()

    @app.task(shared=False, acks_late=late)
    def calls() -> None:
        called()

    @app.task(bind=True, shared=False)
    def again(self: Any) -> None:
        self.retry(countdown=100)

    app.set_current()
    run(again)
    assert only(app, writer).state == "sent"
    run(calls, 2)
    report = told(app, writer)[-1]
    assert (report.of.run_id, report.state) == (2, "failed")
    assert report.error == "Retry: Task can be retried"
    assert "called()" in str(report.traceback)


@pytest.mark.skipif(celery.VERSION < (5, 7), reason="before celery 5.7 it is an error as any other")
@pytest.mark.parametrize(
    ("hook", "error", "told_before"),
    [
        ("on_success", None, None),
        ("on_failure", ValueError("it broke"), None),
        ("after_return", None, "succeeded"),
        ("after_return", ValueError("it broke"), "failed"),
    ],
)
@pytest.mark.parametrize("requeue", [True, False])
def test_a_class_that_rejects(  # noqa: PLR0917  (parameters and fixtures)
    app: Celery,
    writer: Recorder,
    hook: str,
    error: Exception | None,
    told_before: str | None,
    requeue: bool,
) -> None:
    """A class may raise Reject once the task is over; it counts if no outcome is told yet."""

    def reject(*_: Any) -> None:
        raise Reject("not for me", requeue=requeue)

    base = type("Rejects", (celery.Task,), {hook: reject})

    @app.task(base=base, acks_late=True, shared=False)
    def ends() -> None:
        if error is not None:
            raise error

    with pytest.raises(Reject):
        run(ends)
    (report,) = told(app, writer)
    assert report.state == (told_before or ("sent" if requeue else "failed"))


@pytest.mark.parametrize(
    "by_class",
    [
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                celery.VERSION < (5, 7), reason="before celery 5.7 it is an error as any other"
            ),
        ),
        False,
    ],
)
def test_a_retry_that_is_sent_outlives_a_reject(
    app: Celery, writer: Recorder, sent: list[dict[str, Any]], by_class: bool
) -> None:
    """A task, or its class in `on_retry`, may reject the message once the retry is sent."""

    def reject(*_: Any) -> None:
        raise Reject("not again", requeue=False)

    base = type("Rejects", (celery.Task,), {"on_retry": reject})

    @app.task(base=base, bind=True, shared=False)
    def tries(self: Any) -> None:
        self.retry(countdown=60, throw=by_class)
        reject()

    with pytest.raises(Reject) if by_class else nullcontext():
        run(tries, id="retried-id")
    (report,) = told(app, writer)
    assert (report.state, len(sent)) == ("sent", 1)
    assert report.reason == "retried by the task, and has failed: Reject: not again"
    assert 50 < report.delay <= 60


@pytest.mark.parametrize("accepted", [True, False])
def test_when_a_task_was_started(app: Celery, writer: Recorder, accepted: bool) -> None:
    """What the main process says of a task's end begins when the pool has accepted that."""

    @app.task(shared=False, acks_late=True)
    def task() -> None: ...

    request = request_of(app, task)
    request.time_start = time.time() - 3 if accepted else None
    signals.task_received.send(Thing(app=app), request=request)
    signals.task_retry.send(task, request={**request.request_dict})
    signals.task_failure.send(task, task_id="the-id", exception=WorkerLostError(), einfo=None)
    again, over = told(app, writer)
    assert (again.state, again.started) == ("sent", None)
    assert (over.state, over.started is not None) == ("failed", accepted)
    if over.started is not None:
        assert over.at - over.started == pytest.approx(3, abs=1)


@pytest.mark.parametrize(("late", "state"), [(True, "sent"), (False, "failed")])
def test_a_worker_that_ends_at_once(app: Celery, writer: Recorder, late: bool, state: str) -> None:
    """A task that is cancelled with its worker has failed, unless its message comes again."""

    @app.task(acks_late=late, shared=False)
    def task() -> None: ...

    request = {"id": "the-id", "beatstore_run_id": 1, "hostname": "w@h"}
    signals.task_retry.send(task, request=request, einfo=None)
    report = only(app, writer)
    assert report.state == state
    if not late:
        assert report.error == "WorkerShutdown: the worker ended before the task did"


def test_messages_that_are_no_task(app: Celery, writer: Recorder) -> None:
    """A message for an unknown task, or one that can't be read, has failed its run."""
    consumer = Thing(app=app, hostname="w@h")
    message = Thing(headers={"beatstore_run_id": 1, "id": "the-id"})
    signals.task_unknown.send(consumer, message=message, exc=KeyError("t"), name="t", id="the-id")
    signals.task_rejected.send(consumer, message=message, exc=ValueError("no id"))
    signals.task_rejected.send(consumer, message=message, exc=None)
    signals.task_rejected.send(consumer, message=Thing(headers=None), exc=None)
    reports = told(app, writer)
    assert [report.state for report in reports] == ["failed"] * 3
    assert [report.error for report in reports] == [
        "NotRegistered: 't' is not a task of this worker",
        "ValueError: no id",
        "the worker can't read the message",
    ]
