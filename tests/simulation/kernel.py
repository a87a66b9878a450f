"""Processes that stop at each point at which they talk to the outside.

A process is a greenlet that runs beatstore's own code. Before each statement, commit, publish
and acknowledgement it stops, and goes on when the schedule says so: with the effect, without
it, with the effect and no answer, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet

__all__ = ["BROKER", "GO", "Fault", "Kernel", "Killed", "Moment", "Order", "Process"]

#: How a process goes on from where it stopped: `go`; `cut`: the connection breaks before the
#: effect; `lost`: after it; `undo`: the database undoes the transaction; `refuse`: the broker
#: does not take the message; `term`: it gets a SIGTERM.
Order = str
GO: Order = "go"


#: To whom faults happen that happen to the whole broker.
BROKER = "broker"


@dataclass(frozen=True)
class Fault:
    """Something that the schedule did to a process, or to the broker: what, and to whom."""

    what: str
    to: str


class Moment(NamedTuple):
    """When something happened: on the monotonic clock, and after how many faults.

    The clock stands still between two steps, and the faults tell which of them came first.
    """

    at: float
    faults: int


class Killed(BaseException):
    """A process was ended with -9: nothing that it does from here on has any effect."""


class Process:
    """One process: what it is doing, and where it has stopped.

    Attributes:
        name: for the plan, such as `beat-1`.
        kind: beat, worker or user.
        at: the point at which it has stopped: a kind and a text; None if it is idle.
        since: when it stopped there, on the monotonic clock.
        began: when its operation began.
        blocked: whether it waits for a lock of another one.
        error: what it ended with, if that was no error of beatstore's own.
    """

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.kind = name.partition("-")[0]
        self.at: tuple[str, str] | None = None
        self.since, self.began = 0.0, Moment(0.0, 0)
        self.dead = self.blocked = False
        self.error: BaseException | None = None
        self._greenlet: greenlet | None = None

    @property
    def idle(self) -> bool:
        """Whether it is between two operations."""
        return self._greenlet is None

    def begin(self, work: Callable[[], object]) -> None:
        """Begin an operation, and run it to its first point."""
        assert self._greenlet is None
        self.began = self.kernel.now()
        self._greenlet = greenlet(lambda order: self._run(work))
        self._greenlet.process = self
        self._switch(GO)

    def go(self, order: Order = GO) -> None:
        """Go on to the next point, or to the end of the operation."""
        if self._greenlet is not None:
            self._switch(order)

    def kill(self) -> None:
        """End it where it stands, with -9."""
        self.dead = True
        while self._greenlet is not None:
            self._switch(GO)

    def point(self, kind: str, what: str) -> Order:
        """Stop here until the schedule lets it go on; called by the process itself."""
        if self.dead:
            raise Killed
        self.at, self.since = (kind, what), self.kernel.monotonic()
        order: Order = self.kernel.main.switch()
        if self.dead:
            raise Killed
        if order == "term":
            raise SystemExit
        return order

    def _switch(self, order: Order) -> None:
        assert self._greenlet is not None
        self.kernel.main = getcurrent()
        self._greenlet.switch(order)
        if self._greenlet is not None and self._greenlet.dead:
            self._greenlet, self.at, self.blocked = None, None, False

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (Killed, SystemExit):
            pass
        except BaseException as error:  # noqa: BLE001  (the schedule fails with it)
            self.error = error


class Kernel:
    """What all processes of a schedule share.

    Attributes:
        main: the greenlet that plays the schedule.
        monotonic: reads the clock.
        faults: what the schedule has done to them, and to the broker, in its order.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.main: Any = getcurrent()
        self.monotonic = monotonic
        self.faults: list[Fault] = []

    def now(self) -> Moment:
        """Return the moment that it is."""
        return Moment(self.monotonic(), len(self.faults))

    def harmed(self, name: str, since: Moment, until: Moment) -> bool:
        """Say whether a process has broken between two moments, alone or with the broker.

        Whom the broker refuses a message has its answer, and so has, in the end, who waits for one
        during an alarm.
        """
        between = self.faults[since.faults : until.faults]
        return any(one.what == "down" or one.to == name for one in between if one.what != "refuse")

    @staticmethod
    def current() -> Process | None:
        """Return the process that is running, or None outside of all."""
        found: Process | None = getattr(getcurrent(), "process", None)
        return found
