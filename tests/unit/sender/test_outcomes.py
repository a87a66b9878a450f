"""What is reported of a send: sent, skipped, failed, or tried again later."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc
from celery.result import AsyncResult, EagerResult, GroupResult

from beatstore.beat.message import MAX_TRIES, RETRY_S
from beatstore.beat.scheduler import DBScheduler
from beatstore.tick.claims import Outcome
from tests.support.batches import AlreadyQueued
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_claim, send
from tests.support.sending import raising, register, sent_by


class DuplicateTaskError(Exception):
    """What celery-singleton raises where it is told to."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"Attempted to queue a duplicate of task ID {task_id}")
        self.task_id = task_id


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
