"""Fixtures of the tests of far-future tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from beatstore import ManualClock
from tests.support.brokers import Broker
from tests.support.far import HOUR, make_app, task
from tests.support.harness.inprocess import keeping


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str, clock: ManualClock) -> Iterator[Celery]:
    """Return the app; its store reads the test's clock, which stands at noon."""
    app = make_app(
        memory_broker, migrated_url, beatstore_eta_threshold=HOUR, beatstore_listen=False
    )
    with keeping(app, clock):
        yield app


@pytest.fixture
def inner(app: Celery) -> dict[str, Any]:
    """Return the arguments that `far.call`, a task that calls `far.add`, calls it with."""
    given: dict[str, Any] = {"countdown": HOUR * 2}

    @app.task(name="far.call", shared=False, bind=True)
    def call(self: Any) -> Any:
        result = task(app).apply_async((1,), **given)
        return [result.id, [child.id for child in self.request.children]]

    app.conf.result_backend = "cache+memory://"
    return given
