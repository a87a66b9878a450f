"""The start-once guard: what may start, what is dropped, and what it costs."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from celery import Celery, signals
from celery.worker import state as worker_state

import beatstore
from beatstore.config import Settings
from beatstore.worker import signals as worker
from tests.support.recorder import Recorder
from tests.support.tracer import Thing, only, request_of, run, told


def test_the_guard_lets_start(app: Celery, writer: Recorder, guarded: Any) -> None:
    """The first message of a run starts, and is marked so by the question itself."""
    run(guarded)
    assert guarded.ran == ["the-id"]
    assert [(report.state, again) for report, again in writer.asked] == [("started", False)]
    assert [report.state for report in told(app, writer)] == ["succeeded"]


def test_the_guard_drops(
    app: Celery, writer: Recorder, guarded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A message whose run must not start ends without a trace in its row, but in the log."""
    writer.answer = "other@host has started it"
    run(guarded)
    assert guarded.ran == []
    assert told(app, writer) == []
    assert f"{guarded.name}[the-id] was dropped: other@host has started it" in caplog.text


@pytest.mark.parametrize(
    ("headers", "again"),
    [
        ({}, False),
        ({"delivery_info": {"redelivered": True}}, True),
        ({"delivery_info": {"redelivered": True}, "beatstore_running": True}, False),
        ({"retries": 1}, True),
    ],
)
def test_what_may_start_again(
    app: Celery, writer: Recorder, guarded: Any, headers: dict[str, Any], again: bool
) -> None:
    """A redelivered message may start again, unless its worker still runs it; a retry may."""
    run(guarded, 1, **headers)
    assert [given for _, given in writer.asked] == [again]


def test_a_redelivery_acknowledged_early(app: Celery, writer: Recorder) -> None:
    """A message that was acknowledged before its task started is no reason to start again."""

    @app.task(base=beatstore.Task, shared=False)
    def early() -> None: ...

    run(early, 1, delivery_info={"redelivered": True})
    assert [given for _, given in writer.asked] == [False]


@pytest.mark.parametrize("held", ["active_requests", "reserved_requests"])
def test_a_worker_knows_what_it_has(app: Celery, writer: Recorder, guarded: Any, held: str) -> None:
    """A second message of a run that this worker runs, or is about to, tells its child so."""
    first, second = request_of(app, guarded), request_of(app, guarded)
    consumer = Thing(app=app)
    signals.task_received.send(consumer, request=first)
    assert "beatstore_running" not in first.request_dict
    getattr(worker_state, held).add(first)
    try:
        signals.task_received.send(consumer, request=second)
        assert second.request_dict["beatstore_running"] is True
    finally:
        getattr(worker_state, held).discard(first)


def test_the_guard_in_an_outage(app: Celery, writer: Recorder, guarded: Any) -> None:
    """While the database hangs, guard and end together cost a task less than 100 ms."""
    assert 2 * Settings().report_wait < 0.1
    app.conf.beatstore_report_wait = 3.0  # which no busy machine takes for the rest
    writer.hang()
    began = time.monotonic()
    for _ in range(11):
        run(guarded)
    assert time.monotonic() - began < 6.0, "more than one has waited, or twice"
    assert len(guarded.ran) == 11
    writer.release()
    assert only(app, writer).state == "succeeded"


@pytest.mark.parametrize(("wait", "ran"), [(None, ["the-id"]), (30, []), ("soon", ["the-id"])])
def test_the_guard_of_a_far_database(
    app: Celery, writer: Recorder, guarded: Any, wait: Any, ran: list[str]
) -> None:
    """An answer that takes longer than the default counts where the setting says so."""
    app.conf.beatstore_report_wait = wait
    writer.answer = "other@host has started it"
    writer.hang()
    answer = threading.Timer(0.5, writer.release)
    answer.start()
    run(guarded)
    assert guarded.ran == ran
    answer.join()


def test_the_guard_is_prepared(app: Celery, writer: Recorder) -> None:
    """A process connects before its first task where tasks ask, and else not."""
    signals.worker_process_init.send("w@h")
    assert worker._trackers[app]._reporter is None

    @app.task(base=beatstore.Task, shared=False)
    def asks() -> None: ...

    app.finalize()
    signals.worker_process_init.send("w@h")
    assert worker._trackers[app]._reporter is not None
    # Apps of other tests may still be there, and are prepared too.
    assert set(writer.states) == {(0, "started")}


def test_a_task_may_do_without(app: Celery, writer: Recorder) -> None:
    """A task of a guarded class can say that it may start twice, and is reported as any."""

    @app.task(base=beatstore.Task, starts_once=False, shared=False)
    def twice() -> None: ...

    run(twice)
    assert writer.asked == []
    assert only(app, writer).state == "succeeded"


def test_a_class_of_ones_own(app: Celery, writer: Recorder) -> None:
    """A user's before_start runs after the guard's, and not at all for what is dropped."""
    seen: list[str] = []

    class Own(beatstore.Task):
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            super().before_start(task_id, args, kwargs)
            seen.append(task_id)

    @app.task(base=Own, shared=False)
    def task() -> None: ...

    run(task)
    writer.answer = "no"
    run(task)
    assert seen == ["the-id"]


def test_the_class_sets_the_app_up() -> None:
    """With beatstore's class for its tasks, an app needs no setup of its own."""
    app = Celery("tests", set_as_current=False, task_cls="beatstore:Task")

    @app.task(shared=False)
    def task() -> None: ...

    app.finalize()
    assert isinstance(task, beatstore.Task)
    assert app in worker._trackers
    app.close()
