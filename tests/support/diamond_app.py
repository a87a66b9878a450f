"""The app of the diamond: one task, with the start-once guard, that leaves a line and ends.

`BEATSTORE_TEST_APP` carries the settings as JSON, `BEATSTORE_TEST_RUNS` names the file.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery, Task

import beatstore
from tests.support.app import leave_line

app = Celery("tests.support.diamond_app", task_cls="beatstore:Task")
app.conf.update(json.loads(os.environ.get("BEATSTORE_TEST_APP", "{}")))
beatstore.setup(app)


@app.task(name="tests.step", bind=True, shared=False)
def step(self: Task[..., Any], seconds: float = 0.0) -> None:
    """Leave a line when its own code starts, and work for a moment."""
    leave_line(self)
    time.sleep(seconds)
