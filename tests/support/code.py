"""A beat that imports what an app's code declares when it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery

from beatstore import ManualClock, Store
from beatstore.beat.scheduler import DBScheduler
from tests.support.brokers import Broker
from tests.support.harness.inprocess import running, tick_until_idle

__all__ = ["beat", "sent"]


@contextmanager
def beat(app: Celery, clock: ManualClock) -> Iterator[DBScheduler]:
    """Start a beat whose database stands at the clock's time, from its start on."""
    app.conf.beatstore_listen = False
    original = Store.from_app

    def at_clock(of: Any) -> Store:
        store = original(of)
        store.database.clock = clock
        return store

    patch = pytest.MonkeyPatch()
    patch.setattr(Store, "from_app", at_clock)
    try:
        with running(app) as scheduler:
            yield scheduler
    finally:
        patch.undo()


def sent(scheduler: DBScheduler, broker: Broker) -> dict[str, tuple[Any, Any]]:
    """Tick until nothing is due, and return what was sent by entry: args and kwargs."""
    tick_until_idle(scheduler)
    found: dict[str, tuple[Any, Any]] = {}
    for message in broker.drain():
        found[message.headers["beatstore_entry"]] = (message.args, message.kwargs)
    return found
