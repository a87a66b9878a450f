"""Batches on Redis: what it refuses, has no room for, or is away for."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
import redis
from kombu.messaging import Producer

from beatstore import Once
from beatstore.beat.batches import Batch, Pipeline, batch_of
from beatstore.beat.scheduler import TOGETHER_S
from beatstore.clock import ManualClock
from beatstore.errors import BrokerError
from beatstore.tick.claims import Outcome
from beatstore.tick.tick import BATCH
from tests.support.batches import (
    NewScheduler,
    arrived,
    count_pipelines,
    locking,
    lose_the_broker,
    new_claims,
    once,
    states,
    with_pipelines,
)
from tests.support.broker_servers import PrivateRedis
from tests.support.brokers import Broker
from tests.support.harness.inprocess import (
    new_app,
    new_claim,
    running,
    send,
    send_into,
    tick_until_idle,
)
from tests.support.marks import on_sqlite
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@with_pipelines
def test_redis_gets_a_batch_in_one_round_trip(
    redis_broker: Broker, new_scheduler: NewScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages of a batch are written together."""
    scheduler = new_scheduler(redis_broker, beatstore_send="hooks")
    send(scheduler, new_claim())
    assert isinstance(batch_of(scheduler.producer), Pipeline)
    sizes = count_pipelines(monkeypatch)
    claims = new_claims(2 * BATCH)
    assert states(send(scheduler, *claims), claims) == ["sent"] * 2 * BATCH
    assert [size for size in sizes if size >= BATCH] == [BATCH, BATCH]
    assert arrived(redis_broker).total() == 1 + 2 * BATCH


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("pipelines", [True, False])
def test_redis_refuses_one_message_and_takes_the_others(
    redis_broker: Broker,
    new_scheduler: NewScheduler,
    monkeypatch: pytest.MonkeyPatch,
    *,
    declared: bool,
    pipelines: bool,
) -> None:
    """A queue whose key is no list fails its message alone, with Redis's reason."""
    if not pipelines:
        monkeypatch.setattr(Producer, "supports_batch_publish", False, raising=False)
    scheduler, claims = new_scheduler(redis_broker), new_claims(20)
    assert pipelines or type(batch_of(scheduler.producer)) is Batch
    bad = f"{redis_broker.queue}-bad"
    if declared:
        send(scheduler, new_claim(options={"queue": bad}))
    with redis.Redis.from_url(redis_broker.url) as client:
        client.set(bad, "not a list")
    claims[10] = new_claim(options={"queue": bad})
    outcomes = send(scheduler, *claims)
    assert states(outcomes, claims) == ["sent"] * 10 + ["failed"] + ["sent"] * 9
    (refused,) = [one for one in outcomes if one.state == "failed"]
    assert "WRONGTYPE" in str(refused.reason)
    assert arrived(redis_broker) == once([one for one in claims if one is not claims[10]])


@pytest.mark.parametrize("declared", [False, True])
def test_a_lock_on_sending_survives_a_lost_redis_batch(
    redis_broker: Broker, client: redis.Redis, new_scheduler: NewScheduler, *, declared: bool
) -> None:
    """A neighbour's bad queue does not make a task that locks itself its own duplicate."""
    scheduler = new_scheduler(redis_broker)
    task, bad = locking(scheduler), f"{redis_broker.queue}-bad"
    if declared:
        send(scheduler, new_claim(options={"queue": bad}))
    client.set(bad, "not a list")
    claims = [new_claim(task, args=[n]) for n in range(6)]
    claims[3] = new_claim(options={"queue": bad})
    again = new_claim(task, args=[1])
    outcomes = send(scheduler, *claims, again)
    expected = ["sent", "sent", "sent", "failed", "sent", "sent", "skipped"]
    assert states(outcomes, [*claims, again]) == expected
    assert outcomes[-1].reason == f"already queued: {claims[1].task_id}"
    assert arrived(redis_broker) == once([one for one in claims if one is not claims[3]])


def test_a_lock_on_sending_survives_the_loss_of_redis(
    private_redis: PrivateRedis, new_scheduler: NewScheduler
) -> None:
    """A message that was under way when the connection broke is not its own duplicate."""
    broker = Broker("redis", private_redis.url)
    with Proxy(private_redis.port) as relay:
        scheduler = new_scheduler(replace(broker, url=f"redis://127.0.0.1:{relay.port}/0"))
        claims, known = lose_the_broker(scheduler, relay)
        assert known == [Outcome(claim, "sent") for claim in claims[:2]]
        assert states(send(scheduler, *claims[2:]), claims[2:]) == ["sent"] * 3
    assert arrived(broker) == once(claims)


def test_the_next_broker_named_is_tried_at_once(
    redis_broker: Broker, new_scheduler: NewScheduler, pauses: list[float]
) -> None:
    """Where `broker_url` names several, one that is down costs neither the tick nor a wait."""
    closed = f"redis://127.0.0.1:{free_port()}/0"
    several = replace(redis_broker, url=f"{closed};{closed};{redis_broker.url}")
    scheduler, claims = new_scheduler(several), new_claims(3)
    before = time.monotonic()
    assert states(send(scheduler, *claims), claims) == ["sent"] * 3
    assert pauses == []
    assert time.monotonic() - before < 10
    assert arrived(redis_broker) == once(claims)


def test_redis_connection_closed_while_idle(
    redis_broker: Broker, client: redis.Redis, new_scheduler: NewScheduler
) -> None:
    """A connection that the server closed meanwhile costs a new one, and no message."""
    scheduler = new_scheduler(redis_broker)
    send(scheduler, new_claim())
    arrived(redis_broker)
    database = client.connection_pool.connection_kwargs["db"]
    mine = client.client_id()
    for other in client.client_list():
        if other["db"] == str(database) and other["id"] != str(mine):
            client.client_kill_filter(_id=other["id"])
    claims = new_claims(BATCH + 5)
    assert states(send(scheduler, *claims), claims) == ["sent"] * (BATCH + 5)
    assert arrived(redis_broker) == once(claims)


@pytest.mark.parametrize(
    "trouble",
    [
        [("CONFIG", "SET", "maxmemory", "1")],
        [("REPLICAOF", "127.0.0.1", "1")],
        [("CONFIG", "SET", "min-replicas-to-write", "1")],
    ],
    ids=["full", "read-only", "too few replicas"],
)
def test_redis_that_takes_nothing_for_now_fails_no_run(
    private_redis: PrivateRedis, new_scheduler: NewScheduler, trouble: list[tuple[str, ...]]
) -> None:
    """A Redis that is full or read-only is away, whatever the message, until it takes one."""
    broker = Broker("redis", private_redis.url)
    scheduler, claims = new_scheduler(broker), new_claims(3)
    send(scheduler, new_claim())
    arrived(broker)
    with redis.Redis.from_url(private_redis.url) as client:
        for command in trouble:
            client.execute_command(*command)
        known: list[Outcome] = []
        with pytest.raises(BrokerError, match="accepts no messages"):
            send_into(known, scheduler, claims)
        assert known == []
        with pytest.raises(BrokerError):
            scheduler.sender.check_broker()
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.config_set("maxmemory", "0")
        client.config_set("min-replicas-to-write", "0")
    scheduler.sender.check_broker()
    assert states(send(scheduler, *claims), claims) == ["sent"] * 3
    assert arrived(broker) == once(claims)


def test_redis_that_is_full_in_the_middle_of_a_batch_has_what_it_took(
    private_redis: PrivateRedis, new_scheduler: NewScheduler
) -> None:
    """The messages that fitted in are sent; only the others wait for room."""
    broker = Broker("redis", private_redis.url)
    # From templates a batch is one command, of which Redis takes all or nothing.
    scheduler = new_scheduler(broker, beatstore_send="hooks")
    send(scheduler, new_claim())
    arrived(broker)
    claims = [new_claim(args=["z" * 3000]) for _ in range(90)]
    with redis.Redis.from_url(private_redis.url) as client:
        used: Any = client.info("memory")
        client.config_set("maxmemory", used["used_memory"] + 400_000)
        known: list[Outcome] = []
        with pytest.raises(BrokerError, match="accepts no messages"):
            send_into(known, scheduler, claims)
        client.config_set("maxmemory", "0")
    assert {one.state for one in known} == {"sent"}
    assert 0 < len(known) < len(claims)
    taken = {one.claim.run_id for one in known}
    left = [claim for claim in claims if claim.run_id not in taken]
    assert states(send(scheduler, *left), left) == ["sent"] * len(left)
    assert arrived(broker) == once(claims)


@on_sqlite
def test_redis_that_is_full_is_said_once_and_the_misfire_policy_is_asked(
    private_redis: PrivateRedis,
    migrated_url: str,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While Redis has no room nothing is claimed; then one run stands for what was missed."""
    broker = Broker("redis", private_redis.url)
    app = new_app(broker, migrated_url, result_expires=None)
    with running(app) as scheduler, redis.Redis.from_url(private_redis.url) as client:
        scheduler.store.database.clock = clock
        scheduler.store.add("each", "tests.note", "* * * * *", misfire="coalesce")
        scheduler.tick()
        scheduler.store.add("first", "tests.note", Once(clock.now()))
        client.config_set("maxmemory", "1")
        for _ in range(20):
            clock.advance(60)
            assert scheduler.tick() > 0
            scheduler._broker_retry_at = 0.0
        while_full = {run.entry_name: run.state for run in scheduler.store.runs()}
        client.config_set("maxmemory", "0")
        clock.advance(1)
        tick_until_idle(scheduler)
        runs = scheduler.store.runs("each")
    assert set(while_full.values()) == {"claimed"}
    assert len(while_full) <= 2
    assert sum(max(1, run.missed_count) for run in runs) >= 19
    assert len(runs) <= 3
    assert {run.state for run in runs} == {"sent"}
    assert max(Counter(message.id for message in broker.drain()).values()) == 1
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert [line.split(",")[0].split(" after")[0] for line in said] == [
        "the broker is unavailable",
        "an entry is late",
        "the broker is available again",
    ]


@on_sqlite
def test_redis_restarted_between_two_ticks(
    private_redis: PrivateRedis, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that was restarted while nothing was due is not even an outage."""
    broker = Broker("redis", private_redis.url)
    app = new_app(broker, migrated_url, result_expires=None)
    with running(app) as scheduler:
        scheduler.store.add("a", "tests.note", Once(NOON))
        assert scheduler.tick() < TOGETHER_S
        private_redis.restart()
        scheduler.store.add("b", "tests.note", Once(NOON))
        assert scheduler.tick() < TOGETHER_S
        assert {run.state for run in scheduler.store.runs()} == {"sent"}
    assert len(broker.drain()) == 2
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


@on_sqlite
def test_a_broker_that_stops_answering_holds_up_a_tick_for_a_moment_only(
    private_redis: PrivateRedis, migrated_url: str
) -> None:
    """A frozen broker is an outage like any other; when it thaws, all is sent."""
    broker = Broker("redis", private_redis.url, transport_options={"socket_timeout": 0.3})
    app = new_app(broker, migrated_url, result_expires=None)
    with running(app) as scheduler:
        scheduler.store.add("a", "tests.note", Once(NOON))
        scheduler.tick()
        private_redis.pause()
        scheduler.store.add("b", "tests.note", Once(NOON))
        before = time.monotonic()
        assert 0 < scheduler.tick() <= 1
        assert time.monotonic() - before < 5
        private_redis.resume()

        def all_sent() -> bool:
            scheduler.tick()
            return [run.state for run in scheduler.store.runs()] == ["sent", "sent"]

        wait_until(all_sent, 20, "both runs sent", interval=0.1)
    assert {message.headers["beatstore_entry"] for message in broker.drain()} == {"a", "b"}
