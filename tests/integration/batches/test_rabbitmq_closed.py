"""Channels and connections of RabbitMQ that are replaced under a batch, and refusals that wait."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pytest
from kombu import Queue

from beatstore.beat.batches import batch_of
from beatstore.beat.confirms import Confirms, Unconfirmed
from beatstore.errors import NackedError, UnsureError
from tests.integration.batches.test_rabbitmq_lost import Answers, Sent
from tests.support.batches import NewScheduler, arrived, new_claims, through
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send
from tests.support.proxy import Proxy


class Event:
    """A message of Celery's events: it is of no task."""

    properties: ClassVar[dict[str, Any]] = {}
    body = b""


def test_a_message_that_asks_for_retries_is_confirmed(
    rabbitmq_broker: Broker, relay: Proxy, new_scheduler: NewScheduler
) -> None:
    """A connection that is made anew in the middle of a batch confirms nothing by itself."""
    full = Queue(
        f"{rabbitmq_broker.queue}-full",
        queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
    )
    scheduler = new_scheduler(through(relay, rabbitmq_broker), task_queues=[full])
    to_it = {"queue": full.name}
    try:
        [first] = send(scheduler, new_claim(options=to_it))
        assert first.state == "sent"
        relay.cut()
        claims = [new_claim(options=to_it | {"retry": True}), new_claim(options=to_it)]
        assert {one.state for one in send(scheduler, *claims)} == {"claimed"}
    finally:
        with scheduler.app.connection_for_write() as connection:
            full(connection.default_channel).delete()


@pytest.mark.parametrize("how", ["auto", "hooks"])
def test_a_declaration_that_is_refused_doubles_nothing(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler, how: str
) -> None:
    """RabbitMQ closes the channel for it, and the other messages of the batch come once."""
    bad = f"{rabbitmq_broker.queue}-bad"
    scheduler = new_scheduler(rabbitmq_broker, beatstore_send=how)
    with scheduler.app.connection_for_write() as connection:
        other = Queue(bad, queue_arguments={"x-max-priority": 5})(connection.default_channel)
        other.declare()
        send(scheduler, *new_claims(5))
        rabbitmq_broker.drain()
        for _ in range(3):
            claims = new_claims(20)
            refused = [new_claim(options={"queue": bad}) for _ in range(3)]
            outcomes = send(scheduler, *claims[:10], *refused, *claims[10:])
            ids = [claim.task_id for claim in claims]
            assert Counter(arrived(rabbitmq_broker)) == Counter(ids)
            sent = {one.claim.run_id for one in outcomes if one.state == "sent"}
            assert sent == {claim.run_id for claim in claims}
        other.delete()


def test_a_refused_event_is_no_refused_message() -> None:
    """A full queue of a monitor says nothing of the task that the event is about."""
    answers = [("basic_ack", 1, False), ("basic_ack", 2, False), ("basic_nack", 3, False)]
    channel: Any = Answers(*answers)
    batch = batch_of(channel)
    with batch:
        channel.basic_publish(Sent(), exchange="")
        batch.mark()
        channel.basic_publish(Sent(), exchange="")
        channel.basic_publish(Event(), exchange="")
        batch.mark()
    assert batch.fates() == [None, None]


def test_a_refusal_after_an_alarm_outlives_the_next_batch() -> None:
    """A message of the alarm that is refused is not sent, whenever beat asks for it."""
    channel: Any = Answers(("basic_ack", 1, False))
    batch = batch_of(channel)
    with batch:
        channel.basic_publish(Sent(), exchange="")
    confirms: Confirms = channel.beatstore_confirms
    channel.basic_publish(Sent(), exchange="")
    held = Unconfirmed(confirms, [("a", range(2, 3))])
    channel.answers += [("basic_nack", 2, False), ("basic_ack", 3, False)]
    confirms.poll()
    with batch_of(channel) as other:
        channel.basic_publish(Sent(), exchange="")
        other.mark()
    [(sent, fate)] = held.answered()
    assert (sent, type(fate)) == ("a", NackedError)
    with batch_of(channel):
        assert confirms.refused == {}


def test_a_second_alarm_keeps_the_messages_of_the_first() -> None:
    """Both are held, until RabbitMQ answers for them."""
    channel: Any = Answers(("basic_ack", 1, False))
    with batch_of(channel):
        channel.basic_publish(Sent(), exchange="")
    confirms: Confirms = channel.beatstore_confirms
    for _ in range(2):
        channel.basic_publish(Sent(), exchange="")
    first = Unconfirmed(confirms, [("a", range(2, 3))])
    second = Unconfirmed(confirms, [("b", range(3, 4))])
    assert second.join(first)
    assert second.to_extend() == ["a", "b"]
    channel.answers.append(("basic_ack", 3, True))
    assert second.answered() == [("a", None), ("b", None)]
    others = Unconfirmed(Confirms(Answers(), frozenset()), [("c", range(1, 2))])
    assert not second.join(others)


def test_a_batch_after_an_alarm_is_not_held() -> None:
    """The end of the alarm is read before the batch, if nobody has read it yet."""
    channel: Any = Answers(("basic_ack", 1, False))
    with batch_of(channel):
        channel.basic_publish(Sent(), exchange="")
    channel.on_blocked("low on memory")
    channel.events["unblocked"] = {channel.on_unblocked}
    channel.answers += [("unblocked", 0, False), ("basic_ack", 2, False)]
    with batch_of(channel) as batch:
        channel.basic_publish(Sent(), exchange="")
        batch.mark()
    assert batch.fates() == [None]


def test_a_channel_that_is_closed_in_an_alarm_is_given_up() -> None:
    """py-amqp opens it again at once. If that takes too long, it hides why it was closed."""
    channel: Any = Answers(("basic_ack", 1, False))
    with batch_of(channel):
        channel.basic_publish(Sent(), exchange="")
    channel.basic_publish(Sent(), exchange="")
    held = Unconfirmed(channel.beatstore_confirms, [("a", range(2, 3))])

    def close(*_: object) -> None:
        channel._do_revive()
        raise TimeoutError("no answer")

    channel.events["closed"] = {close}
    channel.answers.append(("closed", 0, False))
    with pytest.raises(OSError, match="RabbitMQ will not confirm"):
        held.answered()


def test_what_was_confirmed_before_the_channel_closed_is_sent() -> None:
    """RabbitMQ answers for one message of the alarm, and closes the channel for the next one."""
    channel: Any = Answers(("basic_ack", 1, False))
    with batch_of(channel):
        channel.basic_publish(Sent(), exchange="")
    for _ in range(3):
        channel.basic_publish(Sent(), exchange="")
    held = Unconfirmed(
        channel.beatstore_confirms, [(name, range(at, at + 1)) for at, name in enumerate("abc", 2)]
    )

    def close(*_: object) -> None:
        raise OSError("NOT_FOUND - no exchange")

    channel.events["closed"] = {close}
    channel.answers += [("basic_ack", 2, False), ("basic_nack", 3, False), ("closed", 0, False)]
    with pytest.raises(OSError, match="NOT_FOUND"):
        held.answered()
    fates = [(name, type(fate)) for name, fate in held.given_up()]
    assert fates == [("a", type(None)), ("b", NackedError), ("c", UnsureError)]
    assert not held
