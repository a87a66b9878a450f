"""Two things of one instant are two runs: each has its effect, and is counted, once."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import update

from beatstore import After, Every
from beatstore.models import EntryModel, RunModel
from beatstore.tick.claims import Claim, Outcome
from beatstore.tick.queue import Queue
from tests.support.harness.play import NOON, Play
from tests.support.harness.ticks import report

pytestmark = pytest.mark.every_database

HOURLY = "0 * * * *"

#: An instant that no cron has, as a clock shows it.
ODD = datetime(2026, 1, 15, 13, 0, 0, 217_000, tzinfo=timezone.utc)


def sweep(queue: Queue, now: datetime) -> list[Claim]:
    """Let a beat send what is to be sent again or was triggered."""
    claims = queue.sweep(now).claims
    queue.mark([Outcome(claim, "sent") for claim in claims])
    return claims


def plan(queue: Queue, now: datetime) -> list[Claim]:
    """Let a beat send what is due."""
    claims, _ = queue.plan(now)
    queue.mark([Outcome(claim, "sent") for claim in claims])
    return claims


@pytest.mark.parametrize("align", ["latest", "same"])
@pytest.mark.parametrize("beats", [1, 2])
def test_a_trigger_and_a_completion_at_one_instant(play: Play, align: str, beats: int) -> None:
    """The downstream that was triggered runs for that, and once more for its upstream."""
    play.add("up", HOURLY)
    play.add("down", after=[After("up", align=align)])  # type: ignore[arg-type]
    play.at("13:00")
    play.clock.set(ODD)
    play.store.trigger("down")
    report(play.store, "succeeded", play.held.pop("up"))
    other = Queue(play.store.database, play.store.settings, str(uuid.uuid4()))
    first = sweep(play.queue, ODD)
    second = plan(other if beats > 1 else play.queue, ODD)
    assert [claim.name for claim in (*first, *second)] == ["down", "down"]
    assert len({claim.task_id for claim in (*first, *second)}) == 2
    assert play.tick() == []
    assert len(play.store.runs("down")) == play.store.get("down").run_count == 2
    other.close()


def test_a_trigger_moves_aside_for_the_schedule(play: Play) -> None:
    """An occurrence keeps its due time, and a run that was triggered for it has another one."""
    half = timedelta(seconds=0.5)
    play.add("a", Every(half, anchor=NOON))
    play.tick()
    play.clock.set(NOON + half)
    made = play.store.trigger("a")
    assert made.due_at == NOON + half
    assert play.tick() == ["a", "a"]
    times = sorted(run.due_at for run in play.store.runs("a") if run.due_at > NOON)
    assert times == [NOON + half, NOON + half + timedelta(microseconds=1)]
    assert play.store.get("a").run_count == len(play.store.runs("a"))


def test_an_occurrence_that_was_written_before_is_not_counted_again(play: Play) -> None:
    """A cursor that was set back, as by a backup, sends nothing twice and uses nothing up."""
    play.add("up", HOURLY)
    play.add("a", HOURLY, after=["up"])
    play.at("13:00")
    assert play.end("up") == ["a"]
    play.end("a")
    play.store.trigger("up")
    play.tick()
    with play.store.database.session() as session:
        back = {"cursor_at": NOON, "wake_at": NOON}
        session.execute(update(EntryModel).where(EntryModel.name == "a").values(**back))
    play.end("up")
    assert len(play.store.runs("a")) == 1
    assert play.store.get("a").run_count == 1
    assert play.at("14:00") == ["up", "a"]  # the completion was not used up by what was there


def test_what_is_triggered_at_once_is_told_apart(play: Play) -> None:
    """Runs that are triggered while the clock stands still have instants of their own."""
    play.add("up", "0 20 * * *")
    play.add("down", after=["up"])
    play.clock.set(ODD)
    for name in ("up", "down", "up"):
        play.store.trigger(name)
    assert sorted(play.tick()) == ["down", "up", "up"]
    assert play.end("up") == ["down", "down"]
    runs = play.store.runs("down")
    assert len(runs) == play.store.get("down").run_count == 3
    assert len({run.due_at for run in (*runs, *play.store.runs("up"))}) == 3


def test_a_next_attempt_and_a_rerun_are_not_one(play: Play) -> None:
    """A rerun while the next attempt waits is refused; when all is over it has a row of its own."""
    play.add("a", HOURLY, max_retries=1, retry_delay=60)
    play.at("13:00")
    play.end("a", "failed")
    (first, second) = sorted(play.store.runs("a"), key=lambda run: run.attempt)
    with pytest.raises(ValueError, match="its attempt 2 is claimed"):
        play.store.rerun(first.id)
    play.at("13:01")
    play.end("a", "failed")
    again = play.store.rerun(second.id)
    assert again.attempt == 3
    play.tick()
    assert [claim.attempt for claim in play.held["a"]] == [3]


def test_many_collide_in_one_batch(play: Play) -> None:
    """A batch in which some runs are there already writes the others, and counts them alone."""
    for number in range(20):
        play.add(f"e{number:02}", HOURLY)
    with play.store.database.session() as session:
        for number in range(0, 20, 2):
            entry = play.store.get(f"e{number:02}")
            row = {"entry_id": entry.id, "entry_name": entry.name, "task_id": f"x{number}"}
            due_at = NOON + timedelta(hours=1)
            session.add(RunModel(**row, due_at=due_at, attempt=1, state="succeeded"))
    sent = play.at("13:00")
    assert sent == [f"e{number:02}" for number in range(1, 20, 2)]
    counts = [play.store.get(f"e{number:02}").run_count for number in range(20)]
    assert counts == [number % 2 for number in range(20)]
