"""The app of `tests.support.app`, with tasks that return something to make canvases of."""

from __future__ import annotations

from typing import Any

from celery import Task

import beatstore
from tests.support.app import app, leave_line

__all__ = ["APP", "add", "app", "total"]

beatstore.setup(app)

#: What `celery -A` is given.
APP = "tests.support.canvas_app"


@app.task(name="tests.add", bind=True)
def add(self: Task[..., Any], x: int, y: int) -> int:
    """Leave a line, and return the sum."""
    leave_line(self)
    return x + y


@app.task(name="tests.total", bind=True)
def total(self: Task[..., Any], numbers: list[int]) -> int:
    """Leave a line, and return the sum of all."""
    leave_line(self)
    return sum(numbers)
