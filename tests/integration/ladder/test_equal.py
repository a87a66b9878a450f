"""A message from a template is the one that `apply_async` would have sent, field by field."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from celery import Celery, Task
from kombu import Exchange, Queue
from kombu.common import Broadcast

from beatstore.beat.ladder import template
from beatstore.beat.scheduler import DBScheduler
from beatstore.tick.claims import Claim, Outcome
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
DONE = {"task": "tests.done", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None}
UUID = {"__type__": "uuid", "__value__": {"hex": "0" * 32}}

#: The options of an entry: on these a message comes from a template.
PLAIN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "priority": {"priority": 6},
    "headers": {"headers": {"mine": {"deep": [1, "ü%s"]}, "other": None}},
    "limits": {"time_limit": 60, "soft_time_limit": 50, "ignore_result": True, "shadow": "as"},
    "links": {"link": [DONE], "link_error": [DONE, DONE]},
    "lineage": {"root_id": "the-root", "parent_id": "the-parent"},
    "stamps": {"stamped_headers": ["who"], "who": "me"},
    "group": {"group_id": "g", "group_index": 2, "reply_to": "somewhere"},
    "transient": {"delivery_mode": 1, "retry": True, "retry_policy": {"max_retries": 1}},
    "queue": {"queue": "{queue}-other"},
}

#: On these it is Celery that makes it.
NOT_PLAIN: dict[str, dict[str, Any]] = {
    "expires": {"expires": 600},
    "compression": {"compression": "gzip"},
    "serializer": {"serializer": "yaml"},
    "argsrepr": {"argsrepr": "(…)"},
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two apps name their thread alike in `reply_to`."""
    monkeypatch.setattr(Celery, "thread_oid", "the-thread")


ARGUMENTS: list[tuple[list[Any], dict[str, Any]]] = [
    ([], {}),
    ([1, -2.5, True, None, 'it\'s 100 % "ü" \\ \n'], {"k": "v", "a'b": None, "ü": 2**70}),
    ([[1, {"a": [2]}], {"b": {}}], {"when": UUID}),
    (["x" * 3000], {"k": ["y" * 2000]}),
    ([0] * 500, {}),
]


def claims_of(task: str, options: dict[str, Any]) -> list[Claim]:
    """Return claims of three runs for each of the arguments, some of which cover misfires."""
    found = []
    for args, kwargs in ARGUMENTS:
        for number in range(3):
            claim = new_claim(task, args=args, kwargs=kwargs, options=options)
            claim = replace(claim, name=f'it\'s {number} % "ü"', attempt=number + 1)
            if number == 2:
                claim = replace(claim, first_missed_at=NOON - timedelta(hours=3), missed_count=3)
            found.append(replace(claim, due_at=NOON + timedelta(microseconds=number)))
    return found


def raw_messages(broker: Broker, queue: str) -> list[Any]:
    """Take all messages off a queue as they lay there, without what is drawn by lot."""
    if broker.name == "redis":
        with redis.Redis.from_url(broker.url) as client:
            keys = sorted(key for key in client.keys(f"{queue}*") if client.type(key) == b"list")
            texts = [(key, text) for key in keys for text in client.lrange(key, 0, -1)[::-1]]
            for key in keys:
                client.delete(key)
        messages = [(key, json.loads(text, object_pairs_hook=list)) for key, text in texts]
        for _, message in messages:
            properties = dict(message)["properties"]
            properties[:] = [pair for pair in properties if pair[0] != "delivery_tag"]
        return messages
    found = []
    for message in broker.drain(queue):
        message.properties["delivery_info"].pop("delivery_tag", None)
        found.append((list(message.headers.items()), message))
    return found


def both(
    scheduler_on: Callable[..., DBScheduler],
    broker: Broker,
    claims: list[Claim],
    queue: str,
    prepare: Any = None,
    **settings: Any,
) -> tuple[list[Any], list[Any], DBScheduler]:
    """Send claims by templates and by hooks; return both results, and the first scheduler."""
    found: list[list[Any]] = []
    schedulers = []
    for how in ("auto", "hooks"):
        scheduler = scheduler_on(broker, prepare, beatstore_send=how, **settings)
        outcomes = send(scheduler, *claims)
        assert sorted(outcomes, key=lambda one: one.claim.run_id) == [
            Outcome(claim, "sent") for claim in claims
        ]
        found.append(raw_messages(broker, queue))
        schedulers.append(scheduler)
    return found[0], found[1], schedulers[0]


@pytest.mark.parametrize("task", ["tests.note", "elsewhere.task"])
@pytest.mark.parametrize("name", PLAIN)
def test_messages_from_templates(
    fast_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    name: str,
) -> None:
    """Every field and its order, whatever the arguments are; and they are rendered indeed."""
    rendered: list[Any] = []
    own = template.Templates.render

    def noting(self: Any, claims: Any) -> Any:
        rendered.extend(own(self, claims))
        return rendered[-len(claims) :]

    monkeypatch.setattr(template.Templates, "render", noting)
    given = json.loads(json.dumps(PLAIN[name]).replace("{queue}", fast_broker.queue))
    queue = given.get("queue", fast_broker.queue)
    claims = claims_of(task, given)
    with_templates, by_hooks, scheduler = both(scheduler_on, fast_broker, claims, queue)
    assert with_templates == by_hooks
    assert len(by_hooks) == len(claims) == len(rendered)
    assert None not in rendered
    assert scheduler.sender.ladder.step is not None
    assert scheduler.sender.ladder.step.name == {"redis": "push"}.get(fast_broker.name, "publish")


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_messages_that_only_celery_makes(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler], name: str
) -> None:
    """What no template holds is left to Celery, message by message, between the others."""
    options = NOT_PLAIN[name]
    claims = [new_claim(options=options if n % 3 else {}, args=[n]) for n in range(30)]
    scheduler = scheduler_on(fast_broker)
    scheduler.producer.channel  # noqa: B018  (the channel that the templates are made for)
    rendered = scheduler.sender.ladder.render(claims)
    assert [one is None for one in rendered] == [n % 3 > 0 for n in range(30)]
    outcomes = send(scheduler, *claims)
    assert [one.state for one in outcomes] == ["sent"] * 30
    if name == "serializer":  # which this process refuses to read
        assert fast_broker.count() == 30
    else:
        assert [message.args for message in fast_broker.drain()] == [[n] for n in range(30)]


def nothing(*args: Any) -> None:
    """Do nothing."""


def routed(app: Celery) -> None:
    """Give an app tasks of several kinds, and queues and routes of several kinds."""
    queue = app.conf.task_default_queue
    app.conf.task_queues = [
        Queue(queue),
        Queue(f"{queue}-direct", Exchange(f"{queue}-direct"), routing_key="a.b"),
        Queue(f"{queue}-topic", Exchange(f"{queue}-topic", "topic"), routing_key="a.#"),
        Queue(f"{queue}-quorum", queue_arguments={"x-queue-type": "quorum"}),
        Queue(f"{queue}-passing", queue_arguments={"x-expires": 60_000}),
        Broadcast(f"{queue}-all", queue=f"{queue}-all"),
    ]
    for name in ("direct", "topic", "quorum", "passing", "all"):
        app.task(nothing, name=f"kind.{name}", shared=False)
    app.conf.task_routes = {
        "kind.direct": {"queue": f"{queue}-direct"},
        "kind.topic": {"queue": f"{queue}-topic", "routing_key": "a.b.c"},
        "kind.quorum": {"queue": f"{queue}-quorum", "priority": 2},
        "kind.passing": {"queue": f"{queue}-passing"},
        "kind.all": {"queue": f"{queue}-all"},
    }


@pytest.mark.parametrize("kind", ["direct", "topic", "quorum", "passing", "all"])
def test_routes_and_queues(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler], kind: str
) -> None:
    """Direct, topic, quorum, expiring and broadcast: each message goes where Celery sends it."""
    queue = f"{fast_broker.queue}-{kind}"
    prepared = scheduler_on(fast_broker, routed)
    with prepared.app.connection_for_write() as connection:
        bound = prepared.app.amqp.queues[queue](connection.default_channel)
        bound.declare()
    claims = [new_claim(f"kind.{kind}", args=[n]) for n in range(10)]
    try:
        found = both(scheduler_on, fast_broker, claims, bound.name, routed)
        assert found[0] == found[1]
        assert kind == "all" or len(found[1]) == 10
    finally:
        with prepared.app.connection_for_write() as connection:
            bound(connection.default_channel).delete()


class Own(Task):  # type: ignore[type-arg]
    """Options of the class, which Celery adds to each message."""

    priority = 4
    ignore_result = True
    soft_time_limit = 7


def test_options_of_a_task_class(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler]
) -> None:
    """What a class sets is in the template."""

    def prepare(app: Celery) -> None:
        app.task(nothing, base=Own, name="tests.own", shared=False, typing=False)

    claims = [new_claim("tests.own", args=[n]) for n in range(10)]
    found = both(scheduler_on, fast_broker, claims, fast_broker.queue, prepare)
    assert found[0] == found[1]
    assert len(found[1]) == 10


def test_a_change_of_the_configuration_counts(
    fast_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A template is made anew after some seconds."""
    scheduler = scheduler_on(fast_broker)
    send(scheduler, *(new_claim() for _ in range(5)))
    scheduler.app.tasks["tests.note"].ignore_result = True
    monkeypatch.setattr(template, "_LASTS", 0)
    send(scheduler, *(new_claim() for _ in range(5)))
    found = [message.headers["ignore_result"] for message in fast_broker.drain()]
    assert found == [False] * 5 + [True] * 5


def test_options_that_never_come_again(
    fast_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many entries have options of their own, what is remembered of them stays small."""
    monkeypatch.setattr(template, "_MOST", 50)
    scheduler = scheduler_on(fast_broker)
    scheduler.producer.channel  # noqa: B018  (the channel that the templates are made for)
    for start in range(0, 1000, 100):
        claims = [new_claim(options={"shadow": f"{start + n}"}) for n in range(100)]
        assert scheduler.sender.ladder.render(claims) == [None] * 100
    templates = scheduler.sender.ladder._templates
    assert templates is not None
    assert len(templates._seen) <= 150


def test_wrong_arguments_fail_alone(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler]
) -> None:
    """A call that the task's signature refuses is told as Celery tells it."""

    def prepare(app: Celery) -> None:
        @app.task(name="tests.two", shared=False)
        def two(x: int, y: int) -> None:
            """Take exactly two arguments."""

    scheduler = scheduler_on(fast_broker, prepare)
    claims = [new_claim("tests.two", args=[n] if n == 4 else [n, n]) for n in range(9)]
    outcomes = {one.claim.args[0]: one for one in send(scheduler, *claims)}
    assert [outcomes[n].state for n in range(9)] == ["sent"] * 4 + ["failed"] + ["sent"] * 4
    assert "TypeError" in str(outcomes[4].reason)
    assert [message.args[0] for message in fast_broker.drain()] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_ids_of_their_own(fast_broker: Broker, scheduler_on: Callable[..., DBScheduler]) -> None:
    """A task id that an entry gives is the message's, whatever characters it has."""
    odd = [f'{uuid.uuid4()}"%s' for _ in range(5)]
    claims = [replace(new_claim(), task_id=one) for one in odd]
    found = both(scheduler_on, fast_broker, claims, fast_broker.queue)
    assert found[0] == found[1]
    assert len(found[1]) == 5
