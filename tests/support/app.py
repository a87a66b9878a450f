"""The Celery app that tests run in real processes, configured by its environment.

`tests.support.project` starts them; `BEATSTORE_TEST_APP` carries the settings as JSON,
`BEATSTORE_TEST_RUNS` names the file in which the tasks leave a line for each run.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery, Task

app = Celery("tests.support.app")
app.conf.update(json.loads(os.environ.get("BEATSTORE_TEST_APP", "{}")))


def leave_line(task: Task[..., Any], **more: Any) -> None:
    """Append what runs now to the file of runs, in one write, which no other can split."""
    request = task.request
    headers = {key: request.get(key) for key in request.__dict__ if key.startswith("beatstore_")}
    line = {
        "id": request.id,
        "task": task.name,
        "args": list(request.args or []),
        "kwargs": dict(request.kwargs or {}),
        "headers": headers,
        "at": time.time(),
        "pid": os.getpid(),
        **more,
    }
    path = os.environ["BEATSTORE_TEST_RUNS"]
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


@app.task(name="tests.note", bind=True, shared=False)
def note(self: Task[..., Any], *args: Any, **kwargs: Any) -> None:
    """Leave a line and end well; takes any arguments."""
    leave_line(self)


@app.task(name="tests.fail", bind=True, shared=False)
def fail(self: Task[..., Any], *args: Any, **kwargs: Any) -> None:
    """Leave a line and fail."""
    leave_line(self)
    raise RuntimeError("tests.fail always fails")


@app.task(name="tests.hold", bind=True, shared=False)
def hold(self: Task[..., Any], path: str, timeout: float = 60.0) -> None:
    """Leave a line, and run until the file `path` exists."""
    leave_line(self)
    deadline = time.monotonic() + timeout
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.02)
