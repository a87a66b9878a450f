"""The tick's half of the store, on every database: look, plan, sweep, mark."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from beatstore import Cron, Every, Once, Store
from beatstore.clock import ManualClock
from beatstore.database.tables import ENTRY
from beatstore.tick.claims import Outcome
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import MakeQueue, plan, sent, sweep
from tests.support.written import NOON

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]


def test_look_tells_the_time_and_what_comes_first(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """An idle look is one statement: the clock, and the earliest wake_at of entries and runs."""
    assert queue.look().now == NOON
    assert queue.look().entry_wake_at is None
    store.add("a", "t", Once(NOON + timedelta(seconds=90)))
    look = queue.look()
    assert look.entry_wake_at == NOON + timedelta(seconds=90)
    assert look.run_wake_at is None


def test_plan_writes_the_run_before_anything_is_sent(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A due occurrence is a committed row, held by this beat until its claim expires."""
    store.add("a", "proj.t", Cron("* * * * *"), args=[1], kwargs={"k": "v"}, options={"queue": "q"})
    plan(queue)
    clock.advance(60)
    (claim,) = plan(queue)
    assert (claim.name, claim.task, claim.args, claim.kwargs, claim.options) == (
        "a",
        "proj.t",
        [1],
        {"k": "v"},
        {"queue": "q"},
    )
    assert claim.due_at == NOON + timedelta(seconds=60)
    (run,) = store.runs()
    assert (run.state, run.due_at, run.attempt) == ("claimed", claim.due_at, 1)
    assert run.wake_at == clock.now() + timedelta(seconds=30)
    assert (run.id, run.task_id) == (claim.run_id, claim.task_id)
    entry = store.get("a")
    assert (entry.run_count, entry.cursor_at) == (1, claim.due_at)
    assert entry.next_due_at == NOON + timedelta(seconds=120)


def test_mark_marks_what_was_sent(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A sent run has its time of sending, and nobody looks at it again."""
    store.add("a", "t", Once(NOON))
    queue.mark(sent(plan(queue)))
    (run,) = store.runs()
    assert (run.state, run.sent_at, run.wake_at) == ("sent", NOON, None)
    clock.advance(3600)
    assert sweep(queue) == []


def test_mark_keeps_the_reason_of_what_was_not_sent(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A run that was skipped or failed says why, and when that was."""
    for name in ("a", "b"):
        store.add(name, "t", Once(NOON))
    first, second = sorted(plan(queue), key=lambda claim: claim.name)
    queue.mark([Outcome(first, "skipped", "already queued: x"), Outcome(second, "failed", "bad")])
    found = {run.entry_name: (run.state, run.reason, run.finished_at) for run in store.runs()}
    assert found == {"a": ("skipped", "already queued: x", NOON), "b": ("failed", "bad", NOON)}


def test_an_expired_claim_is_sent_by_another_beat_with_the_same_task_id(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A beat that dies after claiming loses nothing: the same run, the same task id, once."""
    dead, heir = make_queue(), make_queue()
    store.add("a", "t", Once(NOON))
    (claim,) = plan(dead)
    clock.advance(29.9)
    assert sweep(heir) == []
    clock.advance(0.1)
    (again,) = sweep(heir)
    assert (again.run_id, again.task_id, again.due_at) == (
        claim.run_id,
        claim.task_id,
        claim.due_at,
    )
    assert len(store.runs()) == 1


def test_a_beat_that_lost_its_claim_marks_nothing(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A beat that wakes up after its claim expired can't overwrite what its heir wrote."""
    slow, heir = make_queue(), make_queue()
    store.add("a", "t", Once(NOON))
    late = plan(slow)
    clock.advance(31)
    sweep(heir)
    slow.mark([Outcome(late[0], "failed", "too late")])
    (run,) = store.runs()
    assert run.state == "claimed"


def test_a_claim_that_was_not_sent_is_free_again(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A claim given back is swept at once, or when it asked to be."""
    store.add("a", "t", Once(NOON))
    (claim,) = plan(queue)
    queue.mark([Outcome(claim, "claimed")])
    (again,) = sweep(queue)
    queue.mark([Outcome(again, "claimed", "flaky", 5.0)])
    assert sweep(queue) == []
    clock.advance(5)
    assert [item.run_id for item in sweep(queue)] == [claim.run_id]
    assert store.runs()[0].reason == "flaky"


def test_withdrawing_frees_what_a_beat_still_holds(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """An orderly end leaves the open claims to the next beat without waiting for their expiry."""
    leaving, heir = make_queue(), make_queue()
    leaving.upkeep.introduce(host="h", pid=1, version="0", tzdata="x")
    store.add("a", "t", Once(NOON))
    plan(leaving)
    leaving.upkeep.withdraw()
    assert store.runs()[0].claimed_by is None
    assert len(sweep(heir)) == 1
    [beat] = store.status().beats
    assert (beat.alive, beat.stopped_at) == (False, NOON)


def test_beats_do_not_wait_for_each_other(
    store: Store, make_queue: MakeQueue, clock: ManualClock, backend: str
) -> None:
    """While one beat holds locked rows, another plans the others at once."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    first, second = make_queue(batch_size=3), make_queue(batch_size=3)
    # Due times of its own: where a row of an earlier test with the same key is deleted
    # and not yet purged, MariaDB locks the gap beside it.
    due = datetime.now(timezone.utc)
    clock.set(due + timedelta(seconds=1))
    for number in range(6):
        store.add(f"e{number}", "t", Once(due + timedelta(microseconds=number)))
    with first._kept.claiming() as connection:  # the open transaction is the point
        held = first._planner.plan_where(
            connection, ENTRY.c.wake_at <= clock.now(), clock.now(), limit=3
        )
        assert held.count == 3
        other = plan(second)
    names = sorted(claim.name for claim in [*held.claims, *other])
    assert names == [f"e{number}" for number in range(6)]


def test_the_unique_key_refuses_a_second_run(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """An occurrence that has a run gets no other, even if its cursor was set back by hand."""
    store.add("a", "t", Every(60))
    plan(queue)
    clock.advance(60)
    queue.mark(sent(plan(queue)))
    with store.database.session() as session:
        session.execute(
            text("UPDATE beatstore_entry SET cursor_at = created_at, wake_at = created_at")
        )
    assert plan(queue) == []
    assert len(store.runs()) == 1


def test_same_instant_entries_are_all_sent(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Entries due at one instant are all claimed, and in the order of due times."""
    for number in range(5):
        store.add(f"e{number}", "t", Once(NOON))
    store.add("earlier", "t", Once(NOON - timedelta(seconds=1)))
    claims = plan(queue)
    assert claims[0].name == "earlier"
    assert len(claims) == 6


def test_a_batch_is_bounded_and_the_rest_comes_next(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A plan takes batch_size entries; the next one goes on, earliest first."""
    queue = make_queue(batch_size=2)
    for number in range(5):
        store.add(f"e{number}", "t", Once(NOON + timedelta(seconds=number)))
    clock.advance(10)
    taken = [[claim.name for claim in plan(queue)] for _ in range(4)]
    assert taken == [["e0", "e1"], ["e2", "e3"], ["e4"], []]


@pytest.mark.parametrize(
    ("what", "reason"),
    [("pause", "entry paused"), ("remove", "entry removed"), ("cancel", "entry cancelled")],
)
def test_what_was_taken_back_is_not_sent_after_a_crash(
    store: Store, queue: Queue, clock: ManualClock, what: str, reason: str
) -> None:
    """A run whose entry was paused, removed or cancelled before a resend is not sent."""
    store.add("a", "t", Every(60))
    plan(queue)
    clock.advance(60)
    plan(queue)  # claimed, and then this beat is gone
    getattr(store, what)("a")
    clock.advance(31)
    assert sweep(queue) == []
    (run,) = store.runs()
    assert run.state == "cancelled"
    assert str(run.reason).startswith(reason)
    assert run.wake_at is None


def test_what_was_sent_says_so_even_if_cancelled_meanwhile(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """An entry removed while its message is on its way leaves a run that says `sent`."""
    store.add("a", "t", Once(NOON))
    claims = plan(queue)
    store.remove("a")
    assert store.runs()[0].state == "cancelled"
    queue.mark(sent(claims))
    assert store.runs()[0].state == "sent"


def test_a_triggered_run_is_sent_even_when_paused(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """To run now is an explicit wish: it works on a paused entry too."""
    store.add("a", "t", Every(60), paused=True)
    store.trigger("a")
    (claim,) = sweep(queue)
    assert claim.name == "a"


def test_missed_rows_say_what_they_stand_for(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Under skip, what was missed is one row with first, count and reason."""
    store.add("a", "t", Cron("0 * * * *"), misfire="skip", grace=60)
    plan(queue)
    clock.advance(3 * 3600 + 600)
    assert plan(queue) == []
    (run,) = store.runs()
    assert (run.state, run.missed_count) == ("missed", 3)
    assert run.first_missed_at == NOON + timedelta(hours=1)
    assert run.wake_at is None


def test_task_ids_are_stable_and_distinct(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Each occurrence has a task id of its own."""
    store.add("a", "t", Cron("* * * * * *"), grace=600)
    plan(queue)
    clock.advance(50)
    claims = plan(queue)
    assert len({claim.task_id for claim in claims}) == len(claims) == 50
