"""Runs that go on in another message, and what the main process of a worker reports."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, signals
from celery.exceptions import TimeLimitExceeded

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
