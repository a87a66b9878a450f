"""The scheduler that `celery beat` loads: it adapts a tick to Celery's `Scheduler` class.

    celery beat -> DBScheduler.tick()
        -> Tick.look        the database's time, and whether anything is due
        -> Housekeeping     heartbeat, retention, listening, ...
        -> Tick.fire        claim, send, mark
             -> Sender.send     apply_entry -> apply_async -> broker
        -> seconds until the next tick

Facts about celery that shape this file:
    * The banner makes a second, lazy scheduler first and never closes it: with
      `lazy=True` nothing is connected, created or started.
    * An exception out of `tick` ends beat. A value of 0 means "again at once"; None or
      a negative one would make a busy loop of it.
    * SIGTERM calls `close()` in the middle of a tick and then raises SystemExit there;
      `close()` is called once more at the end.
    * celery replaces `Scheduler.apply_entry` under monitoring, at any time; so it is
      looked up for each send, and never overridden here.

On failure: if the database or the broker is unavailable, beat logs it once, retries with
increasing delays, and stays up.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import suppress
from typing import Any, ClassVar

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from kombu import Connection

from beatstore.beat.batches import bounded
from beatstore.beat.housekeeping import Housekeeping
from beatstore.beat.inquiry import Inquiry
from beatstore.beat.message import BeatEntry, publish
from beatstore.beat.pulse import Pulse
from beatstore.beat.sender import Sender
from beatstore.beat.startup import check_interval, open_store, prepare
from beatstore.errors import BeatstoreError, BrokerError, UnavailableError
from beatstore.outage import Outage
from beatstore.store.retention import Pruner
from beatstore.tick.beats import BeatFigures
from beatstore.tick.queue import Queue
from beatstore.tick.tick import Tick, contended_pause

__all__ = ["DBScheduler"]

logger = logging.getLogger(__name__)

#: How many seconds there are from tick to tick under load, unless a tick leaves something due. What
#: becomes due meanwhile is sent together: a tick has as many statements for one as for fifty.
TOGETHER_S = 0.02

#: How many ticks may follow each other at once before that pace is kept.
AT_ONCE = 5


class DBScheduler(Scheduler):
    """A Celery scheduler that reads its entries from the database.

    Use it by name: `celery -A proj beat -S beatstore`. Entries exist only in the database, so
    `schedule` is always empty; use `Store` to write them.
    """

    #: The schedulers that are in the middle of their start, by the threads that create them.
    _starting: ClassVar[dict[int, DBScheduler]] = {}

    #: Maximum seconds between two polls of the database.
    max_interval: float = 1.0  # type: ignore[assignment]  # celery counts in whole seconds

    def __init__(self, app: Celery, *args: Any, **kwargs: Any) -> None:
        self.store, self._wrong = open_store(app, lazy=bool(kwargs.get("lazy")))
        self.store.database.program = "beatstore-beat"
        self.beat_id = str(uuid.uuid4())
        self.sender = Sender(self)
        self.queue = Queue(self.store.database, self.store.settings, self.beat_id)
        self.inquiry = Inquiry(app)
        pruner = Pruner(self.store.database, self.store.settings)
        listens = self.store.settings.listen
        self.housekeeping = Housekeeping(self.queue.upkeep, pruner, listens=listens)
        self._tick = Tick(
            self.queue, self.sender.send, self.inquiry.ask, after_batch=self._check_ending
        )
        self._ready = False
        self._in_tick = self._ending = False
        self._database = Outage(
            "lost connection to the database", "connected to the database again"
        )
        self._broker = Outage("the broker is unavailable", "the broker is available again")
        self._broker_retry_at = self._together_at = 0.0
        self._figures = BeatFigures(None, 0, 0)
        self._pulse = Pulse()
        super().__init__(app, *args, **kwargs)

    # -- start ---------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Check the tables and import the entries declared in code, before the first tick.

        If the database is unavailable, the first tick that reaches it does this.
        """
        thread = threading.get_ident()
        if thread in self._starting:
            # Celery's signal handler makes a scheduler only to close it, if there is none yet.
            # Here another one is still starting, so the second need not wait for the database.
            # It notes the request, since Python drops this exception inside a destructor.
            self._starting[thread]._ending = True
            raise SystemExit
        self._starting[thread] = self
        try:
            self._prepare()
        except UnavailableError as error:
            self._database.begin(error)
        except BeatstoreError as error:
            raise SystemExit(f"beatstore: {error}") from error
        finally:
            del self._starting[thread]

    def _prepare(self) -> None:
        check_interval(self.max_interval)
        prepare(self.store, self.app)
        self._ready = True

    # -- the tick ------------------------------------------------------------------------

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send all messages that are due.

        Returns:
            Seconds until the next tick: finite, 0 or more, at most `max_interval`.
        """
        self._check_ending()
        self._in_tick = True
        try:
            wait = self._look_and_fire()
            self._database.end()
        except UnavailableError as error:
            wait = self._database.begin(error)
        except BrokerError as error:
            self._database.end()
            wait = self._broker.begin(error)
            self._broker_retry_at = time.monotonic() + wait
        except BeatstoreError:
            raise
        except Exception:
            logger.exception("the tick failed, retrying in %g s", self.max_interval)
            wait = self.max_interval
        finally:
            self._in_tick = False
        return max(0.0, min(wait, self.max_interval))

    def _look_and_fire(self) -> float:
        """Run one tick, and return the seconds until the next one."""
        started = time.monotonic()
        if not self._ready:
            self._prepare()
        look = self._tick.look(self.sender.late_outcomes())
        self.housekeeping.keep(self._figures)
        if not (look.is_entry_due or look.is_run_due):
            return self.housekeeping.idle(look, self.max_interval)
        if not self._broker_ready():
            return self._broker_retry_at - time.monotonic()
        most = self.queue.limit
        fired = self._tick.fire(look)
        if not fired.found:
            return contended_pause()
        self._broker.end()
        self._figures = BeatFigures(
            tick_s=time.monotonic() - started,
            planned=self._figures.planned + len(fired.outcomes),
            sent=self._figures.sent + sum(one.state == "sent" for one in fired.outcomes),
            step=str(self.sender.ladder.step) if self.sender.ladder.step else None,
        )
        more = fired.found >= most
        return 0.0 if more else self._together_in(started)

    def _together_in(self, started: float) -> float:
        """Return the seconds until the next tick, after one that has left nothing due.

        Where beat does not listen for notifications, the next tick also finds what short tasks
        have let go on: those whose messages this tick has sent.
        """
        if not self.housekeeping.is_listening:
            return started + TOGETHER_S - time.monotonic()
        earliest = started - AT_ONCE * TOGETHER_S
        self._together_at = max(self._together_at, earliest) + TOGETHER_S
        return self._together_at - time.monotonic()

    def _check_ending(self) -> None:
        """Write the liveness file, or end beat if a signal asked for it.

        Python drops the exception of a signal handler that runs inside a destructor, so the
        request to end is checked here again.
        """
        if self._ending:
            raise SystemExit
        self._pulse.beat(self.max_interval)

    def _broker_ready(self) -> bool:
        """Return whether to claim runs now.

        Nothing is claimed while the broker is unavailable, so that the misfire policy decides
        about what became due meanwhile.
        """
        if self._broker.over:
            return True
        if time.monotonic() < self._broker_retry_at:
            return False
        self.sender.check_broker()
        return True

    # -- celery's side -----------------------------------------------------------------------

    def apply_async(
        self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Publish one entry.

        For beatstore's own entries, the result or the error is kept on the entry and nothing
        is raised: the tick handles the error, and logs an outage once.
        """
        if not isinstance(entry, BeatEntry):
            return super().apply_async(entry, producer=producer, advance=advance, **kwargs)
        entry.tried = True
        try:
            entry.result = publish(self.app, entry, producer, self.store.settings.allowed_tasks)
        except Exception as error:  # noqa: BLE001  (kept for the tick)
            entry.error = error
            return None
        return entry.result

    def add(self, **kwargs: Any) -> ScheduleEntry:
        """Store an entry given in the form of `beat_schedule`, and return celery's view of it.

        Transaction: opens and commits its own.
        """
        entry: Any = self.Entry(app=self.app, **kwargs)
        self.store.put(
            entry.name,
            entry.task,
            entry.schedule,
            args=entry.args or (),
            kwargs=entry.kwargs,
            options=entry.options,
        )
        made: ScheduleEntry = entry
        return made

    @property
    def info(self) -> str:
        """Return the banner's lines, without reading the database or showing a password."""
        return f"    . database -> {self._wrong or self.store.url}"

    def close(self) -> None:
        """Release all connections. Safe at any time, in a signal handler, and more than once.

        In the middle of a tick, only note that beat must end: the exception that the signal
        handler raises next unwinds the tick, which records what it has sent.
        """
        if self._in_tick:
            self._ending = True
            return
        self._pulse.end()
        self.housekeeping.stop_listening()
        try:
            withdrawn = not self._database.over or self.housekeeping.withdraw(self._tick.mark)
        except Exception as error:  # noqa: BLE001  (gevent: its hub runs the signal's handler)
            logger.debug(
                "can't wait for the database here, leaving the rest to the next close(): %r", error
            )
            return
        self.queue.close(orderly=withdrawn)
        # A signal in the middle of a message has left the broker to wait for the rest of it.
        self.disconnect(orderly=not self._ending)
        self.store.close()

    def disconnect(self, *, orderly: bool = False) -> None:
        """Drop the producer and close its connection.

        Args:
            orderly: whether to tell the broker, and to wait for its answer. After an error there
                may be none.
        """
        self.__dict__.pop("producer", None)
        connection: Connection | None = self.__dict__.pop("connection", None)
        if connection is not None:
            with suppress(Exception):
                (connection.release if orderly else connection.collect)()

    def _ensure_connected(self) -> Connection:
        """Try each configured broker once, or raise: the tick does the waiting."""
        connection = bounded(self.connection)
        others = max(0, len(connection.alt) - 1)
        connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)
        return connection
