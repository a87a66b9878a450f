"""The app of a beat that sends itself a signal at an exact point of its work.

`celery -A tests.support.traps beat` is the beat of `tests.support.app` where
`BEATSTORE_TEST_TRAP` is not set. It carries JSON otherwise:

    point    one of POINTS
    nth      at which passing of that point; 1 is the first
    signal   name of the signal: SIGKILL, SIGTERM, SIGSTOP
    mark     file that is made just before

`Trap` writes and watches that for a test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.app import app
from tests.support.processes import Process
from tests.support.wait import wait_until

__all__ = ["APP", "POINTS", "Trap", "app"]

#: What `celery -A` is given.
APP = "tests.support.traps"

#: Where a beat can be caught, in the order of its work. Those that are about a claim, or
#: about what was sent, are only passed with some of it.
POINTS = (
    "planned",  # runs and entries are written, and not committed
    "claimed",  # and committed; nothing is sent
    "message",  # one more message has been handed to the transport
    "writing",  # half of a batch is on its way to Redis
    "settling",  # the batch is with the broker, and not marked
    "settled",  # the marks are written, and not committed
    "marked",  # and committed
)


@dataclass(frozen=True)
class Trap:
    """A point, a signal, and the file that says that it was sent."""

    point: str
    number: signal.Signals
    mark: Path
    nth: int = 1

    @property
    def env(self) -> dict[str, str]:
        """The variable that sets the trap in a beat."""
        given = {
            "point": self.point,
            "nth": self.nth,
            "signal": self.number.name,
            "mark": str(self.mark),
        }
        return {"BEATSTORE_TEST_TRAP": json.dumps(given)}

    def wait(self, process: Process, timeout: float = 60) -> None:
        """Wait until the process is caught; and until it stands, where the signal stops it."""

        def caught() -> bool:
            running = process.running
            if self.mark.exists():
                return self.number != signal.SIGSTOP or _stands(process.pid)
            assert running, f"ended before {self.point}:\n{process.output()[-4000:]}"
            return False

        wait_until(caught, timeout, lambda: f"never {self.point}:\n{process.output()[-4000:]}")


def _stands(pid: int) -> bool:
    shown = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return shown.stdout.startswith("T")


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
    from beatstore.sender import Sender
    from beatstore.store.plan import Planner
    from beatstore.store.queue import Queue

    def with_claims(planned: tuple[Any, Any]) -> None:
        if any(isinstance(part, list) and part for part in planned):
            catcher.passed()

    def with_sent(outcomes: Any) -> None:
        if any(outcome.state == "sent" for outcome in outcomes):
            catcher.passed()

    def always(_: Any) -> None:
        catcher.passed()

    ways: dict[str, Callable[[], None]] = {
        "planned": lambda: _around(Planner, "plan_where", after=with_claims),
        "claimed": lambda: _around(Queue, "plan", after=with_claims),
        "message": lambda: _around(Sender, "_apply", after=always),
        "writing": lambda: _set_half_way(catcher),
        "settling": lambda: _around(Queue, "settle", before=with_sent),
        "settled": lambda: _around(Queue, "_settle_all", after=always),
        "marked": lambda: _set_after_mark(catcher, Queue),
    }
    ways[catcher.point]()


def _set_after_mark(catcher: _Catcher, queue: Any) -> None:
    settle = queue.settle

    def settled(self: Any, outcomes: Any) -> None:
        settle(self, outcomes)
        if any(outcome.state == "sent" for outcome in outcomes):
            catcher.passed()

    queue.settle = settled


def _set_half_way(catcher: _Catcher) -> None:
    """Catch the beat when half of the bytes of a pipeline have left."""
    from redis.connection import AbstractConnection

    redis: Any = AbstractConnection
    send = redis.send_packed_command

    def send_half(self: Any, command: Any, check_health: bool = True) -> None:
        data = b"".join(command) if isinstance(command, list) else b""
        if data.count(b"LPUSH") <= 1:
            send(self, command, check_health)
            return
        half = len(data) // 2
        send(self, [data[:half]], check_health)
        catcher.passed()
        send(self, [data[half:]], False)

    redis.send_packed_command = send_half


if "BEATSTORE_TEST_TRAP" in os.environ:
    _set(_Catcher(**json.loads(os.environ["BEATSTORE_TEST_TRAP"])))
