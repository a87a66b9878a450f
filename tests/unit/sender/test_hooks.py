"""What hooks around a send are shown, and what it costs when they fail."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import beat as celery_beat
from celery.beat import ScheduleEntry
from celery.schedules import BaseSchedule, crontab, schedule
from celery.signals import before_task_publish

from beatstore.beat.message import BeatEntry
from beatstore.beat.scheduler import DBScheduler
from beatstore.tick.claims import Outcome
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app, new_claim, send
from tests.support.sending import sent_by


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
