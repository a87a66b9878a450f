"""What the signals of celery's own tracer make the worker report, and the start-once guard."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject, TimeLimitExceeded, WorkerShutdown
from celery.worker import state as worker_state

import beatstore
from beatstore.errors import UnavailableError
from beatstore.tick.reports import Origin, Report
from beatstore.worker import signals as worker
from beatstore.worker import tracker
from tests.support.inprocess import NOWHERE
from tests.support.processes import ROOT
from tests.support.recorder import Recorder
from tests.support.wait import wait_until


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    writer = Recorder()
    monkeypatch.setattr(tracker, "OwnReports", lambda settings: writer)
    return writer


@pytest.fixture
def app(writer: Recorder) -> Iterator[Celery]:
    app = Celery("tests", set_as_current=False, broker="memory://")
    app.conf.update(beatstore_url=NOWHERE, timezone="UTC")
    beatstore.setup(app)
    yield app
    writer.error = None
    writer.release()
    worker._trackers[app].stop()
    app.close()


class Thing(SimpleNamespace):
    """An object of celery's, with the few attributes that count here."""

    __hash__ = object.__hash__


def run(task: Any, run_id: Any = 1, *args: Any, **headers: Any) -> Any:
    """Run a task as a worker's pool does, and return what its tracer returns."""
    headers = {"delivery_info": {}, "hostname": "w@h", "is_eager": False, **headers}
    request = {"id": "the-id", "task": task.name, "beatstore_run_id": run_id, **headers}
    tracer = build_tracer(task.name, task, app=task.app)
    return tracer("the-id", args, {}, request)


def told(app: Celery, writer: Recorder) -> list[Report]:
    """Return the reports but those of starts, which come or not, once all are written."""
    assert worker._trackers[app].reporter.flush(10)
    return [report for report in writer.reports if report.state != "started"]


def only(app: Celery, writer: Recorder) -> Report:
    """Return what was reported last."""
    return told(app, writer)[-1]


def test_success(app: Celery, writer: Recorder) -> None:
    """A run that ends well is written before its message can be acknowledged."""

    @app.task(shared=False)
    def fine() -> int:
        return 1

    began = time.monotonic()
    run(fine)
    report = writer.reports[-1]
    assert (report.of.run_id, report.state, report.worker) == (1, "succeeded", "w@h")
    assert report.started is not None
    assert began <= report.started <= report.at
    assert report.error is report.reason is report.traceback is None


def test_failure(app: Celery, writer: Recorder) -> None:
    """A run that fails says with what, and from where."""

    @app.task(shared=False)
    def fails() -> None:
        raise ValueError("no such thing")

    run(fails)
    report = only(app, writer)
    assert (report.state, report.error) == ("failed", "ValueError: no such thing")
    assert report.traceback is not None
    assert 'raise ValueError("no such thing")' in report.traceback


def test_an_error_that_can_t_be_shown(app: Celery, writer: Recorder) -> None:
    """An exception whose text raises is reported by its name."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("mute")

        __repr__ = __str__

    assert worker._error_text(MuteError()) == "MuteError: (it can't be shown)"
    assert worker._error_text(KeyError()) == "KeyError"


def test_an_error_that_can_t_be_pickled(app: Celery, writer: Recorder) -> None:
    """An exception that celery has to wrap is reported by its own name."""

    class LocalError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    @app.task(shared=False)
    def fails() -> None:
        raise LocalError(1, 2)

    run(fails)
    error = only(app, writer).error
    assert error is not None
    assert error.startswith("LocalError: ")
    assert "1 and 2" in error


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (Ignore(), ("cancelled", "the task raised Ignore", None)),
        (Ignore("not today"), ("cancelled", "the task raised Ignore: not today", None)),
        (Reject("bad", requeue=False), ("failed", None, "Reject: bad")),
        (Reject("later", requeue=True), ("sent", "the task raised Reject: later", None)),
        (SystemError("odd"), ("failed", None, "SystemError: odd")),
    ],
)
def test_other_ends(
    app: Celery, writer: Recorder, error: Exception, ending: tuple[str, str | None, str | None]
) -> None:
    """What a task says with celery's own exceptions is told as what it means."""

    @app.task(shared=False)
    def ends() -> None:
        raise error

    run(ends)
    report = only(app, writer)
    assert (report.state, report.reason, report.error) == ending


def test_retry(app: Celery, writer: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that celery retries is with the broker again, and its message names it."""

    @app.task(bind=True, shared=False)
    def again(self: Any) -> None:
        raise self.retry(exc=ValueError("not yet"), countdown=0)

    app.set_current()
    sent: list[dict[str, Any]] = []

    def keep(*, headers: dict[str, Any], **_: Any) -> None:
        sent.append(headers)

    signals.before_task_publish.connect(keep)
    run(again)
    report = only(app, writer)
    assert (report.state, report.error) == ("sent", None)
    assert report.reason == "retried by the task: Retry in 0s: ValueError('not yet')"
    assert sent[0]["beatstore_run_id"] == 1


class GreenletExit(BaseException):
    """What ends a greenlet."""


class Timeout(BaseException):
    """What ends a greenlet at its time limit."""


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (SystemExit("done"), [("failed", "SystemExit: done")]),
        (Timeout("3 seconds"), [("failed", "Timeout: 3 seconds")]),
        (GreenletExit(), []),
        (WorkerShutdown(), []),
    ],
)
def test_what_ends_a_thread(
    app: Celery, writer: Recorder, error: BaseException, ending: list[tuple[str, str]]
) -> None:
    """A task that ends its thread is reported where there is no main process to hear of it."""

    @app.task(shared=False)
    def exits() -> None:
        raise error

    with pytest.raises(type(error)):
        run(exits)
    assert [(report.state, report.error) for report in told(app, writer)] == ending


def test_a_result_that_can_t_be_stored(
    app: Celery, writer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is no success as long as celery does not call it one."""

    @app.task(shared=False)
    def fine() -> int:
        return 1

    def mark_as_done(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no backend")

    monkeypatch.setattr(fine.backend, "mark_as_done", mark_as_done)
    with pytest.warns(RuntimeWarning, match="outside body"):
        run(fine)
    report = told(app, writer)[0]
    assert (report.state, report.error) == ("failed", "RuntimeError: no backend")
    assert {one.state for one in told(app, writer)} == {"failed"}


def test_others_cost_nothing(app: Celery, writer: Recorder) -> None:
    """A message of no run, or of an app that was not set up, starts no reporter."""
    other = Celery("other", set_as_current=False, broker="memory://")

    @app.task(shared=False)
    def fine() -> None: ...

    @other.task(shared=False)
    def foreign() -> None: ...

    run(fine, None)
    run(fine, "1")
    run(fine, True)
    run(foreign)
    fine.apply(headers={"beatstore_run_id": 1})
    fine()
    assert worker._trackers[app]._reporter is None
    assert writer.calls == 0
    other.close()


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({}, Origin(1, "own")),
        ({"beatstore_task_id": "the-run"}, Origin(1, "the-run")),
        ({"beatstore_task_id": "the-run", "beatstore_part": "2/3"}, Origin(1, "the-run", "2/3")),
        ({"beatstore_task_id": "the-run", "beatstore_part": "step"}, Origin(1, "the-run", "own")),
        ({"beatstore_part": 5}, Origin(1, "own", "own")),
        ({"beatstore_part": "3/2"}, Origin(1, "own", "own")),
        ({"id": None, "beatstore_task_id": "r", "beatstore_part": []}, Origin(1, "r", "step")),
        ({"beatstore_task_id": None}, None),
        ({"beatstore_task_id": ["the-run"]}, None),
        ({"beatstore_task_id": "x" * 156}, None),
        ({"beatstore_task_id": "no\0text"}, None),
        ({"beatstore_task_id": "\ud800"}, None),
        ({"beatstore_task_id": ""}, None),
        ({"id": 7}, None),
        ({"beatstore_run_id": 2**63}, None),
        ({"beatstore_run_id": -1}, None),
        ({"beatstore_run_id": 0}, None),
        ({"beatstore_run_id": 1.0}, None),
        ({"beatstore_run_id": True}, None),
        ({"beatstore_run_id": "1"}, None),
    ],
)
def test_what_headers_say(headers: dict[str, Any], origin: Origin | None) -> None:
    """Headers that anybody may have written name a run that a row may have, or none."""
    given = {"id": "own", "beatstore_run_id": 1, **headers}
    assert tracker.origin_of(given) == origin


def test_setup_does_nothing_yet(writer: Recorder) -> None:
    """Setting up reads no settings, connects nothing, starts nothing, and may be repeated."""
    app = Celery("tests", set_as_current=False)
    receivers = len(signals.task_prerun.receivers)
    beatstore.setup(app)
    known = worker._trackers[app]
    beatstore.setup(app)
    assert worker._trackers[app] is known
    assert not app.configured
    assert len(signals.task_prerun.receivers) <= receivers + 1
    app.close()


def test_an_app_may_be_named_by_its_proxy(app: Celery) -> None:
    """`current_app` is as good as the app it stands for."""
    from celery import current_app

    app.set_current()
    known = worker._trackers[app]
    beatstore.setup(current_app)
    assert worker._trackers[app] is known
    assert not any(known is current_app for known in worker._trackers)


def test_names_are_loaded_late() -> None:
    """Importing beatstore imports no celery; `setup` and `Task` do."""
    code = (
        "import sys, beatstore; assert 'celery' not in sys.modules;"
        "beatstore.setup; beatstore.Task; assert 'celery' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# -- runs that go on in another message ------------------------------------------------------


@pytest.fixture
def sent(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """Collect the headers of what tasks send."""
    found: list[dict[str, Any]] = []

    def keep(*, headers: dict[str, Any], **_: Any) -> None:
        found.append(headers)

    app.set_current()
    signals.after_task_publish.connect(keep)
    yield found
    signals.after_task_publish.disconnect(keep)


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


def request_of(app: Celery, task: Any, run_id: int = 1) -> Any:
    """Return a request as the main process has it."""
    headers = {"id": "the-id", "task": task.name, "beatstore_run_id": run_id, "hostname": "w@h"}

    return Thing(id="the-id", request_dict=headers, hostname="w@h", app=app, task=task)


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


# -- the guard -------------------------------------------------------------------------------


@pytest.fixture
def guarded(app: Celery) -> Any:
    @app.task(base=beatstore.Task, acks_late=True, bind=True, shared=False)
    def guarded(self: Any) -> None:
        ran.append(self.request.id)

    ran: list[str] = []
    guarded.ran = ran
    return guarded


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


def test_a_worker_knows_what_it_runs(app: Celery, writer: Recorder, guarded: Any) -> None:
    """A message of a run that this worker is busy with tells so to the child that gets it."""
    first, second = request_of(app, guarded), request_of(app, guarded)
    consumer = Thing(app=app)
    signals.task_received.send(consumer, request=first)
    assert "beatstore_running" not in first.request_dict
    worker_state.active_requests.add(first)
    try:
        signals.task_received.send(consumer, request=second)
        assert second.request_dict["beatstore_running"] is True
    finally:
        worker_state.active_requests.discard(first)


def test_the_guard_in_an_outage(
    app: Celery, writer: Recorder, guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database hangs, guard and end together cost a task less than 100 ms."""
    assert 2 * worker.BUDGET < 0.1
    monkeypatch.setattr(worker, "BUDGET", 1.0)  # which no busy machine takes for the rest
    writer.hang()
    began = time.monotonic()
    for _ in range(11):
        run(guarded)
    assert time.monotonic() - began < 2 * worker.BUDGET, "more than one has waited, or twice"
    assert len(guarded.ran) == 11
    writer.release()
    assert only(app, writer).state == "succeeded"


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


# -- the heartbeat and the end ---------------------------------------------------------------


class Alive(Recorder):
    """A recorder that takes heartbeats."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.beats: list[tuple[str, int, list[Origin]]] = []
        self.withdrawn: list[str] = []

    def heartbeat(self, worker_id: str, name: str, pid: int, running: list[Origin]) -> None:
        self._answer([])
        self.beats.append((name, pid, list(running)))

    def withdraw(self, worker_id: str) -> None:
        self.withdrawn.append(worker_id)


def test_heartbeat(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A worker says at once and then again and again what it runs, and in the end that it ends."""
    alive = Alive()
    monkeypatch.setattr(tracker, "OwnReports", lambda settings: alive)
    app = Celery("tests", set_as_current=False)
    app.conf.update(beatstore_url=NOWHERE, beatstore_heartbeat=0.1, timezone="UTC")
    beatstore.setup(app)

    @app.task(shared=False)
    def task() -> None: ...

    request, foreign = request_of(app, task, 7), request_of(Celery(set_as_current=False), task, 8)
    worker_state.active_requests.update([request, foreign])
    try:
        signals.worker_ready.send(Thing(app=app, hostname="w@h"))
        wait_until(lambda: len(alive.beats) >= 2)
        assert alive.beats[0] == ("w@h", os.getpid(), [Origin(7, "the-id")])
        alive.error = UnavailableError("gone")
        calls = alive.calls
        wait_until(lambda: alive.calls >= calls + 3)
        alive.error = None
        beats = len(alive.beats)
        wait_until(lambda: len(alive.beats) > beats)
        wait_until(lambda: "writing the worker's heartbeat again after " in caplog.text)
    finally:
        worker_state.active_requests.clear()
    signals.worker_shutdown.send(Thing(app=app))
    assert len(alive.withdrawn) == alive.closed == 1
    assert caplog.text.count(", retrying: ") == 1
    app.close()


def test_a_child_begins_anew(app: Celery, writer: Recorder) -> None:
    """After a fork a child reports by itself, though its parent's reporter hangs."""

    @app.task(shared=False)
    def fine() -> None: ...

    writer.hang()
    run(fine)
    parents = worker._trackers[app].reporter
    with warnings.catch_warnings(), parents._changed, worker._trackers[app]._lock:
        warnings.simplefilter("ignore")  # of newer Pythons, about threads and fork
        child = os.fork()
    if child == 0:
        writer.__post_init__()  # its lock may be taken too
        writer.batches.clear()
        run(fine, 2)
        own = worker._trackers[app].reporter
        fresh = own is not parents and own.flush(5)
        os._exit(0 if fresh and writer.states == [(2, "succeeded")] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.release()
    assert {report.of.run_id for report in told(app, writer)} == {1}
