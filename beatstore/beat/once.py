"""One tick without a beat: send what is due, and end; for a system's own cron.

It claims, sends and settles as every beat does, through the same scheduler. So it may run
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
from beatstore.tick.claims import Look, Outcome
from beatstore.tick.queue import Queue

__all__ = ["TickReport", "tick"]

#: How long to wait for what a result backend knows of silent runs, in seconds.
ANSWERS = 5.0


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
    scheduler = _OneTick(app, tag)
    try:
        scheduler.run(began + timeout)
    finally:
        scheduler.close()
    states = list(scheduler.outcomes.values())
    seconds = round(time.monotonic() - began, 3)
    return TickReport(
        sent=states.count("sent"),
        skipped=states.count("skipped"),
        failed=states.count("failed"),
        left=states.count("claimed"),
        seconds=seconds,
    )


class _OneTick(DBScheduler):
    """A scheduler that ticks until nothing is due, and waits for nobody."""

    _stays = False

    def __init__(self, app: Celery, tag: str | None) -> None:
        self.outcomes: dict[int, str] = {}
        super().__init__(app=app, lazy=True)
        store = self.store
        self.queue = Queue(store.database, store.settings, self.beat_id, tag=tag)
        pruner = Pruner(self.store.database, self.store.settings)
        self.housekeeping = Housekeeping(pruner, listens=False)  # nothing is waited for

    def run(self, until: float) -> None:
        """Tick until what is due now is sent, or the time is over on the monotonic clock."""
        first: Look | None = None
        while True:
            wait = self._tick(time.monotonic())
            look = self.queue.look()
            first = first or look
            if not _is_left(look, first) or time.monotonic() >= until:
                break
            time.sleep(wait)  # a moment, while other beats hold the rows
        self.inquiry.wait(ANSWERS)
        self._end_lost()

    def _settle(self, outcomes: list[Outcome]) -> None:
        self.outcomes |= {outcome.claim.run_id: outcome.state for outcome in outcomes}
        super()._settle(outcomes)

    def _broker_ready(self) -> bool:
        self.sender.check_broker()
        return True


def _is_left(look: Look, first: Look) -> bool:
    """Say whether something is to be done that was due at the first look, or came of it.

    Entries that fall due meanwhile are another tick's, or this one might never end.
    """
    entry_at, run_at = look.entry_wake_at, look.run_wake_at
    entry_left = entry_at is not None and entry_at <= first.now
    return entry_left or (run_at is not None and run_at <= look.now)
