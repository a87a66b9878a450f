"""What RabbitMQ did with each message of a channel, by publisher confirms.

RabbitMQ numbers the messages of a channel from 1, and answers by number, in any order and
often for several at once: an ack (it has the message), or a nack (a queue did not accept
it). A message that no queue would get is returned first, and acked then.

A message that RabbitMQ will not have closes the channel, and the answers under way are lost
with it. So a message that may do this travels alone: what was published before it is
answered for by then, and an error that follows is the answer to it. These are the first
message to each exchange and routing key, and all messages with properties that RabbitMQ
checks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any, Generic, TypeVar

__all__ = [
    "ANSWER_TIMEOUT",
    "HOLD_S",
    "NOT_IMPLEMENTED",
    "BlockedError",
    "Confirms",
    "Held",
    "NackedError",
    "UnroutableError",
    "UnsureError",
    "loose_exchanges",
]

#: Seconds to wait for a broker that has stopped answering, where no setting says so.
ANSWER_TIMEOUT = 10.0

#: For how long a claim is prolonged, in seconds; it is done again in half of that.
HOLD_S = 60.0

#: What RabbitMQ only carries, whatever the value.
_CARRIED = frozenset(
    {
        "application_headers",
        "content_encoding",
        "content_type",
        "correlation_id",
        "delivery_mode",
        "message_id",
        "priority",
        "reply_to",
        "timestamp",
        "type",
    }
)

#: Headers that say where else to route a message, and are checked.
_ROUTING = frozenset({"CC", "BCC"})

#: AMQP's code for what RabbitMQ can't do; it closes the connection for it.
NOT_IMPLEMENTED = 540

#: Milliseconds until a message expires that RabbitMQ takes: up to ten years.
_LONGEST = 315_360_000_000

#: Exchange types that pass a message on to the queues that want it, or to none.
_ROUTED = frozenset({"direct", "topic", "headers"})

#: Bytes of a message that every RabbitMQ takes; its limit is a setting.
_LARGE = 1_000_000


#: What was sent, and is held up.
Sent = TypeVar("Sent")


class BlockedError(Exception):
    """RabbitMQ takes no messages from anybody; what it was given it keeps for later."""


class UnsureError(Exception):
    """Nobody can say whether the broker has the message."""


class NackedError(Exception):
    """RabbitMQ did not accept the message, by a policy of its queue or for want of a disk."""


class UnroutableError(Exception):
    """RabbitMQ has the exchange, but no queue there would get the message."""


class Confirms:
    """The answers to what is published on one channel of py-amqp's.

    Args:
        channel: whose `basic_publish` is replaced by one that counts.
        loose: names of exchanges that may well have no queue. A message to any other that
            no queue gets is returned.
    """

    def __init__(self, channel: Any, loose: Set[str]) -> None:
        self.published = 0
        self.one_by_one = False
        #: What has no answer yet: the task id by number, in the order of the numbers.
        self.open: dict[int, str | None] = {}
        #: What RabbitMQ does not have, and why, by number.
        self.refused: dict[int, Exception] = {}
        #: What RabbitMQ answered to a message that travelled alone, by closing the channel.
        self.refusal: Exception | None = None
        self._channel = channel
        self._channel_errors: tuple[type[Exception], ...] = channel.connection.channel_errors
        self._loose = loose
        self._known: set[tuple[str, str]] = set()
        self._over = self._blocked = False
        channel.connection.on_blocked = self._on_blocked
        channel.connection.on_unblocked = self._on_unblocked
        self._publish = channel.basic_publish
        channel.basic_publish = self._counted
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        channel.confirm_select()

    def fate(self, numbers: range) -> Exception | None:
        """Say what RabbitMQ did with the messages of one entry; see `beatstore.beat.batches`."""
        for number in numbers:
            if number in self.refused:
                return self.refused[number]
        if any(number in self.open for number in numbers):
            return UnsureError("RabbitMQ did not confirm it")
        return None

    def check(self) -> None:
        """Raise if RabbitMQ takes no messages for now.

        Raises:
            BlockedError: an alarm is on, of its memory or its disk.
        """
        if self._blocked:
            raise BlockedError(
                "RabbitMQ accepts no messages for now (connection.blocked): it raised an alarm "
                "about its memory or its disk"
            )

    def poll(self) -> None:
        """Take the answers that are there.

        Raises:
            Exception: what py-amqp raises for a closed channel or connection.
        """
        with suppress(TimeoutError):
            while self.open or self._blocked:
                self._channel.connection.drain_events(timeout=0.001)

    def wait(self, seconds: float) -> None:
        """Wait until everything published is answered.

        Raises:
            BlockedError: there will be no answers before an alarm is over.
            OSError: no answer within `seconds`.
            Exception: what py-amqp raises for a closed channel or connection.
        """
        end = time.monotonic() + seconds
        while self.open:
            self.check()
            if self._over or self._channel.connection is None:
                raise OSError("RabbitMQ will not confirm what was published before the error")
            try:
                self._channel.connection.drain_events(timeout=max(0.0, end - time.monotonic()))
            except Exception:
                self._over = True  # py-amqp opens a closed channel again, without confirms
                raise

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
        # Events of celery's go where often nobody listens; only tasks have this property.
        mandatory = mandatory or (task_id is not None and exchange not in self._loose)
        target = (exchange, routing_key if exchange else "")
        alone = self.one_by_one or target not in self._known or _is_checked(message)
        alone = alone or bool(kwargs.get("immediate"))
        if alone and not self._blocked:
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
            return  # the rest of a group goes after it, so that all of it is there, or nothing
        except Exception as error:
            closed = isinstance(error, self._channel_errors)
            if closed or getattr(error, "code", None) == NOT_IMPLEMENTED:
                self.refusal = error
            raise
        self._known.add(target)

    def _on_blocked(self, *_: object) -> None:
        self._blocked = True

    def _on_unblocked(self, *_: object) -> None:
        self._blocked = False

    def _on_ack(self, number: int, multiple: bool) -> None:
        for answered in self._answered(number, multiple):
            self.open.pop(answered, None)

    def _on_nack(self, number: int, multiple: bool) -> None:
        for answered in self._answered(number, multiple):
            self.open.pop(answered, None)
            self.refused[answered] = NackedError(
                "RabbitMQ did not accept the message (basic.nack): its queue is full, with "
                "the overflow policy reject-publish, or could not store it"
            )

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        """Take a message back; its ack follows."""
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
        # They are in order, and mostly all of them are answered.
        answered = []
        for open_number in self.open:
            if open_number > number:
                break
            answered.append(open_number)
        return answered


class Held(Generic[Sent]):
    """Messages that RabbitMQ was given while its alarm was on, and has not answered for.

    RabbitMQ reads no more from a connection that publishes in an alarm, and takes what was
    written to it when the alarm is over, even if the connection is closed by then. So these
    messages are neither lost nor taken: sent again, they would be there twice. Their claims
    are kept, and prolonged, until RabbitMQ answers for them, or the connection breaks.

    Args:
        confirms: the answers to what was published on the connection.
        messages: what was sent, each with the numbers of its messages.
    """

    def __init__(self, confirms: Confirms, messages: Sequence[tuple[Sent, range]]) -> None:
        self._confirms = confirms
        self._messages = list(messages)
        self._prolong_at = 0.0

    def __len__(self) -> int:
        return len(self._messages)

    def answered(self) -> list[tuple[Sent, Exception | None]]:
        """Take out and return what RabbitMQ has answered for, with its fate.

        Raises:
            Exception: what py-amqp raises for a closed channel or connection.
        """
        self._confirms.poll()
        fates = [(sent, numbers, self._confirms.fate(numbers)) for sent, numbers in self._messages]
        self._messages = [
            (sent, numbers) for sent, numbers, fate in fates if isinstance(fate, UnsureError)
        ]
        return [(sent, fate) for sent, _, fate in fates if not isinstance(fate, UnsureError)]

    def to_prolong(self) -> list[Sent]:
        """Return all of it, if it is time to prolong the claims."""
        if time.monotonic() < self._prolong_at:
            return []
        self._prolong_at = time.monotonic() + HOLD_S / 2
        return [sent for sent, _ in self._messages]

    def given_up(self) -> list[Sent]:
        """Take out and return all of it: the connection broke, and nobody can say more."""
        messages, self._messages = self._messages, []
        return [sent for sent, _ in messages]


def _is_checked(message: Any) -> bool:
    """Say whether RabbitMQ might close the channel for what this message is."""
    properties: Mapping[str, Any] = message.properties
    for name, value in properties.items():
        if name == "expiration":
            if not (str(value).isdecimal() and int(value) <= _LONGEST):
                return True
        elif name == "reply_to" and str(value).startswith("amq."):
            return True  # RabbitMQ's direct replies: to a consumer on this very channel
        elif name not in _CARRIED and value is not None:
            return True
    headers = properties.get("application_headers") or {}
    return not _ROUTING.isdisjoint(headers) or len(message.body or b"") > _LARGE


def loose_exchanges(app: Any) -> Set[str]:
    """Return the names of an app's exchanges that may have no queue, or keep what they get.

    Everybody who listens has a queue at a fanout exchange, and there may be nobody; and
    exchange types of plugins return messages that they deliver later.
    """
    return {"amq.fanout", *_loose(app)}


def _loose(app: Any) -> Iterator[str]:
    for queue in app.amqp.queues.values():
        if queue.exchange is not None and queue.exchange.type not in _ROUTED:
            yield queue.exchange.name
    for route in app.amqp.routes:
        for options in getattr(route, "map", {}).values():
            given = options if isinstance(options, Mapping) else {}
            if given.get("exchange_type", "direct") not in _ROUTED:
                yield str(given.get("exchange"))
