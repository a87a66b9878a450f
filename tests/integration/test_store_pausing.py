"""Pausing, resuming and removing entries, on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select

from beatstore import Store
from beatstore.clock import ManualClock
from beatstore.errors import EntryNotFoundError, InvalidEntryError
from beatstore.models import TagModel
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import tick
from tests.support.marks import on_sqlite
from tests.support.written import sql

pytestmark = pytest.mark.by_clock  # the store's time is that of the fixture `clock`

UTC = timezone.utc
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


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
        ("cancelled", "triggered; entry removed"),
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
