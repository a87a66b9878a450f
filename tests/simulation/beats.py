"""A beat: `DBScheduler` as it is, but for how it starts, and who answers for silent runs.

It sends message by message to a broker of ours, or to Redis (see `lists`): in kombu's pipelines, or
from templates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from celery import Celery

from beatstore.beat import pulse
from beatstore.beat import scheduler as module
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import UnavailableError
from beatstore.store import Store
from beatstore.tick.claims import Look
from tests.simulation.broker import Broker, Producer

__all__ = ["SIMULATED", "Beat"]

#: The broker's URL of an app whose beats send message by message.
SIMULATED = "memory://"


class Beat:
    """The operations of one beat, from its start to its end.

    Its heartbeats are for people. They cost as much as a look and change nothing of what is sent,
    so most schedules go without.

    Attributes:
        id: what it is called in `claimed_by`.
        looked: the time of the database that its latest look read, as microseconds.
        wait: how many seconds its last tick would have it sleep.
        ending: whether it has been told to end.
    """

    def __init__(
        self, app: Celery, store: Store, broker: Broker, *, heartbeats: bool, wake_checks: bool
    ) -> None:
        one_by_one = app.conf.broker_url == SIMULATED
        kind = _OneByOne if one_by_one else _Scheduler
        self._scheduler = kind(app, store, broker, self._note)
        if not heartbeats:
            self._scheduler.housekeeping._heartbeat_due = math.inf
        if not wake_checks:
            # Triggers wake whoever an edit concerns. The check that finds who was forgotten would
            # hide what the schedule is to find.
            self._scheduler.housekeeping._wake_check_due = math.inf
        self.id = self._scheduler.beat_id
        self.looked: Any = None
        self.wait = 0.0
        self.ending = False
        self.stopped = False

    def next(self) -> Callable[[], object]:
        """Return what it does next."""
        return self._stop if self.ending else self._tick

    def close(self) -> None:
        """Drop its connection, as the end of its process does."""
        self._scheduler.queue.close(orderly=False)

    def _tick(self) -> None:
        self.wait = self._scheduler.tick()

    def _stop(self) -> None:
        """Do what `close` does in a thread of its own."""
        self._scheduler.housekeeping._introduced = False
        try:
            self._scheduler._tick.mark()
            self._scheduler.queue.upkeep.withdraw()
        except UnavailableError:
            pass
        self._scheduler.queue.close()
        self.stopped = True

    def _note(self, look: Look) -> None:
        self.looked = look.now


class _NoPulse(pulse.Pulse):
    def beat(self, sleeps_s: float) -> None:
        """Write no file."""


class _Scheduler(DBScheduler):
    """`DBScheduler` in a schedule."""

    def __init__(
        self, app: Celery, store: Store, broker: Broker, note: Callable[[Look], None]
    ) -> None:
        self._sim_broker, self._sim_note = broker, note
        was = vars(module)["open_store"]
        vars(module)["open_store"] = lambda app, *, lazy: (store, None)
        try:
            super().__init__(app, lazy=True)
        finally:
            vars(module)["open_store"] = was
        self._ready = True  # the tables are there
        self._pulse = _NoPulse()
        self.housekeeping._listens = False
        self.housekeeping._prune_due = math.inf
        look = self.queue.look

        def noted() -> Look:
            found = look()
            note(found)
            return found

        self.queue.look = noted  # type: ignore[method-assign]


class _OneByOne(_Scheduler):
    """Sends by a producer of ours."""

    _sim_producer: Producer | None = None

    @property
    def producer(self) -> Any:
        if not self._sim_broker.up:
            self._sim_producer = None
            raise ConnectionRefusedError("the broker is down")
        self._sim_producer = self._sim_producer or Producer(self._sim_broker)
        return self._sim_producer

    def disconnect(self, *, orderly: bool = False) -> None:
        self._sim_producer = None
