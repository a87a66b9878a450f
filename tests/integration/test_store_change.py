"""What an edit of an entry changes, and when that counts, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from beatstore import Every, Once, RRule, Store
from beatstore.clock import ManualClock
from beatstore.errors import EntryExistsError, EntryNotFoundError, InvalidEntryError, ScheduleError
from beatstore.models import EntryModel
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import tick
from tests.support.written import sql

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


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


@pytest.mark.parametrize("verb", ["change", "put"])
def test_only_further_limits_revive_a_finished_entry(
    store: Store, queue: Queue, clock: ManualClock, verb: str
) -> None:
    """Fewer runs, or an earlier end, leave it finished; a later end lets it go on."""
    end_at = NOON + timedelta(seconds=150)
    given: dict[str, Any] = {"max_runs": 9, "end_at": end_at}

    def edit(**more: Any) -> str:
        if verb == "change":
            return store.change("a", **more).state
        return store.put("a", "t", 60, **{**given, **more}).state

    store.add("a", "t", 60, **given)
    clock.advance(120)
    tick(queue)
    clock.advance(60)
    tick(queue)
    assert store.get("a").state == "finished"
    given["max_runs"] = 5
    assert edit(max_runs=5) == "finished"
    assert edit(end_at=end_at - timedelta(seconds=5)) == "finished"
    assert edit(end_at=NOON + timedelta(hours=1)) == "active"
    clock.advance(60)
    assert len(tick(queue)) == 1


def test_what_resume_says_of_an_entry_that_is_over(store: Store) -> None:
    """The error says how it becomes active again, and that works."""
    store.add("a", "t", 60)
    store.cancel("a")
    with pytest.raises(InvalidEntryError, match="with another schedule, which makes it active"):
        store.resume("a")
    assert store.change("a", schedule=60).state == "cancelled"
    assert store.change("a", schedule=90).state == "active"


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


def test_a_rule_with_a_zone_of_its_own_keeps_it(store: Store) -> None:
    """Another zone is refused, as when it is added; None is that of the rule."""
    store.add("r", "t", RRule("DTSTART:20260101T090000Z RRULE:FREQ=DAILY"))
    with pytest.raises(InvalidEntryError, match="timezone: expected the schedule's own zone, UTC"):
        store.change("r", timezone="America/New_York")
    assert store.change("r", timezone=None).timezone == "UTC"
    assert store.change("r", timezone="UTC").version == 1
