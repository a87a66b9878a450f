"""Catching a beat at an exact point of its work, with a signal that it sends to itself.

    trap = Trap("claimed", signal.SIGKILL, tmp_path / "caught")
    beat = scene.start_beat(app=APP, env=trap.env)
    trap.wait(beat)

`trapped_app.py` is the app that does it.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Process, stopped
from tests.support.wait import wait_until

__all__ = ["APP", "POINTS", "Trap"]

#: What `celery -A` is given.
APP = "tests.support.trapped_app"

#: Where a beat can be caught, in the order of its work. Those that are about a claim, or
#: about what was sent, are only passed with some of it.
POINTS = (
    "planned",  # runs and entries are written, and not committed
    "claimed",  # and committed; nothing is sent
    "message",  # one more message has been handed to the transport
    "writing",  # half of a batch is on its way to Redis
    "settling",  # the batch is with the broker, and not marked
    "settled",  # the marks are written, and not committed; on PostgreSQL they commit at once
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
                return self.number != signal.SIGSTOP or stopped(process.pid)
            assert running, f"ended before {self.point}:\n{process.output()[-4000:]}"
            return False

        wait_until(caught, timeout, lambda: f"never {self.point}:\n{process.output()[-4000:]}")
