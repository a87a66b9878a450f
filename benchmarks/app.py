"""The app of the real beats that are measured; `celery -A benchmarks.app`.

It imports nothing that a user's would not: start and memory are measured too.
"""

from __future__ import annotations

import json
import os
import time
from functools import cached_property
from typing import Any

from celery import Celery

from beatstore import DBScheduler

__all__ = ["TASK", "TICKS", "TimedScheduler", "app", "with_task"]

TASK = "bench.work"

#: Names the file in which `TimedScheduler` leaves a line for each tick.
TICKS = "BEATSTORE_BENCH_TICKS"


def with_task(app: Celery) -> Celery:
    """Register the task that is sent."""

    @app.task(name=TASK, shared=False)
    def work(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    return app


app = with_task(Celery("benchmarks.app"))
app.conf.update(json.loads(os.environ.get("BEATSTORE_TEST_APP", "{}")))


class TimedScheduler(DBScheduler):
    """Leaves a line for each tick: the time, its seconds, and all CPU seconds so far."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Tick, and write down what it took."""
        started = time.perf_counter()
        wait = super().tick(*args, **kwargs)
        line = [time.time(), time.perf_counter() - started, time.process_time()]
        os.write(self._ticks, json.dumps(line).encode() + b"\n")
        return wait

    @cached_property
    def _ticks(self) -> int:
        return os.open(os.environ[TICKS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
