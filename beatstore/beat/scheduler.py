"""The scheduler that `celery beat` loads: one tick, and celery's contract around it.

    celery beat -> DBScheduler.tick()
        -> Queue.look           the database's time, and whether anything is due
        -> Queue.sweep, .plan   claims, each committed before it is sent
        -> Sender.send          apply_entry -> apply_async -> broker
        -> Queue.settle         what became of them
        -> seconds until the next look

Facts about celery that shape this file:
    * The banner makes a second, lazy scheduler first and never closes it: with
      `lazy=True` nothing is connected, created or started.
    * An exception out of `tick` ends beat. A value of 0 means "again at once"; None or
      a negative one would make a busy loop of it.
    * SIGTERM calls `close()` in the middle of a tick and then raises SystemExit there;
      `close()` is called once more at the end.
    * celery replaces `Scheduler.apply_entry` under monitoring, at any time; so it is
      looked up for each send, and never overridden here.

On failure: no database, or no broker, is logged once, waited out with growing patience
and recovered from; beat stays up.
"""

from __future__ import annotations

import logging
import random
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
from beatstore.beat.publishing import publish
from beatstore.beat.pulse import Pulse
from beatstore.beat.sender import BATCH, BeatEntry, BrokerError, Sender
from beatstore.discovery.modules import import_code, log
from beatstore.errors import BeatstoreError, SchemaError, UnavailableError
from beatstore.outage import Outage
from beatstore.schedules.instants import EPOCH
from beatstore.store import Store
from beatstore.store.retention import Pruner
from beatstore.tick.claims import BeatFigures, Claim, Look, Outcome
from beatstore.tick.endings import Ending
from beatstore.tick.notices import tell_sent
from beatstore.tick.queue import Queue
from beatstore.wiring import check_broker_url, warn_of_options

__all__ = ["DBScheduler"]

logger = logging.getLogger(__name__)

#: The share of a claim's life after which nothing more is sent under it.
TRUSTED = 0.75

#: How long the end of a beat may wait for its database, in seconds.
FAREWELL = 5.0

#: How long to leave rows alone that other beats hold, in seconds.
CONTENDED = 0.05


class DBScheduler(Scheduler):
    """Celery's scheduler, firing what the database says.

    Use it by name: `celery -A proj beat -S beatstore`. The entries are in the database
    and nowhere else, so `schedule` is always empty; write them with `Store`.
    """

    #: The threads in which a scheduler is being made.
    _starting: ClassVar[set[int]] = set()

    #: Whether this is a process that stays, with a pulse, and a row that says when it stopped.
    _stays: ClassVar[bool] = True

    #: Seconds between two looks at the database when nothing is due sooner.
    max_interval: float = 1.0  # type: ignore[assignment]  # celery counts in whole seconds

    def __init__(self, app: Celery, *args: Any, **kwargs: Any) -> None:
        self._wrong: BeatstoreError | None = None
        try:
            # The banner shows the broker's URL, and would end in a traceback at a bad one.
            check_broker_url(app)
        except BeatstoreError as error:
            raise SystemExit(f"beatstore: {error}") from error
        try:
            self.store = Store.from_app(app)
        except BeatstoreError as error:
            if not kwargs.get("lazy"):
                raise SystemExit(f"beatstore: {error}") from error
            # The banner comes before the log is open, and a daemon prints it to nobody:
            # so it is left to the scheduler that follows to end beat.
            self.store, self._wrong = Store("sqlite://"), error
        self.store.database.program = "beatstore-beat"
        self.beat_id = str(uuid.uuid4())
        self.sender = Sender(self)
        self.queue = Queue(self.store.database, self.store.settings, self.beat_id)
        self.inquiry = Inquiry(app)
        pruner = Pruner(self.store.database, self.store.settings)
        self.housekeeping = Housekeeping(pruner, listens=self.store.settings.listen)
        self._ready = False
        self._in_tick = self._ending = False
        self._withdrawn: threading.Event | None = None
        self._unsettled: list[Outcome] = []
        self._endings: list[Ending] = []
        self._database = Outage("the database")
        self._broker = Outage("the broker")
        self._broker_retry_at = 0.0
        self._figures = BeatFigures(None, 0, 0)
        self._looked = EPOCH, 0.0
        self._pulse = Pulse(mute=not self._stays)
        super().__init__(app, *args, **kwargs)

    # -- start ---------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Check the tables and import what code declares, before the first tick.

        A database that is away is waited for: then it is done in a tick.
        """
        thread = threading.get_ident()
        if thread in self._starting:
            # celery's signal handler makes a scheduler to close it, if there is none yet:
            # in the middle of the start of the other one, which would have to wait again.
            raise SystemExit
        self._starting.add(thread)
        try:
            self._prepare()
        except UnavailableError as error:
            self._database.begin(error)
        except BeatstoreError as error:
            raise SystemExit(f"beatstore: {error}") from error
        finally:
            self._starting.discard(thread)

    def _prepare(self) -> None:
        settings, database = self.store.settings, self.store.database
        migrate = settings.auto_migrate
        if migrate is None:
            migrate = database.url.get_backend_name() == "sqlite"
        try:
            self.store.check()
        except SchemaError:
            if not migrate:
                raise
            self.store.migrate()
        warn_of_options(self.app)
        log(import_code(self.store, self.app))
        self._ready = True

    # -- the tick ------------------------------------------------------------------------

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due.

        Returns:
            Seconds until the next tick: finite, 0 or more, at most `max_interval`.
        """
        self._check_end()
        self._in_tick = True
        self._pulse.beat(self.max_interval)
        started = time.monotonic()
        try:
            wait = self._tick(started)
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
            logger.exception("the tick failed; trying again in %g s", self.max_interval)
            wait = self.max_interval
        finally:
            self._in_tick = False
        return max(0.0, min(wait, self.max_interval))

    def _tick(self, started: float) -> float:
        if not self._ready:
            self._prepare()
        self._settle(self.sender.held())
        look = self.queue.look()
        self._looked = look.now, time.monotonic()
        if not self._database.over:
            # A claim whose commit was never answered would wait until it expires.
            self.queue.release()
        self._end_lost()
        self.housekeeping.keep(self.queue, self._figures)
        due_in = look.due_in
        if due_in is None or due_in > 0:
            self.housekeeping.prune(self.queue, look)
            due_in = self.max_interval if due_in is None else due_in
            return self.housekeeping.sleep(min(due_in, self.max_interval))
        if not self._broker_ready():
            return self._broker_retry_at - time.monotonic()
        claims, found = self._claim(look)
        if not found:
            return random.uniform(0.5, 1.5) * CONTENDED
        sent = self._send(claims, until=started + self.store.settings.claim_ttl * TRUSTED)
        figures = self._figures
        self._figures = BeatFigures(
            time.monotonic() - started, figures.planned + len(claims), figures.sent + sent
        )
        return 0.0

    def _claim(self, look: Look) -> tuple[list[Claim], bool]:
        """Return what to send now, and whether there was anything for this beat to do."""
        claims, found = [], False
        if look.run_wake_at is not None and look.run_wake_at <= look.now:
            swept = self.queue.sweep(look.now)
            claims, found = swept.claims, swept.count > 0
            if swept.suspects:
                self.inquiry.ask(swept.suspects)
        if look.entry_wake_at is not None and look.entry_wake_at <= look.now:
            planned, count = self.queue.plan(look.now)
            claims, found = claims + planned, found or count > 0
        return claims, found

    def _end_lost(self) -> None:
        """Write how runs ended that no worker reported on."""
        endings = self.inquiry.answers()
        if endings:
            self.queue.end(endings)

    def _send(self, claims: list[Claim], *, until: float) -> int:
        """Send, settle batch by batch, and return how many messages the broker has taken.

        One look can claim thousands of runs, where entries make up for what they missed;
        but no more than a batch is ever with the broker and not marked.
        """
        left = {claim.run_id: claim for claim in claims}
        batch: list[Outcome] = []
        sent = 0
        try:
            for outcome in self.sender.send(claims, until=until):
                batch.append(outcome)
                left.pop(outcome.claim.run_id, None)
                sent += outcome.state == "sent"
                if len(batch) >= BATCH:
                    self._settle(batch)
                    batch = []
                    self._check_end()
                    self._pulse.beat(self.max_interval)
        finally:
            # Also when a signal ends beat here: what was sent is written down, and what
            # was not is left to the next beat at once.
            self._settle(batch + [Outcome(claim, "claimed") for claim in left.values()])
        self._broker.end()
        return sent

    def _check_end(self) -> None:
        """End beat where the signal's exception met a destructor, in which Python drops it."""
        if self._ending:
            raise SystemExit

    def _settle(self, outcomes: list[Outcome]) -> None:
        """Write down what became of the claims, with what could not be written before."""
        tell_sent(outcomes, self._looked)
        self._unsettled += outcomes
        self._endings += self.sender.endings()
        if self._endings:
            self.queue.end(self._endings)
            self._endings = []
        if self._unsettled:
            self._unsettled = self.queue.settle(self._unsettled)

    def _broker_ready(self) -> bool:
        """Say whether to claim.

        Not while the broker is away: the misfire rule is to be asked about what waited.
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

        For an entry of beatstore's own the result, or the error, is kept on the entry
        and nothing is raised: the tick decides what it means, and logs an outage once.
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
        """The banner's lines; reads nothing, and shows no password."""
        return f"    . database -> {self._wrong or self.store.url}"

    def close(self) -> None:
        """Give everything back; safe at any time, in a signal handler, and again.

        In the middle of a tick this leaves the connections alone: the exception that
        the handler raises next unwinds the tick, which settles what it was doing.
        """
        if self._in_tick:
            self._ending = True
            return
        self._pulse.end()
        self.housekeeping.close()
        try:
            gone = self._say_farewell()
        except Exception as error:  # noqa: BLE001  (gevent: its hub runs the signal's handler)
            logger.debug("nothing can be waited for here, leaving the rest to the end: %r", error)
            return
        self.queue.close(orderly=gone)
        self.disconnect()
        self.store.close()

    def _say_farewell(self) -> bool:
        """Withdraw from the database; return False if it has not answered in time.

        In a thread, since nothing else would end the wait for a server that stands still.

        Raises:
            Exception: under gevent, in its hub, where nothing may wait; the thread begins
                when that goes on.
        """
        if self.housekeeping.introduced and self._database.over:
            self.housekeeping.introduced = False
            self._withdrawn = threading.Event()
            threading.Thread(target=self._withdraw, daemon=True).start()
        return self._withdrawn is None or self._withdrawn.wait(FAREWELL)

    def _withdraw(self) -> None:
        """Settle what a signal kept from it, and free what is left for the other beats."""
        with suppress(Exception):  # the connection may be cut any time
            self._settle([])
            self.queue.withdraw(keep=self._stays)
        if self._withdrawn is not None:
            self._withdrawn.set()

    def disconnect(self) -> None:
        """Forget the producer, and close its connection."""
        self.__dict__.pop("producer", None)
        connection: Connection | None = self.__dict__.pop("connection", None)
        if connection is not None:
            with suppress(Exception):
                connection.release()

    def _ensure_connected(self) -> Connection:
        """Try each broker named once, or raise: waiting for one is the tick's business."""
        connection = bounded(self.connection)
        others = max(0, len(connection.alt) - 1)
        connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)
        return connection
