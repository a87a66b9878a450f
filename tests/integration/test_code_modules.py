"""What an app's modules declare is imported when beat starts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery import Celery

import beatstore
from beatstore import After, Declared, ManualClock, Store
from beatstore.discovery.modules import import_code
from tests.support.brokers import Broker
from tests.support.code import beat, sent
from tests.support.harness.base import entry_states

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


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
        assert entry_states(scheduler.store) == {"a": "active", "x": "cancelled", "b": "cancelled"}
    with beat(app, clock) as scheduler:
        assert entry_states(scheduler.store) == {"a": "active", "x": "cancelled", "b": "cancelled"}


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
    assert entry_states(store) == {"b": "cancelled", "c": "active"}
    store.close()
