"""Fixtures of the tests of a worker's signals: an app, and a recorder in place of the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals

import beatstore
from beatstore.worker import signals as worker
from beatstore.worker import tracker
from tests.support.harness.inprocess import NOWHERE
from tests.support.recorder import Recorder


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Hand out what notes the reports of the workers of this process, in place of a database."""
    writer = Recorder()
    monkeypatch.setattr(tracker, "OwnReports", lambda settings: writer)
    yield writer
    writer.error = None
    writer.release()


@pytest.fixture
def app(writer: Recorder) -> Iterator[Celery]:
    """Hand out an app whose workers report to `writer`.

    A task that waits for `writer` waits longer than a busy machine ever takes to answer.
    """
    app = Celery("tests", set_as_current=False, broker="memory://")
    app.conf.update(beatstore_url=NOWHERE, timezone="UTC", beatstore_report_wait=30.0)
    beatstore.setup(app)
    yield app
    writer.error = None
    writer.release()
    worker._trackers[app].stop()
    app.close()


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


@pytest.fixture
def guarded(app: Celery) -> Any:
    """Return a task with the start-once guard, whose `ran` has the id of each start."""

    @app.task(base=beatstore.Task, acks_late=True, bind=True, shared=False)
    def guarded(self: Any) -> None:
        ran.append(self.request.id)

    ran: list[str] = []
    guarded.ran = ran
    return guarded
