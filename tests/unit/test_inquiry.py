"""What beat asks a result backend about silent runs, and what it makes of the answers."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

from celery import Celery

from beatstore.beat.inquiry import Inquiry
from beatstore.tick.claims import StaleRun

AT = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


class SlowBackend:
    """A result backend that answers when it is let, and knows of nothing but `known`."""

    def __init__(self, **known: str) -> None:
        self._known = known
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def get_task_meta(self, task_id: str) -> dict[str, Any]:
        """Return the state of a task."""
        self.asked.set()
        assert self.may_answer.wait(10)
        return {"status": self._known.get(task_id, "PENDING")}


def stale(run_id: int, wake_at: datetime) -> StaleRun:
    """Return a run as a sweep finds it silent."""
    return StaleRun(run_id, f"task-{run_id}", "a", "no worker reported it", wake_at)


def test_a_slow_answer_is_about_the_latest_sweep() -> None:
    """A run that is swept again while the backend is asked is still silent, so it is lost."""
    backend = SlowBackend(**{"task-2": "SUCCESS"})
    inquiry = Inquiry(cast("Celery", SimpleNamespace(backend=backend)))
    assert inquiry.ask([stale(1, AT), stale(2, AT), stale(3, AT)]) == []
    assert backend.asked.wait(10)
    assert inquiry.ask([stale(1, AT + MINUTE), stale(4, AT + MINUTE)]) == []
    backend.may_answer.set()
    inquiry.wait(10)
    found = [(one.run_id, one.state, one.wake_at) for one in inquiry.ask()]
    assert found == [(1, "lost", AT + MINUTE), (2, "succeeded", None), (3, "lost", AT)]
    assert inquiry.ask() == []
