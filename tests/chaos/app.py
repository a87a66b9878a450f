"""The app of the chaos run: tasks that write down when they start and how they end.

`BEATSTORE_TEST_APP` carries the settings as JSON, `BEATSTORE_TEST_RUNS` names the file of the
witness. A line is one write to a file opened for appending, so no two lines mix, and it stays
when the process is killed. Whether a task fails is drawn from its id, so that it does not
depend on the process.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

from celery import Celery, Task, chain

import beatstore

app = Celery("tests.chaos.app")
app.conf.update(json.loads(os.environ.get("BEATSTORE_TEST_APP", "{}")))
beatstore.setup(app)


class ChaosError(Exception):
    """What tasks raise here."""


class Guarded(beatstore.Task):
    """A task with the start-once guard that knows for how long the guard has kept it waiting."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Ask, and note how long that took."""
        began = time.monotonic()
        super().before_start(task_id, args, kwargs)
        self.request.update(asked_s=time.monotonic() - began)


def leave_line(task: Task[..., Any], what: str, part: str | None, run: int | None) -> None:
    """Append what a task does now."""
    request = task.request
    line = {
        "at": time.time(),
        "what": what,
        "run": run if run is not None else request.get("beatstore_run_id"),
        "entry": request.get("beatstore_entry"),
        "due": request.get("beatstore_due_at"),
        "attempt": request.get("beatstore_attempt"),
        "task_id": request.id,
        "part": part,
        "retries": request.retries,
        "redelivered": bool((request.delivery_info or {}).get("redelivered")),
        "worker": str(request.hostname),
        "pid": os.getpid(),
        "asked_s": round(request.get("asked_s") or 0.0, 3),
    }
    file = os.open(os.environ["BEATSTORE_TEST_RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def _work(
    task: Task[..., Any],
    seconds: float,
    failing: float,
    part: str | None = None,
    run: int | None = None,
    *,
    retrying: float = 0.0,
) -> None:
    draw = random.Random(f"{task.request.id}/{task.request.retries}")
    leave_line(task, "start", part, run)
    time.sleep(seconds * draw.uniform(0.5, 1.0))
    chance = draw.random()
    if chance < failing:
        leave_line(task, "fail", part, run)
        raise ChaosError(f"drew {chance:.2f}")
    if task.request.retries < 2 and chance < failing + retrying:
        leave_line(task, "retry", part, run)
        raise task.retry(countdown=1, max_retries=5)
    leave_line(task, "ok", part, run)


@app.task(name="chaos.plain", bind=True, shared=False, ignore_result=True)
def plain(
    self: Task[..., Any],
    seconds: float = 0.0,
    failing: float = 0.0,
    part: str | None = None,
    run: int | None = None,
) -> None:
    """Work, and fail at times; without the start-once guard."""
    _work(self, seconds, failing, part, run)


@app.task(name="chaos.part", bind=True, shared=False)
def part(
    self: Task[..., Any], seconds: float = 0.0, failing: float = 0.0, part: str | None = None
) -> None:
    """Be a part of a canvas; chords need the result."""
    _work(self, seconds, failing, part)


@app.task(name="chaos.guarded", bind=True, shared=False, base=Guarded, ignore_result=True)
def guarded(self: Task[..., Any], seconds: float = 0.0, failing: float = 0.0) -> None:
    """Work, and fail at times; with the start-once guard."""
    _work(self, seconds, failing)


@app.task(name="chaos.late", bind=True, shared=False, base=Guarded, acks_late=True)
def late(self: Task[..., Any], seconds: float = 0.0, failing: float = 0.0) -> None:
    """Work with the guard, and acknowledge the message at the end."""
    _work(self, seconds, failing)


@app.task(name="chaos.retrying", bind=True, shared=False, base=Guarded)
def retrying(self: Task[..., Any], seconds: float = 0.0, failing: float = 0.0) -> None:
    """Work with the guard, and be retried by celery at times."""
    _work(self, seconds, failing, retrying=0.4)


@app.task(name="chaos.swap", bind=True, shared=False, ignore_result=True)
def swap(self: Task[..., Any], seconds: float = 0.0, failing: float = 0.0) -> Any:
    """Be replaced by a chain of two, which is the same run."""
    run = self.request.get("beatstore_run_id")
    leave_line(self, "start", "swap", None)
    leave_line(self, "ok", "swap", None)
    steps = [plain.si(seconds, failing, part=name, run=run) for name in ("first", "second")]
    return self.replace(chain(*steps))
