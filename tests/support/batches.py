"""Batches of claims, what arrives of them, and a task that locks itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Task
from celery.signals import before_task_publish
from kombu.messaging import Producer

from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import BrokerError
from beatstore.tick.claims import Claim, Outcome
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send_into
from tests.support.proxy import Proxy

__all__ = [
    "AlreadyQueued",
    "NewScheduler",
    "arrived",
    "count_pipelines",
    "locking",
    "lose_the_broker",
    "new_claims",
    "once",
    "states",
    "through",
    "with_pipelines",
]

NewScheduler = Callable[..., DBScheduler]

with_pipelines = pytest.mark.skipif(
    not hasattr(Producer, "supports_batch_publish"), reason="kombu before 5.7 has no batches"
)


def count_pipelines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each pipeline of redis-py adds how many commands it has sent."""
    sizes: list[int] = []
    execute = redis.client.Pipeline.execute

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(self))
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(redis.client.Pipeline, "execute", counted)
    return sizes


def new_claims(count: int) -> list[Claim]:
    """Return claims of as many entries."""
    return [new_claim() for _ in range(count)]


def arrived(broker: Broker, queue: str | None = None) -> Counter[str]:
    """Take all messages, and count them by task id."""
    return Counter(message.id for message in broker.drain(queue))


def once(claims: list[Claim]) -> Counter[str]:
    """Return what has arrived when each of these was sent once."""
    return Counter(claim.task_id for claim in claims)


def states(outcomes: list[Outcome], claims: list[Claim]) -> list[str]:
    """Return the states in the order of the claims, each of which must have one outcome."""
    found = {outcome.claim.run_id: outcome.state for outcome in outcomes}
    assert len(found) == len(outcomes) == len(claims)
    return [found[claim.run_id] for claim in claims]


class AlreadyQueued(Exception):  # noqa: N818  (celery-once calls it so)
    """What celery-once raises."""


def locking(scheduler: DBScheduler) -> str:
    """Register a task that takes a lock when it is sent; return its name.

    As celery-once and celery-singleton do: the lock is there until the task has run.
    """
    locks: dict[str, str] = {}

    class Once(Task):  # type: ignore[type-arg]
        def apply_async(  # type: ignore[override]
            self, args: Any = None, kwargs: Any = None, task_id: Any = None, **options: Any
        ) -> Any:
            key = repr(args)
            if key in locks:
                raise AlreadyQueued(locks[key])
            locks[key] = task_id
            try:
                return super().apply_async(args, kwargs, task_id=task_id, **options)
            except Exception:
                del locks[key]
                raise

    @scheduler.app.task(name="tests.once", base=Once, shared=False)
    def task(*args: Any) -> None:
        """Do nothing."""

    return "tests.once"


def through(relay: Proxy, broker: Broker) -> Broker:
    """Return the same broker, reached through a relay."""
    parts = urlsplit(broker.url)
    host = f"{parts.username}:{parts.password}@127.0.0.1:{relay.port}"
    return replace(broker, url=parts._replace(netloc=host).geturl())


def lose_the_broker(scheduler: DBScheduler, relay: Proxy) -> tuple[list[Claim], list[Outcome]]:
    """Send five claims of a task that locks itself; from the third on there is no broker.

    Returns:
        The claims, and the outcomes that were known when the broker went away.
    """
    task = locking(scheduler)
    claims = [new_claim(task, args=[n]) for n in range(5)]

    def cut(headers: dict[str, Any], **_: Any) -> None:
        if headers["id"] == claims[2].task_id:
            relay.refuse = True
            relay.cut()

    known: list[Outcome] = []
    before_task_publish.connect(cut)
    try:
        with pytest.raises(BrokerError):
            send_into(known, scheduler, claims)
    finally:
        before_task_publish.disconnect(cut)
    relay.refuse = False
    return claims, known
