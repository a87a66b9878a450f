"""Who stands still is named, with what to write: by status, by check and by explain."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from beatstore import After, Cron, Every, Once
from beatstore.models import RunModel, WorkerModel
from beatstore.store.explain.wording import Wording
from beatstore.tick.claims import Outcome
from tests.support.play import Play
from tests.support.ticks import report
from tests.support.written import DAY, HOUR, MINUTE, NOON, alter, run, write

HOURLY = Cron("0 * * * *")


@pytest.fixture(autouse=True)
def worker(play: Play) -> None:
    """Let a worker be on record that reports outcomes."""
    row = {
        "id": "1",
        "name": "celery@a",
        "pid": 1,
        "version": "0",
        "heartbeat_at": NOON + 365 * DAY,
    }
    write(play.store, WorkerModel, row)


def later(play: Play, **span: float) -> None:
    """Let time pass, and beats look."""
    play.clock.advance(timedelta(**span).total_seconds())
    play.tick()


def stalled(play: Play, name: str) -> list[str]:
    """Return what stands still, which all three must agree on."""
    warnings = play.store.status().warnings
    assert list(play.store.health().warnings) == warnings
    for said in warnings:
        assert explained(play, said) in play.store.explain(name).sentences
    return warnings


def explained(play: Play, said: str) -> str:
    """Return a warning as `explain` has it, which tells instants as people do."""
    return Wording("UTC", play.clock.now()).retold(said)


# -- waits that nothing ends ----------------------------------------------------------------


def paused(play: Play) -> None:
    """Pause the upstream."""
    play.store.pause("up")


def broken(play: Play) -> None:
    """Spoil the upstream."""
    alter(play.store, "up", state="broken", error="no", wake_at=None)


def cancelled(play: Play) -> None:
    """Let the upstream be over for good, by hand."""
    alter(play.store, "up", state="cancelled", wake_at=None)


def finished(play: Play) -> None:
    """Let the upstream come to its end."""
    alter(play.store, "up", state="finished", wake_at=None)


def removed(play: Play) -> None:
    """Let the upstream be gone, where nobody told."""
    alter(play.store, "down", blocked_by=99_999)


UNLINK = "store.unlink('down', 'up') ends the wait."
OUT_OF_SERVICE = {
    paused: f"'up' to succeed, which is paused: write store.resume('up'); {UNLINK}",
    broken: f"'up' to succeed, which is broken: fix it with store.change('up', …); {UNLINK}",
    cancelled: f"'up' to succeed, which is cancelled, and will not run again: {UNLINK}",
    finished: "'up' to succeed, which is finished, and will not run again: store.trigger('up') "
    f"runs it once more; {UNLINK}",
    removed: "an upstream that was removed: see store.explain('down'), and unlink it.",
}


@pytest.mark.any_database
@pytest.mark.parametrize("state", OUT_OF_SERVICE, ids=lambda state: state.__name__)
def test_an_upstream_that_will_not_run(play: Play, state: Callable[[Play], None]) -> None:
    """Who waits for it is named after ten minutes, with what the upstream is and what to write."""
    play.add("up", Cron("30 0 1 1 *"))
    play.add("down", HOURLY, after=["up"])
    assert play.at("13:00") == []
    state(play)
    others = play.store.status().warnings  # that the upstream is broken
    play.clock.advance(600)
    assert play.store.status().warnings == others
    play.clock.advance(1)
    start = "'down' has been waiting since 2026-01-15 13:00:00 UTC for"
    [said] = [one for one in play.store.status().warnings if one not in others]
    assert said == f"{start} {OUT_OF_SERVICE[state]}"
    assert said in play.store.health().warnings
    assert explained(play, said) in play.store.explain("down").sentences
    play.store.pause("down")
    assert said not in play.store.status().warnings


def test_the_remedies_that_are_named_end_the_wait(play: Play) -> None:
    """What a warning says to write helps."""
    for name in ("one", "two"):
        play.add(f"up-{name}", HOURLY, paused=True)
        play.add(f"down-{name}", HOURLY, after=[f"up-{name}"])
    play.at("13:00")
    later(play, minutes=20)
    assert len(play.store.status().warnings) == 2
    play.store.unlink("down-one", "up-one")
    assert play.tick() == ["down-one"]
    play.store.resume("up-two")
    assert play.at("14:00") == ["up-two", "down-one"]
    assert play.end("up-two") == ["down-two"]
    assert play.store.status().warnings == []


def test_an_upstream_that_is_at_its_last_run_is_waited_for(play: Play) -> None:
    """A one-shot is finished when it is sent, and its task may take hours."""
    play.add("up", Once(NOON + HOUR))
    play.add("down", HOURLY, after=["up"])
    play.at("13:00")
    report(play.store, "started", play.held["up"])
    play.clock.advance(40)  # of its heartbeat
    later(play, minutes=20)
    assert play.store.get("up").state == "finished"
    assert stalled(play, "down") == []


def test_the_upstream_behind_an_upstream_is_found(play: Play) -> None:
    """An entry without a clock, at rest, is not to blame: the one that it waits for is."""
    play.add("root", Once(NOON + MINUTE))
    play.add("mid", after=["root"])
    play.add("down", HOURLY, after=["mid"])
    later(play, minutes=1)
    play.end("root", "failed")
    play.at("13:00")
    later(play, minutes=11)
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'mid', which waits for 'root', "
        "which is finished, and will not run again: store.trigger('root') runs it once more; "
        "store.unlink('mid', 'root') ends the wait."
    ]


def test_an_upstream_that_never_succeeds(play: Play) -> None:
    """One failure can be chance; after the second a person is told."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=["up"])
    play.at("13:00")
    play.end("up", "failed")
    later(play, minutes=30)
    assert stalled(play, "down") == []
    play.at("14:00")
    play.end("up", "failed")
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'up' to succeed, which has "
        "failed 2 times since: see store.errors('up')."
    ]
    play.at("15:00")
    assert play.end("up") == ["down"]
    play.end("down")
    assert stalled(play, "down") == []


def test_an_upstream_that_is_not_due_yet_is_waited_for(play: Play) -> None:
    """However often the entry's own time comes meanwhile, and through an entry without a clock."""
    play.add("daily", Cron("0 11 * * *"))
    play.add("mid", after=["daily"])
    play.add("down", Every(60), after=["mid"])
    play.add("other", Every(60), after=["daily"])
    for hours in (1, 12, 22):
        play.clock.set(NOON + timedelta(hours=hours, minutes=30))
        play.tick()
        assert stalled(play, "down") == []


def test_a_wait_that_is_longer_than_both_rhythms(play: Play) -> None:
    """Where nothing else is known to be wrong, the time alone tells: three times of each."""
    play.add("up", HOURLY)
    play.add("down", HOURLY, after=[After("up", on="failure")])
    for hour in ("13", "14", "15"):
        play.at(f"{hour}:00")
        play.end("up")
        later(play, minutes=30)
        assert stalled(play, "down") == []
    play.at("16:00")
    play.end("up")
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'up' to fail; that is 3 h, "
        "longer than both usually take: see store.explain('up')."
    ]


def test_an_upstream_whose_message_is_gone(play: Play) -> None:
    """Its run was sent, and nobody reports it, while the entry's own time comes and goes."""
    play.add("up", Cron("0 13 * * *"))
    play.add("down", Every(300), after=["up"])
    play.at("13:00")
    later(play, minutes=9)
    assert stalled(play, "down") == []
    later(play, minutes=10)
    last = play.last("up")
    assert stalled(play, "down") == [
        "'down' has been waiting since 2026-01-15 13:00:00 UTC for 'up' to succeed: run "
        f"{last.id} of that upstream was sent at 2026-01-15 13:00:00 UTC, and no worker has "
        f"reported it. If its message is gone, write `beatstore end {last.id} --as failed`."
    ]
    play.store.end(last, "failed")
    alter(play.store, "up", run_timeout_s=3600)
    play.clock.set(NOON + timedelta(days=1, hours=1))
    play.tick()
    later(play, minutes=20)
    [said] = stalled(play, "down")
    assert " If no worker reports by 2026-01-16 14:00:00 UTC, it is marked lost. If" in said


def test_a_few_are_named_and_those_for_good_first(play: Play) -> None:
    """A thousand that wait for a slow upstream do not hide the one that waits for ever."""
    play.add("slow", Cron("0 0 1 1 *"))
    play.add("up", HOURLY, paused=True)
    for number in range(210):
        play.add(f"d{number}", Every(600), after=["slow"])
    later(play, minutes=10)
    play.add("down", Every(600), after=["up"])
    later(play, minutes=10)
    later(play, minutes=30)
    [said] = play.store.status().warnings
    assert said.startswith("'down' has been waiting since ")


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
        "alive, or another transaction has locked its row."
    ]


def test_a_run_that_was_asked_for_by_hand_is_given_time(play: Play) -> None:
    """It is to be looked at since ever; what counts is when it was asked for."""
    play.add("a", HOURLY)
    run_id = play.store.trigger("a").id
    assert stalled(play, "a") == []
    play.clock.advance(41)
    assert stalled(play, "a") == [
        f"Run {run_id} of 'a', due 2026-01-15 12:00:00 UTC, has not been sent: no beat has "
        "claimed it since. Perhaps no beat is alive, or another transaction has locked its row."
    ]
    play.tick()
    assert stalled(play, "a") == []


def test_a_message_that_can_not_be_sent(play: Play) -> None:
    """After how many tries, why, and when the next one is."""
    play.add("a", HOURLY)
    play.clock.set(NOON + HOUR)
    [claim], _ = play.queue.plan(play.clock.now())
    play.queue.settle([Outcome(claim, "claimed", "OSError: no\nroute", 300.0, tries=2)])
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
        play.queue.settle([Outcome(claim, "claimed", retry_in=60.0)])
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
    play.queue.settle([Outcome(claim, "sent")])
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
