"""The app of `tests.support.app`, with tasks of beatstore's class, for what is due later.

`register` gives the same tasks to an app of the test's own process, so that it can call them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from celery import Celery

import beatstore
from tests.support.app import app, leave_line

__all__ = ["APP", "app", "register"]

#: What `celery -A` is given.
APP = "tests.support.far_app"


def register(app: Celery) -> SimpleNamespace:
    """Give an app the tasks `add`, `total`, `hold` and `again`."""

    def task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        given: Any = {"bind": True, "shared": False, "base": beatstore.Task, **options}
        made: Callable[[Callable[..., Any]], Any] = app.task(name=f"far.{name}", **given)
        return made

    @task("add")
    def add(self: Any, x: int, y: int = 0) -> int:
        leave_line(self)
        return x + y

    @task("total")
    def total(self: Any, numbers: list[int]) -> int:
        leave_line(self)
        return sum(numbers)

    @task("hold")
    def hold(self: Any, path: str) -> None:
        leave_line(self)
        while not os.path.exists(path):
            time.sleep(0.02)

    @task("again", max_retries=9)
    def again(self: Any, countdown: float) -> int:
        leave_line(self)
        if not self.request.retries:
            raise self.retry(countdown=countdown)
        return int(self.request.retries)

    return SimpleNamespace(add=add, total=total, hold=hold, again=again)


register(app)
