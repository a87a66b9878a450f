"""Run one tick without a beat: send what is due, and exit. For use from a system's cron.

It claims, sends and marks with the same `Tick` as a beat. So it may run at the same time as
beats and other ticks: the first one gets the claim, and a message has the same task id
whoever sends it.

On failure: `UnavailableError` and `BrokerError` are raised at once, without a retry. The next
tick sends what was claimed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from celery import Celery

from beatstore.beat.housekeeping import Housekeeping
from beatstore.beat.scheduler import DBScheduler
from beatstore.beat.startup import prepare
from beatstore.store import Store
from beatstore.store.retention import Pruner
from beatstore.tick.beats import BeatFigures
from beatstore.tick.claims import Look
from beatstore.tick.queue import Queue
from beatstore.tick.tick import Tick, contended_pause

__all__ = ["TickReport", "tick"]

#: How long to wait for the result backend's answers about stale runs, in seconds.
ANSWERS_S = 5.0


@dataclass(frozen=True, slots=True)
class TickReport:
    """The results of one tick.

    Attributes:
        sent: runs whose messages the broker accepted.
        skipped: runs that were not sent because a package that locks tasks rejected them as
            duplicates.
        failed: runs whose message could not be built, or was refused by the broker.
        left: runs that could not be sent in time; the next tick sends them.
        seconds: the duration of the tick.
        more: whether the time was over while something was still due, which the next tick sends.
    """

    sent: int
    skipped: int
    failed: int
    left: int
    seconds: float
    more: bool


def tick(app: Celery, *, tag: str | None = None, timeout: float = 60.0) -> TickReport:
    """Send everything that is due now, then return.

    Like a beat at its start, it first checks the tables and imports the entries declared in code.

    Args:
        app: the Celery app.
        tag: only send entries with this tag, and their runs.
        timeout: seconds after which to stop, even if more is due.

    Raises:
        ConfigError: a setting can't be used.
        SchemaError: the tables are missing, or have another revision.
        UnavailableError: the database did not answer.
        BrokerError: the broker did not answer.
    """
    Store.from_app(app).close()  # or say what is wrong with the settings
    app.loader.init_worker()  # the modules with tasks, as beat does
    app.finalize()
    began = time.monotonic()
    once = _SingleTick(DBScheduler(app=app, lazy=True), tag)
    try:
        once.run(began + timeout)
    finally:
        once.close()
    states = list(once.states.values())
    seconds = round(time.monotonic() - began, 3)
    return TickReport(
        sent=states.count("sent"),
        skipped=states.count("skipped"),
        failed=states.count("failed"),
        left=states.count("claimed"),
        seconds=seconds,
        more=once.more,
    )


class _SingleTick:
    """Ticks until nothing is due.

    Args:
        scheduler: a scheduler that is not started; messages go through its hooks.
        tag: only send entries with this tag, and their runs.

    Attributes:
        states: the last known state of each claimed run.
        more: whether the time was over while something was still due.
    """

    def __init__(self, scheduler: DBScheduler, tag: str | None) -> None:
        store = scheduler.store
        self.states: dict[int, str] = {}
        self.more = False
        self._scheduler = scheduler
        self._queue = Queue(store.database, store.settings, scheduler.beat_id, tag=tag)
        self._tick = Tick(self._queue, scheduler.sender.send, scheduler.inquiry.ask)
        pruner = Pruner(store.database, store.settings)
        self._housekeeping = Housekeeping(self._queue.upkeep, pruner, listens=False)

    def run(self, until: float) -> None:
        """Tick until everything due now is sent, or until this time on the monotonic clock."""
        prepare(self._scheduler.store, self._scheduler.app)
        look = first = self._look()
        while _is_left(look, first):
            self._scheduler.sender.check_broker()
            fired = self._tick.fire(look)
            self.states |= {one.claim.run_id: one.state for one in fired.outcomes}
            if time.monotonic() >= until:
                self.more = True
                break
            if not fired.found:
                time.sleep(contended_pause())
            look = self._look()
        self._scheduler.inquiry.wait(ANSWERS_S)
        look = self._tick.look()  # writes the answers
        self.more = self.more and _is_left(look, first)

    def close(self) -> None:
        """Release the remaining claims, and delete the row of this beat."""
        withdrawn = self._housekeeping.withdraw(self._tick.mark, keep=False)
        self._queue.close(orderly=withdrawn)
        self._scheduler.close()

    def _look(self) -> Look:
        look = self._tick.look()
        self._housekeeping.keep(BeatFigures(None, 0, 0))
        return look


def _is_left(look: Look, first: Look) -> bool:
    """Return whether work is left that was due at the first look, or resulted from it.

    Entries that become due later are left to the next tick, or this one might never end.
    """
    entry_at = look.entry_wake_at
    return look.is_run_due or (entry_at is not None and entry_at <= first.now)
