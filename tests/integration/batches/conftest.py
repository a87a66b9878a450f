"""Fixtures of the tests of batches: schedulers on real brokers, and what is between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from beatstore.beat.scheduler import DBScheduler
from tests.support.batches import NewScheduler
from tests.support.brokers import Broker
from tests.support.harness.inprocess import note_app, running
from tests.support.proxy import Proxy


@pytest.fixture
def new_scheduler() -> Iterator[NewScheduler]:
    """Return a function that makes a lazy scheduler on a broker; its app has `tests.note`."""
    with ExitStack() as stack:

        def new(broker: Broker, **settings: Any) -> DBScheduler:
            return stack.enter_context(running(note_app(broker, **settings), lazy=True))

        yield new


@pytest.fixture
def relay(rabbitmq_broker: Broker) -> Iterator[Proxy]:
    """Return a relay to RabbitMQ."""
    with Proxy(urlsplit(rabbitmq_broker.url).port or 5672) as proxy:
        yield proxy


@pytest.fixture
def client(redis_broker: Broker) -> Iterator[redis.Redis]:
    """Return a client of the same database."""
    with redis.Redis.from_url(redis_broker.url) as client:
        yield client
