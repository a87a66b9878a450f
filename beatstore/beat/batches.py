"""Write a batch of messages to the broker, and return the fate of each.

    Redis (kombu 5.7)    Pipeline    one round trip a batch, by kombu's `Producer.batch`
    RabbitMQ (py-amqp)   Confirmed   publisher confirms, awaited once a batch
    anything else        Batch       one message at a time, as celery does it

A batch is a context manager. Messages published inside it, on its producer, belong to it. When
it exits, the broker has them, or an error says that it may not have some. The caller calls
`mark` after each entry; all messages of that entry (a group has many) share one fate. `fates`
returns the fate of each entry, independent of the others:

    None                 the broker has all its messages
    UnsureError          unknown: the broker may or may not have them
    any other exception  the broker refused a message of this entry
"""

from __future__ import annotations

from collections.abc import Callable, Set
from contextlib import AbstractContextManager, suppress
from itertools import pairwise
from typing import Any

import kombu.exceptions
from kombu import Connection
from kombu.exceptions import OperationalError

from beatstore.beat.confirms import ANSWER_TIMEOUT, CLOSING, Confirms
from beatstore.beat.message import MESSAGE_ERRORS
from beatstore.beat.replies import note_replies
from beatstore.errors import UnsureError

__all__ = [
    "ANSWER_TIMEOUT",
    "BATCH_ERRORS",
    "Batch",
    "Fate",
    "batch_of",
    "bounded",
    "broker_errors",
    "cause_of",
    "check_writable",
    "is_full",
    "is_refusal",
]

#: How Redis answers if it accepts no writes at all: the names of redis-py's errors, and the
#: first words of answers that have no error class of their own.
_TAKES_NOTHING = frozenset({"OutOfMemoryError", "ReadOnlyError", "MasterDownError"})
_TAKES_NOTHING_WORDS = ("OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "MASTERDOWN ")

#: How Redis refuses one message because of its queue's key or the user's permissions.
_REFUSALS = ("WRONGTYPE", "NOPERM", "No permission", "no permissions")

#: Seconds to wait for outstanding answers when a batch ends with an error.
LAST_ANSWERS = 1.0

#: kombu's error for a failed pipeline; kombu 5.6 has no pipelines.
BATCH_ERRORS: tuple[type[Exception], ...] = tuple(
    error for error in (getattr(kombu.exceptions, "BatchPublishError", None),) if error is not None
)

#: The fate of one entry: None, `UnsureError`, or the broker's refusal.
Fate = Exception | None


class Batch(AbstractContextManager["Batch"]):
    """Messages written one at a time, which every transport supports."""

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.marked = 0

    def mark(self) -> None:
        """Note that all messages of another entry have been published."""
        self.marked += 1

    def fates(self) -> list[Fate]:
        """Return the fate of each marked entry."""
        return [None] * self.marked

    def blame(self, error: Exception) -> Exception:
        """Return the fate of the entry whose publishing raised `error`."""
        return error

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        pass


class Pipeline(Batch):
    """Messages that kombu collects and writes when the batch ends."""

    def __enter__(self) -> Pipeline:
        self._flushing = False
        self._ends: list[int] = []
        self._replies: list[object] = []
        self._names: list[str] = []
        # Larger than any batch: kombu must flush only at the end, where an error can be
        # attributed to its messages.
        self._context = self.producer.batch(max_size=1_000_000)
        self._context.__enter__()
        return self

    def mark(self) -> None:
        super().mark()
        pipeline = self._pipeline
        self._ends.append(0 if pipeline is None else len(pipeline.command_stack))

    def fates(self) -> list[Fate]:
        return [self._fate(range(*span)) for span in pairwise([0, *self._ends])]

    def blame(self, error: Exception) -> Exception:
        # Before the pipeline is flushed, only commands that declare queues get an answer.
        return UnsureError(str(error)) if self._flushing else error

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        pipeline = self._pipeline
        if kind is None and pipeline is not None:
            self._flushing = True
            self._names = [str(args[0]).upper() for args, _ in pipeline.command_stack]
            note_replies(pipeline, self._replies, self.producer.connection.connection_errors)
        self._context.__exit__(kind, *rest)

    @property
    def _pipeline(self) -> Any:
        session = self._context.state.session
        return None if session is None else session.pipeline

    def _fate(self, commands: range) -> Fate:
        for number in commands:
            if number >= len(self._replies):
                return UnsureError("Redis did not answer")
            reply = self._replies[number]
            # PEXPIRE follows a message, and only sets how long to keep its queue.
            if isinstance(reply, Exception) and self._names[number] != "PEXPIRE":
                refused = OperationalError(str(reply))
                refused.__cause__ = reply
                return refused
        return None


class Confirmed(Batch):
    """Messages that RabbitMQ confirms; the batch waits for its confirms when it ends."""

    def __init__(self, producer: Any, *, one_by_one: bool, loose: Callable[[], Set[str]]) -> None:
        super().__init__(producer)
        channel = producer.channel
        if not hasattr(channel, "beatstore_confirms"):
            channel.beatstore_confirms = Confirms(channel, loose())
        self.confirms: Confirms = channel.beatstore_confirms
        self.confirms.one_by_one = one_by_one
        self.confirms.forget_refusals()
        self.confirms.poll()  # an alarm of before may be over
        self._channel = channel
        self._ends = [self.confirms.published]

    def mark(self) -> None:
        super().mark()
        self._ends.append(self.confirms.published)
        self.confirms.check()
        if self.producer.channel is not self._channel:
            raise OSError("the connection to RabbitMQ was replaced in the middle of a batch")

    def fates(self) -> list[Fate]:
        return [self.confirms.fate(numbers) for numbers in self.numbers()]

    def numbers(self) -> list[range]:
        """Return the numbers of the messages of each marked entry."""
        return [range(start + 1, end + 1) for start, end in pairwise(self._ends)]

    def blame(self, error: Exception) -> Exception:
        return self.confirms.refusal or UnsureError(str(error))

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.confirms.wait(ANSWER_TIMEOUT)
            return
        # RabbitMQ most likely has what was sent before the error. Waiting for its confirms
        # avoids sending it twice.
        with suppress(Exception):
            self.confirms.wait(LAST_ANSWERS)


def batch_of(
    producer: Any,
    *,
    one_by_one: bool = False,
    loose: Callable[[], Set[str]] = frozenset,
) -> Batch:
    """Return a batch of the kind that this producer's broker supports.

    Args:
        producer: publishes the messages.
        one_by_one: whether to wait for the broker after each message.
        loose: returns the names of exchanges that may have no queue. A message to any other
            exchange that reaches no queue is returned, if the broker supports that.
    """
    if getattr(producer, "supports_batch_publish", False):
        return Batch(producer) if one_by_one else Pipeline(producer)
    channel = producer.channel
    if hasattr(channel, "confirm_select") and not channel.connection.confirm_publish:
        return Confirmed(producer, one_by_one=one_by_one, loose=loose)
    return Batch(producer)


def bounded(connection: Connection) -> Connection:
    """Set a timeout for answers on `connection`, if it has none."""
    limits = {
        "redis": ("socket_timeout", "socket_connect_timeout"),
        "amqp": ("read_timeout", "write_timeout"),
    }
    given = connection.transport_options or {}
    names = limits.get(connection.transport.driver_type, ())
    connection.transport_options = {**dict.fromkeys(names, ANSWER_TIMEOUT), **given}
    return connection


def broker_errors(connection: Connection) -> tuple[type[Exception], ...]:
    """Return the error classes that mean a broken broker, not a bad message."""
    of_the_transport = (*connection.connection_errors, *connection.channel_errors)
    return (
        *(error for error in of_the_transport if not issubclass(error, MESSAGE_ERRORS)),
        OperationalError,
        *BATCH_ERRORS,
        OSError,
    )


def cause_of(error: BaseException) -> BaseException | None:
    """Return the broker's own error, which kombu and Celery may have wrapped."""
    return error.__cause__ if isinstance(error, (*BATCH_ERRORS, OperationalError)) else error


def is_refusal(connection: Connection, error: BaseException) -> bool:
    """Return whether the broker answered, and refused this message."""
    cause = cause_of(error)
    passing = (*connection.connection_errors, *connection.recoverable_channel_errors)
    if getattr(cause, "code", None) in CLOSING:
        return True
    if not isinstance(cause, connection.channel_errors) or isinstance(cause, passing):
        return False
    # Most of the errors of Redis are not about this message.
    is_redis = connection.transport.driver_type == "redis"
    return not is_redis or any(word in str(cause) for word in _REFUSALS)


def is_full(connection: Connection, error: BaseException | None) -> bool:
    """Return whether an error means that Redis accepts no writes: full, read-only or similar."""
    if error is None or connection.transport.driver_type != "redis":
        return False
    return type(error).__name__ in _TAKES_NOTHING or str(error).startswith(_TAKES_NOTHING_WORDS)


def check_writable(producer: Any) -> None:
    """Raise if Redis accepts no writes, or if RabbitMQ's alarm is on.

    The probe of Redis writes nothing: LPUSHX only adds to a list that exists.
    """
    confirms: Confirms | None = getattr(producer.channel, "beatstore_confirms", None)
    if confirms is not None:
        confirms.poll()
        confirms.check()
    if producer.connection.transport.driver_type != "redis":
        return
    with producer.channel.conn_or_acquire() as client:
        try:
            client.execute_command("LPUSHX", "beatstore:probe", "")
        except Exception as error:
            if is_full(producer.connection, error):
                raise
