"""Sending: from claims to messages on the broker, and what became of each.

Every message goes through the scheduler's inherited `apply_entry`, where monitoring
packages hook in, and on through celery's own `Task.apply_async` or `send_task`, where
tracing, routing and locking packages do. What is added is around the messages: they are
written to the broker in batches, where its transport can (see `beatstore.batches`).

Invariants:
    * A claim is reported `sent` only when the broker has taken its message.
    * A claim is reported `failed` only for a reason that sending again can't mend.
    * What may have arrived, or not, is sent again with the same task id.

On failure: `BrokerError` says that the broker is gone, after the outcomes that are known
have been handed out. A message that can't be built, or that the broker refuses, fails
alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

from celery import Celery
from celery.app.task import Task
from celery.beat import ScheduleEntry
from kombu import Connection
from kombu.exceptions import OperationalError, SerializationError, SerializerNotInstalled

from beatstore.batches import BATCH_ERRORS, Batch, batch_of
from beatstore.beatschedule import evaluated
from beatstore.canvas import CANVAS, canvas_of, thawed
from beatstore.convert import celery_schedule
from beatstore.errors import BeatstoreError
from beatstore.store import allowed
from beatstore.store.calls import Call, check_allowed
from beatstore.store.tick.claims import Claim, Outcome
from beatstore.store.values import copied, opened
from beatstore.task import Task as OwnTask

__all__ = ["BATCH", "BeatEntry", "BrokerError", "Sender"]

logger = logging.getLogger(__name__)

#: How many messages are written to the broker at once.
BATCH = 100

#: Seconds until a send that failed for an unknown reason is tried again.
RETRY = 5.0

#: What packages that lock tasks raise for a duplicate: celery-once, celery-singleton.
_DUPLICATE = ("AlreadyQueued", "DuplicateTaskError")

#: Errors of the message itself. Everything else may pass, and is tried again.
_OF_THE_MESSAGE = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    SerializationError,
    SerializerNotInstalled,
)


class BrokerError(BeatstoreError):
    """The broker did not answer."""


class _TooLateError(Exception):
    """The claims may be another beat's by now."""


class BeatEntry(ScheduleEntry):
    """What the hooks around celery's scheduler are shown of one send.

    `tried` is set by the scheduler's `apply_async`, with what it returned or raised: a
    result may well be None.
    """

    tried = False
    result: Any = None
    error: Exception | None = None

    def __init__(self, claim: Claim, app: Celery) -> None:
        options = copied(claim.options)
        given = (options.get("headers") or {}).items()
        own = {name: value for name, value in given if not name.startswith(allowed.OURS)}
        options["headers"] = {**own, **_headers(claim)}
        options["task_id"] = claim.task_id
        options.setdefault("retry", False)
        # A row written by hand may hold a time of sending; the schedule's is the only one.
        for time_of_sending in ("eta", "countdown"):
            options.pop(time_of_sending, None)
        super().__init__(
            name=claim.name,
            task=claim.task,
            last_run_at=claim.due_at,
            schedule=celery_schedule(claim.kind, claim.spec, claim.timezone),
            args=tuple(claim.args),
            kwargs=dict(claim.kwargs),
            options=options,
            app=app,
        )
        self.claim = claim

    def outcome(self) -> Outcome:
        """Say what became of the message, once its batch is written."""
        error = self.error
        if error is None:
            reason = _taken_over(self.result, self.claim.task_id)
            return Outcome(self.claim, "skipped" if reason else "sent", reason)
        if type(error).__name__ in _DUPLICATE:
            known = getattr(error, "task_id", error)
            return Outcome(self.claim, "skipped", f"already queued: {known}")
        if isinstance(error, _OF_THE_MESSAGE):
            logger.error("no message can be made of %r: %r", self.name, error)
            return Outcome(self.claim, "failed", f"{type(error).__name__}: {error}")
        return _try_later(self.claim, error)


class Scheduling(Protocol):
    """What sending needs of the scheduler."""

    app: Celery

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

    def __init__(self, scheduler: Scheduling, patterns: Sequence[str] | None = None) -> None:
        self._scheduler = scheduler
        self._patterns = patterns

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
        for start in range(0, len(claims), BATCH):
            for _, alike in groupby(claims[start : start + BATCH], self._has_own_way):
                batch = list(alike)
                if time.monotonic() >= until:
                    yield from (Outcome(claim, "claimed") for claim in batch)
                    continue
                yield from self._send_batch(batch, until)

    def publish(self, entry: BeatEntry, producer: Any) -> Any:
        """Hand one message to celery: the end of the road through the hooks.

        A registered task is sent by its own `apply_async`, so that its options and its
        base class count; a canvas by its signature; any other name by `send_task`.
        """
        app: Any = self._scheduler.app
        name = str(entry.task)
        given, named, options = opened(entry.args or (), entry.kwargs or {}, entry.options or {})
        args = [evaluated(app, value) for value in given]
        kwargs = {key: evaluated(app, value) for key, value in named.items()}
        # Asked at each send: rows change, and so does the setting.
        allowed.check_headers(name, kwargs, entry.claim.options, ours=False)
        check_allowed(Call(name, args, kwargs, options), self._patterns)
        if name in CANVAS:
            if entry.claim.options.get("task_id") != options.get("task_id"):
                kwargs = thawed(name, kwargs)
            canvas = canvas_of(name, args, kwargs, options.pop("headers", {}), app)
            if "headers" in canvas.options:  # a map: celery 5.6 sends it without its options
                options["headers"] = canvas.options["headers"]
            return canvas.apply_async(producer=producer, **options)
        task = app.tasks.get(name)
        if task is not None:
            return task.apply_async(args, kwargs, producer=producer, **options)
        return app.send_task(name, args, kwargs, producer=producer, **options)

    # -- one batch ---------------------------------------------------------------------

    def _send_batch(
        self, claims: Sequence[Claim], until: float, *, again: bool = True
    ) -> Iterator[Outcome]:
        """Send a batch; on an error send what was not taken again, and then one by one."""
        broker_errors = self._broker_errors()
        entries: list[BeatEntry] = []
        batch: Batch | None = None
        try:
            one_by_one = self._has_own_way(claims[0])
            with batch_of(self._scheduler.producer, one_by_one=one_by_one) as batch:
                for entry in self._applied(claims, until, broker_errors):
                    entries.append(entry)
                    batch.mark()
                _check_time(until)  # most transports have written them, but not all
        except broker_errors as error:
            taken = batch.taken if batch is not None else 0
            yield from (entry.outcome() for entry in entries[:taken])
            yield from self._resend(claims[taken:], error, until, again=again)
            return
        except _TooLateError:
            taken = batch.taken if batch is not None else 0
            if taken < len(entries):
                logger.warning(
                    "no time was left to send %r before its claim ends (beatstore_claim_ttl); "
                    "trying again",
                    entries[taken].name,
                )
            yield from (entry.outcome() for entry in entries[:taken])
            yield from (Outcome(claim, "claimed") for claim in claims[taken:])
            return
        except BaseException:
            # A signal ends beat here, and what is known by now is all there will be.
            taken = batch.taken if batch is not None else 0
            yield from (entry.outcome() for entry in entries[:taken])
            raise
        yield from (entry.outcome() for entry in entries)
        if len(entries) < len(claims):
            yield from self._send_batch(claims[len(entries) :], until)

    def _resend(
        self, claims: Sequence[Claim], error: BaseException, until: float, *, again: bool
    ) -> Iterator[Outcome]:
        """Find out whether `error` was the connection, the broker, or one message."""
        if self._gone():
            raise BrokerError(f"{type(error).__name__}: {error}") from error
        if not claims:
            return
        if again and not self._refused(error):
            yield from self._send_batch(claims, until, again=False)
        elif len(claims) > 1:
            for claim in claims:
                yield from self._send_batch([claim], until, again=False)
        elif self._refused(error):
            logger.error("the broker refused %r: %r", claims[0].name, error)
            yield Outcome(claims[0], "failed", f"{type(error).__name__}: {error}")
        else:
            yield _try_later(claims[0], error)

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
        entry = BeatEntry(claim, scheduler.app)
        try:
            scheduler.apply_entry(entry, producer=producer)
        except Exception:
            logger.warning("a hook around the sending of %r failed", entry.name, exc_info=True)
        if not entry.tried:
            scheduler.apply_async(entry, producer=producer, advance=False)
        cause = entry.error.__cause__ if entry.error else None
        if isinstance(entry.error, OperationalError) and isinstance(cause, _OF_THE_MESSAGE):
            entry.error = cause  # kombu takes a KeyError for a lost connection to Redis
        if isinstance(entry.error, broker_errors):
            raise entry.error
        return entry

    def _has_own_way(self, claim: Claim) -> bool:
        """Say whether a task's class sends in a way of its own, such as with a lock.

        It has to see at once whether its message was taken: told later, and asked again,
        it would take the message for its own duplicate.
        """
        task: Any = self._scheduler.app.tasks.get(claim.task)
        if task is None:
            return False
        classes = task.__class__.__mro__
        # beatstore.Task only adds what becomes of an eta, which beat never gives.
        own = next(one for one in classes if "apply_async" in vars(one) and one is not OwnTask)
        return own is not Task

    def _broker_errors(self) -> tuple[type[Exception], ...]:
        connection = self._connection()
        of_the_transport = (*connection.connection_errors, *connection.channel_errors)
        return (
            *(error for error in of_the_transport if not issubclass(error, _OF_THE_MESSAGE)),
            OperationalError,
            *BATCH_ERRORS,
            OSError,
        )

    def _refused(self, error: BaseException) -> bool:
        """Say whether the broker answered, and the answer was no to this very message."""
        wrapped = isinstance(error, (*BATCH_ERRORS, OperationalError))
        cause = error.__cause__ if wrapped else error
        connection = self._connection()
        passing = (*connection.connection_errors, *connection.recoverable_channel_errors)
        if not isinstance(cause, connection.channel_errors) or isinstance(cause, passing):
            return False
        # Redis answers no to everything while it is full, read-only or can't save.
        return connection.transport.driver_type != "redis" or "WRONGTYPE" in str(cause)

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


def _check_time(until: float) -> None:
    """End the batch if time is over: a process or machine can stand still anywhere in it."""
    if time.monotonic() >= until:
        raise _TooLateError


def _try_later(claim: Claim, error: BaseException) -> Outcome:
    logger.error("sending %r failed, trying again in %g s: %r", claim.name, RETRY, error)
    reason = f"sending failed, last with {type(error).__name__}: {error}"
    return Outcome(claim, "claimed", reason, RETRY)


def _headers(claim: Claim) -> dict[str, Any]:
    """Return the headers by which a worker, or a monitor, knows the run."""
    headers: dict[str, Any] = {
        "celery_beat_task": True,
        "periodic_task_name": claim.name,
        "beatstore_entry": claim.name,
        "beatstore_run_id": claim.run_id,
        "beatstore_due_at": claim.due_at.isoformat(),
        "beatstore_attempt": claim.attempt,
    }
    if claim.first_missed_at is not None:
        headers["beatstore_first_missed_at"] = claim.first_missed_at.isoformat()
        headers["beatstore_missed_count"] = claim.missed_count
    return headers


def _taken_over(result: Any, task_id: str) -> str | None:
    """Say why a send that returned sent nothing, or None if it did send.

    Packages that lock tasks answer a duplicate with no id, or with another's.
    """
    sent_id = getattr(result, "id", None)
    if sent_id == task_id:
        return None
    return f"already queued: {sent_id}" if sent_id else "already queued"
