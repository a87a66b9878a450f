"""Sending: from claims to messages on the broker, and what became of each.

Every message goes through the scheduler's inherited `apply_entry`, where monitoring
packages hook in, and on through celery's own `Task.apply_async` or `send_task`, where
tracing, routing and locking packages do. What is added is around the messages: they are
written to the broker in batches, where its transport can (see `beatstore.beat.batches`).

Invariants:
    * A claim is reported `sent` only when the broker has taken its message.
    * A claim is reported `failed` only for a reason that sending again can't mend, or when
      it has been tried long enough.
    * Only what may have arrived, or not, is sent again, with the same task id. What the
      broker is known to have is `sent`, whatever became of the rest of its batch.

On failure: `BrokerError` says that the broker is gone, or takes nothing, after the outcomes
that are known have been handed out. A message that can't be built, or that the broker
refuses, fails alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Protocol

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from beatstore.beat import outcomes
from beatstore.beat.batches import (
    BATCH_ERRORS,
    Batch,
    Confirmed,
    Fate,
    batch_of,
    check_writable,
    takes_nothing,
)
from beatstore.beat.confirms import (
    NOT_IMPLEMENTED,
    BlockedError,
    NackedError,
    UnroutableError,
    UnsureError,
    loose_exchanges,
)
from beatstore.beat.held import Held
from beatstore.beat.outcomes import OF_THE_MESSAGE, RETRY
from beatstore.beat.publishing import BeatEntry, has_own_way, without_results
from beatstore.errors import BeatstoreError
from beatstore.store import Store
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.endings import Ending

__all__ = ["BATCH", "RETRY", "BeatEntry", "BrokerError", "Sender"]

logger = logging.getLogger(__name__)

#: How many messages are written to the broker at once.
BATCH = 100


class BrokerError(BeatstoreError):
    """The broker did not answer."""


class _TooLateError(Exception):
    """The claims may be another beat's by now."""


class Scheduling(Protocol):
    """What sending needs of the scheduler."""

    app: Celery
    store: Store

    @property
    def producer(self) -> Any:
        """A producer on an open connection; raises what the transport raises if it can't."""
        ...

    def disconnect(self) -> None:
        """Forget the producer and its connection."""
        ...

    def apply_entry(self, entry: BeatEntry, producer: Any) -> None:
        """Send one entry, as celery's scheduler does; may be replaced by monitoring."""
        ...

    def apply_async(self, entry: BeatEntry, producer: Any, advance: bool) -> Any:
        """Publish one entry, and keep its result or error on it."""
        ...


class Sender:
    """Publishes claims for one scheduler."""

    def __init__(self, scheduler: Scheduling) -> None:
        self._scheduler = scheduler
        self._endings: list[Ending] = []
        self._failing: dict[str, int] = {}
        self._held: Held | None = None

    def endings(self) -> list[Ending]:
        """Return how runs ended whose tasks ran while they were sent, since the last call."""
        endings, self._endings = self._endings, []
        return endings

    def send(self, claims: Sequence[Claim], *, until: float) -> Iterator[Outcome]:
        """Send `claims` in order, and yield what became of them, batch by batch.

        Args:
            claims: what this beat holds.
            until: when to stop, on the monotonic clock; what is left by then is
                yielded as still `claimed`.

        Raises:
            BrokerError: the broker is gone; the claims without an outcome were not
                sent, or not surely.
        """
        app = self._scheduler.app
        for start in range(0, len(claims), BATCH):
            for _, alike in groupby(claims[start : start + BATCH], partial(has_own_way, app)):
                batch = list(alike)
                if time.monotonic() >= until:
                    yield from (Outcome(claim, "claimed") for claim in batch)
                    continue
                yield from self._send_batch(batch, until)

    def check_broker(self) -> None:
        """Connect if need be, and ask whether messages are taken.

        Raises:
            BrokerError: the broker can't be reached, or takes none.
        """
        try:
            check_writable(self._scheduler.producer)
        except BlockedError as error:
            raise BrokerError(str(error)) from error
        except Exception as error:
            self._scheduler.disconnect()
            raise BrokerError(f"{type(error).__name__}: {error}") from error

    def held(self) -> list[Outcome]:
        """Return what is new of the messages that RabbitMQ's alarm holds up."""
        if not self._held:
            return []
        outcomes_known: list[Outcome] = []
        try:
            for entry, fate in self._held.answered():
                refusal = None if fate is None else self._refusal(entry.claim, fate)
                outcomes_known.append(self._told(refusal) if refusal else self._outcome(entry))
        except Exception as error:  # noqa: BLE001  (of py-amqp, or of the socket)
            logger.debug("the connection broke while RabbitMQ's alarm was on: %r", error)
            self._scheduler.disconnect()
            return [Outcome(claim, "claimed") for claim in self._held.given_up()]
        return outcomes_known + self._held.prolonged()

    # -- one batch ---------------------------------------------------------------------

    def _send_batch(
        self, claims: Sequence[Claim], until: float, *, again: bool = True
    ) -> Iterator[Outcome]:
        """Send a batch, hand out what is known of it, and send again what is not."""
        sending = _Sending(claims)
        try:
            self._write(sending, until)
        except BaseException:
            # A signal ends beat here, and what is known by now is all there will be.
            for entry, fate in zip(sending.entries, sending.fates(), strict=False):
                if fate is None:
                    yield self._outcome(entry)
            raise
        found = self._sorted(sending, again=again)
        yield from found.known
        if sending.late:
            yield from self._too_late(sending, found.rest + found.returned)
            return
        if isinstance(sending.failure, BlockedError):
            self._held = sending.held()
            yield from self._held.prolonged()
            raise BrokerError(str(sending.failure)) from sending.failure
        self._check_broker(sending.failure, found.full)
        if found.returned:
            # The queue may have been deleted since it was declared.
            declared: set[Any] = self._scheduler.producer.connection.declared_entities
            declared.clear()
            yield from self._send_batch(found.returned, until, again=False)
        if found.rest and (found.refused or sending.failure is None):
            yield from self._send_batch(found.rest, until, again=again)
        elif found.rest:
            yield from self._resend(found.rest, sending.failure, until, again=again)

    def _sorted(self, sending: _Sending, *, again: bool) -> _Sorted:
        """Tell what is known of a batch from what is to be sent again."""
        found = _Sorted()
        for number, (claim, fate) in enumerate(zip(sending.claims, sending.fates(), strict=True)):
            if fate is None:
                found.known.append(self._outcome(sending.entries[number]))
            elif self._is_full(fate):
                found.full = fate
            elif isinstance(fate, UnroutableError) and again:
                found.returned.append(claim)
            elif outcome := self._refusal(claim, fate):
                found.refused = True
                found.known.append(self._told(outcome))
            else:
                found.rest.append(claim)
        return found

    def _too_late(self, sending: _Sending, claims: list[Claim]) -> Iterator[Outcome]:
        """Leave the claims of a batch whose time was over to the next send."""
        untouched = len(sending.claims) - len(sending.entries)
        if len(claims) > untouched:
            logger.warning(
                "no time was left to send %r before its claim ends (beatstore_claim_ttl); "
                "trying again",
                claims[0].name,
            )
        yield from (Outcome(claim, "claimed") for claim in claims)

    def _write(self, sending: _Sending, until: float) -> None:
        """Write a batch to the broker, and keep the error that ended it."""
        app = self._scheduler.app
        broker_errors = self._broker_errors()
        try:
            sending.batch = batch_of(
                self._scheduler.producer,
                one_by_one=has_own_way(app, sending.claims[0]),
                loose=partial(loose_exchanges, app),
            )
            with sending.batch as batch, without_results(app):
                for entry in self._applied(sending.claims, until, broker_errors):
                    sending.entries.append(entry)
                    batch.mark()
                _check_time(until)  # most transports have written them, but not all
        except (_TooLateError, BlockedError) as error:
            sending.failure = error
        except broker_errors as error:
            sending.failure = error

    def _check_broker(self, failure: Exception | None, full: Exception | None) -> None:
        """Raise if the broker is gone, or takes nothing from anybody."""
        if failure is not None and self._gone():
            raise BrokerError(f"{type(failure).__name__}: {failure}") from failure
        if full is not None:
            raise BrokerError(f"it takes no messages: {type(full).__name__}: {full}") from full

    def _resend(
        self, claims: Sequence[Claim], error: Exception | None, until: float, *, again: bool
    ) -> Iterator[Outcome]:
        """Send what an error has ended once more, and then one by one."""
        if again:
            yield from self._send_batch(claims, until, again=False)
        elif len(claims) > 1:
            for claim in claims:
                yield from self._send_batch([claim], until, again=False)
        elif error is not None:
            yield self._told(outcomes.try_later(claims[0], error))

    def _outcome(self, entry: BeatEntry) -> Outcome:
        """Return what became of an entry whose messages, if there were any, the broker has."""
        if ending := entry.ending():
            self._endings.append(ending)
        return self._told(entry.outcome())

    def _refusal(self, claim: Claim, fate: Exception) -> Outcome | None:
        """Return the outcome of a message that the broker refused, or None to send it again."""
        if isinstance(fate, NackedError):
            return outcomes.try_later(claim, fate)
        if isinstance(fate, UnroutableError):
            return Outcome(claim, "failed", f"no queue gets it: {fate}")
        if not isinstance(fate, UnsureError) and self._refused(fate):
            cause = _cause(fate)
            return Outcome(claim, "failed", f"{type(cause).__name__}: {cause}")
        return None

    def _told(self, outcome: Outcome) -> Outcome:
        """Log why a message was not sent: once, until one of its entry is."""
        name = outcome.claim.name
        if outcome.state == "sent":
            self._failing.pop(name, None)
        elif outcome.state == "failed" or outcome.tries:
            level = logging.ERROR if outcome.state == "failed" else logging.WARNING
            new = level > self._failing.get(name, 0)
            self._failing[name] = max(level, self._failing.get(name, 0))
            words = f"trying again in {outcome.retry_in:g} s" if outcome.retry_in else "given up"
            logger.log(level if new else logging.DEBUG, "%r: %s; %s", name, outcome.reason, words)
        return outcome

    def _applied(
        self, claims: Sequence[Claim], until: float, broker_errors: tuple[type[Exception], ...]
    ) -> Iterator[BeatEntry]:
        """Send message by message, until half of the time that is left is over.

        What is sent by then is written before more is: where hooks are slow, time would
        else end before the batch is full, at each try, and nothing would ever be written.
        """
        write_at = (time.monotonic() + until) / 2
        for number, claim in enumerate(claims):
            _check_time(until)
            if number and time.monotonic() >= write_at:
                return
            yield self._apply(claim, broker_errors)

    def _apply(self, claim: Claim, broker_errors: tuple[type[Exception], ...]) -> BeatEntry:
        """Send one message through the hooks, and past them if they fail.

        Raises:
            Exception: one of `broker_errors`; any other is kept on the entry.
        """
        scheduler, producer = self._scheduler, self._scheduler.producer
        entry = BeatEntry(claim, scheduler.app, scheduler.store.settings.default_timezone)
        try:
            scheduler.apply_entry(entry, producer=producer)
        except Exception:
            logger.warning("a hook around the sending of %r failed", entry.name, exc_info=True)
        if not entry.tried:
            scheduler.apply_async(entry, producer=producer, advance=False)
        wrapped = isinstance(entry.error, OperationalError)
        cause = entry.error.__cause__ if entry.error and wrapped else entry.error
        if isinstance(cause, Exception) and outcomes.of_the_message(cause):
            entry.error = cause  # kombu takes a KeyError for a lost connection to Redis
        elif isinstance(entry.error, broker_errors):
            raise entry.error
        return entry

    def _broker_errors(self) -> tuple[type[Exception], ...]:
        connection = self._connection()
        of_the_transport = (*connection.connection_errors, *connection.channel_errors)
        return (
            *(error for error in of_the_transport if not issubclass(error, OF_THE_MESSAGE)),
            OperationalError,
            *BATCH_ERRORS,
            OSError,
        )

    def _refused(self, error: BaseException) -> bool:
        """Say whether the broker answered, and the answer was no to this very message."""
        cause = _cause(error)
        connection = self._connection()
        passing = (*connection.connection_errors, *connection.recoverable_channel_errors)
        if getattr(cause, "code", None) == NOT_IMPLEMENTED:
            return True
        if not isinstance(cause, connection.channel_errors) or isinstance(cause, passing):
            return False
        # Redis answers no to much that is not about this message.
        refusals = ("WRONGTYPE", "NOPERM", "No permission", "no permissions")
        is_redis = connection.transport.driver_type == "redis"
        return not is_redis or any(word in str(cause) for word in refusals)

    def _is_full(self, error: BaseException) -> bool:
        """Say whether Redis takes no messages from anybody: full, read-only, unable to save."""
        # What a task's class does with a Redis of its own is not wrapped by kombu or celery.
        cause = error.__cause__ if isinstance(error, OperationalError) else None
        return cause is not None and takes_nothing(self._connection(), cause)

    def _connection(self) -> Connection:
        try:
            connection: Connection = self._scheduler.producer.connection
        except Exception as error:
            raise BrokerError(f"{type(error).__name__}: {error}") from error
        return connection

    def _gone(self) -> bool:
        """Reconnect; say whether that failed."""
        self._scheduler.disconnect()
        try:
            self._connection()
        except BrokerError:
            return True
        return False


@dataclass
class _Sending:
    """One try to send a batch."""

    claims: Sequence[Claim]
    entries: list[BeatEntry] = field(default_factory=list)
    batch: Batch | None = None
    failure: Exception | None = None

    @property
    def late(self) -> bool:
        """Whether time was over."""
        return isinstance(self.failure, _TooLateError)

    def held(self) -> Held:
        """Return the messages that RabbitMQ was given, and has not answered for."""
        assert isinstance(self.batch, Confirmed)
        messages = zip(self.entries, self.batch.numbers(), self.batch.fates(), strict=True)
        unsure = [(entry, span) for entry, span, fate in messages if isinstance(fate, UnsureError)]
        return Held(self.batch.confirms, unsure)

    def fates(self) -> list[Fate]:
        """Return what the broker did with each claim; see `beatstore.beat.batches`."""
        fates = [] if self.batch is None else self.batch.fates()
        under_way = len(fates) < len(self.claims) and not self.late
        if self.batch is not None and self.failure is not None and under_way:
            fates.append(self.batch.blame(self.failure))
        return fates + [UnsureError("not sent")] * (len(self.claims) - len(fates))


@dataclass
class _Sorted:
    """What became of the claims of a batch.

    Attributes:
        known: what is known, and to be written down.
        rest: what the broker may not have.
        returned: what it gave back, since no queue would get it.
        full: its answer, if it takes no messages from anybody; those are left as they are.
        refused: whether it refused some for good.
    """

    known: list[Outcome] = field(default_factory=list)
    rest: list[Claim] = field(default_factory=list)
    returned: list[Claim] = field(default_factory=list)
    full: Exception | None = None
    refused: bool = False


def _check_time(until: float) -> None:
    """End the batch if time is over: a process or machine can stand still anywhere in it."""
    if time.monotonic() >= until:
        raise _TooLateError


def _cause(error: BaseException) -> BaseException | None:
    """Return the broker's own error in what kombu and celery make of it."""
    return error.__cause__ if isinstance(error, (*BATCH_ERRORS, OperationalError)) else error
