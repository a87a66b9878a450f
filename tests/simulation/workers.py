"""A worker: takes messages, runs tasks that last and end as the plan says, and reports them.

What it writes is written by `beatstore.tick.reports`, as by any worker. What stands between
the tasks and that, the queue of `beatstore.worker.reporter`, is played here without its
thread: a report is kept until it is written, and a start waits for the end that overtakes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from beatstore import Store
from beatstore.errors import HeldError, UnavailableError
from beatstore.headers import STEP
from beatstore.tick.reports import Origin, Report, Reports
from tests.simulation.broker import Broker, Message
from tests.simulation.kernel import Kernel
from tests.simulation.virtual import Virtual

__all__ = ["DROPS", "GUARDED", "LATE", "PLAIN", "Deed", "Ends", "Worker"]

#: Why a task is dropped: before it starts, and by itself.
DROPS = "revoked", "the task raised Ignore"

#: The tasks: with the start-once guard; without; and one that is acknowledged at its end.
GUARDED, PLAIN, LATE = "sim.guarded", "sim.plain", "sim.late"

#: How many tasks a worker runs at a time.
SLOTS = 2

#: How long the message of a task that retries itself waits, in seconds.
COUNTDOWN = 5.0

#: How long the start-once guard waits for the database is no time here: the answer is there
#: when the process goes on, or the database is out of reach.
_HEARTBEAT = 10.0


@dataclass(frozen=True)
class Deed:
    """What a worker did to a message: `start`, `drop`, `succeeded`, `failed`, `cancelled`, `sent`.

    `sent` is Celery's own retry: the task has put its message back into the queue.
    `allowed` says of a start that the guard was asked, and has answered.
    """

    worker: str
    what: str
    message: Message
    at: float
    allowed: bool = False


class Ends:
    """How the tasks end, by entry, in the order in which they start, and how long they take."""

    def __init__(self, given: dict[str, list[tuple[str, float]]]) -> None:
        self._left = {name: list(ends) for name, ends in given.items()}

    def next(self, name: str) -> tuple[str, float]:
        """Return the end of the next run of an entry."""
        left = self._left.get(name)
        end, seconds = left.pop(0) if left else ("succeeded", 0.0)
        return "cancelled" if end == "revoked" else end, seconds  # revoked while it started

    def revoked(self, name: str) -> bool:
        """Say whether the next message of an entry is revoked, and go on to the one after it."""
        left = self._left.get(name, [])
        return bool(left) and left[0][0] == "revoked" and bool(left.pop(0))


@dataclass
class _Running:
    message: Message
    origin: Origin
    began: float
    ends_at: float
    end: str


class Worker:
    """The operations of one worker, from its start to its end."""

    def __init__(
        self,
        name: str,
        store: Store,
        broker: Broker,
        *,
        clock: Virtual,
        ends: Ends,
        patience: int = 1,
    ) -> None:
        self._name = name
        self._broker = broker
        self._clock = clock
        self._ends = ends
        #: How many reports it writes together while there is other work.
        self._patience = patience
        self._reports = Reports(store.database, store.settings)
        self._alive = Reports(store.database, store.settings)
        self._id = str(clock.new_id())
        self._kept: list[Report] = []
        self._running: list[_Running] = []
        self._heartbeat_at = 0.0
        self.deeds: list[Deed] = []
        #: The message that it is about to start.
        self.hand: Message | None = None
        #: By task id, when the latest heartbeat for it began that was written. One for a task of
        #: a canvas says nothing of the run before the start of that task is written.
        self.beaten: dict[str, float] = {}

    @property
    def busy(self) -> bool:
        """Whether it has a task, or a report to write."""
        return bool(self._running or self._kept)

    def ends_next(self) -> float | None:
        """Return when the next of its tasks ends."""
        return min((one.ends_at for one in self._running), default=None)

    def next(self) -> Callable[[], object] | None:
        """Return what it does next; None if there is nothing to do now."""
        now = self._clock.monotonic
        if self._running and now >= self._heartbeat_at:
            return self._heartbeat
        if len(self._kept) >= self._patience:
            return self._write
        if any(one.ends_at <= now for one in self._running):
            return self._end
        waiting = any(message.visible_at <= now for message in self._broker.queue)
        if len(self._running) < SLOTS and waiting and self._broker.up:
            return self._take
        return self._write if self._kept else None

    def close(self) -> None:
        """Drop its connections, as the end of its process does."""
        for reports in (self._reports, self._alive):
            reports._kept.drop(orderly=False)

    # -- operations ------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        now = self._clock.monotonic
        self._heartbeat_at = now + _HEARTBEAT
        running = [one.origin for one in self._running]
        try:
            self._alive.heartbeat(self._id, self._name, 1, running)
        except UnavailableError:
            self._heartbeat_at = self._clock.monotonic + 1.0
            return
        ids = [one.task_id for one in running if one.part is None]
        self.beaten.update(dict.fromkeys(ids, now))

    def _write(self) -> None:
        given = list(self._kept)
        try:
            unwritten = self._reports.write(given)
        except UnavailableError:
            return
        self._kept = [one for one in self._kept if one in unwritten.held or one not in given]

    def _take(self) -> None:
        message = self.hand = self._broker.receive(self._name, self._clock.monotonic)
        if message is None:
            return
        if message.task != LATE:
            self._acknowledge(message)
        origin = Origin(message.run_id, message.task_id, message.part)
        began = self._clock.monotonic
        if message.expires_at <= began or self._ends.revoked(message.name):
            self._did("cancelled", message)
            self._kept.append(Report(origin, "cancelled", began, self._name, reason=DROPS[0]))
            if message.task == LATE:
                self._acknowledge(message)
            return
        report = Report(origin, "started", began, self._name)
        allowed: bool | None = None
        if message.task in (GUARDED, LATE):
            allowed = self._may_start(report, message)
        else:
            self._kept.append(report)
        if allowed is False:
            self._did("drop", message)
            if message.task == LATE:
                self._acknowledge(message)
            return
        end, seconds = self._ends.next(message.name)
        began = self._clock.monotonic
        if not self._running:
            self._heartbeat_at = max(self._heartbeat_at, began + _HEARTBEAT / 2)
        self._running.append(_Running(message, origin, began, began + seconds, end))
        self._did("start", message, allowed=bool(allowed))

    def _may_start(self, report: Report, message: Message) -> bool | None:
        """Ask the start-once guard; None is no answer, and the task starts."""
        again = message.task == LATE and message.redelivered
        try:
            answer, written = self._reports.start_and_end(report, self._kept, again=again)
        except (HeldError, UnavailableError):
            self._kept.append(report)
            return None
        self._kept = [one for one in self._kept if one not in written]
        return answer is None

    def _end(self) -> None:
        now = self._clock.monotonic
        one = min(self._running, key=lambda one: one.ends_at)
        self._running.remove(one)
        end = self._go_on(one)
        self._did(end, one.message)
        error = "ValueError: made to fail" if end == "failed" else None
        reason = {"sent": "retried by the task", "cancelled": DROPS[1]}.get(end)
        delay = COUNTDOWN if end == "sent" else 0.0
        report = Report(one.origin, end, now, self._name, one.began, reason, error, delay=delay)
        # A start that is not written yet is written with the end.
        begun = [kept for kept in self._kept if kept.of == one.origin and kept.state == "started"]
        self._kept = [kept for kept in self._kept if kept not in begun]
        self._kept.append(report)
        if one.message.task == LATE:
            self._write()
            self._acknowledge(one.message)

    def _go_on(self, one: _Running) -> str:
        """Send what the task sends at its end, and return how it ended."""
        if one.end == "again":
            at = self._clock.monotonic + COUNTDOWN
            return "sent" if self._broker.go_on(one.message, visible_at=at) else "failed"
        if one.end == "succeeded" and one.message.part == STEP:
            return "succeeded" if self._broker.go_on(one.message, part="1/1") else "failed"
        return one.end

    def _acknowledge(self, message: Message) -> None:
        process = Kernel.current()
        assert process is not None
        process.point("acknowledge", f"{message.name} {message.due_at}")
        self._broker.acknowledge(self._name, message)

    def _did(self, what: str, message: Message, *, allowed: bool = False) -> None:
        self.deeds.append(Deed(self._name, what, message, self._clock.monotonic, allowed))
