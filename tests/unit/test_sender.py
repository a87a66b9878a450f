"""From a claim to its message, through the hooks: what is sent, once, and what is reported.

No database and no server: the scheduler is a lazy one, and the broker lies in the process.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
from celery import Celery, Task, chain, group
from celery import beat as celery_beat
from celery.beat import BeatLazyFunc, ScheduleEntry
from celery.result import AsyncResult, EagerResult, GroupResult
from celery.schedules import BaseSchedule, crontab, schedule
from celery.signals import before_task_publish

from beatstore.beat import sender as sender_module
from beatstore.beat.batches import Batch, Fate
from beatstore.beat.message import MAX_TRIES
from beatstore.beat.scheduler import DBScheduler
from beatstore.beat.sender import RETRY_S, BeatEntry
from beatstore.errors import BrokerError, UnsureError
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.tick import BATCH
from tests.support.brokers import Broker, Message
from tests.support.flaky import FlakyBroker, RefusedError
from tests.support.inprocess import new_app, new_claim, running, send, send_into

DUE = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.fixture
def app(memory_broker: Broker) -> Celery:
    """Return an app with one task, `tests.note`, that takes anything."""
    app = new_app(memory_broker)

    @app.task(name="tests.note", shared=False)
    def note(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    return app


@pytest.fixture
def scheduler(app: Celery) -> Iterator[DBScheduler]:
    """Return a scheduler that has read nothing and is connected to nothing."""
    with running(app, lazy=True) as scheduler:
        yield scheduler


def sent_by(scheduler: DBScheduler, broker: Broker, claim: Claim) -> Message:
    """Send one claim, which must go well, and return its message."""
    assert send(scheduler, claim) == [Outcome(claim, "sent")]
    (message,) = broker.drain()
    return message


# -- what the message is -------------------------------------------------------------------


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


# -- what the hooks are shown --------------------------------------------------------------


def test_hooks_see_an_entry_of_celery(scheduler: DBScheduler) -> None:
    """What monitoring packages are handed has all that a `ScheduleEntry` has."""
    claim = new_claim(
        "tests.note", name="nightly", spec="0 2 * * *", timezone="Europe/Berlin", args=[1]
    )
    entry = BeatEntry(claim, scheduler.app)
    assert isinstance(entry, ScheduleEntry)
    assert (entry.name, entry.task, entry.app) == ("nightly", "tests.note", scheduler.app)
    assert (list(entry.args), entry.kwargs) == ([1], {})
    assert isinstance(entry.schedule, crontab)
    assert entry.schedule.tz == ZoneInfo("Europe/Berlin")
    assert "nightly" in repr(entry)
    assert dict(entry)["options"]["headers"]["beatstore_entry"] == "nightly"
    assert entry.last_run_at == claim.due_at


@pytest.mark.parametrize(
    ("kind", "spec", "shown"),
    [
        ("cron", "*/5 1 * * mon", crontab),
        ("cron", "*/10 * * * * *", BaseSchedule),
        ("every", "90", schedule),
        ("once", "2030-01-01T00:00:00+00:00", BaseSchedule),
        ("rrule", "FREQ=DAILY", BaseSchedule),
    ],
)
def test_hooks_see_a_schedule_of_celery(
    scheduler: DBScheduler, kind: str, spec: str, shown: type[BaseSchedule]
) -> None:
    """Monitors are made of crontabs and intervals; of anything else they are made of none."""
    entry = BeatEntry(new_claim(kind=kind, spec=spec), scheduler.app)
    assert type(entry.schedule) is shown


@pytest.mark.parametrize(("own", "shown"), [(None, "Asia/Tokyo"), ("Europe/Berlin",) * 2])
def test_a_schedule_without_a_zone_is_shown_in_the_default(
    memory_broker: Broker, monkeypatch: pytest.MonkeyPatch, own: str | None, shown: str
) -> None:
    """Monitors see the zone by which beat fires: the entry's, or `beatstore_default_timezone`."""
    app = new_app(memory_broker, beatstore_default_timezone="Asia/Tokyo")
    scheduler = DBScheduler(app=app, schedule_filename="", max_interval=None, lazy=True)
    seen: list[Any] = []
    monkeypatch.setattr(DBScheduler, "apply_entry", lambda _, entry, producer: seen.append(entry))
    claim = new_claim(spec="0 2 * * *", timezone=own)
    assert send(scheduler, claim, until=float("inf"))
    assert str(seen[0].schedule.tz) == shown
    scheduler.close()
    app.close()


def test_hooks_write_into_copies(
    scheduler: DBScheduler, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a hook writes into an entry or a message, the next send starts afresh."""
    claim = new_claim(
        args=[[1]], kwargs={"k": [1]}, options={"headers": {"deep": {"n": 1}}, "priority": 1}
    )
    original = celery_beat.Scheduler.apply_entry

    def apply_entry(self, entry, producer=None):
        headers = entry.options.pop("headers")
        headers["deep"]["n"] += 1
        headers["added"] = True
        entry.options["headers"] = headers
        return original(self, entry, producer=producer)

    def on_publish(headers: dict[str, Any], **_: Any) -> None:
        headers["published"] = True

    monkeypatch.setattr(celery_beat.Scheduler, "apply_entry", apply_entry)
    before_task_publish.connect(on_publish)
    try:
        for _ in range(2):
            found = sent_by(scheduler, memory_broker, claim).headers
            assert (found["deep"], found["added"], found["published"]) == ({"n": 2}, True, True)
    finally:
        before_task_publish.disconnect(on_publish)
    assert claim.options == {"headers": {"deep": {"n": 1}}, "priority": 1}
    assert (claim.args, claim.kwargs) == ([[1]], {"k": [1]})


def test_apply_entry_is_looked_up_at_each_send(
    scheduler: DBScheduler, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that patches the class long after the scheduler was made is still asked."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    original = celery_beat.Scheduler.apply_entry

    def apply_entry(*args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))
        return original(*args, **kwargs)

    sent_by(scheduler, memory_broker, new_claim())
    monkeypatch.setattr(celery_beat.Scheduler, "apply_entry", apply_entry)
    claim = new_claim()
    sent_by(scheduler, memory_broker, claim)
    ((args, kwargs),) = calls
    assert (args[0], args[1].name) == (scheduler, claim.name)
    assert len(args) == 2
    assert kwargs == {"producer": scheduler.producer}
    assert "apply_entry" not in vars(DBScheduler)


class HookError(Exception):
    """What a monitoring package raises when it breaks."""


@pytest.mark.parametrize("when", ["before", "after", "instead"])
def test_a_failing_hook_costs_nothing_and_doubles_nothing(
    scheduler: DBScheduler,
    memory_broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    """A hook that raises before or after the send, or forgets it, leaves exactly one message."""
    original = celery_beat.Scheduler.apply_entry

    def apply_entry(*args: Any, **kwargs: Any) -> None:
        scheduler, entry = args
        if when == "after":
            original(scheduler, entry, producer=kwargs["producer"])
        if when != "instead":
            raise HookError

    monkeypatch.setattr(celery_beat.Scheduler, "apply_entry", apply_entry)
    claims = [new_claim() for _ in range(3)]
    assert send(scheduler, *claims) == [Outcome(claim, "sent") for claim in claims]
    assert [message.id for message in memory_broker.drain()] == [one.task_id for one in claims]


def test_a_failing_hook_leaves_the_error_of_the_send(
    scheduler: DBScheduler, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both the message and a hook fail, the run tells the message's reason."""
    original = celery_beat.Scheduler.apply_entry

    def apply_entry(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        raise HookError

    monkeypatch.setattr(celery_beat.Scheduler, "apply_entry", apply_entry)
    (outcome,) = send(scheduler, new_claim(options={"compression": "nothing"}))
    assert (outcome.state, outcome.reason) == ("failed", "KeyError: 'nothing'")
    assert memory_broker.drain() == []


# -- what is reported ----------------------------------------------------------------------


def register(app: Celery, name: str, answer: Any) -> None:
    """Register a task whose `apply_async` does `answer(send)`, `send` sending the message."""

    class Answering(Task):
        def apply_async(self, args=None, kwargs=None, **options):
            def send(**more: Any) -> AsyncResult:
                return super(Answering, self).apply_async(args, kwargs, **{**options, **more})

            return answer(send)

    @app.task(name=name, base=Answering, shared=False)
    def answering(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""


class AlreadyQueued(Exception):  # noqa: N818  (celery-once calls it so)
    """What celery-once raises."""


class DuplicateTaskError(Exception):
    """What celery-singleton raises where it is told to."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"Attempted to queue a duplicate of task ID {task_id}")
        self.task_id = task_id


def raising(error: Exception) -> Any:
    """Return an answer that is no message but an error."""

    def answer(_: Any) -> None:
        raise error

    return answer


REPORTS = [
    (lambda send: send(), "sent", None, 1),
    (lambda send: AsyncResult("other-id"), "sent", None, 0),
    (lambda send: EagerResult(None, None, "REJECTED"), "skipped", "already queued", 0),
    (lambda send: None, "sent", None, 0),
    (lambda send: GroupResult("other-id", [AsyncResult("a")]), "sent", None, 0),
    (raising(AlreadyQueued("59.9")), "skipped", "already queued: 59.9", 0),
    (raising(DuplicateTaskError("other-id")), "skipped", "already queued: other-id", 0),
    (raising(TypeError("two arguments")), "failed", "TypeError: two arguments", 0),
    (raising(ValueError("bad")), "failed", "ValueError: bad", 0),
    (
        raising(RuntimeError("odd")),
        "claimed",
        "sending failed, last with RuntimeError: odd",
        0,
    ),
    (
        raising(ConnectionError("its lock server is away")),
        "claimed",
        "sending failed, last with ConnectionError: its lock server is away",
        0,
    ),
]


@pytest.mark.parametrize("case", REPORTS)
def test_each_send_is_reported_as_what_it_was(
    scheduler: DBScheduler, memory_broker: Broker, case: tuple[Any, str, str | None, int]
) -> None:
    """A task's own `apply_async` may send, decline, fail for good or for now; each is told."""
    answer, state, reason, messages = case
    register(scheduler.app, "tests.answering", answer)
    claims = [new_claim(), new_claim("tests.answering"), new_claim()]
    first, outcome, last = send(scheduler, *claims)
    assert (outcome.claim, outcome.state, outcome.reason) == (claims[1], state, reason)
    assert outcome.retry_in == (RETRY_S if state == "claimed" else 0)
    assert (first.state, last.state) == ("sent", "sent")
    sent = [message.id for message in memory_broker.drain()]
    expected = [claims[0], *[claims[1]] * messages, claims[2]]
    assert sent == [claim.task_id for claim in expected]


def test_a_send_that_returns_nothing_is_not_repeated(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """An `apply_async` that sends and forgets to return its result sends one message."""

    def answer(send: Any) -> None:
        send()

    register(app, "tests.forgetful", answer)
    claim = new_claim("tests.forgetful")
    assert sent_by(scheduler, memory_broker, claim).id == claim.task_id


def test_a_class_may_give_its_messages_ids_of_its_own(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """A tenant's prefix makes a task no duplicate, and its message names the run all the same."""
    register(app, "tests.tenant", lambda send: send(task_id="tenant-a-1"))
    message = sent_by(scheduler, memory_broker, claim := new_claim("tests.tenant"))
    assert message.id == "tenant-a-1"
    assert message.headers["beatstore_run_id"] == claim.run_id


def test_a_class_may_have_headers_of_its_own(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """Where a class replaces the headers, those of the run are added again; theirs stay."""
    register(app, "tests.headed", lambda send: send(headers={"tenant": "a"}))
    claim = new_claim("tests.headed")
    headers = sent_by(scheduler, memory_broker, claim).headers
    assert headers["tenant"] == "a"
    assert headers["beatstore_run_id"] == claim.run_id
    assert headers["beatstore_due_at"] == claim.due_at.isoformat()


def test_a_singleton_with_an_id_of_its_own_is_sent_and_then_its_duplicate_is_skipped(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """What celery-singleton answers is taken for a duplicate only if nothing was published."""
    celery_singleton = pytest.importorskip("celery_singleton")
    locks: dict[str, str] = {}

    class Locks:
        """A lock server in the process."""

        def lock(self, lock: str, task_id: str, expiry: int | None = None) -> bool:
            return locks.setdefault(lock, task_id) == task_id

        def get(self, lock: str) -> str | None:
            return locks.get(lock)

    class Tenant(celery_singleton.Singleton):  # type: ignore[misc,name-defined]
        abstract = True
        singleton_backend = Locks()

        def apply_async(self, args=None, kwargs=None, task_id=None, **options):
            return super().apply_async(args, kwargs, task_id=f"tenant-{task_id}", **options)

    @app.task(name="tests.single", base=Tenant, shared=False)
    def single() -> None:
        """Do nothing."""

    first, second = (new_claim("tests.single") for _ in range(2))
    assert send(scheduler, first) == [Outcome(first, "sent")]
    known = f"already queued: tenant-{first.task_id}"
    assert send(scheduler, second) == [Outcome(second, "skipped", known)]
    assert [message.id for message in memory_broker.drain()] == [f"tenant-{first.task_id}"]


def test_tries_are_further_apart_each_time_and_end(
    app: Celery, scheduler: DBScheduler, memory_broker: Broker
) -> None:
    """An unknown reason is tried again after 5 s, then twice as long, and in the end it fails."""
    register(app, "tests.odd", raising(RuntimeError("odd")))
    distances = []
    for tries in range(MAX_TRIES - 1):
        (outcome,) = send(scheduler, new_claim("tests.odd", tries=tries))
        assert (outcome.state, outcome.tries) == ("claimed", tries + 1)
        distances.append(outcome.retry_in)
    assert distances == [5, 10, 20, 40, 80, 160, 320, 640, 900]
    (outcome,) = send(scheduler, new_claim("tests.odd", tries=MAX_TRIES - 1))
    assert (outcome.state, outcome.tries) == ("failed", MAX_TRIES)
    assert outcome.reason == "sending failed 10 times, last with RuntimeError: odd"


def test_a_failing_entry_is_said_once(
    app: Celery, scheduler: DBScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """A WARNING when it begins, an ERROR when it is given up, and again once it has worked."""
    fails = [True]

    def answer(send: Any) -> Any:
        if fails:
            raise RuntimeError("odd")
        return send()

    register(app, "tests.odd", answer)

    def levels(*tries: int) -> list[str]:
        caplog.clear()
        for number in tries:
            send(scheduler, new_claim("tests.odd", name="nightly", tries=number))
        return [one.levelname for one in caplog.records if one.levelno >= logging.WARNING]

    assert levels(*range(MAX_TRIES)) == ["WARNING", "ERROR"]
    assert levels(*range(MAX_TRIES)) == []
    fails.clear()
    assert levels(0) == []
    fails.append(True)
    assert levels(0, 1) == ["WARNING"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"task": "tests.two"}, "TypeError"),
        ({"task": "tests.two", "args": [1, 2, 3]}, "TypeError"),
        ({"task": "tests.two", "args": [1], "kwargs": {"x": 1}}, "TypeError"),
        ({"args": [BeatLazyFunc(object)]}, "EncodeError"),
        ({"args": [BeatLazyFunc(int, "x")]}, "ValueError"),
        ({"options": {"serializer": "nothing"}}, "SerializerNotInstalled"),
        ({"options": {"compression": "nothing"}}, "KeyError"),
        ({"options": {"queue": "unknown"}}, "QueueNotFound"),
        ({"options": {"producer": 1}}, "producer"),
    ],
)
def test_what_can_not_be_sent_fails_alone(
    app: Celery,
    scheduler: DBScheduler,
    memory_broker: Broker,
    columns: dict[str, Any],
    reason: str,
) -> None:
    """A message that can't be made is a failed run with the reason; the others are sent."""
    app.conf.task_create_missing_queues = False

    @app.task(name="tests.two", shared=False)
    def two(x: int, y: int) -> None:
        """Take exactly two arguments."""

    claims = [new_claim(), new_claim(**columns), new_claim()]
    outcomes = send(scheduler, *claims)
    assert [outcome.state for outcome in outcomes] == ["sent", "failed", "sent"]
    assert reason in str(outcomes[1].reason)
    assert len(memory_broker.drain()) == 2


def test_the_log_names_what_failed(
    app: Celery, scheduler: DBScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed send is one line in the log, with the entry's name and the error."""
    register(app, "tests.odd", raising(RuntimeError("odd")))
    with caplog.at_level(logging.WARNING):
        send(scheduler, new_claim("tests.odd", name="nightly"))
    (record,) = caplog.records
    assert "nightly" in record.getMessage()
    assert "odd" in record.getMessage()
    assert record.exc_info is None


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
    """Celery's own retries would hold up the whole tick; they run only where an entry asks."""
    flaky.fail_on(1, ConnectionResetError("cut"))
    send(flaky_scheduler, new_claim())
    assert flaky.published == 2
    flaky.fail_on(1, ConnectionResetError("cut"))
    policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    claim = new_claim(options={"retry": True, "retry_policy": policy})
    with mock.patch.object(flaky_scheduler, "disconnect") as disconnect:
        assert send(flaky_scheduler, claim)[0].state == "sent"
    disconnect.assert_not_called()
