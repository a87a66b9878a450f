"""Tasks run as a worker's pool runs them, and what was reported of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.app.trace import build_tracer

from beatstore.tick.reports import Report
from beatstore.worker import signals as worker
from tests.support.recorder import Recorder

__all__ = ["Thing", "only", "request_of", "run", "told"]


class Thing(SimpleNamespace):
    """An object of celery's, with the few attributes that count here."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def run(task: Any, run_id: Any = 1, *args: Any, **headers: Any) -> Any:
    """Run a task as a worker's pool does, and return what its tracer returns."""
    headers = {"delivery_info": {}, "hostname": "w@h", "is_eager": False, **headers}
    request = {"id": "the-id", "task": task.name, "beatstore_run_id": run_id, **headers}
    tracer = build_tracer(task.name, task, app=task.app)
    return tracer("the-id", [*args], {}, request)


def told(app: Celery, writer: Recorder) -> list[Report]:
    """Return the reports but those of starts, which come or not, once all are written."""
    assert worker._trackers[app].reporter.flush(10)
    return [report for report in writer.reports if report.state != "started"]


def only(app: Celery, writer: Recorder) -> Report:
    """Return what was reported last."""
    return told(app, writer)[-1]


def request_of(app: Celery, task: Any, run_id: int = 1) -> Any:
    """Return a request as the main process has it."""
    headers = {"id": "the-id", "task": task.name, "beatstore_run_id": run_id, "hostname": "w@h"}

    return Thing(id="the-id", request_dict=headers, hostname="w@h", app=app, task=task)
