"""An app whose calls beyond an hour are kept in the database, and a worker for them in a word."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

from celery import Celery, chain, chord, group
from celery.worker.request import Request

from beatstore import ManualClock, Store
from beatstore.beat.scheduler import DBScheduler
from tests.support.brokers import Broker, Message
from tests.support.harness.inprocess import NOWHERE, new_app, tick_until_idle

__all__ = [
    "FAR",
    "HOUR",
    "NOON",
    "at",
    "canvases",
    "claim_of",
    "ids_in",
    "lose_database",
    "make_app",
    "request_of",
    "stamped",
    "task",
    "work",
]

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
FAR = datetime(2525, 11, 11, 9, 30, tzinfo=UTC)
HOUR = 3600.0


def make_app(broker: Broker, url: str, **settings: Any) -> Celery:
    """Return an app whose tasks are beatstore's, and which calls an hour far."""
    app = new_app(broker, url, result_expires=None, **settings)
    app.task_cls = "beatstore:Task"

    @app.task(name="far.add", shared=False)
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name="far.total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="far.again", shared=False, bind=True, max_retries=9)
    def again(self: Any, /, **how: Any) -> None:
        raise self.retry(**how)

    return app


def at(scheduler: DBScheduler, broker: Broker, when: datetime) -> list[Message]:
    """Move the clock, tick until nothing is due, and take what is in the queue."""
    clock = scheduler.store.database.clock
    assert isinstance(clock, ManualClock)
    clock.set(when)
    tick_until_idle(scheduler)
    return broker.drain()


def task(app: Celery, name: str = "add") -> Any:
    """Return a task of the app."""
    return app.tasks[f"far.{name}"]


class _Raw:
    """A message as a worker's request takes it."""

    content_type = content_encoding = None

    def __init__(self, message: Message) -> None:
        self.headers, self.properties = message.headers, message.properties
        self.delivery_info = message.properties["delivery_info"]
        self.body = self.payload = (message.args, message.kwargs, message.embed)


def request_of(app: Celery, message: Message) -> Any:
    """Return what a worker makes of a message."""
    return Request(_Raw(message), app=app)


def work(app: Celery, broker: Broker) -> list[Message]:
    """Run what is in the queue as a worker does, until it is empty; return it."""
    done: list[Message] = []
    while messages := broker.drain():
        for message in messages:
            request_of(app, message).execute()
        done += messages
    return done


def lose_database(store: Store) -> None:
    """Let the store look for its database where there is none."""
    nowhere = Store(NOWHERE).database
    store.database = nowhere


def claim_of(message: Message) -> Any:
    """Return as much of a claim as a report on its run needs."""
    headers = message.headers
    ids = {"run_id": headers["beatstore_run_id"], "task_id": headers["beatstore_task_id"]}
    return SimpleNamespace(**ids)


def ids_in(messages: list[Message]) -> set[str]:
    """Return the ids of tasks, groups and chords in messages."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            options = value.get("options") if "task" in value else None
            for name in ("task_id", "group_id"):
                if isinstance(options, dict) and options.get(name):
                    found.add(options[name])
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)):
                walk(item)

    for message in messages:
        found |= {message.id, message.headers["group"]} - {None}
        walk(message.embed)
    return found


def stamped(app: Celery) -> Any:
    """Return a signature with a stamp, and a callback that has it too."""
    signature = task(app).s(1).set(link=task(app).s(2))
    signature.stamp(order="A1")
    return signature


def canvases(app: Celery) -> dict[str, Any]:
    """Return a canvas of each kind."""
    add, total = task(app), task(app, "total")
    return {
        "chain": chain(add.s(1), add.s(2)),
        "group": group(add.s(1), add.s(2)),
        "chord": chord([add.s(1), add.s(2)], total.s()),
        "group in a chain": add.s(1) | group(add.s(1), add.s(2)),
        "chord in a group": group(chord([add.s(1)], total.s()), add.s(2)),
        "chain in a chord": chord([add.s(1) | add.s(2)], total.s() | add.s(3)),
        "map": add.map([1, 2]),
        "chunks": add.chunks([(1, 2), (3, 4)], 2),
    }
