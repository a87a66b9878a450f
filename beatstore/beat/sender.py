"""Send claims as messages, and return the outcome of each.

A message goes through the scheduler's inherited `apply_entry`, which monitoring packages hook
into, and then through Celery's own `Task.apply_async` or `send_task`, which tracing, routing and
locking packages hook into. If nothing is hooked there, it is made from a template instead (see
`beatstore.beat.ladder`). Either way beatstore groups the messages: it writes them to the broker in
batches if the transport supports that (see `beatstore.beat.batches`).

Invariants:
    * A claim is `sent` only after the broker has accepted its message.
    * A claim is `failed` only if a retry can't help, or after the last retry.
    * A message is sent again only if the broker may not have it, and with the same task id.
      A message that the broker has is `sent`, even if the rest of its batch failed.

On failure: `BrokerError` if the broker is gone or accepts no messages, after the known outcomes
were yielded. A message that can't be built, or that the broker refuses, fails alone.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any, Protocol

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from beatstore.beat.alarm import Alarm
from beatstore.beat.attempt import Attempt, Sent
from beatstore.beat.batches import (
    Batch,
    batch_of,
    broker_errors,
    cause_of,
    check_writable,
)
from beatstore.beat.confirms import loose_exchanges
from beatstore.beat.expiry import in_step
from beatstore.beat.ladder import Ladder, Publish, Push, Rendered
from beatstore.beat.message import (
    BeatEntry,
    is_message_error,
    overrides_apply_async,
    try_later,
    without_results,
)
from beatstore.errors import (
    BlockedError,
    BrokerError,
    OutOfTimeError,
)
from beatstore.schedules.instants import EPOCH
from beatstore.store import Store
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.notices import log_sent
from beatstore.tick.tick import BATCH

__all__ = ["Sender"]

logger = logging.getLogger(__name__)


class Scheduling(Protocol):
    """The part of the scheduler that sending needs."""

    app: Celery
    store: Store

    @property
    def producer(self) -> Any:
        """Return a producer on an open connection, or raise the transport's error."""
        ...

    def disconnect(self) -> None:
        """Drop the producer and its connection."""
        ...

    def apply_entry(self, entry: BeatEntry, producer: Any) -> None:
        """Send one entry as Celery's scheduler does. Monitoring packages may replace this."""
        ...

    def apply_async(self, entry: BeatEntry, producer: Any, advance: bool) -> Any:
        """Publish one entry, and keep its result or error on it."""
        ...


class Sender:
    """Publishes claims for one scheduler."""

    def __init__(self, scheduler: Scheduling) -> None:
        self._scheduler = scheduler
        self._failing: dict[str, int] = {}
        self._looked = EPOCH, 0.0
        self._alarm = Alarm(scheduler, self._declare_anew)
        self.ladder = Ladder(scheduler)

    def send(
        self, claims: Sequence[Claim], *, now: datetime, until: float
    ) -> Iterator[list[Outcome]]:
        """Send `claims` in order, and yield their outcomes batch by batch.

        Args:
            claims: the claims that this beat holds.
            now: the database's time.
            until: when to stop, on the monotonic clock; claims left by then are yielded as
                still `claimed`.

        Raises:
            BrokerError: the broker is gone; claims without an outcome were not sent, or
                nobody knows.
        """
        self._looked = now, time.monotonic()
        for start in range(0, len(claims), BATCH):
            for attempt in self._attempts(claims[start : start + BATCH]):
                if time.monotonic() >= until:
                    yield [Outcome(claim, "claimed") for claim in attempt.claims]
                    continue
                for known in self._send_alike(attempt, until):
                    try:
                        self._log(known)
                    finally:  # a signal during logging must not lose outcomes
                        yield known

    def check_broker(self) -> None:
        """Connect if necessary, and check that the broker accepts messages.

        Raises:
            BrokerError: the broker can't be reached, or accepts no messages.
        """
        try:
            check_writable(self._scheduler.producer)
        except BlockedError as error:
            raise BrokerError(str(error)) from error
        except Exception as error:
            self._scheduler.disconnect()
            raise BrokerError(f"{type(error).__name__}: {error}") from error

    def late_outcomes(self) -> list[Outcome]:
        """Return new outcomes of messages that RabbitMQ has not confirmed during its alarm."""
        known = self._alarm.late_outcomes()
        self._log(known)
        return known

    # -- attempts ----------------------------------------------------------------------

    def _attempts(self, claims: Sequence[Claim]) -> Iterator[Attempt]:
        """Yield first attempts for claims that are sent alike, in the order of the claims.

        Raises:
            BrokerError: the broker can't be reached.
        """
        connection = self._connection()
        try:
            rendered = self.ladder.render(claims)
        except broker_errors(connection) as error:
            self._scheduler.disconnect()
            raise BrokerError(f"{type(error).__name__}: {error}") from error
        alone = partial(overrides_apply_async, self._scheduler.app)
        for (is_rendered, _), alike in groupby(
            zip(claims, rendered, strict=True),
            lambda one: (one[1] is not None, one[1] is None and alone(one[0])),
        ):
            some, messages = zip(*alike, strict=True)
            yield Attempt(some, rendered=messages if is_rendered else None)

    def _send_alike(self, first: Attempt, until: float) -> Iterator[list[Outcome]]:
        """Send claims as a batch, and send again those that the broker may not have."""
        attempts = deque([first])
        while attempts:
            attempt = attempts.popleft()
            try:
                self._write(attempt, until)
            except BaseException:
                # A signal ends beat here: yield the outcomes known so far.
                yield attempt.accepted()
                raise
            attempt.sort(self._connection())
            yield attempt.known
            if attempt.is_late:
                yield self._out_of_time(attempt)
                continue
            if isinstance(attempt.failure, BlockedError):
                yield self._alarm.hold(attempt)
            self._check_broker(attempt)
            if attempt.returned:
                self._declare_anew()
            if attempt.failure is not None and attempt.is_hopeless:
                yield [try_later(attempt.rest[0], cause_of(attempt.failure) or attempt.failure)]
            else:
                attempts.extend(attempt.next_attempts())

    def _declare_anew(self) -> None:
        """Have queues declared once more: one may have been deleted since it was."""
        declared: set[Any] = self._scheduler.producer.connection.declared_entities
        declared.clear()
        self.ladder.forget()

    def _out_of_time(self, attempt: Attempt) -> list[Outcome]:
        """Return the claims that ran out of time as still claimed, for the next send."""
        left = attempt.rest + attempt.returned
        untouched = len(attempt.claims) - len(attempt.entries)
        if len(left) > untouched:
            logger.warning(
                "ran out of time to send %r before its claim expires (beatstore_claim_ttl), "
                "retrying",
                left[0].name,
            )
        return [Outcome(claim, "claimed") for claim in left]

    def _check_broker(self, attempt: Attempt) -> None:
        """Raise if the broker is gone, or accepts no messages at all.

        Raises:
            BrokerError: it is gone, or accepts none.
        """
        failure, full = attempt.failure, attempt.full
        if isinstance(failure, BlockedError):
            raise BrokerError(str(failure)) from failure
        if failure is not None:
            self._scheduler.disconnect()
            try:
                self._connection()
            except BrokerError:
                raise BrokerError(f"{type(failure).__name__}: {failure}") from failure
        if full is not None:
            raise BrokerError(f"it accepts no messages: {type(full).__name__}: {full}") from full

    def _write(self, attempt: Attempt, until: float) -> None:
        """Write a batch to the broker, and store the error that ended it."""
        app = self._scheduler.app
        broken = broker_errors(self._connection())
        errors: tuple[type[Exception], ...] = (BlockedError, *broken)
        ending: tuple[type[Exception], ...] = (OutOfTimeError, *errors)
        try:
            attempt.batch, entries = self._batch_of(attempt, until, errors)
            with attempt.batch as batch, without_results(app):
                for entry in entries:
                    attempt.entries.append(entry)
                    batch.mark()
                _check_time(until)  # most transports have written them, but not all
        except ending as error:
            attempt.failure = error

    def _batch_of(
        self, attempt: Attempt, until: float, errors: tuple[type[Exception], ...]
    ) -> tuple[Batch, Iterator[Sent]]:
        """Return the batch of an attempt, and what writes its messages into it, one by one."""
        if attempt.rendered is not None:
            made = self.ladder.batch()
            return made, _put_each(made, attempt.rendered, until)
        app = self._scheduler.app
        batch = batch_of(
            self._scheduler.producer,
            one_by_one=overrides_apply_async(app, attempt.claims[0]),
            loose=partial(loose_exchanges, app),
        )
        return batch, self._apply_each(attempt.claims, until, errors)

    def _apply_each(
        self, claims: Sequence[Claim], until: float, errors: tuple[type[Exception], ...]
    ) -> Iterator[BeatEntry]:
        """Send message by message, for at most half of the remaining time.

        Then the batch is written before more is sent. With slow hooks, time would otherwise
        run out before the batch is complete, at each retry, and nothing would be written.
        """
        write_at = (time.monotonic() + until) / 2
        for number, claim in enumerate(claims):
            _check_time(until)
            if number and time.monotonic() >= write_at:
                return
            yield self._apply(claim, errors)

    def _apply(self, claim: Claim, errors: tuple[type[Exception], ...]) -> BeatEntry:
        """Send one message through the hooks, or without them if they fail.

        Raises:
            Exception: one of `errors`; any other error is stored on the entry.
        """
        scheduler, producer = self._scheduler, self._scheduler.producer
        entry = BeatEntry(claim, scheduler.app, scheduler.store.settings.default_timezone)
        in_step(entry, self._now())
        try:
            scheduler.apply_entry(entry, producer=producer)
        except Exception:
            logger.warning("a hook failed while sending %r", entry.name, exc_info=True)
        if not entry.tried:
            scheduler.apply_async(entry, producer=producer, advance=False)
        wrapped = isinstance(entry.error, OperationalError)
        cause = entry.error.__cause__ if entry.error and wrapped else entry.error
        if isinstance(cause, Exception) and is_message_error(cause):
            entry.error = cause  # kombu takes a KeyError for a lost connection to Redis
        elif isinstance(entry.error, errors):
            raise entry.error
        return entry

    # -- helpers -----------------------------------------------------------------------

    def _now(self) -> datetime:
        """Return the database's time, by what has passed since it was read."""
        now, looked_at = self._looked
        return now + timedelta(seconds=time.monotonic() - looked_at)

    def _log(self, outcomes: Sequence[Outcome]) -> None:
        """Log what was sent, and why an entry could not be sent: once, until one succeeds."""
        log_sent(outcomes, self._now())
        for outcome in outcomes:
            name = outcome.claim.name
            if outcome.state == "sent":
                self._failing.pop(name, None)
            elif outcome.state == "failed" or outcome.tries:
                level = logging.ERROR if outcome.state == "failed" else logging.WARNING
                before = self._failing.get(name, 0)
                self._failing[name] = max(level, before)
                then = f"retrying in {outcome.retry_in:g} s" if outcome.retry_in else "not retried"
                level = level if level > before else logging.DEBUG
                logger.log(level, "could not send %r: %s; %s", name, outcome.reason, then)

    def _connection(self) -> Connection:
        try:
            connection: Connection = self._scheduler.producer.connection
        except Exception as error:
            raise BrokerError(f"{type(error).__name__}: {error}") from error
        return connection


def _put_each(
    batch: Push | Publish, messages: Sequence[Rendered], until: float
) -> Iterator[Rendered]:
    """Put messages from templates into their batch."""
    for message in messages:
        _check_time(until)
        batch.put(message.message)
        yield message


def _check_time(until: float) -> None:
    """End the batch if time ran out: a process or machine can freeze at any point."""
    if time.monotonic() >= until:
        raise OutOfTimeError
