"""Confirms of RabbitMQ that do not come, and connections to it that are cut."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
from celery.signals import before_task_publish

from beatstore.beat import batches, confirms
from beatstore.beat.batches import batch_of
from beatstore.beat.confirms import Confirms
from beatstore.errors import BrokerError, NackedError, UnsureError
from beatstore.tick.claims import Outcome
from beatstore.tick.tick import BATCH
from tests.support.batches import (
    NewScheduler,
    arrived,
    lose_the_broker,
    new_claims,
    once,
    states,
    through,
)
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send, send_into
from tests.support.proxy import Proxy


class Answers:
    """A channel of py-amqp's, and the answers to what is published on it."""

    def __init__(self, *answers: tuple[str, int, bool]) -> None:
        self.events: dict[str, set[Callable[..., None]]] = {}
        for name in ("basic_ack", "basic_nack", "basic_return"):
            self.events[name] = set()
        self.connection = self.channel = self
        self.confirm_publish = False
        self.channel_errors = ()
        self.answers = list(answers)

    def confirm_select(self) -> None:
        """Switch confirms on."""

    def basic_publish(self, *_: object, **__: object) -> None:
        """Take a message."""

    def _do_revive(self) -> None:
        """Open the channel again."""

    exchange_declare = queue_declare = queue_bind = confirm_select

    def drain_events(self, timeout: float) -> None:
        """Hand out the next answer."""
        if not self.answers:
            raise TimeoutError("no answer")
        name, number, multiple = self.answers.pop(0)
        for receive in self.events[name]:
            receive(number, multiple)


class Sent:
    """A message of py-amqp's, as far as it is looked at."""

    properties: ClassVar[dict[str, Any]] = {"correlation_id": "of a task"}
    body = b""


YES, NO, WHO_KNOWS = "taken", "refused", "unknown"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([("basic_ack", 5, True)], [YES] * 5),
        ([("basic_ack", n, False) for n in (1, 2, 3, 4, 5)], [YES] * 5),
        ([("basic_ack", n, False) for n in (5, 3, 1, 2, 4)], [YES] * 5),
        ([("basic_ack", 2, True), ("basic_ack", 5, False), ("basic_ack", 4, True)], [YES] * 5),
        ([("basic_ack", 3, True)], [YES] * 3 + [WHO_KNOWS] * 2),
        (
            [("basic_ack", 4, False), ("basic_ack", 1, False)],
            [YES, WHO_KNOWS, WHO_KNOWS, YES, WHO_KNOWS],
        ),
        ([("basic_nack", 3, False), ("basic_ack", 5, True)], [YES, YES, NO, YES, YES]),
        (
            [("basic_ack", 2, True), ("basic_nack", 3, False), ("basic_ack", 5, True)],
            [YES, YES, NO, YES, YES],
        ),
        ([("basic_ack", 4, False), ("basic_nack", 5, True)], [NO, NO, NO, YES, NO]),
        ([("basic_ack", 1, False), ("basic_nack", 5, True)], [YES, NO, NO, NO, NO]),
        ([], [WHO_KNOWS] * 5),
    ],
)
def test_a_confirm_counts_for_its_own_messages_only(
    answers: list[tuple[str, int, bool]], expected: list[str]
) -> None:
    """Whatever the order of RabbitMQ's answers and their gaps, each message has its own fate."""
    channel: Any = Answers(("basic_ack", 1, False), *((n, at + 1, m) for n, at, m in answers))
    batch = batch_of(channel)
    incomplete: Any = pytest.raises(OSError, match="no answer")
    with incomplete if WHO_KNOWS in expected else ExitStack(), batch:
        for _ in range(6):
            channel.basic_publish(Sent(), exchange="")
            batch.mark()
    found = {type(None): YES, NackedError: NO, UnsureError: WHO_KNOWS}
    assert [found[type(fate)] for fate in batch.fates()] == [YES, *expected]


def test_what_rabbitmq_did_not_confirm_is_not_sent(
    rabbitmq_broker: Broker,
    relay: Proxy,
    new_scheduler: NewScheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no confirm arrives and the connection is lost, no claim gets an outcome."""
    monkeypatch.setattr(batches, "ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(confirms, "ANSWER_TIMEOUT", 0.3)
    scheduler = new_scheduler(through(relay, rabbitmq_broker))
    send(scheduler, new_claim())
    claims = new_claims(5)
    relay.hold()
    relay.refuse = True
    outcomes: list[Outcome] = []
    with pytest.raises(BrokerError):
        send_into(outcomes, scheduler, claims)
    assert outcomes == []
    relay.cut()
    relay.release()
    relay.refuse = False
    assert states(send(scheduler, *claims), claims) == ["sent"] * 5
    found = arrived(rabbitmq_broker)
    assert set(once(claims)) <= set(found)
    assert found.total() == len(found) + 5, "the same five ids, a second time"


def test_confirms_that_come_too_late_cost_a_second_message_and_no_more(
    rabbitmq_broker: Broker,
    relay: Proxy,
    new_scheduler: NewScheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that stalls is asked again on a new connection, in the same tick."""
    monkeypatch.setattr(batches, "ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(confirms, "ANSWER_TIMEOUT", 0.3)
    scheduler = new_scheduler(through(relay, rabbitmq_broker))
    send(scheduler, new_claim())
    arrived(rabbitmq_broker)
    claims = new_claims(5)
    waits: list[None] = []
    wait = Confirms.wait

    def stalled_once(self: Any, seconds: float) -> None:
        if not waits:
            relay.hold()
        waits.append(None)
        try:
            wait(self, seconds)
        finally:
            relay.release()

    monkeypatch.setattr(Confirms, "wait", stalled_once)
    assert states(send(scheduler, *claims), claims) == ["sent"] * 5
    assert set(arrived(rabbitmq_broker)) == set(once(claims))


def test_rabbitmq_connection_cut_while_idle(
    rabbitmq_broker: Broker, relay: Proxy, new_scheduler: NewScheduler
) -> None:
    """A connection that the server closed meanwhile costs a new one, and no message."""
    scheduler = new_scheduler(through(relay, rabbitmq_broker))
    send(scheduler, new_claim())
    arrived(rabbitmq_broker)
    relay.cut()
    claims = new_claims(BATCH + 5)
    assert states(send(scheduler, *claims), claims) == ["sent"] * (BATCH + 5)
    assert arrived(rabbitmq_broker) == once(claims)
    assert relay.accepted == 2


def test_rabbitmq_connection_cut_in_the_middle_of_a_batch(
    rabbitmq_broker: Broker, relay: Proxy, new_scheduler: NewScheduler
) -> None:
    """What was under way when the connection broke is sent again with the same ids."""
    scheduler, claims = new_scheduler(through(relay, rabbitmq_broker)), new_claims(60)

    def cut(headers: dict[str, Any], **_: Any) -> None:
        if headers["id"] == claims[30].task_id and relay.accepted == 1:
            relay.cut()

    before_task_publish.connect(cut)
    try:
        assert states(send(scheduler, *claims), claims) == ["sent"] * 60
    finally:
        before_task_publish.disconnect(cut)
    found = arrived(rabbitmq_broker)
    assert set(found) == set(once(claims))
    assert max(found.values()) <= 2


def test_a_message_that_was_broken_off_holds_up_no_end(
    rabbitmq_broker: Broker, relay: Proxy, new_scheduler: NewScheduler
) -> None:
    """After a signal in a tick, beat does not wait for a broker that may wait for beat."""
    scheduler = new_scheduler(through(relay, rabbitmq_broker))
    send(scheduler, new_claim())
    connection = scheduler.producer.connection.connection
    scheduler._in_tick = True
    scheduler.close()  # by the handler of the signal
    scheduler._in_tick = False
    relay.hold()
    began = time.monotonic()
    scheduler.close()
    assert time.monotonic() - began < 5
    assert connection._transport is None


def test_a_lock_on_sending_survives_the_loss_of_rabbitmq(
    rabbitmq_broker: Broker, relay: Proxy, new_scheduler: NewScheduler
) -> None:
    """A task that locks itself when it is sent is not taken for a duplicate of itself."""
    scheduler = new_scheduler(through(relay, rabbitmq_broker))
    claims, known = lose_the_broker(scheduler, relay)
    assert known == [Outcome(claim, "sent") for claim in claims[:2]]
    assert states(send(scheduler, *claims[2:]), claims[2:]) == ["sent"] * 3
    assert arrived(rabbitmq_broker) == once(claims)
