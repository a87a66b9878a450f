"""The app of the workers that are measured: `celery -A benchmarks.tracked`."""

from __future__ import annotations

import json
import os
import time

import redis
from celery import Celery

import beatstore
from benchmarks.app import with_task

__all__ = ["ENDS", "SILENT", "app", "end", "nothing"]

#: The Redis list to which the task adds the time of its end.
ENDS = "beatstore-bench-ends"

#: Set for a worker that reports nothing.
SILENT = "BEATSTORE_BENCH_SILENT"

app = with_task(Celery("benchmarks.tracked"))
app.conf.update(json.loads(os.environ.get("BEATSTORE_TEST_APP", "{}")))


@app.task(name="bench.nothing", shared=False)
def nothing() -> None:
    """Do nothing."""


if SILENT not in os.environ:
    beatstore.setup(app)

    @app.task(name="bench.nothing_guarded", base=beatstore.Task, shared=False)
    def nothing_guarded() -> None:
        """Do nothing, with the start-once guard."""


@app.task(name="bench.end", shared=False)
def end() -> None:
    """Write down when this ends."""
    with redis.Redis.from_url(app.conf.broker_url) as client:
        client.rpush(ENDS, time.time())
