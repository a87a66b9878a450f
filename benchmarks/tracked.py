"""The app of the worker that is measured: `celery -A benchmarks.tracked`."""

from __future__ import annotations

import json
import os
import time

import redis
from celery import Celery

import beatstore

__all__ = ["ENDS", "app", "end"]

#: The Redis list to which the task adds the time of its end.
ENDS = "beatstore-bench-ends"

app = Celery("benchmarks.tracked")
app.conf.update(json.loads(os.environ.get("BEATSTORE_TEST_APP", "{}")))
beatstore.setup(app)


@app.task(name="bench.end", shared=False)
def end() -> None:
    """Write down when this ends."""
    with redis.Redis.from_url(app.conf.broker_url) as client:
        client.rpush(ENDS, time.time())
