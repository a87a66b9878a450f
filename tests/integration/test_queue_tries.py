"""Runs that could not be sent, and messages that expire, on every database."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from beatstore import Cron, Every, Once, Store
from beatstore.clock import ManualClock
from beatstore.database.tables import RUN
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.queue import Queue
from tests.support.harness.ticks import plan, report, sent, sweep
from tests.support.written import NOON

pytestmark = [pytest.mark.every_database, pytest.mark.by_clock]


def later(claim: Claim, tries: int, seconds: float) -> Outcome:
    """Return the outcome of a send that failed, and is tried again."""
    return Outcome(claim, "claimed", "sending failed", seconds, tries)


def claimed(store: Store, queue: Queue, clock: ManualClock) -> Claim:
    """Add an entry that is due each second, and return the claim of its first run."""
    store.add("each", "t", Every(1))
    plan(queue)
    clock.advance(1)
    (claim,) = plan(queue)
    return claim


def test_tries_are_counted_on_the_row_and_the_claim(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """Each failed try is on the run's row, and whoever sweeps it next knows how many there were."""
    store.add("a", "t", Once(NOON))
    (claim,) = plan(queue)
    for tries in (1, 2, 3):
        assert claim.tries == tries - 1
        queue.mark([later(claim, tries, 5.0)])
        assert store.runs()[0].tries == tries
        clock.advance(5)
        (claim,) = sweep(queue)
    queue.mark([Outcome(claim, "failed", "sending failed 4 times", tries=4)])
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
    queue.mark([later(claims["each"], 7, 300.0), *sent([claims["other"]])])
    for _ in range(100):
        clock.advance(1)
        assert [claim.name for claim in plan(queue)] == ["other"]
    assert len(store.runs("each")) == 1
    clock.advance(200)
    queue.mark(sent(sweep(queue)))
    (claim,) = [claim for claim in plan(queue) if claim.name == "each"]
    assert claim.missed_count == 299
    assert len(store.runs("each")) == 2


def test_a_run_that_has_started_delays_nothing(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A beat heard nothing of a message that a worker has: the entry is looked at as planned."""
    claim = claimed(store, queue, clock)
    planned = store.get("each").wake_at
    report(store, "started", [claim])
    queue.mark([later(claim, 1, 300.0)])
    assert (store.runs()[0].state, store.runs()[0].tries) == ("started", 0)
    assert store.get("each").wake_at == planned


def test_a_run_that_another_beat_has_given_back_delays_nothing(
    store: Store, queue: Queue, clock: ManualClock
) -> None:
    """A beat that stood still puts off no entry whose run another beat has taken over."""
    claim = claimed(store, queue, clock)
    planned = store.get("each").wake_at
    with store.database.session() as session:
        session.execute(update(RUN).values(claimed_by=None))
        session.commit()
    queue.mark([later(claim, 1, 300.0)])
    assert store.runs()[0].tries == 0
    assert store.get("each").wake_at == planned


def test_an_entry_that_somebody_holds_is_not_waited_for(
    store: Store, queue: Queue, clock: ManualClock, backend: str
) -> None:
    """An application's open transaction on the entry holds up no outcome."""
    if backend == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    claim = claimed(store, queue, clock)
    with store.database.session() as session:
        store.change("each", description="held", session=session)
        before = time.monotonic()
        queue.mark([later(claim, 1, 60.0)])
        assert time.monotonic() - before < 5
        session.rollback()
    assert store.runs()[0].tries == 1


def test_a_run_asked_for_by_hand_stays_one(store: Store, queue: Queue, clock: ManualClock) -> None:
    """A triggered run of a paused entry that could not be sent at once is sent later."""
    store.add("a", "t", Cron("0 0 1 1 *"))
    store.pause("a")
    store.trigger("a")
    (claim,) = sweep(queue)
    queue.mark([later(claim, 1, 5.0)])
    assert "sending failed" in str(store.runs()[0].reason)
    clock.advance(5)
    assert [claim.name for claim in sweep(queue)] == ["a"]


# When it expires, `run_timeout`; what follows of them, in seconds from the start.
EXPIRES = [
    (None, None, None, None),
    (600.0, None, 600, 610),
    (600.0, 60.0, 600, 60),
    (600.0, 3600.0, 600, 610),
    (NOON + timedelta(seconds=30), None, 30, 40),
    (NOON - timedelta(days=1), None, -86400, 10),
    (None, 60.0, None, 60),
]


@pytest.mark.parametrize("case", EXPIRES, ids=repr)
def test_a_message_that_expires_is_looked_after(
    store: Store, queue: Queue, case: tuple[Any, Any, Any, Any]
) -> None:
    """When the broker drops a message is on its run, which is looked at soon after that."""
    expires, timeout, expires_s, wake_s = case
    store.add("a", "t", Once(NOON), run_timeout=timeout)
    queue.mark([Outcome(claim, "sent", expires=expires) for claim in plan(queue)])
    (run,) = store.runs()

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else NOON + timedelta(seconds=seconds)

    assert (run.state, run.expires_at, run.wake_at) == ("sent", at(expires_s), at(wake_s))


@pytest.mark.quick_on("sqlite")
def test_more_outcomes_than_a_statement_can_take(store: Store, queue: Queue) -> None:
    """What piled up while the database was away is settled, however much it is."""
    store.add("a", "t", Once(NOON))
    (claim,) = plan(queue)
    many = [replace(claim, run_id=claim.run_id + number) for number in range(70_000)]
    queue.mark([Outcome(one, "failed", "bad") for one in many])
    queue.mark(sent(many))
    assert store.runs()[0].state == "failed"
