"""Waiting for something to become true, with a deadline.

The only place of the tests that sleeps: everything else either moves a manual clock or
waits here for what it wants to see.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

T = TypeVar("T")


def wait_until(
    predicate: Callable[[], T],
    timeout: float = 30.0,
    message: str | Callable[[], str] = "",
    *,
    interval: float = 0.02,
) -> T:
    """Ask `predicate` again and again until its answer is truthy, and return that answer.

    Args:
        predicate: what is asked; an exception in it ends the wait.
        timeout: seconds until the wait is given up; the predicate is asked once more
            at the end, so a slow predicate is never cheated of its last chance.
        message: what was waited for, or a function that tells it at the end.
        interval: seconds between two questions.

    Raises:
        AssertionError: the time is over.
    """
    __tracebackhide__ = True
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        answer = predicate()
        if answer:
            return answer
        if late:
            text = (message() if callable(message) else message) or repr(predicate)
            raise AssertionError(f"gave up after {timeout:g} s: {text}")
        time.sleep(interval)
