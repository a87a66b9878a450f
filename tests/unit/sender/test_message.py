"""From a claim to its message: headers, options and canvases."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest
from celery import Celery, Task, chain, group
from celery.beat import BeatLazyFunc

from beatstore.beat.message import without_results
from beatstore.beat.scheduler import DBScheduler
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send
from tests.support.sending import sent_by

DUE = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize("task", ["tests.note", "elsewhere.task"])
def test_the_message_is_what_the_entry_says(
    scheduler: DBScheduler, memory_broker: Broker, task: str
) -> None:
    """A registered task and a name that only workers know get the same message."""
    claim = new_claim(task, args=[1, [2]], kwargs={"k": {"n": None}})
    message = sent_by(scheduler, memory_broker, claim)
    assert (message.task, message.id) == (task, claim.task_id)
    assert (message.args, message.kwargs) == ([1, [2]], {"k": {"n": None}})


def test_a_registered_task_is_sent_by_its_own_apply_async(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """What a Task class does in `apply_async`, and its own options, count for beat too."""
    seen: list[tuple[Any, ...]] = []

    class Recorded(Task):
        priority = 7

        def apply_async(self, args=None, kwargs=None, **options):
            seen.append((args, kwargs, options["task_id"]))
            return super().apply_async(args, {**kwargs, "added": True}, **options)

    @app.task(name="tests.recorded", base=Recorded, shared=False)
    def recorded(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    claim = new_claim("tests.recorded", args=[1])
    message = sent_by(scheduler, memory_broker, claim)
    assert seen == [([1], {}, claim.task_id)]
    assert message.kwargs == {"added": True}
    assert message.properties["priority"] == 7


def test_a_plain_name_is_sent_by_send_task(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A name that this process has no task for goes through the app's `send_task`."""
    with mock.patch.object(app, "send_task", wraps=app.send_task) as send_task:
        sent_by(scheduler, memory_broker, new_claim("elsewhere.task"))
        sent_by(scheduler, memory_broker, new_claim("tests.note"))
    plain, registered = send_task.call_args_list
    assert plain.args == ("elsewhere.task", [], {})
    assert "task_type" not in plain.kwargs
    assert registered.kwargs["task_type"] is app.tasks["tests.note"]


def test_lazy_functions_are_asked_at_each_send(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A `BeatLazyFunc` among the arguments is evaluated when the message is made."""
    count = itertools.count(1)
    claim = new_claim(
        args=[BeatLazyFunc(lambda: next(count))], kwargs={"k": BeatLazyFunc(max, 3, 4)}
    )
    assert sent_by(scheduler, memory_broker, claim).args == [1]
    again = sent_by(scheduler, memory_broker, claim)
    assert (again.args, again.kwargs) == ([2], {"k": 4})


def test_headers_say_which_run_it_is(scheduler: DBScheduler, memory_broker: Broker) -> None:
    """A worker, or a monitor, reads off the headers what run of which entry it sees."""
    claim = new_claim(name="nightly", attempt=2, due_at=DUE, run_id=41)
    headers = sent_by(scheduler, memory_broker, claim).headers
    ours = {key: headers[key] for key in headers if "beat" in key or "periodic" in key}
    assert ours == {
        "celery_beat_task": True,
        "periodic_task_name": "nightly",
        "beatstore_entry": "nightly",
        "beatstore_run_id": 41,
        "beatstore_task_id": claim.task_id,
        "beatstore_due_at": "2026-01-15T12:00:00+00:00",
        "beatstore_attempt": 2,
    }


def test_a_coalesced_run_says_what_it_stands_for(
    scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Where one run stands for several occurrences, the headers say since when and how many."""
    claim = new_claim(first_missed_at=DUE - timedelta(hours=3), missed_count=3)
    headers = sent_by(scheduler, memory_broker, claim).headers
    assert headers["beatstore_first_missed_at"] == "2026-01-15T09:00:00+00:00"
    assert headers["beatstore_missed_count"] == 3


@pytest.mark.parametrize("headers", [None, {}, {"mine": "x", "beatstore_entry": "forged"}])
def test_headers_of_the_entry_are_kept(
    scheduler: DBScheduler, memory_broker: Broker, headers: Any
) -> None:
    """An entry's own headers travel too, or may be missing; ours can't be overwritten."""
    claim = new_claim(options={"headers": headers})
    found = sent_by(scheduler, memory_broker, claim).headers
    assert found["beatstore_entry"] == claim.name
    assert found.get("mine") == (headers or {}).get("mine")


# An option as it is stored, the place in the message where it arrives, and what arrives.
OPTIONS = [
    ({"queue": "other"}, "queue", "other"),
    ({"priority": 4}, "properties.priority", 4),
    ({"serializer": "pickle"}, "content", "application/x-python-serialize"),
    ({"serializer": "json"}, "content", "application/json"),
    ({"compression": "gzip"}, "headers.compression", "application/x-gzip"),
    ({"time_limit": 30}, "headers.timelimit", [30, None]),
    ({"soft_time_limit": 20.5}, "headers.timelimit", [None, 20.5]),
    ({"shadow": "shown as"}, "headers.shadow", "shown as"),
    ({"ignore_result": True}, "headers.ignore_result", True),
    ({"argsrepr": "(hidden)"}, "headers.argsrepr", "(hidden)"),
    ({"kwargsrepr": "{hidden}"}, "headers.kwargsrepr", "{hidden}"),
    ({"origin": "me"}, "headers.origin", "me"),
    ({"retries": 2}, "headers.retries", 2),
    ({"group_id": "g"}, "headers.group", "g"),
    ({"group_index": 3}, "headers.group_index", 3),
    ({"root_id": "r"}, "headers.root_id", "r"),
    ({"parent_id": "p"}, "headers.parent_id", "p"),
    ({"reply_to": "r"}, "properties.reply_to", "r"),
    ({"delivery_mode": 1}, "properties.delivery_mode", 1),
    ({"delivery_mode": "transient"}, "properties.delivery_mode", 1),
    ({"message_id": "m"}, "properties.message_id", "m"),
    ({"expiration": 9}, "properties.expiration", "9000"),
    ({"headers": {"x": [1]}}, "headers.x", [1]),
    ({"stamped_headers": ["who"], "who": "me"}, "headers.stamps", {"who": "me"}),
    ({"replaced_task_nesting": 1}, "headers.replaced_task_nesting", 1),
]


@pytest.mark.parametrize("case", OPTIONS, ids=[repr(row[0]) for row in OPTIONS])
@pytest.mark.parametrize("task", ["tests.note", "elsewhere.task"])
def test_options_reach_the_message(
    scheduler: DBScheduler,
    memory_broker: Broker,
    task: str,
    case: tuple[dict[str, Any], str, object],
) -> None:
    """Every option of `apply_async` that an entry has arrives where celery puts it."""
    options, place, expected = case
    assert send(scheduler, new_claim(task, options=options))[0].state == "sent"
    queue = options.get("queue", memory_broker.queue)
    with scheduler.app.connection_for_read() as connection:
        raw = connection.SimpleQueue(queue).get_nowait()
        raw.ack()
    found: Any = {
        "queue": queue,
        "content": raw.content_type,
        "headers": {**raw.headers, "compression": raw.headers.get("compression")},
        "properties": {**raw.properties, **raw.delivery_info},
    }
    for key in place.split("."):
        found = found[key]
    assert found == expected


def test_callbacks_reach_the_message(scheduler: DBScheduler, memory_broker: Broker) -> None:
    """`link` and `link_error` travel as the signatures that celery runs after the task."""
    done = {"task": "tests.done", "args": [1], "kwargs": {}, "options": {}, "subtask_type": None}
    options = {"link": [done], "link_error": done}
    embed = sent_by(scheduler, memory_broker, new_claim(options=options)).embed
    assert [callback["task"] for callback in embed["callbacks"]] == ["tests.done"]
    assert [errback["task"] for errback in embed["errbacks"]] == ["tests.done"]


def test_expires_counts_from_the_send(scheduler: DBScheduler, memory_broker: Broker) -> None:
    """`expires` in seconds becomes an instant that far after the message was made."""
    before = datetime.now(timezone.utc)
    message = sent_by(scheduler, memory_broker, new_claim(options={"expires": 600}))
    expires = datetime.fromisoformat(message.headers["expires"])
    assert timedelta(0) <= expires - before - timedelta(seconds=600) < timedelta(seconds=20)


@pytest.mark.parametrize(("options", "expires"), [({}, 60), ({"expires": None}, None)])
def test_expires_of_none_is_not_that_of_the_task(
    app: Celery,
    scheduler: DBScheduler,
    memory_broker: Broker,
    options: dict[str, Any],
    expires: float | None,
) -> None:
    """A message that never expires, though others of its task do, is not given up after a while."""

    @app.task(name="tests.hasty", expires=60, shared=False)
    def hasty() -> None:
        """Do nothing."""

    (outcome,) = send(scheduler, new_claim("tests.hasty", options=options))
    (message,) = memory_broker.drain()
    assert outcome.expires == expires
    assert (message.headers["expires"] is None) == (expires is None)


@pytest.mark.parametrize("of", ["entry", "task"])
def test_expires_counts_by_the_database_where_the_machine_is_behind(
    scheduler: DBScheduler, memory_broker: Broker, of: str
) -> None:
    """Workers would revoke all messages of a beat whose clock is behind by more than `expires`."""
    options = {"expires": 600} if of == "entry" else {}
    scheduler.app.tasks["tests.note"].expires = 600 if of == "task" else None
    its_now = datetime.now(timezone.utc) + timedelta(hours=1)
    [outcome] = send(scheduler, new_claim(options=options), now=its_now)
    [message] = memory_broker.drain()
    expires = datetime.fromisoformat(message.headers["expires"])
    assert timedelta(0) <= expires - its_now - timedelta(seconds=600) < timedelta(seconds=20)
    assert outcome.expires == expires


@pytest.mark.parametrize("task", ["tests.note", "elsewhere.task"])
def test_no_message_has_a_time_of_its_own(
    scheduler: DBScheduler, memory_broker: Broker, task: str
) -> None:
    """An eta or countdown in a row written by hand stays out of the broker."""
    options = {"eta": "2030-01-01T00:00:00+00:00", "countdown": 3600}
    message = sent_by(scheduler, memory_broker, new_claim(task, options=options))
    assert message.headers["eta"] is None


def test_a_canvas_is_sent_as_celery_sends_it(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A stored chain sends its first task, the rest embedded; a group sends all of its tasks."""
    note = app.tasks["tests.note"]
    links = chain(note.si(1), note.si(2), app=app)
    members = group([note.si(3), note.si(4)], app=app)
    first, *others = [
        new_claim(found["task"], args=list(found["args"]), kwargs=dict(found["kwargs"]))
        for found in (links, members)
    ]
    assert [one.state for one in send(scheduler, first, *others)] == ["sent", "sent"]
    messages = memory_broker.drain()
    assert sorted(message.args[0] for message in messages) == [1, 3, 4]
    by_first = {message.args[0]: message for message in messages}
    (rest,) = by_first[1].embed["chain"]
    assert (rest["args"], rest["options"]["task_id"]) == ([2], first.task_id)
    assert {by_first[3].headers["group"], by_first[4].headers["group"]} == {others[0].task_id}
    assert {one.headers["beatstore_entry"] for one in messages} == {first.name, others[0].name}


@pytest.mark.parametrize("kind", ["map", "starmap"])
def test_a_map_is_one_message(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker, kind: str
) -> None:
    """A stored map goes out as the one task of celery's that runs all of it."""
    found = getattr(app.tasks["tests.note"], kind)([[1, 2], [3, 4]])
    claim = new_claim(found["task"], kwargs=dict(found["kwargs"]))
    message = sent_by(scheduler, memory_broker, claim)
    assert (message.task, message.id) == (f"celery.{kind}", claim.task_id)
    assert message.kwargs["it"] == [[1, 2], [3, 4]]
    assert message.kwargs["task"]["task"] == "tests.note"


def test_beats_that_share_a_backend_leave_it_as_it_was(app: Celery) -> None:
    """Two beats in one process send at the same time; neither trips over the other's end.

    `result_backend_thread_safe` makes their threads share a backend.
    """
    first, second = without_results(app), without_results(app)
    with ExitStack() as outer:
        outer.enter_context(second)
        with first:
            outer.pop_all().close()
            assert app.backend.on_task_call(None, "id") in ({}, None)
    assert not {"on_task_call", "add_pending_result"} & vars(app.backend).keys()
