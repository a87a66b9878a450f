"""Track RabbitMQ's publisher confirms for the messages of a channel.

RabbitMQ numbers the messages of a channel from 1. It answers by number, in any order and often
for several at once: an ack (it has the message), or a nack (a queue did not accept it). A
message that reaches no queue is first returned, and then acked.

A message or a declaration that RabbitMQ rejects closes the channel, and outstanding answers are
lost. So what may be rejected is sent alone: all earlier messages are answered first, and an error
that follows belongs to it. This applies to declarations, to the first message to each exchange and
routing key, and to all messages with properties that RabbitMQ checks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from beatstore.errors import BlockedError, NackedError, UnroutableError, UnsureError

__all__ = [
    "ANSWER_TIMEOUT",
    "CLOSING",
    "EXTENSION_S",
    "Confirms",
    "Unconfirmed",
    "loose_exchanges",
]

#: Seconds to wait for a broker that has stopped answering, unless a setting says otherwise.
ANSWER_TIMEOUT = 10.0

#: How long a claim is extended, in seconds; it is extended again after half of that.
EXTENSION_S = 60.0

#: Properties that RabbitMQ passes on without checking their values.
_CARRIED = frozenset(
    {
        "application_headers",
        "content_encoding",
        "content_type",
        "correlation_id",
        "message_id",
        "priority",
        "reply_to",
        "timestamp",
        "type",
    }
)

#: The methods of a channel that declare something, for which RabbitMQ may close it.
_DECLARING = ("exchange_declare", "queue_declare", "queue_bind")

#: Headers with additional routing keys, which RabbitMQ checks.
_ROUTING = frozenset({"CC", "BCC"})

#: AMQP's codes with which RabbitMQ closes the connection because of one message: its headers do
#: not fit into a frame, or it asks for something that RabbitMQ does not have.
CLOSING = frozenset({501, 540})

#: The largest message expiration that RabbitMQ accepts, in milliseconds: ten years.
_LONGEST = 315_360_000_000

#: Exchange types that route a message to matching queues, or to none.
_ROUTED = frozenset({"direct", "topic", "headers"})

#: A message size in bytes that every RabbitMQ accepts; its limit is configurable.
_LARGE = 1_000_000

#: How many characters of headers fit into a frame of 128 kB, the usual one, whatever they are.
_LARGE_HEADERS = 25_000


#: What was sent, and is not confirmed yet.
Sent = TypeVar("Sent")


class Confirms:
    """The confirms for the messages published on one py-amqp channel.

    Args:
        channel: the channel; its `basic_publish` is replaced by one that counts.
        loose: names of exchanges that may have no queue. A message to any other exchange that
            reaches no queue is returned.
    """

    def __init__(self, channel: Any, loose: Set[str]) -> None:
        self.published = 0
        self.one_by_one = False
        #: Messages without an answer: the task id by number, in the order of the numbers.
        self.open: dict[int, str | None] = {}
        #: Messages that RabbitMQ does not have: the error by number.
        self.refused: dict[int, Exception] = {}
        #: The numbers of messages that an `Unconfirmed` holds.
        self.held: Set[int] = frozenset()
        #: The error with which RabbitMQ closed the channel for a message that was sent alone.
        self.refusal: Exception | None = None
        self._channel = channel
        self._channel_errors: tuple[type[Exception], ...] = channel.connection.channel_errors
        self._loose = loose
        self._known: set[tuple[str, str]] = set()
        self._over = self._blocked = False
        channel.connection.on_blocked = self._on_blocked
        channel.connection.on_unblocked = self._on_unblocked
        self._publish, self._revive = channel.basic_publish, channel._do_revive
        channel.basic_publish, channel._do_revive = self._counted, self._on_closed
        for name in _DECLARING:
            setattr(channel, name, partial(self._declared, getattr(channel, name)))
        self._receivers: dict[str, Callable[..., None]] = {
            "basic_ack": self._on_ack,
            "basic_nack": self._on_nack,
            "basic_return": self._on_return,
        }
        for name, receiver in self._receivers.items():
            channel.events[name].add(receiver)
        channel.confirm_select()

    def forget_refusals(self) -> None:
        """Forget the refusals of earlier batches, except of messages that are still held."""
        self.refused = {number: self.refused[number] for number in self.held & self.refused.keys()}

    def fate(self, numbers: range) -> Exception | None:
        """Return the fate of the messages of one entry; see `beatstore.beat.batches`."""
        for number in numbers:
            if number in self.refused:
                return self.refused[number]
        if any(number in self.open for number in numbers):
            return UnsureError("RabbitMQ did not confirm it")
        return None

    def check(self) -> None:
        """Raise if RabbitMQ accepts no messages for now.

        Raises:
            BlockedError: a memory or disk alarm is on.
        """
        if self._blocked:
            raise BlockedError(
                "RabbitMQ accepts no messages for now (connection.blocked): it raised an alarm "
                "about its memory or its disk"
            )

    def poll(self) -> None:
        """Process the answers that have arrived.

        Raises:
            OSError: RabbitMQ has closed the channel, so some answers will not come.
            Exception: what py-amqp raises for a closed channel or connection.
        """
        with suppress(TimeoutError):
            while self.open or self._blocked:
                self._channel.connection.drain_events(timeout=0.001)
        if self.open:  # py-amqp raises only a timeout if it can't open a closed channel in time
            self._check_over()

    def wait(self, seconds: float) -> None:
        """Wait until everything published is answered.

        Raises:
            BlockedError: an alarm is on, and RabbitMQ answers only after it.
            OSError: no answer within `seconds`.
            Exception: what py-amqp raises for a closed channel or connection.
        """
        end = time.monotonic() + seconds
        while self.open:
            self.check()
            self._check_over()
            try:
                self._channel.connection.drain_events(timeout=max(0.0, end - time.monotonic()))
            except Exception:
                self._over = True  # py-amqp opens a closed channel again, without confirms
                raise

    def _check_over(self) -> None:
        if self._over or self._channel.connection is None:
            raise OSError("RabbitMQ will not confirm what was published before the error")

    def _counted(
        self,
        message: Any,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        task_id = message.properties.get("correlation_id")
        # Celery's events often have no listener; only tasks have this property.
        mandatory = mandatory or (task_id is not None and exchange not in self._loose)
        target = (exchange, routing_key if exchange else "")
        alone = self.one_by_one or target not in self._known or _is_checked(message)
        alone = alone or bool(kwargs.get("immediate"))
        if alone and not self._blocked:
            with suppress(BlockedError):  # as in `_wait_alone`
                self.wait(ANSWER_TIMEOUT)
        result = self._publish(message, exchange, routing_key, mandatory, *args, **kwargs)
        self.published += 1
        self.open[self.published] = task_id
        if alone:
            self._wait_alone(target)
        return result

    def _wait_alone(self, target: tuple[str, str]) -> None:
        try:
            self.wait(ANSWER_TIMEOUT)
        except BlockedError:
            return  # send the rest of the group too, so that all of it arrives, or nothing
        except Exception as error:
            closed = isinstance(error, self._channel_errors)
            if closed or getattr(error, "code", None) in CLOSING:
                self.refusal = error
            raise
        self._known.add(target)

    def _declared(self, declare: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Declare an exchange, a queue or a binding; RabbitMQ may close the channel for it."""
        self.check()
        if not self._over:
            self.wait(ANSWER_TIMEOUT)
        return declare(*args, **kwargs)

    def _on_closed(self) -> None:
        """Let go of a channel that RabbitMQ has closed; py-amqp opens it again, unconfirmed."""
        self._over = True
        for name in ("basic_publish", "_do_revive", "beatstore_confirms", *_DECLARING):
            vars(self._channel).pop(name, None)
        for name, receiver in self._receivers.items():
            self._channel.events[name].discard(receiver)
        self._revive()

    def _on_blocked(self, *_: object) -> None:
        self._blocked = True

    def _on_unblocked(self, *_: object) -> None:
        self._blocked = False

    def _on_ack(self, number: int, multiple: bool) -> None:
        for answered in self._answered(number, multiple):
            self.open.pop(answered, None)

    def _on_nack(self, number: int, multiple: bool) -> None:
        for answered in self._answered(number, multiple):
            if self.open.pop(answered, None) is None:
                continue  # an event of Celery's, which is no message of a run
            self.refused[answered] = NackedError(
                "RabbitMQ did not accept the message (basic.nack): its queue is full, with "
                "the overflow policy reject-publish, or could not store it"
            )

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        """Note that a message was returned; its ack follows."""
        task_id = message.properties.get("correlation_id")
        for number, sent_id in self.open.items():
            if sent_id == task_id and number not in self.refused:
                self.refused[number] = UnroutableError(
                    f"exchange {exchange!r} has no queue for routing key {routing_key!r}; bind "
                    "a queue to it, or correct the entry's exchange, routing_key or queue"
                )
                return

    def _answered(self, number: int, multiple: bool) -> list[int]:
        if not multiple:
            return [number] if number in self.open else []
        # They are in order, and mostly all are answered.
        answered = []
        for open_number in self.open:
            if open_number > number:
                break
            answered.append(open_number)
        return answered


class Unconfirmed(Generic[Sent]):
    """Messages that were sent during RabbitMQ's alarm, and are not confirmed yet.

    During an alarm, RabbitMQ stops reading from a connection that publishes. After the alarm it
    processes what was written, even if the connection was closed meanwhile. So these messages
    are neither lost nor accepted, and sending them again would duplicate them. Their claims are
    kept and extended until RabbitMQ answers or the connection breaks.

    Args:
        confirms: the confirms of the channel.
        messages: what was sent, each with the numbers of its messages.
    """

    def __init__(self, confirms: Confirms, messages: Sequence[tuple[Sent, range]]) -> None:
        self._confirms = confirms
        self._extend_at = 0.0
        self._hold(messages)

    def __len__(self) -> int:
        return len(self._messages)

    def answered(self) -> list[tuple[Sent, Exception | None]]:
        """Remove and return what RabbitMQ has answered, each with its fate.

        Raises:
            Exception: what py-amqp raises for a closed channel or connection.
        """
        self._confirms.poll()
        fates = [(sent, numbers, self._confirms.fate(numbers)) for sent, numbers in self._messages]
        self._hold(
            [(sent, numbers) for sent, numbers, fate in fates if isinstance(fate, UnsureError)]
        )
        return [(sent, fate) for sent, _, fate in fates if not isinstance(fate, UnsureError)]

    def to_extend(self) -> list[Sent]:
        """Return everything that was sent, if it is time to extend the claims."""
        if time.monotonic() < self._extend_at:
            return []
        self._extend_at = time.monotonic() + EXTENSION_S / 2
        return [sent for sent, _ in self._messages]

    def given_up(self) -> list[tuple[Sent, Exception | None]]:
        """Remove and return everything, with its fate so far: no more answers will come."""
        fates = [(sent, self._confirms.fate(numbers)) for sent, numbers in self._messages]
        self._hold([])
        return fates

    def join(self, others: Unconfirmed[Sent]) -> bool:
        """Take over what was sent during the alarm before; return False if on another channel."""
        if others._confirms is not self._confirms:
            return False
        self._hold([*others._messages, *self._messages])
        return True

    def _hold(self, messages: Sequence[tuple[Sent, range]]) -> None:
        self._messages = list(messages)
        self._confirms.held = {number for _, numbers in self._messages for number in numbers}


def _is_checked(message: Any) -> bool:
    """Return whether RabbitMQ might close the channel because of this message."""
    properties: Mapping[str, Any] = message.properties
    for name, value in properties.items():
        if name == "expiration":
            if not (str(value).isdecimal() and int(value) <= _LONGEST):
                return True
        elif name == "delivery_mode":
            if value not in (1, 2):
                return True
        elif name == "reply_to" and str(value).startswith("amq."):
            return True  # direct reply-to, which needs a consumer on the same channel
        elif name not in _CARRIED and value is not None:
            return True
    headers = properties.get("application_headers") or {}
    if _length(headers) > _LARGE_HEADERS or len(message.body or b"") > _LARGE:
        return True
    return not _ROUTING.isdisjoint(headers)


def _length(headers: Mapping[str, Any]) -> int:
    """Return how many characters headers have, about; most of them are short texts."""
    return sum(
        len(name) + len(value if type(value) is str else repr(value))
        for name, value in headers.items()
    )


def loose_exchanges(app: Any) -> Set[str]:
    """Return the names of an app's exchanges that may return a message without an error.

    A fanout exchange has one queue for each listener, and there may be none. Exchange types of
    plugins return messages that they deliver later.
    """
    names = {"amq.fanout"}
    with suppress(Exception):  # of a setting that Celery can't read: each message tells it
        names.update(_loose(app))
    return names


def _loose(app: Any) -> Iterator[str]:
    for queue in app.amqp.queues.values():
        if queue.exchange is not None and queue.exchange.type not in _ROUTED:
            yield queue.exchange.name
    for route in app.amqp.routes:
        for options in getattr(route, "map", {}).values():
            given = options if isinstance(options, Mapping) else {}
            if given.get("exchange_type", "direct") not in _ROUTED:
                yield str(given.get("exchange"))
