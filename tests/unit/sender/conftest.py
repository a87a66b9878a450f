"""Fixtures of the tests of the sender: a lazy scheduler, and a broker in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery

from beatstore.beat.scheduler import DBScheduler
from tests.support.brokers import Broker
from tests.support.harness.inprocess import note_app, running


@pytest.fixture
def app(memory_broker: Broker) -> Celery:
    """Return an app with the task `tests.note`, and no database."""
    return note_app(memory_broker)


@pytest.fixture
def scheduler(app: Celery) -> Iterator[DBScheduler]:
    """Return a scheduler of `app` that has read nothing and is connected to nothing."""
    with running(app, lazy=True) as scheduler:
        yield scheduler
