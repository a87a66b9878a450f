"""How the messages of a batch are written to a broker, and what it is known to have.

    Redis (kombu 5.7)    Pipeline    one round trip a batch, by kombu's `Producer.batch`
    RabbitMQ (py-amqp)   Confirmed   publisher confirms, awaited once a batch
    anything else        Batch       one message at a time, as celery does it

A batch is a context: messages published inside it, on its producer, belong to it, and at
its end they are with the broker or an error says that they may not be. `mark` is called
after each message; `taken` then says how many of them, counted from the first, the
broker is known to have.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, suppress
from typing import Any

import kombu.exceptions
from kombu import Connection

__all__ = ["ANSWER_TIMEOUT", "BATCH_ERRORS", "Batch", "batch_of", "bounded"]

#: Seconds to wait for a broker that has stopped answering, where no setting says so.
ANSWER_TIMEOUT = 10.0

#: Seconds to wait for answers that are under way, when a batch ends with an error.
LAST_ANSWERS = 1.0

#: kombu's error for a pipeline that failed; kombu 5.6 has no pipelines.
BATCH_ERRORS: tuple[type[Exception], ...] = tuple(
    error for error in (getattr(kombu.exceptions, "BatchPublishError", None),) if error is not None
)


class Batch(AbstractContextManager["Batch"]):
    """Messages that are written one at a time; how every transport works.

    `mark` is called after each message. `taken` says how many of the marked messages
    the broker is known to have, counted from the first.
    """

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.marked = 0

    def mark(self) -> None:
        """Note that one more message has been published."""
        self.marked += 1

    @property
    def taken(self) -> int:
        """How many of the marked messages the broker is known to have."""
        return self.marked

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        pass


class Pipeline(Batch):
    """Messages collected by kombu and written when the batch ends."""

    flushed = False

    def __enter__(self) -> Pipeline:
        # Larger than any batch: kombu must not flush before the end, where it is known
        # which messages an error is about.
        self._context = self.producer.batch(max_size=1_000_000)
        self._context.__enter__()
        return self

    @property
    def taken(self) -> int:
        return self.marked if self.flushed else 0

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._context.__exit__(kind, *rest)
        self.flushed = kind is None


class Confirmed(Batch):
    """Messages of which RabbitMQ says when it has them; awaited when the batch ends."""

    def __init__(self, producer: Any, *, one_by_one: bool) -> None:
        super().__init__(producer)
        self.one_by_one = one_by_one

    def __enter__(self) -> Confirmed:
        channel = self.producer.channel
        self.numbers: list[int] = []
        if not hasattr(channel, "beatstore_confirms"):
            channel.beatstore_confirms = _Confirms(channel)
        self.confirms: _Confirms = channel.beatstore_confirms
        self.confirms.one_by_one = self.one_by_one
        return self

    def mark(self) -> None:
        self.numbers.append(self.confirms.published)

    @property
    def taken(self) -> int:
        return sum(number <= self.confirms.confirmed for number in self.numbers)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.confirms.wait(ANSWER_TIMEOUT)
            return
        # What went out before the error is most likely taken: knowing it saves sending it
        # twice.
        with suppress(Exception):
            self.confirms.wait(LAST_ANSWERS)


class _Confirms:
    """Counts what is published on a channel, and what RabbitMQ confirmed of it.

    RabbitMQ numbers the messages of a channel from 1 and confirms them by number, often
    several at once. A message to an exchange that is not there closes the channel, and
    the confirms under way are lost with it; so the first message to each exchange travels
    alone.
    """

    def __init__(self, channel: Any) -> None:
        self.published = self.confirmed = 0
        self.one_by_one = False
        self._channel = channel
        self._acked: set[int] = set()
        self._exchanges: set[str] = set()
        self._refused = self._over = False
        self._most = sys.maxsize
        self._publish = channel.basic_publish
        channel.basic_publish = self._counted
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.confirm_select()

    def wait(self, seconds: float) -> None:
        """Wait until everything published is confirmed.

        Raises:
            OSError: no answer within `seconds`.
        """
        end = time.monotonic() + seconds
        while self.confirmed < self.published:
            if self._over:
                raise OSError("RabbitMQ will not confirm what was published before the error")
            try:
                self._channel.connection.drain_events(timeout=max(0.0, end - time.monotonic()))
            except Exception:
                self._over = True  # py-amqp opens a closed channel again, without confirms
                raise
            if self._refused:
                raise OSError("RabbitMQ did not accept a message (basic.nack)")

    def _counted(self, message: Any, exchange: str = "", *args: Any, **kwargs: Any) -> Any:
        alone = self.one_by_one or exchange not in self._exchanges
        if alone:
            self.wait(ANSWER_TIMEOUT)
        result = self._publish(message, exchange, *args, **kwargs)
        self.published += 1
        if alone:
            self.wait(ANSWER_TIMEOUT)
            self._exchanges.add(exchange)
        return result

    def _on_ack(self, number: int, multiple: bool) -> None:
        # One ack alone may overtake another; only what is confirmed without a gap counts,
        # which RabbitMQ's order of confirms makes the usual case.
        self._acked.add(number)
        if multiple:
            self.confirmed = max(self.confirmed, number)
        while self.confirmed + 1 in self._acked:
            self._acked.remove(self.confirmed + 1)
            self.confirmed += 1
        # "All up to here" leaves out what was refused before.
        self.confirmed = min(self.confirmed, self._most)

    def _on_nack(self, number: int, multiple: bool) -> None:
        self._refused = True
        self._most = min(self._most, self.confirmed if multiple else number - 1)


def batch_of(producer: Any, *, one_by_one: bool = False) -> Batch:
    """Choose how the messages of a batch reach this producer's broker.

    Args:
        producer: what they are published on.
        one_by_one: whether publishing each is to say at once that the broker has it.
    """
    if getattr(producer, "supports_batch_publish", False):
        return Batch(producer) if one_by_one else Pipeline(producer)
    channel = producer.channel
    if hasattr(channel, "confirm_select") and not channel.connection.confirm_publish:
        return Confirmed(producer, one_by_one=one_by_one)
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
