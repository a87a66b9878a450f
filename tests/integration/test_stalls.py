"""Rows that no beat looks at, messages not sent and outcomes that never come are named."""

from __future__ import annotations

from datetime import timedelta

import pytest

from beatstore import Cron, Every
from beatstore.models import RunModel
from beatstore.tick.claims import Outcome
from tests.support.harness.play import Play
from tests.support.harness.ticks import report
from tests.support.stalls import stalled
from tests.support.written import HOUR, MINUTE, NOON, alter, run, write

pytestmark = pytest.mark.usefixtures("reporting_worker")

HOURLY = Cron("0 * * * *")


# -- rows that no beat will look at ---------------------------------------------------------


def test_an_entry_whose_wake_at_was_taken_away(play: Play) -> None:
    """It is active and has a clock, and nobody would ever look; what is named mends it."""
    play.add("a", HOURLY)
    play.tick()
    assert stalled(play, "a") == []
    alter(play.store, "a", wake_at=None)
    assert play.at("13:00") == []
    assert stalled(play, "a") == [
        "'a' is active, but no beat will ever process it, because its wake_at is NULL: write "
        "store.pause('a'), then store.resume('a')."
    ]
    assert play.store.explain("a").next_due_at is None
    play.store.pause("a")
    assert stalled(play, "a") == []
    play.store.resume("a")
    assert play.at("14:00") == ["a"]
    assert stalled(play, "a") == []


def test_an_entry_at_rest_is_not_forgotten(play: Play) -> None:
    """What has no clock has nothing to be looked at for, until an upstream ends."""
    play.add("up", HOURLY)
    play.add("down", after=["up"])
    play.tick()
    assert play.store.get("down").wake_at is None
    assert stalled(play, "down") == []


def test_an_entry_that_has_lost_its_upstreams(play: Play) -> None:
    """Without a clock, and without anybody to run after, it would never run again."""
    play.add("up", HOURLY)
    play.add("down", after=["up"])
    play.tick()
    play.store.remove("up")
    play.tick()
    assert stalled(play, "down") == [
        "'down' runs after its upstreams, and has none left: write store.link('down', …), or "
        "store.remove('down')."
    ]
    play.add("other", HOURLY)
    play.store.link("down", "other")
    play.tick()
    assert stalled(play, "down") == []


def test_a_claim_whose_wake_at_was_taken_away(play: Play) -> None:
    """No beat would ever send it; what is named mends it."""
    play.add("a", HOURLY)
    play.clock.set(NOON + HOUR)
    [claim], _ = play.queue.plan(play.clock.now())
    write_null = "UPDATE beatstore_run SET wake_at = NULL"
    with play.store.database.engine.begin() as connection:
        connection.exec_driver_sql(write_null)
    play.clock.advance(60)
    mend = f"UPDATE beatstore_run SET wake_at = due_at WHERE id = {claim.run_id}"
    assert stalled(play, "a") == [
        f"Run {claim.run_id} of 'a', due 2026-01-15 13:00:00 UTC, is claimed, but no beat will "
        f"ever send it, because its wake_at is NULL: write `{mend}`."
    ]
    with play.store.database.engine.begin() as connection:
        connection.exec_driver_sql(mend)
    assert play.tick() == ["a"]
    assert stalled(play, "a") == []


# -- messages that are not sent -------------------------------------------------------------


def test_a_claim_that_no_beat_takes_over(play: Play) -> None:
    """It has ended, and neither its beat nor another has sent it."""
    play.add("a", HOURLY)
    play.clock.set(NOON + HOUR)
    [claim], _ = play.queue.plan(play.clock.now())
    play.clock.advance(70)
    assert stalled(play, "a") == []
    play.clock.advance(1)
    assert stalled(play, "a") == [
        f"Run {claim.run_id} of 'a', due 2026-01-15 13:00:00 UTC, has not been sent: its claim "
        "expired at 2026-01-15 13:00:30 UTC, and no beat has claimed it since. Perhaps no beat is "
        "alive, or its broker is unreachable (see its log), or another transaction has locked its "
        "row."
    ]


def test_a_run_that_was_asked_for_by_hand_is_given_time(play: Play) -> None:
    """It is to be looked at since ever; what counts is when it was asked for."""
    play.add("a", HOURLY)
    run_id = play.store.trigger("a").id
    assert stalled(play, "a") == []
    play.clock.advance(41)
    assert stalled(play, "a") == [
        f"Run {run_id} of 'a', due 2026-01-15 12:00:00 UTC, has not been sent: no beat has "
        "claimed it since. Perhaps no beat is alive, or its broker is unreachable (see its log), "
        "or another transaction has locked its row."
    ]
    play.tick()
    assert stalled(play, "a") == []


def test_a_message_that_can_not_be_sent(play: Play) -> None:
    """After how many tries, why, and when the next one is."""
    play.add("a", HOURLY)
    play.clock.set(NOON + HOUR)
    [claim], _ = play.queue.plan(play.clock.now())
    play.queue.mark([Outcome(claim, "claimed", "OSError: no\nroute", 300.0, tries=2)])
    assert stalled(play, "a") == []
    play.clock.advance(60)
    assert stalled(play, "a") == [
        f"Run {claim.run_id} of 'a', due 2026-01-15 13:00:00 UTC, has not been sent after 2 tries: "
        "OSError: no route. Beat tries again at 2026-01-15 13:05:00 UTC."
    ]


def test_a_claim_that_its_beat_keeps(play: Play) -> None:
    """A beat that prolongs a claim, as in an alarm of RabbitMQ, does not send it either."""
    play.add("a", HOURLY)
    play.clock.set(NOON + HOUR)
    [claim], _ = play.queue.plan(play.clock.now())
    for _ in range(3):
        play.queue.mark([Outcome(claim, "claimed", retry_in=60.0)])
        play.clock.advance(30)
    [said] = stalled(play, "a")
    beat_id = play.queue._beat_id
    assert f"beat {beat_id} has claimed it until 2026-01-15 13:02:00 UTC" in said


def test_a_late_claim_is_no_stall(play: Play) -> None:
    """What was due long ago and is claimed this moment, after an outage, is on its way."""
    play.add("a", HOURLY, max_retries=1, retry_delay=5000)
    play.clock.set(NOON + timedelta(hours=1, minutes=30))
    [claim], _ = play.queue.plan(play.clock.now())
    assert stalled(play, "a") == []
    play.queue.mark([Outcome(claim, "sent")])
    report(play.store, "failed", [claim], "RuntimeError: no")
    play.tick()
    play.clock.advance(200)
    play.tick()
    assert stalled(play, "a") == []  # its next attempt is not due yet


def test_a_retry_of_a_paused_entry(play: Play) -> None:
    """It will be cancelled when its time comes, which is said while something can be done."""
    play.add("a", HOURLY, max_retries=1, retry_delay=3600)
    play.at("13:00")
    play.end("a", "failed")
    assert play.store.status().warnings == []
    play.store.pause("a")
    [said] = play.store.status().warnings
    assert said == (
        "Attempt 2 of the run of 'a' due 2026-01-15 13:00:00 UTC would be sent at 2026-01-15 "
        "14:00:00 UTC, but 'a' is paused: it will be cancelled then, unless you write "
        "store.resume('a') before."
    )
    sentences = play.store.explain("a").sentences
    assert "It will be cancelled then, unless you write store.resume('a') before." in sentences
    assert play.store.health().warnings == ()  # somebody wanted it so, and need not be woken
    play.at("14:00")
    assert (play.last("a").state, play.store.status().warnings) == ("cancelled", [])


# -- outcomes that never come ---------------------------------------------------------------


@pytest.mark.parametrize("need", ["retries", "downstream"])
def test_runs_that_nobody_reports(play: Play, need: str) -> None:
    """A worker of another queue reports; of this entry nobody has, three times in a row."""
    play.add("a", Every(300), max_retries=int(need == "retries"))
    play.add("other", Every(300))
    if need == "downstream":
        play.add("down", after=["a"])
    for minute in range(5, 35, 5):
        play.at(f"12:{minute:02}")
        play.end("other")
        if minute < 25:
            assert stalled(play, "a") == []
    [said] = stalled(play, "a")
    assert said == (
        "No worker has reported any of the last 3 or more runs of 'a', so its retries and "
        "downstreams wait. Perhaps no worker listens to its queue, or the one that does lacks "
        "beatstore.setup(app)."
    )
    play.end("a")
    assert play.store.status().warnings == []


def test_runs_of_which_nobody_needs_to_know(play: Play) -> None:
    """Where neither retries nor downstreams wait for it, a silent worker is no stall."""
    play.add("a", Every(300))
    for minute in range(5, 60, 5):
        play.at(f"12:{minute:02}")
    assert stalled(play, "a") == []


def test_of_many_runs_the_newest_are_examined(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nearly all are skipped, the search for silent workers does not read them all."""
    play.add("a", Every(300), max_retries=1)
    for minute in range(5, 35, 5):
        play.at(f"12:{minute:02}")
    assert len(stalled(play, "a")) == 1
    entry, since = play.store.get("a"), NOON + 16 * MINUTE
    skipped = [run(entry, since + at * MINUTE, state="skipped") for at in range(4)]
    write(play.store, RunModel, *skipped)
    for sample in ("_SAMPLE", "_SAMPLE_OF_ONE"):
        monkeypatch.setattr(f"beatstore.store.explain.stalls.{sample}", 6)
    assert stalled(play, "a") == []


# -- beats that are behind ------------------------------------------------------------------


def test_a_beat_that_does_not_look(play: Play) -> None:
    """What is due for long though a beat is alive is named: it is behind, or rows are held."""
    play.add("a", HOURLY)
    play.tick()
    play.clock.set(NOON + timedelta(hours=1, minutes=2))
    play.queue.upkeep.introduce(host="h", pid=1, version="0", tzdata="x")
    assert play.store.status().warnings == [
        "1 entry has been overdue since 2026-01-15 13:00:00 UTC, though a beat is alive: 'a'. Beat "
        "is behind, its broker is unreachable, or another transaction has locked these rows: see "
        "its log."
    ]
    play.tick()
    assert play.store.status().warnings == []


def test_a_beat_that_was_stopped_is_no_riddle(play: Play) -> None:
    """Whoever asks why nothing runs reads that beat was stopped, and when."""
    play.add("a", HOURLY)
    play.queue.upkeep.introduce(host="h", pid=1, version="0", tzdata="x")
    play.clock.advance(60)
    play.queue.upkeep.withdraw()
    play.clock.advance(3600)
    sentences = play.store.explain("a").sentences
    assert "No beat is alive: the last one was stopped at 12:01:00." in sentences
    assert play.store.health().beat_stopped_at == NOON + MINUTE


def test_what_ended_long_ago_is_no_stall(play: Play) -> None:
    """History has no say: only what is still open."""
    entry = play.store.add("a", "t", HOURLY, max_retries=1)
    for minutes, state in enumerate(("failed", "lost", "cancelled", "skipped", "missed"), 15):
        row = run(entry, NOON - minutes * MINUTE, state=state, sent_at=NOON - HOUR, tries=3)
        write(play.store, RunModel, row)
    assert stalled(play, "a") == []
