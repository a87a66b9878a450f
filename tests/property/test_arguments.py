"""Any nesting of values that kombu's JSON carries: an entry sends what `apply_async` sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from beatstore import Declared, ManualClock, Once, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.store.shared import store_of
from tests.support.brokers import Broker
from tests.support.carried import bodies, nested
from tests.support.harness.inprocess import keeping, new_app, tick_until_idle
from tests.support.hostile import examples

pytestmark = pytest.mark.quick_on("sqlite")

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)

ARGUMENTS = (
    st.lists(nested(), max_size=3),
    st.dictionaries(st.text("abcd_", min_size=1, max_size=3), nested(), max_size=3),
)

ways = pytest.mark.parametrize("way", ["entry", "far call", "sync", "load"])

#: One quick database for all cases; on the others a smoke test is enough.
CASES = {"sqlite": 60, "postgresql": 15, "mariadb": 15}


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str, clock: ManualClock) -> Iterator[Celery]:
    """Return an app with one task, and the test's clock."""
    app = new_app(memory_broker, migrated_url, beatstore_listen=False, result_expires=None)
    app.task_cls = "beatstore:Task"

    def take(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    app.task(take, name="tests.take", shared=False)
    with keeping(app, clock):
        yield app


def keep(app: Celery, way: str, args: list[Any], kwargs: dict[str, Any]) -> str:
    """Store a call in some way, due by now, and return its entry's name."""
    store: Store = store_of(app)
    task: Any = app.tasks["tests.take"]
    if way == "far call":
        return str(task.schedule(args, kwargs, eta=NOON).id)
    if way == "sync":
        declared = Declared("a", "tests.take", Once(NOON), args=args, kwargs=kwargs)
        assert not store.sync([declared], source="code").refused
        assert store.sync([declared], source="code").unchanged == ("a",)
        return "a"
    made = store.put("a", "tests.take", Once(NOON), args=args, kwargs=kwargs)
    assert (
        store.put("a", "tests.take", Once(NOON), args=args, kwargs=kwargs).version == made.version
    )
    if way == "load":
        lines = [json.dumps(one, allow_nan=False) for one in store.export()]
        store.remove("a")
        store.load(lines)
    return "a"


@ways
def test_a_worker_gets_the_same_bytes(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker, backend: str, way: str
) -> None:
    """The body of the message is the same, byte by byte, whatever is nested in it."""

    @examples(CASES[backend])
    @given(*ARGUMENTS)
    def try_it(args: list[Any], kwargs: dict[str, Any]) -> None:
        app.tasks["tests.take"].apply_async(args, kwargs)
        wanted = bodies(memory_broker)
        name = keep(app, way, args, kwargs)
        tick_until_idle(scheduler)
        assert bodies(memory_broker) == wanted
        store_of(app).remove(name)

    try_it()
