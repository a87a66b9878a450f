"""Whatever is hooked into the way of a message is found at each batch, and sees all of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any
from unittest import mock

import celery.app.amqp
import celery.app.task
import celery.beat
import kombu.messaging
import kombu.transport.redis
import pytest
from celery import Celery, Task, signals
from kombu import serialization

from beatstore import Settings, setup
from beatstore.beat.ladder.genuine import is_genuine
from beatstore.beat.ladder.push import Push
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import ConfigError
from beatstore.tick.tick import BATCH
from tests.support.batches import count_pipelines, with_pipelines
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send

Prepare = Callable[[Celery, ExitStack, list[str]], None]


def _wrapped(owner: Any, name: str, stack: ExitStack, seen: list[str]) -> None:
    own = getattr(owner, name)

    @wraps(own)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return own(*args, **kwargs)

    stack.enter_context(mock.patch.object(owner, name, wrapper))


def _method(owner: Any, name: str) -> Prepare:
    return lambda app, stack, seen: _wrapped(owner, name, stack, seen)


def _signal(name: str) -> Prepare:
    def prepare(app: Celery, stack: ExitStack, seen: list[str]) -> None:
        def receiver(**_: Any) -> None:
            seen.append(name)

        receivers = getattr(signals, name)
        receivers.connect(receiver, weak=False)
        stack.callback(receivers.disconnect, receiver)

    return prepare


def _router(app: Celery, stack: ExitStack, seen: list[str]) -> None:
    def route(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> None:
        seen.append(name)

    app.conf.task_routes = (route,)


def _subclass(app: Celery, stack: ExitStack, seen: list[str]) -> None:
    class Named(Task):  # type: ignore[type-arg]
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
            seen.append("shadow")
            return "shadow"

    @app.task(base=Named, name="tests.named", shared=False)
    def named() -> None:
        """Do nothing."""


def _results(app: Celery, stack: ExitStack, seen: list[str]) -> None:
    class Noted(Task):  # type: ignore[type-arg]
        def AsyncResult(self, task_id: str, **kwargs: Any) -> Any:  # noqa: N802  (Celery's name)
            seen.append(task_id)
            return super().AsyncResult(task_id, **kwargs)

    @app.task(base=Noted, name="tests.named", shared=False)
    def named() -> None:
        """Do nothing."""


def _making(app: Celery, stack: ExitStack, seen: list[str]) -> None:
    _wrapped(app.amqp, "create_task_message", stack, seen)


HOOKS: dict[str, Prepare] = {
    "a wrapper of apply_entry, as of Sentry": _method(celery.beat.Scheduler, "apply_entry"),
    "a wrapper of apply_async": _method(celery.app.task.Task, "apply_async"),
    "a wrapper of send_task": _method(Celery, "send_task"),
    "a wrapper of publish": _method(kombu.messaging.Producer, "publish"),
    "a receiver of before_task_publish": _signal("before_task_publish"),
    "a receiver of after_task_publish": _signal("after_task_publish"),
    "a router of the user's": _router,
    "a class that names its messages": _subclass,
    "a class that notes its results": _results,
    "a maker of messages": _making,
    "a wrapper of saferepr, which hides secrets": _method(celery.app.amqp, "saferepr"),
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Undo, at the end, what a test has hooked in."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_sees_each_message(
    fast_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    stack: ExitStack,
    name: str,
) -> None:
    """It is called once for each, also if it came after the first batch."""
    seen: list[str] = []
    task = "tests.named" if name.startswith("a class") else "tests.note"
    scheduler = scheduler_on(fast_broker)
    send(scheduler, *(new_claim() for _ in range(5)))
    assert scheduler.sender.ladder.step is not None
    assert scheduler.sender.ladder.step.name != "hooks"
    HOOKS[name](scheduler.app, stack, seen)
    vars(scheduler.app.amqp).pop("router", None)
    # Celery 5.6 keeps the list of receivers, which is another one after a receiver of some other
    # test has died; apply_async then calls nobody who is connected later.
    vars(scheduler.app.amqp).pop("send_task_message", None)
    scheduler.app.amqp.flush_routes()
    claims = [new_claim(task) for _ in range(7)]
    assert {one.state for one in send(scheduler, *claims)} == {"sent"}
    assert len(seen) >= len(claims)
    assert len(fast_broker.drain()) == 12


def test_what_is_made_of_the_arguments(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler]
) -> None:
    """A header that the application takes from the arguments is that of each message."""

    def prepare(app: Celery) -> None:
        own = app.amqp.task_protocols[2]

        def made(task_id: str, name: str, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
            message = own(task_id, name, args, kwargs, *rest, **more)
            message.headers["tenant"] = args[0]
            return message

        app.amqp.task_protocols[2] = made

    scheduler = scheduler_on(fast_broker, prepare)
    send(scheduler, *(new_claim(args=[n]) for n in range(6)))
    assert [one.headers["tenant"] for one in fast_broker.drain()] == list(range(6))


def test_what_nobody_looks_for(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler], stack: ExitStack
) -> None:
    """Whatever makes a message differ by its arguments, there is no template of it."""
    own = celery.app.amqp.task_message

    def made(headers: Any, properties: Any, body: Any, sent_event: Any) -> Any:
        return own({**headers, "tenant": body[0][0]}, properties, body, sent_event)

    stack.enter_context(mock.patch.object(celery.app.amqp, "task_message", made))
    scheduler = scheduler_on(fast_broker)
    send(scheduler, *(new_claim(args=[n]) for n in range(6)))
    assert [one.headers["tenant"] for one in fast_broker.drain()] == list(range(6))


@with_pipelines
def test_a_hook_of_the_channel_sees_each_message(
    redis_broker: Broker, scheduler_on: Callable[..., DBScheduler], stack: ExitStack
) -> None:
    """Also the last method before Redis."""
    seen: list[str] = []
    scheduler = scheduler_on(redis_broker)
    send(scheduler, *(new_claim() for _ in range(5)))
    _wrapped(kombu.transport.redis.Channel, "basic_publish", stack, seen)
    send(scheduler, *(new_claim() for _ in range(7)))
    assert len(seen) == 7


def test_a_json_of_the_user_s(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler], stack: ExitStack
) -> None:
    """A serializer of the user's makes each body, though it says that it is JSON as kombu's is."""
    codecs = serialization.registry
    stack.enter_context(mock.patch.dict(codecs._encoders))
    stack.enter_context(mock.patch.dict(codecs._decoders))

    def dumps(body: Any) -> str:
        return json.dumps(body, default=lambda value: f"mine: {value}")

    serialization.register("json", dumps, json.loads, "application/json", "utf-8")
    when = {"__type__": "uuid", "__value__": {"hex": "0" * 32}}
    scheduler = scheduler_on(fast_broker)
    send(scheduler, *(new_claim() for _ in range(5)))
    send(scheduler, new_claim(args=[when]))
    assert fast_broker.drain()[-1].args == [f"mine: {uuid.UUID(int=0)}"]
    assert scheduler.sender.ladder.step is not None
    assert scheduler.sender.ladder.step.why == "the serializer 'json' is not kombu's"


@with_pipelines
def test_the_log_says_which_step(
    redis_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    caplog: pytest.LogCaptureFixture,
    stack: ExitStack,
) -> None:
    """Once, and again when it changes, with the reason."""
    caplog.set_level("INFO", "beatstore.beat.ladder")
    scheduler = scheduler_on(redis_broker)
    for _ in range(2):
        send(scheduler, new_claim())
    (record,) = caplog.records
    assert record.getMessage() == (
        "messages are sent on the step push: from templates, with one LPUSH for each queue and "
        "batch"
    )
    caplog.clear()
    _signal("before_task_publish")(scheduler.app, stack, [])
    send(scheduler, new_claim())
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "messages are sent on the step hooks: by apply_async for each message, since "
    )
    assert record.getMessage().endswith("receiver is connected to before_task_publish")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"beatstore_send": "hooks"}, "beatstore_send says so"),
        ({"task_send_sent_event": True}, "task_send_sent_event is set"),
        ({"task_protocol": 1}, "task_protocol is 1"),
        ({"broker_transport_options": {"retry_on_timeout": True}}, "redis-py might repeat"),
        ({"broker_transport_options": {"body_encoding": "utf-8"}}, "body_encoding is 'utf-8'"),
    ],
)
@with_pipelines
def test_settings_that_need_celery(
    redis_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    settings: dict[str, Any],
    why: str,
) -> None:
    """Where templates would differ from what Celery sends, there are none."""
    scheduler = scheduler_on(redis_broker, **settings)
    assert [one.state for one in send(scheduler, *(new_claim() for _ in range(5)))] == ["sent"] * 5
    assert scheduler.sender.ladder.step is not None
    assert scheduler.sender.ladder.step.name == "hooks"
    assert why in scheduler.sender.ladder.step.why


def test_a_protocol_that_does_not_exist(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler]
) -> None:
    """Celery makes no message in it, and its error is that of each run."""
    scheduler = scheduler_on(fast_broker, task_protocol=3)
    outcomes = send(scheduler, *(new_claim() for _ in range(5)))
    assert [(one.state, one.reason) for one in outcomes] == [("failed", "KeyError: 3")] * 5


@with_pipelines
def test_a_beat_that_stood_still_pushes_nothing(
    redis_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once another beat may hold the claims, what was rendered before is not written."""
    scheduler = scheduler_on(redis_broker)
    send(scheduler, *(new_claim() for _ in range(5)))
    redis_broker.purge()
    claims, own = [new_claim(args=[n]) for n in range(5)], Push.put
    until = time.monotonic() + 0.5

    def slow(self: Push, message: tuple[str, str]) -> None:
        own(self, message)
        if len(self._in) == len(claims):
            time.sleep(0.6)

    monkeypatch.setattr(Push, "put", slow)
    outcomes = send(scheduler, *claims, until=until)
    assert [one.state for one in outcomes] == ["claimed"] * 5
    assert redis_broker.count() == 0


@with_pipelines
def test_a_batch_is_one_command_for_each_queue(
    redis_broker: Broker,
    scheduler_on: Callable[..., DBScheduler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And all commands of a batch are one round trip."""
    scheduler, other = scheduler_on(redis_broker), f"{redis_broker.queue}-other"
    send(scheduler, *(new_claim(options=one) for one in 5 * [{}, {"queue": other}]))
    sizes = count_pipelines(monkeypatch)
    send(scheduler, *(new_claim(options=one) for one in BATCH * [{}, {"queue": other}]))
    assert sizes == [2, 2]
    assert (redis_broker.count(), redis_broker.count(other)) == (5 + BATCH, 5 + BATCH)
    redis_broker.purge(other)


@with_pipelines
def test_setup_is_no_hook(redis_broker: Broker, scheduler_on: Callable[..., DBScheduler]) -> None:
    """Beatstore's own receivers look only at messages of running tasks."""
    scheduler = scheduler_on(redis_broker, prepare=setup)
    send(scheduler, new_claim())
    assert scheduler.sender.ladder.step is not None
    assert scheduler.sender.ladder.step.name == "push"


def test_a_step_that_does_not_exist() -> None:
    """`beatstore_send` knows two words."""
    assert Settings.read({"beatstore_send": "hooks"}).send == "hooks"
    with pytest.raises(ConfigError, match="auto, hooks"):
        Settings.read({"beatstore_send": "fast"})


def test_what_is_genuine() -> None:
    """Only a function from the library's own file, however it is reached."""
    channel = kombu.transport.redis.Channel
    one = object.__new__(channel)
    assert is_genuine(one, "_put", kombu.transport.redis)
    one.__dict__["_put"] = partial(channel._put, one)
    assert not is_genuine(one, "_put", kombu.transport.redis)
    assert not is_genuine(one, "no_such_method", kombu.transport.redis)
    assert not is_genuine(one, "basic_publish", kombu.transport.redis)


def test_routes_that_celery_can_t_read_are_told_by_each_run(
    fast_broker: Broker, scheduler_on: Callable[..., DBScheduler]
) -> None:
    """A wrong `task_routes` fails the runs with its error, and not the tick, run after run."""
    scheduler = scheduler_on(fast_broker, task_routes=[("tests.note",)])
    for _ in range(2):
        (outcome,) = send(scheduler, new_claim())
        assert (outcome.state, outcome.reason[:10]) == ("failed", "ValueError")
    assert "a setting of the app can't be used (ValueError: " in str(scheduler.sender.ladder.step)
