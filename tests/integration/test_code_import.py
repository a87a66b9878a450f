"""What beat imports when it starts: `beat_schedule`, and what the app's modules declare."""

from __future__ import annotations

import logging
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedule

import beatstore
from beatstore import After, Declared, ManualClock, Store
from beatstore.beat.scheduler import DBScheduler
from beatstore.discovery.modules import import_code, log
from tests.support.brokers import Broker
from tests.support.inprocess import new_app, running
from tests.support.marks import on_servers, on_sqlite

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
def app(memory_broker: Broker, migrated_url: str) -> Celery:
    """Return an app with the task `tests.note`, and no clean-up of celery's own."""
    app = new_app(memory_broker, migrated_url, result_expires=None, beatstore_listen=False)

    @app.task(name="tests.note", shared=False)
    def note(*args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    return app


@contextmanager
def beat(app: Celery, clock: ManualClock) -> Iterator[DBScheduler]:
    """Start a beat whose database stands at the clock's time, from its start on."""
    original = Store.from_app

    def at_clock(of: Any) -> Store:
        store = original(of)
        store.database.clock = clock
        return store

    patch = pytest.MonkeyPatch()
    patch.setattr(Store, "from_app", at_clock)
    try:
        with running(app) as scheduler:
            yield scheduler
    finally:
        patch.undo()


def sent(scheduler: DBScheduler, broker: Broker) -> dict[str, tuple[Any, Any]]:
    """Tick until nothing is due, and return what was sent by entry: args and kwargs."""
    for _ in range(100):
        if scheduler.tick():
            break
    found: dict[str, tuple[Any, Any]] = {}
    for message in broker.drain():
        found[message.headers["beatstore_entry"]] = (message.args, message.kwargs)
    return found


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, app: Celery) -> Callable[..., types.ModuleType]:
    """Return a function that makes a module of the app with a list of entries."""

    def make(name: str, *entries: Declared) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(app=app, SCHEDULES=list(entries))
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


def states(store: Store) -> dict[str, str]:
    """Return the state of each entry."""
    return {entry.name: entry.state for entry in store.entries()}


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
        found = states(store)
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
        assert states(scheduler.store) == {"good": "active", "turns": "active", "never": "active"}
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
        assert states(scheduler.store) == {"celery.backend_cleanup": "active"}
    app.conf.result_expires = None
    with beat(app, clock) as scheduler:
        assert states(scheduler.store) == {"celery.backend_cleanup": "cancelled"}
    app.conf.result_expires = 60
    with beat(app, clock) as scheduler:
        assert states(scheduler.store) == {"celery.backend_cleanup": "active"}


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


# -- what modules declare ------------------------------------------------------------------


def test_modules_are_followed(
    app: Celery,
    clock: ManualClock,
    memory_broker: Broker,
    module: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lists are stored by module, and deactivated when the module is gone."""
    module("plan_a", Declared("a", "tests.note", 60), Declared("x", "tests.note", 60))
    module("plan_b", Declared("b", "tests.note", 60))
    with beat(app, clock) as scheduler:
        found = {entry.name: entry.source for entry in scheduler.store.entries()}
        assert found == {"a": "module:plan_a", "x": "module:plan_a", "b": "module:plan_b"}
        clock.set(NOON + timedelta(minutes=1))
        assert sent(scheduler, memory_broker).keys() == {"a", "b", "x"}
    monkeypatch.delitem(sys.modules, "plan_b")
    module("plan_a", Declared("a", "tests.note", 60))
    with beat(app, clock) as scheduler:
        assert states(scheduler.store) == {"a": "active", "x": "cancelled", "b": "cancelled"}
    with beat(app, clock) as scheduler:
        assert states(scheduler.store) == {"a": "active", "x": "cancelled", "b": "cancelled"}


def test_a_decorated_task_is_stored_and_sent(
    app: Celery, clock: ManualClock, memory_broker: Broker
) -> None:
    """`@scheduled` needs nothing else than a start of beat."""

    @beatstore.scheduled(60, args=["b"], name="second")
    @beatstore.scheduled("*/2 * * * *", args=["a"], tags=["t"])
    @app.task(name="tests.decorated", shared=False)
    def decorated(word: str) -> None:
        """Do nothing."""

    with beat(app, clock) as scheduler:
        clock.set(NOON + timedelta(minutes=2))
        found = sent(scheduler, memory_broker)
        assert found["tests.decorated"] == (["a"], {})
        assert found["second"] == (["b"], {})
        assert [one.name for one in scheduler.store.entries(tag="t")] == ["tests.decorated"]


def test_entries_wait_for_those_of_other_modules(
    app: Celery, clock: ManualClock, module: Callable[..., Any]
) -> None:
    """Upstreams may be in any source, in a circle of modules too, and in a first dry run."""
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 60}}
    module(
        "plan_a",
        Declared("a1", "tests.note", after=["b2"]),
        Declared("a2", "tests.note", after=["conf"]),
    )
    module(
        "plan_b",
        Declared("b1", "tests.note", after=[After("a1", on="done")]),
        Declared("b2", "tests.note", after=["a2"]),
    )
    store = Store.from_app(app)
    wanted = {
        "beat_schedule": ("conf",),
        "module:plan_a": ("a1", "a2"),
        "module:plan_b": ("b1", "b2"),
    }
    planned = import_code(store, app, dry_run=True)
    assert {one.source: one.created for one in planned} == wanted
    assert not any(one.refused for one in planned)
    assert store.entries() == []
    done = import_code(store, app)
    print(*done, sep="\n")
    assert {one.source: one.created for one in done} == wanted
    edges = {(edge.upstream, edge.downstream) for edge in store.graph().edges}
    assert edges == {("b2", "a1"), ("conf", "a2"), ("a1", "b1"), ("a2", "b2")}
    again = import_code(store, app)
    assert {one.source: one.unchanged for one in again} == wanted
    store.close()


def test_an_entry_that_moves_to_another_module_goes_on(
    app: Celery, clock: ManualClock, module: Callable[..., Any]
) -> None:
    """Moved up or down in the order of the modules, it is the same row, with its history."""
    store = Store.from_app(app)
    module("plan_a", Declared("down", "tests.note", 60))
    module("plan_b", Declared("up", "tests.note", 60))
    import_code(store, app)
    ids = {entry.name: entry.id for entry in store.entries()}
    module("plan_a", Declared("up", "tests.note", 60))
    module("plan_b", Declared("down", "tests.note", 60))
    reports = import_code(store, app)
    assert not any(report.refused for report in reports)
    found = {entry.name: (entry.id, entry.state, entry.source) for entry in store.entries()}
    assert found == {
        "up": (ids["up"], "active", "module:plan_a"),
        "down": (ids["down"], "active", "module:plan_b"),
    }
    store.close()


def test_one_module_can_be_synced_alone(
    app: Celery, clock: ManualClock, module: Callable[..., Any]
) -> None:
    """`module=` touches the rows of that module, and of no other source."""
    store = Store.from_app(app)
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 60}}
    module("plan_a", Declared("a", "tests.note", 60))
    module("plan_b", Declared("b", "tests.note", 60))
    (report,) = import_code(store, app, module="plan_b")
    assert (report.source, report.created) == ("module:plan_b", ("b",))
    module("plan_b")
    vars(sys.modules["plan_b"])["SCHEDULES"] = [Declared("c", "tests.note", 60)]
    (report,) = import_code(store, app, module="plan_b")
    assert (report.created, report.deactivated) == (("c",), ("b",))
    assert states(store) == {"b": "cancelled", "c": "active"}
    store.close()


# -- several beats, and outages ------------------------------------------------------------


@on_servers
def test_two_beats_that_start_together_import_once(app: Celery) -> None:
    """Whoever comes second finds it done: each entry is there once, written once."""
    app.conf.beat_schedule = {
        f"entry-{n}": {"task": "tests.note", "schedule": 60 + n} for n in range(300)
    }
    app.finalize()
    barrier = threading.Barrier(4)
    reports: list[Any] = []

    def start() -> None:
        store = Store.from_app(app)
        barrier.wait()
        reports.extend(import_code(store, app))
        store.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(len(report.created) for report in reports) == [0, 0, 0, 300]
    assert sorted(len(report.unchanged) for report in reports) == [0, 300, 300, 300]
    store = Store.from_app(app)
    assert {entry.version for entry in store.entries()} == {1}
    assert len(store.audit(limit=1000)) == 300
    store.close()


def test_a_database_that_comes_later_gets_the_import(
    app: Celery, clock: ManualClock, memory_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start without a database is a start: the import follows when it answers."""
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 60}}
    check = Store.check

    def away(self: Store) -> None:
        raise beatstore.UnavailableError("away")

    monkeypatch.setattr(Store, "check", away)
    with beat(app, clock) as scheduler:
        assert scheduler.tick() > 0
        monkeypatch.setattr(Store, "check", check)
        assert sent(scheduler, memory_broker) == {}
        clock.set(NOON + timedelta(minutes=1))
        assert sent(scheduler, memory_broker).keys() == {"conf"}


@on_sqlite
def test_a_lazy_scheduler_imports_nothing(app: Celery) -> None:
    """The one of the banner leaves the database as it is."""
    app.conf.beat_schedule = {"conf": {"task": "tests.note", "schedule": 60}}
    with running(app, lazy=True) as scheduler:
        assert scheduler.store.entries() == []


def test_the_log_of_nothing_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """An app without entries in its code says so once."""
    caplog.set_level(logging.INFO, "beatstore.discovery.modules")
    log([])
    assert [record.getMessage() for record in caplog.records] == [
        "imported entries from code: 0 created, 0 updated, 0 deactivated, 0 unchanged"
    ]


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
    assert states(store) == {
        "cancelled": "cancelled",
        "other": "cancelled",
        "removed": "active",
        "renamed": "active",
    }
    assert report.kept == {"cancelled": ("state",)}
    store.close()
