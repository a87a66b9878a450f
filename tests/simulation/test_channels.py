"""The RabbitMQ of the simulator answers real py-amqp as RabbitMQ does, and breaks as it can."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp import NotFound
from celery import Celery

from beatstore.beat.batches import Batch, batch_of
from beatstore.errors import BlockedError, NackedError, UnroutableError, UnsureError
from beatstore.headers import ATTEMPT, DUE_AT, RUN_ID
from tests.simulation.broker import Broker
from tests.simulation.channels import channels_of
from tests.simulation.kernel import Kernel, Process


@pytest.fixture
def broker() -> Iterator[Broker]:
    """Return a broker to which connections to RabbitMQ lead."""
    made = Broker(chance=random.Random(7))
    with channels_of(made):
        yield made


class Beat:
    """Publishes messages in one batch, in a process that goes on as it is told."""

    def __init__(self, *numbers: int, then: Callable[[Batch], object] | None = None) -> None:
        self.errors: list[Exception] = []
        self.fates: list[Exception | None] = []
        self._app = Celery("sim", broker="amqp://127.0.0.1", set_as_current=False)
        self._numbers, self._then = numbers, then
        self.process = Process(Kernel(lambda: 0.0), "beat-1")
        self.process.begin(self._work)

    def goes_to(self, kind: str, number: int = 1) -> Beat:
        """Go on to the point of this kind, the one with this number of those to come."""
        while not self.process.idle:
            number -= self.process.at is not None and self.process.at[0] == kind
            if not number:
                return self
            self.process.go()
        pytest.fail(f"it never came to {kind}")

    def goes(self, order: str = "go") -> Beat:
        """Follow an order, and go on to its end after that."""
        self.process.go(order)
        while not self.process.idle:
            self.process.go()
        assert self.process.error is None
        return self

    def kinds(self) -> list[type[Exception] | None]:
        """Return what is known of each message."""
        return [None if fate is None else type(fate) for fate in self.fates]

    def _work(self) -> None:
        producer: Any = self._app.amqp.Producer(self._app.connection_for_write())
        batch = batch_of(producer)
        try:
            with batch:
                for number in self._numbers:
                    given = {RUN_ID: number, DUE_AT: "12:00", ATTEMPT: 1, "id": f"id-{number}"}
                    named = {"task": "t", "periodic_task_name": "a", "expires": None}
                    asked = {"routing_key": "q", "correlation_id": f"id-{number}"}
                    producer.publish([], headers=given | named, retry=False, **asked)
                    batch.mark()
        except Exception as error:  # noqa: BLE001  (what it is the test looks at)
            self.errors.append(error)
        self.fates = batch.fates()
        if self._then is not None:
            self._then(batch)


def taken(broker: Broker) -> list[int]:
    return [one.message.run_id for one in broker.published]


@pytest.mark.parametrize("seed", range(5))
def test_messages_are_taken_and_confirmed(broker: Broker, seed: int) -> None:
    """Whenever it confirms, and however many at once, all messages are known to be taken."""
    broker.chance.seed(seed)
    beat = Beat(1, 2, 3, 4).goes()
    assert (taken(broker), beat.errors) == ([1, 2, 3, 4], [])
    assert beat.kinds() == [None] * 4


def test_a_refused_message(broker: Broker) -> None:
    """It is not accepted, or has no queue, or the channel is closed for it."""
    seen: set[Any] = set()
    for seed in range(20):
        broker.chance.seed(seed)
        broker.published.clear()
        beat = Beat(1, 2, 3).goes_to("publish", 2).goes("refuse")
        assert 2 not in taken(broker)
        seen |= {*beat.kinds(), *map(type, beat.errors)}
    assert {NackedError, UnroutableError, NotFound, None} <= seen


def test_a_connection_that_breaks_before_a_message(broker: Broker) -> None:
    """Then that message is not there."""
    beat = Beat(1, 2, 3).goes_to("publish", 3).goes("cut")
    assert taken(broker) == [1, 2]
    assert len(beat.errors) == 1


def test_a_connection_that_breaks_after_a_message(broker: Broker) -> None:
    """Then the message is there, and its sender does not know it."""
    beat = Beat(1, 2, 3).goes_to("publish", 3).goes("lost")
    assert taken(broker) == [1, 2, 3]
    assert beat.kinds()[-1] in (UnsureError, None)
    assert len(beat.fates) < 3 or beat.errors


def test_a_connection_that_breaks_before_the_confirms(broker: Broker) -> None:
    """Then the messages are there, and their sender does not know it."""
    for seed in range(20):
        broker.chance.seed(seed)
        broker.published.clear()
        beat = Beat(1).goes_to("publish")
        beat.process.go()
        if beat.process.at != ("answer", "confirms"):
            continue
        beat.goes("cut")
        assert taken(broker) == [1]
        assert len(beat.errors) == 1
        return
    pytest.fail("it always confirmed at once")


def test_an_alarm(broker: Broker) -> None:
    """What is written during an alarm arrives at its end, and is confirmed then."""
    late: list[Any] = []

    def wait_for_its_end(batch: Any) -> None:
        assert taken(broker) == []
        broker.fail("calm", 0, 0.0)
        batch.confirms.poll()
        late.extend(batch.fates())

    broker.fail("alarm", 0, 0.0)
    beat = Beat(1, 2, then=wait_for_its_end).goes()
    assert [type(error) for error in beat.errors] == [BlockedError]
    assert (taken(broker), beat.kinds(), late) == ([1], [UnsureError], [None])


def test_an_alarm_outlives_a_connection(broker: Broker) -> None:
    """What a beat has written arrives at the end of the alarm, though that beat was killed."""
    broker.fail("alarm", 0, 0.0)
    beat = Beat(1).goes_to("publish")
    beat.process.go()
    beat.process.kill()
    assert taken(broker) == []
    broker.fail("calm", 0, 0.0)
    assert taken(broker) == [1]
