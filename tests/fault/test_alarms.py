"""A RabbitMQ whose alarm is on takes no messages, and takes them all when it is off again."""

from __future__ import annotations

from collections import Counter

import pytest

from beatstore import Every, Once
from beatstore.beat import sender
from beatstore.clock import ManualClock
from tests.support.broker_servers import PrivateRabbitMQ
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app, running
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
    monkeypatch.setattr(sender, "EXTENSION_S", 3600.0)
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
