"""Entries through the API, on every database: what is stored, what an edit changes, when."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.schedules import crontab
from sqlalchemy import func, insert, select, text

from beatstore import Cron, Entry, Every, Once, RRule, Store, daily
from beatstore.clock import ManualClock
from beatstore.config import Settings
from beatstore.errors import EntryExistsError, EntryNotFoundError, InvalidEntryError, ScheduleError
from beatstore.models import EntryModel, TagModel
from beatstore.tick.queue import Queue
from tests.support.marks import on_sqlite
from tests.support.ticks import tick

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def sql(store: Store, statement: str, **values: Any) -> None:
    """Execute plain SQL, as somebody with a database client would."""
    with store.database.engine.begin() as connection:
        connection.execute(text(statement), values)


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


# -- change ----------------------------------------------------------------------------


def test_change_leaves_the_rest_alone(store: Store, clock: ManualClock) -> None:
    """change() writes the fields it is given, and those only."""
    before = store.add("a", "t", 60, args=[1], tags=["x"], description="old", grace=5)
    clock.advance(10)
    after = store.change("a", description="new")
    differing = {
        column
        for column in EntryModel.__table__.columns.keys()  # noqa: SIM118  (a collection, not a dict)
        if getattr(before, column) != getattr(after, column)
    }
    assert differing == {"description", "version", "updated_at"}
    assert store.get("a").tags == ("x",)


def test_an_edit_of_arguments_neither_skips_nor_fires(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """An entry edited in the second it is due still runs once, with the new arguments."""
    store.add("a", "t", 60, args=[1])
    clock.advance(60)
    store.change("a", args=[2], options={"queue": "q"}, tags=["x"])
    [claim] = tick(queue)
    assert (claim.due_at, claim.args, claim.options) == (clock.now(), [2], {"queue": "q"})
    assert tick(queue) == []


def test_a_new_schedule_counts_from_now(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A schedule changed after an outage makes up for nothing, and is due at its next time."""
    store.add("a", "t", "0 * * * *")
    clock.advance(10 * 3600 + 60)
    edited = store.change("a", schedule="*/5 * * * *")
    assert edited.cursor_at == clock.now()
    assert edited.wake_at == edited.next_due_at == NOON + timedelta(hours=10, minutes=5)
    assert tick(queue) == []
    clock.advance(300)
    assert [claim.due_at for claim in tick(queue)] == [NOON + timedelta(hours=10, minutes=5)]


@pytest.mark.parametrize(
    "given", [{"timezone": "Asia/Kolkata"}, {"start_at": NOON + timedelta(days=2)}]
)
def test_zone_and_start_are_part_of_the_schedule(
    store: Store, clock: ManualClock, given: dict[str, Any]
) -> None:
    """Another zone or start makes other occurrences, which count from now."""
    before = store.add("a", "t", "0 * * * *")
    clock.advance(7200)
    edited = store.change("a", **given)
    assert edited.cursor_at == clock.now()
    assert edited.next_due_at != before.next_due_at


@pytest.mark.parametrize(
    "given",
    [
        {"end_at": LATEST},
        {"max_runs": 3},
        {"misfire": "all"},
        {"grace": 0},
        {"jitter": 5},
    ],
)
def test_limits_and_policies_leave_the_cursor_alone(
    store: Store, queue: Queue, clock: ManualClock, given: dict[str, Any]
) -> None:
    """What is waiting when a limit or policy is edited is decided by the new one, not lost."""
    store.add("a", "t", 60)
    clock.advance(60)
    assert len(tick(queue)) == 1
    cursor_at = store.get("a").cursor_at
    clock.advance(60)
    edited = store.change("a", **given)
    assert edited.cursor_at == cursor_at
    assert edited.wake_at is not None
    assert edited.wake_at < NOON
    clock.advance(5)
    assert [claim.due_at for claim in tick(queue)] == [NOON + timedelta(seconds=120)]


def test_two_edits_at_one_instant_keep_the_stores_clock(store: Store, clock: ManualClock) -> None:
    """An edit by the API is not taken for one by plain SQL, whose cursor the database sets."""
    store.add("a", "t", 60, jitter=5)
    for spec in (90, 60, 30):
        assert store.change("a", schedule=spec).cursor_at == NOON
    store.pause("a")
    assert store.resume("a").cursor_at == NOON


def test_an_edited_one_shot_runs_at_its_new_time(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A one-shot given another time runs then, even where that has just passed."""
    store.add("a", "t", Once(LATEST))
    store.change("a", schedule=NOON - timedelta(seconds=5))
    assert [claim.due_at for claim in tick(queue)] == [NOON - timedelta(seconds=5)]
    assert store.get("a").state == "finished"


def test_the_zone_of_a_one_shot_is_only_for_show(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Another zone does not send a finished one-shot again."""
    store.add("a", "t", NOON)
    tick(queue)
    assert store.change("a", timezone="Asia/Tokyo").state == "finished"
    assert tick(queue) == []


def test_a_new_schedule_revives_what_is_over(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A finished, cancelled or broken entry is active again with a new schedule."""
    store.add("finished", "t", NOON)
    store.add("cancelled", "t", 60)
    store.cancel("cancelled")
    store.add("broken", "t", 60)
    sql(store, "UPDATE beatstore_entry SET spec = 'nonsense' WHERE name = 'broken'")
    tick(queue)
    assert store.get("broken").state == "broken"
    for name in ("finished", "cancelled", "broken"):
        assert store.get(name).state == name
        edited = store.change(name, schedule=Every(600))
        assert (edited.state, edited.error) == ("active", None)
        assert edited.next_due_at is not None
        assert edited.next_due_at > NOON
    assert tick(queue) == []


def test_other_edits_leave_what_is_over_alone(store: Store, queue: Queue) -> None:
    """A finished entry stays finished when its description or arguments change."""
    store.add("a", "t", NOON)
    tick(queue)
    assert store.change("a", description="x", args=[1], misfire="all").state == "finished"
    assert tick(queue) == []
    assert store.get("a").wake_at is None


def test_a_broken_entry_is_mended_by_mending_what_broke_it(store: Store, queue: Queue) -> None:
    """Correct arguments in place of unreadable ones put a broken entry back into service."""
    store.add("a", "t", 60)
    sql(store, "UPDATE beatstore_entry SET args = '{}', wake_at = '1970-01-01' WHERE name = 'a'")
    tick(queue)
    broken = store.get("a")
    assert broken.state == "broken"
    assert store.change("a", description="x").state == "broken"
    assert store.change("a", args=[]).state == "active"
    tick(queue)
    assert store.get("a").next_due_at == NOON + timedelta(seconds=60)


def test_more_runs_revive_a_finished_entry(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Raising max_runs of an entry that used them up lets it go on from now."""
    store.add("a", "t", 60, max_runs=1)
    clock.advance(60)
    assert len(tick(queue)) == 1
    assert store.get("a").state == "finished"
    clock.advance(3600)
    assert store.change("a", max_runs=2).state == "active"
    assert tick(queue) == []
    clock.advance(60)
    assert len(tick(queue)) == 1
    assert store.get("a").state == "finished"


def test_an_edit_leaves_a_paused_entry_paused(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A paused entry can be edited, and sends nothing until it is resumed."""
    store.add("a", "t", 60)
    store.pause("a")
    assert store.change("a", schedule=Every(1), args=[1]).state == "paused"
    clock.advance(10)
    assert tick(queue) == []
    store.resume("a")
    clock.advance(1)
    assert len(tick(queue)) == 1


def test_change_takes_a_signature(store: Store) -> None:
    """A signature in place of the task brings its arguments and options."""
    store.add("a", "t", 60, args=[1], kwargs={"a": 1}, options={"queue": "q"})
    signature = {"task": "u", "args": (2,), "kwargs": {"b": 2}, "options": {"priority": 3}}
    edited = store.change("a", task=signature)
    assert (edited.task, edited.args, edited.kwargs) == ("u", [2], {"b": 2})
    assert edited.options == {"priority": 3}
    edited = store.change("a", task="v")
    assert (edited.task, edited.args, edited.kwargs) == ("v", [2], {"b": 2})


def test_an_entry_can_be_renamed(store: Store) -> None:
    """A new name keeps everything else; a taken one is refused and changes nothing."""
    made = store.add("a", "t", 60, tags=["x"])
    store.add("b", "t", 60)
    with pytest.raises(EntryExistsError):
        store.change("a", new_name="b", description="x")
    assert store.get("a").description is None
    renamed = store.change("a", new_name="c")
    assert (renamed.id, renamed.name, renamed.version) == (made.id, "c", 2)
    assert store.get("c").tags == ("x",)
    assert renamed.wake_at == made.wake_at
    with pytest.raises(EntryNotFoundError):
        store.get("a")


def test_an_unknown_field_is_named_with_the_nearest(store: Store) -> None:
    """A misspelt field of change() is refused, with the field that is like it."""
    store.add("a", "t", 60)
    with pytest.raises(InvalidEntryError, match="write schedule") as caught:
        store.change("a", shedule=30)
    assert caught.value.field == "shedule"
    with pytest.raises(InvalidEntryError, match="write new_name"):
        store.change("a", newname="b")


def test_a_wrong_edit_changes_nothing(store: Store) -> None:
    """One wrong field refuses the whole edit."""
    before = store.add("a", "t", 60)
    for wrong in ({"schedule": "x"}, {"grace": -1}, {"end_at": NOON}, {"task": None}):
        with pytest.raises((InvalidEntryError, ScheduleError)):
            store.change("a", **{"description": "new", "schedule": 30, **wrong})
    assert store.get("a").version == before.version


# -- pause, resume, remove -------------------------------------------------------------


def test_pausing_is_idempotent(store: Store) -> None:
    """Pausing twice is pausing once, and so with resuming."""
    store.add("a", "t", 60)
    assert store.resume("a").version == 1
    paused = store.pause("a")
    assert (paused.state, paused.wake_at, paused.version) == ("paused", None, 2)
    assert store.pause("a").version == 2
    resumed = store.resume("a")
    assert (resumed.state, resumed.version) == ("active", 3)
    assert store.resume("a").version == 3


def test_nothing_fires_for_the_time_of_a_pause(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Resuming runs nothing by itself and records nothing as missed: pausing is no downtime."""
    store.add("a", "t", 60, misfire="all")
    store.pause("a")
    clock.advance(600)
    store.resume("a")
    assert tick(queue) == []
    clock.advance(60)
    assert [claim.due_at for claim in tick(queue)] == [NOON + timedelta(seconds=660)]
    assert [run.state for run in store.runs("a")] == ["sent"]


def test_a_one_shot_whose_time_passed_while_paused_is_missed(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """It is not sent late; its entry and a run say that it was missed."""
    store.add("a", "t", NOON + timedelta(seconds=10))
    store.add("b", "t", NOON + timedelta(seconds=90))
    for name in ("a", "b"):
        store.pause(name)
    clock.advance(60)
    for name in ("a", "b"):
        store.resume(name)
    assert tick(queue) == []
    assert store.get("a").state == "missed"
    assert [run.state for run in store.runs("a")] == ["missed"]
    clock.advance(30)
    assert [claim.name for claim in tick(queue)] == ["b"]


def test_pausing_what_is_over_changes_nothing(store: Store) -> None:
    """A cancelled entry stays cancelled when it is paused, and resuming it is refused."""
    store.add("a", "t", 60)
    store.cancel("a")
    assert store.pause("a").state == "cancelled"
    with pytest.raises(InvalidEntryError, match=r"store\.change"):
        store.resume("a")


def test_resuming_tries_a_broken_entry_again(store: Store, queue: Queue) -> None:
    """After its row was mended by hand, a broken entry is resumed like a paused one."""
    store.add("a", "t", 60)
    sql(store, "UPDATE beatstore_entry SET spec = 'x', wake_at = '1970-01-01' WHERE name = 'a'")
    tick(queue)
    assert store.get("a").state == "broken"
    sql(store, "UPDATE beatstore_entry SET spec = '30' WHERE name = 'a'")
    assert store.resume("a").error is None
    tick(queue)
    assert store.get("a").next_due_at == NOON + timedelta(seconds=30)


def test_removing_leaves_the_runs(store: Store, queue: Queue, clock: ManualClock) -> None:
    """The entry and its tags are gone, its runs are kept, and the unsent one is cancelled."""
    store.add("a", "t", 60, tags=["x"])
    clock.advance(60)
    tick(queue)
    store.trigger("a")
    store.remove("a")
    with pytest.raises(EntryNotFoundError):
        store.get("a")
    runs = store.runs("a")
    assert [(run.state, run.reason) for run in runs] == [
        ("cancelled", "entry removed"),
        ("sent", None),
    ]
    assert runs[0].wake_at is None
    assert runs[0].finished_at == clock.now()
    assert tick(queue) == []
    with store.database.session() as session:
        assert session.scalar(select(func.count()).select_from(TagModel)) == 0
    again = store.add("a", "t", 60)
    assert store.runs("a") == []
    assert again.id > runs[0].entry_id


@pytest.mark.parametrize("verb", ["pause", "resume", "remove", "get", "trigger", "cancel"])
@on_sqlite
def test_a_name_that_is_not_there_is_an_error(store: Store, verb: str) -> None:
    """Each verb refuses an unknown name, suggesting one that is like it."""
    store.add("nightly-report", "t", 60)
    with pytest.raises(EntryNotFoundError, match="did you mean 'nightly-report'") as caught:
        getattr(store, verb)("nigthly-report")
    assert isinstance(caught.value, LookupError)


# -- finding ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "start"),
    [("report-05000", "report-0"), ("Report-0500", "report-0"), ("zebr", "zebra"), ("zzz", None)],
)
def test_a_similar_name_is_found_among_many(store: Store, wrong: str, start: str | None) -> None:
    """A suggestion comes from the names beside the wrong one, where one is like it."""
    with store.database.engine.begin() as connection:
        names = [*(f"report-{number:04}" for number in range(1000)), "zebra"]
        rows = [{"name": name, "task": "t", "kind": "every", "spec": "60"} for name in names]
        connection.execute(insert(EntryModel), rows)
    with pytest.raises(EntryNotFoundError) as caught:
        store.get(wrong)
    nearest = caught.value.nearest
    assert nearest == start if nearest is None else nearest.startswith(start or "?")


def test_entries_are_listed_by_name_and_page_by_page(store: Store) -> None:
    """Pages follow each other by the last name, in one order, without gap or repetition."""
    names = [f"n{number:02}" for number in range(25)]
    for name in reversed(names):
        store.add(name, "t", 60)
    found: list[str] = []
    while page := store.entries(limit=10, after=found[-1] if found else None):
        assert len(page) <= 10
        found += [entry.name for entry in page]
    assert found == names
    for limit in (0, -1, None, "10"):
        with pytest.raises(InvalidEntryError, match="limit"):
            store.entries(limit=limit)  # type: ignore[arg-type]


def test_entries_are_listed_by_tag_state_source_and_name(store: Store) -> None:
    """Each filter narrows the list, and several narrow it together."""
    store.add("a", "t", 60, tags=["x"])
    store.add("b", "t", 60, tags=["x", "y"], source="sync")
    store.add("c", "t", 60, paused=True)

    def names(**chosen: Any) -> list[str]:
        return [entry.name for entry in store.entries(**chosen)]

    assert names(tag="x") == ["a", "b"]
    assert names(tag="x", source="sync") == ["b"]
    assert names(state="paused") == ["c"]
    assert names(tag="z") == []
    assert names(name="[ab]") == []
    with pytest.raises(InvalidEntryError, match="one of active, paused"):
        store.entries(state="pending")


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("a*", ["a%b", "a[b]", "a_b", "axb"]),
        ("a?b", ["a%b", "a_b", "axb"]),
        ("*_*", ["a_b"]),
        ("a%b", ["a%b"]),
        ("a[b]", ["a[b]"]),
        ("A*", ["Axb"]),
        ("*!*", ["!"]),
        ("*", ["!", "Axb", "a%b", "a[b]", "a_b", "axb"]),
    ],
)
def test_a_pattern_of_names_means_the_same_everywhere(
    store: Store, pattern: str, matching: list[str]
) -> None:
    """`*` and `?` are the only wildcards, case counts, and each database agrees."""
    for name in ("a_b", "a%b", "axb", "Axb", "a[b]", "!"):
        store.add(name, "t", 60)
    assert sorted(entry.name for entry in store.entries(name=pattern)) == matching


def test_previews_are_in_the_entrys_own_zone(store: Store) -> None:
    """A preview shows wall-clock time across a clock change, from now or from a given start."""
    store.add("a", "t", "0 9 * * *", timezone="Europe/Berlin")
    assert [str(at) for at in store.preview("a", 2)] == [
        "2026-01-16 09:00:00+01:00",
        "2026-01-17 09:00:00+01:00",
    ]
    start = datetime(2026, 3, 28, 9, tzinfo=ZoneInfo("Europe/Berlin"))
    assert [str(at) for at in store.preview("a", 2, start)] == [
        "2026-03-28 09:00:00+01:00",
        "2026-03-29 09:00:00+02:00",
    ]


def test_a_preview_honours_the_limits(store: Store, queue: Queue, clock: ManualClock) -> None:
    """start_at, end_at and the runs left bound a preview; jitter is not in it."""
    limits = {
        "start_at": NOON + timedelta(minutes=5),
        "end_at": NOON + timedelta(minutes=8),
        "jitter": 30,
    }
    store.add("a", "t", "* * * * *", **limits)
    assert [at.minute for at in store.preview("a", 9)] == [5, 6, 7, 8]
    store.change("a", max_runs=3)
    assert [at.minute for at in store.preview("a", 9)] == [5, 6, 7]
    clock.set(NOON + timedelta(minutes=5, seconds=30))
    assert len(tick(queue)) == 1
    assert [at.minute for at in store.preview("a", 9)] == [6, 7]
    store.pause("a")
    assert [at.minute for at in store.preview("a", 9)] == [6, 7]
    store.cancel("a")
    assert store.preview("a", 9) == []
    assert store.preview("a", 0) == []
