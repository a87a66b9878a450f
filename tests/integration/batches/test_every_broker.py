"""Batches on every broker: what is sent, and what fails alone."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

import kombu
import pytest
from celery import chord, group
from kombu import Exchange, Queue

from beatstore.beat import batches
from beatstore.beat.batches import Batch, batch_of
from beatstore.beat.message import RETRY_S
from beatstore.tick.claims import Outcome
from beatstore.tick.tick import BATCH
from tests.support.batches import NewScheduler, arrived, new_claims, once, states
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send
from tests.support.ports import free_port

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


# -- waits ---------------------------------------------------------------------------------


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
