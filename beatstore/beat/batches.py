"""How the messages of a batch are written to a broker, and what it did with each of them.

    Redis (kombu 5.7)    Pipeline    one round trip a batch, by kombu's `Producer.batch`
    RabbitMQ (py-amqp)   Confirmed   publisher confirms, awaited once a batch
    anything else        Batch       one message at a time, as celery does it

A batch is a context: messages published inside it, on its producer, belong to it, and at
its end they are with the broker or an error says that some may not be. `mark` is called
after each entry, whose messages (a group has many) then share one fate; `fates` says what
the broker did with them, entry by entry, whatever happened to its neighbours:

    None                 the broker has all of it
    UnsureError          nobody can say; the broker may or may not have it
    any other exception  the broker's answer to this very message: it does not have it
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Set
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import pairwise
from typing import Any

import kombu.exceptions
from kombu import Connection
from kombu.exceptions import OperationalError

from beatstore.beat.confirms import ANSWER_TIMEOUT, NOT_IMPLEMENTED, Confirms, UnsureError
from beatstore.beat.message import OF_THE_MESSAGE

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

#: How Redis says that it takes no messages, whatever they are: redis-py's names for it, and
#: the words that an answer begins with where it has none.
_TAKES_NOTHING = frozenset({"OutOfMemoryError", "ReadOnlyError", "MasterDownError"})
_TAKES_NOTHING_WORDS = ("OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "MASTERDOWN ")

#: How Redis refuses one message, because of its queue's key or the user's rights.
_REFUSALS = ("WRONGTYPE", "NOPERM", "No permission", "no permissions")

#: Seconds to wait for answers that are under way, when a batch ends with an error.
LAST_ANSWERS = 1.0

#: kombu's error for a pipeline that failed; kombu 5.6 has no pipelines.
BATCH_ERRORS: tuple[type[Exception], ...] = tuple(
    error for error in (getattr(kombu.exceptions, "BatchPublishError", None),) if error is not None
)

#: What became of one entry: None, `UnsureError`, or the broker's refusal.
Fate = Exception | None


class Batch(AbstractContextManager["Batch"]):
    """Messages that are written one at a time; how every transport works."""

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.marked = 0

    def mark(self) -> None:
        """Note that all messages of one more entry have been published."""
        self.marked += 1

    def fates(self) -> list[Fate]:
        """Say what the broker did with each marked entry."""
        return [None] * self.marked

    def blame(self, error: Exception) -> Exception:
        """Return the fate of the entry that was being published when `error` came."""
        return error

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        pass


class Pipeline(Batch):
    """Messages collected by kombu and written when the batch ends."""

    def __enter__(self) -> Pipeline:
        self._flushing = False
        self._ends: list[int] = []
        self._replies: list[object] = []
        self._names: list[str] = []
        # Larger than any batch: kombu must not flush before the end, where it is known
        # which messages an error is about.
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
        # Until the pipeline is written, only the commands that declare queues are answered.
        return UnsureError(str(error)) if self._flushing else error

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        pipeline = self._pipeline
        if kind is None and pipeline is not None:
            self._flushing = True
            self._names = [str(args[0]).upper() for args, _ in pipeline.command_stack]
            pipeline.parse_response = partial(self._read, pipeline.parse_response)
        self._context.__exit__(kind, *rest)

    @property
    def _pipeline(self) -> Any:
        session = self._context.state.session
        return None if session is None else session.pipeline

    def _read(self, parse: Any, *args: Any, **options: Any) -> Any:
        """Keep the reply to each command: kombu only tells that one of them was an error."""
        try:
            reply = parse(*args, **options)
        except self.producer.connection.connection_errors:
            raise
        except Exception as error:
            # A copy: redis-py writes the command, and so the message, into the first of them.
            self._replies.append(copy.copy(error))
            raise
        self._replies.append(reply)
        return reply

    def _fate(self, commands: range) -> Fate:
        for number in commands:
            if number >= len(self._replies):
                return UnsureError("Redis did not answer")
            reply = self._replies[number]
            # What follows a message only says how long to keep its queue.
            if isinstance(reply, Exception) and self._names[number] != "PEXPIRE":
                refused = OperationalError(str(reply))
                refused.__cause__ = reply
                return refused
        return None


class Confirmed(Batch):
    """Messages of which RabbitMQ says when it has them; awaited when the batch ends."""

    def __init__(self, producer: Any, *, one_by_one: bool, loose: Callable[[], Set[str]]) -> None:
        super().__init__(producer)
        channel = producer.channel
        if not hasattr(channel, "beatstore_confirms"):
            channel.beatstore_confirms = Confirms(channel, loose())
        self.confirms: Confirms = channel.beatstore_confirms
        self.confirms.one_by_one = one_by_one
        self.confirms.refused.clear()
        self._ends = [self.confirms.published]

    def mark(self) -> None:
        super().mark()
        self._ends.append(self.confirms.published)
        self.confirms.check()

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
        # What went out before the error is most likely taken: knowing it saves sending it
        # twice.
        with suppress(Exception):
            self.confirms.wait(LAST_ANSWERS)


def batch_of(
    producer: Any,
    *,
    one_by_one: bool = False,
    loose: Callable[[], Set[str]] = frozenset,
) -> Batch:
    """Choose how the messages of a batch reach this producer's broker.

    Args:
        producer: what they are published on.
        one_by_one: whether publishing each is to say at once that the broker has it.
        loose: returns the names of exchanges that may well have no queue; a message to any
            other that no queue gets is returned, where the broker can.
    """
    if getattr(producer, "supports_batch_publish", False):
        return Batch(producer) if one_by_one else Pipeline(producer)
    channel = producer.channel
    if hasattr(channel, "confirm_select") and not channel.connection.confirm_publish:
        return Confirmed(producer, one_by_one=one_by_one, loose=loose)
    return Batch(producer)


def bounded(connection: Connection) -> Connection:
    """Give `connection` a limit on how long it waits for an answer, if it has none."""
    limits = {
        "redis": ("socket_timeout", "socket_connect_timeout"),
        "amqp": ("read_timeout", "write_timeout"),
    }
    given = connection.transport_options or {}
    names = limits.get(connection.transport.driver_type, ())
    connection.transport_options = {**dict.fromkeys(names, ANSWER_TIMEOUT), **given}
    return connection


def broker_errors(connection: Connection) -> tuple[type[Exception], ...]:
    """Return the errors that are the broker's, and not the message's."""
    of_the_transport = (*connection.connection_errors, *connection.channel_errors)
    return (
        *(error for error in of_the_transport if not issubclass(error, OF_THE_MESSAGE)),
        OperationalError,
        *BATCH_ERRORS,
        OSError,
    )


def cause_of(error: BaseException) -> BaseException | None:
    """Return the broker's own error in what kombu and celery make of it."""
    return error.__cause__ if isinstance(error, (*BATCH_ERRORS, OperationalError)) else error


def is_refusal(connection: Connection, error: BaseException) -> bool:
    """Say whether the broker answered, and the answer was no to this very message."""
    cause = cause_of(error)
    passing = (*connection.connection_errors, *connection.recoverable_channel_errors)
    if getattr(cause, "code", None) == NOT_IMPLEMENTED:
        return True
    if not isinstance(cause, connection.channel_errors) or isinstance(cause, passing):
        return False
    # Redis answers no to much that is not about this message.
    is_redis = connection.transport.driver_type == "redis"
    return not is_redis or any(word in str(cause) for word in _REFUSALS)


def is_full(connection: Connection, error: BaseException | None) -> bool:
    """Say whether an error is Redis's answer to everybody: it is full, read-only or the like."""
    if error is None or connection.transport.driver_type != "redis":
        return False
    return type(error).__name__ in _TAKES_NOTHING or str(error).startswith(_TAKES_NOTHING_WORDS)


def check_writable(producer: Any) -> None:
    """Raise what Redis answers to a write, if it takes none, or that RabbitMQ's alarm is on.

    The write does nothing: it would add to a list that is not there.
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
