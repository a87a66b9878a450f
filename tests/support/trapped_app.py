"""The app of a beat that sends itself a signal at an exact point of its work.

It is that of `tests.support.app` where `BEATSTORE_TEST_TRAP` is not set. Otherwise that
carries JSON, written by `tests.support.traps`:

    point    one of POINTS
    nth      at which passing of that point; 1 is the first
    signal   name of the signal
    mark     file that is made just before
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.app import app

__all__ = ["app"]


class _Catcher:
    """Counts how often its point is passed, and sends the signal at the n-th."""

    def __init__(self, *, point: str, nth: int, signal: str, mark: str) -> None:
        self.point, self.left, self.signal, self.mark = point, nth, signal, mark

    def passed(self) -> None:
        self.left -= 1
        if not self.left:
            Path(self.mark).touch()
            os.kill(os.getpid(), getattr(signal, self.signal))


def _around(
    owner: Any,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[[Any], None] | None = None,
) -> None:
    """Have a method call `before` with its arguments, and `after` with its result."""
    method = getattr(owner, name)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = method(self, *args, **kwargs)
        if after is not None:
            after(result)
        return result

    setattr(owner, name, wrapped)


def _set(catcher: _Catcher) -> None:
    from beatstore.beat.ladder.publish import Publish
    from beatstore.beat.ladder.push import Push
    from beatstore.beat.sender import Sender
    from beatstore.tick import mark
    from beatstore.tick.plan import Planner
    from beatstore.tick.queue import Queue

    def with_plans(planned: Any) -> None:
        if planned.claims:
            catcher.passed()

    def with_claims(planned: tuple[Any, int]) -> None:
        if planned[0]:
            catcher.passed()

    def with_sent(outcomes: Any) -> None:
        if any(outcome.state == "sent" for outcome in outcomes):
            catcher.passed()

    def always(_: Any) -> None:
        catcher.passed()

    def at_messages() -> None:
        for owner, name in ((Sender, "_apply"), (Push, "put"), (Publish, "put")):
            _around(owner, name, after=always)

    ways: dict[str, Callable[[], None]] = {
        "planned": lambda: _around(Planner, "plan_where", after=with_plans),
        "claimed": lambda: _around(Queue, "plan", after=with_claims),
        "message": at_messages,
        "writing": lambda: _set_half_way(catcher),
        "settling": lambda: _around(Queue, "mark", before=with_sent),
        "settled": lambda: _around(mark, "_mark_sent", after=always),
        "marked": lambda: _set_after_mark(catcher, Queue),
    }
    ways[catcher.point]()


def _set_after_mark(catcher: _Catcher, queue: Any) -> None:
    mark = queue.mark

    def settled(self: Any, outcomes: Any) -> Any:
        held = mark(self, outcomes)
        if any(outcome.state == "sent" for outcome in outcomes):
            catcher.passed()
        return held

    queue.mark = settled


def _set_half_way(catcher: _Catcher) -> None:
    """Catch the beat when half of the bytes of a batch have left: a pipeline, or one command."""
    from redis.connection import AbstractConnection

    redis: Any = AbstractConnection
    send = redis.send_packed_command

    def send_half(self: Any, command: Any, check_health: bool = True) -> None:
        data = b"".join(command) if isinstance(command, list) else b""
        if data.count(b"correlation_id") <= 1:
            send(self, command, check_health)
            return
        half = len(data) // 2
        send(self, [data[:half]], check_health)
        catcher.passed()
        send(self, [data[half:]], False)

    redis.send_packed_command = send_half


if "BEATSTORE_TEST_TRAP" in os.environ:
    _set(_Catcher(**json.loads(os.environ["BEATSTORE_TEST_TRAP"])))
