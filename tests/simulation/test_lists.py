"""The Redis of the simulator answers real kombu as Redis does, and breaks as it can."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery

from beatstore.beat.ladder import Push
from beatstore.headers import ATTEMPT, DUE_AT, RUN_ID
from tests.simulation.broker import Broker
from tests.simulation.kernel import Kernel, Process
from tests.simulation.lists import lists_of


@pytest.fixture
def broker() -> Iterator[Broker]:
    """Return a broker to which connections to Redis lead."""
    made = Broker(chance=random.Random(7))
    with lists_of(made):
        yield made


@pytest.fixture
def app() -> Celery:
    """Return an app whose broker is Redis."""
    return Celery("sim", broker="redis://127.0.0.1", set_as_current=False)


def published(app: Celery, numbers: list[int], *orders: str) -> list[Exception]:
    """Publish messages in a pipeline, in a process that goes on as it is told.

    Those with an even number have a higher priority, and so another queue.

    Returns:
        The error that it met, if it met one.
    """
    errors: list[Exception] = []

    def work() -> None:
        producer: Any = app.amqp.Producer(app.connection_for_write(), auto_declare=False)
        try:
            with producer.batch(max_size=1_000):
                for number in numbers:
                    given = {RUN_ID: number, DUE_AT: "12:00", ATTEMPT: 1, "id": f"id-{number}"}
                    named = {"task": "t", "periodic_task_name": "a", "expires": None}
                    asked = {"routing_key": "q", "priority": 6 * (number % 2 == 0)}
                    producer.publish([], headers=given | named, retry=False, **asked)
        except Exception as error:  # noqa: BLE001  (what it is the test looks at)
            errors.append(error)

    process = Process(Kernel(lambda: 0.0), "beat-1")
    process.begin(work)
    for order in orders:
        process.go(order)
    while not process.idle:
        process.go()
    assert process.error is None
    return errors


def taken(broker: Broker) -> list[int]:
    """Return the runs whose messages the broker has, in their order."""
    return [message.run_id for message in broker.queue]


def test_a_pipeline_arrives_in_order(app: Celery, broker: Broker) -> None:
    """What kombu writes in one pipeline is there, in its order."""
    assert published(app, [1, 2, 3]) == []
    assert taken(broker) == [1, 2, 3]


def test_a_refused_queue_gets_nothing(app: Celery, broker: Broker) -> None:
    """The error says what Redis has against it; the messages to the other queue are there."""
    seen = set()
    for _ in range(30):
        broker.queue.clear()
        [error] = published(app, [1, 2, 3], "refuse")
        assert "WRONGTYPE" in str(error) + str(error.__cause__)
        seen.add(tuple(taken(broker)))
    assert seen == {(1, 3), (2,)}


def test_a_connection_that_is_cut_before_leaves_nothing(app: Celery, broker: Broker) -> None:
    """Nothing has arrived, and the next connection works."""
    assert len(published(app, [1, 2], "cut")) == 1
    assert taken(broker) == []
    assert published(app, [3]) == []
    assert taken(broker) == [3]


def test_a_pipeline_that_is_lost_has_arrived_as_far_as_it_came(app: Celery, broker: Broker) -> None:
    """No answer comes, and what was read before the connection broke was done."""
    seen = set()
    for _ in range(30):
        broker.queue.clear()
        assert len(published(app, [1, 2, 3], "lost")) == 1
        seen.add(tuple(taken(broker)))
    assert seen == {(), (1,), (1, 2), (1, 2, 3)}


def test_nobody_reaches_a_broker_that_is_down(app: Celery, broker: Broker) -> None:
    """Neither a new connection nor one that was open gets an answer."""
    broker.up = False
    assert len(published(app, [1])) == 1
    assert taken(broker) == []


def test_what_was_answered_before_the_connection_broke_is_known(
    app: Celery, broker: Broker
) -> None:
    """Of two lists, the first may have been answered: that is not thrown away."""
    seen = set()
    batch: Any = None

    def work() -> None:
        nonlocal batch
        producer: Any = app.amqp.Producer(app.connection_for_write(), auto_declare=False)
        batch = Push(producer)
        given = {RUN_ID: 1, DUE_AT: "12:00", ATTEMPT: 1, "id": "id", "task": "t"}
        text = json.dumps({"headers": given | {"periodic_task_name": "a", "expires": None}})
        with suppress(Exception), batch:
            for queue in ("one", "two"):
                batch.put((queue, text))
                batch.mark()

    for _ in range(30):
        broker.queue.clear()
        process = Process(Kernel(lambda: 0.0), "beat-1")
        process.begin(work)
        process.go("lost")
        assert process.idle
        known = [fate is None for fate in batch.fates()]
        assert len(broker.queue) >= sum(known)
        seen.add((len(broker.queue), *known))
    assert (2, True, False) in seen
    assert (2, False, False) in seen
