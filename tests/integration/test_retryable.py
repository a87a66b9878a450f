"""Calls made at once, whose retries are stored, on every database."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from sqlalchemy.orm import Session

from beatstore import (
    InvalidEntryError,
    ManualClock,
    Store,
    StoredRetry,
    UnavailableError,
    retryable,
)
from beatstore.worker.retryable import Retryable


class MailError(Exception):
    """What the task raises here."""


class Mail:
    """A task that fails until it is told otherwise, and what it was called with."""

    def __init__(self, app: Celery) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.raises: BaseException | None = MailError("no route to host")
        self.task: Any = app.task(self.send, name="mail.send", shared=False)

    def send(self, *args: Any, **kwargs: Any) -> str:
        """Note the call, and fail."""
        self.calls.append((args, kwargs))
        if self.raises is not None:
            raise self.raises
        return "sent"


@pytest.fixture
def app(migrated_url: str) -> Iterator[Celery]:
    """Hand out an app whose settings name the database."""
    app = Celery("mail", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = migrated_url
    yield app
    app.close()


@pytest.fixture
def mail(app: Celery) -> Mail:
    """Hand out a task that fails."""
    return Mail(app)


@pytest.fixture
def fixed(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """Hand out a store whose clock stands still."""
    store = Store(migrated_url, clock=clock)
    yield store
    store.close()


def test_a_call_that_works_returns_the_result(mail: Mail, fixed: Store) -> None:
    """The task runs at once, here, with its arguments, and nothing is stored."""
    mail.raises = None
    assert retryable(mail.task, store=fixed)(1, to="ann") == "sent"
    assert mail.calls == [((1,), {"to": "ann"})]
    assert fixed.entries() == []


def test_a_call_that_fails_is_stored(mail: Mail, fixed: Store, clock: ManualClock) -> None:
    """The same call becomes a one-shot, later, with what is left of the retries."""
    notify = retryable(
        mail.task, max_retries=4, retry_delay=60, retry_backoff=2, tags=["mail"], store=fixed
    )
    found = notify(7, to=["ann"])
    assert isinstance(found, StoredRetry)
    assert not found
    assert found.error is mail.raises
    assert found.retries == 4
    (entry,) = fixed.entries(tag="mail")
    assert (found.name, found.due_at) == (entry.name, clock.now() + timedelta(seconds=60))
    assert (entry.kind, entry.task) == ("once", "mail.send")
    assert (entry.args, entry.kwargs, entry.options) == ([7], {"to": ["ann"]}, {})
    assert (entry.max_retries, entry.retry_delay_s, entry.retry_backoff) == (3, 120, 2)
    assert entry.name.startswith("send-")
    assert entry.description is not None
    assert "Mail.send" in entry.description
    assert "MailError: no route to host" in entry.description
    assert mail.calls == [((7,), {"to": ["ann"]})]


@pytest.mark.parametrize(
    ("delay", "backoff", "then"), [(60_000, 2, 86_400), (300, 1e4, 86_400), (100_000, 3, 100_000)]
)
def test_a_day_is_the_longest(
    mail: Mail, fixed: Store, delay: float, backoff: float, then: float
) -> None:
    """The delay grows to a day, or to the first one if that is longer, as that of an entry."""
    done = retryable(mail.task, retry_delay=delay, retry_backoff=backoff, store=fixed)("a")
    assert isinstance(done, StoredRetry)
    assert fixed.get(done.name).retry_delay_s == then


def test_what_is_stored_is_what_was_given(app: Celery, fixed: Store) -> None:
    """A task that changes its arguments before it fails is retried with those it was given."""

    def spoil(rows: list[int]) -> None:
        rows.clear()
        raise MailError("too late")

    task = app.task(spoil, name="mail.spoil", shared=False)
    retryable(task, store=fixed)([1, 2])
    assert [entry.args for entry in fixed.entries()] == [[[1, 2]]]


def test_a_bound_task_is_called_as_a_task(app: Celery, fixed: Store) -> None:
    """`self` is the task and is not stored; its own `retry` is a failure like others."""

    def send(self: Task[..., Any], number: int) -> None:
        assert self.name == "mail.bound"
        raise self.retry(exc=MailError("again"), countdown=1)

    task = app.task(send, name="mail.bound", bind=True, shared=False)
    found = retryable(task, store=fixed)(3)
    assert isinstance(found.error, MailError)
    assert [entry.args for entry in fixed.entries()] == [[3]]


@pytest.mark.parametrize(
    ("args", "kwargs", "field"),
    [(({1, 2},), {}, "args[0]"), ((), {"at": timedelta(1)}, "kwargs['at']")],
)
def test_arguments_are_refused_before_the_call(
    mail: Mail, fixed: Store, args: Any, kwargs: Any, field: str
) -> None:
    """What could not be stored is refused, whether or not the call would have worked."""
    mail.raises = None
    with pytest.raises(InvalidEntryError) as refused:
        retryable(mail.task, store=fixed)(*args, **kwargs)
    assert refused.value.field == field
    assert mail.calls == []


def test_a_task_that_is_not_allowed_is_refused_before_the_call(app: Celery, mail: Mail) -> None:
    """The setting `beatstore_allowed_tasks` holds for calls whose retry beat would refuse."""
    app.conf.beatstore_allowed_tasks = ["reports.*"]
    with pytest.raises(InvalidEntryError, match="beatstore_allowed_tasks"):
        retryable(mail.task)()
    assert mail.calls == []


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("max_retries", -1),
        ("max_retries", 1.5),
        ("retry_delay", -1),
        ("retry_backoff", 0.5),
        ("tags", "mail"),
    ],
)
def test_settings_are_checked_at_once(mail: Mail, field: str, given: Any) -> None:
    """A wrong number is refused where it is written, not when the first call fails."""
    with pytest.raises(InvalidEntryError) as refused:
        retryable(mail.task, **{field: given})
    assert refused.value.field == field


@pytest.mark.parametrize("given", ["mail.send", len, None])
def test_only_a_task_can_be_called(given: Any) -> None:
    """A name, or any other callable, is refused, with what to write."""
    with pytest.raises(InvalidEntryError, match=r"@app\.task"):
        retryable(given)


def test_without_retries_it_is_a_plain_call(mail: Mail, fixed: Store) -> None:
    """With max_retries=0 the exception is raised, and nothing is stored."""
    with pytest.raises(MailError):
        retryable(mail.task, max_retries=0, store=fixed)()
    assert fixed.entries() == []


@pytest.mark.parametrize("raised", [Ignore("no"), Reject("no"), KeyboardInterrupt()])
def test_what_is_no_failure_is_raised(mail: Mail, fixed: Store, raised: BaseException) -> None:
    """Ignore, Reject and the end of the process are not retried."""
    mail.raises = raised
    with pytest.raises(type(raised)):
        retryable(mail.task, store=fixed)()
    assert fixed.entries() == []


def test_a_failure_is_logged(mail: Mail, fixed: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The record has the function's path, the message, the retries, the entry and the traceback."""
    with caplog.at_level(logging.WARNING, "beatstore"):
        found = retryable(mail.task, store=fixed)()
    (record,) = caplog.records
    said = record.getMessage()
    for words in ("Mail.send failed", "MailError: no route to host", "3 retries", found.name):
        assert words in said
    assert record.exc_info is not None
    assert record.exc_info[1] is mail.raises


def test_the_store_of_the_app_is_made_once(app: Celery, mail: Mail) -> None:
    """Without `store`, retries go where the app's settings say, over one store for an app."""
    from beatstore.store.shared import _stores

    first = retryable(mail.task)(1)
    second = retryable(mail.task)(2)
    made = _stores[app]
    names = {entry.name for entry in made.entries()}
    assert names == {first.name, second.name}
    made.close()


def test_an_app_that_is_gone_takes_its_store_along(migrated_url: str) -> None:
    """Apps that come and go, as in tests, leave nothing behind."""
    from beatstore.store.shared import _stores, store_of

    app = Celery("gone", broker="memory://", set_as_current=False)
    app.conf.beatstore_url = migrated_url
    store_of(app)
    assert app in _stores
    app.close()
    del app
    gc.collect()
    assert "gone" not in [left.main for left in _stores]


def test_it_joins_the_callers_transaction(mail: Mail, fixed: Store) -> None:
    """With `session=` the retry is stored when the caller commits, and not if they roll back."""
    engine = fixed.database.engine
    with Session(engine) as session:
        retryable(mail.task, store=fixed, session=session)(1)
        session.rollback()
    assert fixed.entries() == []
    with Session(engine) as session, session.begin():
        retryable(mail.task, store=fixed, session=session)(2)
    assert [entry.args for entry in fixed.entries()] == [[2]]


def test_a_retry_that_cannot_be_stored_raises_the_tasks_error(
    mail: Mail, fixed: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No failure is swallowed for which there will be no retry."""

    def away(*_: Any, **__: Any) -> None:
        raise UnavailableError("no answer")

    monkeypatch.setattr(fixed, "schedule", away)
    with caplog.at_level(logging.ERROR, "beatstore"), pytest.raises(MailError):
        retryable(mail.task, store=fixed)()
    assert "its retry could not be stored" in caplog.text
    assert "no answer" in caplog.text


def test_errors_of_any_text_are_stored(
    mail: Mail, fixed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NUL, half surrogate pairs and a long message do not keep the retry from being stored."""
    # Logging has its own troubles with such text.
    monkeypatch.setattr(logging.getLogger("beatstore.worker.retryable"), "disabled", True)
    mail.raises = MailError("\0\udc80" + "x" * 100_000)
    assert retryable(mail.task, store=fixed)().name == fixed.entries()[0].name


def test_it_can_be_used_often_and_says_what_it_is(mail: Mail, fixed: Store) -> None:
    """One retryable makes an entry for each call that fails, each with a name of its own."""
    notify = retryable(mail.task, store=fixed)
    assert len({notify(number).name for number in range(3)}) == 3
    assert isinstance(notify, Retryable)
    assert repr(notify) == "<retryable mail.send>"
