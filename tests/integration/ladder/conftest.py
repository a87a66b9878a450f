"""Fixtures of the tests of the send ladder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from beatstore.beat.scheduler import DBScheduler
from tests.support.batches import with_pipelines
from tests.support.brokers import Broker
from tests.support.harness.inprocess import note_app, running


@pytest.fixture(params=[pytest.param("redis", marks=with_pipelines), "rabbitmq"])
def fast_broker(request: pytest.FixtureRequest) -> Broker:
    """Hand out each of the brokers that messages from templates go to."""
    broker: Broker = request.getfixturevalue(f"{request.param}_broker")
    return broker


@pytest.fixture
def scheduler_on() -> Iterator[Callable[..., DBScheduler]]:
    """Return a function that makes a scheduler on a broker; `prepare` is given its app."""
    with ExitStack() as stack:

        def new(broker: Broker, prepare: Any = None, **settings: Any) -> DBScheduler:
            app = note_app(broker, **settings)
            if prepare is not None:
                prepare(app)
            return stack.enter_context(running(app, lazy=True))

        yield new
