"""What beat imports of `beat_schedule` when it starts, and what functions there are called for."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedule

from beatstore import ManualClock, Store
from beatstore.discovery.modules import import_code
from tests.support.brokers import Broker
from tests.support.code import beat, sent
from tests.support.harness.base import entry_states

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


# -- beat_schedule -------------------------------------------------------------------------


def test_what_is_in_the_code_is_sent(
    app: Celery, clock: ManualClock, memory_broker: Broker
) -> None:
    """Entries of every kind are due at their times, with their arguments and options."""
    app.conf.beat_schedule = {
        "crontab": {"task": "tests.note", "schedule": crontab(minute=5, hour=12), "args": (1,)},
        "seconds": {"task": "tests.note", "schedule": 420, "kwargs": {"a": [1]}},
        "relative": {"task": "tests.note", "schedule": timedelta(minutes=4), "relative": True},
    }
    app.add_periodic_task(schedule(600), app.tasks["tests.note"].s("x"), name="added")
    with beat(app, clock) as scheduler:
        assert sent(scheduler, memory_broker) == {}
        found = {}
        for minute in range(1, 11):
            clock.set(NOON + timedelta(minutes=minute))
            found[minute] = sent(scheduler, memory_broker)
    assert {minute: given for minute, given in found.items() if given} == {
        4: {"relative": ([], {})},
        5: {"crontab": ([1], {})},
        7: {"seconds": ([], {"a": [1]})},
        8: {"relative": ([], {})},
        10: {"added": (["x"], {})},
    }


def test_a_restart_follows_the_code(
    app: Celery, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """New, changed and gone entries are so after the next start, and the log has the figures."""
    caplog.set_level(logging.INFO, "beatstore.discovery.modules")
    app.conf.beat_schedule = {
        "stays": {"task": "tests.note", "schedule": 30},
        "changes": {"task": "tests.note", "schedule": 30},
        "leaves": {"task": "tests.note", "schedule": 30},
    }
    with beat(app, clock):
        pass
    del app.conf.beat_schedule["leaves"]
    app.conf.beat_schedule["changes"] = {"task": "tests.note", "schedule": 60}
    app.conf.beat_schedule["new"] = {"task": "tests.note", "schedule": 30}
    with beat(app, clock) as scheduler:
        store = scheduler.store
        found = entry_states(store)
        assert found == {
            "changes": "active",
            "leaves": "cancelled",
            "new": "active",
            "stays": "active",
        }
        assert store.get("changes").spec == "60"
        assert store.get("stays").version == 1
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "imported entries from code: 3 created, 0 updated, 0 deactivated, 0 unchanged",
        "imported entries from code: 1 created, 1 updated, 1 deactivated, 1 unchanged",
    ]


def test_what_a_user_did_survives_a_restart(
    app: Celery, clock: ManualClock, memory_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """An edit and a pause win over the code, old and new, and the log says so."""
    app.conf.beat_schedule = {
        "edited": {"task": "tests.note", "schedule": 600, "args": (1,)},
        "paused": {"task": "tests.note", "schedule": 60},
    }
    with beat(app, clock) as scheduler:
        scheduler.store.change("edited", schedule="30 12 * * *")
        scheduler.store.pause("paused")
    app.conf.beat_schedule["edited"] = {"task": "tests.note", "schedule": 300, "args": (2,)}
    app.conf.beat_schedule["paused"] = {"task": "tests.note", "schedule": 120}
    with beat(app, clock) as scheduler:
        entry = scheduler.store.get("edited")
        assert (entry.kind, entry.spec, entry.args) == ("cron", "30 12 * * *", [2])
        assert scheduler.store.get("paused").state == "paused"
        clock.set(NOON + timedelta(minutes=29))
        assert sent(scheduler, memory_broker) == {}
        clock.set(NOON + timedelta(minutes=30))
        assert sent(scheduler, memory_broker) == {"edited": ([2], {})}
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert any("'edited' of beat_schedule" in line and "schedule" in line for line in warned)
    assert any("'paused' of beat_schedule" in line and "state" in line for line in warned)


def test_what_can_not_be_stored_is_refused_alone(
    app: Celery, clock: ManualClock, memory_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """One error for each, with the reason; the others are sent, and its row stays as it was."""
    app.conf.beat_schedule = {
        "good": {"task": "tests.note", "schedule": 60},
        "turns": {"task": "tests.note", "schedule": 60},
    }
    with beat(app, clock):
        pass
    app.conf.beat_schedule |= {
        "turns": {"task": "tests.note", "schedule": crontab(0, 4, nowfun=lambda: NOON)},
        "bad-args": {"task": "tests.note", "schedule": 60, "args": (object(),)},
        "bad-time": {"task": "tests.note", "schedule": 60, "options": {"countdown": 5}},
        "bad-key": {"task": "tests.note", "schedule": 60, "every": 5},
        "bad-task": {"schedule": 60},
        "never": {
            "task": "tests.note",
            "schedule": crontab(day_of_month="31", month_of_year="2-3"),
        },
    }
    with beat(app, clock) as scheduler:
        assert entry_states(scheduler.store) == {
            "good": "active",
            "turns": "active",
            "never": "active",
        }
        clock.set(NOON + timedelta(minutes=1))
        assert sent(scheduler, memory_broker).keys() == {"good", "turns"}
    errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert sorted(line.split("'")[1] for line in errors) == [
        "bad-args",
        "bad-key",
        "bad-task",
        "bad-time",
        "turns",
    ]
    assert all(line.startswith("could not store '") for line in errors)
    assert all("' of beat_schedule: " in line for line in errors)


def test_the_cleanup_goes_when_its_reason_does(app: Celery, clock: ManualClock) -> None:
    """`celery.backend_cleanup` is deactivated where results do not expire any more."""
    app.conf.result_expires = 3600
    with beat(app, clock) as scheduler:
        assert entry_states(scheduler.store) == {"celery.backend_cleanup": "active"}
    app.conf.result_expires = None
    with beat(app, clock) as scheduler:
        assert entry_states(scheduler.store) == {"celery.backend_cleanup": "cancelled"}
    app.conf.result_expires = 60
    with beat(app, clock) as scheduler:
        assert entry_states(scheduler.store) == {"celery.backend_cleanup": "active"}


# -- functions among the arguments ---------------------------------------------------------


def test_functions_are_called_at_each_send(
    app: Celery, clock: ManualClock, memory_broker: Broker
) -> None:
    """Each run has the value of its own time, also one that a person triggers."""
    count = iter(range(100))
    app.conf.beat_schedule = {
        "lazy": {
            "task": "tests.note",
            "schedule": 60,
            "args": ("plain", BeatLazyFunc(lambda: next(count))),
            "kwargs": {"most": BeatLazyFunc(max, 3, 4)},
        }
    }
    with beat(app, clock) as scheduler:
        for minute in (1, 2):
            clock.set(NOON + timedelta(minutes=minute))
            found = sent(scheduler, memory_broker)
            assert found == {"lazy": (["plain", minute - 1], {"most": 4})}
        scheduler.store.trigger("lazy")
        assert sent(scheduler, memory_broker) == {"lazy": (["plain", 2], {"most": 4})}


def test_a_function_that_fails_holds_up_nobody(
    app: Celery, clock: ManualClock, memory_broker: Broker
) -> None:
    """A function that raises, or is not there, is a failed run with the reason."""

    def broken() -> None:
        raise OSError("the network is down")

    app.conf.beat_schedule = {
        "a": {"task": "tests.note", "schedule": 60, "args": (BeatLazyFunc(broken),)},
        "b": {"task": "tests.note", "schedule": 60, "args": (BeatLazyFunc(max, 1, 2),)},
        "c": {"task": "tests.note", "schedule": 60},
    }
    with beat(app, clock) as scheduler:
        app.conf.beat_schedule["b"]["args"] = ()
        clock.set(NOON + timedelta(minutes=1))
        assert sent(scheduler, memory_broker) == {"c": ([], {})}
        ran = {name: scheduler.store.runs(name)[0] for name in "abc"}
    assert [ran[name].state for name in "abc"] == ["failed", "failed", "sent"]
    assert "raised OSError: the network is down" in str(ran["a"].reason)
    assert "builtins.max is not argument 0 of 'b' in the beat_schedule" in str(ran["b"].reason)


# -- several beats, and outages ------------------------------------------------------------


def test_cancelled_stays_and_removed_comes_back(app: Celery) -> None:
    """A user ends an entry of the code by `cancel`; what `remove` deleted is declared still."""
    app.conf.beat_schedule = {
        name: {"task": "tests.note", "schedule": 60} for name in ("cancelled", "removed", "renamed")
    }
    store = Store.from_app(app)
    import_code(store, app)
    assert store.cancel("cancelled")
    store.remove("removed")
    store.change("renamed", new_name="other")
    (report,) = import_code(store, app)
    assert entry_states(store) == {
        "cancelled": "cancelled",
        "other": "cancelled",
        "removed": "active",
        "renamed": "active",
    }
    assert report.kept == {"cancelled": ("state",)}
    store.close()
