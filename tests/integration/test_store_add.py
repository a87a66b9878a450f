"""What `Store.add` and `put` store of an entry, and what they refuse, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from celery.schedules import crontab

from beatstore import Cron, Entry, Every, Once, RRule, Store, daily
from beatstore.clock import ManualClock
from beatstore.config import Settings
from beatstore.errors import EntryExistsError, InvalidEntryError, ScheduleError
from beatstore.models import EntryModel
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import tick
from tests.support.marks import on_sqlite

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


# -- add -------------------------------------------------------------------------------


def test_an_entry_comes_back_as_it_was_given(store: Store) -> None:
    """Every argument of add() is stored, and read back equal on each database."""
    given = {
        "args": (1, "zwei", None),
        "kwargs": {"a": [1.5, {"b": True}]},
        "options": {"queue": "etl", "expires": timedelta(hours=1)},
        "timezone": "Europe/Berlin",
        "start_at": NOON + timedelta(microseconds=1),
        "end_at": LATEST,
        "max_runs": 7,
        "misfire": "skip",
        "grace": timedelta(minutes=2),
        "description": "größte\nZeile",
        "source": "tests",
    }
    made = store.add("Größe", "etl.load", "30 2 * * *", tags=["b", "a"], **given)
    entry = store.get("Größe")
    for column in EntryModel.__table__.columns.keys():  # noqa: SIM118  (a collection, not a dict)
        assert getattr(made, column) == getattr(entry, column), column
    assert entry.args == [1, "zwei", None]
    assert entry.kwargs == given["kwargs"]
    assert entry.options == {"queue": "etl", "expires": 3600.0}
    assert (entry.kind, entry.spec, entry.timezone) == ("cron", "30 2 * * *", "Europe/Berlin")
    assert (entry.start_at, entry.end_at) == (given["start_at"], LATEST)
    assert (entry.max_runs, entry.misfire, entry.grace_s) == (7, "skip", 120.0)
    assert (entry.description, entry.source) == ("größte\nZeile", "tests")
    assert (entry.state, entry.version, entry.run_count) == ("active", 1, 0)
    assert entry.created_at == entry.updated_at == NOON
    assert store.get("Größe").tags == ("a", "b")


def test_the_first_run_is_the_first_due_time_after_now(store: Store, queue: Queue) -> None:
    """Adding an entry sends nothing; its first occurrence is the first one to come."""
    entry = store.add("a", "t", "0 12 * * *")
    assert entry.next_due_at == entry.wake_at == NOON + timedelta(days=1)
    assert entry.cursor_at is None
    assert tick(queue) == []


def test_the_first_run_waits_for_start_at(store: Store) -> None:
    """An occurrence exactly at start_at is the first; none is before it."""
    start_at = datetime(2026, 3, 1, 9, tzinfo=UTC)
    entry = store.add("a", "t", "0 9 * * *", start_at=start_at)
    assert entry.next_due_at == entry.wake_at == start_at


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("schedule", "kind", "spec"),
    [
        ("*/5 * * * *", "cron", "*/5 * * * *"),
        (daily(9, 30), "cron", "30 9 * * *"),
        (Cron("0 9 * * 1", "Asia/Tokyo"), "cron", "0 9 * * 1"),
        (300, "every", "300"),
        (timedelta(minutes=1.5), "every", "90"),
        (Every(0.5), "every", "0.5"),
        (RRule("FREQ=WEEKLY;BYDAY=MO;BYHOUR=9;BYMINUTE=0;BYSECOND=0"), "rrule", None),
        (NOON + timedelta(microseconds=1), "once", "2026-01-15T12:00:00.000001+00:00"),
        (Once(LATEST), "once", "9999-12-31T23:59:59.999999+00:00"),
        (crontab(minute="30", hour="4"), "cron", "30 4 * * *"),
    ],
)
def test_a_schedule_is_given_in_many_ways(
    store: Store, schedule: Any, kind: str, spec: str | None
) -> None:
    """Schedules, cron text, datetimes, timedeltas, seconds and celery's schedules are stored."""
    entry = store.add("a", "t", schedule)
    assert entry.kind == kind
    assert spec is None or entry.spec == spec
    assert store.preview("a", 1)[0] == entry.next_due_at


def test_the_zone_is_the_schedules_then_the_arguments_then_the_settings(
    migrated_url: str, clock: ManualClock
) -> None:
    """The zone a schedule is meant in is decided when it is stored, and stored."""
    store = Store(migrated_url, settings=Settings(default_timezone="Europe/Paris"), clock=clock)
    assert store.add("a", "t", "0 9 * * *").timezone == "Europe/Paris"
    assert store.add("b", "t", "0 9 * * *", timezone="Asia/Tokyo").timezone == "Asia/Tokyo"
    assert store.add("c", "t", Cron("0 9 * * *", "Asia/Tokyo")).timezone == "Asia/Tokyo"
    for bad in ("Europe/Berlinn", "Asia/Tokyo"):
        with pytest.raises((ScheduleError, InvalidEntryError)) as caught:
            store.add("d", "t", Cron("0 9 * * *", "UTC"), timezone=bad)
        assert caught.value.field == "timezone"
    store.close()


def test_a_taken_name_is_refused(store: Store) -> None:
    """A second entry of a name is an EntryExistsError; another case is another name."""
    store.add("a", "t", 60)
    with pytest.raises(EntryExistsError, match="put"):
        store.add("a", "t", 60)
    assert store.add("A", "t", 60).name == "A"


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"schedule": None}, "schedule"),
        ({"schedule": "0 0 31 2 *"}, "expression"),
        ({"schedule": "0 9 * * *", "timezone": "Mars"}, "timezone"),
        ({"schedule": datetime(2030, 1, 1)}, "at"),
        ({"schedule": "2030-01-01T00:00:00Z"}, "schedule"),
        ({"schedule": object()}, "schedule"),
        ({"schedule": 60, "name": " a"}, "name"),
        ({"schedule": 60, "name": None}, "name"),
        ({"schedule": 60, "task": ""}, "task"),
        ({"schedule": 60, "args": "abc"}, "args"),
        ({"schedule": 60, "kwargs": {"when": NOON - NOON}}, "kwargs['when']"),
        ({"schedule": 60, "options": {"eta": NOON}}, "options['eta']"),
        ({"schedule": 60, "misfire": "ignore"}, "misfire"),
        ({"schedule": 60, "grace": -1}, "grace"),
        ({"schedule": 60, "grace": 0, "misfire": "skip"}, "grace"),
        ({"schedule": 60, "jitter": "5"}, "jitter"),
        ({"schedule": 60, "max_runs": 0}, "max_runs"),
        ({"schedule": 60, "start_at": "2030"}, "start_at"),
        ({"schedule": 60, "start_at": NOON, "end_at": NOON}, "end_at"),
        ({"schedule": 60, "end_at": NOON}, "end_at"),
        ({"schedule": "0 0 1 1 * 0 2026", "start_at": LATEST}, "schedule"),
        ({"schedule": NOON, "end_at": NOON - timedelta(days=1)}, "end_at"),
        ({"schedule": NOON, "start_at": NOON + timedelta(days=1)}, "start_at"),
        ({"schedule": 60, "tags": "etl"}, "tags"),
        ({"schedule": 60, "description": "\0"}, "description"),
        ({"schedule": 60, "source": ""}, "source"),
        ({"schedule": 60, "paused": 1}, "paused"),
    ],
)
@on_sqlite
def test_what_is_wrong_is_refused_by_its_name(
    store: Store, given: dict[str, Any], field: str
) -> None:
    """A wrong argument is refused before anything is stored, and the error names it."""
    with pytest.raises((InvalidEntryError, ScheduleError)) as caught:
        store.add(**{"name": "a", "task": "t", **given})
    assert caught.value.field == field
    assert store.entries() == []


def test_a_task_that_is_not_allowed_is_refused(migrated_url: str) -> None:
    """With beatstore_allowed_tasks, no other task can be stored, by add() or change()."""
    store = Store(migrated_url, settings=Settings(allowed_tasks=("reports.*",)))
    store.add("a", "reports.daily", 60)
    with pytest.raises(InvalidEntryError, match="allowed_tasks"):
        store.add("b", "shell.run", 60)
    with pytest.raises(InvalidEntryError, match="allowed_tasks"):
        store.change("a", task="shell.run")
    store.close()


def test_a_paused_entry_can_be_added(store: Store, queue: Queue, clock: ManualClock) -> None:
    """An entry added with paused=True sends nothing until it is resumed."""
    entry = store.add("a", "t", 60, paused=True)
    assert (entry.state, entry.wake_at) == ("paused", None)
    clock.advance(150)
    assert tick(queue) == []
    store.resume("a")
    clock.advance(30)
    assert [claim.due_at for claim in tick(queue)] == [NOON + timedelta(seconds=180)]


def test_jitter_is_left_to_the_rule(store: Store, queue: Queue) -> None:
    """An entry with jitter is looked at at once, and then waits for its own offset."""
    entry = store.add("a", "t", 60, jitter=30)
    assert entry.next_due_at == NOON + timedelta(seconds=60)
    assert tick(queue) == []
    planned = store.get("a")
    assert planned.next_due_at == NOON + timedelta(seconds=60)
    assert planned.wake_at is not None
    assert timedelta(0) <= planned.wake_at - planned.next_due_at < timedelta(seconds=30)


# -- put -------------------------------------------------------------------------------


def put(store: Store, **given: Any) -> Entry:
    """Put the same entry, but for what is given."""
    same: dict[str, Any] = {
        "task": "etl.load",
        "schedule": Every(3600),
        "args": [1, {"a": 1.0}],
        "kwargs": {"b": True},
        "options": {"queue": "q"},
        "misfire": "all",
        "grace": 5,
        "end_at": LATEST,
        "tags": ["x"],
    }
    return store.put("a", **{**same, **given})


def test_put_is_idempotent(store: Store, clock: ManualClock) -> None:
    """The same put() again writes nothing: not version, updated_at, cursor nor wake_at."""
    made = put(store)
    clock.advance(100)
    again = put(store)
    for column in EntryModel.__table__.columns.keys():  # noqa: SIM118  (a collection, not a dict)
        assert getattr(made, column) == getattr(again, column), column


@pytest.mark.parametrize(
    ("given", "column", "value"),
    [
        ({"task": "etl.other"}, "task", "etl.other"),
        ({"args": [1, {"a": 1}]}, "args", [1, {"a": 1}]),
        ({"kwargs": {"b": 1}}, "kwargs", {"b": 1}),
        ({"kwargs": None}, "kwargs", {}),
        ({"options": {}}, "options", {}),
        ({"schedule": Every(60)}, "spec", "60"),
        ({"timezone": "Asia/Tokyo"}, "timezone", "Asia/Tokyo"),
        ({"end_at": None}, "end_at", None),
        ({"grace": None}, "grace_s", None),
        ({"source": "sync"}, "source", "sync"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_put_makes_the_entry_what_the_arguments_say(
    store: Store, clock: ManualClock, given: dict[str, Any], column: str, value: Any
) -> None:
    """One differing argument, or one left out, is one edit; JSON 1, 1.0 and true differ."""
    put(store)
    clock.advance(1)
    edited = put(store, **given)
    assert edited.version == 2
    assert getattr(edited, column) == value
    assert type(getattr(edited, column)) is type(value)
    assert edited.updated_at == clock.now()
    assert put(store, **given).version == 2


def test_put_replaces_tags(store: Store) -> None:
    """Tags are what the last put() said, and changing them counts as an edit."""
    put(store, tags=["x", "y"])
    assert put(store, tags=["z", "y"]).version == 2
    assert store.get("a").tags == ("y", "z")
    assert put(store, tags=["y", "z"]).version == 2


def test_put_leaves_a_pause_alone(store: Store) -> None:
    """An entry paused by hand stays paused when its program is deployed again."""
    put(store)
    store.pause("a")
    assert put(store).state == "paused"
    assert put(store, schedule=Every(60)).state == "paused"


def test_put_can_pause(store: Store) -> None:
    """Asking for a paused entry pauses the one that is there."""
    put(store)
    assert put(store, paused=True).state == "paused"
    assert put(store, paused=True).version == 2


def test_put_does_not_run_a_finished_one_shot_again(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A one-shot that ran is over, however often its program says the same."""
    at = NOON + timedelta(seconds=5)
    store.put("a", "t", at)
    clock.advance(10)
    assert len(tick(queue)) == 1
    assert store.put("a", "t", at).state == "finished"
    assert tick(queue) == []
    assert store.put("a", "t", NOON + timedelta(seconds=60)).state == "active"
