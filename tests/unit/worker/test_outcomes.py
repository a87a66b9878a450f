"""What the signals of celery's own tracer make a worker report."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown

import beatstore
from beatstore.tick.reports import Origin
from beatstore.worker import signals as worker
from beatstore.worker import tracker
from beatstore.worker.reporter import BATCH
from beatstore.worker.wording import error_text
from tests.support.processes import ROOT
from tests.support.recorder import Recorder
from tests.support.tracer import only, run, told


def test_success(app: Celery, writer: Recorder) -> None:
    """A run that ends well is written before its message can be acknowledged late."""

    @app.task(shared=False, acks_late=True)
    def fine() -> int:
        return 1

    began = time.monotonic()
    run(fine)
    report = writer.reports[-1]
    assert (report.of.run_id, report.state, report.worker) == (1, "succeeded", "w@h")
    assert report.started is not None
    assert began <= report.started <= report.at
    assert report.error is report.reason is report.traceback is None


@pytest.mark.parametrize(
    ("late", "short", "waits"), [(False, 60.0, False), (False, 0.0, True), (True, 60.0, True)]
)
def test_who_waits_for_the_report(  # noqa: PLR0917  (parameters and fixtures)
    app: Celery,
    writer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    late: bool,
    short: float,
    waits: bool,
) -> None:
    """A short task that is acknowledged goes on at once; a longer one, or a late one, waits."""

    @app.task(shared=False, acks_late=late)
    def fine() -> None: ...

    monkeypatch.setattr(worker, "SHORT", short)
    app.conf.beatstore_report_wait = 1.0
    run(fine)
    assert only(app, writer).state == "succeeded"
    writer.hang()
    began = time.monotonic()
    run(fine, 2)
    assert (time.monotonic() - began >= 1.0) == waits
    writer.release()
    assert only(app, writer).of.run_id == 2


def test_short_tasks_wait_when_too_many_reports_do(
    app: Celery, writer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When more reports are left than one transaction takes, the next task waits for them."""

    @app.task(shared=False)
    def fine() -> None: ...

    monkeypatch.setattr(worker, "SHORT", 60.0)
    app.conf.beatstore_report_wait = 1.0
    run(fine)
    assert only(app, writer).state == "succeeded"
    writer.hang()
    began = time.monotonic()
    for run_id in range(2, 4 + BATCH):
        run(fine, run_id)
    assert time.monotonic() - began >= 1.0
    writer.release()
    assert len(told(app, writer)) == 3 + BATCH


def test_headers_of_any_name_hide_no_report(app: Celery, writer: Recorder) -> None:
    """Celery makes them attributes of the request, on which the worker keeps notes."""

    @app.task(shared=False)
    def fine() -> None: ...

    names = ("refused", "told", "follow_up", "has_ended", "waits_until", "next_expires")
    run(fine, 1, **dict.fromkeys(names, "x"))
    assert only(app, writer).state == "succeeded"


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

    assert error_text(MuteError()) == "MuteError: (it can't be shown)"
    assert error_text(KeyError()) == "KeyError"


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


@pytest.mark.parametrize(
    ("late", "ending"),
    [
        (True, ("sent", "the task raised Reject: later", None)),
        (False, ("failed", None, "Reject: later")),
    ],
)
def test_a_message_that_is_put_back(
    app: Celery, writer: Recorder, late: bool, ending: tuple[str, str | None, str | None]
) -> None:
    """A task can put its message back in the queue if that is not acknowledged yet."""

    @app.task(acks_late=late, shared=False)
    def puts_back() -> None:
        raise Reject("later", requeue=True)

    run(puts_back)
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


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (None, "retried by the task"),
        (Ignore("enough"), "retried by the task"),
        (ValueError("no"), "retried by the task, and has failed: ValueError: no"),
    ],
)
@pytest.mark.parametrize("throw", [True, False])
def test_a_retry_that_does_not_end_the_task(
    app: Celery, writer: Recorder, throw: bool, then: Exception | None, reason: str
) -> None:
    """A task that has sent its retry goes on in that, whatever it does then; once."""

    @app.task(bind=True, shared=False)
    def again(self: Any) -> None:
        if self.request.retries:
            return
        with suppress(Retry):
            self.retry(countdown=100, throw=throw)
        if then is not None:
            raise then

    app.set_current()
    run(again)
    report = only(app, writer)
    assert (report.state, report.reason, report.error) == ("sent", reason, None)
    assert report.delay == pytest.approx(100, abs=5)
    run(again, retries=1)
    assert only(app, writer).state == "succeeded"
    run(again, 2)
    run(again, 3, id="another", retries=1)
    assert [report.state for report in told(app, writer)[-2:]] == ["sent", "succeeded"]


@pytest.mark.filterwarnings("ignore:Exception raised outside body")
def test_a_retry_that_can_t_be_stored(
    app: Celery, writer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on in its retry, though the result backend does not take that it is retried."""

    @app.task(bind=True, shared=False)
    def again(self: Any) -> None:
        self.retry(countdown=100)

    def mark_as_retry(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no backend")

    app.set_current()
    monkeypatch.setattr(again.backend, "mark_as_retry", mark_as_retry)
    run(again)
    reports = told(app, writer)
    assert {report.state for report in reports} == {"sent"}
    assert reports[-1].delay == pytest.approx(100, abs=5)


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


def test_a_copy_of_an_app_reports_too(app: Celery, writer: Recorder) -> None:
    """What a spawned child of a worker unpickles is set up, and its tasks report."""
    copy = pickle.loads(pickle.dumps(app))
    assert copy is not app

    @copy.task(shared=False)
    def fine() -> None: ...

    run(fine)
    assert only(copy, writer).state == "succeeded"
    worker._trackers[copy].stop()
    copy.close()


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
