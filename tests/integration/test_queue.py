"""The tick's half of the store, on every database: look, plan, sweep, settle."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import delete, text

from beatstore import Cron, Every, Once, Store
from beatstore.clock import ManualClock
from beatstore.config import Settings
from beatstore.database.tables import ENTRY
from beatstore.models import BeatModel
from beatstore.tick.claims import BeatFigures, Claim, Outcome
from beatstore.tick.queue import Queue

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]

START = datetime(2026, 3, 2, 9, 0, 0, tzinfo=timezone.utc)
MakeQueue = Callable[..., Queue]


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands at 2 March 2026, 09:00 UTC."""
    return ManualClock(START)


@pytest.fixture
def make_queue(store: Store) -> Iterator[MakeQueue]:
    """Return a function that makes the queue of one more beat."""
    queues: list[Queue] = []

    def make(**settings: Any) -> Queue:
        queue = Queue(store.database, Settings(**settings), str(uuid.uuid4()))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        queue.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    """Return the queue of a beat with default settings."""
    return make_queue()


def plan(queue: Queue) -> list[Claim]:
    """Look and plan once."""
    return queue.plan(queue.look().now)[0]


def sweep(queue: Queue) -> list[Claim]:
    """Look and sweep once."""
    return queue.sweep(queue.look().now).claims


def sent(claims: list[Claim]) -> list[Outcome]:
    """Return the outcomes of claims that all reached the broker."""
    return [Outcome(claim, "sent") for claim in claims]


def test_look_tells_the_time_and_what_comes_first(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """An idle look is one statement: the clock, and the earliest wake_at of entries and runs."""
    assert queue.look().now == START
    assert queue.look().entry_wake_at is None
    store.add("a", "t", Once(START + timedelta(seconds=90)))
    look = queue.look()
    assert look.entry_wake_at == START + timedelta(seconds=90)
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
    assert claim.due_at == START + timedelta(seconds=60)
    (run,) = store.runs()
    assert (run.state, run.due_at, run.attempt) == ("claimed", claim.due_at, 1)
    assert run.wake_at == clock.now() + timedelta(seconds=30)
    assert (run.id, run.task_id) == (claim.run_id, claim.task_id)
    entry = store.get("a")
    assert (entry.run_count, entry.cursor_at) == (1, claim.due_at)
    assert entry.next_due_at == START + timedelta(seconds=120)


def test_settle_marks_what_was_sent(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A sent run has its time of sending, and nobody looks at it again."""
    store.add("a", "t", Once(START))
    queue.settle(sent(plan(queue)))
    (run,) = store.runs()
    assert (run.state, run.sent_at, run.wake_at) == ("sent", START, None)
    clock.advance(3600)
    assert sweep(queue) == []


def test_settle_keeps_the_reason_of_what_was_not_sent(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A run that was skipped or failed says why, and when that was."""
    for name in ("a", "b"):
        store.add(name, "t", Once(START))
    first, second = sorted(plan(queue), key=lambda claim: claim.name)
    queue.settle([Outcome(first, "skipped", "already queued: x"), Outcome(second, "failed", "bad")])
    found = {run.entry_name: (run.state, run.reason, run.finished_at) for run in store.runs()}
    assert found == {"a": ("skipped", "already queued: x", START), "b": ("failed", "bad", START)}


def test_an_expired_claim_is_sent_by_another_beat_with_the_same_task_id(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A beat that dies after claiming loses nothing: the same run, the same task id, once."""
    dead, heir = make_queue(), make_queue()
    store.add("a", "t", Once(START))
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


def test_a_beat_that_lost_its_claim_settles_nothing(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A beat that wakes up after its claim expired can't overwrite what its heir wrote."""
    slow, heir = make_queue(), make_queue()
    store.add("a", "t", Once(START))
    late = plan(slow)
    clock.advance(31)
    sweep(heir)
    slow.settle([Outcome(late[0], "failed", "too late")])
    (run,) = store.runs()
    assert run.state == "claimed"


def test_a_claim_that_was_not_sent_is_free_again(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A claim given back is swept at once, or when it asked to be."""
    store.add("a", "t", Once(START))
    (claim,) = plan(queue)
    queue.settle([Outcome(claim, "claimed")])
    (again,) = sweep(queue)
    queue.settle([Outcome(again, "claimed", "flaky", 5.0)])
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
    store.add("a", "t", Once(START))
    plan(leaving)
    leaving.upkeep.withdraw()
    assert len(sweep(heir)) == 1
    [beat] = store.status().beats
    assert (beat.alive, beat.stopped_at) == (False, START)


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
        count, held = first._planner.plan_where(
            connection, ENTRY.c.wake_at <= clock.now(), 3, clock.now()
        )
        assert count == 3
        other = plan(second)
    names = sorted(claim.name for claim in [*held, *other])
    assert names == [f"e{number}" for number in range(6)]


def test_the_unique_key_refuses_a_second_run(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """An occurrence that has a run gets no other, even if its cursor was set back by hand."""
    store.add("a", "t", Every(60))
    plan(queue)
    clock.advance(60)
    queue.settle(sent(plan(queue)))
    with store.database.session() as session:
        session.execute(
            text("UPDATE beatstore_entry SET cursor_at = created_at, wake_at = created_at")
        )
    assert plan(queue) == []
    assert len(store.runs()) == 1


def test_same_instant_entries_are_all_sent(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Entries due at one instant are all claimed, and in the order of due times."""
    for number in range(5):
        store.add(f"e{number}", "t", Once(START))
    store.add("earlier", "t", Once(START - timedelta(seconds=1)))
    claims = plan(queue)
    assert claims[0].name == "earlier"
    assert len(claims) == 6


def test_a_batch_is_bounded_and_the_rest_comes_next(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A plan takes batch_size entries; the next one goes on, earliest first."""
    queue = make_queue(batch_size=2)
    for number in range(5):
        store.add(f"e{number}", "t", Once(START + timedelta(seconds=number)))
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
    store.add("a", "t", Once(START))
    claims = plan(queue)
    store.remove("a")
    assert store.runs()[0].state == "cancelled"
    queue.settle(sent(claims))
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
    assert run.first_missed_at == START + timedelta(hours=1)
    assert run.wake_at is None


def test_a_beat_is_known_by_its_heartbeat(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A beat writes its row, and other zone data than the last beat's is noticed."""
    assert queue.upkeep.introduce(host="h", pid=7, version="1", tzdata="2026a") is False
    (beat,) = store.status().beats
    assert (beat.host, beat.pid, beat.alive) == ("h", 7, True)
    clock.advance(3600)
    assert store.status().beats[0].alive is False


def test_other_zone_data_is_noticed_at_start(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """A beat that starts under other zone data than the last one learns so."""
    make_queue().upkeep.introduce(host="h", pid=7, version="1", tzdata="2026a")
    clock.advance(1)
    assert make_queue().upkeep.introduce(host="h", pid=8, version="1", tzdata="2026a") is False
    clock.advance(1)
    assert make_queue().upkeep.introduce(host="h", pid=9, version="1", tzdata="2026b") is True


def test_other_zone_data_is_noticed_after_an_orderly_end(
    store: Store, make_queue: MakeQueue, clock: ManualClock
) -> None:
    """Whoever upgrades stops beat in order first: what it knew of the zones is still on record."""
    stopped = make_queue()
    stopped.upkeep.introduce(host="h", pid=7, version="1", tzdata="2026a")
    stopped.upkeep.withdraw()
    clock.advance(90_000)
    assert make_queue().upkeep.introduce(host="h", pid=8, version="1", tzdata="2026b") is True


def test_replanning_looks_at_entries_with_a_zone_again(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """After a change of zone data cached due times are made anew, in batches; nothing fires."""
    for number in range(5):
        store.add(f"e{number}", "t", Cron("0 9 * * *", "Europe/Berlin"))
    store.add("once", "t", Once(START + timedelta(days=1)))
    plan(queue)
    with store.database.session() as session:
        session.execute(text("UPDATE beatstore_entry SET next_due_at = NULL, wake_at = wake_at"))
    after: int | None = 0
    rounds = 0
    while after is not None:
        after = queue.upkeep.replan_zones(after, limit=2)
        rounds += 1
    assert rounds == 4
    assert plan(queue) == []
    assert store.get("e4").next_due_at == datetime(2026, 3, 3, 8, 0, tzinfo=timezone.utc)


def test_task_ids_are_stable_and_distinct(store: Store, queue: Queue, clock: ManualClock) -> None:
    """Each occurrence has a task id of its own."""
    store.add("a", "t", Cron("* * * * * *"), grace=600)
    plan(queue)
    clock.advance(50)
    claims = plan(queue)
    assert len({claim.task_id for claim in claims}) == len(claims) == 50


# -- tries, expiry, and many outcomes ------------------------------------------------------


def later(claim: Claim, tries: int, seconds: float) -> Outcome:
    """Return the outcome of a send that failed, and is tried again."""
    return Outcome(claim, "claimed", "sending failed", seconds, tries)


def test_tries_are_counted_on_the_row_and_the_claim(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Each failed try is on the run's row, and whoever sweeps it next knows how many there were."""
    store.add("a", "t", Once(START))
    (claim,) = plan(queue)
    for tries in (1, 2, 3):
        assert claim.tries == tries - 1
        queue.settle([later(claim, tries, 5.0)])
        assert store.runs()[0].tries == tries
        clock.advance(5)
        (claim,) = sweep(queue)
    queue.settle([Outcome(claim, "failed", "sending failed 4 times", tries=4)])
    (run,) = store.runs()
    assert (run.state, run.tries, run.reason) == ("failed", 4, "sending failed 4 times")


def test_an_entry_that_can_not_be_sent_is_looked_at_with_its_run(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Occurrences while a run waits for its next try make no rows; then the policy is asked."""
    store.add("each", "t", Every(1), misfire="coalesce", grace=10)
    store.add("other", "t", Every(1))
    plan(queue)
    clock.advance(1)
    claims = {claim.name: claim for claim in plan(queue)}
    queue.settle([later(claims["each"], 7, 300.0), *sent([claims["other"]])])
    for _ in range(100):
        clock.advance(1)
        assert [claim.name for claim in plan(queue)] == ["other"]
    assert len(store.runs("each")) == 1
    clock.advance(200)
    queue.settle(sent(sweep(queue)))
    (claim,) = [claim for claim in plan(queue) if claim.name == "each"]
    assert claim.missed_count == 299
    assert len(store.runs("each")) == 2


def test_an_entry_that_somebody_holds_is_not_waited_for(
    store: Store, queue: Queue, clock: ManualClock, backend: str
) -> None:
    """An application's open transaction on the entry holds up no outcome."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    store.add("each", "t", Every(1))
    plan(queue)
    clock.advance(1)
    (claim,) = plan(queue)
    with store.database.session() as session:
        store.change("each", description="held", session=session)
        before = time.monotonic()
        queue.settle([later(claim, 1, 60.0)])
        assert time.monotonic() - before < 5
        session.rollback()
    assert store.runs()[0].tries == 1


def test_a_run_asked_for_by_hand_stays_one(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A triggered run of a paused entry that could not be sent at once is sent later."""
    store.add("a", "t", Cron("0 0 1 1 *"))
    store.pause("a")
    store.trigger("a")
    (claim,) = sweep(queue)
    queue.settle([later(claim, 1, 5.0)])
    assert "sending failed" in str(store.runs()[0].reason)
    clock.advance(5)
    assert [claim.name for claim in sweep(queue)] == ["a"]


# When it expires, `run_timeout`; what follows of them, in seconds from the start.
EXPIRES = [
    (None, None, None, None),
    (600.0, None, 600, 610),
    (600.0, 60.0, 600, 60),
    (600.0, 3600.0, 600, 610),
    (START + timedelta(seconds=30), None, 30, 40),
    (START - timedelta(days=1), None, -86400, 10),
    (None, 60.0, None, 60),
]


@pytest.mark.parametrize("case", EXPIRES, ids=repr)
def test_a_message_that_expires_is_looked_after(
    store: Store, queue: Queue, case: tuple[Any, Any, Any, Any]
) -> None:
    """When the broker drops a message is on its run, which is looked at soon after that."""
    expires, timeout, expires_s, wake_s = case
    store.add("a", "t", Once(START), run_timeout=timeout)
    queue.settle([Outcome(claim, "sent", expires=expires) for claim in plan(queue)])
    (run,) = store.runs()

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else START + timedelta(seconds=seconds)

    assert (run.state, run.expires_at, run.wake_at) == ("sent", at(expires_s), at(wake_s))


@pytest.mark.quick_on("sqlite")
def test_more_outcomes_than_a_statement_can_take(store: Store, queue: Queue) -> None:
    """What piled up while the database was away is settled, however much it is."""
    store.add("a", "t", Once(START))
    (claim,) = plan(queue)
    many = [replace(claim, run_id=claim.run_id + number) for number in range(70_000)]
    queue.settle([Outcome(one, "failed", "bad") for one in many])
    queue.settle(sent(many))
    assert store.runs()[0].state == "failed"


def test_a_beat_whose_row_was_deleted_knows(store: Store, queue: Queue) -> None:
    """A heartbeat says whether there was a row to write it to."""
    queue.upkeep.introduce(host="h", pid=1, version="1", tzdata="2026a")
    assert queue.upkeep.heartbeat(BeatFigures(None, 0, 0))
    with store.database.engine.begin() as connection:
        connection.execute(delete(BeatModel))
    assert not queue.upkeep.heartbeat(BeatFigures(None, 0, 0))
