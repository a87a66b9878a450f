"""Whatever stands in `beat_schedule`, beat starts, and what is right beside it is stored."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery, chain
from celery.beat import BeatLazyFunc
from celery.schedules import BaseSchedule, schedule

from beatstore import Store
from beatstore.discovery.modules import import_code, log
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app
from tests.support.marks import on_sqlite

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


class Unspeakable:
    """An object that has no words for itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


ODD = {
    **{"none": None, "empty": "", "number": 7, "negative": -1, "nan": math.nan, "true": True},
    **{"bytes": b"x", "zero byte": "\0", "surrogate": "\ud800", "long": "x" * 300},
    **{"list": [1], "dict": {1: 2}, "set": {1}, "object": object(), "class": Unspeakable},
    **{"unspeakable": Unspeakable(), "deep": nested(5000), "huge": 10**400},
    **{"naive": NOON.replace(tzinfo=None), "last": datetime.max.replace(tzinfo=UTC)},
    **{"longest": timedelta.max, "backwards": timedelta(-1), "function": lambda: 1},
    **{"chain": chain(), "no interval": schedule(None), "no schedule": BaseSchedule()},
    **{"lazy": BeatLazyFunc(lambda: 1), "app": Celery("x", set_as_current=False)},
}


@on_sqlite
@pytest.mark.parametrize("key", ["name", "task", "schedule", "args", "kwargs", "options", "entry"])
def test_anything_in_the_code_is_stored_or_refused(
    memory_broker: Broker, migrated_url: str, key: str
) -> None:
    """Each odd value, in each place, is one entry that is stored or refused, and no more."""
    app = new_app(memory_broker, migrated_url, result_expires=None)
    store = Store.from_app(app)
    for kind, odd in ODD.items():
        entry: Any = {"task": "t", "schedule": 60}
        name: Any = "odd"
        if key == "entry":
            entry = odd
        elif key != "name":
            entry[key] = odd
        elif type(odd).__hash__ is not None:
            name = odd
        app.conf.beat_schedule = {name: entry, "good": {"task": "t", "schedule": 60}}
        (report,) = import_code(store, app)
        log([report])
        told = {*report.created, *report.updated, *report.unchanged, *report.refused}
        assert "good" in told - report.refused.keys(), kind
        assert len(told) == 2, kind
    store.close()
    app.close()
