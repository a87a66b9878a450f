"""The mapping that celery takes the schedule for, and what it would write into it."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery, beat
from celery.schedules import crontab, schedule

from beatstore import Every, ScheduleError, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.errors import UnavailableError
from tests.support.brokers import Broker
from tests.support.harness.inprocess import new_app, running, tick_until_idle
from tests.support.marks import on_sqlite


@on_sqlite
def test_the_schedule_is_an_empty_mapping(scheduler: DBScheduler) -> None:
    """What reads or iterates `schedule` finds a mapping; the entries are in the database."""
    scheduler.store.add("a", "tests.note", Every(10))
    tick_until_idle(scheduler)
    assert dict(scheduler.schedule) == {}
    assert list(scheduler.schedule.items()) == []
    assert "a" not in scheduler.schedule


@on_sqlite
@pytest.mark.parametrize(
    ("given", "kind", "spec"),
    [
        (crontab(minute="30", hour="4"), "cron", "30 4 * * *"),
        (schedule(90), "every", "90"),
        (timedelta(minutes=2), "every", "120"),
        (15, "every", "15"),
    ],
)
def test_add_stores_the_entry(scheduler: DBScheduler, given: Any, kind: str, spec: str) -> None:
    """`scheduler.add`, as extensions call it, writes a row, and updates it the next time."""
    made = scheduler.add(name="x", task="tests.note", schedule=given, args=(1,))
    assert isinstance(made, beat.ScheduleEntry)
    options = {"queue": "q"}
    scheduler.add(name="x", task="tests.note", schedule=given, kwargs={"k": 2}, options=options)
    (entry,) = scheduler.store.entries()
    assert (entry.name, entry.task, entry.kind) == ("x", "tests.note", kind)
    assert entry.spec.split(" from ")[0] == spec
    assert (entry.args, entry.kwargs, entry.options) == ([], {"k": 2}, {"queue": "q"})


@on_sqlite
def test_add_raises_what_it_can_not_store(scheduler: DBScheduler) -> None:
    """An entry that can't be stored is an error, not something that is lost at the next start."""

    class Own(crontab):
        def is_due(self, last_run_at):
            return super().is_due(last_run_at)

    with pytest.raises(ScheduleError):
        scheduler.add(name="x", task="tests.note", schedule=Own(0, 4))
    assert scheduler.store.entries() == []


def test_add_raises_without_a_database(memory_broker: Broker) -> None:
    """With the database away, `add` says so."""
    with (
        running(new_app(memory_broker), lazy=True) as scheduler,
        pytest.raises(UnavailableError),
    ):
        scheduler.add(name="x", task="tests.note", schedule=30)


@on_sqlite
def test_starting_leaves_the_entries_of_others_alone(app: Celery) -> None:
    """Rows that are not of this app's code survive every start as they are."""
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 30}}
    store = Store.from_app(app)
    for name, source in (("a", "api"), ("celery.something", "celery"), ("c", "their-sync")):
        store.add(name, "tests.note", "0 4 * * *", source=source)
    before = {entry.name: entry.version for entry in store.entries()}
    for _ in range(2):
        with running(app) as scheduler:
            scheduler.setup_schedule()
            tick_until_idle(scheduler)
    after = {entry.name: entry.version for entry in store.entries()}
    assert after == {**before, "conf": 1}
    store.close()


@on_sqlite
@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        ({}, True),
        ({"result_backend": "file:///tmp"}, True),
        ({"result_expires": None}, False),
        ({"result_expires": 0}, False),
        ({"result_backend": "cache+memory://"}, False),
        ({"result_backend": "redis://127.0.0.1:1/0"}, False),
    ],
)
def test_the_cleanup_is_stored_where_celery_would_schedule_it(
    memory_broker: Broker, migrated_url: str, settings: dict[str, Any], *, stored: bool
) -> None:
    """`celery.backend_cleanup` is an entry where results expire and nobody else removes them."""
    app = new_app(memory_broker, migrated_url, **settings)
    with running(app) as scheduler:
        data: dict[str, Any] = {}
        base = beat.Scheduler(app, schedule=data, lazy=True)
        base.install_default_entries(data)
        found = scheduler.store.entries()
        assert [entry.name for entry in found] == sorted(data)
        assert bool(found) is stored
        for entry in found:
            assert (entry.task, entry.spec) == ("celery.backend_cleanup", "0 4 * * *")
            assert entry.options == {"expires": 12 * 3600}
            assert entry.source == "beat_schedule"


@on_sqlite
def test_an_edited_cleanup_is_left_alone(memory_broker: Broker, migrated_url: str) -> None:
    """Whoever moves or pauses the clean-up finds it so after the next start."""
    app = new_app(memory_broker, migrated_url)
    name = "celery.backend_cleanup"
    with running(app) as scheduler:
        scheduler.store.change(name, schedule="30 5 * * *", options={"queue": "slow"})
        scheduler.store.pause(name)
    with running(app) as scheduler:
        entry = scheduler.store.get(name)
    assert (entry.spec, entry.options, entry.state) == ("30 5 * * *", {"queue": "slow"}, "paused")


@on_sqlite
def test_a_cleanup_that_is_not_allowed_does_not_stop_beat(
    memory_broker: Broker, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where `beatstore_allowed_tasks` leaves it out, beat starts, and says so once."""
    app = new_app(memory_broker, migrated_url, beatstore_allowed_tasks=["proj.*"])
    with running(app) as scheduler:
        assert scheduler.store.entries() == []
        assert scheduler.tick() == 1.0
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "celery.backend_cleanup" in record.getMessage()
