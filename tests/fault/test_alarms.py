"""A RabbitMQ whose alarm is on takes no messages, and takes them all when it is off again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import kombu
import pytest

from beatstore import DBScheduler, Every, Once
from beatstore.beat import alarm
from beatstore.clock import ManualClock
from beatstore.errors import BrokerError
from beatstore.tick.claims import Claim, Outcome
from tests.support.broker_servers import PrivateRabbitMQ
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app, new_claim, note_app, running, send, send_into
from tests.support.wait import wait_until

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@on_sqlite
def test_an_alarm_is_an_outage_and_nothing_is_sent_twice(
    private_rabbitmq: PrivateRabbitMQ,
    migrated_url: str,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What RabbitMQ was given in its alarm is kept, the policy is asked, nothing is doubled."""
    # Claims are extended again and again by the real time, which does not go on here with the
    # database's clock. RabbitMQ confirms a while after it says that the alarm is over.
    monkeypatch.setattr(alarm, "EXTENSION_S", 3600.0)
    broker = Broker("amqp", private_rabbitmq.url)
    app = new_app(broker, migrated_url, result_expires=None)
    with running(app) as scheduler:
        store = scheduler.store
        store.database.clock = clock
        store.add("warm", "tests.note", Once(clock.now()))
        store.add("each", "tests.note", Every(60), misfire="coalesce", grace=5)
        scheduler.tick()
        private_rabbitmq.alarm(on=True)
        for number in range(150):
            store.add(f"entry-{number}", "tests.note", Once(clock.now()))

        def away() -> bool:
            scheduler.tick()
            return "the broker is unavailable" in caplog.text

        wait_until(away, 20, "an outage")
        for _ in range(10):
            clock.advance(60)
            scheduler.tick()
        assert Counter(run.state for run in store.runs(limit=500))["sent"] == 1
        private_rabbitmq.alarm(on=False)

        def all_sent() -> bool:
            scheduler.tick()
            return Counter(run.state for run in store.runs(limit=500)) == {"sent": 152}

        wait_until(all_sent, 30, lambda: str(Counter(run.state for run in store.runs(limit=500))))
        assert store.runs("each")[0].missed_count >= 8
    sent = Counter(message.headers["beatstore_entry"] for message in broker.drain())
    assert len(sent) == 152
    assert set(sent.values()) == {1}
    outages = [one for one in caplog.records if one.name == "beatstore.outage"]
    assert [one.levelname for one in outages] == ["ERROR", "WARNING"]


@pytest.mark.parametrize("road", ["templates", "hooks"])
def test_new_queues_in_an_alarm_double_nothing(
    private_rabbitmq: PrivateRabbitMQ, road: str
) -> None:
    """Neither a queue that is to be declared, nor a new target, has its neighbours sent again."""
    broker = Broker("amqp", private_rabbitmq.url)
    with running(note_app(broker, **_ROADS[road])) as scheduler:
        send(scheduler, *_claims(5))
        private_rabbitmq.alarm(on=True)
        first, *others = _claims(3)
        other_queue = new_claim(options={"queue": f"{broker.queue}-new"})
        claims = [first, other_queue, *others]
        known = _in_alarm(scheduler, claims)
        private_rabbitmq.alarm(on=False)
        _all_sent(scheduler, claims, known)
    arrived = [*broker.drain(), *broker.drain(f"{broker.queue}-new")]
    assert Counter(one.id for one in arrived) == Counter(
        [*(one.id for one in arrived[:5]), *(claim.task_id for claim in claims)]
    )


@pytest.mark.parametrize("road", ["templates", "hooks"])
def test_a_queue_that_was_deleted_before_the_alarm_is_declared_again(
    private_rabbitmq: PrivateRabbitMQ, road: str
) -> None:
    """RabbitMQ returns its message after the alarm; it is sent once more, to a new queue."""
    broker = Broker("amqp", private_rabbitmq.url)
    with running(note_app(broker, **_ROADS[road])) as scheduler:
        send(scheduler, *_claims(2))
        broker.drain()
        with kombu.Connection(private_rabbitmq.url) as connection:
            connection.default_channel.queue_delete(broker.queue)
        private_rabbitmq.alarm(on=True)
        claims = _claims(2)
        known = _in_alarm(scheduler, claims)
        private_rabbitmq.alarm(on=False)
        _all_sent(scheduler, claims, known)
    arrived = Counter(one.id for one in broker.drain())
    assert arrived == Counter(claim.task_id for claim in claims)


#: The settings of beats that send by templates, and through the hooks.
_ROADS: dict[str, dict[str, Any]] = {"templates": {}, "hooks": {"beatstore_send": "hooks"}}


def _claims(number: int) -> list[Claim]:
    return [new_claim() for _ in range(number)]


def _in_alarm(scheduler: DBScheduler, claims: Sequence[Claim]) -> list[Outcome]:
    """Send claims until the alarm is noticed; return what is known then."""
    known: list[Outcome] = []
    for _ in range(50):
        try:
            send_into(known, scheduler, claims)
        except BrokerError:
            return known
        time.sleep(0.1)
    raise AssertionError("there was no alarm")


def _all_sent(scheduler: DBScheduler, claims: Sequence[Claim], known: Sequence[Outcome]) -> None:
    """Do as ticks do after an alarm, until each claim is sent: hear of it, or send it again."""
    kept = {one.claim.run_id for one in known if one.retry_in}  # their claims are extended
    left = {claim.run_id: claim for claim in claims}
    for one in known:
        if one.state == "sent":
            del left[one.claim.run_id]

    def none_left() -> bool:
        told = scheduler.sender.late_outcomes()
        again = [claim for number, claim in left.items() if number not in kept]
        again += [one.claim for one in told if one.state == "claimed" and not one.retry_in]
        for one in [*told, *send(scheduler, *again)]:
            if one.state == "sent":
                del left[one.claim.run_id]
                kept.discard(one.claim.run_id)
            else:
                assert one.state == "claimed", one
        return not left

    wait_until(none_left, 30, lambda: f"{left} to be sent")
