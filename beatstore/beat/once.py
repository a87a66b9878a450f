"""One tick without a beat: send what is due, and end; for a system's own cron.

It claims, sends and marks as every beat does, by the same `Tick`. So it may run
beside beats, and beside itself: whoever is first has the claim, and a message has the same
task id whoever sends it.

On failure: `UnavailableError` and `BrokerError` come through at once, since nobody is there
to wait; what was claimed by then is left to whoever ticks next.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from celery import Celery

from beatstore.beat.housekeeping import Housekeeping
from beatstore.beat.scheduler import DBScheduler
from beatstore.store import Store
from beatstore.store.retention import Pruner
from beatstore.tick.claims import BeatFigures, Look
from beatstore.tick.queue import Queue
from beatstore.tick.tick import Tick, contended_pause

__all__ = ["TickReport", "tick"]

#: How long to wait for what a result backend knows of silent runs, in seconds.
ANSWERS_S = 5.0


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one tick did.

    Attributes:
        sent: runs whose messages the broker has taken.
        skipped: runs that were not sent, as a package that locks tasks took them for
            duplicates.
        failed: runs of which no message could be made, or that the broker refused.
        left: runs that could not be sent in time, for whoever ticks next.
        seconds: how long it took.
    """

    sent: int
    skipped: int
    failed: int
    left: int
    seconds: float


def tick(app: Celery, *, tag: str | None = None, timeout: float = 60.0) -> TickReport:
    """Send what is due now, and return when nothing is.

    The tables are made ready, and what code declares is read, as at the start of a beat.

    Args:
        app: whose entries, broker and tasks.
        tag: only entries with this tag, and their runs.
        timeout: how many seconds to go on for, if there is so much to do.

    Raises:
        ConfigError: a setting can't be used.
        SchemaError: the tables are missing, or of another revision.
        UnavailableError: the database did not answer.
        BrokerError: the broker did not answer.
    """
    Store.from_app(app).close()  # or say what is wrong with the settings
    app.loader.init_worker()  # the modules with tasks, as beat does
    app.finalize()
    began = time.monotonic()
    once = _Once(DBScheduler(app=app, lazy=True), tag)
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
    )


class _Once:
    """Ticks until nothing is due, and waits for nobody.

    Args:
        scheduler: one that is not started; what is sent goes through its hooks.
        tag: only entries with this tag, and their runs.

    Attributes:
        states: the last that is known of each run that was claimed.
    """

    def __init__(self, scheduler: DBScheduler, tag: str | None) -> None:
        store = scheduler.store
        self.states: dict[int, str] = {}
        self._scheduler = scheduler
        self._queue = Queue(store.database, store.settings, scheduler.beat_id, tag=tag)
        self._tick = Tick(self._queue, scheduler.sender.send, scheduler.inquiry.ask)
        pruner = Pruner(store.database, store.settings)
        self._housekeeping = Housekeeping(self._queue.upkeep, pruner, listens=False)

    def run(self, until: float) -> None:
        """Tick until what is due now is sent, or the time is over on the monotonic clock."""
        self._scheduler.prepare()
        look = first = self._look()
        while _is_left(look, first):
            self._scheduler.sender.check_broker()
            fired = self._tick.fire(look)
            self.states |= {one.claim.run_id: one.state for one in fired.outcomes}
            if time.monotonic() >= until:
                break
            if not fired.found:
                time.sleep(contended_pause())
            look = self._look()
        self._scheduler.inquiry.wait(ANSWERS_S)
        self._tick.look()  # writes the answers

    def close(self) -> None:
        """Free what is left, and leave no trace as a beat."""
        gone = self._housekeeping.withdraw(self._tick.settle, keep=False)
        self._queue.close(orderly=gone)
        self._scheduler.close()

    def _look(self) -> Look:
        look = self._tick.look()
        self._housekeeping.keep(BeatFigures(None, 0, 0))
        return look


def _is_left(look: Look, first: Look) -> bool:
    """Say whether something is to be done that was due at the first look, or came of it.

    Entries that fall due meanwhile are another tick's, or this one might never end.
    """
    entry_at = look.entry_wake_at
    return look.is_run_due or (entry_at is not None and entry_at <= first.now)
