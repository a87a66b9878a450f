"""What the main process of a worker knows of the messages that it has."""

from __future__ import annotations

import gc
from typing import Any

from celery import Celery, signals
from celery.exceptions import TimeLimitExceeded

from beatstore.worker.received import Received
from tests.support.recorder import Recorder
from tests.support.tracer import Thing, only, request_of


def test_the_first_of_two_is_meant(app: Celery, guarded: Any) -> None:
    """Of two deliveries of a message, the one is meant that began first, while it lasts."""
    received = Received()
    first, second = request_of(app, guarded), request_of(app, guarded)
    received.add(first)
    received.add(second)
    assert received.get("another") is received.get(None) is None
    second.time_start = 2.0
    assert received.get("the-id") is second
    first.time_start = 1.0
    assert received.get("the-id") is first
    del second
    gc.collect()
    assert received.get("the-id") is first
    del first
    gc.collect()
    assert received.get("the-id") is None


def test_a_retry_is_meant(app: Celery, guarded: Any) -> None:
    """Of a message and the retry of its task, the retry is meant."""
    received = Received()
    first, retry = request_of(app, guarded), request_of(app, guarded)
    retry.request_dict["retries"] = 1
    first.time_start = 1.0
    for request in (retry, first):
        received.add(request)
    assert received.get("the-id") is retry


def test_a_second_message_that_is_gone(app: Celery, writer: Recorder) -> None:
    """When a second message was dropped, the main process still reports what the first one does."""

    @app.task(shared=False, acks_late=True, acks_on_failure_or_timeout=False)
    def task() -> None: ...

    consumer: Any = Thing(app=app)
    first, second = request_of(app, task), request_of(app, task)
    for request in (first, second):
        signals.task_received.send(consumer, request=request)
    del second, request
    gc.collect()
    given = {"exception": TimeLimitExceeded(3), "einfo": None, "args": (), "kwargs": {}}
    signals.task_failure.send(task, task_id="the-id", **given)
    assert only(app, writer).state == "sent"
