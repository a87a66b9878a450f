"""Batches on RabbitMQ: what it refuses, returns or has no room for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from kombu import Exchange, Queue
from kombu.common import Broadcast

from beatstore.beat.batches import Batch, Confirmed, batch_of
from beatstore.beat.message import RETRY_S
from beatstore.tick.tick import BATCH
from tests.support.batches import NewScheduler, arrived, new_claims, once, states
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send


def test_rabbitmq_confirms_a_whole_batch_at_once(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publisher confirms are awaited once a batch, and nothing is `sent` before."""
    scheduler = new_scheduler(rabbitmq_broker)
    send(scheduler, new_claim())
    assert isinstance(batch_of(scheduler.producer), Confirmed)
    counts = scheduler.producer.channel.beatstore_confirms
    waits: list[tuple[int, int]] = []
    wait = counts.wait

    def counted(seconds: float) -> None:
        wait(seconds)
        waits.append((counts.published - len(counts.open), counts.published))

    monkeypatch.setattr(counts, "wait", counted)
    claims = new_claims(3 * BATCH)
    assert states(send(scheduler, *claims), claims) == ["sent"] * 3 * BATCH
    assert waits == [(1 + n, 1 + n) for n in (BATCH, 2 * BATCH, 3 * BATCH)]
    assert arrived(rabbitmq_broker).total() == 1 + 3 * BATCH


def test_rabbitmq_own_confirms_are_left_alone(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler
) -> None:
    """Where the user has switched on py-amqp's own confirms, those are used."""
    options = {"confirm_publish": True}
    scheduler = new_scheduler(rabbitmq_broker, broker_transport_options=options)
    assert type(batch_of(scheduler.producer)) is Batch
    claims = new_claims(3)
    assert states(send(scheduler, *claims), claims) == ["sent"] * 3
    assert arrived(rabbitmq_broker) == once(claims)


@pytest.mark.parametrize("position", [0, 1, 50, 99])
def test_rabbitmq_refuses_one_message_and_takes_the_others_once(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler, position: int
) -> None:
    """A message to an exchange that is not there fails alone; no other is sent twice."""
    scheduler, claims = new_scheduler(rabbitmq_broker), new_claims(BATCH + 20)
    claims[position] = new_claim(options={"exchange": "no-such-exchange", "routing_key": "x"})
    outcomes = send(scheduler, *claims)
    (refused,) = [one for one in outcomes if one.state != "sent"]
    assert (refused.claim, refused.state) == (claims[position], "failed")
    assert "no exchange 'no-such-exchange'" in str(refused.reason)
    assert states(outcomes, claims).count("sent") == BATCH + 19
    assert arrived(rabbitmq_broker) == once([one for one in claims if one is not refused.claim])


@pytest.mark.parametrize("options", [{"headers": {"x": "y" * 140_000}}, {"delivery_mode": 9}])
@pytest.mark.parametrize("how", ["auto", "hooks"])
def test_rabbitmq_closes_for_one_message_and_gets_the_others_once(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler, options: dict[str, Any], how: str
) -> None:
    """Headers larger than a frame, and a property that it checks: that message fails alone."""
    scheduler = new_scheduler(rabbitmq_broker, beatstore_send=how)
    send(scheduler, new_claim())
    rabbitmq_broker.drain()
    for _ in range(3):
        claims = new_claims(40)
        outcomes = send(scheduler, *claims[:20], new_claim(options=options), *claims[20:])
        assert Counter(one.state for one in outcomes) == {"sent": 40, "failed": 1}
        assert arrived(rabbitmq_broker) == once(claims)


def test_rabbitmq_refuses_several_messages(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler
) -> None:
    """However many messages of a batch are refused, the others are sent once."""
    scheduler, claims = new_scheduler(rabbitmq_broker), new_claims(40)
    for n in (3, 4, 20, 39):
        claims[n] = new_claim(options={"exchange": f"absent-{n}", "routing_key": "x"})
    outcomes = send(scheduler, *claims)
    expected = ["failed" if n in (3, 4, 20, 39) else "sent" for n in range(40)]
    assert states(outcomes, claims) == expected
    good = [claim for claim, state in zip(claims, expected, strict=True) if state == "sent"]
    assert arrived(rabbitmq_broker) == once(good)


def test_a_message_that_rabbitmq_has_no_room_for_is_tried_later(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler
) -> None:
    """A full queue answers with a nack: that message waits, told why, and the others don't."""
    full = Queue(
        f"{rabbitmq_broker.queue}-full",
        queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
    )
    scheduler = new_scheduler(rabbitmq_broker, task_queues=[full, Queue(rabbitmq_broker.queue)])
    assert send(scheduler, new_claim(options={"queue": full.name}))[0].state == "sent"
    claims = new_claims(5)
    claims[2] = new_claim(options={"queue": full.name})
    outcomes = send(scheduler, *claims)
    assert states(outcomes, claims) == ["sent", "sent", "claimed", "sent", "sent"]
    (later,) = [one for one in outcomes if one.state == "claimed"]
    assert later.retry_in == RETRY_S
    assert "did not accept" in str(later.reason)
    assert arrived(rabbitmq_broker) == once([one for one in claims if one is not claims[2]])
    with scheduler.app.connection_for_write() as connection:
        full(connection.default_channel).delete()


# What RabbitMQ answers to by closing the channel, or the connection.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"user_id": "nobody"}, "user_id"),
    ({"expires": 11 * 365 * 86400}, "expiration"),
    ({"headers": {"CC": "no list"}}, "CC"),
    ({"exchange": "no-such-exchange", "routing_key": "x"}, "no exchange 'no-such-exchange'"),
    ({"reply_to": "amq.rabbitmq.reply-to"}, "reply"),
    ({"immediate": True}, "immediate"),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_rabbitmq_refuses_a_message_again_and_again_and_takes_the_others_once(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler, options: dict[str, Any], reason: str
) -> None:
    """What RabbitMQ will never have fails alone each time, and none of the others comes twice."""
    scheduler = new_scheduler(rabbitmq_broker)
    for _ in range(3):
        claims = new_claims(30)
        claims[20] = new_claim(options=options, name="refused")
        outcomes = send(scheduler, *claims)
        assert states(outcomes, claims) == ["sent"] * 20 + ["failed"] + ["sent"] * 9
        (refused,) = [one for one in outcomes if one.state == "failed"]
        assert reason in str(refused.reason)
        assert arrived(rabbitmq_broker) == once([one for one in claims if one is not claims[20]])


@pytest.mark.parametrize(
    "options",
    [
        {"priority": "high"},
        {"priority": 300},
        {"headers": {"big": 2**70}},
        {"headers": {"text": object}},
        {"correlation_id": "x" * 300},
        {"queue": "q" * 300},
    ],
    ids=repr,
)
def test_what_amqp_has_no_room_for_fails_at_once_and_alone(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler, options: dict[str, Any]
) -> None:
    """A property or header that can't be encoded is no lost connection, and nobody's business."""
    scheduler, claims = new_scheduler(rabbitmq_broker), new_claims(10)
    claims[4] = new_claim(options=options)
    outcomes = send(scheduler, *claims)
    assert states(outcomes, claims) == ["sent"] * 4 + ["failed"] + ["sent"] * 5
    assert arrived(rabbitmq_broker) == once([one for one in claims if one is not claims[4]])


def test_a_message_that_no_queue_gets_is_not_sent(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler
) -> None:
    """An exchange without a queue for the routing key fails the run, and says what to do."""
    scheduler, claims = new_scheduler(rabbitmq_broker), new_claims(5)
    claims[2] = new_claim(options={"exchange": "amq.topic", "routing_key": "no.where"})
    outcomes = send(scheduler, *claims)
    assert states(outcomes, claims) == ["sent", "sent", "failed", "sent", "sent"]
    (nowhere,) = [one for one in outcomes if one.state == "failed"]
    assert "exchange 'amq.topic' has no queue for routing key 'no.where'" in str(nowhere.reason)
    assert arrived(rabbitmq_broker) == once([one for one in claims if one is not claims[2]])


def test_a_queue_that_was_deleted_is_declared_again(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler
) -> None:
    """A queue that somebody deleted under a running beat comes back, with all messages."""
    scheduler = new_scheduler(rabbitmq_broker)
    send(scheduler, new_claim())
    with scheduler.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(rabbitmq_broker.queue)
    claims = new_claims(10)
    assert states(send(scheduler, *claims), claims) == ["sent"] * 10
    assert arrived(rabbitmq_broker) == once(claims)


@pytest.mark.parametrize("how", ["queue", "route", "amq.fanout"])
def test_a_broadcast_may_have_no_listener(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler, how: str
) -> None:
    """A message to all workers there are is sent, even if there is none at the moment."""
    name = f"{rabbitmq_broker.queue}-all"
    route = {"exchange": name, "exchange_type": "fanout", "routing_key": ""}
    scheduler = new_scheduler(
        rabbitmq_broker,
        task_queues=[Queue(rabbitmq_broker.queue), *([Broadcast(name)] if how == "queue" else [])],
        task_routes={"tests.note": route} if how == "route" else {},
    )
    with scheduler.app.connection_for_write() as connection:
        exchange = Exchange(name, "fanout")(connection.default_channel)
        exchange.declare()
        given = {
            "queue": {"queue": name},
            "route": {},
            "amq.fanout": {"exchange": "amq.fanout", "routing_key": "x"},
        }
        (outcome,) = send(scheduler, new_claim(options=given[how]))
        exchange.delete()
    assert (outcome.state, outcome.reason) == ("sent", None)


def test_an_event_that_nobody_listens_to_is_no_message_that_nobody_gets(
    rabbitmq_broker: Broker, new_scheduler: NewScheduler
) -> None:
    """With `task_send_sent_event` and no monitor the tasks are sent all the same."""
    scheduler = new_scheduler(rabbitmq_broker, task_send_sent_event=True)
    claims = new_claims(3)
    assert states(send(scheduler, *claims), claims) == ["sent"] * 3
    assert arrived(rabbitmq_broker) == once(claims)
