"""Batches on real brokers: what is refused, lost, slow or stale, and what is sent all the same."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import urlsplit

import kombu
import pytest
import redis
from celery import Task, chord, group
from celery.signals import before_task_publish
from kombu import Exchange, Queue
from kombu.common import Broadcast
from kombu.messaging import Producer

from beatstore import Once
from beatstore.beat import batches, confirms
from beatstore.beat.batches import Batch, Confirmed, Pipeline, batch_of
from beatstore.beat.confirms import Confirms
from beatstore.beat.scheduler import DBScheduler
from beatstore.beat.sender import RETRY_S
from beatstore.clock import ManualClock
from beatstore.errors import BrokerError, NackedError, UnsureError
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.tick import BATCH
from tests.support.brokers import Broker
from tests.support.inprocess import new_app, new_claim, running, send, send_into
from tests.support.marks import on_sqlite
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.servers import PrivateRedis
from tests.support.wait import wait_until

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
NewScheduler = Callable[..., DBScheduler]

with_pipelines = pytest.mark.skipif(
    not hasattr(Producer, "supports_batch_publish"), reason="kombu before 5.7 has no batches"
)


@pytest.fixture
def new_scheduler() -> Iterator[NewScheduler]:
    """Return a function that makes a lazy scheduler on a broker; its app has `tests.note`."""
    with ExitStack() as stack:

        def new(broker: Broker, **settings: Any) -> DBScheduler:
            app = new_app(broker, **settings)

            @app.task(name="tests.note", shared=False)
            def note(*args: Any, **kwargs: Any) -> None:
                """Do nothing."""

            return stack.enter_context(running(app, lazy=True))

        yield new


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


# -- on every broker -----------------------------------------------------------------------


def test_a_batch_arrives(broker: Broker, new_scheduler: NewScheduler) -> None:
    """Some batches of messages are sent, each message once."""
    scheduler, claims = new_scheduler(broker), new_claims(2 * BATCH + 50)
    assert send(scheduler, *claims) == [Outcome(claim, "sent") for claim in claims]
    assert arrived(broker) == once(claims)


@pytest.mark.parametrize("task", ["tests.note", "elsewhere.task"])
def test_options_reach_a_real_broker(
    broker: Broker, new_scheduler: NewScheduler, task: str
) -> None:
    """Routing, priority, limits, callbacks, headers and encoding survive the journey."""
    done = {"task": "tests.done", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}
    claim = new_claim(
        task,
        args=[1, "ü"],
        kwargs={"k": [None]},
        options={
            "queue": f"{broker.queue}-other",
            "priority": 3,
            "expires": 600,
            "serializer": "json",
            "compression": "gzip",
            "time_limit": 60,
            "soft_time_limit": 50,
            "shadow": "shown as",
            "ignore_result": True,
            "link": [done],
            "link_error": [done],
            "headers": {"mine": {"deep": [1]}},
            "eta": "2030-01-01T00:00:00+00:00",
            "countdown": 5,
        },
    )
    before = datetime.now(timezone.utc)
    assert send(new_scheduler(broker), claim) == [Outcome(claim, "sent")]
    (message,) = broker.drain(f"{broker.queue}-other")
    with kombu.Connection(broker.url, transport_options=broker.transport_options) as connection:
        Queue(f"{broker.queue}-other", channel=connection.default_channel).delete()
    headers, embed = message.headers, message.embed
    assert (headers["task"], headers["id"]) == (task, claim.task_id)
    assert (message.args, message.kwargs) == ([1, "ü"], {"k": [None]})
    assert [one["task"] for one in embed["callbacks"]] == ["tests.done"]
    assert [one["task"] for one in embed["errbacks"]] == ["tests.done"]
    assert message.properties["priority"] == 3
    assert headers["compression"] == "application/x-gzip"
    assert headers["timelimit"] == [60, 50]
    assert headers["shadow"] == "shown as"
    assert headers["ignore_result"] is True
    assert headers["eta"] is None
    expires = datetime.fromisoformat(headers["expires"]) - before
    assert timedelta(seconds=600) <= expires < timedelta(seconds=630)
    assert headers["mine"] == {"deep": [1]}
    assert headers["celery_beat_task"] is True
    assert headers["periodic_task_name"] == headers["beatstore_entry"] == claim.name
    assert headers["beatstore_run_id"] == claim.run_id
    assert headers["beatstore_due_at"] == claim.due_at.isoformat()
    assert headers["beatstore_attempt"] == 1


@pytest.mark.parametrize("options", [{"exchange": "x"}, {}], ids=["exchange", "route"])
def test_a_message_follows_its_routing_key(
    broker: Broker, new_scheduler: NewScheduler, options: dict[str, Any]
) -> None:
    """An exchange and routing key, of the entry or of `task_routes`, decide about the queue."""
    exchange = f"{broker.queue}-exchange"
    queue = Queue(f"{broker.queue}-bound", Exchange(exchange), routing_key="a.b")
    route = {"exchange": exchange, "exchange_type": "direct"}
    scheduler = new_scheduler(
        broker, task_queues=[queue], task_routes={} if options else {"tests.*": route}
    )
    with scheduler.app.connection_for_write() as connection:
        queue(connection.default_channel).declare()
    given = {"routing_key": "a.b", **({"exchange": exchange} if options else {})}
    claim = new_claim(options=given)
    assert send(scheduler, claim) == [Outcome(claim, "sent")]
    assert arrived(broker, queue.name) == once([claim])
    with scheduler.app.connection_for_write() as connection:
        queue(connection.default_channel).delete()
        queue.exchange(connection.default_channel).delete()


def test_what_can_not_be_sent_fails_alone_in_its_batch(
    broker: Broker, new_scheduler: NewScheduler
) -> None:
    """A message that can't be made leaves all others of its batch sent once."""
    scheduler, claims = new_scheduler(broker), new_claims(BATCH)
    bad = new_claim(options={"compression": "nothing"})
    outcomes = send(scheduler, *claims[:40], bad, *claims[40:])
    assert [one.claim for one in outcomes if one.state == "failed"] == [bad]
    assert Counter(one.state for one in outcomes) == {"sent": BATCH, "failed": 1}
    assert arrived(broker) == once(claims)


def test_a_hook_that_can_not_connect_delays_only_its_own_message(
    broker: Broker, new_scheduler: NewScheduler
) -> None:
    """A connection error of a task's own `apply_async` is not the broker's: nothing is doubled."""
    scheduler, claims = new_scheduler(broker), new_claims(60)

    class Locked(scheduler.app.Task):  # type: ignore[name-defined,misc]
        def apply_async(self, *args, **kwargs):
            raise ConnectionRefusedError("its lock server is away")

    @scheduler.app.task(name="tests.locked", base=Locked, shared=False)
    def locked() -> None:
        """Do nothing."""

    claims[30] = new_claim("tests.locked")
    outcomes = send(scheduler, *claims)
    assert states(outcomes, claims) == ["sent"] * 30 + ["claimed"] + ["sent"] * 29
    (delayed,) = [one for one in outcomes if one.state == "claimed"]
    assert delayed.retry_in == RETRY_S
    assert "its lock server is away" in str(delayed.reason)
    assert arrived(broker) == once(claims[:30] + claims[31:])


class AlreadyQueued(Exception):  # noqa: N818  (celery-once calls it so)
    """What celery-once raises."""


def locking(scheduler: DBScheduler) -> str:
    """Register a task that takes a lock when it is sent; return its name.

    As celery-once and celery-singleton do: the lock is there until the task has run.
    """
    locks: dict[str, str] = {}

    class Once(Task):
        def apply_async(self, args=None, kwargs=None, task_id=None, **options):
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


# -- the result backend, which beat needs only for chords ----------------------------------


def test_a_result_backend_that_is_away_holds_up_nothing(
    broker: Broker, new_scheduler: NewScheduler
) -> None:
    """Messages leave as quickly as ever, and are sent, where nobody would take their results."""
    scheduler = new_scheduler(broker, result_backend=f"redis://127.0.0.1:{free_port()}/0")
    claims, note = new_claims(30), scheduler.app.tasks["tests.note"]
    found = group(note.si(1), note.si(2), app=scheduler.app)
    both = new_claim("celery.group", kwargs=dict(found["kwargs"]))
    before = time.monotonic()
    assert states(send(scheduler, *claims, both), [*claims, both]) == ["sent"] * 31
    assert time.monotonic() - before < 5
    found = arrived(broker)
    assert set(once(claims)) < set(found)
    assert (len(found), set(found.values())) == (32, {1})
    assert "on_task_call" not in vars(scheduler.app.backend)


def test_a_chord_waits_for_its_result_backend_alone(
    broker: Broker, new_scheduler: NewScheduler
) -> None:
    """A chord can't be sent without its backend: it is tried later, and the others are sent."""
    scheduler = new_scheduler(broker, result_backend=f"redis://127.0.0.1:{free_port()}/0")
    note = scheduler.app.tasks["tests.note"]
    found = chord([note.si(1), note.si(2)], note.si(3), app=scheduler.app)
    claims = new_claims(6)
    claims[3] = new_claim("celery.chord", args=list(found.args), kwargs=dict(found.kwargs))
    before = time.monotonic()
    outcomes = send(scheduler, *claims)
    assert time.monotonic() - before < 8
    assert states(outcomes, claims) == ["sent"] * 3 + ["claimed"] + ["sent"] * 2
    assert arrived(broker) == once([one for one in claims if one is not claims[3]])


# -- RabbitMQ ------------------------------------------------------------------------------


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


class Answers:
    """A channel of py-amqp's, and the answers to what is published on it."""

    def __init__(self, *answers: tuple[str, int, bool]) -> None:
        self.events: dict[str, set[Callable[..., None]]] = {}
        for name in ("basic_ack", "basic_nack", "basic_return"):
            self.events[name] = set()
        self.connection = self.channel = self
        self.confirm_publish = False
        self.channel_errors = ()
        self._answers = list(answers)

    def confirm_select(self) -> None:
        """Switch confirms on."""

    def basic_publish(self, *_: object, **__: object) -> None:
        """Take a message."""

    def drain_events(self, timeout: float) -> None:
        """Hand out the next answer."""
        if not self._answers:
            raise TimeoutError("no answer")
        name, number, multiple = self._answers.pop(0)
        for receive in self.events[name]:
            receive(number, multiple)


class Sent:
    """A message of py-amqp's, as far as it is looked at."""

    properties: ClassVar[dict[str, Any]] = {}
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


@pytest.fixture
def relay(rabbitmq_broker: Broker) -> Iterator[Proxy]:
    """Return a relay to RabbitMQ."""
    with Proxy(urlsplit(rabbitmq_broker.url).port or 5672) as proxy:
        yield proxy


def through(relay: Proxy, broker: Broker) -> Broker:
    """Return the same broker, reached through a relay."""
    parts = urlsplit(broker.url)
    host = f"{parts.username}:{parts.password}@127.0.0.1:{relay.port}"
    return replace(broker, url=parts._replace(netloc=host).geturl())


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


def test_a_lock_on_sending_survives_the_loss_of_rabbitmq(
    rabbitmq_broker: Broker, relay: Proxy, new_scheduler: NewScheduler
) -> None:
    """A task that locks itself when it is sent is not taken for a duplicate of itself."""
    scheduler = new_scheduler(through(relay, rabbitmq_broker))
    claims, known = lose_the_broker(scheduler, relay)
    assert known == [Outcome(claim, "sent") for claim in claims[:2]]
    assert states(send(scheduler, *claims[2:]), claims[2:]) == ["sent"] * 3
    assert arrived(rabbitmq_broker) == once(claims)


# -- Redis ---------------------------------------------------------------------------------


@pytest.fixture
def client(redis_broker: Broker) -> Iterator[redis.Redis]:
    """Return a client of the same database."""
    with redis.Redis.from_url(redis_broker.url) as client:
        yield client


@with_pipelines
def test_redis_gets_a_batch_in_one_round_trip(
    redis_broker: Broker, new_scheduler: NewScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages of a batch are written together."""
    scheduler = new_scheduler(redis_broker)
    send(scheduler, new_claim())
    assert isinstance(batch_of(scheduler.producer), Pipeline)
    sizes: list[int] = []
    execute = redis.client.Pipeline.execute

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(self))
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(redis.client.Pipeline, "execute", counted)
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
    scheduler = new_scheduler(broker)
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
        while not scheduler.tick():
            pass
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
        assert scheduler.tick() == 0
        private_redis.restart()
        scheduler.store.add("b", "tests.note", Once(NOON))
        assert scheduler.tick() == 0
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


@pytest.mark.parametrize("given", [{}, {"socket_timeout": 3, "read_timeout": 3}])
@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("redis://127.0.0.1:1/0", ("socket_timeout", "socket_connect_timeout")),
        ("amqp://guest:guest@127.0.0.1:1//", ("read_timeout", "write_timeout")),
    ],
)
def test_every_wait_for_a_broker_has_a_limit(
    given: dict[str, float], url: str, names: tuple[str, ...]
) -> None:
    """A beat never waits for ever; the user's own limit is stronger, and stays theirs."""
    before = dict(given)
    with kombu.Connection(url, transport_options=given) as connection:
        options = batches.bounded(connection).transport_options
    assert {name: options[name] for name in names} == {
        name: before.get(name, batches.ANSWER_TIMEOUT) for name in names
    }
    assert given == before


# -- files ---------------------------------------------------------------------------------


def test_files_are_written_one_by_one(
    filesystem_broker: Broker, new_scheduler: NewScheduler
) -> None:
    """A transport without batches gets each message as celery would send it."""
    scheduler, claims = new_scheduler(filesystem_broker), new_claims(5)
    assert type(batch_of(scheduler.producer)) is Batch
    assert states(send(scheduler, *claims), claims) == ["sent"] * 5
    assert arrived(filesystem_broker) == once(claims)
