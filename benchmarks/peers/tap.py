"""What lies in the queue of a broker: counted without a touch, or taken."""

from __future__ import annotations

import base64
import json
import time
from abc import ABC, abstractmethod
from typing import Any

import kombu
import redis

from tests.support.brokers import Broker

__all__ = ["Tap", "number_in", "tap_of"]

#: Messages that are taken at once.
_PAGE = 1_000


class Tap(ABC):
    """A connection to one queue, which it makes."""

    @abstractmethod
    def count(self) -> int:
        """Return how many messages wait."""

    @abstractmethod
    def _take(self) -> list[Any]:
        """Take messages, and return their bodies decoded: args, kwargs and the rest."""

    @abstractmethod
    def purge(self) -> None:
        """Throw all messages away."""

    @abstractmethod
    def close(self) -> None:
        """Remove the queue, and close the connection."""

    def take(self) -> list[tuple[float, int]]:
        """Take what waits; return for each message the time it was taken at and its number."""
        bodies = self._take()
        now = time.time()
        return [(now, number_in(body)) for body in bodies]


def number_in(body: Any) -> int:
    """Return the number of an entry, by the body of its message."""
    args = body[0]
    return int(args[0]) if args else -1


class _Redis(Tap):
    def __init__(self, broker: Broker) -> None:
        self._client = redis.Redis.from_url(broker.url)
        self._queue = broker.queue

    def count(self) -> int:
        return int(self._client.llen(self._queue))  # type: ignore[arg-type]

    def _take(self) -> list[Any]:
        found: Any = self._client.rpop(self._queue, _PAGE) or []
        return [json.loads(base64.b64decode(json.loads(one)["body"])) for one in found]

    def purge(self) -> None:
        self._client.delete(self._queue)

    def close(self) -> None:
        self.purge()
        self._client.close()


class _RabbitMQ(Tap):
    def __init__(self, broker: Broker) -> None:
        self._connection = kombu.Connection(broker.url)
        self._channel: Any = self._connection.channel()
        exchange = kombu.Exchange(broker.queue, type="direct")
        queue = kombu.Queue(broker.queue, exchange, routing_key=broker.queue)
        queue(self._channel).declare()
        self._queue = broker.queue

    def count(self) -> int:
        return int(self._channel.queue_declare(self._queue, passive=True).message_count)

    def _take(self) -> list[Any]:
        found: list[Any] = []
        while len(found) < _PAGE:
            message = self._channel.basic_get(self._queue, no_ack=True)
            if message is None:
                break
            found.append(json.loads(message.body))
        return found

    def purge(self) -> None:
        self._channel.queue_purge(self._queue)

    def close(self) -> None:
        self._channel.queue_delete(self._queue)
        self._channel.exchange_delete(self._queue)
        self._connection.release()


def tap_of(broker: Broker) -> Tap:
    """Open a broker's queue."""
    return _Redis(broker) if broker.name == "redis" else _RabbitMQ(broker)
