"""Batches of the sender: the deadline, signals, and a broker that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from celery import Celery
from celery.result import AsyncResult
from celery.signals import before_task_publish

from beatstore.beat import sender as sender_module
from beatstore.beat.batches import Batch, Fate
from beatstore.beat.message import RETRY_S
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import BrokerError, UnsureError
from beatstore.tick.claims import Outcome
from beatstore.tick.tick import BATCH
from tests.support.brokers import Broker
from tests.support.flaky import FlakyBroker, RefusedError
from tests.support.harness.inprocess import new_app, new_claim, running, send, send_into

# -- batches, time and signals -------------------------------------------------------------


def test_nothing_is_sent_after_the_deadline(scheduler: DBScheduler, memory_broker: Broker) -> None:
    """Once `until` has come, what is left stays claimed, with no reason and at once."""
    claims = [new_claim() for _ in range(3)]
    outcomes = send(scheduler, *claims, until=time.monotonic())
    assert outcomes == [Outcome(claim, "claimed") for claim in claims]
    assert memory_broker.drain() == []


def test_the_deadline_ends_a_batch(
    scheduler: DBScheduler, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When `until` comes in the middle of a batch, what is on the broker is told as sent."""
    now = [0.0]
    monkeypatch.setattr(sender_module.time, "monotonic", lambda: now[0])
    claims = [new_claim() for _ in range(2 * BATCH)]

    def on_publish(**_: Any) -> None:
        now[0] += 1

    before_task_publish.connect(on_publish)
    try:
        outcomes = send(scheduler, *claims, until=30)
    finally:
        before_task_publish.disconnect(on_publish)
    assert outcomes == [
        *(Outcome(claim, "sent") for claim in claims[:30]),
        *(Outcome(claim, "claimed") for claim in claims[30:]),
    ]
    assert len(memory_broker.drain()) == 30


def test_slow_hooks_get_smaller_batches(
    app: Celery,
    scheduler: DBScheduler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A batch is written while its claims are good, and the size forgets how slow hooks were."""
    now, seconds, sizes = [0.0], [1.0], []

    class Together(Batch):
        """Messages that arrive when the batch ends, as in Redis' pipelines."""

        written = False

        def fates(self) -> list[Fate]:
            return [None if self.written else UnsureError("not written")] * self.marked

        def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
            self.written = kind is None
            sizes.append(self.fates().count(None))

    def publish(*_: Any, **kwargs: Any) -> AsyncResult[Any]:
        now[0] += seconds[0]
        return AsyncResult(kwargs["task_id"], app=app)

    monkeypatch.setattr(sender_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sender_module, "batch_of", lambda producer, **_: Together(producer))
    monkeypatch.setattr(app, "send_task", publish)
    claims = [new_claim("elsewhere.task") for _ in range(BATCH)]
    outcomes = send(scheduler, *claims, until=32)
    assert sizes == [16, 8, 4, 2, 1, 0]
    assert outcomes == [
        *(Outcome(claim, "sent") for claim in claims[:31]),
        *(Outcome(claim, "claimed") for claim in claims[31:]),
    ]
    [record] = [one for one in caplog.records if one.name == "beatstore.beat.sender"]
    assert claims[31].name in record.getMessage()
    seconds[0] = 0.0
    sizes.clear()
    assert {one.state for one in send(scheduler, *claims[31:], until=64)} == {"sent"}
    assert sizes == [BATCH - 31]


def test_messages_leave_in_the_order_of_their_claims(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Claims come in the order of their due times, and so do the messages."""
    claims = [new_claim() for _ in range(BATCH + 20)]
    send(scheduler, *claims)
    assert [message.id for message in memory_broker.drain()] == [one.task_id for one in claims]


def test_outcomes_known_before_a_signal_are_handed_out(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A SIGTERM in the middle of a batch does not hide which messages were sent before it."""
    claims = [new_claim() for _ in range(10)]

    def on_publish(headers: dict[str, Any], **_: Any) -> None:
        if headers["id"] == claims[6].task_id:
            raise SystemExit

    before_task_publish.connect(on_publish)
    outcomes: list[Outcome] = []
    try:
        with pytest.raises(SystemExit):
            send_into(outcomes, scheduler, claims)
    finally:
        before_task_publish.disconnect(on_publish)
    assert outcomes == [Outcome(claim, "sent") for claim in claims[:6]]
    assert [message.id for message in memory_broker.drain()] == [
        claim.task_id for claim in claims[:6]
    ]


# -- a broker that fails -------------------------------------------------------------------


@pytest.fixture
def flaky() -> FlakyBroker:
    """Return a broker that fails on demand."""
    return FlakyBroker()


@pytest.fixture
def flaky_scheduler(flaky: FlakyBroker, memory_broker: Broker) -> Iterator[DBScheduler]:
    """Return a scheduler that sends to it; messages lie in the memory broker's queue."""
    with running(new_app(memory_broker, **flaky.settings), lazy=True) as scheduler:
        yield scheduler


def test_a_lost_connection_is_opened_again_within_the_send(
    flaky: FlakyBroker, flaky_scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """What was not taken when the connection broke follows on a new one, each message once."""
    claims = [new_claim() for _ in range(6)]
    flaky.fail_on(3, ConnectionResetError("cut"))
    assert [one.state for one in send(flaky_scheduler, *claims)] == ["sent"] * 6
    assert flaky.connected == 2
    assert [message.id for message in memory_broker.drain()] == [one.task_id for one in claims]


def test_a_broker_that_is_gone_ends_the_send(
    flaky: FlakyBroker, flaky_scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """With no broker to reconnect to, what was taken is told, and the rest is an outage."""
    claims = [new_claim() for _ in range(6)]
    send(flaky_scheduler, new_claim())
    flaky.down = True
    flaky.fail_on(3, ConnectionResetError("cut"))
    outcomes: list[Outcome] = []
    with pytest.raises(BrokerError, match="cut"):
        send_into(outcomes, flaky_scheduler, claims)
    assert outcomes == [Outcome(claim, "sent") for claim in claims[:2]]
    assert len(memory_broker.drain()) == 3
    flaky.down = False
    assert [one.state for one in send(flaky_scheduler, *claims[2:])] == ["sent"] * 4


def test_no_broker_at_all_is_an_outage(
    flaky: FlakyBroker, flaky_scheduler: DBScheduler, pauses: list[float]
) -> None:
    """A broker that can't be reached is reported as that, and no claim has an outcome."""
    flaky.down = True
    before = time.monotonic()
    with pytest.raises(BrokerError, match="the broker is down"):
        send(flaky_scheduler, new_claim())
    assert pauses == [], "waiting is for the time between two ticks"
    assert time.monotonic() - before < 10


def test_a_refused_message_fails_alone(
    flaky: FlakyBroker, flaky_scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """The broker's no to one message fails that one, and the others are sent once."""
    claims = [new_claim() for _ in range(5)]
    flaky.fail_on(3, RefusedError("no such exchange"))
    outcomes = {one.claim.run_id: one for one in send(flaky_scheduler, *claims)}
    states = [outcomes[claim.run_id].state for claim in claims]
    assert states == ["sent", "sent", "failed", "sent", "sent"]
    assert "no such exchange" in str(outcomes[claims[2].run_id].reason)
    sent = [message.id for message in memory_broker.drain()]
    assert sorted(sent) == sorted(one.task_id for one in (*claims[:2], *claims[3:]))


def test_a_connection_that_breaks_again_and_again_is_tried_later(
    flaky: FlakyBroker, flaky_scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A message at which each new connection breaks waits a while; the others don't."""
    claims = [new_claim() for _ in range(3)]
    flaky.fail_on(1, ConnectionResetError("cut"), times=3)
    outcomes = send(flaky_scheduler, *claims)
    assert [(one.state, one.retry_in) for one in outcomes] == [
        ("claimed", RETRY_S),
        ("sent", 0),
        ("sent", 0),
    ]
    assert [message.id for message in memory_broker.drain()] == [
        claim.task_id for claim in claims[1:]
    ]


def test_publishing_does_not_retry_by_itself(
    flaky: FlakyBroker, flaky_scheduler: DBScheduler
) -> None:
    """Celery's own would hold up the whole tick, and go around the confirms: beat tries again."""
    flaky.fail_on(1, ConnectionResetError("cut"))
    send(flaky_scheduler, new_claim())
    assert flaky.published == 2
    flaky.fail_on(1, ConnectionResetError("cut"))
    policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    claim = new_claim(options={"retry": True, "retry_policy": policy})
    with mock.patch.object(flaky_scheduler, "disconnect") as disconnect:
        assert send(flaky_scheduler, claim)[0].state == "sent"
    disconnect.assert_called_once()
